//! Tags of the upstream machine: told with the ticket of their turn, and waited for.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use waybill_client::gateway::DeclaredTag;
use waybill_wire::code::Op;

use super::*;

fn user(uid: u64) -> Registration {
    Registration { namespace: 3, uid, device_class: 0, login: 0 }
}

fn tag(text: &str) -> DeclaredTag {
    DeclaredTag { namespace: 3, text: text.into() }
}

fn machine(links: usize) -> Upstream {
    Upstream::new(links, UplinkBounds { count_max: 2, bytes_max: 1 << 20, wait_ms: 10_000 })
}

type Told = (usize, u64, usize, Vec<(Op, String)>);

/// The commands of a turn as (link, ticket, registrations, tags).
fn told(upstream: &mut Upstream) -> Vec<Told> {
    let of = |(link, command)| match command {
        GatewayCommand::Change { ticket, changes, tags } => {
            let tags = tags.iter().map(|it| (it.op, String::from(&*it.tag.text))).collect();
            (link, ticket, changes.len(), tags)
        }
        other => panic!("{other:?}"),
    };
    upstream.commands().into_iter().map(of).collect()
}

#[test]
fn reg_6_a_login_waits_for_its_tags_too() {
    let (mut upstream, mut out) = (machine(1), Vec::new());
    upstream.link_up(0);
    upstream.register(user(1));
    assert_eq!(told(&mut upstream), [(0, 1, 1, vec![])]);
    upstream.in_effect(0, 1, &mut out);
    // The registration is in effect, the tag of another of its connections is not.
    upstream.declare(TagUpdate::add(tag("vip")));
    upstream.wait(ConnectionId(2), user(1), ["vip", "other"].into_iter(), &mut out);
    assert!(out.is_empty());
    assert_eq!(told(&mut upstream), [(0, 2, 0, vec![(Op::ADD, "vip".into())])]);
    upstream.in_effect(0, 1, &mut out);
    assert!(out.is_empty());
    upstream.in_effect(0, 2, &mut out);
    assert_eq!(out, [Notice::Confirmed(ConnectionId(2))]);
    upstream.wait(ConnectionId(3), user(1), ["vip"].into_iter(), &mut out);
    assert_eq!(out.len(), 2, "in effect already");
}

#[test]
fn tag_16_a_broker_has_a_tag_when_its_ticket_is_in_effect_there() {
    let (mut upstream, mut out) = (machine(2), Vec::new());
    upstream.link_up(0);
    upstream.link_up(1);
    let due = |upstream: &Upstream, link| upstream.tags_due(link, 3, ["a", "b"].into_iter());
    assert_eq!(due(&upstream, 0), None, "nothing is declared");
    upstream.declare(TagUpdate::add(tag("a")));
    told(&mut upstream);
    upstream.declare(TagUpdate::add(tag("b")));
    told(&mut upstream);
    assert_eq!((due(&upstream, 0), due(&upstream, 1)), (Some(2), Some(2)));
    upstream.in_effect(0, 1, &mut out);
    assert_eq!(due(&upstream, 0), Some(2));
    upstream.in_effect(0, 2, &mut out);
    assert_eq!((due(&upstream, 0), due(&upstream, 1)), (None, Some(2)));
    assert_eq!(upstream.tags_due(1, 4, ["a"].into_iter()), None, "another namespace");
    upstream.link_down(0, &mut out);
    assert_eq!(due(&upstream, 0), Some(2), "a new link has to confirm it again");
    upstream.declare(TagUpdate::remove(tag("b")));
    assert_eq!(due(&upstream, 1), Some(1));
}

#[test]
fn a_link_that_is_added_is_told_all_tags_and_one_that_is_behind_keeps_them() {
    let mut upstream = machine(1);
    upstream.declare(TagUpdate::add(tag("a")));
    upstream.declare(TagUpdate::add(tag("b")));
    let [(0, first)] = &upstream.commands()[..] else { panic!("one command") };
    upstream.declare(TagUpdate::remove(tag("a")));
    // Not taken: what has come since goes over it.
    let first = first.clone();
    let mut rest = upstream.commands();
    upstream.keep(0, first, &mut Vec::new());
    let (link, second) = rest.pop().expect("the removal");
    assert!(upstream.has_changes());
    let GatewayCommand::Change { tags, .. } = &second else { panic!("{second:?}") };
    assert_eq!((link, tags.len()), (0, 1));
    assert_eq!(upstream.add_link(), 1);
    let both = vec![(Op::ADD, "a".into()), (Op::ADD, "b".into())];
    let told = told(&mut upstream);
    assert_eq!(told[0], (0, 3, 0, both));
    assert_eq!(told[1], (1, 3, 0, vec![(Op::ADD, "b".into())]));
}

#[test]
fn too_many_tags_not_taken_over_make_logins_wait() {
    let mut upstream = machine(1);
    for number in 0..BEHIND_MAX {
        assert!(!upstream.is_behind());
        upstream.declare(TagUpdate::add(tag(&number.to_string())));
    }
    assert!(upstream.is_behind());
}

proptest! {
    /// Whatever a link takes over and whenever, it ends up with the tags that stand, and no
    /// connection is confirmed before one broker has its tags (REG-6).
    #[test]
    fn reg_6_nobody_is_confirmed_before_a_broker_has_their_tags(
        steps in proptest::collection::vec((0u8..7, 0usize..2, 0u64..6), 1..80),
    ) {
        let (mut upstream, mut out) = (machine(2), Vec::new());
        let mut standing = BTreeSet::new();
        // What each link was told, by ticket, and what is in effect there.
        let mut told: [Vec<(u64, BTreeSet<String>)>; 2] = Default::default();
        let mut in_effect: [Option<BTreeSet<String>>; 2] = Default::default();
        let mut waiting: BTreeMap<u64, String> = BTreeMap::new();
        upstream.register(user(1));
        for (number, (step, link, which)) in (1u64..).zip(steps) {
            let text = which.to_string();
            match step {
                0 if standing.insert(text.clone()) => upstream.declare(TagUpdate::add(tag(&text))),
                // A tag that a connection waits with is one that it has.
                1 if waiting.values().all(|its| *its != text) && standing.remove(&text) => {
                    upstream.declare(TagUpdate::remove(tag(&text)));
                }
                2 if standing.contains(&text) => {
                    waiting.insert(number, text.clone());
                    let tags = [text.as_str()].into_iter();
                    upstream.wait(ConnectionId(number), user(1), tags, &mut out);
                }
                3 => for (at, command) in upstream.commands() {
                    // The other link is behind.
                    if at != link {
                        upstream.keep(at, command, &mut out);
                        continue;
                    }
                    let GatewayCommand::Change { ticket, tags, .. } = command else { panic!() };
                    let mut set = told[at].last().map(|(_, set)| set.clone()).unwrap_or_default();
                    for TagUpdate { op, tag } in tags {
                        let text = String::from(&*tag.text);
                        let _ = if op == Op::ADD { set.insert(text) } else { set.remove(&text) };
                    }
                    told[at].push((ticket, set));
                },
                4 => if let Some((ticket, set)) = told[link].last().cloned() {
                    in_effect[link] = Some(set);
                    upstream.in_effect(link, ticket, &mut out);
                },
                5 => {
                    in_effect[link] = None;
                    upstream.link_down(link, &mut out);
                    upstream.link_up(link);
                }
                _ => {}
            }
            for notice in out.drain(..) {
                let Notice::Confirmed(ConnectionId(number)) = notice else { panic!("{notice:?}") };
                let text = waiting.remove(&number).expect("it is confirmed once");
                let mut sets = in_effect.iter().flatten();
                prop_assert!(sets.any(|set| set.contains(&text)));
            }
        }
    }
}
