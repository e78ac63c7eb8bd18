//! `POST /explain` as HTTP: what a question may be, and how a mistake in one is told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use waybill_broker::explain::question::QUESTION_BYTES_MAX;
use waybill_broker::{Broker, BrokerConfig, BrokerHandle};

const JSON: &str = "Content-Type: application/json; charset=utf-8\r\n";

fn broker() -> (BrokerHandle, SocketAddr) {
    let config = BrokerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: "127.0.0.1:0".into(),
        ready_quiet_ms: 0,
        ..BrokerConfig::default()
    };
    let broker = Broker::start(config).unwrap();
    let admin = broker.admin_addr().unwrap();
    (broker, admin)
}

/// Status and body of the answer.
fn ask(admin: SocketAddr, host: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    let length = body.len();
    let head = format!(
        "POST /explain HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    // A body that is too long is not read to its end.
    let _written = stream.write_all((head + body).as_bytes());
    let mut answer = String::new();
    let _reset = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.into())
}

#[test]
fn a_question_is_answered() {
    let (broker, admin) = broker();
    for host in ["127.0.0.1", "localhost:7710", "[::1]:7710"] {
        let (status, told) = ask(admin, host, JSON, r#"{"users":["1",18446744073709551615]}"#);
        assert_eq!(status, 200, "{told}");
        for part in [
            r#""state":"ready""#,
            r#""reached":"nobody""#,
            r#""uid":"18446744073709551615","fate":"offline""#,
        ] {
            assert!(told.contains(part), "no {part} in {told}");
        }
    }
    broker.drain();
    let (_, told) = ask(admin, "127.0.0.1", JSON, r#"{"everyone":true}"#);
    assert!(told.contains(r#""state":"draining""#), "{told}");
}

#[test]
fn a_mistake_is_told_with_its_field() {
    let (_broker, admin) = broker();
    let many = vec!["1"; 4_097].join(",");
    for (body, status, parts) in [
        ("", 400, &["EOF"][..]),
        ("[1", 400, &["EOF"]),
        (r#"{"users":[1]} and more"#, 400, &["trailing characters"]),
        (r#"{"users":["1","x"]}"#, 400, &[r#""field":"users[1]""#, "no UID"]),
        (r#"{"users":["+1"]}"#, 400, &[r#""field":"users[0]""#, "no UID"]),
        (r#"{"users":[-1]}"#, 400, &[r#""field":"users[0]""#, "no UID"]),
        (r#"{"usres":[1]}"#, 400, &["unknown field `usres`"]),
        ("{}", 422, &[r#""field":"users""#, "nobody is asked about"]),
        (r#"{"users":[1],"everyone":true}"#, 422, &[r#""field":"everyone""#]),
        (r#"{"selector":"vip &"}"#, 422, &[r#""field":"selector""#, r#""position":5"#]),
        (r#"{"users":[1],"mode":"fast"}"#, 422, &[r#""field":"mode""#, "direct, broadcast"]),
        (r#"{"users":[1],"receipt":"acknowledged"}"#, 422, &[r#""field":"receipt""#, "routed"]),
        (r#"{"users":[1],"payload_bytes":1048577}"#, 422, &[r#""field":"payload_bytes""#]),
        (&format!(r#"{{"users":[{many}]}}"#), 422, &[r#""field":"users""#, "targets_max"]),
        (&format!(r#"{{"users":[1],"except":[{many}]}}"#), 422, &[r#""field":"except""#]),
    ] {
        let (told, words) = ask(admin, "127.0.0.1", JSON, body);
        assert_eq!(told, status, "{body}: {words}");
        assert!(words.starts_with(r#"{"error":{"field":""#), "{body}: {words}");
        for part in parts {
            assert!(words.contains(part), "{body}: no {part} in {words}");
        }
    }
}

/// Neither a page of somebody else in a browser on this machine nor one who sends without an end is
/// served.
#[test]
fn promise_7_only_small_questions_from_this_machine_are_read() {
    let (_broker, admin) = broker();
    let question = r#"{"users":[1]}"#;
    for host in ["evil.example:7710", "10.0.0.1", "127.0.0.1.evil.example", ""] {
        assert_eq!(ask(admin, host, JSON, question).0, 421, "{host}");
    }
    for headers in ["", "Content-Type: text/plain\r\n", "Content-Type: application/jsonp\r\n"] {
        assert_eq!(ask(admin, "127.0.0.1", headers, question).0, 415, "{headers}");
    }
    // The longest one that is read, and one that is not.
    let padded = |bytes: usize| format!("{question}{}", " ".repeat(bytes - question.len()));
    assert_eq!(ask(admin, "127.0.0.1", JSON, &padded(QUESTION_BYTES_MAX)).0, 200);
    assert_eq!(ask(admin, "127.0.0.1", JSON, &padded(QUESTION_BYTES_MAX + 1)).0, 413);
    // Both lists at their limit, of the longest UIDs.
    let longest = vec![format!("\"{}\"", u64::MAX); 4_096].join(",");
    let question = format!(r#"{{"users":[{longest}],"except":[{longest}]}}"#);
    assert_eq!(ask(admin, "127.0.0.1", JSON, &question).0, 200);
}
