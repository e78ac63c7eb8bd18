//! `waybill tag`, and `waybill pub --selector`: what goes to a broker, what is told of its answers,
//! and how a mistake is shown.

use serde_json::json;
use waybill_wire::code::{ErrorCode, Fate, Kind, Level, Op};
use waybill_wire::frame::{ErrorFrame, FateSet, Frame, Receipt, Tag};

use crate::scripted::{broker, never_answers};
use crate::support::Place;

/// Users that this broker does not know.
const OFFLINE: &[u64] = &[1003];
/// Users that have no room for another tag.
const FULL: &[u64] = &[1004];

fn receipt(tag: &Tag<'_>) -> Vec<u8> {
    let changes: Vec<(Op, &str)> = tag.changes.iter().map(|it| (it.op, it.tag)).collect();
    assert_eq!(changes, [(Op::REMOVE, "trial"), (Op::ADD, "vip"), (Op::ADD, "two words")]);
    assert_eq!(tag.namespace, 7);
    let of = |known: &[u64]| tag.uids.iter().filter(|uid| known.contains(uid)).collect::<Vec<_>>();
    let (offline, full) = (of(OFFLINE), of(FULL));
    let sets = [
        FateSet { fate: Fate::OFFLINE, cause: ErrorCode(0), uids: (&offline).into() },
        FateSet { fate: Fate::DROPPED, cause: ErrorCode::CONNECTION_TAGS, uids: (&full).into() },
    ];
    let sets: Vec<_> = sets.into_iter().filter(|set| !set.uids.is_empty()).collect();
    let count = |uids: &[u64]| u32::try_from(uids.len()).unwrap();
    let (offline, dropped) = (count(&offline), count(&full));
    let receipt = Receipt {
        last: true,
        stage: Level::DELIVERED,
        sequence: tag.sequence,
        sent: u32::try_from(tag.uids.len()).unwrap() - offline - dropped,
        offline,
        dropped,
        gateways: 1,
        fate_sets: (&sets).into(),
        ..Receipt::default()
    };
    let mut out = Vec::new();
    receipt.encode(&mut out).unwrap();
    out
}

/// TAG-17: what the receipt counts is told.
#[test]
fn a_change_of_tags_is_told_by_its_receipt() {
    let place = Place::new();
    let address = broker(|frame| match frame {
        Frame::Tag(tag) => (receipt(tag), true),
        other => never_answers(other),
    });
    let tag = ["tag", "--namespace", "7", "--broker", &address, "--add", "vip"];
    let tag = [&tag[..], &["--remove", "trial", "--add", "two words"]].concat();
    let run = |more: &[&str]| place.run(&[&tag[..], more].concat());
    let ended = run(&["--uid", "1001,1002,1003"]);
    ended.check(0, &[]);
    assert_eq!(ended.stdout, "changed 2, gateways 1, offline: 1003\n");
    let file = place.file("uids", "1001\n1004\n");
    let ended = run(&["--json", "--uids-file", &file]);
    ended.check(1, &[]);
    let shown = &ended.json()[0];
    assert_eq!((&shown["sent"], &shown["stage"]), (&json!(1), &json!("delivered")));
    assert_eq!(shown["dropped"], json!([{ "cause": "connection_tags", "uids": ["1004"] }]));
}

/// TAG-12.
#[test]
fn a_broker_without_tags_says_so() {
    let place = Place::new();
    let address = broker(|frame| {
        let mut out = Vec::new();
        match frame {
            Frame::Tag(tag) => ErrorFrame {
                fatal: false,
                code: ErrorCode::NOT_SUPPORTED,
                ref_kind: Kind::TAG,
                reference: tag.sequence,
                retry_after_ms: 0,
                detail: "TAG does not run here",
            }
            .encode(&mut out),
            other => return never_answers(other),
        }
        (out, true)
    });
    let tag = ["tag", "--uid", "1001", "--add", "vip", "--broker", &address];
    let words = ["the broker does not run tags: no tag was changed", "help:", "--broker"];
    place.run(&tag).check(1, &words);
    let ended = place.run(&[&["--json"], &tag[..]].concat());
    ended.check(1, &words);
    assert_eq!(ended.json()[0]["code"], "not_supported");
}

#[test]
fn a_broker_that_never_answers_leaves_it_in_doubt() {
    let place = Place::new();
    let address = broker(never_answers);
    let tag = ["tag", "--uid", "1", "--add", "a", "--broker", &address, "--timeout", "50ms"];
    place.run(&tag).check(1, &["no receipt came within 50ms", "may or may not", "give it again"]);
}

/// What `pub` sends is the selector, with a list or alone.
#[test]
fn a_selector_goes_with_the_message() {
    let place = Place::new();
    let address = broker(|frame| {
        let Frame::Publish(message) = frame else { return never_answers(frame) };
        let selector = message.selector.expect("was given");
        assert_eq!(selector.to_string(), "group:42 & !platform:ios");
        assert!(!message.everyone);
        let mut out = Vec::new();
        let receipt = Receipt {
            last: true,
            stage: Level::ROUTED,
            sequence: message.sequence,
            sent: u32::try_from(message.targets.len()).unwrap(),
            gateways: 3,
            ..Receipt::default()
        };
        receipt.encode(&mut out).unwrap();
        (out, true)
    });
    let publish = ["pub", "--broker", &address, "--selector", "group:42&!(platform:ios)"];
    let ended = place.run(&[&publish[..], &["hello"]].concat());
    ended.check(0, &[]);
    assert_eq!(ended.stdout, "to everyone who matches, gateways 3\n");
    let ended = place.run(&[&publish[..], &["--uid", "1,2", "hello"]].concat());
    assert_eq!(ended.stdout, "sent 2, gateways 3\n");
    let lines =
        b"{\"uids\":[1],\"data\":\"x\"}\n{\"selector\":\"group:42 & !platform:ios\",\"data\":\"\"}";
    let ended = place.run_with(&[&publish[..], &["--lines", "-"]].concat(), lines);
    assert_eq!(ended.stdout, "sent 1, gateways 3\nto everyone who matches, gateways 3\n");
}

/// SEL-1, SES-7.
#[test]
fn a_broker_without_selectors_says_so() {
    let place = Place::new();
    let address = broker(|frame| {
        let Frame::Publish(message) = frame else { return never_answers(frame) };
        let (code, sequence) = (ErrorCode::NOT_SUPPORTED, message.sequence);
        let mut out = Vec::new();
        let (last, stage) = (true, Level::ROUTED);
        Receipt { last, stage, code, sequence, ..Receipt::default() }.encode(&mut out).unwrap();
        (out, true)
    });
    let words = ["not_supported", "does not run", "--selector", "--broker"];
    place.run(&["pub", "--selector", "vip", "--broker", &address, "hello"]).check(1, &words);
}

/// SEL-15: the position is where the mark stands.
#[test]
fn a_mistake_in_a_selector_is_pointed_at() {
    let place = Place::new();
    let cases = [
        ("group:42 geo:sh", "an operator, & or |, must stand between two terms, at byte 9", 9),
        ("(vip | ios", "an operator or a closing parenthesis must stand here, at byte 10", 10),
        ("vip & *", "a term must stand here, at byte 6", 6),
    ];
    for (text, words, at) in cases {
        let ended = place.run(&["pub", "--selector", text, "hello"]);
        ended.check(2, &[&format!("--selector: {words}"), "help:"]);
        let shown = format!("\n  {text}\n  {}^\n", " ".repeat(at));
        assert!(ended.stderr.contains(&shown), "{}", ended.stderr);
    }
}
