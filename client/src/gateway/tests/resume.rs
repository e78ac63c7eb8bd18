//! A session that goes on after its link died: from which version, and what is told again.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use waybill_wire::code::{ErrorCode, Fate, Kind, capability};
use waybill_wire::frame::{Displaced, Resumed};
use waybill_wire::session::registration::Registration as Versions;
use waybill_wire::{Deframer, Frame, MessageHead};

use super::{Model, Rig, adds, from_wire, user};
use crate::gateway::{Change, GatewayCommand, GatewayEvent, Registration, Report};
use crate::link::Welcomed;
use crate::machine::Machine;

pub(super) fn welcomed(resumed: bool) -> Welcomed {
    let capabilities = capability::RESUME | capability::REPORTS;
    Welcomed { resumed, capabilities, ..Welcomed::for_tests() }
}

impl Rig {
    /// A link to a broker that keeps sessions, everything confirmed.
    fn keeping(uids: impl IntoIterator<Item = u64>) -> Self {
        let mut rig = Self::new();
        rig.change(1, adds(uids));
        rig.fresh();
        rig.settle();
        rig
    }

    fn fresh(&mut self) {
        self.model = Model::default();
        self.machine.handle_open(Instant::now(), &welcomed(false));
    }

    pub(super) fn settle(&mut self) {
        while self.transmit() || self.confirm() {}
        self.events();
    }

    pub(super) fn cut(&mut self) {
        self.machine.handle_down(Instant::now());
    }

    /// The broker goes on from the point with this number of those since its last confirmation.
    fn resume(&mut self, point: usize) {
        assert_eq!(Machine::hello(&self.machine).session, 2, "the session of the last link");
        self.resume_with(point, &welcomed(true));
    }

    /// The same, with a WELCOME of the caller's.
    pub(super) fn resume_with(&mut self, point: usize, welcomed: &Welcomed) {
        let (version, (set, tags)) = self.model.points.swap_remove(point);
        self.model = Model { set, tags, versions: Versions::resuming(version), ..Model::default() };
        self.model.points.push((version, self.model.held()));
        self.machine.handle_open(Instant::now(), welcomed);
        assert!(!self.transmit(), "nothing is declared before the broker said from where");
        let digest = self.model.digest();
        self.say(&Frame::Resumed(Resumed { version, digest }));
    }

    pub(super) fn say(&mut self, frame: &Frame<'_>) {
        self.machine.handle_frame(Instant::now(), frame, &[]).expect("is right");
    }

    fn told(&self) -> Vec<Registration> {
        self.model.set.iter().map(from_wire).collect()
    }
}

#[test]
fn what_changed_meanwhile_is_all_that_is_told() {
    let mut rig = Rig::keeping(1..=5000);
    rig.cut();
    rig.change(2, vec![Change::remove(user(7)), Change::add(user(9000))]);
    rig.resume(0);
    rig.settle();
    assert_eq!(rig.model.sizes, [(Kind::DELTA, 2)]);
    assert_eq!(rig.told().len(), 5000);
    // Nothing changed at all: RESUME alone.
    rig.cut();
    rig.resume(0);
    rig.transmit();
    rig.confirm();
    assert_eq!(rig.tickets(), [2]);
    assert!(rig.model.sizes.is_empty());
}

#[test]
fn what_was_told_and_did_not_arrive_is_told_again() {
    let mut rig = Rig::keeping([1, 2]);
    rig.change(2, vec![Change::add(user(3)), Change::remove(user(1))]);
    rig.transmit();
    rig.change(3, vec![Change::add(user(4))]);
    rig.transmit();
    // The first delta arrived, the second did not; then user 3 went and user 1 came back.
    rig.cut();
    rig.change(4, vec![Change::remove(user(3)), Change::add(user(1))]);
    assert_eq!(rig.model.points.len(), 3);
    rig.resume(1);
    rig.settle();
    assert_eq!(rig.told(), [user(1), user(2), user(4)]);
    assert_eq!(rig.model.sizes, [(Kind::DELTA, 3)]);
}

#[test]
fn a_version_that_is_not_remembered_means_a_snapshot() {
    for (version, digest) in [(9, 0), (1, 0)] {
        let mut rig = Rig::keeping([1, 2]);
        rig.cut();
        rig.model = Model { versions: Versions::resuming(version), ..Model::default() };
        rig.machine.handle_open(Instant::now(), &welcomed(true));
        rig.say(&Frame::Resumed(Resumed { version, digest }));
        rig.transmit();
        rig.confirm();
        let events = rig.events();
        let restored =
            |event: &GatewayEvent| matches!(event, GatewayEvent::Restored { resumed: false, .. });
        assert!(events.iter().any(restored), "{events:?}");
        assert_eq!(rig.model.sizes, [(Kind::SNAPSHOT, 2)]);
    }
}

#[test]
fn an_outage_is_told_with_how_long_it_took() {
    let mut rig = Rig::keeping([1]);
    let down = Instant::now();
    rig.machine.handle_down(down);
    let session = Machine::hello(&rig.machine).session;
    assert_eq!(session, 2);
    // An attempt that brings nothing into effect does not end it.
    rig.machine.handle_open(down, &welcomed(true));
    rig.machine.handle_down(down + Duration::from_millis(100));
    rig.resume(0);
    rig.transmit();
    let (effect, _) = rig.model.effects.pop_front().expect("RESUME came");
    let back = down + Duration::from_millis(250);
    rig.events();
    rig.machine.handle_frame(back, &Frame::InEffect(effect), &[]).expect("is right");
    let events = rig.events();
    let [GatewayEvent::Restored { gap, resumed: true }, GatewayEvent::InEffect { ticket: 1 }] =
        events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(gap, Duration::from_millis(250));
}

#[test]
fn a_session_is_asked_for_only_if_it_can_be_resumed() {
    let mut rig = Rig::new();
    assert_eq!(Machine::hello(&rig.machine).session, 0, "the first link");
    rig.change(1, adds(0..10_000));
    rig.fresh();
    rig.transmit();
    rig.cut();
    assert_eq!(Machine::hello(&rig.machine).session, 0, "its snapshot had not ended");
    let mut rig = Rig::open();
    rig.settle();
    rig.cut();
    assert_eq!(Machine::hello(&rig.machine).session, 0, "this broker keeps no sessions");
}

#[test]
fn too_much_to_remember_is_forgotten_until_the_broker_catches_up() {
    let mut rig = Rig::keeping([]);
    rig.change(2, adds(0..70_000));
    while rig.transmit() {}
    rig.cut();
    assert_eq!(Machine::hello(&rig.machine).session, 0);
    rig.fresh();
    rig.settle();
    rig.change(3, adds(100_000..170_000));
    while rig.transmit() {}
    while rig.confirm() {}
    rig.change(4, adds([200_000]));
    rig.transmit();
    rig.cut();
    rig.resume(0);
    rig.settle();
    assert_eq!(rig.model.sizes, [(Kind::DELTA, 1)]);
}

#[test]
fn who_disagrees_on_what_was_declared_starts_again() {
    use crate::link::{LinkError, LinkErrorKind};
    for (kind, session) in [
        (LinkErrorKind::Refused(ErrorCode::DIGEST_MISMATCH), 0),
        (LinkErrorKind::Violated(ErrorCode::VERSION_GAP), 0),
        (LinkErrorKind::Refused(ErrorCode::KEEPALIVE_TIMEOUT), 2),
        (LinkErrorKind::Lost, 2),
    ] {
        let mut rig = Rig::keeping([1]);
        let reason = LinkError::new(kind, &"b:1".into());
        let ending = crate::machine::Ending::Retry { reason, retry_in: Duration::ZERO };
        Machine::handle_down(&mut rig.machine, Instant::now(), &ending);
        assert_eq!(Machine::hello(&rig.machine).session, session, "{kind:?}");
    }
}

#[test]
fn after_suspend_nothing_more_is_declared() {
    let mut rig = Rig::keeping([1]);
    rig.change(2, adds([2]));
    rig.machine.handle_command(GatewayCommand::Suspend { window_ms: 700 });
    rig.change(3, adds([3]));
    rig.transmit();
    rig.change(4, adds([4]));
    assert!(!rig.transmit() && rig.machine.is_settled());
    assert_eq!(rig.model.suspended, [700]);
    while rig.confirm() {}
    rig.cut();
    rig.resume(0);
    rig.settle();
    assert_eq!(rig.told().len(), 4);
}

#[test]
fn resumed_out_of_turn_ends_the_link() {
    let mut rig = Rig::keeping([1]);
    let frame = Frame::Resumed(Resumed { version: 1, digest: 0 });
    let error = rig.machine.handle_frame(Instant::now(), &frame, &[]).expect_err("not asked");
    assert_eq!((error.code, error.kind), (ErrorCode::UNEXPECTED_FRAME, Kind::RESUMED));
}

#[test]
fn a_loser_is_told_exactly_as_declared() {
    let mut rig = Rig::keeping([1]);
    let Registration { namespace, uid, device_class, login } = user(1);
    rig.say(&Frame::Displaced(Displaced { device_class, namespace, uid, login, winner: 8 }));
    let events = rig.events();
    let [GatewayEvent::Displaced { registration, winner: 8 }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(registration, user(1));
}

#[test]
fn a_report_goes_by_the_link_its_delivery_came_by_or_nowhere() {
    let mut rig = Rig::keeping([1]);
    let head = MessageHead { sequence: 3, origin: Some(8), ..MessageHead::default() };
    let mut bytes = Vec::new();
    head.encode(Kind::DELIVER, &[1, 2, 5], b"hello", &mut bytes).expect("allowed");
    let frame = Frame::decode(&bytes).expect("well formed");
    rig.machine.handle_frame(Instant::now(), &frame, &bytes).expect("for a gateway");
    let Some(GatewayEvent::Delivery(delivery)) = rig.machine.poll_event() else { panic!("none") };
    let mut report = Report::on(&delivery);
    report.reached = 1;
    report.add(Fate::DROPPED, ErrorCode::OUTBOX_FULL, 5);
    report.add(Fate::OFFLINE, ErrorCode(0), 2);
    rig.machine.handle_command(GatewayCommand::Report(report.clone()));
    assert!(!rig.machine.is_settled());
    let mut out = Vec::new();
    rig.machine.transmit(&mut out);
    let mut deframer = Deframer::new();
    let step = deframer.next(&out).expect("well framed").frame.expect("whole").decode();
    let Ok(Frame::Report(sent)) = step else { panic!("{step:?}") };
    assert_eq!((sent.sequence, sent.origin, sent.reached), (3, 8, 1));
    assert_eq!((sent.offline, sent.dropped, sent.fate_sets.len()), (1, 1, 2));
    rig.cut();
    rig.resume(0);
    rig.settle();
    rig.machine.handle_command(GatewayCommand::Report(report));
    assert!(!rig.transmit() && rig.machine.is_settled(), "that link is gone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Wherever the broker goes on from, it ends up with what was declared (promise 8), and the
    /// model accepts every frame on the way.
    #[test]
    fn a_resumed_session_ends_up_with_what_was_declared(
        happenings in prop::collection::vec(
            (0u8..6, 0u64..10, any::<prop::sample::Index>()), 0..80),
    ) {
        let mut rig = Rig::keeping([]);
        let mut declared = std::collections::BTreeSet::new();
        let mut ticket = 1;
        for (happening, uid, which) in happenings {
            ticket += 1;
            match happening {
                0 => {
                    declared.insert(user(uid));
                    rig.change(ticket, adds([uid]));
                }
                1 => {
                    declared.remove(&user(uid));
                    rig.change(ticket, vec![Change::remove(user(uid))]);
                }
                2 => {
                    rig.transmit();
                }
                3 => {
                    rig.confirm();
                }
                4 if rig.model.points.is_empty() => {}
                4 => {
                    rig.cut();
                    rig.resume(which.index(rig.model.points.len()));
                }
                _ => {
                    rig.cut();
                    rig.fresh();
                }
            }
        }
        rig.settle();
        prop_assert_eq!(rig.told(), declared.into_iter().collect::<Vec<_>>());
    }
}
