//! What all tasks of a run share: the processes, the record, who the users are, when to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::watch;

use crate::clock::{Clock, Micros};
use crate::net::Net;
use crate::record::Shared;
use crate::servers::Server;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Users come; nothing is sent yet.
    Filling,
    /// Load and faults.
    Running,
    /// Nothing new; what is under way arrives.
    Settling,
    /// Users leave.
    Over,
}

/// One device of one user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    /// Number of the user.
    pub(crate) user: u32,
    /// Number of the device, over all users.
    pub(crate) device: u32,
    pub(crate) namespace: u32,
    pub(crate) uid: u64,
    /// Where it connects first.
    pub(crate) home: usize,
    /// Never goes elsewhere, never leaves, sends nothing: a probe is meant for it.
    pub(crate) pinned: bool,
}

/// Shared by all tasks.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) shared: Shared,
    /// Before the processes, whose end comes first: a namespace in use cannot go.
    pub(crate) brokers: Vec<Server>,
    pub(crate) gateways: Vec<Server>,
    pub(crate) others: Vec<Server>,
    pub(crate) net: Net,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) seed: u64,
    /// Mean time between two messages of one device; 0 for none.
    pub(crate) uplink_every: Micros,
    /// Mean time after which a device leaves and comes back; 0 for never.
    pub(crate) leave_every: Micros,
    /// Publishes that wait for their outcome.
    pub(crate) pending: AtomicU64,
    /// Whether receipts of level *delivered* can be had.
    pub(crate) reports: AtomicBool,
}

/// The two tenants. Their UIDs are the same numbers.
pub(crate) const NAMESPACES: [u32; 2] = [1, 2];

/// UIDs from here on are never online.
pub(crate) const NOBODY: u64 = 1_000_000_000;

/// UIDs from here on are those of the large gateway that is played.
pub(crate) const LARGE: u64 = 500_000_000;

/// UIDs from here on belong to probes.
pub(crate) const PROBES: u64 = 900_000;

/// Pinned users for each gateway.
pub(crate) const PINNED: usize = 4;

impl World {
    /// Every process.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.brokers.iter().chain(&self.gateways).chain(&self.others)
    }

    /// Addresses of the brokers, beginning with this one.
    pub(crate) fn broker_list(&self, first: usize) -> Vec<SocketAddr> {
        let mut list: Vec<SocketAddr> = self.brokers.iter().map(|b| b.address).collect();
        let count = list.len().max(1);
        list.rotate_left(first % count);
        list
    }

    /// Waits for a phase, or a later one.
    pub(crate) async fn reaches(self: &Arc<Self>, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives in here: it cannot go.
        let _reached = phases.wait_for(|now| *now >= phase).await;
    }
}

/// The users' devices: every user has one to three, on different gateways, and each gateway some
/// pinned ones.
pub(crate) fn devices(users: usize, gateways: usize, more_than_one: bool) -> Vec<Device> {
    let mut devices = Vec::new();
    let mut add = |user: usize, namespace, uid, home, pinned| {
        let device = u32::try_from(devices.len()).expect("a few thousand");
        let user = u32::try_from(user).expect("a few thousand");
        devices.push(Device { user, device, namespace, uid, home, pinned });
    };
    for user in 0..users {
        let count = match user % 20 {
            0..10 => 1,
            10..17 => 2,
            _ => 3,
        };
        for nth in 0..if more_than_one { count } else { 1 } {
            add(user, NAMESPACES[user % 2], uid_of(user), (user / 2 + nth) % gateways, false);
        }
    }
    for gateway in 0..gateways {
        for nth in 0..PINNED {
            let uid = probe_uid(gateway, nth);
            add(users + gateway * PINNED + nth, NAMESPACES[0], uid, gateway, true);
        }
    }
    devices
}

/// The UID of a user, within its namespace.
pub(crate) fn uid_of(user: usize) -> u64 {
    1 + user as u64 / 2
}

/// The UID of a pinned user.
pub(crate) fn probe_uid(gateway: usize, nth: usize) -> u64 {
    PROBES + (gateway * PINNED + nth) as u64
}
