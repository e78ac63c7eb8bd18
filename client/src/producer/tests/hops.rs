//! Hop times of traced publishes.

use std::time::Duration;

use waybill_wire::code::{Level, TraceHop, capability};
use waybill_wire::frame::{HopTime, HopTimes, Receipt as WireReceipt};

use super::{Rig, retry, welcomed};
use crate::hops::Place;
use crate::machine::Machine;
use crate::producer::machine::Order;
use crate::publish::Publish;
use crate::receipt::{HOPS_MAX, Receipt};
use crate::wall::Wall;

const START_US: u64 = 1_000_000;

impl Rig {
    /// Queues a traced publish now, at this time of the wall clock.
    fn order_traced(&mut self, uids: Vec<u64>, time_us: u64) {
        let publish = Publish::to(uids).trace([7; 16]);
        let (reply, wall) = (self.orders, Some(Wall::at(self.now, time_us)));
        self.orders += 1;
        self.machine.handle_command(self.now, vec![Order { request: publish.into(), reply, wall }]);
    }

    /// All of a part was sent, and it passed the broker at these times.
    fn routed_at(&mut self, sequence: u64, times: &[u64]) {
        let hop =
            |&time_us: &u64| HopTime { time_us, process: 5, gateway: 0, hop: TraceHop::BROKER_IN };
        let times: Vec<HopTime> = times.iter().map(hop).collect();
        let hops = HopTimes { left_out: 1, times: (&times).into() };
        self.receipt(WireReceipt { sequence, sent: 1, hops, ..WireReceipt::default() });
    }
}

fn passed(receipt: &Receipt) -> Vec<(Place, u64, u64)> {
    receipt.hops.iter().map(|hop| (hop.place, hop.time_us, hop.process)).collect()
}

/// SES-8, TRC-1.
#[test]
fn a_receipt_begins_with_when_its_publish_was_transmitted() {
    let mut rig = Rig::open(10);
    assert!(rig.machine.hello().capabilities & capability::TRACE != 0);
    rig.order_traced(vec![1], START_US);
    rig.now += Duration::from_micros(30);
    let sent = rig.transmit();
    assert_eq!(sent[0].level, Level::ROUTED);
    rig.routed_at(1, &[START_US + 90]);
    let receipt = rig.one().unwrap();
    let expected = [(Place::Producer, START_US + 30, 77), (Place::BrokerIn, START_US + 90, 5)];
    assert_eq!(passed(&receipt), expected);
    assert_eq!(receipt.hops_left_out, 1);
}

#[test]
fn what_is_sent_again_tells_of_the_copy_that_was_answered() {
    let mut rig = Rig::resending(10, Duration::from_secs(5));
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    rig.order_traced(vec![1], START_US);
    rig.transmit();
    rig.now += Duration::from_micros(500);
    rig.machine.handle_down(rig.now, &retry());
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    assert!(rig.transmit()[0].resend);
    rig.routed_at(1, &[9]);
    assert_eq!(passed(&rig.one().unwrap())[0], (Place::Producer, START_US + 500, 77));
}

#[test]
fn a_broker_that_tells_nothing_leaves_no_hops() {
    let mut rig = Rig::open(10);
    rig.order_traced(vec![1], START_US);
    let sent = rig.transmit();
    rig.all_sent(&sent[0]);
    assert_eq!(rig.one().unwrap().hops, []);
    // Nor are any kept that nobody asked for.
    rig.order(Publish::to([1]));
    rig.transmit();
    rig.routed_at(2, &[9]);
    assert_eq!(rig.one().unwrap().hops, []);
}

#[test]
fn promise_7_hops_of_many_parts_are_bounded() {
    let mut rig = Rig::open(100);
    rig.order_traced((0..20 * 4096).collect(), START_US);
    let sent = rig.transmit();
    assert_eq!(sent.len(), 20);
    for part in &sent {
        rig.routed_at(part.sequence, &[1, 2, 3, 4]);
    }
    let receipt = rig.one().unwrap();
    assert_eq!((receipt.hops.len(), receipt.hops_left_out), (HOPS_MAX, 20 + 20 * 5 - 51));
    let twice = {
        let mut sum = receipt.clone();
        sum.merge(receipt.clone());
        sum
    };
    assert_eq!(twice.hops.len(), HOPS_MAX);
    assert_eq!(twice.hops_left_out, 2 * receipt.hops_left_out + 51);
}
