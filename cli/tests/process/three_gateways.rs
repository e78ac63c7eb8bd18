//! One broker and three gateways, each a process of its own, and 980 users on WebSockets.
//!
//! What the broker sends to the gateways is recorded by a proxy in between and taken apart by
//! `waybill inspect`: nothing here is read off a counter.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::Place;
use crate::users::{SECRET, login, next};

const USERS: u64 = 1000;
const GATEWAYS: usize = 3;

/// Passes bytes on in both directions and remembers those from the broker.
fn recorder(broker: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let record = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&record);
    std::thread::spawn(move || {
        let gateway = listener.accept().unwrap().0;
        let broker = TcpStream::connect(broker).unwrap();
        let (up_from, up_to) = (gateway.try_clone().unwrap(), broker.try_clone().unwrap());
        std::thread::spawn(move || copy(up_from, up_to, &Mutex::default()));
        copy(broker, gateway, &kept);
    });
    (address, record)
}

fn copy(mut from: TcpStream, mut to: TcpStream, record: &Mutex<Vec<u8>>) {
    let mut piece = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        record.lock().unwrap().extend_from_slice(&piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Runs `waybill pub` and returns its receipt.
fn publish(place: &Place, broker: SocketAddr, arguments: &[&str]) -> Value {
    let ended =
        place.run(&[&["pub", "--json", "--broker", &broker.to_string()], arguments].concat());
    ended.check(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// The DELIVER frames in a record, as `waybill inspect` shows them.
fn deliveries(place: &Place, record: &Mutex<Vec<u8>>) -> Vec<Value> {
    let file = place.file("record", &*record.lock().unwrap());
    let ended = place.run(&["inspect", "--json", "--format", "bin", "--file", &file]);
    ended.check(0, &[]);
    let frames = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    frames.filter(|frame| frame["kind"] == "DELIVER").collect()
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|uid| uid.as_str().unwrap().parse().unwrap()).collect()
}

/// The gateway a user is on; every fiftieth user is nowhere.
fn home(uid: u64) -> Option<usize> {
    (!uid.is_multiple_of(50)).then(|| usize::try_from(uid).unwrap() % GATEWAYS)
}

#[tokio::test]
async fn a_message_to_a_thousand_users_costs_one_narrowed_frame_per_gateway() {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let (_broker, broker) = place.serve("broker", &[]);
    let mut gateways = Vec::new();
    for _ in 0..GATEWAYS {
        let (proxy, record) = recorder(broker);
        let (server, address) = place.serve("gateway", &["--broker", &proxy.to_string()]);
        gateways.push((server, address, record));
    }
    let mut users = Vec::new();
    for (uid, at) in (1..=USERS).filter_map(|uid| home(uid).map(|at| (uid, at))) {
        users.push((uid, login(gateways[at].1, uid).await));
    }
    // Somebody it is not for, on the same gateway as others.
    let mut bystander = login(gateways[0].1, 5_000).await;

    let list: String = (1..=USERS).map(|uid| format!("{uid}\n")).collect();
    let file = place.file("users", list);
    let receipt = publish(&place, broker, &["--uids-file", &file, "to many"]);
    let nowhere: Vec<u64> = (1..=USERS).filter(|&uid| home(uid).is_none()).collect();
    assert_eq!(numbers(&receipt["offline"]), nowhere, "the receipt names who is offline");
    assert_eq!((receipt["sent"].as_u64(), receipt["gateways"].as_u64()), (Some(980), Some(3)));

    publish(&place, broker, &["--all", "to all"]);
    for (uid, user) in &mut users {
        let got = [next(user).await, next(user).await];
        let data = got.each_ref().map(|message| message["data"].as_str().unwrap());
        assert_eq!(data, ["to many", "to all"], "user {uid} got it once, and nothing else");
    }
    assert_eq!(next(&mut bystander).await["data"], "to all");

    for (at, (_, _, record)) in gateways.iter().enumerate() {
        let frames = deliveries(&place, record);
        assert_eq!(frames.len(), 2, "one frame for the message, one for the message to all");
        let targets: BTreeSet<u64> = numbers(&frames[0]["targets"]).into_iter().collect();
        let own: BTreeSet<u64> = (1..=USERS).filter(|&uid| home(uid) == Some(at)).collect();
        assert_eq!(targets, own, "gateway {at} is told of its own users and no others");
    }
}
