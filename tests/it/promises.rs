//! The promises this version keeps, by name, on every backend. See ARCHITECTURE.md for their text.

use waybill_broker::BrokerConfig;
use waybill_wire::code::{ErrorCode, Mode, Op};
use waybill_wire::message::MessageHead;

use crate::support::{Net, everywhere};
use crate::talk::{Gateway, Producer};

fn check(test: impl Fn(&mut Net)) {
    everywhere(&BrokerConfig::default(), test);
}

#[test]
fn promise_1_each_gateway_gets_its_own_users_and_no_others() {
    check(|net| {
        let gateways = [
            Gateway::link(net, 1, &[10, 11, 12]),
            Gateway::link(net, 2, &[20, 21]),
            Gateway::link(net, 3, &[30, 11]),
        ];
        let mut producer = Producer::link(net, 7);
        let receipt = producer.publish(net, &[21, 11, 99, 10, 21], b"opaque \x00\xff");
        assert_eq!((receipt.sent, receipt.gateways), (3, 3));
        assert_eq!(receipt.offline, [99]);
        for (gateway, targets) in gateways.iter().zip([&[11, 10][..], &[21], &[11]]) {
            let delivery = gateway.delivery(net);
            assert_eq!(delivery.targets, targets);
            assert_eq!(delivery.payload, b"opaque \x00\xff");
            assert_eq!((delivery.origin, delivery.sequence), (Some(7), 1));
        }
    });
}

#[test]
fn promise_1_the_same_uid_in_two_namespaces_is_two_users() {
    check(|net| {
        let one = Gateway::link_with(net, 1, &[(1, 1001)]);
        let two = Gateway::link_with(net, 2, &[(2, 1001)]);
        let mut producer = Producer::link(net, 7);
        let in_two = MessageHead { namespace: 2, ..MessageHead::default() };
        assert_eq!(producer.publish_with(net, in_two, &[1001], b"x").gateways, 1);
        assert_eq!(two.delivery(net).namespace, 2);
        let in_one = MessageHead { namespace: 1, ..MessageHead::default() };
        assert_eq!(producer.publish_with(net, in_one, &[1001], b"y").gateways, 1);
        // Had the first come here too, it would have come first.
        assert_eq!(one.delivery(net).payload, b"y");
    });
}

#[test]
fn promise_1_except_always_wins() {
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1, 2, 3]);
        let mut producer = Producer::link(net, 7);
        let but_two = MessageHead { except: (&[2]).into(), ..MessageHead::default() };
        let receipt = producer.publish_with(net, but_two, &[1, 2, 3, 4], b"x");
        assert_eq!((receipt.sent, receipt.filtered, receipt.offline), (2, vec![2], vec![4]));
        let delivery = gateway.delivery(net);
        assert_eq!((delivery.targets, delivery.except), (vec![1, 3], vec![]));
        let all_but_two =
            MessageHead { everyone: true, except: (&[2]).into(), ..MessageHead::default() };
        assert_eq!(producer.publish_with(net, all_but_two, &[], b"x").gateways, 1);
        let delivery = gateway.delivery(net);
        assert_eq!((delivery.everyone, delivery.except), (true, vec![2]));
    });
}

#[test]
fn promise_1_broadcast_goes_to_every_gateway_unchanged() {
    check(|net| {
        let gateways = [Gateway::link(net, 1, &[1]), Gateway::link(net, 2, &[2])];
        let mut producer = Producer::link(net, 7);
        let head = MessageHead { mode: Mode::BROADCAST, ..MessageHead::default() };
        let receipt = producer.publish_with(net, head, &[2, 5], b"x");
        assert_eq!((receipt.gateways, receipt.unknown, receipt.sent), (2, 2, 0));
        for gateway in &gateways {
            assert_eq!(gateway.delivery(net).targets, [2, 5]);
        }
    });
}

#[test]
fn promise_2_messages_of_one_producer_reach_a_gateway_in_order() {
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let mut producer = Producer::link(net, 7);
        for number in 0..300_u16 {
            producer.send_with(net, MessageHead::default(), &[1], &number.to_le_bytes());
        }
        for number in 0..300_u16 {
            assert_eq!(gateway.delivery(net).payload, number.to_le_bytes());
        }
    });
}

#[test]
fn promise_5_what_is_queued_is_written_or_counted_by_cause() {
    for backend in crate::support::backends() {
        let mut net = Net::start(backend, BrokerConfig::default());
        let gateway = Gateway::link(&mut net, 1, &[1]);
        let mut producer = Producer::link(&mut net, 7);
        for _ in 0..20 {
            producer.publish(&mut net, &[1, 2], b"x");
        }
        for _ in 0..20 {
            gateway.delivery(&mut net);
        }
        let ledger = net.ledger();
        let queued = ledger.gateways.queued;
        assert_eq!((ledger.publishes, queued, ledger.targets_offline), (20, 20, 20));
        net.finish();
    }
}

#[test]
fn promise_8_a_gateway_whose_link_ended_is_offline_at_once() {
    check(|net| {
        let gateway = Gateway::link(net, 1, &[1, 2]);
        let mut producer = Producer::link(net, 7);
        assert_eq!(producer.publish(net, &[1, 2], b"x").sent, 2);
        net.close(gateway.line);
        assert_eq!(producer.publish(net, &[1, 2], b"x").offline, [1, 2]);
    });
}

#[test]
fn promise_8_a_login_elsewhere_never_removes_a_route() {
    check(|net| {
        let mut first = Gateway::link(net, 1, &[1]);
        let second = Gateway::link(net, 2, &[1]);
        let mut producer = Producer::link(net, 7);
        let receipt = producer.publish(net, &[1], b"x");
        assert_eq!((receipt.sent, receipt.gateways), (1, 2));
        assert_eq!(first.delivery(net).payload, b"x");
        first.change(net, Op::REMOVE, &[1]);
        assert_eq!(producer.publish(net, &[1], b"y").gateways, 1);
        for payload in [b"x", b"y"] {
            assert_eq!(second.delivery(net).payload, payload);
        }
    });
}

#[test]
fn promise_8_a_newer_link_of_the_same_life_takes_over_without_a_gap() {
    check(|net| {
        let older = Gateway::link(net, 1, &[1, 2]);
        let mut producer = Producer::link(net, 7);
        // Until the newer link's snapshot ends, the older one serves.
        let newer = net.connect();
        net.send(newer, &crate::talk::hello(waybill_wire::code::Role::GATEWAY, 1));
        net.frame(newer).expect("WELCOME");
        assert_eq!(producer.publish(net, &[1], b"x").sent, 1);
        assert_eq!(older.delivery(net).payload, b"x");
        let newer = Gateway::link(net, 1, &[2, 3]);
        let receipt = producer.publish(net, &[1, 2, 3], b"y");
        assert_eq!((receipt.gateways, receipt.offline), (1, vec![1]));
        assert_eq!(newer.delivery(net).targets, [2, 3]);
        let ended = net.frame(older.line).expect("an ERROR");
        match waybill_wire::Frame::decode(&ended) {
            Ok(waybill_wire::Frame::Error(error)) => assert_eq!(error.code, ErrorCode::SUPERSEDED),
            other => panic!("{other:?}"),
        }
    });
}
