//! Several of it together: what `pub` sends is what `sub` shows.

use rustix::process::Signal;
use serde_json::{Value, json};
use waybill_client::gateway::{GatewayEvent, GatewayLink, Uplink};
use waybill_client::{ErrorCode, Options};

use crate::support::{Place, Running};

/// A place with a running `up`.
struct Together {
    place: Place,
    ready: Value,
    _up: Running,
}

impl Together {
    fn new() -> Self {
        let place = Place::new();
        let up = place.up();
        Self { ready: up.json(), place, _up: up }
    }

    fn sub(&self, arguments: &str) -> Running {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let sub = self.place.start(&[&["sub", "--json"], &arguments[..]].concat());
        sub.says("listening");
        sub
    }

    /// The receipts of `pub`, which must go well.
    fn publish(&self, arguments: &[&str], stdin: &str) -> Vec<Value> {
        let arguments = [&["pub", "--json"], arguments].concat();
        let ended = self.place.run_with(&arguments, stdin.as_bytes());
        ended.check(0, &[]);
        ended.json()
    }
}

#[test]
fn a_message_reaches_its_audience_and_nobody_else() {
    let together = Together::new();
    let one = together.sub("--uid 1001,1002");
    let two = together.sub("--uid 1003");
    let other = together.sub("--uid 1001 --namespace 7");

    let receipt = &together.publish(&["--uid", "1001", "--uid", "1003,4242", "hello"], "")[0];
    assert_eq!((&receipt["sent"], &receipt["gateways"]), (&json!(2), &json!(2)));
    assert_eq!(receipt["offline"], json!(["4242"]));
    let shown = one.json();
    assert_eq!(shown["targets"], json!(["1001"]));
    assert_eq!((&shown["data"], &shown["id"]), (&json!("hello"), &receipt["id"]));
    assert_eq!(two.json()["targets"], json!(["1003"]));

    together.publish(&["--all", "--except", "1002", "--label", "a.b", "all"], "");
    let shown = one.json();
    assert_eq!((&shown["targets"], &shown["labels"]), (&json!(["1001"]), &json!(["a.b"])));
    assert_eq!(two.json()["data"], "all");

    together.publish(&["--uid", "1002", "--mode", "broadcast", "--content-type", "text", "b"], "");
    let shown = one.json();
    assert_eq!((&shown["targets"], &shown["content"]), (&json!(["1002"]), &json!("text")));

    // What comes now is the first that these two were meant to see.
    together.publish(&["--uid", "1003", "last"], "");
    assert_eq!(two.json()["data"], "last");
    together.publish(&["--uid", "1001", "--namespace", "7", "tenant 7"], "");
    assert_eq!(other.json()["data"], "tenant 7");
}

#[test]
fn payloads_come_from_arguments_files_and_lines() {
    let together = Together::new();
    let sub = together.sub("--uid 1");
    let binary = together.place.file("binary", [0xff, 0, 1]);
    together.publish(&["--uid", "1", "--payload-file", &binary], "");
    assert_eq!(sub.json()["data64"], "/wAB");
    together.publish(&["--uid", "1", "--payload-file", "-"], "two\nlines\n");
    assert_eq!(sub.json()["data"], "two\nlines\n");
    let uids = together.place.file("uids", "1\n2\n\n 3 \n");
    let receipts = together.publish(&["--uids-file", &uids, "--each-line", "-"], "a\n\nc");
    assert_eq!(receipts.len(), 3);
    assert_eq!((&receipts[2]["line"], &receipts[2]["offline"]), (&json!(3), &json!(["2", "3"])));
    for expected in ["a", "", "c"] {
        assert_eq!(sub.json()["data"], expected);
    }
    let lines =
        "{\"uids\":[\"1\"],\"data\":\"x\",\"ttl\":\"5s\"}\n{\"all\":true,\"data64\":\"AP8=\"}\n";
    together.publish(&["--lines", "-", "--label", "l"], lines);
    assert_eq!(sub.json()["data"], "x");
    let last = sub.json();
    assert_eq!((&last["data64"], &last["labels"]), (&json!("AP8="), &json!(["l"])));
}

#[test]
fn a_wrong_line_stops_after_those_before_it() {
    let together = Together::new();
    let lines = "{\"uids\":[1],\"data\":\"x\"}\n{\"uids\":[]}\n{\"uids\":[1],\"data\":\"y\"}\n";
    let ended = together.place.run_with(&["pub", "--json", "--lines", "-"], lines.as_bytes());
    ended.check(1, &["line 2 of stdin", "no payload"]);
    assert_eq!(ended.json().len(), 1);
}

#[test]
fn blank_lines_are_no_messages_and_keep_their_numbers() {
    let together = Together::new();
    let lines = "\n{\"uids\":[1],\"data\":\"x\"}\n \r\n{\"all\":true,\"data\":\"y\"}\n\n";
    let receipts = together.publish(&["--lines", "-"], lines);
    let numbers: Vec<_> = receipts.iter().map(|receipt| &receipt["line"]).collect();
    assert_eq!(numbers, [&json!(2), &json!(4)]);
}

#[test]
fn many_messages_keep_their_order_and_long_lists_are_summed() {
    let together = Together::new();
    let mut sub = together.sub("--uid 1 --count 3000");
    let lines: String = (0..3000).map(|n| format!("{n}\n")).collect();
    let receipts = together.publish(&["--uid", "1", "--each-line", "-"], &lines);
    assert!(receipts.iter().all(|receipt| receipt["sent"] == 1));
    let shown = sub.end();
    shown.check(0, &[]);
    for (n, message) in shown.json().iter().enumerate() {
        assert_eq!(message["data"], n.to_string());
    }

    let _sub = together.sub("--uid 5000");
    let uids: String = (1..=10_000).map(|n| format!("{n}\n")).collect();
    let receipt = &together.publish(&["--uids-file", "-", "x"], &uids)[0];
    assert_eq!(receipt["sent"], 1);
    assert_eq!(receipt["offline"].as_array().unwrap().len(), 9_999);
}

#[test]
fn people_see_a_line_a_receipt() {
    let together = Together::new();
    let _sub = together.sub("--uid 1");
    let ended = together.place.run(&["pub", "--uid", "1,2", "x"]);
    ended.check(0, &[]);
    assert_eq!(ended.stdout, "sent 1, gateways 1, offline: 2\n");
    let ended = together.place.run(&["pub", "--all", "x"]);
    assert_eq!(ended.stdout, "to everyone, gateways 1\n");
    // Nobody is online: the answer was given, so that is no failure.
    let ended = together.place.run(&["pub", "--uid", "2", "x"]);
    ended.check(0, &[]);
    assert_eq!(ended.stdout, "sent 0, gateways 0, offline: 2\n");
}

#[test]
fn a_broker_that_is_not_there_is_told_with_what_to_do() {
    let place = Place::new();
    let words = ["cannot reach broker 127.0.0.1:1", "waybill up"];
    place.run(&["pub", "--uid", "1", "--broker", "127.0.0.1:1", "x"]).check(1, &words);
    place.run(&["sub", "--uid", "1", "--broker", "127.0.0.1:1"]).check(1, &words);
    place.run(&["sub", "--consumer", "--broker", "127.0.0.1:1"]).check(1, &words);
}

#[test]
fn links_come_back_after_the_broker() {
    // Links of gateways and consumers stay with a draining broker for as long as it lets them.
    let place = Place::new().variable("WAYBILL_BROKER__DRAIN_MS", "100");
    let start = |listen: &str| place.start(&["broker", "--json", "--listen", listen]);
    let mut broker = start("127.0.0.1:0");
    let address = broker.json()["broker"].as_str().unwrap().to_string();
    let user = place.start(&["sub", "--json", "--uid", "1", "--broker", &address]);
    user.says("listening");
    let backend = place.start(&["sub", "--json", "--consumer", "--broker", &address]);
    backend.says("listening");
    broker.signal(Signal::TERM);
    broker.end().check(0, &[]);
    user.says("trying again");
    backend.says("trying again");
    let again = start(&address);
    assert_eq!(again.json()["broker"], address);
    user.says("listening");
    backend.says("linked again");
    place.run(&["pub", "--uid", "1", "--broker", &address, "back"]).check(0, &[]);
    assert_eq!(user.json()["data"], "back");
    user.signal(Signal::INT);
    backend.signal(Signal::TERM);
    for mut sub in [user, backend] {
        sub.end().check(0, &[]);
    }
}

#[test]
fn time_runs_out() {
    let together = Together::new();
    together.place.run(&["sub", "--uid", "1", "--timeout", "50ms"]).check(0, &["listening for 1"]);
    let ended = together.place.run(&["sub", "--uid", "1", "--timeout", "50ms", "--count", "1"]);
    ended.check(1, &["0 of 1 messages came within 50ms"]);
}

#[test]
fn credentials_of_up_are_found_and_others_are_refused() {
    let place = Place::new();
    let file = place.file(
        "w.toml",
        "[[broker.tokens]]\nname = \"n\"\ntoken = \"right\"\nroles = [\"producer\"]",
    );
    let up = place.up_with(&["--config", &file]);
    let broker = up.json()["broker"].as_str().unwrap().to_string();
    place.run(&["pub", "--uid", "1", "x"]).check(0, &[]);
    let to = ["pub", "--uid", "1", "x", "--broker", &broker];
    let refused = place.run(&to);
    refused.check(1, &["bad_credential", "set the right token"]);
    assert_eq!(refused.stderr.matches("bad_credential").count(), 1, "{refused:#?}");
    let file = place.file("client.toml", "[client]\ntoken = \"right\"");
    place.run(&[&to[..], &["--config", &file]].concat()).check(0, &[]);
    let sub = ["sub", "--uid", "1", "--broker", &broker, "--config", &file];
    let refused = place.run(&sub);
    refused.check(1, &["not_permitted"]);
    assert_eq!(refused.stderr.matches("not_permitted").count(), 1, "{refused:#?}");
}

/// Sends one message of user 9 to the backends; the code it was answered with.
async fn uplink(broker: &str, payload: &'static str) -> ErrorCode {
    use futures_util::StreamExt;
    let (link, mut events) = GatewayLink::start(Options::new([broker]), 77).unwrap();
    let uplink =
        Uplink { sequence: 1, uid: 9, connection: 5, payload: payload.into(), ..Uplink::default() };
    while let Some(event) = events.next().await {
        match event {
            GatewayEvent::InEffect { .. } => link.uplink(uplink.clone()).await.unwrap(),
            GatewayEvent::UplinkAck { sequence: 1, code } => {
                link.close().await;
                return code;
            }
            _ => {}
        }
    }
    panic!("the link has ended");
}

#[tokio::test]
async fn a_consumer_accepts_or_refuses() {
    let together = Together::new();
    let broker = together.ready["broker"].as_str().unwrap();
    assert_eq!(uplink(broker, "nobody").await, ErrorCode::NO_CONSUMER);
    let mut accepts = together.sub("--consumer --count 1");
    assert_eq!(uplink(broker, "first").await, ErrorCode(0));
    let shown = accepts.json();
    assert_eq!((&shown["from"], &shown["data"]), (&json!("9"), &json!("first")));
    assert_eq!(shown["connection"], "5");
    accepts.end().check(0, &[]);
    let mut refuses = together.sub("--consumer --count 1 --refuse not_permitted");
    assert_eq!(uplink(broker, "second").await, ErrorCode::NOT_PERMITTED);
    assert_eq!(refuses.json()["data"], "second");
    refuses.end().check(0, &[]);
}
