//! The consumer: a backend that receives what users send.
//!
//! [`Consumer`] is the handle, [`Uplinks`] the stream of [`UplinkMessage`]s. Each message holds a
//! place in the queue of answers from the moment it is handed out, so answering never waits and
//! never fails; a backend that answers slowly is simply read more slowly.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{mpsc, watch};
use waybill_wire::code::{ErrorClass, ErrorCode, Role};
use waybill_wire::message::Content;

use crate::connection::{Connection, Control, Identity};
use crate::error::ConnectError;
use crate::link::LinkState;
use crate::options::{Options, OptionsError};
use crate::outlet::{NoSlot, Outlet, Queue, Queuing, Weight, queue};

mod machine;
#[cfg(test)]
mod tests;

use machine::Received;
pub(crate) use machine::{Answer, ConsumerMachine};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ack {
    /// A message is accepted when the stream hands it out.
    #[default]
    Auto,
    /// The application, by [`UplinkMessage::accept`] or [`UplinkMessage::refuse`].
    Manual,
}

/// What a consumer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ConsumerOptions {
    /// Who answers.
    pub ack: Ack,
}

/// A consumer link. Lives as long as its [`Uplinks`].
#[derive(Clone, Debug)]
pub struct Consumer {
    control: Control,
}

/// What users send, in order of arrival. Dropping it closes the link.
#[derive(Debug)]
pub struct Uplinks {
    messages: Queuing<UplinkMessage>,
    ack: Ack,
}

/// A message from a user. Dropped without an answer it is answered with `consumer_lost`: what
/// became of it is unknown.
#[derive(Debug)]
#[non_exhaustive]
pub struct UplinkMessage {
    /// The tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// The user's connection at its gateway.
    pub connection: u64,
    /// Incarnation of the gateway.
    pub origin: u64,
    /// The gateway's number for the message.
    pub sequence: u64,
    /// What it is about.
    pub labels: Vec<String>,
    /// What the payload is, and how it is compressed.
    pub content: Option<Content>,
    /// The message itself.
    pub payload: Bytes,
    answer: Option<Place>,
}

/// The place an answer has in the queue.
#[derive(Debug)]
struct Place {
    link: u64,
    permit: mpsc::OwnedPermit<Answer>,
}

impl Consumer {
    /// Connects: tries every broker once and waits for the first WELCOME. Later it reconnects by
    /// itself.
    ///
    /// # Errors
    ///
    /// An option that cannot work, or the last broker's answer.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn connect(
        options: Options,
        consumer: ConsumerOptions,
    ) -> Result<(Self, Uplinks), ConnectError> {
        let brokers = options.brokers.len();
        let (consumer, uplinks) = Self::start(options, consumer)?;
        consumer.control.opened(brokers).await?;
        Ok((consumer, uplinks))
    }

    /// Starts without waiting.
    ///
    /// # Errors
    ///
    /// An option that cannot work.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(
        options: Options,
        consumer: ConsumerOptions,
    ) -> Result<(Self, Uplinks), OptionsError> {
        options.check()?;
        let instance = rand::random_range(1..=u64::MAX);
        let identity = Identity { role: Role::CONSUMER, instance };
        let (answers, inbox) = mpsc::channel(options.max_in_flight);
        let (outlet, messages) = queue(options.max_in_flight, options.max_pending_bytes);
        let outlet = Messages { messages: outlet, answers };
        let machine = ConsumerMachine::default();
        let control = Connection::start(options, identity, machine, inbox, outlet)?;
        Ok((Self { control }, Uplinks { messages, ack: consumer.ack }))
    }

    /// The link's state now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.control.state()
    }

    /// The link's state, to be watched.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.control.watch()
    }

    /// Says DRAIN, waits for the answers to what was handed out, closes; at the latest after
    /// [`Options::close_timeout`](crate::Options::close_timeout).
    pub async fn close(&self) {
        self.control.close().await;
    }
}

impl Stream for Uplinks {
    type Item = UplinkMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut message = std::task::ready!(self.messages.poll(context));
        if let (Some(message), Ack::Auto) = (&mut message, self.ack) {
            message.answer(ErrorCode(0));
        }
        Poll::Ready(message)
    }
}

impl UplinkMessage {
    fn new(received: Received, permit: mpsc::OwnedPermit<Answer>) -> Self {
        let Received { link, origin, sequence, namespace, uid, connection, .. } = received;
        let Received { labels, content, payload, .. } = received;
        let answer = Some(Place { link, permit });
        Self { namespace, uid, connection, origin, sequence, labels, content, payload, answer }
    }

    /// Tells the gateway that the message is in good hands. Nothing happens if it was answered.
    pub fn accept(&mut self) {
        self.answer(ErrorCode(0));
    }

    /// Tells the gateway that the message is not taken, and why: a code of 301-499; any other is
    /// sent as `not_permitted`. Nothing happens if it was answered.
    pub fn refuse(&mut self, code: ErrorCode) {
        let allowed = matches!(code.class(), ErrorClass::Refused | ErrorClass::Overload);
        self.answer(if allowed { code } else { ErrorCode::NOT_PERMITTED });
    }

    /// Whether the message was answered.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answer.is_none()
    }

    fn answer(&mut self, code: ErrorCode) {
        let Self { origin, sequence, .. } = *self;
        if let Some(Place { link, permit }) = self.answer.take() {
            permit.send(Answer { link, origin, sequence, code });
        }
    }
}

impl Drop for UplinkMessage {
    /// The gateway waits for an answer: silence would leave it waiting as long as the link lives.
    fn drop(&mut self) {
        self.answer(ErrorCode::CONSUMER_LOST);
    }
}

/// Hands messages out, each with its place in the queue of answers.
#[derive(Debug)]
struct Messages {
    messages: Queue<UplinkMessage>,
    answers: mpsc::Sender<Answer>,
}

impl Outlet<Received> for Messages {
    fn offer(&mut self, event: Received) -> Result<(), Received> {
        // The slot first: a message that nobody takes must not hold a place.
        let slot = match self.messages.reserve(event.bytes()) {
            Ok(slot) => slot,
            Err(NoSlot::Full) => return Err(event),
            Err(NoSlot::Gone) => return Ok(()),
        };
        match self.answers.clone().try_reserve_owned() {
            Ok(permit) => slot.send(UplinkMessage::new(event, permit)),
            Err(mpsc::error::TrySendError::Full(_)) => return Err(event),
            // The link is closing: the broker tells the gateway that nobody took it.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
        Ok(())
    }

    async fn room(&mut self) {
        // Given back at once; the task is the only one that takes it.
        let _place = self.answers.reserve().await;
        self.messages.freed().await;
    }

    fn is_gone(&self) -> bool {
        self.messages.is_abandoned()
    }
}

impl Weight for Received {
    fn bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(String::len).sum();
        labels + self.payload.len()
    }
}
