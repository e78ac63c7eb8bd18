//! What gateways declare, into the index: limits, and what becomes of tags beyond them.

use std::sync::atomic::Ordering;

use super::{Added, TagIndex};
use crate::slots::Holds;
use crate::table::Table;
use crate::{Limits, Op, Slot, SlotError, SlotState, TagChange, TagLimit, TagsApplied};

/// One slot's tags while some of them change. Nobody else changes them meanwhile.
struct Declaring<'a> {
    index: &'a TagIndex,
    limits: Limits,
    holds: &'a Holds,
    slot: u16,
    applied: TagsApplied,
}

impl Table {
    pub(crate) fn apply_tags(
        &self,
        slot: Slot,
        changes: &[TagChange<'_>],
    ) -> Result<TagsApplied, SlotError> {
        let holds = self.slots().holds(slot)?;
        let _one_at_a_time = holds.writing.lock().expect("no invariant broke in an earlier call");
        if self.slots().state(slot) == SlotState::Dead {
            return Err(SlotError::Dead);
        }
        let mut declaring = Declaring {
            index: self.tags(),
            limits: self.limits(),
            holds: &holds,
            slot: u16::try_from(slot.number()).expect("as many slots as a route can name"),
            applied: TagsApplied::default(),
        };
        let before = holds.unkept.load(Ordering::Relaxed) > 0;
        for change in changes {
            match change.op {
                Op::Add => declaring.add(change),
                Op::Remove => declaring.remove(change),
            }
        }
        let mut applied = declaring.applied;
        if before {
            applied.unkept = None;
        }
        let after = holds.unkept.load(Ordering::Relaxed) > 0;
        if before != after {
            // One that died meanwhile answers nothing anyhow.
            let _died = self.slots().count_every_tag(slot, after);
        }
        Ok(applied)
    }
}

impl Declaring<'_> {
    fn add(&mut self, change: &TagChange<'_>) {
        let limit = if self.holds.tags.load(Ordering::Relaxed) < self.limits.gateway_tags {
            match self.index.add(change.namespace, change.tag, self.slot) {
                Added::New => {
                    self.holds.tags.fetch_add(1, Ordering::AcqRel);
                    self.applied.added += 1;
                    return;
                }
                Added::Already => {
                    self.applied.contradicting += 1;
                    return;
                }
                Added::NoRoom => TagLimit::Broker,
            }
        } else if self.index.has(change.namespace, change.tag, self.slot) {
            self.applied.contradicting += 1;
            return;
        } else {
            TagLimit::Gateway
        };
        self.holds.unkept.fetch_add(1, Ordering::AcqRel);
        self.applied.added += 1;
        self.applied.unkept = self.applied.unkept.or(Some(limit));
    }

    fn remove(&mut self, change: &TagChange<'_>) {
        if self.index.remove(change.namespace, change.tag, self.slot) {
            self.holds.tags.fetch_sub(1, Ordering::AcqRel);
            self.applied.removed += 1;
        } else if self.holds.unkept.load(Ordering::Relaxed) > 0 {
            self.holds.unkept.fetch_sub(1, Ordering::AcqRel);
            self.applied.removed += 1;
        } else {
            self.applied.contradicting += 1;
        }
    }
}
