//! What all shards see: the route table, which link serves a slot, which links consume, which
//! sessions may be resumed, which logins contend, and whether the broker is ready.
//!
//! Locks here are held for a look-up or an insertion, never across a call into a shard.
//! Never: frames, outboxes' bytes.

mod consumers;
mod contest;
mod gateways;
mod paths;
pub(crate) mod sessions;
pub(crate) mod sessions_open;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use waybill_routing::{Limits, Login, Namespace, Policies, Policy, Routes, Slot, Uid};
use waybill_wire::digest::Registered;

pub(crate) use consumers::{ConsumerPlace, Feed};
use contest::Contest;
use gateways::Gateways;
pub(crate) use gateways::{Found, Places};
use paths::Paths;

use crate::auth::Credentials;
use crate::config::BrokerConfig;
use crate::io::LinkId;
use crate::limits::{REFUSALS_MAX, STRANGERS_PART};
use crate::outbox::Room;
use crate::pool::Pools;
use crate::readiness::{Readiness, Wait};
use sessions::Sessions;

/// Where a link is, who is at its other end, and the space of its outbox.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) shard: u16,
    pub(crate) link: LinkId,
    /// For people; unknown to the simulator.
    pub(crate) peer: Option<Arc<str>>,
    pub(crate) room: Arc<Room>,
    // Of a gateway: whether tags were agreed on, and fragments.
    pub(crate) tags: bool,
    pub(crate) fragments: bool,
}

impl Place {
    pub(crate) fn is(&self, shard: u16, link: LinkId) -> bool {
        self.shard == shard && self.link == link
    }
}

/// See the module.
pub struct Shared {
    /// Settings.
    pub config: BrokerConfig,
    /// Who may link.
    pub credentials: Credentials,
    /// Random number of this life of the broker.
    pub instance: u64,
    /// What all links hold together.
    pub pools: Pools,
    /// The route table.
    pub routes: Routes,
    // The wall clock when the shards' time was zero, in nanoseconds since 1970.
    wall_ns: AtomicU64,
    gateways: RwLock<Gateways>,
    // How often they changed, for those who keep copies.
    gateway_changes: AtomicU64,
    paths: Mutex<Paths>,
    held: Mutex<Sessions>,
    readiness: Mutex<Readiness>,
    // What `readiness` says, for those who ask often.
    ready: AtomicBool,
    policies: Policies,
    /// Logins that contend: of live slots, in namespaces with a policy. And who has lost.
    pub(crate) contest: Mutex<Contest>,
    consumers: RwLock<Vec<ConsumerPlace>>,
    presence_wanted: AtomicBool,
    offline_wanted: AtomicBool,
    // What there is to ask for each frame that may go to consumers.
    consumers_open: AtomicUsize,
    consumers_terms: AtomicUsize,
    ages: AtomicU64,
    links: AtomicU32,
    refused: AtomicU32,
    producers: AtomicU32,
    registrations: AtomicUsize,
    told_on_their_way: AtomicU32,
    sessions: AtomicU64,
}

/// A clock that was set is off by more.
const WALL_STEP_NS: u64 = 1_000_000;

pub(crate) const UNPOISONED: &str = "nothing panics while it holds this lock";

impl Shared {
    /// State of a broker with a validated configuration. `instance` must not be 0. `key` is the
    /// route table's and told nobody ([`Routes::new`]).
    #[must_use]
    pub fn new(config: BrokerConfig, instance: u64, key: u64) -> Self {
        let limits = Limits {
            slots: config.gateways_max,
            routes: config.routes_max,
            gateway_tags: config.gateway_tags_max,
            broker_tags: config.tags_max,
            ..Limits::default()
        };
        let readiness = Readiness::new(Wait {
            quiet: Duration::from_millis(config.ready_quiet_ms.into()),
            most: Duration::from_millis(config.ready_max_ms.into()),
            expected: config.gateways_expected,
        });
        let policies = config.policies();
        Self {
            ready: AtomicBool::new(readiness.is_ready()),
            readiness: Mutex::new(readiness),
            held: Mutex::default(),
            contest: Mutex::new(Contest::new(policies.clone(), config.gateways_max as usize)),
            policies,
            credentials: Credentials::new(&config),
            instance,
            pools: Pools::new(config.links_bytes_max, (config.links_max + REFUSALS_MAX) as usize),
            routes: Routes::new(limits, key),
            wall_ns: AtomicU64::new(0),
            gateways: RwLock::default(),
            gateway_changes: AtomicU64::new(0),
            paths: Mutex::default(),
            consumers: RwLock::default(),
            presence_wanted: AtomicBool::new(false),
            offline_wanted: AtomicBool::new(false),
            consumers_open: AtomicUsize::new(0),
            consumers_terms: AtomicUsize::new(0),
            ages: AtomicU64::new(0),
            links: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            producers: AtomicU32::new(0),
            registrations: AtomicUsize::new(0),
            told_on_their_way: AtomicU32::new(0),
            sessions: AtomicU64::new(0),
            config,
        }
    }

    /// A session id, not 0, not given before in this life of the broker.
    pub(crate) fn next_session(&self) -> u64 {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        self.instance.wrapping_add(number).max(1)
    }

    /// See [`Shard::set_wall`](crate::shard::Shard::set_wall). What differs by less than a step of
    /// the clock is the error of the finding; taking it over could make times run backwards.
    pub(crate) fn set_wall(&self, at_zero_ns: u64) {
        if at_zero_ns.abs_diff(self.wall_ns.load(Ordering::Relaxed)) > WALL_STEP_NS {
            self.wall_ns.store(at_zero_ns, Ordering::Relaxed);
        }
    }

    /// Microseconds since 1970 by the wall clock, at a time of the shards; not 0.
    pub(crate) fn wall_us(&self, now: Duration) -> u64 {
        let since_zero_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        (self.wall_ns.load(Ordering::Relaxed).saturating_add(since_zero_ns) / 1000).max(1)
    }

    /// Whether the broker may be asked where users are.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Something that readiness depends on happened, unless it is over.
    pub(crate) fn readiness(&self, happened: impl FnOnce(&mut Readiness)) {
        if !self.is_ready() {
            let mut readiness = self.readiness.lock().expect(UNPOISONED);
            happened(&mut readiness);
            self.ready.store(readiness.is_ready(), Ordering::Relaxed);
        }
    }

    /// Gateways that are waited for, as far as known.
    pub(crate) fn gateways_missing(&self) -> u32 {
        self.readiness.lock().expect(UNPOISONED).missing()
    }

    /// Whether no login can ever displace another.
    pub(crate) fn allows_all_logins(&self) -> bool {
        self.policies.allow_all()
    }

    /// A slot is suspended, replaced or dead: its logins contend no more, in one step.
    pub(crate) fn leave_contest(&self, slot: Slot) {
        if !self.allows_all_logins() {
            self.contest.lock().expect(UNPOISONED).leave(slot);
        }
    }

    /// Forgets a portion of the logins that slots have left behind.
    pub(crate) fn sweep_logins(&self, budget: usize) {
        if !self.allows_all_logins() {
            self.contest.lock().expect(UNPOISONED).sweep(budget);
        }
    }

    /// A registration as a login that contends with others, if there is a policy for it.
    pub(crate) fn contender(&self, registered: Registered) -> Option<Login> {
        let Registered { namespace, uid, device_class, login } = registered;
        let namespace = Namespace(namespace);
        let contends = self.policies.of(namespace) != Policy::All;
        contends.then_some(Login { namespace, uid: Uid(uid), device_class, number: login })
    }

    /// Takes place for one `Mail::Told`, or says that as many are on their way as there may be
    /// gateways.
    pub(crate) fn told_sent(&self) -> bool {
        take_one(&self.told_on_their_way, self.config.gateways_max)
    }

    /// One of them has arrived, or never will.
    pub(crate) fn told_arrived(&self) {
        self.told_on_their_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a link in, or says that there are too many.
    pub(crate) fn link_opened(&self) -> bool {
        take_one(&self.links, self.config.links_max)
    }

    /// Whether there is no place for another link.
    pub(crate) fn is_full(&self) -> bool {
        self.links() >= self.config.links_max
    }

    /// Links without a HELLO that one shard may have.
    pub(crate) fn strangers_max(&self) -> usize {
        let of_each =
            self.config.links_max.div_ceil(STRANGERS_PART * u32::from(self.config.shards));
        of_each as usize
    }

    pub(crate) fn link_closed(&self) {
        self.links.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a link in that is told why it is refused, or says that too many are being told.
    pub(crate) fn refusal_opened(&self) -> bool {
        take_one(&self.refused, REFUSALS_MAX)
    }

    pub(crate) fn refusal_closed(&self) {
        self.refused.fetch_sub(1, Ordering::Relaxed);
    }

    /// Links that are open.
    #[must_use]
    pub fn links(&self) -> u32 {
        self.links.load(Ordering::Relaxed)
    }

    pub(crate) fn producer_opened(&self) {
        self.producers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn producer_closed(&self) {
        self.producers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether anybody is left who could publish.
    pub(crate) fn has_producers(&self) -> bool {
        self.producers.load(Ordering::Relaxed) > 0
    }
}

/// Counts one more, unless there are as many as there may be.
fn take_one(counter: &AtomicU32, most: u32) -> bool {
    let taken = counter.fetch_add(1, Ordering::Relaxed) < most;
    if !taken {
        counter.fetch_sub(1, Ordering::Relaxed);
    }
    taken
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("instance", &self.instance).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_7_no_more_told_is_on_its_way_than_there_may_be_gateways() {
        let config = BrokerConfig { gateways_max: 2, ..BrokerConfig::default() };
        let shared = Shared::new(config, 1, 1);
        assert!(shared.told_sent() && shared.told_sent() && !shared.told_sent());
        shared.told_arrived();
        assert!(shared.told_sent() && !shared.told_sent());
    }
}
