//! Connections that come and go while bytes are on their way in both directions: whatever a backend
//! of threads and sockets still has under way for one that is gone reaches nobody else, and all of
//! it ends.
//!
//! This is also what runs under the address sanitizer (decision 22): the system writes into the
//! buffers of io_uring by itself. `WAYBILL_CHURN_ROUNDS` makes it longer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use waybill_broker::{BrokerConfig, IoEvents};
use waybill_wire::Frame;
use waybill_wire::code::{Level, Op, Role};
use waybill_wire::frame::{Record, Snapshot};
use waybill_wire::message::MessageHead;

use crate::support::{Backend, Net, backends};
use crate::talk::{Gateway, Producer, encode, hello_for};

const SEED: u64 = 6;
const ROUNDS: u32 = 200;

/// More than the system takes for a peer that does not read, so that a write is under way.
const FLOOD: usize = 300;
const PAYLOAD: usize = 32 << 10;

/// The user of a gateway that is about to go.
const DOOMED: u64 = 99;

fn hello(role: Role, instance: u64, wanted_shard: u16) -> Vec<u8> {
    encode(&Frame::Hello(hello_for(role, instance, wanted_shard)))
}

fn publishes(uid: u64, count: usize, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for sequence in 1..=count as u64 {
        let head = MessageHead { sequence, level: Level::ROUTED, ..MessageHead::default() };
        head.encode_publish(&[uid], &vec![5; bytes], &mut out).unwrap();
    }
    out
}

/// Somebody who comes, says something and goes; what the broker says is left where it is.
fn visit(net: &Net, random: &mut SmallRng, instance: u64) {
    let mut stream = TcpStream::connect(net.address()).expect("the broker listens");
    let shard = if random.random_range(0..2) == 0 { 0xffff } else { random.random_range(0..3) };
    // It may be sent away in the middle of it.
    let _ = match random.random_range(0..7) {
        0 => Ok(()),
        1 => {
            stream.write_all(&hello(Role::PRODUCER, instance, shard)[..random.random_range(1..48)])
        }
        // Answers that nobody reads: the system resets the connection.
        2 => stream
            .write_all(&[hello(Role::PRODUCER, instance, shard), publishes(2, 20, 100)].concat()),
        // More than one read brings, cut off in the middle.
        3 => {
            let mut bytes = hello(Role::PRODUCER, instance, shard);
            bytes.extend(publishes(DOOMED, 20, PAYLOAD));
            bytes.truncate(random.random_range(1_000..bytes.len()));
            stream.write_all(&bytes)
        }
        4 => stream.write_all(&[0xff; 64]),
        5 => {
            let said = stream.write_all(&hello(Role::CONSUMER, instance, shard));
            drop(stream.shutdown(Shutdown::Write));
            let mut rest = Vec::new();
            said.and(stream.read_to_end(&mut rest).map(drop))
        }
        _ => {
            let record =
                Record { uid: DOOMED, login: 0, namespace: 0, op: Op::ADD, device_class: 0 };
            let records = [record];
            let snapshot =
                Snapshot { first: true, last: true, version: 1, records: records[..].into() };
            let mut bytes = hello(Role::GATEWAY, instance, shard);
            bytes.extend(encode(&Frame::Snapshot(snapshot)));
            stream.write_all(&bytes).and_then(|()| {
                // Its WELCOME, and a little of what comes then.
                stream.read_exact(&mut [0; 64])
            })
        }
    };
}

fn churn(net: &mut Net, rounds: u32) {
    let random = &mut SmallRng::seed_from_u64(SEED);
    let steady = Gateway::link(net, 1_000_000, &[1]);
    let mut producer = Producer::link(net, 7);
    let mut flood = Producer::link(net, 8);
    for round in 0..rounds {
        for visitor in 0..4 {
            visit(net, random, u64::from(10 + 4 * round + visitor));
        }
        if round % 16 == 0 {
            // A write to a gateway that does not read is under way when it goes.
            let doomed = Gateway::link(net, u64::from(2_000_000 + round), &[DOOMED]);
            for _ in 0..FLOOD {
                flood.send_with(net, MessageHead::default(), &[DOOMED], &[3; PAYLOAD]);
            }
            flood.publish(net, &[1], b"after the flood");
            assert_eq!(steady.delivery(net).payload, b"after the flood");
            net.cut(doomed.line);
        }
        let payload = round.to_le_bytes();
        assert_eq!(producer.publish(net, &[1], &payload).sent, 1);
        assert_eq!(steady.delivery(net).payload, payload, "of round {round}");
    }
    // Whoever is left is asked for a sign of life and gives none.
    net.until_links(3);
}

fn rounds() -> u32 {
    let set = std::env::var("WAYBILL_CHURN_ROUNDS").ok();
    set.map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"))
}

#[test]
fn promises_5_and_10_what_is_under_way_when_a_connection_goes_reaches_nobody_and_ends() {
    let several = |it: &Backend| matches!(it, Backend::Tokio(3) | Backend::Uring(3));
    for backend in backends().into_iter().filter(several) {
        eprintln!("on {backend:?}");
        let mut net = Net::start(backend, BrokerConfig::default());
        churn(&mut net, rounds());
        let IoEvents { stale, .. } = net.ledger().io;
        assert_eq!(stale, 0, "no result meets a socket it is not of");
        net.drain();
        net.stopped();
    }
}
