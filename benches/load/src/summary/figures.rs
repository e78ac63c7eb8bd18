//! What each figure of a row is: its words, its unit, which direction is better, and whether it is
//! still worth quoting when the generator had no time left.

use crate::results::{LatencyUs, Row, ScenarioResult};

/// In what a figure is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number each second.
    PerSecond,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A part of one.
    Share,
    /// A plain number.
    Number,
}

/// Which direction of a figure is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    More,
    /// Less is better.
    Less,
    /// It describes the run, and is no merit.
    Neither,
}

/// Where in a row a figure stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Figures,
    Latency(fn(&LatencyUs) -> f64),
    Spans,
}

/// One figure that rows may have.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its key in the JSON.
    pub key: String,
    /// Its words, as in the head of a column.
    pub title: String,
    /// What it is measured in.
    pub unit: Unit,
    /// Which direction is better.
    pub better: Better,
    /// Whether it depends on how fast the generator was.
    pub hurried: bool,
    place: Place,
}

impl Figure {
    /// Its value in a row, if it was measured there.
    #[must_use]
    pub fn of(&self, row: &Row) -> Option<f64> {
        match self.place {
            Place::Figures => row.figures.get(&self.key).copied(),
            Place::Latency(field) => row.latency_us.as_ref().map(field),
            Place::Spans => row.spans_ms.get(&self.key).copied(),
        }
    }

    /// The figure with this key: a known one, or one whose unit and direction follow from its name.
    #[must_use]
    pub fn named(key: &str) -> Self {
        known().into_iter().find(|figure| figure.key == key).unwrap_or_else(|| Self::guessed(key))
    }

    fn guessed(key: &str) -> Self {
        let unit = match key.rsplit('_').next() {
            Some("s") if key.ends_with("_per_s") => Unit::PerSecond,
            Some("s") => Unit::Seconds,
            Some("us") => Unit::Microseconds,
            Some("ms") => Unit::Milliseconds,
            Some("bytes") => Unit::Bytes,
            Some("share") => Unit::Share,
            _ if key.contains("bytes_per_") => Unit::Bytes,
            _ if key.contains("_us_per_") => Unit::Microseconds,
            _ => Unit::Number,
        };
        let better = match unit {
            Unit::PerSecond => Better::More,
            Unit::Share | Unit::Number => Better::Neither,
            _ => Better::Less,
        };
        let title = match unit {
            Unit::PerSecond => key.trim_end_matches("_per_s").to_owned() + "/s",
            _ => key.to_owned(),
        };
        let hurried = unit != Unit::Bytes && !key.starts_with("cpu_");
        let title = title.replace('_', " ");
        Self { key: key.to_owned(), title, unit, better, hurried, place: Place::Figures }
    }

    fn span(key: &str) -> Self {
        let title = format!("{key}, ms");
        let (unit, better) = (Unit::Milliseconds, Better::Less);
        Self { key: key.to_owned(), title, unit, better, hurried: true, place: Place::Spans }
    }
}

/// The figures of the contract, in the order in which they are shown.
fn known() -> Vec<Figure> {
    let figure = |key: &str, title: &str, unit, better, hurried| Figure {
        key: key.to_owned(),
        title: title.to_owned(),
        unit,
        better,
        hurried,
        place: Place::Figures,
    };
    let latency = |key: &str, title: &str, field| Figure {
        place: Place::Latency(field),
        ..figure(key, title, Unit::Microseconds, Better::Less, true)
    };
    vec![
        figure("messages_per_s", "messages/s", Unit::PerSecond, Better::More, true),
        figure("deliveries_per_s", "deliveries/s", Unit::PerSecond, Better::More, true),
        figure("cpu_us_per_message", "CPU us/msg", Unit::Microseconds, Better::Less, false),
        figure("cpu_us_per_delivery", "CPU us/dlv", Unit::Microseconds, Better::Less, false),
        latency("p50", "p50 us", |latency| latency.p50),
        latency("p90", "p90 us", |latency| latency.p90),
        latency("p99", "p99 us", |latency| latency.p99),
        latency("p999", "p99.9 us", |latency| latency.p999),
        latency("max", "max us", |latency| latency.max),
        figure("rss_bytes", "RSS", Unit::Bytes, Better::Less, false),
        figure("bytes_per_route", "B/route", Unit::Number, Better::Less, false),
        figure("link_bytes_per_delivery", "link B/dlv", Unit::Number, Better::Less, false),
        figure("server_cores", "cores", Unit::Number, Better::Neither, false),
        figure(
            "generator_us_per_message",
            "gen us/msg",
            Unit::Microseconds,
            Better::Neither,
            false,
        ),
        figure(
            "generator_late_p99_us",
            "gen late p99 us",
            Unit::Microseconds,
            Better::Neither,
            false,
        ),
        figure("generator_idle", "gen idle", Unit::Share, Better::Neither, false),
        figure("setup_s", "set-up s", Unit::Seconds, Better::Less, false),
    ]
}

/// The figures that any row of a scenario has: known ones in their order, then others by name, then
/// spans.
#[must_use]
pub fn figures_of(scenario: &ScenarioResult) -> Vec<Figure> {
    let mut figures = known();
    let mut add = |figure: Figure| {
        if figures.iter().all(|there| there.key != figure.key) {
            figures.push(figure);
        }
    };
    let rows = || scenario.rows.iter();
    rows().flat_map(|row| row.figures.keys()).for_each(|key| add(Figure::named(key)));
    rows().flat_map(|row| row.spans_ms.keys()).for_each(|key| add(Figure::span(key)));
    figures.retain(|figure| rows().any(|row| figure.of(row).is_some()));
    figures
}
