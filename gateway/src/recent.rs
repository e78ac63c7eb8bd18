//! Which messages were here lately and whom they were for, so that one that comes twice reaches
//! each connection at most once (promise 3).
//!
//! Remembered is not each connection but the UIDs listed and how many confirmations there had been:
//! a connection was reached if its UID was listed and it had been confirmed by then. That is a few
//! words per message however many connections it reached. Ids and UIDs lie in two rings, oldest out
//! first; both are bounded.
//!
//! Invariant: `listed` is the concatenation of the entries' lists, in order.

use std::collections::{HashMap, VecDeque};

use waybill_wire::planted::{self, Bug};
use waybill_wire::targets::UidRun;

use crate::hub::MessageId;

/// Namespace and message id: a producer of one tenant can hold nothing back from another's users,
/// whatever instance it claims.
pub(crate) type Key = (u32, MessageId);

/// UIDs kept per message on average; when the lists are longer, fewer messages are remembered.
pub(crate) const UIDS_PER_MESSAGE: usize = 16;

/// Earlier sendings of one message that are looked at: bounds what a producer can cost that sends
/// the same id for ever.
pub(crate) const SENDINGS_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct Recent {
    max: usize,
    entries: VecDeque<Entry>,
    listed: VecDeque<u64>,
    /// How many entries were dropped: the number of the one in front.
    first: u64,
    /// How many UIDs were dropped with them.
    first_uid: u64,
    /// Number of each id's newest entry.
    newest: HashMap<Key, u64>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    rank: u64,
    everyone: bool,
    /// How many UIDs came before its own, and how many are its own.
    start: u64,
    listed: usize,
    /// Number of the same id's entry before this one, when it was sent again.
    previous: Option<u64>,
}

/// Whom a message reached before.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Rank at which everyone was.
    everyone: Option<u64>,
    /// UIDs and ranks.
    listed: HashMap<u64, u64>,
}

impl Served {
    /// Whether a connection of this user, confirmed at `rank`, was there.
    pub(crate) fn had(&self, uid: u64, rank: u64) -> bool {
        if planted::is(Bug::DuplicateAfterResend) {
            return false;
        }
        let listed = self.listed.get(&uid).copied();
        self.everyone.max(listed).is_some_and(|seen| rank <= seen)
    }
}

impl Recent {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            entries: VecDeque::new(),
            listed: VecDeque::new(),
            first: 0,
            first_uid: 0,
            newest: HashMap::new(),
        }
    }

    /// Notes that a message is here while the confirmation `rank` is the last, and says whom it
    /// reached before, as far as that is remembered. For a new message, nearly every one, that is
    /// one access to the map and no allocation beyond the rings.
    pub(crate) fn note(
        &mut self,
        key: Key,
        rank: u64,
        everyone: bool,
        listed: UidRun<'_>,
    ) -> Option<Served> {
        if self.max == 0 {
            return None;
        }
        let number = self.first + self.entries.len() as u64;
        let previous = self.newest.insert(key, number);
        // Before the entry goes in: it may push its predecessor out.
        let before = previous.map(|number| self.recall(number));
        let start = self.first_uid + self.listed.len() as u64;
        self.listed.extend(listed.iter());
        self.entries.push_back(Entry {
            key,
            rank,
            everyone,
            start,
            listed: listed.len(),
            previous,
        });
        let uids_max = self.max * UIDS_PER_MESSAGE;
        // The newest stays even if its list alone is longer; a list is at most `targets_max`.
        while self.entries.len() > 1
            && (self.entries.len() > self.max || self.listed.len() > uids_max)
        {
            self.forget_oldest();
        }
        before
    }

    /// Sendings that are remembered, or ids if those should be more, and the UIDs.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.entries.len().max(self.newest.len()), self.listed.len())
    }

    /// Whom the sending of this number and those before it reached.
    fn recall(&self, number: u64) -> Served {
        let mut served = Served::default();
        let mut next = Some(number);
        for _ in 0..SENDINGS_MAX {
            let Some(entry) = next.and_then(|number| self.entry(number)) else { break };
            // Newest first, so the first rank seen is the highest.
            if entry.everyone {
                served.everyone = served.everyone.max(Some(entry.rank));
            }
            for uid in self.listed_by(entry) {
                served.listed.entry(uid).or_insert(entry.rank);
            }
            next = entry.previous;
        }
        served
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn listed_by(&self, entry: &Entry) -> impl Iterator<Item = u64> {
        let start = usize::try_from(entry.start - self.first_uid).expect("it is in the ring");
        self.listed.range(start..start + entry.listed).copied()
    }

    fn forget_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.listed.drain(..entry.listed);
        if self.newest.get(&entry.key) == Some(&self.first) {
            self.newest.remove(&entry.key);
        }
        self.first += 1;
        self.first_uid += entry.listed as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(uids: &[u64]) -> Vec<u8> {
        uids.iter().flat_map(|uid| uid.to_le_bytes()).collect()
    }

    const RANK: u64 = 5;

    /// A message of namespace 0 to these users; whom it had reached before.
    fn note(recent: &mut Recent, id: u64, rank: u64, uids: &[u64]) -> Option<Served> {
        let bytes = run(uids);
        recent.note((0, (1, id)), rank, false, UidRun::new(&bytes).unwrap())
    }

    #[test]
    fn whoever_was_listed_and_confirmed_was_reached() {
        let mut recent = Recent::new(8);
        assert!(note(&mut recent, 1, RANK, &[10, 11]).is_none());
        let served = note(&mut recent, 1, RANK, &[]).unwrap();
        assert!(served.had(10, RANK) && served.had(11, 1));
        assert!(!served.had(10, RANK + 1), "confirmed later");
        assert!(!served.had(12, 1), "not listed");
        for stranger in [(0, (2, 1)), (7, (1, 1))] {
            let listed = UidRun::default();
            assert!(recent.note(stranger, RANK, false, listed).is_none(), "{stranger:?}");
        }
        let mut everyone = || recent.note((0, (1, 2)), RANK, true, UidRun::default());
        assert!(everyone().is_none());
        let served = everyone().unwrap();
        assert!(served.had(99, RANK) && !served.had(99, RANK + 1));
    }

    #[test]
    fn a_message_sent_again_adds_to_what_is_known() {
        let mut recent = Recent::new(8);
        note(&mut recent, 1, 5, &[10]);
        note(&mut recent, 1, 7, &[11]);
        note(&mut recent, 1, 9, &[10]);
        let served = note(&mut recent, 1, 9, &[]).unwrap();
        assert!(served.had(10, 9) && served.had(11, 7) && !served.had(11, 8));
    }

    #[test]
    fn both_rings_are_bounded() {
        let mut recent = Recent::new(4);
        for id in 0..100 {
            note(&mut recent, id, 1, &[id]);
        }
        assert_eq!((recent.entries.len(), recent.listed.len(), recent.newest.len()), (4, 4, 4));
        // The oldest that is left is asked as it is pushed out.
        assert!(note(&mut recent, 96, 1, &[]).unwrap().had(96, 1));
        assert!(note(&mut recent, 95, 1, &[]).is_none());
        let many: Vec<u64> = (0..60).collect();
        note(&mut recent, 200, 1, &many);
        note(&mut recent, 201, 1, &many);
        assert_eq!((recent.entries.len(), recent.listed.len()), (1, 60));
        assert!(note(&mut recent, 201, 1, &[]).unwrap().had(59, 1));
        let mut none = Recent::new(0);
        assert!(note(&mut none, 1, 1, &[1]).is_none() && note(&mut none, 1, 1, &[1]).is_none());
    }
}
