//! Making the frames that go on from the frame that came in: a DELIVER and an OFFLINE out of a
//! PUBLISH, and an UPLINK with ORIGIN for a consumer.
//!
//! Only what TGT-4 allows is rewritten; all other bytes are copied as they lie. The `_header`
//! forms leave the payload out, so that a large one can be shared by many frames: the header they
//! write announces it, and the caller must send it next.

use super::{FIXED_BYTES, Message};
use crate::code::{Kind, flags};
use crate::limits::TARGETS_MAX;
use crate::message::{FRAGMENTED_BYTES, bytes_before_fragmented};
use crate::prologue::{HEADER_WORDS, PAYLOAD_LEN};
use crate::targets::{UID_BYTES, Uids};

/// Bytes of ORIGIN.
const ORIGIN_BYTES: usize = 8;
/// Bytes of EXCEPT before its UIDs.
const EXCEPT_HEAD_BYTES: usize = 8;

impl Message<'_> {
    /// Appends the DELIVER for one gateway: `targets`, which are that gateway's share of the list,
    /// EXCEPT applied and left out (TGT-3), `ttl_ms` what is left of the time to live.
    ///
    /// An empty `targets` writes nothing: a message for nobody is no message, and with a selector
    /// an empty list would widen the audience.
    pub fn deliver_narrowed(&self, origin: u64, targets: &[u64], ttl_ms: u32, out: &mut Vec<u8>) {
        debug_assert!(targets.len() <= TARGETS_MAX, "a share is no longer than the list");
        if !targets.is_empty() {
            let change = Change { kind: Kind::DELIVER, origin, ttl_ms, keeps_except: false };
            self.forward(change, Uids::Slice(targets), self.payload, out);
        }
    }

    /// [`Self::deliver_narrowed`] without the payload.
    pub fn deliver_narrowed_header(
        &self,
        origin: u64,
        targets: &[u64],
        ttl_ms: u32,
        out: &mut Vec<u8>,
    ) {
        debug_assert!(targets.len() <= TARGETS_MAX, "a share is no longer than the list");
        if !targets.is_empty() {
            let change = Change { kind: Kind::DELIVER, origin, ttl_ms, keeps_except: false };
            self.forward(change, Uids::Slice(targets), &[], out);
        }
    }

    /// The header of [`Self::deliver_narrowed`] with FRAGMENTED, for a first piece of `first_bytes`
    /// that the caller sends after it; what is missing of the payload follows in FRAGMENTs (FRG-1).
    pub fn deliver_narrowed_first(
        &self,
        origin: u64,
        targets: &[u64],
        ttl_ms: u32,
        first_bytes: usize,
        out: &mut Vec<u8>,
    ) {
        debug_assert!(targets.len() <= TARGETS_MAX, "a share is no longer than the list");
        if !targets.is_empty() {
            let change = Change { kind: Kind::DELIVER, origin, ttl_ms, keeps_except: false };
            self.forward_first(change, Uids::Slice(targets), first_bytes, out);
        }
    }

    /// The header of [`Self::deliver_whole`] with FRAGMENTED, as [`Self::deliver_narrowed_first`].
    pub fn deliver_whole_first(
        &self,
        origin: u64,
        ttl_ms: u32,
        first_bytes: usize,
        out: &mut Vec<u8>,
    ) {
        let change = Change { kind: Kind::DELIVER, origin, ttl_ms, keeps_except: true };
        self.forward_first(change, Uids::Run(self.targets), first_bytes, out);
    }

    /// Appends the DELIVER that every gateway gets with mode `broadcast` or EVERYONE: list,
    /// selector and EXCEPT unchanged (TGT-5).
    pub fn deliver_whole(&self, origin: u64, ttl_ms: u32, out: &mut Vec<u8>) {
        self.deliver_whole_header(origin, ttl_ms, out);
        out.extend_from_slice(self.payload);
    }

    /// [`Self::deliver_whole`] without the payload.
    pub fn deliver_whole_header(&self, origin: u64, ttl_ms: u32, out: &mut Vec<u8>) {
        let change = Change { kind: Kind::DELIVER, origin, ttl_ms, keeps_except: true };
        self.forward(change, Uids::Run(self.targets), &[], out);
    }

    /// Appends the OFFLINE for one consumer (OFL-1): `uids` are the targets that were offline. The
    /// time to live is passed on as it came. An empty `uids` writes nothing.
    pub fn offline_narrowed(&self, origin: u64, uids: &[u64], out: &mut Vec<u8>) {
        if !uids.is_empty() {
            self.offline_narrowed_header(origin, uids, out);
            out.extend_from_slice(self.payload);
        }
    }

    /// [`Self::offline_narrowed`] without the payload.
    pub fn offline_narrowed_header(&self, origin: u64, uids: &[u64], out: &mut Vec<u8>) {
        debug_assert!(uids.len() <= TARGETS_MAX, "a share is no longer than the list");
        if uids.is_empty() {
            return;
        }
        let kind = Kind::OFFLINE;
        let change = Change { kind, origin, ttl_ms: self.ttl_ms, keeps_except: false };
        self.forward(change, Uids::Slice(uids), &[], out);
    }

    /// Appends the UPLINK a consumer gets: ORIGIN, the gateway's incarnation, is added (UP-1).
    pub fn uplink_forward(&self, origin: u64, out: &mut Vec<u8>) {
        self.uplink_forward_header(origin, out);
        out.extend_from_slice(self.payload);
    }

    /// [`Self::uplink_forward`] without the payload.
    pub fn uplink_forward_header(&self, origin: u64, out: &mut Vec<u8>) {
        let change =
            Change { kind: Kind::UPLINK, origin, ttl_ms: self.ttl_ms, keeps_except: false };
        self.forward(change, Uids::default(), &[], out);
    }

    /// Length of the header [`Self::deliver_narrowed_header`] writes for `targets` UIDs.
    #[must_use]
    pub fn narrowed_header_bytes(&self, targets: usize) -> usize {
        let kept = self.raw.before_except.len() + self.raw.after_except.len();
        FIXED_BYTES + ORIGIN_BYTES + kept + targets * UID_BYTES
    }

    /// Adds FRAGMENTED to a header that has none.
    fn forward_first(&self, change: Change, targets: Uids<'_>, first: usize, out: &mut Vec<u8>) {
        debug_assert!(self.fragmented.is_none() && first < self.payload.len());
        let start = out.len();
        self.forward(change, targets, &[], out);
        let header = &mut out[start..];
        let words = u16_le((header.len() + FRAGMENTED_BYTES) / 8);
        header[HEADER_WORDS].copy_from_slice(&words);
        header[PAYLOAD_LEN].copy_from_slice(&u32_le(first));
        let set = u16::from_le_bytes([header[8], header[9]]) | flags::message::FRAGMENTED;
        header[8..10].copy_from_slice(&set.to_le_bytes());
        let place = start + bytes_before_fragmented(set);
        let [a, b, c, d] = u32_le(self.payload.len());
        out.splice(place..place, [a, b, c, d, 0, 0, 0, 0]);
    }

    /// Nearly all messages have neither sections nor an EXCEPT: what is not there is not copied,
    /// and memory is asked for once.
    fn forward(&self, change: Change, targets: Uids<'_>, payload: &[u8], out: &mut Vec<u8>) {
        let Change { kind, origin, ttl_ms, keeps_except } = change;
        let writes_except = keeps_except && !self.except.is_empty();
        let except_bytes =
            if writes_except { EXCEPT_HEAD_BYTES + self.except.as_bytes().len() } else { 0 };
        let header_bytes = self.narrowed_header_bytes(targets.len()) + except_bytes;
        let mut set = u16::from_le_bytes([self.raw.fixed[8], self.raw.fixed[9]]);
        set |= flags::message::ORIGIN;
        if !writes_except {
            set &= !flags::message::EXCEPT;
        }
        let mut head = [0; FIXED_BYTES + ORIGIN_BYTES];
        head[..FIXED_BYTES].copy_from_slice(self.raw.fixed);
        head[1] = kind.0;
        head[HEADER_WORDS].copy_from_slice(&u16_le(header_bytes / 8));
        head[8..10].copy_from_slice(&set.to_le_bytes());
        head[10..12].copy_from_slice(&u16_le(targets.len()));
        head[28..32].copy_from_slice(&ttl_ms.to_le_bytes());
        head[FIXED_BYTES..].copy_from_slice(&origin.to_le_bytes());
        out.reserve(header_bytes + payload.len());
        out.extend_from_slice(&head);
        if !self.raw.before_except.is_empty() {
            out.extend_from_slice(self.raw.before_except);
        }
        if writes_except {
            out.extend_from_slice(&(self.except.len() as u64).to_le_bytes());
            out.extend_from_slice(self.except.as_bytes());
        }
        if !self.raw.after_except.is_empty() {
            out.extend_from_slice(self.raw.after_except);
        }
        targets.write(out);
        out.extend_from_slice(payload);
    }
}

/// What changes on the way; see TGT-4.
#[derive(Clone, Copy)]
struct Change {
    kind: Kind,
    origin: u64,
    ttl_ms: u32,
    keeps_except: bool,
}

/// Counts and lengths of a checked header fit: `limits.rs` asserts it.
fn u16_le(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes()
}

/// As [`u16_le`].
fn u32_le(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}
