//! A broker process among peers that send it every kind of rubbish: each gets its error, the
//! neighbour notices nothing, and memory stays flat.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use waybill_wire::code::{ErrorCode, Level, Role};
use waybill_wire::frame::{Frame, Hello};
use waybill_wire::{Deframer, MessageHead};

use crate::support::{PATIENCE, Place, Running};
use crate::vectors::{hex, text, vectors};

/// Rounds before the first look at memory: allocator and caches have warmed up by then.
const WARM_ROUNDS: usize = 3;
const ROUNDS: usize = 20;
/// What twenty rounds, some 16,000 hostile links, may leave behind.
const GROWTH_MAX: u64 = 1 << 20;

fn resident_bytes(server: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn hello(role: Role, credential: &[u8]) -> Vec<u8> {
    let hello = Hello {
        data: false,
        role,
        version_min: 1,
        version_max: 1,
        instance: 9,
        session: 0,
        capabilities: 0,
        route_group: 0,
        wanted_shard: 0xffff,
        credential,
    };
    let mut out = Vec::new();
    hello.encode(&mut out).unwrap();
    out
}

fn connect(broker: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(broker).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends all of it, says that there will be no more, and returns the code of the ERROR that came.
fn provoke(broker: SocketAddr, bytes: &[u8]) -> Option<ErrorCode> {
    let mut stream = connect(broker);
    // The broker may have answered and closed before all is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut came = Vec::new();
    let _ = stream.read_to_end(&mut came);
    let (mut deframer, mut rest, mut code) = (Deframer::new(), &came[..], None);
    while let Ok(step) = deframer.next(rest) {
        rest = &rest[step.consumed..];
        let Some(raw) = step.frame else { break };
        if let Ok(Frame::Error(error)) = raw.decode() {
            code = Some(error.code);
        }
    }
    code
}

/// A producer that publishes to nobody and expects to be told so.
struct Neighbour(TcpStream, u64);

impl Neighbour {
    fn ask(&mut self) {
        self.1 += 1;
        let head = MessageHead { sequence: self.1, level: Level::ROUTED, ..MessageHead::default() };
        let mut out = if self.1 == 1 { hello(Role::PRODUCER, b"") } else { Vec::new() };
        head.encode_publish(&[1001], b"x", &mut out).unwrap();
        self.0.write_all(&out).unwrap();
        // The broker asks whether it is there as well, if the machine has kept it waiting.
        let mut came = Vec::new();
        while !self.is_answered(&came) {
            let mut some = [0; 256];
            let bytes = self.0.read(&mut some).expect("the neighbour is answered");
            assert_ne!(bytes, 0, "the neighbour's link has ended");
            came.extend_from_slice(&some[..bytes]);
        }
    }

    /// Whether these frames have the receipt that it waits for.
    fn is_answered(&self, came: &[u8]) -> bool {
        let (mut deframer, mut rest) = (Deframer::new(), came);
        while let Ok(step) = deframer.next(rest) {
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { break };
            match raw.decode() {
                Ok(Frame::Receipt(receipt)) => {
                    assert_eq!((receipt.sequence, receipt.offline), (self.1, 1));
                    return true;
                }
                Ok(Frame::Welcome(_) | Frame::Ping(_)) => {}
                other => panic!("no receipt: {other:?}"),
            }
        }
        false
    }
}

/// What is sent: frames with the errors they name, and whole frames to cut in half.
struct Rubbish {
    invalid: Vec<(Vec<u8>, ErrorCode)>,
    frames: Vec<Vec<u8>>,
}

impl Rubbish {
    fn of_the_contract() -> Self {
        let all = |folder| vectors(folder).into_iter().flat_map(|(_, vectors)| vectors);
        let error = |vector: &toml::Table| ErrorCode::from_name(text(vector, "error")).unwrap();
        let invalid = all("invalid").map(|it| (hex(text(&it, "hex")), error(&it)));
        let frames = all("frames").map(|it| hex(text(&it, "hex")));
        Self { invalid: invalid.collect(), frames: frames.collect() }
    }
}

fn round(rubbish: &Rubbish, broker: SocketAddr, neighbour: &mut Neighbour, roles: &[Role]) {
    for &role in roles {
        for (bytes, error) in &rubbish.invalid {
            let all = [&hello(role, b""), &bytes[..]].concat();
            assert_eq!(provoke(broker, &all), Some(*error));
        }
        // Frames that end in the middle, before and after HELLO: no error, just the end.
        for bytes in &rubbish.frames {
            let half = &bytes[..bytes.len() / 2];
            provoke(broker, &[hello(role, b""), half.to_vec()].concat());
            provoke(broker, half);
        }
        neighbour.ask();
    }
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(provoke(broker, http), Some(ErrorCode::UNSUPPORTED_VERSION));
    // A frame that announces all it may and sends next to nothing.
    let announced = [1, 0x10, 0, 0x40, 0, 0, 0x10, 0];
    assert_eq!(provoke(broker, &[hello(Role::PRODUCER, b""), announced.to_vec()].concat()), None);
    neighbour.ask();
}

#[test]
fn promises_7_and_10_rubbish_costs_its_sender_alone_and_no_memory() {
    let (server, broker) = Place::new().serve("broker", &["--log-level", "error"]);
    let mut neighbour = Neighbour(connect(broker), 0);
    let roles = [Role::PRODUCER, Role::GATEWAY, Role::CONSUMER];
    let rubbish = Rubbish::of_the_contract();
    let mut warm = 0;
    for number in 0..ROUNDS {
        if number == WARM_ROUNDS {
            warm = resident_bytes(&server);
        }
        round(&rubbish, broker, &mut neighbour, if number == 0 { &roles } else { &roles[..1] });
    }
    let grown = resident_bytes(&server).saturating_sub(warm);
    eprintln!("resident {warm} bytes after {WARM_ROUNDS} rounds, {grown} more after {ROUNDS}");
    assert!(grown <= GROWTH_MAX, "{grown} bytes grew in {} rounds", ROUNDS - WARM_ROUNDS);
}
