//! The most memory that a broker may take, term by term: the sum that `limits.rs` documents, with
//! the numbers of one configuration. A bound, not what is used.

use waybill_wire::limits::{FRAME_BYTES_MAX, TARGETS_MAX};
use waybill_wire::memory::{Term, wide};

use crate::config::BrokerConfig;
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, BUFFERS_MAX, CONFLATION_KEYS_MAX, CONTROL_BYTES_MAX, HALFWAY_MAX,
    READ_BYTES, READ_BYTES_MIN, RECEIPTS_PENDING_BYTES_MAX, REFUSALS_MAX, REPORTS_AWAITED_MAX,
    UPLINKS_UNANSWERED_MAX, WRITE_BYTES,
};

/// Bytes of a route, growth included: 14.8 to 15.6 were measured with 10^5 to 10^8
/// (`docs/decisions/0018-one-route-table-in-groups-of-blocks.md`).
pub const ROUTE_BYTES: u64 = 16;

/// Bytes of a registration, at most.
const REGISTRATION_BYTES: u64 = 160;

/// Every term of a broker with these settings.
#[must_use]
pub fn terms(config: &BrokerConfig) -> Vec<Term> {
    [of_links(config), of_shards(config), of_routes(config)].concat()
}

fn of_links(config: &BrokerConfig) -> Vec<Term> {
    let count = u64::from(config.links_max) + u64::from(REFUSALS_MAX);
    let outbox = wide(config.outbox_bytes_max);
    let each = [
        ("the buffer being read into", wide(READ_BYTES)),
        ("one frame split between reads", wide(FRAME_BYTES_MAX)),
        ("a PUBLISH or TAG that takes several turns", wide(FRAME_BYTES_MAX)),
        ("frames waiting to be written", 8 * outbox),
        ("where the last frames of keys wait", wide(CONFLATION_KEYS_MAX) * 3 * 112),
        ("frames being written, and a spare buffer", 2 * wide(WRITE_BYTES + FRAME_BYTES_MAX)),
        ("answers waiting", wide(CONTROL_BYTES_MAX)),
        ("uplinks without an answer", wide(UPLINKS_UNANSWERED_MAX) * 400),
        ("receipts that are not complete", wide(RECEIPTS_PENDING_BYTES_MAX) + (1 << 20)),
        ("reports owed by a gateway", wide(REPORTS_AWAITED_MAX) * 96),
        ("hop times between shards", wide(REPORTS_AWAITED_MAX) * 3 * 128),
        ("what reports name, between shards", 4 * wide(RECEIPTS_PENDING_BYTES_MAX)),
    ];
    each.map(|(what, each)| Term::new(what, count, "links", each)).into()
}

fn of_shards(config: &BrokerConfig) -> Vec<Term> {
    let (shards, gateways) = (u64::from(config.shards), u64::from(config.gateways_max));
    let of_halfway = wide(TARGETS_MAX) * (64 + 40 * gateways);
    let received = u64::from(BUFFERS_MAX) * 4 * wide(READ_BYTES_MIN);
    vec![
        Term::new(
            "what long messages have found",
            shards * wide(HALFWAY_MAX),
            "messages",
            of_halfway,
        ),
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
        let larger: [fn(&mut BrokerConfig); 7] = [
            |it| it.links_max += 1,
            |it| it.outbox_bytes_max += 1,
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
