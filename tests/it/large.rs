//! Large payloads: referenced by the outboxes of several gateways, and in pieces to those that put
//! them together, with other messages between.

use waybill_broker::BrokerConfig;
use waybill_broker::limits::REFERENCED_BYTES;
use waybill_wire::Frame;
use waybill_wire::message::MessageHead;

use crate::receipts::gateway_offering;
use crate::support::{Line, Net, everywhere};
use crate::talk::Producer;

/// What no other message of a test has.
fn payload(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from((at / 7 + number) % 256).unwrap()).collect()
}

/// The payloads of so many messages.
fn arrivals(net: &mut Net, gateway: Line, count: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < count {
        let frame = net.frame(gateway).expect("a message");
        match Frame::decode(&frame) {
            Ok(Frame::Deliver(message)) => all.push(message.payload.to_vec()),
            other => panic!("no message: {other:?}"),
        }
    }
    all
}

#[test]
fn promise_2_a_mebibyte_reaches_three_gateways_byte_for_byte_among_small_messages() {
    let config = BrokerConfig { outbox_bytes_max: 32 << 20, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let gateways: Vec<Line> =
            (1..=3).map(|uid| gateway_offering(net, uid, &[uid], 0)).collect();
        let mut producer = Producer::link(net, 7);
        let sizes = [10, 1 << 20, 300, REFERENCED_BYTES, 0, REFERENCED_BYTES - 1, 100_000, 5];
        for (number, bytes) in sizes.into_iter().enumerate() {
            let payload = payload(number, bytes);
            producer.send_with(net, MessageHead::default(), &[1, 2, 3], &payload);
        }
        for gateway in gateways {
            for (number, got) in arrivals(net, gateway, sizes.len()).into_iter().enumerate() {
                assert!(got == payload(number, sizes[number]), "message {number}: {}", got.len());
            }
        }
    });
}
