//! How many messages to publish now: as fit in a window, or as are due.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::SECOND;
use crate::tally::Tally;

/// A refill of the window waits until this part of it is free, so that messages go out in batches:
/// one by one each would cost both ends a system call.
const REFILL_PART: u64 = 64;

/// An open loop publishes what has come due once in so many nanoseconds at the most. Above 50,000
/// messages a second it would else publish one by one, never be idle, and no look at it would tell
/// whether it could do more. What is due waits half of this longer at such rates, of every target.
const PUBLISH_EVERY: u64 = 20_000;

/// Longest lateness told apart, in nanoseconds: a minute.
const LATE_MAX: u64 = 60 * SECOND;

/// How messages follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// At most so many in flight.
    Window(u64),
    /// So many per second, whatever became of the earlier ones.
    Rate(f64),
}

impl Pace {
    /// The rate of an open loop.
    #[must_use]
    pub fn rate(self) -> Option<f64> {
        match self {
            Self::Rate(rate) => Some(rate),
            Self::Window(_) => None,
        }
    }

    /// Begins at `start` nanoseconds with message `first`.
    #[must_use]
    pub fn start(self, start: u64, first: u64) -> Paced {
        Paced { pace: self, start, first, batch: None, late: None }
    }
}

/// A pace that has begun.
#[derive(Clone, Debug)]
pub struct Paced {
    pace: Pace,
    start: u64,
    first: u64,
    /// Due time of the first message of the last batch, in an open loop.
    batch: Option<u64>,
    /// How long after their due time messages were published.
    late: Option<Histogram<u64>>,
}

/// How many messages at `rate` per second are due in the first `nanos`: the first is due at once.
#[must_use]
pub fn due_before(nanos: u64, rate: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no run lasts long"
    )]
    let due = (nanos as f64 * rate / SECOND as f64) as u64;
    due + 1
}

/// When message `index` at `rate` per second is due, in nanoseconds after the start.
#[must_use]
pub fn due_at(index: u64, rate: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no run lasts long"
    )]
    let due = (index as f64 * SECOND as f64 / rate).ceil() as u64;
    due
}

impl Paced {
    /// The rate of an open loop.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        self.pace.rate()
    }

    /// From now on it is recorded how late messages are published.
    pub fn measure(&mut self) {
        let late = Histogram::new_with_bounds(1, LATE_MAX, 2);
        self.late = self.pace.rate().map(|_| late.expect("bounds and digits that are constants"));
    }

    /// 99 in 100 messages of an open loop were published no more than so many microseconds late.
    #[must_use]
    pub fn late_p99_us(&self) -> Option<f64> {
        let late = self.late.as_ref().filter(|late| !late.is_empty())?;
        Some(late.value_at_percentile(99.0) as f64 / 1e3)
    }

    /// How many messages to publish at `now`. An open loop that is late is told of all it owes.
    #[must_use]
    pub fn due(&mut self, now: u64, tally: &Tally) -> u64 {
        self.due_of(now, tally.next(), tally.in_flight())
    }

    fn due_of(&mut self, now: u64, next: u64, in_flight: u64) -> u64 {
        match self.pace {
            Pace::Window(window) => {
                let free = window.saturating_sub(in_flight);
                if free >= (window / REFILL_PART).max(1) { free } else { 0 }
            }
            Pace::Rate(rate) => {
                let owed = due_before(now.saturating_sub(self.start), rate);
                let owed = owed.saturating_sub(next - self.first);
                if owed == 0 || self.batch.is_some_and(|batch| now < batch + PUBLISH_EVERY) {
                    return 0;
                }
                self.batch = Some(self.start + due_at(next - self.first, rate));
                owed
            }
        }
    }

    /// Due time of message `number`, which is published at `now`.
    #[must_use]
    pub fn take(&mut self, number: u64, now: u64) -> u64 {
        match self.pace {
            Pace::Window(_) => now,
            Pace::Rate(rate) => {
                let due = self.start + due_at(number - self.first, rate);
                if let Some(late) = &mut self.late {
                    late.saturating_record(now.saturating_sub(due).max(1));
                }
                due
            }
        }
    }

    /// How long nothing is to be published; `None` until something was delivered.
    #[must_use]
    pub fn wait(&self, now: u64, tally: &Tally) -> Option<Duration> {
        let rate = self.pace.rate()?;
        let due = self.start + due_at(tally.next() - self.first, rate);
        Some(Duration::from_nanos(due.saturating_sub(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_due_at_its_time_and_not_before() {
        for rate in [3.0, 10_000.0, 50_000.0, 1_234_567.8] {
            // Up to four days at the lowest rate.
            for index in [0, 1, 2, 1_000, 999_999] {
                let due = due_at(index, rate);
                assert_eq!(due_before(due, rate), index + 1, "{index} at {rate}");
                if index > 0 {
                    assert_eq!(due_before(due - 1, rate), index, "{index} at {rate}");
                }
            }
        }
    }

    #[test]
    fn a_late_loop_owes_all_it_left_out_each_with_its_own_due_time() {
        let mut paced = Pace::Rate(1_000.0).start(5 * SECOND, 7);
        // Half a second late, after 100 messages.
        let now = 5 * SECOND + SECOND / 2;
        assert_eq!(paced.due_of(now, 107, 3), 401);
        assert_eq!(paced.take(107, now), 5 * SECOND + SECOND / 10);
        assert_eq!(paced.take(507, now), now);
        assert_eq!(paced.due_of(now, 508, 3), 0);
    }

    #[test]
    fn a_fast_open_loop_publishes_in_batches_and_a_slow_one_each_when_due() {
        // One in a microsecond.
        let mut fast = Pace::Rate(1e6).start(0, 0);
        assert_eq!(fast.due_of(0, 0, 0), 1);
        assert_eq!(fast.due_of(PUBLISH_EVERY - 1, 1, 0), 0);
        assert_eq!(fast.due_of(PUBLISH_EVERY, 1, 0), 20);
        // One in 20 microseconds: late by five, the next is not.
        let mut slow = Pace::Rate(50_000.0).start(0, 0);
        assert_eq!(slow.due_of(5_000, 0, 0), 1);
        assert_eq!(slow.due_of(19_999, 1, 0), 0);
        assert_eq!(slow.due_of(20_000, 1, 0), 1);
    }

    #[test]
    fn how_late_messages_are_published_is_recorded() {
        let mut paced = Pace::Rate(1_000.0).start(0, 0);
        assert_eq!(paced.late_p99_us(), None);
        paced.measure();
        assert_eq!(paced.take(3, 3_500_000), 3_000_000);
        let late = paced.late_p99_us().unwrap();
        assert!((late / 500.0 - 1.0).abs() < 0.01, "{late}");
    }

    #[test]
    fn a_window_refills_in_batches() {
        let mut paced = Pace::Window(6_400).start(0, 0);
        assert_eq!(paced.due_of(0, 0, 0), 6_400);
        assert_eq!(paced.due_of(0, 6_400, 6_301), 0);
        assert_eq!(paced.due_of(0, 6_400, 6_300), 100);
        let mut small = Pace::Window(3).start(0, 0);
        assert_eq!(small.due_of(0, 3, 2), 1);
        assert_eq!(small.due_of(0, 3, 3), 0);
    }
}
