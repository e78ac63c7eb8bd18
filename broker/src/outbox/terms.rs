//! What a message asks of an outbox, and what became of those that left it unwritten.

use serde::{Deserialize, Serialize};
use waybill_wire::code::Priority;

/// What happens to messages for a gateway when a bound of its outbox is reached, after what has
/// expired was dropped and what has a conflation key has replaced what it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The new message is refused.
    #[default]
    Refuse,
    /// The oldest ones are dropped, those of the lowest priority first (DEL-34).
    DropOldest,
    /// The link is ended as `slow_link` (DEL-35).
    Close,
}

/// Why a message left an outbox unwritten, or did not get into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its time to live ran out.
    Expired,
    /// Another one took its place.
    Conflated,
    /// There was no room in bytes.
    Full,
    /// There was none in what all links share.
    Pool,
    /// What waits has waited too long.
    Aged,
}

/// What a message asks of every queue that it waits in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Care {
    /// Milliseconds to live, counted from when it is taken in; 0 = without limit.
    pub ttl_ms: u32,
    /// Which messages it goes ahead of.
    pub priority: Priority,
    /// Whether it has a conflation key.
    pub conflates: bool,
}

/// How a message is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What it asks for.
    pub care: Care,
    /// Its number in [`Gone`]; 0 for one that nobody asks for.
    pub number: u64,
    /// Whether its number is in [`take_traced`](super::Outbox::take_traced) when it is written.
    pub is_traced: bool,
}

/// Messages that left the outbox unwritten.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Their time to live ran out.
    pub expired: u64,
    /// Another one took their place.
    pub conflated: u64,
    /// Dropped to make room.
    pub full: u64,
    /// Dropped to make room in what all links share.
    pub pool: u64,
    /// Dropped because they had waited too long.
    pub aged: u64,
    /// The numbers of those that have one, and why.
    pub numbers: Vec<(u64, Cause)>,
}

impl Gone {
    pub(super) fn add(&mut self, cause: Cause, number: u64) {
        *match cause {
            Cause::Expired => &mut self.expired,
            Cause::Conflated => &mut self.conflated,
            Cause::Full => &mut self.full,
            Cause::Pool => &mut self.pool,
            Cause::Aged => &mut self.aged,
        } += 1;
        if number != 0 {
            self.numbers.push((number, cause));
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.expired + self.conflated + self.full + self.pool + self.aged
    }
}
