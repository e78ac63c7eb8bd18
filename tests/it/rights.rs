//! Who may link in which role, and what a credential allows in which namespace.

use waybill_broker::{BrokerConfig, TokenConfig};
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Level, Mode, Op, Role};
use waybill_wire::frame::{Drain, Ping, Record, Snapshot, UplinkAck};
use waybill_wire::message::{MessageHead, Sender};

use crate::support::{Line, Net, everywhere};
use crate::talk::{Producer, encode, ends_with, hello_with};

fn config() -> BrokerConfig {
    let token = |name: &str, roles: &[&str], namespaces: Option<Vec<u32>>| TokenConfig {
        name: name.into(),
        token: format!("the {name} token"),
        roles: roles.iter().map(ToString::to_string).collect(),
        namespaces,
    };
    let tokens = vec![
        token("producer", &["producer"], Some(vec![1])),
        token("gateway", &["gateway"], Some(vec![1])),
        token("other", &["gateway", "consumer"], None),
        token("tenants", &["producer"], Some(vec![1, 2])),
    ];
    BrokerConfig { tokens, ..BrokerConfig::default() }
}

fn greet(net: &mut Net, role: Role, credential: &str) -> Line {
    let line = net.connect();
    net.send(line, &hello_with(role, 7, credential.as_bytes()));
    line
}

fn welcomed(net: &mut Net, role: Role, credential: &str) -> Line {
    let line = greet(net, role, credential);
    let frame = net.frame(line).unwrap();
    assert!(matches!(Frame::decode(&frame), Ok(Frame::Welcome(_))), "{credential}: {frame:02x?}");
    line
}

#[test]
fn a_link_needs_a_token_that_allows_its_role() {
    let refused = [
        (Role::PRODUCER, "", ErrorCode::BAD_CREDENTIAL),
        (Role::PRODUCER, "the producer toke", ErrorCode::BAD_CREDENTIAL),
        (Role::PRODUCER, "the producer token ", ErrorCode::BAD_CREDENTIAL),
        (Role::PRODUCER, "the gateway token", ErrorCode::NOT_PERMITTED),
        (Role::GATEWAY, "the producer token", ErrorCode::NOT_PERMITTED),
        (Role::CONSUMER, "the gateway token", ErrorCode::NOT_PERMITTED),
        (Role::ADMIN, "the other token", ErrorCode::NOT_SUPPORTED),
        (Role::LEAF, "the other token", ErrorCode::NOT_SUPPORTED),
    ];
    everywhere(&config(), |net| {
        for (role, credential, code) in refused {
            let line = greet(net, role, credential);
            ends_with(net, line, code);
        }
        welcomed(net, Role::PRODUCER, "the producer token");
        assert_eq!(net.ledger().hellos_refused, refused.len() as u64);
    });
}

#[test]
fn promise_1_a_producer_reaches_only_the_namespaces_of_its_token() {
    everywhere(&config(), |net| {
        let line = welcomed(net, Role::PRODUCER, "the producer token");
        let mut producer = Producer { line, sequence: 0 };
        let to = |namespace| MessageHead { namespace, ..MessageHead::default() };
        let receipt = producer.publish_with(net, to(2), &[1001], b"x");
        assert_eq!((receipt.code, receipt.offline), (ErrorCode::NOT_PERMITTED, vec![]));
        assert_eq!(producer.publish_with(net, to(1), &[1001], b"x").offline, [1001]);
    });
}

#[test]
fn a_gateway_registers_only_in_the_namespaces_of_its_token() {
    everywhere(&config(), |net| {
        let line = welcomed(net, Role::GATEWAY, "the gateway token");
        let record = Record { uid: 1, login: 0, namespace: 2, op: Op::ADD, device_class: 0 };
        let records = [record];
        let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
        net.send(line, &encode(&Frame::Snapshot(snapshot)));
        ends_with(net, line, ErrorCode::NOT_PERMITTED);
    });
}

#[test]
fn a_consumer_sees_only_uplinks_of_its_namespaces_and_a_gateway_sends_only_its_own() {
    everywhere(&config(), |net| {
        let consumer = welcomed(net, Role::CONSUMER, "the other token");
        let gateway = welcomed(net, Role::GATEWAY, "the gateway token");
        let mut out = Vec::new();
        for (sequence, namespace) in [(1, 2), (2, 1)] {
            let sender = Some(Sender { uid: 1001, connection: 5 });
            let head = MessageHead { sequence, namespace, sender, ..MessageHead::default() };
            head.encode_uplink(b"up", &mut out).unwrap();
        }
        net.send(gateway, &out);
        let refused = net.frame(gateway).unwrap();
        let Ok(Frame::UplinkAck(ack)) = Frame::decode(&refused) else { panic!("{refused:02x?}") };
        assert_eq!((ack.code, ack.sequence), (ErrorCode::NOT_PERMITTED, 1));
        let came = net.frame(consumer).unwrap();
        let Ok(Frame::Uplink(uplink)) = Frame::decode(&came) else { panic!("{came:02x?}") };
        assert_eq!((uplink.sequence, uplink.origin, uplink.payload), (2, Some(7), &b"up"[..]));
    });
}

#[test]
fn nobody_takes_over_a_gateway_that_another_token_linked() {
    everywhere(&config(), |net| {
        let gateway = welcomed(net, Role::GATEWAY, "the gateway token");
        let thief = greet(net, Role::GATEWAY, "the other token");
        ends_with(net, thief, ErrorCode::NOT_PERMITTED);
        let snapshot = Snapshot { first: true, last: true, version: 1, records: (&[]).into() };
        net.send(gateway, &encode(&Frame::Snapshot(snapshot)));
        let frame = net.frame(gateway).unwrap();
        assert!(matches!(Frame::decode(&frame), Ok(Frame::InEffect(_))));
    });
}

#[test]
fn promise_1_a_gateway_gets_no_frame_of_a_namespace_it_has_no_right_to() {
    everywhere(&config(), |net| {
        let stranger = welcomed(net, Role::GATEWAY, "the gateway token");
        let snapshot = Snapshot { first: true, last: true, version: 1, records: (&[]).into() };
        net.send(stranger, &encode(&Frame::Snapshot(snapshot)));
        net.frame(stranger).unwrap();
        let line = welcomed(net, Role::PRODUCER, "the tenants token");
        let mut producer = Producer { line, sequence: 0 };
        let broadcast =
            |namespace| MessageHead { namespace, mode: Mode::BROADCAST, ..MessageHead::default() };
        assert_eq!(producer.publish_with(net, broadcast(2), &[1], b"secret").gateways, 0);
        let everyone = MessageHead { everyone: true, ..broadcast(2) };
        assert_eq!(producer.publish_with(net, everyone, &[], b"secret").gateways, 0);
        assert_eq!(producer.publish_with(net, broadcast(1), &[1], b"its own").gateways, 1);
        let first = net.frame(stranger).unwrap();
        let Ok(Frame::Deliver(first)) = Frame::decode(&first) else { panic!("{first:02x?}") };
        assert_eq!(first.payload, b"its own");
    });
}

#[test]
fn a_consumer_that_drains_gets_no_further_uplink() {
    everywhere(&config(), |net| {
        let gateway = welcomed(net, Role::GATEWAY, "the other token");
        let consumer = welcomed(net, Role::CONSUMER, "the other token");
        let up = |net: &mut Net, sequence| {
            let sender = Some(Sender { uid: 1001, connection: 5 });
            let head = MessageHead { sequence, sender, ..MessageHead::default() };
            let mut out = Vec::new();
            head.encode_uplink(b"up", &mut out).unwrap();
            net.send(gateway, &out);
        };
        up(net, 1);
        assert!(net.frame(consumer).is_some());
        net.send(consumer, &encode(&Frame::Drain(Drain { deadline_ms: 0 })));
        // PINGs are answered in order with what came before them.
        net.send(consumer, &encode(&Frame::Ping(Ping { token: 1 })));
        assert!(matches!(Frame::decode(&net.frame(consumer).unwrap()), Ok(Frame::Pong(_))));
        up(net, 2);
        let answer = net.frame(gateway).unwrap();
        let Ok(Frame::UplinkAck(answer)) = Frame::decode(&answer) else { panic!("{answer:02x?}") };
        assert_eq!((answer.sequence, answer.code), (2, ErrorCode::NO_CONSUMER));
        // It still owes an answer for the first, and may give it.
        let ack = UplinkAck { code: ErrorCode(0), sequence: 1, origin: 7 };
        net.send(consumer, &encode(&Frame::UplinkAck(ack)));
        let answer = net.frame(gateway).unwrap();
        let Ok(Frame::UplinkAck(answer)) = Frame::decode(&answer) else { panic!("{answer:02x?}") };
        assert_eq!((answer.sequence, answer.code), (1, ErrorCode(0)));
    });
}

#[test]
fn an_uplink_that_asks_for_what_does_not_run_is_refused() {
    everywhere(&BrokerConfig::default(), |net| {
        let gateway = welcomed(net, Role::GATEWAY, "");
        let sender = Some(Sender { uid: 1001, connection: 5 });
        let level = Level::ACKNOWLEDGED;
        let head = MessageHead { sequence: 1, sender, level, ..MessageHead::default() };
        let mut out = Vec::new();
        head.encode_uplink(b"up", &mut out).unwrap();
        net.send(gateway, &out);
        let answer = net.frame(gateway).unwrap();
        let Ok(Frame::UplinkAck(answer)) = Frame::decode(&answer) else { panic!("{answer:02x?}") };
        assert_eq!(answer.code, ErrorCode::NOT_SUPPORTED);
    });
}
