//! Changes of tags: the same way as publishes of level delivered, but that each copy has a sequence
//! of its own.

use std::time::Duration;

use waybill_wire::code::{ErrorCode, Fate, Kind, Level, Op};
use waybill_wire::frame::{ErrorFrame, FateSet, Receipt as WireReceipt};
use waybill_wire::{Deframer, Frame};

use super::{Order, Rig, code, retry, welcomed};
use crate::machine::Machine;
use crate::producer::request::Request;
use crate::publish::Publish;
use crate::tags::{TagChange, Tagging};

/// What matters of a TAG on the wire; of a PUBLISH, its sequence alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    sequence: u64,
    uids: Vec<u64>,
    changes: Vec<(Op, String)>,
}

impl Rig {
    fn tag(&mut self, uids: impl Into<Vec<u64>>) -> usize {
        let changes = vec![TagChange::add("vip"), TagChange::remove("trial")];
        let mut request = Request::Tags(Tagging { namespace: 7, uids: uids.into(), changes });
        request.name_each_once();
        let reply = self.orders;
        self.orders += 1;
        self.machine.handle_command(self.now, vec![Order { request, reply, wall: None }]);
        reply
    }

    fn said(&mut self) -> Vec<Said> {
        let (mut out, mut deframer, mut said) = (Vec::new(), Deframer::new(), Vec::new());
        loop {
            let mut write = Vec::new();
            self.machine.transmit(self.now, &mut write);
            if write.is_empty() {
                break;
            }
            out.append(&mut write);
        }
        let mut rest = &out[..];
        loop {
            let step = deframer.next(rest).expect("well framed");
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { return said };
            said.push(match raw.decode().expect("well formed") {
                Frame::Tag(tag) => {
                    assert_eq!((tag.namespace, tag.origin), (7, 0));
                    let changes = tag.changes.iter().map(|it| (it.op, it.tag.to_string()));
                    let (uids, changes) = (tag.uids.iter().collect(), changes.collect());
                    Said { sequence: tag.sequence, uids, changes }
                }
                Frame::Publish(message) => {
                    Said { sequence: message.sequence, uids: Vec::new(), changes: Vec::new() }
                }
                other => panic!("{other:?}"),
            });
        }
    }

    /// The final receipt of a TAG: all of these were reached.
    fn tagged(&mut self, sequence: u64, sent: u32) {
        self.tag_receipt(WireReceipt { sequence, sent, gateways: 1, ..WireReceipt::default() });
    }

    fn tag_receipt(&mut self, receipt: WireReceipt<'_>) {
        let stage = if receipt.code == ErrorCode(0) { Level::DELIVERED } else { Level::ROUTED };
        let receipt = Frame::Receipt(WireReceipt { last: true, stage, ..receipt });
        self.machine.handle_frame(self.now, &receipt, &[]).expect("belongs to a TAG");
    }

    fn refuse(&mut self, ref_kind: Kind, reference: u64, code: ErrorCode) {
        let error = ErrorFrame { code, ref_kind, reference, ..ErrorFrame::default() };
        self.machine.handle_refusal(&error);
    }
}

fn sequences(said: &[Said]) -> Vec<u64> {
    said.iter().map(|said| said.sequence).collect()
}

/// TAG-12, DEL-6: one count of sequences for both; PUB-1: rising.
#[test]
fn tags_and_publishes_share_their_sequences() {
    let mut rig = Rig::open(100);
    rig.order(Publish::to([1]));
    rig.tag([1001, 1002]);
    rig.order(Publish::to([1]));
    let said = rig.said();
    assert_eq!(sequences(&said), [1, 2, 3]);
    let changes = [(Op::ADD, "vip".to_string()), (Op::REMOVE, "trial".to_string())];
    assert_eq!((&said[1].uids[..], &said[1].changes[..]), (&[1001, 1002][..], &changes[..]));
    rig.tagged(2, 2);
    let receipt = rig.one().expect("in effect");
    assert_eq!((receipt.sequence, receipt.sent, receipt.gateways), (2, 2, 1));
}

/// TAG-17: what receipts of parts say is summed, and named.
#[test]
fn a_long_list_is_cut_and_its_receipts_are_one() {
    let mut rig = Rig::open(100);
    let uids: Vec<u64> = (0..10_000).chain([5, 9_999]).collect();
    rig.tag(uids);
    let said = rig.said();
    let lengths: Vec<usize> = said.iter().map(|said| said.uids.len()).collect();
    assert_eq!((sequences(&said), lengths), (vec![1, 2, 3], vec![4096, 4096, 1808]));
    let sets = [
        FateSet { fate: Fate::OFFLINE, cause: ErrorCode(0), uids: (&[7]).into() },
        FateSet { fate: Fate::DROPPED, cause: ErrorCode::CONNECTION_TAGS, uids: (&[8]).into() },
    ];
    rig.tagged(3, 1808);
    rig.tagged(2, 4096);
    assert!(rig.settled().is_empty(), "a part is not answered");
    rig.tag_receipt(WireReceipt {
        sequence: 1,
        sent: 4094,
        offline: 1,
        dropped: 1,
        gateways: 2,
        fate_sets: (&sets).into(),
        ..WireReceipt::default()
    });
    let receipt = rig.one().expect("in effect");
    assert_eq!((receipt.sequence, receipt.sent, receipt.gateways), (1, 9_998, 4));
    assert_eq!((&receipt.offline[..], receipt.dropped_count()), (&[7][..], 1));
    assert_eq!(receipt.dropped[0].cause, ErrorCode::CONNECTION_TAGS);
}

/// TAG-12: there is no RESEND; who does not know sends it anew, with a new sequence.
#[test]
fn what_flew_goes_anew_before_anything_new() {
    let mut rig = Rig::resending(100, Duration::from_secs(5));
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    rig.tag([1]);
    rig.tag([2]);
    assert_eq!(sequences(&rig.said()), [1, 2]);
    rig.machine.handle_down(rig.now, &retry());
    rig.order(Publish::to([1]));
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    let said = rig.said();
    assert_eq!(sequences(&said), [3, 4, 5]);
    assert_eq!((&said[0].uids[..], &said[1].uids[..]), (&[1][..], &[2][..]));
    rig.tagged(4, 1);
    rig.tagged(3, 1);
    let settled = rig.settled();
    assert_eq!(settled.iter().map(|(reply, _)| *reply).collect::<Vec<_>>(), [1, 0]);
    for (_, outcome) in settled {
        let receipt = outcome.expect("in effect");
        assert!(receipt.sent == 1 && receipt.resent && !receipt.in_doubt);
    }
}

/// PUB-5.
#[test]
fn what_finds_no_link_in_time_is_in_doubt() {
    let mut rig = Rig::resending(100, Duration::from_secs(5));
    rig.machine.handle_open(rig.now, &welcomed(0, 1 << 20));
    rig.tag([1, 2]);
    rig.said();
    rig.machine.handle_down(rig.now, &retry());
    rig.now += Duration::from_secs(5);
    rig.machine.handle_timeout(rig.now);
    let receipt = rig.one().expect("a receipt, if only of doubt");
    assert!(receipt.in_doubt);
    assert_eq!((receipt.sent, &receipt.unknown[..]), (0, &[1, 2][..]));
}

/// TAG-12, SES-7: a broker without tags says so by an ERROR, which names the TAG.
#[test]
fn a_broker_without_tags_refuses_by_an_error() {
    let mut rig = Rig::open(100);
    rig.tag([1]);
    rig.order(Publish::to([1]));
    rig.said();
    rig.refuse(Kind::PUBLISH, 1, ErrorCode::NOT_SUPPORTED);
    rig.refuse(Kind::TAG, 2, ErrorCode::NOT_SUPPORTED);
    rig.refuse(Kind::TAG, 9, ErrorCode::NOT_SUPPORTED);
    assert!(rig.settled().is_empty(), "none of these is about the TAG that flies");
    rig.refuse(Kind::TAG, 1, ErrorCode::NOT_SUPPORTED);
    assert_eq!(code(&rig.one()), Some(ErrorCode::NOT_SUPPORTED));
}

/// PUB-3, REP-8, SEC-4, as for a PUBLISH.
#[test]
fn a_refusal_for_now_is_asked_again_and_one_for_good_is_told() {
    let mut rig = Rig::open(100);
    rig.tag([1]);
    assert_eq!(sequences(&rig.said()), [1]);
    let refused = |sequence, code| WireReceipt { sequence, code, ..WireReceipt::default() };
    rig.tag_receipt(refused(1, ErrorCode::OVERLOADED));
    assert!(rig.said().is_empty(), "not at once");
    rig.now += Duration::from_secs(1);
    rig.machine.handle_timeout(rig.now);
    assert_eq!(sequences(&rig.said()), [2]);
    rig.tag_receipt(refused(2, ErrorCode::NOT_PERMITTED));
    assert_eq!(code(&rig.one()), Some(ErrorCode::NOT_PERMITTED));
}
