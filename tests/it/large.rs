//! Large payloads: referenced by the outboxes of several gateways, and in pieces to those that put
//! them together (6.14), with other messages between.

use waybill_broker::BrokerConfig;
use waybill_broker::limits::{FRAGMENT_BYTES, REFERENCED_BYTES};
use waybill_wire::Frame;
use waybill_wire::assembly::{Assembly, Piece, cuts};
use waybill_wire::code::{ErrorCode, Fate, Level, Priority, Role, capability};
use waybill_wire::frame::{Fragment, Ping};
use waybill_wire::limits::{MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use waybill_wire::message::MessageHead;

use crate::receipts::gateway_offering;
use crate::support::{Line, Net, everywhere};
use crate::talk::{Producer, encode, link_offering};

fn config() -> BrokerConfig {
    // Who does not read for long, on a busy machine, is not to be timed out for it.
    BrokerConfig { outbox_bytes_max: 32 << 20, keepalive_ms: 60_000, ..BrokerConfig::default() }
}

/// What no other message of a test has.
fn payload(number: usize, bytes: usize) -> Vec<u8> {
    let pattern: Vec<u8> = (0..251).map(|at| at ^ u8::try_from(number).unwrap()).collect();
    pattern.repeat(bytes / pattern.len() + 1)[..bytes].to_vec()
}

/// A producer that sends in pieces.
fn producer(net: &mut Net) -> Producer {
    Producer { line: link_offering(net, Role::PRODUCER, 7, capability::FRAGMENTS), sequence: 0 }
}

/// Sends a message in pieces as long as they may be.
fn send_in_pieces(
    net: &mut Net,
    producer: &mut Producer,
    head: MessageHead<'_>,
    uids: &[u64],
    payload: &[u8],
) {
    let fragmented = Some(u32::try_from(payload.len()).unwrap());
    producer.send_with(net, MessageHead { fragmented, ..head }, uids, b"");
    for piece in cuts(payload.len(), 0, PAYLOAD_BYTES_MAX) {
        let (last, offset) = (piece.end == payload.len(), u32::try_from(piece.start).unwrap());
        let (sequence, payload) = (producer.sequence, &payload[piece]);
        let fragment = Fragment { last, offset, sequence, origin: 0, payload };
        net.send(producer.line, &encode(&Frame::Fragment(fragment)));
    }
}

/// What a gateway gets.
#[derive(Debug, PartialEq)]
enum Got {
    Pong,
    First,
    Piece,
    /// A message, or the last piece of it: its payload.
    Message(Vec<u8>),
}

#[derive(Default)]
struct Arrivals {
    assembly: Assembly<()>,
}

impl Arrivals {
    fn next(&mut self, net: &mut Net, gateway: Line) -> Got {
        let frame = net.frame(gateway).expect("a frame");
        match Frame::decode(&frame).expect("a valid frame") {
            Frame::Pong(_) => Got::Pong,
            Frame::Deliver(message) if message.fragmented.is_some() => {
                assert_eq!(message.payload.len(), FRAGMENT_BYTES);
                self.assembly.begin((), &message, &frame).unwrap();
                Got::First
            }
            Frame::Deliver(message) => Got::Message(message.payload.to_vec()),
            Frame::Fragment(fragment) => match self.assembly.add(&fragment).unwrap() {
                Piece::Completed(whole) => Got::Message(whole.message().payload.to_vec()),
                _ => Got::Piece,
            },
            other => panic!("{other:?}"),
        }
    }

    /// So many whole messages.
    fn messages(&mut self, net: &mut Net, gateway: Line, count: usize) -> Vec<Vec<u8>> {
        let all = std::iter::repeat_with(|| self.next(net, gateway));
        let whole = all.filter_map(|got| match got {
            Got::Message(payload) => Some(payload),
            _ => None,
        });
        whole.take(count).collect()
    }
}

#[test]
fn promise_2_a_mebibyte_reaches_three_gateways_byte_for_byte_among_small_messages() {
    everywhere(&config(), |net| {
        let offered = [0, capability::FRAGMENTS, capability::FRAGMENTS];
        let gateways: Vec<Line> = (1..=3)
            .map(|uid| {
                gateway_offering(net, uid, &[uid], offered[usize::try_from(uid).unwrap() - 1])
            })
            .collect();
        let mut producer = Producer::link(net, 7);
        let sizes = [10, 1 << 20, 300, REFERENCED_BYTES, 0, REFERENCED_BYTES - 1, 100_000, 5];
        for (number, bytes) in sizes.into_iter().enumerate() {
            let payload = payload(number, bytes);
            producer.send_with(net, MessageHead::default(), &[1, 2, 3], &payload);
        }
        for gateway in gateways {
            let all = Arrivals::default().messages(net, gateway, sizes.len());
            for (number, got) in all.into_iter().enumerate() {
                assert!(got == payload(number, sizes[number]), "message {number}: {}", got.len());
            }
        }
        net.until(|ledger| ledger.gateways.waiting + ledger.gateways.between_shards == 0);
        assert_eq!(net.ledger().gateways.queued, 3 * sizes.len() as u64);
    });
}

#[test]
fn promise_6_urgent_messages_and_a_pong_go_between_the_pieces_of_a_bulk_one() {
    everywhere(&config(), |net| {
        let gateway = gateway_offering(net, 1, &[1], capability::FRAGMENTS);
        net.stall(gateway, true);
        let mut producer = producer(net);
        let bulk = MessageHead { priority: Priority::BULK, ..MessageHead::default() };
        // More than a transport takes when nobody reads.
        let large = payload(1, MESSAGE_BYTES_MAX);
        let told = MessageHead { level: Level::ROUTED, ..bulk };
        send_in_pieces(net, &mut producer, told, &[1], &large);
        assert_eq!(producer.receipt(net).sent, 1);
        net.settle();
        let high = MessageHead { priority: Priority::HIGH, ..MessageHead::default() };
        assert_eq!(producer.publish_with(net, high, &[1], b"urgent").sent, 1);
        net.send(gateway, &encode(&Frame::Ping(Ping { token: 3 })));
        net.settle();
        net.stall(gateway, false);
        let mut arrivals = Arrivals::default();
        let (mut all, mut pieces) = (Vec::new(), 0);
        loop {
            match arrivals.next(net, gateway) {
                Got::Message(whole) if whole.len() > 100 => {
                    assert!(whole == large, "{} bytes", whole.len());
                    break;
                }
                Got::First => assert!(all.is_empty(), "it had begun"),
                Got::Piece => pieces += 1,
                other => all.push(other),
            }
        }
        assert_eq!(all, [Got::Pong, Got::Message(b"urgent".into())]);
        assert_eq!(pieces, MESSAGE_BYTES_MAX / FRAGMENT_BYTES - 2);
    });
}

#[test]
fn promise_2_and_6_others_go_on_where_a_producer_waits_behind_its_own_large_message() {
    everywhere(&config(), |net| {
        let gateway = gateway_offering(net, 1, &[1], capability::FRAGMENTS);
        net.stall(gateway, true);
        let (mut first, mut second) = (producer(net), Producer::link(net, 8));
        // More than a transport takes when nobody reads.
        let large = payload(1, MESSAGE_BYTES_MAX);
        let told = MessageHead { level: Level::ROUTED, ..MessageHead::default() };
        send_in_pieces(net, &mut first, told, &[1], &large);
        assert_eq!(first.receipt(net).sent, 1);
        let (follower, of_another) = (payload(2, 300_000), b"of another".to_vec());
        for payload in [&b"behind it"[..], &follower, b"last"] {
            assert_eq!(first.publish_with(net, told, &[1], payload).sent, 1);
        }
        for _ in 0..3 {
            assert_eq!(second.publish_with(net, told, &[1], &of_another).sent, 1);
        }
        net.settle();
        net.stall(gateway, false);
        let got = Arrivals::default().messages(net, gateway, 7);
        assert!(got[..3].iter().all(|got| *got == of_another), "they came while it was open");
        assert!(got[3..] == [large, b"behind it".into(), follower, b"last".into()]);
        net.until(|ledger| ledger.gateways.waiting + ledger.gateways.between_shards == 0);
    });
}

#[test]
fn what_is_too_long_for_a_frame_is_not_sent_to_a_gateway_that_takes_no_pieces() {
    everywhere(&config(), |net| {
        let with = gateway_offering(net, 1, &[1], capability::FRAGMENTS);
        let without = gateway_offering(net, 2, &[2], 0);
        let mut producer = producer(net);
        let large = payload(1, PAYLOAD_BYTES_MAX + 1);
        let told = MessageHead { level: Level::ROUTED, ..MessageHead::default() };
        send_in_pieces(net, &mut producer, told, &[1, 2], &large);
        let frame = net.frame(producer.line).expect("a receipt");
        let Ok(Frame::Receipt(receipt)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        let sets: Vec<_> = receipt.fate_sets.iter().collect();
        assert_eq!((receipt.sent, sets.len()), (1, 1), "{receipt:?}");
        assert_eq!((sets[0].fate, sets[0].cause), (Fate::DROPPED, ErrorCode::NOT_SUPPORTED));
        assert_eq!(sets[0].uids.iter().collect::<Vec<u64>>(), [2]);
        producer.send_with(net, MessageHead::default(), &[1, 2], b"after");
        assert!(Arrivals::default().messages(net, with, 2) == [large, b"after".to_vec()]);
        assert_eq!(Arrivals::default().messages(net, without, 1), [b"after"]);
    });
}

#[test]
fn what_was_begun_is_lost_with_its_link_and_counted_once() {
    everywhere(&config(), |net| {
        let gateway = gateway_offering(net, 1, &[1], capability::FRAGMENTS);
        net.stall(gateway, true);
        let mut producer = producer(net);
        let told = MessageHead { level: Level::ROUTED, ..MessageHead::default() };
        send_in_pieces(net, &mut producer, told, &[1], &payload(1, MESSAGE_BYTES_MAX));
        assert_eq!(producer.receipt(net).sent, 1);
        net.settle();
        net.cut(gateway);
        net.until(|ledger| ledger.gateways.waiting + ledger.gateways.between_shards == 0);
        let frames = net.ledger().gateways;
        assert_eq!((frames.offered, frames.lost, frames.in_doubt), (1, 1, 0));
    });
}
