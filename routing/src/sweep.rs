//! Taking away what dead slots left: bucket by bucket over the whole table, for all that were dead
//! when the walk began.
//!
//! Nothing tells where a slot's routes lie: a list of them would cost more than the routes. What
//! moves while the walk is under way moves into segments that the walk has not come to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Namespace;
use crate::slots::{Holds, Slots};
use crate::space::Space;
use crate::spaces::Spaces;
use crate::tags::{Cursor, TagIndex};

/// The namespace that is walked, its segment and bucket.
pub(crate) type Place = (Namespace, u32, usize);

/// A walk.
#[derive(Debug)]
pub(crate) struct Walk {
    /// For whom.
    dead: Vec<(u16, Arc<Holds>)>,
    /// A bit for each of them.
    marks: Vec<u64>,
    /// How many routes of each, by index, the running step took out of a namespace.
    taken: Vec<usize>,
    at: Option<Place>,
    /// Where the walk over tags is, which begins when no routes are left; `None` at its end.
    tags: Option<Cursor>,
}

/// Where a walk is: among routes, and among tags.
pub(crate) type At = (Option<Place>, Option<Cursor>);

/// What a step of a walk did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stepped {
    /// Routes taken away.
    pub(crate) removed: usize,
    /// Tags taken away, each as often as it had dead slots.
    pub(crate) tags_removed: usize,
    /// What is left of the budget; nothing, unless the walk is done.
    pub(crate) budget: usize,
}

impl Walk {
    /// For these slots, of which nobody changes anything any more.
    pub(crate) fn new(dead: Vec<(u16, Arc<Holds>)>) -> Self {
        let indices = dead.iter().map(|(index, _)| usize::from(*index) + 1).max().unwrap_or(0);
        let mut marks = vec![0; indices.div_ceil(64)];
        for (index, _) in &dead {
            marks[usize::from(*index) / 64] |= 1 << (index % 64);
        }
        Self { dead, marks, taken: vec![0; indices], at: None, tags: Some(Cursor::default()) }
    }

    /// The slots it is for.
    pub(crate) fn indices(&self) -> Vec<u16> {
        self.dead.iter().map(|(index, _)| *index).collect()
    }

    /// Where it is.
    pub(crate) fn at(&self) -> At {
        (self.at, self.tags)
    }

    /// The same walk over a copy of the table.
    pub(crate) fn copy(&self, slots: &Slots) -> Self {
        let dead = slots.dead().into_iter();
        let same = dead.filter(|(index, _)| self.dead.iter().any(|(here, _)| here == index));
        Self { at: self.at, tags: self.tags, ..Self::new(same.collect()) }
    }

    fn have_no_routes(&self) -> bool {
        self.dead.iter().all(|(_, holds)| holds.routes.load(Ordering::Acquire) == 0)
    }

    fn have_no_tags(&self) -> bool {
        self.dead.iter().all(|(_, holds)| holds.tags.load(Ordering::Acquire) == 0)
    }

    /// Goes on until the budget is used up or nothing is left. A bucket looked at takes one of it,
    /// and so does a namespace.
    pub(crate) fn step(&mut self, spaces: &Spaces, tags: &TagIndex, budget: usize) -> Stepped {
        let mut stepped = Stepped { budget, ..Stepped::default() };
        while stepped.budget > 0 && !self.have_no_routes() {
            match self.at {
                None => {
                    self.at = spaces.behind(None).map(|first| (first, 0, 0));
                    assert!(self.at.is_some(), "routes are left, hence a namespace");
                }
                Some((namespace, segment, bucket)) => {
                    // It may have been freed, and made again, since the step before: then nothing
                    // of the dead is in it.
                    let space = spaces.hold_there(namespace);
                    let next = space.and_then(|space| {
                        let begins = segment == 0 && bucket == 0;
                        (!begins || self.is_anybody_in(&space))
                            .then(|| self.sweep(&space, (segment, bucket), &mut stepped))?
                    });
                    let at = next.map(|(segment, bucket)| (namespace, segment, bucket));
                    self.at = at.or_else(|| self.behind(namespace, spaces, &mut stepped));
                }
            }
        }
        while stepped.budget > 0 && !self.have_no_tags() {
            self.sweep_tags(tags, &mut stepped);
        }
        stepped
    }

    /// Sweeps one namespace; where to go on in it.
    fn sweep(
        &mut self,
        space: &Space,
        (segment, bucket): (u32, usize),
        stepped: &mut Stepped,
    ) -> Option<(u32, usize)> {
        let Self { dead, marks, taken, .. } = self;
        let marked = |slot: u16| {
            marks.get(usize::from(slot) / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
        };
        let buckets = bucket..bucket.saturating_add(stepped.budget);
        let swept = space.map.sweep(segment, buckets, marked, |slot| taken[usize::from(slot)] += 1);
        stepped.budget = stepped.budget.saturating_sub(swept.looked_at.max(1));
        for (index, holds) in dead {
            let taken = std::mem::take(&mut taken[usize::from(*index)]);
            if taken > 0 {
                space.counted(*index, 0, taken);
                holds.routes.fetch_sub(taken, Ordering::AcqRel);
                stepped.removed += taken;
            }
        }
        swept.next
    }

    fn sweep_tags(&mut self, index: &TagIndex, stepped: &mut Stepped) {
        let at = self.tags.expect("tags are left, hence buckets");
        let Self { dead, marks, taken, .. } = self;
        let marked = |slot: u16| {
            marks.get(usize::from(slot) / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
        };
        let removed = |slot| taken[usize::from(slot)] += 1;
        self.tags = index.sweep(at, &mut stepped.budget, marked, removed);
        for (index, holds) in dead {
            let taken = std::mem::take(&mut taken[usize::from(*index)]);
            holds.tags.fetch_sub(taken, Ordering::AcqRel);
            stepped.tags_removed += taken;
        }
    }

    /// The namespace behind this one, which costs one of the budget.
    fn behind(
        &self,
        namespace: Namespace,
        spaces: &Spaces,
        stepped: &mut Stepped,
    ) -> Option<Place> {
        stepped.budget = stepped.budget.saturating_sub(1);
        spaces.behind(Some(namespace)).map(|namespace| (namespace, 0, 0))
    }

    fn is_anybody_in(&self, space: &Space) -> bool {
        self.dead.iter().any(|(index, _)| space.count(*index) > 0)
    }
}
