//! Messages in fragments from producers (6.14), on every backend: what comes in pieces is what came
//! in one, and what is wrong with it costs nobody else. Order and form are in the dialogues of
//! `protocol-spec/vectors/dialogues/fragments.toml`.

use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::assembly::cuts;
use waybill_wire::code::{ErrorCode, Fate, Level, Role, capability};
use waybill_wire::frame::Fragment;
use waybill_wire::limits::{MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use waybill_wire::{Frame, MessageHead};

use crate::support::{Line, Net, everywhere, simulated};
use crate::talk::{Gateway, Producer, Receipt, encode, link_offering};

fn check(test: impl Fn(&mut Net)) {
    everywhere(&BrokerConfig::default(), test);
}

fn producer(net: &mut Net, instance: u64) -> Producer {
    let line = link_offering(net, Role::PRODUCER, instance, capability::FRAGMENTS);
    Producer { line, sequence: 0 }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// The frames of a message in pieces of that length.
pub(crate) fn cut(
    head: MessageHead<'_>,
    uids: &[u64],
    payload: &[u8],
    piece: usize,
) -> Vec<Vec<u8>> {
    let total = u32::try_from(payload.len()).unwrap();
    let first = piece.min(payload.len() - 1);
    let mut frames = vec![Vec::new()];
    let head = MessageHead { fragmented: Some(total), ..head };
    head.encode_publish(uids, &payload[..first], &mut frames[0]).unwrap();
    frames.extend(cuts(payload.len(), first, piece).map(|range| {
        let (last, offset) = (range.end == payload.len(), u32::try_from(range.start).unwrap());
        let (sequence, payload) = (head.sequence, &payload[range]);
        encode(&Frame::Fragment(Fragment { last, offset, sequence, origin: 0, payload }))
    }));
    frames
}

fn send_cut(
    net: &mut Net,
    producer: &mut Producer,
    head: MessageHead<'_>,
    uids: &[u64],
    payload: &[u8],
) {
    producer.sequence += 1;
    let head = MessageHead { sequence: producer.sequence, ..head };
    for frame in cut(head, uids, payload, 40_000) {
        net.send(producer.line, &frame);
    }
}

/// FRG-1, FRG-5: the turn ends between the pieces, and between gateways.
#[test]
fn what_came_in_pieces_reaches_each_gateway_in_one_frame() {
    check(|net| {
        let gateways: Vec<_> =
            (1..=9).map(|number| Gateway::link(net, number, &[number, 100])).collect();
        let mut producer = producer(net, 7);
        let payload = bytes(PAYLOAD_BYTES_MAX);
        let head = MessageHead { level: Level::ROUTED, ..MessageHead::default() };
        send_cut(net, &mut producer, head, &[100, 5, 77], &payload);
        let receipt = producer.receipt(net);
        assert_eq!((receipt.sent, receipt.gateways, &receipt.offline[..]), (2, 9, &[77][..]));
        for (gateway, number) in gateways.iter().zip(1..) {
            let delivery = gateway.delivery(net);
            let targets: &[u64] = if number == 5 { &[100, 5] } else { &[100] };
            assert_eq!((delivery.targets.as_slice(), delivery.sequence), (targets, 1));
            assert!(delivery.payload == payload, "byte for byte");
        }
        assert!(net.balances().is_ok());
    });
}

/// FRG-10: both receipts say that such a gateway cannot have it, and why.
#[test]
fn a_payload_too_long_for_a_frame_is_for_gateways_that_agreed() {
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let mut producer = producer(net, 7);
        for (level, receipts) in [(Level::ROUTED, 1), (Level::DELIVERED, 2)] {
            let head = MessageHead { level, ..MessageHead::default() };
            send_cut(net, &mut producer, head, &[1, 2], &bytes(PAYLOAD_BYTES_MAX + 1));
            for _ in 0..receipts {
                let frame = net.frame(producer.line).unwrap();
                let Ok(Frame::Receipt(receipt)) = Frame::decode(&frame) else {
                    panic!("{frame:?}")
                };
                let told = Receipt::of(&receipt);
                assert_eq!((told.sent, told.gateways), (0, 0));
                assert_eq!((&told.dropped[..], &told.offline[..]), (&[1][..], &[2][..]));
                let dropped = receipt.fate_sets.iter().find(|set| set.fate == Fate::DROPPED);
                assert_eq!(dropped.unwrap().cause, ErrorCode::NOT_SUPPORTED);
            }
        }
        // A frame for it would have come first.
        producer.publish(net, &[1], b"x");
        assert_eq!(gateway.delivery(net).payload, b"x");
    });
}

/// FRG-8: the time to live counts from the first piece.
#[test]
fn a_message_whose_time_runs_out_between_its_pieces_is_refused() {
    simulated(&BrokerConfig::default(), |net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let mut producer = producer(net, 7);
        for (passed, code) in [(999, ErrorCode(0)), (1_000, ErrorCode::EXPIRED)] {
            producer.sequence += 1;
            let (sequence, level, ttl_ms) = (producer.sequence, Level::ROUTED, 1_000);
            let head = MessageHead { sequence, level, ttl_ms, ..MessageHead::default() };
            let frames = cut(head, &[1], b"abcdef", 3);
            net.send(producer.line, &frames[0]);
            net.settle();
            net.advance(Duration::from_millis(passed));
            net.send(producer.line, &frames[1]);
            let receipt = producer.receipt(net);
            assert_eq!((receipt.code, receipt.sequence), (code, sequence), "{passed} ms");
        }
        let delivery = gateway.line;
        let frame = net.frame(delivery).unwrap();
        let Ok(Frame::Deliver(message)) = Frame::decode(&frame) else { panic!("{frame:?}") };
        assert!((1..=1).contains(&message.ttl_ms), "{}", message.ttl_ms);
    });
}

/// FRG-7, promise 5: of what was not whole nobody gets anything, and it is counted.
#[test]
fn promise_5_what_a_link_leaves_open_is_counted() {
    for backend in crate::support::backends() {
        let mut net = Net::start(backend, BrokerConfig::default());
        let gateway = Gateway::link(&mut net, 1, &[1]);
        let mut first = producer(&mut net, 7);
        first.sequence = 1;
        let head = MessageHead { sequence: 1, level: Level::ROUTED, ..MessageHead::default() };
        let frames = cut(head, &[1], &bytes(MESSAGE_BYTES_MAX), 60_000);
        let part: Vec<u8> = frames[..20].concat();
        net.send(first.line, &part);
        net.ping(first.line);
        net.close(first.line);
        let mut second = producer(&mut net, 8);
        second.publish(&mut net, &[1], b"x");
        assert_eq!(gateway.delivery(&mut net).payload, b"x");
        net.until(|ledger| ledger.publishes_unfinished == 1);
        assert_eq!(net.ledger().publishes, 1);
        net.finish();
    }
}

/// FRG-9, promise 7: a share of what all links hold is not kept by saying nothing.
#[test]
fn promise_7_a_message_that_stands_still_is_given_up() {
    // Else its silence ends the link first.
    let config = BrokerConfig { keepalive_ms: 0, ..BrokerConfig::default() };
    simulated(&config, |net| {
        let mut producer = producer(net, 7);
        producer.sequence = 1;
        let head = MessageHead { sequence: 1, level: Level::ROUTED, ..MessageHead::default() };
        let frames = cut(head, &[1], b"abcdefghij", 3);
        for frame in &frames[..2] {
            net.send(producer.line, frame);
            net.advance(Duration::from_secs(9));
            assert_eq!(net.ledger().publishes_refused, 0);
        }
        net.advance(Duration::from_millis(1_500));
        let receipt = producer.receipt(net);
        assert_eq!((receipt.code, receipt.sequence), (ErrorCode::OVERLOADED, 1));
        let ledger = net.ledger();
        assert_eq!((ledger.publishes_refused, ledger.publishes_stood_still), (1, 1));
        // It is open still, and what comes of it has no effect (FRG-9).
        for frame in &frames[2..] {
            net.send(producer.line, frame);
        }
        let receipt = producer.publish(net, &[1], b"x");
        assert_eq!((receipt.code, &receipt.offline[..]), (ErrorCode(0), &[1][..]));
    });
}

/// FRG-2, promise 6: others' messages, and its own, pass what a producer sends slowly.
#[test]
fn promise_6_a_message_that_stays_open_holds_nobody_up() {
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let (mut slow, mut other) = (producer(net, 7), Producer::link(net, 8));
        let head = MessageHead { sequence: 1, level: Level::ROUTED, ..MessageHead::default() };
        let frames = cut(head, &[1], &bytes(500_000), 100_000);
        let send = |net: &mut Net, line: Line, frame: &[u8]| net.send(line, frame);
        slow.sequence = 1;
        for (at, frame) in frames.iter().enumerate() {
            send(net, slow.line, frame);
            if at + 1 < frames.len() {
                other.publish(net, &[1], b"other");
                slow.publish(net, &[1], b"own");
                assert_eq!(gateway.delivery(net).payload, b"other");
                assert_eq!(gateway.delivery(net).payload, b"own");
            }
        }
        let delivery = gateway.delivery(net);
        assert!((delivery.sequence, delivery.payload.len()) == (1, 500_000));
        assert_eq!(slow.receipt(net).sequence, 1);
    });
}
