//! The outbox against a naive queue of frames.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::{AHEAD_PART, Outbox, TTL_OFFSET, Taken, Terms};
use crate::limits::WRITE_BYTES;

const MOST: usize = 4096;

#[derive(Clone, Debug)]
enum Step {
    Offer { bytes: usize, ttl_ms: u32 },
    Control { bytes: usize },
    Take,
    Wait { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (32..600usize, prop_oneof![Just(0), 1..50u32])
            .prop_map(|(bytes, ttl_ms)| Step::Offer { bytes, ttl_ms }),
        1 => (1..40usize).prop_map(|bytes| Step::Control { bytes }),
        2 => Just(Step::Take),
        2 => (0..30u64).prop_map(|ms| Step::Wait { ms }),
    ];
    prop::collection::vec(step, 0..80)
}

/// A frame filled with its number, with its time to live where a message has it.
fn frame(number: u8, bytes: usize, ttl_ms: u32) -> Vec<u8> {
    let mut frame = vec![number; bytes];
    frame[TTL_OFFSET..TTL_OFFSET + 4].copy_from_slice(&ttl_ms.to_le_bytes());
    frame
}

#[derive(Default)]
struct Naive {
    control: Vec<u8>,
    frames: VecDeque<(u8, usize, u32, u64)>,
    expired: Vec<u64>,
}

impl Naive {
    fn waiting(&self) -> usize {
        self.frames.iter().map(|(_, bytes, ..)| bytes).sum()
    }

    fn take(&mut self, now_ms: u64) -> (Vec<u8>, Taken) {
        let mut out = std::mem::take(&mut self.control);
        let mut taken = Taken::default();
        for (number, bytes, ttl_ms, since) in self.frames.drain(..) {
            let left = (since + u64::from(ttl_ms)).saturating_sub(now_ms);
            if ttl_ms != 0 && left == 0 {
                taken.expired += 1;
                self.expired.push(number.into());
                continue;
            }
            let left = if ttl_ms == 0 { 0 } else { u32::try_from(left).unwrap() };
            out.extend(frame(number, bytes, left));
            taken.frames += 1;
        }
        (out, taken)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn promise_5_and_7_every_frame_is_written_expired_or_refused_within_the_bound(steps in steps()) {
        let (mut outbox, mut naive) = (Outbox::new(MOST), Naive::default());
        let (mut now_ms, mut number) = (0, 0u8);
        for step in steps {
            let now = Duration::from_millis(now_ms);
            match step {
                Step::Offer { bytes, ttl_ms } => {
                    number = number.wrapping_add(1);
                    let fits = naive.waiting() + bytes <= MOST;
                    let terms = Terms { ttl_ms, number: number.into(), is_traced: number % 3 == 0 };
                    let data = frame(number, bytes, ttl_ms);
                    let offered = outbox.offer(now, terms, |out| out.extend(data));
                    prop_assert_eq!(offered, fits);
                    if fits {
                        naive.frames.push_back((number, bytes, ttl_ms, now_ms));
                    }
                }
                Step::Control { bytes } => {
                    outbox.control().extend(vec![0xcc; bytes]);
                    naive.control.extend(vec![0xcc; bytes]);
                }
                Step::Take => {
                    let (data, taken) = outbox.take(now);
                    prop_assert_eq!((data.clone(), taken), naive.take(now_ms));
                    let expired = std::mem::take(&mut naive.expired);
                    // A number of 0 asks for nothing.
                    let asked = expired.into_iter().filter(|number| *number != 0);
                    prop_assert_eq!(outbox.take_expired(), asked.collect::<Vec<_>>());
                    outbox.recycle(data);
                }
                Step::Wait { ms } => now_ms += ms,
            }
            prop_assert_eq!(outbox.room().waiting() - outbox.credit, naive.waiting());
            prop_assert!(outbox.credit <= MOST / AHEAD_PART);
            prop_assert_eq!(outbox.frames(), naive.frames.len());
        }
    }
}

#[test]
fn one_write_ends_at_the_first_frame_that_passes_its_size() {
    let mut outbox = Outbox::new(1 << 20);
    for number in 0..10 {
        assert!(
            outbox.offer(Duration::ZERO, Terms::default(), |out| out
                .extend(frame(number, 100_000, 0)))
        );
    }
    let sizes: Vec<usize> = std::iter::from_fn(|| {
        let (data, _) = outbox.take(Duration::ZERO);
        (!data.is_empty()).then_some(data.len())
    })
    .collect();
    assert_eq!(sizes, [300_000, 300_000, 300_000, 100_000]);
    const { assert!(WRITE_BYTES < 300_000) };
}

#[test]
fn answers_go_ahead_of_messages_and_are_never_refused() {
    let mut outbox = Outbox::new(100);
    assert!(outbox.offer(Duration::ZERO, Terms::default(), |out| out.extend([1; 100])));
    assert!(!outbox.offer(Duration::ZERO, Terms::default(), |out| out.push(2)));
    outbox.control().extend([9; 500]);
    let (data, taken) = outbox.take(Duration::ZERO);
    assert_eq!((data.len(), &data[..500], taken.frames), (600, &[9; 500][..], 1));
    assert_eq!(outbox.room().waiting(), 0);
}

#[test]
fn what_is_abandoned_is_counted_and_its_room_given_back() {
    let mut outbox = Outbox::new(1000);
    for _ in 0..3 {
        assert!(outbox.offer(Duration::ZERO, Terms::default(), |out| out.extend([1; 40])));
    }
    outbox.control().push(9);
    assert_eq!(outbox.abandon(), 3);
    assert_eq!(outbox.room().waiting(), 0);
    assert_eq!(outbox.take(Duration::ZERO).0, [9], "answers are not abandoned");
}
