//! The slots of one tag as bytes: a list while they are few, a bitmap as soon as that is shorter.
//!
//! A tag of one gateway takes two bytes, one of a thousand gateways a bit for each. Which of the
//! two it is follows from the slots alone.

/// The slots of a tag, as they lie in a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Set<'a> {
    /// Each slot in two bytes, in the order they came.
    Few(&'a [[u8; 2]]),
    /// Words of 64 slots, the lowest first; the last one is not 0.
    Many(&'a [[u8; 8]]),
}

impl<'a> Set<'a> {
    /// Reads what [`write`] wrote.
    pub(super) fn read(bytes: &'a [u8], many: bool) -> Self {
        match many {
            false => Self::Few(bytes.as_chunks().0),
            true => Self::Many(bytes.as_chunks().0),
        }
    }

    /// Tells each word of 64 slots that has some: its number and its bits. A word may be told in
    /// several pieces.
    #[inline]
    pub(super) fn words(self, mut told: impl FnMut(usize, u64)) {
        match self {
            Self::Few(slots) => {
                for slot in slots.iter().map(|slot| u16::from_le_bytes(*slot)) {
                    told(usize::from(slot / 64), 1 << (slot % 64));
                }
            }
            Self::Many(words) => {
                for (at, word) in words.iter().enumerate() {
                    told(at, u64::from_le_bytes(*word));
                }
            }
        }
    }

    pub(super) fn contains(self, slot: u16) -> bool {
        match self {
            Self::Few(slots) => slots.contains(&slot.to_le_bytes()),
            Self::Many(words) => {
                let word = words.get(usize::from(slot / 64));
                word.is_some_and(|word| u64::from_le_bytes(*word) >> (slot % 64) & 1 != 0)
            }
        }
    }

    /// Appends each slot to a list.
    pub(super) fn list(self, slots: &mut Vec<u16>) {
        match self {
            Self::Few(few) => slots.extend(few.iter().map(|slot| u16::from_le_bytes(*slot))),
            Self::Many(words) => {
                for (at, word) in (0..).zip(words) {
                    let word = u64::from_le_bytes(*word);
                    let set = (0..64).filter(|bit| word >> bit & 1 != 0);
                    slots.extend(set.map(|bit: u16| 64 * at + bit));
                }
            }
        }
    }
}

/// Appends these slots, each of which is there once, to the bytes; whether as a bitmap.
pub(super) fn write(slots: &[u16], bytes: &mut Vec<u8>) -> bool {
    let highest = slots.iter().copied().max().unwrap_or(0);
    let words = usize::from(highest / 64) + 1;
    if 2 * slots.len() <= 8 * words {
        bytes.extend(slots.iter().flat_map(|slot| slot.to_le_bytes()));
        return false;
    }
    let start = bytes.len();
    bytes.resize(start + 8 * words, 0);
    for slot in slots {
        bytes[start + usize::from(slot / 8)] |= 1 << (slot % 8);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slots that come back, sorted, and the bytes they took.
    fn through(slots: &[u16]) -> (Vec<u16>, usize) {
        let mut bytes = Vec::new();
        let many = write(slots, &mut bytes);
        let set = Set::read(&bytes, many);
        assert!(slots.iter().all(|slot| set.contains(*slot)));
        let mut words = [0; 1_024];
        set.words(|at, bits| words[at] |= bits);
        let in_words = |slot: &u16| words[usize::from(slot / 64)] >> (slot % 64) & 1 != 0;
        let mut back = Vec::new();
        set.list(&mut back);
        back.sort_unstable();
        let all: Vec<u16> = (0..u16::MAX).filter(in_words).collect();
        assert_eq!(all, back);
        assert!((0..u16::MAX).all(|slot| set.contains(slot) == back.contains(&slot)));
        (back, bytes.len())
    }

    #[test]
    fn a_set_is_a_list_or_a_bitmap_whichever_is_shorter() {
        let all: Vec<u16> = (0..1_000).rev().collect();
        for (slots, bytes) in [
            (&[][..], 0),
            (&[7], 2),
            (&[65_534], 2),
            (&[63, 0, 9, 1], 8),
            (&[63, 0, 9, 1, 2], 8),
            (&[64, 0, 9, 1, 2], 10),
            (&all[..], 128),
            (&all[..64], 128),
            (&all[..65], 128),
        ] {
            let mut sorted = slots.to_vec();
            sorted.sort_unstable();
            assert_eq!(through(slots), (sorted, bytes));
        }
    }
}
