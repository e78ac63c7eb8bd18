//! The gateway as a simulator sees it: a client that reads late, one that leaves in the middle of a
//! frame, one that never reads.

use std::time::Instant;

use waybill_client::gateway::{Change, GatewayMachine, Registration};
use waybill_wire::code::{Kind, Level, Op};
use waybill_wire::frame::{Tag, TagChange};
use waybill_wire::{Frame, MessageHead};

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(super) fn now(ms: u64) -> Now {
    Now { ms, unix_s: 1_800_000_000 }
}

fn login_of(uid: u64, number: u64) -> Bytes {
    let expires_at = now(0).unix_s + 3600;
    login(
        SECRET.as_bytes(),
        Grant { namespace: 0, uid, device_class: 0, login: number, tags: &[], expires_at },
    )
}

/// The event a link makes of a DELIVER or a TAG.
fn delivery(frame: &[u8]) -> GatewayEvent {
    let mut machine = GatewayMachine::new(0xa1, 1, 1 << 20);
    machine.handle_frame(Instant::now(), &Frame::decode(frame).unwrap(), frame).unwrap();
    machine.poll_event().unwrap()
}

/// A gateway whose only link is a broker that confirms at once.
pub(super) struct Site {
    pub(super) gateway: SimGateway,
    uplinks: Vec<u64>,
}

impl Site {
    fn new() -> Self {
        Self::with(|config| {
            config.limits.queue_bytes_max = 1024;
            config.limits.uplinks_per_connection_max = 1;
        })
    }

    pub(super) fn with(adjust: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config = GatewayConfig::default();
        config.jwt.secret = SECRET.into();
        adjust(&mut config);
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

    pub(super) fn user(&mut self, uid: u64) -> Conn {
        self.user_with(uid, 0)
    }

    fn user_with(&mut self, uid: u64, number: u64) -> Conn {
        let conn = self.gateway.connect(now(0));
        self.gateway.from_client(conn, now(0), false, &login_of(uid, number));
        self.turn();
        let said = self.gateway.to_client(conn, now(0), 1000);
        let [ToClient::Message(ready)] = &said[..] else { panic!("{said:?}") };
        assert!(matches!(read(ready), Said::Ready { uid: told, .. } if told == uid));
        conn
    }

    fn deliver(&mut self, sequence: u64, uid: u64, payload: &[u8]) {
        self.deliver_to(sequence, &[uid], payload);
    }

    /// At the time that its number is, until it is handed out.
    pub(super) fn deliver_to(&mut self, sequence: u64, uids: &[u64], payload: &[u8]) {
        let head = MessageHead { sequence, origin: Some(7), ..MessageHead::default() };
        let mut frame = Vec::new();
        head.encode(Kind::DELIVER, uids, payload, &mut frame).unwrap();
        self.gateway.link_event(0, delivery(&frame), now(sequence));
        while self.gateway.is_unfinished() {
            self.gateway.go_on(now(sequence));
        }
        self.turn();
    }
}

/// The reports on deliveries that a test asks for.
fn report(site: &mut Site) -> Vec<(u32, u32, u32, u32)> {
    let commands = site.gateway.commands().into_iter();
    let counts = commands.filter_map(|(_, command)| match command {
        GatewayCommand::Report(r) => Some((r.reached, r.offline, r.dropped, r.unknown)),
        _ => None,
    });
    counts.collect()
}

#[test]
fn a_delivery_of_level_delivered_is_reported_once_it_is_written() {
    let mut site = Site::new();
    let (quick, slow) = (site.user(1001), site.user(1002));
    let head = MessageHead {
        sequence: 1,
        origin: Some(7),
        level: Level::DELIVERED,
        ..MessageHead::default()
    };
    let mut frame = Vec::new();
    head.encode(Kind::DELIVER, &[1001, 1002, 1003], b"x", &mut frame).unwrap();
    let event = delivery(&frame);
    site.gateway.link_event(0, event.clone(), now(0));
    site.gateway.to_client(quick, now(0), 1000);
    assert_eq!(report(&mut site), []);
    assert_eq!(site.gateway.deadline(), Some(2000));
    // In the middle of the frame its user leaves.
    site.gateway.to_client(slow, now(0), 3);
    site.gateway.disconnect(slow, now(1));
    assert_eq!(report(&mut site), [(1, 1, 0, 1)]);
    // A copy by another broker tells what the first one came to, of who has left, too (REP-2).
    site.gateway.link_event(0, event, now(2));
    assert_eq!(report(&mut site), [(1, 1, 0, 1)]);
    assert_eq!(site.gateway.stats().reports, 2);
}

/// TRC-4.
#[test]
fn a_report_on_a_traced_delivery_tells_when_it_came_and_when_a_socket_had_it() {
    let mut site = Site::new();
    let (late, first) = (site.user(1001), site.user(1002));
    let trace = [7; 16];
    let head = |sequence, trace| MessageHead {
        sequence,
        origin: Some(7),
        level: Level::DELIVERED,
        trace,
        ..MessageHead::default()
    };
    let start_us = now(0).unix_s * 1_000_000;
    let mut times = |sequence, trace, uids: &[u64], writes: &[(Conn, u64)]| {
        let mut frame = Vec::new();
        head(sequence, trace).encode(Kind::DELIVER, uids, b"x", &mut frame).unwrap();
        site.gateway.link_event(0, delivery(&frame), now(5));
        for (conn, ms) in writes {
            site.gateway.to_client(*conn, now(*ms), 1000);
        }
        let commands = site.gateway.commands();
        let [(0, GatewayCommand::Report(report))] = &commands[..] else { panic!("{commands:?}") };
        [report.gateway_in_us, report.socket_us].map(|us| us.saturating_sub(start_us))
    };
    let writes = [(first, 20), (late, 30)];
    assert_eq!(times(1, Some(&trace), &[1001, 1002, 1003], &writes), [5_000, 20_000]);
    assert_eq!(times(2, Some(&trace), &[1003], &[]), [5_000, 0], "there is no socket");
    assert_eq!(times(3, None, &[1001, 1002], &writes), [0, 0], "nobody asked");
    assert!(site.gateway.queues.settled.take_times().is_empty());
}

#[test]
fn a_delivery_below_level_delivered_takes_no_memory_for_reports() {
    let mut site = Site::new();
    let (quick, leaving) = (site.user(1001), site.user(1002));
    for (sequence, level) in [(1, Level::NONE), (2, Level::ROUTED)] {
        let head = MessageHead { sequence, origin: Some(7), level, ..MessageHead::default() };
        let mut frame = Vec::new();
        head.encode(Kind::DELIVER, &[1001, 1002, 1003], b"x", &mut frame).unwrap();
        // Every way out of a queue: repeated, written, half written, given up.
        site.event(delivery(&frame));
        site.event(delivery(&frame));
        site.gateway.to_client(quick, now(0), 1000);
    }
    site.gateway.to_client(leaving, now(0), 3);
    site.gateway.disconnect(leaving, now(1));
    site.turn();
    let stats = site.gateway.stats();
    let dropped = stats.dropped.closed;
    assert_eq!((stats.delivered, stats.repeated, dropped, stats.in_doubt), (2, 4, 1, 1));
    assert!(site.gateway.switchboard.reports().is_untouched());
    assert!(site.gateway.queues.settled.is_untouched());
}

#[test]
fn what_a_client_had_closed_before_is_not_reached() {
    let mut site = Site::new();
    let conn = site.user(1001);
    let level = Level::DELIVERED;
    let head = MessageHead { sequence: 1, origin: Some(7), level, ..MessageHead::default() };
    let mut frame = Vec::new();
    head.encode(Kind::DELIVER, &[1001], b"x", &mut frame).unwrap();
    site.gateway.link_event(0, delivery(&frame), now(0));
    site.gateway.closed_by_client(conn, now(1));
    assert_eq!(report(&mut site), [(0, 1, 0, 0)]);
    assert_eq!(site.gateway.to_client(conn, now(1), 1000), []);
    assert_eq!((site.gateway.stats().dropped.closed, site.gateway.stats().users), (1, 0));
}

#[test]
fn promise_8_exactly_the_displaced_login_goes() {
    let mut site = Site::new();
    let (loser, other) = (site.user_with(1001, 5), site.user_with(1001, 9));
    let registration = Registration { namespace: 0, uid: 1001, device_class: 0, login: 5 };
    let told = GatewayEvent::Displaced { registration, winner: 9 };
    site.gateway.link_event(0, told.clone(), now(0));
    // Both brokers tell.
    site.gateway.link_event(0, told, now(0));
    // It comes again before its removal is in effect: it would have lost as well.
    let again = site.gateway.connect(now(0));
    site.gateway.from_client(again, now(0), false, &login_of(1001, 5));
    for conn in [loser, again] {
        let said = site.gateway.to_client(conn, now(0), 1000);
        assert_eq!(said, [ToClient::Close(CloseCode::DISPLACED)]);
    }
    assert_eq!(site.gateway.to_client(other, now(0), 1000), []);
    let commands = site.gateway.commands();
    let [(0, GatewayCommand::Change { changes, .. })] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(changes[..], [Change::remove(registration)]);
    assert_eq!((site.gateway.stats().displaced, site.gateway.stats().logged_in), (1, 1));
}

#[test]
fn reg_6_a_tag_given_to_a_connection_that_waits_is_waited_for() {
    let mut site = Site::new();
    let conn = site.gateway.connect(now(0));
    site.gateway.from_client(conn, now(0), false, &login_of(1001, 0));
    assert_eq!(site.gateway.commands().len(), 1);
    let changes = [TagChange { op: Op::ADD, tag: "vip" }];
    let (uids, changes) = ([1001].as_slice().into(), changes.as_slice().into());
    let mut frame = Vec::new();
    Tag { namespace: 0, sequence: 1, origin: 7, uids, changes }.encode(&mut frame).unwrap();
    site.gateway.link_event(0, delivery(&frame), now(0));
    assert_eq!(site.gateway.commands().len(), 1);
    site.gateway.link_event(0, GatewayEvent::InEffect { ticket: 1 }, now(0));
    assert_eq!(site.gateway.to_client(conn, now(0), 1000), [], "the tag is not in effect");
    assert_eq!(report(&mut site), []);
    site.gateway.link_event(0, GatewayEvent::InEffect { ticket: 2 }, now(0));
    assert_eq!(report(&mut site), [(1, 0, 0, 0)]);
    let said = site.gateway.to_client(conn, now(0), 1000);
    assert!(matches!(said[..], [ToClient::Message(_)]), "{said:?}");
    assert_eq!(site.gateway.stats().readies, 1);
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
    assert_eq!(stats.balances(), Ok(()));
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
