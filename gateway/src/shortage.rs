//! A shortage of memory of all connections' (`pool.rs`), and who has to go for it.
//!
//! ```text
//! a look at all, in parts --> those who may have to go, in line --> a part of them goes
//!          ^                                                          |   ^        |
//!          '---------- nobody is left in line, and too much is held --'   '--------'
//!                                                              not enough was given back
//! ```
//!
//! What a connection holds it may share with thousands of others that do not read either, and then
//! nothing is given back before the last of them has gone. Nobody knows beforehand who shares what
//! with whom, so as many go as would do if each had its own; while much less is given back than
//! that, twice as many. So a shortage is over after one look and a few parts however much is
//! shared. In vain goes only who shares with somebody that stays: one who is behind the last part
//! in line, or has got on meanwhile.
//!
//! Those go first that have not got on for the longest, and with each those whose largest message
//! is the same, as that of members of a group is, whatever little each has besides: by age alone a
//! little of every group would go, and nearly all of all before anything is given back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::pool::Pool;

/// Connections that are looked at in one go, and at most put in line and told to go in one.
pub(crate) const LOOKED_AT_ONCE: usize = 1 << 10;

/// How long a connection may not get on, and a shortage last, before it has to go for one that has
/// lasted for less.
const GRACE_MS: u64 = 1000;

/// What a connection holds that does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// Since when its socket has taken nothing, or a message of its client's is not whole.
    pub(crate) since_ms: u64,
    pub(crate) bytes: usize,
    /// Number of the largest message that it was given, of several the last.
    pub(crate) largest: u64,
}

/// From when too much was held until there is [some room](Pool::has_room) again: one that came and
/// went with each message would never last. The keys are the caller's.
#[derive(Debug)]
pub(crate) struct Shortage {
    since_ms: u64,
    /// Where the next part of a look begins; `None` after its end.
    from: Option<usize>,
    /// Those that may have to go and have no place in line yet.
    seen: Vec<(Stuck, usize)>,
    /// Of each message that is somebody's largest: since when the first of these is stuck.
    firsts: BTreeMap<u64, u64>,
    /// The next one on top.
    line: BinaryHeap<Reverse<Place>>,
    /// By how much it is asked for more than has to be given back.
    times: usize,
    /// What was held before somebody was told to go last.
    before: usize,
    /// What those who were told hold.
    foretold: usize,
    /// All were looked at, and nobody had to go.
    pub(crate) is_waiting: bool,
}

/// A place in line, by rank.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Since when the first is stuck whose largest message is the same.
    first_ms: u64,
    largest: u64,
    since_ms: u64,
    key: usize,
    bytes: usize,
}

impl Shortage {
    /// It begins.
    pub(crate) fn new(now_ms: u64) -> Self {
        let (seen, firsts, line) = Default::default();
        let (from, times, before, foretold) = (Some(0), 1, 0, 0);
        let is_waiting = false;
        Self { since_ms: now_ms, from, seen, firsts, line, times, before, foretold, is_waiting }
    }

    /// Whether a connection may have to go that is stuck like this. While no more is held than may
    /// be nobody waits for it, and a reader's socket may be full for a moment however long the
    /// shortage has lasted.
    pub(crate) fn may_end(&self, stuck: Stuck, is_over: bool, now_ms: u64) -> bool {
        let shortage_ms = if is_over { self.since_ms } else { now_ms };
        now_ms.saturating_sub(stuck.since_ms.min(shortage_ms)) >= GRACE_MS
    }

    /// Where the next part of a look begins; `None` if all were looked at and some may have to go.
    pub(crate) fn from(&self) -> Option<usize> {
        self.from
    }

    /// Whether some were looked at and not all of these have been told to go yet that have to.
    pub(crate) fn is_begun(&self) -> bool {
        self.from != Some(0)
    }

    /// Up to here all were looked at.
    pub(crate) fn looked(&mut self, upto: usize, is_all: bool) {
        self.from = (!is_all).then_some(upto);
    }

    /// This connection is stuck, and may have to go.
    pub(crate) fn note(&mut self, stuck: Stuck, key: usize) {
        let first_ms = self.firsts.entry(stuck.largest).or_insert(stuck.since_ms);
        *first_ms = stuck.since_ms.min(*first_ms);
        self.seen.push((stuck, key));
    }

    /// Puts some more of those that were noted in line; whether all are.
    pub(crate) fn rank(&mut self) -> bool {
        let rest = self.seen.len().saturating_sub(LOOKED_AT_ONCE);
        for (Stuck { since_ms, bytes, largest }, key) in self.seen.drain(rest..) {
            let first_ms = self.firsts.get(&largest).copied().unwrap_or(since_ms);
            self.line.push(Reverse(Place { first_ms, largest, since_ms, key, bytes }));
        }
        rest == 0
    }

    /// Those who are next to go.
    pub(crate) fn next_part(&mut self, pool: &Pool) -> Vec<usize> {
        let held = pool.held();
        if self.foretold > 0 {
            let is_less = self.before.saturating_sub(held) < self.foretold / 2;
            self.times = if is_less { self.times.saturating_mul(2) } else { 1 };
        }
        self.before = held;
        let wanted = pool.excess().saturating_mul(self.times);
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < wanted
            && part.len() < LOOKED_AT_ONCE
            && let Some(Reverse(place)) = self.line.pop()
        {
            bytes += place.bytes;
            part.push(place.key);
        }
        part
    }

    /// Those of the part who were still stuck hold so many bytes, and were told to go.
    pub(crate) fn told(&mut self, bytes: usize) {
        self.foretold = bytes;
        if self.line.is_empty() {
            // What was seen says nothing any more.
            *self = Self { is_waiting: bytes == 0, ..Self::new(self.since_ms) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look that has found so many, each of 100 bytes, and has them in line.
    fn look(shortage: &mut Shortage, count: usize) {
        for key in 0..count {
            shortage.note(Stuck { since_ms: 0, bytes: 100, largest: 0 }, key);
        }
        shortage.looked(count, true);
        assert!(shortage.rank());
    }

    #[test]
    fn promise_6_more_are_told_only_after_some_were_told_in_vain() {
        // 2,000 bytes are to be given back.
        let pool = Pool::new(800, 1, Default::default());
        pool.take(2_700);
        let mut shortage = Shortage::new(0);
        look(&mut shortage, 160);
        let mut part = |told, given| {
            let part = shortage.next_part(&pool).len();
            shortage.told(told);
            pool.give(given);
            part
        };
        // They had got on meanwhile: what is held says nothing of others.
        assert_eq!(part(0, 0), 20);
        assert_eq!(part(2_000, 900), 20);
        // Less than half of it came back, and of the next ones all had got on.
        assert_eq!(part(0, 0), 22);
        // Of these some were told, and gave back half of what they had.
        assert_eq!(part(500, 250), 22);
        assert_eq!(part(900, 0), 9);
        assert_eq!(part(1_700, 0), 17);
        assert_eq!(part(3_400, 0), 34);
        // The last ones in line.
        assert_eq!(part(1_600, 0), 16);
        look(&mut shortage, 160);
        assert_eq!(shortage.next_part(&pool).len(), 9, "of the last look nothing is left");
    }
}
