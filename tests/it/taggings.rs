//! TAG at a broker: who gets it, in which order, and what its one receipt says (TAG-12 to TAG-17).
//! Gateways are played here; whole ones are in `cli/tests/process/tags.rs`.

use waybill_broker::BrokerConfig;
use waybill_wire::code::{ErrorCode, Fate, Kind, Level, Op, capability};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Barrier, FateSet, Report, Tag, TagChange, TagDelta, TagRecord};
use waybill_wire::message::MessageHead;
use waybill_wire::{Frame, Selector, selector};

use crate::receipts::gateway_offering;
use crate::support::{Line, Net, everywhere, simulated};
use crate::talk::{Producer, Receipt, encode, ends_with, fence, in_effect};

const CHANGES: [TagChange<'_>; 2] =
    [TagChange { op: Op::ADD, tag: "vip" }, TagChange { op: Op::REMOVE, tag: "geo:sh" }];

fn check(test: impl Fn(&mut Net)) {
    everywhere(&BrokerConfig::default(), test);
}

/// A gateway that agreed on tags, and not on reports.
fn gateway(net: &mut Net, incarnation: u64, uids: &[u64]) -> Line {
    gateway_offering(net, incarnation, uids, capability::TAGS)
}

fn encoded(sequence: u64, uids: &[u64]) -> Vec<u8> {
    let tag = Tag { sequence, uids: uids.into(), changes: (&CHANGES).into(), ..Tag::default() };
    encode(&Frame::Tag(tag))
}

/// Sends one; its length in bytes.
fn tag(net: &mut Net, producer: &mut Producer, uids: &[u64]) -> usize {
    producer.sequence += 1;
    let bytes = encoded(producer.sequence, uids);
    net.send(producer.line, &bytes);
    bytes.len()
}

/// The next frame of a gateway is a TAG: its sequence and users, and its length in bytes.
fn tagged(net: &mut Net, line: Line) -> (u64, Vec<u64>, usize) {
    let frame = net.frame(line).expect("a TAG");
    let Ok(Frame::Tag(tag)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    assert_eq!((tag.namespace, tag.origin), (0, 7), "TAG-13");
    assert_eq!(tag.changes.iter().collect::<Vec<_>>(), CHANGES, "TAG-13: all else as it came");
    (tag.sequence, tag.uids.iter().collect(), frame.len())
}

fn report(net: &mut Net, line: Line, sequence: u64, reached: u32, others: &[(Fate, u16, u64)]) {
    let uids: Vec<[u64; 1]> = others.iter().map(|(.., uid)| [*uid]).collect();
    let set = |(&(fate, cause, _), uids): (&(Fate, u16, u64), &'_ [u64; 1])| (fate, cause, *uids);
    let sets: Vec<_> = others.iter().zip(&uids).map(set).collect();
    let sets: Vec<FateSet<'_>> = sets
        .iter()
        .map(|(fate, cause, uids)| FateSet {
            fate: *fate,
            cause: ErrorCode(*cause),
            uids: uids.into(),
        })
        .collect();
    let count = |wanted| {
        let of_it = others.iter().filter(|(fate, ..)| *fate == wanted).count();
        u32::try_from(of_it).unwrap()
    };
    let report = Report {
        stage: Level::DELIVERED,
        sequence,
        origin: 7,
        reached,
        offline: count(Fate::OFFLINE),
        dropped: count(Fate::DROPPED),
        unknown: count(Fate::UNKNOWN),
        fate_sets: (&sets).into(),
        ..Report::default()
    };
    net.send(line, &encode(&Frame::Report(report)));
}

/// The one receipt of a TAG that was not refused as a whole.
fn receipt(net: &mut Net, producer: &Producer) -> Receipt {
    let frame = net.frame(producer.line).expect("a receipt");
    let Ok(Frame::Receipt(receipt)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    assert_eq!((receipt.stage, receipt.last), (Level::DELIVERED, true), "TAG-17");
    assert_eq!(receipt.code, ErrorCode(0));
    Receipt::of(&receipt)
}

#[test]
fn promise_5_the_receipt_of_a_tag_names_everybody_whose_tags_were_not_changed() {
    check(|net| {
        let one = gateway(net, 1, &[1, 2, 3, 4]);
        let other = gateway(net, 2, &[3, 4, 5]);
        // It reports on messages, and knows of no tags.
        let without = gateway_offering(net, 3, &[5, 6], capability::REPORTS);
        let mut producer = Producer::link(net, 7);
        tag(net, &mut producer, &[6, 5, 99, 4, 3, 2, 1, 4]);
        assert_eq!(tagged(net, one).1, [4, 3, 2, 1], "TGT-3: narrowed, each once, in order");
        assert_eq!(tagged(net, other).1, [5, 4, 3]);
        fence(net, without);
        report(net, other, 1, 2, &[(Fate::DROPPED, ErrorCode::CONNECTION_TAGS.0, 3)]);
        report(net, one, 1, 2, &[(Fate::OFFLINE, 0, 2), (Fate::UNKNOWN, 0, 4)]);
        let receipt = receipt(net, &producer);
        assert_eq!((receipt.sequence, receipt.sent, receipt.gateways), (1, 1, 2));
        assert_eq!((receipt.offline, receipt.unknown), (vec![99, 2], 1));
        // 5 is at a gateway without tags too, 3 had no room at the other.
        assert_eq!(receipt.dropped, [6, 5, 3]);
        let ledger = net.ledger();
        assert_eq!((ledger.taggings, ledger.taggings_routed), (1, 1));
        assert_eq!((ledger.receipts_asked, ledger.receipts_answered), (1, 1));
        assert_eq!((ledger.gateways.offered, ledger.targets, ledger.publishes), (2, 0, 0));
    });
}

#[test]
fn sec_25_a_tag_puts_one_frame_into_each_outbox_no_longer_than_it_is() {
    check(|net| {
        let users: Vec<u64> = (1..=4_096).collect();
        let lines = [gateway(net, 1, &users), gateway(net, 2, &users[..1_000])];
        let mut producer = Producer::link(net, 7);
        let length = tag(net, &mut producer, &users);
        for (line, users) in lines.into_iter().zip([&users[..], &users[..1_000]]) {
            let (_, uids, came) = tagged(net, line);
            assert_eq!(uids, users);
            assert!(came <= length, "{came} of {length}");
            report(net, line, 1, u32::try_from(users.len()).unwrap(), &[]);
        }
        assert_eq!(receipt(net, &producer).sent, 4_096);
        lines.into_iter().chain([producer.line]).for_each(|line| fence(net, line));
    });
}

#[test]
fn tag_17_a_gateway_that_goes_or_is_silent_leaves_its_users_unknown() {
    let config = BrokerConfig { report_timeout_ms: 200, ..BrokerConfig::default() };
    everywhere(&config, |net| {
        let goes = gateway(net, 1, &[1, 3]);
        let frozen = gateway(net, 2, &[2]);
        let lives = gateway(net, 3, &[3]);
        let mut producer = Producer::link(net, 7);
        tag(net, &mut producer, &[1, 2, 3]);
        tagged(net, goes);
        tagged(net, lives);
        net.close(goes);
        report(net, lives, 1, 1, &[]);
        let receipt = receipt(net, &producer);
        assert_eq!((receipt.sent, receipt.unknown, receipt.gateways), (0, 3, 3));
        assert_eq!(net.ledger().reports_missed, 1);
        // Late, and after that for what was never asked: neither changes anything.
        tagged(net, frozen);
        report(net, frozen, 1, 1, &[]);
        report(net, frozen, 1, 1, &[]);
        net.until(|ledger| ledger.reports_ignored == 2);
        fence(net, producer.line);
    });
}

/// Whatever shards the three links are on.
#[test]
fn tag_18_after_the_receipt_every_producer_goes_by_the_change() {
    check(|net| {
        let line = gateway(net, 1, &[1]);
        let mut digest = Digest::default();
        digest.add(Registered { namespace: 0, uid: 1, device_class: 0, login: 0 });
        let (mut producer, mut other) = (Producer::link(net, 7), Producer::link(net, 8));
        for version in 2..30 {
            let text = format!("round:{version}");
            let bytes = selector::parse(&text).unwrap();
            let head = MessageHead { selector: Selector::check(&bytes).ok(), ..Default::default() };
            assert_eq!(other.publish_with(net, head, &[1], b"early").filtered, [1]);
            tag(net, &mut producer, &[1]);
            let (sequence, ..) = tagged(net, line);
            let records = [TagRecord { namespace: 0, op: Op::ADD, tag: &text }];
            let delta = TagDelta { version, tag_records: (&records).into() };
            digest.add_tag(0, &text);
            let barrier = Barrier { version, digest: digest.value() };
            net.send(line, &encode(&Frame::TagDelta(delta)));
            net.send(line, &encode(&Frame::Barrier(barrier)));
            in_effect(net, line, version, digest.value());
            report(net, line, sequence, 1, &[]);
            assert_eq!(receipt(net, &producer).sent, 1);
            assert_eq!(other.publish_with(net, head, &[1], b"x").sent, 1, "{text}");
            let frame = net.frame(line).unwrap();
            assert_eq!(Frame::decode(&frame).unwrap().kind(), Kind::DELIVER);
        }
    });
}

#[test]
fn promise_2_tags_of_one_link_reach_a_gateway_in_their_order() {
    const TAGS: u64 = 300;
    check(|net| {
        let lines = [gateway(net, 1, &[1]), gateway(net, 2, &[1, 2])];
        let mut producer = Producer::link(net, 7);
        let mut bytes = Vec::new();
        for sequence in 1..=TAGS {
            bytes.extend(encoded(sequence, &[1, 2]));
        }
        net.send(producer.line, &bytes);
        producer.sequence = TAGS;
        for (line, users) in lines.into_iter().zip([1, 2]) {
            for sequence in 1..=TAGS {
                assert_eq!(tagged(net, line).0, sequence);
                report(net, line, sequence, users, &[]);
            }
        }
        let receipts = (0..TAGS).map(|_| receipt(net, &producer));
        let mut sequences: Vec<u64> = receipts
            .map(|receipt| {
                assert_eq!((receipt.sent, receipt.gateways), (2, 2));
                receipt.sequence
            })
            .collect();
        sequences.sort_unstable();
        assert!(sequences.into_iter().eq(1..=TAGS), "each has one receipt");
    });
}

#[test]
fn reports_on_tags_and_on_messages_are_told_apart() {
    check(|net| {
        let line = gateway_offering(net, 1, &[1, 2], capability::TAGS | capability::REPORTS);
        let mut producer = Producer::link(net, 7);
        let told = MessageHead { level: Level::DELIVERED, ..MessageHead::default() };
        producer.send_with(net, told, &[1, 2], b"x");
        assert_eq!(producer.receipt(net).sent, 2);
        tag(net, &mut producer, &[1]);
        assert_eq!(producer.sequence, 2, "PUB-1: one sequence for both");
        producer.sequence = 0;
        producer.send_with(net, MessageHead { resend: true, ..told }, &[1, 2], b"x");
        assert_eq!(producer.receipt(net).sent, 2);
        let kinds = [Kind::DELIVER, Kind::TAG, Kind::DELIVER];
        for kind in kinds {
            let frame = net.frame(line).unwrap();
            assert_eq!(Frame::decode(&frame).unwrap().kind(), kind);
        }
        // That on the TAG comes last, when its tags are in effect.
        report(net, line, 1, 1, &[(Fate::OFFLINE, 0, 2)]);
        assert_eq!(producer.receipt(net).offline, [2]);
        report(net, line, 1, 2, &[]);
        assert_eq!(producer.receipt(net).sent, 2);
        report(net, line, 2, 1, &[]);
        let receipt = receipt(net, &producer);
        assert_eq!((receipt.sequence, receipt.sent), (2, 1));
    });
}

#[test]
fn tag_12_a_sequence_is_that_of_one_publish_or_of_one_tag() {
    check(|net| {
        let mut producer = Producer::link(net, 7);
        tag(net, &mut producer, &[1]);
        assert_eq!(receipt(net, &producer).offline, [1]);
        producer.sequence = 0;
        producer.send_with(net, MessageHead::default(), &[1], b"x");
        ends_with(net, producer.line, ErrorCode::SEQUENCE_ORDER);
    });
}

#[test]
fn promise_5_a_tag_for_which_an_outbox_has_no_room_is_told_as_dropped() {
    let config = BrokerConfig { outbox_bytes_max: 256 << 10, ..BrokerConfig::default() };
    // What a kernel takes of it is not known; a simulated one takes what it is told to.
    simulated(&config, |net| {
        let users: Vec<u64> = (1..=4_000).collect();
        let frozen = gateway(net, 1, &users);
        let healthy = gateway(net, 2, &users[..10]);
        net.stall(frozen, true);
        let mut producer = Producer::link(net, 7);
        let payload = vec![7; 64 << 10];
        let fills = |net: &mut Net, producer: &mut Producer, payload: &[u8]| {
            (0..1_000).any(|_| !producer.publish(net, &[4_000], payload).dropped.is_empty())
        };
        assert!(fills(net, &mut producer, &payload), "its outbox is full");
        assert!(fills(net, &mut producer, &payload[..1 << 10]), "to the brim");
        tag(net, &mut producer, &users);
        let (sequence, uids, _) = tagged(net, healthy);
        assert_eq!(uids, users[..10]);
        report(net, healthy, sequence, 10, &[]);
        let receipt = receipt(net, &producer);
        assert_eq!((receipt.sent, receipt.gateways), (0, 1));
        assert_eq!(receipt.dropped, users, "also those that the other gateway has");
    });
}

#[test]
fn promise_7_what_a_producer_may_wait_for_is_bounded_with_tags_as_without() {
    check(|net| {
        let users: Vec<u64> = (1..=4_096).collect();
        let silent = gateway(net, 1, &users);
        let mut producer = Producer::link(net, 7);
        let told = MessageHead { level: Level::DELIVERED, ..MessageHead::default() };
        let mut refused = None;
        for number in 1..200_u64 {
            tag(net, &mut producer, &users);
            // What a fence is answered with: nothing, or the refusal before it.
            let ping = waybill_wire::frame::Ping { token: 7 };
            net.send(producer.line, &encode(&Frame::Ping(ping)));
            let mut frame = net.frame(producer.line).unwrap();
            if let Ok(Frame::Receipt(receipt)) = Frame::decode(&frame) {
                assert_eq!((receipt.code, receipt.last), (ErrorCode::OVERLOADED, true));
                refused = Some(number);
                frame = net.frame(producer.line).unwrap();
            }
            assert!(matches!(Frame::decode(&frame), Ok(Frame::Pong(_))));
            if refused.is_some() {
                break;
            }
            tagged(net, silent);
        }
        let refused = refused.expect("there is a bound");
        assert!(refused > 30, "{refused}");
        // A message that asks for as much is refused by the same bound.
        producer.send_with(net, told, &users, b"x");
        assert_eq!(producer.receipt(net).code, ErrorCode::OVERLOADED);
        // The others are served, and what is waited for goes with the link.
        let mut other = Producer::link(net, 8);
        tag(net, &mut other, &[5_000]);
        assert_eq!(receipt(net, &other).offline, [5_000]);
        let ledger = net.ledger();
        assert_eq!((ledger.taggings_refused, ledger.receipts_pending), (1, refused - 1));
    });
}
