//! Large messages among others, against a receiver that puts pieces together and knows what was
//! offered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use waybill_wire::Frame;
use waybill_wire::code::Priority;
use waybill_wire::message::{Message, MessageHead};

use super::*;
use crate::io::joined;
use crate::limits::REFERENCED_BYTES;
use crate::outbox::{Care, Policy, Run, Terms};

const MOST: usize = 700_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Copied,
    /// Where other outboxes may have it, too.
    InRun,
    Whole,
    InPieces,
}

#[derive(Clone, Debug)]
struct Offered {
    how: How,
    origin: u64,
    priority: Priority,
    payload: usize,
    ttl_ms: u32,
    key: Option<u64>,
    is_mailed: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Offer(Offered),
    Control,
    Take,
    Wait(u64),
    Look,
}

fn offered() -> impl Strategy<Value = Offered> {
    let priority = prop_oneof![Just(Priority::NORMAL), Just(Priority::HIGH), Just(Priority::BULK)];
    let what = prop_oneof![
        3 => (0..300usize).prop_map(|payload| (How::Copied, payload)),
        1 => (0..300usize).prop_map(|payload| (How::InRun, payload)),
        1 => (REFERENCED_BYTES..90_000).prop_map(|payload| (How::Whole, payload)),
        2 => (FRAGMENT_BYTES + 1..300_000).prop_map(|payload| (How::InPieces, payload)),
    ];
    let ttl_ms = prop_oneof![3 => Just(0), 1 => 1..50u32];
    let key = prop_oneof![4 => Just(None), 1 => Just(Some(5))];
    (what, 1..4u64, priority, ttl_ms, key, prop::bool::weighted(0.2)).prop_map(
        |((how, payload), origin, priority, ttl_ms, key, is_mailed)| Offered {
            how,
            origin,
            priority,
            payload,
            ttl_ms: if how == How::InRun { 0 } else { ttl_ms },
            // One that goes whole and may be replaced is copied.
            key: key.filter(|_| !matches!(how, How::Whole | How::InRun)),
            is_mailed: is_mailed && how != How::InRun,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => offered().prop_map(Step::Offer),
        1 => Just(Step::Control),
        3 => Just(Step::Take),
        1 => (0..30u64).prop_map(Step::Wait),
        1 => Just(Step::Look),
    ];
    prop::collection::vec(step, 0..80)
}

/// All payloads are parts of this.
static BYTES: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..=250).cycle().take((1 << 20) + 251).collect());

/// A payload that no message near it has.
fn payload(sequence: u64, bytes: usize) -> &'static [u8] {
    let start = usize::try_from(sequence % 251).expect("less than 251");
    &BYTES[start..start + bytes]
}

impl Offered {
    /// What is encoded in the lane, and what lies elsewhere.
    fn frame(&self, sequence: u64) -> (Vec<u8>, Bytes) {
        let total = u32::try_from(self.payload).expect("less than that");
        let head = MessageHead {
            sequence,
            ttl_ms: self.ttl_ms,
            priority: self.priority,
            conflate: self.key,
            origin: Some(self.origin),
            fragmented: (self.how == How::InPieces).then_some(total),
            ..MessageHead::default()
        };
        let payload = payload(sequence, self.payload);
        let (copied, shared) = match self.how {
            How::Copied | How::InRun => (payload, Bytes::new()),
            How::Whole | How::InPieces => (&[][..], Bytes::from_static(payload)),
        };
        let mut frame = Vec::new();
        head.encode(Kind::DELIVER, &[1][..], copied, &mut frame).expect("a test's own message");
        (frame, shared)
    }

    fn terms(&self, number: u64) -> Terms {
        let (ttl_ms, priority, conflates) = (self.ttl_ms, self.priority, self.key.is_some());
        let care = Care { ttl_ms, priority, conflates };
        Terms { care, number, is_traced: number.is_multiple_of(3) }
    }
}

fn offer(outbox: &mut Outbox, now: Duration, it: &Offered, number: u64) -> Result<(), Cause> {
    let (frame, payload) = it.frame(number);
    if it.is_mailed {
        if !outbox.room().reserve(frame.len() + payload.len()) {
            return Err(Cause::Full);
        }
        outbox.accept(now, it.terms(number), &frame, payload);
        return Ok(());
    }
    match it.how {
        How::Copied => outbox.offer(now, it.terms(number), |out| out.extend(frame)),
        How::InRun => {
            let held = frame.len();
            let run = Run::new(frame.into(), 1, held);
            outbox.offer_run(it.priority, &run).then_some(()).ok_or(Cause::Full)
        }
        _ => outbox.offer_large(now, it.terms(number), &frame, payload),
    }
}

/// The other end.
#[derive(Default)]
struct Receiver {
    open: BTreeMap<(u64, u64), (Priority, usize, Vec<u8>)>,
    /// The last sequence of each path that is complete.
    last: BTreeMap<(u64, u8), u64>,
    complete: BTreeSet<u64>,
    traced: Vec<u64>,
}

impl Receiver {
    fn read(&mut self, mut rest: &[u8], of: &BTreeMap<u64, Offered>) -> Vec<(&'static str, u64)> {
        let mut seen = Vec::new();
        while !rest.is_empty() {
            if rest[0] == 0xcc {
                seen.push(("answer", 0));
                rest = &rest[1..];
                continue;
            }
            let (frame, after) = rest.split_at(length(rest));
            rest = after;
            match Frame::decode(frame) {
                Ok(Frame::Deliver(message)) => seen.push(self.message(&message, of)),
                Ok(Frame::Fragment(piece)) => seen.push(self.piece(&piece, of)),
                other => panic!("{other:?}"),
            }
            let bytes: usize = self.open.values().map(|(_, total, _)| total).sum();
            assert!(self.open.len() <= FRAGMENTED_MAX && bytes <= FRAGMENTED_BYTES_MAX);
        }
        seen
    }

    fn message(&mut self, it: &Message<'_>, of: &BTreeMap<u64, Offered>) -> (&'static str, u64) {
        let (sequence, origin) = (it.sequence, it.origin.expect("of a DELIVER"));
        let offered = &of[&sequence];
        assert_eq!((origin, it.priority), (offered.origin, offered.priority));
        assert!(it.ttl_ms <= offered.ttl_ms && (it.ttl_ms == 0) == (offered.ttl_ms == 0));
        let Some(total) = it.fragmented else {
            self.completed(origin, it.priority, sequence, it.payload, of);
            return ("whole", sequence);
        };
        assert_eq!(it.payload.len(), FRAGMENT_BYTES);
        let open = (it.priority, total as usize, it.payload.to_vec());
        assert!(self.open.insert((origin, sequence), open).is_none(), "{sequence} is open");
        ("first", sequence)
    }

    fn piece(&mut self, it: &Fragment<'_>, of: &BTreeMap<u64, Offered>) -> (&'static str, u64) {
        let open = self.open.get_mut(&(it.origin, it.sequence)).expect("it was begun");
        assert_eq!(it.offset as usize, open.2.len());
        assert!(it.payload.len() <= FRAGMENT_BYTES);
        open.2.extend(it.payload);
        assert_eq!(it.last, open.2.len() == open.1);
        if it.last {
            let open = self.open.remove(&(it.origin, it.sequence)).expect("it is open");
            self.completed(it.origin, open.0, it.sequence, &open.2, of);
        }
        (if it.last { "last" } else { "piece" }, it.sequence)
    }

    fn completed(
        &mut self,
        origin: u64,
        priority: Priority,
        sequence: u64,
        bytes: &[u8],
        of: &BTreeMap<u64, Offered>,
    ) {
        assert!(bytes == payload(sequence, of[&sequence].payload), "bytes of {sequence}");
        assert!(self.complete.insert(sequence), "{sequence} comes twice");
        // One that took another's place is where that was.
        if of[&sequence].key.is_none() {
            let last = self.last.insert((origin, priority.rank()), sequence);
            assert!(last < Some(sequence), "{sequence} after {last:?}");
        }
    }
}

fn write(outbox: &mut Outbox, now: Duration) -> (Vec<u8>, u64, usize) {
    let (Write { data, pieces, .. }, frames) = outbox.take(now);
    let count = pieces.len();
    let all = joined(data.clone(), &pieces);
    if !all.is_empty() {
        outbox.recycle(now, data);
    }
    (all, frames, count)
}

fn check(steps: Vec<Step>, policy: Policy) {
    let mut outbox = Outbox::new(MOST);
    outbox.set_policy(policy, Some(Duration::from_secs(1)));
    let (mut receiver, mut of, mut gone) = (Receiver::default(), BTreeMap::new(), BTreeSet::new());
    let (mut now_ms, mut number, mut marks) = (0, 0, Vec::new());
    let all = steps.into_iter().chain(std::iter::repeat_n(Step::Take, 200));
    for step in all {
        let now = Duration::from_millis(now_ms);
        match step {
            Step::Offer(mut it) => {
                number += 1;
                // Of those in a run nobody is told, so that none may be dropped here.
                if it.how == How::InRun && policy == Policy::DropOldest {
                    it.how = How::Copied;
                }
                if offer(&mut outbox, now, &it, number).is_ok() {
                    of.insert(number, it);
                }
                marks.push((number, outbox.entered()));
            }
            Step::Control => outbox.control().push(0xcc),
            Step::Take => {
                let before = receiver.complete.len();
                let (bytes, frames, _) = write(&mut outbox, now);
                let seen = receiver.read(&bytes, &of);
                assert!(seen.iter().skip_while(|it| it.0 == "answer").all(|it| it.0 != "answer"));
                assert_eq!((receiver.complete.len() - before) as u64, frames);
                receiver.traced.extend(outbox.take_traced());
            }
            Step::Wait(ms) => now_ms += ms,
            Step::Look => drop(outbox.look(now)),
        }
        for (number, _) in outbox.take_gone().numbers {
            assert!(of.contains_key(&number) && gone.insert(number), "{number} was gone before");
        }
        assert!(outbox.invariant());
        let settled = |number: &u64| receiver.complete.contains(number) || gone.contains(number);
        marks.retain(|(upto, mark)| {
            let left = outbox.has_left(*mark);
            assert!(!left || of.range(..=upto).all(|(number, _)| settled(number)), "{upto}");
            !left
        });
        let left = of.keys().filter(|number| !settled(number)).count();
        assert_eq!(outbox.frames(), left);
    }
    assert!(outbox.is_empty() && receiver.open.is_empty() && marks.is_empty());
    assert!(outbox.room().waiting() == outbox.credit, "all room was given back");
    assert!(receiver.complete.is_disjoint(&gone));
    assert_eq!(receiver.complete.len() + gone.len(), of.len());
    let is_traced = |number: &&u64| number.is_multiple_of(3) && of[number].how != How::InRun;
    let traced = receiver.complete.iter().filter(is_traced);
    assert!(traced.copied().eq(receiver.traced.into_iter().collect::<BTreeSet<u64>>()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn promise_2_and_5_large_messages_and_others_arrive_in_order_once_byte_for_byte(
        steps in steps(),
    ) {
        check(steps, Policy::Refuse);
    }

    #[test]
    fn promise_5_one_that_has_begun_is_finished_whatever_is_dropped(steps in steps()) {
        check(steps, Policy::DropOldest);
    }
}

fn of(how: How, origin: u64, priority: Priority, payload: usize) -> Offered {
    Offered { how, origin, priority, payload, ttl_ms: 0, key: None, is_mailed: false }
}

/// Offers all of them, numbered from 1.
fn offer_all(outbox: &mut Outbox, all: &[Offered]) -> BTreeMap<u64, Offered> {
    let numbered: BTreeMap<u64, Offered> = (1..).zip(all.iter().cloned()).collect();
    for (number, it) in &numbered {
        assert_eq!(offer(outbox, Duration::ZERO, it, *number), Ok(()));
    }
    numbered
}

#[test]
fn promise_6_urgent_messages_and_a_pong_go_between_the_pieces_of_a_bulk_one() {
    let mut outbox = Outbox::new(4 << 20);
    let (bulk, high) = (Priority::BULK, Priority::HIGH);
    let mut sent = offer_all(&mut outbox, &[of(How::InPieces, 1, bulk, 1 << 20)]);
    let mut receiver = Receiver::default();
    let mut seen = receiver.read(&write(&mut outbox, Duration::ZERO).0, &sent);
    let at_once = seen.len();
    // An answer, as a PONG is, and a message of the same producer that is more urgent.
    outbox.control().push(0xcc);
    sent.insert(2, of(How::Copied, 1, high, 10));
    assert_eq!(offer(&mut outbox, Duration::ZERO, &sent[&2], 2), Ok(()));
    while !outbox.is_empty() {
        let (bytes, _, pieces) = write(&mut outbox, Duration::ZERO);
        assert!(bytes.len() < WRITE_BYTES + FRAGMENT_BYTES + 200, "{}", bytes.len());
        assert!(pieces > 0, "nothing of it is copied");
        seen.extend(receiver.read(&bytes, &sent));
    }
    let count = (1 << 20) / FRAGMENT_BYTES;
    assert_eq!(seen.len(), count + 2);
    assert_eq!(
        (seen[0], seen[at_once], seen[at_once + 1]),
        (("first", 1), ("answer", 0), ("whole", 2))
    );
    assert_eq!(seen.last(), Some(&("last", 1)));
}

#[test]
fn promise_2_what_its_producer_sent_after_it_waits_and_others_do_not() {
    let mut outbox = Outbox::new(4 << 20);
    let normal = Priority::NORMAL;
    let all = [
        of(How::InPieces, 1, normal, 5 * FRAGMENT_BYTES),
        of(How::Copied, 2, normal, 10),
        of(How::InPieces, 2, normal, 2 * FRAGMENT_BYTES),
        of(How::Copied, 3, normal, 10),
        of(How::Copied, 1, normal, 10),
        of(How::Copied, 3, normal, 11),
    ];
    let sent = offer_all(&mut outbox, &all);
    let (mut receiver, mut seen) = (Receiver::default(), Vec::new());
    while !outbox.is_empty() {
        seen.extend(receiver.read(&write(&mut outbox, Duration::ZERO).0, &sent));
    }
    let at = |it| seen.iter().position(|seen| *seen == it).expect("it came");
    assert!(at(("first", 1)) < at(("whole", 2)) && at(("whole", 2)) < at(("last", 1)));
    assert!(at(("first", 3)) < at(("last", 1)) && at(("whole", 4)) < at(("last", 1)));
    assert!(at(("last", 1)) < at(("whole", 5)) && at(("whole", 5)) < at(("whole", 6)));
}

#[test]
fn promise_7_as_many_are_open_as_may_be_and_the_next_waits() {
    let mut outbox = Outbox::new(64 << 20);
    let all: Vec<Offered> =
        (1..=12).map(|origin| of(How::InPieces, origin, Priority::NORMAL, 1 << 20)).collect();
    let sent = offer_all(&mut outbox, &all);
    let (mut receiver, mut most) = (Receiver::default(), 0);
    while !outbox.is_empty() {
        receiver.read(&write(&mut outbox, Duration::ZERO).0, &sent);
        most = most.max(receiver.open.len());
    }
    assert_eq!((receiver.complete.len(), most), (12, FRAGMENTED_MAX));
}

#[test]
fn del_20_time_runs_out_before_the_first_piece_or_not_at_all() {
    let mut outbox = Outbox::new(4 << 20);
    let mut it = of(How::InPieces, 1, Priority::NORMAL, 1 << 20);
    it.ttl_ms = 10;
    let sent = offer_all(&mut outbox, &[it.clone(), it]);
    let mut receiver = Receiver::default();
    receiver.read(&write(&mut outbox, Duration::from_millis(9)).0, &sent);
    while !outbox.is_empty() {
        receiver.read(&write(&mut outbox, Duration::from_millis(11)).0, &sent);
    }
    assert!(receiver.complete.into_iter().eq([1]));
    let gone = outbox.take_gone();
    assert_eq!((gone.expired, gone.numbers), (1, vec![(2, Cause::Expired)]));
}

#[test]
fn del_22_one_in_pieces_is_not_replaced_nor_what_waits_before_it() {
    let mut outbox = Outbox::new(4 << 20);
    let keyed = |how, payload| Offered { key: Some(5), ..of(how, 1, Priority::NORMAL, payload) };
    let all = [keyed(How::Copied, 1), keyed(How::InPieces, 1 << 20), keyed(How::Copied, 1)];
    let sent = offer_all(&mut outbox, &all);
    assert!(!outbox.has_gone());
    let mut receiver = Receiver::default();
    while !outbox.is_empty() {
        receiver.read(&write(&mut outbox, Duration::ZERO).0, &sent);
    }
    assert_eq!(receiver.complete.len(), 3);
}

#[test]
fn promise_7_what_is_being_written_keeps_its_place_until_it_is() {
    let mut outbox = Outbox::new(1 << 20);
    let payload = 2 * FRAGMENT_BYTES;
    offer_all(&mut outbox, &[of(How::InPieces, 1, Priority::NORMAL, payload)]);
    let whole = outbox.room().waiting();
    assert!(whole > payload);
    let (write, frames) = outbox.take(Duration::ZERO);
    assert_eq!((frames, outbox.frames(), outbox.room().waiting()), (1, 0, whole));
    outbox.recycle(Duration::ZERO, write.data);
    assert_eq!(outbox.room().waiting(), 0);
    // One that is begun and does not end is lost with its link.
    offer_all(&mut outbox, &[of(How::InPieces, 1, Priority::NORMAL, 5 * FRAGMENT_BYTES)]);
    outbox.take(Duration::ZERO);
    assert_eq!((outbox.frames(), outbox.abandon(), outbox.room().waiting()), (1, 1, 0));
    assert!(outbox.is_empty());
}
