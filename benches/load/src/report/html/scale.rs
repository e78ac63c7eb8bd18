//! Where values lie on an axis, and which of them are written beside it.

use crate::report::words;
use crate::summary::figures::Unit;

/// An axis from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Equal factors are equal lengths.
    Log { low: f64, high: f64 },
    /// Percentiles, each nine as long as the one before.
    Nines { low: f64, high: f64 },
}

/// One line across a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    /// Where, from 0 to 1.
    pub(super) at: f64,
    /// Its words.
    pub(super) words: String,
}

/// More lines than this are not drawn.
const TICKS_MAX: usize = 9;

impl Scale {
    /// Logarithmic, around all of these values that are above zero, out to round ones.
    pub(super) fn log(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.into_iter().filter(|value| *value > 0.0 && value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if high / low < 2.0 {
            (low, high) = (low / 1.5, high * 1.5);
        }
        Self::Log { low: round_below(low), high: round_above(high) }
    }

    /// Logarithmic from the least of these values to the greatest. They are above zero.
    pub(super) fn between(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        if low < high { Self::Log { low, high } } else { Self::log([low]) }
    }

    /// Lines at these values.
    pub(super) fn ticks_at(self, values: &[f64], unit: Unit) -> Vec<Tick> {
        let tick = |value: &f64| Tick { at: self.place(*value), words: plain(*value, unit) };
        values.iter().map(tick).collect()
    }

    /// Percentiles from `low` to `high`, in percent.
    pub(super) fn nines(low: f64, high: f64) -> Self {
        let low = nines_of(low).max(0.0);
        Self::Nines { low, high: nines_of(high).max(low + 0.5) }
    }

    /// Where a value lies; outside of 0 to 1 if it is beyond the axis.
    pub(super) fn place(self, value: f64) -> f64 {
        match self {
            Self::Log { low, high } => (value / low).ln() / (high / low).ln(),
            Self::Nines { low, high } => (nines_of(value) - low) / (high - low),
        }
    }

    /// The lines worth drawing, with words in a unit.
    pub(super) fn ticks(self, unit: Unit) -> Vec<Tick> {
        match self {
            Self::Log { low, high } => {
                let steps: [&[f64]; 3] = [&[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
                let within = |steps: &[f64]| round_numbers(low, high, steps);
                let fine = steps.iter().map(|steps| within(steps));
                let fits = |values: &Vec<f64>| values.len() <= TICKS_MAX;
                let values =
                    fine.clone().find(fits).unwrap_or_else(|| every_other(&within(&[1.0])));
                let tick = |value: f64| Tick { at: self.place(value), words: plain(value, unit) };
                values.into_iter().map(tick).collect()
            }
            Self::Nines { low, high } => {
                let named = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
                let within = |value: &f64| {
                    let nines = nines_of(*value);
                    low - 1e-6 <= nines && nines <= high + 1e-6
                };
                let tick = |value| Tick { at: self.place(value), words: format!("{value}") };
                named.into_iter().filter(within).map(tick).collect()
            }
        }
    }
}

/// How many nines a percentile has: 1 for 90, 2 for 99; 0.3 for 50.
fn nines_of(percentile: f64) -> f64 {
    // Beyond seven nines no run here has samples.
    -(1.0 - percentile / 100.0).max(1e-7).log10()
}

/// A round value without the digits that measured ones have.
fn plain(value: f64, unit: Unit) -> String {
    words::trimmed(&words::value(value, unit))
}

fn power_below(value: f64) -> f64 {
    10.0_f64.powf((value.log10() + 1e-9).floor())
}

fn round_below(value: f64) -> f64 {
    let power = power_below(value);
    [5.0, 2.0, 1.0]
        .into_iter()
        .map(|step| step * power)
        .find(|v| *v <= value * 1.000_001)
        .unwrap_or(power)
}

fn round_above(value: f64) -> f64 {
    let power = power_below(value);
    let above = |v: &f64| *v >= value * 0.999_999;
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(above).unwrap_or(power * 10.0)
}

/// Round values within bounds, in order.
fn round_numbers(low: f64, high: f64, steps: &[f64]) -> Vec<f64> {
    let mut values = Vec::new();
    let mut power = power_below(low);
    while power <= high * 1.000_001 {
        let here = steps.iter().map(|step| step * power);
        values.extend(here.filter(|v| low * 0.999_999 <= *v && *v <= high * 1.000_001));
        power *= 10.0;
    }
    values
}

fn every_other(values: &[f64]) -> Vec<f64> {
    values.iter().copied().step_by(values.len().div_ceil(TICKS_MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(scale: Scale, unit: Unit) -> Vec<String> {
        scale.ticks(unit).into_iter().map(|tick| tick.words).collect()
    }

    #[test]
    fn axes_end_at_round_values() {
        let scale = Scale::log([342_000.0, 11_100_000.0]);
        assert_eq!(scale, Scale::Log { low: 200_000.0, high: 20_000_000.0 });
        assert_eq!(words(scale, Unit::PerSecond), ["200k", "500k", "1M", "2M", "5M", "10M", "20M"]);
        assert!((scale.place(2_000_000.0) - 0.5).abs() < 1e-9, "the middle of a log axis");
    }

    #[test]
    fn wide_axes_have_fewer_lines() {
        assert_eq!(
            words(Scale::log([1.0, 9e5]), Unit::Number),
            ["1", "10", "100", "1000", "10k", "100k", "1M"]
        );
    }

    #[test]
    fn each_nine_is_as_long_as_the_one_before() {
        let scale = Scale::nines(0.0, 99.99);
        let places: Vec<f64> = [0.0, 90.0, 99.0, 99.9, 99.99].map(|p| scale.place(p)).to_vec();
        for (at, place) in places.iter().enumerate() {
            let quarter = f64::from(u32::try_from(at).expect("few")) / 4.0;
            assert!((place - quarter).abs() < 1e-6, "{places:?}");
        }
        assert_eq!(words(scale, Unit::Share), ["0", "50", "90", "99", "99.9", "99.99"]);
    }

    #[test]
    fn nothing_to_show_is_still_an_axis() {
        assert_eq!(Scale::log([0.0, f64::NAN]), Scale::Log { low: 1.0, high: 10.0 });
    }
}
