//! Consumers: groups, one answer for each uplink, and the offline feed (6.4, 6.9).

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Mode, Op, Role, capability};
use waybill_wire::frame::{Drain, Group, UplinkAck};
use waybill_wire::message::{MessageHead, Sender};

use crate::support::{Line, Net, everywhere};
use crate::talk::{Gateway, Producer, encode, fence, link, link_offering};

fn check(test: impl Fn(&mut Net)) {
    everywhere(&BrokerConfig::default(), test);
}

fn uplink(net: &mut Net, line: Line, sequence: u64, resend: bool) {
    let sender = Some(Sender { uid: 1, connection: 5 });
    let head = MessageHead { sequence, sender, resend, ..MessageHead::default() };
    let mut out = Vec::new();
    head.encode_uplink(b"up", &mut out).unwrap();
    net.send(line, &out);
}

/// The next UPLINK: its sequence, and whether it may be a copy.
fn handed(net: &mut Net, consumer: Line) -> (u64, bool) {
    let frame = net.frame(consumer).expect("an UPLINK");
    let Ok(Frame::Uplink(message)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    assert_eq!((message.origin, message.payload), (Some(1), &b"up"[..]));
    (message.sequence, message.resend)
}

fn says(net: &mut Net, consumer: Line, sequence: u64, code: ErrorCode) {
    let ack = UplinkAck { code, sequence, origin: 1 };
    net.send(consumer, &encode(&Frame::UplinkAck(ack)));
}

fn answer(net: &mut Net, gateway: &Gateway) -> (u64, ErrorCode) {
    let frame = net.frame(gateway.line).expect("an UPLINK_ACK");
    let Ok(Frame::UplinkAck(ack)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    (ack.sequence, ack.code)
}

fn group(net: &mut Net, line: Line, op: Op, namespace: u32, name: &str) {
    net.send(line, &encode(&Frame::Group(Group { op, namespace, name })));
}

fn member(net: &mut Net, instance: u64, name: &str, more: u64) -> Line {
    let line = link_offering(net, Role::CONSUMER, instance, capability::GROUPS | more);
    group(net, line, Op::ADD, 0, name);
    fence(net, line);
    line
}

fn error(net: &mut Net, line: Line) -> ErrorCode {
    let frame = net.frame(line).expect("an ERROR");
    let Ok(Frame::Error(error)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    assert!(!error.fatal);
    error.code
}

#[test]
fn up_15_a_consumer_that_takes_and_never_answers_is_answered_for_and_stays() {
    // A silent group must not hold for ever what another one has answered.
    let config = BrokerConfig { uplink_timeout_ms: 2_000, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let silent = member(net, 91, "orders", 0);
        let audit = member(net, 92, "audit", 0);
        uplink(net, gateway.line, 1, false);
        uplink(net, gateway.line, 1, true);
        for resend in [false, true] {
            assert_eq!(handed(net, audit), (1, resend));
            assert_eq!(handed(net, silent), (1, resend));
        }
        says(net, audit, 1, ErrorCode(0));
        for _ in 0..2 {
            assert_eq!(answer(net, &gateway), (1, ErrorCode::CONSUMER_LOST));
        }
        assert_eq!(net.ledger().uplinks_pending, 0);
        // Too late, and not asked any more.
        says(net, silent, 1, ErrorCode(0));
        net.until(|ledger| ledger.answers_ignored == 1);
        uplink(net, gateway.line, 2, false);
        assert_eq!((handed(net, silent).0, handed(net, audit).0), (2, 2));
        says(net, silent, 2, ErrorCode(0));
        says(net, audit, 2, ErrorCode(0));
        assert_eq!(answer(net, &gateway), (2, ErrorCode(0)));
    });
}

#[test]
fn each_group_gets_an_uplink_once_and_the_gateway_one_answer() {
    // UP-6, UP-10.
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let nameless = link(net, Role::CONSUMER, 90);
        let orders = [member(net, 91, "orders", 0), member(net, 92, "orders", 0)];
        let audit = member(net, 93, "audit", 0);
        uplink(net, gateway.line, 1, false);
        assert_eq!((handed(net, nameless), handed(net, audit)), ((1, false), (1, false)));
        says(net, audit, 1, ErrorCode(450));
        fence(net, audit);
        says(net, nameless, 1, ErrorCode(0));
        fence(net, nameless);
        fence(net, gateway.line);
        // One of the two has it: the one that can answer for it.
        for line in orders {
            says(net, line, 1, ErrorCode(0));
        }
        assert_eq!(answer(net, &gateway), (1, ErrorCode(450)), "the first that was not 0");
        net.until(|ledger| ledger.answers_ignored == 1);
        let ledger = net.ledger();
        assert_eq!((ledger.uplinks_refused_by_consumer, ledger.uplinks_pending), (1, 0));
    });
}

#[test]
fn the_end_of_a_consumer_is_the_answer_of_its_group() {
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let orders = member(net, 91, "orders", 0);
        let audit = member(net, 93, "audit", 0);
        uplink(net, gateway.line, 1, false);
        assert_eq!((handed(net, orders).0, handed(net, audit).0), (1, 1));
        net.close(orders);
        fence(net, gateway.line);
        says(net, audit, 1, ErrorCode(0));
        assert_eq!(answer(net, &gateway), (1, ErrorCode::CONSUMER_LOST));
        // The group has nobody left, and counts no more.
        uplink(net, gateway.line, 2, false);
        assert_eq!(handed(net, audit).0, 2);
        says(net, audit, 2, ErrorCode(0));
        assert_eq!(answer(net, &gateway), (2, ErrorCode(0)));
    });
}

#[test]
fn a_consumer_that_knows_of_groups_gets_nothing_until_it_is_in_one() {
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let consumer = link_offering(net, Role::CONSUMER, 91, capability::GROUPS);
        uplink(net, gateway.line, 1, false);
        assert_eq!(answer(net, &gateway), (1, ErrorCode::NO_CONSUMER));
        group(net, consumer, Op::ADD, 0, "orders");
        group(net, consumer, Op::ADD, 0, "audit");
        group(net, consumer, Op::REMOVE, 0, "orders");
        fence(net, consumer);
        uplink(net, gateway.line, 2, false);
        assert_eq!(handed(net, consumer).0, 2);
        says(net, consumer, 2, ErrorCode(0));
        assert_eq!(answer(net, &gateway), (2, ErrorCode(0)));
        group(net, consumer, Op::REMOVE, 0, "audit");
        fence(net, consumer);
        uplink(net, gateway.line, 3, false);
        assert_eq!(answer(net, &gateway), (3, ErrorCode::NO_CONSUMER));
    });
}

#[test]
fn a_group_that_cannot_be_is_refused_and_costs_nothing_else() {
    // UP-7, UP-8.
    check(|net| {
        let plain = link(net, Role::CONSUMER, 90);
        group(net, plain, Op::ADD, 0, "orders");
        assert_eq!(error(net, plain), ErrorCode::NOT_SUPPORTED);
        let many = link_offering(net, Role::CONSUMER, 91, capability::GROUPS);
        for namespace in 0..65 {
            group(net, many, Op::ADD, namespace, "orders");
        }
        assert_eq!(error(net, many), ErrorCode::OVERLOADED);
        group(net, many, Op::ADD, 63, "audit");
        fence(net, many);
    });
}

#[test]
fn a_consumer_that_drains_gets_no_more_and_answers_what_it_has() {
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let leaves = link(net, Role::CONSUMER, 90);
        uplink(net, gateway.line, 1, false);
        assert_eq!(handed(net, leaves).0, 1);
        net.send(leaves, &encode(&Frame::Drain(Drain { deadline_ms: 1_000 })));
        fence(net, leaves);
        uplink(net, gateway.line, 2, false);
        assert_eq!(answer(net, &gateway), (2, ErrorCode::NO_CONSUMER));
        says(net, leaves, 1, ErrorCode(0));
        assert_eq!(answer(net, &gateway), (1, ErrorCode(0)));
    });
}

#[test]
fn an_uplink_that_is_sent_again_keeps_its_number_and_says_so() {
    check(|net| {
        let older = Gateway::link(net, 1, &[1]);
        let consumer = link(net, Role::CONSUMER, 90);
        uplink(net, older.line, 5, false);
        assert_eq!(handed(net, consumer), (5, false));
        net.close(older.line);
        let newer = Gateway::link(net, 1, &[1]);
        uplink(net, newer.line, 6, false);
        uplink(net, newer.line, 5, true);
        assert_eq!(handed(net, consumer), (6, false));
        assert_eq!(handed(net, consumer), (5, true));
        // One fate has one answer, and each link that asked gets it.
        says(net, consumer, 5, ErrorCode(0));
        assert_eq!(answer(net, &newer), (5, ErrorCode(0)));
        says(net, consumer, 5, ErrorCode(0));
        says(net, consumer, 6, ErrorCode(0));
        assert_eq!(answer(net, &newer), (6, ErrorCode(0)));
        net.until(|ledger| ledger.uplinks_asker_gone == 1);
    });
}

#[test]
fn the_offline_feed_has_the_message_for_those_who_were_not_there() {
    // OFL-1, OFL-2.
    check(|net| {
        let gateway = Gateway::link(net, 1, &[2]);
        let nameless = link_offering(net, Role::CONSUMER, 90, capability::OFFLINE);
        let apns = member(net, 91, "apns", capability::OFFLINE);
        let other = member(net, 92, "other", 0);
        let mut producer = Producer::link(net, 7);
        let head = MessageHead { except: (&[5]).into(), ttl_ms: 9_000, ..MessageHead::default() };
        let receipt = producer.publish_with(net, head, &[9, 2, 5, 8, 9], b"opaque");
        assert_eq!(receipt.offline, [9, 8]);
        for line in [nameless, apns] {
            let frame = net.frame(line).expect("an OFFLINE");
            let Ok(Frame::Offline(message)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
            assert_eq!(message.targets.iter().collect::<Vec<_>>(), [9, 8]);
            assert_eq!((message.origin, message.sequence), (Some(7), 1));
            assert_eq!((message.payload, message.except.len()), (&b"opaque"[..], 0));
            assert_eq!((message.ttl_ms, message.resend), (9_000, false));
        }
        fence(net, other);
        assert_eq!(gateway.delivery(net).targets, [2]);
        producer.sequence -= 1;
        let again = MessageHead { resend: true, ..MessageHead::default() };
        producer.publish_with(net, again, &[8], b"opaque");
        let frame = net.frame(apns).expect("an OFFLINE");
        let Ok(Frame::Offline(message)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        assert!(message.resend, "who must not act twice can see it");
    });
}

#[test]
fn the_offline_feed_is_silent_where_nobody_was_looked_up() {
    // OFL-3.
    check(|net| {
        let consumer = link_offering(net, Role::CONSUMER, 90, capability::OFFLINE);
        let gateway = Gateway::link(net, 1, &[2]);
        let mut producer = Producer::link(net, 7);
        let broadcast = MessageHead { mode: Mode::BROADCAST, ..MessageHead::default() };
        producer.publish_with(net, broadcast, &[8], b"x");
        let everyone = MessageHead { everyone: true, ..MessageHead::default() };
        producer.publish_with(net, everyone, &[], b"x");
        producer.publish(net, &[2], b"x");
        fence(net, consumer);
        for _ in 0..3 {
            gateway.delivery(net);
        }
        assert_eq!(net.ledger().consumers.offered, 0);
    });
}
