//! The upstream machine with links that do what a test says, then against links at random.

use proptest::prelude::*;
use std::collections::BTreeSet;

use super::*;

fn user(uid: u64) -> Registration {
    Registration { namespace: 0, uid, device_class: 0, login: 0 }
}

fn machine(links: usize) -> Upstream {
    Upstream::new(links, 2, 10_000)
}

/// The change commands of a turn as (link, ticket, number of changes).
fn changes(upstream: &mut Upstream) -> Vec<(usize, u64, usize)> {
    let commands = upstream.commands().into_iter();
    let change = |(link, command)| match command {
        GatewayCommand::Change { ticket, changes } => (link, ticket, changes.len()),
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
    upstream.wait(ConnectionId(1), user(1), &mut out);
    upstream.wait(ConnectionId(2), user(1), &mut out);
    assert_eq!(changes(&mut upstream), [(0, 1, 1)]);
    upstream.register(user(2));
    upstream.wait(ConnectionId(3), user(2), &mut out);
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
    upstream.wait(ConnectionId(4), user(1), &mut out);
    assert_eq!(out, [confirmed(4)]);
}

#[test]
fn while_no_broker_is_linked_logins_wait() {
    let mut upstream = machine(1);
    let mut out = Vec::new();
    upstream.register(user(1));
    upstream.wait(ConnectionId(1), user(1), &mut out);
    assert_eq!(changes(&mut upstream), [(0, 1, 1)]);
    upstream.link_up(0);
    upstream.in_effect(0, 1, &mut out);
    assert_eq!(out, [confirmed(1)]);
    out.clear();
    upstream.link_down(0);
    assert_eq!(upstream.links_up(), 0);
    // The registration stands, but not at any broker now.
    upstream.wait(ConnectionId(2), user(1), &mut out);
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
    upstream.wait(ConnectionId(1), user(1), &mut out);
    assert_eq!(changes(&mut upstream), [(0, 1, 1), (1, 1, 1)]);
    upstream.in_effect(1, 1, &mut out);
    assert_eq!(out, [confirmed(1)]);
    out.clear();
    // The broker that had it is lost, the other is still behind.
    upstream.link_down(1);
    upstream.wait(ConnectionId(2), user(1), &mut out);
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
            upstream.keep(link, command);
        }
    }
    assert!(upstream.has_changes());
    assert_eq!(changes(&mut upstream), [(1, 1, 2)], "the same ticket: nothing new is in it");
    upstream.register(user(3));
    for (link, command) in upstream.commands() {
        upstream.keep(link, command);
    }
    upstream.unregister(user(3));
    upstream.register(user(4));
    // The latest of each registration counts; a ticket never falls.
    assert_eq!(changes(&mut upstream), [(0, 3, 2), (1, 3, 2)]);
    upstream.register(user(5));
    upstream.link_failed(0);
    assert_eq!(changes(&mut upstream), [(1, 4, 1)]);
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
    let answer = |id, code| Notice::Answered { connection: ConnectionId(9), id, code };
    upstream.answered(2, ErrorCode(0), &mut out);
    upstream.tick(9_999, &mut out);
    assert_eq!(out, [answer(2, ErrorCode(0))]);
    out.clear();
    upstream.tick(10_000, &mut out);
    assert_eq!(out, [answer(1, ErrorCode::CONSUMER_LOST)]);
    out.clear();
    upstream.answered(1, ErrorCode(0), &mut out);
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
    upstream.keep(0, GatewayCommand::Abandon { sequence: 1 });
    assert!(upstream.has_changes());
    assert_eq!(send(&mut upstream, 3, 2), Err(ErrorCode::OVERLOADED));
    assert_eq!(upstream.commands(), [abandon(1)]);
    assert_eq!(send(&mut upstream, 4, 2), Ok((0, 3)));
    // A link that has ended remembers none.
    upstream.link_down(0);
    upstream.tick(20_000, &mut out);
    assert_eq!(upstream.commands(), []);
}

#[test]
fn promise_2_a_user_keeps_their_link_while_an_uplink_is_unanswered_there() {
    let mut upstream = Upstream::new(2, 1000, 10_000);
    let mut out = Vec::new();
    (0..2).for_each(|link| upstream.link_up(link));
    // Where this user's go when nothing of theirs is unanswered, and where they go without it.
    let usual = upstream.link_of(user(1)).unwrap();
    let other = 1 - usual;
    upstream.link_down(usual);
    assert_eq!(send(&mut upstream, 1, 0), Ok((other, 1)));
    upstream.link_up(usual);
    assert_eq!(send(&mut upstream, 2, 0), Ok((other, 2)), "the first is still on its way");
    upstream.answered(1, ErrorCode(0), &mut out);
    assert_eq!(send(&mut upstream, 3, 0), Ok((other, 3)), "the second is");
    upstream.answered(3, ErrorCode(0), &mut out);
    upstream.answered(2, ErrorCode(0), &mut out);
    assert_eq!(send(&mut upstream, 4, 0), Ok((usual, 4)));
    // Ended is as good as answered; what comes late of the ended one counts for nothing.
    upstream.link_down(usual);
    assert_eq!(send(&mut upstream, 5, 0), Ok((other, 5)));
    upstream.link_up(usual);
    upstream.answered(4, ErrorCode::CONSUMER_LOST, &mut out);
    assert_eq!(send(&mut upstream, 6, 0), Ok((other, 6)));
    upstream.tick(10_000, &mut out);
    assert_eq!(send(&mut upstream, 7, 10_000), Ok((usual, 7)));
    assert_eq!(out.len(), 6, "each is answered once");
}

#[test]
fn promise_2_one_user_uses_one_link() {
    let mut upstream = Upstream::new(3, 1000, 10_000);
    (0..3).for_each(|link| upstream.link_up(link));
    let link = |upstream: &Upstream, uid| upstream.link_of(user(uid)).unwrap();
    let before: Vec<usize> = (0..300).map(|uid| link(&upstream, uid)).collect();
    for number in 0..3 {
        assert!(before.iter().filter(|link| **link == number).count() > 50, "{before:?}");
    }
    upstream.link_down(1);
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
                    upstream.wait(ConnectionId(logins.len() as u64 - 1), user(uid), &mut out);
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
                    upstream.link_down(link);
                    brokers[link].up = false;
                }
                5 => if brokers[link].up {
                    upstream.in_effect(link, brokers[link].ticket, &mut out);
                },
                // A turn: link 1 takes commands over only now and then.
                _ => for (link, command) in upstream.commands() {
                    if link == 1 && uid > 0 {
                        upstream.keep(link, command);
                        continue;
                    }
                    let GatewayCommand::Change { ticket, changes } = command else { continue };
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
            let GatewayCommand::Change { ticket, changes } = command else { continue };
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
