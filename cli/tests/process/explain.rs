//! `waybill explain`: of whom it tells what, where it asks, and how it ends.

use std::io::{Read, Write};
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::json;

use crate::support::Place;
use crate::users::{SECRET, login, login_tagged};

#[tokio::test]
async fn it_asks_the_running_up_where_a_message_would_go() {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let up = place.up();
    let ready = up.json();
    let mut user = login(ready["gateway"].as_str().unwrap().parse().unwrap(), 1001).await;

    let asked = ["explain", "--uid", "1001,1003,7", "--except", "7", "--payload-bytes", "5"];
    let told = place.run(&asked);
    told.check(0, &[]);
    let admin = ready["admin"].as_str().unwrap();
    for line in [
        &format!("broker at {admin}, ready: 1 of 3 users would be reached"),
        "  message in namespace 0: header 72 + payload 5 bytes",
        "  receipt: sent 1, offline 1, filtered 1, gateways 1",
        "users: sent 1, offline 1, filtered 1",
        "  1001  sent      slot 0",
        "  1003  offline   registered at no gateway of this broker",
        "  7     filtered  on the except list",
    ] {
        assert!(told.stdout.lines().any(|it| it == line), "no {line:?} in {told:#?}");
    }
    assert!(told.stdout.contains("list of 1: 48 + 5 bytes"), "{told:#?}");
    assert!(told.stdout.contains("\nmode direct, as auto would take: "), "{told:#?}");

    // It tells the same as sending it, and sends nothing.
    let sent = place.run(&["pub", "--uid", "1001,1003,7", "--except", "7", "12345"]);
    assert_eq!(sent.stdout, "sent 1, gateways 1, offline: 1003, filtered: 7\n");
    assert_eq!(crate::users::next(&mut user).await["data"], "12345");

    let told = place.run(&[&asked[..], &["--json"]].concat());
    told.check(0, &[]);
    let told = &told.json()[0];
    assert_eq!((&told["admin"], &told["reached"]), (&json!(admin), &json!("some")));
    assert_eq!(told["users"][1]["uid"], "1003");
    assert_eq!(told["gateways"][0]["frame"]["bytes"], json!({ "header": 48, "payload": 5 }));
    assert!(told["gateways"][0]["link"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));

    let told = place.run(&["explain", "--uid", "1003"]);
    told.check(3, &[]);
    assert!(told.stdout.contains("none of 1 users would be reached"), "{told:#?}");
    let told = place.run(&["explain", "--all", "--namespace", "7", "--mode", "broadcast"]);
    told.check(3, &[]);
    let told = place.run(&["explain", "--all"]);
    told.check(0, &[]);
    assert!(told.stdout.contains("everything, without a list: 40 + 0 bytes"), "{told:#?}");
}

#[tokio::test]
async fn it_asks_several_brokers_and_tells_of_a_gateway_that_has_gone() {
    let place = Place::new()
        .variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET)
        .variable("WAYBILL_BROKER__ADMIN_LISTEN", "127.0.0.1:0");
    let start = || {
        let broker = place.start(&["broker", "--json", "--listen", "127.0.0.1:0"]);
        let ready = broker.json();
        let of = |name: &str| ready[name].as_str().unwrap().to_string();
        (broker, of("broker"), of("admin"))
    };
    let ((_first, broker, admin), (_second, _, other)) = (start(), start());
    let (mut gateway, address) = place.serve("gateway", &["--broker", &broker]);
    let _user = login(address, 1001).await;
    let both = ["explain", "--uid", "1001", "--admin", &admin, "--admin", &other];
    let told = place.run(&[&both[..], &["--json"]].concat());
    told.check(0, &[]);
    let reached: Vec<_> = told.json().iter().map(|told| told["reached"].clone()).collect();
    assert_eq!(reached, ["all", "nobody"]);

    gateway.signal(Signal::KILL);
    gateway.end();
    // The broker sees it at its next read.
    let told = (0..200).map(|_| place.run(&both)).find(|told| told.code == Some(3));
    let told = told.expect("the broker sees that the link has ended");
    let line = "  1001  offline  slot 0 not sent: its link is lost, and it may come back";
    assert!(told.stdout.lines().any(|it| it == line), "{told:#?}");

    // The address of the settings; and one that nobody listens on does not hide the other.
    let place = place.variable("WAYBILL_BROKER__ADMIN_LISTEN", &other);
    place.run(&["explain", "--uid", "1"]).check(3, &[]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let told = place.run(&["explain", "--uid", "1", "--admin", &nobody, "--admin", &other]);
    told.check(1, &[&format!("cannot ask {nobody}: "), "broker.admin_listen"]);
    assert!(told.stdout.contains("none of 1 users would be reached"), "{told:#?}");
}

#[tokio::test]
async fn of_a_selector_it_tells_whose_gateway_may_have_a_match() {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let up = place.up();
    let gateway = up.json()["gateway"].as_str().unwrap().parse().unwrap();
    let _users = [
        login_tagged(gateway, 1001, &["vip", "group:42"]).await,
        login_tagged(gateway, 1002, &["ios"]).await,
    ];
    let told = place.run(&["explain", "--uid", "1001,1002,1003", "--selector", "vip & !android"]);
    told.check(0, &[]);
    for line in [
        "  receipt: sent 2, offline 1, gateways 1",
        "users: may 2, offline 1",
        "  1001  may      slot 0 decides for each connection",
        "  1002  may      slot 0 decides for each connection",
        "  1003  offline  registered at no gateway of this broker",
    ] {
        assert!(told.stdout.lines().any(|it| it == line), "no {line:?} in {told:#?}");
    }
    assert!(told.stdout.contains("  3, has vip, lacks android  list of 2: "), "{told:#?}");
    // Of which the gateway makes the one that matches.
    let sent = ["pub", "--uid", "1001,1002,1003", "--selector", "vip & !android", "hello"];
    let sent = place.run(&[&sent[..], &["--receipt", "delivered"]].concat());
    assert_eq!(sent.stdout, "delivered 1, gateways 1, offline: 1003, filtered: 1002\n");

    let told = place.run(&["explain", "--uid", "1001", "--selector", "android"]);
    told.check(3, &[]);
    let line = "  1001  filtered  slot 0 no connection of it can match, by the tags it declared";
    assert!(told.stdout.lines().any(|it| it == line), "{told:#?}");
    let told = place.run(&["explain", "--selector", "group:42 | android", "--json"]);
    told.check(0, &[]);
    let told = &told.json()[0];
    assert_eq!((&told["reached"], &told["gateways"][0]["users"]), (&json!("all"), &json!(2)));
    assert_eq!(told["gateways"][0]["terms"][1], json!({ "tag": "group:42", "declared": true }));
    place.run(&["explain", "--selector", "android"]).check(3, &[]);
}

#[test]
fn without_an_address_and_with_a_wrong_one_it_says_what_to_do() {
    let place = Place::new();
    let told = place.run(&["explain", "--uid", "1"]);
    told.check(1, &["no admin address of a broker is known", "broker.admin_listen", "--admin"]);

    // Somebody else's answers, whatever they are, are told as such.
    for (answer, words) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404 Not Found; is it of an older"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "its answer is not understood"),
        ("220 smtp.example ESMTP\r\n", "cannot ask"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _read = stream.read(&mut [0; 4_096]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        place.run(&["explain", "--uid", "1", "--admin", &address]).check(1, &[words, &address]);
        server.join().unwrap();
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let asked = ["explain", "--uid", "1", "--timeout", "50ms", "--admin", &address];
    place.run(&asked).check(1, &["no answer came within 50ms"]);
}
