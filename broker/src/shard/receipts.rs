//! Receipts of stage `delivered`: what producers wait for, what gateways owe, and how the two meet.
//!
//! A producer's link keeps a [`Merge`] for each message and each TAG until every gateway's part is
//! settled or its time is over. The link of a gateway keeps, for each DELIVER and TAG it has to
//! report on, whose part that is. What settles a part travels as mail to the producer's shard. Both
//! tables are in the order of their deadlines, since there is one time for all. A frame that
//! expires in the outbox, or is lost with its link, settles its part like a REPORT.
//!
//! A gateway reports on copies of a message in their order (REP-9). So what a REPORT is on is the
//! first copy that has none, also where the producer of that one waits no longer, or never did:
//! such a copy stays owed, for nobody. Where there is no room for one more, those that follow are
//! counted, and none is written down until the REPORTs on all of those have come: what is written
//! down always came before what is only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use waybill_wire::code::{Level, capability};
use waybill_wire::frame::{FateSet, Receipt, Report};

use super::hops::{Trace, Unrouted};
use super::link::{Part, RoleState};
use super::{Core, Links};
use crate::io::Output;
use crate::limits::{RECEIPTS_PENDING_BYTES_MAX, RECEIPTS_PENDING_MAX, REPORTS_AWAITED_MAX};
use crate::mail::{Asked, Awaited, Mail};
use crate::merge::{Merge, Outcome, Told, Word};
use crate::outbox::Cause;
use crate::telemetry::{count, uncount};

/// Receipts that one producer's link waits for.
#[derive(Default)]
pub(super) struct Receipts {
    pending: BTreeMap<u64, Pending>,
    last: u64,
    bytes: usize,
}

struct Pending {
    sequence: u64,
    gateways: u32,
    merge: Merge,
    bytes: usize,
    until: Duration,
    trace: Option<Box<Trace>>,
}

impl Receipts {
    /// The number of the next one.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Whether there is room for one more, where a link's share of the pool is that.
    pub(super) fn has_room_for(&self, bytes: usize, share: usize) -> bool {
        self.pending.len() < RECEIPTS_PENDING_MAX
            && self.bytes + bytes <= RECEIPTS_PENDING_BYTES_MAX.min(share / RECEIPT_TIMES)
    }

    /// Bytes of memory that they take, with what their REPORTs name on its way between shards.
    pub(super) fn held(&self) -> usize {
        self.bytes * RECEIPT_TIMES
    }

    /// What is known of the way of a message, if that is asked for and its receipt waits.
    pub(super) fn trace(&mut self, number: u64) -> Option<&mut Trace> {
        self.pending.get_mut(&number)?.trace.as_deref_mut()
    }

    /// The turn of this message has ended.
    pub(super) fn routed(&mut self, number: u64, time_us: u64) {
        if let Some(trace) = self.trace(number) {
            trace.routed(time_us);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many there are, and their bytes.
    #[cfg(feature = "sim")]
    pub(super) fn load(&self) -> (usize, usize) {
        (self.pending.len(), self.bytes)
    }

    fn insert(&mut self, number: u64, pending: Pending) {
        self.bytes += pending.bytes;
        self.pending.insert(number, pending);
    }

    fn remove(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        self.bytes -= pending.bytes;
        Some(pending)
    }

    /// The first one whose time is over.
    fn overdue(&mut self, now: Duration) -> Option<Pending> {
        let (&number, _) = self.pending.first_key_value().filter(|(_, it)| it.until <= now)?;
        self.remove(number)
    }
}

/// What a receipt takes, as a multiple of the bytes it is counted with: itself, and what REPORTs
/// name on its way between shards. That is of each part at most its users, 8 bytes for 2 that are
/// counted.
const RECEIPT_TIMES: usize = 5;

/// Bytes of a REPORT that is owed: 80 and a key, and 24 by its message, in trees whose nodes are at
/// least half full.
const REPORT_BYTES: usize = 224;

/// Bytes of the hop times of a traced one on their way between shards, of which there are three.
const HOPS_BYTES: usize = 3 * 128;

/// REPORTs that one gateway's link owes.
#[derive(Default)]
pub(super) struct Reports {
    owed: BTreeMap<u64, Due>,
    // (origin, sequence, number): a message that was sent again is owed twice, and the one that
    // was sent first is reported first.
    by_id: BTreeSet<(u64, u64, u64)>,
    // Nobody waits for those up to this number any more.
    overdue: u64,
    // Owed, and not in `owed`.
    counted: u64,
    last: u64,
    // Of those in `owed`.
    traced: usize,
}

/// One of them.
struct Due {
    awaited: Awaited,
    until: Duration,
}

impl Reports {
    /// The number to mark the frame with, not 0.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// How many there are.
    #[cfg(feature = "sim")]
    pub(super) fn load(&self) -> usize {
        debug_assert_eq!(self.owed.len(), self.by_id.len());
        self.owed.len()
    }

    /// Whose part a frame of this number is.
    pub(super) fn asked(&self, number: u64) -> Option<Asked> {
        self.owed.get(&number).map(|due| due.awaited.asked)
    }

    /// Bytes of memory they take, with hop times on their way between shards.
    pub(super) fn held(&self) -> usize {
        self.owed.len() * REPORT_BYTES + self.traced * HOPS_BYTES
    }

    /// The frame with this number is queued. Whether its REPORT can be waited for, where a link's
    /// share of the pool is that.
    fn insert(&mut self, number: u64, awaited: Awaited, until: Duration, share: usize) -> bool {
        let fits =
            self.counted == 0 && self.owed.len() < REPORTS_AWAITED_MAX && self.held() <= share;
        if fits {
            self.traced += usize::from(awaited.is_traced);
            self.by_id.insert((awaited.origin, awaited.sequence, number));
            self.owed.insert(number, Due { awaited, until });
        } else {
            self.counted += 1;
        }
        fits
    }

    /// That frame has its REPORT, or will have none. Whose part it settles.
    fn remove(&mut self, number: u64) -> Option<Awaited> {
        let Some(Due { awaited, .. }) = self.owed.remove(&number) else {
            self.counted = self.counted.saturating_sub(1);
            return None;
        };
        self.traced -= usize::from(awaited.is_traced);
        self.by_id.remove(&(awaited.origin, awaited.sequence, number));
        (number > self.overdue).then_some(awaited)
    }

    /// Whose part a REPORT on this message settles: that of the first copy without one.
    fn first(&mut self, origin: u64, sequence: u64) -> Option<Awaited> {
        let of_it = (origin, sequence, 0)..=(origin, sequence, u64::MAX);
        // 0 is no frame's number: it is one of those that are only counted.
        let number = self.by_id.range(of_it).next().map_or(0, |&(_, _, number)| number);
        self.remove(number)
    }

    /// Nobody waits any more for those whose time is over.
    fn pass_overdue(&mut self, now: Duration) {
        let waited_for = self.owed.range(self.overdue + 1..);
        let over = waited_for.take_while(|(_, due)| due.until <= now).last();
        self.overdue = over.map_or(self.overdue, |(&number, _)| number);
    }
}

/// Bytes a receipt is counted with while it waits.
pub(super) fn bytes_of(merge: &Merge, is_traced: bool) -> usize {
    merge.bytes() + if is_traced { Trace::bytes(merge.parts()) } else { 0 }
}

impl Core {
    fn report_by(&self) -> Duration {
        self.now + Duration::from_millis(self.shared.config.report_timeout_ms.into())
    }

    /// Waits for the parts of a message, or answers at once if there are none to wait for.
    pub(super) fn expect(
        &mut self,
        part: &mut Part,
        number: u64,
        sequence: u64,
        gateways: u32,
        (merge, trace): (Merge, Option<Box<Trace>>),
    ) {
        count(&self.counters.receipts_pending, 1);
        let until = self.report_by();
        let bytes = bytes_of(&merge, trace.is_some());
        let pending = Pending { sequence, gateways, bytes, merge, until, trace };
        if pending.merge.is_complete() {
            return self.complete(part, &pending);
        }
        if let RoleState::Producer(producer) = &mut part.role {
            if pending.trace.is_some() {
                producer.unrouted.push(Unrouted::Pending(number));
            }
            producer.receipts.insert(number, pending);
        }
    }

    /// A frame whose fate is to be told was queued for a gateway. Whether there will be a word.
    pub(super) fn await_report(&self, part: &mut Part, number: u64, awaited: Awaited) -> bool {
        let until = self.report_by();
        let share = self.waiting_share();
        part.reports().is_some_and(|reports| reports.insert(number, awaited, until, share))
    }

    /// REPORT came. One that nobody waits for changes nothing.
    pub(super) fn report(&mut self, links: &mut Links, part: &mut Part, report: &Report<'_>) {
        let reports = part.reports().filter(|_| report.stage == Level::DELIVERED);
        let awaited = reports.and_then(|it| it.first(report.origin, report.sequence));
        match awaited {
            Some(Awaited { asked, users, is_traced, .. }) => {
                if is_traced
                    && part.can(capability::TRACE)
                    && let Some(incarnation) = part.incarnation()
                {
                    self.reported_hops(links, asked, incarnation, report);
                }
                let told = Told::of(report, users.into());
                self.tell(links, asked, Word::Told(told));
            }
            None => count(&self.counters.reports_ignored, 1),
        }
    }

    /// Frames that left the outbox of a gateway unwritten will not be reported.
    pub(super) fn gone_unreported(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        numbers: Vec<(u64, Cause)>,
    ) {
        for (number, cause) in numbers {
            let Some(reports) = part.reports() else { return };
            if let Some(owed) = reports.remove(number) {
                self.tell(links, owed.asked, cause.into());
            }
        }
    }

    /// The gateway's link has ended: nobody will say what became of what it was sent.
    pub(super) fn reports_lost(&mut self, links: &mut Links, reports: &mut Reports) {
        let Reports { owed, overdue, .. } = std::mem::take(reports);
        for (_, Due { awaited, .. }) in owed.into_iter().filter(|(number, _)| *number > overdue) {
            self.tell(links, awaited.asked, Word::Unknown);
        }
    }

    /// Passes on what settles a part.
    pub(super) fn tell(&mut self, links: &mut Links, asked: Asked, word: Word) {
        if asked.shard == self.id {
            return self.told(links, asked, &word);
        }
        self.outputs.push_back(Output::Mail { to: asked.shard, mail: Mail::Word { asked, word } });
    }

    /// A part of a message that one of this shard's producers waits for is settled.
    pub(super) fn told(&mut self, links: &mut Links, asked: Asked, word: &Word) {
        let Some(link) = links.find_mut(asked.link) else {
            return count(&self.counters.reports_ignored, 1);
        };
        let part = &mut link.part;
        let RoleState::Producer(producer) = &mut part.role else {
            return count(&self.counters.reports_ignored, 1);
        };
        let Some(pending) = producer.receipts.pending.get_mut(&asked.number) else {
            // A gateway may answer before the others have been asked.
            if !part.halfway.as_mut().is_some_and(|halfway| halfway.hear(asked, word)) {
                count(&self.counters.reports_ignored, 1);
            }
            return;
        };
        pending.merge.hear(asked.part, word);
        if pending.merge.is_complete()
            && let Some(pending) = producer.receipts.remove(asked.number)
        {
            self.complete(part, &pending);
        }
    }

    /// Gives up what has been waited for too long, at either end.
    pub(super) fn check_reports(&mut self, part: &mut Part) {
        if let Some(reports) = part.reports() {
            reports.pass_overdue(self.now);
        } else {
            self.answer_overdue(part);
        }
    }

    fn answer_overdue(&mut self, part: &mut Part) {
        while let RoleState::Producer(producer) = &mut part.role
            && let Some(mut pending) = producer.receipts.overdue(self.now)
        {
            count(&self.counters.reports_missed, pending.merge.give_up() as u64);
            self.complete(part, &pending);
        }
    }

    /// The final receipt.
    fn complete(&mut self, part: &mut Part, pending: &Pending) {
        uncount(&self.counters.receipts_pending, 1);
        count(&self.counters.receipts_answered, 1);
        let Outcome { sent, counts: [offline, unknown, filtered, dropped], named } =
            pending.merge.outcome();
        let sets = named.iter();
        let sets: Vec<FateSet<'_>> = sets
            .map(|(fate, cause, uids)| FateSet { fate: *fate, cause: *cause, uids: uids.into() })
            .collect();
        let receipt = Receipt {
            last: true,
            stage: Level::DELIVERED,
            sequence: pending.sequence,
            sent,
            offline,
            unknown,
            filtered,
            dropped,
            gateways: pending.gateways,
            fate_sets: (&sets).into(),
            ..Receipt::default()
        };
        self.put_receipt(part, receipt, pending.trace.as_deref());
        self.touch(part);
    }

    /// The producer's link has ended: nobody is left to be told.
    pub(super) fn receipts_lost(&mut self, receipts: &Receipts) {
        let gone = receipts.pending.len() as u64;
        count(&self.counters.receipts_producer_gone, gone);
        uncount(&self.counters.receipts_pending, gone);
    }
}

#[cfg(test)]
mod tests {
    use waybill_wire::code::Kind;

    use super::*;
    use crate::io::LinkId;

    fn awaited(sequence: u64, number: u64) -> Awaited {
        let asked = Asked { shard: 0, link: LinkId(1), number, part: 0 };
        let kind = Kind::DELIVER;
        Awaited { asked, kind, origin: 7, sequence, users: 1, is_traced: false }
    }

    /// A frame of this message is queued; its number, and whether its REPORT is waited for.
    fn queue(reports: &mut Reports, sequence: u64, until_s: u64) -> (u64, bool) {
        let number = reports.next();
        let until = Duration::from_secs(until_s);
        (number, reports.insert(number, awaited(sequence, number), until, usize::MAX))
    }

    fn first(reports: &mut Reports, sequence: u64) -> Option<u64> {
        reports.first(7, sequence).map(|awaited| awaited.asked.number)
    }

    #[test]
    fn rep_9_what_was_given_up_is_still_the_first_to_be_reported() {
        let mut reports = Reports::default();
        assert_eq!(queue(&mut reports, 5, 1), (1, true));
        assert_eq!(queue(&mut reports, 6, 1), (2, true));
        assert_eq!(queue(&mut reports, 5, 2), (3, true));
        reports.pass_overdue(Duration::from_secs(1));
        assert_eq!(first(&mut reports, 5), None, "the first came too late");
        assert_eq!(first(&mut reports, 5), Some(3));
        assert_eq!(first(&mut reports, 5), None, "that was not asked for");
        assert_eq!(reports.remove(2), None, "it expired when nobody waited any more");
        assert_eq!(reports.owed.len(), 0);
    }

    #[test]
    fn promise_7_reports_beyond_the_bound_are_counted_and_pass_before_any_other() {
        let mut reports = Reports::default();
        let most = REPORTS_AWAITED_MAX as u64;
        assert!((1..=most).all(|sequence| queue(&mut reports, sequence, 1).1));
        assert_eq!(queue(&mut reports, 1, 1), (most + 1, false), "there is no room");
        assert_eq!(first(&mut reports, 1), Some(1));
        assert_eq!(
            queue(&mut reports, 1, 1),
            (most + 2, false),
            "the one before is not told apart"
        );
        assert_eq!(reports.owed.len(), REPORTS_AWAITED_MAX - 1);
        assert_eq!(first(&mut reports, 1), None);
        // The other one expires.
        assert_eq!(reports.remove(most + 2), None);
        assert_eq!(queue(&mut reports, 1, 1), (most + 3, true));
        assert_eq!(first(&mut reports, 1), Some(most + 3));
        assert_eq!(first(&mut reports, 2), Some(2));
    }
}
