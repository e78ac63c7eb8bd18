//! Level delivered against a broker that has no room for another receipt.

use super::*;
use crate::producer::window::{AWAITED_BYTES_MAX, awaited_bytes};

fn delivered(uids: impl Into<Vec<u64>>) -> Publish {
    Publish::to(uids).level(ReceiptLevel::Delivered)
}

fn refuse(rig: &mut Rig, sequence: u64, code: ErrorCode) {
    rig.receipt(WireReceipt { sequence, code, ..WireReceipt::default() });
}

fn all_reached(rig: &mut Rig, sent: &Sent) {
    let count = u32::try_from(sent.targets.len()).expect("fits");
    let (stage, sequence) = (Level::DELIVERED, sent.sequence);
    let receipt = WireReceipt { last: true, stage, sequence, sent: count, ..Default::default() };
    rig.machine.handle_frame(rig.now, &Frame::Receipt(receipt), &[]).expect("is waited for");
}

#[test]
fn rep_8_what_waits_stays_below_what_a_broker_keeps_for_small_messages_too() {
    for targets in [1, 3, 100, 4096] {
        let mut rig = Rig::open(1 << 20);
        let uids: Vec<u64> = (0..targets as u64).collect();
        (0..12_000).for_each(|_| {
            rig.order(delivered(uids.clone()));
        });
        let sent = rig.transmit().len();
        assert_eq!(sent, AWAITED_BYTES_MAX.div_ceil(awaited_bytes(targets)));
        refuse(&mut rig, 1, ErrorCode::NOT_PERMITTED);
        assert_eq!(rig.transmit().len(), 1, "and one more for each that is answered");
    }
}

#[test]
fn rep_8_a_part_that_had_no_room_is_sent_again_later_before_the_rest() {
    let mut rig = Rig::open(2);
    rig.order(delivered((0..10_000).collect::<Vec<_>>()));
    let sent = rig.transmit();
    assert_eq!(sent.len(), 2);
    refuse(&mut rig, 2, ErrorCode::OVERLOADED);
    assert!(rig.transmit().is_empty(), "not at once");
    rig.now = rig.machine.deadline().expect("is asked again");
    rig.machine.handle_timeout(rig.now);
    let again = rig.transmit();
    let shape: Vec<_> = again.iter().map(|s| (s.sequence, s.resend, s.part)).collect();
    assert_eq!(shape, [(2, true, Some((1, 1, 3)))]);
    assert_eq!(again[0].targets, sent[1].targets);
    all_reached(&mut rig, &sent[0]);
    all_reached(&mut rig, &again[0]);
    let last = rig.transmit();
    all_reached(&mut rig, &last[0]);
    let receipt = rig.one().expect("served");
    assert_eq!((receipt.sent, receipt.dropped_count(), receipt.in_doubt), (10_000, 0, false));
}

#[test]
fn a_broker_that_never_has_room_is_given_up_in_time() {
    let mut rig = Rig::open(100);
    rig.order(delivered([1]));
    let since = rig.now;
    while rig.now < since + Duration::from_secs(31)
        && let Some(at) = rig.machine.deadline()
    {
        for sent in rig.transmit() {
            refuse(&mut rig, sent.sequence, ErrorCode::OVERLOADED);
        }
        rig.now = at.max(rig.now + Duration::from_millis(1));
        rig.machine.handle_timeout(rig.now);
    }
    let error = rig.one().expect_err("not sent in time");
    assert!(matches!(error, PublishError::TimedOut(_)), "{error}");
    assert_eq!(rig.now - since, Duration::from_secs(30));
}

#[test]
fn a_refusal_does_not_hide_that_the_broker_drains() {
    let mut rig = Rig::open(100);
    rig.order(delivered([1]));
    rig.transmit();
    rig.machine.handle_drain();
    refuse(&mut rig, 1, ErrorCode::NOT_READY);
    assert!(rig.machine.is_settled(), "what waits for another broker does not keep this link");
}
