//! The namespaces of a table: found without waiting, made for the first user and freed after the
//! last, so that who names ever new ones takes no memory.
//!
//! In parts by their lowest bits; a part is replaced as a whole when a namespace comes or goes.
//! Readers keep the part they found. Who changes routes holds the namespace meanwhile: one that
//! nobody holds and nobody is in goes, and whoever found it a moment before looks again.

use std::collections::BTreeMap;
use std::ops::{Bound, Deref};
use std::sync::Arc;

use crate::space::Space;
use crate::sync::{ArcSwapOption, Guard, Mutex, MutexGuard, own_value, size};
use crate::{Namespace, SlotError};

/// What is copied when a namespace comes or goes is one part in so many.
const PARTS: usize = size(64, 2, 1);

type Part = BTreeMap<Namespace, Arc<Space>>;

/// All namespaces.
#[derive(Debug)]
pub(crate) struct Spaces {
    key: u64,
    max: usize,
    parts: [ArcSwapOption<Part>; PARTS],
    /// How many there are; held while one comes or goes.
    number: Mutex<usize>,
}

/// A namespace that stays as long as this is kept: to change its routes.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    spaces: &'a Spaces,
    namespace: Namespace,
    space: Arc<Space>,
}

/// What a reader found at a namespace's place.
pub(crate) struct Around(Guard<Option<Arc<Part>>>);

impl Around {
    #[inline]
    pub(crate) fn get(&self, namespace: Namespace) -> Option<&Space> {
        self.0.as_ref()?.get(&namespace).map(AsRef::as_ref)
    }
}

impl Deref for Held<'_> {
    type Target = Space;

    fn deref(&self) -> &Space {
        &self.space
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.space.let_go();
        if self.space.routes() == 0 {
            self.spaces.free(self.namespace);
        }
    }
}

impl Spaces {
    /// None, and `max` at most. `key` is the table's.
    pub(crate) fn new(key: u64, max: usize) -> Self {
        let parts = std::array::from_fn(|_| ArcSwapOption::empty());
        Self { key, max, parts, number: Mutex::new(0) }
    }

    /// What there is where a namespace has its place.
    #[inline]
    pub(crate) fn around(&self, namespace: Namespace) -> Around {
        Around(self.parts[part(namespace)].load())
    }

    /// A namespace, made if need be.
    pub(crate) fn hold(&self, namespace: Namespace) -> Result<Held<'_>, SlotError> {
        loop {
            if let Some(held) = self.hold_there(namespace) {
                return Ok(held);
            }
            let mut number = self.lock();
            let mut part = self.part(namespace);
            if part.contains_key(&namespace) {
                continue;
            }
            if *number >= self.max {
                return Err(SlotError::NamespacesFull { limit: self.max });
            }
            let key = self.key ^ u64::from(namespace.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            part.insert(namespace, Arc::new(Space::new(key)));
            self.replace(namespace, part);
            *number += 1;
        }
    }

    /// A namespace, if it is there.
    pub(crate) fn hold_there(&self, namespace: Namespace) -> Option<Held<'_>> {
        loop {
            let around = self.around(namespace);
            let space = around.0.as_ref()?.get(&namespace)?;
            if space.hold() {
                return Some(Held { spaces: self, namespace, space: Arc::clone(space) });
            }
            // Somebody is about to take it out, or finds that it may not: until then it is locked.
            drop(self.lock());
        }
    }

    /// Takes a namespace out if nobody is in it and nobody holds it.
    fn free(&self, namespace: Namespace) {
        let mut number = self.lock();
        let mut part = self.part(namespace);
        if part.get(&namespace).is_some_and(|space| space.end()) {
            part.remove(&namespace);
            self.replace(namespace, part);
            *number -= 1;
        }
    }

    /// The namespace behind one, or the first: in an order of their own.
    pub(crate) fn behind(&self, namespace: Option<Namespace>) -> Option<Namespace> {
        let first = namespace.map_or(0, part);
        (first..PARTS).find_map(|at| {
            let after = namespace.filter(|_| at == first);
            let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
            let part = self.parts[at].load();
            part.as_ref()?.range((bound, Bound::Unbounded)).next().map(|(namespace, _)| *namespace)
        })
    }

    /// Every namespace.
    pub(crate) fn all(&self) -> Vec<(Namespace, Arc<Space>)> {
        let parts = self.parts.iter().filter_map(ArcSwapOption::load_full);
        let of = |part: Arc<Part>| {
            let spaces = part.iter().map(|(namespace, space)| (*namespace, Arc::clone(space)));
            spaces.collect::<Vec<_>>()
        };
        parts.flat_map(of).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        *self.lock()
    }

    /// The same again, while nobody changes anything.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new(self.key, self.max);
        for (to, from) in copy.parts.iter().zip(&self.parts) {
            let part = from.load_full().map(|part| {
                let copied = |(namespace, space): (&Namespace, &Arc<Space>)| {
                    (*namespace, Arc::new(space.copy()))
                };
                Arc::new(part.iter().map(copied).collect())
            });
            to.store(part);
        }
        *copy.lock() = self.len();
        copy
    }

    fn part(&self, namespace: Namespace) -> Part {
        own_value(&self.parts[part(namespace)]).as_deref().cloned().unwrap_or_default()
    }

    /// For who holds `number`.
    fn replace(&self, namespace: Namespace, new: Part) {
        self.parts[part(namespace)].store((!new.is_empty()).then(|| Arc::new(new)));
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.number.lock().expect("no invariant broke in an earlier call")
    }
}

#[inline]
fn part(namespace: Namespace) -> usize {
    namespace.0 as usize % PARTS
}
