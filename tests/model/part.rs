//! A part of the world's state: shared until it changes, its hash taken once.
//!
//! States differ from their predecessors in one or two parts, so copying one costs a few counters
//! and hashing one a few words, however large the parts are.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A value with its hash.
#[derive(Debug)]
pub(crate) struct Part<T>(Arc<(u64, T)>);

impl<T: Hash> Part<T> {
    pub(crate) fn new(value: T) -> Self {
        // Fixed keys: the same in every run.
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(Arc::new((hasher.finish(), value)))
    }
}

impl<T: Hash + Clone> Part<T> {
    /// Changes a copy and takes its place.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.0.1.clone();
        let answer = change(&mut value);
        *self = Self::new(value);
        answer
    }
}

impl<T> Part<T> {
    pub(crate) fn fingerprint(&self) -> u64 {
        self.0.0
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.0);
    }
}

impl<T: PartialEq> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.0 == other.0.0 && self.0.1 == other.0.1
    }
}
