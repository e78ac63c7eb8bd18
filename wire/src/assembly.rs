//! Messages in fragments (6.14): their pieces as they come, to whole messages; and where a payload
//! is cut.
//!
//! A whole message is the frame it would have been in one piece: its header without FRAGMENTED, and
//! all of its payload, which may be longer than that of any frame. Memory grows with what has come,
//! never with what was announced.

use std::ops::Range;

use crate::code::{ErrorCode, Kind, flags};
use crate::error::{Breach, Violation};
use crate::frame::Fragment;
use crate::limits::{FRAGMENTED_BYTES_MAX, FRAGMENTED_MAX};
use crate::message::{FRAGMENTED_BYTES, Message, bytes_before_fragmented};
use crate::prologue::{HEADER_WORDS, PAYLOAD_LEN};

/// What is open in one direction of a link.
///
/// At most `FRAGMENTED_MAX` messages, whose totals are at most `FRAGMENTED_BYTES_MAX`, no two with
/// the same number and origin. `T` is a time, of whatever clock.
#[derive(Debug)]
pub struct Assembly<T> {
    open: Vec<Open<T>>,
}

/// A message of which pieces are missing.
#[derive(Debug)]
struct Open<T> {
    kind: Kind,
    sequence: u64,
    origin: u64,
    /// Bytes of its payload, and of those that have come.
    total: usize,
    at: usize,
    /// None once it is of no more use.
    whole: Option<Whole<T>>,
}

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole<T> {
    frame: Vec<u8>,
    header_bytes: usize,
    since: T,
}

/// What a piece came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<T> {
    /// Pieces are missing still.
    Taken,
    /// It was the last one.
    Completed(Whole<T>),
    /// Its message was [forgotten](Assembly::forget).
    Forgotten,
}

impl<T> Default for Assembly<T> {
    fn default() -> Self {
        Self { open: Vec::new() }
    }
}

impl<T: Copy> Assembly<T> {
    /// Begins a message with FRAGMENTED, whose frame this is and came at `now`.
    ///
    /// # Errors
    /// One of FRG-3: it may not be opened, and nothing has changed.
    ///
    /// # Panics
    /// A message without FRAGMENTED, or another frame than its own.
    pub fn begin(&mut self, now: T, message: &Message<'_>, frame: &[u8]) -> Result<(), Violation> {
        let total = message.fragmented.expect("who begins has seen FRAGMENTED") as usize;
        let (sequence, origin) = (message.sequence, message.origin.unwrap_or(0));
        let refused = |words| {
            let (code, what) = (ErrorCode::UNEXPECTED_FRAME, Breach::Words(words));
            Err(Violation { code, kind: message.kind, reference: sequence, what })
        };
        if self.find(sequence, origin).is_some() {
            return refused("a message with this number is open: not all of its pieces have come");
        }
        if self.open.len() >= FRAGMENTED_MAX {
            return refused("as many messages in fragments are open as fragmented_max allows");
        }
        if self.announced() + total > FRAGMENTED_BYTES_MAX {
            return refused("messages in fragments are open with more than fragmented_bytes_max");
        }
        let at = message.payload.len();
        let whole = Some(Whole::begun(now, message, frame));
        self.open.push(Open { kind: message.kind, sequence, origin, total, at, whole });
        Ok(())
    }

    /// Takes in a later piece.
    ///
    /// # Errors
    /// `fragment_order` (FRG-4); the link is to be ended.
    pub fn add(&mut self, fragment: &Fragment<'_>) -> Result<Piece<T>, Violation> {
        let Fragment { last, offset, sequence, origin, payload } = *fragment;
        let broken = |what| {
            let (code, kind) = (ErrorCode::FRAGMENT_ORDER, Kind::FRAGMENT);
            Err(Violation { code, kind, reference: sequence, what })
        };
        let Some(place) = self.find(sequence, origin) else {
            return broken(Breach::Words("no message with this number is open"));
        };
        let open = &mut self.open[place];
        if offset as usize != open.at {
            return broken(Breach::Due("offset", offset.into(), open.at as u64));
        }
        let end = open.at + payload.len();
        if end > open.total {
            return broken(Breach::Due("end of a piece", end as u64, open.total as u64));
        }
        if last != (end == open.total) {
            return broken(Breach::Words("LAST is on the piece that reaches the total, and only"));
        }
        open.at = end;
        if let Some(whole) = &mut open.whole {
            whole.extend(payload, whole.header_bytes + open.total);
        }
        if !last {
            return Ok(if open.whole.is_some() { Piece::Taken } else { Piece::Forgotten });
        }
        let whole = self.open.swap_remove(place).whole;
        Ok(whole.map_or(Piece::Forgotten, Piece::Completed))
    }

    /// Gives up what has come of a message. It stays open, and what comes of it is checked.
    pub fn forget(&mut self, sequence: u64, origin: u64) {
        if let Some(place) = self.find(sequence, origin) {
            self.open[place].whole = None;
        }
    }

    /// The first piece of an open message that was not forgotten, as a message.
    #[must_use]
    pub fn message(&self, sequence: u64, origin: u64) -> Option<Message<'_>> {
        let place = self.find(sequence, origin)?;
        self.open[place].whole.as_ref().map(Whole::message)
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many messages are open, those that were forgotten left out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.iter().filter(|open| open.whole.is_some()).count()
    }

    /// The numbers of open messages that were not forgotten, and how much of their payloads has
    /// come.
    pub fn progress(&self) -> impl Iterator<Item = (u64, usize)> {
        let held = self.open.iter().filter(|open| open.whole.is_some());
        held.map(|open| (open.sequence, open.at))
    }

    /// Memory held for them: at most twice what has come of them, and at most what they are.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.open.iter().filter_map(|it| it.whole.as_ref()).map(|it| it.frame.capacity()).sum()
    }

    fn announced(&self) -> usize {
        self.open.iter().map(|open| open.total).sum()
    }

    fn find(&self, sequence: u64, origin: u64) -> Option<usize> {
        self.open.iter().position(|open| (open.sequence, open.origin) == (sequence, origin))
    }

    /// The bounds of the type's documentation, and that no piece is beyond its message.
    #[must_use]
    pub fn invariants(&self) -> bool {
        self.open.len() <= FRAGMENTED_MAX
            && self.announced() <= FRAGMENTED_BYTES_MAX
            && self.open.iter().all(|open| {
                let held = open.whole.as_ref().is_none_or(|it| {
                    it.frame.len() == it.header_bytes + open.at && it.message().kind == open.kind
                });
                open.at < open.total && held
            })
    }
}

impl<T: Copy> Whole<T> {
    fn begun(since: T, message: &Message<'_>, frame: &[u8]) -> Self {
        let header = &frame[..frame.len() - message.payload.len()];
        let set = u16::from_le_bytes([header[8], header[9]]);
        let place = bytes_before_fragmented(set);
        let header_bytes = header.len() - FRAGMENTED_BYTES;
        let total = message.fragmented.unwrap_or(0);
        let mut whole = Self { frame: Vec::new(), header_bytes, since };
        whole.make_room(header_bytes + message.payload.len(), header_bytes + total as usize);
        whole.frame.extend_from_slice(&header[..place]);
        whole.frame.extend_from_slice(&header[place + FRAGMENTED_BYTES..]);
        whole.frame.extend_from_slice(message.payload);
        let words = u16::from_le_bytes([header[2], header[3]]) - 1;
        whole.frame[HEADER_WORDS].copy_from_slice(&words.to_le_bytes());
        whole.frame[PAYLOAD_LEN].copy_from_slice(&total.to_le_bytes());
        let set = set & !flags::message::FRAGMENTED;
        whole.frame[8..10].copy_from_slice(&set.to_le_bytes());
        whole
    }

    fn extend(&mut self, piece: &[u8], frame_bytes: usize) {
        self.make_room(self.frame.len() + piece.len(), frame_bytes);
        self.frame.extend_from_slice(piece);
    }

    /// Room for `needed` bytes of `frame_bytes` in all: doubling, so that growth is rare.
    fn make_room(&mut self, needed: usize, frame_bytes: usize) {
        let capacity = self.frame.capacity();
        if needed > capacity {
            let capacity = needed.max(frame_bytes.min(capacity * 2));
            self.frame.reserve_exact(capacity - self.frame.len());
        }
    }

    /// When its first piece had come: its time to live counts from there (FRG-8).
    #[must_use]
    pub fn since(&self) -> T {
        self.since
    }

    /// Bytes of its header.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// What its header says, with as much of its payload as is there.
    ///
    /// # Panics
    /// Never: the header was checked when it came.
    #[must_use]
    pub fn message(&self) -> Message<'_> {
        Message::decode_whole(&self.frame).expect("the header was checked when it came")
    }

    /// Header and payload, to be read by [`Message::decode_whole`].
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.frame
    }
}

/// Where the rest of a payload of `total` bytes is cut, of which `from` have gone: pieces of
/// `piece_bytes`, the last one what is left. None if it is 0.
pub fn cuts(
    total: usize,
    from: usize,
    piece_bytes: usize,
) -> impl Iterator<Item = Range<usize>> + Clone {
    let starts = (from..total).step_by(piece_bytes.max(1));
    starts.map(move |at| at..total.min(at + piece_bytes.max(1)))
}

#[cfg(test)]
mod tests;
