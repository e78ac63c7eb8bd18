//! The most memory that a gateway may take, term by term: the sum that
//! [`LimitConfig`](crate::config::LimitConfig) documents, with the numbers of one configuration. A
//! bound, not what is used.

use waybill_wire::limits::{
    FRAGMENTED_BYTES_MAX, FRAGMENTED_MAX, FRAME_BYTES_MAX, HEADER_BYTES_MAX, MESSAGE_BYTES_MAX,
    TARGETS_MAX,
};
use waybill_wire::memory::{Term, wide};

use crate::config::GatewayConfig;
use crate::http::EXTRA_SOCKETS;

/// Text that is all control characters, as JSON, is so many times as long.
const JSON_TIMES: u64 = 6;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Every term of a gateway with these settings. An entry of `broker.addresses` counts as one broker
/// also where it stands for every address of a host.
#[must_use]
pub fn terms(config: &GatewayConfig) -> Vec<Term> {
    [of_connections(config), of_messages(config), of_brokers(config)].concat()
}

fn of_connections(config: &GatewayConfig) -> Vec<Term> {
    let limits = &config.limits;
    let connections = wide(limits.connections_max);
    let sockets = connections + wide(EXTRA_SOCKETS);
    let encoded = (JSON_TIMES + 1) * wide(MESSAGE_BYTES_MAX);
    let brokers = wide(config.broker.addresses.len());
    let held = wide(limits.tags_held_max);
    vec![
        Term::new("what connections hold", 1, "pool", wide(limits.connections_bytes_max)),
        Term::new("and what was being encoded then", brokers, "messages", encoded),
        Term::new("or read", 256, "tasks", 256 * KIB),
        Term::new("sockets: requests, then sessions", sockets, "sockets", 20 * KIB),
        Term::new("who has to go, where too much is held", connections, "connections", 256),
        Term::new("the mailbox, and what a turn takes", 4_096 + 256, "messages", 64 * KIB),
        Term::new("tags of connections", held, "tags", 2 * 136),
        Term::new("tags that connections have", wide(limits.tags_max), "tags", 512),
    ]
}

fn of_messages(config: &GatewayConfig) -> Vec<Term> {
    let limits = &config.limits;
    let recent = wide(limits.recent_messages_max);
    vec![
        Term::new("recent message ids, and for whom", recent, "messages", 16 * 8 + 128),
        Term::new("the list of the newest", 1, "lists", 32 * KIB),
        Term::new("who was reached, afterwards", recent, "messages", 16 * 32 + 256),
        Term::new(
            "who was reached, until it is reported",
            2 * wide(limits.reports_max),
            "users",
            96,
        ),
        Term::new("sends without an answer", wide(limits.uplink_bytes_max), "bytes", 1),
        Term::new("who waits for an answer", wide(limits.uplinks_max), "sends", 256),
    ]
}

fn of_brokers(config: &GatewayConfig) -> Vec<Term> {
    let limits = &config.limits;
    let brokers = wide(config.broker.addresses.len());
    let connections = wide(limits.connections_max);
    let users = connections * 80 + wide(limits.reports_max) * 64;
    let frame = wide(FRAME_BYTES_MAX);
    let message = wide(HEADER_BYTES_MAX + MESSAGE_BYTES_MAX);
    let fragments = wide(FRAGMENTED_BYTES_MAX + FRAGMENTED_MAX * HEADER_BYTES_MAX);
    let links = brokers * (1 + u64::from(config.broker.data_links));
    let read = message + frame + 64 * KIB;
    // In the queue of its task, in its machine, and in a write. A report names users of one list.
    let reports = 256 * (wide(TARGETS_MAX) * 8 + 8 * KIB) + MIB + 64 * KIB;
    let term = |what, each| Term::new(what, brokers, "brokers", each);
    vec![
        Term::new("messages of which fragments are missing", links, "links", fragments),
        Term::new("what a link reads, and what that brings", links, "links", read),
        Term::new("reports that a link sends", links, "links", reports),
        term("and more of them by its first link", 15 * MIB),
        term("events not taken yet", 16 * MIB),
        term("uplinks and commands on their way", 16 * MIB + 256 * 64 * KIB + 64 * KIB),
        term("registrations declared", connections * 128),
        term("changes it is behind with", (65_536 + 256) * 64),
        term("tags declared", wide(limits.tags_max) * 256),
        term("what is remembered to go on with a session", 7 * MIB),
        term("one message that is handed out in parts", message + 5 * MIB / 2),
        term("who was met before it was encoded", connections * 80),
        term("its users, where somebody asks for them", users),
    ]
}

#[cfg(test)]
mod tests {
    use waybill_wire::memory::sum;

    use super::*;

    #[test]
    fn promise_7_the_default_sum_is_an_amount_that_a_process_may_be_given() {
        let terms = terms(&GatewayConfig::default());
        assert!(sum(&terms) < 7 << 30, "{} of {terms:#?}", sum(&terms));
    }

    #[test]
    fn promise_7_every_setting_that_bounds_a_queue_is_in_the_sum() {
        let config = GatewayConfig::default();
        let before = sum(&terms(&config));
        let larger: [fn(&mut GatewayConfig); 10] = [
            |it| it.limits.connections_max += 1,
            |it| it.limits.connections_bytes_max += 1,
            |it| it.limits.uplinks_max += 1,
            |it| it.limits.uplink_bytes_max += 1,
            |it| it.limits.recent_messages_max += 1,
            |it| it.limits.reports_max += 1,
            |it| it.limits.tags_held_max += 1,
            |it| it.limits.tags_max += 1,
            |it| it.broker.addresses.push("another:7711".into()),
            |it| it.broker.data_links += 1,
        ];
        for (at, enlarge) in larger.into_iter().enumerate() {
            let mut config = config.clone();
            enlarge(&mut config);
            assert!(sum(&terms(&config)) > before, "setting {at}");
        }
    }
}
