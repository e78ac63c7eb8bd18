//! Taking away what dead slots left: bucket by bucket over the whole table, for all that were dead
//! when the walk began.
//!
//! Nothing tells where a slot's routes lie: a list of them would cost more than the routes. What
//! moves while the walk is under way moves into segments that the walk has not come to.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Namespace;
use crate::slots::Holds;
use crate::space::Space;

/// A walk.
#[derive(Debug)]
pub(crate) struct Walk {
    /// For whom.
    dead: Vec<(u16, Arc<Holds>)>,
    /// The namespace that is walked, its segment and bucket.
    at: Option<(Namespace, u32, usize)>,
}

impl Walk {
    /// For these slots, of which nobody changes anything any more.
    pub(crate) fn new(dead: Vec<(u16, Arc<Holds>)>) -> Self {
        Self { dead, at: None }
    }

    /// The slots it is for.
    pub(crate) fn indices(&self) -> Vec<u16> {
        self.dead.iter().map(|(index, _)| *index).collect()
    }

    /// Whether nothing is left of them.
    pub(crate) fn is_done(&self) -> bool {
        self.dead.iter().all(|(_, holds)| holds.routes.load(Ordering::Acquire) == 0)
    }

    /// Looks at `budget` buckets at most; how many routes went.
    pub(crate) fn step(
        &mut self,
        spaces: &BTreeMap<Namespace, Arc<Space>>,
        mut budget: usize,
    ) -> usize {
        let mut removed = 0;
        while budget > 0 && !self.is_done() {
            let Some((namespace, segment, bucket)) = self.at.or_else(|| self.after(None, spaces))
            else {
                break;
            };
            let space = &spaces[&namespace];
            let here: Vec<u16> = self.indices();
            let is_dead = |slot: u16| here.contains(&slot);
            let swept =
                space.map.sweep(segment, bucket..bucket.saturating_add(budget), is_dead, |slot| {
                    let (_, holds) = self
                        .dead
                        .iter()
                        .find(|(index, _)| *index == slot)
                        .expect("only routes of these are told");
                    holds.routes.fetch_sub(1, Ordering::AcqRel);
                    space.counted(slot, 0, 1);
                    removed += 1;
                });
            budget = budget.saturating_sub(swept.looked_at.max(1));
            self.at = match swept.next {
                Some((segment, bucket)) => Some((namespace, segment, bucket)),
                None => self.after(Some(namespace), spaces),
            };
        }
        removed
    }

    /// The first namespace behind this one in which one of the dead has a route.
    fn after(
        &self,
        namespace: Option<Namespace>,
        spaces: &BTreeMap<Namespace, Arc<Space>>,
    ) -> Option<(Namespace, u32, usize)> {
        let from = namespace.map_or(Bound::Unbounded, Bound::Excluded);
        let has = |space: &Space| self.dead.iter().any(|(index, _)| space.count(*index) > 0);
        let mut behind = spaces.range((from, Bound::Unbounded));
        behind.find(|(_, space)| has(space)).map(|(namespace, _)| (*namespace, 0, 0))
    }
}
