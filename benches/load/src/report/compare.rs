//! A run beside an earlier one: how many times the earlier figure each later one is.
//!
//! Repeats of two runs are not pairs: hours may lie between them. So every repeat of the one is
//! divided by every repeat of the other, and what did not change (the relay, the peers) shows how
//! much of a difference is the machine's.

use std::collections::BTreeSet;

use serde_json::Value;

use super::grid::{Grid, wrap};
use super::words;
use crate::results::{Results, ScenarioResult};
use crate::summary::Ratio;
use crate::summary::figures::{Better, Figure};
use crate::summary::table::{Entry, Table, is_same};

const WIDTH: usize = 118;

const LEGEND: &str = "later/earlier: how many times the earlier figure the later one is: median \
                      of all quotients of repeats (least-greatest). Above 1 is better for rates, \
                      below 1 for all else. Targets that did not change show what the machine did.";

const CLOSE: &str = "~ not distinguishable: the 95 % interval of the rank sum test covers 1, or \
                     the difference is under 25 % and a run has fewer than 9 repeats.";

/// Ratios of the later run to the earlier one, as text for a terminal.
#[must_use]
pub fn runs(earlier: &Results, later: &Results) -> String {
    let mut lines = different_grounds(earlier, later);
    let mut met = 0;
    for after in &later.scenarios {
        let Some(before) = earlier.scenarios.iter().find(|one| one.name == after.name) else {
            lines.push(format!("{}: only in the later run", after.name));
            continue;
        };
        let (before_tables, after_tables) = (Table::of(before), Table::of(after));
        for table in &after_tables {
            let same = |one: &&Table<'_>| is_same(one.variant, table.variant);
            let Some(before) = before_tables.iter().find(same) else {
                let variant = words::variant(table.variant, after);
                lines.push(format!("{}: {variant}: only in the later run", after.name));
                continue;
            };
            met += 1;
            lines.extend(compared(after, before, table));
        }
        for table in &before_tables {
            if !after_tables.iter().any(|one| is_same(one.variant, table.variant)) {
                let variant = words::variant(table.variant, before);
                lines.push(format!("{}: {variant}: only in the earlier run", before.name));
            }
        }
    }
    let there = |name: &str| later.scenarios.iter().any(|one| one.name == name);
    let gone = earlier.scenarios.iter().filter(|one| !there(&one.name));
    lines.extend(gone.map(|one| format!("{}: only in the earlier run", one.name)));
    if met == 0 {
        lines.push("The runs have no scenario and variant in common.".to_owned());
    } else {
        lines.extend(wrap(LEGEND, WIDTH, "  "));
        lines.extend(wrap(CLOSE, WIDTH, "  "));
    }
    for (word, run) in [("earlier", earlier), ("later", later)] {
        let versions = run.versions.iter().map(|(name, version)| format!("{name} {version}"));
        let versions = versions.collect::<Vec<_>>().join(", ");
        let said = format!("{word}: {}, {} ({versions})", run.started, run.command);
        lines.extend(wrap(&said, WIDTH, "  "));
    }
    lines.iter().map(|line| line.clone() + "\n").collect()
}

/// What makes the runs hard to compare.
fn different_grounds(earlier: &Results, later: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    if earlier.machine != later.machine {
        let (before, after) = (words::machine(&earlier.machine), words::machine(&later.machine));
        lines.push(format!("The machines differ: earlier {before}; later {after}."));
    }
    for (word, run) in [("earlier", earlier), ("later", later)] {
        if run.check {
            let said = "was made with --check: it found what is wrong, its figures say nothing.";
            lines.push(format!("The {word} run {said}"));
        }
    }
    for after in &later.scenarios {
        let before = earlier.scenarios.iter().find(|one| one.name == after.name);
        let differ = before.map(|before| different_parameters(before, after)).unwrap_or_default();
        if !differ.is_empty() {
            let differ = differ.join("; ");
            lines.push(format!("{}: the scenarios differ: {differ}.", after.name));
        }
    }
    let mut lines: Vec<String> = lines.iter().flat_map(|line| wrap(line, WIDTH, "  ")).collect();
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// Keys of a scenario that figures do not depend on, or that rows say themselves.
const BESIDE: [&str; 10] = [
    "title",
    "targets",
    "users",
    "gateways",
    "payload_bytes",
    "rates",
    "variants",
    "repeats",
    "allowed",
    "assert",
];

/// Keys with other values, and both of these.
fn different_parameters(before: &ScenarioResult, after: &ScenarioResult) -> Vec<String> {
    let keys: BTreeSet<&String> = before.parameters.keys().chain(after.parameters.keys()).collect();
    let matters = keys.into_iter().filter(|key| !BESIDE.contains(&key.as_str()));
    let value = |of: &ScenarioResult, key: &String| of.parameters.get(key).cloned();
    let shown = |value: Option<Value>| value.map_or("none".to_owned(), |value| value.to_string());
    matters
        .map(|key| (key, value(before, key), value(after, key)))
        .filter(|(_, before, after)| before != after)
        .map(|(key, before, after)| {
            format!("{key} earlier {}, later {}", shown(before), shown(after))
        })
        .collect()
}

fn compared(scenario: &ScenarioResult, before: &Table<'_>, after: &Table<'_>) -> Vec<String> {
    let pairs: Vec<(&Entry<'_>, &Entry<'_>)> = after
        .entries
        .iter()
        .filter_map(|entry| Some((before.entry(entry.target)?, entry)))
        .collect();
    let mut figures: Vec<Figure> = after.figures(scenario);
    figures.retain(|figure| figure.better != Better::Neither);
    let mut grid = Grid::new("later/earlier", pairs.iter().map(|(_, e)| e.target.to_owned()));
    for figure in &figures {
        let ratio = |(before, after): &(&Entry<'_>, &Entry<'_>)| after.ratio_to_run(before, figure);
        let ratios: Vec<Option<Ratio>> = pairs.iter().map(ratio).collect();
        if ratios.iter().any(Option::is_some) {
            let cells = ratios.iter().map(|one| one.as_ref().map_or("-".into(), words::ratio));
            grid.column(&figure.title, cells.collect::<Vec<_>>());
        }
    }
    let repeats =
        |entries: &[Entry<'_>]| entries.iter().map(|one| one.rows.len()).max().unwrap_or(0);
    let (one, other) = (repeats(&before.entries), repeats(&after.entries));
    let variant = words::variant(after.variant, scenario);
    let head = format!("{}: {variant}; {one} and {other} repeats", scenario.name);
    let mut lines = vec![head];
    if grid.is_empty() {
        lines.push("no figure that both runs quote".to_owned());
    }
    lines.extend(grid.lines(WIDTH));
    lines.extend(of_one_run_only(before, after));
    lines.push(String::new());
    lines
}

/// Targets that failed or were absent on one side.
fn of_one_run_only(before: &Table<'_>, after: &Table<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (table, other, word) in [(after, before, "later"), (before, after, "earlier")] {
        for entry in &table.entries {
            if other.entry(entry.target).is_none() {
                lines.push(format!("{}: only in the {word} run", entry.target));
            }
            if entry.failed() > 0 {
                let failed = words::several(entry.failed(), "repeat");
                lines
                    .push(format!("{}: {failed} of the {word} run failed the check", entry.target));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_run_beside_itself_differs_in_nothing() {
        let run = example::run();
        let text = runs(&run, &run);
        assert!(text.contains("direct: 128 B payload"), "{text}");
        let cells = text.lines().filter(|line| line.starts_with("waybill ")).collect::<Vec<_>>();
        assert!(!cells.is_empty() && cells.iter().all(|line| line.contains('~')), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(!text.contains("machines differ"), "{text}");
    }

    #[test]
    fn half_the_cpu_is_told_and_other_machines_are_named() {
        let earlier = example::run();
        let mut later = earlier.clone();
        later.machine.kernel = "Linux 7.0".to_owned();
        for row in later.scenarios[0].rows.iter_mut().filter(|row| row.target == "waybill") {
            *row.figures.get_mut("cpu_us_per_message").expect("measured") /= 2.0;
        }
        let text = runs(&earlier, &later);
        assert!(text.contains("The machines differ") && text.contains("Linux 7.0"), "{text}");
        let line = text.lines().find(|line| line.starts_with("waybill ")).expect("a line");
        assert!(line.split_whitespace().any(|cell| cell.starts_with("0.5")), "{line}");
    }

    #[test]
    fn what_only_one_run_has_is_named() {
        let earlier = example::run();
        let mut later = earlier.clone();
        later.scenarios[0].rows.retain(|row| row.target != "rabbitmq");
        later.scenarios[0].rows.retain(|row| row.variant.payload_bytes != 16);
        later.scenarios[1].name = "renamed".to_owned();
        let text = runs(&earlier, &later);
        assert!(text.contains("rabbitmq: only in the earlier run"), "{text}");
        let variant = "direct: 16 B payload, 100,000 users, 8 gateways, closed window";
        assert!(text.contains(&format!("{variant}: only in the earlier run")), "{text}");
        assert!(text.contains("renamed: only in the later run"), "{text}");
    }

    #[test]
    fn other_parameters_and_a_check_are_said_first() {
        let mut earlier = example::run();
        let mut later = earlier.clone();
        for (run, seconds, window) in [(&mut earlier, 2.0, 9), (&mut later, 0.5, 9)] {
            let parameters = &mut run.scenarios[0].parameters;
            parameters.insert("seconds".to_owned(), seconds.into());
            parameters.insert("window".to_owned(), window.into());
            parameters.insert("repeats".to_owned(), seconds.into());
        }
        later.scenarios[0].parameters.insert("groups".to_owned(), 7.into());
        let text = runs(&earlier, &later);
        let words = "direct: the scenarios differ: groups earlier none, later 7; seconds earlier \
                     2.0, later 0.5.";
        assert!(text.starts_with(words), "{text}");
        assert!(!text.contains("--check"), "{text}");
        later.check = true;
        let text = runs(&earlier, &later);
        assert!(text.starts_with("The later run was made with --check: "), "{text}");
        assert!(!runs(&earlier, &earlier).contains("differ:"), "{text}");
    }
}
