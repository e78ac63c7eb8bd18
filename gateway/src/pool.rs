//! The memory that all connections of a gateway share.
//!
//! What waits to be written is charged by what it takes: an encoded message once, however many
//! queues have it, and a little for each place that it has in a queue. So is what clients have sent
//! of a long message that is not whole. While more is held than there should be nothing further is
//! taken from brokers or clients, and once all connections have looked at their queues those that
//! have not got on for the longest are ended (`shortage.rs`), until enough is given back. For a
//! moment nearly every reader's socket is full, so within the first second of a shortage, and while
//! no more is held than should be, nobody goes who has got on within a second. So it is the slow
//! ones who pay for it, and the others wait for tasks of this process and for that second, never
//! for a socket (promise 6).
//!
//! Each connection may hold a little in any case: where all do, half of the pool is left.

use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::telemetry::Telemetry;

/// Bytes that a place in a queue is counted with, besides the message: an entry of 64 or 72 in
/// rings that are at least a quarter full, and of an answer its own buffer.
pub(crate) const ENTRY_BYTES: usize = 320;

/// See the module. Relaxed everywhere: it guards an amount, not other memory.
#[derive(Debug)]
pub(crate) struct Pool {
    most: usize,
    least: usize,
    /// Of images, of answers of connections' own, and of what clients have sent.
    bytes: AtomicUsize,
    /// Connections that were told to go and have not given back yet what they held.
    going: AtomicUsize,
    /// Messages in queues whose connections have not looked at them: a burst is no shortage yet.
    /// Told of in batches, so it may be below zero.
    unseen: AtomicIsize,
    waiting: Mutex<Waiting>,
    /// Somebody waits.
    wanted: Notify,
    /// Knows how many messages wait.
    telemetry: Arc<Telemetry>,
}

/// Connections that are not read until there is room.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Waker>,
    /// How often those that waited were woken, and one more.
    round: u64,
}

impl Pool {
    pub(crate) fn new(most: usize, connections: usize, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let (bytes, going, unseen) = Default::default();
        let least = most / 2 / connections.max(1);
        let waiting = Mutex::new(Waiting { wakers: Vec::new(), round: 1 });
        let wanted = Notify::new();
        Arc::new(Self { most, least, bytes, going, unseen, waiting, wanted, telemetry })
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        let waiting = usize::try_from(self.telemetry.waiting.value()).unwrap_or(usize::MAX);
        self.bytes.load(Ordering::Relaxed).saturating_add(waiting.saturating_mul(ENTRY_BYTES))
    }

    /// Whether that is more than it should be.
    pub(crate) fn is_over(&self) -> bool {
        self.held() > self.most
    }

    /// Whether there is some room again after a shortage.
    pub(crate) fn has_room(&self) -> bool {
        self.excess() == 0
    }

    /// Bytes that are to be given back: then there is some room again.
    pub(crate) fn excess(&self) -> usize {
        self.held().saturating_sub(self.most - self.most / 8)
    }

    /// What each connection may hold, however little there is.
    pub(crate) fn least(&self) -> usize {
        self.least
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give(&self, bytes: usize) {
        // Most writes are of shared messages alone, and all tasks share this line.
        if bytes == 0 {
            return;
        }
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "gave {bytes} of {before} back");
    }

    /// A connection was told to go.
    pub(crate) fn goes(&self) {
        self.going.fetch_add(1, Ordering::AcqRel);
    }

    /// It has given back what it held.
    pub(crate) fn went(&self) {
        self.going.fetch_sub(1, Ordering::AcqRel);
    }

    /// Has this task woken when there is room; `round` is the caller's, 0 at first, and says that
    /// it waits already.
    pub(crate) fn wait(&self, round: &mut u64, waker: &Waker) {
        let mut waiting = self.waiting();
        if *round != waiting.round {
            *round = waiting.round;
            waiting.wakers.push(waker.clone());
            self.wanted.notify_one();
        }
    }

    /// Waits until somebody waits.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Wakes those that wait, if there is room.
    pub(crate) fn ease(&self) {
        let mut waiting = self.waiting();
        if !waiting.wakers.is_empty() && !self.is_over() {
            waiting.round += 1;
            std::mem::take(&mut waiting.wakers).into_iter().for_each(Waker::wake);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A waker that panics leaves the list as it should be.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many messages were queued.
    pub(crate) fn came(&self, messages: usize) {
        self.unseen.fetch_add(messages.cast_signed(), Ordering::AcqRel);
    }

    /// Their connections have looked at so many, or they were given up.
    pub(crate) fn seen(&self, messages: usize) {
        if messages > 0 {
            self.unseen.fetch_sub(messages.cast_signed(), Ordering::AcqRel);
        }
    }

    /// Whether what is held says who holds it up: all queues were looked at, and whoever was told
    /// to go has let go of what it held.
    pub(crate) fn is_settled(&self) -> bool {
        self.going.load(Ordering::Acquire) == 0 && self.unseen.load(Ordering::Acquire) <= 0
    }
}

/// An encoded message, or the beginning of one, charged for its room as long as anybody has it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    charged: usize,
    pool: Arc<Pool>,
}

impl Image {
    /// These bytes, which do not grow any more beyond the room they have.
    pub(crate) fn new(bytes: Vec<u8>, pool: &Arc<Pool>) -> Self {
        let charged = bytes.capacity();
        pool.take(charged);
        Self { bytes, charged, pool: Arc::clone(pool) }
    }

    /// To be shared, from this byte on.
    pub(crate) fn share(self, start: usize) -> Bytes {
        debug_assert_eq!(self.charged, self.bytes.capacity(), "it has grown");
        Bytes::from_owner(self).slice(start..)
    }
}

impl AsRef<[u8]> for Image {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.pool.give(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Arc<Pool> {
        Pool::new(800, 4, Arc::default())
    }

    #[test]
    fn promise_7_a_message_is_charged_once_and_until_nobody_has_it() {
        let pool = pool();
        let first = Image::new(vec![7; 500], &pool).share(100);
        let second = first.clone();
        assert_eq!((first.len(), pool.held()), (400, 500));
        drop(first);
        assert_eq!(pool.held(), 500);
        drop(second);
        assert_eq!(pool.held(), 0);
        pool.telemetry.waiting.add(3);
        assert_eq!((pool.held(), pool.is_over()), (3 * ENTRY_BYTES, true));
    }
}
