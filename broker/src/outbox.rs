//! Bytes waiting to be written to one link: answers first, then messages, bounded in bytes.
//!
//! Frames for the link are encoded straight into the outbox. What is handed to the kernel is the
//! outbox's own buffer, whose place a spare takes, so the steady state neither allocates nor
//! copies. Another shard reserves the place of a message before it sends it over. Never: sockets,
//! who gets what.
//!
//! Invariant: the lengths in `marks` sum to `messages.len() - start`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::limits::{SPARE_BYTES, WRITE_BYTES};

/// Where `ttl_ms` lies in a message header.
const TTL_OFFSET: usize = 28;

/// Bytes reserved ahead for one outbox, at most; and as a part of all it may have, so that other
/// shards find nearly all of it.
const AHEAD_BYTES: usize = 32 << 10;
const AHEAD_PART: usize = 64;

/// The space of one outbox, shared with those who want to put something into it.
#[derive(Debug)]
pub struct Room {
    waiting: AtomicUsize,
    most: usize,
}

impl Room {
    /// Space for `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { waiting: AtomicUsize::new(0), most })
    }

    /// Takes place for a frame of that many bytes, or says that there is none.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> bool {
        // Relaxed: the counter guards an amount, not other memory.
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.most;
        if !fits {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Bytes reserved.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes there may be.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// Gives place back that was reserved for a frame that will not come.
    pub fn release(&self, bytes: usize) {
        let before = self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before}");
    }
}

#[derive(Debug)]
struct Mark {
    bytes: usize,
    expires: Option<Duration>,
    // Not 0: whoever waits for word of this frame is told when it expires; with `TRACED`, also when
    // it is written.
    number: u64,
}

/// Beyond every number of a message.
const TRACED: u64 = 1 << 63;

/// How a message is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Milliseconds to live, counted from when it is taken in; 0 = without limit.
    pub ttl_ms: u32,
    /// Its number in [`Outbox::take_expired`]; 0 for one that nobody asks for.
    pub number: u64,
    /// Whether its number is in [`Outbox::take_traced`] when it is written.
    pub is_traced: bool,
}

/// What one write took from the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Messages in the buffer.
    pub frames: u64,
    /// Messages whose time to live ran out; they are gone.
    pub expired: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    control: Vec<u8>,
    messages: Vec<u8>,
    start: usize,
    marks: VecDeque<Mark>,
    entered: u64,
    spare: Vec<u8>,
    room: Arc<Room>,
    // Bytes reserved ahead, for what comes before the next write.
    credit: usize,
    expired: Vec<u64>,
    traced: Vec<u64>,
}

impl Outbox {
    /// An empty outbox for at most `most` bytes of messages.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            control: Vec::new(),
            messages: Vec::new(),
            start: 0,
            marks: VecDeque::new(),
            entered: 0,
            spare: Vec::new(),
            room: Room::new(most),
            credit: 0,
            expired: Vec::new(),
            traced: Vec::new(),
        }
    }

    /// The space of this outbox.
    #[must_use]
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Where answers are encoded. They are never refused; whoever causes them is no longer read
    /// when they pile up.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Bytes of waiting answers.
    #[must_use]
    pub fn control_bytes(&self) -> usize {
        self.control.len()
    }

    /// Messages waiting.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.marks.len()
    }

    /// Messages that have ever come in: a mark for [`has_left`](Self::has_left).
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.entered
    }

    /// Whether each message that had come in by then has been taken out to be written, or is gone.
    #[must_use]
    pub fn has_left(&self, mark: u64) -> bool {
        // They leave in their order.
        self.entered - self.marks.len() as u64 >= mark
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.marks.is_empty()
    }

    /// Encodes one message if there is room for it; else nothing changes and the answer is `false`.
    pub fn offer(
        &mut self,
        now: Duration,
        terms: Terms,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let before = self.messages.len();
        encode(&mut self.messages);
        let bytes = self.messages.len() - before;
        let fits = self.reserve(bytes);
        if fits {
            self.mark(now, bytes, terms);
        } else {
            self.messages.truncate(before);
        }
        fits
    }

    /// Takes place for a message, and for more at the same time: a locked addition for each of them
    /// waits for all that was written before it, 18 of 250 ns that a small message took.
    #[inline]
    fn reserve(&mut self, bytes: usize) -> bool {
        if let Some(left) = self.credit.checked_sub(bytes) {
            self.credit = left;
            return true;
        }
        let (lacking, ahead) =
            (bytes - self.credit, AHEAD_BYTES.min(self.room.most() / AHEAD_PART));
        let ahead = [ahead, 0].into_iter().find(|ahead| self.room.reserve(lacking + ahead));
        self.credit = ahead.unwrap_or(self.credit);
        ahead.is_some()
    }

    /// Gives back what was reserved ahead, and so many bytes more.
    fn release(&mut self, bytes: usize) {
        self.room.release(bytes + std::mem::take(&mut self.credit));
    }

    /// Takes in a message from elsewhere, whose place in [`Outbox::room`] is reserved.
    pub fn accept(&mut self, now: Duration, terms: Terms, frame: &[u8]) {
        self.messages.extend_from_slice(frame);
        self.mark(now, frame.len(), terms);
    }

    fn mark(&mut self, now: Duration, bytes: usize, terms: Terms) {
        let Terms { ttl_ms, number, is_traced } = terms;
        let number = if is_traced && number != 0 { number | TRACED } else { number };
        let expires = (ttl_ms != 0).then(|| now + Duration::from_millis(ttl_ms.into()));
        self.marks.push_back(Mark { bytes, expires, number });
        self.entered += 1;
    }

    /// The numbers of the messages that have expired since the last call, 0 left out.
    pub fn take_expired(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.expired)
    }

    /// Whether messages were written whose time is wanted.
    #[must_use]
    pub fn has_traced(&self) -> bool {
        !self.traced.is_empty()
    }

    /// The numbers of the traced messages that have been taken for a write since the last call.
    pub fn take_traced(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.traced)
    }

    /// All answers and no message, for a link whose messages are held.
    pub fn take_answers(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.spare);
        out.append(&mut self.control);
        out
    }

    /// What to write next: all answers, then whole messages until [`WRITE_BYTES`] are reached.
    /// A message whose time ran out is left out; what is left of the others' is written into them.
    pub fn take(&mut self, now: Duration) -> (Vec<u8>, Taken) {
        let mut taken = Taken::default();
        let swap = self.control.is_empty()
            && self.start == 0
            && self.messages.len() <= WRITE_BYTES
            && self.marks.iter().all(|mark| mark.expires.is_none() && mark.number & TRACED == 0);
        let out = if swap {
            taken.frames = self.marks.len() as u64;
            self.release(self.messages.len());
            self.marks.clear();
            std::mem::replace(&mut self.messages, std::mem::take(&mut self.spare))
        } else {
            self.gather(now, &mut taken)
        };
        debug_assert!(self.invariant());
        (out, taken)
    }

    fn gather(&mut self, now: Duration, taken: &mut Taken) -> Vec<u8> {
        let begun = self.start;
        let mut out = std::mem::take(&mut self.spare);
        out.append(&mut self.control);
        while out.len() < WRITE_BYTES {
            let Some(mark) = self.marks.pop_front() else { break };
            let frame = &self.messages[self.start..self.start + mark.bytes];
            self.start += mark.bytes;
            match mark.expires.map(|expires| expires.checked_sub(now)) {
                None => out.extend_from_slice(frame),
                Some(Some(left)) if left >= Duration::from_millis(1) => {
                    let at = out.len() + TTL_OFFSET;
                    out.extend_from_slice(frame);
                    let left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
                    out[at..at + 4].copy_from_slice(&left_ms.to_le_bytes());
                }
                Some(_) => {
                    taken.expired += 1;
                    if mark.number != 0 {
                        self.expired.push(mark.number & !TRACED);
                    }
                    continue;
                }
            }
            taken.frames += 1;
            if mark.number & TRACED != 0 {
                self.traced.push(mark.number & !TRACED);
            }
        }
        self.release(self.start - begun);
        // Moving the rest down costs at most one copy of each byte for every half written.
        if self.start * 2 >= self.messages.len() {
            self.messages.drain(..self.start);
            self.start = 0;
        }
        out
    }

    /// Takes back the buffer of a finished write.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= SPARE_BYTES && buffer.capacity() > self.spare.capacity() {
            self.spare = buffer;
        }
    }

    /// Forgets the messages, not the answers; the number of messages that were waiting.
    pub fn abandon(&mut self) -> u64 {
        let lost = self.marks.len() as u64;
        self.release(self.messages.len() - self.start);
        self.messages = Vec::new();
        self.start = 0;
        self.marks.clear();
        lost
    }

    fn invariant(&self) -> bool {
        let sum: usize = self.marks.iter().map(|mark| mark.bytes).sum();
        sum == self.messages.len() - self.start
    }
}

#[cfg(test)]
mod tests;
