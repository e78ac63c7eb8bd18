//! What a connection has still to write: whole frames in order, the first perhaps in part.
//!
//! Control frames come from the WebSocket library and go ahead of what waits, but never into the
//! middle of a frame. Everything that waits goes out in as few vectored writes as it takes.
//!
//! Invariants: `offset` is less than the first chunk's length, and 0 if there is none; no chunk
//! expires before `expires_ms`.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::reports::Ticket;
use crate::transports::{NEVER, Timed};

/// Frames handed to one write. Loopback writes of 128-byte frames stop gaining beyond some 30; the
/// array lies on the stack.
pub(crate) const SLICES_MAX: usize = 32;

/// Places that a writer keeps however few it needs.
const CHUNKS_KEPT: usize = 16;

#[derive(Debug)]
pub(crate) struct Writer {
    chunks: VecDeque<Chunk>,
    offset: usize,
    /// Before this there is nothing to look for.
    expires_ms: u64,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    is_message: bool,
    /// Of the connection's own; neither that nor a message is one whose fate was told early.
    is_own: bool,
    expires_ms: u64,
    ticket: Ticket,
}

impl Default for Writer {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), offset: 0, expires_ms: NEVER }
    }
}

/// What left the writer: whole messages, and bytes that no longer wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) messages: u64,
    pub(crate) bytes: usize,
    /// Whole frames, and those of the connection's own among them.
    pub(crate) frames: usize,
    pub(crate) own: Own,
}

/// Frames of a connection's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

impl Left {
    /// A frame with so many bytes that wait.
    fn count(&mut self, chunk: &Chunk, waiting: usize) {
        self.messages += u64::from(chunk.is_message);
        self.bytes += waiting;
        self.frames += 1;
        self.own.frames += usize::from(chunk.is_own);
        self.own.bytes += if chunk.is_own { chunk.bytes.len() } else { 0 };
    }
}

impl Writer {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// A message for the user, after what waits.
    pub(crate) fn push_message(&mut self, frame: Timed) {
        let Timed { bytes, expires_ms, ticket } = frame;
        self.expires_ms = self.expires_ms.min(expires_ms);
        let (is_message, is_own) = (true, false);
        self.chunks.push_back(Chunk { bytes, is_message, is_own, expires_ms, ticket });
    }

    /// A word of our own, after what waits.
    pub(crate) fn push_own(&mut self, bytes: Bytes) {
        self.chunks.push_back(Chunk::own(bytes));
    }

    /// Control frames, before what waits.
    pub(crate) fn push_control(&mut self, bytes: Bytes) {
        let first_boundary = usize::from(self.offset > 0);
        self.chunks.insert(first_boundary, Chunk::own(bytes));
    }

    /// Whether there is something to look for that [has expired](Self::expire).
    pub(crate) fn may_expire(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }

    /// Takes out what has expired and has not begun to be written (DEL-20). Here and below `gone`
    /// gets the ticket of each message that leaves.
    pub(crate) fn expire(&mut self, now_ms: u64, mut gone: impl FnMut(Ticket)) -> Left {
        let mut left = Left::default();
        if !self.may_expire(now_ms) {
            return left;
        }
        self.expires_ms = NEVER;
        let mut begun = self.offset > 0;
        self.chunks.retain(|chunk| {
            let stays = std::mem::take(&mut begun) || now_ms < chunk.expires_ms;
            if stays {
                self.expires_ms = self.expires_ms.min(chunk.expires_ms);
            } else {
                left.count(chunk, chunk.bytes.len());
                gone(chunk.ticket);
            }
            stays
        });
        left
    }

    /// The bytes to write next, if they are those of one frame and none waits behind it.
    pub(crate) fn only(&self) -> Option<&[u8]> {
        let mut chunks = self.chunks.iter();
        let first = chunks.next()?;
        chunks.next().is_none().then_some(&first.bytes[self.offset..])
    }

    /// The bytes to write next; the number of slices filled in.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let start = if filled == 0 { self.offset } else { 0 };
            *slice = IoSlice::new(&chunk.bytes[start..]);
            filled += 1;
        }
        filled
    }

    /// `len` bytes of the slices were written.
    pub(crate) fn advance(&mut self, len: usize, mut gone: impl FnMut(Ticket)) -> Left {
        let mut left = Left { bytes: len, ..Left::default() };
        self.offset += len;
        while let Some(chunk) = self.chunks.front()
            && self.offset >= chunk.bytes.len()
        {
            self.offset -= chunk.bytes.len();
            left.count(chunk, 0);
            gone(chunk.ticket);
            self.chunks.pop_front();
        }
        debug_assert!(!self.chunks.is_empty() || self.offset == 0);
        self.give_room_back();
        left
    }

    /// A connection should hold nothing for the messages it once had.
    fn give_room_back(&mut self) {
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        } else if self.chunks.capacity() > CHUNKS_KEPT.max(4 * self.chunks.len()) {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
    }

    /// Gives up whatever has not begun to be written: half a frame must be completed, or the close
    /// frame after it could not be read.
    pub(crate) fn give_up_unbegun(&mut self, mut gone: impl FnMut(Ticket)) -> Left {
        let begun = usize::from(self.offset > 0);
        let mut left = Left::default();
        for chunk in self.chunks.drain(begun..) {
            left.count(&chunk, chunk.bytes.len());
            gone(chunk.ticket);
        }
        self.give_room_back();
        left
    }

    /// Gives up the messages that have not begun to be written; what is our own stays.
    pub(crate) fn give_up_messages(&mut self, mut gone: impl FnMut(Ticket)) -> Left {
        let mut left = Left::default();
        let mut begun = self.offset > 0;
        self.chunks.retain(|chunk| {
            let stays = std::mem::take(&mut begun) || !chunk.is_message;
            if !stays {
                left.count(chunk, chunk.bytes.len());
                gone(chunk.ticket);
            }
            stays
        });
        left
    }

    /// The frame that was begun, if there is one, is completed and counts as a message no more:
    /// what has left is one, if it was one, and none of its bytes.
    pub(crate) fn disown_begun(&mut self, mut gone: impl FnMut(Ticket)) -> Left {
        let begun = self.chunks.front_mut().filter(|chunk| self.offset > 0 && chunk.is_message);
        let Some(chunk) = begun else { return Left::default() };
        chunk.is_message = false;
        gone(std::mem::take(&mut chunk.ticket));
        Left { messages: 1, ..Left::default() }
    }

    /// Gives up the rest of what was begun as well.
    pub(crate) fn clear(&mut self) -> Left {
        let mut left = Left::default();
        let mut begun = std::mem::take(&mut self.offset);
        for chunk in std::mem::take(&mut self.chunks) {
            left.count(&chunk, chunk.bytes.len() - std::mem::take(&mut begun));
        }
        left
    }

    /// Whether the first frame is with the kernel in part.
    pub(crate) fn is_begun(&self) -> bool {
        self.offset > 0
    }
}

impl Chunk {
    fn own(bytes: Bytes) -> Self {
        let (is_message, is_own) = (false, true);
        Self { bytes, is_message, is_own, expires_ms: NEVER, ticket: Ticket::NONE }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(writer: &mut Writer, len: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = writer.slices(&mut slices);
        let mut bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.truncate(len);
        let len = bytes.len();
        writer.advance(len, |_| ());
        bytes
    }

    fn message(bytes: &'static [u8], expires_ms: u64) -> Timed {
        Timed { bytes: Bytes::from_static(bytes), expires_ms, ticket: Ticket::NONE }
    }

    fn message_of(bytes: usize) -> Left {
        Left { messages: 1, bytes, frames: 1, ..Left::default() }
    }

    #[test]
    fn promise_7_few_frames_take_no_more_room_than_few() {
        let mut writer = Writer::default();
        (0..1000).for_each(|_| writer.push_message(message(b"a", NEVER)));
        assert_eq!(writer.advance(990, |_| ()).frames, 990);
        assert!(writer.chunks.capacity() <= 40, "{}", writer.chunks.capacity());
        assert_eq!(writer.advance(10, |_| ()).frames, 10);
        assert_eq!(writer.chunks.capacity(), 0);
    }

    #[test]
    fn what_has_expired_is_not_begun() {
        let mut writer = Writer::default();
        for (bytes, expires_ms) in [(&b"aaaa"[..], 5), (b"bbbb", 7), (b"cccc", NEVER), (b"d", 5)] {
            writer.push_message(message(bytes, expires_ms));
        }
        writer.push_own(Bytes::from_static(b"X"));
        assert_eq!(writer.expire(4, |_| ()), Left::default());
        assert_eq!(written(&mut writer, 1), b"a");
        // The first is not called back: half of it is out.
        assert_eq!(writer.expire(5, |_| ()), message_of(1));
        assert_eq!(writer.expire(6, |_| ()), Left::default());
        assert_eq!(writer.expire(7, |_| ()), message_of(4));
        assert_eq!(writer.expire(u64::MAX - 1, |_| ()), Left::default());
        assert_eq!(written(&mut writer, 99), b"aaaccccX");
    }

    #[test]
    fn control_frames_go_ahead_but_not_into_a_frame() {
        let mut writer = Writer::default();
        writer.push_message(message(b"aaaa", NEVER));
        writer.push_message(message(b"bbbb", NEVER));
        assert_eq!(written(&mut writer, 2), b"aa");
        writer.push_control(Bytes::from_static(b"CC"));
        assert_eq!(written(&mut writer, 99), b"aaCCbbbb");
        assert!(writer.is_empty());
        writer.push_message(message(b"aaaa", NEVER));
        writer.push_control(Bytes::from_static(b"CC"));
        assert_eq!(written(&mut writer, 99), b"CCaaaa");
    }

    #[test]
    fn what_has_begun_is_completed() {
        let mut writer = Writer::default();
        for bytes in [&b"aaaa"[..], b"bbbb", b"cccc"] {
            writer.push_message(message(bytes, NEVER));
        }
        written(&mut writer, 5);
        assert_eq!(writer.give_up_unbegun(|_| ()), message_of(4));
        writer.push_own(Bytes::from_static(b"X"));
        assert_eq!(written(&mut writer, 99), b"bbbX");
        assert_eq!(writer.give_up_unbegun(|_| ()), Left::default());
    }

    proptest! {
        #[test]
        fn frames_never_interleave(
            steps in proptest::collection::vec((0u8..3, 1usize..20, 0usize..40), 1..60),
        ) {
            let mut writer = Writer::default();
            let mut bytes = Vec::new();
            let mut pushed = 0;
            for (what, len, write) in steps {
                // Each frame says its own length, so that a reader notices any mixture.
                let frame = Bytes::from(vec![u8::try_from(len).unwrap(); len]);
                match what {
                    0 => {
                        let (expires_ms, ticket) = (NEVER, Ticket::NONE);
                        writer.push_message(Timed { bytes: frame, expires_ms, ticket });
                    }
                    1 => writer.push_own(frame),
                    _ => writer.push_control(frame),
                }
                pushed += len;
                bytes.extend(written(&mut writer, write));
            }
            while !writer.is_empty() {
                bytes.extend(written(&mut writer, 7));
            }
            prop_assert_eq!(bytes.len(), pushed);
            let mut rest = &bytes[..];
            while let Some(len) = rest.first() {
                let (frame, after) = rest.split_at(usize::from(*len));
                prop_assert!(frame.iter().all(|byte| byte == len));
                rest = after;
            }
        }
    }
}
