//! What steps aside: promise by promise.

use super::*;

const NORMAL: Priority = Priority::NORMAL;

fn offer_one(outbox: &mut Outbox, sent: &mut BTreeMap<u64, Offered>, it: Offered) {
    let number = sent.len() as u64 + 1;
    assert_eq!(offer(outbox, Duration::ZERO, &it, number), Ok(()));
    sent.insert(number, it);
}

fn read(outbox: &mut Outbox, receiver: &mut Receiver, sent: &BTreeMap<u64, Offered>) {
    let bytes = write(outbox, Duration::ZERO).0;
    assert!(!bytes.is_empty() && outbox.invariant());
    receiver.read(&bytes, sent);
}

/// A message that takes several writes, with its producer's second and another one's behind it;
/// these two have left the lane, and the second waits.
fn with_one_aside(
    policy: Policy,
    of_second: Offered,
) -> (Outbox, BTreeMap<u64, Offered>, Receiver) {
    let mut outbox = Outbox::new(1 << 20);
    outbox.set_policy(policy, Some(Duration::from_secs(1)));
    let large = of(How::InPieces, 1, NORMAL, 10 * FRAGMENT_BYTES);
    let sent = offer_all(&mut outbox, &[large, of_second, of(How::Copied, 2, NORMAL, 10)]);
    outbox.look(Duration::ZERO);
    let mut receiver = Receiver::default();
    read(&mut outbox, &mut receiver, &sent);
    assert!(receiver.complete.iter().eq(&[3]), "{:?}", receiver.complete);
    (outbox, sent, receiver)
}

#[test]
fn promise_2_nothing_of_a_producer_passes_what_has_stepped_aside() {
    let mut outbox = Outbox::new(8 << 20);
    let mut all = vec![
        of(How::InPieces, 1, NORMAL, 20 * FRAGMENT_BYTES),
        of(How::Copied, 1, NORMAL, 10),
        of(How::Whole, 1, NORMAL, REFERENCED_BYTES),
        of(How::InPieces, 1, NORMAL, 3 * FRAGMENT_BYTES),
        of(How::InRun, 1, NORMAL, 10),
        of(How::Copied, 2, NORMAL, 10),
    ];
    // More than goes in one write.
    all.extend((0..12).map(|_| of(How::Copied, 1, NORMAL, 60_000)));
    let (mut sent, mut receiver) = (offer_all(&mut outbox, &all), Receiver::default());
    while !outbox.is_empty() {
        read(&mut outbox, &mut receiver, &sent);
        // One more of the first comes while others of it wait; the receiver knows its order.
        if sent.len() < 40 {
            offer_one(&mut outbox, &mut sent, of(How::Copied, 1, NORMAL, 10));
        }
    }
    assert_eq!(receiver.complete.len(), sent.len());
}

#[test]
fn promise_2_a_mark_stands_for_what_has_stepped_aside() {
    let (mut outbox, mut sent, mut receiver) =
        with_one_aside(Policy::Refuse, of(How::Copied, 1, NORMAL, 10));
    let (mark, large) = (outbox.entered(), 1);
    // Of others so many leave that, counted, they would pass the mark.
    for _ in 0..6 {
        assert!(!outbox.has_left(mark));
        offer_one(&mut outbox, &mut sent, of(How::Copied, 2, NORMAL, 10));
        read(&mut outbox, &mut receiver, &sent);
        let has_come = [large, 2].iter().all(|number| receiver.complete.contains(number));
        assert_eq!(outbox.has_left(mark), has_come);
        if has_come {
            return;
        }
    }
    panic!("it never came");
}

#[test]
fn del_20_time_runs_out_aside_as_in_the_lane() {
    for (at_ms, expected) in [(9, vec![]), (11, vec![(2, Cause::Expired)])] {
        let second = Offered { ttl_ms: 10, ..of(How::Copied, 1, NORMAL, 10) };
        let (mut outbox, sent, mut receiver) = with_one_aside(Policy::Refuse, second);
        while !outbox.is_empty() {
            let bytes = write(&mut outbox, Duration::from_millis(at_ms)).0;
            receiver.read(&bytes, &sent);
        }
        assert_eq!(outbox.take_gone().numbers, expected);
        assert_eq!(outbox.room().waiting(), outbox.credit);
    }
}

#[test]
fn del_14_what_has_expired_aside_makes_room() {
    let second = Offered { ttl_ms: 10, ..of(How::Copied, 1, NORMAL, 100_000) };
    let (mut outbox, ..) = with_one_aside(Policy::Refuse, second);
    let lacking = of(How::Copied, 2, NORMAL, (1 << 20) - 10 * FRAGMENT_BYTES - 50_000);
    assert_eq!(offer(&mut outbox, Duration::from_millis(5), &lacking, 4), Err(Cause::Full));
    assert_eq!(offer(&mut outbox, Duration::from_millis(11), &lacking, 4), Ok(()));
    assert_eq!(outbox.take_gone().numbers, [(2, Cause::Expired)]);
}

#[test]
fn del_34_what_has_stepped_aside_is_the_oldest() {
    let second = of(How::Copied, 1, NORMAL, 100_000);
    let (mut outbox, mut sent, _) = with_one_aside(Policy::DropOldest, second);
    offer_one(&mut outbox, &mut sent, of(How::Copied, 2, NORMAL, 100_000));
    let next = of(How::Copied, 3, NORMAL, (1 << 20) - 10 * FRAGMENT_BYTES - 150_000);
    offer_one(&mut outbox, &mut sent, next);
    assert_eq!(outbox.take_gone().numbers, [(2, Cause::Full)]);
    assert!(outbox.invariant());
}

#[test]
fn del_34_the_oldest_of_two_producers_that_stepped_aside_is_dropped() {
    let mut outbox = Outbox::new(2 << 20);
    outbox.set_policy(Policy::DropOldest, None);
    let large = |origin| of(How::InPieces, origin, NORMAL, 10 * FRAGMENT_BYTES);
    let small = |origin| of(How::Copied, origin, NORMAL, 50_000);
    let all = [large(1), large(2), small(2), small(1), small(2)];
    let (mut sent, mut receiver) = (offer_all(&mut outbox, &all), Receiver::default());
    for _ in 0..2 {
        read(&mut outbox, &mut receiver, &sent);
    }
    assert_eq!((outbox.queues[1].asides(), outbox.queues[1].lane.frames()), (2, 0));
    for dropped in [3, 4, 5] {
        let lacking = outbox.room().most() - outbox.room().waiting() + 100;
        offer_one(&mut outbox, &mut sent, of(How::Copied, 3, NORMAL, lacking));
        assert_eq!(outbox.take_gone().numbers, [(dropped, Cause::Full)]);
    }
}

#[test]
fn promise_6_one_that_waits_for_room_is_not_passed_by_all_others() {
    let mut outbox = Outbox::new(128 << 20);
    let mut all = vec![
        of(How::InPieces, 1, NORMAL, 20 * FRAGMENT_BYTES),
        of(How::InPieces, 1, NORMAL, 16 << 20),
    ];
    all.extend((2..8).map(|origin| of(How::InPieces, origin, NORMAL, 9 << 20)));
    let (sent, mut receiver) = (offer_all(&mut outbox, &all), Receiver::default());
    let mut seen = Vec::new();
    while !outbox.is_empty() {
        seen.extend(receiver.read(&write(&mut outbox, Duration::ZERO).0, &sent));
    }
    let begun: Vec<u64> = seen.into_iter().filter(|it| it.0 == "first").map(|it| it.1).collect();
    // Three have begun before the first is written, and then there is no room for the second.
    assert_eq!(begun[..5], [1, 3, 4, 5, 2]);
}

#[test]
fn promise_6_one_that_waits_for_room_gets_that_of_a_lower_priority_though_others_keep_coming() {
    let mut outbox = Outbox::new(128 << 20);
    let bulk = |origin| of(How::InPieces, origin, Priority::BULK, 12 << 20);
    let mut sent = offer_all(&mut outbox, &[bulk(1), bulk(2)]);
    let mut receiver = Receiver::default();
    read(&mut outbox, &mut receiver, &sent);
    offer_one(&mut outbox, &mut sent, of(How::InPieces, 3, NORMAL, 4 << 20));
    offer_one(&mut outbox, &mut sent, of(How::InPieces, 3, NORMAL, 12 << 20));
    let has_begun = (0..1000).any(|_| {
        (0..5).for_each(|_| offer_one(&mut outbox, &mut sent, of(How::Copied, 4, NORMAL, 60_000)));
        let seen = receiver.read(&write(&mut outbox, Duration::ZERO).0, &sent);
        seen.into_iter().any(|it| it == ("first", 4))
    });
    assert!(has_begun, "the large ones of bulk have room that it waits for");
}

#[test]
fn del_33_34_what_steps_aside_is_as_old_as_it_was() {
    let second = of(How::Copied, 1, NORMAL, 10);
    let (mut outbox, ..) = with_one_aside(Policy::DropOldest, second.clone());
    outbox.look(Duration::from_millis(999));
    assert!(!outbox.has_gone());
    outbox.look(Duration::from_millis(1000));
    let gone = outbox.take_gone();
    assert_eq!((gone.aged, gone.numbers), (1, vec![(2, Cause::Aged)]));
    assert_eq!(outbox.frames(), 1, "the one that has begun is finished");
    let (mut outbox, ..) = with_one_aside(Policy::Close, second);
    assert_eq!(outbox.look(Duration::from_millis(1000)), None);
    // Parts of the large one go on being written.
    write(&mut outbox, Duration::from_millis(1000));
    assert_eq!(outbox.look(Duration::from_millis(1001)), Some(Cause::Aged));
}

#[test]
fn promise_5_what_has_stepped_aside_is_lost_with_its_link() {
    let (mut outbox, ..) =
        with_one_aside(Policy::Refuse, of(How::Whole, 1, NORMAL, REFERENCED_BYTES));
    assert_eq!((outbox.frames(), outbox.abandon(), outbox.room().waiting()), (2, 2, 0));
    assert!(outbox.is_empty() && outbox.invariant());
}

#[test]
fn del_21_a_frame_with_a_key_holds_its_lane_and_is_replaced_there() {
    let keyed = |how, origin, payload| Offered { key: Some(5), ..of(how, origin, NORMAL, payload) };
    let (mut outbox, mut sent, mut receiver) =
        with_one_aside(Policy::Refuse, of(How::Copied, 1, NORMAL, 10));
    offer_one(&mut outbox, &mut sent, keyed(How::Copied, 1, 10));
    offer_one(&mut outbox, &mut sent, of(How::Copied, 2, NORMAL, 10));
    read(&mut outbox, &mut receiver, &sent);
    assert!(receiver.complete.iter().eq(&[3]), "behind it, others wait");
    offer_one(&mut outbox, &mut sent, keyed(How::Copied, 2, 10));
    assert_eq!(outbox.take_gone().numbers, [(4, Cause::Conflated)]);
    read(&mut outbox, &mut receiver, &sent);
    assert!(
        receiver.complete.contains(&5) && receiver.complete.contains(&6),
        "it is another's now"
    );
    while !outbox.is_empty() {
        read(&mut outbox, &mut receiver, &sent);
    }
}

#[test]
fn del_36_a_key_does_not_pass_a_large_one_of_its_own() {
    let mut outbox = Outbox::new(1 << 20);
    let keyed = |how, origin, payload| Offered { key: Some(5), ..of(how, origin, NORMAL, payload) };
    let other = Offered { key: Some(6), ..of(How::Copied, 2, NORMAL, 10) };
    let large = keyed(How::InPieces, 1, 6 * FRAGMENT_BYTES);
    let sent = offer_all(&mut outbox, &[large, other, keyed(How::Copied, 3, 10)]);
    let (mut receiver, mut seen) = (Receiver::default(), Vec::new());
    while !outbox.is_empty() {
        seen.extend(receiver.read(&write(&mut outbox, Duration::ZERO).0, &sent));
    }
    let ends = seen.into_iter().filter(|(what, _)| matches!(*what, "whole" | "last"));
    assert!(ends.eq([("whole", 2), ("last", 1), ("whole", 3)]));
}

#[test]
fn sec_24_no_more_steps_aside_for_a_write_than_it_takes() {
    let mut outbox = Outbox::new(4 << 20);
    let mut all = vec![of(How::InPieces, 1, NORMAL, 1 << 20)];
    all.extend((0..1000).map(|_| of(How::Copied, 1, NORMAL, 1000)));
    offer_all(&mut outbox, &all);
    let before = outbox.queues[1].lane.waiting();
    write(&mut outbox, Duration::ZERO);
    let large = (1 << 20) + 48;
    let aside = before - large - outbox.queues[1].lane.waiting();
    assert!((WRITE_BYTES..WRITE_BYTES + 1100).contains(&aside), "{aside}");
}

#[test]
fn promise_7_memory_of_what_has_stepped_aside_is_known_and_given_back() {
    let mut outbox = Outbox::new(4 << 20);
    let before = outbox.held();
    let mut all = vec![of(How::InPieces, 1, NORMAL, 1 << 20)];
    all.extend((0..1000).map(|_| of(How::Copied, 1, NORMAL, 200)));
    let (sent, mut receiver) = (offer_all(&mut outbox, &all), Receiver::default());
    read(&mut outbox, &mut receiver, &sent);
    assert_eq!((outbox.queues[1].lane.frames(), outbox.frames()), (0, 1001));
    outbox.heed(0, true);
    let waiting = outbox.room().waiting();
    assert!((waiting..2 * waiting).contains(&outbox.held()), "{} of {waiting}", outbox.held());
    while !outbox.is_empty() {
        read(&mut outbox, &mut receiver, &sent);
    }
    outbox.take_traced();
    outbox.heed(0, true);
    assert_eq!(outbox.held(), before);
}
