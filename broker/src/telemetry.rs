//! How the broker counts: one set of counters per shard, written by its thread alone, read by all.
//!
//! [`crate::ledger`] says what is counted and what must balance. Some counters are gauges, which go
//! down as well; a gauge may go up on one shard and down on another, so only the sum over all
//! shards means something.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a struct of counters and the struct their sums go to; `each` names sets of them inside.
macro_rules! counters {
    (
        $(#[$outer:meta])* $counters:ident => $sums:ident {
            $($(#[$doc:meta])* $name:ident,)*
        } $(each {
            $($(#[$set_doc:meta])* $set:ident: $set_counters:ident => $set_sums:ident,)+
        })?
    ) => {
        $(#[$outer])*
        #[derive(Debug, Default)]
        pub struct $counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
            $($($(#[$set_doc])* pub(crate) $set: $set_counters,)+)?
        }

        $(#[$outer])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct $sums {
            $($(#[$doc])* pub $name: u64,)*
            $($($(#[$set_doc])* pub $set: $set_sums,)+)?
        }

        impl $counters {
            /// Adds these counters to a sum.
            pub fn add_to(&self, sums: &mut $sums) {
                $(sums.$name = sums.$name.wrapping_add(self.$name.load(Ordering::Relaxed));)*
                $($(self.$set.add_to(&mut sums.$set);)+)?
            }
        }
    };
}
pub(crate) use counters;

/// Counts on a counter that only this thread writes.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Lowers a gauge that only this thread writes.
pub(crate) fn uncount(gauge: &AtomicU64, by: u64) {
    gauge.store(gauge.load(Ordering::Relaxed).wrapping_sub(by), Ordering::Relaxed);
}
