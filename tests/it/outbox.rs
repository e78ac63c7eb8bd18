//! A gateway that reads too slowly, by every policy (promise 6, DEL-14, DEL-20 to DEL-22, DEL-33 to
//! DEL-36): what is written in which order, what is not, and what the last receipt says of it.

use std::collections::BTreeMap;

use waybill_broker::config::OutboxPolicy;
use waybill_broker::{BrokerConfig, Ledger};
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Fate, Level, Priority, capability};
use waybill_wire::frame::Ping;
use waybill_wire::message::MessageHead;

use crate::receipts::gateway_offering;
use crate::support::{Line, Net, everywhere};
use crate::talk::{Producer, encode};

/// Messages in a row that leave it at what was written, after which it is taken to stay so.
const STOOD: u32 = 4;

const AGE_MAX_MS: u32 = 4_000;

static FILLING: [u8; 64 << 10] = [b'f'; 64 << 10];

fn config(policy: OutboxPolicy, age_max_ms: u32) -> BrokerConfig {
    BrokerConfig {
        outbox_bytes_max: 1 << 20,
        outbox_policy: policy,
        outbox_age_max_ms: age_max_ms,
        // Who does not read for long, on a busy machine, is not to be timed out for it.
        keepalive_ms: 60_000,
        report_timeout_ms: 60_000,
        ..BrokerConfig::default()
    }
}

fn of(priority: Priority) -> MessageHead<'static> {
    MessageHead { priority, ..MessageHead::default() }
}

fn told(head: MessageHead<'_>) -> MessageHead<'_> {
    MessageHead { level: Level::DELIVERED, ..head }
}

/// A gateway with user 1 that has stopped reading, so that the transport takes nothing more and
/// messages wait; and the producer that sent them.
fn blocked(net: &mut Net, priority: Priority) -> (Line, Producer) {
    let gateway = gateway_offering(net, 1, &[1], capability::REPORTS);
    net.stall(gateway, true);
    let mut producer = Producer::link(net, 7);
    // Threads that wait for a processor stand still as well: that nothing is written counts only
    // after several messages more, each of which had its shard try to.
    let (mut written, mut stood) = (0, 0);
    while stood < STOOD {
        let sent = producer.publish_with(net, of(priority), &[1], &FILLING).sent;
        let frames = net.ledger().gateways;
        if sent == 1 && frames.waiting + frames.between_shards < 4 {
            continue;
        }
        net.settle();
        let after = net.ledger();
        // A busy machine may take so long for it that the bound in time is reached, too.
        if after.links_slow_age + after.gateways.dropped_outbox_age > 0 {
            break;
        }
        assert_eq!(sent, 1, "the transport takes nothing, and the outbox is full: {after:?}");
        stood = if after.gateways.written() == written { stood + 1 } else { 0 };
        written = after.gateways.written();
    }
    (gateway, producer)
}

/// Three times as much as may wait, of which nothing is asked.
fn flood(net: &mut Net, producer: &mut Producer) {
    for _ in 0..3 * (1 << 20) / FILLING.len() {
        producer.send_with(net, MessageHead::default(), &[1], &FILLING);
    }
}

/// A last receipt: of which message, and why what was dropped. Others are passed over.
fn last(net: &mut Net, producer: &Producer) -> (u64, u32, BTreeMap<ErrorCode, Vec<u64>>) {
    loop {
        let frame = net.frame(producer.line).expect("a receipt");
        let Ok(Frame::Receipt(receipt)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        if receipt.stage == Level::DELIVERED {
            let dropped = receipt.fate_sets.iter().filter(|set| set.fate == Fate::DROPPED);
            let dropped = dropped.map(|set| (set.cause, set.uids.iter().collect())).collect();
            return (receipt.sequence, receipt.sent, dropped);
        }
    }
}

fn only(cause: ErrorCode) -> BTreeMap<ErrorCode, Vec<u64>> {
    BTreeMap::from([(cause, vec![1])])
}

/// So many messages that a gateway gets from now on, by the beginning of their payload.
fn arrivals(net: &mut Net, gateway: Line, count: u64) -> Vec<String> {
    net.stall(gateway, false);
    let mut all = Vec::new();
    while (all.len() as u64) < count {
        let frame = net.frame(gateway).expect("a frame");
        all.push(match Frame::decode(&frame) {
            Ok(Frame::Deliver(it)) => {
                String::from_utf8_lossy(&it.payload[..it.payload.len().min(8)]).into_owned()
            }
            Ok(Frame::Pong(_)) => "PONG".into(),
            other => panic!("neither message nor PONG: {other:?}"),
        });
    }
    all
}

/// Messages that were written or wait.
fn underway(ledger: &Ledger) -> u64 {
    ledger.gateways.written() + ledger.gateways.waiting
}

fn place(all: &[String], what: &str) -> usize {
    all.iter().position(|it| it == what).unwrap_or_else(|| panic!("{what} is not in {all:?}"))
}

#[test]
fn promise_6_a_newer_message_takes_the_place_of_the_waiting_one_with_its_key() {
    everywhere(&config(OutboxPolicy::Refuse, 0), |net| {
        let (gateway, mut producer) = blocked(net, Priority::NORMAL);
        let keyed = MessageHead { conflate: Some(5), ..MessageHead::default() };
        producer.send_with(net, told(keyed), &[1], b"first");
        let first = producer.sequence;
        producer.send_with(net, MessageHead::default(), &[1], b"between");
        // Longer, and as long.
        producer.send_with(net, told(keyed), &[1], b"second..");
        producer.send_with(net, keyed, &[1], b"third...");
        for sequence in [first, first + 2] {
            assert_eq!(last(net, &producer), (sequence, 0, only(ErrorCode::CONFLATED)));
        }
        // Another key, and another namespace, are other messages.
        let other = MessageHead { conflate: Some(6), ..keyed };
        assert_eq!(producer.publish_with(net, other, &[1], b"other").sent, 1);
        net.settle();
        assert_eq!(net.ledger().gateways.conflated, 2);
        let all = arrivals(net, gateway, underway(&net.ledger()));
        assert_eq!(all[all.len() - 3..], ["third...", "between", "other"]);
    });
}

#[test]
fn promise_6_what_grew_old_behind_a_slow_link_is_not_written() {
    everywhere(&config(OutboxPolicy::Refuse, 0), |net| {
        let (gateway, mut producer) = blocked(net, Priority::NORMAL);
        let short = MessageHead { ttl_ms: 2, ..MessageHead::default() };
        producer.send_with(net, told(short), &[1], b"short");
        assert_eq!(producer.publish(net, &[1], b"between").sent, 1, "stage routed of the first");
        let sequence = producer.sequence - 1;
        let long = MessageHead { ttl_ms: 600_000, ..MessageHead::default() };
        producer.publish_with(net, long, &[1], b"long");
        net.settle();
        net.pass_time();
        let all = arrivals(net, gateway, underway(&net.ledger()) - 1);
        assert_eq!(all[all.len() - 2..], ["between", "long"]);
        assert_eq!(last(net, &producer), (sequence, 0, only(ErrorCode::EXPIRED)));
        assert_eq!(net.ledger().gateways.expired, 1);
    });
}

#[test]
fn promise_6_the_oldest_of_the_lowest_priority_make_room() {
    everywhere(&config(OutboxPolicy::DropOldest, 0), |net| {
        let (gateway, mut producer) = blocked(net, Priority::NORMAL);
        assert_eq!(producer.publish_with(net, of(Priority::HIGH), &[1], b"high").sent, 1);
        producer.send_with(net, told(of(Priority::BULK)), &[1], b"bulk");
        let bulk = producer.sequence;
        flood(net, &mut producer);
        net.until(|it| it.gateways.evicted_outbox_full > 0);
        assert_eq!(last(net, &producer), (bulk, 0, only(ErrorCode::OUTBOX_FULL)));
        assert_eq!(producer.publish(net, &[1], b"newest").sent, 1);
        net.settle();
        let ledger = net.ledger();
        // Of a flood from another shard more is on its way than room can be made for; of one from
        // here all is taken.
        let [evicted, refused] =
            [ledger.gateways.evicted_outbox_full, ledger.gateways.dropped_outbox_full];
        assert!(evicted >= 3 && evicted + refused > 30, "{:?}", ledger.gateways);
        assert!(refused == 0 || net.shared().config.shards > 1);
        let all = arrivals(net, gateway, underway(&ledger));
        let (high, newest) = (place(&all, "high"), place(&all, "newest"));
        assert!(high + 10 < newest && newest == all.len() - 1, "{all:?}");
        assert!(!all.contains(&"bulk".to_owned()));
    });
}

#[test]
fn promise_6_a_link_that_is_too_slow_is_ended_with_a_code_that_says_why() {
    for age_max_ms in [0, AGE_MAX_MS] {
        everywhere(&config(OutboxPolicy::Close, age_max_ms), |net| {
            let mut asks = Producer::link(net, 8);
            let (gateway, mut producer) = blocked(net, Priority::NORMAL);
            asks.send_with(net, told(MessageHead::default()), &[1], b"lost");
            let ended = |it: &Ledger| it.links_slow_full + it.links_slow_age == 1;
            if age_max_ms == 0 {
                flood(net, &mut producer);
            }
            net.until(ended);
            assert_eq!(net.ledger().links_slow_age, u64::from(age_max_ms != 0));
            // What became of it is not known.
            assert_eq!(last(net, &asks), (1, 0, BTreeMap::new()));
            assert_eq!(producer.publish(net, &[1], b"gone").offline, [1]);
            assert!(net.ledger().gateways.lost > 0);
            net.stall(gateway, false);
            loop {
                let frame = net.frame(gateway).expect("messages, then an ERROR");
                match Frame::decode(&frame) {
                    Ok(Frame::Deliver(_)) => {}
                    Ok(Frame::Error(it)) => {
                        assert_eq!((it.code, it.fatal), (ErrorCode::SLOW_LINK, true));
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(net.frame(gateway), None);
        });
    }
}

#[test]
fn promise_6_what_waits_too_long_keeps_newer_messages_out() {
    everywhere(&config(OutboxPolicy::Refuse, AGE_MAX_MS), |net| {
        let (gateway, mut producer) = blocked(net, Priority::NORMAL);
        let refused = loop {
            net.settle();
            net.pass_time();
            let receipt = producer.publish_with(net, of(Priority::HIGH), &[1], b"high");
            if receipt.sent == 0 {
                break receipt;
            }
        };
        assert_eq!(refused.dropped, [1], "{refused:?} {:?}", net.ledger());
        let frames = net.ledger().gateways;
        assert!(frames.dropped_outbox_age > 0 && frames.dropped_outbox_full == 0, "{frames:?}");
        producer.send_with(net, told(MessageHead::default()), &[1], b"too late");
        let sequence = producer.sequence;
        assert_eq!(last(net, &producer), (sequence, 0, only(ErrorCode::OUTBOX_AGE)));
        // As soon as it has read, it is served again.
        let count = underway(&net.ledger());
        arrivals(net, gateway, count);
        while producer.publish(net, &[1], b"again").sent == 0 {}
        assert_eq!(arrivals(net, gateway, 1), ["again"]);
    });
}

#[test]
fn promise_6_what_has_waited_too_long_is_dropped_where_the_oldest_are() {
    everywhere(&config(OutboxPolicy::DropOldest, AGE_MAX_MS), |net| {
        let (gateway, mut producer) = blocked(net, Priority::NORMAL);
        producer.send_with(net, told(of(Priority::HIGH)), &[1], b"old");
        let old = producer.sequence;
        net.until(|it| it.gateways.evicted_outbox_age >= 5);
        assert_eq!(last(net, &producer), (old, 0, only(ErrorCode::OUTBOX_AGE)));
        arrivals(net, gateway, net.ledger().gateways.written());
        assert_eq!(producer.publish(net, &[1], b"new").sent, 1);
        loop {
            match &arrivals(net, gateway, 1)[0][..] {
                "new" => break,
                other => assert_ne!(other, "old"),
            }
        }
    });
}

#[test]
fn promise_6_a_higher_priority_goes_ahead_and_answers_go_ahead_of_all() {
    everywhere(&config(OutboxPolicy::Refuse, 0), |net| {
        let (gateway, mut producer) = blocked(net, Priority::BULK);
        let behind = net.ledger().gateways.waiting;
        for (priority, payload) in [
            (Priority::BULK, b"bulk..1"),
            (Priority::NORMAL, b"normal1"),
            (Priority::HIGH, b"high..1"),
            (Priority::NORMAL, b"normal2"),
            (Priority::HIGH, b"high..2"),
        ] {
            assert_eq!(producer.publish_with(net, of(priority), &[1], payload).sent, 1);
        }
        net.send(gateway, &encode(&Frame::Ping(Ping { token: 7 })));
        net.settle();
        let all = arrivals(net, gateway, underway(&net.ledger()) + 1);
        let ahead = ["PONG", "high..1", "high..2", "normal1", "normal2"];
        let places = ahead.map(|it| place(&all, it));
        // Nothing lies between them, all bulk behind them, but what the transport had before.
        assert!(places.is_sorted() && places[4] - places[0] == 4, "{all:?}");
        let after = &all[places[4] + 1..];
        assert_eq!(
            (after.len() as u64, after.last().map(String::as_str)),
            (behind + 1, Some("bulk..1"))
        );
    });
}

#[test]
fn del_35_the_gateway_may_come_back_at_once() {
    everywhere(&config(OutboxPolicy::Close, 0), |net| {
        let (_, mut producer) = blocked(net, Priority::NORMAL);
        flood(net, &mut producer);
        net.until(|it| it.links_slow_full == 1);
        let again = gateway_offering(net, 1, &[1], capability::REPORTS);
        assert_eq!(producer.publish(net, &[1], b"new").sent, 1);
        assert_eq!(arrivals(net, again, 1), ["new"]);
    });
}
