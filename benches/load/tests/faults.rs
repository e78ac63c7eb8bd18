//! The bench catches what it is there to catch: a relay that drops, doubles or misdirects one
//! message in 97 fails the run, by the fault's name.

use std::fs;
use std::process::Command;

use waybill_bench::results::Results;

/// One message to a user, to a thousand of them or to all, and no longer than it takes.
fn scenario(work: &str) -> String {
    format!(
        r#"
title = "what a relay does wrong is seen"
kind = "throughput"
work = "{work}"
targets = ["relay-epoll", "relay-uring"]
users = [5000]
gateways = [4]
payload_bytes = [64]
repeats = 1
seconds = 0.2
warm_up_seconds = 0.1
drain_seconds = 1.5
"#
    )
}

/// The names of what was found wrong with each target, and whether the run failed.
fn run(work: &str, planted: Option<&str>) -> (bool, Vec<(String, Vec<String>)>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, json) = (folder.path().join("planted.toml"), folder.path().join("out.json"));
    fs::write(&file, scenario(work)).expect("a file in it");
    let mut command = Command::new(env!("CARGO_BIN_EXE_waybill-bench"));
    command.arg("run").arg(&file).arg("--free").arg("--json").arg(&json);
    match planted {
        Some(fault) => command.env("WAYBILL_PLANTED", fault),
        None => command.env_remove("WAYBILL_PLANTED"),
    };
    let output = command.output().expect("the bench beside this test");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = fs::read_to_string(&json).expect(&said);
    let results: Results = serde_json::from_str(&json).expect("results");
    let found = results.scenarios[0].rows.iter().map(|row| {
        let names: Vec<String> = row.faults.iter().map(|fault| fault.name.to_string()).collect();
        assert_eq!(row.ok, names.is_empty(), "{said}");
        assert!(names.iter().all(|name| said.contains(name)), "not said: {names:?} in {said}");
        (row.target.clone(), names)
    });
    let found: Vec<_> = found.collect();
    // Where the system has no io_uring, there is one relay.
    let skipped = &results.scenarios[0].skipped;
    assert!(skipped.iter().all(|skipped| skipped.target == "relay-uring"), "{skipped:?}");
    assert_eq!(found.len() + skipped.len(), 2, "{found:?}");
    (output.status.code() == Some(1), found)
}

/// Both relays, on this work, are seen to have this fault.
fn is_caught(planted: &str, works: &[&str], names: &[&str]) {
    for work in works {
        let (failed, found) = run(work, Some(planted));
        assert!(failed, "{planted} did not fail the run");
        for (target, found) in found {
            for name in names {
                let caught = found.iter().any(|found| found == name);
                assert!(caught, "{target} with {planted}: {name} is not in {found:?}");
            }
        }
    }
}

#[test]
fn a_relay_without_a_fault_passes() {
    for work in ["single", "group", "broadcast"] {
        let (failed, found) = run(work, None);
        assert!(!failed, "{work}: {found:?}");
    }
}

#[test]
fn a_dropped_message_is_caught() {
    is_caught("drop:97", &["single", "group", "broadcast"], &["lost"]);
}

#[test]
fn a_message_delivered_twice_is_caught() {
    is_caught("twice:97", &["single", "group", "broadcast"], &["duplicate"]);
}

#[test]
fn a_message_to_the_wrong_gateway_is_caught() {
    is_caught("wrong:97", &["single", "group"], &["wrong_gateway", "lost"]);
}
