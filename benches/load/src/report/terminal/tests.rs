//! What a reader finds on the terminal, of the run in `example.rs`.

use super::*;
use crate::report::example;
use crate::results::mark;

fn lines_of<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter(move |line| line.starts_with(start))
}

#[test]
fn a_run_fits_120_columns() {
    let text = run(&example::run());
    let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 120).collect();
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}

#[test]
fn figures_stand_with_their_spread_below() {
    let text = run(&example::run());
    let mut lines = text.lines().skip_while(|line| !line.starts_with("1,024 B payload, 100,000"));
    let head = lines.nth(1).expect("a head");
    assert!(head.starts_with("target") && head.contains("messages/s"), "{head}");
    let (figures, spread) = (lines.next().expect("figures"), lines.next().expect("their spread"));
    assert!(figures.starts_with("waybill ") && figures.contains("38.0"), "{figures}");
    assert!(spread.starts_with("   ") && spread.contains('-'), "{spread}");
    assert!(!head.contains("deliveries/s"), "each message is one: {head}");
}

#[test]
fn rates_of_a_busy_generator_are_not_quoted_but_cpu_is() {
    let text = run(&example::run());
    let relay = lines_of(&text, "relay-uring ").next().expect("its figures");
    let cells: Vec<&str> = relay.split_whitespace().collect();
    assert_eq!(cells[1], "*", "{relay}");
    assert!(cells[2].parse::<f64>().is_ok(), "{relay}");
    assert!(text.contains("* not quoted: the generator was too busy"), "{text}");
    assert!(text.contains("the generator was too busy, so"), "{text}");
}

#[test]
fn faults_marks_and_skipped_targets_are_named() {
    let text = run(&example::run());
    let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "FAILED the check in 1 of 5 repeats",
        "lost: 8,114 in 1 repeat, the first: message 1,204",
        "set up with 420,000 users, of 1,000,000",
        "skipped: nats/gw: not on PATH: go install",
        "assertion: lost = 0: held",
        "assertion: routes back in 5 s: NOT HELD",
        "machine: Example CPU <2 GHz>, 2 cores, 24.0 GiB, Linux 6.18, pinned placement",
        "command: waybill-bench run direct",
        "redis 7.0.15",
    ] {
        assert!(unwrapped.contains(words), "{words}\n{text}");
    }
}

#[test]
fn a_failed_repeat_is_part_of_no_figure() {
    let mut results = example::run();
    let rows = &mut results.scenarios[0].rows;
    rows.retain(|row| row.target == "nats/uid" && row.variant.payload_bytes == 1024);
    rows.retain(|row| !row.ok);
    let text = scenario(&results.scenarios[0]);
    assert!(text.contains("no repeat passed the check"), "{text}");
    assert!(!text.contains("messages/s"), "{text}");
}

#[test]
fn a_target_without_a_good_repeat_has_no_figure() {
    let mut results = example::run();
    for row in results.scenarios[0].rows.iter_mut().filter(|row| row.target == "rabbitmq") {
        row.ok = false;
    }
    let text = run(&results);
    let line = lines_of(&text, "rabbitmq ").next().expect("a line");
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert!(cells[1..].iter().all(|cell| *cell == "!"), "{line}");
    assert!(text.contains("! every repeat failed the check"), "{text}");
}

#[test]
fn five_repeats_do_not_prove_a_tenth() {
    let text = run(&example::run());
    let ratios = text.lines().skip_while(|line| !line.starts_with("waybill/other"));
    let client = ratios.skip(1).find(|line| line.starts_with("waybill-client ")).expect("a line");
    assert!(client.split_whitespace().nth(1).is_some_and(|cell| cell.starts_with('~')), "{client}");
    assert!(text.contains("~ not distinguishable"), "{text}");
}

#[test]
fn the_canonical_run_prints_two_figures() {
    let mut results = example::run();
    assert_eq!(two_figures(&results), None, "it was none");
    results.scenarios.truncate(1);
    results.scenarios[0].rows.retain(|row| {
        row.target == "waybill" && row.variant.payload_bytes == 128 && row.users == 100_000
    });
    results.scenarios[0].rows.truncate(1);
    let figures = &mut results.scenarios[0].rows[0].figures;
    figures.insert("messages_per_s".to_owned(), 3_123_456.0);
    figures.insert("cpu_us_per_message".to_owned(), 0.3115);
    let text = "3.12M messages/s\n0.311 us of server CPU per message\n";
    assert_eq!(two_figures(&results).as_deref(), Some(text));
    results.scenarios[0].rows[0].marks.push(mark::GENERATOR_BUSY.to_owned());
    let text = two_figures(&results).expect("the CPU still counts");
    assert!(text.starts_with("messages/s not quoted"), "{text}");
}
