//! The links of a shard, found by their numbers.
//!
//! By a hash: a walk through an ordered map ends at another place for each gateway, which is a
//! branch foretold wrong for each frame, 6 % of a small message. Never: going through them in any
//! order but that of their numbers, since what a broker does follows from its inputs alone.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::link::Link;
use crate::io::LinkId;

/// See the module.
#[derive(Default)]
pub(super) struct Links(HashMap<LinkId, Box<Link>, FxBuildHasher>);

impl Links {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, id: LinkId) -> Option<&Link> {
        self.0.get(&id).map(|link| &**link)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.0.get_mut(&id).map(|link| &mut **link)
    }

    pub(super) fn insert(&mut self, id: LinkId, link: Box<Link>) {
        self.0.insert(id, link);
    }

    pub(super) fn remove(&mut self, id: LinkId) -> Option<Box<Link>> {
        self.0.remove(&id)
    }

    /// The numbers of all, rising.
    pub(super) fn ids(&self) -> Vec<LinkId> {
        let mut ids: Vec<LinkId> = self.0.keys().copied().collect();
        ids.sort_unstable();
        ids
    }
}
