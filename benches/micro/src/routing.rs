//! The route table: lookups, plans, routes added and removed, slots swapped, killed and swept.
//!
//! User `k` is at gateway `k % gateways`. Routes come as snapshots bring them, in rising order.

use std::cell::LazyCell;
use std::rc::Rc;

use rand::RngExt as _;
use waybill_routing::{
    Audience, Change, Incarnation, Namespace, Op, Plan, Query, Routes, Slot, SlotState, Uid,
};
use waybill_wire::targets::UidRun;

use crate::{BATCH, Case, FIRST_UID, LIST, Work, opaque, random, some_uids};

const NAMESPACE: Namespace = Namespace(1);

/// Gateways of every table but those of [`plans`].
const GATEWAYS: usize = 8;

/// Prepared inputs that take turns, so that a large table is not measured out of the cache alone.
const TURNS: usize = 256;

/// Changes of one batch.
const CHANGES: usize = 1_000;

/// Gateways that come and go at once: one alone would cost less than reading a clock.
const GUESTS: usize = 8;

/// Users of each of them.
const GUEST_USERS: usize = 1_000;

type Shared = Rc<LazyCell<World, Box<dyn FnOnce() -> World>>>;

/// A table and the slots in it.
struct World {
    routes: Routes,
    slots: Vec<Slot>,
    users: usize,
}

impl World {
    fn new(users: usize, gateways: usize) -> Self {
        let routes = Routes::default();
        let slot = |gateway: usize| {
            let slot = routes.open(Incarnation(gateway as u64)).expect("room for slots");
            let here: Vec<usize> = (gateway..users).step_by(gateways).collect();
            for some in here.chunks(CHANGES) {
                routes
                    .apply(slot, &changes(Op::Add, some.iter().copied()))
                    .expect("room for routes");
            }
            routes.go_live(slot, None).expect("it was filling");
            slot
        };
        let slots = (0..gateways).map(slot).collect();
        Self { routes, slots, users }
    }

    /// A slot that is filling, with users whom nobody else has.
    fn guest(&self, guest: usize) -> Slot {
        let incarnation = Incarnation((self.slots.len() + guest) as u64);
        let slot = self.routes.open(incarnation).expect("room for slots");
        let first = self.users + guest * GUEST_USERS;
        let adds = changes(Op::Add, first..first + GUEST_USERS);
        self.routes.apply(slot, &adds).expect("room for routes");
        slot
    }

    fn go_live(&self, slot: Slot) {
        self.routes.go_live(slot, None).expect("it was filling");
    }

    /// Nothing of the dead is left, so that every run begins alike.
    fn sweep_all(&self) {
        while self.routes.sweep(CHANGES).slots_left > 0 {}
    }

    fn is(&self, slot: Slot, state: SlotState) -> bool {
        self.routes.state(slot) == state
    }
}

fn changes(op: Op, users: impl Iterator<Item = usize>) -> Vec<Change> {
    let change = |user| Change { op, namespace: NAMESPACE, uid: Uid(FIRST_UID + user as u64) };
    users.map(change).collect()
}

/// Every case at a table with this many routes.
#[must_use]
pub fn cases(routes: usize) -> Vec<Case> {
    let make: Box<dyn FnOnce() -> World> = Box::new(move || World::new(routes, GATEWAYS));
    let world: Shared = Rc::new(LazyCell::new(make));
    let shared = || Rc::clone(&world);
    let name = |what: &str| format!("{what}/{routes}");
    let (a, b, c, d, e, f, g) =
        (shared(), shared(), shared(), shared(), shared(), shared(), shared());
    vec![
        Case::plain(name("lookup 1"), BATCH, move || singles(a.clone())),
        Case::plain(name("lookup 1000"), LIST, move || lists(b.clone())),
        Case::prepared(name("add 1000"), CHANGES, move || Changing::new(c.clone(), Op::Add)),
        Case::prepared(name("remove 1000"), CHANGES, move || Changing::new(d.clone(), Op::Remove)),
        Case::prepared(name("snapshot swap"), GUESTS, move || Swap::new(e.clone())),
        Case::prepared(name("slot death"), GUESTS, move || Death::new(f.clone())),
        Case::prepared(name("sweep 1000"), GUEST_USERS, move || Sweep { world: g.clone() }),
    ]
}

/// Plans for long lists whose users are all at one gateway, or at many. `lookup 1000` of [`cases`]
/// is the one over 8.
#[must_use]
pub fn plans(routes: usize) -> Vec<Case> {
    let case = |gateways| {
        let name = format!("plan 1000 over {gateways}/{routes}");
        let make = move || World::new(routes, gateways);
        Case::plain(name, LIST, move || lists(Rc::new(LazyCell::new(Box::new(make)))))
    };
    [1, 64].map(case).into()
}

pub(crate) fn bytes_of(uids: &[u64]) -> Vec<u8> {
    uids.iter().flat_map(|uid| uid.to_le_bytes()).collect()
}

fn query(uids: &[u8]) -> Query<'_> {
    let run = UidRun::new(uids).expect("whole UIDs");
    Query::new(NAMESPACE, Audience::Uids(run))
}

/// Batches of messages to one user each.
fn singles(world: Shared) -> impl FnMut() -> u64 {
    let (mut random, mut plan, mut turn) = (random(), Plan::new(), 0);
    let uid =
        |random: &mut rand::rngs::SmallRng| FIRST_UID + random.random_range(0..world.users as u64);
    let batch = |_| bytes_of(&(0..BATCH).map(|_| uid(&mut random)).collect::<Vec<_>>());
    let batches: Vec<Vec<u8>> = (0..TURNS).map(batch).collect();
    let mut queries = move |world: &World| {
        turn = (turn + 1) % TURNS;
        let (uids, _) = batches[turn].as_chunks::<8>();
        let queries: [Query<'_>; BATCH] = std::array::from_fn(|at| query(&uids[at]));
        world.routes.resolve(opaque(&queries), &mut plan);
        plan.iter().map(|routed| routed.reached() as u64).sum()
    };
    move || queries(&world)
}

/// One message to a long list.
fn lists(world: Shared) -> impl FnMut() -> u64 {
    let (mut random, mut plan, mut turn) = (random(), Plan::new(), 0);
    let lists: Vec<Vec<u8>> =
        (0..TURNS).map(|_| bytes_of(&some_uids(&mut random, world.users, LIST))).collect();
    move || {
        turn = (turn + 1) % TURNS;
        world.routes.resolve(opaque(&[query(&lists[turn])]), &mut plan);
        let parts = plan.routed(0).parts().len();
        opaque(parts);
        plan.routed(0).reached() as u64
    }
}

/// Users of one gateway come or go; in between they are put back.
struct Changing {
    world: Shared,
    measured: Vec<Change>,
    inverse: Vec<Change>,
}

impl Changing {
    fn new(world: Shared, op: Op) -> Self {
        let mut random = random();
        let gateways = world.slots.len();
        let here = rand::seq::index::sample(&mut random, world.users / gateways, CHANGES);
        let users: Vec<usize> = here.into_iter().map(|place| place * gateways).collect();
        let other = if op == Op::Add { Op::Remove } else { Op::Add };
        let [measured, inverse] = [op, other].map(|op| changes(op, users.iter().copied()));
        Self { world, measured, inverse }
    }
}

impl Work for Changing {
    fn prepare(&mut self) {
        let world = &self.world;
        // Whether they are there already depends on which case ran before.
        world.routes.apply(world.slots[0], &self.inverse).expect("room for routes");
    }

    fn run(&mut self) -> u64 {
        let world = &self.world;
        let applied = world.routes.apply(world.slots[0], opaque(&self.measured));
        let applied = applied.expect("room for routes");
        (applied.added + applied.removed) as u64
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        let world = &self.world;
        let adds = if self.measured[0].op == Op::Add { &self.measured } else { &self.inverse };
        world.routes.apply(world.slots[0], adds).expect("room for routes");
    }
}

/// Snapshots are complete and take the place of what their gateways had before.
struct Swap {
    world: Shared,
    standing: Vec<Slot>,
    filling: Vec<Slot>,
}

impl Swap {
    fn new(world: Shared) -> Self {
        let standing: Vec<Slot> = (0..GUESTS).map(|guest| world.guest(guest)).collect();
        standing.iter().for_each(|slot| world.go_live(*slot));
        Self { world, standing, filling: Vec::new() }
    }
}

impl Work for Swap {
    fn prepare(&mut self) {
        self.world.sweep_all();
        self.filling = (0..GUESTS).map(|guest| self.world.guest(guest)).collect();
    }

    fn run(&mut self) -> u64 {
        let mut swapped = 0;
        for (slot, older) in self.filling.iter().zip(&self.standing) {
            let done = self.world.routes.go_live(opaque(*slot), opaque(Some(*older)));
            swapped += u64::from(done.is_ok());
        }
        std::mem::swap(&mut self.standing, &mut self.filling);
        swapped
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        for slot in self.standing.iter().filter(|slot| self.world.is(**slot, SlotState::Live)) {
            self.world.routes.kill(*slot).expect("it is live");
        }
        self.world.sweep_all();
    }
}

/// Gateways are lost.
struct Death {
    world: Shared,
    live: Vec<Slot>,
}

impl Death {
    fn new(world: Shared) -> Self {
        Self { world, live: Vec::new() }
    }
}

impl Work for Death {
    fn prepare(&mut self) {
        self.world.sweep_all();
        self.live = (0..GUESTS).map(|guest| self.world.guest(guest)).collect();
        self.live.iter().for_each(|slot| self.world.go_live(*slot));
    }

    fn run(&mut self) -> u64 {
        let killed = self.live.iter().map(|slot| self.world.routes.kill(opaque(*slot)));
        killed.filter(Result::is_ok).count() as u64
    }
}

impl Drop for Death {
    fn drop(&mut self) {
        self.world.sweep_all();
    }
}

/// What a lost gateway left is taken away.
struct Sweep {
    world: Shared,
}

impl Work for Sweep {
    fn prepare(&mut self) {
        let slot = self.world.guest(0);
        self.world.routes.kill(slot).expect("it was filling");
    }

    fn run(&mut self) -> u64 {
        // All of the table is walked, as long as anything of the slot is left.
        let mut removed = 0;
        loop {
            let told = self.world.routes.sweep(opaque(GUEST_USERS));
            removed += told.removed as u64;
            if told.slots_left == 0 {
                return removed;
            }
        }
    }
}
