//! Promise 1 with tags: what brokers resolve and gateways decide comes to exactly the audience, in
//! every mode.
//!
//! A few gateways with connections declare what they have, as gateways do. A message is resolved,
//! and each gateway of the plan decides for its connections. Who got it is compared with who is
//! meant, read off the list of all connections.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a panic is how a test fails, and its numbers are small"
)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use waybill_routing::fuzzing::{selectors::selector, uid_bytes};
use waybill_routing::oracle::selectors::Tree;
use waybill_routing::{
    Audience, Change, ConnectionTags, Directory, Incarnation, Inserted, Limits, Matcher, Mode,
    Namespace, Op, Part, Plan, Query, Removed, Routes, Slot, TagChange, Uid,
};
use waybill_wire::selector::Selector;
use waybill_wire::targets::UidRun;

const TAGS: [&str; 4] = ["a", "b", "c", "d"];
const GATEWAYS: usize = 4;
const USERS: u64 = 6;

/// A connection: its gateway, namespace, user and a bit for each of its tags.
#[derive(Clone, Copy, Debug)]
struct Connection {
    gateway: usize,
    namespace: Namespace,
    uid: u64,
    tags: usize,
}

impl Connection {
    fn has(self, tag: &str) -> bool {
        TAGS.iter().position(|there| *there == tag).is_some_and(|bit| self.tags >> bit & 1 != 0)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Login(Connection),
    Logout(usize),
    /// A backend gives and takes tags.
    Retag(usize, usize),
    Suspend(usize),
    Resume(usize),
    Agree(usize, bool),
}

#[derive(Clone, Debug)]
struct Message {
    namespace: Namespace,
    uids: Option<Vec<u64>>,
    except: Vec<u64>,
    selector: Option<Vec<u8>>,
}

/// A gateway with its machine for tags and its slot.
struct Gateway {
    slot: Slot,
    live: bool,
    agreed: bool,
    users: Directory,
    tags: ConnectionTags,
}

struct World {
    routes: Routes,
    gateways: Vec<Gateway>,
    /// By number; `None` for those that ended.
    connections: Vec<Option<Connection>>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let routes = Routes::new(limits, 3);
        let gateway = |number| {
            let slot = routes.open(Incarnation(number)).unwrap();
            routes.go_live(slot, None).unwrap();
            routes.agree_on_tags(slot, true).unwrap();
            let (users, tags) = (Directory::new(), ConnectionTags::new());
            Gateway { slot, live: true, agreed: true, users, tags }
        };
        let gateways = (0..GATEWAYS as u64).map(gateway).collect();
        Self { routes, gateways, connections: Vec::new() }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Login(connection) => {
                let number = self.connections.len();
                self.connections.push(Some(Connection { tags: 0, ..connection }));
                let Connection { namespace, uid, .. } = connection;
                let gateway = &mut self.gateways[connection.gateway];
                if gateway.users.insert(namespace, Uid(uid), number as u32) == Inserted::First {
                    let change = Change { op: Op::Add, namespace, uid: Uid(uid) };
                    self.routes.apply(gateway.slot, &[change]).unwrap();
                }
                self.retag(number, connection.tags);
            }
            Step::Logout(number) => {
                if let Some(connection) = self.connections.get_mut(number).and_then(Option::take) {
                    self.logout(number, connection);
                }
            }
            Step::Retag(number, tags) => self.retag(number, tags),
            Step::Suspend(at) if self.gateways[at].live => {
                self.gateways[at].live = false;
                self.routes.suspend(self.gateways[at].slot).unwrap();
            }
            Step::Resume(at) if !self.gateways[at].live => {
                self.gateways[at].live = true;
                self.routes.resume(self.gateways[at].slot).unwrap();
            }
            Step::Suspend(_) | Step::Resume(_) => {}
            Step::Agree(at, agreed) => {
                self.gateways[at].agreed = agreed;
                self.routes.agree_on_tags(self.gateways[at].slot, agreed).unwrap();
            }
        }
    }

    fn logout(&mut self, number: usize, Connection { gateway, namespace, uid, .. }: Connection) {
        let gateway = &mut self.gateways[gateway];
        if gateway.users.remove(namespace, Uid(uid), number as u32) == Removed::Last {
            let change = Change { op: Op::Remove, namespace, uid: Uid(uid) };
            self.routes.apply(gateway.slot, &[change]).unwrap();
        }
        let mut gone = Vec::new();
        gateway.tags.end(number as u32, |namespace, tag| gone.push((namespace, tag.to_owned())));
        let change = |(namespace, tag): &(Namespace, String)| (Op::Remove, *namespace, tag.clone());
        let gone: Vec<_> = gone.iter().map(change).collect();
        declare(&self.routes, gateway.slot, &gone);
    }

    fn retag(&mut self, number: usize, tags: usize) {
        let Some(Some(connection)) = self.connections.get_mut(number) else { return };
        connection.tags = tags;
        let connection = *connection;
        let gateway = &mut self.gateways[connection.gateway];
        let (namespace, member) = (connection.namespace, number as u32);
        for tag in TAGS {
            let op = match connection.has(tag) {
                true => (gateway.tags.insert(namespace, tag, member) == Inserted::First)
                    .then_some(Op::Add),
                false => (gateway.tags.remove(namespace, tag, member) == Removed::Last)
                    .then_some(Op::Remove),
            };
            if let Some(op) = op {
                declare(&self.routes, gateway.slot, &[(op, namespace, tag.to_owned())]);
            }
        }
    }

    /// Who is meant ([TGT-1]), of those whose gateway is there and knows what tags are.
    fn meant(&self, message: &Message) -> BTreeSet<usize> {
        let tree = message.selector.as_ref().map(|bytes| Tree::of(checked(bytes)));
        let is_meant = |connection: Connection| {
            let gateway = &self.gateways[connection.gateway];
            gateway.live
                && connection.namespace == message.namespace
                && message.uids.as_ref().is_none_or(|uids| uids.contains(&connection.uid))
                && !message.except.contains(&connection.uid)
                && tree
                    .as_ref()
                    .is_none_or(|tree| gateway.agreed && tree.matches(&|tag| connection.has(tag)))
        };
        let all = self.connections.iter().enumerate();
        let meant = all.filter(|(_, connection)| connection.is_some_and(is_meant));
        meant.map(|(number, _)| number).collect()
    }

    fn send(&self, message: &Message, mode: Mode, plan: &mut Plan) -> BTreeSet<usize> {
        let list = message.uids.as_ref().map(|uids| uid_bytes(uids.iter().copied()));
        let except = uid_bytes(message.except.iter().copied());
        let run = |bytes| UidRun::new(bytes).unwrap();
        let query = Query {
            selector: message.selector.as_ref().map(|bytes| checked(bytes)),
            except: run(&except),
            mode,
            ..Query::new(
                message.namespace,
                list.as_deref().map_or(Audience::Everyone, |list| Audience::Uids(run(list))),
            )
        };
        self.routes.resolve(&[query], plan);
        let mut got = BTreeSet::new();
        for (slot, part) in plan.routed(0).parts() {
            let gateway = self.gateways.iter().find(|gateway| gateway.slot == slot).unwrap();
            for member in gateway.deliver(message, part) {
                assert!(got.insert(member as usize), "a connection gets it once");
            }
        }
        if mode == Mode::Direct {
            self.check_fates(message, plan);
        }
        got
    }

    /// \[SEL-7\]: offline is who is at no gateway, filtered who is there and can't be meant.
    fn check_fates(&self, message: &Message, plan: &Plan) {
        let routed = plan.routed(0);
        let is_there = |uid: &u64| {
            let mut all = self.connections.iter().flatten();
            all.any(|connection| {
                (connection.namespace, connection.uid) == (message.namespace, *uid)
                    && self.gateways[connection.gateway].live
            })
        };
        let meant = self.meant(message);
        let is_meant =
            |uid: &u64| meant.iter().any(|number| self.connections[*number].unwrap().uid == *uid);
        assert!(!routed.offline().iter().any(is_there));
        for uid in routed.filtered() {
            assert!(message.except.contains(uid) || is_there(uid) && !is_meant(uid));
        }
    }
}

impl Gateway {
    /// What a gateway does with a DELIVER ([TGT-7]).
    fn deliver(&self, message: &Message, part: Part<'_>) -> Vec<u32> {
        let mut matcher = Matcher::new();
        let mut among = None;
        if let Some(bytes) = &message.selector {
            matcher.compile(&self.tags, message.namespace, checked(bytes));
            among = matcher.matching(&self.tags);
        }
        let uids = match part {
            Part::Uids(uids) => Some(uids),
            Part::Whole => message.uids.as_deref(),
        };
        let mut connections = Vec::new();
        match uids {
            Some(uids) => {
                let distinct: BTreeSet<u64> = uids.iter().copied().collect();
                for uid in distinct.into_iter().filter(|uid| !message.except.contains(uid)) {
                    connections.extend(self.users.members(message.namespace, Uid(uid)));
                }
            }
            None => {
                let excepted: BTreeSet<u32> = message
                    .except
                    .iter()
                    .flat_map(|uid| self.users.members(message.namespace, Uid(*uid)))
                    .copied()
                    .collect();
                let all: Vec<u32> = match among {
                    Some(among) => among.collect(),
                    None => self.users.all(message.namespace).collect(),
                };
                connections.extend(all.into_iter().filter(|member| !excepted.contains(member)));
            }
        }
        connections
            .retain(|member| message.selector.is_none() || matcher.matches(&self.tags, *member));
        connections
    }
}

fn declare(routes: &Routes, slot: Slot, changes: &[(Op, Namespace, String)]) {
    let changes: Vec<TagChange<'_>> = changes
        .iter()
        .map(|(op, namespace, tag)| TagChange { op: *op, namespace: *namespace, tag })
        .collect();
    assert_eq!(routes.apply_tags(slot, &changes).unwrap().contradicting, 0);
}

fn checked(bytes: &[u8]) -> Selector<'_> {
    Selector::check(bytes).unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    let connection = (0..GATEWAYS, 0..2_u32, 0..USERS, 0..1_usize << TAGS.len());
    let login = connection.prop_map(|(gateway, namespace, uid, tags)| {
        Step::Login(Connection { gateway, namespace: Namespace(namespace), uid, tags })
    });
    prop_oneof![
        8 => login,
        2 => (0..20_usize).prop_map(Step::Logout),
        3 => (0..20_usize, 0..1_usize << TAGS.len())
            .prop_map(|(number, tags)| Step::Retag(number, tags)),
        1 => (0..GATEWAYS).prop_map(Step::Suspend),
        1 => (0..GATEWAYS).prop_map(Step::Resume),
        1 => (0..GATEWAYS, prop::bool::weighted(0.7))
            .prop_map(|(at, agreed)| Step::Agree(at, agreed)),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let uids = || prop::collection::vec(0..USERS + 2, 0..6);
    let selector = prop::collection::vec(any::<u8>(), 0..16);
    (
        0..2_u32,
        prop::option::weighted(0.6, uids()),
        prop::collection::vec(0..USERS, 0..3),
        prop::option::weighted(0.8, selector),
    )
        .prop_map(|(namespace, uids, except, data)| Message {
            namespace: Namespace(namespace),
            uids,
            except,
            selector: data.map(|data| selector_of(&data)),
        })
}

fn selector_of(data: &[u8]) -> Vec<u8> {
    selector(data, &TAGS)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn promise_1_exactly_the_audience_gets_a_message_in_every_mode(
        steps in prop::collection::vec(step(), 0..40),
        messages in prop::collection::vec(message(), 1..6),
        few in any::<bool>(),
    ) {
        // With few tags kept, gateways count as having declared what they did not.
        let limits = match few {
            true => Limits { gateway_tags: 2, broker_tags: 4, ..Limits::default() },
            false => Limits::default(),
        };
        let (mut world, mut plan) = (World::new(limits), Plan::new());
        for step in steps {
            world.step(step);
            for message in &messages {
                let meant = world.meant(message);
                for mode in [Mode::Direct, Mode::Broadcast, Mode::Auto] {
                    prop_assert_eq!(&world.send(message, mode, &mut plan), &meant, "{:?}", mode);
                }
            }
        }
    }
}
