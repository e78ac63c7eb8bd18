//! A publish, or a change of tags, that is not settled, and its parts that are under way.

use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use waybill_wire::code::{ErrorCode, Level};
use waybill_wire::frame::Receipt as WireReceipt;
use waybill_wire::limits::TARGETS_MAX;

use super::machine::{Order, Outcome};
use super::window::{TRACE_BYTES, awaited_bytes};
use crate::error::{Obstacle, PublishError};
use crate::hops::{Hop, Place};
use crate::publish::ReceiptLevel;
use crate::receipt::{Progress, Receipt};

/// Whom the outcome of a publish goes to, and how far it has come.
pub(crate) trait Reply {
    /// Parts were transmitted or answered.
    fn progress(&mut self, progress: Progress);
}

/// A publish that is not settled.
#[derive(Debug)]
pub(super) struct Job<R> {
    pub(super) order: Order<R>,
    pub(super) queued_at: Instant,
    /// When a part of it was transmitted last, or it was queued.
    pub(super) moved_at: Instant,
    pub(super) receipt: Receipt,
    /// Parts transmitted so far, of `parts`.
    pub(super) sent: u32,
    pub(super) parts: u32,
    /// Parts that have a final answer, of `sent`, and those with a routed one that is not final.
    pub(super) answered: u32,
    pub(super) routed: u32,
    /// Parts refused as a whole, of `answered`, and the first cause.
    pub(super) refused: u32,
    cause: ErrorCode,
    /// What kept the rest from being sent in time.
    pub(super) obstacle: Option<Obstacle>,
}

/// A transmitted part.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) sequence: u64,
    pub(super) job: usize,
    /// Its share of the job's targets.
    pub(super) targets: Range<usize>,
    /// What was said of it at stage routed, while it waits for the final answer. At most as large
    /// as its targets.
    pub(super) routed: Option<Box<Receipt>>,
    /// A copy was lost with its link, so that its fate is in doubt; from then on it is no use to
    /// send it again.
    pub(super) doubt_until: Option<Instant>,
    /// When it was transmitted last, by the wall clock; 0 unless it is traced.
    pub(super) sent_us: u64,
}

impl Flight {
    /// Bytes it counts with while its delivery is awaited.
    pub(super) fn weight(&self) -> usize {
        let trace = if self.sent_us == 0 { 0 } else { TRACE_BYTES };
        awaited_bytes(self.targets.len()) + trace
    }
}

impl<R: Reply> Job<R> {
    pub(super) fn new(now: Instant, instance: u64, order: Order<R>) -> Self {
        let parts = order.request.targets().map_or(1, |uids| uids.len().div_ceil(TARGETS_MAX));
        let mut receipt = Receipt::new(instance, 0);
        receipt.stage = order.request.level();
        Self {
            order,
            queued_at: now,
            moved_at: now,
            receipt,
            sent: 0,
            parts: u32::try_from(parts).unwrap_or(u32::MAX),
            answered: 0,
            routed: 0,
            refused: 0,
            cause: ErrorCode(0),
            obstacle: None,
        }
    }

    pub(super) fn level(&self) -> ReceiptLevel {
        self.order.request.level()
    }

    /// The next part's share of the targets.
    pub(super) fn part(&self) -> Range<usize> {
        let count = self.order.request.targets().map_or(0, <[u64]>::len);
        let start = self.sent as usize * TARGETS_MAX;
        start..(start + TARGETS_MAX).min(count)
    }

    /// Of the part with these targets, if the list was cut: sequence of the first part, index,
    /// number of parts.
    pub(super) fn list(&self, targets: &Range<usize>) -> Option<(u64, u32, u32)> {
        let index = u32::try_from(targets.start / TARGETS_MAX).unwrap_or(u32::MAX);
        (self.parts > 1).then_some((self.receipt.sequence, index, self.parts))
    }

    /// `ttl_ms` that is left after the wait here, or `None` if nothing is. 0 = no limit.
    pub(super) fn ttl_left(&self, now: Instant) -> Option<u32> {
        let Some(ttl) = self.order.request.ttl() else { return Some(0) };
        let waited = now.saturating_duration_since(self.queued_at);
        let left = ttl.checked_sub(waited).filter(|left| *left >= Duration::from_millis(1))?;
        Some(u32::try_from(left.as_millis()).unwrap_or(u32::MAX))
    }

    /// The wall clock's time, if the publish is traced; else 0.
    pub(super) fn sent_us(&self, now: Instant) -> u64 {
        self.order.wall.map_or(0, |wall| wall.time_us(now))
    }

    fn targets(&self, part: Range<usize>) -> Vec<u64> {
        self.order.request.targets().and_then(|uids| uids.get(part)).unwrap_or_default().to_vec()
    }

    pub(super) fn accept(&mut self, receipt: &WireReceipt<'_>, resent: bool, sent_us: u64) {
        self.answered += 1;
        self.receipt.resent |= resent;
        if receipt.stage == Level::ROUTED {
            self.receipt.stage = ReceiptLevel::Routed;
        }
        self.receipt.add(receipt);
        if sent_us != 0 {
            let (place, process) = (Place::Producer, self.receipt.instance);
            self.receipt.passed(Hop { place, time_us: sent_us, process, gateway: None }, receipt);
        }
        self.tell_progress();
    }

    /// It was written; nothing more will be said of it.
    pub(super) fn written(&mut self) {
        self.answered += 1;
        self.tell_progress();
    }

    pub(super) fn refuse(&mut self, part: Range<usize>, code: ErrorCode) {
        self.answered += 1;
        self.refused += 1;
        if self.refused == 1 {
            self.cause = code;
        }
        if self.parts > 1 {
            let uids = self.targets(part);
            self.receipt.dropped(code, uids.into_iter());
        }
        self.tell_progress();
    }

    /// No final answer comes. Whom no gateway was given is known if the last copy was routed; the
    /// rest is in doubt.
    pub(super) fn doubt(&mut self, flight: Flight) {
        self.answered += 1;
        let mut uids = self.targets(flight.targets);
        if let Some(routed) = flight.routed {
            let known: HashSet<u64> = routed.unreached().collect();
            uids.retain(|uid| !known.contains(uid));
            self.receipt.merge(*routed);
        }
        self.receipt.doubt(&uids);
        self.tell_progress();
    }

    /// Its part has a routed answer, and a final one will come.
    pub(super) fn routed(&mut self, flight: &mut Flight, said: &WireReceipt<'_>) {
        let mut receipt = self.receipt.fresh();
        receipt.add(said);
        receipt.forget_reached();
        if flight.routed.replace(Box::new(receipt)).is_none() {
            self.routed += 1;
        }
        self.tell_progress();
    }

    /// The part goes again and will be answered from the beginning: another copy may reach whom the
    /// first one did not.
    pub(super) fn unrouted(&mut self, flight: &mut Flight) {
        if flight.routed.take().is_some() {
            self.routed = self.routed.saturating_sub(1);
        }
    }

    fn tell_progress(&mut self) {
        let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let progress = Progress {
            parts: self.parts,
            routed: self.routed.max(self.answered),
            answered: self.answered,
            sent: self.receipt.sent,
            offline: narrow(self.receipt.offline_count()),
            dropped: narrow(self.receipt.dropped_count()),
            unknown: self.receipt.unknown_count,
        };
        self.order.reply.progress(progress);
    }

    /// The reply and the outcome; every part is answered.
    pub(super) fn into_outcome(self) -> (R, Outcome) {
        let all_refused = self.refused == self.parts;
        let outcome = match (all_refused, self.obstacle) {
            (true, Some(obstacle)) => Err(PublishError::TimedOut(obstacle)),
            (true, None) => Err(PublishError::Refused { code: self.cause }),
            (false, _) => Ok(self.receipt),
        };
        (self.order.reply, outcome)
    }
}
