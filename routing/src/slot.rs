//! The life of a slot: states, steps, and the one function that says which step leads where.
//!
//! Opening and freeing an index are the table's business; everything between is decided here.

use crate::SlotError;

/// Where a slot is in its life. Only a live slot answers lookups and broadcasts.
///
/// ```text
///         open           go_live         suspend
///  (free) ----> filling --------> live ----------> suspended
///    ^             |               | ^    resume       |
///    |             |               | +-----------------+
///    |             | kill          | kill              | kill
///    |   sweep     v               v                   |
///    +----------- dead <-----------+-------------------+
/// ```
///
/// `kill` is also what happens to the slot that a `go_live` replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// A snapshot is coming in: routes are stored and answer nothing.
    Filling,
    /// Routes answer and change.
    Live,
    /// The control link is lost: lookups say offline, nothing is swept. Changes are stored: a
    /// gateway that resumes tells what it missed before the slot answers again.
    Suspended,
    /// For good: routes answer nothing and wait to be swept.
    Dead,
}

/// What can be asked of a slot that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    GoLive,
    Suspend,
    Resume,
    Kill,
}

impl SlotState {
    /// The state after `step`, or the refusal if the diagram has no such arrow.
    pub(crate) fn after(self, step: Step) -> Result<Self, SlotError> {
        match (self, step) {
            (Self::Filling, Step::GoLive) => Ok(Self::Live),
            (Self::Live, Step::Suspend) => Ok(Self::Suspended),
            (Self::Suspended, Step::Resume) => Ok(Self::Live),
            (Self::Filling | Self::Live | Self::Suspended, Step::Kill) => Ok(Self::Dead),
            (Self::Dead, _) => Err(SlotError::Dead),
            (state, _) => Err(SlotError::Refused { state }),
        }
    }

    /// Whether routes may be added and removed.
    pub(crate) fn takes_changes(self) -> bool {
        matches!(self, Self::Filling | Self::Live | Self::Suspended)
    }
}
