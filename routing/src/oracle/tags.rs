//! Tags as the naive table has them: a list of who declared what.

use super::selectors::Tree;
use crate::{Limits, Namespace, Op, Slot, TagChange, TagLimit, TagsApplied};

/// What slots declared.
#[derive(Debug, Default)]
pub(super) struct Tags {
    agreed: Vec<Slot>,
    /// Kept, swept ones gone.
    kept: Vec<(Slot, Namespace, String)>,
    /// A slot for each of its tags that is not.
    unkept: Vec<Slot>,
}

impl Tags {
    pub(super) fn agree(&mut self, slot: Slot, agreed: bool) {
        self.agreed.retain(|there| *there != slot);
        self.agreed.extend(agreed.then_some(slot));
    }

    pub(super) fn agreed(&self, slot: Slot) -> bool {
        self.agreed.contains(&slot)
    }

    pub(super) fn apply(
        &mut self,
        slot: Slot,
        changes: &[TagChange<'_>],
        limits: Limits,
    ) -> TagsApplied {
        let mut applied = TagsApplied::default();
        let all_were_kept = !self.unkept.contains(&slot);
        for change in changes {
            let tag = (slot, change.namespace, change.tag.to_owned());
            let declared = self.kept.contains(&tag);
            let unkept = self.unkept.iter().position(|there| *there == slot);
            match (change.op, declared, unkept) {
                (Op::Add, true, _) | (Op::Remove, false, None) => applied.contradicting += 1,
                (Op::Add, false, _) => {
                    applied.added += 1;
                    let limit = self.limit(&tag, limits);
                    match limit {
                        None => self.kept.push(tag),
                        Some(_) => self.unkept.push(slot),
                    }
                    applied.unkept = applied.unkept.or(limit.filter(|_| all_were_kept));
                }
                (Op::Remove, true, _) => {
                    applied.removed += 1;
                    self.kept.retain(|there| *there != tag);
                }
                (Op::Remove, false, Some(at)) => {
                    applied.removed += 1;
                    self.unkept.remove(at);
                }
            }
        }
        applied
    }

    /// Why one more is not kept.
    fn limit(&self, tag: &(Slot, Namespace, String), limits: Limits) -> Option<TagLimit> {
        let same = |a: &(Slot, Namespace, String)| (a.1, &a.2) == (tag.1, &tag.2);
        if self.kept.iter().filter(|there| there.0 == tag.0).count() >= limits.gateway_tags {
            Some(TagLimit::Gateway)
        } else if !self.kept.iter().any(same) && self.different() >= limits.broker_tags {
            Some(TagLimit::Broker)
        } else {
            None
        }
    }

    /// Whether some connection of a gateway may match.
    pub(super) fn may(&self, slot: Slot, namespace: Namespace, tree: &Tree) -> bool {
        let declared = |text: &str| {
            self.unkept.contains(&slot) || self.kept.contains(&(slot, namespace, text.to_owned()))
        };
        self.agreed(slot) && tree.may(&declared)
    }

    /// Tags of these slots were removed: all of them or none, as there is room for few.
    pub(super) fn swept(&mut self, walked: &[Slot], removed: usize) {
        if removed > 0 {
            assert_eq!(removed, self.declared(|slot| walked.contains(&slot)));
            self.kept.retain(|there| !walked.contains(&there.0));
        }
    }

    /// Whether one of these slots has a tag.
    pub(super) fn any(&self, slots: &[Slot]) -> bool {
        self.declared(|slot| slots.contains(&slot)) > 0
    }

    pub(super) fn declared(&self, of: impl Fn(Slot) -> bool) -> usize {
        self.kept.iter().filter(|there| of(there.0)).count()
    }

    pub(super) fn unkept(&self, of: impl Fn(Slot) -> bool) -> usize {
        self.unkept.iter().filter(|slot| of(**slot)).count()
    }

    pub(super) fn different(&self) -> usize {
        let mut different: Vec<_> = self.kept.iter().map(|there| (there.1, &there.2)).collect();
        different.sort_unstable();
        different.dedup();
        different.len()
    }
}
