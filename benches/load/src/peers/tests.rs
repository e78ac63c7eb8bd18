//! Drivers against a listener that never answers: what a server says is played by the test.

use std::net::TcpListener;
use std::rc::Rc;

use super::pubsub::{Addressing, Channels, PubSub, Subjects};
use super::rabbitmq::{Lists, RabbitMq};
use super::routes::{Resolved, Routes};
use crate::driver::{Audience, Driver, Message};
use crate::io::{Io, Socket};
use crate::tally::{Tally, fault};
use crate::work::{Job, Payload, Shares, UID_FIRST, Work, WorkPlan, uid_of};

const GATEWAYS: usize = 4;
const USERS: u64 = 10;

fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

fn tally(shares: Shares) -> Tally {
    Tally::new(Rc::new(Work::new(WorkPlan {
        seed: 1,
        users: USERS,
        gateways: GATEWAYS,
        payload_bytes: 16,
        shares,
        groups: 1,
        group_uids: 4,
    })))
}

fn message<'a>(uids: &'a [u64], payload: &'a [u8]) -> Message<'a> {
    let audience = if uids.is_empty() { Audience::Everyone } else { Audience::Users(uids) };
    Message { number: 0, audience, group: None, payload }
}

/// Sockets of a driver that opened `count`, in order.
fn sockets(io: &Io, count: usize) -> Vec<Socket> {
    assert_eq!(io.count(), count);
    (0..count).map(|at| io.socket(at)).collect()
}

fn taken(io: &mut Io, socket: Socket) -> String {
    String::from_utf8(std::mem::take(io.out(socket))).unwrap()
}

#[test]
fn routes_are_asked_for_together_and_messages_keep_their_order() {
    let server = listener();
    let mut io = Io::new().unwrap();
    let mut routes = Routes::new(server.local_addr().unwrap(), USERS, GATEWAYS);
    routes.connect(&mut io).unwrap();
    let [socket] = sockets(&io, 1)[..] else { panic!("one socket") };
    routes.set_up(&mut io);
    assert!(taken(&mut io, socket).starts_with("*21\r\n$4\r\nMSET\r\n$10\r\n1000000000\r\n$1\r\n"));
    assert!(!routes.is_ready());
    routes.received(b"+OK\r\n", |_, _| ()).unwrap();
    assert!(routes.is_ready() && routes.users_ready() == USERS);

    routes.ask(&message(&[1_000_000_001, 1_000_000_002, 1_000_000_005], b"first"), &mut io);
    routes.ask(&message(&[], b"second"), &mut io);
    routes.ask(&message(&[1_000_000_003], b"third"), &mut io);
    routes.drain(&mut |_, _| panic!("nothing overtakes the first"));
    routes.flush(&mut io);
    let asked = "*5\r\n$4\r\nMGET\r\n$10\r\n1000000001\r\n$10\r\n1000000002\r\n\
        $10\r\n1000000005\r\n$10\r\n1000000003\r\n";
    assert_eq!(taken(&mut io, socket), asked);
    let mut resolved = Vec::new();
    let mut take = |to: Resolved<'_>, payload: &[u8]| {
        let to = match to {
            Resolved::Gateway(gateway, uids) => (gateway, uids.to_vec()),
            Resolved::Everyone => (99, Vec::new()),
        };
        resolved.push((to, String::from_utf8_lossy(payload).into_owned()));
    };
    // The reply comes in two pieces.
    let reply = b"*4\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n1\r\n$1\r\n3\r\n";
    let whole = routes.received(&reply[..13], &mut take).unwrap();
    assert_eq!(whole, 11);
    assert_eq!(routes.received(&reply[whole..], &mut take).unwrap(), reply.len() - whole);
    let first = "first".to_string();
    let expected = [
        ((1, vec![1_000_000_001, 1_000_000_005]), first.clone()),
        ((2, vec![1_000_000_002]), first),
        ((99, vec![]), "second".into()),
        ((3, vec![1_000_000_003]), "third".into()),
    ];
    assert_eq!(resolved, expected);
}

#[test]
fn a_route_that_is_missing_ends_the_run() {
    let server = listener();
    let mut io = Io::new().unwrap();
    let mut routes = Routes::new(server.local_addr().unwrap(), USERS, GATEWAYS);
    routes.connect(&mut io).unwrap();
    routes.ask(&message(&[1_000_000_001], b"p"), &mut io);
    routes.flush(&mut io);
    assert!(routes.received(b"*1\r\n$-1\r\n", |_, _| ()).is_err());
    assert!(routes.received(b"-OOM command not allowed\r\n", |_, _| ()).is_err());
}

#[test]
fn every_gateway_subscribes_its_own_users() {
    let server = listener();
    let (mut io, mut tally) = (Io::new().unwrap(), tally(Shares::SINGLE));
    let address = server.local_addr().unwrap();
    let mut driver: PubSub<Channels> = PubSub::new(address, Addressing::PerUser, USERS, GATEWAYS);
    driver.connect(&mut io).unwrap();
    driver.set_up(&mut io).unwrap();
    let all = sockets(&io, GATEWAYS + 1);
    let first = UID_FIRST % GATEWAYS as u64;
    assert_eq!(first, 0);
    // Users 1, 5 and 9.
    let expected = "*5\r\n$9\r\nSUBSCRIBE\r\n$3\r\nall\r\n$10\r\n1000000001\r\n\
        $10\r\n1000000005\r\n$10\r\n1000000009\r\n";
    assert_eq!(taken(&mut io, all[1]), expected);
    assert_eq!(taken(&mut io, all[4]), "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n");
    for (gateway, count) in [(0, 4), (1, 4), (2, 3), (3, 3)] {
        assert!(!driver.is_ready() && driver.users_ready() < USERS);
        for _ in 0..count {
            let confirmed = b"*3\r\n$9\r\nsubscribe\r\n$3\r\nall\r\n:1\r\n";
            driver.received(all[gateway], confirmed, &mut io, &mut tally).unwrap();
        }
    }
    assert!(driver.is_ready());
    assert_eq!(driver.users_ready(), USERS);
}

#[test]
fn a_gateway_that_is_cut_off_is_a_fault_and_the_run_goes_on() {
    let server = listener();
    let (mut io, mut tally) = (Io::new().unwrap(), tally(Shares::SINGLE));
    let address = server.local_addr().unwrap();
    let mut driver: PubSub<Subjects> = PubSub::new(address, Addressing::Known, USERS, GATEWAYS);
    driver.connect(&mut io).unwrap();
    let all = sockets(&io, GATEWAYS + 1);
    let said = b"-ERR 'Slow Consumer'\r\n";
    driver.received(all[2], said, &mut io, &mut tally).unwrap();
    driver.ended(all[2], &mut tally).unwrap();
    assert!(driver.received(all[4], said, &mut io, &mut tally).is_err());
    assert!(driver.ended(all[4], &mut tally).is_err());
    let faults = tally.end();
    let names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
    assert_eq!(names, [fault::DISCONNECTED, fault::REFUSED]);
    assert!(faults[1].example.contains("Slow Consumer"), "{faults:?}");
}

#[test]
fn a_group_in_parcels_reaches_each_gateway_once() {
    let server = listener();
    let (mut io, mut tally) = (Io::new().unwrap(), tally(Shares::GROUP));
    let address = server.local_addr().unwrap();
    let mut driver: PubSub<Subjects> = PubSub::new(address, Addressing::Known, USERS, GATEWAYS);
    driver.connect(&mut io).unwrap();
    let all = sockets(&io, GATEWAYS + 1);
    let users: Vec<u64> = [0, 1, 2, 5].map(uid_of).into();
    let number = tally.published(Job::Group(0));
    let mut payload = Payload::new(16);
    let payload = payload.of(number, 0);
    driver.publish(&message(&users, payload), &mut io).unwrap();
    let out = std::mem::take(io.out(all[GATEWAYS]));
    let published = String::from_utf8_lossy(&out).into_owned();
    for (line, count) in [("PUB g0 26\r\n", 1), ("PUB g1 34\r\n", 1), ("PUB g3 ", 0)] {
        assert_eq!(published.matches(line).count(), count, "{published:?}");
    }
}

#[test]
fn rabbitmq_that_closes_a_gateway_is_a_fault() {
    let server = listener();
    let (mut io, mut tally) = (Io::new().unwrap(), tally(Shares::SINGLE));
    let mut driver =
        RabbitMq::new(server.local_addr().unwrap(), USERS, GATEWAYS, Lists::CarbonCopies);
    driver.connect(&mut io).unwrap();
    let all = sockets(&io, GATEWAYS + 1);
    let close = b"\x01\x00\x00\x00\x00\x00\x0f\x00\x0a\x00\x32\x01\x40\x04gone\x00\x00\x00\x00\xce";
    driver.received(all[0], close, &mut io, &mut tally).unwrap();
    assert!(driver.received(all[GATEWAYS], close, &mut io, &mut tally).is_err());
    let faults = tally.end();
    assert_eq!(faults[0].name, fault::REFUSED);
    assert!(faults[0].example.contains("320 gone"), "{faults:?}");
}
