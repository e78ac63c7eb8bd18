//! The broker's ledger: what came in and what became of it, counted by cause.
//!
//! One set of counters per shard, written by its thread alone and read by anyone. Promise 5:
//! `queued = written + expired + lost + in_doubt + still waiting`, in frames.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one shard.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        /// What the counters of all shards sum to.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Ledger {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds these counters to a sum.
            pub fn add_to(&self, ledger: &mut Ledger) {
                $(ledger.$name += self.$name.load(Ordering::Relaxed);)*
            }
        }
    };
}

counters! {
    /// Links accepted.
    links_accepted,
    /// Links refused because there were too many.
    links_refused,
    /// Links ended with an error of the peer (codes 101-299).
    links_faulted,
    /// HELLOs refused.
    hellos_refused,
    /// PUBLISH frames received.
    publishes,
    /// PUBLISH frames refused as a whole.
    publishes_refused,
    /// Distinct targets that no gateway had registered.
    targets_offline,
    /// Frames put into outboxes, for gateways and consumers.
    queued,
    /// Frames handed to the kernel.
    written,
    /// Frames whose time to live ran out in the outbox.
    expired,
    /// Frames that found no room in the outbox they were for; never queued.
    dropped_outbox_full,
    /// Frames for a gateway whose link had just gone; never queued.
    dropped_no_link,
    /// Frames still waiting when their link ended.
    lost,
    /// Frames in a write when their link ended.
    in_doubt,
    /// Registration records applied.
    registrations,
    /// UPLINK frames received.
    uplinks,
    /// Uplinks answered with a code other than 0.
    uplinks_refused,
}

/// Counts on a counter that only this thread writes.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}
