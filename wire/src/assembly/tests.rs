//! Pieces against what was cut, and what is wrong with those that do not fit.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::Frame;
use crate::message::MessageHead;

fn publish(sequence: u64, total: usize, first: &[u8]) -> Vec<u8> {
    let fragmented = u32::try_from(total).ok();
    let head = MessageHead { sequence, fragmented, conflate: Some(7), ..MessageHead::default() };
    let mut out = Vec::new();
    head.encode_publish(&[1, 2], first, &mut out).unwrap();
    out
}

fn begin(assembly: &mut Assembly<u64>, now: u64, frame: &[u8]) -> Result<(), Violation> {
    let Ok(Frame::Publish(message)) = Frame::decode(frame) else { panic!("PUBLISH") };
    assembly.begin(now, &message, frame)
}

fn piece(sequence: u64, offset: usize, payload: &[u8], last: bool) -> Fragment<'_> {
    let offset = u32::try_from(offset).unwrap();
    Fragment { last, offset, sequence, origin: 0, payload }
}

fn code<T: std::fmt::Debug>(result: Result<T, Violation>) -> ErrorCode {
    result.unwrap_err().code
}

/// FRG-1, FRG-4.
#[test]
fn a_piece_that_does_not_fit_is_told_from_one_that_does() {
    let mut assembly = Assembly::default();
    begin(&mut assembly, 3, &publish(5, 6, b"ab")).unwrap();
    let wrong = [
        piece(6, 2, b"cd", false),
        piece(5, 0, b"ab", false),
        piece(5, 1, b"bc", false),
        piece(5, 3, b"def", true),
        piece(5, 2, b"cdefg", true),
        piece(5, 2, b"cdef", false),
        piece(5, 2, b"cd", true),
        Fragment { origin: 1, ..piece(5, 2, b"cd", false) },
    ];
    for fragment in wrong {
        assert_eq!(code(assembly.add(&fragment)), ErrorCode::FRAGMENT_ORDER, "{fragment:?}");
    }
    assert_eq!(assembly.add(&piece(5, 2, b"cd", false)), Ok(Piece::Taken));
    let Ok(Piece::Completed(whole)) = assembly.add(&piece(5, 4, b"ef", true)) else {
        panic!("that was all")
    };
    let message = whole.message();
    assert_eq!((message.payload, message.fragmented, whole.since()), (&b"abcdef"[..], None, 3));
    assert!(assembly.is_empty() && assembly.reserved() == 0);
    assert_eq!(code(assembly.add(&piece(5, 6, b"g", true))), ErrorCode::FRAGMENT_ORDER);
}

/// FRG-3.
#[test]
fn what_is_open_at_once_is_bounded() {
    let mut assembly = Assembly::default();
    begin(&mut assembly, 0, &publish(1, 2, b"a")).unwrap();
    assert_eq!(code(begin(&mut assembly, 0, &publish(1, 9, b"b"))), ErrorCode::UNEXPECTED_FRAME);
    let most = FRAGMENTED_BYTES_MAX / 2;
    begin(&mut assembly, 0, &publish(2, most, b"")).unwrap();
    let beyond = begin(&mut assembly, 0, &publish(3, most, b""));
    assert_eq!(code(beyond), ErrorCode::UNEXPECTED_FRAME);
    begin(&mut assembly, 0, &publish(3, most - 2, b"")).unwrap();
    assert!(assembly.reserved() < 300, "memory is for what has come: {}", assembly.reserved());
    let mut assembly = Assembly::default();
    for sequence in 1..=FRAGMENTED_MAX as u64 {
        begin(&mut assembly, 0, &publish(sequence, 2, b"a")).unwrap();
    }
    let beyond = begin(&mut assembly, 0, &publish(99, 2, b"a")).unwrap_err();
    assert!(beyond.to_string().contains("fragmented_max"), "{beyond}");
    assembly.add(&piece(4, 1, b"b", true)).unwrap();
    begin(&mut assembly, 0, &publish(99, 2, b"a")).unwrap();
}

/// FRG-9.
#[test]
fn what_is_forgotten_takes_no_memory_and_is_checked_all_the_same() {
    let mut assembly = Assembly::default();
    begin(&mut assembly, 0, &publish(1, 4, b"a")).unwrap();
    assembly.forget(1, 0);
    assert_eq!((assembly.reserved(), assembly.len(), assembly.is_empty()), (0, 0, false));
    assert!(assembly.message(1, 0).is_none());
    assert_eq!(assembly.add(&piece(1, 1, b"b", false)), Ok(Piece::Forgotten));
    assert_eq!(code(assembly.add(&piece(1, 1, b"b", false))), ErrorCode::FRAGMENT_ORDER);
    assert_eq!(assembly.add(&piece(1, 2, b"cd", true)), Ok(Piece::Forgotten));
    assert!(assembly.is_empty());
}

#[test]
fn a_payload_is_cut_into_pieces_and_what_is_left() {
    let cut = |total, from, piece| cuts(total, from, piece).collect::<Vec<_>>();
    assert_eq!(cut(10, 4, 3), [4..7, 7..10]);
    assert_eq!(cut(11, 4, 3), [4..7, 7..10, 10..11]);
    assert_eq!(cut(4, 4, 3), []);
}

proptest! {
    /// FRG-1, FRG-2: whatever the cuts and whatever goes between, what comes out is what would have
    /// come in one piece.
    #[test]
    fn pieces_come_to_what_was_cut(
        sizes in vec((1..400usize, 1..60usize), 1..=FRAGMENTED_MAX),
        turns in vec(any::<prop::sample::Index>(), 0..600),
    ) {
        let payload = |at: usize, size| -> Vec<u8> {
            (0..size).map(|byte| u8::try_from((at * 31 + byte * 7) % 251).unwrap()).collect()
        };
        let mut left: Vec<_> = sizes.iter().enumerate().map(|(at, &(size, step))| {
            let first = step.min(size) - 1;
            (at, payload(at, size), first, cuts(size, first, step).collect::<Vec<_>>())
        }).collect();
        let mut assembly = Assembly::default();
        for (at, payload, first, _) in &left {
            let frame = publish(*at as u64 + 1, payload.len(), &payload[..*first]);
            begin(&mut assembly, *at as u64, &frame).unwrap();
        }
        let mut turns = turns.into_iter();
        while !left.is_empty() {
            let which = turns.next().map_or(0, |turn| turn.index(left.len()));
            let (at, payload, _, cuts) = &mut left[which];
            let range = cuts.remove(0);
            let last = range.end == payload.len();
            prop_assert_eq!(last, cuts.is_empty());
            let sequence = *at as u64 + 1;
            let came = assembly.add(&piece(sequence, range.start, &payload[range], last));
            prop_assert!(assembly.invariants());
            if last {
                let Ok(Piece::Completed(whole)) = came else { panic!("{came:?}") };
                let (mut plain, head) = (Vec::new(), whole.message().head());
                let expected = MessageHead { fragmented: None, ..head };
                prop_assert_eq!(head, expected);
                head.encode_publish(&[1, 2], payload, &mut plain).unwrap();
                prop_assert_eq!(whole.since(), *at as u64);
                prop_assert_eq!(whole.into_bytes(), plain);
                left.remove(which);
            } else {
                prop_assert_eq!(came, Ok(Piece::Taken));
            }
        }
        prop_assert!(assembly.is_empty());
    }
}
