//! What a producer asks a broker for: a publish, or a change of tags. The machine treats them
//! alike; what differs is here.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use waybill_wire::code::Priority;
use waybill_wire::error::Unencodable;
use waybill_wire::frame;

use super::encode::{self, Part};
use crate::publish::{Publish, ReceiptLevel};
use crate::tags::Tagging;

/// One of the two, checked.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// PUBLISH.
    Publish(Publish),
    /// TAG.
    Tags(Tagging),
}

impl From<Publish> for Request {
    fn from(publish: Publish) -> Self {
        Self::Publish(publish)
    }
}

impl Request {
    /// Whether it is sent again with its sequence, marked. A TAG is not: it goes with a new one, as
    /// made twice it changes nothing (TAG-12).
    pub(super) fn keeps_its_sequence(&self) -> bool {
        matches!(self, Self::Publish(_))
    }

    /// The UID list, or `None` if none is given.
    pub(super) fn targets(&self) -> Option<&[u64]> {
        match self {
            Self::Publish(publish) => publish.targets(),
            Self::Tags(tagging) => Some(&tagging.uids),
        }
    }

    /// At what level it is answered. A TAG is when gateways have reported (TAG-17).
    pub(super) fn level(&self) -> ReceiptLevel {
        match self {
            Self::Publish(publish) => publish.level,
            Self::Tags(_) => ReceiptLevel::Delivered,
        }
    }

    pub(super) fn ttl(&self) -> Option<Duration> {
        match self {
            Self::Publish(publish) => publish.ttl,
            Self::Tags(_) => None,
        }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        match self {
            Self::Publish(publish) => publish.payload.len(),
            Self::Tags(_) => 0,
        }
    }

    /// Its payload and priority, if it has one: a TAG is in no order with others (TAG-13).
    pub(super) fn payload(&self) -> Option<(&Bytes, Priority)> {
        match self {
            Self::Publish(publish) => Some((&publish.payload, publish.priority)),
            Self::Tags(_) => None,
        }
    }

    /// Takes out of a long list what is in it twice.
    pub(super) fn name_each_once(&mut self) {
        match self {
            Self::Publish(publish) => publish.name_each_once(),
            Self::Tags(tagging) => tagging.name_each_once(),
        }
    }

    /// Appends the frame of `part`, of which others bring the rest of the payload if it is cut.
    pub(super) fn encode(&self, part: &Part, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        match self {
            Self::Publish(publish) => encode::encode(publish, part, out),
            Self::Tags(tagging) => encode_tags(tagging, part.sequence, part.targets.clone(), out),
        }
    }
}

fn encode_tags(
    tagging: &Tagging,
    sequence: u64,
    targets: Range<usize>,
    out: &mut Vec<u8>,
) -> Result<(), Unencodable> {
    let changes: Vec<_> = tagging.changes.iter().map(crate::tags::TagChange::wire).collect();
    let frame = frame::Tag {
        namespace: tagging.namespace,
        sequence,
        origin: 0,
        uids: tagging.uids.get(targets).unwrap_or_default().into(),
        changes: (&changes).into(),
    };
    frame.encode(out)
}
