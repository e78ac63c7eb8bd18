//! The gateway as a simulator sees it: a client that reads late, one that leaves in the middle of a
//! frame, one that never reads.

use std::time::Instant;

use waybill_client::gateway::GatewayMachine;
use waybill_wire::code::Kind;
use waybill_wire::{Frame, MessageHead};

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn now(ms: u64) -> Now {
    Now { ms, unix_s: 1_800_000_000 }
}

/// A gateway whose only link is a broker that confirms at once.
struct Site {
    gateway: SimGateway,
    uplinks: Vec<u64>,
}

impl Site {
    fn new() -> Self {
        let mut config = GatewayConfig::default();
        config.jwt.secret = SECRET.into();
        config.limits.queue_bytes_max = 1024;
        config.limits.uplinks_per_connection_max = 1;
        let mut site = Self { gateway: SimGateway::new(&config, 0x5a17), uplinks: Vec::new() };
        site.gateway.switchboard.link_up(0);
        site.event(GatewayEvent::InEffect { ticket: 0 });
        site
    }

    fn event(&mut self, event: GatewayEvent) {
        self.gateway.link_event(0, event, now(0));
        self.turn();
    }

    fn turn(&mut self) {
        for (link, command) in self.gateway.commands() {
            match command {
                GatewayCommand::Change { ticket, .. } => {
                    self.gateway.link_event(link, GatewayEvent::InEffect { ticket }, now(0));
                }
                GatewayCommand::Uplink(uplink) => self.uplinks.push(uplink.sequence),
                _ => {}
            }
        }
    }

    fn user(&mut self, uid: u64) -> Conn {
        let conn = self.gateway.connect(now(0));
        let expires_at = now(0).unix_s + 3600;
        let grant = Grant { namespace: 0, uid, device_class: 0, login: 0, expires_at };
        self.gateway.from_client(conn, now(0), false, &login(SECRET.as_bytes(), grant));
        self.turn();
        let said = self.gateway.to_client(conn, now(0), 1000);
        let [ToClient::Message(ready)] = &said[..] else { panic!("{said:?}") };
        assert!(matches!(read(ready), Said::Ready { uid: told, .. } if told == uid));
        conn
    }

    fn deliver(&mut self, sequence: u64, uid: u64, payload: &[u8]) {
        let head = MessageHead { sequence, origin: Some(7), ..MessageHead::default() };
        let mut frame = Vec::new();
        head.encode(Kind::DELIVER, &[uid], payload, &mut frame).unwrap();
        let mut machine = GatewayMachine::new(1, 1 << 20);
        let decoded = Frame::decode(&frame).unwrap();
        machine.handle_frame(Instant::now(), &decoded, &frame).unwrap();
        self.event(machine.poll_event().unwrap());
    }
}

#[test]
fn a_client_gets_what_its_socket_takes() {
    let mut site = Site::new();
    let conn = site.user(1001);
    site.deliver(1, 1001, b"hello");
    site.deliver(2, 2002, b"for nobody here");
    assert_eq!(site.gateway.stats().waiting, 1);
    assert_eq!(site.gateway.to_client(conn, now(1), 10), []);
    assert_eq!(site.gateway.to_client(conn, now(1), 10), []);
    let said = site.gateway.to_client(conn, now(2), 100);
    let [ToClient::Message(message)] = &said[..] else { panic!("{said:?}") };
    let payload = Bytes::from_static(b"hello");
    assert_eq!(read(message), Said::Message { origin: 7, sequence: 1, sender: None, payload });
    let stats = site.gateway.stats();
    assert_eq!((stats.delivered, stats.targets_missed, stats.waiting), (1, 1, 0));
}

#[test]
fn promise_5_a_message_half_written_is_in_doubt_and_the_rest_dropped() {
    let mut site = Site::new();
    let conn = site.user(1001);
    site.deliver(1, 1001, b"hello");
    site.deliver(2, 1001, b"hello");
    site.gateway.to_client(conn, now(1), 10);
    site.gateway.disconnect(conn, now(1));
    site.turn();
    let stats = site.gateway.stats();
    assert_eq!((stats.in_doubt, stats.dropped.closed, stats.users), (1, 1, 0));
    assert!(stats.balances());
}

#[test]
fn a_client_that_is_never_let_read_is_closed_as_slow() {
    let mut site = Site::new();
    let conn = site.user(1001);
    for sequence in 1..=4 {
        site.deliver(sequence, 1001, &[0; 400]);
    }
    let said = site.gateway.to_client(conn, now(1), 4096);
    assert_eq!(said, [ToClient::Close(CloseCode::SLOW_CONNECTION)]);
    // The fourth found nobody: the third had not fitted, and its user was logged out.
    assert_eq!(site.gateway.stats().dropped.slow, 3);
    assert!(site.gateway.is_connected(conn));
    site.gateway.tick(now(site.gateway.deadline().unwrap()));
    assert!(!site.gateway.is_connected(conn));
}

#[test]
fn a_send_is_answered_and_until_then_no_more_is_read() {
    let mut site = Site::new();
    let conn = site.user(1001);
    site.gateway.from_client(conn, now(1), false, &send(9, b"up"));
    site.turn();
    assert!(!site.gateway.is_read(conn));
    let [sequence] = site.uplinks[..] else { panic!() };
    site.event(GatewayEvent::UplinkAck { sequence, code: ErrorCode(0) });
    assert!(site.gateway.is_read(conn));
    let said = site.gateway.to_client(conn, now(1), 100);
    let [ToClient::Message(message)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(read(message), Said::Sent { id: 9, code: ErrorCode(0) });
}
