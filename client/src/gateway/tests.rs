//! The gateway's machine against a model of the broker's side: versions, digest and set.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use proptest::prelude::*;
use waybill_wire::code::{ErrorCode, Kind, Op};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{self, InEffect, Record, UplinkAck};
use waybill_wire::session::registration::{Filled, Registration as Versions};
use waybill_wire::{Deframer, Frame, MessageHead};

use super::{
    Change, DeclaredTag, GatewayCommand, GatewayEvent, GatewayMachine, Registration, Uplink,
};
use crate::link::Welcomed;

mod fragments;
mod hops;
mod resume;
mod silence;
mod tags;

/// Registrations and tags at some moment.
type Held = (BTreeSet<Registered>, BTreeSet<DeclaredTag>);

/// What the broker makes of one session. It answers in order, when asked to.
#[derive(Default)]
struct Model {
    versions: Versions,
    set: BTreeSet<Registered>,
    tags: BTreeSet<DeclaredTag>,
    /// Confirmations that wait to be sent, with the sets as they are in effect then.
    effects: VecDeque<(InEffect, Held)>,
    /// The sets in effect by the last confirmation that was sent.
    in_effect: Held,
    uplinks: Vec<u64>,
    /// What it held after each frame that could be the last, since the last confirmation.
    points: Vec<(u64, Held)>,
    suspended: Vec<u32>,
    /// Records of each SNAPSHOT, DELTA and TAG_DELTA frame.
    sizes: Vec<(Kind, usize)>,
}

impl Model {
    fn digest(&self) -> u64 {
        let mut digest: Digest = self.set.iter().copied().collect();
        self.tags.iter().for_each(|tag| digest.add_tag(tag.namespace, &tag.text));
        digest.value()
    }

    fn held(&self) -> Held {
        (self.set.clone(), self.tags.clone())
    }

    fn effect(&mut self, version: u64) {
        let effect = InEffect { version, digest: self.digest() };
        self.effects.push_back((effect, self.held()));
    }

    fn apply_tags(&mut self, frame: &frame::TagDelta<'_>) {
        self.versions.tag_delta(frame).expect("in order");
        for frame::TagRecord { namespace, op, tag } in frame.tag_records {
            let tag = DeclaredTag { namespace, text: tag.into() };
            let changed = match op {
                Op::ADD => self.tags.insert(tag),
                _ => self.tags.remove(&tag),
            };
            assert!(changed, "TAG-6");
        }
        self.sizes.push((Kind::TAG_DELTA, frame.tag_records.len()));
    }

    fn apply(&mut self, kind: Kind, records: impl Iterator<Item = Record>) {
        let before = self.sizes.len();
        self.sizes.push((kind, 0));
        for Record { uid, login, namespace, op, device_class } in records {
            let registered = Registered { namespace, uid, device_class, login };
            let changed = match op {
                Op::ADD => self.set.insert(registered),
                _ => self.set.remove(&registered),
            };
            assert!(changed, "a gateway says nothing twice");
            self.sizes[before].1 += 1;
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let (mut deframer, mut at) = (Deframer::new(), 0);
        loop {
            let step = deframer.next(&bytes[at..]).expect("well framed");
            at += step.consumed;
            let Some(raw) = step.frame else { return };
            let frame = raw.decode().expect("well formed");
            let kind = frame.kind();
            match frame {
                Frame::Snapshot(frame) => {
                    let version = frame.version;
                    let filled = self.versions.snapshot(frame.first, frame.last, version);
                    self.apply(Kind::SNAPSHOT, frame.records.iter());
                    if filled.expect("in order") == Filled::Complete {
                        self.effect(version);
                    }
                }
                Frame::Delta(frame) => {
                    self.versions.delta(frame.version).expect("dense");
                    self.apply(Kind::DELTA, frame.records.iter());
                }
                Frame::TagDelta(frame) => self.apply_tags(&frame),
                Frame::Barrier(frame) => {
                    let digest = self.digest();
                    let held = self.versions.barrier(frame.version, frame.digest, digest);
                    held.expect("the last version and its digest");
                    self.effect(frame.version);
                }
                Frame::Uplink(message) => self.uplinks.push(message.sequence),
                Frame::Resume(frame) => {
                    let held = self.versions.resume(&frame, 2, self.digest());
                    held.expect("the last version and its digest");
                    self.effect(frame.version);
                }
                Frame::Suspend(frame) => {
                    self.versions.suspend().expect("is live");
                    self.suspended.push(frame.window_ms);
                }
                other => panic!("{other:?}"),
            }
            let whole = self.versions.is_live() || self.versions.is_resuming();
            if whole && matches!(kind, Kind::SNAPSHOT | Kind::DELTA | Kind::TAG_DELTA) {
                self.points.push((self.versions.version(), self.held()));
            }
        }
    }
}

struct Rig {
    machine: GatewayMachine,
    model: Model,
}

fn user(uid: u64) -> Registration {
    Registration { namespace: 1, uid, device_class: 2, login: 3 }
}

impl Rig {
    fn new() -> Self {
        Self { machine: GatewayMachine::new(0xa1, 4, 10_000), model: Model::default() }
    }

    fn open() -> Self {
        let mut rig = Self::new();
        rig.reopen();
        rig
    }

    fn reopen(&mut self) {
        self.model = Model::default();
        self.machine.handle_open(Instant::now(), &Welcomed::for_tests());
    }

    fn change(&mut self, ticket: u64, changes: Vec<Change>) {
        self.machine.handle_command(GatewayCommand::Change { ticket, changes, tags: Vec::new() });
    }

    /// One write.
    fn transmit(&mut self) -> bool {
        let mut out = Vec::new();
        self.machine.transmit(&mut out);
        self.model.take(&out);
        !out.is_empty()
    }

    fn confirm(&mut self) -> bool {
        let Some((effect, held)) = self.model.effects.pop_front() else { return false };
        self.model.in_effect = held;
        self.model.points.retain(|(version, _)| *version >= effect.version);
        self.machine
            .handle_frame(Instant::now(), &Frame::InEffect(effect), &[])
            .expect("what was declared");
        true
    }

    fn events(&mut self) -> Vec<GatewayEvent> {
        std::iter::from_fn(|| self.machine.poll_event()).collect()
    }

    fn tickets(&mut self) -> Vec<u64> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| match event {
                GatewayEvent::InEffect { ticket } => Some(ticket),
                _ => None,
            })
            .collect()
    }
}

fn adds(uids: impl IntoIterator<Item = u64>) -> Vec<Change> {
    uids.into_iter().map(|uid| Change::add(user(uid))).collect()
}

#[test]
fn an_empty_gateway_declares_an_empty_snapshot() {
    let mut rig = Rig::open();
    rig.transmit();
    assert_eq!(rig.model.sizes, [(Kind::SNAPSHOT, 0)]);
    assert!(rig.tickets().is_empty());
    rig.confirm();
    assert_eq!(rig.tickets(), [0]);
    assert!(!rig.transmit(), "nothing more to say");
}

#[test]
fn a_large_set_is_cut_into_frames_and_changes_meet_the_cursor() {
    let mut rig = Rig::new();
    rig.change(1, adds(0..10_000));
    rig.reopen();
    assert!(rig.transmit());
    let of_a_write = rig.model.sizes.len();
    assert!(of_a_write < 9, "{of_a_write} frames of 512");
    // 7 is behind the cursor, 9000 and 20000 ahead of it.
    rig.change(2, vec![Change::remove(user(7))]);
    rig.change(3, vec![Change::remove(user(9000)), Change::add(user(20_000))]);
    while rig.transmit() {}
    let mut expected = vec![(Kind::SNAPSHOT, 512); 19];
    expected.extend([(Kind::SNAPSHOT, 10_000 - 19 * 512), (Kind::DELTA, 1)]);
    assert_eq!(rig.model.sizes, expected);
    rig.confirm();
    assert_eq!(rig.tickets(), [1], "user 7 was in the snapshot");
    rig.confirm();
    assert_eq!(rig.tickets(), [3]);
    assert_eq!(rig.model.set.len(), 9999);
}

#[test]
fn what_gathers_between_writes_is_one_delta_adds_first() {
    let mut rig = Rig::open();
    rig.transmit();
    rig.confirm();
    rig.change(1, adds([5]));
    rig.transmit();
    let moved = Registration { login: 4, ..user(5) };
    rig.change(2, vec![Change::remove(user(5)), Change::add(moved)]);
    rig.change(3, adds([6]));
    rig.change(4, vec![Change::remove(user(6))]);
    let mut out = Vec::new();
    rig.machine.transmit(&mut out);
    let mut deframer = Deframer::new();
    let step = deframer.next(&out).expect("well framed");
    let Ok(Frame::Delta(delta)) = step.frame.expect("whole").decode() else { panic!("no DELTA") };
    let records: Vec<_> = delta.records.iter().map(|record| (record.op, record.login)).collect();
    // The user is never without a route, and 6, who came and went, is not mentioned.
    assert_eq!(records, [(Op::ADD, 4), (Op::REMOVE, 3)]);
    rig.model.take(&out);
    while rig.confirm() {}
    assert_eq!(rig.tickets(), [0, 1, 4]);
}

#[test]
fn a_change_that_changes_nothing_is_confirmed_with_what_it_rests_on() {
    let mut rig = Rig::open();
    rig.change(1, adds([5]));
    rig.transmit();
    rig.change(2, adds([5]));
    assert!(!rig.transmit(), "nothing to say");
    assert!(rig.tickets().is_empty(), "its user is not confirmed yet");
    rig.confirm();
    assert_eq!(rig.tickets(), [2]);
    rig.change(3, adds([5]));
    assert_eq!(rig.tickets(), [3], "nothing is awaited");
}

#[test]
fn a_wrong_confirmation_ends_the_link() {
    let effect = |version, digest| Frame::InEffect(InEffect { version, digest });
    for (frame, code) in [
        (effect(2, 0), ErrorCode::VERSION_GAP),
        (effect(1, 1), ErrorCode::DIGEST_MISMATCH),
        (Frame::Ping(waybill_wire::frame::Ping { token: 1 }), ErrorCode::UNEXPECTED_FRAME),
    ] {
        let mut rig = Rig::open();
        rig.transmit();
        let error = rig.machine.handle_frame(Instant::now(), &frame, &[]).expect_err("is wrong");
        assert_eq!(error.code, code);
    }
    let mut rig = Rig::open();
    let error = rig
        .machine
        .handle_frame(Instant::now(), &effect(1, 0), &[])
        .expect_err("nothing was declared");
    assert_eq!(error.code, ErrorCode::UNEXPECTED_FRAME);
}

fn acks(events: &[GatewayEvent]) -> Vec<(u64, u16)> {
    let ack = |event: &GatewayEvent| match event {
        GatewayEvent::UplinkAck { sequence, code } => Some((*sequence, code.0)),
        // As the codes that say the same to a user.
        GatewayEvent::UplinkLost { sequence, transmitted: true } => Some((*sequence, 405)),
        GatewayEvent::UplinkLost { sequence, transmitted: false } => Some((*sequence, 305)),
        _ => None,
    };
    events.iter().filter_map(ack).collect()
}

fn uplink(sequence: u64) -> GatewayCommand {
    GatewayCommand::Uplink(Uplink { sequence, uid: 9, connection: 1, ..Uplink::default() })
}

fn ack(sequence: u64) -> Frame<'static> {
    Frame::UplinkAck(UplinkAck { sequence, code: ErrorCode(0), origin: 1 })
}

#[test]
fn every_uplink_has_one_answer() {
    let mut rig = Rig::new();
    rig.machine.handle_command(uplink(1));
    assert_eq!(acks(&rig.events()), [(1, 305)], "no link, no consumer");
    rig.reopen();
    (2..=6).for_each(|sequence| rig.machine.handle_command(uplink(sequence)));
    rig.transmit();
    assert_eq!(acks(&rig.events()), [(6, 402)], "four may wait");
    assert_eq!(rig.model.uplinks, [2, 3, 4, 5]);
    rig.machine.handle_frame(Instant::now(), &ack(3), &[]).expect("waits");
    rig.machine.handle_command(uplink(7));
    rig.machine.handle_down(Instant::now());
    assert_eq!(acks(&rig.events()), [(3, 0), (2, 405), (4, 405), (5, 405), (7, 305)]);
    rig.reopen();
    let labels = vec!["x".repeat(65)];
    let bad = Uplink { sequence: 8, labels, ..Uplink::default() };
    rig.machine.handle_command(GatewayCommand::Uplink(bad));
    rig.transmit();
    assert_eq!(acks(&rig.events()), [(8, 108)], "its own fault, and nobody else's");
}

/// [UP-3], seen from the gateway.
#[test]
fn an_answer_nobody_waits_for_is_ignored() {
    let mut rig = Rig::open();
    rig.machine.handle_command(uplink(1));
    rig.transmit();
    rig.machine.handle_down(Instant::now());
    assert_eq!(acks(&rig.events()), [(1, 405)]);
    rig.reopen();
    rig.machine.handle_command(uplink(2));
    rig.transmit();
    for sequence in [1, 2, 2, 9] {
        rig.machine
            .handle_frame(Instant::now(), &ack(sequence), &[])
            .expect("late, double and strange answers");
    }
    assert_eq!(acks(&rig.events()), [(2, 0)]);
}

#[test]
fn an_abandoned_uplink_gives_its_place_up_and_has_no_answer() {
    let mut rig = Rig::open();
    (1..=2).for_each(|sequence| rig.machine.handle_command(uplink(sequence)));
    rig.transmit();
    (3..=4).for_each(|sequence| rig.machine.handle_command(uplink(sequence)));
    for sequence in [1, 3, 9] {
        rig.machine.handle_command(GatewayCommand::Abandon { sequence });
    }
    (5..=7).for_each(|sequence| rig.machine.handle_command(uplink(sequence)));
    assert_eq!(acks(&rig.events()), [(7, 402)], "two places came free");
    rig.transmit();
    assert_eq!(rig.model.uplinks, [1, 2, 4, 5, 6], "3 was not transmitted yet");
    rig.machine.handle_frame(Instant::now(), &ack(1), &[]).expect("ignored");
    assert!(acks(&rig.events()).is_empty());
    rig.machine.handle_down(Instant::now());
    assert_eq!(acks(&rig.events()), [(2, 405), (4, 405), (5, 405), (6, 405)]);
}

#[test]
fn a_delivery_keeps_its_frame() {
    let head = MessageHead { sequence: 3, origin: Some(8), ..MessageHead::default() };
    let mut bytes = Vec::new();
    head.encode(Kind::DELIVER, &[1001, 1002], b"hello", &mut bytes).expect("allowed");
    let frame = Frame::decode(&bytes).expect("well formed");
    let mut rig = Rig::open();
    rig.events();
    rig.machine.handle_frame(Instant::now(), &frame, &bytes).expect("for a gateway");
    let [GatewayEvent::Delivery(delivery)] = &rig.events()[..] else { panic!("no delivery") };
    assert_eq!(delivery.message().targets.iter().collect::<Vec<_>>(), [1001, 1002]);
    assert_eq!(&delivery.payload()[..], b"hello");
    assert_eq!(&delivery.frame()[..], bytes);
}

#[derive(Clone, Debug)]
enum Happening {
    Change(Vec<(bool, u64)>),
    /// Many at once, so that snapshots and deltas have several frames.
    Flood {
        add: bool,
        from: u64,
    },
    Transmit,
    Confirm,
    Cut,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let few = prop::collection::vec((any::<bool>(), 0u64..12), 0..4);
    let one = prop_oneof![
        6 => few.prop_map(Happening::Change),
        1 => (any::<bool>(), prop_oneof![Just(0u64), Just(3000)])
            .prop_map(|(add, from)| Happening::Flood { add, from }),
        4 => Just(Happening::Transmit),
        3 => Just(Happening::Confirm),
        1 => Just(Happening::Cut),
    ];
    prop::collection::vec(one, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What a ticket promises: when it is confirmed, the broker's set is what was declared at that
    /// ticket, but for what later tickets changed.
    #[test]
    fn the_brokers_set_is_what_was_declared_and_no_ticket_comes_early(happenings in happenings()) {
        let mut rig = Rig::open();
        let mut declared: BTreeSet<Registration> = BTreeSet::new();
        // For each ticket the users it touched, and the set after it.
        let mut history = vec![(BTreeSet::new(), BTreeSet::new())];
        let mut confirmed = None;
        let check = |rig: &mut Rig, history: &[(BTreeSet<_>, BTreeSet<Registration>)],
                         confirmed: &mut Option<u64>| {
            for ticket in rig.tickets() {
                assert!(confirmed.is_none_or(|before| before <= ticket), "tickets rise on a link");
                *confirmed = Some(ticket);
                let at = usize::try_from(ticket).expect("small");
                let later: BTreeSet<Registration> =
                    history[at + 1..].iter().flat_map(|(touched, _)| touched).copied().collect();
                let told: BTreeSet<_> = rig.model.in_effect.0.iter().map(from_wire).collect();
                let here: BTreeSet<_> = told.difference(&later).collect();
                let there: BTreeSet<_> = history[at].1.difference(&later).collect();
                assert_eq!(here, there, "ticket {ticket}");
            }
        };
        for happening in happenings {
            let changes = match happening {
                Happening::Change(changes) => changes,
                Happening::Flood { add, from } => (from..from + 6000).map(|n| (add, n)).collect(),
                Happening::Transmit => {
                    rig.transmit();
                    Vec::new()
                }
                Happening::Confirm => {
                    rig.confirm();
                    check(&mut rig, &history, &mut confirmed);
                    Vec::new()
                }
                Happening::Cut => {
                    rig.machine.handle_down(Instant::now());
                    rig.reopen();
                    confirmed = None;
                    Vec::new()
                }
            };
            if changes.is_empty() {
                continue;
            }
            for &(add, uid) in &changes {
                let _changed =
                    if add { declared.insert(user(uid)) } else { declared.remove(&user(uid)) };
            }
            history.push((changes.iter().map(|(_, uid)| user(*uid)).collect(), declared.clone()));
            let change = |&(add, uid): &(bool, u64)| match add {
                true => Change::add(user(uid)),
                false => Change::remove(user(uid)),
            };
            rig.change(history.len() as u64 - 1, changes.iter().map(change).collect());
            check(&mut rig, &history, &mut confirmed);
        }
        while rig.transmit() || rig.confirm() {
            check(&mut rig, &history, &mut confirmed);
        }
        prop_assert_eq!(confirmed, Some(history.len() as u64 - 1));
        let told: BTreeSet<Registration> = rig.model.set.iter().map(from_wire).collect();
        prop_assert_eq!(told, declared);
    }
}

fn from_wire(registered: &Registered) -> Registration {
    let Registered { namespace, uid, device_class, login } = *registered;
    Registration { namespace, uid, device_class, login }
}
