//! What a message in a queue carries for whoever wants to know what becomes of it, and that word.

/// Names one connection's copy of a tracked message; 0 in `report` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) report: u64,
    pub(crate) user: u32,
    pub(crate) is_traced: bool,
}

impl Ticket {
    /// That of a message nobody wants to hear of.
    pub(crate) const NONE: Self = Self { report: 0, user: 0, is_traced: false };

    /// Whether to say when it was handed to a socket.
    pub(crate) fn is_traced(self) -> bool {
        self.is_traced
    }

    pub(crate) fn is_some(self) -> bool {
        self.report != 0
    }
}

/// How a message left a connection's queue. In the order in which one outweighs another of the same
/// user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The connection ended before any of it was written: that one is not here any more.
    Gone,
    /// EXCEPT or EXCEPT_SELF.
    Filtered,
    /// Its time to live ran out.
    Expired,
    /// The queue was full.
    Full,
    /// The connection ended when a part was written, or it was not heard of in time.
    InDoubt,
    /// Handed to the socket, whose client had not been heard to close it.
    Reached,
}

impl Outcome {
    pub(crate) const ALL: [Self; 6] =
        [Self::Gone, Self::Filtered, Self::Expired, Self::Full, Self::InDoubt, Self::Reached];
}
