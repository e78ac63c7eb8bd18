//! What a link leaves behind, and what a newer one of the same gateway takes over.

use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Op, Role};
use waybill_wire::frame::{Record, Snapshot, UplinkAck};
use waybill_wire::message::{MessageHead, Sender};

use crate::support::{Backend, Line, Net, backends, everywhere};
use crate::talk::{Gateway, Producer, encode, ends_with, fence, hello, link};

fn check(test: impl Fn(&mut Net)) {
    everywhere(&BrokerConfig::default(), test);
}

fn uplink(net: &mut Net, line: Line, sequence: u64) {
    let sender = Some(Sender { uid: 1, connection: 5 });
    let head = MessageHead { sequence, sender, ..MessageHead::default() };
    let mut out = Vec::new();
    head.encode_uplink(b"up", &mut out).unwrap();
    net.send(line, &out);
}

fn accept(net: &mut Net, consumer: Line, origin: u64, sequence: u64) {
    let ack = UplinkAck { code: ErrorCode(0), sequence, origin };
    net.send(consumer, &encode(&Frame::UplinkAck(ack)));
}

#[test]
fn an_answer_goes_to_the_link_that_asked_and_to_no_newer_one() {
    check(|net| {
        let older = Gateway::link(net, 1, &[1]);
        let consumer = link(net, Role::CONSUMER, 9);
        uplink(net, older.line, 1);
        assert!(net.frame(consumer).is_some());
        net.close(older.line);
        let newer = Gateway::link(net, 1, &[1]);
        accept(net, consumer, 1, 1);
        fence(net, consumer);
        // Had the answer gone to the newer link, it would be here before the next one's.
        uplink(net, newer.line, 2);
        assert!(net.frame(consumer).is_some());
        accept(net, consumer, 1, 2);
        let answer = net.frame(newer.line).unwrap();
        let Ok(Frame::UplinkAck(answer)) = Frame::decode(&answer) else { panic!("{answer:02x?}") };
        assert_eq!((answer.sequence, answer.code), (2, ErrorCode(0)));
    });
}

#[test]
fn promise_5_a_superseded_link_is_written_out_before_it_ends() {
    check(|net| {
        let older = Gateway::link(net, 1, &[1]);
        let mut producer = Producer::link(net, 7);
        net.stall(older.line, true);
        for number in 0..50_u8 {
            assert_eq!(producer.publish(net, &[1], &[number]).sent, 1);
        }
        let newer = Gateway::link(net, 1, &[1]);
        assert_eq!(producer.publish(net, &[1], b"newer").sent, 1);
        net.stall(older.line, false);
        for number in 0..50_u8 {
            assert_eq!(older.delivery(net).payload, [number]);
        }
        ends_with(net, older.line, ErrorCode::SUPERSEDED);
        assert_eq!(newer.delivery(net).payload, b"newer");
        assert_eq!(net.ledger().gateways.lost, 0);
    });
}

#[test]
fn promise_2_a_path_moves_only_after_the_old_one_has_drained_or_died() {
    for (seed, dies) in (0..16).zip([false, true].into_iter().cycle()) {
        let mut net = Net::start(Backend::Sim(1 + seed % 3, seed.into()), BrokerConfig::default());
        let older = Gateway::link(&mut net, 1, &[1]);
        net.stall(older.line, true);
        let mut producer = Producer::link(&mut net, 7);
        producer.publish(&mut net, &[1], b"kernel");
        producer.publish(&mut net, &[1], b"waits");
        let newer = Gateway::link(&mut net, 1, &[1]);
        producer.publish(&mut net, &[1], b"newer");
        net.settle();
        assert!(net.arrived(newer.line).is_none(), "the older link has its messages still");
        if dies {
            // It does not read, so after a second it is given up.
            net.advance(Duration::from_secs(2));
            assert_eq!(newer.delivery(&mut net).payload, b"newer");
            let ledger = net.ledger().gateways;
            assert_eq!((ledger.lost, ledger.in_doubt), (1, 1));
        } else {
            net.stall(older.line, false);
            assert_eq!(older.delivery(&mut net).payload, b"kernel");
            assert_eq!(older.delivery(&mut net).payload, b"waits");
            assert_eq!(newer.delivery(&mut net).payload, b"newer");
        }
    }
}

/// A gateway's link that does not read, one message in its kernel's buffer and one that waits.
fn stalled(net: &mut Net, producer: &mut Producer) -> Gateway {
    let older = Gateway::link(net, 1, &[1]);
    net.stall(older.line, true);
    producer.publish(net, &[1], b"kernel");
    producer.publish(net, &[1], b"waits");
    older
}

#[test]
fn promise_2_a_link_that_its_peer_ends_holds_the_newer_one_and_for_a_second_at_most() {
    // DEL-2, REG-8.
    // Without keepalive nothing comes but what is published.
    let config = BrokerConfig { keepalive_ms: 0, ..BrokerConfig::default() };
    for seed in 0..16 {
        let mut net = Net::start(Backend::Sim(1 + seed % 3, seed.into()), config.clone());
        let mut producer = Producer::link(&mut net, 7);
        let older = stalled(&mut net, &mut producer);
        net.leave(older.line);
        net.settle();
        let newer = Gateway::link(&mut net, 1, &[1]);
        producer.publish(&mut net, &[1], b"newer");
        net.settle();
        assert!(net.arrived(newer.line).is_none(), "the older link has its messages still");
        net.advance(Duration::from_secs(2));
        let frame = net.arrived(newer.line).expect("a second is over");
        assert!(matches!(Frame::decode(&frame), Ok(Frame::Deliver(_))), "{frame:02x?}");
    }
}

#[test]
fn promise_2_the_third_link_waits_for_the_first_when_the_second_has_died() {
    for seed in 0..16 {
        let mut net = Net::start(Backend::Sim(1 + seed % 3, seed.into()), BrokerConfig::default());
        let mut producer = Producer::link(&mut net, 7);
        let older = stalled(&mut net, &mut producer);
        let between = Gateway::link(&mut net, 1, &[1]);
        net.reset(between.line);
        net.settle();
        let newest = Gateway::link(&mut net, 1, &[1]);
        producer.publish(&mut net, &[1], b"newest");
        net.settle();
        assert!(net.arrived(newest.line).is_none(), "the first link has its messages still");
        net.stall(older.line, false);
        assert_eq!(older.delivery(&mut net).payload, b"kernel");
        assert_eq!(older.delivery(&mut net).payload, b"waits");
        assert_eq!(newest.delivery(&mut net).payload, b"newest");
    }
}

#[test]
fn a_link_whose_last_messages_expired_is_told_why_it_ends() {
    for seed in 0..8 {
        let mut net = Net::start(Backend::Sim(1, seed), BrokerConfig::default());
        let older = Gateway::link(&mut net, 1, &[1]);
        net.stall(older.line, true);
        let mut producer = Producer::link(&mut net, 7);
        let head = |ttl_ms| MessageHead { ttl_ms, ..MessageHead::default() };
        producer.publish_with(&mut net, head(0), &[1], b"kernel");
        producer.publish_with(&mut net, head(300), &[1], b"short");
        Gateway::link(&mut net, 1, &[1]);
        net.advance(Duration::from_millis(600));
        net.stall(older.line, false);
        assert_eq!(older.delivery(&mut net).payload, b"kernel");
        // Nothing is left to be written before the ERROR, which waits for nothing.
        ends_with(&mut net, older.line, ErrorCode::SUPERSEDED);
        assert_eq!(net.ledger().gateways.expired, 1);
    }
}

#[test]
fn a_link_whose_snapshot_ends_after_that_of_a_newer_one_takes_nothing_over() {
    check(|net| {
        // REG-8: the newer one is that whose HELLO came later, whatever came first after it.
        let older = link(net, Role::GATEWAY, 1);
        let newer = Gateway::link(net, 1, &[2]);
        let records = [Record { uid: 1, login: 0, namespace: 0, op: Op::ADD, device_class: 0 }];
        let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
        net.send(older, &encode(&Frame::Snapshot(snapshot)));
        ends_with(net, older, ErrorCode::SUPERSEDED);
        let mut producer = Producer::link(net, 7);
        assert_eq!(producer.publish(net, &[1, 2], b"x").offline, [1]);
        assert_eq!(newer.delivery(net).targets, [2]);
    });
}

#[test]
fn a_hello_that_comes_after_the_order_to_stop_is_refused() {
    // On sockets a shard learns of the order at its own moment, so there it is one shard, whose
    // DRAIN to another link shows that it has.
    let one_order =
        |it: &Backend| matches!(it, Backend::Tokio(1) | Backend::Uring(1) | Backend::Sim(..));
    for backend in backends().into_iter().filter(one_order) {
        eprintln!("on {backend:?}");
        let config = BrokerConfig { drain_ms: 30_000, ..BrokerConfig::default() };
        let net = &mut Net::start(backend, config);
        // Accepted before the producer, which is welcome already when the broker is told to stop.
        let late = net.connect();
        let stays = Producer::link(net, 7);
        net.drain();
        for _ in ["STATE", "DRAIN"] {
            net.frame(stays.line).unwrap();
        }
        net.send(late, &hello(Role::PRODUCER, 3));
        ends_with(net, late, ErrorCode::SHUTTING_DOWN);
    }
}

#[test]
fn a_broker_that_stops_waits_for_the_answers_that_are_due() {
    let config = BrokerConfig { drain_ms: 30_000, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let consumer = link(net, Role::CONSUMER, 9);
        uplink(net, gateway.line, 1);
        assert!(net.frame(consumer).is_some());
        net.drain();
        for line in [gateway.line, consumer] {
            for _ in ["STATE", "DRAIN"] {
                net.frame(line).unwrap();
            }
        }
        accept(net, consumer, 1, 1);
        let answer = net.frame(gateway.line).unwrap();
        let Ok(Frame::UplinkAck(answer)) = Frame::decode(&answer) else { panic!("{answer:02x?}") };
        assert_eq!((answer.sequence, answer.code), (1, ErrorCode(0)));
        ends_with(net, gateway.line, ErrorCode::SHUTTING_DOWN);
        ends_with(net, consumer, ErrorCode::SHUTTING_DOWN);
        net.stopped();
    });
}

fn snapshot_of(net: &mut Net, records: &[Record]) -> Line {
    let line = link(net, Role::GATEWAY, 1);
    let snapshot = Snapshot { first: true, last: true, version: 1, records: records.into() };
    net.send(line, &encode(&Frame::Snapshot(snapshot)));
    line
}

#[test]
fn promise_7_registrations_are_bounded_for_a_user_and_in_all() {
    let record = |uid, login| Record { uid, login, namespace: 0, op: Op::ADD, device_class: 0 };
    let config = BrokerConfig { routes_max: 1_000, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let many_logins: Vec<Record> = (0..257).map(|login| record(1, login)).collect();
        let line = snapshot_of(net, &many_logins[..256]);
        assert!(matches!(Frame::decode(&net.frame(line).unwrap()), Ok(Frame::InEffect(_))));
        net.close(line);
        let line = snapshot_of(net, &many_logins);
        ends_with(net, line, ErrorCode::OVERLOADED);
        // What the refused links held counts no longer.
        let many_users: Vec<Record> = (0..1_001).map(|uid| record(uid, 0)).collect();
        let line = snapshot_of(net, &many_users);
        ends_with(net, line, ErrorCode::OVERLOADED);
    });
}

#[test]
fn promise_7_a_link_too_many_is_told_so_and_makes_room_for_nobody() {
    // SEC-16.
    let config = BrokerConfig { links_max: 8, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let mut first = Producer::link(net, 7);
        let mut others: Vec<_> = (0..7).map(|it| Producer::link(net, 10 + it)).collect();
        let late = net.connect();
        ends_with(net, late, ErrorCode::TOO_MANY_LINKS);
        net.close(others.remove(3).line);
        let again = Producer::link(net, 9);
        assert_eq!(first.publish(net, &[1], b"x").offline, [1]);
        net.close(again.line);
        assert_eq!(net.ledger().links_refused, 1);
    });
}

#[test]
fn promise_10_a_crowd_of_silent_links_keeps_nobody_out() {
    // SEC-16: the oldest of those who have not said HELLO makes room.
    let config = BrokerConfig { links_max: 8, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let mut producers = Vec::new();
        for instance in 1..=4 {
            for _ in 0..20 {
                net.connect();
            }
            producers.push(Producer::link(net, instance));
        }
        for producer in &mut producers {
            assert_eq!(producer.publish(net, &[1], b"x").offline, [1]);
        }
    });
}
