//! Tells the program which compiler made it: instruction counts belong to one.

use std::io::Write as _;
use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").expect("cargo names the compiler");
    let version = Command::new(rustc).arg("--version").output().expect("the compiler runs").stdout;
    let version = String::from_utf8(version).expect("a version is text");
    let target = std::env::var("TARGET").expect("cargo names the target");
    let mut out = std::io::stdout().lock();
    writeln!(out, "cargo::rustc-env=WAYBILL_MICRO_RUSTC={}", version.trim()).expect("cargo reads");
    writeln!(out, "cargo::rustc-env=WAYBILL_MICRO_TARGET={target}").expect("cargo reads");
    writeln!(out, "cargo::rerun-if-changed=build.rs").expect("cargo reads");
}
