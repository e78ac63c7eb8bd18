//! UID lists as they lie in a header: a run of little-endian `u64`s, read in place.
//!
//! A run borrows the bytes it came from and copies nothing; it may start at any address, since a
//! frame follows another wherever that one ended. Duplicates and order are kept as received.

/// Bytes one UID takes on the wire.
pub const UID_BYTES: usize = 8;

/// A list of UIDs, still in the bytes of the frame that carries it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct UidRun<'a> {
    bytes: &'a [u8],
}

impl<'a> UidRun<'a> {
    /// The run in `bytes`, or `None` if their length is no multiple of [`UID_BYTES`].
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(UID_BYTES).then_some(Self { bytes })
    }

    /// Number of UIDs.
    #[must_use]
    pub fn len(self) -> usize {
        self.bytes.len() / UID_BYTES
    }

    /// Whether there is no UID.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The UIDs in the order they lie in.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u64> + Clone + 'a {
        let (words, _) = self.bytes.as_chunks::<UID_BYTES>();
        words.iter().map(|word| u64::from_le_bytes(*word))
    }

    /// The UID that lies there, counted from 0.
    #[must_use]
    pub fn get(self, at: usize) -> Option<u64> {
        let (words, _) = self.bytes.as_chunks::<UID_BYTES>();
        words.get(at).map(|word| u64::from_le_bytes(*word))
    }

    /// The bytes of the run, as they go into another frame.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }
}

impl std::fmt::Debug for UidRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// UIDs to read or to write: where they lie in a frame, or in a slice of the caller.
///
/// Frames are written from either, and two of them are equal if their UIDs are.
#[derive(Clone, Copy)]
pub enum Uids<'a> {
    /// In the bytes of a frame.
    Run(UidRun<'a>),
    /// In memory.
    Slice(&'a [u64]),
}

impl<'a> Uids<'a> {
    /// Number of UIDs.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Run(run) => run.len(),
            Self::Slice(uids) => uids.len(),
        }
    }

    /// Whether there is no UID.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The UIDs in order.
    pub fn iter(self) -> impl Iterator<Item = u64> + Clone + 'a {
        let (run, slice) = match self {
            Self::Run(run) => (run, &[][..]),
            Self::Slice(slice) => (UidRun::default(), slice),
        };
        run.iter().chain(slice.iter().copied())
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Run(run) => out.extend_from_slice(run.as_bytes()),
            Self::Slice(uids) => append(uids, out),
        }
    }
}

/// UIDs that are appended in one piece.
const PIECE: usize = 16;

/// Appends UIDs as they lie on the wire: in pieces of one size, which the compiler turns into plain
/// copies on little-endian machines, and whose place is not filled with zeros before.
pub(crate) fn append(uids: &[u64], out: &mut Vec<u8>) {
    out.reserve(uids.len() * UID_BYTES);
    let (pieces, rest) = uids.as_chunks::<PIECE>();
    for piece in pieces {
        out.extend_from_slice(piece.map(u64::to_le_bytes).as_flattened());
    }
    for uid in rest {
        out.extend_from_slice(&uid.to_le_bytes());
    }
}

impl Default for Uids<'_> {
    fn default() -> Self {
        Self::Slice(&[])
    }
}

impl PartialEq for Uids<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Uids<'_> {}

impl std::fmt::Debug for Uids<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> From<UidRun<'a>> for Uids<'a> {
    fn from(run: UidRun<'a>) -> Self {
        Self::Run(run)
    }
}

impl<'a> From<&'a [u64]> for Uids<'a> {
    fn from(uids: &'a [u64]) -> Self {
        Self::Slice(uids)
    }
}

impl<'a, const N: usize> From<&'a [u64; N]> for Uids<'a> {
    fn from(uids: &'a [u64; N]) -> Self {
        Self::Slice(uids)
    }
}

impl<'a> From<&'a Vec<u64>> for Uids<'a> {
    fn from(uids: &'a Vec<u64>) -> Self {
        Self::Slice(uids)
    }
}
