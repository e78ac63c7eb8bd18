//! What is written next: all answers, then messages by their priority, until a write is long
//! enough. Never: what is taken in.

use std::time::Duration;

use bytes::Bytes;

use super::{Outbox, Queue};
use crate::io::Piece;
use crate::limits::{REFERENCED_BYTES, SPARE_BYTES, WRITE_BYTES};

/// A write: its own bytes, and pieces of large payloads that go between them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Its own bytes.
    pub data: Vec<u8>,
    /// The pieces, in the order of their places.
    pub pieces: Vec<Piece>,
    pub(super) beside: usize,
    /// Bytes of the buffers of runs, which stay until it is written.
    pub(super) held: usize,
}

impl Write {
    /// One of these bytes alone.
    pub(super) fn of(data: Vec<u8>) -> Self {
        Self { data, ..Self::default() }
    }

    /// Whether there is nothing to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && self.pieces.is_empty()
    }

    /// Bytes of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() + self.beside
    }

    /// Appends a part of a payload, by copying what is short.
    pub(super) fn put(&mut self, bytes: Bytes) {
        if bytes.len() < REFERENCED_BYTES {
            return self.data.extend_from_slice(&bytes);
        }
        self.beside += bytes.len();
        self.pieces.push(Piece { at: self.data.len(), bytes });
    }
}

impl Outbox {
    /// All answers and no message, for a link whose messages are held.
    pub fn take_answers(&mut self) -> Write {
        let mut write = self.answers();
        self.keep_unused(&mut write);
        write
    }

    fn answers(&mut self) -> Write {
        let mut data = std::mem::take(&mut self.spare);
        self.writing_answers = self.control.len();
        data.append(&mut self.control);
        self.writing = data.capacity();
        Write::of(data)
    }

    /// What to write next: all answers, then messages until [`WRITE_BYTES`] are reached, the higher
    /// priority first; and how many messages end with it. Those that are not large are whole. One
    /// whose time ran out is left out; what is left of the others' is written into them.
    pub fn take(&mut self, now: Duration) -> (Write, u64) {
        self.writing_answers = 0;
        let (mut write, frames) = match self.only_queue() {
            Some(at) if self.queues[at].lane.may_swap() => {
                let Queue { lane, keys, .. } = &mut self.queues[at];
                let (frames, bytes) = (lane.frames() as u64, lane.waiting());
                keys.clear();
                let write = lane.swap(std::mem::take(&mut self.spare));
                self.give_back(bytes);
                (write, frames)
            }
            _ => self.gather(now),
        };
        if !write.is_empty() {
            self.written_at = Some(now);
            self.writing = write.data.capacity() + write.held;
        }
        self.keep_unused(&mut write);
        if self.is_old {
            self.judge_age(now);
        }
        (write, frames)
    }

    /// The buffer of a write that is none is there for the next.
    fn keep_unused(&mut self, write: &mut Write) {
        if write.is_empty() {
            self.spare = std::mem::take(&mut write.data);
            self.writing = 0;
        }
    }

    /// The queue that has all that is to be written.
    fn only_queue(&self) -> Option<usize> {
        let [high, normal, bulk] = self.queues.each_ref().map(|queue| queue.lane.frames() > 0);
        match (high, normal, bulk) {
            _ if !self.control.is_empty() || self.beside > 0 => None,
            (false, true, false) => Some(1),
            (true, false, false) => Some(0),
            (false, false, true) => Some(2),
            _ => None,
        }
    }

    fn gather(&mut self, now: Duration) -> (Write, u64) {
        let mut write = self.answers();
        let mut frames = 0;
        for at in 0..self.queues.len() {
            if write.bytes() >= WRITE_BYTES {
                break;
            }
            let queue = &mut self.queues[at];
            if queue.lane.has_large() || queue.asides() > 0 || self.open.any(at) {
                frames += self.gather_large(now, at, &mut write);
                continue;
            }
            let lane = &mut queue.lane;
            if lane.frames() == 0 {
                continue;
            }
            let before = lane.waiting();
            frames += lane.take(now, &mut write, &mut self.gone, &mut self.traced);
            let left = before - lane.waiting();
            self.settle_at(at);
            self.give_back(left);
        }
        (write, frames)
    }

    pub(super) fn settle_at(&mut self, at: usize) {
        self.queues[at].settle();
        debug_assert!(self.queues[at].invariant());
    }

    /// Takes back the buffer of a finished write.
    pub fn recycle(&mut self, now: Duration, mut buffer: Vec<u8>) {
        (self.written_at, self.writing, self.writing_answers) = (None, 0, 0);
        buffer.clear();
        if buffer.capacity() <= SPARE_BYTES && buffer.capacity() > self.spare.capacity() {
            self.spare = buffer;
        }
        if self.lent > 0 {
            self.room.release(std::mem::take(&mut self.lent));
        }
        if self.is_old {
            self.judge_age(now);
        }
    }
}
