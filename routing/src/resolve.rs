//! From queries to a plan: deduplicate, leave out, look up, group by gateway.
//!
//! A list is walked four times, each time in its own order: duplicates and excepted UIDs out, all
//! lines of the table asked for together, slots found and counted, UIDs put where their gateway's
//! part begins. Nothing is sorted and nothing allocated in the steady state, and results depend on
//! nothing but the query and the routes.

use std::sync::Arc;

use waybill_wire::targets::UidRun;

use crate::map::{self, Map, View};
use crate::plan::{PartSpan, Plan, RoutedSpan, Scratch};
use crate::slots::SlotsView;
use crate::table::{Spaces, Table};
use crate::{Audience, Mode, Query};

/// UIDs whose lines are asked for together: more than a core has under way at a time, and few
/// enough to be in its first cache when they are looked at.
const TOGETHER: usize = 64;

impl Table {
    /// Overwrites `plan` with the answers to `queries`, in their order.
    pub(crate) fn resolve(&self, queries: &[Query<'_>], plan: &mut Plan) {
        loop {
            let slots = self.slots().view();
            self.resolve_with(&slots, queries, plan);
            // An index may have died, been swept and opened again meanwhile, and routes of the new
            // slot have been taken for those of the old.
            if Arc::ptr_eq(&slots, &self.slots().view()) {
                return;
            }
        }
    }

    fn resolve_with(&self, slots: &SlotsView, queries: &[Query<'_>], plan: &mut Plan) {
        plan.clear();
        let spaces = self.spaces();
        for query in queries {
            let before = (plan.parts.len(), plan.offline.len(), plan.filtered.len());
            let (reached, unresolved) = answer(self.key(), slots, &spaces, query, plan);
            plan.routed.push(RoutedSpan {
                parts: before.0..plan.parts.len(),
                offline: before.1..plan.offline.len(),
                filtered: before.2..plan.filtered.len(),
                reached,
                unresolved,
            });
        }
    }
}

/// Appends the parts of one query; how many UIDs were reached, and how many not looked up.
fn answer(
    key: u64,
    slots: &SlotsView,
    spaces: &Spaces,
    query: &Query<'_>,
    plan: &mut Plan,
) -> (usize, usize) {
    let whole = |slot| PartSpan { slot, uids: None };
    match (query.audience, query.mode) {
        (Audience::Uids(uids), Mode::Direct | Mode::Auto) => {
            let map = spaces.get(&query.namespace).map(|space| &space.map);
            distinct_without(uids, query.except, map.map_or(key, Map::key), plan);
            (narrow(slots, map.map(Map::view).as_ref(), plan), 0)
        }
        (Audience::Uids(uids), Mode::Broadcast) => {
            distinct_without(uids, query.except, key, plan);
            plan.parts.extend(slots.live().map(whole));
            (0, plan.scratch.distinct.len())
        }
        (Audience::Everyone, Mode::Direct | Mode::Auto) => {
            if let Some(space) = spaces.get(&query.namespace) {
                let inhabited = space.inhabited();
                let live = inhabited.iter().filter(|index| slots.is_live(**index));
                plan.parts.extend(live.map(|index| whole(slots.slot(*index))));
            }
            (0, 0)
        }
        (Audience::Everyone, Mode::Broadcast) => {
            plan.parts.extend(slots.live().map(whole));
            (0, 0)
        }
    }
}

/// Looks up what `distinct_without` left and appends each gateway's part; how many UIDs were
/// reached.
fn narrow(slots: &SlotsView, view: Option<&View<'_>>, plan: &mut Plan) -> usize {
    let Plan { targets, offline, parts, scratch, .. } = plan;
    let Scratch { distinct, hits, found, shares, .. } = scratch;
    let offline_before = offline.len();
    hits.clear();
    shares.begin(slots.len());
    for together in distinct.chunks(TOGETHER) {
        if let Some(view) = view.filter(|_| together.len() > 1) {
            std::hint::black_box(view.touch(together.iter().map(|(_, hash)| *hash)));
        }
        for &(uid, hash) in together {
            found.clear();
            if let Some(view) = view {
                view.find(uid, hash, found);
            }
            let before = hits.len();
            for &slot in found.iter().filter(|slot| slots.is_live(**slot)) {
                hits.push((uid, slot));
                shares.count(slot);
            }
            if hits.len() == before {
                offline.push(uid);
            }
        }
    }
    let mut start = targets.len();
    targets.resize(start + hits.len(), 0);
    shares.place(|slot, count| {
        let uids = start..start + count;
        start = uids.end;
        parts.push(PartSpan { slot: slots.slot(slot), uids: Some(uids.clone()) });
        uids.start
    });
    for &(uid, slot) in hits.iter() {
        targets[shares.next(slot)] = uid;
    }
    distinct.len() - (offline.len() - offline_before)
}

/// Leaves the distinct UIDs of `uids` that are not in `except` in the scratch, in list order; those
/// that are in it go to the plan's filtered ones.
fn distinct_without(uids: UidRun<'_>, except: UidRun<'_>, key: u64, plan: &mut Plan) {
    let Plan { filtered, scratch, .. } = plan;
    let Scratch { distinct, except: excepted, once, .. } = scratch;
    excepted.clear();
    excepted.extend(except.iter());
    excepted.sort_unstable();

    distinct.clear();
    distinct.extend(uids.iter().map(|uid| (uid, map::hash(key, uid))));
    // A list in rising order, as many are, has nobody twice.
    if !distinct.is_sorted_by(|a, b| a.0 < b.0) {
        once.begin(distinct.len());
        distinct.retain(|(uid, hash)| once.insert(*uid, *hash));
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
