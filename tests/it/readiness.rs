//! A broker that has just started says so, and calls nobody offline before it knows.

use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{BrokerState, ErrorCode, Role};
use waybill_wire::frame::State;

use crate::support::{Backend, Line, Net, backends, everywhere};
use crate::talk::{Gateway, Producer, encode, hello};

/// Links and is told that the broker is not ready.
fn early(net: &mut Net, role: Role, instance: u64, missing: u32) -> Line {
    let line = net.connect();
    net.send(line, &hello(role, instance));
    let frame = net.frame(line).expect("WELCOME");
    match Frame::decode(&frame) {
        Ok(Frame::Welcome(welcome)) => assert_eq!(welcome.state, BrokerState::NOT_READY),
        other => panic!("no WELCOME: {other:?}"),
    }
    state(net, line, BrokerState::NOT_READY, missing);
    line
}

fn state(net: &mut Net, line: Line, state: BrokerState, gateways_missing: u32) {
    let frame = net.frame(line).expect("STATE");
    match Frame::decode(&frame) {
        Ok(Frame::State(it)) => assert_eq!(it, State { state, gateways_missing }),
        other => panic!("no STATE: {other:?}"),
    }
}

fn snapshot(net: &mut Net, line: Line) {
    use waybill_wire::code::Op;
    use waybill_wire::frame::{Record, Snapshot};
    let records = [Record { uid: 1, login: 0, namespace: 0, op: Op::ADD, device_class: 0 }];
    let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
    net.send(line, &encode(&Frame::Snapshot(snapshot)));
}

#[test]
fn promise_8_nobody_is_offline_before_the_gateways_are_back() {
    let config = BrokerConfig {
        gateways_expected: 2,
        ready_quiet_ms: 60_000,
        ready_max_ms: 600_000,
        ..BrokerConfig::default()
    };
    everywhere(&config, |net| {
        let line = early(net, Role::PRODUCER, 7, 2);
        let mut producer = Producer { line, sequence: 0 };
        let first = early(net, Role::GATEWAY, 1, 2);
        snapshot(net, first);
        net.frame(first).expect("IN_EFFECT");
        let receipt = producer.publish(net, &[1], b"x");
        assert_eq!((receipt.code, receipt.sent), (ErrorCode::NOT_READY, 0));
        let second = early(net, Role::GATEWAY, 2, 1);
        snapshot(net, second);
        for line in [line, first] {
            state(net, line, BrokerState::READY, 0);
        }
        assert_eq!(producer.publish(net, &[1, 2], b"x").offline, [2]);
        // Ready once, ready for good.
        net.close(first);
        net.close(second);
        assert_eq!(producer.publish(net, &[1], b"x").offline, [1]);
    });
}

#[test]
fn a_quiet_time_is_enough_when_nobody_is_expected() {
    let config = BrokerConfig { ready_quiet_ms: 5_000, keepalive_ms: 0, ..BrokerConfig::default() };
    for backend in backends() {
        let Backend::Sim(..) = backend else { continue };
        let net = &mut Net::start(backend, config.clone());
        let producer = early(net, Role::PRODUCER, 7, 0);
        net.advance(Duration::from_secs(4));
        let gateway = early(net, Role::GATEWAY, 1, 1);
        net.advance(Duration::from_secs(6));
        // It waits for the snapshot of the one that is here.
        early(net, Role::CONSUMER, 9, 1);
        snapshot(net, gateway);
        state(net, producer, BrokerState::READY, 0);
        let gateway = Gateway::link(net, 2, &[5]);
        let mut producer = Producer { line: producer, sequence: 0 };
        assert_eq!(producer.publish(net, &[5], b"x").sent, 1);
        assert_eq!(gateway.delivery(net).targets, [5]);
    }
}

#[test]
fn a_gateway_that_never_ends_its_snapshot_is_not_waited_for_for_ever() {
    let config = BrokerConfig {
        ready_quiet_ms: 1_000,
        ready_max_ms: 10_000,
        keepalive_ms: 0,
        ..BrokerConfig::default()
    };
    let net = &mut Net::start(Backend::Sim(3, 5), config);
    let gateway = early(net, Role::GATEWAY, 1, 1);
    net.advance(Duration::from_millis(9_800));
    let producer = early(net, Role::PRODUCER, 7, 1);
    net.advance(Duration::from_millis(400));
    for line in [gateway, producer] {
        state(net, line, BrokerState::READY, 0);
    }
}
