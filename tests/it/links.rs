//! A link per shard (6.13): who serves a link.

use waybill_broker::BrokerConfig;
use waybill_wire::code::{ErrorCode, Level, Role};
use waybill_wire::frame::{Frame, Hello, Welcome};
use waybill_wire::message::MessageHead;

use crate::support::{Net, everywhere};
use crate::talk::{Gateway, Receipt, encode, ends_with, hello_for};

fn check(test: impl Fn(&mut Net)) {
    everywhere(&BrokerConfig::default(), test);
}

fn welcome(frame: Option<Vec<u8>>) -> Welcome {
    let frame = frame.expect("WELCOME");
    match Frame::decode(&frame) {
        Ok(Frame::Welcome(welcome)) => welcome,
        other => panic!("no WELCOME: {other:?}"),
    }
}

#[test]
fn lnk_1_a_link_is_served_by_the_shard_it_wants_and_loses_nothing_on_the_way() {
    check(|net| {
        let shards = net.shared().config.shards;
        let gateway = Gateway::link(net, 1, &[1]);
        for wanted in 0..=shards {
            for instance in 0..4 {
                let instance = 100 + u64::from(wanted) * 10 + instance;
                // All in one piece: what comes behind HELLO goes with the link (SES-3).
                let mut bytes = encode(&Frame::Hello(hello_for(Role::PRODUCER, instance, wanted)));
                for sequence in 1..=3 {
                    let head = MessageHead { sequence, level: Level::ROUTED, ..Default::default() };
                    head.encode_publish(&[1], b"behind", &mut bytes).unwrap();
                }
                let line = net.connect();
                net.send(line, &bytes);
                let welcome = welcome(net.frame(line));
                assert_eq!(welcome.shards, shards);
                assert!(welcome.shard == wanted || (wanted == shards && welcome.shard < shards));
                for sequence in 1..=3 {
                    let frame = net.frame(line).expect("a receipt");
                    let Ok(Frame::Receipt(it)) = Frame::decode(&frame) else { panic!("{frame:?}") };
                    let receipt = Receipt::of(&it);
                    assert_eq!((receipt.sequence, receipt.sent), (sequence, 1));
                    let delivery = gateway.delivery(net);
                    assert_eq!((delivery.origin, delivery.sequence), (Some(instance), sequence));
                }
            }
        }
    });
}

#[test]
fn lnk_1_who_is_refused_is_refused_by_any_shard_and_leaves_nothing_behind() {
    check(|net| {
        for wanted in 0..net.shared().config.shards {
            let line = net.connect();
            let from_the_future =
                Hello { version_min: 9, version_max: 9, ..hello_for(Role::PRODUCER, 5, wanted) };
            net.send(line, &encode(&Frame::Hello(from_the_future)));
            ends_with(net, line, ErrorCode::NO_COMMON_VERSION);
            net.close(line);
            let line = net.connect();
            let mut bytes = encode(&Frame::Hello(hello_for(Role::PRODUCER, 5, wanted)));
            bytes.extend(encode(&Frame::Hello(hello_for(Role::PRODUCER, 5, wanted))));
            net.send(line, &bytes);
            welcome(net.frame(line));
            ends_with(net, line, ErrorCode::UNEXPECTED_FRAME);
            net.close(line);
        }
        let accepted = net.ledger().links_accepted;
        assert_eq!(accepted, 2 * u64::from(net.shared().config.shards), "each is counted once");
        // The last has yet to hear that we have closed it.
        let began = std::time::Instant::now();
        while net.shared().links() > 0 {
            assert!(began.elapsed().as_secs() < 20, "{} links are left", net.shared().links());
            std::thread::yield_now();
            net.pass_time();
        }
    });
}

#[test]
fn promise_10_one_that_is_cut_while_it_is_handed_over_costs_nobody_else_anything() {
    check(|net| {
        let shards = net.shared().config.shards;
        let gateway = Gateway::link(net, 1, &[1]);
        for round in 0..40_u16 {
            let line = net.connect();
            let bytes = encode(&Frame::Hello(hello_for(Role::CONSUMER, 50, round % shards)));
            net.send(line, &bytes);
            net.cut(line);
        }
        let mut producer = crate::talk::Producer::link(net, 7);
        assert_eq!(producer.publish(net, &[1], b"x").sent, 1);
        assert_eq!(gateway.delivery(net).payload, b"x");
        net.settle();
    });
}
