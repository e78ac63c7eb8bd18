//! What gateways may have forgotten of the messages they were given: as many as their setting says,
//! and no fewer.

use std::collections::{BTreeMap, BTreeSet};

/// UIDs that a gateway remembers for each message that it may.
const UIDS_PER_MESSAGE: u64 = 16;

/// A message, and which part of it.
type Key = (u64, usize);

/// One life of a gateway.
#[derive(Debug, Default)]
struct Life {
    deliveries: u64,
    uids: u64,
    /// How many there were of each before the first copy of a message.
    first: BTreeMap<Key, [u64; 2]>,
    forgotten: BTreeSet<Key>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Messages that each gateway remembers.
    pub(super) messages_max: u64,
    gateways: BTreeMap<usize, Life>,
}

impl Memory {
    /// A gateway is given a message that lists so many users.
    pub(super) fn given(&mut self, gateway: usize, key: Key, uids: u64) {
        let life = self.gateways.entry(gateway).or_default();
        let [deliveries, before] = *life.first.entry(key).or_insert([life.deliveries, life.uids]);
        let newest = deliveries + 1 == life.deliveries;
        let kept = life.deliveries - deliveries <= self.messages_max
            && life.uids - before <= self.messages_max * UIDS_PER_MESSAGE;
        if !newest && !kept {
            life.forgotten.insert(key);
        }
        life.deliveries += 1;
        life.uids += uids;
    }

    /// Whether a copy of it came when the gateway no longer had to know of the first.
    pub(super) fn is_excused(&self, gateway: usize, key: Key) -> bool {
        self.gateways.get(&gateway).is_some_and(|life| life.forgotten.contains(&key))
    }

    /// Another life knows nothing.
    pub(super) fn killed(&mut self, gateway: usize) {
        self.gateways.remove(&gateway);
    }
}
