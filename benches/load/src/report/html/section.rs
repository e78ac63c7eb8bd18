//! One scenario: plots across its variants, then each variant by itself.

use std::fmt::Write as _;

use super::bars::{RatioRow, Ratios};
use super::lines::{Lower, Plot, Point, Repeats, Series};
use super::looks::Looks;
use super::scale::Scale;
use super::svg::escape;
use super::{NARROW, figure, tables, trends, two_sizes};
use crate::report::remarks::{Remark, remarks, skipped};
use crate::report::words;
use crate::results::ScenarioResult;
use crate::summary::Spread;
use crate::summary::figures::{Better, Figure, Unit, figures_of};
use crate::summary::table::{Cell, Entry, SUBJECT, Table};

/// Figures whose ratios are worth bars, the first there are of them.
const RATIOS: [&str; 3] = ["messages_per_s", "cpu_us_per_message", "bytes_per_route"];

/// The same where messages come at a given rate: then the rate is no merit.
const RATIOS_AT_RATE: [&str; 3] = ["p50", "p99", "cpu_us_per_message"];

/// So many panels of bars where none of these was measured.
const RATIOS_MAX: usize = 3;

/// Samples that must lie beyond a percentile for it to be drawn.
const SAMPLES_BEYOND: f64 = 10.0;

/// A percentile's place in a table, and beyond what it stands for.
const CURVE_ROWS: [f64; 7] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999];

/// The section of a scenario.
pub(super) fn section(scenario: &ScenarioResult, looks: &Looks<'_>) -> String {
    let tables = Table::of(scenario);
    let name = escape(&scenario.name);
    let mut text = format!(
        "<section id=\"s-{name}\"><h2>{name}</h2><p class=\"lead\">{}</p>{}",
        escape(&scenario.title),
        notices(scenario, &tables, looks)
    );
    let plots = trends::plots(&tables, looks);
    let plots = match plots.len() {
        0 => String::new(),
        _ => format!("<div class=\"panels\">{}</div>", plots.concat()),
    };
    let variants = variants(scenario, &tables, looks);
    // How latency grows with the rate is the point; how a cost grows with users is an aside.
    let in_order = if scenario.kind == "latency" { [plots, variants] } else { [variants, plots] };
    text.push_str(&in_order.concat());
    let parameters = scenario
        .parameters
        .iter()
        .map(|(key, value)| vec![escape(key), escape(&value.to_string())]);
    let parameters: Vec<Vec<String>> = parameters.collect();
    let head = ["parameter".to_owned(), "value".to_owned()];
    let all = tables::boxed(&scenario.file, &head, &parameters);
    text.push_str(&tables::folded("Everything the scenario file says", &all));
    text + "</section>"
}

/// Each variant in a pane; with several of them, tabs to choose one.
fn variants(scenario: &ScenarioResult, tables: &[Table<'_>], looks: &Looks<'_>) -> String {
    let panes: Vec<String> = tables.iter().map(|table| pane(scenario, table, looks)).collect();
    if panes.len() < 2 {
        return panes.concat();
    }
    // 128 bytes is what the canonical run sends.
    let is_canonical = |table: &Table<'_>| {
        let at_rate = table.variant.rate.is_some() || scenario.kind != "latency";
        table.variant.payload_bytes == 128 && at_rate
    };
    let first = tables.iter().position(is_canonical).unwrap_or(0);
    let name = escape(&scenario.name);
    let mut text =
        format!("<div class=\"tabs\" role=\"radiogroup\" aria-label=\"Variants of {name}\">");
    for (at, table) in tables.iter().enumerate() {
        let checked = if at == first { " checked" } else { "" };
        let words = escape(&words::variant_within(table.variant, scenario));
        let _ = write!(
            text,
            "<input type=\"radio\" name=\"v-{name}\" id=\"v-{name}-{at}\"{checked}>\
             <label for=\"v-{name}-{at}\">{words}</label>"
        );
    }
    text.push_str("<div class=\"panes\">");
    for pane in panes {
        let _ = write!(text, "<div class=\"pane\">{pane}</div>");
    }
    text + "</div></div>"
}

fn pane(scenario: &ScenarioResult, table: &Table<'_>, looks: &Looks<'_>) -> String {
    let repeats = table.entries.iter().map(|entry| entry.rows.len()).max().unwrap_or(0);
    let repeats = match repeats {
        1 => "one repeat".to_owned(),
        many => format!("median of {many} repeats"),
    };
    let variant = escape(&words::variant(table.variant, scenario));
    let mut text = format!("<h3>{variant} <small>{repeats}</small></h3>");
    text.push_str(&latency(scenario, table, looks).unwrap_or_default());
    let bars: Vec<String> = ratios(scenario, table, looks);
    if !bars.is_empty() {
        let _ = write!(text, "<div class=\"panels\">{}</div>", bars.concat());
    }
    text.push_str(&tables::figures(scenario, table, looks));
    if let Some(ratios) = tables::ratios(scenario, table, looks) {
        text.push_str(&tables::folded("Ratios of every figure", &ratios));
    }
    text
}

/// Bars for the figures that matter in this variant.
fn ratios(scenario: &ScenarioResult, table: &Table<'_>, looks: &Looks<'_>) -> Vec<String> {
    let Some(subject) = table.entry(SUBJECT) else { return Vec::new() };
    let wanted: &[&str] = if table.variant.rate.is_some() { &RATIOS_AT_RATE } else { &RATIOS };
    let measured = |figure: &Figure| subject.cell(figure) != Cell::Missing;
    let known = wanted.iter().map(|key| Figure::named(key)).filter(&measured);
    let mut shown: Vec<Figure> = known.collect();
    if shown.is_empty() {
        shown = figures_of(scenario);
        shown.retain(|figure| figure.better != Better::Neither && measured(figure));
    }
    let figures = shown.iter().take(RATIOS_MAX);
    figures.filter_map(|figure| ratio_bars(table, subject, figure, looks)).collect()
}

fn ratio_bars(
    table: &Table<'_>,
    subject: &Entry<'_>,
    shown: &Figure,
    looks: &Looks<'_>,
) -> Option<String> {
    let others = table.entries.iter().filter(|entry| entry.target != SUBJECT);
    let rows: Vec<RatioRow<'_>> = others
        .map(|other| {
            let (reached, missing) = match (other.cell(shown), subject.cell(shown)) {
                (Cell::Quoted(spread), Cell::Quoted(_)) => (reached(spread, shown), "no pair"),
                (Cell::Quoted(spread), _) => (reached(spread, shown), "Waybill's is not quoted"),
                (Cell::Withheld, _) => (String::new(), "not quoted: generator busy"),
                (Cell::Missing, _) if other.passed().next().is_none() => {
                    (String::new(), "failed the check")
                }
                (Cell::Missing, _) => (String::new(), "not measured"),
            };
            let ratio = subject.ratio_to(other, shown);
            RatioRow { target: other.target, reached, ratio, missing }
        })
        .collect();
    rows.iter().any(|row| row.ratio.is_some()).then_some(())?;
    let own = subject.cell(shown).quoted().map_or(String::new(), |own| reached(own, shown));
    let title = format!("{}: Waybill ({own}) to each other", shown.title);
    let directions = match (shown.better, shown.unit) {
        (Better::More, _) => ["the other has more", "Waybill has more"],
        (_, Unit::Microseconds | Unit::Milliseconds | Unit::Seconds) if shown.hurried => {
            ["Waybill is quicker", "Waybill is slower"]
        }
        _ => ["Waybill needs less", "Waybill needs more"],
    };
    let bars = Ratios { title, directions, rows };
    Some(figure(&bars.title, &bars.draw(looks, NARROW), ""))
}

fn reached(spread: Spread, figure: &Figure) -> String {
    words::value(spread.median, figure.unit)
}

/// Latency by percentile, where messages came at a given rate.
fn latency(scenario: &ScenarioResult, table: &Table<'_>, looks: &Looks<'_>) -> Option<String> {
    // In a closed window it tells of the window.
    if table.variant.rate.is_none() && scenario.kind == "throughput" {
        return None;
    }
    let quoted = |entry: &&Entry<'_>| !entry.generator_was_busy();
    let series: Vec<Series<'_>> = table
        .entries
        .iter()
        .filter(quoted)
        .map(|entry| Series { target: entry.target, points: curve(entry) })
        .filter(|series| series.points.len() > 1)
        .collect();
    let ends = series.iter().filter_map(|series| series.points.last()).map(|point| point.x);
    let starts = series.iter().filter_map(|series| series.points.first()).map(|point| point.x);
    let (low, high) = (starts.reduce(f64::min)?, ends.reduce(f64::max)?);
    let title = format!("Latency by percentile, us: {}", words::variant(table.variant, scenario));
    let scale = Scale::nines(low, high);
    let (unit, words) = (Unit::Number, "percentile".to_owned());
    let x = Lower { scale, ticks: scale.ticks(unit), unit, words };
    let y_unit = Unit::Microseconds;
    let plot = Plot { title, x, y_unit, repeats: Repeats::Band, series };
    let drawn = two_sizes(|width| {
        let height = if width > NARROW { 400.0 } else { 320.0 };
        plot.draw(looks, (width, height))
    });
    let rows: Vec<Series<'_>> = plot.series.iter().map(at_named_percentiles).collect();
    let table =
        tables::points(&plot.title, ("percentile", &|x: f64| format!("{x}")), y_unit, &rows, looks);
    let below = "<p class=\"note\">Median of the repeats at each percentile, shaded from least to \
                 greatest; drawn as far as ten messages lie beyond. Each nine is as wide as the \
                 one before.</p>";
    let below = below.to_owned() + &tables::folded("Table", &table);
    Some(figure(&plot.title, &drawn, &below))
}

fn at_named_percentiles<'a>(series: &Series<'a>) -> Series<'a> {
    let within = |x: &f64| {
        let places = series.points.iter().map(|point| point.x);
        places.clone().any(|place| place <= *x) && places.clone().any(|place| place >= *x)
    };
    let curve: Vec<(f64, f64)> = series.points.iter().map(|point| (point.x, point.y)).collect();
    let point = |x: f64| {
        let y = value_at(&curve, x);
        Point { x, y, low: y, high: y }
    };
    let points = CURVE_ROWS.into_iter().filter(within).map(point).collect();
    Series { target: series.target, points }
}

/// A target's latency at every percentile that any of its repeats has, as far as all of them reach.
fn curve(entry: &Entry<'_>) -> Vec<Point> {
    let curves: Vec<Vec<(f64, f64)>> = entry
        .passed()
        .filter_map(|row| row.latency_us.as_ref())
        .map(|latency| {
            #[expect(clippy::cast_precision_loss, reason = "compared with ten")]
            let beyond = |percentile: f64| (1.0 - percentile / 100.0) * latency.count as f64;
            let drawn = |(percentile, _): &(f64, f64)| beyond(*percentile) >= SAMPLES_BEYOND;
            latency.curve.iter().copied().filter(drawn).collect()
        })
        .collect();
    let ends = curves.iter().map(|curve: &Vec<(f64, f64)>| curve.last().map_or(-1.0, |end| end.0));
    let Some(end) = ends.reduce(f64::min) else { return Vec::new() };
    let mut places: Vec<f64> = curves.iter().flatten().map(|(place, _)| *place).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
        .into_iter()
        .filter(|place| *place <= end)
        .filter_map(|x| {
            let values: Vec<f64> = curves.iter().map(|curve| value_at(curve, x)).collect();
            let Spread { median, min, max, .. } = Spread::of(&values)?;
            // There is no zero on a logarithmic axis.
            (min > 0.0).then_some(Point { x, y: median, low: min, high: max })
        })
        .collect()
}

/// The value of a rising curve at a place: that of the first point not before it.
fn value_at(curve: &[(f64, f64)], place: f64) -> f64 {
    let at = curve.partition_point(|(there, _)| *there < place);
    curve.get(at).or(curve.last()).map_or(f64::NAN, |(_, value)| *value)
}

/// What has to be said beside the figures.
fn notices(scenario: &ScenarioResult, tables: &[Table<'_>], looks: &Looks<'_>) -> String {
    let mut lines = Vec::new();
    for assertion in scenario.assertions.iter().filter(|assertion| !assertion.held) {
        lines.push(format!("<li class=\"bad\">Not held: {}</li>", escape(&assertion.words)));
    }
    for Remark { target, of, said, grave } in remarks(scenario, tables) {
        let class = if grave { "bad" } else { "plain" };
        let target = tables::target(looks, &target);
        let of = if of.is_empty() { of } else { format!(" <small>({})</small>", escape(&of)) };
        lines.push(format!("<li class=\"{class}\">{target}{of}: {}</li>", escape(&said)));
    }
    for (target, reason) in skipped(scenario) {
        let (target, reason) = (escape(target), escape(&reason));
        lines.push(format!("<li class=\"plain\">{target} was skipped: {reason}</li>"));
    }
    let held = scenario.assertions.iter().filter(|assertion| assertion.held);
    let held: Vec<String> = held.map(|assertion| escape(&assertion.words)).collect();
    if !held.is_empty() {
        lines.push(format!("<li class=\"plain\">Held: {}</li>", held.join("; ")));
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("<ul class=\"remarks\">{}</ul>", lines.concat())
}
