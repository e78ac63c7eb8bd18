//! Working space of a query: a set, and counters for each slot.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a place is chosen by the highest bits of a hash; lists have fewer than 2^32 UIDs"
)]

use std::collections::BTreeSet;

use waybill_wire::limits::TARGETS_MAX;
use waybill_wire::targets::UidRun;

use crate::map::Slots;
use crate::slots::SlotsView;

/// Finds who comes again in a list. A table of chains of places in the list, which has the UIDs:
/// eight a UID, so that few have to be compared with another one.
#[derive(Debug, Default)]
pub(crate) struct Once {
    /// One more than the place of the last one in each chain, or 0.
    lasts: Vec<u16>,
    /// The same of the one before each in its chain, by place in the list.
    before: Vec<u16>,
    /// Places of those that were not the first of their chains, in rising order.
    later: Vec<u16>,
    /// Places of those that came before, in rising order.
    again: Vec<usize>,
}

/// UIDs of a list at most that places have room for: no frame has as many.
const PLACED_MAX: usize = u16::MAX as usize;
const _: () = assert!(TARGETS_MAX <= PLACED_MAX);

impl Once {
    /// Overwrites `users` with the UIDs of a list and their hashes, each where it came first.
    /// Hashes are keyed ones, so that no list can be chosen to collide.
    pub(crate) fn leave_first(
        &mut self,
        uids: UidRun<'_>,
        hash: impl Fn(u64) -> u64,
        users: &mut Vec<(u64, u64)>,
    ) {
        if uids.len() > PLACED_MAX {
            return leave_first_of_many(uids, hash, users);
        }
        let len = (8 * uids.len()).next_power_of_two().max(2);
        if self.lasts.len() < len {
            self.lasts.resize(len, 0);
        }
        if self.before.len() < uids.len() {
            self.before.resize(uids.len(), 0);
            self.later.resize(uids.len(), 0);
        }
        let (lasts, before) = (&mut self.lasts[..len], &mut self.before[..uids.len()]);
        let later = &mut self.later[..uids.len()];
        lasts.fill(0);
        users.clear();
        let shift = u64::BITS - len.ilog2();
        let (mut at, mut number) = (0, 0);
        users.extend(uids.iter().zip(before).map(|(uid, before)| {
            let hash = hash(uid);
            let last = &mut lasts[(hash >> shift) as usize];
            // No branch: for one in sixteen it would be foretold wrong.
            later[number] = at;
            number += usize::from(*last != 0);
            *before = *last;
            at += 1;
            *last = at;
            (uid, hash)
        }));
        self.leave_out(number, users);
    }

    /// Takes out those of the later ones that have the same UID before them.
    fn leave_out(&mut self, later: usize, users: &mut Vec<(u64, u64)>) {
        let (before, again) = (&self.before, &mut self.again);
        again.clear();
        again.extend(self.later[..later].iter().map(|at| usize::from(*at)).filter(|at| {
            let mut last = usize::from(before[*at]);
            while last != 0 && users[last - 1].0 != users[*at].0 {
                last = usize::from(before[last - 1]);
            }
            last != 0
        }));
        if !again.is_empty() {
            leave_out(users, again);
        }
    }
}

/// The same for a list that no frame has.
#[cold]
fn leave_first_of_many(uids: UidRun<'_>, hash: impl Fn(u64) -> u64, users: &mut Vec<(u64, u64)>) {
    let mut seen = BTreeSet::new();
    users.clear();
    users.extend(uids.iter().filter(|uid| seen.insert(*uid)).map(|uid| (uid, hash(uid))));
}

/// Takes out what lies at these places.
#[cold]
fn leave_out(users: &mut Vec<(u64, u64)>, places: &[usize]) {
    let (mut at, mut next) = (0, places.iter().peekable());
    users.retain(|_| {
        at += 1;
        next.next_if_eq(&&(at - 1)).is_none()
    });
}

/// UIDs that were looked up, with the slots of each.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    users: Vec<(u64, Has)>,
    slots: Vec<u16>,
}

/// What a UID has.
#[derive(Clone, Copy, Debug)]
enum Has {
    /// One slot.
    One(u16),
    /// Those between two places.
    Some(u32, u32),
}

impl Ahead {
    pub(crate) fn clear(&mut self) {
        self.users.clear();
        self.slots.clear();
    }

    #[inline]
    pub(crate) fn push(&mut self, uid: u64, slots: Slots<'_>) {
        let has = match slots {
            Slots::One(slot) => Has::One(slot),
            Slots::Some(slots) => {
                let start = self.slots.len() as u32;
                self.slots.extend_from_slice(slots);
                Has::Some(start, self.slots.len() as u32)
            }
        };
        self.users.push((uid, has));
    }

    /// The UID that came there, counted from nought, and its slots.
    #[inline]
    pub(crate) fn at(&self, at: usize) -> (u64, Slots<'_>) {
        let (uid, has) = self.users[at];
        let slots = match has {
            Has::One(slot) => Slots::One(slot),
            Has::Some(start, end) => Slots::Some(&self.slots[start as usize..end as usize]),
        };
        (uid, slots)
    }
}

/// UIDs of which those that are the first of their slots are marked together.
const FIRSTS: usize = 64;

/// Every slot that a UID may have, and [`NO_SLOT`].
const SLOTS: usize = NO_SLOT as usize + 1;

/// How many UIDs each slot gets, and how many get none; then where the next of them goes.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Of each of [`SLOTS`], once there was a query: most of it is memory that is never touched.
    counts: Vec<u32>,
    /// A bit for each slot that gets any, so that they are met in order without being sorted.
    involved: Vec<u64>,
}

impl Shares {
    /// Nobody gets anything yet, of a table that has so many slots.
    pub(crate) fn begin(&mut self, slots: usize) {
        if self.counts.is_empty() {
            self.counts = vec![0; SLOTS];
        }
        if self.involved.len() < slots.div_ceil(64) {
            self.involved.resize(slots.div_ceil(64), 0);
        }
        for (word, involved) in self.involved.iter_mut().enumerate() {
            for bit in Bits(std::mem::take(involved)) {
                self.counts[64 * word + bit] = 0;
            }
        }
        self.counts[usize::from(NO_SLOT)] = 0;
    }

    /// By slot, so that no place has to be compared with how many there are.
    #[inline(always)]
    fn counts(&mut self) -> &mut [u32; SLOTS] {
        self.counts.first_chunk_mut().expect("a query has begun")
    }

    /// One more for this slot.
    #[inline]
    pub(crate) fn count(&mut self, slot: u16) {
        self.counts()[usize::from(slot)] += 1;
        self.involve(slot);
    }

    /// One more for each of these: without a branch for who is the first of a slot, or has none.
    pub(crate) fn count_all(&mut self, slots: &[u16]) {
        for slots in slots.chunks(FIRSTS) {
            let (mut firsts, mut number) = ([0; FIRSTS], 0);
            let counts = self.counts();
            for slot in slots {
                let count = &mut counts[usize::from(*slot)];
                firsts[number % FIRSTS] = *slot;
                number += usize::from(*count == 0);
                *count += 1;
            }
            firsts[..number].iter().for_each(|slot| self.involve(*slot));
        }
    }

    fn involve(&mut self, slot: u16) {
        let (word, bit) = (usize::from(slot) / 64, slot % 64);
        if slot == NO_SLOT {
            return;
        }
        if self.involved.len() <= word {
            self.involved.resize(word + 1, 0);
        }
        self.involved[word] |= 1 << bit;
    }

    /// Takes slots that are not live from those that were counted last, and have been no others.
    pub(crate) fn leave_out_dead(&mut self, slots: &SlotsView, counted: &mut [u16]) {
        let words = self.involved.iter().enumerate();
        if words.fold(0, |dead, (word, involved)| dead | involved & !slots.word(word).live) == 0 {
            return;
        }
        for slot in counted.iter_mut().filter(|slot| !slots.is_live(**slot)) {
            self.counts[usize::from(*slot)] -= 1;
            *slot = NO_SLOT;
            self.counts[usize::from(NO_SLOT)] += 1;
        }
        for (word, involved) in self.involved.iter_mut().enumerate() {
            *involved &= slots.word(word).live;
        }
    }

    /// How many UIDs get none.
    pub(crate) fn nobodys(&self) -> usize {
        self.counts[usize::from(NO_SLOT)] as usize
    }

    /// Asks `place` for each slot that gets any, in rising order, where its part begins; those who
    /// get none come last of all, and how many they are.
    pub(crate) fn place(&mut self, mut place: impl FnMut(u16, usize) -> usize) -> usize {
        let mut end = 0;
        for (word, involved) in self.involved.iter().enumerate() {
            for bit in Bits(*involved) {
                let at = 64 * word + bit;
                let slot = u16::try_from(at).expect("counted as one");
                let count = self.counts[at];
                let begin = place(slot, count as usize);
                self.counts[at] = u32::try_from(begin).expect("a plan has fewer than 2^32 targets");
                end = self.counts[at] + count;
            }
        }
        std::mem::replace(&mut self.counts[usize::from(NO_SLOT)], end) as usize
    }

    /// Where the next UID of this slot goes.
    #[inline]
    pub(crate) fn next(&mut self, slot: u16) -> usize {
        let next = &mut self.counts[usize::from(slot)];
        *next += 1;
        *next as usize - 1
    }

    /// Puts each UID where the next one of its slot goes.
    #[inline]
    pub(crate) fn deal(&mut self, users: &[(u64, u64)], slots: &[u16], targets: &mut [u64]) {
        let nexts = self.counts();
        for ((uid, _), slot) in users.iter().zip(slots) {
            let next = &mut nexts[usize::from(*slot)];
            targets[*next as usize] = *uid;
            *next += 1;
        }
    }
}

/// The slot of who has none: no table has so many.
pub(crate) const NO_SLOT: u16 = u16::MAX;

/// The bits that are set in a word, lowest first.
pub(crate) struct Bits(pub(crate) u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let lowest = (self.0 != 0).then(|| self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(lowest)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn of_who_comes_again_the_first_is_left_in_lists_of_any_length() {
        let mut once = Once::default();
        for len in [1, 1_000, PLACED_MAX + 1] {
            let uids: Vec<u64> = (0..len as u64).map(|at| at * at % (len as u64 + 1)).collect();
            let bytes: Vec<u8> = uids.iter().flat_map(|uid| uid.to_le_bytes()).collect();
            let run = UidRun::new(&bytes).expect("whole UIDs");
            let mut users = Vec::new();
            once.leave_first(run, |uid| uid.wrapping_mul(0x9e37_79b9_7f4a_7c15), &mut users);
            let mut seen = BTreeSet::new();
            let expected = uids.iter().filter(|uid| seen.insert(**uid));
            assert!(users.iter().map(|(uid, _)| uid).eq(expected), "{len}");
            assert!(len == 1 || users.len() < len, "some come again");
        }
    }
}
