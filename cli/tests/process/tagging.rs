//! Tags the whole way: `waybill tag` changes those of users on WebSockets, at real gateways, and
//! what is published after its receipt goes by them.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Ended, Place};
use crate::users::{SECRET, User, login, next};

struct Site {
    place: Place,
    broker: String,
}

impl Site {
    /// Runs it at the broker.
    fn run(&self, command: &str, more: &[&str]) -> Ended {
        self.place.run(&[&[command, "--broker", &self.broker], more].concat())
    }

    /// Publishes to whoever the selector is for, of these users or of all; the final receipt.
    fn select(&self, selector: &str, uids: &str, payload: &str) -> Value {
        let mut to = vec!["--json", "--receipt", "delivered", "--selector", selector];
        if !uids.is_empty() {
            to.extend(["--uid", uids]);
        }
        let ended = self.run("pub", &[&to[..], &[payload]].concat());
        ended.check(0, &[]);
        ended.json().remove(0)
    }

    /// Ends what users get, so that nothing was between.
    fn last(&self) {
        self.run("pub", &["--all", "last"]).check(0, &[]);
    }
}

/// What a user gets until the last, which everybody gets.
async fn got(user: &mut User) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        let data = String::from(next(user).await["data"].as_str().unwrap());
        if data == "last" {
            return got;
        }
        got.push(data);
    }
}

fn place() -> Place {
    Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET)
}

/// TAG-17 and TAG-18, with two gateways that share a user, and one that says nothing of tags.
#[tokio::test]
async fn tag_18_a_receipt_says_that_the_next_message_goes_by_the_change() {
    let (place, without) =
        (place(), self::place().variable("WAYBILL_GATEWAY__BROKER__TAGS", "false"));
    let (_broker, broker) = place.serve("broker", &[]);
    let broker = broker.to_string();
    let serve = |place: &Place| place.serve("gateway", &["--broker", &broker]);
    let (_one, one) = serve(&place);
    let (_other, other) = serve(&place);
    let (_without, bare) = serve(&without);
    let site = Site { place, broker };
    let mut both = [login(one, 1001).await, login(other, 1001).await];
    let mut second = login(other, 1002).await;
    let mut third = login(bare, 1003).await;
    let receipt = site.select("vip", "", "to nobody");
    assert_eq!((&receipt["sent"], &receipt["gateways"]), (&json!(0), &json!(0)));

    let ended = site.run("tag", &["--uid", "1001,1002,1004", "--add", "vip", "--add", "group:42"]);
    ended.check(0, &["linked to broker"]);
    assert_eq!(ended.stdout, "changed 2, gateways 2, offline: 1004\n");
    let receipt = site.select("vip & group:42 & !trial", "", "to members");
    assert_eq!((&receipt["sent"], &receipt["gateways"]), (&json!(3), &json!(2)), "by gateway");
    let receipt = site.select("vip", "1001,1003,1004", "to some of them");
    assert_eq!((&receipt["sent"], &receipt["offline"]), (&json!(1), &json!(["1004"])));
    assert_eq!(receipt["filtered"], json!(["1003"]));

    let ended = site.run("tag", &["--uid", "1001", "--remove", "vip", "--add", "trial"]);
    ended.check(0, &[]);
    assert_eq!(ended.stdout, "changed 1, gateways 2\n");
    site.select("vip", "", "to those who are left");
    // Who comes to a registration that stands has what was said of it (TAG-14).
    let mut late = login(one, 1001).await;
    site.select("trial & group:42", "1001", "to one");

    let ended = site.run("tag", &["--uid", "1002,1003", "--remove", "vip"]);
    ended.check(1, &[]);
    assert_eq!(ended.stdout, "changed 1, gateways 1, dropped (not_supported): 1003\n");
    site.select("vip", "", "to nobody any more");
    site.last();
    for user in &mut both {
        assert_eq!(got(user).await, ["to members", "to some of them", "to one"]);
    }
    assert_eq!(got(&mut late).await, ["to one"]);
    assert_eq!(got(&mut second).await, ["to members", "to those who are left"]);
    assert_eq!(got(&mut third).await, [""; 0]);
}

/// TAG-17: whoever does not know does not say that it was done.
#[tokio::test]
async fn promise_5_a_gateway_that_stands_still_leaves_tags_in_doubt() {
    let place = place().variable("WAYBILL_BROKER__REPORT_TIMEOUT_MS", "2000");
    let (_broker, broker) = place.serve("broker", &[]);
    let broker = broker.to_string();
    let serve = || -> (_, SocketAddr) { place.serve("gateway", &["--broker", &broker]) };
    let (frozen, one) = serve();
    let (_other, other) = serve();
    let mut users = [login(one, 1001).await, login(other, 1002).await];
    frozen.signal(Signal::STOP);
    let tag = ["tag", "--broker", &broker, "--uid", "1001,1002", "--add", "vip"];
    let ended = place.run(&tag);
    ended.check(1, &[]);
    assert_eq!(ended.stdout, "changed 1, gateways 2, unknown: 1001\n");
    frozen.signal(Signal::CONT);
    // Given again it is done, whatever became of the first.
    let ended = place.run(&tag);
    ended.check(0, &[]);
    assert_eq!(ended.stdout, "changed 2, gateways 2\n");
    let site = Site { place, broker };
    assert_eq!(site.select("vip", "", "to both")["sent"], 2);
    for user in &mut users {
        assert_eq!(next(user).await["data"], "to both");
    }
}

/// What a backend said is with the gateways: a broker that is killed learns it from them anew.
#[tokio::test]
async fn promise_8_tags_outlive_a_broker_and_end_with_their_gateway() {
    let place = place();
    let (broker, address) = place.serve("broker", &[]);
    let address = address.to_string();
    let serve = || -> (_, SocketAddr) { place.serve("gateway", &["--broker", &address]) };
    let (gateway, first) = serve();
    let mut user = login(first, 1001).await;
    let tag = ["tag", "--broker", &address, "--uid", "1001", "--add", "vip"];
    place.run(&tag).check(0, &[]);
    broker.signal(Signal::KILL);
    drop(broker);
    let broker = ["broker", "--json", "--listen", &address];
    let again = place.variable("WAYBILL_BROKER__GATEWAYS_EXPECTED", "1");
    let again = again.variable("WAYBILL_BROKER__READY_QUIET_MS", "60000");
    let restarted = again.start(&broker);
    restarted.json();
    let site = Site { place: again, broker: address.clone() };
    let receipt = site.select("vip", "1001", "still");
    assert_eq!((&receipt["sent"], &receipt["offline"]), (&json!(1), &json!([])));
    assert_eq!(next(&mut user).await["data"], "still");
    gateway.signal(Signal::KILL);
    drop(gateway);
    let (_other, second) = site.place.serve("gateway", &["--broker", &address]);
    let mut user = login(second, 1001).await;
    let receipt = site.select("!vip", "1001", "as the token says");
    assert_eq!(receipt["sent"], 1, "{receipt}");
    assert_eq!(next(&mut user).await["data"], "as the token says");
}
