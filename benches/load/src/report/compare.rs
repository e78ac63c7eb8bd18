//! A run beside an earlier one: how many times the earlier figure each later one is.
//!
//! Repeats of two runs are not pairs: hours may lie between them. So every repeat of the one is
//! divided by every repeat of the other, and what did not change (the relay, the peers) shows how
//! much of a difference is the machine's.

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
    if earlier.machine == later.machine {
        return Vec::new();
    }
    let (before, after) = (words::machine(&earlier.machine), words::machine(&later.machine));
    let said = format!("The machines differ: earlier {before}; later {after}.");
    let mut lines = wrap(&said, WIDTH, "  ");
    lines.push(String::new());
    lines
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
}
