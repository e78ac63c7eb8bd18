//! Reading one header: a cursor over its bytes, with the checks of FRAME-9 as methods.
//!
//! The fixed part comes as an array, so that offsets in it are checked by the compiler; what
//! follows is taken piece by piece. Invariant: `at <= header.len()`.

use crate::code::{ErrorCode, Kind};
use crate::error::{Malformed, Problem, What};
use crate::prologue::Prologue;
use crate::targets::{UID_BYTES, UidRun};

/// Cursor over one complete header.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: usize,
    header: &'a [u8],
    at: usize,
}

pub(crate) fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Bytes of padding after a part of this length.
pub(crate) fn padding_bytes(length: usize) -> usize {
    length.wrapping_neg() % 8
}

impl<'a> Reader<'a> {
    pub(crate) fn new(prologue: Prologue, header: &'a [u8]) -> Self {
        debug_assert_eq!(prologue.header_bytes, header.len());
        Self { kind: prologue.kind, payload_bytes: prologue.payload_bytes, header, at: 0 }
    }

    #[cold]
    pub(crate) fn malformed(
        &self,
        (code, rule): (ErrorCode, &'static str),
        field: &'static str,
        value: u64,
        problem: Problem,
    ) -> Malformed {
        Malformed { code, rule, kind: self.kind, what: What { field, value, problem } }
    }

    /// Step 1: the fixed part.
    #[inline]
    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let Some(fixed) = self.header.first_chunk::<N>() else {
            let problem = Problem::Below("the fixed part of its kind,", N as u64);
            let error = (ErrorCode::HEADER_SIZE, "FRAME-9");
            return Err(self.malformed(error, "header length", self.header.len() as u64, problem));
        };
        self.at = N;
        Ok(fixed)
    }

    /// Step 2: the flags, of which only those of `defined` may be set.
    #[inline]
    pub(crate) fn flags(&self, defined: u16) -> Result<u16, Malformed> {
        let flags = u16::from_le_bytes([self.header[8], self.header[9]]);
        if flags & !defined != 0 {
            let problem = Problem::Must("have no bit that its kind does not define");
            let error = (ErrorCode::UNKNOWN_FLAG, "FRAME-9");
            return Err(self.malformed(error, "flags", u64::from(flags), problem));
        }
        Ok(flags)
    }

    /// A reserved field.
    #[inline]
    pub(crate) fn reserved(&self, value: impl Into<u64>) -> Result<(), Malformed> {
        match value.into() {
            0 => Ok(()),
            value => {
                let error = (ErrorCode::RESERVED, "CONV-3");
                Err(self.malformed(error, "a reserved field", value, Problem::NotZero))
            }
        }
    }

    /// An enumerated field, whose value is in the registry.
    #[inline]
    pub(crate) fn registered(
        &self,
        registered: bool,
        field: &'static str,
        value: impl Into<u64>,
    ) -> Result<(), Malformed> {
        if registered {
            return Ok(());
        }
        let error = (ErrorCode::BAD_VALUE, "FRAME-9");
        Err(self.malformed(error, field, value.into(), Problem::Unregistered))
    }

    /// A rule about a value: `bad_value` with these words unless it holds.
    #[inline]
    pub(crate) fn must(
        &self,
        holds: bool,
        rule: &'static str,
        (field, value): (&'static str, u64),
        words: &'static str,
    ) -> Result<(), Malformed> {
        if holds {
            return Ok(());
        }
        Err(self.malformed((ErrorCode::BAD_VALUE, rule), field, value, Problem::Must(words)))
    }

    /// A field that may not be 0.
    #[inline]
    pub(crate) fn not_zero(
        &self,
        rule: &'static str,
        field: &'static str,
        value: impl Into<u64>,
    ) -> Result<(), Malformed> {
        let value = value.into();
        self.must(value != 0, rule, (field, value), "not be 0")
    }

    /// A count or length and its limit.
    #[inline]
    pub(crate) fn at_most(
        &self,
        rule: &'static str,
        (field, value): (&'static str, u64),
        (name, limit): (&'static str, usize),
    ) -> Result<(), Malformed> {
        let limit = limit as u64;
        if value <= limit {
            return Ok(());
        }
        let problem = Problem::Above(name, limit);
        Err(self.malformed((ErrorCode::LIMIT, rule), field, value, problem))
    }

    /// Bytes of the header that no part has taken.
    pub(crate) fn left(&self) -> usize {
        self.header.len() - self.at
    }

    /// Everything up to here, from the start of the header.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn header(&self) -> &'a [u8] {
        self.header
    }

    /// Takes the next `bytes` bytes for `part`.
    #[inline]
    pub(crate) fn take(&mut self, part: &'static str, bytes: u64) -> Result<&'a [u8], Malformed> {
        let left = self.left();
        match usize::try_from(bytes) {
            Ok(bytes) if bytes <= left => {
                let taken = &self.header[self.at..self.at + bytes];
                self.at += bytes;
                Ok(taken)
            }
            _ => Err(self.too_short(part, bytes)),
        }
    }

    #[cold]
    fn too_short(&self, part: &'static str, needs: u64) -> Malformed {
        let problem = Problem::Leaves(self.left() as u64);
        self.malformed((ErrorCode::LENGTH, "FRAME-9"), part, needs, problem)
    }

    /// Takes the next `N` bytes for `part`.
    #[inline]
    pub(crate) fn take_array<const N: usize>(
        &mut self,
        part: &'static str,
    ) -> Result<&'a [u8; N], Malformed> {
        match self.header[self.at..].first_chunk::<N>() {
            Some(taken) => {
                self.at += N;
                Ok(taken)
            }
            None => Err(self.too_short(part, N as u64)),
        }
    }

    /// Takes `bytes` bytes and the padding after them; the padding is checked by the caller, whose
    /// other checks come first.
    pub(crate) fn take_padded(
        &mut self,
        part: &'static str,
        bytes: usize,
    ) -> Result<(&'a [u8], &'a [u8]), Malformed> {
        let whole = self.take(part, (bytes + padding_bytes(bytes)) as u64)?;
        Ok(whole.split_at(bytes))
    }

    /// Takes a run of `count` UIDs.
    #[inline]
    pub(crate) fn take_uids(
        &mut self,
        part: &'static str,
        count: impl Into<u64>,
    ) -> Result<UidRun<'a>, Malformed> {
        let bytes = self.take(part, count.into() * UID_BYTES as u64)?;
        Ok(UidRun::new(bytes).unwrap_or_default())
    }

    pub(crate) fn text(&self, part: &'static str, bytes: &'a [u8]) -> Result<&'a str, Malformed> {
        std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to() as u64;
            self.malformed((ErrorCode::NOT_UTF8, "CONV-4"), part, at, Problem::NotText)
        })
    }

    /// Text that is a tag.
    pub(crate) fn tag(&self, bytes: &'a [u8]) -> Result<&'a str, Malformed> {
        let text = self.text("tag", bytes)?;
        let control = bytes.iter().find(|byte| byte.is_ascii_control());
        let value = ("byte of a tag", control.copied().unwrap_or_default().into());
        self.must(control.is_none(), "TAG-1", value, "not be a control character")?;
        Ok(text)
    }

    /// The padding after everything that has been taken so far.
    pub(crate) fn take_padding(&mut self) -> Result<(), Malformed> {
        let padding = self.take("padding", padding_bytes(self.at) as u64)?;
        self.padding(padding)
    }

    pub(crate) fn padding(&self, bytes: &[u8]) -> Result<(), Malformed> {
        match bytes.iter().find(|byte| **byte != 0) {
            None => Ok(()),
            Some(byte) => {
                let error = (ErrorCode::PADDING, "CONV-2");
                Err(self.malformed(error, "a padding byte", u64::from(*byte), Problem::NotZero))
            }
        }
    }

    /// Step 7: the header ends where its parts end.
    #[inline]
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.left() == 0 {
            return Ok(());
        }
        let problem = Problem::Must("be where its parts end");
        let error = (ErrorCode::LENGTH, "FRAME-9");
        Err(self.malformed(error, "the end of the header, byte", self.header.len() as u64, problem))
    }

    /// End of step 8, for a kind that has no payload.
    #[inline]
    pub(crate) fn no_payload(&self) -> Result<(), Malformed> {
        if self.payload_bytes == 0 {
            return Ok(());
        }
        let problem = Problem::Must("be 0 on this kind");
        let error = (ErrorCode::PAYLOAD_NOT_ALLOWED, "FRAME-8");
        Err(self.malformed(error, "payload_len", self.payload_bytes as u64, problem))
    }

    /// Steps 7 and 8 for a kind that has neither rules between parts nor a payload.
    #[inline]
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        self.end()?;
        self.no_payload()
    }
}
