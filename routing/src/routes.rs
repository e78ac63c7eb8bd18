//! The route table as its users see it: shared by reference, every method callable from any shard.
//!
//! What is promised here holds for any table behind it:
//! - a change is seen by every call that starts after it returned;
//! - a query sees the swap of a `go_live` as one step: never neither slot, never both;
//! - a plan names slots as they were: one may die before its frame is written, so whoever keeps
//!   state per slot compares the whole handle.

use std::hash::{Hash, Hasher};

use waybill_wire::limits::{BROKER_TAGS_MAX, GATEWAY_TAGS_MAX};

use crate::slot::Step;
use crate::table::Table;
use crate::{
    Choice, GatewaySlot, Incarnation, Namespace, Plan, Query, Slot, SlotError, SlotState, Uid,
    Whereabouts,
};

/// What the table may hold at most; both are bounds on memory (promise 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Slots in any state but free, dead ones included. Default 4,096.
    pub slots: u32,
    /// Routes, those of dead slots included until they are swept. Default 2^24. A route took 14
    /// to 18 bytes in tables of 10^5 to 2 x 10^6 while they were built, each user on one gateway.
    pub routes: usize,
    /// Namespaces with routes. Default 65,536. One with a user takes some 3 KiB; one without takes
    /// nothing.
    pub namespaces: usize,
    /// Tags of one slot that are kept. Default `gateway_tags_max`.
    pub gateway_tags: usize,
    /// Different tags that are kept, those of dead slots included until they are swept. Default
    /// `broker_tags_max`. A tag of twelve bytes at one gateway takes 25 to 28 bytes.
    pub broker_tags: usize,
}

impl Limits {
    /// The most slots a table can have.
    pub const SLOTS_MAX: u32 = 65_535;
}

impl Default for Limits {
    fn default() -> Self {
        let (gateway_tags, broker_tags) = (GATEWAY_TAGS_MAX, BROKER_TAGS_MAX);
        let namespaces = 1 << 16;
        Self { slots: 4096, routes: 1 << 24, namespaces, gateway_tags, broker_tags }
    }
}

/// Whether a route comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The user is at this gateway. Adding a route that is there changes nothing.
    Add,
    /// The user has left this gateway. Removing a route that is not there changes nothing.
    Remove,
}

/// One registration record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether the route comes or goes.
    pub op: Op,
    /// The user's tenant.
    pub namespace: Namespace,
    /// The user.
    pub uid: Uid,
}

/// What a batch of changes came to; the three sum to its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Applied {
    /// Routes that were not there.
    pub added: usize,
    /// Routes that were there.
    pub removed: usize,
    /// Changes that found things as they wanted them.
    pub unchanged: usize,
}

/// One tag record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagChange<'a> {
    /// Whether the tag comes or goes.
    pub op: Op,
    /// The tag's tenant.
    pub namespace: Namespace,
    /// The tag: 1 to `tag_bytes_max` bytes.
    pub tag: &'a str,
}

/// What a batch of tags came to; the first three sum to its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TagsApplied {
    /// Tags that were not declared.
    pub added: usize,
    /// Tags that were declared, as far as it is known of one that is not kept.
    pub removed: usize,
    /// Adding a tag that is declared, or removing one that is not: `digest_mismatch` (\[TAG-6\]).
    pub contradicting: usize,
    /// Why the first tag of the slot is not kept, if all were before this batch: what its gateway
    /// is told (\[TAG-11\]).
    pub unkept: Option<TagLimit>,
}

/// Why a tag is not kept (\[TAG-10\]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagLimit {
    /// The gateway has [`Limits::gateway_tags`] of them.
    Gateway,
    /// There are [`Limits::broker_tags`] different ones in all.
    Broker,
}

/// What one call of [`Routes::sweep`] did, and what is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SweepProgress {
    /// Dead routes removed.
    pub removed: usize,
    /// Tags of dead slots removed, each as often as it had slots.
    pub tags_removed: usize,
    /// Slot indices that can be opened again.
    pub freed: usize,
    /// Dead routes left.
    pub routes_left: usize,
    /// Dead slots left.
    pub slots_left: usize,
}

/// What the table holds, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// Routes in all slots.
    pub routes: usize,
    /// Routes of dead slots among them.
    pub routes_dead: usize,
    /// Tags that are kept, each once for each slot that declared it.
    pub declared: usize,
    /// Those of dead slots among them.
    pub declared_dead: usize,
    /// Declared tags that are not kept.
    pub unkept: usize,
    /// Different tags that are kept.
    pub tags: usize,
    /// Slots whose snapshot is coming in.
    pub slots_filling: usize,
    /// Slots that answer.
    pub slots_live: usize,
    /// Slots whose control link is lost.
    pub slots_suspended: usize,
    /// Slots waiting to be swept.
    pub slots_dead: usize,
}

/// (namespace, UID) -> the gateway slots that registered it. See [`SlotState`] for a slot's life.
///
/// Every method but [`Routes::new`] and [`Routes::default`] panics if an internal invariant broke
/// in an earlier call: routes are true or absent (promise 8), so a table that may be wrong answers
/// nothing.
#[derive(Debug)]
pub struct Routes {
    table: Table,
}

impl Default for Routes {
    fn default() -> Self {
        Self::new(Limits::default(), 0)
    }
}

/// For model checkers: a deep copy, and comparing by content, of a table that nobody changes
/// meanwhile. All of it is walked.
#[doc(hidden)]
impl Clone for Routes {
    fn clone(&self) -> Self {
        Self { table: self.table.copy() }
    }
}

#[doc(hidden)]
impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        self.table.content() == other.table.content()
    }
}

#[doc(hidden)]
impl Eq for Routes {}

#[doc(hidden)]
impl Hash for Routes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.table.content().hash(state);
    }
}

impl Routes {
    /// An empty table. Memory grows with what is in it, up to `limits`; of a namespace it shrinks
    /// only when the last route is gone.
    ///
    /// `key` is drawn at random by the process and told nobody: who knows it could choose UIDs that
    /// lie in one place. No answer depends on it.
    ///
    /// # Panics
    ///
    /// If `limits` has more slots than [`Limits::SLOTS_MAX`].
    #[must_use]
    pub fn new(limits: Limits, key: u64) -> Self {
        assert!(limits.slots <= Limits::SLOTS_MAX, "a route has 16 bits for its slot");
        Self { table: Table::new(limits, key) }
    }

    /// Opens a slot for a gateway, in state filling: it stores routes and answers nothing until
    /// [`Routes::go_live`], so that a user is never hidden by a resync. An incarnation may have
    /// several filling slots. The lowest free index is taken.
    ///
    /// # Errors
    ///
    /// [`SlotError::SlotsFull`]; a sweep may free some.
    pub fn open(&self, incarnation: Incarnation) -> Result<Slot, SlotError> {
        self.table.slots().open(incarnation)
    }

    /// Makes a filling slot answer and, in the same step, kills the older slot it replaces, from
    /// whatever state that is in. An older slot that is dead already is no error.
    ///
    /// # Errors
    ///
    /// [`SlotError::Dead`] or [`SlotError::Refused`] if `slot` is not filling,
    /// [`SlotError::ReplacesItself`], [`SlotError::OtherIncarnation`], and
    /// [`SlotError::NotReplaced`] if the incarnation has another slot live or suspended.
    pub fn go_live(&self, slot: Slot, replaces: Option<Slot>) -> Result<(), SlotError> {
        self.table.slots().go_live(slot, replaces)
    }

    /// Applies registrations in their order, for a slot in any state but dead. Touches no other
    /// slot's routes, however many hold the user. Only of a live slot the changes are seen by
    /// queries at once.
    ///
    /// The batch is refused as a whole, before its first change, if its adds alone could exceed
    /// [`Limits::routes`]; adds that would change nothing count too.
    ///
    /// # Errors
    ///
    /// [`SlotError::Dead`], [`SlotError::RoutesFull`], [`SlotError::NamespacesFull`].
    pub fn apply(&self, slot: Slot, changes: &[Change]) -> Result<Applied, SlotError> {
        self.table.apply(slot, changes)
    }

    /// Says whether tags are agreed on with the gateway of a slot, in any state but dead; no slot
    /// begins so. One without is never sent a message with a selector (\[SEL-10\]); what it
    /// declared is kept.
    ///
    /// # Errors
    ///
    /// [`SlotError::Dead`].
    pub fn agree_on_tags(&self, slot: Slot, agreed: bool) -> Result<(), SlotError> {
        self.table.slots().agree_on_tags(slot, agreed)
    }

    /// Applies what a gateway declares of its tags, in order, for a slot in any state but dead.
    /// Only of a live slot the changes are seen by queries at once.
    ///
    /// A tag beyond [`Limits::gateway_tags`] or [`Limits::broker_tags`] is declared like any other
    /// and not kept; as long as the slot has one such, it counts as having declared every tag, so
    /// that it misses no message (\[TAG-10\]). Which tags those are is not known: removing a tag
    /// that is not found takes one of them away.
    ///
    /// # Errors
    ///
    /// [`SlotError::Dead`].
    ///
    /// # Panics
    ///
    /// If a tag has more than 127 bytes.
    pub fn apply_tags(
        &self,
        slot: Slot,
        changes: &[TagChange<'_>],
    ) -> Result<TagsApplied, SlotError> {
        self.table.apply_tags(slot, changes)
    }

    /// Takes a live slot out of every answer and keeps its routes for [`Routes::resume`].
    ///
    /// # Errors
    ///
    /// [`SlotError::Dead`], or [`SlotError::Refused`] unless live.
    pub fn suspend(&self, slot: Slot) -> Result<(), SlotError> {
        self.table.step(slot, Step::Suspend)
    }

    /// Makes a suspended slot answer again, with the routes it had and the changes since, in one
    /// step. Whether incarnation and digest allow it is for the caller to know.
    ///
    /// # Errors
    ///
    /// [`SlotError::Dead`], or [`SlotError::Refused`] unless suspended.
    pub fn resume(&self, slot: Slot) -> Result<(), SlotError> {
        self.table.step(slot, Step::Resume)
    }

    /// Ends a slot in any state. O(1): its routes stop answering at once, however many they are,
    /// and its handle is void; [`Routes::sweep`] takes them away later.
    ///
    /// # Errors
    ///
    /// [`SlotError::Dead`] if it was dead already.
    pub fn kill(&self, slot: Slot) -> Result<(), SlotError> {
        self.table.step(slot, Step::Kill)
    }

    /// Takes at most `budget` steps of cleaning up after dead slots. A step is one bucket of the
    /// table looked at (six routes at most are removed from it), one namespace passed by, or the
    /// freeing of slot indices when nothing of them is left; a tag looked at takes three. All slots
    /// that are dead when a walk over the table begins are cleaned up after by that walk. Does
    /// nothing if no slot is dead.
    pub fn sweep(&self, budget: usize) -> SweepProgress {
        self.table.sweep(budget)
    }

    /// Overwrites `plan` with the answers to a batch of queries, in their order.
    ///
    /// - UIDs, direct: each gateway with a route to one of them gets its own part.
    /// - UIDs, broadcast: the frame whole to every live slot; nothing is looked up, the UIDs that
    ///   the except list leaves are counted as unresolved.
    /// - Everyone, direct: whole to every live slot with a route in the namespace.
    /// - Everyone, broadcast: whole to every live slot.
    ///
    /// With a selector only slots come into question with which tags are agreed on, and unless it
    /// is broadcast only those where some connection may match by the tags declared (\[SEL-9\]). A
    /// UID that no such gateway has, but another, is filtered.
    pub fn resolve(&self, queries: &[Query<'_>], plan: &mut Plan) {
        self.table.resolve(queries, usize::MAX, plan);
    }

    /// The same as long as no list has more than so many routes: a user may be at many gateways,
    /// and what a list takes is not known before it is looked up. `false`: one had more, and the
    /// plan is no answer.
    #[must_use]
    pub fn resolve_within(&self, queries: &[Query<'_>], hits_max: usize, plan: &mut Plan) -> bool {
        self.table.resolve(queries, hits_max, plan)
    }

    /// Overwrites `whereabouts` with where each of these users is: the same as
    /// [`resolve`](Self::resolve) finds for queries of one UID each, without what makes a plan.
    pub fn locate(
        &self,
        namespace: Namespace,
        uids: impl Iterator<Item = u64>,
        whereabouts: &mut Whereabouts,
    ) {
        self.table.locate(namespace, uids, whereabouts);
    }

    /// What [`Mode::Auto`](crate::Mode::Auto) takes for this message just now, whatever mode it
    /// has, and what the model says that each mode costs. Looks nothing up.
    #[must_use]
    pub fn weigh(&self, query: &Query<'_>) -> Choice {
        self.table.weigh(query)
    }

    /// The state of a slot; dead for every handle that is not valid (any more).
    #[must_use]
    pub fn state(&self, slot: Slot) -> SlotState {
        self.table.slots().state(slot)
    }

    /// The incarnation's slot that is live or suspended; there is at most one. This is what a
    /// snapshot of that incarnation replaces, and what it may resume.
    #[must_use]
    pub fn standing(&self, incarnation: Incarnation) -> Option<Slot> {
        self.table.slots().standing(incarnation)
    }

    /// Every slot that is not free, in rising order of index, and what each holds. Locks out who
    /// changes slots meanwhile, so this is for people who ask, not for traffic.
    #[must_use]
    pub fn gateway_slots(&self, namespace: Namespace) -> Vec<GatewaySlot> {
        self.table.gateway_slots(namespace)
    }

    /// Overwrites `slots` with the indices of the slots that hold a user, in whatever state they
    /// are, in rising order. Dead ones hold it until they are swept.
    pub fn holders(&self, namespace: Namespace, uid: Uid, slots: &mut Vec<u16>) {
        self.table.holders(namespace, uid.0, slots);
    }

    /// Whether a slot has declared a tag, as far as that is kept.
    #[must_use]
    pub fn declares(&self, slot: Slot, namespace: Namespace, tag: &str) -> bool {
        self.table.declares(slot, namespace, tag)
    }

    /// Number of routes in all slots, dead ones included.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.table.routes()
    }

    /// Number of namespaces with routes, dead ones included.
    #[must_use]
    pub fn namespaces(&self) -> usize {
        self.table.spaces().len()
    }

    /// What the table holds, by slot state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.table.counts()
    }

    /// Panics unless the table is consistent. Walks everything: for tests.
    #[doc(hidden)]
    pub fn invariants(&self) {
        self.table.invariants();
    }
}
