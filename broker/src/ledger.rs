//! The broker's ledger: what came in and what became of it, by cause (promise 5).
//!
//! [`Ledger::balances`] has the equations. They hold at every moment for a broker that is looked at
//! between two inputs, and once it is at rest for one whose shards run on.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::telemetry::counters;

counters! {
    /// Frames for one class of receiver: gateways, or consumers.
    FrameCounters => Frames {
        /// Frames made for a receiver. Each becomes one of the next three, or is between shards.
        offered,
        /// Frames put into an outbox.
        queued,
        /// Frames that found no room in the outbox they were for; never queued.
        dropped_outbox_full,
        /// Frames that found no room in what all links hold together; never queued.
        dropped_pool_full,
        /// Frames that found those which waited too old; never queued.
        dropped_outbox_age,
        /// Frames for a receiver whose link had just gone; never queued.
        dropped_no_link,
        /// Gauge: frames on their way to the outbox, which is that of another shard.
        between_shards,
        /// Frames the receiver has read: it answered a PING that came after them.
        delivered,
        /// Frames whose time to live ran out in the outbox.
        expired,
        /// Frames whose place in the outbox a newer one with the same key took.
        conflated,
        /// Frames dropped from the outbox to make room for others.
        evicted_outbox_full,
        /// Frames dropped from the outbox to make room in what all links hold together.
        evicted_pool_full,
        /// Frames dropped from the outbox because they had waited too long.
        evicted_outbox_age,
        /// Frames never written, since their link ended first.
        lost,
        /// Frames written, or in a write, when their link ended, and not confirmed.
        in_doubt,
        /// Gauge: frames in the outboxes of links that stand.
        waiting,
        /// Gauge: frames given to the transport of links that stand, and not confirmed yet.
        unconfirmed,
    }
}

counters! {
    /// What the io_uring backend ran into, and got over.
    IoCounters => IoEvents {
        /// Receipts that found no buffer, and were ordered again.
        starved,
        /// Standing orders to receive that ended since the link brought more than was read.
        stopped,
        /// Sends that took another order for their rest.
        sends_resumed,
        /// Turns that found more results than there is room for; none is lost.
        overflows,
        /// Results for a socket that had left its place. None is expected.
        stale,
    }
}

counters! {
    /// What a broker counts.
    Counters => Ledger {
        /// Links accepted.
        links_accepted,
        /// Links refused because there were too many.
        links_refused,
        /// Links ended with an error of the peer (codes 101-299).
        links_faulted,
        /// Links of gateways ended for want of room in their outbox.
        links_slow_full,
        /// Links of gateways ended for want of room in what all links hold together.
        links_slow_pool,
        /// Links of gateways ended because what waited for them was too old.
        links_slow_age,
        /// HELLOs refused.
        hellos_refused,
        /// Registration records applied.
        registrations,
        /// Tag records applied.
        tag_records,
        /// Times a gateway was told that not all of its tags are kept.
        tags_unkept,
        /// PUBLISHes in fragments whose link ended before all of them had come; not received.
        publishes_unfinished,
        /// PUBLISHes received, those in fragments with their last piece. Each is routed or refused.
        publishes,
        /// PUBLISH frames that were looked up and offered.
        publishes_routed,
        /// PUBLISH frames refused as a whole.
        publishes_refused,
        /// Of these: in fragments, and nothing more of them came.
        publishes_stood_still,
        /// Distinct UIDs of the lists of routed PUBLISHes. Each is one of the next five.
        targets,
        /// Targets whose frame was taken for at least one gateway.
        targets_sent,
        /// Targets that no gateway had registered, or whose gateways had just gone.
        targets_offline,
        /// Targets that EXCEPT took away, or none of whose gateways can have a match.
        targets_filtered,
        /// Targets none of whose gateways had room.
        targets_dropped,
        /// Targets that were not looked up: mode `broadcast`.
        targets_unresolved,
        /// TAG frames received. Each is routed or refused.
        taggings,
        /// TAG frames whose users were looked up.
        taggings_routed,
        /// TAG frames refused as a whole.
        taggings_refused,
        /// Routed PUBLISHes for which a receipt was asked, and routed TAGs. Each is one of the next
        /// three.
        receipts_asked,
        /// Final receipts given to those.
        receipts_answered,
        /// Final receipts not given, since the producer's link ended first.
        receipts_producer_gone,
        /// Gauge: PUBLISHes and TAGs whose receipt of stage `delivered` is not complete.
        receipts_pending,
        /// REPORTs that nobody waited for: late, or never asked for.
        reports_ignored,
        /// Gateways' parts of a receipt that no REPORT came for in time.
        reports_missed,
        /// UPLINK frames received. Each is accepted, refused, lost or pending.
        uplinks,
        /// Uplinks answered with code 0: every group's consumer has accepted.
        uplinks_accepted,
        /// Uplinks answered with another code: the sum of the next seven.
        uplinks_refused,
        /// Refused: no consumer for the namespace.
        uplinks_no_consumer,
        /// Refused: a consumer's link ended before it answered.
        uplinks_consumer_lost,
        /// Refused: no room in a consumer's outbox.
        uplinks_outbox_full,
        /// Refused: too many without an answer.
        uplinks_overloaded,
        /// Refused: no right to the namespace.
        uplinks_not_permitted,
        /// Refused: asks for what does not run.
        uplinks_not_supported,
        /// Refused by a consumer, with another code.
        uplinks_refused_by_consumer,
        /// Uplinks whose gateway's link ended before the answer was there.
        uplinks_asker_gone,
        /// Gauge: uplinks that wait for consumers.
        uplinks_pending,
        /// UPLINK_ACKs that nobody waited for.
        answers_ignored,
    } each {
        /// Frames for gateways.
        gateways: FrameCounters => Frames,
        /// Frames for consumers.
        consumers: FrameCounters => Frames,
        /// Of the io_uring backend.
        io: IoCounters => IoEvents,
    }
}

impl Ledger {
    /// The sum over shards.
    #[must_use]
    pub fn of<'a>(shards: impl IntoIterator<Item = &'a Counters>) -> Self {
        let mut ledger = Self::default();
        shards.into_iter().for_each(|counters| counters.add_to(&mut ledger));
        for frames in [&mut ledger.gateways, &mut ledger.consumers] {
            // Shards are read one after another: what one has sent off may be missing.
            if frames.between_shards > u64::MAX / 2 {
                frames.between_shards = 0;
            }
        }
        ledger
    }

    /// Whether every equation holds (promise 5). See the module for when they must.
    ///
    /// # Errors
    ///
    /// The first equation that does not, with its numbers.
    pub fn balances(&self) -> Result<(), String> {
        self.gateways.balances("gateways")?;
        self.consumers.balances("consumers")?;
        equal(
            "publishes = routed + refused",
            self.publishes,
            &[self.publishes_routed, self.publishes_refused],
        )?;
        equal(
            "targets = sent + offline + filtered + dropped + unresolved",
            self.targets,
            &[
                self.targets_sent,
                self.targets_offline,
                self.targets_filtered,
                self.targets_dropped,
                self.targets_unresolved,
            ],
        )?;
        equal(
            "taggings = routed + refused",
            self.taggings,
            &[self.taggings_routed, self.taggings_refused],
        )?;
        equal(
            "receipts: asked = answered + producer_gone + pending",
            self.receipts_asked,
            &[self.receipts_answered, self.receipts_producer_gone, self.receipts_pending],
        )?;
        self.uplinks_balance()
    }

    fn uplinks_balance(&self) -> Result<(), String> {
        equal(
            "uplinks = accepted + refused + asker_gone + pending",
            self.uplinks,
            &[
                self.uplinks_accepted,
                self.uplinks_refused,
                self.uplinks_asker_gone,
                self.uplinks_pending,
            ],
        )?;
        equal(
            "uplinks_refused = the sum of its causes",
            self.uplinks_refused,
            &[
                self.uplinks_no_consumer,
                self.uplinks_consumer_lost,
                self.uplinks_outbox_full,
                self.uplinks_overloaded,
                self.uplinks_not_permitted,
                self.uplinks_not_supported,
                self.uplinks_refused_by_consumer,
            ],
        )
    }
}

impl Frames {
    /// Frames given to the transport, confirmed or not.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.delivered + self.in_doubt + self.unconfirmed
    }

    fn balances(&self, class: &str) -> Result<(), String> {
        equal(
            &format!(
                "{class}: offered = queued + outbox_full + pool_full + outbox_age + no_link + \
                 between_shards"
            ),
            self.offered,
            &[
                self.queued,
                self.dropped_outbox_full,
                self.dropped_pool_full,
                self.dropped_outbox_age,
                self.dropped_no_link,
                self.between_shards,
            ],
        )?;
        equal(
            &format!(
                "{class}: queued = delivered + expired + conflated + evicted_outbox_full + \
                 evicted_pool_full + evicted_outbox_age + lost + in_doubt + waiting + unconfirmed"
            ),
            self.queued,
            &[
                self.delivered,
                self.expired,
                self.conflated,
                self.evicted_outbox_full,
                self.evicted_pool_full,
                self.evicted_outbox_age,
                self.lost,
                self.in_doubt,
                self.waiting,
                self.unconfirmed,
            ],
        )
    }
}

fn equal(equation: &str, whole: u64, parts: &[u64]) -> Result<(), String> {
    if parts.iter().sum::<u64>() == whole {
        return Ok(());
    }
    let parts: Vec<String> = parts.iter().map(u64::to_string).collect();
    Err(format!("{equation} does not hold: {whole} is not {}", parts.join(" + ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_5_an_equation_that_fails_is_named_with_its_numbers() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.balances(), Ok(()));
        ledger.gateways.offered = 3;
        ledger.gateways.queued = 2;
        let said = ledger.balances().unwrap_err();
        assert!(said.contains("gateways: offered") && said.contains("3 is not 2 + 0"), "{said}");
        ledger.gateways.dropped_outbox_full = 1;
        ledger.gateways.unconfirmed = 1;
        ledger.gateways.delivered = 1;
        assert_eq!(ledger.balances(), Ok(()));
        ledger.uplinks = 1;
        assert!(ledger.balances().unwrap_err().starts_with("uplinks"));
    }

    #[test]
    fn a_gauge_that_rises_here_and_falls_there_is_their_sum() {
        let (one, other) = (Counters::default(), Counters::default());
        crate::telemetry::count(&one.gateways.between_shards, 3);
        crate::telemetry::uncount(&other.gateways.between_shards, 2);
        assert_eq!(Ledger::of([&one, &other]).gateways.between_shards, 1);
        assert_eq!(Ledger::of([&other]).gateways.between_shards, 0, "seen too early");
    }
}
