//! Ratios as bars from 1, and where each target stands on one axis.

use super::looks::{Look, Looks, Shape};
use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::report::words;
use crate::summary::figures::Unit;
use crate::summary::{Ratio, Spread};

/// A figure of Waybill's to that of each other target.
#[derive(Clone, Debug)]
pub(super) struct Ratios<'a> {
    pub(super) title: String,
    /// What it means to lie to the left of 1, and to the right.
    pub(super) directions: [&'static str; 2],
    pub(super) rows: Vec<RatioRow<'a>>,
}

/// One bar.
#[derive(Clone, Debug)]
pub(super) struct RatioRow<'a> {
    pub(super) target: &'a str,
    /// What the other target reached, in words.
    pub(super) reached: String,
    /// None where a side is not quoted.
    pub(super) ratio: Option<Ratio>,
    /// Why there is none.
    pub(super) missing: &'static str,
}

const NAME: f64 = 96.0;
const SAID: f64 = 62.0;
const ROW: f64 = 30.0;

impl Ratios<'_> {
    /// Draws them below each other on one logarithmic axis.
    pub(super) fn draw(&self, looks: &Looks<'_>, width: f64) -> String {
        let rows = f64::from(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        let height = rows * ROW + 42.0;
        let ratios = || self.rows.iter().filter_map(|row| row.ratio);
        let values = ratios().flat_map(|ratio| [ratio.spread.min, ratio.spread.max]);
        let scale = Scale::log(values.chain([0.9, 1.1]));
        let (left, right) = (NAME, width - SAID);
        let place = |value: f64| left + scale.place(value) * (right - left);
        let mut svg = Svg::new(width, height, &self.title);
        let floor = rows * ROW + 4.0;
        axis(&mut svg, scale, Unit::Number, (left, right), floor);
        for (row, at) in self.rows.iter().zip(0_u32..) {
            let y = 4.0 + ROW * (f64::from(at) + 0.5);
            draw_row(&mut svg, row, looks.get(row.target), (y, width), &place);
        }
        svg.line("one", (place(1.0), 0.0), (place(1.0), floor));
        let [less, more] = self.directions;
        let (less, more) = (format!("\u{2190} {less}"), format!("{more} \u{2192}"));
        svg.text("label", Anchor::Start, (0.0, height - 4.0), &less);
        svg.text("label", Anchor::End, (width, height - 4.0), &more);
        svg.finish()
    }
}

fn axis(svg: &mut Svg, scale: Scale, unit: Unit, (left, right): (f64, f64), floor: f64) {
    svg.begin("axes", "");
    let mut free_from = f64::NEG_INFINITY;
    for tick in scale.ticks(unit) {
        let x = left + tick.at * (right - left);
        svg.line("grid", (x, 0.0), (x, floor));
        let half = 3.5 * f64::from(u32::try_from(tick.words.len()).unwrap_or(u32::MAX));
        if x - half > free_from {
            svg.text("tick", Anchor::Middle, (x, floor + 15.0), &tick.words);
            free_from = x + half + 4.0;
        }
    }
    svg.end();
}

fn draw_row(
    svg: &mut Svg,
    row: &RatioRow<'_>,
    look: Look,
    (y, width): (f64, f64),
    place: &impl Fn(f64) -> f64,
) {
    let told = row.ratio.as_ref().map_or(row.missing.to_owned(), |ratio| told(row, ratio));
    svg.begin(&format!("series t-{}", look.class), &told);
    svg.text("name", Anchor::Start, (12.0, y - 1.0), row.target);
    svg.mark(look.shape, (4.5, y - 5.0), 4.0);
    svg.text("reached", Anchor::Start, (12.0, y + 11.0), &row.reached);
    match &row.ratio {
        None => svg.text("missing", Anchor::Start, (place(1.0) + 6.0, y + 4.0), row.missing),
        Some(ratio) => {
            let Spread { median, min, max, .. } = ratio.spread;
            let (from, to) = (place(median.min(1.0)), place(median.max(1.0)));
            let class = if ratio.verdict.differs() { "bar" } else { "bar close" };
            svg.bar(class, (from, y - 6.0), ((to - from).max(1.0), 12.0));
            svg.line("whisker", (place(min), y), (place(max), y));
            svg.line("whisker", (place(min), y - 3.0), (place(min), y + 3.0));
            svg.line("whisker", (place(max), y - 3.0), (place(max), y + 3.0));
            let sign = if ratio.verdict.differs() { "\u{d7}" } else { "\u{d7} ~" };
            let said = format!("{}{sign}", words::digits(median));
            svg.text("said", Anchor::End, (width, y + 4.0), &said);
        }
    }
    svg.end();
}

fn told(row: &RatioRow<'_>, ratio: &Ratio) -> String {
    let pairs = words::several(ratio.spread.count, "pair");
    let interval = ratio.interval.map_or(String::new(), |interval| {
        let (low, high) = (words::digits(interval.low), words::digits(interval.high));
        format!(", interval {low} to {high} ({:.1} %)", interval.confidence * 100.0)
    });
    format!("{}: {}, {pairs}{interval}; {}", row.target, words::ratio(ratio), ratio.verdict)
}

/// Where every target stands, a line for each scenario and variant.
#[derive(Clone, Debug)]
pub(super) struct Stand<'a> {
    pub(super) title: String,
    pub(super) label: String,
    pub(super) unit: Unit,
    pub(super) lines: Vec<StandLine<'a>>,
}

/// One line of it.
#[derive(Clone, Debug)]
pub(super) struct StandLine<'a> {
    pub(super) words: String,
    pub(super) marks: Vec<(&'a str, Spread)>,
}

impl Stand<'_> {
    /// Draws all lines over one logarithmic axis, each under its words.
    pub(super) fn draw(&self, looks: &Looks<'_>, width: f64) -> String {
        const LINE: f64 = 46.0;
        let count = f64::from(u32::try_from(self.lines.len()).unwrap_or(u32::MAX));
        let (floor, edge) = (count * LINE + 4.0, 14.0);
        let marks = || self.lines.iter().flat_map(|line| &line.marks);
        let scale = Scale::log(marks().flat_map(|(_, spread)| [spread.min, spread.max]));
        let place = |value: f64| edge + scale.place(value) * (width - 2.0 * edge);
        let mut svg = Svg::new(width, floor + 38.0, &self.title);
        axis(&mut svg, scale, self.unit, (edge, width - edge), floor);
        svg.text("label", Anchor::Middle, (width / 2.0, floor + 34.0), &self.label);
        for (line, at) in self.lines.iter().zip(0_u32..) {
            let y = LINE * f64::from(at) + 32.0;
            svg.text("line-name", Anchor::Start, (edge, y - 14.0), &line.words);
            svg.line("track", (edge, y), (width - edge, y));
            // The first target last, so that nothing lies over it.
            for (target, spread) in line.marks.iter().rev() {
                let look = looks.get(target);
                let value = words::value(spread.median, self.unit);
                let range = words::range(*spread, self.unit);
                svg.begin(
                    &format!("series t-{}", look.class),
                    &format!("{target}: {value} ({range}), {}", line.words),
                );
                svg.line("whisker", (place(spread.min), y), (place(spread.max), y));
                let size = if look.shape == Shape::Circle { 6.0 } else { 5.0 };
                svg.mark(look.shape, (place(spread.median), y), size);
                svg.end();
            }
        }
        svg.finish()
    }
}
