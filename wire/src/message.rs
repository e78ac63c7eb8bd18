//! The header that PUBLISH, DELIVER, UPLINK and OFFLINE share (4.3).
//!
//! [`Message`] is a received one: a view that borrows the frame and has passed every check.
//! [`MessageHead`] is one being made: the same fields, with lists from a caller's slices. The file
//! `narrow.rs` makes a DELIVER out of a PUBLISH without touching what it does not change.

mod decode;
mod encode;
mod narrow;
mod plain;
mod sections;

pub use plain::Plain;
pub use sections::{Content, Extension, Extensions, History, Labels, Part, Sender};
pub(crate) use sections::{FRAGMENTED_BYTES, bytes_before_fragmented};

use crate::code::{Class, Kind, Level, Mode, Priority};
use crate::selector::Selector;
use crate::targets::{UidRun, Uids};

/// Length of the fixed part.
pub(crate) const FIXED_BYTES: usize = 32;

/// A received message, borrowed from its frame.
///
/// Made by decoding only: the fields describe bytes that lie in a frame. To make a message, fill in
/// a [`MessageHead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// PUBLISH, DELIVER, UPLINK or OFFLINE.
    pub kind: Kind,
    /// This message id may have been sent before.
    pub resend: bool,
    /// The audience is everyone in the namespace.
    pub everyone: bool,
    /// The connection named in `sender` is not served.
    pub except_self: bool,
    /// How it gets to its audience.
    pub mode: Mode,
    /// Live or stored.
    pub class: Class,
    /// What the producer wants to be told.
    pub level: Level,
    /// Priority.
    pub priority: Priority,
    /// Brokers that may still forward it.
    pub hops: u8,
    /// The sender's number for it, not 0.
    pub sequence: u64,
    /// Tenant.
    pub namespace: u32,
    /// Time to live from receipt of this frame; 0 for no limit.
    pub ttl_ms: u32,
    /// Producer instance (DELIVER, OFFLINE) or gateway incarnation (UPLINK to a consumer).
    pub origin: Option<u64>,
    /// Trace id.
    pub trace: Option<&'a [u8; 16]>,
    /// Conflation key.
    pub conflate: Option<u64>,
    /// User and connection it came from.
    pub sender: Option<Sender>,
    /// Which part of a list that was too long for one message.
    pub part: Option<Part>,
    /// What the payload is.
    pub content: Option<Content>,
    /// Bytes of the whole payload, of which this frame has the first.
    pub fragmented: Option<u32>,
    /// Channel and cursor of a stored message.
    pub history: Option<History>,
    /// What it is about; empty if the section is absent.
    pub labels: Labels<'a>,
    /// Selector, whose form has been checked (SEL-1).
    pub selector: Option<Selector<'a>>,
    /// UIDs taken away from the audience; empty if the section is absent.
    pub except: UidRun<'a>,
    /// Extensions, kept as they came; empty if the section is absent.
    pub extensions: Extensions<'a>,
    /// The UID list.
    pub targets: UidRun<'a>,
    /// The payload, opaque.
    pub payload: &'a [u8],
    raw: Raw<'a>,
}

/// The bytes narrowing copies: what lies around ORIGIN and EXCEPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Raw<'a> {
    fixed: &'a [u8; FIXED_BYTES],
    before_except: &'a [u8],
    after_except: &'a [u8],
}

/// A message to be written: everything but its UID list and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MessageHead<'a> {
    /// This message id may have been sent before.
    pub resend: bool,
    /// The audience is everyone in the namespace.
    pub everyone: bool,
    /// The connection named in `sender` is not served.
    pub except_self: bool,
    /// How it gets to its audience.
    pub mode: Mode,
    /// Live or stored.
    pub class: Class,
    /// What the producer wants to be told.
    pub level: Level,
    /// Priority.
    pub priority: Priority,
    /// Brokers that may still forward it.
    pub hops: u8,
    /// The sender's number for it; must be set, 0 is refused.
    pub sequence: u64,
    /// Tenant.
    pub namespace: u32,
    /// Time to live from receipt of this frame; 0 for no limit.
    pub ttl_ms: u32,
    /// Producer instance (DELIVER, OFFLINE) or gateway incarnation (UPLINK to a consumer).
    pub origin: Option<u64>,
    /// Trace id.
    pub trace: Option<&'a [u8; 16]>,
    /// Conflation key.
    pub conflate: Option<u64>,
    /// User and connection it came from.
    pub sender: Option<Sender>,
    /// Which part of a list that was too long for one message.
    pub part: Option<Part>,
    /// What the payload is.
    pub content: Option<Content>,
    /// Bytes of the whole payload, of which this frame has the first.
    pub fragmented: Option<u32>,
    /// Channel and cursor of a stored message.
    pub history: Option<History>,
    /// What it is about: `(&["order.paid"]).into()`.
    pub labels: Labels<'a>,
    /// Selector; its bytes come from [`crate::selector::parse`].
    pub selector: Option<Selector<'a>>,
    /// UIDs taken away from the audience: `(&[7, 8]).into()`.
    pub except: Uids<'a>,
    /// Extensions.
    pub extensions: Extensions<'a>,
}

impl<'a> Message<'a> {
    /// The head of this message, to be written again, changed or not.
    #[must_use]
    pub fn head(&self) -> MessageHead<'a> {
        MessageHead {
            resend: self.resend,
            everyone: self.everyone,
            except_self: self.except_self,
            mode: self.mode,
            class: self.class,
            level: self.level,
            priority: self.priority,
            hops: self.hops,
            sequence: self.sequence,
            namespace: self.namespace,
            ttl_ms: self.ttl_ms,
            origin: self.origin,
            trace: self.trace,
            conflate: self.conflate,
            sender: self.sender,
            part: self.part,
            content: self.content,
            fragmented: self.fragmented,
            history: self.history,
            labels: self.labels,
            selector: self.selector,
            except: Uids::Run(self.except),
            extensions: self.extensions,
        }
    }
}
