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
