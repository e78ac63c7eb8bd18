//! A producer that outruns the broker is slowed by reading less from it, not by memory; gateways'
//! links are always read (promise 6).

use waybill_broker::BrokerConfig;
use waybill_broker::limits::READ_BYTES;
use waybill_wire::Frame;
use waybill_wire::code::{Level, Op, Role};
use waybill_wire::frame::Ping;
use waybill_wire::message::MessageHead;

use crate::support::{Backend, Line, Net, backends};
use crate::talk::{Gateway, Producer, encode, link};

/// More than the broker looks up in one turn, of users whom nobody has.
const TARGETS: u64 = 4_000;

fn config() -> BrokerConfig {
    BrokerConfig { keepalive_ms: 60_000, ..BrokerConfig::default() }
}

/// PUBLISHes that ask for nothing, each as long as it may be.
fn flood(count: u64) -> Vec<u8> {
    let targets: Vec<u64> = (1_000_000..1_000_000 + TARGETS).collect();
    let mut bytes = Vec::new();
    for sequence in 1..=count {
        let head = MessageHead { sequence, level: Level::NONE, ..MessageHead::default() };
        head.encode_publish(&targets, b"", &mut bytes).unwrap();
    }
    bytes
}

/// What a link may hold of what it has brought: a read, the message that takes several turns, and
/// the frame that is split between two reads.
const HELD_MAX: usize = 2 * READ_BYTES;

/// Whether an answer to a PING has come on a simulated link.
fn has_answer(net: &mut Net, line: Line) -> bool {
    let mut found = false;
    while let Some(frame) = net.arrived(line) {
        found |= matches!(Frame::decode(&frame), Ok(Frame::Pong(_)));
    }
    found
}

/// On the simulator each thing that happens is looked at, on sockets what can be seen from outside.
fn holds(backend: Backend) {
    let count = if matches!(backend, Backend::Sim(..)) { 80 } else { 400 };
    let bytes = flood(count);
    assert!(bytes.len() > 2 * HELD_MAX, "it would all fit");
    let mut net = Net::start(backend, config());
    let mut gateway = Gateway::link(&mut net, 1, &[1]);
    let producer = link(&mut net, Role::PRODUCER, 7);
    let mut asking = Producer::link(&mut net, 8);
    net.settle();
    let before = net.shared().pools.used();
    net.send_in_background(producer, bytes);
    let (mut answers, mut most) = (0, 0);
    let ping = encode(&Frame::Ping(Ping { token: 9 }));
    net.send(gateway.line, &ping);
    while net.ledger().publishes < count {
        most = most.max(net.shared().pools.used() - before);
        let is_answered = if net.is_simulated() {
            net.run(1);
            has_answer(&mut net, gateway.line)
        } else {
            let frame = net.frame(gateway.line).expect("PONG");
            matches!(Frame::decode(&frame), Ok(Frame::Pong(_)))
        };
        if is_answered {
            answers += u32::from(net.ledger().publishes < count);
            net.send(gateway.line, &ping);
        }
    }
    assert!(most <= HELD_MAX, "{most} bytes are held of what was not served");
    assert!(answers > 0, "a gateway was read while the producer had more than was served");
    // And what it registers takes effect, of which nobody had to wait for the flood's end.
    if net.is_simulated() {
        while !has_answer(&mut net, gateway.line) {
            net.run(1);
        }
        gateway.change(&mut net, Op::ADD, &[2]);
        assert_eq!(asking.publish(&mut net, &[2], b"x").sent, 1);
    }
    assert!(net.ledger().publishes_routed >= count && net.ledger().links_faulted == 0);
}

#[test]
fn promise_6_a_producer_that_outruns_the_broker_is_read_less_and_gateways_always() {
    for backend in backends() {
        eprintln!("on {backend:?}");
        holds(backend);
    }
}
