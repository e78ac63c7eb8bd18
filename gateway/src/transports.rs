//! The seam between the hub and whatever carries messages to a client: write one, write many, close,
//! and a few words to the connection's session. No read: what a client says goes to the session.
//!
//! An [`Outbox`] is the hub's end of one connection. Its calls never wait and never block on a
//! socket, so no connection can hold up the hub or another connection (promise 6). It is bounded in
//! bytes; what does not fit ends the connection, and is counted.
//!
//! Invariant: `waiting_bytes` is the sum of what was queued and neither written nor given up.

pub(crate) mod origin;
pub(crate) mod upgrade;
pub(crate) mod websocket;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use waybill_wire::code::ErrorCode;

use crate::hub::{ConnectionId, LoginRefused};
use crate::subprotocol::Subprotocol;
use crate::telemetry::Telemetry;

/// What a session is told by the hub. Few at a time: one confirmation or refusal, one drain, and an
/// answer for each *send* the session lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Confirmed(ConnectionId),
    LoginRefused(LoginRefused),
    Answered { id: u32, code: ErrorCode },
    Drain { reconnect_after_ms: u32, close_in_ms: u64 },
}

/// The bounded queue of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    subprotocol: Subprotocol,
    bytes_max: usize,
    /// The connection's number, 0 before its login; written by the task that owns the hub.
    connection: AtomicU64,
    queue: Mutex<Queue>,
    reader: AtomicWaker,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    words: VecDeque<Word>,
    waiting_bytes: usize,
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
    pub(crate) frames: VecDeque<Bytes>,
    /// The queue was full; nothing is queued any more.
    pub(crate) overrun: bool,
}

impl Outbox {
    pub(crate) fn new(
        subprotocol: Subprotocol,
        bytes_max: usize,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            subprotocol,
            bytes_max,
            connection: AtomicU64::new(0),
            queue: Mutex::default(),
            reader: AtomicWaker::new(),
            telemetry,
        }
    }

    pub(crate) fn subprotocol(&self) -> Subprotocol {
        self.subprotocol
    }

    pub(crate) fn set_connection(&self, connection: ConnectionId) {
        self.connection.store(connection.0, Ordering::Relaxed);
    }

    pub(crate) fn connection(&self) -> ConnectionId {
        ConnectionId(self.connection.load(Ordering::Relaxed))
    }

    /// Queues a frame that was counted as served.
    pub(crate) fn write_one(&self, frame: Bytes) {
        self.write_many([frame]);
    }

    /// Queues frames that were counted as served; they are written in this order.
    pub(crate) fn write_many(&self, frames: impl IntoIterator<Item = Bytes>) {
        let mut queue = self.lock();
        for frame in frames {
            if queue.state == State::Open && queue.fits(frame.len(), self.bytes_max) {
                queue.waiting_bytes += frame.len();
                queue.frames.push_back(frame);
                continue;
            }
            if queue.state == State::Open {
                queue.state = State::Overrun;
                let dropped = std::mem::take(&mut queue.frames);
                queue.waiting_bytes -= dropped.iter().map(Bytes::len).sum::<usize>();
                self.telemetry.dropped_slow.add(dropped.len() as u64);
            }
            match queue.state {
                State::Closed => self.telemetry.dropped_closed.add(1),
                _ => self.telemetry.dropped_slow.add(1),
            }
        }
        drop(queue);
        self.reader.wake();
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
        Taken {
            words: std::mem::take(&mut queue.words),
            frames: std::mem::take(&mut queue.frames),
            overrun,
        }
    }

    /// Counts bytes of the connection's own (answers, pongs) as waiting; whether they fit.
    pub(crate) fn charge(&self, len: usize) -> bool {
        let mut queue = self.lock();
        let fits = queue.fits(len, self.bytes_max);
        queue.waiting_bytes += len;
        fits
    }

    /// Bytes were written, or given up.
    pub(crate) fn release(&self, len: usize) {
        let mut queue = self.lock();
        debug_assert!(queue.waiting_bytes >= len, "only what was queued is released");
        queue.waiting_bytes -= len;
    }

    /// Takes nothing more. What is still queued comes back, to be written or counted as dropped.
    pub(crate) fn close(&self) -> VecDeque<Bytes> {
        let mut queue = self.lock();
        queue.state = State::Closed;
        queue.words.clear();
        std::mem::take(&mut queue.frames)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under the lock but the assertion above.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// A frame that finds nothing waiting is taken whatever its size, else one larger than the bound
    /// could never be delivered.
    fn fits(&self, len: usize, bytes_max: usize) -> bool {
        self.waiting_bytes == 0 || self.waiting_bytes.saturating_add(len) <= bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> (Outbox, Arc<Telemetry>) {
        let telemetry = Arc::new(Telemetry::default());
        (Outbox::new(Subprotocol::Json, 100, Arc::clone(&telemetry)), telemetry)
    }

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![b'x'; len])
    }

    #[test]
    fn promise_7_bytes_are_bounded_until_written() {
        let (outbox, telemetry) = outbox();
        outbox.write_many([frame(60), frame(40)]);
        let taken = outbox.take();
        assert_eq!((taken.frames.len(), taken.overrun), (2, false));
        // Taken but not written: the bound still counts them.
        outbox.write_one(frame(1));
        assert!(outbox.take().overrun);
        assert_eq!(telemetry.dropped_slow.value(), 1);
    }

    #[test]
    fn what_waited_in_a_full_queue_is_dropped_and_counted() {
        let (outbox, telemetry) = outbox();
        outbox.write_many([frame(60), frame(40), frame(1), frame(1)]);
        let taken = outbox.take();
        assert!(taken.overrun && taken.frames.is_empty());
        assert_eq!(telemetry.dropped_slow.value(), 4);
        assert!(outbox.close().is_empty());
        outbox.write_one(frame(1));
        assert_eq!(telemetry.dropped_closed.value(), 1);
    }

    #[test]
    fn a_large_message_is_taken_by_an_empty_queue_only() {
        let (outbox, telemetry) = outbox();
        outbox.write_one(frame(5000));
        outbox.release(outbox.take().frames[0].len());
        outbox.write_one(frame(1));
        outbox.write_one(frame(5000));
        assert!(outbox.take().overrun);
        assert_eq!(telemetry.dropped_slow.value(), 2);
    }

    #[test]
    fn own_bytes_share_the_bound() {
        let (outbox, _) = outbox();
        assert!(outbox.charge(90));
        assert!(!outbox.charge(11));
        outbox.release(101);
        assert!(outbox.charge(500));
    }
}
