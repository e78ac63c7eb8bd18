//! The tally against a naive one, and each fault planted alone.

use std::collections::BTreeMap;

use super::*;
use crate::work::{Payload, Shares, WorkPlan, mix, uid_of};

const GATEWAYS: usize = 8;

fn work(shares: Shares) -> Rc<Work> {
    Rc::new(Work::new(WorkPlan {
        seed: 3,
        users: 500,
        gateways: GATEWAYS,
        payload_bytes: 40,
        shares,
        groups: 4,
        group_uids: 60,
    }))
}

const MIXED: Shares = Shares { single: 3, group: 2, broadcast: 1 };

/// Whom a message reaches: gateway, and user unless it is for everyone.
fn expected(work: &Work, number: u64) -> Vec<(usize, Option<u64>)> {
    match work.job(number) {
        Job::User(uid) => vec![(gateway_of(uid, GATEWAYS), Some(uid))],
        Job::Group(index) => {
            let uids = work.groups()[index].uids.iter();
            uids.map(|uid| (gateway_of(*uid, GATEWAYS), Some(*uid))).collect()
        }
        Job::Everyone => (0..GATEWAYS).map(|gateway| (gateway, None)).collect(),
    }
}

/// Frames of one message as a broker that narrows sends them.
fn frames(work: &Work, number: u64) -> Vec<(usize, Vec<u64>)> {
    let mut frames: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for (gateway, uid) in expected(work, number) {
        frames.entry(gateway).or_default().extend(uid);
    }
    frames.into_iter().collect()
}

fn deliver(tally: &mut Tally, gateway: usize, number: u64, uids: &[u64]) {
    let payload = Payload::new(40).of(number, 0).to_vec();
    if uids.is_empty() {
        tally.broadcast(gateway, &payload);
    } else {
        tally.delivered(gateway, &payload, uids.iter().copied());
    }
}

/// What is wrong after `count` messages, whose frames `change` may spoil.
fn faults(
    shares: Shares,
    count: u64,
    mut change: impl FnMut(u64, &mut Vec<(usize, Vec<u64>)>),
) -> BTreeMap<String, (u64, String)> {
    let work = work(shares);
    let mut tally = Tally::new(Rc::clone(&work));
    for number in 0..count {
        assert_eq!(tally.published(work.job(number)), number);
        let mut frames = frames(&work, number);
        change(number, &mut frames);
        for (gateway, uids) in frames {
            deliver(&mut tally, gateway, number, &uids);
        }
    }
    tally.end().into_iter().map(|it| (it.name, (it.count, it.example))).collect()
}

fn only(faults: &BTreeMap<String, (u64, String)>, name: &str, count: u64, words: &str) {
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (found, example) = &faults[name];
    assert_eq!(*found, count, "{faults:?}");
    assert!(example.contains(words), "{example} does not say {words}");
}

#[test]
fn nothing_is_wrong_where_nothing_is() {
    for shares in [Shares::SINGLE, Shares::GROUP, Shares::BROADCAST, MIXED] {
        assert_eq!(faults(shares, 500, |_, _| {}), BTreeMap::new());
    }
}

#[test]
fn a_lost_message_is_named() {
    for (shares, count) in [(Shares::SINGLE, 1), (Shares::GROUP, 60), (Shares::BROADCAST, 8)] {
        let found = faults(shares, 500, |number, frames| {
            if number == 123 {
                frames.clear();
            }
        });
        only(&found, fault::LOST, count, "message 123 for ");
    }
}

#[test]
fn one_lost_user_of_a_group_is_named() {
    let lost = work(Shares::GROUP).groups()[3].by_gateway[5][1];
    let found = faults(Shares::GROUP, 500, |number, frames| {
        if number == 123 {
            let frame = frames.iter_mut().find(|(gateway, _)| *gateway == 5).unwrap();
            assert_eq!(frame.1.remove(1), lost);
        }
    });
    only(&found, fault::LOST, 1, &format!("message 123 for user {lost} of gateway 5"));
}

#[test]
fn a_duplicate_is_named() {
    for shares in [Shares::SINGLE, Shares::GROUP, Shares::BROADCAST] {
        let mut count = 0;
        let found = faults(shares, 500, |number, frames| {
            if number == 123 {
                let again = frames[0].clone();
                count = again.1.len().max(1) as u64;
                frames.push(again);
            }
        });
        only(&found, fault::DUPLICATE, count, "message 123 ");
    }
    let found = faults(Shares::GROUP, 500, |number, frames| {
        if number == 123 {
            let twice = frames[2].1[0];
            frames[2].1.push(twice);
        }
    });
    only(&found, fault::DUPLICATE, 1, "message 123 for user ");
}

#[test]
fn a_user_at_the_wrong_gateway_is_named() {
    for shares in [Shares::SINGLE, Shares::GROUP] {
        let found = faults(shares, 500, |number, frames| {
            if number == 123 {
                let uid = frames[0].1.remove(0);
                let wrong = (frames[0].0 + 1) % GATEWAYS;
                frames.retain(|(_, uids)| !uids.is_empty());
                frames.insert(0, (wrong, vec![uid]));
            }
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[fault::WRONG_GATEWAY].0, 1);
        assert_eq!(found[fault::LOST].0, 1, "it did not reach its own gateway");
    }
}

#[test]
fn a_user_it_was_not_for_is_named() {
    for shares in [Shares::SINGLE, Shares::GROUP, Shares::BROADCAST] {
        let work = work(shares);
        let mut gateway = 0;
        let stranger = |gateway: usize| {
            let mut uids = (0..500).map(uid_of);
            uids.find(|uid| {
                let here = gateway_of(*uid, GATEWAYS) == gateway;
                here && !expected(&work, 123).contains(&(gateway, Some(*uid)))
            })
        };
        let found = faults(shares, 500, |number, frames| {
            if number == 123 {
                gateway = frames[0].0;
                frames.push((gateway, vec![stranger(gateway).unwrap()]));
            }
        });
        only(&found, fault::WRONG_UID, 1, &format!("at gateway {gateway}"));
    }
}

#[test]
fn a_message_for_one_that_comes_as_for_everyone_is_named() {
    let found = faults(Shares::SINGLE, 500, |number, frames| {
        if number == 123 {
            frames.push((0, Vec::new()));
        }
    });
    only(&found, fault::WRONG_UID, 1, "message 123 without its users at gateway 0");
}

#[test]
fn disorder_at_a_gateway_is_named() {
    let work = work(Shares::BROADCAST);
    let mut tally = Tally::new(Rc::clone(&work));
    for number in 0..4 {
        tally.published(work.job(number));
    }
    for gateway in 0..GATEWAYS {
        let order = if gateway == 6 { [0, 2, 1, 3] } else { [0, 1, 2, 3] };
        for number in order {
            deliver(&mut tally, gateway, number, &[]);
        }
    }
    let found = tally.end();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].count), (fault::DISORDER, 1));
    assert_eq!(found[0].example, "message 1 behind message 2 at gateway 6");
}

#[test]
fn a_payload_that_changed_is_named() {
    let work = work(Shares::BROADCAST);
    let mut tally = Tally::new(Rc::clone(&work));
    tally.published(work.job(0));
    let mut payload = Payload::new(40).of(0, 0).to_vec();
    payload[30] ^= 1;
    tally.broadcast(0, &payload);
    tally.broadcast(1, &payload[..39]);
    let far = Payload::new(40).of(1, 0).to_vec();
    tally.broadcast(2, &far);
    let found: BTreeMap<String, u64> =
        tally.end().into_iter().map(|fault| (fault.name, fault.count)).collect();
    assert_eq!(found[fault::DAMAGED], 2);
    assert_eq!(found[fault::UNKNOWN], 1);
    assert_eq!(found[fault::LOST], 7);
}

#[test]
fn a_lost_message_far_back_is_lost_and_not_late_for_the_others() {
    let work = work(Shares::SINGLE);
    let mut tally = Tally::new(Rc::clone(&work));
    let count = OPEN_MAX as u64 + 1_000;
    let one = |tally: &mut Tally, number| {
        let Job::User(uid) = work.job(number) else { panic!("only single users") };
        deliver(tally, gateway_of(uid, GATEWAYS), number, &[uid]);
    };
    for number in 0..count {
        tally.published(work.job(number));
        if ![7, 9].contains(&number) {
            one(&mut tally, number);
        }
    }
    assert_eq!(tally.in_flight(), 2);
    one(&mut tally, 9);
    assert_eq!((tally.in_flight(), tally.completed()), (1, count - 1));
    one(&mut tally, 9);
    let found: BTreeMap<String, u64> =
        tally.end().into_iter().map(|fault| (fault.name, fault.count)).collect();
    let expected = [(fault::DISORDER, 1), (fault::DUPLICATE, 1), (fault::LOST, 1)];
    assert_eq!(found, expected.map(|(name, count)| (name.to_string(), count)).into());
}

/// A tally that keeps everything.
#[derive(Default)]
struct Naive {
    copies: BTreeMap<(u64, usize, Option<u64>), u64>,
    latest: BTreeMap<usize, u64>,
    wrong: BTreeMap<&'static str, u64>,
}

impl Naive {
    fn count(&mut self, name: &'static str, count: u64) {
        if count > 0 {
            *self.wrong.entry(name).or_default() += count;
        }
    }

    fn take(&mut self, work: &Work, gateway: usize, number: u64, uids: &[u64]) {
        let targets = expected(work, number);
        let names: Vec<Option<u64>> =
            if uids.is_empty() { vec![None] } else { uids.iter().map(|uid| Some(*uid)).collect() };
        let mut fresh = false;
        for name in names {
            if targets.contains(&(gateway, name)) {
                let copies = self.copies.entry((number, gateway, name)).or_default();
                *copies += 1;
                fresh |= *copies == 1;
                let again = u64::from(*copies > 1);
                self.count(fault::DUPLICATE, again);
            } else if name.is_some() && targets.iter().any(|(_, target)| *target == name) {
                self.count(fault::WRONG_GATEWAY, 1);
            } else {
                self.count(fault::WRONG_UID, 1);
            }
        }
        if fresh {
            let latest = self.latest.entry(gateway).or_insert(number);
            let behind = u64::from(number < *latest);
            *latest = number.max(*latest);
            self.count(fault::DISORDER, behind);
        }
    }

    fn end(mut self, work: &Work, count: u64) -> BTreeMap<String, u64> {
        for number in 0..count {
            let missing = expected(work, number)
                .into_iter()
                .filter(|(gateway, uid)| !self.copies.contains_key(&(number, *gateway, *uid)))
                .count();
            self.count(fault::LOST, missing as u64);
        }
        self.wrong.into_iter().map(|(name, count)| (name.to_string(), count)).collect()
    }
}

/// Spoils one frame in forty, in one of many ways.
fn spoil(chance: u64, frames: &mut Vec<(usize, u64, Vec<u64>)>) {
    let pick = |of: usize, salt: u64| usize::try_from(mix(chance ^ salt) % of as u64).unwrap();
    let at = pick(frames.len(), 1);
    let again = frames[at].clone();
    match chance % 9 {
        0 => drop(frames.remove(at)),
        1 => frames.push(again),
        2 => frames[at].0 = pick(GATEWAYS, 2),
        3 => {
            let other = pick(frames.len(), 3);
            frames.swap(at, other);
        }
        4 if again.2.len() > 1 => drop(frames[at].2.remove(pick(again.2.len(), 4))),
        5 if again.2.len() > 1 => frames[at].2.reverse(),
        6 if !again.2.is_empty() => frames[at].2.push(again.2[pick(again.2.len(), 5)]),
        7 if !again.2.is_empty() => frames[at].2.push(uid_of(pick(500, 6) as u64)),
        8 if again.2.len() > 1 => {
            // One by one, as a peer without lists does.
            frames.remove(at);
            let (gateway, number, uids) = again;
            frames.extend(uids.into_iter().map(|uid| (gateway, number, vec![uid])));
        }
        _ => {}
    }
}

#[test]
fn it_agrees_with_a_naive_tally_on_whatever_happens() {
    for seed in 0..300 {
        let work = work(MIXED);
        let (mut tally, mut naive) = (Tally::new(Rc::clone(&work)), Naive::default());
        let mut chance = mix(seed);
        let mut next = 0;
        for _ in 0..30 {
            let mut batch = Vec::new();
            for _ in 0..1 + mix(chance) % 5 {
                tally.published(work.job(next));
                let of = |(gateway, uids)| (gateway, next, uids);
                batch.extend(frames(&work, next).into_iter().map(of));
                next += 1;
            }
            for _ in 0..=batch.len() / 40 {
                chance = mix(chance);
                if !chance.is_multiple_of(3) && !batch.is_empty() {
                    spoil(mix(chance), &mut batch);
                }
            }
            for (gateway, number, uids) in batch {
                deliver(&mut tally, gateway, number, &uids);
                naive.take(&work, gateway, number, &uids);
            }
        }
        let found: BTreeMap<String, u64> =
            tally.end().into_iter().map(|fault| (fault.name, fault.count)).collect();
        assert_eq!(found, naive.end(&work, next), "seed {seed}");
    }
}

#[test]
fn latency_is_of_measured_messages_and_from_their_due_time() {
    let work = work(Shares::SINGLE);
    let mut tally = Tally::new(Rc::clone(&work));
    tally.measure_from(1);
    for number in 0..4 {
        let Job::User(uid) = work.job(number) else { panic!("only single users") };
        tally.published(Job::User(uid));
        if number == 3 {
            tally.measure_until(3);
        }
        tally.at(number * 1_000 + 500);
        let payload = Payload::new(40).of(number, number * 1_000).to_vec();
        tally.delivered(gateway_of(uid, GATEWAYS), &payload, [uid]);
    }
    let latency = tally.latency().unwrap();
    assert_eq!((latency.len(), latency.max(), latency.min()), (2, 500, 500));
}

#[test]
fn what_only_an_excused_gateway_lacks_is_not_awaited_and_counted_apart() {
    let work = work(Shares::SINGLE);
    let mut tally = Tally::new(Rc::clone(&work));
    tally.excuse(0);
    let mut held = Vec::new();
    for number in 0..200 {
        tally.published(work.job(number));
        let [(gateway, Some(uid))] = expected(&work, number)[..] else { panic!("one user each") };
        match gateway {
            0 => held.push((number, uid)),
            _ => deliver(&mut tally, gateway, number, &[uid]),
        }
    }
    assert_eq!((tally.awaited(), tally.in_flight()), (0, held.len() as u64));
    let (number, uid) = held.remove(0);
    deliver(&mut tally, 0, number, &[uid]);
    assert_eq!((tally.awaited(), tally.in_flight()), (0, held.len() as u64));
    assert_eq!((tally.end(), tally.excused_lost()), (Vec::new(), held.len() as u64));
}

#[test]
fn a_due_time_to_come_is_damaged() {
    let work = work(Shares::SINGLE);
    let mut tally = Tally::new(Rc::clone(&work));
    tally.at(999);
    tally.published(work.job(0));
    let [(gateway, Some(uid))] = expected(&work, 0)[..] else { panic!("one user") };
    let payload = Payload::new(40).of(0, 1_000).to_vec();
    tally.delivered(gateway, &payload, [uid]);
    let faults: Vec<String> = tally.end().into_iter().map(|fault| fault.name).collect();
    assert_eq!(faults, [fault::DAMAGED]);
}
