//! When a traced message passed where, on every backend (TRC-1 to TRC-6).

use std::collections::BTreeSet;
use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{Level, Op, Role, TraceHop, capability};
use waybill_wire::frame::{HopTime, HopTimes, Record, Report, Snapshot};
use waybill_wire::limits::TRACE_HOPS_MAX;
use waybill_wire::message::MessageHead;

use crate::support::{Backend, Line, Net, everywhere};
use crate::talk::{Producer, encode, link_offering};

const TRACE: [u8; 16] = *b"why so long, eh?";

fn traced() -> MessageHead<'static> {
    MessageHead { level: Level::DELIVERED, trace: Some(&TRACE), ..MessageHead::default() }
}

fn gateway(net: &mut Net, incarnation: u64, uids: &[u64]) -> Line {
    let capabilities = capability::REPORTS | capability::TRACE;
    let line = link_offering(net, Role::GATEWAY, incarnation, capabilities);
    let record = |&uid: &u64| Record { uid, op: Op::ADD, ..Record::default() };
    let records: Vec<Record> = uids.iter().map(record).collect();
    let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
    net.send(line, &encode(&Frame::Snapshot(snapshot)));
    let frame = net.frame(line).unwrap();
    assert!(matches!(Frame::decode(&frame), Ok(Frame::InEffect(_))));
    line
}

fn producer(net: &mut Net) -> Producer {
    Producer { line: link_offering(net, Role::PRODUCER, 7, capability::TRACE), sequence: 0 }
}

/// The gateway gets its DELIVER and reports one user reached, at these times.
fn serve(net: &mut Net, line: Line, sequence: u64, incarnation: u64, times: [u64; 2]) {
    let frame = net.frame(line).expect("a DELIVER");
    let Ok(Frame::Deliver(message)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    assert_eq!(message.trace, Some(&TRACE), "the trace id goes with it");
    let hops = [(TraceHop::GATEWAY_IN, times[0]), (TraceHop::SOCKET, times[1])];
    let (process, gateway) = (incarnation, incarnation);
    let hops = hops.map(|(hop, time_us)| HopTime { time_us, process, gateway, hop });
    let hops = HopTimes { left_out: 0, times: (&hops).into() };
    let (stage, origin) = (Level::DELIVERED, 7);
    let report = Report { stage, sequence, origin, reached: 1, hops, ..Report::default() };
    net.send(line, &encode(&Frame::Report(report)));
}

/// The next receipt: whether it is the last, its hop times, and how many were left out.
fn receipt(net: &mut Net, producer: &Producer) -> (bool, Vec<HopTime>, u32) {
    let frame = net.frame(producer.line).expect("a receipt");
    let Ok(Frame::Receipt(receipt)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    (receipt.last, receipt.hops.times.iter().collect(), receipt.hops.left_out)
}

/// The hops of the last of two receipts; the first has none.
fn last(net: &mut Net, producer: &Producer) -> Vec<HopTime> {
    assert_eq!(receipt(net, producer), (false, vec![], 0));
    let (last, hops, left_out) = receipt(net, producer);
    assert!(last && left_out == 0);
    hops
}

fn kinds(hops: &[HopTime]) -> Vec<(TraceHop, u64)> {
    hops.iter().map(|it| (it.hop, it.gateway)).collect()
}

#[test]
fn trc_6_a_receipt_tells_the_way_gateway_by_gateway() {
    everywhere(&BrokerConfig::default(), |net| {
        let lines = [gateway(net, 0xa1, &[1]), gateway(net, 0xb2, &[1, 2])];
        let mut producer = producer(net);
        producer.send_with(net, traced(), &[1, 2, 3], b"x");
        for (line, incarnation) in lines.into_iter().zip([0xa1, 0xb2]) {
            serve(net, line, 1, incarnation, [incarnation * 10, incarnation * 10 + 1]);
        }
        let hops = last(net, &producer);
        assert_eq!(hops.len(), 8, "{hops:?}");
        assert_eq!(kinds(&hops[..2]), [(TraceHop::BROKER_IN, 0), (TraceHop::ROUTED, 0)]);
        let of_gateways: BTreeSet<u64> = hops[2..].chunks(3).map(|it| it[0].gateway).collect();
        assert_eq!(of_gateways, BTreeSet::from([0xa1, 0xb2]));
        let broker = hops[0].process;
        for of_one in hops[2..].chunks(3) {
            let it = of_one[0].gateway;
            let all = [TraceHop::WRITTEN, TraceHop::GATEWAY_IN, TraceHop::SOCKET];
            assert_eq!(kinds(of_one), all.map(|hop| (hop, it)));
            let processes: Vec<u64> = of_one.iter().map(|it| it.process).collect();
            assert_eq!(processes, [broker, it, it]);
            assert_eq!([of_one[1].time_us, of_one[2].time_us], [it * 10, it * 10 + 1]);
            // One clock told these.
            assert!(hops[0].time_us <= hops[1].time_us && hops[1].time_us <= of_one[0].time_us);
        }
    });
}

#[test]
fn a_broker_tells_the_time_of_its_wall_clock() {
    everywhere(&BrokerConfig::default(), |net| {
        let line = gateway(net, 0xa1, &[1]);
        let before_us = net.wall_us();
        let mut producer = producer(net);
        producer.send_with(net, traced(), &[1], b"x");
        serve(net, line, 1, 0xa1, [1, 2]);
        let hops = last(net, &producer);
        let after_us = net.wall_us();
        // A clock that is looked at in the middle of a preemption is off by that.
        let error_us = 1_000_000;
        for hop in &hops[..3] {
            assert!(before_us <= hop.time_us + error_us, "{hop:?} is before {before_us}");
            assert!(hop.time_us <= after_us + error_us, "{hop:?} is after {after_us}");
        }
    });
}

#[test]
fn trc_1_only_a_last_receipt_of_a_traced_message_has_hop_times() {
    everywhere(&BrokerConfig::default(), |net| {
        let line = gateway(net, 0xa1, &[1]);
        let mut producer = producer(net);
        let routed = MessageHead { level: Level::ROUTED, ..traced() };
        producer.send_with(net, routed, &[1], b"x");
        let (last, hops, _) = receipt(net, &producer);
        assert!(last);
        assert_eq!(kinds(&hops), [(TraceHop::BROKER_IN, 0), (TraceHop::ROUTED, 0)]);
        assert!(hops[0].time_us <= hops[1].time_us);
        net.frame(line).expect("a DELIVER");
        // Many in one write: each has its own.
        for _ in 0..20 {
            producer.send_with(net, routed, &[9], b"x");
        }
        for _ in 0..20 {
            let (_, hops, _) = receipt(net, &producer);
            assert!(hops.len() == 2 && hops[0].time_us <= hops[1].time_us, "{hops:?}");
        }
        producer.send_with(net, MessageHead { trace: None, ..routed }, &[9], b"x");
        assert_eq!(receipt(net, &producer), (true, vec![], 0));
        let none = MessageHead { level: Level::NONE, ..traced() };
        producer.send_with(net, none, &[9], b"x");
        producer.send_with(net, MessageHead { level: Level::ACKNOWLEDGED, ..traced() }, &[9], b"x");
        assert_eq!(receipt(net, &producer), (true, vec![], 0), "refused as a whole");
    });
}

#[test]
fn a_gateway_that_goes_leaves_what_was_known() {
    everywhere(&BrokerConfig::default(), |net| {
        let goes = gateway(net, 0xa1, &[1]);
        let mut producer = producer(net);
        producer.send_with(net, traced(), &[1], b"x");
        net.frame(goes).expect("a DELIVER");
        net.close(goes);
        let hops = last(net, &producer);
        let known = [(TraceHop::BROKER_IN, 0), (TraceHop::ROUTED, 0), (TraceHop::WRITTEN, 0xa1)];
        assert_eq!(kinds(&hops), known);
    });
}

#[test]
fn promise_7_hops_of_more_gateways_than_there_is_room_for_are_counted() {
    everywhere(&BrokerConfig::default(), |net| {
        let lines: Vec<Line> = (1..=18).map(|it| gateway(net, it, &[1])).collect();
        let mut producer = producer(net);
        producer.send_with(net, traced(), &[1], b"x");
        for (line, incarnation) in lines.into_iter().zip(1..) {
            serve(net, line, 1, incarnation, [5, 6]);
        }
        assert_eq!(receipt(net, &producer), (false, vec![], 0));
        let (last, hops, left_out) = receipt(net, &producer);
        assert_eq!((last, hops.len(), left_out), (true, TRACE_HOPS_MAX, 6));
    });
}

/// A gateway with user 1 that does not read, and a traced message in its kernel's buffer.
fn behind_a_stalled_gateway(seed: u64) -> (Net, Line, Producer) {
    let shards = 1 + (seed % 3) as u16;
    let mut net = Net::start(Backend::Sim(shards, seed), BrokerConfig::default());
    let line = gateway(&mut net, 0xa1, &[1]);
    net.stall(line, true);
    let mut producer = producer(&mut net);
    producer.send_with(&mut net, traced(), &[1], b"with the kernel");
    assert!(!receipt(&mut net, &producer).0);
    (net, line, producer)
}

#[test]
fn what_waits_in_the_outbox_is_written_later() {
    for seed in 0..8 {
        let (mut net, line, mut producer) = behind_a_stalled_gateway(seed);
        producer.send_with(&mut net, traced(), &[1], b"waits");
        assert!(!receipt(&mut net, &producer).0);
        net.advance(Duration::from_millis(700));
        net.stall(line, false);
        serve(&mut net, line, 1, 0xa1, [1, 2]);
        serve(&mut net, line, 2, 0xa1, [1, 2]);
        let mut written = Vec::new();
        for _ in 0..2 {
            let (last, hops, _) = receipt(&mut net, &producer);
            assert!(last && hops[2].hop == TraceHop::WRITTEN);
            written.push(hops[2].time_us - hops[1].time_us);
        }
        assert_eq!(written, [0, 700_000], "seed {seed}");
    }
}

/// A copy is traced by itself, and what expires in the outbox was never written.
#[test]
fn what_expires_was_not_written() {
    for seed in 0..8 {
        let (mut net, line, mut producer) = behind_a_stalled_gateway(seed);
        producer.send_with(&mut net, MessageHead { ttl_ms: 300, ..traced() }, &[1], b"waits");
        assert!(!receipt(&mut net, &producer).0);
        net.advance(Duration::from_millis(600));
        net.stall(line, false);
        let (last, hops, _) = receipt(&mut net, &producer);
        assert_eq!(
            (last, kinds(&hops)),
            (true, vec![(TraceHop::BROKER_IN, 0), (TraceHop::ROUTED, 0)])
        );
        serve(&mut net, line, 1, 0xa1, [1, 2]);
        assert_eq!(receipt(&mut net, &producer).1.len(), 5);
    }
}
