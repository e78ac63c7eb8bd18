//! The program, its check of each scenario, against a real broker process.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use waybill_bench::results::{Results, Row, figure};

/// The `waybill` program beside the bench. Tests of a whole workspace have built it; where this
/// package is tested alone, it is built now.
fn waybill() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_waybill-bench")).with_file_name("waybill");
    if !path.is_file() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "waybill"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    path
}

fn bench(arguments: &[&str]) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_waybill-bench"));
    bench.args(arguments).output().unwrap()
}

/// Runs the check of a scenario; every target did the work, and nothing was wrong.
fn check(scenario: &str, targets: &[&str]) -> Results {
    let folder = tempfile::tempdir().unwrap();
    let (json, waybill) = (folder.path().join("results.json"), waybill());
    let targets_named = targets.join(",");
    let output = bench(
        &[
            &[
                "run",
                scenario,
                "--check",
                "--free",
                "--seconds",
                "0.3",
                "--targets",
                &targets_named,
            ],
            &["--json", json.to_str().unwrap(), "--waybill", waybill.to_str().unwrap()][..],
        ]
        .concat(),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let text = std::fs::read_to_string(json).unwrap();
    let results: Results = serde_json::from_str(&text).unwrap();
    assert!(results.is_ok());
    for target in targets {
        let rows = results.scenarios[0].rows.iter().filter(|row| row.target == *target);
        let rows: Vec<_> = rows.collect();
        assert!(!rows.is_empty(), "no row of {target}");
        for row in rows {
            assert!(row.ok && row.faults.is_empty(), "{:?}", row.faults);
            // Where users only connect, nothing is published.
            let silent = ["storm", "idle"].contains(&scenario);
            assert!(silent || row.figures[figure::MESSAGES_PER_S] > 0.0);
        }
    }
    results
}

#[test]
fn direct_loses_nothing() {
    check("direct", &["waybill", "waybill/receipts", "waybill-client"]);
}

#[test]
fn group_loses_nothing() {
    check("group", &["waybill"]);
}

#[test]
fn broadcast_loses_nothing() {
    check("broadcast", &["waybill"]);
}

#[test]
fn mixed_loses_nothing() {
    check("mixed", &["waybill"]);
}

#[test]
fn direct_loses_nothing_where_ten_million_users_are_asked_for() {
    check("direct-10m", &["waybill"]);
}

#[test]
fn latency_is_measured_at_every_rate_without_a_loss() {
    let results = check("latency", &["waybill"]);
    let rows = &results.scenarios[0].rows;
    let rates: Vec<_> = rows.iter().filter_map(|row| row.variant.rate.as_ref()).collect();
    assert!(!rates.is_empty());
    for row in rows.iter().filter(|row| row.variant.rate.is_some()) {
        let latency = row.latency_us.as_ref().unwrap();
        assert!(latency.count > 0 && latency.p50 > 0.0 && latency.p50 <= latency.max);
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    for (arguments, words) in [
        (["run", "no-such"].as_slice(), "scenario no-such"),
        (&["run", "direct", "--targets", "waybil"], "there is no target \"waybil\""),
        (&["run", "group", "--users", "10"], "group_uids"),
    ] {
        let output = bench(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn an_interrupted_run_keeps_its_rows_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (json, temporary) = (folder.path().join("results.json"), folder.path().join("tmp"));
    std::fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_waybill-bench"));
    command.args(["run", "direct", "--check", "--free", "--seconds", "0.1", "--repeats", "10000"]);
    command
        .args(["--targets", "waybill", "--payload", "16", "--json"])
        .arg(&json)
        .arg("--waybill")
        .arg(waybill());
    command.env("TMPDIR", &temporary).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    assert!(first.starts_with("direct 1 of 10000: "), "{first}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("FAILED interrupted")), "{said:?}");
    let results: Results = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let rows = &results.scenarios[0].rows;
    assert!(!rows.is_empty() && rows.iter().all(|row| row.ok), "{rows:?}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn a_server_that_does_not_start_fails_the_run_by_name() {
    let arguments = ["run", "direct", "--check", "--free", "--targets", "waybill"];
    let output = bench(&[arguments.as_slice(), &["--waybill", "/bin/false"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("broker ended with"), "{said}");
}

/// The check of a system scenario, which has these figures and spans, above 0.
fn check_system(scenario: &str, figures: &[&str]) -> Row {
    let results = check(scenario, &["waybill"]);
    let row = &results.scenarios[0].rows[0];
    for name in figures {
        let value = row.figures.get(*name).or_else(|| row.spans_ms.get(*name));
        assert!(value.is_some_and(|value| *value > 0.0), "{name}: {value:?}");
    }
    row.clone()
}

#[test]
fn slow_costs_only_the_slow_gateway() {
    let _ =
        check_system("slow", &["before_messages_per_s", "while_p99_us", "others_delivered_share"]);
}

#[test]
fn relearn_accounts_for_every_message() {
    let _ = check_system(
        "relearn",
        &["all routes back", "first message answered", "routes_back_per_s"],
    );
}

#[test]
fn relearn_accounts_for_every_message_where_ten_million_users_are_asked_for() {
    let _ = check_system("relearn-10m", &["all routes back", "first message answered"]);
}

#[test]
fn churn_loses_nothing() {
    let _ = check_system("churn", &["moves_probed", "deltas_per_s", "delta in effect, p99"]);
}

#[test]
fn departure_uses_no_route_of_who_left() {
    let row = check_system("departure", &["probes_before", "probes_not_sent"]);
    assert_eq!(row.figures["stale_routes_used"], 0.0);
}

#[test]
fn overload_stays_within_the_documented_memory() {
    let row = check_system("overload", &["came", "documented_bytes_max", "rss_of_documented"]);
    assert!(row.figures["rss_of_documented"] < 1.0);
    for none in ["unaccounted", "untold", "unanswered", "ledger_off", "rss_samples_beyond"] {
        assert_eq!(row.figures[none], 0.0, "{none}");
    }
}

#[test]
fn storm_lets_everybody_in_twice() {
    let _ = check_system("storm", &["logins_per_s", "again_logins_per_s", "ready, p99"]);
}

#[test]
fn idle_users_stay() {
    let _ = check_system("idle", &["bytes_per_connection", "rss_bytes"]);
}

/// Runs a short check of `direct` with these arguments more.
fn short(arguments: &[&str]) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_waybill-bench"));
    bench.args(["run", "direct", "--check", "--free", "--seconds", "0.1", "--targets", "waybill"]);
    bench.args(["--payload", "16"]).args(arguments).arg("--waybill").arg(waybill());
    bench.output().unwrap()
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    let json = json.to_str().unwrap();
    for (arguments, words) in [
        (["--html", "/no-such/run.html", "--json", json], "/no-such/run.html: "),
        (["--json", "/no-such/run.json", "--html", json], "/no-such/run.json: "),
        (["--json", json, "--html", json], "is the file of --json too"),
    ] {
        let output = short(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && !said.contains("direct 1 of"), "{said}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{arguments:?}");
    }
}

#[test]
fn a_file_that_cannot_take_the_results_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("run.html");
    std::fs::write(&html, "x".repeat(1 << 20)).unwrap();
    let output = short(&["--json", "/dev/full", "--html", html.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: /dev/full: "), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("waybill"));
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("<html") && !page.contains("xxx"), "nothing of what was there");
}

#[test]
fn a_program_that_is_not_there_is_told_before_anything_runs() {
    for (program, words) in [
        ("/no-such/waybill", "cannot be run: /no-such/waybill: "),
        (env!("CARGO_MANIFEST_DIR"), "Permission denied"),
    ] {
        let arguments = ["run", "direct", "--free", "--targets", "relay-epoll,waybill/receipts"];
        let output = bench(&[&arguments, &["--waybill", program][..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && !said.contains("direct 1 of"), "{said}");
        assert!(said.contains("cargo build --release -p waybill"), "{said}");
        assert!(said.contains("--waybill PATH"), "{said}");
    }
}

#[test]
fn servers_that_cannot_be_pinned_are_told_before_anything_runs() {
    if waybill_bench::machine::two_cores().is_none() {
        return;
    }
    let nothing = tempfile::tempdir().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_waybill-bench"));
    bench.args(["run", "direct", "--check", "--targets", "relay-epoll"]);
    let output = bench.env("PATH", nothing.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("taskset") && said.contains("--free"), "{said}");
}

#[test]
fn the_version_in_the_results_is_that_of_the_program() {
    let said = Command::new(waybill()).arg("--version").output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let results = check("direct", &["waybill"]);
    assert_eq!(format!("waybill {}", results.versions["waybill"]), said.trim());
    assert!(said.starts_with(&format!("waybill {}", env!("CARGO_PKG_VERSION"))), "{said}");
}

#[test]
fn a_file_that_holds_no_results_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    let path = file.to_str().unwrap();
    for (text, words) in [
        ("no JSON", "is not a file made by waybill-bench --json"),
        ("{\"format\": \"toml\"}", "is not a file made by waybill-bench --json"),
        ("{\"format\": 1000, \"rows\": []}", "format 1000, this program reads "),
        ("{\"format\": 1, \"rows\": []}", "missing field"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = bench(&["compare", path, path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("{path}: ")) && said.contains(words), "{said}");
    }
}

#[test]
fn a_scenario_that_is_not_there_is_answered_with_those_there_are() {
    let there = waybill_bench::scenario::list().unwrap();
    let there: Vec<_> = there.iter().map(|loaded| loaded.name.as_str()).collect();
    for (name, words) in [
        ("direkt", format!("there are {}, or give the path", there.join(", ")).as_str()),
        ("direct.toml", "`direct` without a path or ending is one there is"),
        ("no-such/file.toml", "or give the path of a .toml file"),
    ] {
        let output = bench(&["run", name]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("scenario {name}: ")) && said.contains(words), "{said}");
        assert!(!said.contains(".."), "{said}");
    }
    let output = bench(&["run", "direct", "direct"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("scenario direct: there twice"), "{said}");
}

#[test]
fn the_list_has_every_scenario_and_target() {
    let output = bench(&["list"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for loaded in waybill_bench::scenario::list().unwrap() {
        assert!(said.contains(&format!("  {} ", loaded.name)), "{said}");
        assert!(said.contains(&format!("up to {} rows", loaded.scenario.rows_most())), "{said}");
    }
    for target in waybill_bench::targets::all() {
        assert!(said.contains(&format!("  {} ", target.name)), "{said}");
    }
}

#[test]
fn an_ended_terminal_interrupts_unless_it_was_to_be_outlived() {
    use rustix::process::{Pid, Signal, kill_process};
    // As `nohup` does: a program started with the signal ignored is to go on. These tests may
    // themselves run under it.
    for (start, code) in [("exec env --default-signal=HUP", 1), ("trap '' HUP; exec", 0)] {
        let script = format!(
            "{start} \"$0\" run direct --check --free --seconds 0.1 --repeats 20 \
             --targets relay-epoll --payload 16"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_waybill-bench")]);
        let mut child = shell.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = said.next().unwrap().unwrap();
        assert!(first.starts_with("direct 1 of 20: "), "{first}");
        kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
        let said: Vec<String> = said.map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said:?}");
    }
}
