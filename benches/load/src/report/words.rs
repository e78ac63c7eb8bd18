//! Numbers and variants in words, the same on terminal and page: three digits that count, no more.

use crate::results::{Machine, ScenarioResult, Variant};
use crate::summary::figures::Unit;
use crate::summary::{Ratio, Spread};
use std::fmt::Display;

/// A value in its unit.
#[must_use]
pub(super) fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond => scaled(value),
        Unit::Bytes => bytes(value),
        Unit::Share => format!("{:.0} %", value * 100.0),
        Unit::Microseconds | Unit::Milliseconds | Unit::Seconds | Unit::Number => digits(value),
    }
}

/// From least to greatest, in as few characters as can be: "2.98-3.31M", "15.2-17.1".
#[must_use]
pub(super) fn range(spread: Spread, unit: Unit) -> String {
    let (min, max) = (value(spread.min, unit), value(spread.max, unit));
    if min == max {
        return max;
    }
    let tail = |text: &str| text.trim_start_matches(|c: char| "0123456789.".contains(c)).len();
    let (min_tail, max_tail) = (min.len() - tail(&min), max.len() - tail(&max));
    let min = if min[min_tail..] == max[max_tail..] { &min[..min_tail] } else { &min };
    format!("{min}-{max}")
}

/// A ratio with its spread: "5.21 (4.9-5.6)"; of a single pair without.
#[must_use]
pub(super) fn ratio(ratio: &Ratio) -> String {
    let median = digits(ratio.spread.median);
    let sign = if ratio.verdict.differs() { "" } else { "~" };
    if ratio.spread.count < 2 {
        return format!("{sign}{median}");
    }
    format!("{sign}{median} ({}-{})", digits(ratio.spread.min), digits(ratio.spread.max))
}

/// Three digits that count: 0.0841, 3.12, 84.4, 1180, 12.0k, 3.12M.
#[must_use]
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size == 0.0 => "0".to_owned(),
        _ if size >= 9_999.5 => scaled(value),
        _ if size >= 99.95 => format!("{value:.0}"),
        _ if size >= 9.995 => format!("{value:.1}"),
        _ if size >= 0.995 => format!("{value:.2}"),
        _ if size >= 0.0995 => format!("{value:.3}"),
        _ if size >= 0.000_095 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

/// Three digits and a thousand, million or thousand million: 638, 84.4k, 3.12M.
#[must_use]
pub(super) fn scaled(value: f64) -> String {
    let size = value.abs();
    let steps = [(9.995e8, 1e9, "G"), (9.995e5, 1e6, "M"), (999.5, 1e3, "k")];
    match steps.into_iter().find(|(from, _, _)| size >= *from) {
        Some((_, unit, sign)) => format!("{}{sign}", digits(value / unit)),
        None => digits(value),
    }
}

/// Bytes in steps of 1024: "812 B", "24.1 KiB", "1.20 GiB".
#[must_use]
pub(super) fn bytes(value: f64) -> String {
    let steps = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let step = steps.into_iter().find(|(_, bits)| value >= f64::from(1_u32 << bits) * 0.9995);
    match step {
        Some((sign, bits)) => format!("{} {sign}", digits(value / f64::from(1_u32 << bits))),
        None => format!("{value:.0} B"),
    }
}

/// A whole number in groups of three: 100,000.
#[must_use]
pub(super) fn grouped(number: impl Display) -> String {
    let plain = number.to_string();
    let mut text = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: "1 repeat", "3 repeats".
#[must_use]
pub(super) fn several(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Every dimension of a variant, in words, each with its name.
fn dimensions(variant: &Variant) -> Vec<(&'static str, String)> {
    let mut words = vec![
        ("payload_bytes", format!("{} B payload", grouped(variant.payload_bytes))),
        ("users", format!("{} users", grouped(variant.users))),
        ("gateways", format!("{} gateways", grouped(variant.gateways))),
    ];
    words.extend(variant.rate.as_ref().map(|rate| ("rate", rate_asked(&rate.asked))));
    words
}

/// A rate as it was asked for: "10k messages/s", "at 50% of capacity".
fn rate_asked(asked: &str) -> String {
    match asked.strip_suffix("/s").and_then(|number| number.parse().ok()) {
        Some(rate) => format!("{} messages/s", short(rate)),
        None => format!("at {asked}"),
    }
}

/// A round number as short as it can be: 10k, 2.5M.
#[must_use]
pub(super) fn short(value: f64) -> String {
    trimmed(&scaled(value))
}

/// Words of a number without the zeros that say it was measured.
#[must_use]
pub(super) fn trimmed(words: &str) -> String {
    let end = words.find(|c: char| !"0123456789.".contains(c)).unwrap_or(words.len());
    let (number, sign) = words.split_at(end);
    if !number.contains('.') {
        return words.to_owned();
    }
    format!("{}{sign}", number.trim_end_matches('0').trim_end_matches('.'))
}

/// The same, with how messages came where they came in a closed window.
fn dimensions_in(variant: &Variant, scenario: &ScenarioResult) -> Vec<(&'static str, String)> {
    let mut words = dimensions(variant);
    if variant.rate.is_none() && ["throughput", "latency"].contains(&scenario.kind.as_str()) {
        words.push(("rate", "closed window".to_owned()));
    }
    words
}

/// A variant in words.
#[must_use]
pub(super) fn variant(variant: &Variant, scenario: &ScenarioResult) -> String {
    let words = dimensions_in(variant, scenario).into_iter().map(|(_, words)| words);
    words.collect::<Vec<_>>().join(", ")
}

/// What of a variant is not the same in all variants of its scenario; everything if there is but
/// one.
#[must_use]
pub(super) fn variant_within(variant: &Variant, scenario: &ScenarioResult) -> String {
    let rows = scenario.rows.iter();
    let all: Vec<_> = rows.map(|row| dimensions_in(&row.variant, scenario)).collect();
    let own = dimensions_in(variant, scenario);
    let varies = |dimension: &(&str, String)| !all.iter().all(|other| other.contains(dimension));
    let words: Vec<String> = own.iter().filter(|own| varies(own)).map(|(_, w)| w.clone()).collect();
    if words.is_empty() { self::variant(variant, scenario) } else { words.join(", ") }
}

/// What of a variant is not the same in others of a list, in words.
#[must_use]
pub(super) fn variant_among(own: &Variant, others: &[Variant]) -> String {
    let others: Vec<_> = others.iter().map(dimensions).collect();
    let varies = |dimension: &(&str, String)| !others.iter().all(|one| one.contains(dimension));
    let words = dimensions(own).into_iter().filter(varies).map(|(_, words)| words);
    words.collect::<Vec<_>>().join(", ")
}

/// The machine in a line.
#[must_use]
pub(super) fn machine(machine: &Machine) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let memory = bytes(machine.memory_bytes as f64);
    format!(
        "{}, {}, {memory}, {}, {} placement",
        machine.cpu,
        several(machine.cores, "core"),
        machine.kernel,
        machine.placement
    )
}
