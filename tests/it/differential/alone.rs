//! A message of any kind that waits for no other one: with a priority, a time to live or a key, in
//! pieces or whole, to gateways that take pieces and to others.

use std::ops::Range;

use rand::RngExt as _;
use rand::rngs::SmallRng;

use waybill_wire::Frame;
use waybill_wire::code::{Level, Mode, Priority};
use waybill_wire::message::{MessageHead, Sender};
use waybill_wire::targets::Uids;

use super::{payload, some};
use crate::fragments::cut;

/// A time to live that does not run out.
const TTL_MS: u32 = 3_600_000;

/// Where `ttl_ms` lies in a message header (`protocol-spec/04-framing.md`).
const TTL: Range<usize> = 28..32;

/// The frames of one.
pub(super) fn message(random: &mut SmallRng, sequence: u64) -> Vec<Vec<u8>> {
    let everyone = random.random_ratio(1, 5);
    let targets = if everyone { Vec::new() } else { some(random, 1..50) };
    let except = some(random, 0..4);
    let labels = ["order.paid", "order"];
    let head = MessageHead {
        sequence,
        everyone,
        mode: [Mode::DIRECT, Mode::AUTO, Mode::BROADCAST][random.random_range(0..3)],
        level: [Level::NONE, Level::ROUTED][random.random_range(0..2)],
        priority: [Priority::HIGH, Priority::NORMAL, Priority::BULK][random.random_range(0..3)],
        ttl_ms: if random.random_ratio(1, 2) { TTL_MS } else { 0 },
        conflate: random.random_ratio(1, 2).then(|| random.random_range(0..3)),
        sender: random.random_ratio(1, 4).then_some(Sender { uid: 1, connection: 5 }),
        labels: if random.random_ratio(1, 4) { (&labels).into() } else { Default::default() },
        except: Uids::Slice(&except),
        ..MessageHead::default()
    };
    let bytes = if random.random_ratio(1, 2) { 300_000 } else { 400 };
    let payload = payload(random, 2..bytes);
    if random.random_ratio(1, 2) {
        return cut(head, &targets, &payload, random.random_range(1_000..100_000));
    }
    let mut whole = Vec::new();
    head.encode_publish(&targets, &payload, &mut whole).expect("the test makes a valid PUBLISH");
    vec![whole]
}

/// The frame, if it has a time to live, with that of which nothing has passed: how much has is the
/// one difference there may be.
pub(super) fn without_time_passed(mut frame: Vec<u8>) -> Vec<u8> {
    let left = match Frame::decode(&frame) {
        Ok(Frame::Deliver(message)) => message.ttl_ms,
        _ => 0,
    };
    if left > 0 {
        assert!((TTL_MS / 2..=TTL_MS).contains(&left), "{left} ms are left");
        frame[TTL].copy_from_slice(&TTL_MS.to_le_bytes());
    }
    frame
}
