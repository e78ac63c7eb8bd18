//! One door for every comparison of [`Routes`] with the oracle: random operations from proptest,
//! or bytes from a fuzzer, run on both, step by step; any difference panics.
//!
//! Few namespaces, UIDs, incarnations and slots, and small limits, so that everything collides.
//! Handles are picked among all that were ever opened, hence often stale.

pub mod selectors;

use waybill_wire::selector::Selector;
use waybill_wire::targets::UidRun;

use crate::oracle::{Expected, Oracle};
use crate::{
    Audience, Change, Incarnation, Limits, Mode, Namespace, Op, Plan, Query, Routes, Slot,
    TagChange, Uid, Whereabouts,
};

/// Limits of the tables compared: low enough to be met often.
pub const LIMITS: Limits =
    Limits { slots: 4, routes: 20, namespaces: 3, gateway_tags: 3, broker_tags: 5 };

/// Namespaces that occur.
pub const NAMESPACES: [u32; 3] = [0, 1, u32::MAX];

/// UIDs that occur. Some differ only in high or in low bytes.
pub const UIDS: [u64; 6] = [0, 1, 1 << 32, 256, u64::MAX - 1, u64::MAX];

/// Tags that occur. One is the beginning of another.
pub const TAGS: [&str; 4] = ["a", "ab", "b", "vip"];

/// Incarnations that occur.
const INCARNATIONS: [u64; 3] = [1, 2, 3];

/// One call. Every number picks from its list, modulo the list's length; a slot is counted back
/// from the one opened last.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each variant is the call it is named after")]
pub enum Operation {
    Open {
        incarnation: usize,
    },
    GoLive {
        slot: usize,
        replaces: Option<usize>,
    },
    /// What brokers do: replaces the slot of the same incarnation that stands.
    Swap {
        slot: usize,
    },
    Apply {
        slot: usize,
        changes: Vec<RawChange>,
    },
    Agree {
        slot: usize,
        agreed: bool,
    },
    Declare {
        slot: usize,
        tags: Vec<RawChange>,
    },
    Suspend {
        slot: usize,
    },
    Resume {
        slot: usize,
    },
    Kill {
        slot: usize,
    },
    Sweep {
        budget: usize,
    },
    Resolve {
        queries: Vec<RawQuery>,
    },
}

/// A change before its numbers are picked; of a tag, `uid` says which one.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "named as in Change")]
pub struct RawChange {
    pub add: bool,
    pub namespace: usize,
    pub uid: usize,
}

/// A query before its numbers are picked; no UIDs mean everyone, no bytes no selector.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "named as in Query")]
pub struct RawQuery {
    pub namespace: usize,
    pub uids: Option<Vec<usize>>,
    pub selector: Vec<u8>,
    pub except: Vec<usize>,
    pub mode: usize,
}

/// Decodes any bytes into operations and checks them.
pub fn operations(data: &[u8]) {
    let mut bytes = Bytes { rest: data };
    let mut operations = Vec::new();
    while let Some(operation) = bytes.operation() {
        operations.push(operation);
    }
    check(&operations);
}

/// Runs the operations on table and oracle and compares everything that can be seen, at each step.
///
/// # Panics
///
/// On any difference, and on a broken invariant.
pub fn check(operations: &[Operation]) {
    let mut pair = Pair {
        routes: Routes::new(LIMITS, 0),
        oracle: Oracle::new(LIMITS),
        plan: Plan::new(),
        whereabouts: Whereabouts::new(),
        handles: Vec::new(),
    };
    for operation in operations {
        pair.run(operation);
        pair.compare();
    }
}

/// The bytes of a UID list as they lie in a frame.
#[must_use]
pub fn uid_bytes(uids: impl IntoIterator<Item = u64>) -> Vec<u8> {
    uids.into_iter().flat_map(u64::to_le_bytes).collect()
}

struct Pair {
    routes: Routes,
    oracle: Oracle,
    plan: Plan,
    whereabouts: Whereabouts,
    handles: Vec<Slot>,
}

impl Pair {
    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Open { incarnation } => {
                let incarnation = Incarnation(pick(&INCARNATIONS, *incarnation));
                let opened = self.routes.open(incarnation);
                assert_eq!(opened, self.oracle.open(incarnation));
                if let Ok(slot) = opened {
                    assert!(!self.handles.contains(&slot), "a handle is given out once");
                    self.handles.push(slot);
                }
            }
            Operation::Sweep { budget } => {
                let told = self.routes.sweep(*budget);
                self.oracle.swept(*budget, told);
            }
            Operation::Resolve { queries } => self.resolve(queries),
            Operation::GoLive { slot, .. }
            | Operation::Swap { slot }
            | Operation::Apply { slot, .. }
            | Operation::Agree { slot, .. }
            | Operation::Declare { slot, .. }
            | Operation::Suspend { slot }
            | Operation::Resume { slot }
            | Operation::Kill { slot } => {
                if let Some(slot) = self.handle(*slot) {
                    self.run_on(slot, operation);
                }
            }
        }
    }

    fn run_on(&mut self, slot: Slot, operation: &Operation) {
        let Self { routes, oracle, .. } = self;
        match operation {
            Operation::GoLive { replaces, .. } => {
                let older = replaces.and_then(|older| self.handle(older));
                assert_eq!(self.routes.go_live(slot, older), self.oracle.go_live(slot, older));
            }
            Operation::Swap { .. } => {
                let standing = INCARNATIONS.map(|number| routes.standing(Incarnation(number)));
                for older in standing {
                    assert_eq!(routes.go_live(slot, older), oracle.go_live(slot, older));
                }
            }
            Operation::Apply { changes, .. } => {
                let changes: Vec<Change> = changes.iter().map(RawChange::picked).collect();
                assert_eq!(routes.apply(slot, &changes), oracle.apply(slot, &changes));
            }
            Operation::Agree { agreed, .. } => {
                let agreed_on = routes.agree_on_tags(slot, *agreed);
                assert_eq!(agreed_on, oracle.agree_on_tags(slot, *agreed));
            }
            Operation::Declare { tags, .. } => {
                let tags: Vec<TagChange<'_>> = tags.iter().map(RawChange::picked_tag).collect();
                assert_eq!(routes.apply_tags(slot, &tags), oracle.apply_tags(slot, &tags));
            }
            Operation::Suspend { .. } => assert_eq!(routes.suspend(slot), oracle.suspend(slot)),
            Operation::Resume { .. } => assert_eq!(routes.resume(slot), oracle.resume(slot)),
            Operation::Kill { .. } => assert_eq!(routes.kill(slot), oracle.kill(slot)),
            Operation::Open { .. } | Operation::Sweep { .. } | Operation::Resolve { .. } => {
                unreachable!("these name no slot")
            }
        }
    }

    fn resolve(&mut self, raw: &[RawQuery]) {
        let lists: Vec<_> = raw.iter().map(RawQuery::lists).collect();
        let queries: Vec<Query<'_>> = raw
            .iter()
            .zip(&lists)
            .map(|(raw, (uids, selector, except))| Query {
                namespace: Namespace(pick(&NAMESPACES, raw.namespace)),
                selector: selector.as_ref().map(|bytes| checked(bytes)),
                audience: uids
                    .as_ref()
                    .map_or(Audience::Everyone, |uids| Audience::Uids(run(uids))),
                except: run(except),
                mode: pick(&[Mode::Direct, Mode::Broadcast, Mode::Auto], raw.mode),
                fates_asked: raw.mode % 2 == 1,
                bytes: raw.mode,
            })
            .collect();
        self.compare_answers(&queries);
    }

    fn compare_answers(&mut self, queries: &[Query<'_>]) {
        self.routes.resolve(queries, &mut self.plan);
        assert_eq!(self.plan.len(), queries.len());
        for (query, routed) in queries.iter().zip(self.plan.iter()) {
            // Auto is the one or the other; which one is for the table.
            let mode = routed.mode();
            let is_choice =
                query.mode == Mode::Auto && (mode == Mode::Direct || !query.fates_asked);
            assert!(mode == query.mode || is_choice, "{query:?} by {mode:?}");
            let expected = self.oracle.resolve(&Query { mode, ..*query });
            assert_eq!(Expected::from(routed), expected, "{query:?}");
        }
    }

    /// Everything the interface shows.
    fn compare(&mut self) {
        self.routes.invariants();
        assert_eq!(self.routes.counts(), self.oracle.counts());
        assert_eq!(self.routes.routes(), self.oracle.counts().routes);
        for slot in &self.handles {
            assert_eq!(self.routes.state(*slot), self.oracle.state(*slot), "{slot:?}");
        }
        for number in INCARNATIONS {
            let incarnation = Incarnation(number);
            assert_eq!(self.routes.standing(incarnation), self.oracle.standing(incarnation));
        }
        let uids = uid_bytes(UIDS);
        let selectors = TAGS.map(|tag| selectors::selector(&[], &[tag]));
        let mut queries = Vec::new();
        for namespace in NAMESPACES.map(Namespace) {
            queries.push(Query::new(namespace, Audience::Uids(run(&uids))));
            queries.push(Query::new(namespace, Audience::Everyone));
            queries.extend(selectors.iter().map(|bytes| Query {
                selector: Some(checked(bytes)),
                ..Query::new(namespace, Audience::Uids(run(&uids)))
            }));
        }
        self.compare_answers(&queries);
        self.compare_whereabouts();
    }

    /// Users asked for together, and alone.
    fn compare_whereabouts(&mut self) {
        for namespace in NAMESPACES.map(Namespace) {
            for together in UIDS.chunks(UIDS.len()).chain(UIDS.chunks(1)) {
                self.routes.locate(namespace, together.iter().copied(), &mut self.whereabouts);
                for (at, uid) in together.iter().enumerate() {
                    let one = uid_bytes([*uid]);
                    let query = Query::new(namespace, Audience::Uids(run(&one)));
                    let expected = self.oracle.resolve(&query).parts;
                    let expected = expected.iter().map(|(slot, _)| *slot);
                    assert!(self.whereabouts.of(at).iter().copied().eq(expected), "{uid}");
                }
            }
        }
    }

    fn handle(&self, back: usize) -> Option<Slot> {
        let len = self.handles.len();
        (len > 0).then(|| self.handles[len - 1 - back % len])
    }
}

impl RawChange {
    fn picked(&self) -> Change {
        Change {
            op: if self.add { Op::Add } else { Op::Remove },
            namespace: Namespace(pick(&NAMESPACES, self.namespace)),
            uid: Uid(pick(&UIDS, self.uid)),
        }
    }

    fn picked_tag(&self) -> TagChange<'static> {
        let Change { op, namespace, .. } = self.picked();
        TagChange { op, namespace, tag: pick(&TAGS, self.uid) }
    }
}

impl RawQuery {
    /// The bytes of audience, selector and except list.
    fn lists(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>) {
        let bytes = |list: &Vec<usize>| uid_bytes(list.iter().map(|uid| pick(&UIDS, *uid)));
        let selector =
            (!self.selector.is_empty()).then(|| selectors::selector(&self.selector, &TAGS));
        (self.uids.as_ref().map(bytes), selector, bytes(&self.except))
    }
}

fn checked(selector: &[u8]) -> Selector<'_> {
    Selector::check(selector).expect("it was made of text")
}

fn pick<T: Copy>(from: &[T], number: usize) -> T {
    from[number % from.len()]
}

fn run(bytes: &[u8]) -> UidRun<'_> {
    UidRun::new(bytes).expect("made of whole UIDs")
}

/// Input bytes; past their end every byte is zero, so that any prefix decodes.
struct Bytes<'a> {
    rest: &'a [u8],
}

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                usize::from(*first)
            }
            None => 0,
        }
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.next()).expect("it was a byte")
    }

    fn list<T>(&mut self, len_max: usize, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let len = self.next() % (len_max + 1);
        (0..len).map(|_| item(self)).collect()
    }

    /// The next operation, or `None` at the end. Applies and swaps have more codes than others,
    /// else few tables ever hold much.
    fn operation(&mut self) -> Option<Operation> {
        if self.rest.is_empty() {
            return None;
        }
        Some(match self.next() % 18 {
            0 => Operation::Open { incarnation: self.next() },
            1 => {
                let (slot, replaces) = (self.next(), self.next());
                Operation::GoLive { slot, replaces: replaces.checked_sub(1) }
            }
            2..=4 => Operation::Swap { slot: self.next() },
            5..=8 => {
                let slot = self.next();
                Operation::Apply { slot, changes: self.list(8, Self::change) }
            }
            9 => Operation::Suspend { slot: self.next() },
            10 => Operation::Resume { slot: self.next() },
            11 => Operation::Kill { slot: self.next() },
            12 => Operation::Agree { slot: self.next(), agreed: self.next() != 0 },
            13..=14 => {
                let slot = self.next();
                Operation::Declare { slot, tags: self.list(6, Self::change) }
            }
            15 => Operation::Sweep { budget: self.next() % 16 },
            _ => Operation::Resolve { queries: self.list(4, Self::query) },
        })
    }

    fn change(&mut self) -> RawChange {
        let (byte, uid) = (self.next(), self.next());
        RawChange { add: !byte.is_multiple_of(4), namespace: byte / 4, uid }
    }

    fn query(&mut self) -> RawQuery {
        let (namespace, mode) = (self.next(), self.next());
        let everyone = self.next().is_multiple_of(4);
        let uids = (!everyone).then(|| self.list(12, Self::next));
        let except = self.list(4, Self::next);
        let selector = self.list(12, Self::byte);
        RawQuery { namespace, uids, selector, except, mode }
    }
}
