//! What a consumer receives besides users' messages.

use std::time::Duration;

use bytes::Bytes;
use waybill_wire::code::Event;
use waybill_wire::frame::Presence;
use waybill_wire::message::{Content, Message};

use super::UplinkMessage;

/// What a consumer receives.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// A message from a user.
    Uplink(UplinkMessage),
    /// A user came or went. Each broker tells what it sees; copies of the last ten seconds are left
    /// out, so that one may come twice when a link is lost, or a broker is far behind.
    Presence(PresenceEvent),
    /// A message that some of its users were not here for.
    Offline(OfflineMessage),
}

impl ConsumerEvent {
    /// The user's message, if it is one.
    #[must_use]
    pub fn uplink(self) -> Option<UplinkMessage> {
        match self {
            Self::Uplink(message) => Some(message),
            _ => None,
        }
    }
}

/// A user came or went at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PresenceEvent {
    /// What happened.
    pub event: Event,
    /// The tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// Class of device.
    pub device_class: u8,
    /// Login number, 0 = none.
    pub login: u64,
    /// Incarnation of the gateway.
    pub gateway: u64,
}

impl From<&Presence> for PresenceEvent {
    fn from(presence: &Presence) -> Self {
        let Presence { event, device_class, namespace, uid, login, gateway } = *presence;
        Self { event, namespace, uid, device_class, login, gateway }
    }
}

/// A message for users who were offline when a broker routed it. It is told once, to one consumer
/// of each group, and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfflineMessage {
    /// The tenant.
    pub namespace: u32,
    /// Producer instance; with `sequence` it is the message id.
    pub instance: u64,
    /// Producer sequence.
    pub sequence: u64,
    /// The producer sent it a second time: it may have been told before.
    pub resend: bool,
    /// Those of its users who were offline.
    pub uids: Vec<u64>,
    /// What was left of its time to live; `None` = no limit.
    pub ttl: Option<Duration>,
    /// What it is about.
    pub labels: Vec<String>,
    /// What the payload is, and how it is compressed.
    pub content: Option<Content>,
    /// The message itself.
    pub payload: Bytes,
}

impl OfflineMessage {
    pub(super) fn new(message: &Message<'_>, instance: u64) -> Self {
        let ttl = Duration::from_millis(message.ttl_ms.into());
        Self {
            namespace: message.namespace,
            instance,
            sequence: message.sequence,
            resend: message.resend,
            uids: message.targets.iter().collect(),
            ttl: (!ttl.is_zero()).then_some(ttl),
            labels: message.labels.iter().map(str::to_owned).collect(),
            content: message.content,
            payload: Bytes::copy_from_slice(message.payload),
        }
    }

    /// Bytes it is counted with while it waits to be taken.
    pub(super) fn pending_bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(String::len).sum();
        8 * self.uids.len() + labels + self.payload.len()
    }
}
