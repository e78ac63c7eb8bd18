//! What one frame asks for is done in parts (SEC-24): who is served between them, and what waits.

use std::time::Instant;

use waybill_client::gateway::{GatewayMachine, Report};
use waybill_wire::code::{Kind, Level, Op};
use waybill_wire::frame::{Tag, TagChange};
use waybill_wire::{Frame, MessageHead};

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Connections that are met in one part.
const PART: usize = 4;

fn now(ms: u64) -> Now {
    Now { ms, unix_s: 1_800_000_000 }
}

/// The event a link makes of a DELIVER or a TAG.
fn event(frame: &[u8]) -> GatewayEvent {
    let mut machine = GatewayMachine::new(0xa1, 1, 1 << 20);
    machine.handle_frame(Instant::now(), &Frame::decode(frame).unwrap(), frame).unwrap();
    machine.poll_event().unwrap()
}

/// A gateway of two links. Registrations are confirmed by the second.
struct Site {
    gateway: SimGateway,
    users: Vec<Conn>,
    reports: Vec<(usize, Report)>,
}

impl Site {
    fn new(users: u64) -> Self {
        let mut config = GatewayConfig::default();
        config.jwt.secret = SECRET.into();
        config.broker.addresses = vec!["a:1".into(), "b:1".into()];
        let mut gateway = SimGateway::new(&config, 0x5a17);
        gateway.set_part(PART);
        let mut site = Self { gateway, users: Vec::new(), reports: Vec::new() };
        for link in 0..2 {
            site.gateway.switchboard.link_up(link);
            site.gateway.link_event(link, GatewayEvent::InEffect { ticket: 0 }, now(0));
        }
        for uid in 0..users {
            let conn = site.login(uid);
            site.users.push(conn);
        }
        assert!(!site.gateway.is_unfinished());
        site
    }

    /// Ends a turn: hands commands over.
    fn turn(&mut self) {
        for (link, command) in self.gateway.commands() {
            match command {
                GatewayCommand::Change { ticket, .. } if link == 1 => {
                    let in_effect = GatewayEvent::InEffect { ticket };
                    self.gateway.link_event(1, in_effect, now(0));
                }
                GatewayCommand::Report(report) => self.reports.push((link, report)),
                _ => {}
            }
        }
    }

    /// A user who is told *ready*.
    fn login(&mut self, uid: u64) -> Conn {
        let conn = self.gateway.connect(now(0));
        let expires_at = now(0).unix_s + 3600;
        let grant = Grant { namespace: 0, uid, device_class: 0, login: 0, tags: &[], expires_at };
        self.gateway.from_client(conn, now(0), false, &login(SECRET.as_bytes(), grant));
        self.turn();
        let said = self.gateway.to_client(conn, now(0), 1000);
        let [ToClient::Message(ready)] = &said[..] else { panic!("{said:?}") };
        assert!(matches!(read(ready), Said::Ready { uid: told, .. } if told == uid));
        conn
    }

    /// Sequences that users get now, all who get any.
    fn got(&mut self) -> Vec<(Conn, Vec<u64>)> {
        let mut got = Vec::new();
        for conn in self.gateway.connections().collect::<Vec<_>>() {
            let said = self.gateway.to_client(conn, now(0), 1 << 20).into_iter();
            let sequences = said.filter_map(|said| match said {
                ToClient::Message(bytes) => match read(&bytes) {
                    Said::Message { sequence, .. } => Some(sequence),
                    _ => None,
                },
                _ => None,
            });
            got.push((conn, sequences.collect::<Vec<_>>()));
        }
        got.retain(|(_, sequences)| !sequences.is_empty());
        got
    }

    /// Does parts until nothing is left: how many, and the most users that one of them served.
    fn finish(&mut self) -> (usize, usize) {
        let (mut parts, mut most) = (0, 0);
        while self.gateway.is_unfinished() {
            let _freed = self.gateway.go_on(now(0));
            parts += 1;
            most = most.max(self.got().len());
            self.turn();
        }
        (parts, most)
    }
}

fn to_all(sequence: u64, level: Level) -> GatewayEvent {
    let head =
        MessageHead { sequence, origin: Some(7), everyone: true, level, ..MessageHead::default() };
    let mut frame = Vec::new();
    head.encode(Kind::DELIVER, &[], b"x", &mut frame).unwrap();
    event(&frame)
}

fn to(sequence: u64, uids: &[u64], level: Level) -> GatewayEvent {
    let head = MessageHead { sequence, origin: Some(8), level, ..MessageHead::default() };
    let mut frame = Vec::new();
    head.encode(Kind::DELIVER, uids, b"x", &mut frame).unwrap();
    event(&frame)
}

#[test]
fn sec_24_others_are_served_between_the_parts_of_a_delivery_to_everyone() {
    let mut site = Site::new(20);
    site.gateway.link_event(0, to_all(1, Level::DELIVERED), now(0));
    assert_eq!(site.got().len(), PART, "one part");
    assert!(site.gateway.is_held(0) && !site.gateway.is_held(1));
    // Another link is heard: a message goes to the last user, who was not met yet.
    site.gateway.link_event(1, to(1, &[19], Level::DELIVERED), now(0));
    assert_eq!(site.got(), [(site.users[19], vec![1])]);
    site.turn();
    assert_eq!(site.reports.len(), 1, "of what has come later, by another link");
    // A user logs in, and is ready: too late for the message, which counts the user as not there.
    site.login(99);
    // One that it has met leaves, and one that it has not.
    site.gateway.disconnect(site.users[0], now(0));
    site.gateway.disconnect(site.users[18], now(0));
    let (parts, most) = site.finish();
    assert_eq!((parts, most), (4, PART), "16 are left, and one part of them is less");
    assert!(!site.gateway.is_held(0));
    let [_, (0, report)] = &site.reports[..] else { panic!("{:?}", site.reports) };
    // User 0 had it before it left.
    assert_eq!((report.reached, report.offline, report.unknown), (19, 1, 0));
    let stats = site.gateway.stats();
    assert_eq!((stats.messages_in, stats.delivered, stats.dropped.unready), (2, 20, 1));
    assert_eq!((stats.encodings, stats.reports), (2, 2));
}

#[test]
fn sec_24_what_comes_behind_by_the_same_link_does_not_overtake() {
    let mut site = Site::new(10);
    site.gateway.link_event(0, to_all(1, Level::NONE), now(0));
    site.got();
    // A driver that does not hold the link makes it wait all the same.
    site.gateway.link_event(0, to_all(2, Level::NONE), now(0));
    let (mut got, last) = (site.got(), site.users[9]);
    while site.gateway.is_unfinished() {
        let _freed = site.gateway.go_on(now(0));
        got.extend(site.got());
    }
    let of_last: Vec<u64> =
        got.iter().filter(|(conn, _)| *conn == last).flat_map(|(_, it)| it.clone()).collect();
    assert_eq!(of_last, [1, 2], "promise 2");
}

#[test]
fn sec_24_two_links_share_what_is_done() {
    let mut site = Site::new(12);
    let uids: Vec<u64> = (0..12).collect();
    site.gateway.link_event(0, to_all(1, Level::NONE), now(0));
    site.gateway.link_event(1, to(1, &uids, Level::NONE), now(0));
    assert!(site.gateway.is_held(0) && site.gateway.is_held(1));
    let freed: Vec<_> = (0..4).map(|_| site.gateway.go_on(now(0))).collect();
    assert_eq!(freed, [None, None, Some(0), Some(1)]);
    assert!(site.got().into_iter().all(|(_, sequences)| sequences == [1, 1]));
}

#[test]
fn sec_24_a_copy_waits_for_the_first_and_both_are_reported_once() {
    let mut site = Site::new(10);
    site.gateway.link_event(0, to_all(1, Level::DELIVERED), now(0));
    site.gateway.link_event(1, to_all(1, Level::DELIVERED), now(0));
    assert!(site.gateway.is_held(0) && site.gateway.is_held(1));
    let mut got = site.got();
    assert_eq!(got.len(), PART, "the copy has not begun");
    while site.gateway.is_unfinished() {
        let _freed = site.gateway.go_on(now(0));
        got.extend(site.got());
        site.turn();
    }
    assert_eq!(got.len(), 10, "promise 3");
    let told: Vec<_> =
        site.reports.iter().map(|(link, it)| (*link, it.reached, it.unknown)).collect();
    assert_eq!(told, [(0, 10, 0), (1, 10, 0)]);
    assert_eq!(site.gateway.stats().repeated, 10);
}

#[test]
fn sec_24_a_link_that_ends_in_the_middle_leaves_nothing_behind() {
    let mut site = Site::new(10);
    site.gateway.link_event(0, to_all(1, Level::DELIVERED), now(0));
    // It did not take a command, since it has ended; its last word comes when it is not held.
    site.gateway.switchboard.link_closed(0, Vec::new());
    site.finish();
    site.gateway.switchboard.link_gone(0);
    site.turn();
    assert_eq!(site.gateway.stats().delivered, 10);
    assert_eq!((site.gateway.load().reports, site.gateway.stats().reports_waiting), (0, 0));
}

#[test]
fn sec_24_the_largest_tag_is_made_in_parts() {
    let mut site = Site::new(9);
    let uids: Vec<u64> = (0..12).collect();
    let changes = [TagChange { op: Op::ADD, tag: "vip" }, TagChange { op: Op::ADD, tag: "x" }];
    let (uids, changes) = (uids.as_slice().into(), changes.as_slice().into());
    let mut frame = Vec::new();
    Tag { namespace: 0, sequence: 1, origin: 7, uids, changes }.encode(&mut frame).unwrap();
    site.gateway.link_event(1, event(&frame), now(0));
    assert!(site.gateway.is_held(1) && site.reports.is_empty());
    let mut parts = 1;
    while site.gateway.is_unfinished() {
        // Another link's message between two parts.
        site.gateway.link_event(0, to(parts, &[0], Level::NONE), now(0));
        assert_eq!(site.got(), [(site.users[0], vec![parts])]);
        let _freed = site.gateway.go_on(now(0));
        parts += 1;
    }
    // Two users of two changes each, then those who are not here, one for each.
    assert_eq!(parts, 6);
    site.turn();
    site.turn();
    let [(1, report)] = &site.reports[..] else { panic!("{:?}", site.reports) };
    assert_eq!((report.reached, report.offline, report.dropped), (9, 3, 0));
    assert_eq!(report.fates[0].uids, [9, 10, 11]);
}

#[test]
fn sec_24_those_who_wait_for_one_confirmation_are_told_in_parts() {
    let mut site = Site::new(0);
    let conns: Vec<Conn> = (0..10)
        .map(|uid| {
            let conn = site.gateway.connect(now(0));
            let expires_at = now(0).unix_s + 3600;
            let grant =
                Grant { namespace: 0, uid, device_class: 0, login: 0, tags: &[], expires_at };
            site.gateway.from_client(conn, now(0), false, &login(SECRET.as_bytes(), grant));
            conn
        })
        .collect();
    site.turn();
    assert_eq!(site.gateway.stats().readies, PART as u64);
    let _none = site.gateway.go_on(now(0));
    assert_eq!(site.gateway.stats().readies, 2 * PART as u64);
    site.finish();
    assert_eq!(site.gateway.stats().readies, conns.len() as u64);
}
