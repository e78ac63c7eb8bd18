//! The first thing on the page: where everybody stands, and Waybill beside the ceiling and the
//! best of the others.

use super::bars::{Stand, StandLine};
use super::looks::Looks;
use super::svg::escape;
use super::{figure as drawing, tables, two_sizes};
use crate::report::words;
use crate::results::{Results, ScenarioResult, figure};
use crate::summary::figures::{Better, Figure};
use crate::summary::table::{Cell, Entry, SUBJECT, Table, is_same};

/// What a scenario is looked at for: the figure, and the words of its axis.
const LOOKED_AT: [(&str, &str); 2] = [
    ("messages_per_s", "messages a second; further right is better"),
    ("p99", "p99 latency in us; further left is better"),
];

/// More lines than this are not looked at together.
const LINES_MAX: usize = 12;

/// Where everybody stands, over all scenarios.
pub(super) fn section(results: &Results, looks: &Looks<'_>) -> String {
    let mut drawn = String::new();
    for (key, label) in LOOKED_AT {
        let shown = Figure::named(key);
        let (mut lines, mut rows) = (Vec::new(), Vec::new());
        for scenario in &results.scenarios {
            for table in Table::of(scenario) {
                // At a given rate the rate is no merit, and in a closed window latency is none.
                if table.variant.rate.is_some() == (key == "messages_per_s") {
                    continue;
                }
                let Some(line) = line(scenario, &table, &shown) else { continue };
                lines.push(line);
                rows.extend(row(scenario, &table, &shown));
            }
        }
        drawn.push_str(&stand(&shown, label, lines, &rows, looks));
    }
    if drawn.is_empty() {
        return drawn;
    }
    format!(
        "<section id=\"glance\"><h2>At a glance</h2><div class=\"glances\">{drawn}</div></section>"
    )
}

fn stand(
    shown: &Figure,
    label: &str,
    mut lines: Vec<StandLine<'_>>,
    rows: &[Vec<String>],
    looks: &Looks<'_>,
) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let left_out = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    let title = match shown.better {
        Better::More => "Messages a second",
        _ => "p99 latency",
    };
    let stand = Stand { title: title.to_owned(), label: label.to_owned(), unit: shown.unit, lines };
    let note = if left_out > 0 {
        format!("<p class=\"note\">{left_out} more below, each in its section.</p>")
    } else {
        String::new()
    };
    let head = [
        "work",
        "Waybill",
        "its / relay's",
        "CPU / relay's",
        "its / best other's",
        "CPU / best other's",
        "best other",
    ];
    let (head, rows) = without_empty(&head, rows);
    let table = match rows.as_slice() {
        [] => String::new(),
        rows => tables::boxed(&format!("Waybill, {}", shown.title), &head, rows),
    };
    drawing(title, &two_sizes(|width| stand.draw(looks, width)), &(note + &table))
}

/// Columns that say something of any row.
fn without_empty(head: &[&str], rows: &[Vec<String>]) -> (Vec<String>, Vec<Vec<String>>) {
    let says = |column: usize| rows.iter().any(|row| !row[column].is_empty());
    let columns: Vec<usize> = (0..head.len()).filter(|column| says(*column)).collect();
    let cells = |row: &Vec<String>| columns.iter().map(|column| row[*column].clone()).collect();
    (
        columns.iter().map(|column| head[*column].to_owned()).collect(),
        rows.iter().map(cells).collect(),
    )
}

fn name(scenario: &ScenarioResult, table: &Table<'_>) -> String {
    let only = scenario.rows.iter().all(|row| is_same(&row.variant, table.variant));
    if only {
        return scenario.name.clone();
    }
    format!("{}: {}", scenario.name, words::variant_within(table.variant, scenario))
}

fn line<'a>(scenario: &ScenarioResult, table: &Table<'a>, shown: &Figure) -> Option<StandLine<'a>> {
    let mark = |entry: &Entry<'a>| {
        // There is no zero on a logarithmic axis.
        let spread = entry.cell(shown).quoted().filter(|spread| spread.min > 0.0)?;
        Some((entry.target, spread))
    };
    let marks: Vec<_> = table.entries.iter().filter_map(mark).collect();
    (!marks.is_empty()).then(|| StandLine { words: name(scenario, table), marks })
}

fn row(scenario: &ScenarioResult, table: &Table<'_>, shown: &Figure) -> Option<Vec<String>> {
    let subject = table.entry(SUBJECT)?;
    let median = |entry: &Entry<'_>| entry.cell(shown).quoted().map(|spread| spread.median);
    let best = |relays: bool| {
        let of_kind = |entry: &&Entry<'_>| {
            entry.target.starts_with("relay") == relays && !entry.target.starts_with(SUBJECT)
        };
        let quoted = table.entries.iter().filter(of_kind).filter_map(|e| Some((e, median(e)?)));
        match shown.better {
            Better::More => quoted.max_by(|one, other| one.1.total_cmp(&other.1)),
            _ => quoted.min_by(|one, other| one.1.total_cmp(&other.1)),
        }
    };
    let own = match median(subject) {
        Some(median) => words::value(median, shown.unit),
        None => "not quoted".to_owned(),
    };
    let cpu = Figure::named(figure::CPU_US_PER_MESSAGE);
    let to = |other: Option<&Entry<'_>>, shown: &Figure| {
        let Some(other) = other else { return String::new() };
        match (subject.ratio_to(other, shown), other.cell(shown)) {
            (Some(ratio), _) => words::ratio(&ratio),
            (None, Cell::Withheld) => "generator busy".to_owned(),
            (None, _) => String::new(),
        }
    };
    let other = best(false);
    // The ceiling is worth its CPU even where the generator could not follow its pace.
    let any_relay = || table.entries.iter().find(|entry| entry.target.starts_with("relay"));
    let relay = best(true).map(|(entry, _)| entry).or_else(any_relay);
    let named = other.map_or(String::new(), |(entry, median)| {
        format!("{} ({})", entry.target, words::value(median, shown.unit))
    });
    let other = other.map(|(entry, _)| entry);
    let cells = [
        name(scenario, table),
        own,
        to(relay, shown),
        to(relay, &cpu),
        to(other, shown),
        to(other, &cpu),
        named,
    ];
    Some(cells.iter().map(|cell| escape(cell)).collect())
}
