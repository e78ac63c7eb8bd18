//! Errors, one per operation: what happened, and the link's error behind it if there is one.

use std::sync::Arc;

use thiserror::Error;
use waybill_wire::code::ErrorCode;
use waybill_wire::limits::TAG_BYTES_MAX;

use crate::link::{LinkError, LinkErrorKind};
use crate::options::OptionsError;

/// Why `connect` gave up: every broker was tried once.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The options cannot work.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The last broker's answer, or its silence.
    #[error(transparent)]
    Link(LinkError),
}

impl ConnectError {
    /// The code the broker refused with, if one did.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Link(error) => error.code(),
            Self::Options(_) => None,
        }
    }

    /// What happened to the link, if it came so far.
    #[must_use]
    pub fn kind(&self) -> Option<LinkErrorKind> {
        match self {
            Self::Link(error) => Some(error.kind),
            Self::Options(_) => None,
        }
    }
}

/// Why a publish, or a change of tags, was not made, or was refused as a whole.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The publish breaks a rule of the protocol; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] InvalidPublish),
    /// The change of tags breaks a rule of the protocol; nothing was sent.
    #[error(transparent)]
    InvalidTags(#[from] InvalidTags),
    /// The broker keeps no tags: nobody has one, and none was given.
    #[error("the broker does not run tags: no tag was changed")]
    TagsNotSupported,
    /// The bounds of [`Options`](crate::Options) are reached; nothing was sent. Try again later.
    #[error(
        "{limit} is reached: receipts come slower than publishes, or the link is down; try later"
    )]
    Overloaded {
        /// The field of [`Options`](crate::Options) that is the bound.
        limit: &'static str,
    },
    /// Refused as a whole, nobody was served: by the broker, or here as `expired` if its time to
    /// live ran out in the queue.
    #[error("refused as a whole: {code}")]
    Refused {
        /// Why; its `retry` in the registry says whether the same publish may succeed.
        code: ErrorCode,
    },
    /// It could not be sent within [`Options::publish_timeout`](crate::Options::publish_timeout);
    /// nobody was served.
    #[error("not sent in time: {0}")]
    TimedOut(Obstacle),
    /// The link was closed, or failed for good, before it was sent.
    #[error("not sent: the producer is closed or has failed for good")]
    Closed(#[source] Option<LinkError>),
}

/// Why a publish could not be sent.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// No broker was linked to yet.
    #[error("no broker has answered yet")]
    Connecting,
    /// The broker does not know yet who is online, and no other one is.
    #[error("broker {broker} is not ready: {}", missing(*gateways_missing))]
    NotReady {
        /// Its address.
        broker: Arc<str>,
        /// Gateways it waits for, as far as known.
        gateways_missing: u32,
    },
    /// The broker takes nothing new.
    #[error("broker {broker} is draining")]
    Draining {
        /// Its address.
        broker: Arc<str>,
    },
    /// The link is open and its broker ready; receipts come too slowly, or the broker does not
    /// read.
    #[error("broker {broker} is behind: {unanswered} sent before still wait for their receipts")]
    Busy {
        /// Its address.
        broker: Arc<str>,
        /// Publishes, or parts of them, that were sent and have no final receipt: the window is
        /// full of them. Few: the broker does not read.
        unanswered: usize,
    },
    /// There was no link.
    #[error(transparent)]
    Down(LinkError),
}

/// What a broker that is not ready waits for.
fn missing(gateways: u32) -> String {
    match gateways {
        0 => "it does not know yet who is online".into(),
        1 => "it does not know yet who is online, 1 gateway is missing".into(),
        more => format!("it does not know yet who is online, {more} gateways are missing"),
    }
}

/// A rule of the protocol that a publish breaks. Limits are given with the value that passed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidPublish {
    /// An empty list never means everyone.
    #[error("the audience is empty: name at least one UID, or everyone() if that is meant")]
    EmptyAudience,
    /// More than `except_max` UIDs.
    #[error("{count} UIDs in except, except_max is {max}")]
    Except {
        /// UIDs given.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The payload is longer than `message_bytes_max`, or than this broker takes: without fragments
    /// that is a frame's.
    #[error("payload of {bytes} bytes, the limit is {max}")]
    Payload {
        /// Bytes given.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More than `labels_max` labels.
    #[error("{count} labels, labels_max is {max}")]
    Labels {
        /// Labels given.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A label is empty or longer than `label_bytes_max`.
    #[error("label {index} has {bytes} bytes, 1 to {max} are allowed")]
    Label {
        /// Which one, from 0.
        index: usize,
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A field has a value that is not registered, or not allowed here.
    #[error("{field} {value} is not allowed in a publish")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A time to live of less than a millisecond, or more than `u32::MAX` of them.
    #[error("ttl is not in 1 ms to {} ms; leave it out for no limit", u32::MAX)]
    Ttl,
    /// The publish alone is larger than [`Options::max_pending_bytes`](crate::Options).
    #[error("{bytes} bytes of targets and payload, max_pending_bytes is {max}")]
    PendingBytes {
        /// Bytes it takes.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

/// A rule of the protocol that a change of tags breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidTags {
    /// No UID.
    #[error("nobody is named: name at least one UID")]
    EmptyAudience,
    /// No tag.
    #[error("no change: give at least one tag to add or to remove")]
    NoChanges,
    /// More than `tag_changes_max`.
    #[error("{count} changes, tag_changes_max is {max}")]
    Changes {
        /// Changes given.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// It is empty, longer than `tag_bytes_max`, or has a control character in it.
    #[error("tag {index} has to be 1 to {TAG_BYTES_MAX} bytes of text without control characters")]
    Tag {
        /// Which one, from 0.
        index: usize,
    },
    /// It is neither added nor removed.
    #[error("change {index} is neither add nor remove but {op}")]
    Op {
        /// Which one, from 0.
        index: usize,
        /// What it is.
        op: u8,
    },
}
