//! Exclusive logins as all shards see them: which contend, and which have lost without their
//! gateways having been told yet.
//!
//! Very many may lose at once, and a link takes only so many bytes. So a loser waits here, beside
//! its login, until its gateway's link asks for the next ones; what is told to that link's shard is
//! only that there are some. Pure.
//!
//! Invariant: whoever waits is an entry of `logins` that counts, so there are never more of them
//! than logins.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use waybill_routing::{Login, Logins, Policies, Slot};

/// See the module.
#[derive(Debug)]
pub(crate) struct Contest {
    logins: Logins,
    // By slot: who has lost, and against which login number.
    untold: BTreeMap<Slot, BTreeMap<Login, u64>>,
    // What slots that left had there, to be freed.
    left: VecDeque<BTreeMap<Login, u64>>,
    // Slots whose shards have been told, and have not looked yet.
    waking: BTreeSet<Slot>,
    wakes_max: usize,
}

/// Losers freed by each login that comes: those of slots that left are never many more than those
/// that may be.
const FREED_BY_ADD: usize = 2;

impl Contest {
    /// Nobody is logged in. At most `wakes_max` slots are being woken at any time.
    pub(crate) fn new(policies: Policies, wakes_max: usize) -> Self {
        Self {
            logins: Logins::new(policies),
            untold: BTreeMap::new(),
            left: VecDeque::new(),
            waking: BTreeSet::new(),
            wakes_max,
        }
    }

    /// A login of a live slot came. The slots that are to look after their losers: its own, and
    /// others that are not being woken already. One that finds no place to be woken looks by
    /// itself, on ticks.
    pub(crate) fn add(&mut self, slot: Slot, login: Login) -> Vec<Slot> {
        self.free(FREED_BY_ADD);
        let mut look = Vec::new();
        for loser in self.logins.add(slot, login) {
            self.untold.entry(loser.slot).or_default().insert(loser.login, loser.winner);
            let has_room = self.waking.len() < self.wakes_max;
            if loser.slot == slot || (has_room && self.waking.insert(loser.slot)) {
                look.push(loser.slot);
            }
        }
        look
    }

    /// A login went. If it had lost, nobody is told of that any more.
    pub(crate) fn remove(&mut self, slot: Slot, login: Login) {
        self.logins.remove(slot, login);
        if let Some(untold) = self.untold.get_mut(&slot) {
            untold.remove(&login);
            if untold.is_empty() {
                self.untold.remove(&slot);
            }
        }
    }

    /// A slot is suspended, replaced or dead: its logins contend no more, and nobody is told who of
    /// them has lost. In one step.
    pub(crate) fn leave(&mut self, slot: Slot) {
        self.logins.leave(slot);
        self.left.extend(self.untold.remove(&slot));
    }

    /// Forgets a portion of what slots have left behind.
    pub(crate) fn sweep(&mut self, budget: usize) {
        self.logins.sweep(budget);
        self.free(budget);
    }

    /// The shard of a slot looks.
    pub(crate) fn woken(&mut self, slot: Slot) {
        self.waking.remove(&slot);
    }

    /// Whether a slot has losers that wait.
    pub(crate) fn has_losers(&self, slot: Slot) -> bool {
        self.untold.contains_key(&slot)
    }

    /// The next losers of a slot, at most `most`, each with the login number it lost against. They
    /// are told of now.
    pub(crate) fn take(&mut self, slot: Slot, most: usize) -> Vec<(Login, u64)> {
        let Some(untold) = self.untold.get_mut(&slot) else { return Vec::new() };
        let taken = std::iter::from_fn(|| untold.pop_first()).take(most).collect();
        if untold.is_empty() {
            self.untold.remove(&slot);
        }
        taken
    }

    fn free(&mut self, budget: usize) {
        for _ in 0..budget {
            let Some(untold) = self.left.front_mut() else { return };
            if untold.pop_first().is_none() {
                self.left.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use waybill_routing::{Incarnation, Limits, Namespace, Policy, Routes, Uid};

    use super::*;

    fn contest() -> Contest {
        Contest::new(Policies::new([], Policy::One), 1)
    }

    fn slots() -> [Slot; 3] {
        let routes = Routes::new(Limits { slots: 3, ..Limits::default() }, 0);
        [1, 2, 3].map(|incarnation| routes.open(Incarnation(incarnation)).unwrap())
    }

    fn login(uid: u64, number: u64) -> Login {
        Login { namespace: Namespace(0), uid: Uid(uid), device_class: 0, number }
    }

    #[test]
    fn losers_wait_until_they_are_taken_and_their_shard_is_told_once() {
        let (mut contest, [first, second, _]) = (contest(), slots());
        for uid in 0..3 {
            assert_eq!(contest.add(first, login(uid, 5)), []);
        }
        assert_eq!(contest.add(second, login(0, 9)), [first]);
        assert_eq!(contest.add(second, login(1, 9)), [], "it is being woken");
        contest.woken(first);
        assert_eq!(contest.add(second, login(2, 8)), [first]);
        assert_eq!(contest.take(first, 2), [(login(0, 5), 9), (login(1, 5), 9)]);
        assert!(contest.has_losers(first) && !contest.has_losers(second));
        assert_eq!(contest.take(first, 2), [(login(2, 5), 8)]);
        assert!(contest.take(first, 2).is_empty() && !contest.has_losers(first));
        // A slot that loses by what it adds itself looks at once, whoever is being woken.
        assert_eq!(contest.add(first, login(2, 4)), [first]);
        assert_eq!(contest.take(first, 2), [(login(2, 4), 8)]);
    }

    #[test]
    fn nobody_is_told_of_a_login_that_went_or_whose_slot_left() {
        let (mut contest, [first, second, _]) = (contest(), slots());
        for uid in 0..4 {
            contest.add(first, login(uid, 5));
            contest.add(second, login(uid, 9));
        }
        contest.remove(first, login(0, 5));
        assert_eq!(contest.take(first, 1), [(login(1, 5), 9)]);
        contest.leave(first);
        assert!(!contest.has_losers(first) && contest.take(first, 9).is_empty());
        assert_eq!(contest.left.iter().map(BTreeMap::len).sum::<usize>(), 2);
        contest.sweep(1);
        assert_eq!(contest.left.iter().map(BTreeMap::len).sum::<usize>(), 1);
        contest.sweep(2);
        assert!(contest.left.is_empty());
        // It comes back, and is told again.
        assert_eq!(contest.add(first, login(3, 5)), [first]);
        assert_eq!(contest.take(first, 9), [(login(3, 5), 9)]);
    }

    #[test]
    fn promise_7_no_more_slots_are_woken_at_a_time_than_there_may_be() {
        let (mut contest, [first, second, third]) = (contest(), slots());
        contest.add(first, login(1, 1));
        contest.add(second, login(2, 1));
        assert_eq!(contest.add(third, login(1, 9)), [first]);
        assert_eq!(contest.add(third, login(2, 9)), [], "there may be one");
        assert!(contest.has_losers(second), "it finds out by itself");
        // The slot may have left before its shard looks.
        contest.leave(first);
        assert_eq!(contest.waking.len(), 1);
        contest.woken(first);
        assert!(contest.waking.is_empty());
    }
}
