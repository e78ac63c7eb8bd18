//! Large messages among others.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use waybill_wire::code::Priority;

use super::*;
use crate::limits::REFERENCED_BYTES;
use crate::outbox::Policy;

mod aside;
mod model;

use self::model::{How, Offered, Receiver, of, offer, offer_all, write};

const MOST: usize = 700_000;

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
        2 => (0..300usize).prop_map(|payload| (How::Copied, payload)),
        1 => (0..60_000usize).prop_map(|payload| (How::Copied, payload)),
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

/// When messages were offered, and first looked for.
struct Ages {
    most_ms: u64,
    offered: BTreeMap<u64, u64>,
    seen: BTreeMap<u64, u64>,
}

impl Ages {
    /// DEL-34: nothing is left that was seen so long ago, and what was offered later is.
    fn looked(&mut self, now_ms: u64, receiver: &Receiver, of: &BTreeMap<u64, Offered>) {
        for number in receiver.waiting(of) {
            let seen = *self.seen.entry(number).or_insert(now_ms);
            assert!(now_ms < seen + self.most_ms, "{number} has waited since {seen}");
        }
        for (number, cause) in &receiver.just_gone {
            let is_young = now_ms < self.offered[number] + self.most_ms;
            assert!(*cause != Cause::Aged || of[number].key.is_some() || !is_young, "{number}");
        }
    }
}

fn check(steps: Vec<Step>, policy: Policy) {
    let mut outbox = Outbox::new(MOST);
    let most_ms = if policy == Policy::DropOldest { 60 } else { 10_000 };
    outbox.set_policy(policy, Some(Duration::from_millis(most_ms)));
    let (mut receiver, mut of) = (Receiver::default(), BTreeMap::new());
    let mut ages = Ages { most_ms, offered: BTreeMap::new(), seen: BTreeMap::new() };
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
                    ages.offered.insert(number, now_ms);
                }
                receiver.note_gone(outbox.take_gone(), &of);
                receiver.the_oldest_were_dropped(&of, number);
                marks.push((number, outbox.entered()));
            }
            Step::Control => outbox.control().push(0xcc),
            Step::Take => {
                let before = receiver.complete.len();
                let (bytes, frames, _) = write(&mut outbox, now);
                receiver.note_gone(outbox.take_gone(), &of);
                let seen = receiver.read(&bytes, &of);
                assert!(seen.iter().skip_while(|it| it.0 == "answer").all(|it| it.0 != "answer"));
                assert_eq!((receiver.complete.len() - before) as u64, frames);
                receiver.traced.extend(outbox.take_traced());
            }
            Step::Wait(ms) => now_ms += ms,
            Step::Look => {
                // So long that the age of all that has come is noted.
                now_ms += most_ms / 16 + 1;
                outbox.look(Duration::from_millis(now_ms));
                receiver.note_gone(outbox.take_gone(), &of);
                ages.looked(now_ms, &receiver, &of);
            }
        }
        assert!(outbox.invariant() && !outbox.has_gone());
        let settled = |number: &u64| receiver.is_settled(*number);
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
    assert!(receiver.complete.is_disjoint(&receiver.gone));
    assert_eq!(receiver.complete.len() + receiver.gone.len(), of.len());
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
fn promise_2_and_6_what_its_producer_sent_after_it_waits_and_others_do_not() {
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
    assert!(at(("last", 1)) < at(("whole", 5)), "it is of the same producer");
    assert!(at(("whole", 6)) < at(("last", 1)), "it came behind one that waits");
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
