//! Liveness (SES-9): whoever vanishes without a word is gone in three periods, and whoever the
//! broker itself keeps waiting is not.

use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Level};
use waybill_wire::message::MessageHead;

use crate::support::{Backend, Line, Net, backends, everywhere};
use crate::talk::{Gateway, Producer};

fn quick() -> BrokerConfig {
    BrokerConfig { keepalive_ms: 100, ..BrokerConfig::default() }
}

/// How a link ends whose peer reads and never says a word.
fn ends_with(net: &mut Net, line: Line) -> ErrorCode {
    loop {
        let frame = net.any_frame(line).expect("an ERROR before the end");
        match Frame::decode(&frame) {
            Ok(Frame::Error(error)) => return error.code,
            Ok(Frame::Ping(_)) => {}
            other => panic!("nobody asked for {other:?}"),
        }
    }
}

#[test]
fn promise_8_a_gateway_that_vanished_without_a_word_is_gone_in_three_periods() {
    everywhere(&quick(), |net| {
        let gateway = Gateway::link(net, 1, &[1]);
        assert_eq!(ends_with(net, gateway.line), ErrorCode::KEEPALIVE_TIMEOUT);
        let mut producer = Producer::link(net, 7);
        assert_eq!(producer.publish(net, &[1], b"x").offline, [1]);
    });
}

#[test]
fn promise_8_by_default_that_is_three_seconds() {
    for seed in 0..8 {
        let config = BrokerConfig::default();
        let mut net = Net::start(Backend::Sim(1 + (seed % 3) as u16, seed), config);
        let gateway = Gateway::link(&mut net, 1, &[1]);
        // Half-open: nothing that is sent arrives, and nothing comes.
        net.stall(gateway.line, true);
        net.advance(Duration::from_millis(2_700));
        let mut producer = Producer::link(&mut net, 7);
        assert_eq!(producer.publish(&mut net, &[1], b"x").sent, 1);
        net.advance(Duration::from_millis(500));
        assert_eq!(producer.publish(&mut net, &[1], b"x").offline, [1]);
        assert_eq!(net.ledger().links_faulted, 1);
    }
}

#[test]
fn promise_6_a_producer_that_the_broker_keeps_waiting_outlives_its_own_silence() {
    const PUBLISHES: u64 = 600;
    let socket = |it: &Backend| matches!(it, Backend::Tokio(_) | Backend::Uring(_));
    for backend in backends().into_iter().filter(socket) {
        eprintln!("on {backend:?}");
        let mut net = Net::start(backend, quick());
        let users: Vec<u64> = (0..4_000).collect();
        let mut bytes = Vec::new();
        for sequence in 1..=PUBLISHES {
            let head = MessageHead { sequence, level: Level::ROUTED, ..MessageHead::default() };
            head.encode_publish(&users, b"", &mut bytes).unwrap();
        }
        let producer = Producer::link(&mut net, 7);
        net.send_in_background(producer.line, bytes);
        net.settle();
        let read = net.ledger().publishes;
        assert!(read < PUBLISHES, "it is not read any more");
        // Another link measures the time: ten PINGs are ten periods, and three are silence enough.
        let clock = Gateway::link(&mut net, 1, &[]);
        for _ in 0..10 {
            net.ping(clock.line);
        }
        assert_eq!((net.ledger().publishes, net.ledger().links_faulted), (read, 0));
        let mut receipts = 0;
        while receipts < PUBLISHES {
            let frame = net.any_frame(producer.line).expect("the link lives");
            receipts += u64::from(matches!(Frame::decode(&frame), Ok(Frame::Receipt(_))));
        }
    }
}
