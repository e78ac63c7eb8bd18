//! The 8 bytes every frame begins with, and the checks that come before anything is reserved.

use std::ops::Range;

use crate::code::{ErrorCode, Kind};
use crate::error::{Malformed, Problem, What};
use crate::limits::{
    DRAFT, FRAME_BYTES_MAX, HEADER_BYTES_MAX, HEADER_BYTES_MIN, PAYLOAD_BYTES_MAX, PROLOGUE_BYTES,
};

/// Where a frame says how many words of 8 bytes its header has (protocol-spec, 4.1).
pub(crate) const HEADER_WORDS: Range<usize> = 2..4;
/// Where it says how many bytes its payload has (protocol-spec, 4.1).
pub const PAYLOAD_LEN: Range<usize> = 4..8;

/// A prologue that passed FRAME-2 to FRAME-5: both lengths are within their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prologue {
    /// Kind byte; known, or one to skip.
    pub kind: Kind,
    /// Length of the header, prologue included.
    pub header_bytes: usize,
    /// Length of the payload.
    pub payload_bytes: usize,
}

impl Prologue {
    /// Reads and checks a prologue, in the order of FRAME-1.
    ///
    /// # Errors
    /// The first of FRAME-2 to FRAME-5 that fails.
    #[inline]
    pub fn decode(bytes: &[u8; PROLOGUE_BYTES]) -> Result<Self, Malformed> {
        let [version, kind, words_low, words_high, payload @ ..] = *bytes;
        let kind = Kind(kind);
        let header_bytes = usize::from(u16::from_le_bytes([words_low, words_high])) * 8;
        let payload_bytes = u32::from_le_bytes(payload) as usize;
        let whole = Self { kind, header_bytes, payload_bytes };
        let sizes_fit = matches!(header_bytes, HEADER_BYTES_MIN..=HEADER_BYTES_MAX)
            && payload_bytes <= PAYLOAD_BYTES_MAX;
        if version == DRAFT && sizes_fit && (kind.is_known() || kind.is_skipped()) {
            return Ok(whole);
        }
        Err(whole.refusal(version))
    }

    /// The error of a prologue that did not pass, kept off the path of those that do.
    #[cold]
    fn refusal(self, version: u8) -> Malformed {
        let Self { kind, header_bytes, payload_bytes } = self;
        let malformed = |code, rule, kind, field, value, problem| Malformed {
            code,
            rule,
            kind,
            what: What { field, value, problem },
        };
        let header = header_bytes as u64;
        let size = |problem| {
            malformed(ErrorCode::HEADER_SIZE, "FRAME-4", kind, "header length", header, problem)
        };
        if version != DRAFT {
            let spoken = Problem::Must("be 1, the draft spoken here");
            let value = u64::from(version);
            let code = ErrorCode::UNSUPPORTED_VERSION;
            return malformed(code, "FRAME-2", Kind(0), "version", value, spoken);
        }
        if !kind.is_known() && !kind.is_skipped() {
            let value = u64::from(kind.0);
            let problem = Problem::Unregistered;
            return malformed(ErrorCode::UNKNOWN_KIND, "FRAME-3", kind, "kind", value, problem);
        }
        if header_bytes < HEADER_BYTES_MIN {
            return size(Problem::Below("header_bytes_min", HEADER_BYTES_MIN as u64));
        }
        if header_bytes > HEADER_BYTES_MAX {
            return size(Problem::Above("header_bytes_max", HEADER_BYTES_MAX as u64));
        }
        let value = payload_bytes as u64;
        let problem = Problem::Above("payload_bytes_max", PAYLOAD_BYTES_MAX as u64);
        malformed(ErrorCode::PAYLOAD_SIZE, "FRAME-5", kind, "payload_len", value, problem)
    }

    /// Length of the whole frame, at most [`FRAME_BYTES_MAX`].
    #[must_use]
    pub fn frame_bytes(self) -> usize {
        let bytes = self.header_bytes + self.payload_bytes;
        debug_assert!(bytes <= FRAME_BYTES_MAX);
        bytes
    }
}
