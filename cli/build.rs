//! Tells the program which commit it is made from. Without git, or outside of the repository, it
//! is a version alone.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// What the program is made from, seen from this folder.
const SOURCES: [&str; 8] = [
    "../broker",
    "../cli",
    "../client",
    "../gateway",
    "../routing",
    "../wire",
    "../Cargo.toml",
    "../Cargo.lock",
];

fn main() {
    let commit = commit();
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo names the version");
    let version = match &commit {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    let mut out = std::io::stdout().lock();
    // Not WAYBILL_...: `cargo run` hands it to the program, to which that would be a setting.
    writeln!(out, "cargo::rustc-env=VERSION_AND_COMMIT={version}").expect("cargo reads");
    writeln!(out, "cargo::rerun-if-changed=build.rs").expect("cargo reads");
    // What a new commit, or another one, writes to.
    let heads = ["HEAD", "logs/HEAD"].map(|name| git(&["rev-parse", "--git-path", name]));
    let sources = SOURCES.map(|path| commit.is_some().then(|| path.to_owned()));
    for path in heads.into_iter().chain(sources).flatten() {
        // One that is not there would make every build one with changes.
        if Path::new(&path).exists() {
            writeln!(out, "cargo::rerun-if-changed={path}").expect("cargo reads");
        }
    }
}

/// The commit, and whether the sources differ from it.
fn commit() -> Option<String> {
    // Sources unpacked into somebody else's repository are not of its commit.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    let commit = git(&["rev-parse", "--short=7", "HEAD"])?;
    let changed = git(&[&["diff", "--name-only", "HEAD", "--"], &SOURCES[..]].concat())?;
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}
