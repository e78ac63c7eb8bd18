//! The consumer's machine by uplinks in and answers out.

use std::time::{Duration, Instant};

use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::message::Sender;
use waybill_wire::{Deframer, Frame, MessageHead};

use super::machine::{Answer, ConsumerMachine, Received, ReceivedUplink};
use crate::link::{LinkError, LinkErrorKind, Welcomed};
use crate::machine::{Ending, Machine};

fn uplink(machine: &mut ConsumerMachine, sequence: u64) {
    let sender = Some(Sender { uid: 7, connection: 70 });
    let labels = ["order.paid"];
    let labels = (&labels).into();
    let origin = Some(8);
    let head = MessageHead { sequence, sender, origin, labels, ..MessageHead::default() };
    let mut bytes = Vec::new();
    head.encode_uplink(b"hello", &mut bytes).expect("allowed");
    let frame = Frame::decode(&bytes).expect("well formed");
    machine.handle_frame(Instant::now(), &frame, &bytes).expect("for a consumer");
}

fn open() -> ConsumerMachine {
    let mut machine = ConsumerMachine::default();
    machine.handle_open(Instant::now(), &Welcomed::for_tests());
    machine
}

fn answer(machine: &mut ConsumerMachine, received: &ReceivedUplink, code: ErrorCode) {
    let ReceivedUplink { link, origin, sequence, .. } = *received;
    machine.handle_command(Instant::now(), Answer { link, origin, sequence, code });
}

fn arrived(machine: &mut ConsumerMachine) -> ReceivedUplink {
    match machine.poll_event() {
        Some(Received::Uplink(uplink)) => uplink,
        other => panic!("{other:?}"),
    }
}

/// Sequence and code of each UPLINK_ACK.
fn sent(machine: &mut ConsumerMachine) -> Vec<(u64, u16)> {
    let mut out = Vec::new();
    machine.transmit(Instant::now(), &mut out);
    let (mut deframer, mut at, mut sent) = (Deframer::new(), 0, Vec::new());
    loop {
        let step = deframer.next(&out[at..]).expect("well framed");
        at += step.consumed;
        let Some(raw) = step.frame else { return sent };
        let Ok(Frame::UplinkAck(ack)) = raw.decode() else { panic!("{raw:?}") };
        assert_eq!(ack.origin, 8, "copied");
        sent.push((ack.sequence, ack.code.0));
    }
}

fn cut(machine: &mut ConsumerMachine) {
    let reason = LinkError::new(LinkErrorKind::Lost, &"b:1".into());
    machine.handle_down(Instant::now(), &Ending::Retry { reason, retry_in: Duration::ZERO });
}

#[test]
fn an_uplink_is_answered_once_it_was_seen() {
    let mut machine = open();
    uplink(&mut machine, 5);
    let received = arrived(&mut machine);
    assert_eq!((received.uid, received.connection, received.origin), (7, 70, 8));
    assert_eq!((received.sequence, &received.payload[..]), (5, &b"hello"[..]));
    assert_eq!(received.labels, ["order.paid"]);
    assert!(sent(&mut machine).is_empty() && !machine.is_settled());
    answer(&mut machine, &received, ErrorCode(0));
    assert_eq!(sent(&mut machine), [(5, 0)]);
    assert!(machine.is_settled());
}

#[test]
fn an_answer_to_an_earlier_link_is_for_nobody() {
    let mut machine = open();
    uplink(&mut machine, 5);
    let received = arrived(&mut machine);
    uplink(&mut machine, 6);
    cut(&mut machine);
    assert_eq!(machine.poll_event(), Some(Received::Ended), "6 is lost to its gateway");
    answer(&mut machine, &received, ErrorCode(0));
    machine.handle_open(Instant::now(), &Welcomed::for_tests());
    answer(&mut machine, &received, ErrorCode(0));
    assert!(sent(&mut machine).is_empty() && machine.is_settled());
}

#[test]
fn a_closing_consumer_refuses_what_it_does_not_hand_out() {
    let mut machine = open();
    (1..=3).for_each(|sequence| uplink(&mut machine, sequence));
    let taken = arrived(&mut machine);
    let held = machine.poll_event();
    assert!(machine.handle_close(held).is_none());
    uplink(&mut machine, 4);
    assert!(machine.poll_event().is_none());
    assert_eq!(sent(&mut machine), [(2, 305), (3, 305), (4, 305)]);
    assert!(!machine.is_settled(), "the application has one in its hands");
    answer(&mut machine, &taken, ErrorCode::EXPIRED);
    assert_eq!(sent(&mut machine), [(1, 307)]);
    assert!(machine.is_settled());
}

#[test]
fn an_uplink_without_origin_ends_the_link() {
    let sender = Some(Sender { uid: 7, connection: 70 });
    let head = MessageHead { sequence: 1, sender, ..MessageHead::default() };
    let mut bytes = Vec::new();
    head.encode_uplink(b"", &mut bytes).expect("a codec accepts both");
    let frame = Frame::decode(&bytes).expect("well formed");
    let error = open().handle_frame(Instant::now(), &frame, &bytes).expect_err("names no gateway");
    assert_eq!((error.code, error.kind), (ErrorCode::UNEXPECTED_FRAME, Kind::UPLINK));
}
