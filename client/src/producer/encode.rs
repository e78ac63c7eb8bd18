//! A publish, or one part of it, as the bytes of a PUBLISH frame.

use std::ops::Range;

use waybill_wire::code::Level;
use waybill_wire::error::Unencodable;
use waybill_wire::limits::LABELS_MAX;
use waybill_wire::message;

use crate::publish::{Audience, Publish, ReceiptLevel};
use crate::selector::Selector;

/// Brokers behind the first one that may forward a message: two levels of leaves below one
/// upstream, and one to spare. A loop between misconfigured brokers ends after as many turns.
const HOPS: u8 = 4;

/// What sets one part of a publish apart.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) sequence: u64,
    /// It was transmitted before.
    pub(super) resend: bool,
    pub(super) ttl_ms: u32,
    /// Its share of the UIDs.
    pub(super) targets: Range<usize>,
    /// If the list was cut: sequence of the first part, index, number of parts.
    pub(super) list: Option<(u64, u32, u32)>,
    /// If the payload is cut: how much of it goes first.
    pub(super) first: Option<usize>,
}

/// Appends the frame of `part`.
pub(super) fn encode(publish: &Publish, part: &Part, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let mut labels = [""; LABELS_MAX];
    let count = publish.labels.len().min(LABELS_MAX);
    for (label, text) in labels.iter_mut().zip(&publish.labels) {
        *label = text;
    }
    let head = message::MessageHead {
        resend: part.resend,
        everyone: publish.audience == Audience::Everyone,
        mode: publish.mode,
        level: match publish.level {
            ReceiptLevel::None => Level::NONE,
            ReceiptLevel::Routed => Level::ROUTED,
            ReceiptLevel::Delivered => Level::DELIVERED,
        },
        priority: publish.priority,
        hops: HOPS,
        sequence: part.sequence,
        namespace: publish.namespace,
        ttl_ms: part.ttl_ms,
        trace: publish.trace.as_ref(),
        conflate: publish.conflate,
        part: part.list.map(|(list, index, parts)| message::Part { list, index, parts }),
        content: publish.content,
        fragmented: part.first.and(u32::try_from(publish.payload.len()).ok()),
        labels: labels[..count].into(),
        selector: publish.matched_by().map(Selector::checked),
        except: (&publish.except).into(),
        ..message::MessageHead::default()
    };
    let targets = publish.targets().and_then(|uids| uids.get(part.targets.clone()));
    let first = part.first.and_then(|first| publish.payload.get(..first));
    let payload = first.unwrap_or(&publish.payload);
    head.encode_publish(targets.unwrap_or_default(), payload, out)
}
