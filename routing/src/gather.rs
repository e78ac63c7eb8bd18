//! One answer out of several: a long list is asked for in pieces, with time between them, and every
//! gateway still gets one part.
//!
//! Each UID is in one piece, and so is looked up once. A gateway that has gone between two pieces,
//! or has come, is in the answer with what the pieces found there; where one went, the list is
//! better asked for anew, since another may be there in its place.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{PartSpan, RoutedSpan};
use crate::{Mode, Part, Plan, Routed, Slot};

/// Answers to pieces of one list, by mode `direct`, put together.
#[derive(Debug, Default)]
pub struct Gathering {
    shares: BTreeMap<Slot, Vec<u64>>,
    offline: Vec<u64>,
    filtered: Vec<u64>,
    filtered_in_part: Vec<u64>,
    /// Of the filtered ones, those that were taken out before.
    excepted: usize,
    reached: usize,
    hits: usize,
}

impl Gathering {
    /// No piece has been answered. Of the list these were taken out before anyone was looked up.
    #[must_use]
    pub fn new(filtered: Vec<u64>) -> Self {
        Self { excepted: filtered.len(), filtered, ..Self::default() }
    }

    /// Forgets the answers, so that the list can be asked for from its beginning.
    pub fn begin_anew(&mut self) {
        let mut filtered = std::mem::take(&mut self.filtered);
        filtered.truncate(self.excepted);
        *self = Self::new(filtered);
    }

    /// UIDs that all parts have in all.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.hits
    }

    /// The gateways that were found, in order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.shares.keys().copied()
    }

    /// The answer to the next piece; how many UIDs its parts have in all.
    ///
    /// # Panics
    ///
    /// If a part is whole: nobody was looked up then.
    pub fn add(&mut self, routed: Routed<'_>) -> usize {
        let before = self.hits;
        for (slot, part) in routed.parts() {
            let Part::Uids(uids) = part else { panic!("a piece of a list is looked up") };
            self.shares.entry(slot).or_default().extend_from_slice(uids);
            self.hits += uids.len();
        }
        self.offline.extend_from_slice(routed.offline());
        self.filtered.extend_from_slice(routed.filtered());
        self.filtered_in_part.extend_from_slice(routed.filtered_in_part());
        self.reached += routed.reached();
        self.hits - before
    }

    /// Overwrites `plan` with the answer to the whole list, as if it had been asked for at once.
    pub fn into_plan(self, plan: &mut Plan) {
        plan.clear();
        plan.targets.reserve(self.hits);
        for (slot, uids) in self.shares {
            let start = plan.targets.len();
            plan.targets.extend_from_slice(&uids);
            plan.parts.push(PartSpan { slot, uids: Some(start..plan.targets.len()) });
        }
        plan.offline.extend_from_slice(&self.offline);
        plan.filtered.extend_from_slice(&self.filtered);
        plan.filtered_in_part.extend_from_slice(&self.filtered_in_part);
        plan.routed.push(RoutedSpan {
            parts: 0..plan.parts.len(),
            offline: 0..plan.offline.len(),
            filtered: 0..plan.filtered.len(),
            filtered_in_part: 0..plan.filtered_in_part.len(),
            reached: self.reached,
            unresolved: 0,
            mode: Mode::Direct,
        });
    }
}

impl Plan {
    /// Appends to the only answer here the parts of the only one of `other` that are for gateways
    /// this one has no part for; how many they are. What is said of UIDs stays.
    ///
    /// # Panics
    ///
    /// If either does not have exactly one answer.
    pub fn join(&mut self, other: &Self) -> usize {
        assert!(self.len() == 1 && other.len() == 1, "each answers one query");
        let known: BTreeSet<Slot> = self.parts.iter().map(|part| part.slot).collect();
        for (slot, part) in other.routed(0).parts().filter(|(slot, _)| !known.contains(slot)) {
            let start = self.targets.len();
            let uids = match part {
                Part::Uids(uids) => {
                    self.targets.extend_from_slice(uids);
                    Some(start..self.targets.len())
                }
                Part::Whole => None,
            };
            self.parts.push(PartSpan { slot, uids });
        }
        self.routed[0].parts.end = self.parts.len();
        self.parts.len() - known.len()
    }
}
