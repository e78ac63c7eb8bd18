//! `waybill pub --conflate-key` at a gateway that reads nothing for a while: of what waits for it
//! with one key it gets the newest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use waybill_wire::code::{Op, Role};
use waybill_wire::deframe::Deframer;
use waybill_wire::frame::{Frame, Hello, Record, Snapshot};

use crate::support::{PATIENCE, Place};

/// A gateway with user 1, by hand.
struct Gateway {
    stream: TcpStream,
    deframer: Deframer,
}

impl Gateway {
    fn link(broker: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(broker).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = Hello {
            role: Role::GATEWAY,
            version_min: 1,
            version_max: 1,
            instance: 7,
            wanted_shard: Hello::ANY_SHARD,
            ..Hello::default()
        };
        let records = [Record { uid: 1, op: Op::ADD, ..Record::default() }];
        let records = records.as_slice().into();
        let snapshot = Snapshot { first: true, last: true, version: 1, records };
        let mut said = Vec::new();
        Frame::Hello(hello).encode(&mut said).unwrap();
        Frame::Snapshot(snapshot).encode(&mut said).unwrap();
        stream.write_all(&said).unwrap();
        let mut gateway = Self { stream, deframer: Deframer::new() };
        gateway.read(|frame| matches!(frame, Frame::InEffect(_)));
        gateway
    }

    /// Reads frames until one is the last.
    fn read(&mut self, mut is_last: impl FnMut(&Frame<'_>) -> bool) {
        let (mut bytes, mut found) = (vec![0; 65_536], false);
        while !found {
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the broker ended the link");
            let mut rest = &bytes[..count];
            while let Some(raw) = {
                let step = self.deframer.next(rest).unwrap();
                rest = &rest[step.consumed..];
                step.frame
            } {
                found |= is_last(&raw.decode().unwrap());
            }
        }
    }
}

#[test]
fn a_message_takes_the_place_of_the_one_with_its_key_that_waits() {
    let place = Place::new()
        .variable("WAYBILL_BROKER__OUTBOX_BYTES_MAX", "1048576")
        .variable("WAYBILL_BROKER__READY_QUIET_MS", "0")
        .variable("WAYBILL_BROKER__KEEPALIVE_MS", "60000");
    let (_broker, address) = place.serve("broker", &[]);
    let mut gateway = Gateway::link(address);
    let address = address.to_string();
    let publish = |more: &[&str]| -> Vec<Value> {
        place.run(&[&["pub", "--json", "--broker", &address, "--uid", "1"], more].concat()).json()
    };
    // More than both sockets and the outbox hold: what comes now waits.
    let filling = place.file("filling", format!("{}\n", "f".repeat(512 << 10)).repeat(48));
    let told = publish(&["--each-line", &filling]);
    assert_eq!(told.last().unwrap()["sent"], 0, "{:?}", told.last());
    for (key, payload) in [("5", "first"), ("6", "other"), ("5", "second"), ("5", "third")] {
        let told = publish(&["--conflate-key", key, payload]);
        assert_eq!(told[0]["sent"], 1, "{payload}: {told:?}");
    }
    assert_eq!(publish(&["last"])[0]["sent"], 1);
    let mut came = Vec::new();
    gateway.read(|frame| {
        let Frame::Deliver(message) = frame else { return false };
        if message.payload[0] != b'f' || message.payload.len() < 10 {
            let words = String::from_utf8(message.payload.to_vec()).unwrap();
            came.push((message.conflate, words));
        }
        message.payload == b"last"
    });
    let expected = [(Some(5), "third"), (Some(6), "other"), (None, "last")];
    assert_eq!(came, expected.map(|(key, words)| (key, words.to_owned())));
}
