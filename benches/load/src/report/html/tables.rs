//! The numbers behind the plots.

use std::fmt::Write as _;

use super::lines::Series;
use super::looks::Looks;
use super::svg::escape;
use crate::report::words;
use crate::results::ScenarioResult;
use crate::summary::figures::{Better, Figure, Unit};
use crate::summary::table::{Cell, Entry, SUBJECT, Table};

/// A target's name with its mark.
pub(super) fn target(looks: &Looks<'_>, target: &str) -> String {
    let name = escape(target);
    let name = if target == SUBJECT { format!("<b>{name}</b>") } else { name };
    format!("<span class=\"target\">{}{name}</span>", super::swatch(looks, target))
}

/// A table in a box that scrolls by itself when it is wider than the page.
pub(super) fn boxed(caption: &str, head: &[String], rows: &[Vec<String>]) -> String {
    let mut text = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" \
         aria-label=\"{caption}\"><table><caption>{caption}</caption><thead><tr>",
        caption = escape(caption)
    );
    for cell in head {
        let _ = write!(text, "<th scope=\"col\">{cell}</th>");
    }
    text.push_str("</tr></thead><tbody>");
    for row in rows {
        text.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let _ = match at {
                0 => write!(text, "<th scope=\"row\">{cell}</th>"),
                _ => write!(text, "<td>{cell}</td>"),
            };
        }
        text.push_str("</tr>");
    }
    text + "</tbody></table></div>"
}

/// Something that is there for who wants it.
pub(super) fn folded(summary: &str, inner: &str) -> String {
    format!("<details><summary>{}</summary>{inner}</details>", escape(summary))
}

fn cell(entry: &Entry<'_>, figure: &Figure) -> String {
    match entry.cell(figure) {
        Cell::Quoted(spread) if spread.min < spread.max => format!(
            "{}<small>{}</small>",
            words::value(spread.median, figure.unit),
            words::range(spread, figure.unit)
        ),
        Cell::Quoted(spread) => words::value(spread.median, figure.unit),
        Cell::Withheld => {
            "<abbr title=\"not quoted: the generator was busy\">busy</abbr>".to_owned()
        }
        Cell::Missing if entry.passed().next().is_none() => {
            "<b class=\"bad\">failed</b>".to_owned()
        }
        Cell::Missing => String::new(),
    }
}

/// Every figure of every target.
pub(super) fn figures(scenario: &ScenarioResult, table: &Table<'_>, looks: &Looks<'_>) -> String {
    let figures = table.figures(scenario);
    let head: Vec<String> = ["target".to_owned()]
        .into_iter()
        .chain(figures.iter().map(|figure| escape(&figure.title)))
        .collect();
    let rows: Vec<Vec<String>> = table
        .entries
        .iter()
        .map(|entry| {
            let cells = figures.iter().map(|figure| cell(entry, figure));
            [target(looks, entry.target)].into_iter().chain(cells).collect()
        })
        .collect();
    boxed(&format!("Figures, {}", words::variant(table.variant, scenario)), &head, &rows)
}

/// Waybill to every other target, in every figure that has a better direction.
pub(super) fn ratios(
    scenario: &ScenarioResult,
    table: &Table<'_>,
    looks: &Looks<'_>,
) -> Option<String> {
    let subject = table.entry(SUBJECT)?;
    let others: Vec<&Entry<'_>> =
        table.entries.iter().filter(|entry| entry.target != SUBJECT).collect();
    let mut head = vec!["Waybill / other".to_owned()];
    let mut rows: Vec<Vec<String>> =
        others.iter().map(|other| vec![target(looks, other.target)]).collect();
    for figure in table.figures(scenario).iter().filter(|f| f.better != Better::Neither) {
        let ratios: Vec<_> = others.iter().map(|other| subject.ratio_to(other, figure)).collect();
        if ratios.iter().all(Option::is_none) {
            continue;
        }
        head.push(escape(&figure.title));
        for (row, ratio) in rows.iter_mut().zip(ratios) {
            row.push(ratio.map_or(String::new(), |ratio| {
                let sign = if ratio.verdict.differs() { "" } else { "~" };
                let (min, max) = (ratio.spread.min, ratio.spread.max);
                let (min, max) = (words::digits(min), words::digits(max));
                let median = words::digits(ratio.spread.median);
                let verdict = ratio.verdict;
                format!("<span title=\"{verdict}\">{sign}{median}</span><small>{min}-{max}</small>")
            }));
        }
    }
    let caption = format!("Ratios, {}", words::variant(table.variant, scenario));
    (head.len() > 1).then(|| boxed(&caption, &head, &rows))
}

/// The points of a plot: a row for each place on its lower axis.
pub(super) fn points(
    caption: &str,
    x: (&str, &dyn Fn(f64) -> String),
    unit: Unit,
    series: &[Series<'_>],
    looks: &Looks<'_>,
) -> String {
    let mut places: Vec<f64> =
        series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let head: Vec<String> = [escape(x.0)]
        .into_iter()
        .chain(series.iter().map(|series| target(looks, series.target)))
        .collect();
    let rows: Vec<Vec<String>> = places
        .iter()
        .map(|place| {
            let value = |series: &Series<'_>| {
                let point = series.points.iter().find(|point| point.x == *place);
                point.map_or(String::new(), |point| words::value(point.y, unit))
            };
            [x.1(*place)].into_iter().chain(series.iter().map(value)).collect()
        })
        .collect();
    boxed(caption, &head, &rows)
}
