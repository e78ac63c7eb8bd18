//! What a deframer keeps, skips and gives back.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::frame::{Ping, Pong};
use waybill_wire::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use waybill_wire::{Deframer, Frame, MessageHead};

fn ping(token: u32) -> Vec<u8> {
    let mut out = Vec::new();
    Ping { token }.encode(&mut out);
    out
}

fn publish(payload_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let head = MessageHead { sequence: 1, ..MessageHead::default() };
    head.encode_publish(&[1001], &vec![7; payload_bytes], &mut out).unwrap();
    out
}

/// Kinds of the frames in these reads.
fn kinds(deframer: &mut Deframer, reads: &[&[u8]]) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for read in reads {
        let mut rest = *read;
        loop {
            let step = deframer.next(rest).unwrap();
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { break };
            kinds.push(raw.kind());
        }
        assert!(deframer.invariants());
    }
    kinds
}

/// A frame that lies whole in a read costs no memory at all.
#[test]
fn whole_frames_are_lent_from_the_input() {
    let stream = [ping(1), publish(1000), ping(2)].concat();
    let mut deframer = Deframer::new();
    let found = kinds(&mut deframer, &[&stream]);
    assert_eq!(found, [Kind::PING, Kind::PUBLISH, Kind::PING]);
    assert_eq!((deframer.reserved(), deframer.buffered()), (0, 0));
}

/// FRAME-10: what is announced is not reserved.
#[test]
fn an_announcement_costs_what_was_sent() {
    let frame = publish(PAYLOAD_BYTES_MAX);
    let mut deframer = Deframer::new();
    assert!(kinds(&mut deframer, &[&frame[..50]]).is_empty());
    assert_eq!(deframer.buffered(), 50);
    assert!(deframer.reserved() <= 100);
    assert!(!deframer.is_between_frames());
    let mut given = 50;
    for chunk in frame[50..].chunks(60_000) {
        given += chunk.len();
        kinds(&mut deframer, &[chunk]);
        assert!(deframer.reserved() <= (2 * given).min(FRAME_BYTES_MAX));
    }
    assert_eq!(deframer.reserved(), 0, "a large buffer is given back");
    assert!(deframer.is_between_frames());
}

/// Frames of usual size that are split again and again use one buffer.
#[test]
fn a_small_buffer_is_kept() {
    let frame = publish(2000);
    let mut deframer = Deframer::new();
    let (head, tail) = frame.split_at(100);
    kinds(&mut deframer, &[head, tail]);
    let reserved = deframer.reserved();
    for _ in 0..10 {
        assert_eq!(kinds(&mut deframer, &[head, tail]), [Kind::PUBLISH]);
        assert_eq!(deframer.reserved(), reserved);
    }
}

/// FRAME-3: skipped without being kept, wherever the reads divide it.
#[test]
fn unknown_kinds_from_0x80_are_skipped() {
    let mut skipped = publish(PAYLOAD_BYTES_MAX);
    skipped[1] = 0x80;
    let stream = [ping(1), skipped, ping(2)].concat();
    for size in [7, 8, 9, 4096, stream.len()] {
        let mut deframer = Deframer::new();
        let reads: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(kinds(&mut deframer, &reads), [Kind::PING, Kind::PING], "reads of {size}");
        assert!(deframer.reserved() <= 32);
    }
    let error = Frame::decode(&stream[16..stream.len() - 16]).unwrap_err();
    assert_eq!(error.code, ErrorCode::UNKNOWN_KIND, "a skipped kind has no view");
}

/// A bad header is refused before its payload has come.
#[test]
fn a_bad_header_is_refused_before_its_payload() {
    let mut frame = publish(PAYLOAD_BYTES_MAX);
    frame[14] = 1;
    let mut deframer = Deframer::new();
    let error = deframer.next(&frame[..40]).unwrap_err();
    assert_eq!(error.code, ErrorCode::RESERVED);
    assert_eq!(error.kind, Kind::PUBLISH);
    assert_eq!(deframer.next(&ping(1)), Err(error), "errors stay");
    assert_eq!(deframer.reserved(), 0);
}

/// SES-13: a version that is not spoken says nothing about the kind.
#[test]
fn an_unknown_version_has_no_kind() {
    let mut frame = Vec::new();
    Pong { token: 1 }.encode(&mut frame);
    frame[0] = 2;
    let error = Deframer::new().next(&frame[..8]).unwrap_err();
    assert_eq!((error.code, error.kind), (ErrorCode::UNSUPPORTED_VERSION, Kind(0)));
    assert_eq!(Deframer::new().next(&frame[..7]).unwrap().consumed, 7);
}
