//! What a producer is told about a publish, and how the receipts of parts become one.
//!
//! Each target counts once: *sent*, offline, unknown, filtered or dropped. Targets that were not
//! sent are named, but for those of mode `broadcast`, which are only counted as unknown.

use waybill_wire::code::{ErrorCode, Fate};
use waybill_wire::frame::Receipt as WireReceipt;

/// Targets that no gateway took, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub cause: ErrorCode,
    /// Who.
    pub uids: Vec<u64>,
}

/// The fate of a publish at stage *routed*.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Receipt {
    /// Producer instance; with `sequence` it is the message id.
    pub instance: u64,
    /// Producer sequence; of the first part if the list was cut.
    pub sequence: u64,
    /// Targets put into the outbox of at least one gateway; 0 with everyone.
    pub sent: u32,
    /// Frames put into gateways' outboxes.
    pub gateways: u32,
    /// Targets that no gateway has registered.
    pub offline: Vec<u64>,
    /// Targets in doubt, by name: the link died before their receipt came.
    pub unknown: Vec<u64>,
    /// All targets of unknown fate, those that are only counted (mode `broadcast`) included.
    pub unknown_count: u32,
    /// Targets taken away by `except`.
    pub filtered: Vec<u64>,
    /// Targets that no gateway took, by cause.
    pub dropped: Vec<Dropped>,
    /// The link died before the answer: whether anybody was served is not known.
    pub in_doubt: bool,
}

impl Receipt {
    /// Nothing is known yet about this message.
    #[must_use]
    pub fn new(instance: u64, sequence: u64) -> Self {
        Self { instance, sequence, ..Self::default() }
    }

    /// Adds what the broker said about one part.
    pub(crate) fn add(&mut self, part: &WireReceipt<'_>) {
        self.sent = self.sent.saturating_add(part.sent);
        self.gateways = self.gateways.saturating_add(part.gateways);
        self.unknown_count = self.unknown_count.saturating_add(part.unknown);
        for set in part.fate_sets {
            let uids = set.uids.iter();
            match set.fate {
                Fate::OFFLINE => self.offline.extend(uids),
                Fate::UNKNOWN => self.unknown.extend(uids),
                Fate::FILTERED => self.filtered.extend(uids),
                _ => self.dropped(set.cause, uids),
            }
        }
    }

    /// Adds targets dropped for `cause`.
    pub(crate) fn dropped(&mut self, cause: ErrorCode, uids: impl Iterator<Item = u64>) {
        match self.dropped.iter_mut().find(|dropped| dropped.cause == cause) {
            Some(dropped) => dropped.uids.extend(uids),
            None => self.dropped.push(Dropped { cause, uids: uids.collect() }),
        }
    }

    /// Adds a part whose answer never came.
    pub(crate) fn doubt(&mut self, uids: &[u64]) {
        self.in_doubt = true;
        self.unknown.extend_from_slice(uids);
        let count = u32::try_from(uids.len()).unwrap_or(u32::MAX);
        self.unknown_count = self.unknown_count.saturating_add(count);
    }

    /// Sums the receipt of another part into this one; the smaller message id stays.
    pub fn merge(&mut self, other: Self) {
        self.sequence = self.sequence.min(other.sequence);
        self.sent = self.sent.saturating_add(other.sent);
        self.gateways = self.gateways.saturating_add(other.gateways);
        self.unknown_count = self.unknown_count.saturating_add(other.unknown_count);
        self.in_doubt |= other.in_doubt;
        self.offline.extend(other.offline);
        self.unknown.extend(other.unknown);
        self.filtered.extend(other.filtered);
        for Dropped { cause, uids } in other.dropped {
            self.dropped(cause, uids.into_iter());
        }
    }

    /// Number of targets that were dropped, for whatever cause.
    #[must_use]
    pub fn dropped_count(&self) -> usize {
        self.dropped.iter().map(|dropped| dropped.uids.len()).sum()
    }
}
