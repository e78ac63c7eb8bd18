//! From queries to a plan: deduplicate, leave out, look up, group by gateway.
//!
//! Queries for one UID are taken together: the lines of all of them are asked for before the first
//! is looked at, and so are those of each list. A long list is walked several times, each time in
//! its own order: duplicates and excepted UIDs out, slots found, those of each gateway counted,
//! UIDs put where their gateway's part begins. Nothing is allocated in the steady state, and what
//! comes out depends on nothing but the queries and the routes.

use std::sync::Arc;

use waybill_wire::targets::UidRun;

use crate::cost;
use crate::map::{self, Slots, View};
use crate::plan::{PartSpan, Plan, RoutedSpan, Scratch};
use crate::scratch::{Ahead, NO_SLOT};
use crate::slots::SlotsView;
use crate::space::Space;
use crate::table::Table;
use crate::tags::TagIndex;
use crate::{Audience, Choice, Mode, Query, Slot};

/// UIDs whose hits are sorted by gateway, unless these are many: sorting compares each with each.
const FEW: usize = 4;
const FEW_HITS: usize = 4 * FEW;

impl Table {
    /// What `auto` takes for a message.
    pub(crate) fn weigh(&self, query: &Query<'_>) -> Choice {
        let around = self.spaces().around(query.namespace);
        cost::weigh(query, &self.slots().view(), around.get(query.namespace))
    }

    /// Overwrites `plan` with the answers to `queries`, in their order; whether none of them found
    /// more than so many routes. If one did, the plan is no answer.
    pub(crate) fn resolve(&self, queries: &[Query<'_>], hits_max: usize, plan: &mut Plan) -> bool {
        loop {
            let slots = self.slots().view();
            plan.clear();
            plan.scratch.hits_max = hits_max;
            self.resolve_with(&slots, queries, plan);
            if plan.scratch.is_over {
                return false;
            }
            // An index may have died, been swept and opened again meanwhile, and routes of the new
            // slot have been taken for those of the old.
            if Arc::ptr_eq(&slots, &self.slots().view()) {
                return true;
            }
        }
    }

    fn resolve_with(&self, slots: &SlotsView, queries: &[Query<'_>], plan: &mut Plan) {
        for of_one in queries.chunk_by(|a, b| a.namespace == b.namespace) {
            let namespace = of_one[0].namespace;
            let around = self.spaces().around(namespace);
            let space = around.get(namespace);
            let view = space.map(|space| space.map.view());
            let key = space.map_or(self.key(), |space| space.map.key());
            let tags = self.tags();
            let place = Place { slots, tags, key, space, view: view.as_ref() };
            for together in of_one.chunks(AHEAD) {
                place.look_ahead(together, &mut plan.scratch);
                let mut ahead = 0;
                for (at, query) in together.iter().enumerate() {
                    if at > 0 && query.repeats(&together[at - 1]) {
                        plan.repeat();
                        continue;
                    }
                    let is_ahead = alone(query).is_some();
                    place.answer(query, is_ahead.then_some(ahead), plan);
                    ahead += usize::from(is_ahead);
                }
            }
        }
    }
}

/// The one UID that a query looks up, if it has no more and leaves nobody out, as most have.
fn alone(query: &Query<'_>) -> Option<u64> {
    match (query.audience, query.mode) {
        (Audience::Uids(uids), Mode::Direct | Mode::Auto) if query.except.is_empty() => only(uids),
        _ => None,
    }
}

/// The UID of a list of one.
fn only(uids: UidRun<'_>) -> Option<u64> {
    let mut uids = uids.iter();
    uids.next().filter(|_| uids.len() == 0)
}

/// Queries whose UIDs are looked up ahead of their answers: what a map asks for together.
const AHEAD: usize = 64;

/// UIDs after which it is asked whether more was found than there may be.
const BETWEEN_LOOKS: usize = 256;

/// Where queries of one namespace are looked up.
struct Place<'a> {
    slots: &'a SlotsView,
    tags: &'a TagIndex,
    /// What UIDs are hashed with.
    key: u64,
    space: Option<&'a Space>,
    view: Option<&'a View<'a>>,
}

impl Place<'_> {
    /// Looks up the UIDs of queries that have one, and leaves the slots of each in the scratch.
    fn look_ahead(&self, queries: &[Query<'_>], scratch: &mut Scratch) {
        let Scratch { distinct, ahead, found, .. } = scratch;
        let uids = queries.iter().filter_map(alone);
        distinct.clear();
        distinct.extend(uids.map(|uid| (uid, map::hash(self.key, uid))));
        ahead.clear();
        match (self.view, &distinct[..]) {
            (Some(view), [user]) => ahead.push(user.0, view.find_one(*user, found)),
            (Some(view), _) => many_ahead(view, distinct, found, ahead),
            (None, _) => distinct.iter().for_each(|(uid, _)| ahead.push(*uid, Slots::Some(&[]))),
        }
    }

    /// Appends the answer to one query, which may be one of those that were looked up ahead.
    fn answer(&self, query: &Query<'_>, ahead: Option<usize>, plan: &mut Plan) {
        let before = (plan.parts.len(), plan.offline.len(), plan.filtered.len());
        let in_part = plan.filtered_in_part.len();
        let mode = match query.mode {
            Mode::Auto if query.fates_asked => Mode::Direct,
            Mode::Auto => cost::weigh(query, self.slots, self.space).mode,
            asked => asked,
        };
        let (reached, unresolved) = match (query.audience, mode) {
            (Audience::Uids(uids), Mode::Direct | Mode::Auto) => {
                let reached = match ahead {
                    Some(ahead) => self.narrow_one(query, ahead, plan),
                    None => {
                        distinct_without(uids, query.except, self.key, plan);
                        self.narrow(query, plan)
                    }
                };
                (reached, 0)
            }
            (Audience::Uids(uids), Mode::Broadcast) => {
                distinct_without(uids, query.except, self.key, plan);
                self.broadcast(query, plan);
                (0, plan.scratch.distinct.len())
            }
            (Audience::Everyone, Mode::Direct | Mode::Auto) => {
                if let Some(space) = self.space {
                    self.inhabited(space, query, plan);
                }
                (0, 0)
            }
            (Audience::Everyone, Mode::Broadcast) => {
                self.broadcast(query, plan);
                (0, 0)
            }
        };
        plan.routed.push(RoutedSpan {
            parts: before.0..plan.parts.len(),
            offline: before.1..plan.offline.len(),
            filtered: before.2..plan.filtered.len(),
            filtered_in_part: in_part..plan.filtered_in_part.len(),
            reached,
            unresolved,
            mode,
        });
    }

    /// The frame whole to each live slot, with a selector to those with which tags are agreed on.
    fn broadcast(&self, query: &Query<'_>, plan: &mut Plan) {
        let is_meant = |slot: &Slot| {
            let tagged = self.slots.word(slot.index() / 64).tagged;
            query.selector.is_none() || tagged >> (slot.index() % 64) & 1 != 0
        };
        let meant = self.slots.live().filter(is_meant);
        plan.parts.extend(meant.map(|slot| PartSpan { slot, uids: None }));
    }

    /// The frame whole to each live slot with a user in the namespace, of whom one may match.
    fn inhabited(&self, space: &Space, query: &Query<'_>, plan: &mut Plan) {
        let Plan { parts, scratch: Scratch { reach, .. }, .. } = plan;
        let slots = self.slots;
        let inhabited = space.inhabited();
        let whole = |index: &u16| PartSpan { slot: slots.slot(*index), uids: None };
        let Some(selector) = query.selector else {
            parts.extend(inhabited.iter().filter(|index| slots.is_live(**index)).map(whole));
            return;
        };
        reach.begin((query.namespace, selector), self.tags, slots);
        for together in inhabited.chunk_by(|a, b| a / 64 == b / 64) {
            let may = reach.of_64(slots, usize::from(together[0] / 64));
            parts.extend(together.iter().filter(|index| may >> (*index % 64) & 1 != 0).map(whole));
        }
    }

    /// Appends the part of each gateway that has the UID, which was looked up ahead; how many UIDs
    /// were reached.
    fn narrow_one(&self, query: &Query<'_>, ahead: usize, plan: &mut Plan) -> usize {
        let before = plan.filtered.len();
        let Plan { targets, offline, parts, scratch: Scratch { ahead: found, hits, .. }, .. } =
            plan;
        let (uid, slots) = found.at(ahead);
        if let (Slots::One(slot), None) = (slots, query.selector)
            && self.slots.is_live(slot)
        {
            // Nearly all there are.
            let uids = Some(targets.len()..targets.len() + 1);
            targets.push(uid);
            parts.push(PartSpan { slot: self.slots.slot(slot), uids });
            return 1;
        }
        hits.clear();
        let live = slots.as_slice().iter().filter(|slot| self.slots.is_live(**slot));
        hits.extend(live.map(|slot| (uid, *slot)));
        if hits.is_empty() {
            offline.push(uid);
            return 0;
        }
        self.leave_matching(query, plan);
        self.share_out_few(plan);
        usize::from(plan.filtered.len() == before)
    }

    /// Looks up the distinct UIDs that are left and appends each gateway's part; how many UIDs were
    /// reached.
    fn narrow(&self, query: &Query<'_>, plan: &mut Plan) -> usize {
        let before = plan.offline.len() + plan.filtered.len();
        if plan.scratch.distinct.len() > FEW && query.selector.is_none() {
            self.look_up_counting(plan);
            self.share_out_counted(plan);
        } else {
            self.look_up(plan);
            self.leave_matching(query, plan);
            let Scratch { distinct, hits, shares, .. } = &mut plan.scratch;
            if distinct.len() <= FEW && hits.len() <= FEW_HITS {
                self.share_out_few(plan);
            } else {
                shares.begin(self.slots.len());
                hits.iter().for_each(|(_, slot)| shares.count(*slot));
                self.share_out(plan);
            }
        }
        plan.scratch.distinct.len() - (plan.offline.len() + plan.filtered.len() - before)
    }

    /// Takes away the hits of slots that can have no match; a UID none of whose slots is left is
    /// filtered, one that has lost some of them in part. Nothing, if the query has no selector.
    fn leave_matching(&self, query: &Query<'_>, plan: &mut Plan) {
        let Some(selector) = query.selector else { return };
        let Plan { filtered, filtered_in_part, scratch: Scratch { hits, reach, .. }, .. } = plan;
        reach.begin((query.namespace, selector), self.tags, self.slots);
        let (mut at, mut kept) = (0, 0);
        while let Some(&(uid, _)) = hits.get(at) {
            let (first, kept_before) = (at, kept);
            while let Some(&(_, slot)) = hits.get(at).filter(|hit| hit.0 == uid) {
                if reach.may(self.slots, slot) {
                    hits[kept] = (uid, slot);
                    kept += 1;
                }
                at += 1;
            }
            if kept == kept_before {
                filtered.push(uid);
            } else if kept - kept_before < at - first {
                filtered_in_part.push(uid);
            }
        }
        hits.truncate(kept);
    }

    /// Looks up the distinct UIDs that are left: routes of live slots as hits, and who is offline.
    #[inline(never)]
    fn look_up(&self, plan: &mut Plan) {
        let Plan { offline, scratch, .. } = plan;
        let Scratch { distinct, hits, hits_max, is_over, found, .. } = scratch;
        hits.clear();
        let Some(view) = self.view else {
            offline.extend(distinct.iter().map(|(uid, _)| *uid));
            return;
        };
        for some in distinct.chunks(BETWEEN_LOOKS) {
            view.find(some, found, |uid, there| {
                let before = hits.len();
                let live = there.as_slice().iter().filter(|slot| self.slots.is_live(**slot));
                hits.extend(live.map(|slot| (uid, *slot)));
                if hits.len() == before {
                    offline.push(uid);
                }
            });
            if hits.len() > *hits_max {
                *is_over = true;
                return;
            }
        }
    }

    /// The same for many without a selector: a live slot of each UID, those that some have beside
    /// it, and how many UIDs each slot has.
    #[inline(never)]
    fn look_up_counting(&self, plan: &mut Plan) {
        let Scratch { distinct, firsts, others, hits_max, is_over, found, shares, .. } =
            &mut plan.scratch;
        shares.begin(self.slots.len());
        firsts.clear();
        others.clear();
        firsts.resize(distinct.len(), NO_SLOT);
        let Some(view) = self.view else {
            shares.count_all(firsts);
            return;
        };
        let (slots, mut begun) = (self.slots, 0);
        for (some, firsts) in distinct.chunks(BETWEEN_LOOKS).zip(firsts.chunks_mut(BETWEEN_LOOKS)) {
            let closely = |at, there: Slots<'_>| {
                let mut live = there.as_slice().iter().filter(|slot| slots.is_live(**slot));
                let first = *live.next().unwrap_or(&NO_SLOT);
                for slot in live {
                    shares.count(*slot);
                    others.push((begun + at, *slot));
                }
                first
            };
            view.find_each(some, firsts, found, closely);
            shares.count_all(firsts);
            shares.leave_out_dead(slots, firsts);
            begun += some.len();
            if begun - shares.nobodys() + others.len() > *hits_max {
                *is_over = true;
                break;
            }
        }
        if *is_over {
            firsts.clear();
            others.clear();
        }
    }

    /// Appends each gateway's part of the hits, which are counted, in the order of the list.
    fn share_out(&self, plan: &mut Plan) {
        let Plan { targets, parts, scratch: Scratch { hits, shares, .. }, .. } = plan;
        let mut start = targets.len();
        targets.resize(start + hits.len(), 0);
        shares.place(|slot, count| {
            let uids = start..start + count;
            start = uids.end;
            parts.push(PartSpan { slot: self.slots.slot(slot), uids: Some(uids.clone()) });
            uids.start
        });
        for &(uid, slot) in hits.iter() {
            targets[shares.next(slot)] = uid;
        }
    }

    /// The same for what was counted when it was looked up.
    #[inline(never)]
    fn share_out_counted(&self, plan: &mut Plan) {
        let Plan { targets, parts, offline, scratch, .. } = plan;
        let Scratch { distinct, firsts, others, shares, .. } = scratch;
        let start = targets.len();
        let mut end = start;
        let nobodys = shares.place(|slot, count| {
            let uids = end..end + count;
            end = uids.end;
            parts.push(PartSpan { slot: self.slots.slot(slot), uids: Some(uids.clone()) });
            uids.start - start
        });
        targets.resize(end + nobodys, 0);
        let dealt = &mut targets[start..];
        let mut done = 0;
        for (at, slot) in others.iter() {
            shares.deal(&distinct[done..=*at], &firsts[done..=*at], dealt);
            shares.deal(&distinct[*at..=*at], &[*slot], dealt);
            done = at + 1;
        }
        shares.deal(&distinct[done..], &firsts[done..], dealt);
        offline.extend_from_slice(&targets[end..]);
        targets.truncate(end);
    }

    /// The same for few hits, which are sorted: that there are many gateways costs nothing then.
    fn share_out_few(&self, plan: &mut Plan) {
        let Plan { targets, parts, scratch: Scratch { hits, .. }, .. } = plan;
        // By insertion: stable, and without memory of its own.
        for at in 1..hits.len() {
            let hit = hits[at];
            let mut to = at;
            while to > 0 && hits[to - 1].1 > hit.1 {
                hits[to] = hits[to - 1];
                to -= 1;
            }
            hits[to] = hit;
        }
        for of_one in hits.chunk_by(|a, b| a.1 == b.1) {
            let uids = targets.len()..targets.len() + of_one.len();
            targets.extend(of_one.iter().map(|(uid, _)| *uid));
            parts.push(PartSpan { slot: self.slots.slot(of_one[0].1), uids: Some(uids) });
        }
    }
}

/// Apart, so that a message alone is not answered in a frame that has room for many.
#[inline(never)]
fn many_ahead(view: &View<'_>, users: &[(u64, u64)], slots: &mut Vec<u16>, ahead: &mut Ahead) {
    view.find(users, slots, |uid, slots| ahead.push(uid, slots));
}

/// Leaves the distinct UIDs of `uids` that are not in `except` in the scratch, in list order; those
/// that are in it go to the plan's filtered ones.
fn distinct_without(uids: UidRun<'_>, except: UidRun<'_>, key: u64, plan: &mut Plan) {
    let Plan { filtered, scratch, .. } = plan;
    let Scratch { distinct, except: excepted, once, .. } = scratch;
    excepted.clear();
    excepted.extend(except.iter());
    excepted.sort_unstable();

    // A list in rising order, as many are, has nobody twice.
    if uids.iter().is_sorted_by(|a, b| a < b) {
        distinct.clear();
        distinct.extend(uids.iter().map(|uid| (uid, map::hash(key, uid))));
    } else {
        once.leave_first(uids, |uid| map::hash(key, uid), distinct);
    }
    if excepted.is_empty() {
        return;
    }
    distinct.retain(|(uid, _)| {
        let out = excepted.binary_search(uid).is_ok();
        if out {
            filtered.push(*uid);
        }
        !out
    });
}
