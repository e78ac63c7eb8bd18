//! The layouts under comparison: what the route table is, and what it could be made of.
//!
//! Each is shared by reference, as shards share it, and holds one slot for each user. That favours
//! the three crates: the table holds several, namespaces, and slots that die in one step.

use std::sync::RwLock;

use waybill_routing::{
    Audience, Change, Incarnation, Limits, Namespace, Op, Plan, Query, Routes, Slot, Uid,
};
use waybill_wire::targets::UidRun;

use crate::bare::Bare;
use crate::group::Groups;

/// Locks that a writer and a reader rarely ask for at the same time.
const SHARDS: usize = 256;

/// Hashes with the key of this process: UIDs can be chosen by strangers.
type Keyed = std::hash::RandomState;

/// A layout by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// The table of `waybill-routing`.
    Waybill,
    /// The same, asked for one UID after the other: nothing is asked for ahead.
    Singly,
    /// hashbrown in 256 shards, each behind a lock for readers and writers.
    Hashbrown,
    /// dashmap in 256 shards.
    Dashmap,
    /// papaya, whose readers take no lock.
    Papaya,
    /// The least there can be, as a ceiling: no threads, no duplicates, no namespaces.
    Bare,
}

impl Name {
    pub(crate) const ALL: [Self; 6] =
        [Self::Waybill, Self::Singly, Self::Hashbrown, Self::Dashmap, Self::Papaya, Self::Bare];

    /// An empty one for this many gateways.
    pub(crate) fn empty(self, gateways: u16) -> Box<dyn Layout> {
        match self {
            Self::Waybill => Box::new(Waybill::new(gateways)),
            Self::Singly => Box::new(Singly(Waybill::new(gateways))),
            Self::Hashbrown => Box::new(Hashbrown::new()),
            Self::Dashmap => Box::new(Dashmap::new()),
            Self::Papaya => Box::new(Papaya::new()),
            Self::Bare => Box::new(Bare::new(gateways)),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Waybill => "waybill",
            Self::Singly => "singly",
            Self::Hashbrown => "hashbrown",
            Self::Dashmap => "dashmap",
            Self::Papaya => "papaya",
            Self::Bare => "bare",
        })
    }
}

/// What a layout is asked to do.
pub(crate) trait Layout: Send + Sync {
    /// These users are at that gateway.
    fn add(&self, gateway: u16, uids: &[u64]);

    /// For a thread that looks up.
    fn reader(&self) -> Box<dyn Reader + '_>;
}

/// A look-up with working space of its own.
pub(crate) trait Reader {
    /// One list of UIDs, grouped by gateway; how many were found.
    fn list(&mut self, uids: &[u64]) -> usize;

    /// Lists of one UID each, as one read brings them; how many were found.
    fn singles(&mut self, uids: &[u64]) -> usize;
}

struct Waybill {
    routes: Routes,
    slots: Vec<Slot>,
}

struct WaybillReader<'a> {
    routes: &'a Routes,
    plan: Plan,
    bytes: Vec<u8>,
}

const NAMESPACE: Namespace = Namespace(1);

impl Waybill {
    fn new(gateways: u16) -> Self {
        let limits = Limits { slots: gateways.into(), routes: usize::MAX, ..Limits::default() };
        let routes = Routes::new(limits, rand::random());
        let open = |gateway: u16| {
            let slot = routes.open(Incarnation(gateway.into())).expect("room for slots");
            routes.go_live(slot, None).expect("it was filling");
            slot
        };
        let slots = (0..gateways).map(open).collect();
        Self { routes, slots }
    }
}

impl Layout for Waybill {
    fn add(&self, gateway: u16, uids: &[u64]) {
        let change = |uid: &u64| Change { op: Op::Add, namespace: NAMESPACE, uid: Uid(*uid) };
        let changes: Vec<Change> = uids.iter().map(change).collect();
        self.routes.apply(self.slots[usize::from(gateway)], &changes).expect("no limit is set");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(WaybillReader { routes: &self.routes, plan: Plan::new(), bytes: Vec::new() })
    }
}

impl Reader for WaybillReader<'_> {
    fn list(&mut self, uids: &[u64]) -> usize {
        self.bytes.clear();
        self.bytes.extend(uids.iter().flat_map(|uid| uid.to_le_bytes()));
        let query = query(&self.bytes);
        self.routes.resolve(&[query], &mut self.plan);
        self.plan.routed(0).reached()
    }

    fn singles(&mut self, uids: &[u64]) -> usize {
        self.bytes.clear();
        self.bytes.extend(uids.iter().flat_map(|uid| uid.to_le_bytes()));
        let queries: Vec<Query<'_>> = self.bytes.chunks(size_of::<u64>()).map(query).collect();
        self.routes.resolve(&queries, &mut self.plan);
        self.plan.iter().map(waybill_routing::Routed::reached).sum()
    }
}

fn query(bytes: &[u8]) -> Query<'_> {
    let uids = UidRun::new(bytes).expect("whole UIDs");
    Query::new(NAMESPACE, Audience::Uids(uids))
}

/// The table, of which one UID is asked for at a time.
struct Singly(Waybill);

struct SinglyReader<'a> {
    routes: &'a Routes,
    plan: Plan,
    groups: Groups,
}

impl Layout for Singly {
    fn add(&self, gateway: u16, uids: &[u64]) {
        uids.iter().for_each(|uid| self.0.add(gateway, std::slice::from_ref(uid)));
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        let (plan, groups) = (Plan::new(), Groups::default());
        Box::new(SinglyReader { routes: &self.0.routes, plan, groups })
    }
}

impl Reader for SinglyReader<'_> {
    fn list(&mut self, uids: &[u64]) -> usize {
        let Self { routes, plan, groups } = self;
        groups.list(uids, |uid| {
            routes.resolve(&[query(&uid.to_le_bytes())], plan);
            let (slot, _) = plan.routed(0).parts().next()?;
            u16::try_from(slot.index()).ok()
        })
    }

    fn singles(&mut self, uids: &[u64]) -> usize {
        uids.iter().map(|uid| self.list(std::slice::from_ref(uid))).sum()
    }
}

/// What is looked up one by one and grouped by a counting pass, as the table does it.
struct OneByOne<F> {
    find: F,
    groups: Groups,
}

impl<F: Fn(u64) -> Option<u16>> Reader for OneByOne<F> {
    fn list(&mut self, uids: &[u64]) -> usize {
        self.groups.list(uids, &self.find)
    }

    fn singles(&mut self, uids: &[u64]) -> usize {
        uids.iter().map(|uid| self.groups.list(std::slice::from_ref(uid), &self.find)).sum()
    }
}

struct Hashbrown {
    shards: Vec<RwLock<hashbrown::HashMap<u64, u16, Keyed>>>,
    choice: Keyed,
}

impl Hashbrown {
    fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::new(hashbrown::HashMap::default())).collect();
        Self { shards, choice: Keyed::new() }
    }

    fn shard(&self, uid: u64) -> &RwLock<hashbrown::HashMap<u64, u16, Keyed>> {
        use std::hash::BuildHasher as _;
        // The highest bits: the table uses the others.
        &self.shards[(self.choice.hash_one(uid) >> 56) as usize % SHARDS]
    }
}

impl Layout for Hashbrown {
    fn add(&self, gateway: u16, uids: &[u64]) {
        for uid in uids {
            self.shard(*uid).write().expect("nobody panicked").insert(*uid, gateway);
        }
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        let find = |uid| self.shard(uid).read().expect("nobody panicked").get(&uid).copied();
        Box::new(OneByOne { find, groups: Groups::default() })
    }
}

struct Dashmap {
    map: dashmap::DashMap<u64, u16, Keyed>,
}

impl Dashmap {
    fn new() -> Self {
        Self { map: dashmap::DashMap::with_hasher_and_shard_amount(Keyed::new(), SHARDS) }
    }
}

impl Layout for Dashmap {
    fn add(&self, gateway: u16, uids: &[u64]) {
        for uid in uids {
            self.map.insert(*uid, gateway);
        }
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        let find = |uid: u64| self.map.get(&uid).map(|slot| *slot);
        Box::new(OneByOne { find, groups: Groups::default() })
    }
}

struct Papaya {
    map: papaya::HashMap<u64, u16, Keyed>,
}

impl Papaya {
    fn new() -> Self {
        Self { map: papaya::HashMap::with_hasher(Keyed::new()) }
    }
}

impl Layout for Papaya {
    fn add(&self, gateway: u16, uids: &[u64]) {
        let map = self.map.pin();
        for uid in uids {
            map.insert(*uid, gateway);
        }
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        let map = self.map.pin();
        let find = move |uid: u64| map.get(&uid).copied();
        Box::new(OneByOne { find, groups: Groups::default() })
    }
}
