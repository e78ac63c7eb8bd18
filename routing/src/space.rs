//! One namespace of a table: who is where, and which slots have anybody here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::map::Map;
use crate::sync::{ArcSwap, AtomicUsize, Guard, Mutex};

/// A namespace.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) map: Map,
    /// How many routes each slot has here.
    counts: Mutex<BTreeMap<u16, usize>>,
    /// Its keys.
    inhabited: ArcSwap<Vec<u16>>,
    /// Its values together.
    routes: AtomicUsize,
    /// How many hold it, to change its routes; [`OVER`], once it is freed.
    holders: AtomicUsize,
}

const OVER: usize = usize::MAX;

impl Space {
    pub(crate) fn new(key: u64) -> Self {
        let (counts, inhabited) = (Mutex::default(), ArcSwap::default());
        let [routes, holders] = [AtomicUsize::new(0), AtomicUsize::new(0)];
        Self { map: Map::new(key), counts, inhabited, routes, holders }
    }

    /// Keeps it from being freed; whether it is not.
    pub(crate) fn hold(&self) -> bool {
        let one_more = |holders: usize| (holders != OVER).then(|| holders + 1);
        self.holders.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// Whoever held it has changed what it wanted to.
    pub(crate) fn let_go(&self) {
        self.holders.fetch_sub(1, Ordering::AcqRel);
    }

    /// It is over for good, if nobody holds it and nobody is in it; whether it is. For one caller
    /// at a time.
    pub(crate) fn end(&self) -> bool {
        let ends = self.holders.compare_exchange(0, OVER, Ordering::AcqRel, Ordering::Acquire);
        // Nobody changes its routes from here on.
        let is_over = ends.is_ok() && self.routes() == 0;
        if ends.is_ok() && !is_over {
            // Whoever found it over meanwhile looks again.
            self.holders.store(0, Ordering::Release);
        }
        is_over
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

    /// How many routes there are here.
    pub(crate) fn routes(&self) -> usize {
        self.routes.load(Ordering::Relaxed)
    }

    /// The same again, while nobody changes anything.
    pub(crate) fn copy(&self) -> Self {
        let counts = self.counts.lock().expect("no invariant broke in an earlier call").clone();
        let inhabited = ArcSwap::new(self.inhabited.load_full());
        let routes = AtomicUsize::new(self.routes());
        let holders = AtomicUsize::new(0);
        Self { map: self.map.copy(), counts: Mutex::new(counts), inhabited, routes, holders }
    }

    /// A slot has more routes here, and fewer.
    pub(crate) fn counted(&self, slot: u16, more: usize, fewer: usize) {
        let mut counts = self.counts.lock().expect("no invariant broke in an earlier call");
        let count = counts.entry(slot).or_default();
        let before = *count;
        *count = *count + more - fewer;
        self.routes.fetch_add(more, Ordering::Relaxed);
        self.routes.fetch_sub(fewer, Ordering::Relaxed);
        let after = *count;
        if after == 0 {
            counts.remove(&slot);
        }
        if (before == 0) != (after == 0) {
            self.inhabited.store(Arc::new(counts.keys().copied().collect()));
        }
    }
}
