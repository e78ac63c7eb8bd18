//! A cache line of routes, which one writer changes while any number of readers look.
//!
//! Six UIDs, the slot of each, and a word that says how often the line was changed: a reader that
//! sees the same even number before and after has seen one state (a sequence lock; H.-J. Boehm,
//! *Can Seqlocks Get Along With Programming Language Memory Models?*, 2012, whose third variant
//! this is). Every word is atomic, so a torn read is a value to be thrown away and never undefined.
//!
//! Invariants, while no change is under way: an entry is empty if its slot is [`EMPTY`]; `spilled`
//! is how many entries whose home this is lie in the next bucket.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a field is taken out of a word by cutting off the rest"
)]

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Routes in a bucket.
pub(super) const ENTRIES: usize = 6;

/// The slot of an entry that is none.
pub(super) const EMPTY: u16 = u16::MAX;

/// Words with the slots: four in the first, two in the second, beside the state.
const SLOTS: usize = ENTRIES;
const STATE: usize = ENTRIES + 1;

/// In the state word: where `spilled` begins (7 bits), whether the crowd has some of its routes,
/// and the count of changes (24 bits).
const SPILLED: u32 = 32;
const CROWDED: u64 = 1 << 39;
const CHANGES: u32 = 40;
const CHANGE: u64 = 1 << CHANGES;

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

    /// What is in it. Waits only for a change that is being written: a few stores.
    #[inline]
    pub(super) fn see(&self) -> Seen {
        loop {
            let before = self.words[STATE].load(Ordering::Acquire);
            let words = std::array::from_fn(|at| self.words[at].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            let after = self.words[STATE].load(Ordering::Relaxed);
            if before == after && before & CHANGE == 0 {
                return Seen { words };
            }
            std::hint::spin_loop();
        }
    }

    /// Puts a route into a free entry; whether there was one. For the one writer.
    pub(super) fn put(&self, uid: u64, slot: u16) -> bool {
        let mut seen = self.see();
        let Some(at) = seen.slots().position(|there| there == EMPTY) else { return false };
        seen.words[at] = uid;
        seen.set_slot(at, slot);
        self.write(&seen);
        true
    }

    /// Takes a route out; whether it was there. For the one writer.
    pub(super) fn take(&self, uid: u64, slot: u16) -> bool {
        let mut seen = self.see();
        let Some(at) = seen.find(uid, slot) else { return false };
        seen.words[at] = 0;
        seen.set_slot(at, EMPTY);
        self.write(&seen);
        true
    }

    /// Takes the routes of dead slots out, in one change; tells `removed` each. For the one writer.
    pub(super) fn sweep(&self, is_dead: impl Fn(u16) -> bool, mut removed: impl FnMut(u64, u16)) {
        // Nobody else writes, so two words that are read one after the other belong together.
        let slots = [SLOTS, STATE].map(|at| self.words[at].load(Ordering::Relaxed));
        let slot = |at: usize| (slots[at / 4] >> (16 * (at % 4))) as u16;
        if !(0..ENTRIES).any(|at| is_dead(slot(at))) {
            return;
        }
        let mut seen = self.see();
        for at in 0..ENTRIES {
            let slot = seen.slot(at);
            if is_dead(slot) {
                removed(seen.words[at], slot);
                seen.words[at] = 0;
                seen.set_slot(at, EMPTY);
            }
        }
        self.write(&seen);
    }

    /// The same again, for a copy of its segment.
    pub(super) fn copy(&self) -> Self {
        Self { words: self.see().words.map(AtomicU64::new) }
    }

    /// One more or less of its routes lies in the next bucket. For the one writer.
    pub(super) fn spill(&self, more: bool) {
        let mut seen = self.see();
        let state = &mut seen.words[STATE];
        *state = if more { *state + (1 << SPILLED) } else { *state - (1 << SPILLED) };
        self.write(&seen);
    }

    /// Some of its routes lie in the segment's crowd, or none any more. For the one writer.
    pub(super) fn crowd(&self, some: bool) {
        let mut seen = self.see();
        let state = &mut seen.words[STATE];
        *state = if some { *state | CROWDED } else { *state & !CROWDED };
        self.write(&seen);
    }

    fn write(&self, new: &Seen) {
        let changing = (self.words[STATE].load(Ordering::Relaxed)).wrapping_add(CHANGE);
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
    /// Slots that hold the UID.
    #[inline]
    pub(super) fn of(&self, uid: u64) -> impl Iterator<Item = u16> + '_ {
        let here = self.words[..ENTRIES].iter().zip(self.slots());
        here.filter(move |(there, slot)| **there == uid && *slot != EMPTY).map(|(_, slot)| slot)
    }

    /// Every route in it.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, u16)> + '_ {
        let here = self.words[..ENTRIES].iter().copied().zip(self.slots());
        here.filter(|(_, slot)| *slot != EMPTY)
    }

    /// Routes whose home this is and that lie in the next bucket.
    #[inline]
    pub(super) fn spilled(&self) -> u8 {
        (self.words[STATE] >> SPILLED) as u8 & 0x7f
    }

    /// Whether routes whose home this is may lie in the segment's crowd.
    #[inline]
    pub(super) fn is_crowded(&self) -> bool {
        self.words[STATE] & CROWDED != 0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn what_is_put_is_there_until_it_is_taken() {
        let bucket = Bucket::default();
        assert_eq!(bucket.see().all().count(), 0);
        for slot in 0..6 {
            assert!(bucket.put(7, slot));
        }
        assert!(!bucket.put(8, 0), "it is full");
        assert_eq!(bucket.see().of(7).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(bucket.see().of(0).count(), 0, "an empty entry is of nobody");
        assert!(bucket.take(7, 3) && !bucket.take(7, 3));
        assert!(bucket.put(0, 9));
        assert_eq!(bucket.see().of(7).collect::<Vec<_>>(), [0, 1, 2, 4, 5]);
        assert_eq!(bucket.see().of(0).collect::<Vec<_>>(), [9]);
        bucket.spill(true);
        assert_eq!((bucket.see().spilled(), bucket.see().all().count()), (1, 6));
        bucket.spill(false);
        assert_eq!(bucket.see().spilled(), 0);
    }

    #[test]
    fn what_is_swept_is_told_and_nothing_else_goes() {
        let bucket = Bucket::default();
        for slot in 0..6 {
            assert!(bucket.put(u64::from(slot) % 2, slot));
        }
        let mut told = Vec::new();
        bucket.sweep(|slot| slot % 3 == 0, |uid, slot| told.push((uid, slot)));
        assert_eq!(told, [(0, 0), (1, 3)]);
        assert_eq!(bucket.see().all().collect::<Vec<_>>(), [(1, 1), (0, 2), (0, 4), (1, 5)]);
        bucket.sweep(|slot| slot == EMPTY - 1, |_, _| unreachable!("nothing is left of it"));
    }
}
