//! Links that do not read, frames that grow old, a broker that is told to stop.

use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{BrokerState, ErrorCode, Level};
use waybill_wire::message::MessageHead;

use crate::support::{Backend, Net, backends, everywhere};
use crate::talk::{Gateway, Producer, Receipt};

fn small_outboxes() -> BrokerConfig {
    // Whoever does not read for long, on a busy machine, is not to be timed out for it.
    BrokerConfig { outbox_bytes_max: 256 << 10, keepalive_ms: 60_000, ..BrokerConfig::default() }
}

#[test]
fn promise_6_a_gateway_that_does_not_read_costs_only_its_own_users() {
    everywhere(&small_outboxes(), |net| {
        let frozen = Gateway::link(net, 1, &[1]);
        let healthy = Gateway::link(net, 2, &[2]);
        net.stall(frozen.line, true);
        let mut producer = Producer::link(net, 7);
        let payload = vec![7; 64 << 10];
        let mut refused = 0;
        // More than the kernel's buffers and the outbox hold together.
        for _ in 0..400 {
            let receipt = producer.publish(net, &[1, 2], &payload);
            refused += receipt.dropped.iter().filter(|&&uid| uid == 1).count();
            assert!(!receipt.dropped.contains(&2), "{receipt:?}");
            assert_eq!(usize::try_from(receipt.sent).unwrap() + receipt.dropped.len(), 2);
            assert_eq!(healthy.delivery(net).targets, [2]);
        }
        assert!(refused > 0, "the frozen gateway's outbox filled up");
        assert_eq!(net.ledger().gateways.dropped_outbox_full, refused as u64);
        // What was not refused is still there, whole and in order.
        net.stall(frozen.line, false);
        let mut last = 0;
        for _ in 0..400 - refused {
            let sequence = frozen.delivery(net).sequence;
            assert!(sequence > last);
            last = sequence;
        }
    });
}

#[test]
fn promise_6_receipts_are_never_dropped_a_producer_that_does_not_read_is_not_read() {
    const PUBLISHES: u64 = 600;
    let config = BrokerConfig::default();
    let silence = Duration::from_millis(u64::from(config.keepalive_ms) * 7 / 2);
    for backend in backends() {
        eprintln!("on {backend:?}");
        // On sockets some 19 MB of receipts: two kernel buffers, as large as they get, hold less.
        let users = if let Backend::Sim(..) = backend { 500 } else { 4_000 };
        let offline: Vec<u64> = (0..users).collect();
        let mut bytes = Vec::new();
        for sequence in 1..=PUBLISHES {
            let head = MessageHead { sequence, level: Level::ROUTED, ..MessageHead::default() };
            head.encode_publish(&offline, b"", &mut bytes).unwrap();
        }
        let mut net = Net::start(backend, config.clone());
        let producer = Producer::link(&mut net, 7);
        net.stall(producer.line, true);
        net.send_in_background(producer.line, bytes);
        net.settle();
        let read = net.ledger().publishes;
        assert!(read < PUBLISHES, "nobody took a receipt, and all of {read} were asked for");
        // Whoever is not read says nothing that could be heard (SES-9): it lives on.
        if let Backend::Sim(..) = backend {
            net.advance(silence);
            assert_eq!(net.ledger().publishes, read);
        }
        net.stall(producer.line, false);
        for sequence in 1..=PUBLISHES {
            let receipt = unasked_receipt(&mut net, &producer);
            assert_eq!((receipt.sequence, receipt.offline.len()), (sequence, offline.len()));
        }
        let ledger = net.ledger();
        assert_eq!((ledger.publishes, ledger.links_faulted), (PUBLISHES, 0));
    }
}

/// The next receipt on a link whose other direction another thread is writing to, so that no PONG
/// may be put in between: what it writes is sign of life enough.
fn unasked_receipt(net: &mut Net, producer: &Producer) -> Receipt {
    loop {
        let frame = net.any_frame(producer.line).expect("a receipt");
        match Frame::decode(&frame) {
            Ok(Frame::Receipt(receipt)) => return Receipt::of(&receipt),
            Ok(Frame::Ping(_)) => {}
            other => panic!("no receipt: {other:?}"),
        }
    }
}

#[test]
fn promise_5_a_message_whose_time_ran_out_is_counted_and_not_sent() {
    for seed in 0..8 {
        let mut net = Net::start(Backend::Sim(2, seed), small_outboxes());
        let gateway = Gateway::link(&mut net, 1, &[1]);
        net.stall(gateway.line, true);
        let mut producer = Producer::link(&mut net, 7);
        let head = |ttl_ms| MessageHead { ttl_ms, ..MessageHead::default() };
        // The first is with the kernel at once; the others wait behind it.
        producer.publish_with(&mut net, head(0), &[1], b"kernel");
        producer.publish_with(&mut net, head(300), &[1], b"short");
        producer.publish_with(&mut net, head(60_000), &[1], b"long");
        net.advance(Duration::from_secs(1));
        net.stall(gateway.line, false);
        assert_eq!(gateway.delivery(&mut net).payload, b"kernel");
        let long = net.frame(gateway.line).unwrap();
        let Ok(Frame::Deliver(long)) = Frame::decode(&long) else { panic!("{long:02x?}") };
        assert_eq!(long.payload, b"long");
        assert!((1..=59_000).contains(&long.ttl_ms), "reduced while it waited: {}", long.ttl_ms);
        assert_eq!(net.ledger().gateways.expired, 1);
        net.finish();
    }
}

#[test]
fn a_broker_that_is_told_to_stop_asks_its_links_to_leave_and_then_ends_them() {
    let config = BrokerConfig { drain_ms: 30_000, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let leaver = Producer::link(net, 7);
        net.drain();
        for line in [gateway.line, leaver.line] {
            let state = net.frame(line).unwrap();
            let Ok(Frame::State(state)) = Frame::decode(&state) else { panic!("{state:02x?}") };
            assert_eq!(state.state, BrokerState::DRAINING);
            let drain = net.frame(line).unwrap();
            let Ok(Frame::Drain(drain)) = Frame::decode(&drain) else { panic!("{drain:02x?}") };
            assert_eq!(drain.deadline_ms, 30_000);
        }
        // With the last producer gone nothing is left to wait for.
        net.close(leaver.line);
        let end = net.frame(gateway.line).unwrap();
        let Ok(Frame::Error(end)) = Frame::decode(&end) else { panic!("{end:02x?}") };
        assert_eq!((end.code, end.fatal), (ErrorCode::SHUTTING_DOWN, true));
        assert_eq!(net.frame(gateway.line), None);
        net.stopped();
    });
}

#[test]
fn a_producer_that_stays_is_ended_when_its_time_to_leave_is_over() {
    let config = BrokerConfig { drain_ms: 300, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let mut stays = Producer::link(net, 7);
        net.drain();
        for _ in ["STATE", "DRAIN"] {
            net.frame(stays.line).unwrap();
        }
        assert_eq!(stays.publish(net, &[1], b"still served").offline, [1]);
        let end = net.frame(stays.line).unwrap();
        let Ok(Frame::Error(end)) = Frame::decode(&end) else { panic!("{end:02x?}") };
        assert_eq!((end.code, end.fatal), (ErrorCode::SHUTTING_DOWN, true));
        net.stopped();
    });
}
