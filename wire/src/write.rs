//! Writing one frame at the end of a caller's buffer.
//!
//! The prologue's lengths are patched in at the end. What was written is then read by the decoder:
//! there is one set of rules, and a caller is told of its mistakes in the words a receiver would
//! use. Only counts that do not fit their integers are checked before.

use crate::code::Kind;
use crate::error::{Problem, Unencodable, What};
use crate::frame;
use crate::limits::{DRAFT, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::prologue::{HEADER_WORDS, PAYLOAD_LEN, Prologue};
use crate::read::padding_bytes;
use crate::targets::Uids;

/// A frame being written; dropping it without a `finish_` leaves half a frame, so all paths end in
/// one.
#[must_use]
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    kind: Kind,
    error: Option<Unencodable>,
}

impl<'o> Writer<'o> {
    pub(crate) fn new(kind: Kind, flags: u16, out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        let [flags_low, flags_high] = flags.to_le_bytes();
        out.extend_from_slice(&[DRAFT, kind.0, 0, 0, 0, 0, 0, 0, flags_low, flags_high]);
        Self { out, start, kind, error: None }
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.out.push(value);
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A count or length that `within` has seen.
    pub(crate) fn count16(&mut self, count: usize) -> &mut Self {
        self.u16(u16::try_from(count).unwrap_or(u16::MAX))
    }

    /// A count or length that `within` has seen.
    pub(crate) fn count8(&mut self, count: usize) -> &mut Self {
        self.u8(u8::try_from(count).unwrap_or(u8::MAX))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// Zeros up to a multiple of 8.
    pub(crate) fn pad(&mut self) -> &mut Self {
        let padding = padding_bytes(self.out.len() - self.start);
        self.bytes(&[0; 8][..padding])
    }

    pub(crate) fn uids(&mut self, uids: Uids<'_>) -> &mut Self {
        uids.write(self.out);
        self
    }

    /// Whether a length fits what comes after it; if not, it is noted as this frame's error and the
    /// caller may stop. It bounds what a hopeless frame costs.
    pub(crate) fn within(
        &mut self,
        field: &'static str,
        value: usize,
        (name, limit): (&'static str, usize),
    ) -> bool {
        if value > limit {
            self.fail(field, value, Problem::Above(name, limit as u64));
        }
        value <= limit
    }

    fn fail(&mut self, field: &'static str, value: usize, problem: Problem) {
        let what = What { field, value: value as u64, problem };
        let (code, rule) = (crate::code::ErrorCode::LIMIT, "FRAME-9");
        self.error.get_or_insert(Unencodable { code, rule, kind: self.kind, what });
    }

    /// Patches the lengths in. The header is as long as what was written.
    fn patch(&mut self, payload_bytes: usize) -> Option<Prologue> {
        let header_bytes = self.out.len() - self.start;
        let sizes =
            self.within("header length", header_bytes, ("header_bytes_max", HEADER_BYTES_MAX))
                && self.within(
                    "payload_len",
                    payload_bytes,
                    ("payload_bytes_max", PAYLOAD_BYTES_MAX),
                );
        if self.error.is_some() || !sizes {
            return None;
        }
        debug_assert!(header_bytes.is_multiple_of(8));
        let words = u16::try_from(header_bytes / 8).unwrap_or(u16::MAX);
        let payload = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
        let prologue = &mut self.out[self.start..self.start + 8];
        prologue[HEADER_WORDS].copy_from_slice(&words.to_le_bytes());
        prologue[PAYLOAD_LEN].copy_from_slice(&payload.to_le_bytes());
        Some(Prologue { kind: self.kind, header_bytes, payload_bytes })
    }

    /// Ends a frame whose caller may have asked for too much: on an error nothing is left in the
    /// buffer. `payload_bytes` may be more than `payload`, which then goes out another way.
    pub(crate) fn finish(
        mut self,
        payload: &[u8],
        payload_bytes: usize,
    ) -> Result<(), Unencodable> {
        let patched = self.patch(payload_bytes);
        let checked = match (patched, self.error) {
            (Some(prologue), None) => {
                frame::check_header(prologue, &self.out[self.start..]).map_err(Unencodable::from)
            }
            (_, Some(error)) => Err(error),
            (None, None) => Ok(()),
        };
        match checked {
            Ok(()) => self.out.extend_from_slice(payload),
            Err(_) => self.out.truncate(self.start),
        }
        checked
    }

    /// Ends a frame without payload.
    pub(crate) fn finish_header(self) -> Result<(), Unencodable> {
        self.finish(&[], 0)
    }

    /// Ends a frame of fixed length, whose values the caller took from this crate's types.
    pub(crate) fn finish_fixed(mut self) {
        let patched = self.patch(0);
        debug_assert!(
            patched.is_some_and(|prologue| {
                frame::check_header(prologue, &self.out[self.start..]).is_ok()
            }),
            "the caller filled in a {} that no receiver accepts",
            self.kind
        );
    }
}
