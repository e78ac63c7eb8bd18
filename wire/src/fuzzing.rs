//! Laws of this crate as functions of arbitrary bytes, for `fuzz/` and for the replay of its corpora
//! in `tests/laws.rs`. Each panics where its law is broken, and returns whether the input got as far
//! as the law, so that a corpus can be judged.

use std::time::Duration;

use crate::assembly::{self, Assembly, Piece};
use crate::code::{Kind, Role};
use crate::deframe::Deframer;
use crate::error::Malformed;
use crate::expression::{Node, TextError};
use crate::filter;
use crate::frame::{ErrorFrame, Fragment, Frame, Hello, Ping, Pong, Welcome};
use crate::limits::{FRAME_BYTES_MAX, HEADER_BYTES_MAX, HEADER_BYTES_MIN};
use crate::limits::{SELECTOR_BYTES_MAX, SELECTOR_TERMS_MAX};
use crate::message::{Message, MessageHead, Plain};
use crate::selector::{self, Selector};
use crate::session::{Phase, Session, Step, TRANSMIT_BYTES_MAX};

/// An accepted frame encodes to the same bytes, and its header is within its limits. Read as a
/// plain one it is what it is otherwise, and no plain one is left out.
pub fn decode(data: &[u8]) -> bool {
    let plain = Plain::read(data);
    if let Some(plain) = plain {
        assert_plain(&plain);
    }
    let Ok(frame) = Frame::decode(data) else { return false };
    let mut again = Vec::new();
    assert_eq!(frame.encode(&mut again), Ok(()), "{frame:?}");
    assert_eq!(again, data, "{frame:?}");
    let header = usize::from(u16::from_le_bytes([data[2], data[3]])) * 8;
    assert!((HEADER_BYTES_MIN..=HEADER_BYTES_MAX).contains(&header));
    if let Frame::Publish(message) = frame {
        let Message { sequence, namespace, ttl_ms, priority, hops, .. } = message;
        let head =
            MessageHead { sequence, namespace, ttl_ms, priority, hops, ..MessageHead::default() };
        let is_plain = message.head() == head && message.targets.len() == 1;
        assert_eq!(plain.is_some(), is_plain, "{message:?}");
    }
    true
}

fn assert_plain(plain: &Plain<'_>) {
    let Ok(Frame::Publish(message)) = Frame::decode(plain.frame()) else {
        panic!("{plain:?} is no PUBLISH")
    };
    let &Plain { uid, sequence, namespace, ttl_ms, priority, .. } = plain;
    assert!(message.targets.iter().eq([uid]));
    assert_eq!((message.sequence, message.namespace), (sequence, namespace));
    assert_eq!((message.ttl_ms, message.priority), (ttl_ms, priority));
    assert_eq!(message.payload.len(), plain.payload_bytes());
    let (mut narrowed, mut out) = (Vec::new(), Vec::new());
    message.deliver_narrowed(sequence, &[uid], ttl_ms, &mut narrowed);
    plain.deliver(sequence, &mut out);
    assert_eq!(out, narrowed);
}

/// What came out of a deframer: the frames' bytes one after another, and what ended them.
type Outcome = (Vec<u8>, Option<Malformed>);

/// The first frame of a read, if it lies whole there: decoded in place it is what it is otherwise.
fn lent(deframer: &mut Deframer, read: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Malformed> {
    let Some(raw) = deframer.whole(read) else { return Ok(false) };
    *read = &read[raw.bytes().len()..];
    let mut messages = Vec::new();
    let decoded = raw.decode_into(&mut messages);
    match (raw.decode(), messages.pop()) {
        (
            Ok(
                Frame::Publish(message)
                | Frame::Deliver(message)
                | Frame::Uplink(message)
                | Frame::Offline(message),
            ),
            in_place,
        ) => assert_eq!((decoded, in_place), (Ok(true), Some(message))),
        (Ok(_), in_place) => assert_eq!((decoded, in_place), (Ok(false), None)),
        (Err(malformed), in_place) => {
            assert!(in_place.is_none() && decoded.is_ok_and(|is| !is) || decoded == Err(malformed));
            return Err(malformed);
        }
    }
    out.extend_from_slice(raw.bytes());
    Ok(true)
}

/// With `lends`, frames that lie whole in a read are asked for as such.
fn feed(reads: &mut dyn Iterator<Item = &[u8]>, lends: bool) -> Outcome {
    let mut deframer = Deframer::new();
    let mut out = Vec::new();
    for read in reads {
        let mut rest = read;
        loop {
            if lends {
                match lent(&mut deframer, &mut rest, &mut out) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(malformed) => return (out, Some(malformed)),
                }
            }
            let step = match deframer.next(rest) {
                Ok(step) => step,
                Err(malformed) => return (out, Some(malformed)),
            };
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { break };
            if let Err(malformed) = raw.decode() {
                return (out, Some(malformed));
            }
            out.extend_from_slice(raw.bytes());
        }
        assert!(rest.is_empty(), "input is used up when there is no frame");
        assert!(deframer.invariants());
        assert!(deframer.reserved() <= FRAME_BYTES_MAX);
    }
    (out, None)
}

/// Chunking never changes the outcome. The first bytes, up to a zero, are the lengths of the reads,
/// taken in turn.
///
/// Read in one piece, an incomplete frame at the end may be refused or not depending on how much of
/// it is there, never on the pieces: both sides see the same bytes.
pub fn deframe(data: &[u8]) -> bool {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (lengths, stream) = data.split_at(at);
    let stream = stream.get(1..).unwrap_or_default();
    let whole = feed(&mut std::iter::once(stream), false);
    assert_eq!(feed(&mut std::iter::once(stream), true), whole);
    let mut lengths = lengths.iter().cycle();
    let mut rest = stream;
    let reads = std::iter::from_fn(|| {
        let length = lengths.next().map_or(1, |length| usize::from(*length));
        let (read, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        (!read.is_empty()).then_some(read)
    });
    let reads: Vec<&[u8]> = reads.collect();
    for lends in [false, true] {
        assert_eq!(feed(&mut reads.iter().copied(), lends), whole);
    }
    !whole.0.is_empty()
}

/// No order of frames, times and calls makes a session panic or its control bytes grow.
pub fn session(data: &[u8]) -> bool {
    let Some((setup, operations)) = data.split_first() else { return false };
    let role = Role(setup >> 1);
    let mut now = Duration::ZERO;
    let mut session =
        if setup & 1 == 0 { Session::broker(now) } else { Session::initiator(role, now) };
    let mut opened = false;
    for pair in operations.as_chunks::<2>().0 {
        operate(&mut session, &mut now, *pair);
        assert!(session.invariants());
        opened |= matches!(session.phase(), Phase::Open | Phase::Draining);
    }
    let mut out = Vec::new();
    session.transmit(&mut out);
    assert!(out.len() <= TRANSMIT_BYTES_MAX && !session.has_output());
    opened
}

fn operate(session: &mut Session, now: &mut Duration, [operation, value]: [u8; 2]) {
    match operation % 8 {
        0 => *now += Duration::from_millis(u64::from(value) * 10),
        1 if value > 127 => {
            if session.ping(*now).is_some() {
                assert_eq!(session.ping(*now), None, "one at a time");
            }
        }
        1 => session.received(*now),
        2 => session.pause(*now),
        3 => session.resume(*now),
        4 => {
            let before = session.phase();
            session.transmit(&mut Vec::new());
            assert_eq!(session.phase(), before);
        }
        5 => {
            if let Err(fault) = session.expired(*now) {
                session.fail(&fault);
            }
        }
        6 => {
            if let Err(fault) = session.drain(u32::from(value)) {
                session.fail(&fault);
            }
        }
        _ => take_in(session, *now, value),
    }
}

fn take_in(session: &mut Session, now: Duration, value: u8) {
    let closed = session.phase() == Phase::Closed;
    let frame = sample(value);
    let passes = session.passes(frame.kind());
    let handled = session.handle(now, &frame);
    if frame.kind() != Kind::ERROR {
        assert_eq!(passes, handled == Ok(Step::Pass), "{frame:?}");
    }
    match handled {
        Ok(Step::Hello) => {
            session.accept(now, Duration::from_millis(100), session.role());
        }
        Ok(Step::Ended) => assert_eq!(session.phase(), Phase::Closed),
        Ok(_) => assert!(!closed || session.phase() == Phase::Closed),
        Err(fault) => {
            session.fail(&fault);
            assert_eq!(session.phase(), Phase::Closed);
        }
    }
}

/// A frame for a byte: the kinds a session acts on, and one it passes on.
fn sample(value: u8) -> Frame<'static> {
    match value % 8 {
        0 => Frame::Hello(Hello { role: Role(value >> 3), ..Hello::default() }),
        1 => {
            let keepalive_ms = u32::from(value >> 3) * 10;
            let version = u16::from(value < 128);
            Frame::Welcome(Welcome { version, keepalive_ms, ..Welcome::default() })
        }
        2 | 3 => Frame::Ping(Ping { token: u32::from(value) }),
        4 => Frame::Pong(Pong { token: u32::from(value) }),
        5 => Frame::Error(ErrorFrame { fatal: value > 127, ..ErrorFrame::default() }),
        6 => Frame::Drain(crate::frame::Drain { deadline_ms: u32::from(value) }),
        _ => Frame::State(crate::frame::State::default()),
    }
}

/// An accepted PUBLISH, narrowed to a part of its targets, decodes as a DELIVER that differs in what
/// TGT-4 names and in nothing else. The first byte chooses the targets.
pub fn narrow(data: &[u8]) -> bool {
    let Some((choice, bytes)) = data.split_first() else { return false };
    let Ok(Frame::Publish(publish)) = Frame::decode(bytes) else { return false };
    let (origin, ttl_ms) = (u64::from(*choice) << 32 | 1, publish.ttl_ms / 2);
    let chosen: Vec<u64> =
        publish.targets.iter().filter(|uid| uid.wrapping_add((*choice).into()) % 3 != 0).collect();
    let mut out = Vec::new();
    publish.deliver_narrowed(origin, &chosen, ttl_ms, &mut out);
    if chosen.is_empty() {
        assert!(out.is_empty(), "nobody gets nothing");
        publish.offline_narrowed(origin, &chosen, &mut out);
        assert!(out.is_empty(), "nobody gets nothing");
    } else {
        let deliver = deliver(&out);
        assert!(deliver.targets.iter().eq(chosen.iter().copied()));
        assert!(deliver.except.is_empty());
        assert_forwarded(&publish, &deliver, origin, ttl_ms);
        told_offline(&publish, origin, &chosen);
    }
    out.clear();
    publish.deliver_whole(origin, ttl_ms, &mut out);
    let deliver = deliver(&out);
    assert_eq!((deliver.targets, deliver.except), (publish.targets, publish.except));
    assert_forwarded(&publish, &deliver, origin, ttl_ms);
    if publish.fragmented.is_none() && !publish.payload.is_empty() {
        let first = usize::from(*choice) % publish.payload.len();
        out.clear();
        publish.deliver_whole_first(origin, ttl_ms, first, &mut out);
        let mut plain = Vec::new();
        publish.deliver_whole(origin, ttl_ms, &mut plain);
        assert_eq!(put_together(out, publish.payload, first, 1 + usize::from(*choice)), plain);
        if !chosen.is_empty() {
            let (mut out, mut plain) = (Vec::new(), Vec::new());
            publish.deliver_narrowed_first(origin, &chosen, ttl_ms, first, &mut out);
            publish.deliver_narrowed(origin, &chosen, ttl_ms, &mut plain);
            assert_eq!(put_together(out, publish.payload, first, 4096), plain);
        }
    }
    true
}

/// What a DELIVER in fragments comes to, of whose payload the header announces so much.
fn put_together(mut frame: Vec<u8>, payload: &[u8], first: usize, piece: usize) -> Vec<u8> {
    frame.extend_from_slice(&payload[..first]);
    let (begun, mut assembly) = (deliver(&frame), Assembly::default());
    assert_eq!(assembly.begin((), &begun, &frame), Ok(()));
    let (sequence, origin) = (begun.sequence, begun.origin.unwrap_or(0));
    for range in assembly::cuts(payload.len(), first, piece) {
        let mut out = Vec::new();
        let (last, offset) = (range.end == payload.len(), range.start);
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let fragment = Fragment { last, offset, sequence, origin, payload: &payload[range] };
        assert_eq!(fragment.encode(&mut out), Ok(()));
        let Ok(Frame::Fragment(fragment)) = Frame::decode(&out) else { panic!("FRAGMENT") };
        let came = assembly.add(&fragment);
        assert!(assembly.invariants());
        match came {
            Ok(Piece::Completed(whole)) => return whole.into_bytes(),
            other => assert_eq!(other, Ok(Piece::Taken)),
        }
    }
    panic!("its last piece was not the last")
}

/// An OFFLINE differs from the DELIVER to the same targets in its kind and its time to live.
fn told_offline(publish: &Message<'_>, origin: u64, uids: &[u64]) {
    let (mut deliver, mut offline) = (Vec::new(), Vec::new());
    publish.deliver_narrowed(origin, uids, publish.ttl_ms, &mut deliver);
    publish.offline_narrowed(origin, uids, &mut offline);
    match Frame::decode(&offline) {
        Ok(Frame::Offline(_)) => {}
        // A publish to EVERYONE has no targets that could be offline (OFL-3).
        Err(_) if publish.everyone => return,
        other => panic!("a PUBLISH was told offline as {other:?}"),
    }
    deliver[1] = Kind::OFFLINE.0;
    assert_eq!(offline, deliver);
}

fn deliver(bytes: &[u8]) -> Message<'_> {
    match Frame::decode(bytes) {
        Ok(Frame::Deliver(deliver)) => deliver,
        other => panic!("a PUBLISH went on as {other:?}"),
    }
}

fn assert_forwarded(publish: &Message<'_>, deliver: &Message<'_>, origin: u64, ttl_ms: u32) {
    assert_eq!((deliver.origin, deliver.ttl_ms), (Some(origin), ttl_ms));
    assert_eq!((deliver.kind, publish.kind), (Kind::DELIVER, Kind::PUBLISH));
    let mut back = deliver.head();
    back.origin = None;
    back.ttl_ms = publish.ttl_ms;
    back.except = publish.except.into();
    assert_eq!(back, publish.head(), "everything else");
    assert_eq!(deliver.payload, publish.payload);
}

/// Bytes of a selector and its text say the same, in both directions; a text that is refused is
/// refused at a place in it; whatever is accepted is one whole expression.
pub fn expressions(data: &[u8]) -> bool {
    let checked = Selector::check(data);
    if let Ok(selector) = checked
        && data.len() <= SELECTOR_BYTES_MAX
    {
        says_itself(selector);
    }
    let text = selector::parse_bytes(data);
    match &text {
        Ok(bytes) => match Selector::check(bytes) {
            Ok(selector) => says_itself(selector),
            Err(flaw) => panic!("text gives bytes that are no selector: {flaw}"),
        },
        Err(refused) => is_a_place(data, refused),
    }
    let filter = filter::parse_bytes(data);
    match &filter {
        Ok(expression) => {
            let kinds = expression.nodes().iter().map(|node| match node {
                Node::Term(_) => Shape::Term,
                Node::And(operands) => Shape::Row(b'&', *operands),
                Node::Or(operands) => Shape::Row(b'|', *operands),
                Node::Not => Shape::Row(b'!', 1),
            });
            assert_eq!(whole(kinds), expression.terms());
        }
        Err(refused) => is_a_place(data, refused),
    }
    checked.is_ok() || text.is_ok() || filter.is_ok()
}

fn says_itself(selector: Selector<'_>) {
    let text = selector.to_string();
    assert_eq!(selector::parse(&text).as_deref(), Ok(selector.bytes()), "{text}");
    let kinds = selector.nodes().map(|node| match node {
        selector::Node::Tag(tag) => {
            assert!(selector::is_tag(tag));
            Shape::Term
        }
        selector::Node::And(operands) => Shape::Row(b'&', operands),
        selector::Node::Or(operands) => Shape::Row(b'|', operands),
        selector::Node::Not => Shape::Row(b'!', 1),
    });
    assert_eq!(whole(kinds), selector.terms());
}

fn is_a_place(text: &[u8], refused: &TextError) {
    assert!(refused.position <= text.len(), "{refused}");
    if let Ok(text) = std::str::from_utf8(text) {
        assert!(text.is_char_boundary(refused.position), "{refused}: {text}");
    }
}

/// A node without what it tests.
#[derive(Clone, Copy)]
enum Shape {
    Term,
    Row(u8, u8),
}

/// The terms of nodes that are one expression: each operator has all its operands, and none of its
/// own kind among them.
fn whole(mut nodes: impl Iterator<Item = Shape>) -> usize {
    fn one(nodes: &mut dyn Iterator<Item = Shape>, outer: u8) -> usize {
        match nodes.next().expect("an operand for each place") {
            Shape::Term => 1,
            Shape::Row(sign, operands) => {
                assert!(sign != outer && (operands > 1 || sign == b'!'));
                (0..operands).map(|_| one(nodes, sign)).sum()
            }
        }
    }
    let terms = one(&mut nodes, 0);
    assert!(nodes.next().is_none() && (1..=SELECTOR_TERMS_MAX).contains(&terms));
    terms
}
