//! How many queues are over their bound without their connections' having looked, and waiting until
//! none is.
//!
//! It is what bounds those queues: while there is one, whoever hands messages out hands out no
//! more. It waits for tasks of this process to be polled, never for a socket (promise 6).

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Pressure {
    queues: AtomicUsize,
    eased: Notify,
}

impl Pressure {
    pub(crate) fn is_on(&self) -> bool {
        self.queues.load(Ordering::Acquire) > 0
    }

    /// Waits until it is off.
    pub(crate) async fn eased(&self) {
        loop {
            let eased = self.eased.notified();
            tokio::pin!(eased);
            // Listening before looking: the last queue may ease in between.
            eased.as_mut().enable();
            if !self.is_on() {
                return;
            }
            eased.await;
        }
    }

    pub(super) fn add(&self) {
        self.queues.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn ease(&self) {
        let before = self.queues.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "only what was added is eased");
        if before == 1 {
            self.eased.notify_waiters();
        }
    }
}
