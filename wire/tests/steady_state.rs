//! A frame costs no allocation once the buffers have seen the largest one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::time::Duration;

use waybill_wire::code::{Level, Role};
use waybill_wire::frame::{Hello, Receipt};
use waybill_wire::session::Session;
use waybill_wire::{Deframer, Frame, MessageHead};

fn hello() -> Vec<u8> {
    let hello = Hello {
        data: false,
        role: Role::PRODUCER,
        version_min: 1,
        version_max: 1,
        instance: 7,
        session: 0,
        capabilities: 0,
        route_group: 0,
        wanted_shard: 0xffff,
        credential: b"",
    };
    let mut out = Vec::new();
    hello.encode(&mut out).unwrap();
    out
}

fn publishes() -> Vec<u8> {
    let mut out = Vec::new();
    for sequence in 1..=64 {
        let labels = ["chat", "order.paid"];
        let head = MessageHead {
            sequence,
            level: Level::ROUTED,
            labels: (&labels).into(),
            except: (&[3]).into(),
            ..MessageHead::default()
        };
        let targets: Vec<u64> = (0..sequence).collect();
        head.encode_publish(&targets, &[0x78; 300], &mut out).unwrap();
    }
    out
}

/// What a broker does with a read: frames out of it, each judged, narrowed and answered.
fn serve(
    deframer: &mut Deframer,
    session: &mut Session,
    read: &[u8],
    delivers: &mut Vec<u8>,
    answers: &mut Vec<u8>,
) -> usize {
    let (mut rest, mut frames, now) = (read, 0, Duration::ZERO);
    loop {
        let step = deframer.next(rest).unwrap();
        rest = &rest[step.consumed..];
        let Some(raw) = step.frame else { return frames };
        let frame = raw.decode().unwrap();
        session.handle(now, &frame).unwrap();
        if let Frame::Publish(message) = frame {
            message.deliver_narrowed(7, &[1, 2], message.ttl_ms, delivers);
            let receipt = Receipt {
                last: true,
                stage: Level::ROUTED,
                sequence: message.sequence,
                sent: 2,
                ..Receipt::default()
            };
            receipt.encode(answers).unwrap();
            frames += 1;
        } else {
            session.accept(now, Duration::ZERO, Role::PRODUCER);
        }
    }
}

/// Serves the same bytes in pieces of this many; the number of frames in them.
fn serve_in_pieces(
    piece: usize,
    deframer: &mut Deframer,
    session: &mut Session,
    bytes: &[u8],
    buffers: &mut [Vec<u8>; 2],
) -> usize {
    let [delivers, answers] = buffers;
    delivers.clear();
    answers.clear();
    let pieces = bytes.chunks(piece);
    pieces.map(|read| serve(deframer, session, read, delivers, answers)).sum()
}

#[test]
fn a_frame_costs_no_allocation_in_the_steady_state() {
    let (mut deframer, mut session) = (Deframer::new(), Session::broker(Duration::ZERO));
    let (bytes, mut buffers) = (publishes(), [Vec::new(), Vec::new()]);
    serve_in_pieces(4096, &mut deframer, &mut session, &hello(), &mut buffers);
    let warm = allocation_counter::measure(|| {
        serve_in_pieces(1000, &mut deframer, &mut session, &bytes, &mut buffers);
    });
    assert!(warm.count_total > 0, "the counter counts");
    for piece in [bytes.len(), 1000, 100, 9] {
        let counted = allocation_counter::measure(|| {
            let frames = serve_in_pieces(piece, &mut deframer, &mut session, &bytes, &mut buffers);
            assert_eq!(frames, 64);
        });
        assert_eq!(counted.count_total, 0, "in pieces of {piece} bytes");
    }
}
