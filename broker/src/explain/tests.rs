//! An explanation is bounded, whatever the route table holds.

use waybill_routing::{Change, Incarnation, Op, TagChange};

use super::*;
use crate::config::BrokerConfig;

/// A gateway that answers, with these users and tags.
fn gateway(shared: &Shared, incarnation: u64, users: &[u64], tags: &[String]) {
    let (routes, namespace) = (&shared.routes, Namespace(0));
    let slot = routes.open(Incarnation(incarnation)).unwrap();
    let add = |uid: &u64| Change { op: Op::Add, namespace, uid: Uid(*uid) };
    routes.apply(slot, &users.iter().map(add).collect::<Vec<_>>()).unwrap();
    routes.agree_on_tags(slot, true).unwrap();
    let add = |tag| TagChange { op: Op::Add, namespace, tag };
    let tags: Vec<_> = tags.iter().map(|tag| add(tag)).collect();
    routes.apply_tags(slot, &tags).unwrap();
    routes.go_live(slot, None).unwrap();
}

#[test]
fn promise_7_what_is_told_is_bounded() {
    let shared = Shared::new(BrokerConfig { ready_quiet_ms: 0, ..BrokerConfig::default() }, 1, 1);
    // Tags that take the most bytes in JSON; not all of the longest, as they fit into no selector.
    let tags: Vec<String> = (0..63).map(|at| format!("{}{at:02}", "\"".repeat(60))).collect();
    let gateways = GATEWAYS_SHOWN_MAX as u64 + 10;
    let users: Vec<u64> = (0..USERS_SHOWN_MAX as u64 + 5).map(|at| u64::MAX - at).collect();
    for incarnation in 1..=gateways {
        let held = if incarnation <= 10 { &users[5..] } else { &users[users.len() - 1..] };
        gateway(&shared, incarnation, held, &tags);
    }
    let quoted = |tag: &String| format!("\"{}\"", tag.replace('"', "\\\""));
    let selector = tags.iter().map(quoted).collect::<Vec<_>>().join("|");
    let uids = users.iter().copied().map(UserId).collect();
    let question = Question { users: uids, selector: Some(selector), ..Question::default() };
    let told = explain(&shared, &question).unwrap();

    assert_eq!((told.gateways.len(), told.gateways_more), (GATEWAYS_SHOWN_MAX, 10));
    assert_eq!((told.users.len(), told.users_more), (USERS_SHOWN_MAX, 5));
    let at = |uid| told.users.iter().find(|it| it.uid.0 == uid).unwrap();
    assert_eq!((at(users[0]).gateways.len(), at(users[0]).fate), (0, Fate::Offline));
    assert_eq!((at(users[9]).gateways.len(), at(users[9]).gateways_more), (HOLDERS_SHOWN_MAX, 2));
    assert_eq!(told.fates.unwrap().offline, users.len());
    assert_eq!(told.gateways[0].terms.len(), tags.len());

    // The term of the sum in `limits.rs`: a question, and its answer twice.
    let json = serde_json::to_vec(&told).unwrap().len();
    let terms = GATEWAYS_SHOWN_MAX * tags.len() * (size_of::<Term>() + 64);
    let rows = GATEWAYS_SHOWN_MAX * 512 + USERS_SHOWN_MAX * (size_of::<UserSeen>() + 256);
    let most = question::QUESTION_BYTES_MAX + json + terms + rows;
    assert!(most < 4 << 20, "{json} bytes of JSON, {most} in all");
    assert!(json > 1 << 20, "the test makes no large answer: {json}");
}

#[test]
fn what_each_mode_costs_is_of_the_whole_message() {
    let shared = Shared::new(BrokerConfig { ready_quiet_ms: 0, ..BrokerConfig::default() }, 1, 1);
    (1..=3).for_each(|incarnation| gateway(&shared, incarnation, &[incarnation % 3], &[]));
    let told = |payload_bytes, selector: Option<&str>| {
        let (everyone, selector) = (selector.is_none(), selector.map(Into::into));
        let question = Question { everyone, selector, payload_bytes, ..Question::default() };
        explain(&shared, &question).unwrap().mode
    };
    let (empty, full) = (told(0, None), told(1_000, None));
    assert_eq!(full.direct.link_bytes, empty.direct.link_bytes + 3 * 1_000);
    assert_eq!(full.broadcast.link_bytes, empty.broadcast.link_bytes + 3 * 1_000);
    let selecting = told(0, Some("vip"));
    assert_eq!(selecting.broadcast.link_bytes, empty.broadcast.link_bytes + 3 * 5);
    assert_eq!((&*full.taken, &*full.auto, full.fates_asked), ("direct", "direct", true));
}
