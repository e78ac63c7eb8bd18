//! When a message passed where, over a broker, a gateway and a user on a WebSocket, each in a
//! process of its own on one machine.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Place, Running};
use crate::users::{SECRET, User, login, next};

struct Site {
    place: Place,
    address: String,
    gateway: SocketAddr,
    _servers: [Running; 2],
}

fn site() -> Site {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let (broker, address) = place.serve("broker", &[]);
    let address = address.to_string();
    let (server, gateway) = place.serve("gateway", &["--broker", &address]);
    Site { place, address, gateway, _servers: [broker, server] }
}

impl Site {
    async fn user(&self, uid: u64) -> User {
        login(self.gateway, uid).await
    }

    fn publish(&self, more: &[&str]) -> crate::support::Ended {
        let told = self.place.run(&[&["pub", "--broker", &self.address, "--trace"], more].concat());
        told.check(0, &[]);
        told
    }
}

fn names(hops: &[Value]) -> Vec<&str> {
    hops.iter().map(|hop| hop["hop"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_traced_message_tells_all_six_hops_in_order() {
    let site = site();
    let mut user = site.user(1001).await;
    let told = site.publish(&["--json", "--uid", "1001", "hello"]);
    assert_eq!(next(&mut user).await["data"], "hello");
    let receipt = &told.json()[0];
    assert_eq!((&receipt["stage"], &receipt["sent"]), (&json!("delivered"), &json!(1)));
    let trace = &receipt["trace"];
    assert_eq!(trace["id"].as_str().unwrap().len(), 32);
    assert_eq!(trace["left_out"], 0);
    let hops = trace["hops"].as_array().unwrap();
    let all = ["producer", "broker_in", "routed", "written", "gateway_in", "socket"];
    assert_eq!(names(hops), all);
    // On one machine the clocks of all are one, looked at by each; a look errs by far less than a
    // step to another process takes.
    assert!(hops.is_sorted_by_key(|hop| hop["time_us"].as_u64().unwrap()), "{hops:#?}");
    // The instance, the broker's number, the gateway's incarnation.
    let process = |at: usize| hops[at]["process"].as_str().unwrap();
    assert!(receipt["id"].as_str().unwrap().starts_with(process(0)));
    assert!(process(1) == process(2) && process(2) == process(3) && process(4) == process(5));
    assert!(process(0) != process(1) && process(1) != process(4));
    let of: Vec<&Value> = hops.iter().map(|hop| &hop["gateway"]).collect();
    let gateway = &hops[4]["process"];
    assert_eq!(of, [&Value::Null, &Value::Null, &Value::Null, gateway, gateway, gateway]);
}

#[tokio::test]
async fn people_get_a_table() {
    let site = site();
    let mut user = site.user(1001).await;
    let told = site.publish(&["--uid", "1001,4242", "hello"]);
    assert_eq!(next(&mut user).await["data"], "hello");
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert_eq!(lines[0], "delivered 1, gateways 1, offline: 4242");
    let first: Vec<&str> =
        lines[1..].iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    let expected =
        ["trace", "producer", "broker_in", "routed", "gateway", "written", "gateway_in", "socket"];
    assert_eq!(first, expected, "{}", told.stdout);
    let of_gateway = lines.iter().position(|line| line.starts_with("  gateway ")).unwrap();
    for (at, line) in lines.iter().enumerate().skip(3) {
        assert!(at == of_gateway || line.ends_with(" us"), "{line}");
    }
    assert_eq!(told.stderr.matches("between machines their clocks differ").count(), 1);
}

#[tokio::test]
async fn a_lower_level_tells_fewer_hops() {
    let site = site();
    let told = site.publish(&["--json", "--receipt", "routed", "--uid", "1001", "hello"]);
    let receipt = &told.json()[0];
    assert_eq!(receipt["stage"], "routed");
    let hops = receipt["trace"]["hops"].as_array().unwrap();
    assert_eq!(names(hops), ["producer", "broker_in", "routed"]);
    let none = site.place.run(&["pub", "--trace", "--receipt", "none", "--uid", "1", "x"]);
    none.check(2, &["--trace", "--receipt none"]);
}

#[tokio::test]
async fn each_message_has_a_trace_id_of_its_own() {
    let site = site();
    let file = site.place.file("lines", "one\ntwo\n");
    let told = site.publish(&["--json", "--uid", "1001", "--each-line", &file]);
    let ids: Vec<Value> = told.json().iter().map(|it| it["trace"]["id"].clone()).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
    let told = site.place.run(&["pub", "--broker", &site.address, "--json", "--uid", "1", "x"]);
    assert_eq!(told.json()[0].get("trace"), None, "nobody asked");
}
