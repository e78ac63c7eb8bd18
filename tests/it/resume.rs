//! A gateway's session beyond its link: resumed within its window, and dead after it.

use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Event, Op, Role, capability};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Delta, Record, Resume, Snapshot, Suspend, Welcome};

use crate::support::{Backend, Line, Net, everywhere, simulated};
use crate::talk::{Producer, encode, ends_with, hello_in_session, in_effect, link_offering};

/// A window that ends in no test on sockets.
fn config() -> BrokerConfig {
    BrokerConfig { resume_window_ms: 60_000, keepalive_ms: 0, ..BrokerConfig::default() }
}

fn record(uid: u64, op: Op) -> Record {
    Record { uid, login: 0, namespace: 0, op, device_class: 0 }
}

fn digest(uids: impl IntoIterator<Item = u64>) -> u64 {
    let of = |uid| Registered { namespace: 0, uid, device_class: 0, login: 0 };
    uids.into_iter().map(of).collect::<Digest>().value()
}

fn hello(net: &mut Net, incarnation: u64, session: u64) -> (Line, Welcome) {
    let line = net.connect();
    net.send(line, &hello_in_session(Role::GATEWAY, incarnation, session, capability::RESUME));
    let frame = net.frame(line).expect("WELCOME");
    let Ok(Frame::Welcome(welcome)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    (line, welcome)
}

fn snapshot(net: &mut Net, line: Line, uids: &[u64]) {
    let pieces: Vec<&[u64]> = if uids.is_empty() { vec![&[]] } else { uids.chunks(500).collect() };
    for (number, piece) in pieces.iter().enumerate() {
        let records: Vec<Record> = piece.iter().map(|&uid| record(uid, Op::ADD)).collect();
        let (first, last) = (number == 0, number + 1 == pieces.len());
        let snapshot = Snapshot { first, last, version: 1, records: (&records).into() };
        net.send(line, &encode(&Frame::Snapshot(snapshot)));
    }
    in_effect(net, line, 1, digest(uids.iter().copied()));
}

/// A gateway with these users; its link and session.
fn gateway(net: &mut Net, incarnation: u64, uids: &[u64]) -> (Line, u64) {
    let (line, welcome) = hello(net, incarnation, 0);
    assert!(!welcome.resumed);
    snapshot(net, line, uids);
    (line, welcome.session)
}

/// A link that the broker lets go on with the session; RESUMED says this version and digest.
fn claim(net: &mut Net, incarnation: u64, session: u64, version: u64, digest: u64) -> Line {
    let (line, welcome) = hello(net, incarnation, session);
    assert_eq!((welcome.resumed, welcome.session), (true, session));
    let frame = net.frame(line).expect("RESUMED");
    match Frame::decode(&frame) {
        Ok(Frame::Resumed(it)) => assert_eq!((it.version, it.digest), (version, digest)),
        other => panic!("no RESUMED: {other:?}"),
    }
    line
}

fn resume(net: &mut Net, line: Line, session: u64, version: u64, digest: u64) {
    net.send(line, &encode(&Frame::Resume(Resume { session, version, digest })));
}

fn delta(net: &mut Net, line: Line, version: u64, records: &[Record]) {
    net.send(line, &encode(&Frame::Delta(Delta { version, records: records.into() })));
}

#[test]
fn promise_8_a_suspended_gateway_answers_nothing_and_resumes_with_what_it_missed() {
    // RES-1 to RES-5, RES-7, RES-8.
    everywhere(&config(), |net| {
        let (older, session) = gateway(net, 1, &[1, 2]);
        let mut producer = Producer::link(net, 7);
        net.close(older);
        assert_eq!(producer.publish(net, &[1, 2], b"x").offline, [1, 2]);
        let line = claim(net, 1, session, 1, digest([1, 2]));
        delta(net, line, 2, &[record(2, Op::REMOVE), record(3, Op::ADD)]);
        delta(net, line, 3, &[record(4, Op::ADD)]);
        assert_eq!(producer.publish(net, &[1, 2, 3, 4], b"x").offline, [1, 2, 3, 4]);
        resume(net, line, session, 3, digest([1, 3, 4]));
        in_effect(net, line, 3, digest([1, 3, 4]));
        let receipt = producer.publish(net, &[1, 2, 3, 4], b"y");
        assert_eq!((receipt.sent, receipt.offline), (3, vec![2]));
    });
}

#[test]
fn promise_8_a_digest_that_differs_ends_the_link_and_the_session() {
    everywhere(&config(), |net| {
        let (older, session) = gateway(net, 1, &[1]);
        net.close(older);
        let line = claim(net, 1, session, 1, digest([1]));
        resume(net, line, session, 1, digest([1, 2]));
        ends_with(net, line, ErrorCode::DIGEST_MISMATCH);
        let (line, welcome) = hello(net, 1, session);
        assert!(!welcome.resumed && welcome.session != session);
        snapshot(net, line, &[2]);
        let receipt = Producer::link(net, 7).publish(net, &[1, 2], b"x");
        assert_eq!((receipt.sent, receipt.offline), (1, vec![1]));
    });
}

#[test]
fn promise_8_a_session_is_for_its_incarnation_and_one_link_at_a_time() {
    everywhere(&config(), |net| {
        let (older, session) = gateway(net, 1, &[1]);
        assert!(!hello(net, 1, session).1.resumed, "its link is open");
        net.close(older);
        assert!(!hello(net, 2, session).1.resumed, "another life of the gateway");
        let line = claim(net, 1, session, 1, digest([1]));
        assert!(!hello(net, 1, session).1.resumed, "another link resumes it");
        net.close(line);
        // It went back as it was.
        let line = claim(net, 1, session, 1, digest([1]));
        resume(net, line, session, 1, digest([1]));
        in_effect(net, line, 1, digest([1]));
    });
}

#[test]
fn promise_8_a_snapshot_in_place_of_resume_swaps_in_at_its_end() {
    // RES-6, RES-9.
    everywhere(&config(), |net| {
        let (older, session) = gateway(net, 1, &[1, 2]);
        net.close(older);
        let line = claim(net, 1, session, 1, digest([1, 2]));
        let records = [record(3, Op::ADD)];
        let begun = Snapshot { first: true, last: false, version: 9, records: (&records).into() };
        net.send(line, &encode(&Frame::Snapshot(begun)));
        net.close(line);
        let line = claim(net, 1, session, 1, digest([1, 2]));
        snapshot(net, line, &[2, 3]);
        let receipt = Producer::link(net, 7).publish(net, &[1, 2, 3], b"x");
        assert_eq!((receipt.sent, receipt.offline), (2, vec![1]));
        net.close(line);
        let line = claim(net, 1, session, 1, digest([2, 3]));
        resume(net, line, session, 1, digest([2, 3]));
        in_effect(net, line, 1, digest([2, 3]));
    });
}

/// A snapshot of one frame that this broker has no room for, with the end of its link.
fn too_much(net: &mut Net, line: Line) {
    let records: Vec<Record> = (100..120).map(|uid| record(uid, Op::ADD)).collect();
    let whole = Snapshot { first: true, last: true, version: 9, records: (&records).into() };
    net.send(line, &encode(&Frame::Snapshot(whole)));
    ends_with(net, line, ErrorCode::OVERLOADED);
    net.close(line);
}

#[test]
fn promise_8_a_snapshot_that_fails_at_its_end_leaves_the_session_as_it_was() {
    // RES-9: its last frame has come and was not applied.
    let config = BrokerConfig { routes_max: 10, ..config() };
    simulated(&config, |net| {
        let (older, session) = gateway(net, 1, &[1, 2]);
        net.close(older);
        for _ in 0..6 {
            let line = claim(net, 1, session, 1, digest([1, 2]));
            too_much(net, line);
            // What was taken in is given back, in the background.
            net.advance(Duration::from_millis(300));
        }
        let line = claim(net, 1, session, 1, digest([1, 2]));
        resume(net, line, session, 1, digest([1, 2]));
        in_effect(net, line, 1, digest([1, 2]));
        assert_eq!(Producer::link(net, 7).publish(net, &[1, 2], b"x").sent, 2);
    });
}

#[test]
fn promise_5_of_a_snapshot_that_failed_nobody_is_told() {
    // PRS-2: what never was in effect is not lost.
    let config = BrokerConfig { routes_max: 15, ..config() };
    simulated(&config, |net| {
        let consumer = link_offering(net, Role::CONSUMER, 9, capability::PRESENCE);
        let (failed, _) = hello(net, 1, 0);
        too_much(net, failed);
        net.advance(Duration::from_secs(1));
        let (_line, _) = gateway(net, 2, &[7]);
        let frame = net.frame(consumer).expect("PRESENCE");
        let Ok(Frame::Presence(it)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        assert_eq!((it.event, it.uid, it.gateway), (Event::LOGIN, 7, 2));
    });
}

#[test]
fn promise_8_after_its_window_a_session_is_gone_for_good() {
    // RES-11. A claim in between does not make the window longer, and it ends no window.
    let config = BrokerConfig { resume_window_ms: 5_000, ..config() };
    simulated(&config, |net| {
        let (older, session) = gateway(net, 1, &[1]);
        net.close(older);
        net.advance(Duration::from_secs(4));
        let line = claim(net, 1, session, 1, digest([1]));
        net.advance(Duration::from_secs(4));
        net.close(line);
        net.advance(Duration::from_millis(200));
        assert!(!hello(net, 1, session).1.resumed);
        let (older, session) = gateway(net, 2, &[1]);
        net.close(older);
        net.advance(Duration::from_secs(4));
        let line = claim(net, 2, session, 1, digest([1]));
        net.advance(Duration::from_secs(4));
        resume(net, line, session, 1, digest([1]));
        in_effect(net, line, 1, digest([1]));
    });
}

#[test]
fn promise_8_suspend_takes_the_slot_out_before_the_link_ends() {
    // RES-10.
    let config = BrokerConfig { resume_window_ms: 5_000, ..config() };
    simulated(&config, |net| {
        let (line, session) = gateway(net, 1, &[1]);
        let mut producer = Producer::link(net, 7);
        net.send(line, &encode(&Frame::Suspend(Suspend { window_ms: 1_000 })));
        net.advance(Duration::from_millis(100));
        assert_eq!(producer.publish(net, &[1], b"x").offline, [1]);
        let newer = claim(net, 1, session, 1, digest([1]));
        resume(net, newer, session, 1, digest([1]));
        in_effect(net, newer, 1, digest([1]));
        assert_eq!(producer.publish(net, &[1], b"x").sent, 1);
        ends_with(net, line, ErrorCode::SUPERSEDED);
        net.send(newer, &encode(&Frame::Suspend(Suspend { window_ms: 1_000 })));
        net.close(newer);
        net.advance(Duration::from_millis(1_200));
        assert!(!hello(net, 1, session).1.resumed, "the shorter of the two windows counts");
    });
}

#[test]
fn promise_7_what_the_dead_registered_makes_room_again() {
    let config = BrokerConfig { resume_window_ms: 5_000, routes_max: 20_000, ..config() };
    let many: Vec<u64> = (0..15_000).collect();
    let net = &mut Net::start(Backend::Sim(2, 1), config);
    for incarnation in 1..4 {
        let (line, _) = gateway(net, incarnation, &many);
        net.close(line);
        net.advance(Duration::from_secs(6));
    }
}

#[test]
fn promise_7_room_for_one_gateway_costs_one_session() {
    let config = BrokerConfig { gateways_max: 2, ..config() };
    // More than one portion of the table's buckets, of at most six routes each.
    let many: Vec<u64> = (0..151_000).collect();
    let net = &mut Net::start(Backend::Sim(1, 1), config);
    let (first, _) = gateway(net, 1, &many);
    let (second, session) = gateway(net, 2, &[1, 2]);
    net.close(first);
    net.close(second);
    let refused = (0..5).take_while(|_| {
        let line = net.connect();
        net.send(line, &hello_in_session(Role::GATEWAY, 3, 0, capability::RESUME));
        let frame = net.frame(line).expect("WELCOME or ERROR");
        let frame = Frame::decode(&frame);
        matches!(frame, Ok(Frame::Error(it)) if it.code == ErrorCode::TOO_MANY_LINKS)
    });
    assert!((1..5).contains(&refused.count()), "its routes are freed in portions");
    claim(net, 2, session, 1, digest([1, 2]));
}

#[test]
fn promise_7_gateways_that_come_and_go_keep_nobody_out() {
    let config = BrokerConfig { gateways_max: 4, ..config() };
    everywhere(&config, |net| {
        for incarnation in 1..20 {
            let uids: &[u64] = if incarnation % 3 == 0 { &[] } else { &[1, 2] };
            let (line, _) = gateway(net, incarnation, uids);
            net.close(line);
        }
        let (_line, _) = gateway(net, 100, &[1]);
        assert_eq!(Producer::link(net, 7).publish(net, &[1], b"x").gateways, 1);
    });
}
