//! Tags among what is declared: the same versions, digest and barriers, told only where the link
//! agreed on them.

use std::collections::BTreeSet;
use std::time::Instant;

use proptest::prelude::*;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Kind, Op, capability};
use waybill_wire::frame::{ErrorFrame, Tag, TagChange};
use waybill_wire::session::registration::Registration as Versions;

use super::resume::welcomed;
use super::{Model, Rig, adds, user};
use crate::gateway::{
    Change, DeclaredTag, GatewayCommand, GatewayEvent, GatewayMachine, Report, TagUpdate,
};
use crate::link::Welcomed;
use crate::machine::Machine;

fn tag(text: &str) -> DeclaredTag {
    DeclaredTag { namespace: 1, text: text.into() }
}

fn numbered(number: u64) -> DeclaredTag {
    tag(&format!("group:{number}"))
}

fn agreeing(resumed: bool, on_tags: bool) -> Welcomed {
    let tags = if on_tags { capability::TAGS } else { 0 };
    let welcomed = welcomed(resumed);
    Welcomed { capabilities: welcomed.capabilities | tags, ..welcomed }
}

impl Rig {
    fn tagging() -> Self {
        let machine = GatewayMachine::new(0xa1, 4, 10_000).offering_tags(true);
        Self { machine, model: Model::default() }
    }

    fn link(&mut self, on_tags: bool) {
        self.model = Model::default();
        self.machine.handle_open(Instant::now(), &agreeing(false, on_tags));
    }

    fn declare(&mut self, ticket: u64, changes: Vec<Change>, tags: Vec<TagUpdate>) {
        self.machine.handle_command(GatewayCommand::Change { ticket, changes, tags });
    }

    fn tag_numbers(&mut self, ticket: u64, numbers: std::ops::Range<u64>) {
        let tags = numbers.map(|number| TagUpdate::add(numbered(number))).collect();
        self.declare(ticket, Vec::new(), tags);
    }
}

#[test]
fn tag_5_a_snapshot_has_its_tags_before_its_last_frame() {
    let mut rig = Rig::tagging();
    rig.declare(1, adds(0..3), vec![]);
    rig.tag_numbers(2, 0..2500);
    rig.link(true);
    while rig.transmit() {}
    let tags = |count| (Kind::TAG_DELTA, count);
    let expected = [(Kind::SNAPSHOT, 3), tags(1024), tags(1024), tags(452), (Kind::SNAPSHOT, 0)];
    assert_eq!(rig.model.sizes, expected);
    assert_eq!(rig.model.versions.version(), 1, "the version of the snapshot");
    rig.confirm();
    assert_eq!(rig.tickets(), [2]);
}

#[test]
fn changes_meet_the_cursor_among_tags_too() {
    let mut rig = Rig::tagging();
    rig.declare(1, adds(0..3), vec![]);
    rig.tag_numbers(2, 0..5000);
    rig.link(true);
    rig.transmit();
    let told = rig.model.tags.clone();
    assert!(!told.is_empty() && told.len() < 5000, "{}", told.len());
    let behind = told.first().cloned().expect("some");
    let gone = [behind.clone(), numbered(999), tag("zz:never")];
    rig.declare(3, vec![Change::remove(user(1))], gone.map(TagUpdate::remove).into());
    rig.declare(4, vec![], vec![TagUpdate::add(behind.clone()), TagUpdate::add(tag("zz:new"))]);
    while rig.transmit() {}
    // Of what was behind the cursor only the user changed: the tag went and came back. It takes a
    // delta of its own.
    assert_eq!(rig.model.sizes.last(), Some(&(Kind::DELTA, 1)));
    assert_eq!(rig.model.versions.version(), 2);
    while rig.confirm() {}
    assert_eq!(rig.tickets(), [2, 4]);
    assert_eq!((rig.model.set.len(), rig.model.tags.len()), (2, 5000));
}

#[test]
fn tag_4_deltas_of_tags_and_registrations_share_one_count() {
    let mut rig = Rig::tagging();
    rig.link(true);
    rig.transmit();
    rig.confirm();
    rig.events();
    rig.declare(1, adds([5]), vec![TagUpdate::add(tag("vip"))]);
    rig.transmit();
    assert_eq!(rig.model.sizes[1..], [(Kind::DELTA, 1), (Kind::TAG_DELTA, 1)]);
    assert_eq!(rig.model.versions.version(), 3, "one barrier for both");
    rig.confirm();
    assert_eq!(rig.tickets(), [1]);
    rig.declare(2, vec![], vec![TagUpdate::remove(tag("vip")), TagUpdate::add(tag("vip"))]);
    assert!(!rig.transmit(), "nothing to say");
    assert_eq!(rig.tickets(), [2]);
}

#[test]
fn tag_7_a_link_that_did_not_agree_is_told_nothing_of_tags() {
    for (offers, agrees) in [(true, false), (false, true)] {
        let mut rig = Rig::tagging();
        rig.machine = GatewayMachine::new(0xa1, 4, 10_000).offering_tags(offers);
        assert_eq!(Machine::hello(&rig.machine).capabilities & capability::TAGS != 0, offers);
        rig.declare(1, adds([5]), vec![TagUpdate::add(tag("vip"))]);
        rig.link(agrees);
        rig.declare(2, vec![], vec![TagUpdate::add(tag("geo:sh"))]);
        while rig.transmit() || rig.confirm() {}
        assert_eq!(rig.model.sizes, [(Kind::SNAPSHOT, 1)]);
        assert_eq!(rig.tickets(), [2], "what can be told is in effect");
        rig.declare(3, vec![], vec![TagUpdate::remove(tag("vip"))]);
        assert!(!rig.transmit());
        assert_eq!(rig.tickets(), [3]);
    }
}

#[test]
fn text_that_is_no_tag_is_not_declared() {
    let mut rig = Rig::tagging();
    rig.link(true);
    let long = "x".repeat(65);
    let wrong = ["", "a\nb", &long].map(|text| TagUpdate::add(tag(text)));
    rig.declare(1, vec![], wrong.into());
    while rig.transmit() || rig.confirm() {}
    assert_eq!(rig.model.sizes, [(Kind::SNAPSHOT, 0)]);
}

#[test]
fn tag_8_a_session_goes_on_with_its_tags_and_not_without() {
    // With tags declared it can only begin anew where they are not agreed on.
    let mut rig = Rig::tagging();
    rig.declare(1, adds([5]), vec![TagUpdate::add(tag("vip"))]);
    rig.link(true);
    rig.settle();
    rig.cut();
    rig.declare(2, vec![], vec![TagUpdate::add(tag("geo:sh"))]);
    let (version, digest) = (rig.model.versions.version(), rig.model.digest());
    rig.model = Model { versions: Versions::resuming(version), ..Model::default() };
    rig.machine.handle_open(Instant::now(), &agreeing(true, false));
    rig.say(&Frame::Resumed(waybill_wire::frame::Resumed { version, digest }));
    rig.settle();
    assert_eq!(rig.model.sizes, [(Kind::SNAPSHOT, 1)]);
    // That session had none: where they are agreed on again all of them are told.
    rig.cut();
    let last = rig.model.points.len() - 1;
    rig.resume_with(last, &agreeing(true, true));
    rig.settle();
    assert_eq!(rig.model.sizes, [(Kind::TAG_DELTA, 2)]);
    // And without any a session that had some goes on.
    rig.declare(3, vec![], [tag("vip"), tag("geo:sh")].map(TagUpdate::remove).into());
    rig.settle();
    rig.cut();
    rig.declare(4, adds([6]), vec![TagUpdate::add(tag("vip"))]);
    let last = rig.model.points.len() - 1;
    rig.resume_with(last, &agreeing(true, false));
    rig.settle();
    assert_eq!(rig.model.sizes, [(Kind::DELTA, 1)]);
}

#[test]
fn too_many_tags_to_remember_mean_a_snapshot() {
    let mut rig = Rig::tagging();
    rig.link(true);
    rig.settle();
    rig.tag_numbers(1, 0..70_000);
    while rig.transmit() {}
    rig.cut();
    assert_eq!(Machine::hello(&rig.machine).session, 0);
}

#[test]
fn a_tagging_comes_as_an_event_and_its_report_goes_back() {
    let mut rig = Rig::tagging();
    rig.link(true);
    rig.settle();
    let changes = [TagChange { op: Op::ADD, tag: "vip" }, TagChange { op: Op::REMOVE, tag: "x" }];
    let (uids, changes) = ([4u64, 9].as_slice().into(), changes.as_slice().into());
    let sent = Tag { namespace: 1, sequence: 3, origin: 8, uids, changes };
    let mut bytes = Vec::new();
    sent.encode(&mut bytes).expect("allowed");
    let frame = Frame::decode(&bytes).expect("well formed");
    rig.machine.handle_frame(Instant::now(), &frame, &bytes).expect("for a gateway");
    let Some(GatewayEvent::Tagging(tagging)) = rig.machine.poll_event() else { panic!("none") };
    assert_eq!(tagging.tag().uids.iter().collect::<Vec<_>>(), [4, 9]);
    assert_eq!(tagging.tag().changes.len(), 2);
    let report = Report { reached: 2, ..Report::on_tagging(&tagging) };
    assert_eq!((report.sequence, report.origin, report.link), (3, 8, 1));
    rig.machine.handle_command(GatewayCommand::Report(report));
    let mut out = Vec::new();
    rig.machine.transmit(&mut out);
    let Ok(Frame::Report(report)) = Frame::decode(&out) else { panic!("no REPORT") };
    assert_eq!((report.sequence, report.origin, report.reached), (3, 8, 2));
}

#[test]
fn tag_11_tags_that_are_not_kept_are_an_event() {
    let mut rig = Rig::tagging();
    let error = |code| ErrorFrame {
        fatal: false,
        code,
        ref_kind: Kind::TAG_DELTA,
        reference: 7,
        retry_after_ms: 0,
        detail: "",
    };
    for code in [ErrorCode::GATEWAY_TAGS, ErrorCode::BROKER_TAGS] {
        Machine::handle_refusal(&mut rig.machine, &error(code));
        let events = rig.events();
        let [GatewayEvent::TagsNotKept { code: told, version: 7 }] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(told, code);
    }
    Machine::handle_refusal(&mut rig.machine, &error(ErrorCode::OVERLOADED));
    assert!(rig.events().is_empty());
}

#[derive(Clone, Debug)]
enum Happening {
    Change(Vec<(bool, u64)>, Vec<(bool, u64)>),
    /// Many at once, so that snapshots and deltas have several frames.
    Flood(bool),
    Transmit,
    Confirm,
    Fresh(bool),
    Resume(prop::sample::Index, bool),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let few = || prop::collection::vec((any::<bool>(), 0u64..9), 0..4);
    let one = prop_oneof![
        6 => (few(), few()).prop_map(|(users, tags)| Happening::Change(users, tags)),
        1 => any::<bool>().prop_map(Happening::Flood),
        5 => Just(Happening::Transmit),
        3 => Just(Happening::Confirm),
        1 => any::<bool>().prop_map(Happening::Fresh),
        2 => (any::<prop::sample::Index>(), prop::bool::weighted(0.8))
            .prop_map(|(point, tags)| Happening::Resume(point, tags)),
    ];
    prop::collection::vec(one, 0..60)
}

/// The naive gateway: what is declared now, and after each ticket.
#[derive(Default)]
struct Naive {
    users: BTreeSet<u64>,
    tags: BTreeSet<DeclaredTag>,
    /// For each ticket the tags it touched, and those after it.
    history: Vec<(BTreeSet<DeclaredTag>, BTreeSet<DeclaredTag>)>,
}

impl Naive {
    fn change(&mut self, rig: &mut Rig, users: &[(bool, u64)], tags: &[(bool, u64)]) {
        let change = |&(add, uid): &(bool, u64)| match add {
            true => Change::add(user(uid)),
            false => Change::remove(user(uid)),
        };
        let update = |&(add, number): &(bool, u64)| match add {
            true => TagUpdate::add(numbered(number)),
            false => TagUpdate::remove(numbered(number)),
        };
        for &(add, uid) in users {
            let _changed = if add { self.users.insert(uid) } else { self.users.remove(&uid) };
        }
        for &(add, number) in tags {
            let tag = numbered(number);
            let _changed = if add { self.tags.insert(tag) } else { self.tags.remove(&tag) };
        }
        let touched = tags.iter().map(|(_, number)| numbered(*number)).collect();
        self.history.push((touched, self.tags.clone()));
        let ticket = self.history.len() as u64;
        rig.declare(ticket, users.iter().map(change).collect(), tags.iter().map(update).collect());
    }

    /// A ticket that is in effect: the broker has the tags as they were then, but for what later
    /// tickets changed.
    fn check(&self, rig: &mut Rig, on_tags: bool) {
        for ticket in rig.tickets() {
            let at = usize::try_from(ticket).expect("small");
            let later: BTreeSet<_> =
                self.history[at..].iter().flat_map(|(touched, _)| touched).cloned().collect();
            let then = match at {
                0 => BTreeSet::new(),
                _ if on_tags => self.history[at - 1].1.difference(&later).cloned().collect(),
                _ => BTreeSet::new(),
            };
            let told: BTreeSet<_> = rig.model.in_effect.1.difference(&later).cloned().collect();
            assert_eq!(told, then, "ticket {ticket}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever comes between, each broker ends up with what was declared, no ticket comes before
    /// its tags, and the model accepts every frame on the way (REG-6, RES-5, TAG-4 to TAG-8).
    #[test]
    fn the_broker_has_the_tags_that_were_declared(happenings in happenings()) {
        let (mut rig, mut naive) = (Rig::tagging(), Naive::default());
        let mut on_tags = true;
        rig.link(true);
        for happening in happenings {
            match happening {
                Happening::Change(users, tags) => naive.change(&mut rig, &users, &tags),
                Happening::Flood(add) => {
                    let tags: Vec<_> = (0..2500).map(|number| (add, number)).collect();
                    naive.change(&mut rig, &[], &tags);
                }
                Happening::Transmit => {
                    rig.transmit();
                }
                Happening::Confirm => {
                    rig.confirm();
                }
                Happening::Resume(point, tags) if !rig.model.points.is_empty() => {
                    // A broker does not grant a session with tags to a link without (TAG-8).
                    let point = point.index(rig.model.points.len());
                    let tags = tags || !rig.model.points[point].1.1.is_empty();
                    rig.cut();
                    rig.resume_with(point, &agreeing(true, tags));
                    on_tags = tags;
                }
                Happening::Fresh(tags) => {
                    rig.cut();
                    rig.link(tags);
                    on_tags = tags;
                }
                Happening::Resume(..) => {}
            }
            naive.check(&mut rig, on_tags);
        }
        while rig.transmit() || rig.confirm() {
            naive.check(&mut rig, on_tags);
        }
        let users: BTreeSet<u64> = rig.model.set.iter().map(|it| it.uid).collect();
        prop_assert_eq!(users, naive.users);
        prop_assert_eq!(rig.model.tags, if on_tags { naive.tags } else { BTreeSet::new() });
    }
}
