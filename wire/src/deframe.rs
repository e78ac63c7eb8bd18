//! Bytes as they arrive, to whole frames.
//!
//! A frame that lies whole in the input is lent from there; only one that is split between reads is
//! put together in an internal buffer. The prologue is checked as soon as its 8 bytes are there and
//! before anything is reserved, the header as soon as it is complete. The buffer grows with what
//! has been received, never with what was announced.

use crate::code::Kind;
use crate::error::Malformed;
use crate::frame::{self, Frame};
use crate::limits::{FRAME_BYTES_MAX, PROLOGUE_BYTES};
use crate::message::Message;
use crate::prologue::Prologue;
use crate::read::Reader;

/// A buffer larger than this is given back after the frame it was needed for. It is above the
/// frames of usual traffic, so that those cost no allocation each.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Puts frames together. One for each direction of a link.
///
/// Cursor state: with `frame` the length its prologue announces,
/// `0 <= buffer.len() < 8` while no prologue is known, else `8 <= buffer.len() < frame`, and
/// `buffer.len() == frame` only while that frame is lent out. `skip > 0` only if `buffer` is empty.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    prologue: Option<Prologue>,
    header_checked: bool,
    lent: bool,
    skip: usize,
    failed: Option<Malformed>,
}

/// What one call to [`Deframer::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Bytes of the input that have been dealt with; the rest goes into the next call.
    pub consumed: usize,
    /// A whole frame. `None` means that the input is used up.
    pub frame: Option<RawFrame<'a>>,
}

/// A whole frame of a known kind, its prologue checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    prologue: Prologue,
    bytes: &'a [u8],
}

impl<'a> RawFrame<'a> {
    /// Its prologue.
    #[must_use]
    pub fn prologue(&self) -> Prologue {
        self.prologue
    }

    /// Its kind, a known one.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.prologue.kind
    }

    /// All its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// The first check of FRAME-9 that fails.
    #[inline]
    pub fn decode(&self) -> Result<Frame<'a>, Malformed> {
        Frame::decode_parts(self.prologue, self.bytes)
    }

    /// Appends it to `messages` if it is a PUBLISH, DELIVER, UPLINK or OFFLINE, and says whether.
    /// In place, because a message is large: read by [`RawFrame::decode`] it is moved several
    /// times.
    ///
    /// # Errors
    /// The first check of FRAME-9 that fails; nothing is appended then.
    pub fn decode_into(&self, messages: &mut Vec<Message<'a>>) -> Result<bool, Malformed> {
        let kind = self.kind();
        let is_message =
            matches!(kind, Kind::PUBLISH | Kind::DELIVER | Kind::UPLINK | Kind::OFFLINE);
        if is_message {
            let (header, payload) = self.bytes.split_at(self.prologue.header_bytes);
            let at = messages.len();
            messages.push(Message::blank(kind));
            if let Err(malformed) = messages[at].fill(Reader::new(self.prologue, header), payload) {
                messages.truncate(at);
                return Err(malformed);
            }
        }
        Ok(is_message)
    }
}

/// Where a whole frame was found, before it is lent out.
enum Found {
    Nothing,
    InInput { prologue: Prologue, start: usize },
    InBuffer { prologue: Prologue },
}

impl Deframer {
    /// A deframer at the start of a link.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the next frame, in what is kept and then in `input`.
    ///
    /// Call it with the rest of the input until `frame` is `None`; that last call also gives back
    /// what the frame before it was lent from.
    ///
    /// # Errors
    /// A prologue or header that the contract refuses. The link cannot be read any further, and
    /// every later call returns the same error.
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, Malformed> {
        if let Some(malformed) = self.failed {
            return Err(malformed);
        }
        self.take_back();
        let mut at = 0;
        let found = match self.advance(input, &mut at) {
            Ok(found) => found,
            Err(malformed) => {
                *self = Self { failed: Some(malformed), ..Self::default() };
                return Err(malformed);
            }
        };
        debug_assert!(self.invariants());
        let frame = match found {
            Found::Nothing => None,
            Found::InInput { prologue, start } => {
                Some(RawFrame { prologue, bytes: &input[start..at] })
            }
            Found::InBuffer { prologue } => Some(RawFrame { prologue, bytes: &self.buffer }),
        };
        Ok(Step { consumed: at, frame })
    }

    /// The frame that `input` begins with, if it lies whole there. It borrows from nothing else, so
    /// that the one after it can be asked for while it is held: several frames of one read can be
    /// looked at together. `None` says that only [`Deframer::next`] can tell what comes now.
    #[inline]
    #[must_use]
    pub fn whole<'a>(&mut self, input: &'a [u8]) -> Option<RawFrame<'a>> {
        self.take_back();
        if !self.is_between_frames() {
            return None;
        }
        let prologue = Prologue::decode(input.first_chunk()?).ok()?;
        let bytes = input.get(..prologue.frame_bytes())?;
        (!prologue.kind.is_skipped()).then_some(RawFrame { prologue, bytes })
    }

    /// Moves `at` through the input up to the end of the next frame, or to the end.
    fn advance(&mut self, input: &[u8], at: &mut usize) -> Result<Found, Malformed> {
        loop {
            let skipped = self.skip.min(input.len() - *at);
            self.skip -= skipped;
            *at += skipped;
            let rest = &input[*at..];
            if rest.is_empty() {
                return Ok(Found::Nothing);
            }
            if self.buffer.is_empty()
                && let Some((prologue, _)) = rest.split_first_chunk()
            {
                let prologue = Prologue::decode(prologue)?;
                if prologue.kind.is_skipped() {
                    self.skip = prologue.frame_bytes();
                    continue;
                }
                if rest.len() >= prologue.frame_bytes() {
                    let start = *at;
                    *at += prologue.frame_bytes();
                    return Ok(Found::InInput { prologue, start });
                }
                self.prologue = Some(prologue);
            }
            let Some(prologue) = self.prologue else {
                *at += self.collect_prologue(rest)?;
                continue;
            };
            *at += self.collect(prologue, rest)?;
            if self.buffer.len() == prologue.frame_bytes() {
                self.lent = true;
                return Ok(Found::InBuffer { prologue });
            }
        }
    }

    /// Takes bytes until the prologue is complete; how many.
    fn collect_prologue(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let taken = rest.len().min(PROLOGUE_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&rest[..taken]);
        if let Some(prologue) = self.buffer.first_chunk() {
            let prologue = Prologue::decode(prologue)?;
            if prologue.kind.is_skipped() {
                self.skip = prologue.frame_bytes() - PROLOGUE_BYTES;
                self.buffer.clear();
            } else {
                self.prologue = Some(prologue);
            }
        }
        Ok(taken)
    }

    /// Takes bytes until the frame is complete; how many. A header that is there before its payload
    /// is checked, so that nothing is kept for a frame that will be refused.
    fn collect(&mut self, prologue: Prologue, rest: &[u8]) -> Result<usize, Malformed> {
        let missing = prologue.frame_bytes() - self.buffer.len();
        let taken = missing.min(rest.len());
        self.grow(self.buffer.len() + taken, prologue.frame_bytes());
        self.buffer.extend_from_slice(&rest[..taken]);
        let ahead = prologue.header_bytes..prologue.frame_bytes();
        if !self.header_checked && ahead.contains(&self.buffer.len()) {
            frame::check_header(prologue, &self.buffer[..prologue.header_bytes])?;
            self.header_checked = true;
        }
        Ok(taken)
    }

    /// Makes room for `needed` bytes: doubling, so that growth is rare, but not past the frame.
    fn grow(&mut self, needed: usize, frame_bytes: usize) {
        let capacity = self.buffer.capacity();
        if needed > capacity {
            let capacity = needed.max(frame_bytes.min(capacity * 2));
            self.buffer.reserve_exact(capacity - self.buffer.len());
        }
    }

    /// Ends the loan of the buffer.
    fn take_back(&mut self) {
        if self.lent {
            self.lent = false;
            self.prologue = None;
            self.header_checked = false;
            self.buffer.clear();
            if self.buffer.capacity() > KEPT_BYTES_MAX {
                self.buffer = Vec::new();
            }
        }
    }

    /// Bytes of an incomplete frame that are kept.
    #[must_use]
    pub fn buffered(&self) -> usize {
        if self.lent { 0 } else { self.buffer.len() }
    }

    /// Memory held for frames split between reads; at most twice what was received, and at most
    /// one frame of the greatest length.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives the memory back that is kept for a next frame, if none has begun.
    pub fn trim(&mut self) {
        if !self.lent && self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Kind of the frame whose header is complete and right and whose payload is still to come.
    #[must_use]
    pub fn expects_payload(&self) -> Option<Kind> {
        let waits = self.header_checked && !self.lent;
        self.prologue.filter(|_| waits).map(|prologue| prologue.kind)
    }

    /// Whether a link that ends now ends between two frames (FRAME-7).
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.failed.is_none() && self.skip == 0 && self.buffered() == 0
    }

    /// The inequality of the type's documentation.
    #[must_use]
    pub fn invariants(&self) -> bool {
        let length = self.buffer.len();
        let cursor = match self.prologue {
            None => length < PROLOGUE_BYTES && !self.lent && !self.header_checked,
            Some(_) if self.failed.is_some() => false,
            Some(prologue) if self.lent => length == prologue.frame_bytes(),
            Some(prologue) => (PROLOGUE_BYTES..prologue.frame_bytes()).contains(&length),
        };
        cursor && length <= FRAME_BYTES_MAX && (self.skip == 0 || length == 0)
    }
}
