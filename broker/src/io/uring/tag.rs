//! What an order is about, in the 64 bits that the system gives back with its result.

/// Bits of a generation: what is left beside the place and the kind.
pub(super) const GENERATIONS: u32 = (1 << 24) - 1;

/// A socket's place in a ring, and which of those that have had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// What was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Receive = 1,
    Send = 2,
    Cancel = 3,
    /// Of no socket.
    Bell = 4,
}

pub(super) fn tagged(Place { slot, generation }: Place, kind: Kind) -> u64 {
    u64::from(slot) << 32 | u64::from(generation) << 8 | kind as u64
}

/// `None` for what was never made here.
pub(super) fn untagged(tag: u64) -> Option<(Place, Kind)> {
    let [kind, low, middle, high, slot @ ..] = tag.to_le_bytes();
    let kind = [Kind::Receive, Kind::Send, Kind::Cancel, Kind::Bell]
        .into_iter()
        .find(|known| *known as u8 == kind)?;
    let generation = u32::from_le_bytes([low, middle, high, 0]);
    Some((Place { slot: u32::from_le_bytes(slot), generation }, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tagged_is_told_apart() {
        for (slot, generation) in [(0, 0), (1, 0), (0, 1), (u32::MAX, GENERATIONS)] {
            let place = Place { slot, generation };
            for kind in [Kind::Receive, Kind::Send, Kind::Cancel, Kind::Bell] {
                assert_eq!(untagged(tagged(place, kind)), Some((place, kind)));
            }
        }
        assert_eq!((untagged(0), untagged(5)), (None, None));
    }
}
