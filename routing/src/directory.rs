//! (namespace, UID) -> the small ids that hold it: slots in a broker, connections in a gateway.
//!
//! One owner, no lock. Ordered maps rather than hashed ones: iteration is part of the interface
//! and must be the same in every run, and no choice of UIDs can make a lookup slow.
//!
//! Invariant: `members` and `namespaces` hold the same pairs, no list is empty or has an id twice,
//! and `pairs` is the sum of the lists' lengths.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::{Namespace, Uid};

/// Who holds which UID. A member is any dense `u32` of the owner's choice.
///
/// A change costs a number of steps linear in the members of that one UID, so the owner bounds
/// those (a broker by its slots, a gateway by its connections per user).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Directory {
    members: BTreeMap<(Namespace, Uid), Members>,
    namespaces: BTreeMap<Namespace, BTreeMap<u32, usize>>,
    pairs: usize,
}

/// What an insert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The UID had no member in this namespace before: a gateway registers it upstream.
    First,
    /// The UID had other members already.
    Another,
    /// The member held this UID already; nothing changed.
    Already,
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The UID has no member in this namespace any more: a gateway unregisters it upstream.
    Last,
    /// The UID has other members left.
    Another,
    /// The member did not hold this UID; nothing changed.
    Absent,
}

impl Directory {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `member` one of the UID's members, the last in order if it was none.
    pub fn insert(&mut self, namespace: Namespace, uid: Uid, member: u32) -> Inserted {
        let inserted = match self.members.entry((namespace, uid)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Members::one(member));
                Inserted::First
            }
            Entry::Occupied(mut members) => {
                if !members.get_mut().push(member) {
                    return Inserted::Already;
                }
                Inserted::Another
            }
        };
        *self.namespaces.entry(namespace).or_default().entry(member).or_default() += 1;
        self.pairs += 1;
        inserted
    }

    /// Ends `member`'s hold on the UID; the order of the others stays.
    ///
    /// # Panics
    ///
    /// If the invariant is broken, which no sequence of calls should do.
    pub fn remove(&mut self, namespace: Namespace, uid: Uid, member: u32) -> Removed {
        let Entry::Occupied(mut members) = self.members.entry((namespace, uid)) else {
            return Removed::Absent;
        };
        let removed = members.get_mut().remove(member);
        match removed {
            Removed::Absent => return Removed::Absent,
            Removed::Another => {}
            Removed::Last => {
                members.remove();
            }
        }
        self.forget_pair(namespace, member);
        removed
    }

    /// The UID's members in the order they were inserted; empty if it has none.
    #[must_use]
    pub fn members(&self, namespace: Namespace, uid: Uid) -> &[u32] {
        self.members.get(&(namespace, uid)).map_or(&[], Members::as_slice)
    }

    /// Every member that holds at least one UID of the namespace, once each, in rising order.
    pub fn all(&self, namespace: Namespace) -> impl Iterator<Item = u32> + '_ {
        self.namespaces.get(&namespace).into_iter().flat_map(|held| held.keys().copied())
    }

    /// As [`all`](Self::all), without the members below `from`: so that a walk can be left and
    /// taken up again, whatever has come or gone meanwhile.
    pub fn all_from(&self, namespace: Namespace, from: u32) -> impl Iterator<Item = u32> + '_ {
        let held = self.namespaces.get(&namespace).into_iter();
        held.flat_map(move |held| held.range(from..).map(|(member, _)| *member))
    }

    /// How many members hold a UID of the namespace.
    #[must_use]
    pub fn holders(&self, namespace: Namespace) -> usize {
        self.namespaces.get(&namespace).map_or(0, BTreeMap::len)
    }

    /// Every (namespace, UID) that has members, in rising order, with them: what a gateway puts
    /// into a snapshot.
    pub fn iter(&self) -> impl Iterator<Item = (Namespace, Uid, &[u32])> + '_ {
        self.members.iter().map(|(&(namespace, uid), members)| (namespace, uid, members.as_slice()))
    }

    /// Number of (namespace, UID, member) triples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// Whether nobody holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// Number of distinct (namespace, UID) that have members.
    #[must_use]
    pub fn users(&self) -> usize {
        self.members.len()
    }

    /// Panics unless the invariant of this file holds. Walks everything: for tests.
    #[doc(hidden)]
    pub fn invariants(&self) {
        let mut counted: BTreeMap<Namespace, BTreeMap<u32, usize>> = BTreeMap::new();
        let mut pairs = 0;
        for (namespace, _, members) in self.iter() {
            assert!(!members.is_empty());
            for (at, member) in members.iter().enumerate() {
                assert!(!members[..at].contains(member), "a member is listed once");
                *counted.entry(namespace).or_default().entry(*member).or_default() += 1;
            }
            pairs += members.len();
        }
        assert_eq!(counted, self.namespaces);
        assert_eq!(pairs, self.pairs);
    }

    fn forget_pair(&mut self, namespace: Namespace, member: u32) {
        let held = self.namespaces.get_mut(&namespace).expect("a held UID counts in its namespace");
        let count = held.get_mut(&member).expect("a holder counts in the namespace");
        *count -= 1;
        if *count == 0 {
            held.remove(&member);
        }
        if held.is_empty() {
            self.namespaces.remove(&namespace);
        }
        self.pairs -= 1;
    }
}

/// Members of one UID. Nearly every user is held once, and for the length of a takeover twice or
/// thrice: that needs no heap. A million small lists, given back to the allocator one by one, were
/// joined by it in one go later, for 160 ms of some innocent call.
///
/// Invariant: `Many` has more than `FEW`; places of `few` from `len` on are 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Members {
    Few { len: u8, few: [u32; FEW] },
    Many(Vec<u32>),
}

/// As many as take up no more memory than a `Vec` does.
const FEW: usize = 3;

const _: () = assert!(size_of::<Members>() == size_of::<Vec<u32>>());

impl Members {
    fn one(member: u32) -> Self {
        Self::few(&[member])
    }

    fn few(members: &[u32]) -> Self {
        let mut few = [0; FEW];
        few[..members.len()].copy_from_slice(members);
        Self::Few { len: u8::try_from(members.len()).expect("a few are below 256"), few }
    }

    fn as_slice(&self) -> &[u32] {
        match self {
            Self::Few { len, few } => &few[..usize::from(*len)],
            Self::Many(members) => members,
        }
    }

    /// Whether `member` was added, that is, was not there yet.
    fn push(&mut self, member: u32) -> bool {
        if self.as_slice().contains(&member) {
            return false;
        }
        match self {
            Self::Few { len, few } if usize::from(*len) < FEW => {
                few[usize::from(*len)] = member;
                *len += 1;
            }
            Self::Few { few, .. } => {
                let mut members = few.to_vec();
                members.push(member);
                *self = Self::Many(members);
            }
            Self::Many(members) => members.push(member),
        }
        true
    }

    /// `Last` leaves the list as it was: the owner drops the whole entry.
    fn remove(&mut self, member: u32) -> Removed {
        let Some(at) = self.as_slice().iter().position(|held| *held == member) else {
            return Removed::Absent;
        };
        match self {
            Self::Few { len: 1, .. } => return Removed::Last,
            Self::Few { len, few } => {
                few.copy_within(at + 1.., at);
                few[FEW - 1] = 0;
                *len -= 1;
            }
            Self::Many(members) => {
                members.remove(at);
                if members.len() == FEW {
                    *self = Self::few(members);
                }
            }
        }
        Removed::Another
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_from_few_to_many_and_back() {
        let mut members = Members::one(10);
        for member in [11, 12, 13, 14] {
            assert!(members.push(member) && !members.push(member));
        }
        assert_eq!(members.as_slice(), [10, 11, 12, 13, 14]);
        for (member, left) in [(12, &[10, 11, 13, 14][..]), (10, &[11, 13, 14]), (13, &[11, 14])] {
            assert_eq!(members.remove(member), Removed::Another);
            assert_eq!(members.remove(member), Removed::Absent);
            assert_eq!(members.as_slice(), left);
        }
        assert_eq!(members, Members::few(&[11, 14]));
        assert_eq!(members.remove(11), Removed::Another);
        assert_eq!((members.remove(14), members), (Removed::Last, Members::one(14)));
    }
}
