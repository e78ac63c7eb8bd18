//! Which broker is tried next, and when: rotation through the list and back-off.
//!
//! Pure: time and chance are arguments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backoff::{Backoff, Delays};
use crate::discovery::DNS_PREFIX;

/// What is left of a link's past when the next attempt is made.
#[derive(Clone, Debug)]
pub(crate) struct Reconnect {
    brokers: Vec<Arc<str>>,
    /// Place in `brokers`, modulo their number.
    at: usize,
    /// Attempts that failed one after another.
    attempts: u32,
    delays: Delays,
}

impl Reconnect {
    /// Brokers in the order they are tried, at least one.
    pub(crate) fn new(brokers: Vec<Arc<str>>, backoff: Backoff) -> Self {
        debug_assert!(!brokers.is_empty(), "options are checked");
        Self { brokers, at: 0, attempts: 0, delays: Delays::new(backoff) }
    }

    /// Where to connect to now.
    pub(crate) fn address(&self) -> Arc<str> {
        Arc::clone(&self.brokers[self.at % self.brokers.len()])
    }

    /// Whether there is another broker to go to.
    pub(crate) fn has_another(&self) -> bool {
        // A name may have several addresses; each attempt begins with another one.
        self.brokers.len() > 1 || self.brokers[0].starts_with(DNS_PREFIX)
    }

    /// The broker said WELCOME.
    pub(super) fn opened(&mut self, now: Instant) {
        self.delays.opened(now);
    }

    /// The broker asked for a delay of at least this long.
    pub(super) fn retry_after(&mut self, at_least: Duration) {
        self.delays.retry_after(at_least);
    }

    /// The link or attempt is over since `now`.
    pub(super) fn ended(&mut self, now: Instant) {
        self.delays.ended(now);
    }

    /// It will be tried again, at the next broker, after this delay: drawn from `random`, a number
    /// spread over all of `u64`. With it the attempts that failed one after another.
    pub(super) fn again(&mut self, was_open: bool, random: u64) -> (Duration, u32) {
        self.attempts = if was_open { 0 } else { self.attempts.saturating_add(1) };
        self.at += 1;
        (self.delays.next(random), self.attempts)
    }
}
