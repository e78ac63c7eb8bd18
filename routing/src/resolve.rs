//! From queries to a plan: deduplicate, leave out, look up, group by gateway.
//!
//! Sorting small vectors does all of it: no hashing, no allocation in steady state, and results
//! whose order depends on nothing but the query and the slots.

use waybill_wire::targets::UidRun;

use crate::plan::{Plan, RoutedSpan, Scratch};
use crate::table::Table;
use crate::{Audience, Mode, Query, Uid};

impl Table {
    /// Overwrites `plan` with the answers to `queries`, in their order.
    pub(crate) fn resolve(&self, queries: &[Query<'_>], plan: &mut Plan) {
        plan.clear();
        for query in queries {
            let before = (plan.parts.len(), plan.offline.len(), plan.filtered.len());
            let (reached, unresolved) = match (query.audience, query.mode) {
                (Audience::Uids(uids), Mode::Direct | Mode::Auto) => {
                    distinct_without(uids, query.except, plan);
                    (self.narrow(query, plan), 0)
                }
                (Audience::Uids(uids), Mode::Broadcast) => {
                    distinct_without(uids, query.except, plan);
                    plan.parts.extend(self.whole_live());
                    (0, plan.scratch.distinct.len())
                }
                (Audience::Everyone, Mode::Direct | Mode::Auto) => {
                    plan.parts.extend(self.whole_inhabited(query.namespace));
                    (0, 0)
                }
                (Audience::Everyone, Mode::Broadcast) => {
                    plan.parts.extend(self.whole_live());
                    (0, 0)
                }
            };
            plan.routed.push(RoutedSpan {
                parts: before.0..plan.parts.len(),
                offline: before.1..plan.offline.len(),
                filtered: before.2..plan.filtered.len(),
                reached,
                unresolved,
            });
        }
    }

    /// Looks up what `distinct_without` left and appends each gateway's part; how many UIDs were
    /// reached.
    fn narrow(&self, query: &Query<'_>, plan: &mut Plan) -> usize {
        let Plan { targets, offline, parts, scratch: Scratch { distinct, hits, .. }, .. } = plan;
        let offline_before = offline.len();
        hits.clear();
        for &(uid, place) in distinct.iter() {
            let hits_before = hits.len();
            let live = self.live_holders(query.namespace, Uid(uid));
            hits.extend(live.map(|index| (index, place, uid)));
            if hits.len() == hits_before {
                offline.push(uid);
            }
        }
        hits.sort_unstable();
        for group in hits.chunk_by(|a, b| a.0 == b.0) {
            let start = targets.len();
            targets.extend(group.iter().map(|&(_, _, uid)| uid));
            parts.push(self.narrowed(group[0].0, start..targets.len()));
        }
        distinct.len() - (offline.len() - offline_before)
    }
}

/// Leaves the distinct UIDs of `uids` that are not in `except` in the scratch, in list order; those
/// that are in it go to the plan's filtered ones.
fn distinct_without(uids: UidRun<'_>, except: UidRun<'_>, plan: &mut Plan) {
    let Plan { filtered, scratch: Scratch { distinct, except: excepted, .. }, .. } = plan;
    excepted.clear();
    excepted.extend(except.iter());
    excepted.sort_unstable();

    distinct.clear();
    distinct.extend(uids.iter().enumerate().map(|(place, uid)| (uid, place)));
    distinct.sort_unstable();
    distinct.dedup_by_key(|entry| entry.0);
    distinct.sort_unstable_by_key(|entry| entry.1);
    distinct.retain(|(uid, _)| {
        let out = excepted.binary_search(uid).is_ok();
        if out {
            filtered.push(*uid);
        }
        !out
    });
}
