//! Messages that are handed out in parts, while connections come, go and change between them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use waybill_wire::code::Op;
use waybill_wire::selector::{Selector, parse};

use super::*;

const TAGS: TagBounds = TagBounds { of_connection: 4, declared: 9, held: 1 << 20 };
const BOUNDS: Bounds = Bounds { connections: 64, per_user: 64, recent: 64, tags: TAGS };

fn run(uids: &[u64]) -> Vec<u8> {
    uids.iter().flat_map(|uid| uid.to_le_bytes()).collect()
}

fn join(hub: &mut Hub<u32>, uid: u64, tags: &[&str], handle: u32) -> ConnectionId {
    let registration = Registration { namespace: 0, uid, device_class: 0, login: 0 };
    let tags: Vec<Box<str>> = tags.iter().map(|tag| Box::from(*tag)).collect();
    hub.login(registration, &tags, handle).unwrap().0
}

/// Who is met in each part of this size.
fn in_parts(hub: &mut Hub<u32>, audience: &Audience<'_>, size: usize) -> Vec<Vec<u32>> {
    let (mut parts, mut met) = (Vec::new(), Vec::new());
    let meet = |met: &mut Vec<u32>, it: Met<'_, u32>| {
        if let Met::Connection(handle) = it {
            met.push(*handle);
        }
    };
    let (_, mut walk) = hub.begin((1, 1), audience, &mut size.clone(), |_, it| meet(&mut met, it));
    parts.push(std::mem::take(&mut met));
    while let Some(it) = walk.as_mut().filter(|walk| !walk.is_done()) {
        hub.go_on(it, audience, &mut size.clone(), |_, it| meet(&mut met, it));
        parts.push(std::mem::take(&mut met));
    }
    parts
}

#[test]
fn sec_24_no_part_meets_more_than_it_may() {
    let not = parse("!vip").unwrap();
    let club = parse("vip | club").unwrap();
    let uids: Vec<u64> = (0..20).collect();
    let (listed, but_one) = (run(&uids), run(&[3]));
    let audiences = [
        (Audience { everyone: true, ..Audience::default() }, 40),
        (Audience { everyone: true, selector: Some(selector(&not)), ..Audience::default() }, 20),
        (Audience { everyone: true, selector: Some(selector(&club)), ..Audience::default() }, 20),
        (Audience { listed: UidRun::new(&listed).unwrap(), ..Audience::default() }, 40),
    ];
    for (audience, expected) in audiences {
        let except = UidRun::new(&but_one).unwrap();
        for (audience, expected) in
            [(audience, expected), (Audience { except, ..audience }, expected * 19 / 20)]
        {
            let mut hub = Hub::new(BOUNDS, 7);
            for handle in 0..40_u32 {
                let tags: &[&str] = if handle < 20 { &["vip", "club"] } else { &[] };
                let id = join(&mut hub, u64::from(handle % 20), tags, handle);
                hub.confirm(id);
            }
            let parts = in_parts(&mut hub, &audience, 7);
            // A user's two connections are one step.
            assert!(parts.iter().all(|part| part.len() <= 8), "{parts:?}");
            assert!(parts.len() >= expected / 8, "{parts:?}");
            let all: BTreeSet<u32> = parts.iter().flatten().copied().collect();
            assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), all.len(), "each once");
            assert_eq!(all.len(), expected, "{audience:?}");
        }
    }
}

#[test]
fn sec_24_one_user_of_many_connections_is_one_part() {
    let mut hub = Hub::new(BOUNDS, 7);
    for handle in 0..60 {
        let id = join(&mut hub, u64::from(handle / 30), &[], handle);
        hub.confirm(id);
    }
    // Each listed thrice; fewer UIDs than a part, but not fewer connections.
    let listed = run(&[1, 1, 0, 1, 0, 0]);
    let audience = Audience { listed: UidRun::new(&listed).unwrap(), ..Audience::default() };
    let parts = in_parts(&mut hub, &audience, 10);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [30, 30]);
}

fn selector(bytes: &[u8]) -> Selector<'_> {
    Selector::check(bytes).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Join { uid: u64, vip: bool, confirmed: bool },
    Confirm { pick: usize },
    Leave { pick: usize },
    Tag { uid: u64, op: Op },
    Other { everyone: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![Just(Op::ADD), Just(Op::REMOVE)];
    prop_oneof![
        4 => (0u64..8, any::<bool>(), any::<bool>())
            .prop_map(|(uid, vip, confirmed)| Step::Join { uid, vip, confirmed }),
        2 => (0usize..40).prop_map(|pick| Step::Confirm { pick }),
        2 => (0usize..40).prop_map(|pick| Step::Leave { pick }),
        1 => (0u64..8, op).prop_map(|(uid, op)| Step::Tag { uid, op }),
        1 => any::<bool>().prop_map(|everyone| Step::Other { everyone }),
    ]
}

/// A connection, and what it was at each moment of the walk.
#[derive(Clone, Debug)]
struct Known {
    id: ConnectionId,
    uid: u64,
    /// When the message came.
    was_ready: bool,
    confirmed: bool,
    here: bool,
    /// Whether it matched at each moment, and at some.
    always: bool,
    ever: bool,
}

struct World {
    hub: Hub<u32>,
    /// By handle.
    known: Vec<Known>,
    expression: &'static str,
    others: u64,
}

impl World {
    fn do_step(&mut self, step: &Step) {
        match *step {
            Step::Join { uid, vip, confirmed } if self.hub.len() < BOUNDS.connections => {
                let handle = u32::try_from(self.known.len()).unwrap();
                let tags: &[&str] = if vip { &["vip"] } else { &[] };
                let id = join(&mut self.hub, uid, tags, handle);
                let (here, was_ready) = (true, false);
                let (always, ever) = (true, false);
                let known = Known { id, uid, was_ready, confirmed, here, always, ever };
                self.known.push(known);
                if confirmed {
                    self.hub.confirm(id);
                }
            }
            Step::Join { .. } => {}
            Step::Confirm { pick } => {
                if let Some(known) = self.known.get_mut(pick) {
                    known.confirmed |= self.hub.confirm(known.id).is_some();
                }
            }
            Step::Leave { pick } => {
                if let Some(known) = self.known.get_mut(pick) {
                    self.hub.logout(known.id);
                    known.here = false;
                }
            }
            Step::Tag { uid, op } => {
                self.hub.tag(0, uid, &LastChanges::from([("vip", op)]));
            }
            Step::Other { everyone } => {
                self.others += 1;
                let listed = run(&[0, 1, 2, 3]);
                let listed = if everyone { &[][..] } else { &listed[..] };
                let listed = UidRun::new(listed).unwrap();
                let audience = Audience { everyone, listed, ..Audience::default() };
                self.hub.deliver((2, self.others), &audience, |_| ());
            }
        }
        self.look();
    }

    fn look(&mut self) {
        for known in self.known.iter_mut().filter(|known| known.here) {
            let vip = self.hub.tags_of(known.id).any(|tag| tag == "vip");
            let matches = match self.expression {
                "vip" => vip,
                "!vip" => !vip,
                _ => true,
            };
            known.always &= matches;
            known.ever |= matches;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn sec_24_each_is_judged_once_by_some_moment_of_the_walk(
        before in proptest::collection::vec(step(), 0..30),
        between in proptest::collection::vec(step(), 0..40),
        expression in prop_oneof![Just(""), Just("vip"), Just("!vip")],
        listed in proptest::option::of(proptest::collection::vec(0u64..10, 1..20)),
        except in proptest::collection::vec(0u64..8, 0..3),
        sizes in proptest::collection::vec(1usize..6, 1..4),
    ) {
        let hub = Hub::new(BOUNDS, 7);
        let mut world = World { hub, known: Vec::new(), expression, others: 0 };
        before.iter().for_each(|step| world.do_step(step));
        for known in &mut world.known {
            (known.was_ready, known.always, known.ever) = (known.confirmed, true, false);
        }
        world.look();
        let bytes = if expression.is_empty() { Vec::new() } else { parse(expression).unwrap() };
        let (listed_run, except_run) = (run(listed.as_deref().unwrap_or(&[])), run(&except));
        let audience = Audience {
            everyone: listed.is_none(),
            listed: UidRun::new(&listed_run).unwrap(),
            except: UidRun::new(&except_run).unwrap(),
            selector: (!bytes.is_empty()).then(|| selector(&bytes)),
            ..Audience::default()
        };
        let mut served: BTreeMap<u32, usize> = BTreeMap::new();
        let mut missed = Vec::new();
        let mut sizes = sizes.into_iter().cycle();
        let mut between = between.iter();
        let mut left = sizes.next().unwrap();
        let mut meet = |uid, met: Met<'_, u32>| match met {
            Met::Connection(handle) => *served.entry(*handle).or_default() += 1,
            Met::Missed => missed.push(uid),
            _ => {}
        };
        let (_, mut walk) = world.hub.begin((1, 1), &audience, &mut left, &mut meet);
        while let Some(it) = walk.as_mut().filter(|walk| !walk.is_done()) {
            between.by_ref().take(3).for_each(|step| world.do_step(step));
            let mut left = sizes.next().unwrap();
            world.hub.go_on(it, &audience, &mut left, &mut meet);
        }
        for (handle, known) in (0..).zip(&world.known) {
            let times = served.get(&handle).copied().unwrap_or(0);
            let is_listed = listed.as_ref().is_none_or(|listed| listed.contains(&known.uid));
            let may = is_listed && !except.contains(&known.uid) && known.was_ready;
            prop_assert!(times <= usize::from(may && known.ever), "promise 1 and 3: {known:?}");
            prop_assert!(times == 1 || !(may && known.here && known.always), "{known:?}");
        }
        for uid in missed {
            let known = world.known.iter().find(|known| known.uid == uid);
            prop_assert!(listed.as_ref().is_some_and(|listed| listed.contains(&uid)), "{known:?}");
        }
        // A copy finds whoever was served, and serves nobody twice.
        let copy = |handle: &u32| *served.entry(*handle).or_default() += 1;
        world.hub.deliver((1, 1), &audience, copy);
        prop_assert!(served.values().all(|times| *times == 1), "promise 3: {served:?}");
    }
}
