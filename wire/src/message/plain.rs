//! The message most links carry most of: a PUBLISH for one user that asks for nothing else.
//!
//! Its header is 40 bytes, of which a broker reads six fields, where a [`Message`] is eight times
//! as large. Whatever is not read here goes the way of all messages, and so does what is wrong with
//! it: nothing is refused here.
//!
//! [`Message`]: super::Message

use super::FIXED_BYTES;
use crate::code::{Class, Kind, Level, Mode, Priority, flags};
use crate::limits::{DRAFT, HOPS_MAX, PAYLOAD_BYTES_MAX};
use crate::read::{u32_at, u64_at};
use crate::targets::UID_BYTES;

/// Length of its header, in bytes and as a prologue has it.
const HEADER_BYTES: usize = FIXED_BYTES + UID_BYTES;
const HEADER_WORDS: u8 = 5;
const _: () = assert!(HEADER_BYTES == HEADER_WORDS as usize * 8);

/// What it begins with, up to the length of the payload.
const BEGINS: u32 = u32::from_le_bytes([DRAFT, Kind::PUBLISH.0, HEADER_WORDS, 0]);

/// Flags, number of targets, handling, hops and reserved bytes, as one word: no flag and one
/// target. Of any value are hops and, within the handling, the priority.
const SAYS: u64 = u64::from_le_bytes([0, 0, 1, 0, HANDLING, 0, 0, 0]);
const OF_ANY_VALUE: u64 = u64::from_le_bytes([0, 0, 0, 0, 0b1100_0000, 0xff, 0, 0]);
const HANDLING: u8 = Mode::DIRECT.0 | Class::LIVE.0 << 2 | Level::NONE.0 << 4;

/// A PUBLISH in one piece for one user, with mode `direct` and level `none`, that has no flag and
/// no section and was not sent before. Borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<'a> {
    /// The user.
    pub uid: u64,
    /// The sender's number for it, not 0.
    pub sequence: u64,
    /// Tenant.
    pub namespace: u32,
    /// Time to live from receipt of this frame; 0 for no limit.
    pub ttl_ms: u32,
    /// Priority, not `control`.
    pub priority: Priority,
    frame: &'a [u8],
}

impl<'a> Plain<'a> {
    /// Reads the one that `input` begins with, if it lies whole there. `None` says nothing about
    /// what else that may be.
    #[inline]
    #[must_use]
    pub fn read(input: &'a [u8]) -> Option<Self> {
        let header = input.first_chunk::<HEADER_BYTES>()?;
        let says = u64_at(header, 8);
        let priority = Priority(header[12] >> 6);
        let payload_bytes = u32_at(header, 4) as usize;
        let sequence = u64_at(header, 16);
        let is_plain = u32_at(header, 0) == BEGINS
            && says & !OF_ANY_VALUE == SAYS
            && header[13] <= HOPS_MAX
            && priority != Priority::CONTROL
            && payload_bytes <= PAYLOAD_BYTES_MAX
            && sequence != 0;
        if !is_plain {
            return None;
        }
        let frame = input.get(..HEADER_BYTES + payload_bytes)?;
        let (uid, namespace) = (u64_at(header, 32), u32_at(header, 24));
        Some(Self { uid, sequence, namespace, ttl_ms: u32_at(header, 28), priority, frame })
    }

    /// All its bytes.
    #[must_use]
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// Bytes of its payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.frame.len() - HEADER_BYTES
    }

    /// Appends the DELIVER for a gateway that has the user: the same as
    /// [`Message::deliver_narrowed`](super::Message::deliver_narrowed), with the time to live as it
    /// came.
    #[inline]
    pub fn deliver(&self, origin: u64, out: &mut Vec<u8>) {
        const ORIGIN: [u8; 2] = flags::message::ORIGIN.to_le_bytes();
        let (fixed, rest) = self.frame.split_at(FIXED_BYTES);
        let start = out.len();
        out.reserve(self.frame.len() + size_of_val(&origin));
        out.extend_from_slice(fixed);
        out.extend_from_slice(&origin.to_le_bytes());
        out.extend_from_slice(rest);
        let header = &mut out[start..][..FIXED_BYTES];
        header[1] = Kind::DELIVER.0;
        header[2] = HEADER_WORDS + 1;
        header[8..10].copy_from_slice(&ORIGIN);
    }
}
