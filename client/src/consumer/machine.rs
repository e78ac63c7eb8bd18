//! The consumer's half of a link, without socket and clock: groups and filters first, then uplinks
//! in and answers out; presence and the offline feed, if they are wanted, need no answer.
//!
//! An uplink belongs to the link it came on. When that link dies the broker tells the gateway
//! `consumer_lost` ([UP-4]), so an answer that comes later is for nobody and is dropped here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Op, capability};
use waybill_wire::error::Violation;
use waybill_wire::frame::{Filter as FilterFrame, Group as JoinGroup, UplinkAck};
use waybill_wire::message::{Content, Message};

use super::event::{OfflineMessage, PresenceEvent};
use super::filters::{Change, Filters};
use super::{ConsumerConfig, Group};
use crate::link::Welcomed;
use crate::machine::{Ending, Machine, WRITE_BYTES, Wishes, unexpected};

/// The answer to one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The link the uplink came on, counted from 1.
    pub(crate) link: u64,
    pub(crate) origin: u64,
    pub(crate) sequence: u64,
    pub(crate) code: ErrorCode,
}

/// What the application asks of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Answer(Answer),
    /// From now on it wants this.
    Filters(Arc<Filters>),
}

/// What a link brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Uplink(ReceivedUplink),
    Presence(PresenceEvent),
    Offline(Box<OfflineMessage>),
    /// The link has ended; what came by it has no answer and what was yet to come will not.
    Ended,
}

/// An uplink as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceivedUplink {
    pub(crate) link: u64,
    pub(crate) origin: u64,
    pub(crate) sequence: u64,
    pub(crate) namespace: u32,
    pub(crate) uid: u64,
    pub(crate) connection: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) content: Option<Content>,
    pub(crate) payload: Bytes,
}

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct ConsumerMachine {
    /// Groups to be in, and capabilities to offer.
    groups: Vec<Group>,
    capabilities: u64,
    /// Groups of this link's broker that are not joined yet.
    joining: VecDeque<Group>,
    /// What is wanted, what this link's broker was told of it, and what it is not told yet.
    filters: Arc<Filters>,
    told: Arc<Filters>,
    changing: VecDeque<Change>,
    link: u64,
    open: bool,
    /// Its broker filters.
    filtered: bool,
    /// The application takes no more.
    closing: bool,
    /// Uplinks of this link that the application has and did not answer.
    unanswered: usize,
    answers: VecDeque<Answer>,
    events: VecDeque<Received>,
}

impl ConsumerMachine {
    pub(crate) fn new(config: &ConsumerConfig, filters: Arc<Filters>) -> Self {
        let wanted = [
            (true, capability::FILTERS),
            (!config.groups.is_empty(), capability::GROUPS),
            (config.presence, capability::PRESENCE),
            (config.offline, capability::OFFLINE),
        ];
        let wanted = wanted.into_iter().filter(|(wanted, _)| *wanted);
        let capabilities = wanted.fold(0, |all, (_, capability)| all | capability);
        Self { groups: config.groups.clone(), filters, capabilities, ..Self::default() }
    }

    /// Tells the broker what is wanted, as far as it differs from what it knows.
    fn change_filters(&mut self) {
        if self.open && self.filtered {
            self.changing.extend(self.told.changes_to(&self.filters));
            self.told = Arc::clone(&self.filters);
        } else if self.open && !self.filters.is_empty() {
            tracing::warn!("a broker knows no filters and sends everything");
        }
    }

    fn handle_offline(&mut self, message: &Message<'_>) -> Result<(), Violation> {
        let Some(origin) = message.origin else {
            let words = "a message of the offline feed names its producer";
            return Err(unexpected(message.kind, message.sequence, words));
        };
        if !self.closing {
            let message = Box::new(OfflineMessage::new(message, origin));
            self.events.push_back(Received::Offline(message));
        }
        Ok(())
    }

    fn handle_uplink(&mut self, message: &Message<'_>) -> Result<(), Violation> {
        let (Some(origin), Some(sender)) = (message.origin, message.sender) else {
            let words = "an uplink to a consumer names its gateway and its sender";
            return Err(unexpected(message.kind, message.sequence, words));
        };
        if self.closing {
            let (link, sequence, code) = (self.link, message.sequence, ErrorCode::NO_CONSUMER);
            self.answers.push_back(Answer { link, origin, sequence, code });
            return Ok(());
        }
        self.unanswered += 1;
        self.events.push_back(Received::Uplink(ReceivedUplink {
            link: self.link,
            origin,
            sequence: message.sequence,
            namespace: message.namespace,
            uid: sender.uid,
            connection: sender.connection,
            labels: message.labels.iter().map(str::to_owned).collect(),
            content: message.content,
            payload: Bytes::copy_from_slice(message.payload),
        }));
        Ok(())
    }
}

impl Machine for ConsumerMachine {
    type Command = Command;
    type Event = Received;

    const IS_SERVED: bool = true;

    fn handle_command(&mut self, _now: Instant, command: Command) {
        match command {
            Command::Answer(answer) => {
                if self.open && answer.link == self.link {
                    self.unanswered -= 1;
                    self.answers.push_back(answer);
                }
            }
            Command::Filters(filters) => {
                self.filters = filters;
                self.change_filters();
            }
        }
    }

    /// Always: an answer takes the room its uplink had.
    fn wants_commands(&self) -> bool {
        true
    }

    fn hello(&self) -> Wishes {
        Wishes { capabilities: self.capabilities, ..Wishes::default() }
    }

    fn handle_open(&mut self, _now: Instant, welcomed: &Welcomed) {
        self.open = true;
        self.link += 1;
        if welcomed.capabilities & capability::GROUPS != 0 {
            self.joining.extend(self.groups.iter().cloned());
        } else if !self.groups.is_empty() {
            tracing::warn!(broker = %welcomed.address, "this broker knows no consumer groups");
        }
        self.filtered = welcomed.capabilities & capability::FILTERS != 0;
        self.change_filters();
    }

    fn handle_frame(
        &mut self,
        _now: Instant,
        frame: &Frame<'_>,
        _bytes: &[u8],
    ) -> Result<(), Violation> {
        match frame {
            Frame::Uplink(message) => self.handle_uplink(message),
            Frame::Offline(message) => self.handle_offline(message),
            Frame::Presence(presence) => {
                if !self.closing {
                    self.events.push_back(Received::Presence(presence.into()));
                }
                Ok(())
            }
            other => Err(unexpected(other.kind(), 0, "not a frame for a consumer")),
        }
    }

    /// What was not handed out is refused: the gateway learns it at once.
    fn handle_close(&mut self, held: Option<Received>) -> Option<Received> {
        self.closing = true;
        for received in held.into_iter().chain(self.events.drain(..)) {
            if let Received::Uplink(ReceivedUplink { link, origin, sequence, .. }) = received
                && self.open
                && link == self.link
            {
                self.unanswered -= 1;
                let code = ErrorCode::NO_CONSUMER;
                self.answers.push_back(Answer { link, origin, sequence, code });
            }
        }
        None
    }

    fn handle_down(&mut self, _now: Instant, _ending: &Ending) {
        self.open = false;
        self.unanswered = 0;
        self.answers.clear();
        self.joining.clear();
        self.changing.clear();
        self.told = Arc::default();
        // Uplinks the application has not seen are already lost to the gateway that sent them.
        self.events.retain(|event| !matches!(event, Received::Uplink(_)));
        self.events.push_back(Received::Ended);
    }

    fn transmit(&mut self, _now: Instant, out: &mut Vec<u8>) {
        while out.len() < WRITE_BYTES
            && let Some(Group { namespace, name }) = self.joining.pop_front()
        {
            let join = JoinGroup { op: Op::ADD, namespace, name: &name };
            if let Err(error) = join.encode(out) {
                // The configuration was checked.
                tracing::error!(%error, "a group cannot be joined");
            }
        }
        while out.len() < WRITE_BYTES
            && let Some(Change { op, namespace, number, expression }) = self.changing.pop_front()
        {
            let frame = FilterFrame { op, filter: number, namespace, expression: &expression };
            if let Err(error) = frame.encode(out) {
                // The list was checked.
                tracing::error!(%error, "a filter cannot be sent");
            }
        }
        while out.len() < WRITE_BYTES
            && let Some(Answer { origin, sequence, code, .. }) = self.answers.pop_front()
        {
            UplinkAck { code, sequence, origin }.encode(out);
        }
    }

    fn poll_event(&mut self) -> Option<Received> {
        self.events.pop_front()
    }

    fn is_settled(&self) -> bool {
        self.answers.is_empty() && self.unanswered == 0
    }
}
