//! What is asked of the route table and what it answers, batch by batch.
//!
//! A [`Plan`] is reused scratch: every list of every query lies in a few flat vectors that keep
//! their capacity, so that routing allocates nothing once the largest batch has been seen.
//! The bound of that memory is the largest batch the caller passes.

use std::ops::Range;

use waybill_wire::selector::Selector;
use waybill_wire::targets::UidRun;

use crate::reach::Reach;
use crate::scratch::{Ahead, Once, Shares};
use crate::{Namespace, Slot};

/// Who a publish is for, before the except list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience<'a> {
    /// The listed UIDs. One that is listed twice counts once.
    Uids(UidRun<'a>),
    /// Everyone in the namespace.
    Everyone,
}

/// How a publish gets there: changes the cost, never the recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// UIDs are looked up, each gateway gets its own part.
    Direct,
    /// Nothing is looked up, every live gateway gets the frame unchanged.
    Broadcast,
    /// The table chooses the cheaper one by a model ([`Routes::weigh`](crate::Routes::weigh)).
    #[default]
    Auto,
}

/// One frame to route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The tenant every UID below belongs to.
    pub namespace: Namespace,
    /// Who it is for.
    pub audience: Audience<'a>,
    /// Only connections that match it are (\[SEL-6\]); none means that tags do not matter.
    pub selector: Option<Selector<'a>>,
    /// UIDs that get nothing, whatever the audience says. A part that is [`Part::Whole`] still
    /// carries them: there the gateway leaves them out.
    pub except: UidRun<'a>,
    /// How it gets there.
    pub mode: Mode,
    /// Whether somebody is told what becomes of its users: then `auto` looks them up (\[TGT-6\]).
    pub fates_asked: bool,
    /// What a frame of it has in bytes beside list and except list. Of weight to `auto` only.
    pub bytes: usize,
}

impl<'a> Query<'a> {
    /// A frame for all of this audience, by mode `direct`.
    #[must_use]
    pub fn new(namespace: Namespace, audience: Audience<'a>) -> Self {
        let (selector, except, mode) = (None, UidRun::default(), Mode::Direct);
        let (fates_asked, bytes) = (false, 0);
        Self { namespace, audience, selector, except, mode, fates_asked, bytes }
    }

    /// Whether it asks for everyone, as the one before it did: then it has its answer, and takes no
    /// room in a plan.
    #[inline]
    #[must_use]
    pub fn repeats(&self, before: &Self) -> bool {
        let is_plain = |query: &Self| {
            query.audience == Audience::Everyone
                && query.selector.is_none()
                && query.except.is_empty()
        };
        let weight = |query: &Self| (query.fates_asked, query.bytes);
        let is_weighed = self.mode == Mode::Auto;
        is_plain(self)
            && is_plain(before)
            && (self.namespace, self.mode) == (before.namespace, before.mode)
            && (!is_weighed || weight(self) == weight(before))
    }
}

/// One gateway's share of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The frame narrowed to these UIDs: each has a route to this gateway. In the order of the
    /// frame's list, each once, never empty.
    Uids(&'a [u64]),
    /// The frame unchanged; the gateway matches it against its own connections.
    Whole,
}

/// Where the frames of one batch go. Filled by [`Routes::resolve`](crate::Routes::resolve), which
/// overwrites what was there.
#[derive(Debug, Default)]
pub struct Plan {
    pub(crate) targets: Vec<u64>,
    pub(crate) offline: Vec<u64>,
    pub(crate) filtered: Vec<u64>,
    pub(crate) filtered_in_part: Vec<u64>,
    pub(crate) parts: Vec<PartSpan>,
    pub(crate) routed: Vec<RoutedSpan>,
    pub(crate) scratch: Scratch,
}

/// A part: its gateway and where its UIDs lie in `targets`; no place means `Whole`.
#[derive(Debug)]
pub(crate) struct PartSpan {
    pub(crate) slot: Slot,
    pub(crate) uids: Option<Range<usize>>,
}

/// The answer to one query, as places in the plan's flat vectors.
#[derive(Clone, Debug)]
pub(crate) struct RoutedSpan {
    pub(crate) parts: Range<usize>,
    pub(crate) offline: Range<usize>,
    pub(crate) filtered: Range<usize>,
    pub(crate) filtered_in_part: Range<usize>,
    pub(crate) reached: usize,
    pub(crate) unresolved: usize,
    pub(crate) mode: Mode,
}

/// Working space of one query; holds nothing between two.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The audience's UIDs without duplicates, in the order of the list, each with its keyed hash.
    pub(crate) distinct: Vec<(u64, u64)>,
    pub(crate) once: Once,
    /// The except list, sorted.
    pub(crate) except: Vec<u64>,
    /// What was found of UIDs that are alone in their queries.
    pub(crate) ahead: Ahead,
    /// Slots of one UID.
    pub(crate) found: Vec<u16>,
    /// UID and slot of every route that was found.
    pub(crate) hits: Vec<(u64, u16)>,
    /// Of a long list in their place: a slot of each distinct UID.
    pub(crate) firsts: Vec<u16>,
    /// Slots that some of those have beside that one, each with the place of its UID.
    pub(crate) others: Vec<(usize, u16)>,
    /// How many there may be, and whether some query had more.
    pub(crate) hits_max: usize,
    pub(crate) is_over: bool,
    pub(crate) shares: Shares,
    pub(crate) reach: Reach,
}

impl Plan {
    /// An empty plan, with no memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of queries answered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routed.len()
    }

    /// Whether no query is answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routed.is_empty()
    }

    /// The answer to the query at `index` of the batch.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`Plan::len`].
    #[inline]
    #[must_use]
    pub fn routed(&self, index: usize) -> Routed<'_> {
        Routed { plan: self, span: &self.routed[index] }
    }

    /// The answers in the order of the queries.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Routed<'_>> {
        self.routed.iter().map(|span| Routed { plan: self, span })
    }

    /// The answer to the last query is that to one more.
    pub(crate) fn repeat(&mut self) {
        let last = self.routed.last().cloned();
        self.routed.extend(last);
    }

    /// Forgets the answers and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.targets.clear();
        self.offline.clear();
        self.filtered.clear();
        self.filtered_in_part.clear();
        self.parts.clear();
        self.routed.clear();
        self.scratch.is_over = false;
    }
}

/// The answer to one query.
///
/// Of an audience of UIDs every distinct one is counted exactly once: filtered, offline, reached or
/// unresolved. Of an audience without a list nothing is counted.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'a> {
    plan: &'a Plan,
    span: &'a RoutedSpan,
}

impl<'a> Routed<'a> {
    /// The involved gateways in rising order of slot index, each once, with their parts.
    #[inline]
    pub fn parts(self) -> impl ExactSizeIterator<Item = (Slot, Part<'a>)> {
        let targets = &self.plan.targets;
        self.plan.parts[self.span.parts.clone()].iter().map(move |part| match &part.uids {
            Some(uids) => (part.slot, Part::Uids(&targets[uids.clone()])),
            None => (part.slot, Part::Whole),
        })
    }

    /// Whether both are one answer, since the later query [repeats](Query::repeats) the other.
    #[inline]
    #[must_use]
    pub fn is_repeated_by(self, later: Self) -> bool {
        self.span.parts == later.span.parts
    }

    /// UIDs that have no route to a live slot, in list order.
    #[inline]
    #[must_use]
    pub fn offline(self) -> &'a [u64] {
        &self.plan.offline[self.span.offline.clone()]
    }

    /// UIDs of the audience that the except list took out, then those that are at gateways none
    /// of which can have a match; both in list order.
    #[inline]
    #[must_use]
    pub fn filtered(self) -> &'a [u64] {
        &self.plan.filtered[self.span.filtered.clone()]
    }

    /// UIDs that are in a part, and at another gateway too that can have no match; in list order.
    #[inline]
    #[must_use]
    pub fn filtered_in_part(self) -> &'a [u64] {
        &self.plan.filtered_in_part[self.span.filtered_in_part.clone()]
    }

    /// Number of distinct UIDs with a route to at least one live slot.
    #[inline]
    #[must_use]
    pub fn reached(self) -> usize {
        self.span.reached
    }

    /// How it gets there: as was asked, or what the table chose for [`Mode::Auto`].
    #[inline]
    #[must_use]
    pub fn mode(self) -> Mode {
        self.span.mode
    }

    /// Number of distinct UIDs that a broadcast did not look up.
    #[inline]
    #[must_use]
    pub fn unresolved(self) -> usize {
        self.span.unresolved
    }
}
