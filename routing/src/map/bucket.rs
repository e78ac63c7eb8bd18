//! A cache line of routes, which one writer changes while any number of readers look.
//!
//! Six UIDs, the slot of each, and a word that says how often the line was changed: a reader that
//! sees the same even number before and after has seen one state (a sequence lock; H.-J. Boehm,
//! *Can Seqlocks Get Along With Programming Language Memory Models?*, 2012, whose third variant
//! this is). Every word is atomic, so a torn read is a value to be thrown away and never undefined.
//!
//! Invariants, while no change is under way: an entry is empty if its slot is [`EMPTY`]; `spilled`
//! is how many entries whose home this is lie behind it, none of them farther than `reach`; if one
//! UID whose home this is has more than one route, it says so.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a field is taken out of a word by cutting off the rest"
)]

use std::hint::select_unpredictable;
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

/// Buckets behind its home that a route may lie in.
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

/// A slot that a bucket has for a UID, at first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// One.
    Slot(u16),
    /// None.
    Nothing,
    /// It has to be looked at closely: it is about UID 0, which is what entries without a route
    /// have.
    Unclear,
}

/// Whether a bucket has all there is of a UID whose home it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lone {
    /// All is this slot.
    Here(u16),
    /// Nothing of it is here.
    NotHere(State),
    /// It has to be looked for closely.
    Unclear,
}

/// What a bucket says of the routes whose home it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// One of the slots it has for a UID, and what it says; without a branch for each entry.
    #[inline(always)]
    pub(super) fn glance(&self, uid: u64) -> (Sight, State) {
        let ((entry, slot), state) = self.at_one_moment(|words| {
            let mut entry = ENTRIES;
            for (at, word) in words[..ENTRIES].iter().enumerate() {
                let is_here = word.load(Ordering::Relaxed) == uid;
                entry = select_unpredictable(is_here, at, entry);
            }
            // By place and not by a branch, which would be foretold wrong for one UID in three.
            let slots = words[SLOTS + entry / 4].load(Ordering::Relaxed);
            (entry, (slots >> (16 * (entry % 4))) as u16)
        });
        let sight = match entry {
            ENTRIES => Sight::Nothing,
            _ if slot == EMPTY => Sight::Unclear,
            _ => Sight::Slot(slot),
        };
        (sight, State(state))
    }

    /// The slot of a UID that has one, and lies here: what nearly all do.
    #[inline(always)]
    pub(super) fn lone(&self, uid: u64) -> Lone {
        let (sight, state) = self.glance(uid);
        match sight {
            Sight::Slot(slot) if !state.may_have_several() => Lone::Here(slot),
            Sight::Nothing => Lone::NotHere(state),
            _ => Lone::Unclear,
        }
    }

    /// Whether it still says this, after whatever else was read before.
    #[inline]
    pub(super) fn says(&self, state: State) -> bool {
        fence(Ordering::Acquire);
        self.words[STATE].load(Ordering::Relaxed) == state.0
    }

    /// What `read` makes of words between whose reading none was changed, and the state word.
    #[inline(always)]
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
        self.write(&seen, 1 << at);
        true
    }

    /// Takes a route out; whether it was there. For the one writer.
    pub(super) fn take(&self, uid: u64, slot: u16) -> bool {
        let Some(at) = self.own().find(uid, slot) else { return false };
        self.clear(1 << at);
        true
    }

    /// Takes out the entries that have a bit, in one change. For the one writer.
    pub(super) fn clear(&self, entries: u32) {
        let mut seen = self.own();
        for at in (0..ENTRIES).filter(|at| entries >> at & 1 != 0) {
            seen.words[at] = 0;
            seen.set_slot(at, EMPTY);
        }
        self.write(&seen, entries);
    }

    /// Becomes like another one. For the one writer, before anybody else knows of it.
    pub(super) fn be_like(&self, other: &Self) {
        self.write(&other.own(), (1 << ENTRIES) - 1);
    }

    /// One more of its routes lies this far away. For the one writer.
    pub(super) fn spill(&self, distance: usize) {
        self.say(|state| {
            let reach = State(state).reach().max(distance);
            (state & !(0xf << REACH) | (reach as u64) << REACH) + (1 << SPILLED)
        });
    }

    /// One less of its routes lies elsewhere. For the one writer.
    pub(super) fn unspill(&self) {
        self.say(|state| match State(state).spilled() {
            1 => (state - (1 << SPILLED)) & !(0xf << REACH),
            _ => state - (1 << SPILLED),
        });
    }

    /// One of its UIDs has several routes, or none has. For the one writer.
    pub(super) fn several(&self, some: bool) {
        self.say(|state| if some { state | SEVERAL } else { state & !SEVERAL });
    }

    /// Some of its routes lie in the group's crowd. For the one writer.
    pub(super) fn crowd(&self) {
        self.say(|state| state | CROWDED);
    }

    /// Changes what it says of its routes, and none of them: one store, that a reader sees or not.
    fn say(&self, what: impl Fn(u64) -> u64) {
        let said = what(own(&self.words[STATE]));
        self.words[STATE].store(said.wrapping_add(2 * CHANGE), Ordering::Release);
    }

    /// Writes the entries that have a bit.
    #[inline]
    fn write(&self, new: &Seen, entries: u32) {
        let changing = own(&self.words[STATE]).wrapping_add(CHANGE);
        self.words[STATE].store(changing, Ordering::Relaxed);
        fence(Ordering::Release);
        for at in (0..ENTRIES).filter(|at| entries >> at & 1 != 0) {
            self.words[at].store(new.words[at], Ordering::Relaxed);
        }
        self.words[SLOTS].store(new.words[SLOTS], Ordering::Relaxed);
        let done =
            (new.words[STATE] & (CHANGE - 1)) | (changing.wrapping_add(CHANGE) & !(CHANGE - 1));
        self.words[STATE].store(done, Ordering::Release);
    }
}

impl Seen {
    /// Every route in it, with its entry.
    pub(super) fn entries(self) -> impl Iterator<Item = (usize, u64, u16)> {
        let here = (0..ENTRIES).map(move |at| (at, self.words[at], self.slot(at)));
        here.filter(|(_, _, slot)| *slot != EMPTY)
    }

    /// Every route in it.
    pub(super) fn all(self) -> impl Iterator<Item = (u64, u16)> {
        self.entries().map(|(_, uid, slot)| (uid, slot))
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

    /// Whether a UID whose home this is may have several routes, or one in the group's crowd.
    #[inline]
    pub(super) fn may_have_several(self) -> bool {
        self.0 & (SEVERAL | CROWDED) != 0
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
    fn what_is_cleared_goes_and_nothing_else() {
        let bucket = Bucket::default();
        for slot in 0..6 {
            assert!(bucket.put(u64::from(slot) % 2, slot));
        }
        bucket.clear(0b1001);
        assert_eq!(bucket.own().all().collect::<Vec<_>>(), [(1, 1), (0, 2), (0, 4), (1, 5)]);
        let other = Bucket::default();
        other.be_like(&bucket);
        assert_eq!(other.own().all().collect::<Vec<_>>(), bucket.own().all().collect::<Vec<_>>());
    }
}
