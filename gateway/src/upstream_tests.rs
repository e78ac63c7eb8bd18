//! The upstream machine with links that do what a test says, then against links at random.

use proptest::prelude::*;
use std::collections::BTreeSet;
use waybill_client::gateway::Change;
use waybill_wire::code::Op;

use super::*;

fn user(uid: u64) -> Registration {
    Registration { namespace: 0, uid, device_class: 0, login: 0 }
}

/// No tags.
const NONE: std::iter::Empty<&str> = std::iter::empty();

fn machine(links: usize) -> Upstream {
    bounded(links, 2)
}

fn bounded(links: usize, count_max: usize) -> Upstream {
    Upstream::new(links, UplinkBounds { count_max, bytes_max: 1 << 20, wait_ms: 10_000 })
}

/// The change commands of a turn as (link, ticket, number of changes).
fn changes(upstream: &mut Upstream) -> Vec<(usize, u64, usize)> {
    let commands = upstream.commands().into_iter();
    let change = |(link, command)| match command {
        GatewayCommand::Change { ticket, changes, .. } => (link, ticket, changes.len()),
        other => panic!("{other:?}"),
    };
    commands.map(change).collect()
}

fn confirmed(connection: u64) -> Notice {
    Notice::Confirmed(ConnectionId(connection))
}

fn send(upstream: &mut Upstream, id: u32, now_ms: u64) -> Result<(usize, u64), ErrorCode> {
    let mut out = Vec::new();
    let message = Outgoing {
        connection: ConnectionId(9),
        id,
        labels: vec!["chat".into()],
        payload: Bytes::from_static(b"x"),
    };
    match upstream.uplink(user(1), message, now_ms, &mut out) {
        Some((link, GatewayCommand::Uplink(uplink))) => {
            assert_eq!((uplink.uid, uplink.connection), (1, 9));
            Ok((link, uplink.sequence))
        }
        Some(other) => panic!("{other:?}"),
        None => match out[..] {
            [Notice::Answered { connection: ConnectionId(9), id: answered, code }] => {
                assert_eq!(answered, id);
                Err(code)
            }
            _ => panic!("{out:?}"),
        },
    }
}

#[test]
fn reg_6_a_login_waits_for_its_ticket() {
    let mut upstream = machine(1);
    let mut out = Vec::new();
    upstream.link_up(0);
    upstream.in_effect(0, 0, &mut out);
    upstream.register(user(1));
    upstream.wait(ConnectionId(1), user(1), NONE, &mut out);
    upstream.wait(ConnectionId(2), user(1), NONE, &mut out);
    assert_eq!(changes(&mut upstream), [(0, 1, 1)]);
    upstream.register(user(2));
    upstream.wait(ConnectionId(3), user(2), NONE, &mut out);
    assert_eq!(changes(&mut upstream), [(0, 2, 1)]);
    assert_eq!(changes(&mut upstream), []);
    assert!(out.is_empty());
    upstream.in_effect(0, 1, &mut out);
    assert_eq!(out, [confirmed(1), confirmed(2)]);
    out.clear();
    upstream.in_effect(0, 2, &mut out);
    assert_eq!(out, [confirmed(3)]);
    out.clear();
    // In effect already: nothing to wait for.
    upstream.wait(ConnectionId(4), user(1), NONE, &mut out);
    assert_eq!(out, [confirmed(4)]);
}

#[test]
fn while_no_broker_is_linked_logins_wait() {
    let mut upstream = machine(1);
    let mut out = Vec::new();
    upstream.register(user(1));
    upstream.wait(ConnectionId(1), user(1), NONE, &mut out);
    assert_eq!(changes(&mut upstream), [(0, 1, 1)]);
    upstream.link_up(0);
    upstream.in_effect(0, 1, &mut out);
    assert_eq!(out, [confirmed(1)]);
    out.clear();
    upstream.link_down(0, &mut out);
    assert_eq!(upstream.links_up(), 0);
    // The registration stands, but not at any broker now.
    upstream.wait(ConnectionId(2), user(1), NONE, &mut out);
    upstream.link_up(0);
    assert!(out.is_empty(), "up is not in effect");
    upstream.in_effect(0, 1, &mut out);
    assert_eq!(out, [confirmed(2)]);
}

#[test]
fn the_first_broker_confirms_but_only_what_it_has() {
    let mut upstream = machine(2);
    let mut out = Vec::new();
    for link in 0..2 {
        upstream.link_up(link);
        upstream.in_effect(link, 0, &mut out);
    }
    upstream.register(user(1));
    upstream.wait(ConnectionId(1), user(1), NONE, &mut out);
    assert_eq!(changes(&mut upstream), [(0, 1, 1), (1, 1, 1)]);
    upstream.in_effect(1, 1, &mut out);
    assert_eq!(out, [confirmed(1)]);
    out.clear();
    // The broker that had it is lost, the other is still behind.
    upstream.link_down(1, &mut out);
    upstream.wait(ConnectionId(2), user(1), NONE, &mut out);
    assert!(out.is_empty());
    upstream.in_effect(0, 1, &mut out);
    assert_eq!(out, [confirmed(2)]);
}

#[test]
fn a_command_that_was_not_taken_is_offered_with_what_came_since() {
    let mut upstream = machine(2);
    upstream.register(user(1));
    upstream.register(user(2));
    for (link, command) in upstream.commands() {
        if link == 1 {
            upstream.keep(link, command, &mut Vec::new());
        }
    }
    assert!(upstream.has_changes());
    assert_eq!(changes(&mut upstream), [(1, 1, 2)], "the same ticket: nothing new is in it");
    upstream.register(user(3));
    for (link, command) in upstream.commands() {
        upstream.keep(link, command, &mut Vec::new());
    }
    upstream.unregister(user(3));
    upstream.register(user(4));
    // The latest of each registration counts; a ticket never falls.
    assert_eq!(changes(&mut upstream), [(0, 3, 2), (1, 3, 2)]);
    upstream.register(user(5));
    upstream.link_failed(0, &mut Vec::new());
    assert_eq!(changes(&mut upstream), [(1, 4, 1)]);
}

#[test]
fn promise_8_a_login_that_lost_cannot_cancel_its_own_removal() {
    let mut upstream = machine(1);
    let mut out = Vec::new();
    upstream.link_up(0);
    upstream.register(user(1));
    assert_eq!(changes(&mut upstream), [(0, 1, 1)]);
    upstream.displace(user(1), 7);
    assert_eq!(upstream.displaced_by(user(1)), Some(7));
    assert_eq!(changes(&mut upstream), [(0, 2, 1)]);
    upstream.in_effect(0, 1, &mut out);
    assert_eq!(upstream.displaced_by(user(1)), Some(7), "the removal is still on its way");
    upstream.in_effect(0, 2, &mut out);
    assert_eq!(upstream.displaced_by(user(1)), None, "the broker judges the next one");
}

#[test]
fn uplinks_are_answered_once_bounded_and_in_time() {
    let mut upstream = machine(1);
    let mut out = Vec::new();
    assert_eq!(send(&mut upstream, 1, 0), Err(ErrorCode::NO_CONSUMER));
    upstream.link_up(0);
    assert_eq!(send(&mut upstream, 1, 0), Ok((0, 1)));
    assert_eq!(send(&mut upstream, 2, 5), Ok((0, 2)));
    assert_eq!(send(&mut upstream, 3, 6), Err(ErrorCode::OVERLOADED));
    assert_eq!(upstream.deadline_ms(), Some(10_000));
    upstream.answered(0, 2, ErrorCode(0), &mut out);
    upstream.tick(9_999, &mut out);
    assert_eq!(out, [answer(2, ErrorCode(0))]);
    out.clear();
    upstream.tick(10_000, &mut out);
    assert_eq!(out, [answer(1, ErrorCode::CONSUMER_LOST)]);
    out.clear();
    upstream.answered(0, 1, ErrorCode(0), &mut out);
    assert!(out.is_empty(), "its user has been told");
    assert_eq!(upstream.deadline_ms(), None);
}

#[test]
fn an_uplink_that_was_never_answered_is_abandoned_at_its_link() {
    let mut upstream = machine(1);
    let mut out = Vec::new();
    upstream.link_up(0);
    assert_eq!(send(&mut upstream, 1, 0), Ok((0, 1)));
    assert_eq!(send(&mut upstream, 2, 1), Ok((0, 2)));
    upstream.tick(10_000, &mut out);
    let abandon = |sequence| (0, GatewayCommand::Abandon { sequence });
    assert_eq!(upstream.commands(), [abandon(1)]);
    assert!(!upstream.has_changes());
    // The link is behind: it is told again, and until then the uplink takes its room.
    upstream.keep(0, GatewayCommand::Abandon { sequence: 1 }, &mut out);
    assert!(upstream.has_changes());
    assert_eq!(send(&mut upstream, 3, 2), Err(ErrorCode::OVERLOADED));
    assert_eq!(upstream.commands(), [abandon(1)]);
    assert_eq!(send(&mut upstream, 4, 2), Ok((0, 3)));
    // A link that has ended remembers none.
    upstream.link_down(0, &mut out);
    upstream.tick(20_000, &mut out);
    assert_eq!(upstream.commands(), []);
}

#[test]
fn promise_2_a_user_keeps_their_link_while_an_uplink_is_unanswered_there() {
    let mut upstream = bounded(2, 1000);
    let mut out = Vec::new();
    (0..2).for_each(|link| upstream.link_up(link));
    // Where this user's go when nothing of theirs is unanswered, and where they go without it.
    let usual = upstream.uplinks.link_of((0, 1)).unwrap();
    let other = 1 - usual;
    upstream.link_down(usual, &mut out);
    assert_eq!(send(&mut upstream, 1, 0), Ok((other, 1)));
    upstream.link_up(usual);
    assert_eq!(send(&mut upstream, 2, 0), Ok((other, 2)), "the first is still on its way");
    upstream.answered(other, 1, ErrorCode(0), &mut out);
    assert_eq!(send(&mut upstream, 3, 0), Ok((other, 3)), "the second is");
    upstream.answered(other, 3, ErrorCode(0), &mut out);
    upstream.answered(usual, 2, ErrorCode(0), &mut out);
    assert_eq!(out.len(), 2, "an answer by a link that does not have it is none");
    upstream.answered(other, 2, ErrorCode(0), &mut out);
    assert_eq!(send(&mut upstream, 4, 0), Ok((usual, 4)));
    upstream.tick(10_000, &mut out);
    assert_eq!(out.len(), 4, "each is answered once");
}

/// The uplinks among a turn's commands as (link, sequence, sent again).
fn moved(upstream: &mut Upstream) -> Vec<(usize, u64, bool)> {
    let commands = upstream.commands().into_iter();
    let uplinks = commands.filter_map(|(link, command)| match command {
        GatewayCommand::Uplink(uplink) => Some((link, uplink.sequence, uplink.resend)),
        _ => None,
    });
    uplinks.collect()
}

fn answer(id: u32, code: ErrorCode) -> Notice {
    Notice::Answered { connection: ConnectionId(9), id, code }
}

#[test]
fn promise_2_what_was_unanswered_moves_to_another_link_in_order_once() {
    let mut upstream = bounded(2, 1000);
    let mut out = Vec::new();
    (0..2).for_each(|link| upstream.link_up(link));
    let usual = upstream.uplinks.link_of((0, 1)).unwrap();
    let other = 1 - usual;
    (1..=3).for_each(|id| assert!(send(&mut upstream, id, 0).is_ok()));
    upstream.not_transmitted(usual, 3);
    upstream.link_down(usual, &mut out);
    // New ones go after them.
    assert_eq!(send(&mut upstream, 4, 0), Ok((other, 4)));
    let expected = [(other, 1, true), (other, 2, true), (other, 3, true)];
    assert_eq!(moved(&mut upstream), expected, "UP-12: with RESEND, transmitted or not");
    assert!(out.is_empty(), "their user notices nothing");
    upstream.link_up(usual);
    assert_eq!(send(&mut upstream, 5, 0), Ok((other, 5)), "and stays there");
    upstream.answered(usual, 1, ErrorCode::NO_CONSUMER, &mut out);
    assert!(out.is_empty(), "a late word of the link that had it");
    upstream.answered(other, 1, ErrorCode(0), &mut out);
    assert_eq!(out, [answer(1, ErrorCode(0))]);
    out.clear();
    upstream.link_down(other, &mut out);
    assert_eq!(out, [answer(2, ErrorCode::CONSUMER_LOST)], "once");
    let expected = [(usual, 3, true), (usual, 4, true), (usual, 5, true)];
    assert_eq!(moved(&mut upstream), expected);
}

#[test]
fn up_1_an_uplink_that_moves_below_what_its_new_link_has_carried_is_marked() {
    let mut upstream = bounded(2, 1000);
    let mut out = Vec::new();
    (0..2).for_each(|link| upstream.link_up(link));
    let usual = upstream.uplinks.link_of((0, 1)).unwrap();
    let other = 1 - usual;
    let elsewhere = (2..).find(|uid| upstream.uplinks.link_of((0, *uid)) == Some(other)).unwrap();
    assert_eq!(send(&mut upstream, 1, 0), Ok((usual, 1)));
    let (connection, payload) = (ConnectionId(8), Bytes::from_static(b"y"));
    let message = Outgoing { connection, id: 1, labels: Vec::new(), payload };
    let sent = upstream.uplink(user(elsewhere), message, 0, &mut out);
    assert!(matches!(sent, Some((link, GatewayCommand::Uplink(uplink)))
        if link == other && uplink.sequence == 2 && !uplink.resend));
    upstream.not_transmitted(usual, 1);
    upstream.link_down(usual, &mut out);
    assert_eq!(moved(&mut upstream), [(other, 1, true)]);
}

#[test]
fn up_12_what_a_link_cannot_take_at_once_stays_in_order_and_goes_later() {
    let mut upstream = bounded(2, 1000);
    let mut out = Vec::new();
    (0..2).for_each(|link| upstream.link_up(link));
    let usual = upstream.uplinks.link_of((0, 1)).unwrap();
    let other = 1 - usual;
    (1..=4).for_each(|id| assert!(send(&mut upstream, id, 0).is_ok()));
    upstream.link_down(usual, &mut out);
    // Room for one, then for none.
    for taken in [1, 0] {
        for (link, command) in upstream.commands().into_iter().skip(taken) {
            upstream.keep(link, command, &mut out);
        }
    }
    assert!(upstream.has_changes() && out.is_empty(), "{out:?}");
    assert_eq!(send(&mut upstream, 5, 0), Ok((other, 5)));
    // It goes too, before any of these was given to it: they were sent once.
    upstream.link_up(usual);
    upstream.link_down(other, &mut out);
    assert_eq!(out, [answer(1, ErrorCode::CONSUMER_LOST)]);
    let expected = [2, 3, 4, 5].map(|sequence| (usual, sequence, true));
    assert_eq!(moved(&mut upstream), expected);
}

#[test]
fn without_a_link_an_uplink_waits_for_the_next_as_long_as_its_user_does() {
    let mut upstream = bounded(1, 1000);
    let mut out = Vec::new();
    upstream.link_up(0);
    assert_eq!(send(&mut upstream, 1, 0), Ok((0, 1)));
    assert_eq!(send(&mut upstream, 2, 5_000), Ok((0, 2)));
    upstream.link_down(0, &mut out);
    assert_eq!(moved(&mut upstream), []);
    assert_eq!(send(&mut upstream, 3, 5_000), Err(ErrorCode::NO_CONSUMER));
    upstream.tick(10_000, &mut out);
    assert_eq!(out, [answer(1, ErrorCode::CONSUMER_LOST)]);
    upstream.link_up(0);
    assert_eq!(moved(&mut upstream), [(0, 2, true)]);
    upstream.answered(0, 2, ErrorCode(0), &mut out);
    assert_eq!(out[1..], [answer(2, ErrorCode(0))]);
    assert_eq!(upstream.uplinks_waiting(), 0);
}

#[test]
fn promise_7_bytes_of_unanswered_uplinks_are_bounded() {
    let bounds = UplinkBounds { count_max: 1000, bytes_max: 1000, wait_ms: 10_000 };
    let mut upstream = Upstream::new(1, bounds);
    let mut out = Vec::new();
    upstream.link_up(0);
    let taken = (1..=100).take_while(|id| send(&mut upstream, *id, 0).is_ok()).count();
    assert!((2..10).contains(&taken), "{taken}");
    assert_eq!(send(&mut upstream, 101, 0), Err(ErrorCode::OVERLOADED));
    upstream.answered(0, 1, ErrorCode(0), &mut out);
    assert!(send(&mut upstream, 102, 0).is_ok());
}

#[test]
fn links_come_and_go() {
    let mut upstream = bounded(1, 1000);
    let mut out = Vec::new();
    upstream.link_up(0);
    upstream.register(user(1));
    assert_eq!(changes(&mut upstream), [(0, 1, 1)]);
    upstream.in_effect(0, 1, &mut out);
    assert_eq!(upstream.add_link(), 1);
    upstream.register(user(2));
    // The new broker gets what stands, the old one what is new.
    assert_eq!(changes(&mut upstream), [(0, 2, 1), (1, 2, 2)]);
    upstream.link_up(1);
    upstream.in_effect(1, 2, &mut out);
    assert_eq!(send(&mut upstream, 1, 0).unwrap().1, 1);
    let at = upstream.uplinks.link_of((0, 1)).unwrap();
    upstream.retire_link(0);
    upstream.register(user(3));
    assert_eq!(changes(&mut upstream), [(1, 3, 1)], "nothing more for the one that goes");
    assert_eq!(upstream.uplinks.link_of((0, 1)), Some(at), "what is unanswered stays");
    upstream.in_effect(0, 3, &mut out);
    upstream.wait(ConnectionId(3), user(3), NONE, &mut out);
    assert!(out.is_empty(), "and what it confirms does not count");
    upstream.link_gone(0, &mut out);
    assert_eq!(upstream.uplinks.link_of((0, 1)), Some(1));
    assert!(moved(&mut upstream).len() <= 1);
    assert_eq!(upstream.add_link(), 0, "its number is free");
    assert_eq!(changes(&mut upstream).last(), Some(&(0, 4, 3)));
}

#[test]
fn promise_2_one_user_uses_one_link() {
    let mut upstream = bounded(3, 1000);
    (0..3).for_each(|link| upstream.link_up(link));
    let link = |upstream: &Upstream, uid| upstream.uplinks.link_of((0, uid)).unwrap();
    let before: Vec<usize> = (0..300).map(|uid| link(&upstream, uid)).collect();
    for number in 0..3 {
        assert!(before.iter().filter(|link| **link == number).count() > 50, "{before:?}");
    }
    upstream.link_down(1, &mut Vec::new());
    for (uid, before) in (0..).zip(before) {
        let after = link(&upstream, uid);
        assert!(after != 1 && (before == 1 || after == before), "only those of link 1 move");
    }
}

/// A broker's side of one link, naively.
#[derive(Default)]
struct Broker {
    up: bool,
    has: BTreeSet<Registration>,
    /// Sets and tickets it has taken over and not yet confirmed.
    ticket: u64,
}

proptest! {
    #[test]
    fn ws_5_nobody_is_confirmed_before_a_broker_has_them(
        steps in proptest::collection::vec((0u8..8, 0usize..2, 0u64..4), 1..200),
    ) {
        let mut upstream = machine(2);
        let mut brokers = [Broker::default(), Broker::default()];
        let mut standing = BTreeSet::new();
        let mut logins: Vec<Registration> = Vec::new();
        // Logins whose connection has left: the last of a registration takes it away.
        let mut gone = BTreeSet::new();
        let mut confirmed = BTreeSet::new();
        for (what, link, uid) in steps {
            let mut out = Vec::new();
            match what {
                0 | 1 => {
                    if standing.insert(user(uid)) {
                        upstream.register(user(uid));
                    }
                    logins.push(user(uid));
                    upstream.wait(ConnectionId(logins.len() as u64 - 1), user(uid), NONE, &mut out);
                }
                2 => if standing.remove(&user(uid)) {
                    upstream.unregister(user(uid));
                    let left = (0u64..).zip(&logins).filter(|(_, login)| **login == user(uid));
                    gone.extend(left.map(|(number, _)| number));
                },
                3 => {
                    upstream.link_up(link);
                    brokers[link].up = true;
                }
                4 => {
                    upstream.link_down(link, &mut out);
                    brokers[link].up = false;
                }
                5 => if brokers[link].up {
                    upstream.in_effect(link, brokers[link].ticket, &mut out);
                },
                // A turn: link 1 takes commands over only now and then.
                _ => for (link, command) in upstream.commands() {
                    if link == 1 && uid > 0 {
                        upstream.keep(link, command, &mut Vec::new());
                        continue;
                    }
                    let GatewayCommand::Change { ticket, changes, .. } = command else { continue };
                    let broker = &mut brokers[link];
                    prop_assert!(ticket > broker.ticket);
                    broker.ticket = ticket;
                    for Change { op, registration } in changes {
                        match op {
                            Op::ADD => broker.has.insert(registration),
                            _ => broker.has.remove(&registration),
                        };
                    }
                },
            }
            for notice in out {
                let Notice::Confirmed(ConnectionId(login)) = notice else { continue };
                prop_assert!(confirmed.insert(login), "confirmed once");
                let registration = logins[usize::try_from(login).unwrap()];
                let there = brokers.iter().any(|broker| broker.up && broker.has.contains(&registration));
                prop_assert!(there || gone.contains(&login));
            }
        }
        // In the end every broker has what stands, and every login that stands is confirmed.
        let mut out = Vec::new();
        for (link, command) in upstream.commands() {
            let GatewayCommand::Change { ticket, changes, .. } = command else { continue };
            brokers[link].ticket = ticket;
            for Change { op, registration } in changes {
                match op {
                    Op::ADD => brokers[link].has.insert(registration),
                    _ => brokers[link].has.remove(&registration),
                };
            }
        }
        for broker in &brokers {
            prop_assert_eq!(&broker.has, &standing);
        }
        upstream.link_up(0);
        upstream.in_effect(0, brokers[0].ticket, &mut out);
        confirmed.extend(out.iter().map(|notice| match notice {
            Notice::Confirmed(ConnectionId(login)) => *login,
            Notice::Answered { .. } => unreachable!("nothing was sent"),
        }));
        prop_assert_eq!(confirmed.len(), logins.len());
    }
}
