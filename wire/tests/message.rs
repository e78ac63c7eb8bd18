//! Sizes, narrowing and the refusals a caller sees.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use waybill_wire::code::{ErrorCode, Kind, Mode};
use waybill_wire::frame::{ErrorFrame, FateSet, Hello, Receipt};
use waybill_wire::message::{Extension, Sender};
use waybill_wire::{Frame, Message, MessageHead, Selector};

fn publish(head: &MessageHead<'_>, targets: &[u64], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    head.encode_publish(targets, payload, &mut out).unwrap();
    out
}

fn message(bytes: &[u8]) -> Message<'_> {
    match Frame::decode(bytes).unwrap() {
        Frame::Publish(message) | Frame::Deliver(message) | Frame::Uplink(message) => message,
        other => panic!("{other:?}"),
    }
}

fn head() -> MessageHead<'static> {
    MessageHead { sequence: 1, namespace: 7, ..MessageHead::default() }
}

/// MSG-3.
#[test]
fn one_uid_takes_40_bytes_and_48_to_a_gateway() {
    let bytes = publish(&head(), &[1001], b"");
    assert_eq!(bytes.len(), 40);
    let mut out = Vec::new();
    message(&bytes).deliver_narrowed(9, &[1001], 0, &mut out);
    assert_eq!(out.len(), 48);
    assert_eq!(message(&bytes).narrowed_header_bytes(1), 48);
}

/// TGT-3, TGT-4.
#[test]
fn narrowing_keeps_everything_but_the_list_and_except() {
    let extensions = [Extension { extension_type: 5, data: b"abc" }];
    let labels = ["order.paid", "é"];
    let full = MessageHead {
        resend: true,
        except_self: true,
        mode: Mode::AUTO,
        hops: 3,
        ttl_ms: 900,
        trace: Some(b"0123456789abcdef"),
        sender: Some(Sender { uid: 5, connection: 6 }),
        labels: (&labels).into(),
        except: (&[8, 9]).into(),
        extensions: (&extensions).into(),
        ..head()
    };
    let bytes = publish(&full, &[1, 2, 3], b"payload");
    let mut out = Vec::new();
    message(&bytes).deliver_narrowed(77, &[3, 1], 850, &mut out);
    let deliver = message(&out);
    let expected = MessageHead { origin: Some(77), ttl_ms: 850, except: (&[]).into(), ..full };
    assert_eq!(deliver.head(), expected);
    assert!(deliver.targets.iter().eq([3, 1]));
    assert_eq!((deliver.kind, deliver.payload), (Kind::DELIVER, &b"payload"[..]));
}

/// TGT-5.
#[test]
fn a_broadcast_goes_on_whole() {
    let everyone = MessageHead { everyone: true, except: (&[8]).into(), ..head() };
    let bytes = publish(&everyone, &[], b"x");
    let mut out = Vec::new();
    message(&bytes).deliver_whole(77, 0, &mut out);
    assert_eq!(message(&out).head(), MessageHead { origin: Some(77), ..everyone });
    let mut header = Vec::new();
    message(&bytes).deliver_whole_header(77, 0, &mut header);
    assert_eq!([&header[..], b"x"].concat(), out, "header and payload apart");
}

#[test]
fn nobody_gets_nothing() {
    let selector = Selector::check(b"\x01\x01a").ok();
    let selected = MessageHead { selector, ..head() };
    let bytes = publish(&selected, &[1], b"x");
    let mut out = Vec::new();
    message(&bytes).deliver_narrowed(77, &[], 0, &mut out);
    message(&bytes).deliver_narrowed_header(77, &[], 0, &mut out);
    assert!(out.is_empty(), "an empty list with a selector would widen the audience");
}

/// TGT-3, TGT-5.
#[test]
fn a_selector_goes_on_as_it_came() {
    let bytes = waybill_wire::selector::parse("vip & !(geo:sh | geo:bj)").unwrap();
    let selector = Selector::check(&bytes).ok();
    let bytes = publish(&MessageHead { selector, ..head() }, &[1, 2, 3], b"x");
    let (mut narrowed, mut whole) = (Vec::new(), Vec::new());
    message(&bytes).deliver_narrowed(77, &[2], 0, &mut narrowed);
    assert_eq!((message(&narrowed).selector, message(&narrowed).targets.len()), (selector, 1));
    message(&bytes).deliver_whole(77, 0, &mut whole);
    assert_eq!((message(&whole).selector, message(&whole).targets.len()), (selector, 3));
}

/// UP-1.
#[test]
fn an_uplink_goes_on_with_its_origin() {
    let from = MessageHead { sender: Some(Sender { uid: 5, connection: 6 }), ..head() };
    let mut bytes = Vec::new();
    from.encode_uplink(b"hi", &mut bytes).unwrap();
    let mut out = Vec::new();
    message(&bytes).uplink_forward(42, &mut out);
    assert_eq!(message(&out).head(), MessageHead { origin: Some(42), ..from });
    let mut again = Vec::new();
    message(&out).uplink_forward(43, &mut again);
    assert_eq!(message(&again).origin, Some(43), "an origin is replaced, not added");
}

/// The sentence of a refusal.
fn refusal(head: &MessageHead<'_>, targets: &[u64], payload: &[u8]) -> String {
    let mut out = b"before".to_vec();
    let refused = head.encode_publish(targets, payload, &mut out).unwrap_err();
    assert_eq!(out, b"before", "nothing is left of a refused frame");
    refused.to_string()
}

#[test]
fn refusals_name_the_field_its_value_and_the_limit() {
    let long = "x".repeat(300);
    let labels = [&long[..65]];
    let longer = [&long[..]];
    let labelled = |labels| MessageHead { labels, ..head() };
    let label =
        |length| format!("length of a label {length} is above label_bytes_max 64 [FRAME-9]");
    let cases = [
        (
            refusal(&head(), &[1; 5000], b""),
            "target_count 5000 is above targets_max 4096 [FRAME-9]",
        ),
        (
            refusal(&head(), &[1; 70_000], b""),
            "target_count 70000 is above targets_max 4096 [FRAME-9]",
        ),
        (refusal(&labelled((&labels).into()), &[1], b""), &label(65)),
        (refusal(&labelled((&longer).into()), &[1], b""), &label(300)),
        (
            refusal(&head(), &[1], &[0; 1_048_577]),
            "payload_len 1048577 is above payload_bytes_max 1048576 [FRAME-9]",
        ),
        (
            refusal(&head(), &[], b""),
            "audience, with target_count 0 must be given: EVERYONE, SELECTOR or at least one target [MSG-14]",
        ),
        (refusal(&MessageHead::default(), &[1], b""), "sequence 0 must not be 0 [MSG-4]"),
        (
            refusal(&MessageHead { hops: 16, ..head() }, &[1], b""),
            "hops 16 is above hops_max 15 [MSG-2]",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, format!("cannot encode PUBLISH: {expected}"));
    }
}

/// The longest message there can be is within `header_bytes_max`.
#[test]
fn the_longest_lists_fit() {
    let longest = "y".repeat(64);
    let labels = [&longest[..]; 16];
    let uids = [u64::MAX; 4096];
    let full = MessageHead { labels: (&labels).into(), except: (&uids).into(), ..head() };
    let bytes = publish(&full, &uids, b"");
    let found = message(&bytes);
    assert_eq!((found.targets.len(), found.except.len(), found.labels.len()), (4096, 4096, 16));
}

/// FRAME-9 puts the counters' rule last.
#[test]
fn sets_of_one_fate_share_its_counter() {
    let set =
        |cause| FateSet { fate: waybill_wire::code::Fate::DROPPED, cause, uids: (&[1, 2]).into() };
    let sets = [set(ErrorCode::EXPIRED), set(ErrorCode::OUTBOX_FULL)];
    let stage = waybill_wire::code::Level::ROUTED;
    let receipt =
        |dropped| Receipt { stage, dropped, fate_sets: (&sets).into(), ..Receipt::default() };
    assert!(receipt(4).encode(&mut Vec::new()).is_ok());
    let refused = receipt(3).encode(&mut Vec::new()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::BAD_VALUE);
}

/// ERR-6: an error is always sendable, and a credential is in no log.
#[test]
fn details_are_cut_and_credentials_are_not_shown() {
    let detail = "é".repeat(400);
    let mut out = Vec::new();
    let code = ErrorCode::OVERLOADED;
    ErrorFrame { code, detail: &detail, ..ErrorFrame::default() }.encode(&mut out);
    match Frame::decode(&out).unwrap() {
        Frame::Error(frame) => assert_eq!(frame.detail.len(), 512),
        other => panic!("{other:?}"),
    }
    let hello = Hello { credential: b"secret", ..Hello::default() };
    let shown = format!("{hello:?}");
    assert!(shown.contains("credential_len: 6") && !shown.contains("secret"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", b"secret")));
}
