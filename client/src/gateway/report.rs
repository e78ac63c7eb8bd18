//! What a gateway says became of a delivery or of a tagging, and the bytes of it.

use waybill_wire::code::{ErrorCode, Fate, Level, TraceHop};
use waybill_wire::error::Unencodable;
use waybill_wire::frame;
use waybill_wire::frame::{FateSet, HopTime, HopTimes};

use super::{Delivery, Tagging};

/// Targets of a delivery that met the same fate for the same cause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fates {
    /// What became of them; never [`Fate`] 0.
    pub fate: Fate,
    /// Why; code 0 for no cause.
    pub cause: ErrorCode,
    /// Who, at least one, at most `targets_max`.
    pub uids: Vec<u64>,
}

/// What became of the targets of a delivery at level delivered, or of the users of a tagging. Each
/// listed UID counts once; all but those reached are named in `fates`. With EVERYONE, or a selector
/// alone, users are counted and nobody is named.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// [`Delivery::link`] of the delivery: a report goes by the link its delivery came by, or
    /// nowhere.
    pub link: u64,
    /// Sequence of the delivery.
    pub sequence: u64,
    /// Origin of the delivery: the producer's instance.
    pub origin: u64,
    /// Handed to the socket of at least one of their connections, now or by an earlier copy.
    pub reached: u32,
    /// Without a connection here.
    pub offline: u32,
    /// Taken away by EXCEPT or SELECTOR.
    pub filtered: u32,
    /// Dropped for every one of their connections.
    pub dropped: u32,
    /// In doubt.
    pub unknown: u32,
    /// By fate, then cause, each pair once; [`Report::add`] keeps that order.
    pub fates: Vec<Fates>,
    /// Of a delivery with a trace id: when the whole of it had been received, in microseconds since
    /// 1970-01-01 00:00 UTC; 0 = not told. A broker that does not take it is not told.
    pub gateway_in_us: u64,
    /// And when it was handed to the socket of the first of its connections.
    pub socket_us: u64,
}

impl Report {
    /// A report on this delivery that counts nobody yet.
    #[must_use]
    pub fn on(delivery: &Delivery) -> Self {
        let message = delivery.message();
        let (link, sequence) = (delivery.link(), message.sequence);
        Self { link, sequence, origin: message.origin.unwrap_or_default(), ..Self::default() }
    }

    /// A report on this tagging that counts nobody yet. *Reached* are users whose changes are made
    /// and whose tags the broker has in effect (TAG-16).
    #[must_use]
    pub fn on_tagging(tagging: &Tagging) -> Self {
        let tag = tagging.tag();
        let (link, sequence) = (tagging.link(), tag.sequence);
        Self { link, sequence, origin: tag.origin, ..Self::default() }
    }

    /// Counts `uid` and names it.
    pub fn add(&mut self, fate: Fate, cause: ErrorCode, uid: u64) {
        self.count(fate, 1);
        let key = |fates: &Fates| (fates.fate, fates.cause);
        match self.fates.binary_search_by_key(&(fate, cause), key) {
            Ok(at) => self.fates[at].uids.push(uid),
            Err(at) => self.fates.insert(at, Fates { fate, cause, uids: vec![uid] }),
        }
    }

    /// Counts users without naming them.
    pub fn count(&mut self, fate: Fate, count: u32) {
        let counter = match fate {
            Fate::OFFLINE => &mut self.offline,
            Fate::FILTERED => &mut self.filtered,
            Fate::DROPPED => &mut self.dropped,
            _ => &mut self.unknown,
        };
        *counter = counter.saturating_add(count);
    }

    /// Bytes it is counted with while it waits to be written.
    pub(super) fn pending_bytes(&self) -> usize {
        let named: usize = self.fates.iter().map(|fates| fates.uids.len()).sum();
        size_of::<Self>() + self.fates.len() * size_of::<Fates>() + 8 * named
    }

    /// Appends the frame; with its hop times if it is `traced_by` this incarnation.
    pub(super) fn encode(
        &self,
        traced_by: Option<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unencodable> {
        let Self { sequence, origin, reached, offline, filtered, dropped, unknown, .. } = *self;
        let set = |fates: &Fates| (fates.fate, fates.cause);
        debug_assert!(self.fates.is_sorted_by_key(set));
        let sets: Vec<FateSet<'_>> = self
            .fates
            .iter()
            .map(|Fates { fate, cause, uids }| {
                let uids = uids.as_slice().into();
                FateSet { fate: *fate, cause: *cause, uids }
            })
            .collect();
        let hops = traced_by.map(|incarnation| self.hops(incarnation)).unwrap_or_default();
        let report = frame::Report {
            stage: Level::DELIVERED,
            sequence,
            origin,
            reached,
            offline,
            filtered,
            dropped,
            unknown,
            fate_sets: sets.as_slice().into(),
            hops: HopTimes { left_out: 0, times: (&hops).into() },
        };
        report.encode(out)
    }

    fn hops(&self, incarnation: u64) -> Vec<HopTime> {
        let hops = [(TraceHop::GATEWAY_IN, self.gateway_in_us), (TraceHop::SOCKET, self.socket_us)];
        let known = hops.into_iter().filter(|(_, time_us)| *time_us != 0);
        let (process, gateway) = (incarnation, incarnation);
        known.map(|(hop, time_us)| HopTime { time_us, process, gateway, hop }).collect()
    }
}
