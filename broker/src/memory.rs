//! The most memory that a broker may take, term by term: the sum that `limits.rs` documents, with
//! the numbers of one configuration. A bound, not what is used.

use waybill_wire::limits::TARGETS_MAX;
use waybill_wire::memory::{Term, wide};

use crate::config::BrokerConfig;
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, ALONE_HITS, BATCH_TARGETS, BUFFERS_MAX, HALFWAY_HITS, HALFWAY_MAX,
    INPUTS_PER_TURN, LINK_BYTES, LINK_STEPS, PARCEL_BYTES, PARCELS_KEPT, PLAIN_MESSAGES,
    READ_BYTES, READ_BYTES_MIN, REFUSALS_MAX, RUN_BUFFER_MAX, RUNS_KEPT, STEP_BYTES, TURN_LINKS,
};

/// Counts of a plan, one for each slot there can be.
const SLOT_COUNTS_BYTES: u64 = 4 << 16;

/// Bytes of a route, growth included: 14.8 to 15.6 were measured with 10^5 to 10^8
/// (`docs/decisions/0018-one-route-table-in-groups-of-blocks.md`).
pub const ROUTE_BYTES: u64 = 16;

/// Bytes of a registration, at most.
const REGISTRATION_BYTES: u64 = 160;

/// Bytes of a link itself: session, outbox, role, and what the backend keeps for it.
const LINK_STATE: u64 = 16 << 10;

/// Every term of a broker with these settings.
#[must_use]
pub fn terms(config: &BrokerConfig) -> Vec<Term> {
    [of_links(config), of_shards(config), of_routes(config)].concat()
}

fn of_links(config: &BrokerConfig) -> Vec<Term> {
    let links = u64::from(config.links_max) + u64::from(REFUSALS_MAX);
    let shards = u64::from(config.shards);
    let of_turn = 2 * (TURN_LINKS + 1) * LINK_STEPS * STEP_BYTES + 2 * INPUTS_PER_TURN * READ_BYTES;
    vec![
        Term::new("a link, and what each may hold", links, "links", wide(LINK_BYTES) + LINK_STATE),
        Term::new("what they hold beyond that", 1, "pool", wide(config.links_bytes_max)),
        Term::new("their buffers' growth", 1, "pool", wide(config.links_bytes_max)),
        Term::new("what a turn brings before it is counted", shards, "shards", wide(of_turn)),
        Term::new(
            "a buffer that is built anew",
            shards,
            "shards",
            4 * wide(config.outbox_bytes_max),
        ),
    ]
}

fn of_shards(config: &BrokerConfig) -> Vec<Term> {
    let (shards, gateways) = (u64::from(config.shards), u64::from(config.gateways_max));
    let found = |uids: usize, hits: u64| wide(uids) * 68 + 40 * hits + SLOT_COUNTS_BYTES;
    // Of messages to one user each: where these are.
    let of_plain = wide(PLAIN_MESSAGES) * (128 + 32 * gateways);
    let of_batch = found(BATCH_TARGETS, wide(BATCH_TARGETS) * gateways);
    let of_batch = of_batch.max(found(TARGETS_MAX, wide(ALONE_HITS))) + of_plain;
    let of_halfway = found(TARGETS_MAX, 2 * wide(HALFWAY_HITS));
    let of_large = found(TARGETS_MAX, wide(TARGETS_MAX) * gateways);
    let received = u64::from(BUFFERS_MAX) * 4 * wide(READ_BYTES_MIN);
    let kept = RUNS_KEPT * RUN_BUFFER_MAX + PARCELS_KEPT * 4 * PARCEL_BYTES;
    let halfway = shards * wide(HALFWAY_MAX);
    vec![
        Term::new("what a batch has found", shards, "shards", of_batch),
        Term::new("what long messages have found", halfway, "messages", of_halfway),
        Term::new("and the longest", shards, "messages", of_large),
        Term::new("buffers of messages to come", shards, "shards", wide(kept)),
        Term::new("what io_uring receives into", shards, "shards", received),
        Term::new("questions of health and routes", wide(ADMIN_CONNECTIONS_MAX), "links", 4 << 20),
        Term::new("mail that logins have lost", 2 * gateways, "pieces", 256),
    ]
}

fn of_routes(config: &BrokerConfig) -> Vec<Term> {
    let (routes, tags) = (wide(config.routes_max), wide(config.tags_max));
    let logins = if config.policies().allow_all() { 0 } else { 2 * routes };
    let sets = u64::from(config.gateways_max).div_ceil(8).max(2);
    vec![
        Term::new("routes", routes, "routes", ROUTE_BYTES),
        Term::new("registrations they follow from", routes, "registrations", REGISTRATION_BYTES),
        Term::new("namespaces with users", 65_536, "namespaces", 4 << 10),
        Term::new("logins that exclude each other", logins, "logins", 160),
        Term::new("those that have lost", logins, "logins", 96),
        Term::new("tags that are kept", tags, "tags", 96),
        Term::new("which gateways have each", tags, "tags", sets),
    ]
}

#[cfg(test)]
mod tests {
    use waybill_wire::memory::sum;

    use super::*;
    use crate::config::LoginPolicy;

    #[test]
    fn promise_7_every_setting_that_bounds_a_queue_is_in_the_sum() {
        let config = BrokerConfig::default();
        let before = sum(&terms(&config));
        let larger: [fn(&mut BrokerConfig); 8] = [
            |it| it.links_max += 1,
            |it| it.outbox_bytes_max += 1,
            |it| it.links_bytes_max += 1,
            |it| it.shards += 1,
            |it| it.gateways_max += 8,
            |it| it.routes_max += 1,
            |it| it.tags_max += 1,
            |it| it.logins_default = LoginPolicy::One,
        ];
        for (at, enlarge) in larger.into_iter().enumerate() {
            let mut config = config.clone();
            enlarge(&mut config);
            assert!(sum(&terms(&config)) > before, "setting {at}");
        }
    }
}
