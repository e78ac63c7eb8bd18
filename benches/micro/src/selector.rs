//! Selectors and tags: evaluated for connections and for gateways, tags declared and taken back.
//!
//! The simple selector is one term, as `group:42`; the others have three and sixteen under several
//! operators.

use std::cell::LazyCell;
use std::rc::Rc;

use rand::RngExt as _;
use waybill_routing::{
    Audience, Change, ConnectionTags, Directory, Incarnation, Limits, Matcher, Mode, Namespace, Op,
    Plan, Program, Query, Routes, Slot, TagChange, Uid,
};
use waybill_wire::selector::{Selector, parse};
use waybill_wire::targets::UidRun;

use crate::routing::bytes_of;
use crate::{BATCH, Case, FIRST_UID, LIST, Work, opaque, random, some_uids};

const NAMESPACE: Namespace = Namespace(1);

/// One term, three, sixteen.
const SELECTORS: [(&str, &str); 3] = [
    ("1 term", "geo:3"),
    ("3 terms", "(geo:3 | geo:5) & !platform:1"),
    (
        "16 terms",
        "(geo:1 | geo:2 | geo:3 | geo:4) & !(platform:1 & (geo:1 | geo:5)) & (vip | group:7 | \
         (group:8 & !group:9)) & !(platform:2 & platform:3) & !(group:1 | group:2 & geo:6)",
    ),
];

/// Gateways that a selector is evaluated for.
const GATEWAYS: usize = 1_000;

/// Connections of one gateway, with five tags each.
const CONNECTIONS: u32 = 10_000;

/// Users of one gateway, for lists.
const USERS: usize = 100_000;

/// Tags of one batch.
const CHANGES: usize = 1_000;

/// Different tags in the index, each at one gateway.
const TAGS: usize = 100_000;

type Shared = Rc<LazyCell<World, fn() -> World>>;

/// Gateways, each with a user and a few tags, and the tags of many groups.
struct World {
    routes: Routes,
    slots: Vec<Slot>,
}

impl World {
    fn new() -> Self {
        let routes = Routes::new(Limits::default(), 0x5eed);
        let slot = |gateway: usize| {
            let slot = routes.open(Incarnation(gateway as u64)).expect("room for slots");
            let uid = Uid(FIRST_UID + gateway as u64);
            let change = Change { op: Op::Add, namespace: NAMESPACE, uid };
            routes.apply(slot, &[change]).expect("room for routes");
            routes.agree_on_tags(slot, true).expect("it is filling");
            let mut tags =
                vec![format!("geo:{}", gateway % 8), format!("platform:{}", gateway % 4)];
            tags.extend((gateway..TAGS).step_by(GATEWAYS).map(|group| format!("group:{group}")));
            declare(&routes, slot, Op::Add, &tags);
            routes.go_live(slot, None).expect("it was filling");
            slot
        };
        let slots = (0..GATEWAYS).map(slot).collect();
        Self { routes, slots }
    }
}

fn declare(routes: &Routes, slot: Slot, op: Op, tags: &[String]) -> u64 {
    let changes: Vec<TagChange<'_>> =
        tags.iter().map(|tag| TagChange { op, namespace: NAMESPACE, tag }).collect();
    let applied = routes.apply_tags(slot, opaque(&changes)).expect("it is not dead");
    (applied.added + applied.removed) as u64
}

/// Every case.
#[must_use]
pub fn cases() -> Vec<Case> {
    let world: Shared = Rc::new(LazyCell::new(World::new));
    let mut cases = Vec::new();
    for (terms, text) in SELECTORS {
        let name = |what: &str| format!("{what} {terms}");
        cases.push(Case::plain(name("connections"), BATCH, move || connections(text)));
        cases.push(Case::plain(name("compile"), 1, move || compile(text)));
        let shared = Rc::clone(&world);
        let gateways = move || gateways(Rc::clone(&shared), text);
        cases.push(Case::plain(name("gateways"), GATEWAYS, gateways));
        cases.push(Case::plain(name("match"), BATCH, move || matches(text)));
    }
    cases.push(Case::plain("list broadcast", LIST, broadcast));
    cases.push(Case::plain("hub targets", LIST, hub));
    for op in [Op::Add, Op::Remove] {
        let (name, shared) = (format!("{op:?} 1000 tags").to_lowercase(), Rc::clone(&world));
        cases.push(Case::prepared(name, CHANGES, move || Declaring::new(Rc::clone(&shared), op)));
    }
    cases
}

fn checked(bytes: &[u8]) -> Selector<'_> {
    Selector::check(bytes).expect("it was made of text")
}

/// A compiled selector against the terms that connections meet.
fn connections(text: &str) -> impl FnMut() -> u64 + use<> {
    let mut random = random();
    let bytes = parse(text).expect("a selector");
    let mut program = Program::new();
    program.compile(checked(&bytes));
    let masks: [u64; BATCH] = std::array::from_fn(|_| random.random());
    move || {
        let matching = opaque(&masks).iter().filter(|mask| program.matches(**mask)).count();
        opaque(matching);
        masks.len() as u64
    }
}

fn compile(text: &str) -> impl FnMut() -> u64 + use<> {
    let bytes = parse(text).expect("a selector");
    let mut program = Program::new();
    move || {
        program.compile(checked(opaque(&bytes)));
        u64::from(program.may(u64::MAX))
    }
}

/// A message for a selector alone: its terms looked up, and evaluated for every gateway.
fn gateways(world: Shared, text: &str) -> impl FnMut() -> u64 + use<> {
    let bytes = parse(text).expect("a selector");
    let mut plan = Plan::new();
    move || {
        let selector = Some(checked(opaque(&bytes)));
        let query = Query { selector, ..Query::new(NAMESPACE, Audience::Everyone) };
        world.routes.resolve(&[query], &mut plan);
        opaque(plan.routed(0).parts().len());
        world.slots.len() as u64
    }
}

/// Connections of a gateway that are asked whether they match: their tags looked at, and the
/// selector evaluated.
fn matches(text: &str) -> impl FnMut() -> u64 + use<> {
    let (mut random, mut tags, mut matcher) = (random(), ConnectionTags::new(), Matcher::new());
    for connection in 0..CONNECTIONS {
        let mut tag = |text: &str| tags.insert(NAMESPACE, text, connection);
        tag(&format!("geo:{}", connection % 8));
        tag(&format!("platform:{}", connection % 4));
        for _ in 0..3 {
            tag(&format!("group:{}", random.random_range(0..1_000)));
        }
    }
    let bytes = parse(text).expect("a selector");
    matcher.compile(&tags, NAMESPACE, checked(&bytes));
    let asked: [u32; BATCH] = std::array::from_fn(|_| random.random_range(0..CONNECTIONS));
    move || {
        let asked = opaque(&asked).iter();
        opaque(asked.filter(|connection| matcher.matches(&tags, **connection)).count());
        BATCH as u64
    }
}

/// A long list that is not looked up.
fn broadcast() -> impl FnMut() -> u64 {
    let (mut random, mut plan) = (random(), Plan::new());
    let routes = Routes::new(Limits::default(), 0x5eed);
    let list = bytes_of(&some_uids(&mut random, USERS, LIST));
    move || {
        let uids = UidRun::new(opaque(&list)).expect("whole UIDs");
        let query = Query::new(NAMESPACE, Audience::Uids(uids));
        routes.resolve(&[Query { mode: Mode::Broadcast, ..query }], &mut plan);
        plan.routed(0).unresolved() as u64
    }
}

/// A long list looked up by a gateway, in which each user has one connection.
fn hub() -> impl FnMut() -> u64 {
    let (mut random, mut directory) = (random(), Directory::new());
    for (uid, connection) in (FIRST_UID..).zip(0..).take(USERS) {
        directory.insert(NAMESPACE, Uid(uid), connection);
    }
    // Lists that take turns, so that the users of one are not in the cache.
    let lists: Vec<Vec<u64>> = (0..256).map(|_| some_uids(&mut random, USERS, LIST)).collect();
    let mut turn = 0;
    move || {
        turn = (turn + 1) % lists.len();
        let list = opaque(&lists[turn]).iter();
        let members = list.map(|uid| directory.members(NAMESPACE, Uid(*uid)));
        members.map(|members| members.len() as u64).sum()
    }
}

/// Tags of one gateway, some of which others have, come or go; in between they are put back.
struct Declaring {
    world: Shared,
    tags: Vec<String>,
    op: Op,
}

impl Declaring {
    fn new(world: Shared, op: Op) -> Self {
        let mut random = random();
        let groups = rand::seq::index::sample(&mut random, 2 * TAGS, 2 * CHANGES);
        let others = groups.into_iter().filter(|group| group % GATEWAYS != 0);
        let tags = others.take(CHANGES).map(|group| format!("group:{group}")).collect();
        Self { world, tags, op }
    }

    fn declare(&self, op: Op) -> u64 {
        declare(&self.world.routes, self.world.slots[0], op, &self.tags)
    }
}

impl Work for Declaring {
    fn prepare(&mut self) {
        // Whether they are there already depends on which case ran before.
        self.declare(if self.op == Op::Add { Op::Remove } else { Op::Add });
    }

    fn run(&mut self) -> u64 {
        self.declare(self.op)
    }
}

impl Drop for Declaring {
    fn drop(&mut self) {
        self.declare(Op::Remove);
    }
}
