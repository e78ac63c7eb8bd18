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

use std::hint::select_unpredictable;
use std::sync::atomic::Ordering;

use crate::scratch::{Bits, NO_SLOT};
use crate::sync::{Own as _, Word16, Word32, Word64, fence, size, spin_loop};

/// Routes in a bucket.
pub(super) const ENTRIES: usize = size(6, 6, 1);

/// The slot of an entry that is none.
pub(super) const EMPTY: u16 = u16::MAX;

/// In the state: `spilled` (6 bits), whether one of its UIDs has several routes, `reach` (4 bits),
/// whether the crowd has some of its routes, and the count of changes (20 bits).
const SPILLED_MAX: u32 = 0x3f;
const SEVERAL: u32 = 1 << 6;
const REACH: u32 = 7;
const CROWDED: u32 = 1 << 11;
const CHANGES: u32 = 12;
const CHANGE: u32 = 1 << CHANGES;
/// What a bucket may say that is being changed, or where somebody has several routes.
const NOT_PLAIN: u32 = CHANGE | SEVERAL | CROWDED;

/// Buckets behind its home that a route may lie in.
pub(super) const REACH_MAX: usize = 15;

/// One cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    uids: [Word64; ENTRIES],
    slots: [Word16; ENTRIES],
    state: Word32,
}

/// What was in a bucket at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    uids: [u64; ENTRIES],
    slots: [u16; ENTRIES],
    state: u32,
}

/// What a bucket said of one UID at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// A bit for each entry that has the UID.
    matches: u32,
    slots: [u16; ENTRIES],
    state: State,
}

/// What a bucket has of one UID at first sight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glance {
    is_here: bool,
    /// One of the UID's, if it is here.
    slot: u16,
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

impl Glance {
    /// A slot, if there is one.
    #[inline(always)]
    pub(super) fn sight(self) -> Sight {
        match self.slot {
            _ if !self.is_here => Sight::Nothing,
            EMPTY => Sight::Unclear,
            slot => Sight::Slot(slot),
        }
    }

    /// Whether a UID whose home this is has this slot and no more, as nearly all.
    #[inline(always)]
    pub(super) fn is_lone(self) -> bool {
        self.is_here && self.slot != EMPTY && !self.state.may_have_several()
    }

    /// One of the UID's slots, if it is here.
    #[inline(always)]
    pub(super) fn slot(self) -> u16 {
        self.slot
    }

    /// What the bucket says of the routes whose home it is.
    #[inline(always)]
    pub(super) fn state(self) -> State {
        self.state
    }
}

/// What a bucket says of the routes whose home it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(u32);

impl Default for Bucket {
    fn default() -> Self {
        let uids = std::array::from_fn(|_| Word64::new(0));
        let slots = std::array::from_fn(|_| Word16::new(EMPTY));
        Self { uids, slots, state: Word32::new(0) }
    }
}

/// What some buckets have of a UID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    /// Whether that is seen.
    pub(super) is_clear: bool,
    /// A slot, or [`NO_SLOT`].
    pub(super) slot: u16,
}

impl Near {
    /// Nothing is seen.
    pub(super) const UNCLEAR: Self = Self { is_clear: false, slot: NO_SLOT };

    /// What another bucket has, if this has nothing.
    #[inline(always)]
    pub(super) fn or(self, other: Self) -> Self {
        let slot = select_unpredictable(self.slot == NO_SLOT, other.slot, self.slot);
        Self { is_clear: self.is_clear & other.is_clear, slot }
    }
}

impl Bucket {
    /// What it has of a UID. Waits only for a change that is being written: a few stores.
    #[inline]
    pub(super) fn probe(&self, uid: u64) -> Probe {
        let ((matches, slots), state) = self.at_one_moment(|| {
            let is_here = |at: usize| u32::from(self.uids[at].load(Ordering::Relaxed) == uid) << at;
            let matches = (0..ENTRIES).map(is_here).fold(0, |all, one| all | one);
            (matches, std::array::from_fn(|at| self.slots[at].load(Ordering::Relaxed)))
        });
        Probe { matches, slots, state: State(state) }
    }

    /// What it has of a UID, without a branch for each entry, and what it says.
    #[inline(always)]
    pub(super) fn glance(&self, uid: u64) -> Glance {
        let ((differs, slot), state) = self.at_one_moment(|| self.entry_of(uid));
        Glance { is_here: differs == 0, slot, state: State(state) }
    }

    /// A slot, and whether it is seen to be the only one of a UID whose home this is: without a
    /// branch, and without waiting for a change that is being written.
    #[inline(always)]
    pub(super) fn lone(&self, uid: u64) -> (bool, u16) {
        let (before, (differs, slot), changed) = self.seen_once(uid);
        let unclear = before & NOT_PLAIN;
        ((differs | u64::from(changed | unclear) == 0) & (slot != EMPTY), slot)
    }

    /// What it has of a UID, in the same way.
    #[inline(always)]
    pub(super) fn sight(&self, uid: u64) -> Near {
        let (before, (differs, slot), changed) = self.seen_once(uid);
        // Of UID 0, more than one entry may seem to have it.
        let is_clear = ((changed | before & CHANGE) == 0) & (uid != 0);
        Near { is_clear, slot: select_unpredictable(differs == 0, slot, NO_SLOT) }
    }

    /// What it says, what it has of a UID as [`Self::entry_of`] tells it, and by what it says
    /// something else afterwards.
    #[inline(always)]
    fn seen_once(&self, uid: u64) -> (u32, (u64, u16), u32) {
        let before = self.state.load(Ordering::Acquire);
        let entry = self.entry_of(uid);
        fence(Ordering::Acquire);
        (before, entry, self.state.load(Ordering::Relaxed) ^ before)
    }

    /// By what an entry differs from a UID, which is nothing if one has it, and its slot: by place
    /// and not by a branch, which would be foretold wrong for most.
    #[inline(always)]
    fn entry_of(&self, uid: u64) -> (u64, u16) {
        let mut entry = 0;
        for (at, there) in self.uids.iter().enumerate().skip(1) {
            let is_here = there.load(Ordering::Relaxed) == uid;
            entry = select_unpredictable(is_here, at, entry);
        }
        let differs = self.uids[entry].load(Ordering::Relaxed) ^ uid;
        (differs, self.slots[entry].load(Ordering::Relaxed))
    }

    /// What it says just now, before whatever is read after.
    #[inline(always)]
    pub(super) fn state_now(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// Whether it still says this, after whatever else was read before.
    #[inline]
    pub(super) fn says(&self, state: State) -> bool {
        fence(Ordering::Acquire);
        self.state.load(Ordering::Relaxed) == state.0
    }

    /// What `read` makes of words between whose reading none was changed, and the state.
    #[inline(always)]
    fn at_one_moment<T>(&self, read: impl Fn() -> T) -> (T, u32) {
        loop {
            let before = self.state.load(Ordering::Acquire);
            let value = read();
            fence(Ordering::Acquire);
            let after = self.state.load(Ordering::Relaxed);
            if before == after && before & CHANGE == 0 {
                return (value, before);
            }
            spin_loop();
        }
    }

    /// What is in it, for who writes or keeps others from it.
    pub(super) fn own(&self) -> Seen {
        let uids = std::array::from_fn(|at| self.uids[at].own());
        let slots = std::array::from_fn(|at| self.slots[at].own());
        Seen { uids, slots, state: self.state.own() }
    }

    /// Whether there is a free entry.
    pub(super) fn has_room(&self) -> bool {
        self.free().is_some()
    }

    /// Puts a route into a free entry; whether there was one. For the one writer.
    pub(super) fn put(&self, uid: u64, slot: u16) -> bool {
        let Some(at) = self.free() else { return false };
        self.change(|| {
            self.uids[at].store(uid, Ordering::Relaxed);
            self.slots[at].store(slot, Ordering::Relaxed);
        });
        true
    }

    /// Puts a route whose home this is, and that lies elsewhere, into a free entry, and counts it
    /// as one less of those; whether there was one. For the one writer.
    pub(super) fn take_in(&self, uid: u64, slot: u16) -> bool {
        let Some(at) = self.free() else { return false };
        self.change_to(State::without_one_spilled, || {
            self.uids[at].store(uid, Ordering::Relaxed);
            self.slots[at].store(slot, Ordering::Relaxed);
        });
        true
    }

    /// An entry that has a route. For the one writer.
    pub(super) fn own_entry(&self, at: usize) -> (u64, u16) {
        (self.uids[at].own(), self.slots[at].own())
    }

    fn free(&self) -> Option<usize> {
        self.slots.iter().position(|slot| slot.own() == EMPTY)
    }

    /// Takes a route out; whether it was there. For the one writer.
    pub(super) fn take(&self, uid: u64, slot: u16) -> bool {
        let Some(at) = self.own().find(uid, slot) else { return false };
        self.clear(1 << at);
        true
    }

    /// Takes out the entries that have a bit, in one change. For the one writer.
    pub(super) fn clear(&self, entries: u32) {
        self.change(|| {
            for at in Bits(entries.into()) {
                self.uids[at].store(0, Ordering::Relaxed);
                self.slots[at].store(EMPTY, Ordering::Relaxed);
            }
        });
    }

    /// Becomes like another one. For the one writer, before anybody else knows of it.
    pub(super) fn be_like(&self, other: &Self) {
        let Seen { uids, slots, state } = other.own();
        let both = self.uids.iter().zip(uids).zip(self.slots.iter().zip(slots));
        for ((own, uid), (own_slot, slot)) in both {
            own.store(uid, Ordering::Relaxed);
            own_slot.store(slot, Ordering::Relaxed);
        }
        self.state.store(state, Ordering::Release);
    }

    /// One more of its routes lies this far away. For the one writer.
    pub(super) fn spill(&self, distance: usize) {
        self.say(|state| {
            let reach = State(state).reach().max(distance);
            let reach = u32::try_from(reach).expect("REACH_MAX at most");
            (state & !(0xf << REACH) | reach << REACH) + 1
        });
    }

    /// One less of its routes lies elsewhere. For the one writer.
    pub(super) fn unspill(&self) {
        self.say(State::without_one_spilled);
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
    fn say(&self, what: impl Fn(u32) -> u32) {
        let said = what(self.state.own());
        self.state.store(said.wrapping_add(2 * CHANGE), Ordering::Release);
    }

    /// Changes entries by what `write` stores.
    #[inline]
    fn change(&self, write: impl FnOnce()) {
        self.change_to(|state| state, write);
    }

    /// The same, and what it says of its routes.
    #[inline]
    fn change_to(&self, what: impl Fn(u32) -> u32, write: impl FnOnce()) {
        let state = self.state.own();
        self.state.store(state.wrapping_add(CHANGE), Ordering::Relaxed);
        fence(Ordering::Release);
        write();
        self.state.store(what(state).wrapping_add(2 * CHANGE), Ordering::Release);
    }
}

impl Seen {
    /// Every route in it, with its entry.
    pub(super) fn entries(self) -> impl Iterator<Item = (usize, u64, u16)> {
        let here = (0..ENTRIES).map(move |at| (at, self.uids[at], self.slots[at]));
        here.filter(|(_, _, slot)| *slot != EMPTY)
    }

    /// Every route in it.
    pub(super) fn all(self) -> impl Iterator<Item = (u64, u16)> {
        self.entries().map(|(_, uid, slot)| (uid, slot))
    }

    /// What it has of a UID.
    pub(super) fn probe(&self, uid: u64) -> Probe {
        let is_here = |at: usize| u32::from(self.uids[at] == uid) << at;
        let matches = (0..ENTRIES).map(is_here).fold(0, |all, one| all | one);
        Probe { matches, slots: self.slots, state: self.state() }
    }

    /// What it says of the routes whose home it is.
    pub(super) fn state(&self) -> State {
        State(self.state)
    }

    fn find(&self, uid: u64, slot: u16) -> Option<usize> {
        (0..ENTRIES).find(|at| self.uids[*at] == uid && self.slots[*at] == slot)
    }
}

impl Probe {
    /// Slots that hold the UID.
    #[inline]
    pub(super) fn slots(self) -> impl Iterator<Item = u16> {
        let mut left = self.matches;
        std::iter::from_fn(move || {
            while left != 0 {
                let slot = self.slots[left.trailing_zeros() as usize];
                left &= left - 1;
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
    pub(super) fn spilled(self) -> u32 {
        self.0 & SPILLED_MAX
    }

    /// What is said when one route less lies elsewhere.
    fn without_one_spilled(said: u32) -> u32 {
        match State(said).spilled() {
            1 => (said - 1) & !(0xf << REACH),
            _ => said - 1,
        }
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

    /// Whether it is that of a bucket which is not being changed, and of UIDs with one route each.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.0 & NOT_PLAIN == 0
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
