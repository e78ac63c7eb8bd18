//! Hop times (6.10): when a message with TRACE passed where, gathered for its last receipt.
//!
//! A hop's time is that of the turn in which it happened, which the brain is told anyway; so a
//! message without TRACE costs nothing, and one with it no look at a clock. `broker_in` is the
//! turn's input, `routed` its end: then what the input led to is in the outboxes. A receipt that is
//! encoded before that gets this one time written in when the turn ends; its bytes cannot have
//! left by then.

use std::time::Duration;

use waybill_wire::code::TraceHop;
use waybill_wire::frame::{Frame, HOP_TIME_BYTES, HopTime, HopTimes, Receipt, Report};
use waybill_wire::limits::TRACE_HOPS_MAX;

use super::link::{Link, Part, RoleState};
use super::{Core, Links};
use crate::io::Output;
use crate::mail::{Asked, Mail};

/// Hops of the broker, and hops of each gateway.
const BROKER_HOPS: usize = 2;
const GATEWAY_HOPS: usize = 3;

/// Gateways whose hops a receipt has room for.
const GATEWAYS_MAX: usize = (TRACE_HOPS_MAX - BROKER_HOPS) / GATEWAY_HOPS;

/// What is known of one message's way.
#[derive(Debug)]
pub(super) struct Trace {
    broker_in_us: u64,
    // 0 until the turn has ended.
    routed_us: u64,
    // With the part of the message they are about; at most `GATEWAY_HOPS` of each.
    gateways: Vec<(u16, HopTime)>,
    left_out: u32,
}

/// Where the time of `routed` is missing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unrouted {
    /// In the receipt of this number, which waits.
    Pending(u64),
    /// At this place of the answers that wait to be written.
    Encoded(usize),
}

impl Trace {
    /// Of a message that came in then, for so many gateways.
    fn new(broker_in_us: u64, gateways: usize) -> Self {
        let gateways = Vec::with_capacity(GATEWAY_HOPS * gateways.min(GATEWAYS_MAX));
        Self { broker_in_us, routed_us: 0, gateways, left_out: 0 }
    }

    /// Bytes one takes that is for so many gateways.
    pub(super) fn bytes(gateways: usize) -> usize {
        let hops = GATEWAY_HOPS * gateways.min(GATEWAYS_MAX);
        size_of::<Self>() + hops * size_of::<(u16, HopTime)>()
    }

    /// A part of the message passed a hop.
    pub(super) fn passed(&mut self, part: u16, hop: HopTime) {
        if usize::from(part) >= GATEWAYS_MAX {
            self.left_out = self.left_out.saturating_add(1);
        } else if !self.gateways.iter().any(|(at, it)| *at == part && it.hop == hop.hop) {
            self.gateways.push((part, hop));
        }
    }

    pub(super) fn routed(&mut self, time_us: u64) {
        self.routed_us = time_us;
    }

    /// In the order of a receipt; `routed` is the second.
    fn times(&self, broker: u64) -> Vec<HopTime> {
        let of_broker = |hop, time_us| HopTime { time_us, process: broker, gateway: 0, hop };
        // No time is 0; that of a turn that has not ended is written in later.
        let routed_us = self.routed_us.max(self.broker_in_us);
        let mut times = vec![
            of_broker(TraceHop::BROKER_IN, self.broker_in_us),
            of_broker(TraceHop::ROUTED, routed_us),
        ];
        let mut gateways: Vec<&(u16, HopTime)> = self.gateways.iter().collect();
        gateways.sort_by_key(|(part, it)| (*part, it.hop));
        times.extend(gateways.into_iter().map(|(_, it)| *it));
        times
    }
}

impl Core {
    fn wall_us(&self) -> u64 {
        self.shared.wall_us(self.now)
    }

    /// The beginning of a message's way.
    pub(super) fn trace(&self, gateways: usize) -> Trace {
        Trace::new(self.wall_us(), gateways)
    }

    /// The same of a message that was taken up then.
    pub(super) fn trace_since(&self, at: Duration, gateways: usize) -> Trace {
        Trace::new(self.shared.wall_us(at), gateways)
    }

    /// Puts a receipt, and into it what is known of its message's way.
    pub(super) fn put_receipt(&self, part: &mut Part, receipt: Receipt<'_>, trace: Option<&Trace>) {
        let Some(trace) = trace else { return part.put(&Frame::Receipt(receipt)) };
        let times = trace.times(self.shared.instance);
        let hops = HopTimes { left_out: trace.left_out, times: (&times).into() };
        part.put(&Frame::Receipt(Receipt { hops, ..receipt }));
        if trace.routed_us == 0
            && let RoleState::Producer(producer) = &mut part.role
        {
            let at = part.outbox.control_bytes() - (times.len() - 1) * HOP_TIME_BYTES;
            producer.unrouted.push(Unrouted::Encoded(at));
        }
    }

    /// The turn has ended: what a producer's messages led to is in the outboxes.
    pub(super) fn end_of_turn(&self, part: &mut Part) {
        let RoleState::Producer(producer) = &mut part.role else { return };
        if producer.unrouted.is_empty() {
            return;
        }
        let time_us = self.wall_us();
        for unrouted in std::mem::take(&mut producer.unrouted) {
            match unrouted {
                Unrouted::Pending(number) => producer.receipts.routed(number, time_us),
                Unrouted::Encoded(at) => {
                    part.outbox.control()[at..at + 8].copy_from_slice(&time_us.to_le_bytes());
                }
            }
        }
    }

    /// Frames of a gateway that are traced were given to the transport.
    pub(super) fn written(&mut self, links: &mut Links, part: &mut Part) {
        let numbers = part.outbox.take_traced();
        let Some(gateway) = part.incarnation() else { return };
        let Some(reports) = part.reports() else { return };
        let asked = numbers.into_iter().filter_map(|number| reports.asked(number));
        let asked: Vec<Asked> = asked.collect();
        let process = self.shared.instance;
        let hop = HopTime { time_us: self.wall_us(), process, gateway, hop: TraceHop::WRITTEN };
        asked.into_iter().for_each(|asked| self.tell_hop(links, asked, hop));
    }

    /// A gateway tells when a message passed it: of itself only, and each hop once (TRC-5).
    pub(super) fn reported_hops(
        &mut self,
        links: &mut Links,
        asked: Asked,
        by: u64,
        it: &Report<'_>,
    ) {
        for hop in [TraceHop::GATEWAY_IN, TraceHop::SOCKET] {
            if let Some(told) = it.hops.times.iter().find(|told| told.hop == hop) {
                self.tell_hop(links, asked, HopTime { process: by, gateway: by, ..told });
            }
        }
    }

    fn tell_hop(&mut self, links: &mut Links, asked: Asked, hop: HopTime) {
        if asked.shard == self.id {
            return Self::hop_told(links, asked, hop);
        }
        self.outputs.push_back(Output::Mail { to: asked.shard, mail: Mail::Hop { asked, hop } });
    }

    /// A message that one of this shard's producers waits for passed a hop.
    pub(super) fn hop_told(links: &mut Links, asked: Asked, hop: HopTime) {
        let Some(Link { part, .. }) = links.find_mut(asked.link) else {
            return;
        };
        let RoleState::Producer(producer) = &mut part.role else { return };
        let halfway = part.halfway.as_mut().and_then(|halfway| halfway.trace(asked));
        if let Some(trace) = producer.receipts.trace(asked.number).or(halfway) {
            trace.passed(asked.part, hop);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(gateway: u64, hop: TraceHop, time_us: u64) -> HopTime {
        HopTime { time_us, process: gateway, gateway, hop }
    }

    /// TRC-6.
    #[test]
    fn hops_come_gateway_by_gateway_and_each_once() {
        let mut trace = Trace::new(5, 2);
        trace.passed(1, hop(8, TraceHop::GATEWAY_IN, 9));
        trace.passed(1, hop(8, TraceHop::WRITTEN, 7));
        trace.passed(0, hop(4, TraceHop::SOCKET, 8));
        trace.passed(1, hop(8, TraceHop::WRITTEN, 70));
        trace.routed(6);
        let times = trace.times(1);
        let found: Vec<_> = times.iter().map(|it| (it.gateway, it.hop, it.time_us)).collect();
        let expected = [
            (0, TraceHop::BROKER_IN, 5),
            (0, TraceHop::ROUTED, 6),
            (4, TraceHop::SOCKET, 8),
            (8, TraceHop::WRITTEN, 7),
            (8, TraceHop::GATEWAY_IN, 9),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn promise_7_hops_beyond_what_a_receipt_holds_are_counted() {
        let mut trace = Trace::new(1, 100);
        for part in 0..100 {
            for kind in [TraceHop::WRITTEN, TraceHop::GATEWAY_IN, TraceHop::SOCKET] {
                trace.passed(part, hop(u64::from(part) + 1, kind, 2));
            }
        }
        assert_eq!(trace.times(1).len(), TRACE_HOPS_MAX);
        assert_eq!(trace.left_out, 84 * 3);
        assert_eq!(trace.gateways.capacity(), 48, "what `bytes` counts");
    }
}
