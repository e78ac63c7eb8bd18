//! A run as text for a terminal of 120 columns.

use std::collections::BTreeSet;

use super::grid::{Grid, wrap};
use super::remarks::{Remark, remarks, skipped};
use super::words;
use crate::results::{Results, ScenarioResult, figure};
use crate::summary::figures::{Better, Figure};
use crate::summary::table::{Cell, Entry, SUBJECT, Table, targets_of};

/// Columns that lines keep to, names of targets permitting.
const WIDTH: usize = 118;

/// Figures whose least and greatest are worth a line of their own.
const SPREAD: [&str; 9] = [
    "messages_per_s",
    "deliveries_per_s",
    "cpu_us_per_message",
    "cpu_us_per_delivery",
    "p50",
    "p90",
    "p99",
    "p999",
    "max",
];

/// Figures that are kept in JSON and on the page.
const NOT_SHOWN: [&str; 3] = ["p90", "server_cores", "generator_us_per_message"];

/// A whole run: every scenario, then what holds for all of it.
#[must_use]
pub fn run(results: &Results) -> String {
    let mut text = String::new();
    for one in &results.scenarios {
        text.push_str(&scenario(one));
        text.push('\n');
    }
    text.push_str(&footer(results));
    text
}

/// The two figures of a run of Waybill alone, if it was one: messages a second, and server CPU for
/// each of them.
#[must_use]
pub fn two_figures(results: &Results) -> Option<String> {
    let [scenario] = results.scenarios.as_slice() else { return None };
    let tables = Table::of(scenario);
    let [table] = tables.as_slice() else { return None };
    let [entry] = table.entries.as_slice() else { return None };
    let figure = |key: &str| entry.cell(&Figure::named(key));
    let rate = match figure("messages_per_s") {
        Cell::Quoted(spread) => format!("{} messages/s", words::scaled(spread.median)),
        Cell::Withheld => "messages/s not quoted: the generator was busy".to_owned(),
        Cell::Missing => return None,
    };
    let cpu = figure("cpu_us_per_message").quoted()?.median;
    Some(format!("{rate}\n{} us of server CPU per message\n", words::digits(cpu)))
}

/// One scenario, all its variants.
#[must_use]
pub fn scenario(scenario: &ScenarioResult) -> String {
    let mut lines = vec![format!("{}: {}", scenario.name, scenario.title)];
    let tables = Table::of(scenario);
    let mut signs = Signs::default();
    for table in &tables {
        lines.push(String::new());
        lines.push(heading(scenario, table));
        let figures = figures(scenario, table, &mut signs);
        if figures.is_empty() {
            lines.push("no repeat passed the check: no figure counts".to_owned());
        }
        lines.extend(figures.lines(WIDTH));
        let ratios = ratios(scenario, table, &mut signs);
        if !ratios.is_empty() {
            lines.push(String::new());
            lines.extend(ratios.lines(WIDTH));
        }
    }
    lines.push(String::new());
    lines.extend(legend(signs));
    for Remark { target, of, said, .. } in remarks(scenario, &tables) {
        let of = if of.is_empty() { target } else { format!("{target} ({of})") };
        lines.extend(spoken(&of, [said]));
    }
    lines.extend(spoken(
        "assertion",
        scenario.assertions.iter().map(|assertion| {
            let verdict = if assertion.held { "held" } else { "NOT HELD" };
            format!("{}: {verdict}", assertion.words)
        }),
    ));
    let skipped = skipped(scenario).into_iter();
    let skipped = skipped.map(|(target, reason)| format!("{target}: {reason}"));
    lines.extend(spoken("skipped", skipped));
    lines.iter().map(|line| line.clone() + "\n").collect()
}

fn heading(scenario: &ScenarioResult, table: &Table<'_>) -> String {
    let repeats = table.entries.iter().map(|entry| entry.rows.len()).max().unwrap_or(0);
    let words = words::variant(table.variant, scenario);
    if repeats < 2 {
        return format!("{words}; one repeat");
    }
    format!("{words}; median of {repeats} repeats, least-greatest below it")
}

/// Which signs a scenario's tables used, and so must explain.
#[derive(Clone, Copy, Debug, Default)]
struct Signs {
    withheld: bool,
    failed: bool,
    close: bool,
    ratios: bool,
}

fn legend(signs: Signs) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |used: bool, text: &str| {
        if used {
            lines.extend(wrap(text, WIDTH, "  "));
        }
    };
    add(
        signs.ratios,
        "waybill/other: how many times the other's figure Waybill's is, paired by repeat: median \
         (least-greatest). Above 1 is better for rates, below 1 for all else.",
    );
    add(
        signs.close,
        "~ not distinguishable: the repeats allow either to be the greater, or the difference is \
         under 25 % and there are fewer than 9 pairs.",
    );
    add(
        signs.withheld,
        "* not quoted: the generator was too busy in a repeat (idle for less than 15 % of the \
         time, and at a rate late by more than a quarter of p99), so this would say how fast it \
         was.",
    );
    add(signs.failed, "! every repeat failed the check: no figure counts.");
    lines
}

/// The figures of a table that the terminal shows.
fn shown(scenario: &ScenarioResult, table: &Table<'_>) -> Vec<Figure> {
    let mut figures = table.figures(scenario);
    figures.retain(|figure| !NOT_SHOWN.contains(&figure.key.as_str()));
    figures
}

fn figures(scenario: &ScenarioResult, table: &Table<'_>, signs: &mut Signs) -> Grid {
    let spread = |entry: &Entry<'_>| entry.passed().count() > 1;
    let names = table.entries.iter().flat_map(|entry| {
        let below = spread(entry).then(String::new);
        [entry.target.to_owned()].into_iter().chain(below)
    });
    let mut grid = Grid::new("target", names);
    for figure in shown(scenario, table) {
        let cells = table.entries.iter().flat_map(|entry| {
            let (first, below) = match entry.cell(&figure) {
                Cell::Quoted(found) => {
                    let range = words::range(found, figure.unit);
                    let told = SPREAD.contains(&figure.key.as_str()) && found.min < found.max;
                    (
                        words::value(found.median, figure.unit),
                        if told { range } else { String::new() },
                    )
                }
                Cell::Withheld => {
                    signs.withheld = true;
                    ("*".to_owned(), String::new())
                }
                Cell::Missing if entry.passed().next().is_none() => {
                    signs.failed = true;
                    ("!".to_owned(), String::new())
                }
                Cell::Missing => ("-".to_owned(), String::new()),
            };
            [first].into_iter().chain(spread(entry).then_some(below))
        });
        let cells: Vec<String> = cells.collect();
        grid.column(&figure.title, cells);
    }
    grid
}

/// Waybill to each other target, figure by figure.
fn ratios(scenario: &ScenarioResult, table: &Table<'_>, signs: &mut Signs) -> Grid {
    let others: Vec<&Entry<'_>> =
        table.entries.iter().filter(|entry| entry.target != SUBJECT).collect();
    let mut grid = Grid::new("waybill/other", others.iter().map(|entry| entry.target.to_owned()));
    let Some(subject) = table.entry(SUBJECT) else { return grid };
    let compared = |figure: &&Figure| {
        let given = table.variant.rate.is_some() && figure.key == figure::MESSAGES_PER_S;
        figure.better != Better::Neither && figure.key != figure::SETUP_S && !given
    };
    for figure in shown(scenario, table).iter().filter(compared) {
        let ratios: Vec<_> = others.iter().map(|other| subject.ratio_to(other, figure)).collect();
        if ratios.iter().all(Option::is_none) {
            continue;
        }
        signs.ratios = true;
        signs.close |= ratios.iter().flatten().any(|ratio| !ratio.verdict.differs());
        let cells = ratios.iter().map(|ratio| ratio.as_ref().map_or("-".into(), words::ratio));
        grid.column(&figure.title, cells.collect::<Vec<_>>());
    }
    grid
}

/// Lines that say of something one thing each.
fn spoken(of: &str, said: impl IntoIterator<Item = String>) -> Vec<String> {
    said.into_iter().flat_map(|said| wrap(&format!("{of}: {said}"), WIDTH, "  ")).collect()
}

/// How each target was driven, what ran where, and with which command.
#[must_use]
pub fn footer(results: &Results) -> String {
    let mut lines = Vec::new();
    let rows = || results.scenarios.iter().flat_map(|scenario| &scenario.rows);
    for target in targets_of(&results.scenarios) {
        let ways: BTreeSet<&str> =
            rows().filter(|row| row.target == target).map(|row| row.driven.as_str()).collect();
        let ways: Vec<&str> = ways.into_iter().collect();
        lines.extend(spoken(&format!("driven  {target}"), [ways.join("; or ")]));
    }
    let versions = results.versions.iter().map(|(name, version)| format!("{name} {version}"));
    let versions: Vec<String> = versions.collect();
    lines.extend(spoken("versions", [versions.join(", ")]));
    lines.extend(spoken("machine", [words::machine(&results.machine)]));
    lines.extend(spoken("started", [results.started.clone()]));
    lines.extend(spoken("command", [results.command.clone()]));
    lines.iter().map(|line| line.clone() + "\n").collect()
}

#[cfg(test)]
mod tests;
