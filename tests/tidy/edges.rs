//! Dependencies point one way, and each has its reason.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::check;
use crate::tree::{read, read_toml};

/// Member, and the members it may depend on. The root is the proving ground: it may use all.
const EDGES: [(&str, &[&str]); 11] = [
    ("wire", &[]),
    ("routing", &["wire"]),
    ("broker", &["wire", "routing"]),
    ("client", &["wire"]),
    ("gateway", &["wire", "routing", "client"]),
    ("cli", &["wire", "routing", "broker", "client", "gateway"]),
    ("benches/load", &["wire", "client"]),
    ("benches/micro", &["wire", "routing"]),
    ("benches/routes", &["wire", "routing"]),
    ("tests/endure", &["client", "gateway"]),
    ("tests/sim", &["wire", "broker", "client", "gateway"]),
];

/// What pure rooms never link: runtimes, system interfaces, chance, logs, clocks.
const NEVER_IN_PURE: [&str; 14] = [
    "tokio",
    "io-uring",
    "mio",
    "socket2",
    "rustix",
    "libc",
    "rand",
    "getrandom",
    "fastrand",
    "tracing",
    "log",
    "chrono",
    "time",
    "futures-util",
];

/// Rooms that are pure.
const PURE: [&str; 2] = ["wire", "routing"];

fn keys(manifest: &Table, table: &str) -> BTreeSet<String> {
    let table = manifest.get(table).and_then(Value::as_table);
    table.into_iter().flat_map(Table::keys).cloned().collect()
}

/// Dependencies that reach users, those of single platforms and of build scripts among them.
fn shipped(manifest: &Table) -> BTreeSet<String> {
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter();
    let tables = platforms.flat_map(Table::values).filter_map(Value::as_table).chain([manifest]);
    let mut names = BTreeSet::new();
    for table in tables {
        names.extend(keys(table, "dependencies"));
        names.extend(keys(table, "build-dependencies"));
    }
    names
}

/// The member behind a dependency's name.
fn member(dependency: &str) -> Option<&str> {
    let name = dependency.strip_prefix("waybill-")?;
    EDGES.iter().map(|(room, _)| *room).find(|room| *room == name)
}

#[test]
fn dependencies_point_one_way() {
    let mut breaches = Vec::new();
    for (room, allowed) in EDGES {
        let manifest = read_toml(&format!("{room}/Cargo.toml"));
        // Own tests may not lean on a room further up either: whole-system tests are the root's.
        for dependency in shipped(&manifest).union(&keys(&manifest, "dev-dependencies")) {
            let internal = member(dependency);
            if internal.is_some_and(|name| !allowed.contains(&name)) {
                breaches.push(format!("{room}/Cargo.toml: {room} must not know {dependency}"));
            }
            if internal.is_none() && dependency.starts_with("waybill") {
                breaches.push(format!("{room}/Cargo.toml: {dependency} is no member"));
            }
        }
    }
    check(&breaches);
}

#[test]
fn pure_rooms_link_nothing_impure() {
    let mut breaches = Vec::new();
    for room in PURE {
        let dependencies = shipped(&read_toml(&format!("{room}/Cargo.toml")));
        for name in NEVER_IN_PURE.iter().filter(|name| dependencies.contains(**name)) {
            breaches.push(format!("{room}/Cargo.toml: {name}: no I/O, clock or chance here"));
        }
    }
    check(&breaches);
}

#[test]
fn every_member_has_its_edges() {
    let root = read_toml("Cargo.toml");
    let listed = |key: &str| -> BTreeSet<String> {
        let list = root["workspace"][key].as_array().expect("a list").iter();
        list.map(|name| name.as_str().expect("a path").into()).collect()
    };
    let known = EDGES.iter().map(|(room, _)| *room).chain(["."]).map(String::from).collect();
    assert_eq!(listed("members"), known, "a new member needs a line in EDGES");
    // The simulator turns features on that a plain build of the others must not have.
    let mut plain = known;
    plain.remove("tests/sim");
    assert_eq!(listed("default-members"), plain, "plain `cargo test` must reach every member");
    assert!(shipped(&root).is_empty(), "the root package only tests");
}

#[test]
fn every_dependency_has_its_reason() {
    let mut breaches = Vec::new();
    let members = EDGES.iter().map(|(room, _)| format!("{room}/Cargo.toml"));
    for path in members.chain(["Cargo.toml".into(), "fuzz/Cargo.toml".into()]) {
        for line in lines_without_reason(&read(&path)) {
            breaches.push(format!("{path}:{line}: say beside it, or above, what this is here for"));
        }
    }
    check(&breaches);
}

fn lines_without_reason(manifest: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let (mut in_dependencies, mut reason_above) = (false, false);
    for (at, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            // The workspace's table only says versions; the users say what for.
            in_dependencies = line.contains("dependencies") && !line.contains("workspace");
        }
        let entry = line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains('=');
        if in_dependencies && entry && !reason_above && !line.contains(" # ") {
            found.push(at + 1);
        }
        reason_above = line.starts_with('#');
    }
    found
}

#[test]
fn a_reason_stands_beside_or_above() {
    let manifest = "[dependencies]\na = 1 # why\n# why\nb = 1\nc = 1\n\n[features]\nd = []\n";
    assert_eq!(lines_without_reason(manifest), [5]);
}
