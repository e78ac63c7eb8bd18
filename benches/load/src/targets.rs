//! The targets there are, by name.

use crate::driver::Driver;
use crate::failure::Failure;
use crate::process::{Place, Server};
use crate::work::WorkPlan;
use crate::{peers, relay, waybill};

/// What a target is started for.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The work. Fewer users may be set up.
    pub work: &'a WorkPlan,
    /// Messages in flight at most, 0 in an open loop.
    pub window: u64,
    /// What a server may keep for a reader that is slow.
    pub pending: Pending,
}

/// What a server may keep for a reader that is slow, before it cuts it off or drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// As much as none needs whose reader reads: what is measured is not how it cuts.
    Raised,
    /// As it is shipped.
    Shipped,
}

/// Something that can be put under load.
#[derive(Clone, Copy)]
pub struct Target {
    /// As in scenarios and results: `waybill`, `nats/uid`.
    pub name: &'static str,
    /// How it is driven, in a sentence for the report.
    pub driven: &'static str,
    /// Whether it holds something for each user, so that its memory is one of routes.
    pub routes: bool,
    /// Starts its processes, each one listening when this returns.
    pub start: fn(&Plan<'_>, &Place) -> Result<Running, Skipped>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A target that was started. Its processes end with it.
pub struct Running {
    /// Its protocol, not connected yet.
    pub driver: Box<dyn Driver>,
    /// Its processes.
    pub servers: Vec<Server>,
    /// Programs and their versions, as `("redis", "7.0.15")`.
    pub versions: Vec<(String, String)>,
    /// A smaller window than the plan's, in messages, where more would be cut off.
    pub window: Option<u64>,
    /// What a reader of the row must know.
    pub notes: Vec<String>,
}

impl Running {
    /// Processes of this target, now.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().flat_map(Server::pids).collect()
    }
}

/// Why a target is not measured, and how to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// In words for a person.
    pub reason: String,
    /// Whether it could have been: then the run has failed.
    pub failed: bool,
}

impl Skipped {
    /// It is not there, or cannot do this work.
    pub fn absent(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), failed: false }
    }
}

impl From<Failure> for Skipped {
    fn from(failure: Failure) -> Self {
        Self { reason: failure.to_string(), failed: true }
    }
}

impl From<std::io::Error> for Skipped {
    fn from(error: std::io::Error) -> Self {
        Failure::from(error).into()
    }
}

/// All of them, ours first.
#[must_use]
pub fn all() -> Vec<Target> {
    [waybill::targets(), relay::targets(), peers::targets()].concat()
}

/// The targets of these names.
///
/// # Errors
/// A name that there is not, with those there are.
pub fn named(names: &[String]) -> Result<Vec<Target>, Failure> {
    let all = all();
    let find = |name: &String| {
        let found = all.iter().find(|target| target.name == name);
        found.copied().ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|target| target.name).collect();
            Failure::new(format_args!(
                "there is no target {name:?}; there are {}",
                known.join(", ")
            ))
        })
    };
    names.iter().map(find).collect()
}
