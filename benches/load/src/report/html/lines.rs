//! Plots with two axes: latency by percentile, rate against latency, cost against what varies.

use super::looks::Looks;
use super::scale::{Scale, Tick};
use super::svg::{Anchor, Svg};
use crate::report::words;
use crate::summary::figures::Unit;

/// A value with what its repeats reached, somewhere on the lower axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// What one target did.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series<'a> {
    pub(super) target: &'a str,
    /// From left to right.
    pub(super) points: Vec<Point>,
}

/// How repeats are shown around a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    /// A shade between least and greatest: for lines of many points.
    Band,
    /// A mark with a line through it at each point.
    Marks,
}

/// The lower axis.
#[derive(Clone, Debug)]
pub(super) struct Lower {
    pub(super) scale: Scale,
    pub(super) ticks: Vec<Tick>,
    pub(super) unit: Unit,
    pub(super) words: String,
}

/// A plot before it is drawn.
#[derive(Clone, Debug)]
pub(super) struct Plot<'a> {
    /// What it shows, for its head and for those who cannot see it.
    pub(super) title: String,
    pub(super) x: Lower,
    pub(super) y_unit: Unit,
    pub(super) repeats: Repeats,
    pub(super) series: Vec<Series<'a>>,
}

/// Room beside the plot itself: for words of the axes and, to the right, for names of targets.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 104.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// Names of targets are so far apart.
const NAME_HEIGHT: f64 = 13.5;

/// Where on the page the plot's axes lie.
struct Frame {
    x: Scale,
    y: Scale,
    width: f64,
    height: f64,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (self.width - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.height - BOTTOM - self.y.place(value) * (self.height - TOP - BOTTOM)
    }

    fn right(&self) -> f64 {
        self.width - RIGHT
    }

    fn floor(&self) -> f64 {
        self.height - BOTTOM
    }
}

impl Plot<'_> {
    /// Draws it; names of targets stand where their lines end.
    pub(super) fn draw(&self, looks: &Looks<'_>, (width, height): (f64, f64)) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let y = Scale::log(points().flat_map(|point| [point.low, point.high, point.y]));
        let frame = Frame { x: self.x.scale, y, width, height };
        let mut svg = Svg::new(width, height, &self.title);
        self.axes(&mut svg, &frame);
        for series in self.series.iter().rev() {
            let told = format!("{}: {}", series.target, self.ends(series));
            svg.begin(&format!("series t-{}", looks.get(series.target).class), &told);
            self.line(&mut svg, &frame, series, looks);
            svg.end();
        }
        self.names(&mut svg, &frame, looks);
        svg.finish()
    }

    fn axes(&self, svg: &mut Svg, frame: &Frame) {
        svg.begin("axes", "");
        for tick in frame.y.ticks(self.y_unit) {
            let y = frame.floor() - tick.at * (frame.floor() - TOP);
            svg.line("grid", (LEFT, y), (frame.right(), y));
            svg.text("tick", Anchor::End, (LEFT - 6.0, y + 4.0), &tick.words);
        }
        let mut free_from = f64::NEG_INFINITY;
        for tick in &self.x.ticks {
            let x = LEFT + tick.at * (frame.right() - LEFT);
            svg.line("grid", (x, TOP), (x, frame.floor()));
            // 7 units a character is wide enough for every font the sheet names.
            let half = 3.5 * f64::from(u32::try_from(tick.words.len()).unwrap_or(u32::MAX));
            if x - half > free_from {
                svg.text("tick", Anchor::Middle, (x, frame.floor() + 16.0), &tick.words);
                free_from = x + half + 4.0;
            }
        }
        let middle = f64::midpoint(LEFT, frame.right());
        svg.text("label", Anchor::Middle, (middle, frame.height - 6.0), &self.x.words);
        svg.line("axis", (LEFT, frame.floor()), (frame.right(), frame.floor()));
        svg.end();
    }

    fn line(&self, svg: &mut Svg, frame: &Frame, series: &Series<'_>, looks: &Looks<'_>) {
        let at = |value: fn(&Point) -> f64| {
            move |point: &Point| (frame.x(point.x), frame.y(value(point)))
        };
        let spread = series.points.iter().any(|point| point.low < point.high);
        if self.repeats == Repeats::Band && spread {
            let above = series.points.iter().map(at(|point| point.high));
            let below = series.points.iter().rev().map(at(|point| point.low));
            svg.area("band", &above.chain(below).collect::<Vec<_>>());
        }
        let line: Vec<(f64, f64)> = series.points.iter().map(at(|point| point.y)).collect();
        svg.path("line", &line);
        if self.repeats == Repeats::Marks {
            for point in &series.points {
                let (x, y) = (frame.x(point.x), frame.y(point.y));
                svg.line("whisker", (x, frame.y(point.low)), (x, frame.y(point.high)));
                svg.mark(looks.get(series.target).shape, (x, y), 4.0);
            }
        }
    }

    /// Names at the ends of lines, moved apart where they would lie over each other.
    fn names(&self, svg: &mut Svg, frame: &Frame, looks: &Looks<'_>) {
        let end = |series: &Series<'_>| series.points.last().map(|point| frame.y(point.y));
        let mut ends: Vec<(f64, &str, f64)> = Vec::new();
        for series in &self.series {
            ends.extend(end(series).map(|y| (y, series.target, y)));
        }
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut places: Vec<f64> = ends.iter().map(|(y, _, _)| *y).collect();
        spread_out(&mut places, NAME_HEIGHT, (TOP + 4.0, frame.floor()));
        for (place, (y, target, _)) in places.iter().zip(&ends) {
            let series = self.series.iter().find(|series| series.target == *target);
            let last = series.and_then(|series| series.points.last());
            let x = last.map_or(frame.right(), |point| frame.x(point.x));
            svg.begin(&format!("series t-{}", looks.get(target).class), "");
            svg.path(
                "leader",
                &[(x + 2.0, *y), (frame.right() + 3.0, *y), (frame.right() + 9.0, *place)],
            );
            svg.text("name", Anchor::Start, (frame.right() + 12.0, place + 4.0), target);
            svg.end();
        }
    }

    /// Where a line begins and ends, in words.
    fn ends(&self, series: &Series<'_>) -> String {
        let told = |point: &Point| {
            let x = match self.x.scale {
                Scale::Nines { .. } => format!("p{}", words::digits(point.x)),
                Scale::Log { .. } => words::value(point.x, self.x.unit),
            };
            format!("{} at {x}", words::value(point.y, self.y_unit))
        };
        match series.points.as_slice() {
            [] => "nothing".to_owned(),
            [only] => told(only),
            [first, .., last] => format!("{}, {}", told(first), told(last)),
        }
    }
}

/// Moves ascending places apart until each is `gap` from the next, within bounds as far as they
/// have room, and none further than it must.
pub(super) fn spread_out(places: &mut [f64], gap: f64, (low, high): (f64, f64)) {
    let mut floor = low;
    for place in places.iter_mut() {
        *place = place.max(floor);
        floor = *place + gap;
    }
    let mut ceiling = high;
    for place in places.iter_mut().rev() {
        *place = place.min(ceiling);
        ceiling = *place - gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_moved_apart_and_no_further() {
        let mut places = [10.0, 11.0, 50.0, 99.0, 99.5];
        spread_out(&mut places, 10.0, (0.0, 100.0));
        assert_eq!(places, [10.0, 20.0, 50.0, 90.0, 100.0]);
        let mut crowded = [0.0, 0.0];
        spread_out(&mut crowded, 10.0, (0.0, 5.0));
        assert_eq!(crowded, [-5.0, 5.0], "no room: apart before within bounds");
    }
}
