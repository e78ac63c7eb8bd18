//! The seam between the hub and whatever carries messages to a client: write, close, and a few
//! words to the connection's session. No read: what a client says goes to the session.
//!
//! An [`Outbox`] is the hub's end of one connection. Its calls never wait and never block on a
//! socket, so no connection can hold up the hub or another connection (promise 6). It is bounded in
//! bytes; what does not fit ends the connection, and is counted.
//!
//! What all queues hold is bounded as well (`pool.rs`): one that keeps much and whose socket has
//! taken nothing for the longest is told to go when there is too little left.
//!
//! Full is a queue only whose socket has taken no more: a burst that its connection's task has not
//! seen yet says nothing about the reader. Such a queue takes the frame that crosses its bound and
//! reports [`Pressure`]; until the task has looked, no more messages are handed out. So what waits
//! is at most the bound and one encoded message, and answers of the connection's own to one read.
//!
//! Invariant: `waiting_bytes` is the sum of what was queued and neither written nor given up.

pub(crate) mod inbound;
pub(crate) mod line;
pub(crate) mod liveness;
pub(crate) mod origin;
pub(crate) mod pressure;
pub(crate) mod settled;
pub(crate) mod upgrade;
pub(crate) mod websocket;
pub(crate) mod writer;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use waybill_wire::code::ErrorCode;

use self::pressure::Pressure;
use self::settled::Settled;
use self::writer::Left;
use crate::config::LimitConfig;
use crate::hub::{ConnectionId, LoginRefused};
use crate::pool::{ENTRY_BYTES, Pool};
use crate::reports::{Outcome, Ticket};
use crate::shortage::Stuck;
use crate::subprotocol::Subprotocol;
use crate::telemetry::Telemetry;

/// What a session is told by the hub. Few at a time: one confirmation or refusal, one drain, and an
/// answer for each *send* the session lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Confirmed(ConnectionId),
    LoginRefused(LoginRefused),
    /// The login with this number has taken the place of the connection's own.
    Displaced {
        winner: u64,
    },
    Answered {
        id: u32,
        code: ErrorCode,
    },
    Drain {
        reconnect_after_ms: u32,
        close_in_ms: u64,
    },
}

impl Word {
    /// The order to go, of connections that are sent away over `drain_ms`; `key` tells them apart.
    pub(crate) fn drain(key: usize, drain_ms: u64) -> Self {
        // Multiples of the golden ratio fill the window evenly however many keys there are.
        let fraction = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Self::Drain {
            reconnect_after_ms: u32::try_from(drain_ms).unwrap_or(u32::MAX),
            close_in_ms: (fraction * drain_ms) >> 32,
        }
    }
}

/// The bounded queue of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    subprotocol: Subprotocol,
    /// The connection's number, 0 before its login; written by the task that owns the hub.
    connection: AtomicU64,
    queue: Mutex<Queue>,
    reader: AtomicWaker,
    shared: Arc<QueueShared>,
}

/// What the queues of a gateway share.
#[derive(Debug)]
pub(crate) struct QueueShared {
    pub(crate) bytes_max: usize,
    pub(crate) pool: Arc<Pool>,
    pub(crate) pressure: Pressure,
    pub(crate) settled: Settled,
    pub(crate) telemetry: Arc<Telemetry>,
}

impl QueueShared {
    pub(crate) fn new(limits: &LimitConfig, telemetry: Arc<Telemetry>) -> Self {
        let (pressure, settled) = (Pressure::default(), Settled::default());
        let (most, connections) = (limits.connections_bytes_max, limits.connections_max);
        let pool = Pool::new(most, connections, Arc::clone(&telemetry));
        Self { bytes_max: limits.queue_bytes_max, pool, pressure, settled, telemetry }
    }
}

/// A message's frame on its way to one connection.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    pub(crate) bytes: Bytes,
    /// When it is no longer to be written (DEL-19), `NEVER` if there is no such time.
    pub(crate) expires_ms: u64,
    /// Who waits to hear what became of it.
    pub(crate) ticket: Ticket,
}

/// A time that does not come.
pub(crate) const NEVER: u64 = u64::MAX;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Timed>,
    words: VecDeque<Word>,
    waiting_bytes: usize,
    /// Number and bytes of the largest message, of several the last, since nothing waited.
    largest: u64,
    largest_bytes: usize,
    /// Frames that wait, and what the pool is charged of them for those of the connection's own.
    waiting_frames: usize,
    own_bytes: usize,
    /// The socket took no more, and since then there has always been something waiting.
    blocked: bool,
    /// When it took no more, if it has taken nothing since.
    stuck_ms: Option<u64>,
    /// What the client has sent and is not done with, as far as it is charged, and since when it
    /// has not got on.
    brought: usize,
    brought_ms: u64,
    /// It is to go for want of memory, and has not let go yet of what it held.
    goes: bool,
    /// It counts in the gateway's `Pressure`.
    presses: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// A frame did not fit; the connection has yet to notice.
    Overrun,
    Closed,
}

/// What [`Outbox::take`] found.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) words: VecDeque<Word>,
    pub(crate) frames: VecDeque<Timed>,
    /// The queue was full; nothing is queued any more.
    pub(crate) overrun: bool,
    /// What it holds is needed for others.
    pub(crate) goes: bool,
}

impl Outbox {
    pub(crate) fn new(subprotocol: Subprotocol, shared: Arc<QueueShared>) -> Self {
        Self {
            subprotocol,
            connection: AtomicU64::new(0),
            queue: Mutex::default(),
            reader: AtomicWaker::new(),
            shared,
        }
    }

    pub(crate) fn subprotocol(&self) -> Subprotocol {
        self.subprotocol
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    pub(crate) fn shared(&self) -> &QueueShared {
        &self.shared
    }

    /// Says what became of a message that was queued here.
    #[inline]
    pub(crate) fn settle(&self, ticket: Ticket, outcome: Outcome) {
        self.shared.settled.add(ticket, outcome);
    }

    /// A message that was queued here is with the socket, since now if it is traced.
    pub(crate) fn reached(&self, ticket: Ticket, wall_us: impl FnOnce() -> u64) {
        if ticket.is_traced() {
            self.shared.settled.add_time(ticket, wall_us());
        }
        self.settle(ticket, Outcome::Reached);
    }

    pub(crate) fn set_connection(&self, connection: ConnectionId) {
        self.connection.store(connection.0, Ordering::Relaxed);
    }

    pub(crate) fn connection(&self) -> ConnectionId {
        ConnectionId(self.connection.load(Ordering::Relaxed))
    }

    /// Queues a frame that was counted as served; what it takes is written in this order. `number`
    /// is its message's, the same for all who get it. Whether it was queued, which the pool is to
    /// be told.
    #[inline]
    pub(crate) fn write(&self, number: u64, frame: Timed) -> bool {
        let mut queue = self.lock();
        let len = frame.bytes.len();
        let fits = queue.state == State::Open && queue.fits(len, self.shared.bytes_max);
        if fits {
            queue.waiting_bytes += len;
            queue.waiting_frames += 1;
            if len >= queue.largest_bytes {
                (queue.largest, queue.largest_bytes) = (number, len);
            }
            queue.frames.push_back(frame);
            self.telemetry().waiting.add(1);
            if queue.waiting_bytes > self.shared.bytes_max && !queue.blocked && !queue.presses {
                queue.presses = true;
                self.shared.pressure.add();
            }
        } else {
            self.refuse(&mut queue, frame.ticket);
        }
        drop(queue);
        self.reader.wake();
        fits
    }

    /// A frame that does not fit ends the connection; it and what waits is dropped.
    #[cold]
    fn refuse(&self, queue: &mut Queue, ticket: Ticket) {
        if queue.state == State::Open {
            queue.state = State::Overrun;
            let dropped = std::mem::take(&mut queue.frames);
            self.shared.pool.seen(dropped.len());
            queue.waiting_bytes -= bytes(&dropped);
            queue.waiting_frames -= dropped.len();
            self.telemetry().waiting.sub(dropped.len() as u64);
            self.telemetry().dropped_slow.add(dropped.len() as u64);
            dropped.iter().for_each(|frame| self.settle(frame.ticket, Outcome::Full));
        }
        match queue.state {
            State::Closed => {
                self.telemetry().dropped_closed.add(1);
                self.settle(ticket, Outcome::Gone);
            }
            _ => {
                self.telemetry().dropped_slow.add(1);
                self.settle(ticket, Outcome::Full);
            }
        }
    }

    /// Says a word to the session.
    pub(crate) fn say(&self, word: Word) {
        let mut queue = self.lock();
        if queue.state != State::Closed {
            queue.words.push_back(word);
        }
        drop(queue);
        self.reader.wake();
    }

    /// Wakes this task when there is something to take.
    pub(crate) fn register(&self, waker: &Waker) {
        self.reader.register(waker);
    }

    /// Everything that was queued. The frames go on counting as waiting until they are
    /// [released](Self::release).
    pub(crate) fn take(&self) -> Taken {
        let mut queue = self.lock();
        let overrun = queue.state == State::Overrun;
        let goes = queue.goes;
        self.shared.pool.seen(queue.frames.len());
        Taken {
            words: std::mem::take(&mut queue.words),
            frames: std::mem::take(&mut queue.frames),
            overrun,
            goes,
        }
    }

    /// Bytes that wait.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.lock().waiting_bytes
    }

    /// Counts bytes of the connection's own (answers, pongs) as waiting; whether they fit.
    pub(crate) fn charge(&self, len: usize) -> bool {
        let mut queue = self.lock();
        let fits = queue.fits(len, self.shared.bytes_max);
        queue.waiting_bytes += len;
        queue.waiting_frames += 1;
        queue.own_bytes += ENTRY_BYTES + len;
        self.shared.pool.take(ENTRY_BYTES + len);
        fits
    }

    /// The socket takes no more of what waits.
    pub(crate) fn block(&self, now_ms: u64) {
        let mut queue = self.lock();
        queue.blocked = queue.waiting_bytes > 0;
        queue.stuck_ms.get_or_insert(now_ms);
        self.ease(&mut queue);
    }

    /// Messages and bytes were written, or given up: they wait no more.
    pub(crate) fn release(&self, left: Left) {
        self.telemetry().waiting.sub(left.messages);
        if left.bytes == 0 {
            return;
        }
        let mut queue = self.lock();
        debug_assert!(queue.waiting_bytes >= left.bytes, "only what was queued is released");
        queue.waiting_bytes -= left.bytes;
        queue.waiting_frames -= left.frames;
        queue.stuck_ms = None;
        let own = left.own.frames * ENTRY_BYTES + left.own.bytes;
        queue.own_bytes -= own;
        self.shared.pool.give(own);
        if queue.waiting_bytes == 0 {
            queue.blocked = false;
            queue.largest_bytes = 0;
            self.ease(&mut queue);
        }
    }

    /// Takes nothing more. What is still queued comes back, to be written or counted as dropped.
    pub(crate) fn close(&self) -> VecDeque<Timed> {
        let mut queue = self.lock();
        queue.state = State::Closed;
        queue.words.clear();
        self.ease(&mut queue);
        self.shared.pool.seen(queue.frames.len());
        std::mem::take(&mut queue.frames)
    }

    /// The client has sent so much that is not done with, beyond what each may. It has got on if a
    /// message `has_ended` since it last had, or something was taken; a part of one does not count,
    /// else it could be held for ever a byte at a time.
    pub(crate) fn bring(&self, bytes: usize, has_ended: bool, now_ms: u64) {
        let mut queue = self.lock();
        if queue.brought == 0 || has_ended || bytes < queue.brought {
            queue.brought_ms = now_ms;
        }
        self.shared.pool.take(bytes);
        self.shared.pool.give(std::mem::replace(&mut queue.brought, bytes));
    }

    /// What it holds that does not get on, if that is more than it may in any case.
    pub(crate) fn stuck(&self) -> Option<Stuck> {
        let queue = self.lock();
        if queue.goes {
            return None;
        }
        let waiting = queue.waiting_bytes + queue.waiting_frames * ENTRY_BYTES;
        let waiting = queue.stuck_ms.filter(|_| queue.blocked).map(|since| (since, waiting));
        let brought = (queue.brought > 0).then_some((queue.brought_ms, queue.brought));
        let bytes = waiting.iter().chain(&brought).map(|(_, bytes)| bytes).sum();
        let since_ms = waiting.iter().chain(&brought).map(|(since_ms, _)| *since_ms).min()?;
        let largest = queue.largest;
        (bytes > self.shared.pool.least()).then_some(Stuck { since_ms, bytes, largest })
    }

    /// Has the connection ended: what it holds is needed for others.
    pub(crate) fn send_away(&self) {
        let mut queue = self.lock();
        if !std::mem::replace(&mut queue.goes, true) {
            self.shared.pool.goes();
        }
        drop(queue);
        self.reader.wake();
    }

    /// What it held is given back, if it was to be [sent away](Self::send_away).
    pub(crate) fn gone(&self) {
        if std::mem::take(&mut self.lock().goes) {
            self.shared.pool.went();
        }
    }

    fn ease(&self, queue: &mut Queue) {
        if std::mem::take(&mut queue.presses) {
            self.shared.pressure.ease();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under the lock but the assertion above.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    /// Nobody is left to write what there was of the connection's own.
    fn drop(&mut self) {
        let mut queue = self.lock();
        self.shared.pool.give(std::mem::take(&mut queue.own_bytes) + queue.brought);
        drop(queue);
        self.gone();
    }
}

/// Bytes of these frames.
pub(crate) fn bytes(frames: &VecDeque<Timed>) -> usize {
    frames.iter().map(|frame| frame.bytes.len()).sum()
}

impl Queue {
    /// A frame that finds nothing waiting is taken whatever its size, else one larger than the
    /// bound could never be delivered; and so is one whose socket may still take all that waits.
    fn fits(&self, len: usize, bytes_max: usize) -> bool {
        !self.blocked || self.waiting_bytes.saturating_add(len) <= bytes_max
    }
}

#[cfg(test)]
#[path = "transports_tests.rs"]
mod tests;
