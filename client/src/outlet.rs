//! Where a machine's events go: to the application, which may be slow.
//!
//! The connection offers one event at a time and does not read the socket while one is refused. A
//! queue to a stream is bounded in events and in bytes; both are given back as the stream hands the
//! event out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Takes events as long as it has room.
pub(crate) trait Outlet<E>: Send {
    /// Takes the event, or gives it back for lack of room.
    fn offer(&mut self, event: E) -> Result<(), E>;

    /// Waits until the event that was refused last may be taken.
    fn room(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether nobody takes events any more.
    fn is_gone(&self) -> bool;
}

/// What an event keeps in memory while it waits.
pub(crate) trait Weight {
    /// Bytes beyond the event itself.
    fn bytes(&self) -> usize;
}

/// An event and the room it takes.
#[derive(Debug)]
struct Queued<E> {
    event: E,
    _room: OwnedSemaphorePermit,
}

/// The connection's end of a queue.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    events: mpsc::Sender<Queued<E>>,
    room: Arc<Semaphore>,
    bytes_max: u32,
    /// Bytes of the event that was refused last.
    wanted: u32,
}

/// The stream's end of a queue.
#[derive(Debug)]
pub(crate) struct Queuing<E> {
    events: mpsc::Receiver<Queued<E>>,
}

/// Room for one event.
#[derive(Debug)]
pub(crate) struct Slot<'a, E> {
    slot: mpsc::Permit<'a, Queued<E>>,
    room: OwnedSemaphorePermit,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    Full,
    Gone,
}

/// A queue of at most `events_max` events and `bytes_max` bytes of them, which is within
/// [`COUNT_MAX`](crate::COUNT_MAX).
pub(crate) fn queue<E>(events_max: usize, bytes_max: usize) -> (Queue<E>, Queuing<E>) {
    let (sender, receiver) = mpsc::channel(events_max);
    let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(bytes_max as usize));
    (Queue { events: sender, room, bytes_max, wanted: 1 }, Queuing { events: receiver })
}

impl<E> Queue<E> {
    /// Room for an event of so many bytes. One that is larger than the queue takes all of it.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<Slot<'_, E>, NoSlot> {
        self.wanted = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.bytes_max);
        let slot = match self.events.try_reserve() {
            Ok(slot) => slot,
            Err(mpsc::error::TrySendError::Full(())) => return Err(NoSlot::Full),
            Err(mpsc::error::TrySendError::Closed(())) => return Err(NoSlot::Gone),
        };
        match Arc::clone(&self.room).try_acquire_many_owned(self.wanted) {
            Ok(room) => Ok(Slot { slot, room }),
            Err(_) => Err(NoSlot::Full),
        }
    }

    /// Waits until what was refused last may be reserved.
    pub(crate) async fn freed(&mut self) {
        // What is reserved is given back at once. If another connection takes it meanwhile the next
        // offer is refused, and this is waited for again; a receiver that is gone fails the first
        // wait, and the next offer says so.
        if self.events.reserve().await.is_ok() {
            tokio::select! {
                _room = self.room.acquire_many(self.wanted) => {}
                () = self.events.closed() => {}
            }
        }
    }

    /// Another end of the same queue, for another connection.
    pub(crate) fn another(&self) -> Self {
        let (events, room) = (self.events.clone(), Arc::clone(&self.room));
        Self { events, room, bytes_max: self.bytes_max, wanted: 1 }
    }

    /// Waits until the stream is gone.
    pub(crate) async fn abandoned(&self) {
        self.events.closed().await;
    }

    /// Whether the stream is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }
}

impl<E> Slot<'_, E> {
    pub(crate) fn send(self, event: E) {
        self.slot.send(Queued { event, _room: self.room });
    }
}

impl<E> Queuing<E> {
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<E>> {
        Pin::new(&mut self.events).poll_recv(context).map(|queued| queued.map(|q| q.event))
    }
}

impl<E: Weight + Send> Outlet<E> for Queue<E> {
    fn offer(&mut self, event: E) -> Result<(), E> {
        match self.reserve(event.bytes()) {
            Ok(slot) => slot.send(event),
            Err(NoSlot::Full) => return Err(event),
            Err(NoSlot::Gone) => {}
        }
        Ok(())
    }

    async fn room(&mut self) {
        self.freed().await;
    }

    fn is_gone(&self) -> bool {
        self.is_abandoned()
    }
}
