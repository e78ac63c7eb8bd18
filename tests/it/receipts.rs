//! Receipts of stage `delivered`: REPORTs merged, bounded, within a time (PUB-2, REP-5 to REP-8).

use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Fate, Level, Mode, Role, capability};
use waybill_wire::frame::{FateSet, Record, Report, Snapshot};
use waybill_wire::message::MessageHead;

use crate::support::{Backend, Line, Net, everywhere};
use crate::talk::{Producer, Receipt, encode, link_offering};

/// Asks for what became of it.
fn told() -> MessageHead<'static> {
    MessageHead { level: Level::DELIVERED, ..MessageHead::default() }
}

fn check(test: impl Fn(&mut Net)) {
    everywhere(&BrokerConfig::default(), test);
}

/// A gateway that reports, with these users of namespace 0.
fn gateway(net: &mut Net, incarnation: u64, uids: &[u64]) -> Line {
    gateway_offering(net, incarnation, uids, capability::REPORTS)
}

pub(crate) fn gateway_offering(
    net: &mut Net,
    incarnation: u64,
    uids: &[u64],
    capabilities: u64,
) -> Line {
    let line = link_offering(net, Role::GATEWAY, incarnation, capabilities);
    let op = waybill_wire::code::Op::ADD;
    let record = |&uid: &u64| Record { uid, login: 0, namespace: 0, op, device_class: 0 };
    let records: Vec<Record> = uids.iter().map(record).collect();
    let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
    net.send(line, &encode(&Frame::Snapshot(snapshot)));
    let frame = net.frame(line).unwrap();
    assert!(matches!(Frame::decode(&frame), Ok(Frame::InEffect(_))));
    line
}

/// The next DELIVER of a gateway: its targets, and whether it may be a copy.
fn delivered(net: &mut Net, line: Line) -> (Vec<u64>, bool) {
    let frame = net.frame(line).expect("a DELIVER");
    let Ok(Frame::Deliver(message)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    assert_eq!(message.level, Level::DELIVERED, "the level goes with it");
    (message.targets.iter().collect(), message.resend)
}

fn report(net: &mut Net, line: Line, sequence: u64, reached: u32, dropped: &[u64]) {
    let set = FateSet { fate: Fate::DROPPED, cause: ErrorCode::OUTBOX_FULL, uids: dropped.into() };
    let sets = if dropped.is_empty() { vec![] } else { vec![set] };
    let report = Report {
        stage: Level::DELIVERED,
        sequence,
        origin: 7,
        reached,
        dropped: u32::try_from(dropped.len()).unwrap(),
        fate_sets: (&sets).into(),
        ..Report::default()
    };
    net.send(line, &encode(&Frame::Report(report)));
}

/// The next receipt, its stage and whether it is the last.
fn receipt(net: &mut Net, producer: &Producer) -> (Level, bool, Receipt) {
    let frame = net.frame(producer.line).expect("a receipt");
    let Ok(Frame::Receipt(receipt)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    (receipt.stage, receipt.last, Receipt::of(&receipt))
}

fn routed(net: &mut Net, producer: &Producer) -> Receipt {
    let (stage, last, receipt) = receipt(net, producer);
    assert_eq!((stage, last), (Level::ROUTED, false), "{receipt:?}");
    receipt
}

fn last(net: &mut Net, producer: &Producer) -> Receipt {
    let (stage, last, receipt) = receipt(net, producer);
    assert_eq!((stage, last), (Level::DELIVERED, true), "{receipt:?}");
    receipt
}

#[test]
fn promise_5_a_receipt_of_stage_delivered_says_what_became_of_every_target() {
    check(|net| {
        let one = gateway(net, 1, &[1, 2, 3]);
        let other = gateway(net, 2, &[3, 4]);
        let mut producer = Producer::link(net, 7);
        producer.send_with(net, told(), &[4, 3, 99, 2, 1, 4], b"x");
        let first = routed(net, &producer);
        assert_eq!((first.sent, first.gateways, first.offline), (4, 2, vec![99]));
        assert_eq!(delivered(net, one).0, [3, 2, 1]);
        assert_eq!(delivered(net, other).0, [4, 3]);
        report(net, one, 1, 1, &[3, 2]);
        report(net, other, 1, 1, &[4]);
        let last = last(net, &producer);
        // User 3 was reached at the other gateway, which counts more.
        assert_eq!((last.sent, last.gateways, last.unknown), (2, 2, 0));
        assert_eq!((last.offline, last.dropped), (vec![99], vec![4, 2]));
        let ledger = net.ledger();
        assert_eq!((ledger.receipts_asked, ledger.receipts_answered), (1, 1));
    });
}

#[test]
fn a_message_that_nobody_is_sent_has_its_last_receipt_at_once() {
    check(|net| {
        let mut producer = Producer::link(net, 7);
        producer.send_with(net, told(), &[9], b"x");
        assert_eq!(routed(net, &producer).offline, [9]);
        assert_eq!(last(net, &producer).offline, [9]);
        let broadcast = MessageHead { mode: Mode::BROADCAST, ..told() };
        producer.send_with(net, broadcast, &[9], b"x");
        assert_eq!(routed(net, &producer).unknown, 1);
        assert_eq!(last(net, &producer).offline, [9], "REP-6: with nobody is offline");
    });
}

#[test]
fn a_gateway_that_does_not_report_or_goes_leaves_its_part_unknown() {
    check(|net| {
        let mute = gateway_offering(net, 1, &[1], 0);
        let goes = gateway(net, 2, &[2]);
        let mut producer = Producer::link(net, 7);
        producer.send_with(net, told(), &[1, 2, 3], b"x");
        assert_eq!(routed(net, &producer).sent, 2);
        assert_eq!(delivered(net, mute).0, [1]);
        assert_eq!(delivered(net, goes).0, [2]);
        net.close(goes);
        let last = last(net, &producer);
        assert_eq!((last.sent, last.unknown, last.offline), (0, 2, vec![3]));
    });
}

#[test]
fn a_gateway_that_is_silent_too_long_leaves_its_part_unknown() {
    let config = BrokerConfig { report_timeout_ms: 100, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let silent = gateway(net, 1, &[1]);
        let mut producer = Producer::link(net, 7);
        producer.send_with(net, told(), &[1], b"x");
        assert_eq!(routed(net, &producer).sent, 1);
        assert_eq!(last(net, &producer).unknown, 1);
        assert_eq!(delivered(net, silent).0, [1]);
        // Late, and never asked for: neither changes anything.
        report(net, silent, 1, 1, &[]);
        report(net, silent, 5, 1, &[]);
        net.until(|ledger| ledger.reports_ignored == 2);
        assert_eq!(net.ledger().reports_missed, 1);
    });
}

#[test]
fn a_message_that_is_sent_again_is_answered_again() {
    check(|net| {
        let line = gateway(net, 1, &[1]);
        let mut producer = Producer::link(net, 7);
        producer.send_with(net, told(), &[1], b"x");
        producer.sequence -= 1;
        producer.send_with(net, MessageHead { resend: true, ..told() }, &[1], b"x");
        assert_eq!(delivered(net, line), (vec![1], false));
        assert_eq!(delivered(net, line), (vec![1], true));
        report(net, line, 1, 0, &[1]);
        report(net, line, 1, 1, &[]);
        for _ in 0..2 {
            assert_eq!(routed(net, &producer).sent, 1);
        }
        assert_eq!(last(net, &producer).dropped, [1], "the first is told of the first");
        assert_eq!(last(net, &producer).sent, 1);
    });
}

/// Copies that are for different users.
fn two_copies(net: &mut Net, producer: &mut Producer, between: impl FnOnce(&mut Net, &Producer)) {
    producer.send_with(net, told(), &[1], b"x");
    assert_eq!(routed(net, producer).sent, 1);
    between(net, producer);
    producer.sequence -= 1;
    producer.send_with(net, MessageHead { resend: true, ..told() }, &[2], b"x");
    assert_eq!(routed(net, producer).sent, 1);
}

#[test]
fn rep_9_a_report_is_on_the_first_copy_that_has_none() {
    check(|net| {
        let line = gateway(net, 1, &[1, 2]);
        let mut producer = Producer::link(net, 7);
        two_copies(net, &mut producer, |_, _| {});
        assert_eq!(delivered(net, line), (vec![1], false));
        assert_eq!(delivered(net, line), (vec![2], true));
        report(net, line, 1, 1, &[]);
        let first = last(net, &producer);
        assert_eq!((first.sent, first.unknown), (1, 0));
        report(net, line, 1, 0, &[2]);
        let second = last(net, &producer);
        assert_eq!((second.sent, second.dropped), (0, vec![2]));
    });
}

#[test]
fn rep_9_a_report_that_comes_too_late_is_not_taken_for_that_on_a_later_copy() {
    let config = BrokerConfig { report_timeout_ms: 1_000, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let line = gateway(net, 1, &[1, 2]);
        let mut producer = Producer::link(net, 7);
        two_copies(net, &mut producer, |net, producer| {
            assert_eq!(last(net, producer).unknown, 1, "it was waited for");
        });
        assert_eq!(delivered(net, line), (vec![1], false));
        assert_eq!(delivered(net, line), (vec![2], true));
        report(net, line, 1, 1, &[]);
        report(net, line, 1, 0, &[2]);
        let second = last(net, &producer);
        assert_eq!((second.sent, second.unknown, second.dropped), (0, 0, vec![2]));
        assert_eq!(net.ledger().reports_ignored, 1);
    });
}

#[test]
fn rep_9_a_copy_that_expired_in_the_outbox_has_no_report_to_wait_for() {
    for seed in 0..8 {
        let config = BrokerConfig { report_timeout_ms: 200, ..BrokerConfig::default() };
        let mut net = Net::start(Backend::Sim(1 + (seed % 3) as u16, seed), config);
        let line = gateway(&mut net, 1, &[1, 2]);
        net.stall(line, true);
        let mut producer = Producer::link(&mut net, 7);
        producer.publish(&mut net, &[1], b"with the kernel");
        let short = MessageHead { ttl_ms: 300, ..told() };
        producer.send_with(&mut net, short, &[1], b"waits");
        routed(&mut net, &producer);
        net.advance(Duration::from_millis(600));
        assert_eq!(last(&mut net, &producer).unknown, 1, "it is not waited for any more");
        net.stall(line, false);
        net.settle();
        producer.sequence -= 1;
        producer.send_with(&mut net, MessageHead { resend: true, ..told() }, &[2], b"again");
        routed(&mut net, &producer);
        net.frame(line).expect("what was with the kernel");
        assert_eq!(delivered(&mut net, line), (vec![2], true));
        report(&mut net, line, producer.sequence, 1, &[]);
        assert_eq!(last(&mut net, &producer).sent, 1);
    }
}

#[test]
fn promise_5_what_expires_in_the_outbox_is_told_as_expired() {
    for seed in 0..8 {
        let config = BrokerConfig { report_timeout_ms: 600_000, ..BrokerConfig::default() };
        let mut net = Net::start(Backend::Sim(1 + (seed % 3) as u16, seed), config);
        let line = gateway(&mut net, 1, &[1]);
        net.stall(line, true);
        let mut producer = Producer::link(&mut net, 7);
        producer.send_with(&mut net, told(), &[1], b"with the kernel");
        routed(&mut net, &producer);
        let short = MessageHead { ttl_ms: 300, ..told() };
        producer.send_with(&mut net, short, &[1], b"waits");
        routed(&mut net, &producer);
        net.advance(Duration::from_millis(600));
        net.stall(line, false);
        assert_eq!(delivered(&mut net, line).0, [1]);
        assert_eq!(last(&mut net, &producer).dropped, [1]);
        report(&mut net, line, 1, 1, &[]);
        assert_eq!(last(&mut net, &producer).sent, 1);
        assert_eq!(net.ledger().gateways.expired, 1);
    }
}

#[test]
fn everyone_is_summed_over_gateways() {
    check(|net| {
        let lines = [gateway(net, 1, &[1, 2]), gateway(net, 2, &[2])];
        let mut producer = Producer::link(net, 7);
        let head = MessageHead { everyone: true, ..told() };
        producer.send_with(net, head, &[], b"x");
        assert_eq!(routed(net, &producer).gateways, 2);
        for (line, reached) in lines.into_iter().zip([2, 1]) {
            delivered(net, line);
            report(net, line, 1, reached, &[]);
        }
        let last = last(net, &producer);
        assert_eq!((last.sent, last.gateways, last.unknown), (3, 2, 0));
    });
}

#[test]
fn promise_7_what_a_producer_may_wait_for_is_bounded() {
    check(|net| {
        let silent = gateway(net, 1, &[1]);
        let mut producer = Producer::link(net, 7);
        let users: Vec<u64> = (1..=4_096).collect();
        let mut refused = None;
        for number in 1..=200 {
            producer.send_with(net, told(), &users, b"x");
            let (_, last, receipt) = receipt(net, &producer);
            if last {
                assert_eq!(receipt.code, ErrorCode::OVERLOADED);
                refused.get_or_insert(number);
                break;
            }
            delivered(net, silent);
        }
        assert!(refused.is_some_and(|number| number > 30), "{refused:?}");
        // What it waits for goes with its link.
        net.close(producer.line);
        net.until(|ledger| ledger.receipts_pending == 0);
        let ledger = net.ledger();
        assert_eq!(ledger.receipts_producer_gone, refused.unwrap() - 1);
        assert_eq!(ledger.publishes_refused, 1);
    });
}
