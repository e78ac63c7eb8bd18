//! What a producer is told about a publish, and how the receipts of parts become one.
//!
//! Each target counts once: *sent*, offline, unknown, filtered or dropped. Targets that were not
//! sent are named, but for those of mode `broadcast`, which are only counted as unknown, and those
//! of a publish for everyone, who are only counted.

use waybill_wire::code::{ErrorCode, Fate};
use waybill_wire::frame::Receipt as WireReceipt;
use waybill_wire::limits::TRACE_HOPS_MAX;

use crate::hops::Hop;
use crate::publish::ReceiptLevel;

/// Targets that no gateway took, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub cause: ErrorCode,
    /// Who.
    pub uids: Vec<u64>,
}

/// How far a publish has come. The counters are those of parts with a final receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Parts the list was cut into; 1 for a short one.
    pub parts: u32,
    /// Parts that were routed.
    pub routed: u32,
    /// Parts that have their final receipt, or whose fate is in doubt for good.
    pub answered: u32,
    /// Targets sent, or reached at level delivered.
    pub sent: u32,
    /// Targets of that fate.
    pub offline: u32,
    /// Targets of that fate.
    pub dropped: u32,
    /// Targets of that fate.
    pub unknown: u32,
}

/// The fate of a publish, at the stage that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Receipt {
    /// Producer instance; with `sequence` it is the message id.
    pub instance: u64,
    /// Producer sequence; of the first part if the list was cut.
    pub sequence: u64,
    /// What it tells about. A publish at level delivered may end at stage routed, if the broker
    /// runs no reports.
    pub stage: ReceiptLevel,
    /// Stage routed: targets put into the outbox of at least one gateway; 0 with everyone. Stage
    /// delivered: targets handed to the socket of at least one of their connections.
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
    /// A part of it was sent again after its link had died. Nobody was served twice.
    pub resent: bool,
    /// When a message with a trace id passed where, part by part: the producer, the broker, then
    /// gateway by gateway; what is not known is missing. Empty without a trace id, and if the
    /// broker tells nothing. At most [`HOPS_MAX`].
    pub hops: Vec<Hop>,
    /// Further hops, of gateways and parts for which there was no room.
    pub hops_left_out: u32,
    /// Those who are counted and not named.
    unnamed: Unnamed,
}

/// Hops of one receipt: those of the producer, the broker and 16 gateways.
pub const HOPS_MAX: usize = 1 + TRACE_HOPS_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Unnamed {
    offline: u32,
    filtered: u32,
    dropped: u32,
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
        let mut unnamed = [part.offline, part.filtered, part.dropped];
        for set in part.fate_sets {
            let count = u32::try_from(set.uids.len()).unwrap_or(u32::MAX);
            match set.fate {
                Fate::OFFLINE => unnamed[0] = unnamed[0].saturating_sub(count),
                Fate::FILTERED => unnamed[1] = unnamed[1].saturating_sub(count),
                Fate::DROPPED => unnamed[2] = unnamed[2].saturating_sub(count),
                _ => {}
            }
            let uids = set.uids.iter();
            match set.fate {
                Fate::OFFLINE => self.offline.extend(uids),
                Fate::UNKNOWN => self.unknown.extend(uids),
                Fate::FILTERED => self.filtered.extend(uids),
                _ => self.dropped(set.cause, uids),
            }
        }
        let [offline, filtered, dropped] = unnamed;
        self.unnamed.add(Unnamed { offline, filtered, dropped });
    }

    /// Adds what the broker said of the way of one part.
    pub(crate) fn passed(&mut self, sent: Hop, part: &WireReceipt<'_>) {
        if !part.hops.is_empty() {
            let told = part.hops.times.iter().map(Hop::of);
            self.add_hops(std::iter::once(sent).chain(told), part.hops.left_out);
        }
    }

    fn add_hops(&mut self, hops: impl Iterator<Item = Hop>, left_out: u32) {
        self.hops_left_out = self.hops_left_out.saturating_add(left_out);
        for hop in hops {
            if self.hops.len() < HOPS_MAX {
                self.hops.push(hop);
            } else {
                self.hops_left_out = self.hops_left_out.saturating_add(1);
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

    /// The same message, and nothing known of it.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.instance, self.sequence)
    }

    /// Targets, by name, that no gateway was given.
    pub(crate) fn unreached(&self) -> impl Iterator<Item = u64> {
        let dropped = self.dropped.iter().flat_map(|dropped| &dropped.uids);
        self.offline.iter().chain(&self.filtered).chain(dropped).copied()
    }

    /// Only who was not reached counts: of the others it is not known.
    pub(crate) fn forget_reached(&mut self) {
        (self.sent, self.unknown_count) = (0, 0);
        self.unknown.clear();
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
        self.resent |= other.resent;
        self.unnamed.add(other.unnamed);
        self.add_hops(other.hops.into_iter(), other.hops_left_out);
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
        let named: usize = self.dropped.iter().map(|dropped| dropped.uids.len()).sum();
        named + self.unnamed.dropped as usize
    }

    /// Number of targets that are offline, named or not.
    #[must_use]
    pub fn offline_count(&self) -> usize {
        self.offline.len() + self.unnamed.offline as usize
    }

    /// Number of targets taken away by `except`, named or not.
    #[must_use]
    pub fn filtered_count(&self) -> usize {
        self.filtered.len() + self.unnamed.filtered as usize
    }
}

impl Unnamed {
    fn add(&mut self, other: Self) {
        self.offline = self.offline.saturating_add(other.offline);
        self.filtered = self.filtered.saturating_add(other.filtered);
        self.dropped = self.dropped.saturating_add(other.dropped);
    }
}
