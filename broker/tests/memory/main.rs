//! The sum of `waybill config memory` holds (promise 7): a brain is driven to one bound after the
//! other, with every link stuck, and all that it allocates is counted.
//!
//! A queue that is missing in the sum, or a bound that does not hold, takes more than the terms
//! say. A load that does not reach its bound would show nothing, so each has to take a stated part
//! of the pool, and is refused, slowed or ended in the end.

#![allow(clippy::print_stderr, reason = "how much a load took is in the output")]

mod harness;

use harness::{Brains, Peer};
use waybill_broker::config::OutboxPolicy;
use waybill_broker::limits::{LINK_BYTES, RUN_BYTES_MIN};
use waybill_broker::{BrokerConfig, memory};
use waybill_wire::Frame;
use waybill_wire::code::{Kind, Level, Op, Priority, Role, capability};
use waybill_wire::frame::{Filter, Ping};
use waybill_wire::memory::sum;
use waybill_wire::message::{MessageHead, Sender};

const POOL: usize = 64 << 20;

/// Hundredths of the pool that a load takes at least: of what waits for links that stand still, and
/// of what links bring and have answered. The rest is other links' part.
const WAITING: usize = 20;
const BROUGHT: usize = 15;

fn config(policy: OutboxPolicy) -> BrokerConfig {
    BrokerConfig {
        links_max: 128,
        links_bytes_max: POOL,
        outbox_bytes_max: 4 << 20,
        outbox_policy: policy,
        outbox_age_max_ms: 0,
        keepalive_ms: 0,
        ready_quiet_ms: 0,
        gateways_max: 64,
        routes_max: 4_096,
        tags_max: 16,
        ..BrokerConfig::default()
    }
}

/// Drives a broker, and holds what it takes against the terms of its links. `at_least` is the part
/// of the pool that the load is to take, in hundredths.
///
/// Besides, at the end nothing is there that is not charged to the pool or one of the few bytes
/// that each link may have: so a queue that is charged to nobody fails even if it is a small one.
fn holds(what: &str, config: BrokerConfig, at_least: usize, load: impl FnOnce(&mut Brains)) {
    let most = links_max(&config);
    let mut brains = None;
    let made = allocation_counter::measure(|| brains = Some(Brains::new(config)));
    let mut brains = brains.expect("it was made");
    let loaded = allocation_counter::measure(|| load(&mut brains));
    let used = brains.shared.pools.used();
    let taken = usize::try_from(loaded.bytes_max).expect("a small load");
    let left = usize::try_from(loaded.bytes_current).expect("what is freed was allocated");
    let left = left - brains.own_bytes();
    let links = brains.shared.links() as usize * (LINK_BYTES + (16 << 10));
    eprintln!("{what}: at most {taken} of {most} bytes, in the end {left}; {used} charged");
    assert!(taken <= most, "{what}: {taken} bytes, where the sum says {most}");
    assert!(left <= used + links + FIXED, "{what}: {left} bytes, and {used} are charged");
    assert!(used >= POOL / 100 * at_least, "{what}: the load took {used} of {POOL} bytes");
    brains.ledger().balances().expect("nothing is lost");
    let freed = allocation_counter::measure(|| drop(brains));
    // What is made once for the process may be among them.
    let kept = made.bytes_current + loaded.bytes_current + freed.bytes_current;
    assert!(kept < 1024, "{what}: {kept} bytes are not given back");
}

/// The terms that are about links, and the routes of a few users.
fn links_max(config: &BrokerConfig) -> usize {
    let of_links = [
        "a link, and what each may hold",
        "what they hold beyond that",
        "their buffers' growth",
        "a buffer that is built anew",
    ];
    let terms = memory::terms(config).into_iter();
    let terms: Vec<_> = terms.filter(|term| of_links.contains(&term.what)).collect();
    assert_eq!(terms.len(), of_links.len(), "{terms:?}");
    usize::try_from(sum(&terms)).expect("it is a small one") + FIXED
}

/// Routes, what batches are made in, and what one read brings before it is counted.
const FIXED: usize = 2 << 20;

/// Gateways that have stopped reading, of one user each, and the users.
fn gateways(brains: &mut Brains, shard: usize, capabilities: u64) -> Vec<u64> {
    let uids: Vec<u64> = (1..=40).collect();
    for uid in &uids {
        brains.frozen_gateway(shard, *uid, capabilities, &[*uid]);
    }
    uids
}

/// Publishes of every kind to all, until the pool has had no room for many.
fn flood(brains: &mut Brains, producer: Peer, uids: &[u64], bytes: usize, head: MessageHead<'_>) {
    let payload = vec![7; bytes];
    let mut short = 0;
    for round in 0_u64.. {
        let priority = [Priority::HIGH, Priority::NORMAL, Priority::BULK][(round % 3) as usize];
        let conflate = head.conflate.map(|_| round);
        let head = MessageHead { priority, conflate, ..head };
        assert!(brains.tell(producer, Kind::PUBLISH, head, uids, &payload), "a producer is read");
        let frames = brains.ledger().gateways;
        short += u64::from(frames.dropped_pool_full + frames.evicted_pool_full > 0);
        if short > 50 {
            break;
        }
    }
}

#[test]
fn promise_7_what_waits_for_gateways_is_within_the_sum() {
    let plain = MessageHead::default();
    let kept = MessageHead { ttl_ms: 600_000, ..plain };
    let keyed = MessageHead { conflate: Some(1), ..plain };
    for policy in [OutboxPolicy::Refuse, OutboxPolicy::DropOldest] {
        for (name, head) in [("plain", plain), ("with a time to live", kept), ("keyed", keyed)] {
            for bytes in [0, 1_000, 100_000] {
                let what = format!("{name}, {bytes} bytes, {policy:?}");
                holds(&what, config(policy), WAITING, |brains| {
                    let uids = gateways(brains, 0, 0);
                    let producer = brains.link(0, Role::PRODUCER, 7, 0);
                    flood(brains, producer, &uids, bytes, head);
                });
            }
        }
    }
}

#[test]
fn promise_7_messages_that_outboxes_share_are_within_the_sum() {
    for policy in [OutboxPolicy::Refuse, OutboxPolicy::DropOldest] {
        holds(&format!("shared, {policy:?}"), config(policy), WAITING, |brains| {
            gateways(brains, 0, 0);
            let producer = brains.link(0, Role::PRODUCER, 7, 0);
            let head = MessageHead { everyone: true, ..MessageHead::default() };
            flood(brains, producer, &[], 2 * RUN_BYTES_MIN, head);
        });
    }
}

#[test]
fn promise_7_mail_between_shards_is_within_the_sum() {
    let config = BrokerConfig { shards: 2, ..config(OutboxPolicy::Refuse) };
    holds("mail on its way", config, WAITING, |brains| {
        let uids = gateways(brains, 1, 0);
        let producer = brains.link(0, Role::PRODUCER, 7, 0);
        brains.holds_mail = true;
        flood(brains, producer, &uids, 1_000, MessageHead::default());
    });
}

#[test]
fn promise_7_frames_that_are_not_whole_are_within_the_sum() {
    holds("halves of frames", config(OutboxPolicy::Refuse), BROUGHT, |brains| {
        let mut frame = Vec::new();
        let head = MessageHead { sequence: 1, ..MessageHead::default() };
        head.encode_publish(&[1][..], &[7; 400_000], &mut frame).unwrap();
        frame.pop();
        let producers: Vec<Peer> =
            (0..64).map(|instance| brains.link(0, Role::PRODUCER, instance + 1, 0)).collect();
        let read = producers.iter().filter(|&&peer| brains.send(peer, &frame)).count();
        assert!((4..32).contains(&read), "some were read to the end, {read}");
        // Whoever cannot go on is ended in time, so that others can.
        brains.pass(125);
        assert!(brains.shared.links() < 64, "{}", brains.shared.links());
        let next = brains.link(0, Role::PRODUCER, 100, 0);
        assert!(brains.send(next, &frame), "there is memory for one again");
        (0..64).for_each(|_| brains.pass(1));
        let gateways: Vec<Peer> =
            (0..64).map(|instance| brains.link(0, Role::GATEWAY, instance + 1, 0)).collect();
        for gateway in gateways {
            brains.send(gateway, &frame);
        }
    });
}

#[test]
fn promise_7_answers_are_within_the_sum() {
    holds("answers to producers", config(OutboxPolicy::Refuse), BROUGHT, |brains| {
        let offline: Vec<u64> = (1..=4_000).collect();
        let head = MessageHead { level: Level::ROUTED, ..MessageHead::default() };
        let producers: Vec<Peer> =
            (0..100).map(|instance| brains.link(0, Role::PRODUCER, instance + 1, 0)).collect();
        for &producer in &producers {
            brains.freeze(producer);
            while brains.tell(producer, Kind::PUBLISH, head, &offline, b"") {}
        }
    });
    holds("answers to gateways", config(OutboxPolicy::Refuse), BROUGHT, |brains| {
        let gateways: Vec<Peer> =
            (0..60).map(|instance| brains.link(0, Role::GATEWAY, instance + 1, 0)).collect();
        let mut pings = Vec::new();
        (0..1000).for_each(|token| Frame::Ping(Ping { token }).encode(&mut pings).unwrap());
        for _ in 0..100 {
            for &gateway in &gateways {
                brains.freeze(gateway);
                brains.send(gateway, &pings);
            }
        }
    });
}

#[test]
fn promise_7_receipts_and_reports_are_within_the_sum() {
    let reports = capability::REPORTS | capability::TRACE;
    for trace in [None, Some(&[7; 16])] {
        holds("receipts and reports", config(OutboxPolicy::Refuse), WAITING, |brains| {
            let uids = gateways(brains, 0, reports);
            let producers: Vec<Peer> = (0..60)
                .map(|instance| brains.link(0, Role::PRODUCER, instance + 1, capability::TRACE))
                .collect();
            let head = MessageHead { level: Level::DELIVERED, trace, ..MessageHead::default() };
            for _ in 0..400 {
                for &producer in &producers {
                    brains.tell(producer, Kind::PUBLISH, head, &uids, b"");
                }
            }
        });
    }
}

/// Receipts that a producer may wait for until it is `overloaded`, with so many frozen gateways for
/// whom as much waits as may.
fn receipts_beside(frozen: usize) -> u64 {
    let mut brains = Brains::new(config(OutboxPolicy::Refuse));
    let uids: Vec<u64> = (1..=frozen as u64).collect();
    for &uid in &uids {
        brains.frozen_gateway(0, uid, 0, &[uid]);
    }
    let others: Vec<u64> = (1001..=1016).collect();
    for &uid in &others {
        brains.gateway(0, uid, capability::REPORTS, &[uid]);
    }
    if frozen > 0 {
        let producer = brains.link(0, Role::PRODUCER, 7, 0);
        flood(&mut brains, producer, &uids, 1_000, MessageHead::default());
    }
    let producer = brains.link(0, Role::PRODUCER, 8, 0);
    let head = MessageHead { level: Level::DELIVERED, ..MessageHead::default() };
    for round in 0.. {
        let one = &others[round % others.len()..][..1];
        brains.tell(producer, Kind::PUBLISH, head, one, b"");
        let pending = brains.ledger().receipts_pending;
        if pending <= round as u64 {
            return pending;
        }
    }
    unreachable!("there is a bound");
}

#[test]
fn promise_6_frozen_gateways_leave_producers_their_receipts() {
    let (alone, beside) = (receipts_beside(0), receipts_beside(40));
    assert!(beside >= alone / 10 * 9, "{beside} instead of {alone}");
}

#[test]
fn promise_7_uplinks_and_filters_are_within_the_sum() {
    holds("uplinks", config(OutboxPolicy::Refuse), WAITING, |brains| {
        for instance in 1..=30 {
            let consumer = brains.link(0, Role::CONSUMER, instance, 0);
            brains.freeze(consumer);
        }
        let gateways: Vec<Peer> =
            (0..20).map(|instance| brains.link(0, Role::GATEWAY, instance + 1, 0)).collect();
        for round in 0..6_000 {
            for &gateway in &gateways {
                let sender = Some(Sender { uid: round, connection: 1 });
                let head = MessageHead { sender, ..MessageHead::default() };
                brains.tell(gateway, Kind::UPLINK, head, &[], b"");
            }
        }
        assert!(brains.ledger().uplinks_refused > 0);
    });
    holds("filters", config(OutboxPolicy::Refuse), WAITING, |brains| {
        let all = vec!["uid=18446744073709551614..18446744073709551615"; 64].join(" | ");
        let consumers: Vec<Peer> = (0..100)
            .map(|instance| brains.link(0, Role::CONSUMER, instance + 1, capability::FILTERS))
            .collect();
        for (consumer, namespace) in consumers.iter().flat_map(|it| (0..64).map(move |n| (it, n))) {
            let filter = Filter { op: Op::ADD, filter: 1, namespace, expression: &all };
            brains.say(*consumer, &Frame::Filter(filter));
        }
    });
}

#[test]
fn promise_7_the_default_sum_is_an_amount_that_a_process_may_be_given() {
    let terms = memory::terms(&BrokerConfig::default());
    assert!(sum(&terms) < 10 << 30, "{terms:#?}");
}
