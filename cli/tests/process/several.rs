//! Several brokers, one of which dies; brokers by name; what a broker tells its operator.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Place};
use crate::users::{SECRET, login, next};

fn place() -> Place {
    Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET)
}

#[tokio::test]
async fn users_stay_when_a_broker_is_killed_and_pub_goes_to_the_other() {
    let place = place();
    let (mut doomed, first) = place.serve("broker", &[]);
    let (_broker, second) = place.serve("broker", &[]);
    let brokers = [first, second].map(|address| address.to_string());
    let both = ["--broker", &brokers[0], "--broker", &brokers[1]];
    let (_gateway, gateway) = place.serve("gateway", &both);
    let mut user = login(gateway, 1001).await;

    let to = ["pub", "--json", "--receipt", "delivered", "--uid", "1001", "--each-line", "-"];
    let mut told = place.start(&[&to[..], &both].concat());
    told.says(&format!("linked to broker {first}"));
    told.write(b"by the first\n");
    let receipt = told.json();
    assert_eq!((&receipt["sent"], &receipt["resent"]), (&json!(1), &json!(false)));
    doomed.signal(Signal::KILL);
    assert_eq!(doomed.end().code, None, "it was killed");
    told.says(&format!("linked again to broker {second}"));
    told.write(b"by the second\n");
    assert_eq!(told.json()["sent"], 1);
    told.end().check(0, &[]);

    // The user was not asked to come back, and got each message once.
    assert_eq!(next(&mut user).await["data"], "by the first");
    assert_eq!(next(&mut user).await["data"], "by the second");
    place.run(&[&["pub", "--uid", "1001", "last"], &both[..]].concat()).check(0, &[]);
    assert_eq!(next(&mut user).await["data"], "last");
    assert_eq!(get(gateway, "/healthz").0, 200);
}

/// A name may have addresses nobody listens on, as localhost often has two.
#[tokio::test]
async fn a_broker_is_found_by_a_name_that_is_looked_up() {
    let place = place();
    let (_broker, broker) = place.serve("broker", &[]);
    let name = format!("dns:localhost:{}", broker.port());
    let file = place.file("w.toml", format!("[gateway.broker]\naddresses = [\"{name}\"]"));
    let (_gateway, gateway) = place.serve("gateway", &["--config", &file]);
    let mut user = login(gateway, 1001).await;
    let told = place.run(&["pub", "--broker", &name, "--uid", "1001", "hello"]);
    told.check(0, &[]);
    assert_eq!(told.stdout, "sent 1, gateways 1\n");
    assert_eq!(next(&mut user).await["data"], "hello");
}

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{answer}: {error}")))
}

#[tokio::test]
async fn an_operator_is_told_health_and_ledger() {
    let place = place()
        .variable("WAYBILL_BROKER__ADMIN_LISTEN", "127.0.0.1:0")
        .variable("WAYBILL_BROKER__READY_QUIET_MS", "60000")
        .variable("WAYBILL_BROKER__GATEWAYS_EXPECTED", "1");
    let broker = place.start(&["broker", "--json", "--listen", "127.0.0.1:0"]);
    let ready = broker.json();
    let [address, admin] = ["broker", "admin"].map(|name| ready[name].as_str().unwrap());
    let admin = admin.parse().unwrap();
    let (status, health) = get(admin, "/healthz");
    assert_eq!((status, &health["state"]), (503, &json!("not_ready")));

    let (_gateway, gateway) = place.serve("gateway", &["--broker", address]);
    let mut user = login(gateway, 1001).await;
    let to = ["pub", "--broker", address, "--receipt", "delivered", "--uid", "1001,7", "x"];
    place.run(&to).check(0, &[]);
    assert_eq!(next(&mut user).await["data"], "x");
    let (status, health) = get(admin, "/healthz");
    assert_eq!((status, &health["state"]), (200, &json!("ready")));
    let (status, ledger) = get(admin, "/ledger");
    assert_eq!((status, &ledger["gateways"]["queued"]), (200, &json!(1)));
    let (status, ledger) = get(gateway, "/ledger");
    assert_eq!((status, &ledger["delivered"]), (200, &json!(1)), "{ledger}");
}
