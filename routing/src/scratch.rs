//! Working space of a query: a set, and counters for each slot.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a place is chosen by the highest bits of a hash; lists have fewer than 2^32 UIDs"
)]

use crate::map::Slots;

/// Finds who comes again in a list. Open addressing with linear probing over places in the list,
/// which has the UIDs: four a UID, so that they are few bytes and seldom taken.
#[derive(Debug, Default)]
pub(crate) struct Once {
    /// One more than a place in the list, or 0.
    places: Vec<u32>,
}

impl Once {
    /// Leaves each UID where it came first. Hashes are keyed ones, so that no list can be chosen to
    /// collide.
    pub(crate) fn leave_first(&mut self, users: &mut Vec<(u64, u64)>) {
        let len = (4 * users.len()).next_power_of_two().max(2);
        if self.places.len() < len {
            self.places.resize(len, 0);
        }
        let places = &mut self.places[..len];
        places.fill(0);
        let shift = u64::BITS - len.ilog2();
        let mut kept = 0;
        for at in 0..users.len() {
            let user = users[at];
            let place = (user.1 >> shift) as usize;
            let new = match places[place] {
                0 => {
                    places[place] = kept as u32 + 1;
                    true
                }
                _ => insert(places, place, kept as u32 + 1, |other| users[other].0 == user.0),
            };
            if new {
                users[kept] = user;
                kept += 1;
            }
        }
        users.truncate(kept);
    }
}

/// Puts a number into the next free place, unless one that is on the way is of the same.
#[cold]
fn insert(places: &mut [u32], mut at: usize, new: u32, is_same: impl Fn(usize) -> bool) -> bool {
    let mask = places.len() - 1;
    loop {
        let place = &mut places[at];
        if *place == 0 {
            *place = new;
            return true;
        }
        if is_same(*place as usize - 1) {
            return false;
        }
        at = (at + 1) & mask;
    }
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

/// How many UIDs each slot gets, then where the next of them goes.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    counts: Vec<u32>,
    /// A bit for each slot that gets any, so that they are met in order without being sorted.
    involved: Vec<u64>,
}

impl Shares {
    /// Nobody gets anything yet. Everything is zero between two queries.
    pub(crate) fn begin(&mut self, slots: usize) {
        if self.counts.len() < slots {
            self.counts.resize(slots, 0);
            self.involved.resize(slots.div_ceil(64), 0);
        }
        for (word, involved) in self.involved.iter_mut().enumerate() {
            for bit in Bits(std::mem::take(involved)) {
                self.counts[64 * word + bit] = 0;
            }
        }
    }

    /// One more for this slot.
    #[inline]
    pub(crate) fn count(&mut self, slot: u16) {
        let at = usize::from(slot);
        self.counts[at] += 1;
        self.involved[at / 64] |= 1 << (at % 64);
    }

    /// The same, if the slot is live, which is asked for the first one alone; whether it is.
    #[inline]
    pub(crate) fn count_live(&mut self, slot: u16, is_live: impl Fn() -> bool) -> bool {
        if let Some(count @ 1..) = self.counts.get_mut(usize::from(slot)) {
            *count += 1;
            return true;
        }
        let is_live = is_live();
        if is_live {
            self.count(slot);
        }
        is_live
    }

    /// Asks `place` for each slot that gets any, in rising order, where its part begins.
    pub(crate) fn place(&mut self, mut place: impl FnMut(u16, usize) -> usize) {
        for (word, involved) in self.involved.iter().enumerate() {
            for bit in Bits(*involved) {
                let at = 64 * word + bit;
                let slot = u16::try_from(at).expect("counted as one");
                let begin = place(slot, self.counts[at] as usize);
                self.counts[at] = u32::try_from(begin).expect("a plan has fewer than 2^32 targets");
            }
        }
    }

    /// Where the next UID of this slot goes.
    #[inline]
    pub(crate) fn next(&mut self, slot: u16) -> usize {
        let next = &mut self.counts[usize::from(slot)];
        *next += 1;
        *next as usize - 1
    }
}

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
