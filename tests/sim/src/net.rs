//! The network: one pipe per link, a lane each way. Bytes of a lane never pass each other; those of
//! different lanes do. A lane holds as many bytes as two sockets would, so a reader that stops is
//! felt by its writer.

use std::collections::VecDeque;

/// One direction of a pipe.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Chunks on their way and when they arrive; an empty one is the end.
    flight: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<u8>,
    /// Bytes in `flight` and `arrived`.
    bytes: usize,
    capacity: usize,
    last_at: u64,
    /// What is written from now on is swallowed.
    pub(crate) dead: bool,
    ended: bool,
    end_arrived: bool,
}

impl Lane {
    fn new(capacity: usize) -> Self {
        Self {
            flight: VecDeque::new(),
            arrived: VecDeque::new(),
            bytes: 0,
            capacity,
            last_at: 0,
            dead: false,
            ended: false,
            end_arrived: false,
        }
    }

    /// Takes some of these bytes, to arrive at `at` or later: how many, and when.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> (usize, u64) {
        let count = bytes.len().min(self.capacity.saturating_sub(self.bytes));
        if count > 0 && !self.ended {
            self.push(at, bytes[..count].to_vec());
        }
        (count, self.last_at)
    }

    fn push(&mut self, at: u64, chunk: Vec<u8>) {
        self.last_at = self.last_at.max(at);
        self.bytes += chunk.len();
        if !self.dead {
            self.flight.push_back((self.last_at, chunk));
        }
    }

    /// The writer says no more; when that arrives.
    pub(crate) fn end(&mut self, at: u64) -> u64 {
        if !self.ended {
            self.ended = true;
            self.push(at, Vec::new());
        }
        self.last_at
    }

    /// Moves what has arrived by `now`; whether anything did.
    pub(crate) fn arrive(&mut self, now: u64) -> bool {
        let mut any = false;
        while self.flight.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, chunk)) = self.flight.pop_front() else { break };
            self.end_arrived |= chunk.is_empty();
            self.arrived.extend(chunk);
            any = true;
        }
        any
    }

    /// Whether a read would bring something, if only the end.
    #[must_use]
    pub(crate) fn is_readable(&self) -> bool {
        !self.arrived.is_empty() || self.end_arrived
    }

    /// Bytes that were not read yet, on their way or there.
    #[must_use]
    pub(crate) fn unread(&self) -> usize {
        self.bytes
    }

    /// Reads up to `most` bytes into `out`; none means the end, if the lane [is
    /// readable](Self::is_readable).
    pub(crate) fn read(&mut self, most: usize, out: &mut Vec<u8>) {
        let count = most.min(self.arrived.len());
        self.bytes -= count;
        out.extend(self.arrived.drain(..count));
    }
}

/// The broker's end of a pipe.
#[derive(Debug)]
pub(crate) struct Far {
    /// The broker.
    pub(crate) broker: usize,
    /// Its shard.
    pub(crate) shard: usize,
    /// Where to read to.
    pub(crate) read: Option<Vec<u8>>,
    /// What to write, and how much of it was.
    pub(crate) write: Option<(Vec<u8>, usize)>,
}

/// One link's connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// The client's end, unless it let go.
    pub(crate) near: Option<usize>,
    /// The broker's end, unless it let go.
    pub(crate) far: Option<Far>,
    /// Towards the broker.
    pub(crate) up: Lane,
    /// From the broker.
    pub(crate) down: Lane,
    /// Nothing arrives before.
    pub(crate) frozen_until: u64,
}

impl Pipe {
    /// A fresh connection.
    #[must_use]
    pub(crate) fn new(near: Option<usize>, broker: usize, shard: usize, capacity: usize) -> Self {
        Self {
            near,
            far: Some(Far { broker, shard, read: None, write: None }),
            up: Lane::new(capacity),
            down: Lane::new(capacity),
            frozen_until: 0,
        }
    }
}
