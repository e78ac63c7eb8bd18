//! What is left to be done and nobody waits for: routes of dead slots are swept, what these had
//! declared is freed, logins that have left are forgotten.
//!
//! It is done in portions between turns, one at a time every `CHORES_MS` while turns come that
//! often, and on a tick whatever is due by then. So the rate is the same whether messages flow or
//! not, and no message waits for more than one portion.

use std::time::Duration;

use super::{Core, Links};
use crate::limits::{BURIAL_STEPS, CHORES_MS, CHORES_PER_TICK, LOGIN_STEPS, SWEEP_STEPS, TICK_MS};

/// When the next portion is due.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Something was left to be done when it was looked for.
    is_open: bool,
    is_due: bool,
    /// The last portion was for the time up to this.
    done: Duration,
}

impl Chores {
    pub(super) fn are_due(&self) -> bool {
        self.is_due
    }

    /// A turn ends.
    pub(super) fn look(&mut self, now: Duration) {
        self.is_due = self.is_open && self.portions(now) > 0;
    }

    /// Portions that are due; what was not done in a tick's time is not made up for.
    fn portions(&self, now: Duration) -> usize {
        let since = now.saturating_sub(self.done).as_millis() / u128::from(CHORES_MS);
        usize::try_from(since).map_or(CHORES_PER_TICK, |due| due.min(CHORES_PER_TICK))
    }
}

impl Core {
    /// Does one portion.
    pub(super) fn do_chores(&mut self, links: &mut Links) {
        let ahead = Duration::from_millis(CHORES_MS);
        let earliest = self.now.saturating_sub(Duration::from_millis(TICK_MS));
        self.chores.done = (self.chores.done + ahead).max(earliest);
        self.portions(links, 1);
    }

    /// Does what is due by this tick, and finds out whether there is anything.
    pub(super) fn catch_up_on_chores(&mut self, links: &mut Links) {
        let due = if self.chores.is_open { self.chores.portions(self.now) } else { 1 };
        self.chores.done = self.now;
        self.portions(links, due);
    }

    fn portions(&mut self, links: &mut Links, portions: usize) {
        self.bury_some(links, portions * BURIAL_STEPS / CHORES_PER_TICK);
        let swept = self.shared.routes.sweep(portions * SWEEP_STEPS / CHORES_PER_TICK);
        self.shared.sweep_logins(portions * LOGIN_STEPS / CHORES_PER_TICK);
        sort_what_was_freed();
        self.chores.is_open = swept.slots_left > 0 || !self.burials.is_empty();
        self.chores.is_due = false;
    }
}

/// An allocator may put off its work on what was freed until it is asked for a larger piece, and
/// do it all in one go then, for 5 to 15 ms after a million registrations (glibc). So it is asked
/// with each portion, and no later turn pays for many.
fn sort_what_was_freed() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(ASKED_BYTES)));
}

/// More than an allocator keeps ready for one thread.
const ASKED_BYTES: usize = 4 << 10;
