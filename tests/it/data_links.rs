//! Data links (6.13): what a shard reads goes by the gateway's link of that shard, and paths move
//! between links without losing their order.

use std::collections::VecDeque;
use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::code::{ErrorCode, Level, Op, Role, capability};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{ErrorFrame, Frame, Hello, Ping, Pong, Record, Report, Resume, Snapshot};
use waybill_wire::message::MessageHead;

use crate::support::{Line, Net, everywhere, simulated};
use crate::talk::{Producer, Receipt, encode, ends_with, fence, hello_for, in_effect, plain_hello};

mod aside;
mod mix;
mod same;

const OFFERED: u64 =
    capability::RESUME | capability::REPORTS | capability::LINKS | capability::FRAGMENTS;

fn config() -> BrokerConfig {
    BrokerConfig { resume_window_ms: 60_000, ..BrokerConfig::default() }
}

fn check(test: impl Fn(&mut Net)) {
    everywhere(&config(), test);
}

fn digest(uids: &[u64]) -> u64 {
    let of = |&uid: &u64| Registered { namespace: 0, uid, device_class: 0, login: 0 };
    uids.iter().map(of).collect::<Digest>().value()
}

/// A gateway's control link.
#[derive(Clone, Copy, Debug)]
struct Control {
    line: Line,
    incarnation: u64,
    session: u64,
}

impl Control {
    /// Says HELLO, and nothing more.
    fn hello(net: &mut Net, incarnation: u64, session: u64, wanted_shard: u16) -> Self {
        let line = net.connect();
        let hello = Hello {
            session,
            wanted_shard,
            capabilities: OFFERED,
            ..plain_hello(Role::GATEWAY, incarnation)
        };
        net.send(line, &encode(&Frame::Hello(hello)));
        let frame = net.frame(line).expect("WELCOME");
        let Ok(Frame::Welcome(it)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        assert_eq!(it.capabilities, OFFERED);
        Self { line, incarnation, session: it.session }
    }

    fn declare(&self, net: &mut Net, uids: &[u64]) {
        let record =
            |&uid: &u64| Record { uid, login: 0, namespace: 0, op: Op::ADD, device_class: 0 };
        let records: Vec<Record> = uids.iter().map(record).collect();
        let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
        net.send(self.line, &encode(&Frame::Snapshot(snapshot)));
        in_effect(net, self.line, 1, digest(uids));
    }

    fn link(net: &mut Net, incarnation: u64, uids: &[u64]) -> Self {
        let control = Self::hello(net, incarnation, 0, Hello::ANY_SHARD);
        control.declare(net, uids);
        control
    }

    /// Asks for a data link to this shard.
    fn ask(&self, net: &mut Net, wanted_shard: u16) -> Line {
        let line = net.connect();
        let data = Hello {
            data: true,
            session: self.session,
            wanted_shard,
            ..plain_hello(Role::GATEWAY, self.incarnation)
        };
        net.send(line, &encode(&Frame::Hello(data)));
        line
    }

    /// Opens a data link to this shard: its line and its number.
    fn open(&self, net: &mut Net, wanted_shard: u16) -> (Line, u64) {
        let line = self.ask(net, wanted_shard);
        (line, self.welcomed(net, line, wanted_shard))
    }

    fn welcomed(&self, net: &mut Net, line: Line, wanted_shard: u16) -> u64 {
        let frame = net.frame(line).expect("WELCOME");
        let Ok(Frame::Welcome(it)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        assert_eq!((it.capabilities, it.shard, it.resumed), (OFFERED, wanted_shard, false));
        assert_ne!(it.session, self.session);
        it.session
    }

    /// The broker says that this data link is lost.
    fn lost(&self, net: &mut Net, number: u64) {
        let frame = net.frame(self.line).expect("an ERROR");
        let Ok(Frame::Error(error)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        let ErrorFrame { fatal, code, reference, .. } = error;
        assert_eq!((fatal, code, reference), (false, ErrorCode::DATA_LINK_LOST, number));
    }
}

fn producer(net: &mut Net, instance: u64, wanted_shard: u16) -> Producer {
    let line = net.connect();
    let hello = hello_for(Role::PRODUCER, instance, wanted_shard);
    net.send(line, &encode(&Frame::Hello(hello)));
    net.frame(line).expect("WELCOME");
    Producer { line, sequence: 0 }
}

/// What came on this line: the sequence of a DELIVER.
fn delivered(net: &mut Net, line: Line) -> u64 {
    let frame = net.frame(line).expect("a DELIVER");
    match Frame::decode(&frame) {
        Ok(Frame::Deliver(message)) => message.sequence,
        other => panic!("no DELIVER: {other:?}"),
    }
}

/// The sequence of a DELIVER that is there by now, behind PINGs if any.
fn has_come(net: &mut Net, line: Line) -> Option<u64> {
    loop {
        let frame = net.arrived(line)?;
        match Frame::decode(&frame) {
            Ok(Frame::Deliver(message)) => return Some(message.sequence),
            Ok(Frame::Ping(_)) => {}
            other => panic!("no DELIVER: {other:?}"),
        }
    }
}

fn publish(net: &mut Net, producer: &mut Producer, count: u64) {
    for _ in 0..count {
        assert_eq!(producer.publish(net, &[1], b"x").sent, 1);
    }
}

#[test]
fn promise_2_a_path_moves_to_a_data_link_and_back_and_nothing_overtakes() {
    check(|net| {
        for shard in 0..net.shared().config.shards {
            let control = Control::link(net, 1 + u64::from(shard), &[1]);
            let mut from = producer(net, 70 + u64::from(shard), shard);
            publish(net, &mut from, 20);
            let (data, number) = control.open(net, shard);
            publish(net, &mut from, 20);
            // LNK-6: what came by the control link has not been taken in yet. It ends with a PING.
            for sequence in 1..=20 {
                assert_eq!(delivered(net, control.line), sequence);
            }
            net.ping(control.line);
            for sequence in 21..=40 {
                assert_eq!(delivered(net, data), sequence);
            }
            publish(net, &mut from, 5);
            for sequence in 41..=45 {
                assert_eq!(delivered(net, data), sequence);
            }
            net.close(data);
            control.lost(net, number);
            publish(net, &mut from, 5);
            for sequence in 46..=50 {
                assert_eq!(delivered(net, control.line), sequence);
            }
            net.close(control.line);
        }
    });
}

#[test]
fn promise_2_a_data_link_waits_for_a_control_link_that_does_not_read() {
    simulated(&config(), |net| {
        let control = Control::link(net, 1, &[1]);
        let mut from = producer(net, 7, 0);
        net.stall(control.line, true);
        publish(net, &mut from, 3);
        let (data, _) = control.open(net, 0);
        publish(net, &mut from, 3);
        net.settle();
        assert_eq!(net.arrived(data), None, "the control link has yet to bring what was before");
        net.stall(control.line, false);
        for sequence in 1..=3 {
            assert_eq!(delivered(net, control.line), sequence);
        }
        net.settle();
        assert_eq!(net.arrived(data), None, "it was written, and not taken in");
        net.ping(control.line);
        for sequence in 4..=6 {
            assert_eq!(delivered(net, data), sequence);
        }
    });
}

#[test]
fn promise_2_a_newer_session_writes_when_the_links_of_the_older_are_written_out() {
    simulated(&config(), |net| {
        let shards = net.shared().config.shards;
        let older = Control::link(net, 1, &[1]);
        let (of_older, _) = older.open(net, shards - 1);
        let mut from = producer(net, 7, shards - 1);
        net.stall(of_older, true);
        publish(net, &mut from, 3);
        let newer = Control::hello(net, 1, 0, Hello::ANY_SHARD);
        let (of_newer, _) = newer.open(net, shards - 1);
        newer.declare(net, &[1]);
        publish(net, &mut from, 3);
        net.settle();
        assert_eq!(net.arrived(of_newer), None, "the older data link has messages to write");
        net.stall(of_older, false);
        for sequence in 1..=3 {
            assert_eq!(delivered(net, of_older), sequence);
        }
        ends_with(net, of_older, ErrorCode::NO_SESSION);
        for sequence in 4..=6 {
            assert_eq!(delivered(net, of_newer), sequence);
        }
        ends_with(net, older.line, ErrorCode::SUPERSEDED);
    });
}

/// What becomes of an older data link whose write is stuck.
#[derive(Clone, Copy, Debug)]
enum Stuck {
    Stays,
    /// Its gateway ends its direction when the session is over, or before.
    EndsAfter,
    EndsBefore,
}

#[test]
fn lnk_9_an_older_data_link_that_is_stuck_holds_a_newer_session_for_a_second_at_most() {
    for stuck in [Stuck::Stays, Stuck::EndsAfter, Stuck::EndsBefore] {
        eprintln!("{stuck:?}");
        simulated(&config(), |net| {
            let older = Control::link(net, 1, &[1]);
            let (of_older, _) = older.open(net, 0);
            let mut from = producer(net, 7, 0);
            net.stall(of_older, true);
            publish(net, &mut from, 3);
            if matches!(stuck, Stuck::EndsBefore) {
                net.leave(of_older);
                net.settle();
            }
            let newer = Control::link(net, 1, &[1]);
            if matches!(stuck, Stuck::EndsAfter) {
                net.leave(of_older);
            }
            let (of_newer, _) = newer.open(net, 0);
            publish(net, &mut from, 3);
            net.advance(Duration::from_millis(700));
            assert_eq!(net.arrived(of_newer), None);
            net.advance(Duration::from_millis(500));
            for sequence in 4..=6 {
                assert_eq!(has_come(net, of_newer), Some(sequence));
            }
        });
    }
}

#[test]
fn lnk_8_what_waits_behind_a_control_link_that_is_gone_holds_nothing_up() {
    simulated(&config(), |net| {
        let older = Control::link(net, 1, &[1]);
        let mut from = producer(net, 7, 0);
        publish(net, &mut from, 1);
        let (of_older, _) = older.open(net, 0);
        publish(net, &mut from, 2);
        net.reset(older.line);
        let end = net.arrived(of_older).expect("its end, at once");
        let Ok(Frame::Error(error)) = Frame::decode(&end) else { panic!("{end:02x?}") };
        assert_eq!(error.code, ErrorCode::NO_SESSION);
        let newer = Control::link(net, 1, &[1]);
        publish(net, &mut from, 1);
        net.settle();
        assert_eq!(has_come(net, newer.line), Some(4), "at once");
        assert_eq!(net.ledger().gateways.lost, 2);
    });
}

#[test]
fn promise_6_a_data_link_that_is_not_read_holds_up_nothing_of_other_shards() {
    let config = BrokerConfig { outbox_bytes_max: 262_144, ..config() };
    simulated(&config, |net| {
        let shards = net.shared().config.shards;
        let control = Control::link(net, 1, &[1]);
        let (stuck, _) = control.open(net, 0);
        let (free, _) = if shards > 1 { control.open(net, 1) } else { (control.line, 0) };
        net.stall(stuck, true);
        let mut from = producer(net, 7, 0);
        let receipts: Vec<Receipt> =
            (0..40).map(|_| from.publish(net, &[1], &[7; 10_000])).collect();
        assert!(receipts.iter().any(|receipt| receipt.dropped == [1]), "its outbox is bounded");
        if shards > 1 {
            let mut other = producer(net, 8, 1);
            publish(net, &mut other, 5);
            for sequence in 1..=5 {
                assert_eq!(delivered(net, free), sequence);
            }
        }
        // Registration goes on beside it.
        fence(net, control.line);
    });
}

#[test]
fn promise_8_data_links_end_with_their_control_link_and_a_resumed_session_opens_them_anew() {
    check(|net| {
        let shards = net.shared().config.shards;
        let control = Control::link(net, 1, &[1]);
        let data: Vec<(Line, u64)> = (0..shards).map(|at| control.open(net, at)).collect();
        let mut from = producer(net, 7, shards - 1);
        publish(net, &mut from, 1);
        assert_eq!(delivered(net, data[usize::from(shards) - 1].0), 1);
        net.close(control.line);
        assert_eq!(from.publish(net, &[1], b"x").offline, [1], "at once");
        for (line, _) in data {
            ends_with(net, line, ErrorCode::NO_SESSION);
        }
        let again = Control::hello(net, 1, control.session, Hello::ANY_SHARD);
        assert_eq!(again.session, control.session);
        let frame = net.frame(again.line).expect("RESUMED");
        assert!(matches!(Frame::decode(&frame), Ok(Frame::Resumed(_))));
        let (data, _) = again.open(net, shards - 1);
        assert_eq!(from.publish(net, &[1], b"x").offline, [1], "it is not resumed yet");
        let resume = Resume { session: again.session, version: 1, digest: digest(&[1]) };
        net.send(again.line, &encode(&Frame::Resume(resume)));
        in_effect(net, again.line, 1, digest(&[1]));
        publish(net, &mut from, 2);
        assert_eq!((delivered(net, data), delivered(net, data)), (4, 5));
    });
}

#[test]
fn promise_5_what_waits_for_a_data_link_that_ends_is_counted_and_unknown() {
    simulated(&config(), |net| {
        let control = Control::link(net, 1, &[1]);
        let (data, number) = control.open(net, 0);
        let mut from = producer(net, 7, 0);
        net.stall(data, true);
        for _ in 0..4 {
            let head = MessageHead { level: Level::DELIVERED, ..MessageHead::default() };
            from.send_with(net, head, &[1], b"x");
            assert_eq!(from.receipt(net).sent, 1);
        }
        net.reset(data);
        for sequence in 1..=4 {
            let receipt = from.receipt(net);
            assert_eq!((receipt.sequence, receipt.sent, receipt.unknown), (sequence, 0, 1));
        }
        control.lost(net, number);
        let ledger = net.ledger().gateways;
        assert_eq!(ledger.in_doubt + ledger.lost, 4, "{ledger:?}");
    });
}

#[test]
fn rep_1_a_report_counts_on_the_link_that_its_message_came_by() {
    check(|net| {
        let control = Control::link(net, 1, &[1]);
        let (data, _) = control.open(net, 0);
        let mut from = producer(net, 7, 0);
        let head = MessageHead { level: Level::DELIVERED, ..MessageHead::default() };
        from.send_with(net, head, &[1], b"x");
        from.receipt(net);
        assert_eq!(delivered(net, data), 1);
        let (stage, sequence, origin, reached) = (Level::DELIVERED, 1, 7, 1);
        let report = Report { stage, sequence, origin, reached, ..Report::default() };
        net.send(control.line, &encode(&Frame::Report(report)));
        fence(net, control.line);
        assert_eq!(net.ledger().reports_ignored, 1);
        net.send(data, &encode(&Frame::Report(report)));
        assert_eq!(from.receipt(net).sent, 1);
    });
}

#[test]
fn lnk_2_data_links_are_bounded_and_may_be_switched_off() {
    everywhere(&BrokerConfig { data_links_max: 1, ..config() }, |net| {
        let control = Control::link(net, 1, &[1]);
        let (first, number) = control.open(net, 0);
        if net.shared().config.shards > 1 {
            let second = control.ask(net, 1);
            ends_with(net, second, ErrorCode::TOO_MANY_LINKS);
        }
        fence(net, first);
        // One that takes the place of another is none too many.
        let (newer, _) = control.open(net, 0);
        ends_with(net, first, ErrorCode::SUPERSEDED);
        control.lost(net, number);
        let mut from = producer(net, 7, 0);
        publish(net, &mut from, 1);
        assert_eq!(delivered(net, newer), 1);
    });
    everywhere(&BrokerConfig { data_links_max: 0, ..config() }, |net| {
        let line = net.connect();
        let hello = Hello { capabilities: OFFERED, ..plain_hello(Role::GATEWAY, 1) };
        net.send(line, &encode(&Frame::Hello(hello)));
        let frame = net.frame(line).expect("WELCOME");
        let Ok(Frame::Welcome(welcome)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        assert_eq!(welcome.capabilities, OFFERED & !capability::LINKS);
        let data = Control { line, incarnation: 1, session: welcome.session }.ask(net, 0);
        ends_with(net, data, ErrorCode::NOT_SUPPORTED);
    });
}

/// A gateway that keeps to the contract: its links, and what it has taken in.
struct Gateway {
    control: Control,
    /// By shard: their lines, and their numbers once WELCOME is there.
    data: Vec<Option<(Line, Option<u64>)>>,
    /// Data links that were told as lost.
    lost: Vec<u64>,
    /// Of each producer, by instance: sequences in the order in which they were taken in.
    taken: VecDeque<(u64, u64)>,
}

impl Gateway {
    fn new(control: Control, shards: u16) -> Self {
        let data = (0..shards).map(|_| None).collect();
        Self { control, data, lost: Vec::new(), taken: VecDeque::new() }
    }

    fn lines(&self) -> Vec<Line> {
        let data = self.data.iter().flatten().map(|(line, _)| *line);
        std::iter::once(self.control.line).chain(data).collect()
    }

    /// Takes in a frame that came by this line.
    fn take(&mut self, net: &mut Net, line: Line, frame: &[u8]) {
        match Frame::decode(frame) {
            Ok(Frame::Deliver(message)) => {
                self.taken.push_back((message.origin.unwrap(), message.sequence));
            }
            Ok(Frame::Ping(Ping { token })) => {
                let mut pong = Vec::new();
                Pong { token }.encode(&mut pong);
                net.send(line, &pong);
            }
            Ok(Frame::Welcome(welcome)) => {
                let at = self.data.iter().position(|it| it.is_some_and(|(of, _)| of == line));
                let at = at.expect("a data link");
                self.data[at] = Some((line, Some(welcome.session)));
                self.forget_lost(net);
            }
            Ok(Frame::Error(ErrorFrame { code: ErrorCode::DATA_LINK_LOST, reference, .. })) => {
                self.lost.push(reference);
                self.forget_lost(net);
            }
            // The HELLO of one that was given up came after that of the one in its place.
            Ok(Frame::Error(ErrorFrame { code: ErrorCode::SUPERSEDED, .. })) => {
                self.data.iter_mut().for_each(|it| *it = it.filter(|(of, _)| *of != line));
            }
            other => panic!("{other:?}"),
        }
    }

    fn forget_lost(&mut self, net: &mut Net) {
        for data in &mut self.data {
            if let Some((line, Some(number))) = *data
                && self.lost.contains(&number)
            {
                net.cut(line);
                *data = None;
            }
        }
    }
}
