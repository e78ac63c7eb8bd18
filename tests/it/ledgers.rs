//! The two sides of promise 5 at the broker: what is delivered, in doubt and lost; and who is told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use waybill_broker::{Broker, BrokerConfig};
use waybill_wire::Frame;
use waybill_wire::frame::{Ping, Pong};

use crate::support::{Net, backends, everywhere};
use crate::talk::{Gateway, Producer, encode};

/// As often as it can be.
fn quick() -> BrokerConfig {
    BrokerConfig { keepalive_ms: 100, ..BrokerConfig::default() }
}

/// The next PING of a gateway that reads all that comes before it, and how many DELIVERs that was.
fn read_to_ping(net: &mut Net, gateway: &Gateway) -> (usize, u32) {
    let mut deliveries = 0;
    loop {
        let frame = net.any_frame(gateway.line).expect("a frame");
        match Frame::decode(&frame) {
            Ok(Frame::Deliver(_)) => deliveries += 1,
            Ok(Frame::Ping(Ping { token })) => return (deliveries, token),
            other => panic!("nobody asked for {other:?}"),
        }
    }
}

#[test]
fn promise_5_delivered_is_what_was_written_before_an_answered_ping() {
    everywhere(&quick(), |net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let mut producer = Producer::link(net, 7);
        for _ in 0..20 {
            assert_eq!(producer.publish(net, &[1], b"x").sent, 1);
        }
        // The peer has not said a word, so nothing is known to be delivered, whatever was written.
        assert_eq!(net.ledger().gateways.delivered, 0);
        let (mut read, mut confirmed) = (0, 0);
        while confirmed < 20 {
            let (more, token) = read_to_ping(net, &gateway);
            read += more;
            net.send(gateway.line, &encode(&Frame::Pong(Pong { token })));
            let before = confirmed;
            confirmed = net.ledger().gateways.delivered;
            assert!(confirmed >= before && confirmed <= read as u64, "{confirmed} of {read}");
        }
        net.until(|ledger| ledger.gateways.unconfirmed == 0);
        assert_eq!(net.ledger().gateways.delivered, 20);
    });
}

#[test]
fn promise_5_a_link_that_is_busy_is_asked_all_the_same() {
    everywhere(&quick(), |net| {
        let gateway = Gateway::link(net, 1, &[1]);
        let mut producer = Producer::link(net, 7);
        let mut published = 0;
        // `delivery` answers PINGs; the link never rests.
        while net.ledger().gateways.delivered < 3 {
            assert_eq!(producer.publish(net, &[1], b"x").sent, 1);
            published += 1;
            gateway.delivery(net);
            assert!(published < 1_000_000, "{:?}", net.ledger());
            net.pass_time();
        }
    });
}

#[test]
fn promise_5_what_nobody_confirmed_when_the_link_ended_is_in_doubt() {
    for backend in backends() {
        let mut net = Net::start(backend, BrokerConfig::default());
        let gateway = Gateway::link(&mut net, 1, &[1]);
        let mut producer = Producer::link(&mut net, 7);
        for _ in 0..5 {
            producer.publish(&mut net, &[1], b"x");
            gateway.delivery(&mut net);
        }
        net.cut(gateway.line);
        net.until(|ledger| ledger.gateways.unconfirmed + ledger.gateways.waiting == 0);
        let frames = net.ledger().gateways;
        assert_eq!((frames.queued, frames.delivered + frames.in_doubt), (5, 5), "{frames:?}");
        net.finish();
    }
}

fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: broker\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn health_and_ledger_are_told_over_http() {
    let config = BrokerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: "127.0.0.1:0".into(),
        ..BrokerConfig::default()
    };
    let broker = Broker::start(config.clone()).unwrap();
    let admin = broker.admin_addr().expect("it was asked for");
    let told = ask(admin, "/ledger");
    assert!(told.contains(r#""gateways":{"offered":0"#) && told.contains(r#""io":{"starved":0"#));
    let backend = broker.backend();
    assert!(["uring", "tokio"].contains(&backend.name) && !backend.reason.is_empty());
    assert!(ask(admin, "/anything").starts_with("HTTP/1.1 404"));
    let health = ask(admin, "/healthz");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("not_ready"), "{health}");
    for told in [told, health] {
        assert!(told.contains(&format!(r#""backend":{{"name":"{}","#, backend.name)), "{told}");
    }
    let ready = BrokerConfig { ready_quiet_ms: 0, ..config };
    let at_once = Broker::start(ready).unwrap();
    let health = ask(at_once.admin_addr().unwrap(), "/healthz");
    assert!(
        health.starts_with("HTTP/1.1 200") && health.contains(r#""state":"ready""#),
        "{health}"
    );
    broker.drain();
    let health = ask(admin, "/healthz");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("draining"), "{health}");
}
