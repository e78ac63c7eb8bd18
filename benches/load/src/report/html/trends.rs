//! Plots across the variants of a scenario: rate against latency, cost against number of users.

use super::lines::{Lower, Plot, Point, Repeats, Series};
use super::looks::Looks;
use super::scale::Scale;
use super::{NARROW, figure, tables};
use crate::report::words;
use crate::results::Variant;
use crate::summary::figures::{Figure, Unit};
use crate::summary::table::{Cell, Entry, Table};

/// Something that may differ between variants.
struct Dimension {
    words: &'static str,
    unit: Unit,
    /// Where a target's point lies: peers may have fewer users than was asked, or a rate of their
    /// own.
    of: fn(&Entry<'_>, &Variant) -> Option<f64>,
    /// The same variant without it.
    without: fn(&Variant) -> Variant,
    /// What is worth a plot against it.
    shows: &'static [Shown],
}

/// A figure against a dimension.
struct Shown {
    key: &'static str,
    title: &'static str,
    /// What else varies does not matter to it: one plot is enough.
    once: bool,
}

const fn shown(key: &'static str, title: &'static str) -> Shown {
    Shown { key, title, once: false }
}

#[expect(clippy::cast_precision_loss, reason = "a place on an axis")]
const DIMENSIONS: [Dimension; 4] = [
    Dimension {
        words: "messages/s",
        unit: Unit::PerSecond,
        of: |entry, _| entry.rate(),
        without: |variant| Variant { rate: None, ..variant.clone() },
        shows: &[
            shown("p50", "Rate against latency: p50, us"),
            shown("p99", "Rate against latency: p99, us"),
        ],
    },
    Dimension {
        words: "users",
        unit: Unit::PerSecond,
        of: |entry, _| Some(entry.users() as f64),
        without: |variant| Variant { users: 0, ..variant.clone() },
        shows: &[
            shown("cpu_us_per_message", "Cost against number of users: server CPU a message, us"),
            Shown {
                key: "bytes_per_route",
                title: "Memory against number of users: bytes a route",
                once: true,
            },
        ],
    },
    Dimension {
        words: "payload, bytes",
        unit: Unit::Number,
        of: |_, variant| Some(variant.payload_bytes as f64),
        without: |variant| Variant { payload_bytes: 0, ..variant.clone() },
        shows: &[shown("messages_per_s", "Messages a second by payload size")],
    },
    Dimension {
        words: "gateways",
        unit: Unit::Number,
        of: |_, variant| Some(variant.gateways as f64),
        without: |variant| Variant { gateways: 0, ..variant.clone() },
        shows: &[shown(
            "cpu_us_per_message",
            "Cost against number of gateways: server CPU a message, us",
        )],
    },
];

/// All plots of a scenario that have two points or more.
pub(super) fn plots(tables: &[Table<'_>], looks: &Looks<'_>) -> Vec<String> {
    let mut plots = Vec::new();
    for dimension in &DIMENSIONS {
        let mut families: Vec<(Variant, Vec<&Table<'_>>)> = Vec::new();
        for table in tables {
            let family = (dimension.without)(table.variant);
            match families.iter_mut().find(|(there, _)| *there == family) {
                Some((_, members)) => members.push(table),
                None => families.push((family, vec![table])),
            }
        }
        families.retain(|(_, members)| members.len() > 1);
        for Shown { key, title, once } in dimension.shows {
            let shown = if *once { 1 } else { families.len() };
            for (_, members) in families.iter().take(shown) {
                let words = match shown {
                    1 => String::new(),
                    _ => rest(dimension, members[0].variant, tables),
                };
                let title = format!("{title}{words}");
                plots.extend(plot(dimension, &Figure::named(key), title, members, looks));
            }
        }
    }
    plots
}

/// What else differs between the families of variants, in words of this one.
fn rest(dimension: &Dimension, variant: &Variant, tables: &[Table<'_>]) -> String {
    let others = tables.iter().map(|table| (dimension.without)(table.variant));
    let others: Vec<Variant> = others.collect();
    format!("; {}", words::variant_among(&(dimension.without)(variant), &others))
}

/// Lines at the places that were measured, where these are few.
fn lower(dimension: &Dimension, series: &[Series<'_>]) -> Lower {
    const PLACES_MAX: usize = 6;
    let points = || series.iter().flat_map(|series| &series.points);
    let mut places: Vec<f64> = points().map(|point| point.x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let (words, unit) = (dimension.words.to_owned(), dimension.unit);
    if places.len() <= PLACES_MAX {
        let scale = Scale::between(&places);
        return Lower { scale, ticks: scale.ticks_at(&places, unit), unit, words };
    }
    let scale = Scale::log(places);
    Lower { scale, ticks: scale.ticks(unit), unit, words }
}

fn plot(
    dimension: &Dimension,
    shown: &Figure,
    title: String,
    tables: &[&Table<'_>],
    looks: &Looks<'_>,
) -> Option<String> {
    let mut series: Vec<Series<'_>> = Vec::new();
    let mut withheld = Vec::new();
    for table in tables {
        for entry in &table.entries {
            let Some(x) = (dimension.of)(entry, table.variant) else { continue };
            match entry.cell(shown) {
                Cell::Missing => {}
                Cell::Withheld => withheld.push(entry.target),
                // There is no zero on a logarithmic axis.
                Cell::Quoted(spread) if spread.min <= 0.0 => {}
                Cell::Quoted(spread) => {
                    let point = Point { x, y: spread.median, low: spread.min, high: spread.max };
                    match series.iter_mut().find(|series| series.target == entry.target) {
                        Some(series) => series.points.push(point),
                        None => series.push(Series { target: entry.target, points: vec![point] }),
                    }
                }
            }
        }
    }
    for one in &mut series {
        one.points.sort_by(|left, right| left.x.total_cmp(&right.x));
    }
    if series.iter().all(|series| series.points.len() < 2) {
        return None;
    }
    withheld.sort_unstable();
    withheld.dedup();
    let x = lower(dimension, &series);
    let plot = Plot { title, x, y_unit: shown.unit, repeats: Repeats::Marks, series };
    let drawn = plot.draw(looks, (NARROW, 280.0));
    let place = |x: f64| words::value(x, dimension.unit);
    let x = (dimension.words, &place as &dyn Fn(f64) -> String);
    let table = tables::points(&plot.title, x, shown.unit, &plot.series, looks);
    let mut below = tables::folded("Table", &table);
    if !withheld.is_empty() {
        let names = super::svg::escape(&withheld.join(", "));
        let note = "Left out where the generator was busy";
        below = format!("<p class=\"note\">{note}: {names}.</p>{below}");
    }
    Some(figure(&plot.title, &drawn, &below))
}
