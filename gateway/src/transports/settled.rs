//! Where connections say what became of messages that a report waits for, for the switchboard to
//! collect.
//!
//! Bounded by the queues: each entry is for a message that was in one, and only the switchboard,
//! which collects, queues messages.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::reports::{Outcome, Ticket};

#[derive(Debug, Default)]
pub(crate) struct Settled {
    entries: Mutex<Vec<(Ticket, Outcome)>>,
    // When traced ones were handed to a socket; each before its entry above.
    times: Mutex<Vec<(Ticket, u64)>>,
    filled: Notify,
}

impl Settled {
    /// Says what became of one; nothing is waited for if the ticket is none.
    #[inline]
    pub(crate) fn add(&self, ticket: Ticket, outcome: Outcome) {
        if ticket.is_some() {
            self.put(ticket, outcome);
        }
    }

    fn put(&self, ticket: Ticket, outcome: Outcome) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push((ticket, outcome));
        self.filled.notify_one();
    }

    /// Says when a traced one was handed to a socket, before saying so itself.
    pub(crate) fn add_time(&self, ticket: Ticket, time_us: u64) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push((ticket, time_us));
    }

    /// The times of all that was [taken](Self::take) before, at least.
    pub(crate) fn take_times(&self) -> Vec<(Ticket, u64)> {
        std::mem::take(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it holds no memory at all.
    #[cfg(test)]
    pub(crate) fn is_untouched(&self) -> bool {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).capacity() == 0
    }

    pub(crate) fn take(&self) -> Vec<(Ticket, Outcome)> {
        std::mem::take(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there may be something to take.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }
}
