//! One namespace of a table: who is where, and which slots have anybody here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::map::Map;
use crate::sync::{ArcSwap, Guard, Mutex};

/// A namespace.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) map: Map,
    /// How many routes each slot has here.
    counts: Mutex<BTreeMap<u16, usize>>,
    /// Its keys.
    inhabited: ArcSwap<Vec<u16>>,
}

impl Space {
    pub(crate) fn new(key: u64) -> Self {
        Self { map: Map::new(key), counts: Mutex::default(), inhabited: ArcSwap::default() }
    }

    /// Slots with a route here, in rising order.
    pub(crate) fn inhabited(&self) -> Guard<Arc<Vec<u16>>> {
        self.inhabited.load()
    }

    /// How many routes a slot has here.
    pub(crate) fn count(&self, slot: u16) -> usize {
        let counts = self.counts.lock().expect("no invariant broke in an earlier call");
        counts.get(&slot).copied().unwrap_or(0)
    }

    /// The same again, while nobody changes anything.
    pub(crate) fn copy(&self) -> Self {
        let counts = self.counts.lock().expect("no invariant broke in an earlier call").clone();
        let inhabited = ArcSwap::new(self.inhabited.load_full());
        Self { map: self.map.copy(), counts: Mutex::new(counts), inhabited }
    }

    /// A slot has more routes here, and fewer.
    pub(crate) fn counted(&self, slot: u16, more: usize, fewer: usize) {
        let mut counts = self.counts.lock().expect("no invariant broke in an earlier call");
        let count = counts.entry(slot).or_default();
        let before = *count;
        *count = *count + more - fewer;
        let after = *count;
        if after == 0 {
            counts.remove(&slot);
        }
        if (before == 0) != (after == 0) {
            self.inhabited.store(Arc::new(counts.keys().copied().collect()));
        }
    }
}
