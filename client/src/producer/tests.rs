//! The producer's machine by frames in and frames out, and against a naive account of every target.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use waybill_wire::code::{ErrorCode, Fate, Level};
use waybill_wire::frame::{FateSet, Receipt as WireReceipt};
use waybill_wire::{Deframer, Frame};

use super::job::Reply;
use super::machine::{Bounds, Order, Outcome, ProducerEvent, ProducerMachine};
use crate::error::PublishError;
use crate::link::{LinkError, LinkErrorKind, Welcomed};
use crate::machine::{Ending, Machine};
use crate::publish::{Publish, ReceiptLevel};
use crate::receipt::{Progress, Receipt};

mod cut;
mod hops;
mod overloaded;
mod resend;
mod stages;
mod tags;

/// What matters of a PUBLISH on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    sequence: u64,
    targets: Vec<u64>,
    part: Option<(u64, u32, u32)>,
    level: Level,
    ttl_ms: u32,
    resend: bool,
}

impl Reply for usize {
    fn progress(&mut self, progress: Progress) {
        let Progress { parts, routed, answered, .. } = progress;
        assert!(answered <= routed && routed <= parts, "{progress:?}");
    }
}

struct Rig {
    machine: ProducerMachine<usize>,
    now: Instant,
    orders: usize,
}

fn welcomed(credit: u32, payload_max: u32) -> Welcomed {
    Welcomed { credit, payload_max, ..Welcomed::for_tests() }
}

fn retry() -> Ending {
    let reason = LinkError::new(LinkErrorKind::Lost, &"b:1".into());
    Ending::Retry { reason, retry_in: Duration::ZERO }
}

impl Rig {
    /// One that sends nothing again.
    fn new(in_flight_max: usize) -> Self {
        Self::resending(in_flight_max, Duration::ZERO)
    }

    fn resending(in_flight_max: usize, resend_within: Duration) -> Self {
        let publish_timeout = Duration::from_secs(30);
        let bounds = Bounds { in_flight_max, resend_within, publish_timeout };
        Self { machine: ProducerMachine::new(77, bounds), now: Instant::now(), orders: 0 }
    }

    fn open(in_flight_max: usize) -> Self {
        let mut rig = Self::new(in_flight_max);
        rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
        rig
    }

    /// Queues a publish; its number.
    fn order(&mut self, publish: Publish) -> usize {
        publish.check().expect("is allowed");
        let reply = self.orders;
        self.orders += 1;
        self.machine
            .handle_command(self.now, vec![Order { request: publish.into(), reply, wall: None }]);
        reply
    }

    fn transmit(&mut self) -> Vec<Sent> {
        let mut out = Vec::new();
        loop {
            let before = out.len();
            let mut chunk = Vec::new();
            self.machine.transmit(self.now, &mut chunk);
            out.append(&mut chunk);
            if out.len() == before {
                return publishes(&out);
            }
        }
    }

    fn receipt(&mut self, receipt: WireReceipt<'_>) {
        let receipt = WireReceipt { last: true, stage: Level::ROUTED, ..receipt };
        self.machine
            .handle_frame(self.now, &Frame::Receipt(receipt), &[])
            .expect("belongs to a publish");
    }

    /// Every target was sent.
    fn all_sent(&mut self, sent: &Sent) {
        let count = u32::try_from(sent.targets.len()).expect("fits");
        self.receipt(WireReceipt {
            sequence: sent.sequence,
            sent: count,
            gateways: 1,
            ..WireReceipt::default()
        });
    }

    fn settled(&mut self) -> Vec<(usize, Outcome)> {
        std::iter::from_fn(|| self.machine.poll_event())
            .map(|event| match event {
                ProducerEvent::Settled { reply, outcome } => (reply, outcome),
                other @ ProducerEvent::Refused { .. } => panic!("{other:?}"),
            })
            .collect()
    }

    fn one(&mut self) -> Outcome {
        let mut settled = self.settled();
        assert_eq!(settled.len(), 1, "{settled:?}");
        settled.remove(0).1
    }
}

fn publishes(bytes: &[u8]) -> Vec<Sent> {
    let (mut deframer, mut at, mut sent) = (Deframer::new(), 0, Vec::new());
    loop {
        let step = deframer.next(&bytes[at..]).expect("well framed");
        at += step.consumed;
        let Some(raw) = step.frame else { return sent };
        let Frame::Publish(message) = raw.decode().expect("well formed") else { panic!("{raw:?}") };
        sent.push(Sent {
            sequence: message.sequence,
            targets: message.targets.iter().collect(),
            part: message.part.map(|part| (part.list, part.index, part.parts)),
            level: message.level,
            ttl_ms: message.ttl_ms,
            resend: message.resend,
        });
    }
}

fn code(outcome: &Outcome) -> Option<ErrorCode> {
    match outcome {
        Err(PublishError::Refused { code }) => Some(*code),
        _ => None,
    }
}

#[test]
fn a_long_list_goes_in_parts_and_comes_back_as_one_receipt() {
    let mut rig = Rig::open(100);
    let uids: Vec<u64> = (0..10_000).collect();
    rig.order(Publish::to([5]));
    rig.order(Publish::to(uids.clone()).payload("x"));
    let sent = rig.transmit();
    let shape: Vec<_> = sent.iter().map(|s| (s.sequence, s.targets.len(), s.part)).collect();
    let expected = [
        (1, 1, None),
        (2, 4096, Some((2, 0, 3))),
        (3, 4096, Some((2, 1, 3))),
        (4, 1808, Some((2, 2, 3))),
    ];
    assert_eq!(shape, expected);
    assert_eq!(sent[1..].iter().flat_map(|s| s.targets.clone()).collect::<Vec<_>>(), uids);

    rig.all_sent(&sent[0]);
    rig.all_sent(&sent[1]);
    let sets = [FateSet {
        fate: Fate::DROPPED,
        cause: ErrorCode::OUTBOX_FULL,
        uids: (&[4096, 4097]).into(),
    }];
    rig.receipt(WireReceipt {
        sequence: 3,
        sent: 4094,
        dropped: 2,
        gateways: 3,
        fate_sets: (&sets).into(),
        ..WireReceipt::default()
    });
    assert_eq!(rig.settled().len(), 1, "the list waits for its last part");
    let sets = [FateSet { fate: Fate::OFFLINE, cause: ErrorCode(0), uids: (&[9999]).into() }];
    rig.receipt(WireReceipt {
        sequence: 4,
        sent: 1807,
        offline: 1,
        gateways: 2,
        fate_sets: (&sets).into(),
        ..WireReceipt::default()
    });
    let receipt = rig.one().expect("served");
    assert_eq!((receipt.instance, receipt.sequence), (77, 2));
    assert_eq!((receipt.sent, receipt.gateways), (9997, 6));
    assert_eq!(receipt.offline, [9999]);
    assert_eq!(receipt.dropped[0].uids, [4096, 4097]);
    assert_eq!(receipt.dropped_count(), 2);
    assert!(rig.machine.is_settled());
}

#[test]
fn a_dead_link_leaves_what_flew_in_doubt_and_keeps_what_waited() {
    let mut rig = Rig::open(1);
    rig.order(Publish::to([1, 2]));
    rig.order(Publish::to([3]));
    assert_eq!(rig.transmit().len(), 1, "one may be in flight");
    rig.machine.handle_down(rig.now, &retry());
    let receipt = rig.one().expect("in doubt is not refused");
    assert_eq!((receipt.unknown, receipt.unknown_count), (vec![1, 2], 2));
    assert!(receipt.in_doubt);
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    let sent = rig.transmit();
    assert_eq!((sent[0].sequence, &sent[0].targets[..]), (2, &[3][..]), "numbers go on");
    rig.all_sent(&sent[0]);
    assert_eq!(rig.one().expect("served").sent, 1);
}

#[test]
fn half_a_list_on_each_link() {
    let mut rig = Rig::open(2);
    rig.order(Publish::to((0..10_000).collect::<Vec<_>>()));
    let sent = rig.transmit();
    assert_eq!(sent.len(), 2);
    rig.all_sent(&sent[0]);
    rig.machine.handle_down(rig.now, &retry());
    assert!(rig.settled().is_empty(), "the rest of the list is still to go");
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    let sent: Vec<_> = rig.transmit();
    assert_eq!(sent.iter().map(|s| s.part).collect::<Vec<_>>(), [Some((1, 2, 3))]);
    rig.all_sent(&sent[0]);
    let receipt = rig.one().expect("served in part");
    assert_eq!((receipt.sent, receipt.unknown.len()), (4096 + 1808, 4096));
}

#[test]
fn level_none_is_settled_by_the_write_and_a_late_refusal_is_told() {
    let mut rig = Rig::open(1);
    let none = || Publish::to([1]).level(ReceiptLevel::None);
    for _ in 0..3 {
        rig.order(none());
    }
    let sent = rig.transmit();
    assert_eq!(sent.len(), 3, "nothing waits for a receipt, so no window holds them");
    assert!(sent.iter().all(|s| s.level == Level::NONE));
    assert!(rig.settled().is_empty() && !rig.machine.is_settled());
    rig.machine.handle_written();
    assert_eq!(rig.settled().len(), 3);
    let code = ErrorCode::NOT_READY;
    rig.receipt(WireReceipt { sequence: 2, code, ..WireReceipt::default() });
    let event = rig.machine.poll_event();
    assert!(matches!(event, Some(ProducerEvent::Refused { sequence: 2, code: c }) if c == code));

    rig.order(none());
    rig.transmit();
    rig.machine.handle_down(rig.now, &retry());
    assert_eq!(rig.one().expect("in doubt").unknown, [1], "it may have been half written");
}

#[test]
fn refusals() {
    let mut rig = Rig::open(100);
    rig.order(Publish::to([1]));
    rig.transmit();
    let code_ = ErrorCode::NOT_PERMITTED;
    rig.receipt(WireReceipt { sequence: 1, code: code_, ..WireReceipt::default() });
    assert_eq!(code(&rig.one()), Some(code_));

    // One part of two: the other was served, so this is no error but names who was not.
    rig.order(Publish::to((0..5000).collect::<Vec<_>>()));
    let sent = rig.transmit();
    rig.all_sent(&sent[0]);
    let code_ = ErrorCode::OVERLOADED;
    rig.receipt(WireReceipt { sequence: 3, code: code_, ..WireReceipt::default() });
    let receipt = rig.one().expect("served in part");
    assert_eq!((receipt.sent, receipt.dropped_count()), (4096, 904));
    assert_eq!(receipt.dropped[0].cause, code_);
}

#[test]
fn the_brokers_credit_and_payload_limit_hold_for_its_link() {
    let mut rig = Rig::new(100);
    rig.machine.handle_open(rig.now, &welcomed(2, 10));
    rig.order(Publish::to([1]).payload(vec![0; 11]));
    for _ in 0..5 {
        rig.order(Publish::to([1]));
    }
    assert_eq!(rig.transmit().len(), 2);
    let error = rig.one().expect_err("too large for this broker");
    assert_eq!(error.to_string(), "payload of 11 bytes, the limit is 10");
    rig.machine.handle_down(rig.now, &retry());
    rig.machine.handle_open(rig.now, &welcomed(0, 10));
    assert_eq!(rig.transmit().len(), 3, "another broker, another credit");
}

#[test]
fn the_wait_in_the_queue_counts_against_ttl() {
    let mut rig = Rig::new(100);
    let publish = || Publish::to([1]).ttl(Duration::from_millis(500));
    rig.order(publish());
    rig.now += Duration::from_millis(300);
    rig.order(publish());
    rig.now += Duration::from_millis(201);
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    let sent = rig.transmit();
    assert_eq!(sent.iter().map(|s| s.ttl_ms).collect::<Vec<_>>(), [299]);
    assert_eq!(code(&rig.one()), Some(ErrorCode::EXPIRED));
}

#[test]
fn a_draining_broker_gets_nothing_new_and_is_left_when_it_has_answered() {
    let mut rig = Rig::open(100);
    rig.order(Publish::to([1]));
    let sent = rig.transmit();
    rig.order(Publish::to([2]));
    rig.machine.handle_drain();
    assert!(rig.transmit().is_empty());
    assert!(!rig.machine.is_settled());
    rig.all_sent(&sent[0]);
    assert!(rig.machine.is_settled());
    rig.machine.handle_down(rig.now, &retry());
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    assert_eq!(rig.transmit().len(), 1);
}

#[test]
fn after_the_end_every_publish_fails_at_once() {
    let mut rig = Rig::new(100);
    rig.order(Publish::to([1]));
    let error = LinkError::new(LinkErrorKind::Refused(ErrorCode::BAD_CREDENTIAL), &"b:1".into());
    rig.machine.handle_down(rig.now, &Ending::Final(error));
    rig.order(Publish::to([2]));
    let settled = rig.settled();
    assert_eq!(settled.len(), 2);
    for (_, outcome) in settled {
        assert!(matches!(outcome, Err(PublishError::Closed(Some(_)))), "{outcome:?}");
    }
}

#[test]
fn a_receipt_for_nothing_ends_the_link() {
    for (sequence, code) in [(1, ErrorCode(0)), (9, ErrorCode(0)), (9, ErrorCode::OVERLOADED)] {
        let mut rig = Rig::open(100);
        rig.order(Publish::to([1]));
        let sent = rig.transmit();
        rig.all_sent(&sent[0]);
        let stage = Level::ROUTED;
        let receipt = WireReceipt { last: true, stage, sequence, code, ..WireReceipt::default() };
        let error =
            rig.machine.handle_frame(rig.now, &Frame::Receipt(receipt), &[]).expect_err("nothing");
        assert_eq!(error.code, ErrorCode::UNEXPECTED_FRAME);
    }
}

/// What can happen to a machine.
#[derive(Clone, Debug)]
enum Happening {
    Order { targets: usize, none: bool },
    Transmit,
    Written,
    Answer { which: prop::sample::Index, refuse: bool },
    Cut,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (prop_oneof![1usize..4, Just(4096), Just(9000)], any::<bool>())
            .prop_map(|(targets, none)| Happening::Order { targets, none }),
        3 => Just(Happening::Transmit),
        2 => Just(Happening::Written),
        4 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(which, refuse)| Happening::Answer { which, refuse }),
        1 => Just(Happening::Cut),
    ];
    prop::collection::vec(one, 0..40)
}

/// Every target of a settled publish has exactly one fate.
fn account(targets: usize, none: bool, outcome: &Outcome) {
    match outcome {
        Err(error) => assert!(matches!(error, PublishError::Refused { .. }), "{error}"),
        Ok(receipt) if none => {
            assert!([0, targets].contains(&receipt.unknown.len()) || targets > 4096);
        }
        Ok(receipt) => {
            let Receipt { sent, offline, unknown, filtered, .. } = receipt;
            let named = offline.len() + unknown.len() + filtered.len() + receipt.dropped_count();
            assert_eq!(*sent as usize + named, targets);
        }
    }
}

proptest! {
    #[test]
    fn each_publish_is_settled_once_and_each_target_has_one_fate(happenings in happenings()) {
        let mut rig = Rig::open(3);
        let mut asked: Vec<(usize, bool)> = Vec::new();
        let mut waiting: Vec<Sent> = Vec::new();
        let mut settled: Vec<(usize, Outcome)> = Vec::new();
        let mut last = 0;
        let take = |rig: &mut Rig, waiting: &mut Vec<Sent>, last: &mut u64| {
            for sent in rig.transmit() {
                assert_eq!(sent.sequence, *last + 1, "dense and rising");
                *last = sent.sequence;
                if sent.level == Level::ROUTED {
                    waiting.push(sent);
                }
            }
            assert!(waiting.len() <= 3, "no more than may be in flight");
        };
        for happening in happenings {
            match happening {
                Happening::Order { targets, none } => {
                    let level = if none { ReceiptLevel::None } else { ReceiptLevel::Routed };
                    rig.order(Publish::to((0..targets as u64).collect::<Vec<_>>()).level(level));
                    asked.push((targets, none));
                }
                Happening::Transmit => take(&mut rig, &mut waiting, &mut last),
                Happening::Written => rig.machine.handle_written(),
                Happening::Answer { which, refuse } if !waiting.is_empty() => {
                    let sent = waiting.remove(which.index(waiting.len()));
                    if refuse {
                        let code = ErrorCode::OVERLOADED;
                        let sequence = sent.sequence;
                        rig.receipt(WireReceipt { sequence, code, ..WireReceipt::default() });
                    } else {
                        rig.all_sent(&sent);
                    }
                }
                Happening::Answer { .. } => {}
                Happening::Cut => {
                    rig.machine.handle_down(rig.now, &retry());
                    waiting.clear();
                    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
                }
            }
            settled.extend(rig.settled());
        }
        while settled.len() < asked.len() {
            take(&mut rig, &mut waiting, &mut last);
            rig.machine.handle_written();
            std::mem::take(&mut waiting).iter().for_each(|sent| rig.all_sent(sent));
            let more = rig.settled();
            prop_assert!(!more.is_empty(), "nothing moves");
            settled.extend(more);
        }
        prop_assert!(rig.machine.is_settled());
        settled.sort_by_key(|(reply, _)| *reply);
        for (order, (reply, outcome)) in settled.iter().enumerate() {
            prop_assert_eq!(order, *reply);
            account(asked[order].0, asked[order].1, outcome);
        }
    }
}
