//! What moves a broker's bytes: asked for, fallen back to, and told.

use std::net::SocketAddr;

use serde_json::Value;

use crate::several::get;
use crate::support::{Place, Running};

const BROKER: [&str; 4] = ["broker", "--json", "--listen", "127.0.0.1:0"];

fn place() -> Place {
    Place::new().variable("WAYBILL_BROKER__ADMIN_LISTEN", "127.0.0.1:0")
}

/// As in a container that refuses io_uring.
fn confined(place: &Place, io: &str) -> Running {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/without_io_uring.py");
    place.start_by(&["python3", script], &[&BROKER[..], &["--io", io]].concat())
}

/// The backend a broker says it runs on, and why, in each of the places where it says so.
fn told(broker: &Running) -> (String, String) {
    let ready = broker.json();
    let admin: SocketAddr = ready["admin"].as_str().unwrap().parse().unwrap();
    let (health, ledger) = (get(admin, "/healthz").1, get(admin, "/ledger").1);
    assert_eq!(health["backend"], ledger["backend"]);
    let word = |value: &Value| value.as_str().unwrap().to_string();
    let (name, reason) = (word(&health["backend"]["name"]), word(&health["backend"]["reason"]));
    assert_eq!(ready["io"], name.as_str());
    broker.says(&reason);
    (name, reason)
}

#[test]
fn where_io_uring_is_refused_the_portable_backend_runs_and_says_why() {
    let place = place();
    let (name, reason) = told(&confined(&place, "auto"));
    assert_eq!(name, "tokio");
    assert!(reason.starts_with("io_uring cannot be used here:"), "{reason}");
    assert!(reason.contains("Operation not permitted"), "{reason}");
}

#[test]
fn io_uring_by_name_where_it_is_refused_is_an_error_with_a_remedy() {
    let place = place();
    let cause = ["io_uring cannot be used here", "Operation not permitted", "--io auto"];
    confined(&place, "uring").end().check(1, &cause);
}

#[test]
fn what_was_asked_for_runs() {
    let place = place();
    let tokio = place.start(&[&BROKER[..], &["--io", "tokio"]].concat());
    assert_eq!(told(&tokio), ("tokio".into(), "it was asked for".into()));
    // Where this very system refuses it, that is the test above.
    let (name, reason) = told(&place.start(&[&BROKER[..], &["--io", "auto"]].concat()));
    assert!(name == "uring" || reason.starts_with("io_uring cannot be used here:"), "{reason}");
    place.run(&[&BROKER[..], &["--io", "epoll"]].concat()).check(2, &["epoll", "auto"]);
}
