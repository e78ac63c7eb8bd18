//! What numbers of repeats say together: medians with their spread, ratios, and which differences
//! stand.
//!
//! Nothing here assumes a distribution. Runs on a shared machine have long tails to one side, so
//! means and standard deviations would mostly tell of the worst run.
//!
//! - A figure is the **median** of its repeats, with least and greatest beside it.
//! - A ratio within one run is **paired by repeat**: the two targets of a pair were measured
//!   within minutes of each other, so what the machine did to both cancels out. The median of the
//!   paired ratios is quoted. Its interval is that of order statistics: between the k-th least
//!   and the k-th greatest of n ratios lies the median of all possible ones unless fewer than k
//!   of n fell on one side of it, which is a matter of coin tosses (W. J. Conover, *Practical
//!   Nonparametric Statistics*, "confidence interval for a quantile"). k is the largest that
//!   still gives 95 %. No resampling, so no seed; below six pairs there is no such interval.
//! - A ratio between two runs has no pairs. The median of all quotients of the one's repeats by
//!   the other's is quoted (Hodges and Lehmann, on logarithms), with the interval that belongs to
//!   the rank sum test (M. Hollander and D. A. Wolfe, *Nonparametric Statistical Methods*,
//!   "interval based on the two-sample rank sum test").
//!
//! A median of an even number of ratios is the geometric mean of the middle two, so that A to B is
//! exactly the inverse of B to A.

use std::fmt;

pub mod figures;
pub mod table;

/// Confidence that an interval must have at least.
pub const CONFIDENCE: f64 = 0.95;

/// Differences below this, as a share of the smaller side, need [`PAIRS_MIN`] and an interval.
pub const DIFFERENCE: f64 = 0.25;

/// Pairs (or repeats on each side) that any difference needs: fewer show no spread.
pub const PAIRS_LEAST: usize = 3;

/// Pairs (or repeats on each side) that a difference below [`DIFFERENCE`] needs.
pub const PAIRS_MIN: usize = 9;

/// The middle of some values, and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The value in the middle; between the middle two if their number is even.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many.
    pub count: usize,
}

impl Spread {
    /// Of measured figures: an even number of them has the mean of the middle two as its median.
    /// None of no value, or where one is not a finite number.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        Self::sorted(&ascending(values)?, f64::midpoint)
    }

    /// Of ratios: an even number of them has the geometric mean of the middle two.
    fn of_ratios(ratios: &[f64]) -> Option<Self> {
        Self::sorted(&ascending(ratios)?, |low, high| (low * high).sqrt())
    }

    fn sorted(values: &[f64], middle: impl Fn(f64, f64) -> f64) -> Option<Self> {
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        let median = if values.len() % 2 == 1 { low } else { middle(low, high) };
        Some(Self { median, min, max, count: values.len() })
    }
}

/// The values from least to greatest, or nothing if one is not finite.
fn ascending(values: &[f64]) -> Option<Vec<f64>> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.iter().all(|value| value.is_finite()).then_some(sorted)
}

/// Where a true value lies with a stated confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// What it really has, which is [`CONFIDENCE`] or more: ranks are whole numbers.
    pub confidence: f64,
}

impl Interval {
    fn covers(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// The order statistic interval of the median. None below six values, where even from least to
/// greatest is less than [`CONFIDENCE`].
#[must_use]
pub fn median_interval(values: &[f64]) -> Option<Interval> {
    let sorted = ascending(values)?;
    let (mut found, mut tail, mut chance) = (None, 0.0, 0.5_f64.powi(length(sorted.len())));
    // `chance` is that of exactly k of n on one side, `tail` that of at most k.
    for k in 0..sorted.len() / 2 {
        tail += chance;
        chance *= count(sorted.len() - k) / count(k + 1);
        let confidence = 1.0 - 2.0 * tail;
        if confidence < CONFIDENCE {
            break;
        }
        let (low, high) = (sorted[k], sorted[sorted.len() - 1 - k]);
        found = Some(Interval { low, high, confidence });
    }
    found
}

/// The rank sum interval of a quotient between two independent sides, by its quotients from least
/// to greatest.
fn rank_sum_interval(quotients: &[f64], above: usize, below: usize) -> Option<Interval> {
    let chances = rank_sum_chances(above, below);
    let (mut found, mut tail) = (None, 0.0);
    for (k, chance) in chances.iter().take(quotients.len() / 2).enumerate() {
        tail += chance;
        let confidence = 1.0 - 2.0 * tail;
        if confidence < CONFIDENCE {
            break;
        }
        let (low, high) = (quotients[k], quotients[quotients.len() - 1 - k]);
        found = Some(Interval { low, high, confidence });
    }
    found
}

/// How likely each number of pairs (one of either side) is in which the first is the greater, if
/// both sides are alike: the distribution of Mann and Whitney's U.
fn rank_sum_chances(above: usize, below: usize) -> Vec<f64> {
    // ways[j] after i rounds: the distribution for i of the one side and j of the other. The
    // greatest of all is of either side, in proportion; if of the first, it is above all `j`.
    let mut ways: Vec<Vec<f64>> = vec![vec![1.0]; below + 1];
    for i in 1..=above {
        let mut next: Vec<Vec<f64>> = vec![vec![1.0]];
        for j in 1..=below {
            let share = count(i) / count(i + j);
            let mut chances = vec![0.0; i * j + 1];
            for (u, chance) in ways[j].iter().enumerate() {
                chances[u + j] += share * chance;
            }
            for (u, chance) in next[j - 1].iter().enumerate() {
                chances[u] += (1.0 - share) * chance;
            }
            next.push(chances);
        }
        ways = next;
    }
    ways.swap_remove(below)
}

/// Whether a ratio says that two things differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They differ.
    Differs,
    /// There are too few repeats to say so, of a difference of this size.
    FewRepeats,
    /// Both directions are possible: the interval covers 1, or, where there are too few repeats for
    /// one, the repeats themselves lie on both sides of it.
    CoversOne,
}

impl Verdict {
    /// Whether the two can be told apart.
    #[must_use]
    pub fn differs(self) -> bool {
        self == Self::Differs
    }

    fn of(spread: Spread, interval: Option<Interval>, repeats: usize) -> Self {
        let range = Interval { low: spread.min, high: spread.max, confidence: 0.0 };
        if interval.unwrap_or(range).covers(1.0) {
            return Self::CoversOne;
        }
        let small = spread.median.max(spread.median.recip()) < 1.0 + DIFFERENCE;
        let proven = repeats >= PAIRS_MIN && interval.is_some();
        if repeats < PAIRS_LEAST || small && !proven { Self::FewRepeats } else { Self::Differs }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Differs => "differs",
            Self::FewRepeats => {
                "not distinguishable: too few repeats for a difference of this size"
            }
            Self::CoversOne => "not distinguishable: either may be the greater",
        })
    }
}

/// How many times something is something else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Median, least and greatest; the count is that of pairs, or of the smaller side's repeats.
    pub spread: Spread,
    /// Where the true median lies.
    pub interval: Option<Interval>,
    /// Whether it says anything.
    pub verdict: Verdict,
}

impl Ratio {
    /// Of pairs, the first of each to the second. Pairs in which a side is not above zero are left
    /// out; none if no pair is left.
    #[must_use]
    pub fn paired(pairs: &[(f64, f64)]) -> Option<Self> {
        let positive = pairs.iter().filter(|(above, below)| *above > 0.0 && *below > 0.0);
        let ratios: Vec<f64> = positive.map(|(above, below)| above / below).collect();
        let spread = Spread::of_ratios(&ratios)?;
        let interval = median_interval(&ratios);
        let verdict = Verdict::of(spread, interval, ratios.len());
        Some(Self { spread, interval, verdict })
    }

    /// Of two sides that have no pairs: `above` to `below`. Values that are not above zero are left
    /// out; none if a side is empty then.
    #[must_use]
    pub fn unpaired(above: &[f64], below: &[f64]) -> Option<Self> {
        let positive = |side: &[f64]| -> Vec<f64> {
            side.iter().copied().filter(|value| *value > 0.0).collect()
        };
        let (above, below) = (positive(above), positive(below));
        let quotients = above.iter().flat_map(|a| below.iter().map(move |b| a / b));
        let quotients = ascending(&quotients.collect::<Vec<_>>())?;
        let mut spread = Spread::of_ratios(&quotients)?;
        spread.count = above.len().min(below.len());
        let interval = rank_sum_interval(&quotients, above.len(), below.len());
        let verdict = Verdict::of(spread, interval, spread.count);
        Some(Self { spread, interval, verdict })
    }
}

/// Counts here are of repeats: exact as a float.
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

fn length(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
