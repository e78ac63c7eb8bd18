//! Several brokers, one of which dies; brokers by name; what a broker tells its operator.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use waybill_client::{Ack, Consumer, ConsumerConfig, ConsumerEvent, Options, Producer, Publish};

use crate::support::{PATIENCE, Place};
use crate::users::{SECRET, User, ended, login, login_as, next};
use crate::wire::Wire;

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

/// [PUB-5], [DEL-6]: promise 3 from the producer to the socket of the user.
#[tokio::test]
async fn promise_3_a_message_that_goes_again_by_another_broker_reaches_its_user_once() {
    let place = place();
    let (_first, first) = place.serve("broker", &[]);
    let (_second, second) = place.serve("broker", &[]);
    let brokers = [first, second].map(|address| address.to_string());
    let both = ["--broker", &brokers[0], "--broker", &brokers[1]];
    let (_gateway, gateway) = place.serve("gateway", &both);
    let mut user = login(gateway, 1001).await;

    let wire = Wire::to(first);
    let options = Options::new([wire.address().to_string(), brokers[1].clone()]);
    let producer = Producer::connect(options).await.unwrap();
    wire.mute();
    let pending = producer.send(Publish::to([1001]).payload("once")).unwrap();
    assert_eq!(next(&mut user).await["data"], "once");
    wire.cut();
    let receipt = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap();
    assert_eq!((receipt.sent, receipt.resent), (1, true));
    producer.publish(Publish::to([1001]).payload("last")).await.unwrap();
    assert_eq!(next(&mut user).await["data"], "last", "and not the copy");
}

async fn say(user: &mut User, id: u64) {
    let text = format!(r#"{{"type":"send","id":{id},"data":"{id}"}}"#);
    user.send(Message::text(text)).await.unwrap();
}

/// A gateway no longer hears its broker, which has handed the messages of some users on already.
#[tokio::test]
async fn a_user_is_answered_by_way_of_another_broker_and_consumers_get_it_once() {
    let place = place();
    let (_first, first) = place.serve("broker", &[]);
    let (_second, second) = place.serve("broker", &[]);
    let wire = Wire::to(first);
    let brokers = [first, second].map(|address| address.to_string());
    let passed = wire.address().to_string();
    let (_gateway, gateway) =
        place.serve("gateway", &["--broker", &passed, "--broker", &brokers[1]]);
    let config = ConsumerConfig { ack: Ack::Auto, ..ConsumerConfig::default() };
    let (consumer, mut events) = Consumer::connect(Options::new(brokers), config).await.unwrap();
    let mut links = consumer.watch_links();
    let open = |link: &waybill_client::consumer::BrokerLink| {
        matches!(link.state, waybill_client::LinkState::Open(_))
    };
    links.wait_for(|links| links.len() == 2 && links.iter().all(open)).await.unwrap();

    let mut users = Vec::new();
    for uid in 1..=8 {
        users.push(login(gateway, uid).await);
    }
    wire.mute();
    for user in &mut users {
        say(user, 1).await;
    }
    let mut seen = Vec::new();
    while seen.len() < users.len() {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        let ConsumerEvent::Uplink(message) = event else { panic!("{event:?}") };
        seen.push(message.uid);
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8]);
    wire.cut();
    for user in &mut users {
        let answer = next(user).await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("sent"), &json!(1)), "{answer}");
    }
    say(&mut users[0], 2).await;
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    let ConsumerEvent::Uplink(message) = event else { panic!("{event:?}") };
    assert_eq!((message.uid, &message.payload[..]), (1, &b"2"[..]), "and no copy before it");
}

#[tokio::test]
async fn a_newer_login_at_another_gateway_ends_the_older_one() {
    let place = place().variable("WAYBILL_BROKER__LOGINS_DEFAULT", "one");
    let (_broker, broker) = place.serve("broker", &[]);
    let broker = broker.to_string();
    let (_one, one) = place.serve("gateway", &["--broker", &broker]);
    let (_other, other) = place.serve("gateway", &["--broker", &broker]);
    let mut older = login_as(one, 1001, 7).await;
    let mut bystander = login_as(one, 1002, 7).await;
    let mut newer = login_as(other, 1001, 8).await;
    assert_eq!(ended(&mut older).await, 4504);
    place.run(&["pub", "--broker", &broker, "--uid", "1001,1002", "x"]).check(0, &[]);
    for user in [&mut newer, &mut bystander] {
        assert_eq!(next(user).await["data"], "x");
    }
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
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, Value) {
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
