//! The bench catches what it is there to catch: a relay, or a broker, that drops, doubles or
//! misdirects one message in 97 fails the run, by the fault's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use waybill_bench::results::Results;

/// One message to a user, to a thousand of them or to all, and no longer than it takes.
fn scenario(work: &str, targets: &[&str]) -> String {
    format!(
        r#"
title = "what a relay does wrong is seen"
kind = "throughput"
work = "{work}"
targets = {targets:?}
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

const RELAYS: [&str; 2] = ["relay-epoll", "relay-uring"];

/// The names of what was found wrong with each relay, and whether the run failed.
fn run(work: &str, planted: Option<&str>) -> (bool, Vec<(String, Vec<String>)>) {
    run_targets(&RELAYS, work, planted, &[])
}

/// The same of these targets, with more arguments.
fn run_targets(
    targets: &[&str],
    work: &str,
    planted: Option<&str>,
    arguments: &[&Path],
) -> (bool, Vec<(String, Vec<String>)>) {
    run_scenario(&scenario(work, targets), targets.len(), planted, arguments)
}

/// The same of a scenario with so many targets.
fn run_scenario(
    scenario: &str,
    targets: usize,
    planted: Option<&str>,
    arguments: &[&Path],
) -> (bool, Vec<(String, Vec<String>)>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, json) = (folder.path().join("planted.toml"), folder.path().join("out.json"));
    fs::write(&file, scenario).expect("a file in it");
    let mut command = Command::new(env!("CARGO_BIN_EXE_waybill-bench"));
    command.arg("run").arg(&file).arg("--free").arg("--json").arg(&json).args(arguments);
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
    assert_eq!(found.len() + skipped.len(), targets, "{found:?}");
    (output.status.code() == Some(1), found)
}

/// Both relays, on this work, are seen to have this fault.
fn is_caught(planted: &str, works: &[&str], names: &[&str]) {
    for work in works {
        has_all(run(work, Some(planted)), planted, names);
    }
}

/// A run failed, and each of its targets by all of these names.
fn has_all((failed, found): (bool, Vec<(String, Vec<String>)>), planted: &str, names: &[&str]) {
    assert!(failed, "{planted} did not fail the run");
    for (target, found) in found {
        for name in names {
            let caught = found.iter().any(|found| found == name);
            assert!(caught, "{target} with {planted}: {name} is not in {found:?}");
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

/// A broker with its feature `planted`, which no other build of it has.
fn planted_broker() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = root.join("target/planted");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "waybill", "--features", "planted", "--target-dir"]);
    assert!(build.arg(&target).current_dir(&root).status().expect("cargo").success());
    target.join("debug/waybill")
}

#[test]
#[ignore = "builds a broker with planted faults; a step of .ci/test"]
fn a_fault_of_the_broker_is_caught() {
    let waybill = planted_broker();
    let arguments = [Path::new("--waybill"), &waybill];
    for work in ["single", "group"] {
        let (failed, found) = run_targets(&["waybill"], work, None, &arguments);
        assert!(!failed, "{work}: {found:?}");
        for (planted, names) in [
            ("drop:97", &["lost"][..]),
            ("twice:97", &["duplicate"]),
            ("wrong:97", &["wrong_gateway", "lost"]),
        ] {
            has_all(run_targets(&["waybill"], work, Some(planted), &arguments), planted, names);
        }
    }
}

/// Users on WebSockets.
fn websockets(measure: &str) -> String {
    let shared = scenario("single", &["waybill"]).replace("throughput", "system");
    format!("{shared}\n[system]\n{measure}\n")
}

#[test]
#[ignore = "builds a broker with planted faults; a step of .ci/test"]
fn a_fault_of_the_broker_is_caught_on_websockets() {
    let waybill = planted_broker();
    let arguments = [Path::new("--waybill"), &waybill, Path::new("--users"), Path::new("300")];
    // A gateway knows what came twice, and its users never see it.
    let lost = (true, vec![("waybill".to_string(), vec!["lost".to_string()])]);
    for measure in ["measure = \"storm\"\nagain = 1", "measure = \"idle\"\nheartbeat_ms = 500"] {
        let scenario = websockets(measure);
        for planted in ["drop:97", "wrong:97"] {
            let found = run_scenario(&scenario, 1, Some(planted), &arguments);
            assert_eq!(found, lost, "{measure} with {planted}");
        }
        let (failed, found) = run_scenario(&scenario, 1, None, &arguments);
        assert!(!failed, "{measure}: {found:?}");
    }
}
