//! How a link ends: by its peer, by a fault, for want of time, or because the broker stops.
//!
//! Whatever the way, `leave` takes back what its role gave it, once, and `forget` is the last
//! entry of the ledger for it.

use std::time::Duration;

use waybill_wire::code::{BrokerState, ErrorClass, ErrorCode, Kind};
use waybill_wire::frame::{Frame, State};
use waybill_wire::session::Phase;

use super::link::{Admission, Fault, Life, Link, Part, RoleState, refused};
use super::parts::Side;
use super::{Core, Links};
use crate::io::Output;
use crate::limits::{FLUSH_MS, LINGER_MS, SLOW_FLUSH_MS};
use crate::telemetry::count;

impl Core {
    /// The peer will send nothing more. It may still want what waits for it.
    pub(super) fn ended(&mut self, links: &mut Links, link: &mut Link) {
        link.part.reading.end();
        self.leave(links, &mut link.part);
        if link.part.life == Life::Lingering {
            return self.close(links, &mut link.part);
        }
        let until = self.now + Duration::from_millis(FLUSH_MS);
        // One that was ending already has no more time for that.
        let was_closing = link.part.life == Life::Closing;
        link.part.linger = if was_closing { link.part.linger.min(until) } else { until };
        link.part.life = Life::Closing;
        self.touch(&mut link.part);
    }

    pub(super) fn failed(&mut self, links: &mut Links, link: &mut Link) {
        self.leave(links, &mut link.part);
        self.forget(links, &mut link.part);
    }

    /// The peer leaves by itself when it is done; until then a consumer gets nothing new.
    pub(super) fn peer_drains(&mut self, part: &mut Part) {
        if matches!(part.role, RoleState::Consumer(_)) {
            self.shared.consumer_closed(self.id, part.id);
        }
    }

    /// Ends a link with a fatal ERROR, after which what it sends is discarded.
    pub(super) fn fault(&mut self, links: &mut Links, part: &mut Part, fault: Fault) {
        if part.life != Life::Open {
            return;
        }
        if matches!(fault.code().class(), ErrorClass::Malformed | ErrorClass::Violation) {
            count(&self.counters.links_faulted, 1);
        }
        self.leave(links, part);
        self.abandon(part);
        // What a newer link of the same gateway has to write waits for the end of this one.
        let is_slow = fault.code() == ErrorCode::SLOW_LINK;
        self.close_after(part, fault, if is_slow { SLOW_FLUSH_MS } else { FLUSH_MS });
    }

    /// Ends a link that did nothing wrong: what waits for it is written before the fatal ERROR.
    pub(super) fn dismiss(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        fault: Fault,
        within_ms: u64,
    ) {
        if part.life == Life::Open {
            self.leave(links, part);
            self.close_after(part, fault, within_ms);
        }
    }

    pub(super) fn close_after(&mut self, part: &mut Part, fault: Fault, within_ms: u64) {
        let (shard, link, code) = (self.id, part.id.0, fault.code());
        if part.admission == Admission::Link {
            if part.side() == Side::Gateways && code == ErrorCode::OVERLOADED {
                // All of its users are offline here until an operator does something.
                tracing::warn!(shard, link, %code, %fault, "a gateway's link ends");
            } else {
                tracing::info!(shard, link, %code, %fault, "link ends");
            }
        } else {
            // Strangers may be many, and their words are worth nothing.
            tracing::debug!(shard, link, %code, %fault, "stranger refused");
        }
        part.farewell = Some(fault);
        part.life = Life::Closing;
        part.linger = self.now + Duration::from_millis(within_ms);
        self.touch(part);
    }

    /// Takes back what the link's role gave it; once.
    pub(super) fn leave(&mut self, links: &mut Links, part: &mut Part) {
        if part.outbox.has_gone() {
            self.tell_gone(links, part);
        }
        match std::mem::take(&mut part.role) {
            RoleState::Gateway(mut gateway) => {
                self.end_data_links(gateway.session);
                self.reports_lost(links, &mut gateway.reports);
                self.uplinks_left(&gateway.uplinked);
                self.gateway_left(*gateway);
            }
            RoleState::Data(data) => self.data_left(links, part, *data),
            RoleState::Consumer(consumer) => self.consumer_left(links, part.id, consumer.owed),
            RoleState::Producer(producer) => {
                self.receipts_lost(&producer.receipts);
                count(&self.counters.publishes_unfinished, producer.assembly.len() as u64);
                self.shared.producer_closed();
            }
            RoleState::None => {}
        }
    }

    pub(super) fn close(&mut self, links: &mut Links, part: &mut Part) {
        if part.life != Life::Gone {
            self.outputs.push_back(Output::Close { link: part.id });
            self.forget(links, part);
        }
    }

    /// The ledger's last entry for a link.
    pub(super) fn forget(&mut self, links: &mut Links, part: &mut Part) {
        self.release_successor(links, part);
        self.abandon(part);
        self.doubt(part);
        match part.admission {
            Admission::Link => self.shared.link_closed(),
            Admission::Stranger => {
                self.strangers_now -= 1;
                self.shared.link_closed();
            }
            Admission::Refusal => self.shared.refusal_closed(),
        }
        part.farewell = None;
        part.life = Life::Gone;
    }

    pub(super) fn check_time(&mut self, links: &mut Links, link: &mut Link) {
        let part = &mut link.part;
        match part.life {
            Life::Open => {
                self.check_fences(part);
                self.ask_for_confirmation(part);
                self.check_reports(part);
                self.give_up_still(part);
                self.give_up_uplinks(links, part);
                self.check_outbox(links, part);
                part.is_idle = !std::mem::take(&mut part.wrote_lately);
                if let Err(fault) = part.session.expired(self.now) {
                    self.fault(links, part, fault);
                } else if self.drain.is_some_and(|end| end <= self.now || self.may_go(part)) {
                    let words = "this broker is shutting down";
                    let fault = refused(ErrorCode::SHUTTING_DOWN, Kind(0), words);
                    self.dismiss(links, part, fault, FLUSH_MS);
                }
                self.touch(part);
            }
            Life::Closing | Life::Lingering if part.linger <= self.now => {
                self.leave(links, part);
                self.close(links, part);
            }
            _ => {}
        }
    }

    /// Whether a link has nothing to wait for: nobody can publish any more, and nothing is unsent
    /// or unanswered.
    pub(super) fn may_go(&self, part: &Part) -> bool {
        !self.shared.has_producers() && part.is_idle()
    }

    pub(super) fn ask_to_leave(&mut self, part: &mut Part, deadline_ms: u32) {
        if part.life == Life::Open && part.session.phase() == Phase::Open {
            part.put(&Frame::State(State { state: BrokerState::DRAINING, gateways_missing: 0 }));
            // Without room for it the peer floods us with PINGs, and will be ended for that.
            let _ = part.session.drain(deadline_ms);
            self.touch(part);
        }
    }

    /// The last byte is with the kernel: half-close, so that it arrives, then wait for the peer.
    pub(super) fn written_out(&mut self, links: &mut Links, part: &mut Part) {
        self.release_successor(links, part);
        if part.reading.has_ended() {
            return self.close(links, part);
        }
        self.outputs.push_back(Output::Shutdown { link: part.id });
        part.life = Life::Lingering;
        part.linger = self.now + Duration::from_millis(LINGER_MS);
        self.read(part);
    }
}
