//! Runs among a lane's own frames: what one write takes of them, what they hold, how old they are.

use std::time::Duration;

use waybill_wire::code::Kind;
use waybill_wire::message::MessageHead;

use super::*;
use crate::io::joined;
use crate::outbox::{Policy, Terms};

fn frame(sequence: u64, bytes: usize) -> Vec<u8> {
    let head = MessageHead { sequence, everyone: true, origin: Some(9), ..MessageHead::default() };
    let mut frame = Vec::new();
    head.encode(Kind::DELIVER, &[][..], &vec![7; bytes], &mut frame).expect("a test's own message");
    frame
}

/// Messages with these sequences, in a buffer that is larger by `beyond`.
fn run(sequences: std::ops::Range<u64>, bytes: usize, beyond: usize) -> Run {
    let count = usize::try_from(sequences.end - sequences.start).expect("a few");
    let frames: Vec<u8> = sequences.flat_map(|sequence| frame(sequence, bytes)).collect();
    let held = frames.len() + beyond;
    Run::new(frames.into(), count, held)
}

fn own(outbox: &mut Outbox, sequence: u64) {
    let frame = frame(sequence, 8);
    let taken = outbox.offer(Duration::ZERO, Terms::default(), |out| out.extend(frame));
    assert_eq!(taken, Ok(()));
}

fn shared(outbox: &mut Outbox, run: &Run) {
    assert!(outbox.offer_run(Priority::NORMAL, run));
}

/// The sequences of what is written next, and how many pieces of it lie elsewhere.
fn written(outbox: &mut Outbox) -> (Vec<u64>, usize) {
    let (Write { data, pieces, .. }, frames) = outbox.take(Duration::ZERO);
    let all = joined(data.clone(), &pieces);
    let mut rest = &all[..];
    let mut sequences = Vec::new();
    while !rest.is_empty() {
        let frame = rest.split_off(..length(rest)).expect("frames are whole");
        sequences.push(u64::from_le_bytes(*frame[16..].first_chunk().expect("a header")));
    }
    assert_eq!(sequences.len() as u64, frames);
    outbox.recycle(Duration::ZERO, data);
    (sequences, pieces.len())
}

#[test]
fn promise_2_frames_of_runs_keep_their_places_among_others() {
    let mut outbox = Outbox::new(1 << 20);
    shared(&mut outbox, &run(1..3, 8, 0));
    own(&mut outbox, 3);
    shared(&mut outbox, &run(4..6, 8, 0));
    shared(&mut outbox, &run(6..7, 8, 0));
    own(&mut outbox, 7);
    assert_eq!(written(&mut outbox), ((1..8).collect(), 3));
    assert!(outbox.is_empty() && outbox.room().waiting() == outbox.credit);
}

#[test]
fn one_write_ends_in_the_middle_of_a_run() {
    let mut outbox = Outbox::new(4 << 20);
    shared(&mut outbox, &run(1..11, 100_000, 0));
    own(&mut outbox, 11);
    assert_eq!(written(&mut outbox), ((1..4).collect(), 1));
    assert!(outbox.invariant());
    assert_eq!(written(&mut outbox), ((4..7).collect(), 1));
    assert_eq!(written(&mut outbox), ((7..10).collect(), 1));
    assert_eq!(written(&mut outbox), (vec![10, 11], 1));
}

#[test]
fn promise_7_a_frame_that_is_left_holds_all_of_its_buffer_until_it_is_written() {
    let mut outbox = Outbox::new(4 << 20);
    let before = outbox.held();
    let run = run(1..5, 100_000, 1_000);
    let held = run.held;
    shared(&mut outbox, &run);
    assert!(outbox.held() >= before + held);
    let (write, frames) = outbox.take(Duration::ZERO);
    assert_eq!(frames, 3);
    assert!(outbox.held() >= before + 2 * held, "by the write, and by the one that is left");
    outbox.recycle(Duration::ZERO, write.data);
    assert!((before + held..before + 2 * held).contains(&outbox.held()));
    let (write, _) = outbox.take(Duration::ZERO);
    assert!(outbox.held() >= before + held, "it is being written");
    outbox.recycle(Duration::ZERO, write.data);
    outbox.heed(0, true);
    assert_eq!(outbox.held(), before);
}

#[test]
fn del_33_34_a_run_is_as_old_as_itself_and_not_as_what_lies_at_its_place() {
    let mut outbox = Outbox::new(4096);
    outbox.set_policy(Policy::DropOldest, Some(Duration::from_secs(1)));
    for (at_ms, sequences) in [(0, 1..3), (500, 3..4), (900, 4..6)] {
        shared(&mut outbox, &run(sequences, 8, 0));
        outbox.look(Duration::from_millis(at_ms));
    }
    // Nothing of the lane's own waits, so that memory for it is given back, and no age is.
    outbox.heed(4096, true);
    outbox.look(Duration::from_millis(1000));
    assert_eq!((outbox.frames(), outbox.take_gone().aged), (3, 2));
    outbox.look(Duration::from_millis(1500));
    assert_eq!((outbox.frames(), outbox.take_gone().aged), (2, 1));
    assert_eq!(written(&mut outbox).0, [4, 5]);
}

#[test]
fn del_14_what_waits_in_a_run_too_long_closes_the_outbox_until_it_is_written() {
    let mut outbox = Outbox::new(4096);
    outbox.set_policy(Policy::Refuse, Some(Duration::from_secs(1)));
    shared(&mut outbox, &run(1..3, 8, 0));
    for at_ms in [0, 1000, 1001] {
        outbox.look(Duration::from_millis(at_ms));
    }
    assert!(!outbox.room().is_open());
    assert!(!outbox.offer_run(Priority::HIGH, &run(3..4, 8, 0)), "nor is another run taken");
    let (write, _) = outbox.take(Duration::from_millis(1001));
    outbox.recycle(Duration::from_millis(1001), write.data);
    assert!(outbox.room().is_open());
}

#[test]
fn what_is_abandoned_gives_its_runs_back() {
    let mut outbox = Outbox::new(4096);
    let run = run(1..4, 8, 0);
    shared(&mut outbox, &run);
    own(&mut outbox, 4);
    assert_eq!((outbox.abandon(), outbox.room().waiting()), (4, 0));
    assert!(run.bytes.is_unique() && outbox.is_empty());
}
