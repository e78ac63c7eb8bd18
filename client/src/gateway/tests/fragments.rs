//! Messages in fragments: whole ones come out, and nothing of those that are not.

use std::time::{Duration, Instant};

use waybill_wire::code::{ErrorCode, Kind, capability};
use waybill_wire::error::Violation;
use waybill_wire::frame::Fragment;
use waybill_wire::{Frame, MessageHead};

use super::Rig;
use crate::gateway::GatewayEvent;

const ORIGIN: u64 = 8;

fn first(sequence: u64, total: u32, payload: &[u8]) -> Vec<u8> {
    let head = MessageHead {
        sequence,
        origin: Some(ORIGIN),
        fragmented: Some(total),
        ..MessageHead::default()
    };
    let mut bytes = Vec::new();
    head.encode(Kind::DELIVER, &[1001], payload, &mut bytes).expect("allowed");
    bytes
}

fn piece(sequence: u64, offset: u32, payload: &[u8], last: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let fragment = Fragment { last, offset, sequence, origin: ORIGIN, payload };
    fragment.encode(&mut bytes).expect("allowed");
    bytes
}

impl Rig {
    fn comes(&mut self, now: Instant, bytes: &[u8]) -> Result<Vec<GatewayEvent>, Violation> {
        let frame = Frame::decode(bytes).expect("well formed");
        self.machine.handle_frame(now, &frame, bytes)?;
        Ok(self.events())
    }
}

/// FRG-1, FRG-5, FRG-8.
#[test]
fn pieces_come_out_as_one_delivery_with_the_time_of_the_first() {
    let mut rig = Rig::open();
    assert!(rig.machine.wishes().capabilities & capability::FRAGMENTS != 0);
    rig.events();
    let begun = Instant::now();
    let whole = begun + Duration::from_secs(1);
    assert!(rig.comes(begun, &first(3, 10, b"hello")).unwrap().is_empty());
    assert!(rig.comes(begun, &first(4, 2, b"")).unwrap().is_empty());
    assert!(rig.comes(begun, &piece(3, 5, b" wo", false)).unwrap().is_empty());
    let events = rig.comes(whole, &piece(4, 0, b"hi", true)).unwrap();
    let [GatewayEvent::Delivery(other)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((other.message().sequence, &other.payload()[..]), (4, &b"hi"[..]));
    let events = rig.comes(whole, &piece(3, 8, b"ld", true)).unwrap();
    let [GatewayEvent::Delivery(delivery)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((delivery.begun_at(), delivery.received_at()), (begun, whole));
    let message = delivery.message();
    assert_eq!((message.payload, message.fragmented), (&b"hello wold"[..], None));
    assert_eq!(message.targets.iter().collect::<Vec<_>>(), [1001]);
    assert_eq!(&delivery.payload()[..], message.payload);
}

/// FRG-4, FRG-7.
#[test]
fn a_piece_that_does_not_fit_ends_the_link_and_a_link_that_ends_leaves_nothing_open() {
    let mut rig = Rig::open();
    rig.events();
    let now = Instant::now();
    rig.comes(now, &first(3, 10, b"hello")).unwrap();
    let broken = rig.comes(now, &piece(3, 4, b"o", false)).unwrap_err();
    assert_eq!((broken.code, broken.reference), (ErrorCode::FRAGMENT_ORDER, 3));
    let twice = rig.comes(now, &first(3, 10, b"hello")).unwrap_err();
    assert_eq!(twice.code, ErrorCode::UNEXPECTED_FRAME);
    rig.machine.handle_down(now);
    rig.events();
    assert!(rig.comes(now, &first(3, 10, b"hello")).unwrap().is_empty());
    let lost = rig.comes(now, &piece(4, 5, b" worl", true)).unwrap_err();
    assert_eq!(lost.code, ErrorCode::FRAGMENT_ORDER);
}
