//! A message frame as far as the relay and its driver look at it: where its list and its payload
//! lie.
//!
//! Both ends use it, so no codec stands between the system's cost of a message and what is
//! measured. Its bytes are those of wire, which a test compares.

use std::io;

use waybill_wire::code::flags::message::EVERYONE;
use waybill_wire::limits::TARGETS_MAX;
use waybill_wire::targets::UID_BYTES;

/// The fixed part of a message header (4.3).
pub(super) const FIXED_BYTES: usize = 32;

/// One frame.
pub(super) struct Frame<'a> {
    /// All of it.
    pub(super) bytes: &'a [u8],
    /// UIDs of its list.
    pub(super) targets: usize,
    /// Whether it is for everyone.
    pub(super) everyone: bool,
    header_bytes: usize,
}

impl<'a> Frame<'a> {
    /// The first frame of `input`, if it is there as a whole.
    ///
    /// # Errors
    /// These bytes begin no message with a list, or for everyone.
    #[inline]
    pub(super) fn first(input: &'a [u8]) -> io::Result<Option<Self>> {
        let Some(head) = input.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let header_bytes = usize::from(u16_at(2)) * 8;
        let payload_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let targets = usize::from(u16_at(10));
        let everyone = u16_at(8) & EVERYONE != 0;
        let is_for_somebody = everyone || (1..=TARGETS_MAX).contains(&targets);
        if header_bytes < FIXED_BYTES + targets * UID_BYTES || !is_for_somebody {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no message the relay knows"));
        }
        let bytes = input.get(..header_bytes + payload_bytes);
        Ok(bytes.map(|bytes| Self { bytes, header_bytes, targets, everyone }))
    }

    /// The UIDs, as they lie.
    #[inline]
    pub(super) fn uids(&self) -> &'a [[u8; UID_BYTES]] {
        self.bytes[self.before_uids()..self.header_bytes].as_chunks().0
    }

    /// Bytes of the header before the list, which ends it.
    #[inline]
    pub(super) fn before_uids(&self) -> usize {
        self.header_bytes - self.targets * UID_BYTES
    }

    /// What is delivered.
    #[inline]
    pub(super) fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_bytes..]
    }
}
