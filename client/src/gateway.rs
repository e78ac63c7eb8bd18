//! The gateway link: which users are here goes up, their messages come down.
//!
//! [`GatewayLink`] is a thin handle: it turns calls into [`GatewayCommand`]s for the task that owns
//! the socket and runs a [`GatewayMachine`]; what happens comes back as a stream of
//! [`GatewayEvent`]s. A gateway with several brokers has one link to each. Who may be served is not
//! decided here: the gateway re-checks every target of a delivery ([TGT-7]).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use waybill_wire::code::{BrokerState, ErrorCode, Role};
use waybill_wire::message::{Content, Message};

use crate::connection::{Connection, Control, Identity};
use crate::link::{LinkError, LinkGone, LinkState, Welcomed};
use crate::options::{Options, OptionsError};
use crate::outlet::{Queuing, Weight, queue};
use joint::{ControlOutlet, Joint};

mod data;
mod declared;
mod encode;
mod history;
mod inbox;
mod joint;
mod machine;
mod report;
mod reports;
mod tags;
#[cfg(test)]
mod tests;
mod together;
mod uplinks;

#[cfg(feature = "sim")]
pub(crate) use data::{DataEvent, DataMachine, shard_of};
#[cfg(feature = "sim")]
pub(crate) use together::{Order, Together};

pub use declared::{Change, Registration};
pub use machine::GatewayMachine;
pub use report::{Fates, Report};
pub use tags::{DeclaredTag, TagUpdate, Tagging};

/// Commands that wait for the connection's task; a caller that is faster than it waits.
const COMMANDS_MAX: usize = 256;

/// Events that wait for the application, and at most
/// [`Options::max_pending_bytes`](crate::Options::max_pending_bytes) of them. Beyond, the socket is
/// not read (and keepalive pauses), so that a slow gateway is felt by the broker's outbox, where
/// there is a policy for it.
const EVENTS_MAX: usize = 1024;

/// What a gateway asks of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GatewayCommand {
    /// Registrations, and tags of connections, that come and go.
    Change {
        /// Number of this change, higher than any before; 0 is never used.
        ticket: u64,
        /// What changes, in order.
        changes: Vec<Change>,
        /// Tags that the first connection gets or none has any more, in order. A broker that did
        /// not agree on them is not told.
        tags: Vec<TagUpdate>,
    },
    /// A message from a user to the backends.
    Uplink(Uplink),
    /// Its sender does not wait for the answer any more: the uplink gives up its place among those
    /// that wait, and is not transmitted if it was not yet. An answer that comes is ignored.
    Abandon {
        /// That of the uplink.
        sequence: u64,
    },
    /// What became of a delivery at level delivered, or of a tagging. It goes by the link that one
    /// came by, and is dropped if that has ended.
    Report(Report),
    /// The gateway will be away and asks the broker to keep what it declared for so long, in
    /// milliseconds. Nothing is declared on this link afterwards: close it.
    Suspend {
        /// How long; the broker has a bound of its own.
        window_ms: u32,
    },
}

/// What a gateway is told by its link, in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GatewayEvent {
    /// The broker said WELCOME; what it does not know of the registrations is on its way.
    Up(Welcomed),
    /// The link is gone, and with it every delivery on its way; tried again after `retry_in`.
    Down {
        /// Why.
        reason: LinkError,
        /// Delay before the next attempt.
        retry_in: Duration,
    },
    /// Every change up to this ticket is in effect at the broker. After each `Up` it comes at least
    /// once, with the tickets of before.
    InEffect {
        /// The ticket; 0 if nothing was ever changed.
        ticket: u64,
    },
    /// An outage has ended: users whose registrations were in effect are so again. Comes before the
    /// `InEffect` that ended it. What was published meanwhile at this broker did not come here.
    Restored {
        /// How long it lasted: from the end of the last link that had anything in effect; if that
        /// had been silent for two keepalive periods or more before it ended (a stopped process, a
        /// partition), from the last byte heard on it.
        gap: Duration,
        /// Whether the session was resumed, or a snapshot had to be sent.
        resumed: bool,
    },
    /// A login lost against another with a higher number: its connections have to go, and the
    /// registration with them.
    Displaced {
        /// The loser's, exactly as it was declared.
        registration: Registration,
        /// Login number of the winner.
        winner: u64,
    },
    /// A message for users of this gateway.
    Delivery(Delivery),
    /// A backend gives tags to users of this gateway, or takes them from them; a [`Report`] is due.
    Tagging(Tagging),
    /// The broker does not keep all that was declared up to this version: it sends messages with a
    /// selector that are for nobody here, and misses none.
    TagsNotKept {
        /// `gateway_tags` or `broker_tags`: whose limit it was.
        code: ErrorCode,
        /// That of the first tag it did not keep.
        version: u64,
    },
    /// A data link has ended, and what was on its way by it is of unknown fate. Messages of its
    /// shard come by the control link until there is another one.
    DataLinkLost {
        /// Its number at the broker.
        number: u64,
    },
    /// The answer to an uplink; code 0 = a consumer has it. Every uplink that is not abandoned gets
    /// exactly one, or is [lost](Self::UplinkLost): `no_consumer` while there is no link,
    /// `overloaded` if too many wait.
    UplinkAck {
        /// That of the uplink.
        sequence: u64,
        /// 0, or why not.
        code: ErrorCode,
    },
    /// The link ended before the uplink was answered; comes before the `Down` or `Failed`.
    UplinkLost {
        /// That of the uplink.
        sequence: u64,
        /// Whether it was transmitted, so that its fate is unknown.
        transmitted: bool,
    },
    /// The broker's state changed.
    BrokerState {
        /// Its state.
        state: BrokerState,
        /// Gateways it waits for, as far as known.
        gateways_missing: u32,
    },
    /// The link is not tried again. The last event.
    Failed(LinkError),
}

/// A message from a user to the backends.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Uplink {
    /// The gateway's number for it: not 0, higher than that of any uplink before, across reconnects
    /// too: an answer may come after the link its uplink went by was lost.
    pub sequence: u64,
    /// The tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// The user's connection.
    pub connection: u64,
    /// It was sent before, with this sequence, and its fate is not known. A sequence that is sent
    /// again need not be above those of before.
    pub resend: bool,
    /// What it is about.
    pub labels: Vec<String>,
    /// What the payload is, and how it is compressed.
    pub content: Option<Content>,
    /// The message itself.
    pub payload: Bytes,
}

impl Uplink {
    /// Bytes it is counted with while it waits to be written.
    fn pending_bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(String::len).sum();
        size_of::<Self>() + labels + self.payload.len()
    }
}

/// A DELIVER frame, kept as it came, or one that came in fragments, as it would have been in one
/// piece: it may then be longer than a frame. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    frame: Bytes,
    header_bytes: usize,
    link: u64,
    begun: Instant,
    received: Instant,
}

/// How a gateway link is made.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use futures_util::StreamExt;
/// use waybill_client::gateway::{Change, GatewayEvent, GatewayLink, Registration};
///
/// let options = waybill_client::Options::default();
/// let (link, mut events) = GatewayLink::start(options, 0x5eed)?;
/// let user = Registration { namespace: 0, uid: 1001, device_class: 0, login: 0 };
/// link.change(1, vec![Change::add(user)]).await?;
/// while let Some(event) = events.next().await {
///     match event {
///         GatewayEvent::InEffect { ticket: 1.. } => { /* user 1001 may be told: ready */ }
///         GatewayEvent::Delivery(delivery) => { /* delivery.message().targets, .payload() */ }
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GatewayLink {
    commands: mpsc::Sender<GatewayCommand>,
    control: Control,
    joint: Arc<Joint>,
}

/// The events of a [`GatewayLink`]; ends after [`GatewayLink::close`] or [`GatewayEvent::Failed`].
#[derive(Debug)]
pub struct GatewayEvents {
    events: Queuing<GatewayEvent>,
}

impl GatewayLink {
    /// Starts the link's task and returns at once. `incarnation` is the random number of this life
    /// of the gateway process, the same for each of its links.
    ///
    /// # Errors
    ///
    /// An option, or an incarnation of 0, that cannot work.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(
        options: Options,
        incarnation: u64,
    ) -> Result<(Self, GatewayEvents), OptionsError> {
        let identity = Identity { role: Role::GATEWAY, instance: incarnation };
        let (in_flight_max, bytes_max) = (options.max_in_flight, options.max_pending_bytes);
        let machine = GatewayMachine::new(incarnation, in_flight_max, bytes_max);
        let machine = machine.offering_tags(options.tags);
        let machine = machine.offering_links(options.data_links > 0);
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (queue, events) = queue(EVENTS_MAX, options.max_pending_bytes);
        let joint = Joint::new(options.data_links);
        let outlet = ControlOutlet::new(queue, Arc::clone(&joint), options.clone(), incarnation);
        let control = Connection::start(options, identity, machine, inbox, outlet)?;
        Ok((Self { commands, control, joint }, GatewayEvents { events }))
    }

    /// Registrations come and go; [`GatewayEvent::InEffect`] with this ticket or a later one says
    /// when. Tickets rise from 1. Waits while the connection's task is behind.
    ///
    /// # Errors
    ///
    /// The link is closed or has failed.
    pub async fn change(&self, ticket: u64, changes: Vec<Change>) -> Result<(), LinkGone> {
        self.command(GatewayCommand::Change { ticket, changes, tags: Vec::new() }).await
    }

    /// Hands a user's message to a backend; [`GatewayEvent::UplinkAck`] says what became of it.
    /// Waits while the connection's task is behind.
    ///
    /// # Errors
    ///
    /// The link is closed or has failed.
    pub async fn uplink(&self, uplink: Uplink) -> Result<(), LinkGone> {
        self.command(GatewayCommand::Uplink(uplink)).await
    }

    /// Any command. Waits while the connection's task is behind.
    ///
    /// # Errors
    ///
    /// The link is closed or has failed.
    pub async fn command(&self, command: GatewayCommand) -> Result<(), LinkGone> {
        if let GatewayCommand::Report(report) = &command
            && let Some(way) = self.joint.way_of(report)
        {
            if let (Some(way), GatewayCommand::Report(report)) = (way, command) {
                // A data link that has gone takes its reports with it.
                let _gone = way.send(report).await;
            }
            return Ok(());
        }
        self.commands.send(command).await.map_err(|_| LinkGone)
    }

    /// Any command, or the command back if it cannot be taken over at once.
    ///
    /// # Errors
    ///
    /// The command, and whether the task is behind or the link is gone.
    pub fn try_command(&self, command: GatewayCommand) -> Result<(), TrySendError<GatewayCommand>> {
        let GatewayCommand::Report(report) = command else {
            return self.commands.try_send(command);
        };
        let Some(way) = self.joint.way_of(&report) else {
            return self.commands.try_send(GatewayCommand::Report(report));
        };
        match way.map(|way| way.try_send(report)) {
            Some(Err(TrySendError::Full(report))) => {
                Err(TrySendError::Full(GatewayCommand::Report(report)))
            }
            // A data link that has gone takes its reports with it.
            _ => Ok(()),
        }
    }

    /// The link's state now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.control.state()
    }

    /// Flushes, says DRAIN, closes; at the latest after
    /// [`Options::close_timeout`](crate::Options::close_timeout).
    pub async fn close(&self) {
        self.control.close().await;
    }
}

impl Weight for GatewayEvent {
    fn bytes(&self) -> usize {
        match self {
            Self::Delivery(delivery) => delivery.frame.len(),
            Self::Tagging(tagging) => tagging.bytes(),
            _ => 0,
        }
    }
}

impl Stream for GatewayEvents {
    type Item = GatewayEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll(context)
    }
}

impl Delivery {
    /// `frame` is a DELIVER that was decoded once. Its first piece had come at the first of the
    /// times, and all of it at the second.
    fn new(
        frame: Bytes,
        header_bytes: usize,
        link: u64,
        (begun, received): (Instant, Instant),
    ) -> Self {
        debug_assert!(header_bytes <= frame.len());
        Self { frame, header_bytes, link, begun, received }
    }

    /// The link it came by: this handle's control links count from 1, its data links are above
    /// 2^63.
    #[must_use]
    pub fn link(&self) -> u64 {
        self.link
    }

    /// When its first piece had been received: its time to live counts from here ([DEL-18]).
    #[must_use]
    pub fn begun_at(&self) -> Instant {
        self.begun
    }

    /// When the whole of it had been received.
    #[must_use]
    pub fn received_at(&self) -> Instant {
        self.received
    }

    /// What the header says. Reads the header again: call it once and keep the result.
    ///
    /// # Panics
    ///
    /// Never: the bytes are those of a DELIVER that was decoded when it came.
    #[must_use]
    pub fn message(&self) -> Message<'_> {
        Message::decode_whole(&self.frame).expect("was a DELIVER when it came")
    }

    /// The frame, header and payload.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The payload, sharing the frame's bytes.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.frame.slice(self.header_bytes..)
    }
}
