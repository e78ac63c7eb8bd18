//! Why an operation on a slot was refused. Every refusal leaves the table as it was.

use crate::{Slot, SlotState};

/// A refusal. The full ones are overload; the rest say that the caller's view of the slot is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotError {
    /// The handle's slot is dead, or was never opened in this table.
    Dead,
    /// The slot is in a state that does not allow the operation.
    Refused {
        /// The state it is in.
        state: SlotState,
    },
    /// A slot cannot replace itself.
    ReplacesItself,
    /// The slot to replace belongs to another incarnation.
    OtherIncarnation,
    /// The incarnation has another slot, live or suspended, which was not named as replaced. With
    /// both live every frame would go to that gateway twice.
    NotReplaced {
        /// The slot that must be replaced or killed first.
        standing: Slot,
    },
    /// Every slot is in use. Dead slots count until they are swept.
    SlotsFull {
        /// [`Limits::slots`](crate::Limits::slots).
        limit: u32,
    },
    /// The batch could have exceeded the limit, so nothing of it was applied. Dead routes count
    /// until they are swept.
    RoutesFull {
        /// [`Limits::routes`](crate::Limits::routes).
        limit: usize,
    },
    /// There are as many namespaces with users as there may be, and the batch would add to another,
    /// so nothing of it was applied. Dead routes count until they are swept.
    NamespacesFull {
        /// [`Limits::namespaces`](crate::Limits::namespaces).
        limit: usize,
    },
}

impl std::fmt::Display for SlotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dead => f.write_str("the slot is dead"),
            Self::Refused { state } => write!(f, "not while the slot is {state:?}"),
            Self::ReplacesItself => f.write_str("a slot cannot replace itself"),
            Self::OtherIncarnation => {
                f.write_str("the slot to replace belongs to another incarnation")
            }
            Self::NotReplaced { standing } => {
                write!(f, "slot {} of the same incarnation still stands", standing.index())
            }
            Self::SlotsFull { limit } => write!(f, "all {limit} slots are in use"),
            Self::RoutesFull { limit } => write!(f, "the batch could exceed {limit} routes"),
            Self::NamespacesFull { limit } => {
                write!(f, "users are in {limit} namespaces, as many as may be")
            }
        }
    }
}

impl std::error::Error for SlotError {}
