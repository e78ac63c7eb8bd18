//! The outbox against a naive one, which keeps a list of frames and looks through all of it.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use waybill_wire::Frame;
use waybill_wire::code::{Kind, Priority};
use waybill_wire::message::{Message, MessageHead, Part};

use super::{Care, Cause, Gone, Outbox, Policy, QUEUES, Run, Terms, Write, queue_of};
use crate::io::joined;
use crate::limits::WRITE_BYTES;

const MOST: usize = 2048;

#[derive(Clone, Debug)]
enum Step {
    Offer(Offered, bool),
    /// Messages that lie in one buffer, of these many bytes of payload.
    Run(Priority, Vec<usize>),
    Control {
        bytes: usize,
    },
    Take,
    Wait {
        ms: u64,
    },
}

/// A message to be offered.
#[derive(Clone, Debug)]
struct Offered {
    priority: Priority,
    key: Option<u64>,
    targets: Vec<u64>,
    payload: usize,
    ttl_ms: u32,
    is_part: bool,
    has_number: bool,
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![Just(Priority::NORMAL), Just(Priority::HIGH), Just(Priority::BULK)]
}

fn offered() -> impl Strategy<Value = Offered> {
    let priority = priority();
    let key = prop_oneof![1 => Just(None), 2 => (1..3u64).prop_map(Some)];
    let targets = prop_oneof![
        3 => (1..4u64).prop_map(|uid| vec![uid]),
        1 => Just(vec![1, 2]),
        1 => Just(Vec::new()),
    ];
    let payload = prop_oneof![2 => Just(8usize), 1 => 0..300usize];
    let ttl_ms = prop_oneof![2 => Just(0), 1 => 1..50u32];
    (priority, key, targets, payload, ttl_ms, prop::bool::weighted(0.1), any::<bool>()).prop_map(
        |(priority, key, targets, payload, ttl_ms, is_part, has_number)| Offered {
            priority,
            key,
            targets,
            payload,
            ttl_ms,
            is_part,
            has_number,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (offered(), prop::bool::weighted(0.2)).prop_map(|(it, mailed)| Step::Offer(it, mailed)),
        2 => (priority(), prop::collection::vec(0..200usize, 1..6))
            .prop_map(|(priority, payloads)| Step::Run(priority, payloads)),
        1 => (1..40usize).prop_map(|bytes| Step::Control { bytes }),
        1 => Just(Step::Take),
        2 => (0..30u64).prop_map(|ms| Step::Wait { ms }),
    ];
    prop::collection::vec(step, 0..150)
}

impl Offered {
    fn frame(&self, sequence: u64, ttl_ms: u32) -> Vec<u8> {
        let head = MessageHead {
            sequence,
            ttl_ms,
            priority: self.priority,
            conflate: self.key,
            everyone: self.targets.is_empty(),
            part: self.is_part.then_some(Part { list: 1, index: 0, parts: 1 }),
            origin: Some(9),
            ..MessageHead::default()
        };
        let (mut frame, payload) = (Vec::new(), vec![7; self.payload]);
        head.encode(Kind::DELIVER, &self.targets[..], &payload, &mut frame).unwrap();
        frame
    }

    fn care(&self) -> Care {
        let conflates = self.key.is_some();
        Care { ttl_ms: self.ttl_ms, priority: self.priority, conflates }
    }

    fn is_wide(&self) -> bool {
        self.targets.len() != 1
    }
}

/// A frame that waits.
#[derive(Clone, Debug)]
struct Waiting {
    sequence: u64,
    it: Offered,
    since_ms: u64,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.it.frame(1, 0).len()
    }

    fn left_ms(&self, now_ms: u64) -> Option<u32> {
        let ttl_ms = u64::from(self.it.ttl_ms);
        let left = (self.since_ms + ttl_ms).saturating_sub(now_ms);
        if ttl_ms == 0 { Some(0) } else { u32::try_from(left).ok().filter(|left| *left > 0) }
    }
}

#[derive(Default)]
struct Naive {
    control: Vec<u8>,
    queues: [Vec<Waiting>; QUEUES],
    drops_oldest: bool,
    gone: Gone,
}

impl Naive {
    fn waiting(&self) -> usize {
        self.queues.iter().flatten().map(Waiting::bytes).sum()
    }

    /// The lowest number of those that wait.
    fn first(&self) -> u64 {
        self.queues.iter().flatten().map(|it| it.sequence).min().unwrap_or(u64::MAX)
    }

    fn add_gone(&mut self, cause: Cause, of: &Waiting) {
        self.gone.add(cause, if of.it.has_number { of.sequence } else { 0 });
    }

    /// The last one that agrees, if nothing that may be for one of its users comes after it.
    fn place_for(&self, new: &Offered) -> Option<usize> {
        new.key.filter(|_| !new.is_part)?;
        let queue = &self.queues[queue_of(new.priority)];
        for (place, old) in queue.iter().enumerate().rev().filter(|(_, old)| old.it.key == new.key)
        {
            if old.it.targets == new.targets {
                return (!old.it.is_part).then_some(place);
            }
            if old.it.is_wide() || new.is_wide() {
                return None;
            }
        }
        None
    }

    fn drop_expired(&mut self, now_ms: u64) {
        for at in 0..QUEUES {
            let all = std::mem::take(&mut self.queues[at]);
            for it in all {
                if it.left_ms(now_ms).is_some() {
                    self.queues[at].push(it);
                } else {
                    self.add_gone(Cause::Expired, &it);
                }
            }
        }
    }

    fn drop_oldest(&mut self, least: usize) -> bool {
        let Some(at) = (least..QUEUES).rev().find(|at| !self.queues[*at].is_empty()) else {
            return false;
        };
        let oldest = self.queues[at].remove(0);
        self.add_gone(Cause::Full, &oldest);
        true
    }

    fn offer(&mut self, new: Waiting, mut sweeps: bool, is_mailed: bool, now_ms: u64) -> bool {
        let at = queue_of(new.it.priority);
        loop {
            let place = self.place_for(&new.it);
            let old = place.map_or(0, |place| self.queues[at][place].bytes());
            let adds = self.waiting() - old + new.bytes();
            if is_mailed || adds <= MOST || new.bytes() <= old {
                if let Some(place) = place {
                    let old = std::mem::replace(&mut self.queues[at][place], new);
                    self.add_gone(Cause::Conflated, &old);
                } else {
                    self.queues[at].push(new);
                }
                break;
            }
            if std::mem::take(&mut sweeps) {
                self.drop_expired(now_ms);
                continue;
            }
            // Nothing is dropped for one that would not fit then either.
            let stays: usize = self.queues[..at].iter().flatten().map(Waiting::bytes).sum();
            let fits = self.drops_oldest && stays + new.bytes() <= MOST;
            if !(fits && self.drop_oldest(at)) {
                return false;
            }
        }
        let is_alone = |it: &Self| it.queues[at..].iter().flatten().count() < 2;
        while is_mailed && self.drops_oldest && self.waiting() > MOST && !is_alone(self) {
            self.drop_oldest(at);
        }
        true
    }

    fn take(&mut self, now_ms: u64) -> (Vec<u8>, u64) {
        let (mut out, mut frames) = (std::mem::take(&mut self.control), 0);
        for at in 0..QUEUES {
            for it in std::mem::take(&mut self.queues[at]) {
                match it.left_ms(now_ms) {
                    None => self.add_gone(Cause::Expired, &it),
                    Some(left_ms) => {
                        out.extend(it.it.frame(it.sequence, left_ms));
                        frames += 1;
                    }
                }
            }
        }
        (out, frames)
    }
}

/// A message of a run, with this sequence and as many bytes of payload.
fn in_run(priority: Priority, since_ms: u64) -> impl Fn((u64, &usize)) -> Waiting {
    let (key, ttl_ms, is_part, has_number) = (None, 0, false, false);
    move |(sequence, payload)| {
        let (targets, payload) = (Vec::new(), *payload);
        let it = Offered { priority, key, targets, payload, ttl_ms, is_part, has_number };
        Waiting { sequence, it, since_ms }
    }
}

fn run_of(frames: &[Vec<u8>]) -> Run {
    let bytes = frames.concat();
    let held = bytes.len() + 10;
    Run::new(bytes.into(), frames.len(), held)
}

/// Offers messages as a run, and one by one where there is no room for all of them.
fn offer_run(
    outbox: &mut Outbox,
    naive: &mut Naive,
    (priority, all): (Priority, Vec<Waiting>),
    now_ms: u64,
) -> Result<(), TestCaseError> {
    let frames: Vec<Vec<u8>> = all.iter().map(|it| it.it.frame(it.sequence, 0)).collect();
    if outbox.offer_run(priority, &run_of(&frames)) {
        naive.queues[queue_of(priority)].extend(all);
        return Ok(());
    }
    for (new, frame) in all.into_iter().zip(frames) {
        let terms = Terms { care: new.it.care(), ..Terms::default() };
        let now = Duration::from_millis(now_ms);
        let taken = outbox.offer(now, terms, |out| out.extend(frame)).is_ok();
        let gone = outbox.take_gone();
        prop_assert_eq!(taken, naive.offer(new, gone.expired > 0, false, now_ms));
        prop_assert_eq!(gone, std::mem::take(&mut naive.gone));
    }
    Ok(())
}

fn check(steps: Vec<Step>, policy: Policy) -> Result<(), TestCaseError> {
    let mut outbox = Outbox::new(MOST);
    outbox.set_policy(policy, None);
    let mut naive = Naive { drops_oldest: policy == Policy::DropOldest, ..Naive::default() };
    let (mut now_ms, mut sequence, mut marked) = (0, 0, None);
    for step in steps {
        let now = Duration::from_millis(now_ms);
        match step {
            Step::Offer(it, is_mailed) => {
                sequence += 1;
                let (care, frame) = (it.care(), it.frame(sequence, it.ttl_ms));
                let number = if it.has_number { sequence } else { 0 };
                let terms = Terms { care, number, is_traced: sequence % 3 == 0 };
                let new = Waiting { sequence, it, since_ms: now_ms };
                if is_mailed && !outbox.room().reserve(frame.len()) {
                    continue;
                }
                let taken = if is_mailed {
                    outbox.accept(now, terms, &frame, Bytes::new());
                    true
                } else {
                    let offered = outbox.offer(now, terms, |out| out.extend(frame));
                    prop_assert!(offered.is_ok() || offered == Err(Cause::Full));
                    offered.is_ok()
                };
                let gone = outbox.take_gone();
                prop_assert_eq!(taken, naive.offer(new, gone.expired > 0, is_mailed, now_ms));
                prop_assert_eq!(gone, std::mem::take(&mut naive.gone));
            }
            Step::Run(priority, payloads) => {
                let first = sequence + 1;
                sequence += payloads.len() as u64;
                let all = (first..).zip(&payloads).map(in_run(priority, now_ms)).collect();
                offer_run(&mut outbox, &mut naive, (priority, all), now_ms)?;
            }
            Step::Control { bytes } => {
                outbox.control().extend(vec![0xcc; bytes]);
                naive.control.extend(vec![0xcc; bytes]);
            }
            Step::Take => {
                let (Write { data, pieces, .. }, frames) = outbox.take(now);
                prop_assert_eq!((joined(data.clone(), &pieces), frames), naive.take(now_ms));
                prop_assert_eq!(outbox.take_gone(), std::mem::take(&mut naive.gone));
                outbox.recycle(now, data);
            }
            Step::Wait { ms } => now_ms += ms,
        }
        // A mark of before says so when the last of its frames has left, or later.
        let naive_left = marked.is_none_or(|(upto, _)| naive.first() > upto);
        prop_assert!(marked.is_none_or(|(_, mark)| naive_left || !outbox.has_left(mark)));
        prop_assert!(
            naive.queues.iter().flatten().count() > 0 || outbox.has_left(outbox.entered())
        );
        if naive_left {
            marked = Some((sequence, outbox.entered()));
        }
        let most = if policy == Policy::DropOldest { MOST + MOST / 4 } else { MOST };
        prop_assert!(outbox.invariant() && naive.waiting() <= most);
        prop_assert_eq!(outbox.waiting(), naive.waiting());
        prop_assert_eq!(outbox.frames(), naive.queues.iter().flatten().count());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn promise_5_to_7_every_frame_is_written_in_order_or_gone_for_a_cause_within_the_bound(
        steps in steps(),
    ) {
        check(steps, Policy::Refuse)?;
    }

    #[test]
    fn del_34_the_oldest_of_the_lowest_priority_makes_room(steps in steps()) {
        check(steps, Policy::DropOldest)?;
    }
}

fn plain(priority: Priority, payload: usize) -> (Terms, Vec<u8>) {
    keyed(priority, None, &[1], payload)
}

fn keyed(
    priority: Priority,
    key: Option<u64>,
    targets: &[u64],
    payload: usize,
) -> (Terms, Vec<u8>) {
    let (ttl_ms, is_part, has_number) = (0, false, false);
    let targets = targets.to_vec();
    let it = Offered { priority, key, targets, payload, ttl_ms, is_part, has_number };
    (Terms { care: it.care(), ..Terms::default() }, it.frame(1, 0))
}

fn offer(outbox: &mut Outbox, at_ms: u64, (terms, frame): (Terms, Vec<u8>)) -> Result<(), Cause> {
    outbox.offer(Duration::from_millis(at_ms), terms, |out| out.extend(frame))
}

fn look(outbox: &mut Outbox, at_ms: u64) -> Option<Cause> {
    outbox.look(Duration::from_millis(at_ms))
}

fn messages(mut data: &[u8]) -> Vec<(Priority, Option<u64>, Vec<u64>, usize)> {
    let seen =
        |it: Message<'_>| (it.priority, it.conflate, it.targets.iter().collect(), it.payload.len());
    let mut all = Vec::new();
    while !data.is_empty() {
        let bytes = usize::from(u16::from_le_bytes([data[2], data[3]])) * 8
            + u32::from_le_bytes([data[4], data[5], data[6], data[7]]) as usize;
        let Ok(Frame::Deliver(message)) = Frame::decode(&data[..bytes]) else { panic!() };
        all.push(seen(message));
        data = &data[bytes..];
    }
    all
}

fn taken(outbox: &mut Outbox) -> Vec<(Priority, Option<u64>, Vec<u64>, usize)> {
    let data = outbox.take(Duration::ZERO).0.data;
    messages(&data)
}

#[test]
fn one_write_ends_at_the_first_frame_that_passes_its_size() {
    let mut outbox = Outbox::new(2 << 20);
    for _ in 0..10 {
        assert_eq!(offer(&mut outbox, 0, plain(Priority::NORMAL, 100_000 - 48)), Ok(()));
    }
    let sizes: Vec<usize> = std::iter::from_fn(|| {
        let data = outbox.take(Duration::ZERO).0.data;
        (!data.is_empty()).then_some(data.len())
    })
    .collect();
    assert_eq!(sizes, [300_000, 300_000, 300_000, 100_000]);
    const { assert!(WRITE_BYTES < 300_000) };
}

#[test]
fn a_look_that_finds_nothing_to_write_keeps_the_buffer_for_the_next() {
    let mut outbox = Outbox::new(1 << 20);
    outbox.recycle(Duration::ZERO, Vec::with_capacity(1000));
    let held = outbox.held();
    assert!(held >= 1000, "{held}");
    assert!(outbox.take_answers().is_empty());
    assert_eq!(outbox.held(), held);
    assert!(outbox.take(Duration::ZERO).0.is_empty());
    assert_eq!(outbox.held(), held);
}

#[test]
fn answers_go_ahead_of_messages_and_are_never_refused() {
    let mut outbox = Outbox::new(100);
    assert_eq!(offer(&mut outbox, 0, plain(Priority::NORMAL, 52)), Ok(()));
    assert_eq!(offer(&mut outbox, 0, plain(Priority::HIGH, 0)), Err(Cause::Full));
    outbox.control().extend([9; 500]);
    let (Write { data, .. }, frames) = outbox.take(Duration::ZERO);
    assert_eq!((data.len(), &data[..500], frames), (600, &[9; 500][..], 1));
    assert_eq!(outbox.room().waiting(), 0);
}

#[test]
fn what_is_abandoned_is_counted_and_its_room_given_back() {
    let mut outbox = Outbox::new(1000);
    for priority in [Priority::NORMAL, Priority::BULK, Priority::HIGH] {
        assert_eq!(offer(&mut outbox, 0, keyed(priority, Some(1), &[1], 0)), Ok(()));
    }
    outbox.control().push(9);
    assert_eq!(outbox.abandon(), 3);
    assert_eq!(outbox.room().waiting(), 0);
    assert_eq!(outbox.take(Duration::ZERO).0.data, [9], "answers are not abandoned");
    assert_eq!(offer(&mut outbox, 0, keyed(Priority::NORMAL, Some(1), &[1], 0)), Ok(()));
    assert!(!outbox.has_gone(), "nothing is left to be replaced");
}

#[test]
fn del_21_a_frame_with_a_key_takes_the_place_of_the_one_that_waits() {
    let normal = |key, targets: &[u64], payload| keyed(Priority::NORMAL, key, targets, payload);
    let mut outbox = Outbox::new(4096);
    for it in [
        normal(Some(1), &[1], 10),
        normal(None, &[1], 11),
        normal(Some(1), &[2], 12),
        // The first is replaced by a longer, a shorter and an equal one.
        normal(Some(1), &[1], 500),
        normal(Some(1), &[1], 5),
        normal(Some(1), &[1], 6),
        normal(Some(1), &[1], 6),
    ] {
        assert_eq!(offer(&mut outbox, 0, it), Ok(()));
        assert!(outbox.invariant());
    }
    assert_eq!(outbox.take_gone().conflated, 4);
    let normal = Priority::NORMAL;
    let expected = [
        (normal, Some(1), vec![1], 6),
        (normal, None, vec![1], 11),
        (normal, Some(1), vec![2], 12),
    ];
    assert_eq!(taken(&mut outbox), expected);
}

#[test]
fn del_36_nothing_is_put_ahead_of_what_may_be_for_the_same_user() {
    let normal = |targets: &[u64], payload| keyed(Priority::NORMAL, Some(1), targets, payload);
    let mut outbox = Outbox::new(4096);
    for it in [
        normal(&[1], 1),
        normal(&[1, 2], 2),
        normal(&[1], 3),
        normal(&[1, 2], 4),
        keyed(Priority::HIGH, Some(1), &[1, 2], 5),
        normal(&[], 6),
        normal(&[1, 2], 7),
        normal(&[1, 2], 8),
    ] {
        assert_eq!(offer(&mut outbox, 0, it), Ok(()));
    }
    assert_eq!(outbox.take_gone().conflated, 1);
    let payloads: Vec<usize> = taken(&mut outbox).into_iter().map(|it| it.3).collect();
    assert_eq!(payloads, [5, 1, 2, 3, 4, 6, 8]);
}

#[test]
fn del_14_a_message_that_finds_those_before_it_too_old_is_refused_until_they_are_written() {
    // So much that something is reserved ahead.
    let mut outbox = Outbox::new(1 << 20);
    outbox.set_policy(Policy::Refuse, Some(Duration::from_secs(1)));
    assert_eq!(offer(&mut outbox, 0, plain(Priority::NORMAL, 0)), Ok(()));
    outbox.take(Duration::ZERO);
    outbox.recycle(Duration::ZERO, Vec::new());
    assert_eq!(offer(&mut outbox, 0, keyed(Priority::NORMAL, Some(1), &[1], 0)), Ok(()));
    for at_ms in (0..=1000).step_by(100) {
        assert_eq!((look(&mut outbox, at_ms), outbox.room().is_open()), (None, true));
    }
    assert_eq!(offer(&mut outbox, 1000, plain(Priority::BULK, 0)), Ok(()));
    assert_eq!((look(&mut outbox, 1100), outbox.room().is_open()), (None, false));
    assert_eq!(offer(&mut outbox, 1100, plain(Priority::HIGH, 0)), Err(Cause::Aged));
    assert!(!outbox.room().reserve(1), "nor is anything from elsewhere taken");
    let instead = keyed(Priority::NORMAL, Some(1), &[1], 0);
    assert_eq!(offer(&mut outbox, 1100, instead), Ok(()), "it adds nothing");
    // What the transport was given and does not take counts from then on.
    let (Write { data, .. }, frames) = outbox.take(Duration::from_millis(1100));
    assert_eq!((frames, outbox.room().is_open()), (2, true));
    assert_eq!(offer(&mut outbox, 1100, plain(Priority::NORMAL, 0)), Ok(()));
    assert_eq!((look(&mut outbox, 2101), outbox.room().is_open()), (None, false));
    outbox.recycle(Duration::from_millis(2101), data);
    assert!(outbox.room().is_open(), "what is left was seen at that look for the first time");
}

#[test]
fn del_33_34_what_has_waited_too_long_is_dropped_of_whatever_priority() {
    let mut outbox = Outbox::new(4096);
    outbox.set_policy(Policy::DropOldest, Some(Duration::from_secs(1)));
    assert_eq!(offer(&mut outbox, 0, plain(Priority::HIGH, 1)), Ok(()));
    assert_eq!(offer(&mut outbox, 0, keyed(Priority::BULK, Some(1), &[1], 2)), Ok(()));
    look(&mut outbox, 0);
    assert_eq!(offer(&mut outbox, 500, plain(Priority::BULK, 3)), Ok(()));
    look(&mut outbox, 500);
    // As old as the place it takes.
    assert_eq!(offer(&mut outbox, 999, keyed(Priority::BULK, Some(1), &[1], 4)), Ok(()));
    assert_eq!((look(&mut outbox, 999), outbox.frames()), (None, 3));
    assert_eq!((look(&mut outbox, 1000), outbox.frames()), (None, 1));
    let gone = outbox.take_gone();
    assert_eq!((gone.aged, gone.conflated, gone.count()), (2, 1, 3));
    assert_eq!(taken(&mut outbox), [(Priority::BULK, None, vec![1], 3)]);
}

#[test]
fn del_35_a_full_outbox_or_an_old_one_ends_the_link_if_that_is_the_policy() {
    let mut outbox = Outbox::new(100);
    outbox.set_policy(Policy::Close, Some(Duration::from_secs(1)));
    assert_eq!(offer(&mut outbox, 0, plain(Priority::NORMAL, 0)), Ok(()));
    assert_eq!(look(&mut outbox, 0), None);
    assert_eq!(look(&mut outbox, 1000), None);
    assert_eq!(look(&mut outbox, 1001), Some(Cause::Aged));
    let mut outbox = Outbox::new(100);
    outbox.set_policy(Policy::Close, None);
    assert_eq!(look(&mut outbox, 0), None);
    assert!(!outbox.room().reserve(101), "no outbox has room for it");
    assert_eq!(look(&mut outbox, 0), None, "whose fault that is not");
    assert_eq!(offer(&mut outbox, 0, plain(Priority::NORMAL, 0)), Ok(()));
    assert!(!outbox.room().reserve(100), "another shard has more than there is room for");
    assert_eq!(look(&mut outbox, 0), Some(Cause::Full));
    assert_eq!(look(&mut outbox, 0), None, "once");
}

#[test]
fn promise_7_of_more_keys_than_are_known_the_last_word_is_still_the_last() {
    let users = 40_000u64;
    let mut outbox = Outbox::new(64 << 20);
    for round in 0..3 {
        for uid in 0..users {
            let it = keyed(Priority::NORMAL, Some(1), &[uid], round + 1);
            assert_eq!(offer(&mut outbox, 0, it), Ok(()));
        }
    }
    let gone = outbox.take_gone().conflated;
    assert!(gone > 0, "some are known");
    let mut last = std::collections::HashMap::new();
    loop {
        let data = outbox.take(Duration::ZERO).0.data;
        if data.is_empty() {
            break;
        }
        for (_, _, uids, payload) in messages(&data) {
            last.insert(uids[0], payload);
        }
    }
    assert!(last.values().all(|payload| *payload == 3) && last.len() as u64 == users);
}
