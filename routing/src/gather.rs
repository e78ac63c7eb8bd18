//! One answer out of several: a long list is asked for in pieces, with time between them, and every
//! gateway still gets one part.
//!
//! Each UID is in one piece, and so is looked up once; a gateway that has gone between two pieces,
//! or has come, is in the answer with what the pieces found there.

use std::collections::BTreeMap;

use crate::plan::{PartSpan, RoutedSpan};
use crate::{Mode, Part, Plan, Routed, Slot};

/// Answers to pieces of one list, by mode `direct`, put together.
#[derive(Debug, Default)]
pub struct Gathering {
    shares: BTreeMap<Slot, Vec<u64>>,
    offline: Vec<u64>,
    filtered: Vec<u64>,
    reached: usize,
    hits: usize,
}

impl Gathering {
    /// No piece has been answered. Of the list these were taken out before anyone was looked up.
    #[must_use]
    pub fn new(filtered: Vec<u64>) -> Self {
        Self { filtered, ..Self::default() }
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
        plan.routed.push(RoutedSpan {
            parts: 0..plan.parts.len(),
            offline: 0..plan.offline.len(),
            filtered: 0..plan.filtered.len(),
            reached: self.reached,
            unresolved: 0,
            mode: Mode::Direct,
        });
    }
}
