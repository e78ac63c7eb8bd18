//! The consumer's machine by uplinks in and answers out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use waybill_wire::code::{ErrorCode, Kind, Op, capability};
use waybill_wire::message::Sender;
use waybill_wire::{Deframer, Frame, MessageHead};

use super::ConsumerConfig;
use super::filters::{Filter, Filters};
use super::machine::{Answer, Command, ConsumerMachine, Received, ReceivedUplink};
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
    let answer = Answer { link, origin, sequence, code };
    machine.handle_command(Instant::now(), Command::Answer(answer));
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

/// The FILTERs that a machine writes: op, number, expression.
fn filters_of(machine: &mut ConsumerMachine) -> Vec<(Op, u32, String)> {
    let (mut bytes, mut deframer, mut sent) = (Vec::new(), Deframer::new(), Vec::new());
    machine.transmit(Instant::now(), &mut bytes);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let step = deframer.next(rest).expect("well formed");
        rest = &rest[step.consumed..];
        match step.frame.expect("whole").decode().expect("well formed") {
            Frame::Filter(it) => sent.push((it.op, it.filter, it.expression.to_owned())),
            other => panic!("{other:?}"),
        }
    }
    sent
}

#[test]
fn filters_are_told_to_each_broker_and_changed_where_they_differ() {
    let filters = |list: &[&str]| {
        let filter = |text: &&str| Filter { namespace: 0, expression: (*text).to_owned() };
        let list: Vec<Filter> = list.iter().map(filter).collect();
        Arc::new(Filters::check(&list).expect("allowed"))
    };
    let mut machine = ConsumerMachine::new(&ConsumerConfig::default(), filters(&["uid=1"]));
    let welcomed = Welcomed { capabilities: capability::FILTERS, ..Welcomed::for_tests() };
    machine.handle_open(Instant::now(), &welcomed);
    assert_eq!(filters_of(&mut machine), [(Op::ADD, 1, "uid=1".into())]);
    machine.handle_command(Instant::now(), Command::Filters(filters(&["uid=2", "uid=3"])));
    let changed = [(Op::ADD, 1, "uid=2".into()), (Op::ADD, 2, "uid=3".into())];
    let mut sent = filters_of(&mut machine);
    sent.sort_by_key(|(_, number, _)| *number);
    assert_eq!(sent, changed);
    machine.handle_command(Instant::now(), Command::Filters(filters(&["uid=2"])));
    assert_eq!(filters_of(&mut machine), [(Op::REMOVE, 2, String::new())]);
    // The next link knows nothing; a broker that does not filter is told nothing.
    let reason = LinkError::new(LinkErrorKind::Closed, &Arc::from("b"));
    machine.handle_down(Instant::now(), &Ending::Retry { reason, retry_in: Duration::ZERO });
    machine.handle_open(Instant::now(), &welcomed);
    assert_eq!(filters_of(&mut machine), [(Op::ADD, 1, "uid=2".into())]);
    machine.handle_open(Instant::now(), &Welcomed::for_tests());
    machine.handle_command(Instant::now(), Command::Filters(filters(&["uid=4"])));
    assert_eq!(filters_of(&mut machine), []);
}
