//! How long to wait before the next attempt at a link: exponential bound, full jitter ([ERR-4]).
//!
//! Pure: time and randomness are arguments. The delay is drawn from the whole range between zero
//! and the bound, so that ten thousand clients of a broker that fell do not come back in step.

use std::time::{Duration, Instant};

use waybill_wire::limits::{BACKOFF_BASE_MS, BACKOFF_CAP_MS};

/// A link that lived this long was a good one: the next back-off starts from its minimum ([ERR-4]).
const GOOD_LINK: Duration = Duration::from_secs(10);

/// Bounds of the delay between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first delay.
    pub min: Duration,
    /// Bound that doubling never passes.
    pub max: Duration,
}

impl Default for Backoff {
    /// 100 ms to 5 s, as the protocol asks.
    fn default() -> Self {
        let (min, max) = (BACKOFF_BASE_MS, BACKOFF_CAP_MS);
        Self { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }
}

/// The back-off of one connection.
///
/// ```text
///   next() --> attempt --> fails --> next()          the bound doubles
///                      \-> opened() --> ended()      back to `min` if it lived 10 s
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Delays {
    limits: Backoff,
    /// `limits.min <= bound <= limits.max`
    bound: Duration,
    opened: Option<Instant>,
    at_least: Duration,
}

impl Delays {
    /// Delays within `limits`.
    #[must_use]
    pub(crate) fn new(limits: Backoff) -> Self {
        Self { limits, bound: limits.min, opened: None, at_least: Duration::ZERO }
    }

    /// The link is open since `now`.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.opened = Some(now);
    }

    /// The link, open or not, is gone since `now`.
    pub(crate) fn ended(&mut self, now: Instant) {
        let opened = self.opened.take();
        if opened.is_some_and(|at| now.saturating_duration_since(at) >= GOOD_LINK) {
            self.bound = self.limits.min;
        }
    }

    /// The broker asked for at least this long ([ERR-5]); holds for the next delay only.
    pub(crate) fn retry_after(&mut self, at_least: Duration) {
        self.at_least = at_least;
    }

    /// The next delay, from a `random` number spread over all of `u64`.
    ///
    /// A broker's lower bound is added to the drawn delay, not compared with it: otherwise all whom
    /// it turned away would return in the same instant.
    #[must_use]
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let bound = self.bound.as_nanos();
        let drawn = (bound * u128::from(random)) >> u64::BITS;
        let drawn = Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX));
        self.bound = self.bound.saturating_mul(2).min(self.limits.max);
        drawn + std::mem::take(&mut self.at_least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(delays: &mut Delays, count: usize) -> Vec<u128> {
        // The largest random number draws (just below) the bound itself.
        (0..count).map(|_| delays.next(u64::MAX).as_nanos().div_ceil(1_000_000)).collect()
    }

    #[test]
    fn the_bound_doubles_to_its_cap_and_the_delay_covers_the_whole_range() {
        let mut delays = Delays::new(Backoff::default());
        assert_eq!(bounds(&mut delays, 9), [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(delays.next(0), Duration::ZERO);
        assert_eq!(delays.next(1 << 63), Duration::from_millis(2500));
    }

    #[test]
    fn only_a_link_that_lived_ten_seconds_starts_it_again() {
        let start = Instant::now();
        for (lived, expected) in [(9_999, 400), (10_000, 100)] {
            let mut delays = Delays::new(Backoff::default());
            bounds(&mut delays, 2);
            delays.opened(start);
            delays.ended(start + Duration::from_millis(lived));
            assert_eq!(bounds(&mut delays, 1), [expected], "lived {lived} ms");
        }
    }

    #[test]
    fn a_brokers_lower_bound_holds_once() {
        let mut delays = Delays::new(Backoff::default());
        delays.retry_after(Duration::from_secs(3));
        assert_eq!(delays.next(0), Duration::from_secs(3));
        assert_eq!(delays.next(0), Duration::ZERO);
    }
}
