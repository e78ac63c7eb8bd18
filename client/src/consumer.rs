//! The consumer: a backend that receives what users send.
//!
//! [`Consumer`] is the handle, [`ConsumerEvents`] the stream. There is a link to every broker of
//! the list, and what they bring is merged: an uplink that comes a second time, because its gateway
//! lost a link, is not handed out again but answered as the first was. Each message holds a place
//! in the queue of answers of its link from the moment it is handed out, so answering never waits
//! and never fails; a backend that answers slowly is simply read more slowly.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;
use waybill_wire::code::{ErrorClass, ErrorCode};
use waybill_wire::limits::GROUP_BYTES_MAX;
use waybill_wire::message::Content;

use crate::connection::Control;
use crate::error::ConnectError;
use crate::finder::{Resolver, SystemResolver};
use crate::link::LinkState;
use crate::options::{Options, OptionsError};
use crate::outlet::Queuing;

mod event;
mod filters;
mod links;
mod machine;
mod merge;
mod recent;
#[cfg(feature = "sim")]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

pub use event::{ConsumerEvent, OfflineMessage, PresenceEvent};
pub use filters::Filter;
use filters::Filters;
pub use links::BrokerLink;
use machine::ReceivedUplink;
use merge::Merged;
pub use waybill_wire::limits::GROUPS_MAX;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ack {
    /// A message is accepted when the stream hands it out.
    #[default]
    Auto,
    /// The application, by [`UplinkMessage::accept`] or [`UplinkMessage::refuse`].
    Manual,
}

/// Consumers of one name share the users' messages of a namespace; each name gets all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The tenant.
    pub namespace: u32,
    /// 1 to `group_bytes_max` bytes.
    pub name: String,
}

/// What a consumer wants.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConsumerConfig {
    /// Who answers.
    pub ack: Ack,
    /// The group it is in, for each namespace it serves: one for a namespace, at most
    /// [`GROUPS_MAX`]. With none it is in the group without a name of every namespace it may see.
    pub groups: Vec<Group>,
    /// Whether it gets [`ConsumerEvent::Presence`].
    pub presence: bool,
    /// Whether it gets [`ConsumerEvent::Offline`].
    pub offline: bool,
    /// What it wants of all that it would get: in a namespace that is in this list, that for which
    /// one of the namespace's filters is true. [`Consumer::set_filters`] changes it.
    pub filters: Vec<Filter>,
}

impl ConsumerConfig {
    /// Whether this can work.
    ///
    /// # Errors
    ///
    /// What cannot, and why.
    pub fn check(&self) -> Result<(), OptionsError> {
        Filters::check(&self.filters)?;
        let wrong = |problem: String| Err(OptionsError { field: "groups", problem });
        let count = self.groups.len();
        if count > GROUPS_MAX {
            return wrong(format!("{count} groups, a link may be in {GROUPS_MAX}"));
        }
        for (index, Group { namespace, name }) in self.groups.iter().enumerate() {
            if !(1..=GROUP_BYTES_MAX).contains(&name.len()) {
                let bytes = name.len();
                return wrong(format!("{name:?}: {bytes} bytes are not in 1..={GROUP_BYTES_MAX}"));
            }
            if self.groups[..index].iter().any(|other| other.namespace == *namespace) {
                return wrong(format!("namespace {namespace} is there twice: one group for each"));
            }
        }
        Ok(())
    }
}

/// The links of a consumer. They live as long as its [`ConsumerEvents`].
#[derive(Clone, Debug)]
pub struct Consumer {
    control: Control,
    links: watch::Receiver<Vec<BrokerLink>>,
    filters: watch::Sender<Arc<Filters>>,
}

/// What a consumer receives, in order of arrival. Dropping it closes the links.
#[derive(Debug)]
pub struct ConsumerEvents {
    events: Queuing<ConsumerEvent>,
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
    /// Where the answer goes.
    merged: Option<Merged>,
}

impl Consumer {
    /// Connects: tries every broker once and waits for the first WELCOME. Later it reconnects by
    /// itself.
    ///
    /// # Errors
    ///
    /// An option that cannot work, or a broker's answer if none said WELCOME.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn connect(
        options: Options,
        config: ConsumerConfig,
    ) -> Result<(Self, ConsumerEvents), ConnectError> {
        let (consumer, events) = Self::start(options, config)?;
        consumer.control.opened(1).await?;
        Ok((consumer, events))
    }

    /// Starts without waiting: a link to each broker of the list.
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
        config: ConsumerConfig,
    ) -> Result<(Self, ConsumerEvents), OptionsError> {
        Self::start_with(options, config, Arc::new(SystemResolver))
    }

    /// The same, with a resolver for names of the list.
    ///
    /// # Errors
    ///
    /// An option that cannot work.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start_with(
        options: Options,
        config: ConsumerConfig,
        resolver: Arc<dyn Resolver>,
    ) -> Result<(Self, ConsumerEvents), OptionsError> {
        options.check()?;
        config.check()?;
        let ack = config.ack;
        let (filters, wanted) = watch::channel(Arc::new(Filters::check(&config.filters)?));
        let (control, links, events) = links::start(options, config, wanted, resolver);
        Ok((Self { control, links, filters }, ConsumerEvents { events, ack }))
    }

    /// Wants from now on what this list says, and nothing of what the list before it said; sent to
    /// every broker without waiting, and again to each that a link is opened to. Filters change one
    /// by one: in between, part of the old list and part of the new one hold.
    ///
    /// # Errors
    ///
    /// An expression that is none, with the place, or a limit; the list before stays.
    pub fn set_filters(&self, filters: &[Filter]) -> Result<(), OptionsError> {
        self.filters.send_replace(Arc::new(Filters::check(filters)?));
        Ok(())
    }

    /// Open if any link is; down only if none is open or being opened.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.control.state()
    }

    /// The same, to be watched.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.control.watch()
    }

    /// Every link by its broker, to be watched.
    #[must_use]
    pub fn watch_links(&self) -> watch::Receiver<Vec<BrokerLink>> {
        self.links.clone()
    }

    /// Says DRAIN on each link, waits for the answers to what was handed out, closes; at the latest
    /// after [`Options::close_timeout`](crate::Options::close_timeout).
    pub async fn close(&self) {
        self.control.close().await;
    }
}

impl Stream for ConsumerEvents {
    type Item = ConsumerEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut event = std::task::ready!(self.events.poll(context));
        if let (Some(ConsumerEvent::Uplink(message)), Ack::Auto) = (&mut event, self.ack) {
            message.answer(ErrorCode(0));
        }
        Poll::Ready(event)
    }
}

impl UplinkMessage {
    fn new(received: ReceivedUplink, merged: Merged) -> Self {
        let ReceivedUplink { origin, sequence, namespace, uid, connection, .. } = received;
        let ReceivedUplink { labels, content, payload, .. } = received;
        let merged = Some(merged);
        Self { namespace, uid, connection, origin, sequence, labels, content, payload, merged }
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
        self.merged.is_none()
    }

    fn answer(&mut self, code: ErrorCode) {
        if let Some(merged) = self.merged.take() {
            merged.answer((self.origin, self.sequence), code);
        }
    }
}

impl Drop for UplinkMessage {
    /// The gateway waits for an answer: silence would leave it waiting as long as the link lives.
    fn drop(&mut self) {
        self.answer(ErrorCode::CONSUMER_LOST);
    }
}
