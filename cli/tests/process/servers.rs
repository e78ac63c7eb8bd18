//! Servers: ready lines, taken ports, signals.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use crate::support::{Place, Running};

const SECRET: (&str, &str) = ("WAYBILL_GATEWAY__JWT__SECRET", "0123456789abcdef0123456789abcdef");

/// HELLO of a producer (vector `hello-producer`).
const HELLO: &[u8] = &[
    1, 1, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0,
];

#[test]
fn sigterm_and_ctrl_c_drain() {
    let place = Place::new().variable(SECRET.0, SECRET.1);
    let broker = ["broker", "--json", "--listen", "127.0.0.1:0"];
    let gateway = ["gateway", "--json", "--listen", "127.0.0.1:0", "--broker", "127.0.0.1:1"];
    let starts: [(&dyn Fn() -> Running, bool); 3] = [
        (&|| place.start(&broker), true),
        (&|| place.start(&gateway), true),
        (&|| place.up(), false),
    ];
    for (start, is_at_info) in starts {
        for signal in [Signal::TERM, Signal::INT] {
            let mut server = start();
            assert_eq!(server.json()["event"], "ready");
            server.signal(signal);
            let ended = server.end();
            ended.check(0, &[]);
            // Logs are JSON here: no line that is not.
            let told = ended.stderr.lines().filter(|line| line.contains("draining"));
            assert!(told.clone().all(|line| line.starts_with('{')), "{ended:#?}");
            assert_eq!(told.count() > 0, is_at_info, "{ended:#?}");
        }
    }
}

#[test]
fn a_second_signal_ends_it_now() {
    let place = Place::new();
    let file = place.file("w.toml", "[broker]\ndrain_ms = 3_600_000");
    let mut broker =
        place.start(&["broker", "--json", "--listen", "127.0.0.1:0", "--config", &file]);
    let address = broker.json()["broker"].as_str().unwrap().to_string();
    // A link that does not leave when it is asked to.
    let mut link = TcpStream::connect(address).unwrap();
    link.write_all(HELLO).unwrap();
    link.read_exact(&mut [0; 56]).unwrap();
    broker.signal(Signal::TERM);
    broker.says("draining");
    broker.signal(Signal::TERM);
    broker.end().check(1, &["before everything was drained"]);
}

#[test]
fn a_taken_port_names_the_flag() {
    let place = Place::new().variable(SECRET.0, SECRET.1);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let words = [taken.as_str(), "the port is taken", "choose another with"];
    let free = "127.0.0.1:0";
    for (arguments, flag) in [
        (&["up", "--listen", &taken, "--broker-listen", free][..], "--listen 127.0.0.1:0"),
        (&["up", "--listen", free, "--broker-listen", &taken], "--broker-listen 127.0.0.1:0"),
        (&["broker", "--listen", &taken], "--listen 127.0.0.1:0"),
        (&["gateway", "--listen", &taken], "--listen 127.0.0.1:0"),
    ] {
        let ended = place.run(arguments);
        ended.check(1, &words);
        ended.check(1, &[flag]);
        assert!(!place.runtime_file().exists());
    }
    let place = place.variable("WAYBILL_BROKER__ADMIN_LISTEN", &taken);
    let ended = place.run(&["broker", "--listen", free]);
    ended.check(1, &[&taken, "set broker.admin_listen to another"]);
}

#[test]
fn a_second_up_says_that_commands_go_to_it_from_now_on() {
    let place = Place::new();
    let mut first = place.up();
    let broker = first.json()["broker"].as_str().expect("an address").to_string();
    let mut second = place.up();
    let said = second.says("another `waybill up` is running");
    assert!(said.contains(&broker), "{said}");
    for up in [&mut second, &mut first] {
        up.signal(Signal::TERM);
        up.end().check(0, &[]);
    }
}

#[test]
fn up_leaves_nothing_behind() {
    let place = Place::new();
    let mut up = place.up();
    let ready = up.json();
    assert!(place.runtime_file().exists());
    assert_eq!(ready["runtime"].as_str(), place.runtime_file().to_str());
    for what in ["Try next", "waybill pub --uid 1001 hello", "waybill sub --uid", "Ctrl-C"] {
        up.says(what);
    }
    up.signal(Signal::TERM);
    up.end().check(0, &[]);
    assert!(!place.runtime_file().exists());
}

#[test]
fn up_is_not_killed_by_a_missing_reader() {
    let place = Place::new();
    let arguments = ["up", "--json", "--listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0"];
    // Whoever wanted the ready line has gone: it ends, and takes its runtime file along.
    place.run_unread(&arguments).check(0, &[]);
    assert!(!place.runtime_file().exists());
}

#[test]
fn secrets_are_never_logged() {
    let place = Place::new().variable("RUST_LOG", "trace");
    let file = place.file(
        "w.toml",
        "[[broker.tokens]]\nname = \"n\"\ntoken = \"token-not-to-be-seen\"\n[gateway.jwt]\n\
         secret = \"secret-not-to-be-seen-0123456789abcdef\"",
    );
    let mut up = place.up_with(&["--config", &file]);
    up.json();
    let own: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.runtime_file()).unwrap()).unwrap();
    let own = own["token"].as_str().unwrap().to_string();
    let published = place.run(&["pub", "--uid", "1", "payload-not-to-be-seen"]);
    published.check(0, &[]);
    up.signal(Signal::TERM);
    let ended = up.end();
    ended.check(0, &["broker listens"]);
    for said in [&ended.stderr, &published.stderr] {
        assert!(!said.contains("not-to-be-seen") && !said.contains(&own), "{said}");
    }
}
