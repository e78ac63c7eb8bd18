//! The numbers routing is about, each a type of its own so that none is taken for another.
//!
//! Namespace, UID and incarnation are given from outside and mean nothing here beyond equality and
//! order. A [`Slot`] is made by the route table alone.

/// A tenant. Every UID lives inside one; two tenants' UID 1001 never meet (promise 1). Any `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(pub u32);

/// A user id inside a namespace. Any `u64`; lists of UIDs stay plain `u64`s, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub u64);

/// One life of a gateway process: 64 bits it drew at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Handle of one slot: a dense index and the generation that was opened there.
///
/// An index serves again only after the dead generation has been swept, and then with a new
/// generation, so a handle that died is never valid again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    index: u32,
    // 64 bits never wrap: a million slots opened a second would take half a million years.
    generation: u64,
}

impl Slot {
    pub(crate) fn new(index: u32, generation: u64) -> Self {
        Self { index, generation }
    }

    /// The dense index, below [`Limits::slots`](crate::Limits::slots): good for indexing an array
    /// of per-gateway state, which must compare the whole handle before it trusts what it finds.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// How many slots died at this index before this one opened.
    #[must_use]
    pub fn generation(self) -> u64 {
        self.generation
    }

    pub(crate) fn number(self) -> u32 {
        self.index
    }
}
