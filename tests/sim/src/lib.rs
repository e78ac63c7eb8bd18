//! A whole cluster in one thread: real broker brains, gateways and clients, a network and a clock
//! of its own, every choice from one seed, and an oracle that judges what clients saw.
//!
//! [`run`] plays one seed; the same seed plays the same run. The program `waybill-sim` plays many.
//! With the feature `planted` a bug can be planted, which the oracle has to find.

mod chance;
mod net;
mod oracle;
mod scenario;
mod wish;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

#[cfg(feature = "planted")]
use waybill_wire::planted::{Bug, plant};
use world::World;

thread_local! {
    static WORDS: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// What went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// Which promise, and about what; or the words of a panic.
    pub words: String,
}

/// What came up in a run: how often things that need a link to be slow happened at brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Things that happened in all.
    pub events: u64,
    /// Messages whose place in an outbox a newer one took.
    pub conflated: u64,
    /// Messages whose time ran out in an outbox.
    pub expired: u64,
    /// Messages that waited too long in an outbox, or found what waited there too old.
    pub aged: u64,
    /// Messages that found no room in an outbox, or had to make room.
    pub full: u64,
}

impl Played {
    /// With what came up in another run.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            conflated: self.conflated + other.conflated,
            expired: self.expired + other.expired,
            aged: self.aged + other.aged,
            full: self.full + other.full,
        }
    }
}

/// Plays one seed; what came up. With `trace` it tells all of them on stderr.
///
/// # Errors
///
/// A promise was broken, or something panicked.
pub fn run(seed: u64, trace: bool) -> Result<Played, Failure> {
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let words = info.payload_as_str().unwrap_or("?");
            WORDS.set(Some(format!("{place}: {words}")));
        }));
    });
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, trace);
        world.play();
        world.played()
    }));
    played.map_err(|_| Failure { seed, words: WORDS.take().unwrap_or_default() })
}

/// Plays one seed with this bug in the product.
///
/// # Errors
///
/// The oracle has found it, or something else.
#[cfg(feature = "planted")]
pub fn run_with(bug: Bug, seed: u64) -> Result<Played, Failure> {
    plant(Some(bug));
    let played = run(seed, false);
    plant(None);
    played
}
