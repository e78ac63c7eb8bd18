//! The contract's codec: frames written, read, cut out of a stream, judged by a session.

use std::time::Duration;

use waybill_wire::code::Role;
use waybill_wire::frame::Hello;
use waybill_wire::targets::Uids;
use waybill_wire::{Deframer, Frame, Message, MessageHead, Selector, Session, selector};

use crate::{BATCH, Case, LIST, PAYLOAD_BYTES, opaque, random, some_uids};

/// What a read of a busy link brings.
const READ_BYTES: usize = 64 * 1024;

/// Payload of a segment on an Ethernet link without offloads: frames lie across such reads.
const SEGMENT_BYTES: usize = 1_460;

/// The users that targets are drawn from.
const USERS: usize = 1_000_000;

/// Origin of a DELIVER: any instance.
const ORIGIN: u64 = 7;

/// Every case of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (targets, frames) in [(1, BATCH), (LIST, 1)] {
        cases.extend([
            Case::plain(format!("decode PUBLISH/{targets}"), frames, move || {
                decode(publishes(frames, targets))
            }),
            Case::plain(format!("decode DELIVER/{targets}"), frames, move || {
                decode(delivers(frames, targets))
            }),
            Case::plain(format!("encode PUBLISH/{targets}"), frames, move || {
                encode_publish(frames, targets)
            }),
            Case::plain(format!("encode DELIVER/{targets}"), frames, move || {
                encode_deliver(frames, targets)
            }),
        ]);
    }
    let frames = read().1;
    cases.push(Case::plain("deframe 64 KiB/one read", frames, || deframe(READ_BYTES)));
    cases.push(Case::plain("deframe 64 KiB/segments", frames, || deframe(SEGMENT_BYTES)));
    cases.push(Case::plain("session step/PUBLISH", BATCH, session_step));
    for terms in [1, 16] {
        let check = move || check_selectors(terms);
        cases.push(Case::plain(format!("check selector/{terms}"), BATCH, check));
        let read = move || read_selectors(terms);
        cases.push(Case::plain(format!("read selector text/{terms}"), BATCH, read));
    }
    cases
}

/// PUBLISHes, each to other users.
fn publishes(frames: usize, targets: usize) -> Vec<Vec<u8>> {
    let mut random = random();
    let publish = |sequence: usize| {
        let mut out = Vec::new();
        let head = MessageHead { sequence: sequence as u64, ..MessageHead::default() };
        let uids = some_uids(&mut random, USERS, targets);
        head.encode_publish(&uids, &[b'x'; PAYLOAD_BYTES], &mut out).expect("within limits");
        out
    };
    (1..=frames).map(publish).collect()
}

/// What a broker makes of them for a gateway that has all their users.
fn delivers(frames: usize, targets: usize) -> Vec<Vec<u8>> {
    let narrowed = |publish: Vec<u8>| {
        let message = message(&publish);
        let uids: Vec<u64> = message.targets.iter().collect();
        let mut out = Vec::new();
        message.deliver_narrowed(ORIGIN, &uids, 0, &mut out);
        out
    };
    publishes(frames, targets).into_iter().map(narrowed).collect()
}

fn message(publish: &[u8]) -> Message<'_> {
    match Frame::decode(publish) {
        Ok(Frame::Publish(message)) => message,
        other => panic!("a PUBLISH was written, not {other:?}"),
    }
}

fn decode(frames: Vec<Vec<u8>>) -> impl FnMut() -> u64 {
    move || {
        let decoded = frames.iter().map(|frame| opaque(Frame::decode(opaque(frame))));
        decoded.filter(Result::is_ok).count() as u64
    }
}

fn encode_publish(frames: usize, targets: usize) -> impl FnMut() -> u64 {
    let (mut random, mut out) = (random(), Vec::new());
    let lists: Vec<_> = (0..frames).map(|_| some_uids(&mut random, USERS, targets)).collect();
    move || {
        out.clear();
        let written = lists.iter().zip(1..).map(|(uids, sequence)| {
            let head = opaque(MessageHead { sequence, ..MessageHead::default() });
            head.encode_publish(opaque(uids), &[b'x'; PAYLOAD_BYTES], &mut out)
        });
        let written = written.filter(Result::is_ok).count() as u64;
        opaque(&out);
        written
    }
}

fn encode_deliver(frames: usize, targets: usize) -> impl FnMut() -> u64 {
    let messages: Vec<Message<'static>> =
        publishes(frames, targets).into_iter().map(|publish| message(publish.leak())).collect();
    let lists: Vec<Vec<u64>> =
        messages.iter().map(|message| Uids::Run(message.targets).iter().collect()).collect();
    let mut out = Vec::new();
    move || {
        out.clear();
        let mut written = 0;
        for (message, uids) in messages.iter().zip(&lists) {
            let before = out.len();
            opaque(message).deliver_narrowed(ORIGIN, opaque(uids), 0, &mut out);
            written += u64::from(out.len() > before);
        }
        opaque(&out);
        written
    }
}

/// Whole PUBLISHes to one user each, as many as fit one read; and how many these are.
fn read() -> (Vec<u8>, usize) {
    let one = publishes(1, 1).concat().len();
    let frames = READ_BYTES / one;
    (publishes(frames, 1).concat(), frames)
}

fn deframe(piece_bytes: usize) -> impl FnMut() -> u64 {
    let (bytes, _) = read();
    let mut deframer = Deframer::new();
    move || {
        let mut frames = 0;
        for mut rest in bytes.chunks(piece_bytes) {
            loop {
                let step = deframer.next(opaque(rest)).expect("frames that were encoded");
                rest = &rest[step.consumed..];
                if opaque(step.frame).is_none() {
                    break;
                }
                frames += 1;
            }
        }
        frames
    }
}

/// Texts of selectors: rows of four, every third term with a `!`.
fn selector_texts(terms: usize) -> Vec<String> {
    let mut random = random();
    let mut text = || {
        let uids = some_uids(&mut random, USERS, terms);
        let tags: Vec<String> = uids.iter().map(|uid| format!("group:{uid}")).collect();
        let negated = |(at, tag): (usize, &String)| {
            let sign = if at % 3 == 2 { "!" } else { "" };
            format!("{sign}{tag}")
        };
        let rows = tags.chunks(4).map(|row| {
            let row: Vec<String> = row.iter().enumerate().map(negated).collect();
            format!("({})", row.join(" | "))
        });
        rows.collect::<Vec<_>>().join(" & ")
    };
    (0..BATCH).map(|_| text()).collect()
}

fn check_selectors(terms: usize) -> impl FnMut() -> u64 {
    let texts = selector_texts(terms);
    let selectors: Vec<Vec<u8>> =
        texts.iter().map(|text| selector::parse(text).expect("within limits")).collect();
    move || {
        let checked = selectors.iter().map(|bytes| opaque(Selector::check(opaque(bytes))));
        checked.filter(Result::is_ok).count() as u64
    }
}

fn read_selectors(terms: usize) -> impl FnMut() -> u64 {
    let texts = selector_texts(terms);
    move || {
        let read = texts.iter().map(|text| opaque(selector::parse(opaque(text))));
        read.filter(Result::is_ok).count() as u64
    }
}

fn session_step() -> impl FnMut() -> u64 {
    let mut session = Session::broker(Duration::ZERO);
    let hello = Hello {
        data: false,
        role: Role::PRODUCER,
        version_min: 1,
        version_max: 1,
        instance: ORIGIN,
        session: 0,
        capabilities: 0,
        route_group: 0,
        wanted_shard: u16::MAX,
        credential: b"",
    };
    session.handle(Duration::ZERO, &Frame::Hello(hello)).expect("HELLO comes first");
    session.accept(Duration::ZERO, Duration::ZERO, Role::PRODUCER);
    let frames: Vec<Frame<'static>> = publishes(BATCH, 1)
        .into_iter()
        .map(|publish| Frame::Publish(message(publish.leak())))
        .collect();
    move || {
        let steps =
            frames.iter().map(|frame| opaque(session.handle(Duration::ZERO, opaque(frame))));
        steps.filter(Result::is_ok).count() as u64
    }
}
