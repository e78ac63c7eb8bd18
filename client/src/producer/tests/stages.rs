//! Receipts in two stages, and lists of any length.

use std::time::Duration;

use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Fate, Level};
use waybill_wire::frame::{FateSet, Receipt as WireReceipt};

use super::{Rig, retry, welcomed};
use crate::machine::Machine;
use crate::publish::{Publish, ReceiptLevel};

impl Rig {
    /// A receipt that says of itself whether it is the last.
    fn stage(&mut self, receipt: WireReceipt<'_>) {
        let frame = Frame::Receipt(receipt);
        self.machine.handle_frame(self.now, &frame, &[]).expect("belongs to a publish");
    }

    /// Of users 1 to 4, one was sent and the others have a fate each.
    fn routed_in_part(&mut self) {
        let set = |fate, cause, uids| FateSet { fate, cause, uids };
        let sets = [
            set(Fate::OFFLINE, ErrorCode(0), (&[2]).into()),
            set(Fate::FILTERED, ErrorCode(0), (&[4]).into()),
            set(Fate::DROPPED, ErrorCode::OUTBOX_FULL, (&[3]).into()),
        ];
        self.stage(WireReceipt {
            stage: Level::ROUTED,
            sequence: 1,
            sent: 1,
            offline: 1,
            filtered: 1,
            dropped: 1,
            gateways: 1,
            fate_sets: (&sets).into(),
            ..WireReceipt::default()
        });
    }
}

fn delivered(uids: impl Into<Vec<u64>>) -> Publish {
    Publish::to(uids).level(ReceiptLevel::Delivered)
}

/// [PUB-2]
#[test]
fn a_routed_receipt_does_not_settle_a_delivered_publish() {
    let mut rig = Rig::open(10);
    rig.order(delivered([1, 2]));
    let sent = rig.transmit();
    assert_eq!(sent[0].level, Level::DELIVERED);
    let (stage, sequence) = (Level::ROUTED, 1);
    rig.stage(WireReceipt { stage, sequence, sent: 2, gateways: 1, ..WireReceipt::default() });
    assert!(rig.settled().is_empty() && !rig.machine.is_settled());
    let sets = [FateSet { fate: Fate::DROPPED, cause: ErrorCode::EXPIRED, uids: (&[2]).into() }];
    rig.stage(WireReceipt {
        last: true,
        stage: Level::DELIVERED,
        sequence,
        sent: 1,
        dropped: 1,
        gateways: 1,
        fate_sets: (&sets).into(),
        ..WireReceipt::default()
    });
    let receipt = rig.one().expect("served");
    assert_eq!((receipt.stage, receipt.sent), (ReceiptLevel::Delivered, 1));
    assert_eq!(receipt.dropped[0].uids, [2]);
}

/// [PUB-5]: what stage routed settled stays settled when the link dies before stage delivered.
#[test]
fn a_link_that_dies_between_the_stages_leaves_only_whom_it_was_sent_to_in_doubt() {
    let mut rig = Rig::open(10);
    rig.order(delivered([1, 2, 3, 4]).except([4]));
    rig.transmit();
    rig.routed_in_part();
    rig.machine.handle_down(rig.now, &retry());
    let receipt = rig.one().expect("in doubt is no refusal");
    assert_eq!((&receipt.unknown[..], receipt.unknown_count), (&[1][..], 1));
    assert_eq!((&receipt.offline[..], &receipt.filtered[..]), (&[2][..], &[4][..]));
    assert_eq!(
        (receipt.dropped[0].cause, &receipt.dropped[0].uids[..]),
        (ErrorCode::OUTBOX_FULL, &[3][..])
    );
    assert_eq!((receipt.sent, receipt.in_doubt), (0, true));
}

#[test]
fn a_copy_that_went_again_may_have_reached_whom_the_first_did_not() {
    let mut rig = Rig::resending(10, Duration::from_secs(5));
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    rig.order(delivered([1, 2, 3, 4]).except([4]));
    rig.transmit();
    rig.routed_in_part();
    rig.machine.handle_down(rig.now, &retry());
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    assert!(rig.transmit()[0].resend);
    rig.now += Duration::from_secs(5);
    rig.machine.handle_down(rig.now, &retry());
    let receipt = rig.one().expect("in doubt is no refusal");
    assert_eq!((receipt.unknown, receipt.offline), (vec![1, 2, 3, 4], vec![]));
}

#[test]
fn final_receipts_may_come_in_any_order_and_early() {
    let mut rig = Rig::open(10);
    rig.order(delivered([1]));
    rig.order(delivered([2]));
    rig.transmit();
    let (last, stage) = (true, Level::DELIVERED);
    for sequence in [2, 1] {
        let receipt = WireReceipt { last, stage, sequence, sent: 1, ..WireReceipt::default() };
        rig.stage(receipt);
        assert_eq!(rig.one().expect("served").sequence, sequence);
    }
    let (last, stage) = (true, Level::ROUTED);
    rig.order(delivered([3]));
    rig.transmit();
    rig.stage(WireReceipt { last, stage, sequence: 3, sent: 1, ..WireReceipt::default() });
    assert_eq!(rig.one().expect("routed").stage, ReceiptLevel::Routed, "no reports here");
}

#[test]
fn users_counted_and_not_named_are_counted() {
    let mut rig = Rig::open(10);
    rig.order(Publish::everyone().level(ReceiptLevel::Delivered));
    rig.transmit();
    rig.stage(WireReceipt {
        last: true,
        stage: Level::DELIVERED,
        sequence: 1,
        sent: 90,
        dropped: 4,
        filtered: 3,
        offline: 2,
        unknown: 1,
        ..WireReceipt::default()
    });
    let receipt = rig.one().expect("served");
    assert_eq!((receipt.sent, receipt.dropped_count(), receipt.filtered_count()), (90, 4, 3));
    assert_eq!((receipt.offline_count(), receipt.unknown_count), (2, 1));
}

/// A hundred thousand and more in one call: no more under way than the windows allow.
#[test]
fn a_list_of_any_length_is_never_under_way_as_a_whole() {
    let mut rig = Rig::open(16_384);
    let count = 1_000_000;
    rig.order(delivered((0..count).collect::<Vec<_>>()));
    let (mut flying, mut most) = (std::collections::VecDeque::new(), 0);
    loop {
        flying.extend(rig.transmit());
        most = most.max(flying.iter().map(|sent| sent.targets.len()).sum());
        let Some(sent) = flying.pop_front() else { break };
        let sent_count = u32::try_from(sent.targets.len()).expect("fits");
        rig.stage(WireReceipt {
            last: true,
            stage: Level::DELIVERED,
            sequence: sent.sequence,
            sent: sent_count,
            ..WireReceipt::default()
        });
    }
    assert!(most <= (1 << 18) + 4096, "{most}");
    let receipt = rig.one().expect("served");
    assert_eq!(u64::from(receipt.sent), count);
}
