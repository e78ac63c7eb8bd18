//! When a broker that has just started may be asked where users are.
//!
//! ```text
//!  not_ready --(a), (b) or (c)--> ready
//! ```
//!
//! It knows nobody at first, and an answer `offline` would be false. So it waits until (a) as many
//! gateways as are expected are in effect, (b) every linked gateway is in effect and for a quiet
//! time no gateway came, or (c) the longest wait is over. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Time without a new gateway link after which those that are in effect are all there are.
    /// Zero: no waiting at all.
    pub quiet: Duration,
    /// Time from the start after which nobody is waited for.
    pub most: Duration,
    /// Gateways, by incarnation, that make it ready as soon as they are in effect. 0: not known.
    pub expected: u32,
}

/// See the module. Once ready it stays so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    wait: Wait,
    ready: bool,
    // The start, or the latest HELLO of a gateway.
    last_link: Duration,
    // Links of gateways that are not in effect yet.
    filling: usize,
    // Links in effect, of each incarnation.
    live: BTreeMap<u64, usize>,
}

impl Readiness {
    /// A broker that starts at time zero.
    #[must_use]
    pub fn new(wait: Wait) -> Self {
        let ready = wait.quiet.is_zero();
        Self { wait, ready, last_link: Duration::ZERO, filling: 0, live: BTreeMap::new() }
    }

    /// Whether it may be asked.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// A gateway's HELLO was accepted.
    pub fn linked(&mut self, now: Duration) {
        self.last_link = self.last_link.max(now);
        self.filling += 1;
    }

    /// What that gateway has declared is in effect: its snapshot has ended, or it resumed.
    pub fn in_effect(&mut self, now: Duration, incarnation: u64) {
        self.filling = self.filling.saturating_sub(1);
        *self.live.entry(incarnation).or_default() += 1;
        self.look(now);
    }

    /// A gateway's link ended before what it declared was in effect.
    pub fn left_filling(&mut self, now: Duration) {
        self.filling = self.filling.saturating_sub(1);
        self.look(now);
    }

    /// A gateway's link ended, or suspended what it had in effect.
    pub fn left(&mut self, incarnation: u64) {
        if let Some(links) = self.live.get_mut(&incarnation) {
            *links -= 1;
            if *links == 0 {
                self.live.remove(&incarnation);
            }
        }
    }

    /// Time passed.
    pub fn look(&mut self, now: Duration) {
        let Wait { quiet, most, expected } = self.wait;
        let all = expected > 0 && self.live.len() >= expected as usize;
        let quiet = self.filling == 0 && now.saturating_sub(self.last_link) >= quiet;
        self.ready |= all || quiet || now >= most;
    }

    /// How many gateways it waits for, as far as it knows.
    #[must_use]
    pub fn missing(&self) -> u32 {
        let filling = u32::try_from(self.filling).unwrap_or(u32::MAX);
        let live = u32::try_from(self.live.len()).unwrap_or(u32::MAX);
        match (self.ready, self.wait.expected) {
            (true, _) => 0,
            (false, 0) => filling,
            (false, expected) => expected.saturating_sub(live),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn look(it: &mut Readiness, now: Duration) -> bool {
        it.look(now);
        it.is_ready()
    }

    fn starting(expected: u32) -> Readiness {
        Readiness::new(Wait { quiet: s(6), most: s(60), expected })
    }

    #[test]
    fn alone_it_is_ready_after_the_quiet_time() {
        let mut it = starting(0);
        assert!(!look(&mut it, s(5)));
        assert!(look(&mut it, s(6)));
    }

    #[test]
    fn a_gateway_that_comes_begins_the_quiet_time_again() {
        let mut it = starting(0);
        it.linked(s(5));
        it.in_effect(s(6), 1);
        assert!(!look(&mut it, s(10)));
        assert!(look(&mut it, s(11)));
    }

    #[test]
    fn every_linked_gateway_is_waited_for_but_not_for_ever() {
        let mut it = starting(0);
        it.linked(s(1));
        it.linked(s(1));
        assert_eq!(it.missing(), 2);
        it.in_effect(s(2), 1);
        assert!(!look(&mut it, s(59)));
        assert_eq!(it.missing(), 1);
        let mut other = it.clone();
        assert!(look(&mut it, s(60)), "the longest wait");
        other.left_filling(s(59));
        assert!(other.is_ready(), "it is not waited for when it has left");
        assert_eq!(other.missing(), 0);
    }

    #[test]
    fn the_expected_number_of_gateways_is_enough_at_once() {
        let mut it = starting(2);
        it.linked(s(1));
        it.linked(s(1));
        it.in_effect(s(1), 1);
        assert!(!it.is_ready());
        assert_eq!(it.missing(), 1);
        it.linked(s(1));
        it.in_effect(s(1), 1);
        assert!(!it.is_ready(), "a second link of one life is no second gateway");
        it.left(1);
        it.in_effect(s(1), 2);
        assert!(it.is_ready());
    }

    #[test]
    fn once_ready_it_stays_so() {
        let mut it = starting(1);
        it.linked(s(1));
        it.in_effect(s(1), 1);
        it.left(1);
        it.linked(s(2));
        assert!(look(&mut it, s(2)));
    }

    #[test]
    fn without_a_quiet_time_it_is_ready_from_the_start() {
        let wait = Wait { quiet: Duration::ZERO, most: s(60), expected: 3 };
        assert!(Readiness::new(wait).is_ready());
    }
}
