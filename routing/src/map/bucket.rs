//! A cache line of routes, which one writer changes while any number of readers look.
//!
//! Six UIDs, the slot of each, and a word that says how often the line was changed: a reader that
//! sees the same even number before and after has seen one state (a sequence lock; H.-J. Boehm,
//! *Can Seqlocks Get Along With Programming Language Memory Models?*, 2012, whose third variant
//! this is). Every word is atomic, so a torn read is a value to be thrown away and never undefined.
//!
//! Invariants, while no change is under way: an entry is empty if its slot is [`EMPTY`]; `spilled`
//! is how many entries whose home this is lie in later buckets, and none of them lies farther than
//! `reach` away; if one UID whose home this is has more than one route, it says so.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a field is taken out of a word by cutting off the rest"
)]

use std::sync::atomic::Ordering;

use crate::sync::{AtomicU64, fence, own, size, spin_loop};

/// Routes in a bucket.
pub(super) const ENTRIES: usize = size(6, 6, 1);

/// The slot of an entry that is none.
pub(super) const EMPTY: u16 = u16::MAX;

/// Words with the slots: four in the first, two in the second, beside the state.
const SLOTS: usize = ENTRIES;
const STATE: usize = ENTRIES + 1;

/// In the state word: where `spilled` begins (6 bits), whether one of its UIDs has several routes,
/// `reach` (4 bits), whether the crowd has some of its routes, and the count of changes (20 bits).
const SPILLED: u32 = 32;
const SPILLED_MAX: u8 = 0x3f;
const SEVERAL: u64 = 1 << 38;
const REACH: u32 = 39;
const CROWDED: u64 = 1 << 43;
const CHANGES: u32 = 44;
const CHANGE: u64 = 1 << CHANGES;

/// How far from its home a route may lie, in buckets.
pub(super) const REACH_MAX: usize = 15;

/// What a bucket says when nothing is in it.
const VACANT: [u64; 2] = [u64::MAX, 0xffff_ffff];

/// One cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Bucket {
    words: [AtomicU64; ENTRIES + 2],
}

/// What was in a bucket at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    words: [u64; ENTRIES + 2],
}

/// What a bucket said of one UID at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// A bit for each entry that has the UID.
    matches: u32,
    slots: u64,
    state: State,
}

/// What a bucket says of the routes whose home it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct State(u64);

impl Default for Bucket {
    fn default() -> Self {
        let words = std::array::from_fn(|at| match at {
            SLOTS => AtomicU64::new(VACANT[0]),
            STATE => AtomicU64::new(VACANT[1]),
            _ => AtomicU64::new(0),
        });
        Self { words }
    }
}

impl Bucket {
    /// Asks for the line: many of these, one after the other, are under way together.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        self.words[STATE].load(Ordering::Relaxed)
    }

    /// What it has of a UID. Waits only for a change that is being written: a few stores.
    #[inline]
    pub(super) fn probe(&self, uid: u64) -> Probe {
        let ((matches, slots), state) = self.at_one_moment(|words| {
            let is_here = |at: usize| u32::from(words[at].load(Ordering::Relaxed) == uid) << at;
            let matches = (0..ENTRIES).map(is_here).fold(0, |all, one| all | one);
            (matches, words[SLOTS].load(Ordering::Relaxed))
        });
        Probe { matches, slots, state: State(state) }
    }

    /// What `read` makes of words between whose reading none was changed, and the state word.
    #[inline]
    fn at_one_moment<T>(&self, read: impl Fn(&[AtomicU64; ENTRIES + 2]) -> T) -> (T, u64) {
        loop {
            let before = self.words[STATE].load(Ordering::Acquire);
            let value = read(&self.words);
            fence(Ordering::Acquire);
            let after = self.words[STATE].load(Ordering::Relaxed);
            if before == after && before & CHANGE == 0 {
                return (value, before);
            }
            spin_loop();
        }
    }

    /// What is in it, for who writes or keeps others from it.
    pub(super) fn own(&self) -> Seen {
        Seen { words: std::array::from_fn(|at| own(&self.words[at])) }
    }

    /// Whether there is a free entry.
    pub(super) fn has_room(&self) -> bool {
        self.own().slots().any(|slot| slot == EMPTY)
    }

    /// Puts a route into a free entry; whether there was one. For the one writer.
    pub(super) fn put(&self, uid: u64, slot: u16) -> bool {
        let mut seen = self.own();
        let Some(at) = seen.slots().position(|there| there == EMPTY) else { return false };
        seen.words[at] = uid;
        seen.set_slot(at, slot);
        self.write(&seen);
        true
    }

    /// Takes a route out; whether it was there. For the one writer.
    pub(super) fn take(&self, uid: u64, slot: u16) -> bool {
        let mut seen = self.own();
        let Some(at) = seen.find(uid, slot) else { return false };
        seen.words[at] = 0;
        seen.set_slot(at, EMPTY);
        self.write(&seen);
        true
    }

    /// Takes out all routes that `goes` names, in one change, and tells `taken` each before it is
    /// made. For the one writer.
    pub(super) fn take_all(
        &self,
        goes: impl Fn(u64, u16) -> bool,
        mut taken: impl FnMut(u64, u16),
    ) {
        let mut seen = self.own();
        let mut is_changed = false;
        for at in 0..ENTRIES {
            let (uid, slot) = (seen.words[at], seen.slot(at));
            if slot != EMPTY && goes(uid, slot) {
                taken(uid, slot);
                seen.words[at] = 0;
                seen.set_slot(at, EMPTY);
                is_changed = true;
            }
        }
        if is_changed {
            self.write(&seen);
        }
    }

    /// The same again, for a copy of its block.
    pub(super) fn copy(&self) -> Self {
        Self { words: self.own().words.map(AtomicU64::new) }
    }

    /// One more of its routes lies this far away. For the one writer.
    pub(super) fn spill(&self, distance: usize) {
        let mut seen = self.own();
        let reach = seen.state().reach().max(distance);
        let state = &mut seen.words[STATE];
        *state = *state & !(0xf << REACH) | (reach as u64) << REACH;
        *state += 1 << SPILLED;
        self.write(&seen);
    }

    /// One less of its routes lies elsewhere. For the one writer.
    pub(super) fn unspill(&self) {
        let mut seen = self.own();
        let is_last = seen.state().spilled() == 1;
        let state = &mut seen.words[STATE];
        *state -= 1 << SPILLED;
        if is_last {
            *state &= !(0xf << REACH);
        }
        self.write(&seen);
    }

    /// One of its UIDs has several routes, or none has. For the one writer.
    pub(super) fn several(&self, some: bool) {
        let mut seen = self.own();
        let state = &mut seen.words[STATE];
        *state = if some { *state | SEVERAL } else { *state & !SEVERAL };
        self.write(&seen);
    }

    /// Some of its routes lie in the group's crowd. For the one writer.
    pub(super) fn crowd(&self) {
        let mut seen = self.own();
        seen.words[STATE] |= CROWDED;
        self.write(&seen);
    }

    fn write(&self, new: &Seen) {
        let changing = own(&self.words[STATE]).wrapping_add(CHANGE);
        self.words[STATE].store(changing, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words[..STATE].iter().zip(new.words) {
            word.store(value, Ordering::Relaxed);
        }
        let done =
            (new.words[STATE] & (CHANGE - 1)) | (changing.wrapping_add(CHANGE) & !(CHANGE - 1));
        self.words[STATE].store(done, Ordering::Release);
    }
}

impl Seen {
    /// Every route in it.
    pub(super) fn all(self) -> impl Iterator<Item = (u64, u16)> {
        let here = (0..ENTRIES).map(move |at| (self.words[at], self.slot(at)));
        here.filter(|(_, slot)| *slot != EMPTY)
    }

    /// What it has of a UID.
    pub(super) fn probe(&self, uid: u64) -> Probe {
        let is_here = |at: usize| u32::from(self.words[at] == uid) << at;
        let matches = (0..ENTRIES).map(is_here).fold(0, |all, one| all | one);
        Probe { matches, slots: self.words[SLOTS], state: self.state() }
    }

    /// What it says of the routes whose home it is.
    pub(super) fn state(&self) -> State {
        State(self.words[STATE])
    }

    #[inline]
    fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        (0..ENTRIES).map(|at| self.slot(at))
    }

    #[inline]
    fn slot(&self, at: usize) -> u16 {
        (self.words[SLOTS + at / 4] >> (16 * (at % 4))) as u16
    }

    fn set_slot(&mut self, at: usize, slot: u16) {
        let (word, shift) = (&mut self.words[SLOTS + at / 4], 16 * (at % 4));
        *word = *word & !(0xffff << shift) | u64::from(slot) << shift;
    }

    fn find(&self, uid: u64, slot: u16) -> Option<usize> {
        (0..ENTRIES).find(|at| self.words[*at] == uid && self.slot(*at) == slot)
    }
}

impl Probe {
    /// Slots that hold the UID.
    #[inline]
    pub(super) fn slots(self) -> impl Iterator<Item = u16> {
        let mut left = self.matches;
        std::iter::from_fn(move || {
            while left != 0 {
                let at = left.trailing_zeros();
                left &= left - 1;
                let slots = if at < 4 { self.slots } else { self.state.0 };
                let slot = (slots >> (16 * (at % 4))) as u16;
                // An entry without a route has the UID 0.
                if slot != EMPTY {
                    return Some(slot);
                }
            }
            None
        })
    }

    /// What the bucket says of the routes whose home it is.
    #[inline]
    pub(super) fn state(self) -> State {
        self.state
    }
}

impl State {
    /// Routes whose home this is and that lie elsewhere.
    #[inline]
    fn spilled(self) -> u8 {
        (self.0 >> SPILLED) as u8 & SPILLED_MAX
    }

    /// Whether one more may lie elsewhere.
    pub(super) fn may_spill(self) -> bool {
        self.spilled() < SPILLED_MAX
    }

    /// Whether a UID whose home this is may have several routes.
    #[inline]
    pub(super) fn has_several(self) -> bool {
        self.0 & SEVERAL != 0
    }

    /// How far away the farthest of its routes may lie, in buckets.
    #[inline]
    pub(super) fn reach(self) -> usize {
        (self.0 >> REACH & 0xf) as usize
    }

    /// Whether routes whose home this is may lie in the group's crowd.
    #[inline]
    pub(super) fn is_crowded(self) -> bool {
        self.0 & CROWDED != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn what_is_put_is_there_until_it_is_taken() {
        let bucket = Bucket::default();
        assert_eq!(bucket.own().all().count(), 0);
        for slot in 0..6 {
            assert!(bucket.put(7, slot));
        }
        assert!(!bucket.put(8, 0), "it is full");
        assert_eq!(bucket.probe(7).slots().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(bucket.probe(0).slots().count(), 0, "an empty entry is of nobody");
        assert!(bucket.take(7, 3) && !bucket.take(7, 3));
        assert!(bucket.put(0, 9));
        assert_eq!(bucket.probe(7).slots().collect::<Vec<_>>(), [0, 1, 2, 4, 5]);
        assert_eq!(bucket.probe(0).slots().collect::<Vec<_>>(), [9]);
        assert_eq!(bucket.own().state().reach(), 0);
        bucket.spill(3);
        bucket.spill(1);
        assert_eq!((bucket.own().state().reach(), bucket.own().all().count()), (3, 6));
        bucket.unspill();
        assert_eq!(bucket.own().state().reach(), 3);
        bucket.unspill();
        assert_eq!(bucket.own().state().reach(), 0);
    }

    #[test]
    fn what_goes_is_told_and_nothing_else_goes() {
        let bucket = Bucket::default();
        for slot in 0..6 {
            assert!(bucket.put(u64::from(slot) % 2, slot));
        }
        let mut told = Vec::new();
        bucket.take_all(|_, slot| slot % 3 == 0, |uid, slot| told.push((uid, slot)));
        assert_eq!(told, [(0, 0), (1, 3)]);
        assert_eq!(bucket.own().all().collect::<Vec<_>>(), [(1, 1), (0, 2), (0, 4), (1, 5)]);
        bucket.take_all(|uid, _| uid > 1, |_, _| unreachable!("nobody else is in it"));
        assert_eq!(bucket.copy().own().all().count(), 4);
    }
}
