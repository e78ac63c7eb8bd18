//! The tree speaks of the project alone: nothing in it names a machine it was written on.

use crate::check;
use crate::tree::files;

/// Built from halves, so that this file does not hold them itself.
const TRACES: [&str; 12] = [
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "bash"),
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("sparse", "+http"),
    concat!("py", "pi.org"),
    concat!("python", "hosted"),
    concat!("registry.np", "mjs"),
    concat!("npm", "mirror"),
    concat!("proxy.go", "lang"),
];

#[test]
fn no_trace_of_a_workplace() {
    let mut breaches = Vec::new();
    for file in files("") {
        for (at, line) in file.text.lines().enumerate() {
            if let Some(trace) = TRACES.iter().find(|trace| line.contains(**trace)) {
                breaches.push(format!("{}:{}: {trace}", file.path, at + 1));
            }
        }
    }
    check(&breaches);
}
