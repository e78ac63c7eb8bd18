//! What `pub` is told: of users who were reached, of long lists, of brokers that are not ready.

use serde_json::{Value, json};

use crate::support::{Place, Running};
use crate::users::{SECRET, login, next};

/// A `waybill up` that mints with [`SECRET`]; and what it said of itself.
fn up() -> (Place, Running, Value) {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let up = place.up();
    let ready = up.json();
    (place, up, ready)
}

fn sub(place: &Place, uids: &str, more: &[&str]) -> Running {
    let sub = place.start(&[&["sub", "--json", "--uid", uids], more].concat());
    sub.says("listening");
    sub
}

#[tokio::test]
async fn delivered_means_that_gateways_have_reported() {
    let (place, _up, ready) = up();
    let mut user = login(ready["gateway"].as_str().unwrap().parse().unwrap(), 1002).await;
    let sub = sub(&place, "1001", &[]);
    let to = ["pub", "--receipt", "delivered"];
    let told = place.run(&[&to[..], &["--uid", "1001,1002,4242", "hello"]].concat());
    told.check(0, &["linked to broker"]);
    assert_eq!(told.stdout, "delivered 2, gateways 2, offline: 4242\n");
    assert_eq!(sub.json()["data"], "hello");
    assert_eq!(next(&mut user).await["data"], "hello");

    let told = place.run(&[&to[..], &["--json", "--uid", "1002", "--uid", "4242", "x"]].concat());
    told.check(0, &[]);
    let receipt = &told.json()[0];
    assert_eq!((&receipt["stage"], &receipt["sent"]), (&json!("delivered"), &json!(1)));
    assert_eq!((&receipt["offline"], &receipt["unknown_count"]), (&json!(["4242"]), &json!(0)));
    assert_eq!((&receipt["in_doubt"], &receipt["resent"]), (&json!(false), &json!(false)));

    let all = place.run(&[&to[..], &["--all", "--except", "1001", "all"]].concat());
    all.check(0, &[]);
    assert_eq!(all.stdout, "delivered 1, gateways 2, filtered 1\n");
}

#[test]
fn a_hundred_thousand_users_are_one_message_with_one_receipt() {
    let (place, _up, _) = up();
    let online: Vec<String> = (1..=2_000).map(|n| (n * 50).to_string()).collect();
    let sub = sub(&place, &online.join(","), &[]);
    let list: String = (1..=100_000).map(|uid| format!("{uid}\n")).collect();
    let file = place.file("users", list);
    let to = ["pub", "--receipt", "delivered", "--uids-file", &file];
    let told = place.run(&[&to[..], &["--json", "to many"]].concat());
    told.check(0, &[]);
    let receipts = told.json();
    assert_eq!(receipts.len(), 1);
    assert_eq!((&receipts[0]["sent"], &receipts[0]["stage"]), (&json!(2_000), &json!("delivered")));
    assert_eq!(receipts[0]["offline"].as_array().unwrap().len(), 98_000);
    assert_eq!(receipts[0]["offline_count"], 98_000);
    let mut reached = 0;
    while reached < 2_000 {
        let shown = sub.json();
        assert_eq!(shown["data"], "to many");
        reached += shown["targets"].as_array().unwrap().len();
    }
    assert_eq!(reached, 2_000, "nobody twice");

    let told = place.run(&[&to[..], &["again"]].concat());
    told.check(0, &[]);
    assert!(told.stdout.starts_with("delivered 2000, gateways 25, offline: 1 2 3 "), "{told:?}");
    assert!(told.stdout.ends_with(" 20 and 97980 more\n"), "{told:?}");
}

/// A broker that is not ready before it has seen a gateway.
fn waiting_broker() -> (Place, Running, String) {
    let place = Place::new()
        .variable("WAYBILL_BROKER__READY_QUIET_MS", "60000")
        .variable("WAYBILL_BROKER__GATEWAYS_EXPECTED", "1");
    let (broker, address) = place.serve("broker", &[]);
    (place, broker, address.to_string())
}

#[test]
fn messages_wait_for_a_broker_that_is_not_ready() {
    let (place, _broker, address) = waiting_broker();
    let mut told = place.start(&["pub", "--broker", &address, "--uid", "9", "hello"]);
    told.says(&format!("linked to broker {address}, which is not ready yet: messages wait"));
    let sub = sub(&place, "9", &["--broker", &address]);
    told.says(&format!("broker {address} is ready now"));
    assert_eq!(told.line(), "sent 1, gateways 1");
    told.end().check(0, &[]);
    assert_eq!(sub.json()["data"], "hello");
}

#[test]
fn patience_with_a_broker_that_is_not_ready_ends() {
    let (place, _broker, address) = waiting_broker();
    let to = ["pub", "--broker", &address, "--uid", "9", "--timeout", "200ms"];
    let told = place.run(&[&to[..], &["hello"]].concat());
    told.check(
        1,
        &[
            &format!("not sent in time: broker {address} is not ready"),
            "1 gateway is missing",
            "nothing of it was sent; start the gateways",
        ],
    );
    assert_eq!(told.stdout, "");
    assert!(!told.stderr.contains("in doubt"), "{told:#?}");
    let told = place.run(&[&to[..], &["--json", "hello"]].concat());
    told.check(1, &[]);
    assert!(told.json()[0]["error"].as_str().unwrap().contains("is not ready"), "{told:#?}");
}

#[test]
fn another_broker_is_taken_if_one_is_not_ready() {
    let (place, _broker, address) = waiting_broker();
    let (_ready, other) = Place::new().serve("broker", &[]);
    let other = other.to_string();
    let to = ["pub", "--broker", &address, "--broker", &other, "--uid", "9", "hello"];
    let told = place.run(&to);
    told.check(0, &[&format!("to broker {other}\n")]);
    assert_eq!(told.stdout, "sent 0, gateways 0, offline: 9\n");
}
