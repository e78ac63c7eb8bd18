//! Changes of users' tags as the application sees them, and the rules they are held to before
//! anything is queued.
//!
//! A UID list may be of any length here; the producer's machine cuts it into parts of `targets_max`
//! and sums their receipts.

use std::collections::HashSet;

use waybill_wire::code::Op;
use waybill_wire::frame;
use waybill_wire::limits::{TAG_CHANGES_MAX, TARGETS_MAX};
use waybill_wire::selector::is_tag;

use crate::error::InvalidTags;

/// A tag that users get or lose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TagChange {
    /// Add or remove.
    pub op: Op,
    /// The tag: 1 to `tag_bytes_max` bytes of text without control characters.
    pub tag: String,
}

impl TagChange {
    /// Users get this tag, if they do not have it.
    #[must_use]
    pub fn add(tag: impl Into<String>) -> Self {
        Self { op: Op::ADD, tag: tag.into() }
    }

    /// Users lose this tag, if they have it.
    #[must_use]
    pub fn remove(tag: impl Into<String>) -> Self {
        Self { op: Op::REMOVE, tag: tag.into() }
    }

    /// As the codec takes it.
    pub(crate) fn wire(&self) -> frame::TagChange<'_> {
        frame::TagChange { op: self.op, tag: &self.tag }
    }
}

/// Changes, and whose tags they are made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tagging {
    pub(crate) namespace: u32,
    pub(crate) uids: Vec<u64>,
    pub(crate) changes: Vec<TagChange>,
}

impl Tagging {
    /// Whether the protocol allows it.
    pub(crate) fn check(&self) -> Result<(), InvalidTags> {
        if self.uids.is_empty() {
            return Err(InvalidTags::EmptyAudience);
        }
        if self.changes.is_empty() {
            return Err(InvalidTags::NoChanges);
        }
        if self.changes.len() > TAG_CHANGES_MAX {
            let count = self.changes.len();
            return Err(InvalidTags::Changes { count, max: TAG_CHANGES_MAX });
        }
        if let Some(index) = self.changes.iter().position(|change| !is_tag(&change.tag)) {
            return Err(InvalidTags::Tag { index });
        }
        match self.changes.iter().position(|change| !change.op.is_registered()) {
            Some(index) => Err(InvalidTags::Op { index, op: self.changes[index].op.0 }),
            None => Ok(()),
        }
    }

    /// Takes repeated UIDs out of a list that will be cut into parts; of one part the broker does.
    pub(crate) fn name_each_once(&mut self) {
        if self.uids.len() > TARGETS_MAX {
            let mut seen = HashSet::with_capacity(self.uids.len());
            self.uids.retain(|uid| seen.insert(*uid));
        }
    }

    /// Bytes it is counted with until it is settled.
    pub(crate) fn pending_bytes(&self) -> usize {
        let changes: usize =
            self.changes.iter().map(|change| size_of::<TagChange>() + change.tag.len()).sum();
        size_of::<Self>() + 8 * self.uids.len() + changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uids: &[u64], changes: Vec<TagChange>) -> String {
        let tagging = Tagging { namespace: 0, uids: uids.to_vec(), changes };
        tagging.check().err().map_or("fine".into(), |error| error.to_string())
    }

    #[test]
    fn an_error_names_the_limit() {
        let vip = || vec![TagChange::add("vip")];
        assert_eq!(check(&[1], vip()), "fine");
        assert_eq!(check(&[1], vec![TagChange::remove("\u{e4}".repeat(32))]), "fine");
        assert_eq!(check(&[], vip()), "nobody is named: name at least one UID");
        assert_eq!(check(&[1], vec![]), "no change: give at least one tag to add or to remove");
        let many = vec![TagChange::add("a"); 65];
        assert_eq!(check(&[1], many), "65 changes, tag_changes_max is 64");
        for wrong in ["", "a\tb", "\u{7f}", &"a".repeat(65)] {
            let changes = [vip(), vec![TagChange::remove(wrong)]].concat();
            let words = "tag 1 has to be 1 to 64 bytes of text without control characters";
            assert_eq!(check(&[1], changes), words);
        }
        let odd = TagChange { op: Op(3), ..TagChange::add("a") };
        assert_eq!(check(&[1], vec![odd]), "change 0 is neither add nor remove but 3");
    }
}
