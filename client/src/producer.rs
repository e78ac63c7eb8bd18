//! The producer: publishes go out, receipts come back.
//!
//! [`Producer`] is a cheap handle to the task that owns the socket; clone it freely. What is not
//! settled is bounded twice, in publishes and in bytes, before it is queued: a permit of each
//! travels with a publish and comes back with its outcome. So no queue behind the handle can
//! overflow.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot, watch};
use waybill_wire::code::{ErrorCode, Role};

use crate::connection::{Connection, Control, Identity};
use crate::error::{ConnectError, InvalidPublish, PublishError};
use crate::link::{LinkError, LinkState};
use crate::options::{Options, OptionsError};
use crate::outlet::Outlet;
use crate::publish::Publish;
use crate::receipt::{Progress, Receipt};
use crate::tags::{TagChange, Tagging};
use crate::wall::Wall;

mod cut;
mod encode;
pub(crate) mod job;
mod machine;
mod request;
mod resend;
#[cfg(test)]
mod tests;
// Public where the simulator drives it.
#[cfg_attr(not(feature = "sim"), allow(unreachable_pub))]
pub mod window;

use machine::Outcome;
pub(crate) use machine::{Bounds, Order, ProducerEvent, ProducerMachine};
pub(crate) use request::Request;

/// A producer link. Sequences rise from 1 through every reconnect.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: mpsc::Sender<Vec<Order<Reply>>>,
    control: Control,
    instance: u64,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    refusals: Arc<AtomicU64>,
}

/// Where an outcome goes, with the room the publish takes until then.
#[derive(Debug)]
struct Reply {
    outcome: oneshot::Sender<Outcome>,
    /// Whoever watches how far it comes.
    progress: Option<watch::Sender<Progress>>,
    _room: Room,
}

impl job::Reply for Reply {
    fn progress(&mut self, progress: Progress) {
        if let Some(watched) = &self.progress {
            watched.send_replace(progress);
        }
    }
}

#[derive(Debug)]
struct Room {
    _slot: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// The outcome of a publish that is under way. Dropping it loses the outcome, not the publish.
#[derive(Debug)]
#[must_use = "the outcome is lost if nobody awaits it"]
pub struct PendingReceipt {
    outcome: oneshot::Receiver<Outcome>,
}

impl Producer {
    /// Connects: tries every broker once and waits for the first WELCOME. Later it reconnects by
    /// itself.
    ///
    /// # Errors
    ///
    /// An option that cannot work, or the last broker's answer: not reachable, wrong credential, no
    /// common version.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn connect(options: Options) -> Result<Self, ConnectError> {
        let brokers = options.brokers.len();
        let producer = Self::start(options)?;
        producer.inner.control.opened(brokers).await?;
        Ok(producer)
    }

    /// Starts without waiting: publishes are kept until the link is open.
    ///
    /// # Errors
    ///
    /// An option that cannot work.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(options: Options) -> Result<Self, OptionsError> {
        options.check()?;
        let instance = rand::random_range(1..=u64::MAX);
        let identity = Identity { role: Role::PRODUCER, instance };
        let bounds = Bounds {
            in_flight_max: options.max_in_flight,
            resend_within: options.resend_within,
            publish_timeout: options.publish_timeout,
        };
        let machine = ProducerMachine::new(instance, bounds);
        let slots = Arc::new(Semaphore::new(options.max_in_flight));
        let bytes_max = options.max_pending_bytes;
        let bytes = Arc::new(Semaphore::new(bytes_max));
        // As many commands as slots: sending never has to wait.
        let (commands, inbox) = mpsc::channel(options.max_in_flight);
        let refusals = Arc::new(AtomicU64::new(0));
        let outlet = Replies { refusals: Arc::clone(&refusals) };
        let control = Connection::start(options, identity, machine, inbox, outlet)?;
        let inner = Inner { commands, control, instance, slots, bytes, bytes_max, refusals };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Publishes and waits for the receipt. A list of any length is fine: it is cut into parts and
    /// their receipts are summed. While the link is open and the bounds are reached this waits for
    /// room.
    ///
    /// What was on its way when a link died is sent again on the next one, at the same broker or
    /// another, within [`Options::resend_within`]; else its targets are `unknown` in the receipt. A
    /// publish that was not yet written stays queued for the next link. To a broker that is not
    /// ready nothing is sent: another one of the list is tried, or this one waited for.
    ///
    /// # Errors
    ///
    /// [`PublishError::Invalid`], [`PublishError::Overloaded`] (only while the link is not open),
    /// [`PublishError::Refused`] by the broker, [`PublishError::TimedOut`] if it could not be sent
    /// within [`Options::publish_timeout`], [`PublishError::Closed`].
    pub async fn publish(&self, publish: Publish) -> Result<Receipt, PublishError> {
        let room = self.inner.room(&publish).await?;
        let (order, receipt) = order_of(publish, room, None);
        self.inner.queue(vec![order])?;
        receipt.await
    }

    /// Makes these changes to the tags of each of these users, in their order, and waits until they
    /// are in effect: what this broker receives from then on is decided by them, for each user that
    /// the receipt counts in `sent` (TAG-18). A list of any length is fine. Users that are offline
    /// get no tag, and a tag given so lasts as long as the login of its user (TAG-14).
    ///
    /// What was on its way when a link died is made again on the next one within
    /// [`Options::resend_within`]: made twice, a change changes nothing. Else its users are
    /// `unknown` in the receipt.
    ///
    /// # Errors
    ///
    /// [`PublishError::TagsNotSupported`] if the broker runs no tags; [`PublishError::InvalidTags`]
    /// for what the protocol does not allow; else as [`publish`](Self::publish).
    pub async fn tag(
        &self,
        namespace: u32,
        uids: impl Into<Vec<u64>>,
        changes: impl Into<Vec<TagChange>>,
    ) -> Result<Receipt, PublishError> {
        let tagging = Tagging { namespace, uids: uids.into(), changes: changes.into() };
        tagging.check()?;
        let room = self.inner.room_for(tagging.pending_bytes()).await?;
        let (order, receipt) = order(Request::Tags(tagging), None, room, None);
        self.inner.queue(vec![order])?;
        match receipt.await {
            Err(PublishError::Refused { code: ErrorCode::NOT_SUPPORTED }) => {
                Err(PublishError::TagsNotSupported)
            }
            outcome => outcome,
        }
    }

    /// As [`publish`](Self::publish), for long lists: how far it has come can be watched meanwhile.
    /// Nothing is sent before the outcome is awaited.
    pub fn publish_watched(
        &self,
        publish: Publish,
    ) -> (watch::Receiver<Progress>, impl Future<Output = Result<Receipt, PublishError>>) {
        let (progress, watched) = watch::channel(Progress::default());
        let outcome = async move {
            let room = self.inner.room(&publish).await?;
            let (order, receipt) = order_of(publish, room, Some(progress));
            self.inner.queue(vec![order])?;
            receipt.await
        };
        (watched, outcome)
    }

    /// Publishes and returns at once; the outcome comes later.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), but [`PublishError::Overloaded`] whenever a bound is reached.
    pub fn send(&self, publish: Publish) -> Result<PendingReceipt, PublishError> {
        let room = self.inner.try_room(&publish)?;
        let (order, receipt) = order_of(publish, room, None);
        self.inner.queue(vec![order])?;
        Ok(receipt)
    }

    /// As [`send`](Self::send), and how far it has come can be watched meanwhile.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_watched(
        &self,
        publish: Publish,
    ) -> Result<(watch::Receiver<Progress>, PendingReceipt), PublishError> {
        let room = self.inner.try_room(&publish)?;
        let (progress, watched) = watch::channel(Progress::default());
        let (order, receipt) = order_of(publish, room, Some(progress));
        self.inner.queue(vec![order])?;
        Ok((watched, receipt))
    }

    /// Publishes many at once: they go out together, in order, in as few writes as their bytes
    /// allow. One outcome for each, in the same order. Waits for room as
    /// [`publish`](Self::publish).
    pub async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt, PublishError>> {
        let mut pending = Vec::with_capacity(batch.len());
        let mut orders = Vec::with_capacity(batch.len());
        for publish in batch {
            let room = match self.inner.try_room(&publish) {
                Err(PublishError::Overloaded { .. }) => {
                    // What waits here holds the room that is waited for: it has to go first.
                    match self.inner.queue(std::mem::take(&mut orders)) {
                        Ok(()) => self.inner.room(&publish).await,
                        Err(error) => Err(error),
                    }
                }
                taken => taken,
            };
            pending.push(room.map(|room| {
                let (order, receipt) = order_of(publish, room, None);
                orders.push(order);
                receipt
            }));
        }
        // If the link is gone its orders are dropped here, and their receipts say so.
        let _gone = self.inner.queue(orders);
        let mut outcomes = Vec::with_capacity(pending.len());
        for receipt in pending {
            outcomes.push(match receipt {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    /// The random number of this producer's life, first half of its message ids.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.inner.instance
    }

    /// Publishes of level none that a broker refused after they were settled.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.inner.refusals.load(Ordering::Relaxed)
    }

    /// The link's state now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.inner.control.state()
    }

    /// The link's state, to be watched.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.inner.control.watch()
    }

    /// Takes no more publishes, waits until all are settled, says DRAIN, closes; at the latest
    /// after
    /// [`Options::close_timeout`](crate::Options::close_timeout). Dropping the last handle does the
    /// same in the background.
    pub async fn close(&self) {
        self.inner.control.close().await;
    }
}

impl Inner {
    /// Bytes `publish` takes, if it is allowed at all.
    fn check(&self, publish: &Publish) -> Result<u32, PublishError> {
        publish.check()?;
        self.check_bytes(publish.pending_bytes())
    }

    /// Whether there can ever be room for so many bytes.
    fn check_bytes(&self, bytes: usize) -> Result<u32, PublishError> {
        let max = self.bytes_max;
        let wrong = InvalidPublish::PendingBytes { bytes, max };
        match u32::try_from(bytes) {
            Ok(count) if bytes <= max => Ok(count),
            _ => Err(wrong.into()),
        }
    }

    fn try_room(&self, publish: &Publish) -> Result<Room, PublishError> {
        let bytes = self.check(publish)?;
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let slot = slot.map_err(|error| self.no_room("max_in_flight", &error))?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        let bytes = bytes.map_err(|error| self.no_room("max_pending_bytes", &error))?;
        Ok(Room { _slot: slot, _bytes: bytes })
    }

    async fn room(&self, publish: &Publish) -> Result<Room, PublishError> {
        publish.check()?;
        self.room_for(publish.pending_bytes()).await
    }

    async fn room_for(&self, bytes: usize) -> Result<Room, PublishError> {
        let bytes = self.check_bytes(bytes)?;
        let slot = self.acquire("max_in_flight", &self.slots, 1).await?;
        let bytes = self.acquire("max_pending_bytes", &self.bytes, bytes).await?;
        Ok(Room { _slot: slot, _bytes: bytes })
    }

    /// Waits for room as long as the link is open: then receipts make some.
    async fn acquire(
        &self,
        limit: &'static str,
        room: &Arc<Semaphore>,
        count: u32,
    ) -> Result<OwnedSemaphorePermit, PublishError> {
        let taken = Arc::clone(room).try_acquire_many_owned(count);
        let Err(full) = taken else { return taken.map_err(|e| self.no_room(limit, &e)) };
        let mut state = self.control.watch();
        let closed = state.wait_for(|state| !matches!(state, LinkState::Open(_)));
        tokio::select! {
            biased;
            taken = Arc::clone(room).acquire_many_owned(count) => {
                taken.map_err(|_| PublishError::Closed(self.control.failure()))
            }
            _ = closed => Err(self.no_room(limit, &full)),
        }
    }

    fn no_room(&self, limit: &'static str, error: &TryAcquireError) -> PublishError {
        match (error, self.control.is_over()) {
            (TryAcquireError::NoPermits, false) => PublishError::Overloaded { limit },
            _ => PublishError::Closed(self.control.failure()),
        }
    }

    fn queue(&self, orders: Vec<Order<Reply>>) -> Result<(), PublishError> {
        if orders.is_empty() {
            return Ok(());
        }
        match self.commands.try_send(orders) {
            Ok(()) => Ok(()),
            Err(error) => {
                debug_assert!(!matches!(error, mpsc::error::TrySendError::Full(_)));
                let failure = self.control.failure();
                for order in error.into_inner() {
                    settle(order.reply, Err(PublishError::Closed(failure.clone())));
                }
                Err(PublishError::Closed(failure))
            }
        }
    }
}

/// The order of a publish.
fn order_of(
    publish: Publish,
    room: Room,
    progress: Option<watch::Sender<Progress>>,
) -> (Order<Reply>, PendingReceipt) {
    let wall = publish.trace.map(|_| Wall::now());
    order(publish.into(), wall, room, progress)
}

fn order(
    mut request: Request,
    wall: Option<Wall>,
    room: Room,
    progress: Option<watch::Sender<Progress>>,
) -> (Order<Reply>, PendingReceipt) {
    request.name_each_once();
    let (outcome, receiver) = oneshot::channel();
    let reply = Reply { outcome, progress, _room: room };
    (Order { request, reply, wall }, PendingReceipt { outcome: receiver })
}

/// Tells the outcome and gives the room back. Whoever asked may have stopped waiting.
fn settle(reply: Reply, outcome: Outcome) {
    let _nobody_waits = reply.outcome.send(outcome);
}

impl Future for PendingReceipt {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = std::task::ready!(Pin::new(&mut self.outcome).poll(context));
        // The task settles what it has before it ends; this is a runtime that was shut down.
        Poll::Ready(outcome.unwrap_or(Err(PublishError::Closed(None::<LinkError>))))
    }
}

/// Outcomes go to whoever waits; that never blocks.
#[derive(Debug)]
struct Replies {
    refusals: Arc<AtomicU64>,
}

impl Outlet<ProducerEvent<Reply>> for Replies {
    fn offer(&mut self, event: ProducerEvent<Reply>) -> Result<(), ProducerEvent<Reply>> {
        match event {
            ProducerEvent::Settled { reply, outcome } => settle(reply, outcome),
            ProducerEvent::Refused { sequence, code } => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(sequence, %code, "a publish of level none was refused");
            }
        }
        Ok(())
    }

    async fn room(&mut self) {}

    fn is_gone(&self) -> bool {
        false
    }
}
