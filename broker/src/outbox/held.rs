//! The memory that an outbox takes, by the capacity of its buffers, and giving back what it keeps
//! for the next message.

use std::sync::Arc;

use super::{Outbox, Queue, Room};
use crate::limits::CONFLATION_KEYS_MAX;
use crate::pool::Pool;

/// Bytes of what is known of a key at most, as a part of a link's share of the pool: one in so many
/// keys' own bytes, 112 each with growth.
const KEY_PART: usize = 256;

/// Keys that are known in any case.
const KEYS_MIN: usize = 64;

impl Outbox {
    /// As [`Outbox::new`], where what waits is also bounded by a share of the pool.
    #[must_use]
    pub fn sharing(most: usize, pool: Arc<Pool>) -> Self {
        let mut outbox = Self::new(most);
        outbox.room = Room::sharing(most, pool);
        outbox
    }

    /// Bytes of memory that answers take.
    #[must_use]
    pub fn answers_held(&self) -> usize {
        self.control.capacity() + self.writing_answers
    }

    /// Bytes of memory that messages take, and the write that is on its way.
    #[must_use]
    pub fn held(&self) -> usize {
        let queues: usize = self.queues.iter().map(Queue::held).sum();
        let lists = self.gone.numbers.capacity() * 16 + self.traced.capacity() * 8;
        let large = self.open.bytes() + self.lent;
        queues + lists + large + self.spare.capacity() + self.writing - self.writing_answers
    }

    /// A link's share of the pool is this now. What is kept and not needed is given back if it is
    /// more, or if `is_idle`.
    pub fn heed(&mut self, share: usize, is_idle: bool) {
        let keys = (share / KEY_PART).clamp(KEYS_MIN, CONFLATION_KEYS_MAX);
        self.queues.iter_mut().for_each(|queue| queue.keys.bound(keys));
        if is_idle || self.held() > share {
            self.spare = Vec::new();
            self.queues.iter_mut().for_each(Queue::trim);
            if self.control.is_empty() {
                self.control = Vec::new();
            }
        }
    }
}
