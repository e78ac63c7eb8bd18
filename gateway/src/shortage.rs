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
//! shared, and nobody goes in vain but in its last part.
//!
//! Those go first that have not got on for the longest, and with each those that were given the
//! same message last, as members of a group are: by age alone a little of every group would go, and
//! nearly all of all before anything is given back.

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
    /// Number of the message that it was given last.
    pub(crate) newest: u64,
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
    /// Of each message that somebody was given last: since when the first of these is stuck.
    firsts: BTreeMap<u64, u64>,
    /// The next one on top.
    line: BinaryHeap<Reverse<Place>>,
    /// By how much it is asked for more than has to be given back.
    times: usize,
    /// What was held when somebody was told to go last, and what all of them hold.
    told: (usize, usize),
    /// All were looked at, and nobody had to go.
    pub(crate) is_waiting: bool,
}

/// A place in line, by rank.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Since when the first is stuck that was given the same message last.
    first_ms: u64,
    newest: u64,
    since_ms: u64,
    key: usize,
    bytes: usize,
}

impl Shortage {
    /// It begins.
    pub(crate) fn new(now_ms: u64) -> Self {
        let (seen, firsts, line) = Default::default();
        let (from, times, told, is_waiting) = (Some(0), 1, (0, 0), false);
        Self { since_ms: now_ms, from, seen, firsts, line, times, told, is_waiting }
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

    /// What was seen so far says nothing any more.
    pub(crate) fn look_anew(&mut self) {
        let (seen, firsts, line) = Default::default();
        (self.from, self.seen, self.firsts, self.line) = (Some(0), seen, firsts, line);
    }

    /// This connection is stuck, and may have to go.
    pub(crate) fn note(&mut self, stuck: Stuck, key: usize) {
        let first_ms = self.firsts.entry(stuck.newest).or_insert(stuck.since_ms);
        *first_ms = stuck.since_ms.min(*first_ms);
        self.seen.push((stuck, key));
    }

    /// Puts some more of those that were noted in line; whether all are.
    pub(crate) fn rank(&mut self) -> bool {
        let rest = self.seen.len().saturating_sub(LOOKED_AT_ONCE);
        for (Stuck { since_ms, bytes, newest }, key) in self.seen.drain(rest..) {
            let first_ms = self.firsts.get(&newest).copied().unwrap_or(since_ms);
            self.line.push(Reverse(Place { first_ms, newest, since_ms, key, bytes }));
        }
        rest == 0
    }

    /// Those who are next to go.
    pub(crate) fn next_part(&mut self, pool: &Pool) -> Vec<usize> {
        let held = pool.held();
        let (before, foretold) = self.told;
        let is_less = before.saturating_sub(held) < foretold / 2;
        self.times = if is_less { self.times.saturating_mul(2) } else { 1 };
        let wanted = pool.excess().saturating_mul(self.times);
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < wanted
            && part.len() < LOOKED_AT_ONCE
            && let Some(Reverse(place)) = self.line.pop()
        {
            bytes += place.bytes;
            part.push(place.key);
        }
        self.told = (held, bytes);
        part
    }

    /// So many of them were still stuck, and were told to go.
    pub(crate) fn told(&mut self, count: usize) {
        let is_last = self.line.is_empty();
        self.is_waiting = is_last && count == 0;
        if is_last {
            self.look_anew();
        }
    }
}
