//! The life of a link, by transcript: what each end says to each frame and to silence.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::time::Duration;

use waybill_wire::code::{ErrorCode, Kind, Level, Op, Role, capability};
use waybill_wire::digest::Digest;
use waybill_wire::frame::{
    Barrier, Credit, Displaced, Drain, ErrorFrame, Filter, Fragment, Group, Hello, Ping, Pong,
    Presence, Receipt, Report, Resume, Resumed, State, Suspend, Tag, TagDelta, TagRecord, Welcome,
};
use waybill_wire::session::registration::Filled;
use waybill_wire::session::{
    CONTROL_BYTES_MAX, Fault, Phase, Registration, Sequence, Step, TRANSMIT_BYTES_MAX, support,
};
use waybill_wire::{Frame, Message, MessageHead, Selector, Session};

const KEEPALIVE: Duration = Duration::from_millis(1000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn hello(role: Role) -> Hello<'static> {
    Hello { role, version_min: 1, version_max: 1, instance: 1, ..Hello::default() }
}

/// A broker's end, open since 0 ms.
fn broker(role: Role) -> Session {
    let mut session = Session::broker(ms(0));
    assert_eq!(session.handle(ms(0), &Frame::Hello(hello(role))), Ok(Step::Hello));
    session.accept(ms(0), KEEPALIVE, role);
    session
}

/// An initiator's end, open since 0 ms.
fn initiator(role: Role) -> Session {
    let mut session = Session::initiator(role, ms(0));
    let welcome = Welcome { version: 1, keepalive_ms: 1000, ..Welcome::default() };
    assert_eq!(session.handle(ms(0), &Frame::Welcome(welcome)), Ok(Step::Welcome));
    session
}

fn sent(session: &mut Session) -> Vec<u8> {
    let mut out = Vec::new();
    session.transmit(&mut out);
    out
}

fn code(result: Result<Step, Fault>) -> ErrorCode {
    result.unwrap_err().code()
}

/// SES-1.
#[test]
fn the_first_frame_is_hello_and_comes_once() {
    let mut session = Session::broker(ms(0));
    let ping = Frame::Ping(Ping { token: 1 });
    let fault = session.handle(ms(0), &ping).unwrap_err();
    assert_eq!((fault.code(), fault.ref_kind()), (ErrorCode::UNEXPECTED_FRAME, Kind::PING));
    let mut session = broker(Role::PRODUCER);
    let again = session.handle(ms(0), &Frame::Hello(hello(Role::PRODUCER)));
    assert_eq!(code(again), ErrorCode::UNEXPECTED_FRAME);
}

/// SES-2.
#[test]
fn hello_is_awaited_for_five_seconds() {
    let mut session = Session::broker(ms(100));
    session.received(ms(4000));
    assert_eq!(session.deadline(), Some(ms(5100)), "bytes that are no HELLO do not count");
    assert_eq!(session.expired(ms(5099)), Ok(()));
    assert_eq!(session.expired(ms(5100)).unwrap_err().code(), ErrorCode::HELLO_TIMEOUT);
}

/// SES-3.
#[test]
fn frames_wait_for_the_verdict() {
    let mut session = Session::broker(ms(0));
    let ping = Frame::Ping(Ping { token: 1 });
    assert_eq!(session.handle(ms(0), &Frame::Hello(hello(Role::GATEWAY))), Ok(Step::Hello));
    assert_eq!(session.role(), Role::GATEWAY);
    assert_eq!(session.handle(ms(0), &ping), Ok(Step::Held));
    assert!(!session.has_output(), "SES-4: nothing before WELCOME");
    session.accept(ms(0), KEEPALIVE, Role::GATEWAY);
    assert_eq!(session.handle(ms(0), &ping), Ok(Step::Done));
    assert!(session.has_output());
}

/// SES-4.
#[test]
fn an_initiator_takes_welcome_or_a_fatal_error_only() {
    let mut session = Session::initiator(Role::PRODUCER, ms(0));
    let early = session.handle(ms(0), &Frame::State(State::default()));
    assert_eq!(code(early), ErrorCode::UNEXPECTED_FRAME);
    let other = Welcome { version: 2, ..Welcome::default() };
    let mut session = Session::initiator(Role::PRODUCER, ms(0));
    let unspoken = session.handle(ms(0), &Frame::Welcome(other));
    assert_eq!(code(unspoken), ErrorCode::NO_COMMON_VERSION);
    let mut session = Session::initiator(Role::PRODUCER, ms(0));
    let refused = ErrorFrame { fatal: true, code: ErrorCode::BAD_CREDENTIAL, ..Default::default() };
    assert_eq!(session.handle(ms(0), &Frame::Error(refused)), Ok(Step::Ended));
    assert_eq!(session.phase(), Phase::Closed);
}

/// SES-5, SES-7.
#[test]
fn a_hello_is_judged() {
    let asks = |change: fn(&mut Hello<'_>)| {
        let mut hello = hello(Role::PRODUCER);
        change(&mut hello);
        support::judge(&hello).map_err(|fault| fault.code())
    };
    assert_eq!(asks(|_| {}), Ok(1));
    assert_eq!(asks(|hello| hello.version_max = 9), Ok(1));
    let later = asks(|hello| (hello.version_min, hello.version_max) = (2, 9));
    assert_eq!(later, Err(ErrorCode::NO_COMMON_VERSION));
    assert_eq!(asks(|hello| hello.data = true), Err(ErrorCode::NOT_SUPPORTED));
    assert_eq!(asks(|hello| hello.role = Role::LEAF), Err(ErrorCode::NOT_SUPPORTED));
    let data_link = asks(|hello| (hello.data, hello.role) = (true, Role::GATEWAY));
    assert_eq!(data_link, Ok(1), "LNK-2");
}

/// SES-6.
#[test]
fn kinds_are_for_their_senders() {
    let barrier = Frame::Barrier(Barrier { version: 9, digest: 0 });
    assert_eq!(broker(Role::GATEWAY).handle(ms(0), &barrier), Ok(Step::Pass));
    let fault = broker(Role::PRODUCER).handle(ms(0), &barrier).unwrap_err();
    assert_eq!((fault.code(), fault.reference()), (ErrorCode::WRONG_ROLE, 9));
    assert_eq!(fault.to_string(), "BARRIER may not be sent by a producer [wrong_role]");
    let receipt = Frame::Receipt(Receipt { stage: Level::ROUTED, ..Receipt::default() });
    assert_eq!(initiator(Role::PRODUCER).handle(ms(0), &receipt), Ok(Step::Pass));
    assert_eq!(code(broker(Role::PRODUCER).handle(ms(0), &receipt)), ErrorCode::WRONG_ROLE);
    assert_eq!(code(initiator(Role::GATEWAY).handle(ms(0), &barrier)), ErrorCode::WRONG_ROLE);
}

/// SES-7.
#[test]
fn later_kinds_are_not_supported_and_the_link_lives_on() {
    let mut session = broker(Role::GATEWAY);
    let credit = Frame::Credit(Credit::default());
    assert_eq!(session.handle(ms(0), &credit), Ok(Step::NotSupported(Kind::CREDIT)));
    assert_eq!(session.phase(), Phase::Open);
}

/// TAG-7, FLT-4, SES-7.
#[test]
fn tags_and_filters_run_where_they_were_agreed_on() {
    let cases = [
        (Role::GATEWAY, Frame::TagDelta(TagDelta::default()), capability::TAGS),
        (Role::PRODUCER, Frame::Tag(Tag::default()), capability::TAGS),
        (Role::CONSUMER, Frame::Filter(Filter::default()), capability::FILTERS),
    ];
    for (role, frame, needed) in cases {
        let mut session = broker(role);
        let refused = Ok(Step::NotSupported(frame.kind()));
        assert_eq!(session.handle(ms(0), &frame), refused);
        session.run(capability::TAGS ^ capability::FILTERS ^ needed);
        assert_eq!(session.handle(ms(0), &frame), refused, "the other one does not help");
        session.run(needed);
        assert_eq!(session.handle(ms(0), &frame), Ok(Step::Pass));
    }
    let mut gateway = initiator(Role::GATEWAY);
    gateway.run(capability::TAGS);
    let tag = Frame::Tag(Tag::default());
    assert_eq!(gateway.handle(ms(0), &tag), Ok(Step::Pass), "a broker sends it on");
    let filter = Frame::Filter(Filter { filter: 9, ..Filter::default() });
    assert_eq!(filter.reference(), 9);
}

/// SES-9.
#[test]
fn silence_is_asked_about_and_then_ends_the_link() {
    let mut session = broker(Role::GATEWAY);
    assert_eq!(session.deadline(), Some(ms(1000)));
    assert_eq!(session.expired(ms(999)), Ok(()));
    assert!(!session.has_output());
    assert_eq!(session.expired(ms(1000)), Ok(()));
    let mut first = Vec::new();
    Ping { token: 1 }.encode(&mut first);
    assert_eq!(sent(&mut session), first);
    assert_eq!(session.deadline(), Some(ms(2000)));
    session.received(ms(1500));
    assert_eq!(session.deadline(), Some(ms(2500)));
    for at in [2500, 3500] {
        assert_eq!(session.expired(ms(at)), Ok(()));
    }
    assert_eq!(session.deadline(), Some(ms(4500)));
    let fault = session.expired(ms(4500)).unwrap_err();
    assert_eq!(fault.code(), ErrorCode::KEEPALIVE_TIMEOUT);
    session.fail(&fault);
    assert_eq!((session.phase(), session.deadline()), (Phase::Closed, None));
}

/// SES-9: the time in which an end itself does not read does not count.
#[test]
fn a_paused_link_asks_but_does_not_end() {
    let mut session = broker(Role::PRODUCER);
    session.pause(ms(500));
    for at in [1000, 2000, 3000, 9000] {
        assert_eq!(session.expired(ms(at)), Ok(()), "the other end hears from us");
    }
    assert_eq!(sent(&mut session).len(), 4 * 16);
    session.resume(ms(9500));
    // 500 ms of silence had passed when it was paused.
    let over = ms(9500) - ms(500) + 3 * KEEPALIVE;
    assert_eq!(session.expired(over - ms(1)), Ok(()));
    assert_eq!(session.expired(over).unwrap_err().code(), ErrorCode::KEEPALIVE_TIMEOUT);
}

/// SES-9: what an end reads that does not always read may be old.
#[test]
fn an_end_that_reads_now_and_then_is_heard() {
    let mut session = broker(Role::PRODUCER);
    let mut pings = 0;
    for at in (600..=9_600).step_by(600) {
        session.pause(ms(at - 500));
        session.resume(ms(at));
        session.received(ms(at));
        assert_eq!(session.expired(ms(at)), Ok(()));
        pings += sent(&mut session).len() / 16;
        assert!(pings as u64 >= at / 1_600, "at {at} ms: {pings} PINGs");
    }
    session.received(ms(9_700));
    assert_eq!(session.expired(ms(10_600)), Ok(()));
    assert_eq!(sent(&mut session).len(), 0, "it reads again: nothing is due for a period");
}

/// SES-10.
#[test]
fn zero_means_no_keepalive() {
    let mut session = Session::broker(ms(0));
    assert_eq!(session.handle(ms(0), &Frame::Hello(hello(Role::GATEWAY))), Ok(Step::Hello));
    session.accept(ms(0), Duration::ZERO, Role::GATEWAY);
    assert_eq!(session.deadline(), None);
    assert_eq!(session.expired(ms(1_000_000)), Ok(()));
}

/// SES-9.
#[test]
fn a_ping_is_answered_with_its_token_and_a_flood_is_not_kept() {
    let mut session = broker(Role::PRODUCER);
    assert_eq!(session.handle(ms(0), &Frame::Ping(Ping { token: 77 })), Ok(Step::Done));
    let pong = Frame::Pong(Pong { token: 1 });
    assert_eq!(session.handle(ms(0), &pong), Ok(Step::Pong { token: 1 }));
    let mut pong = Vec::new();
    Pong { token: 77 }.encode(&mut pong);
    assert_eq!(sent(&mut session), pong);
    let flood = Frame::Ping(Ping { token: 1 });
    for _ in 0..CONTROL_BYTES_MAX / 16 {
        assert_eq!(session.handle(ms(0), &flood), Ok(Step::Done));
    }
    let fault = session.handle(ms(0), &flood).unwrap_err();
    assert_eq!(fault.code(), ErrorCode::OVERLOADED);
    session.fail(&fault);
    assert!(session.invariants() && sent(&mut session).len() <= TRANSMIT_BYTES_MAX);
}

/// SES-11.
#[test]
fn a_draining_link_still_serves() {
    let mut session = initiator(Role::PRODUCER);
    let drain = Frame::Drain(Drain { deadline_ms: 300 });
    assert_eq!(session.handle(ms(0), &drain), Ok(Step::Drain { deadline_ms: 300 }));
    let state = Frame::State(State::default());
    assert_eq!(session.handle(ms(0), &state), Ok(Step::Pass));
    let mut other = broker(Role::PRODUCER);
    assert_eq!(other.drain(300), Ok(()));
    assert_eq!(other.phase(), Phase::Draining);
    let mut expected = Vec::new();
    Drain { deadline_ms: 300 }.encode(&mut expected);
    assert_eq!(sent(&mut other), expected);
}

/// SES-12, SES-13.
#[test]
fn a_fault_becomes_one_fatal_error() {
    let mut session = broker(Role::PRODUCER);
    let malformed = Frame::decode(&[1, 0x10, 5, 0, 0, 0, 0x20, 0]).unwrap_err();
    session.fail(&malformed.into());
    session.fail(&malformed.into());
    let bytes = sent(&mut session);
    let Frame::Error(error) = Frame::decode(&bytes).unwrap() else { panic!("one frame") };
    assert!(error.fatal);
    assert_eq!((error.code, error.ref_kind), (ErrorCode::PAYLOAD_SIZE, Kind::PUBLISH));
    let detail = "payload_len 2097152 is above payload_bytes_max 1048576 [FRAME-5]";
    assert_eq!(error.detail, detail);

    let mut session = broker(Role::PRODUCER);
    let fatal = ErrorFrame { fatal: true, code: ErrorCode::LENGTH, ..ErrorFrame::default() };
    assert_eq!(session.handle(ms(0), &Frame::Error(fatal)), Ok(Step::Ended));
    session.fail(&malformed.into());
    assert!(!session.has_output(), "a fatal ERROR is not answered");
}

/// REG-1, REG-2, REG-3, REG-4.
#[test]
fn a_snapshot_comes_first_and_once_and_deltas_count_up() {
    let unexpected = |result: Result<_, waybill_wire::Violation>| {
        result.unwrap_err().code == ErrorCode::UNEXPECTED_FRAME
    };
    let mut registration = Registration::default();
    assert!(unexpected(registration.delta(1)));
    assert!(unexpected(registration.snapshot(false, true, 1).map(drop)));
    assert_eq!(registration.snapshot(true, false, 5), Ok(Filled::More));
    assert!(unexpected(registration.snapshot(true, false, 5).map(drop)));
    assert!(unexpected(registration.snapshot(false, true, 6).map(drop)));
    assert!(unexpected(registration.delta(6)));
    assert!(!registration.is_live());
    assert_eq!(registration.snapshot(false, true, 5), Ok(Filled::Complete));
    assert!(registration.is_live());
    assert!(unexpected(registration.snapshot(true, true, 6).map(drop)));
    assert_eq!(registration.delta(6), Ok(()));
    for gap in [6, 8, 0] {
        assert_eq!(registration.delta(gap).unwrap_err().code, ErrorCode::VERSION_GAP);
    }
    assert_eq!(registration.version(), 6);
}

/// REG-5.
#[test]
fn a_barrier_names_the_last_version_and_the_digest() {
    let mut registration = Registration::default();
    let digest = Digest::default().value();
    assert_eq!(registration.barrier(0, digest, digest), Ok(()));
    assert_eq!(registration.snapshot(true, true, 1), Ok(Filled::Complete));
    assert_eq!(registration.barrier(1, digest, digest), Ok(()));
    let gap = registration.barrier(2, digest, digest).unwrap_err();
    assert_eq!((gap.code, gap.reference), (ErrorCode::VERSION_GAP, 2));
    let mismatch = registration.barrier(1, 5, digest).unwrap_err();
    assert_eq!(mismatch.code, ErrorCode::DIGEST_MISMATCH);
}

/// PUB-1.
#[test]
fn sequences_rise_but_for_what_is_sent_again() {
    let mut sequence = Sequence::default();
    assert_eq!(sequence.advance(Kind::PUBLISH, 5, false), Ok(()));
    assert_eq!(sequence.advance(Kind::PUBLISH, 3, true), Ok(()));
    let repeated = sequence.advance(Kind::PUBLISH, 5, false).unwrap_err();
    assert_eq!((repeated.code, repeated.reference), (ErrorCode::SEQUENCE_ORDER, 5));
    assert_eq!(repeated.to_string(), "sequence 5 is not above the last one, 5 [sequence_order]");
    assert_eq!(sequence.advance(Kind::PUBLISH, 9, true), Ok(()));
    assert_eq!(sequence.last(), 9);
}

/// SES-7.
#[test]
fn what_a_message_asks_for_may_not_run_here() {
    let missing = |head: MessageHead<'_>| {
        let mut out = Vec::new();
        MessageHead { sequence: 1, ..head }.encode_publish(&[1], b"", &mut out).unwrap();
        let Frame::Publish(message) = Frame::decode(&out).unwrap() else { panic!("PUBLISH") };
        let missing: fn(&Message<'_>, u64) -> Option<&'static str> = support::missing_for;
        // Selectors run where tags do, fragments where that was agreed on, and nothing else.
        let all = support::CAPABILITIES;
        let runs = [all, all & !capability::TAGS, all & !capability::FRAGMENTS];
        let [here, no_tags, no_fragments] = runs.map(|runs| missing(&message, runs).is_some());
        assert_eq!(no_tags, here || message.selector.is_some());
        assert_eq!(no_fragments, here || message.fragmented.is_some());
        here
    };
    let selector = Selector::check(b"\x01\x01a").ok();
    assert!(!missing(MessageHead { level: Level::ROUTED, ..MessageHead::default() }));
    assert!(!missing(MessageHead { level: Level::DELIVERED, ..MessageHead::default() }));
    assert!(missing(MessageHead { level: Level::ACKNOWLEDGED, ..MessageHead::default() }));
    assert!(!missing(MessageHead { selector, ..MessageHead::default() }));
    assert!(!missing(MessageHead { fragmented: Some(9), ..MessageHead::default() }));
    let class = waybill_wire::code::Class::STORED;
    assert!(missing(MessageHead { class, ..MessageHead::default() }));
}

/// FRG-1, SES-7.
#[test]
fn fragments_pass_where_they_were_agreed_on() {
    let fragment = Frame::Fragment(Fragment { sequence: 1, payload: b"a", ..Fragment::default() });
    for role in [Role::PRODUCER, Role::GATEWAY] {
        let mut session = broker(role);
        let refused = Ok(Step::NotSupported(Kind::FRAGMENT));
        assert_eq!(session.handle(ms(0), &fragment), refused);
        session.run(capability::FRAGMENTS);
        assert_eq!(session.handle(ms(0), &fragment), Ok(Step::Pass));
    }
    assert_eq!(code(broker(Role::CONSUMER).handle(ms(0), &fragment)), ErrorCode::WRONG_ROLE);
    let mut session = initiator(Role::GATEWAY);
    session.run(capability::FRAGMENTS);
    assert_eq!(session.handle(ms(0), &fragment), Ok(Step::Pass));
}

/// SES-16.
#[test]
fn a_mark_is_a_ping_of_its_own_and_its_pong_surfaces() {
    let mut session = Session::broker(ms(0));
    assert_eq!(session.ping(ms(0)), None, "there is no link yet");
    let mut session = broker(Role::GATEWAY);
    let token = session.ping(ms(600)).expect("the link is open");
    let mut expected = Vec::new();
    Ping { token }.encode(&mut expected);
    assert_eq!(sent(&mut session), expected);
    assert_eq!(session.ping(ms(700)), None, "one at a time");
    assert_eq!(session.expired(ms(1000)), Ok(()));
    assert!(!session.has_output(), "the mark asks about the silence too");
    let other = Frame::Pong(Pong { token: token + 9 });
    assert_eq!(session.handle(ms(700), &other), Ok(Step::Pong { token: token + 9 }));
    assert_eq!(session.ping(ms(800)), None, "that was no answer to it");
    let answer = Frame::Pong(Pong { token });
    assert_eq!(session.handle(ms(900), &answer), Ok(Step::Pong { token }));
    let next = session.ping(ms(900)).expect("the first one is answered");
    assert_ne!(next, token);
}

/// SES-6, SES-7.
#[test]
fn kinds_that_run_now_pass_from_their_senders_only() {
    let report = Frame::Report(Report { stage: Level::DELIVERED, ..Report::default() });
    let suspend = Frame::Suspend(Suspend::default());
    let resume = Frame::Resume(Resume::default());
    for frame in [&report, &suspend, &resume] {
        assert_eq!(broker(Role::GATEWAY).handle(ms(0), frame), Ok(Step::Pass));
        assert_eq!(code(broker(Role::CONSUMER).handle(ms(0), frame)), ErrorCode::WRONG_ROLE);
    }
    let group = Frame::Group(Group { name: "billing", ..Group::default() });
    assert_eq!(broker(Role::CONSUMER).handle(ms(0), &group), Ok(Step::Pass));
    assert_eq!(code(broker(Role::GATEWAY).handle(ms(0), &group)), ErrorCode::WRONG_ROLE);
    for frame in [
        Frame::Resumed(Resumed::default()),
        Frame::Displaced(Displaced::default()),
        Frame::Presence(Presence::default()),
    ] {
        assert_eq!(initiator(Role::CONSUMER).handle(ms(0), &frame), Ok(Step::Pass));
        assert_eq!(code(broker(Role::GATEWAY).handle(ms(0), &frame)), ErrorCode::WRONG_ROLE);
    }
}

fn violation<T: std::fmt::Debug>(result: Result<T, waybill_wire::Violation>) -> ErrorCode {
    result.unwrap_err().code
}

/// RES-3, RES-5, RES-6, RES-7.
#[test]
fn a_session_goes_on_from_its_last_version_or_begins_anew() {
    let resume = |session, version, digest| Resume { session, version, digest };
    let mut registration = Registration::resuming(7);
    assert!(registration.is_resuming() && !registration.is_live());
    assert_eq!(violation(registration.barrier(7, 1, 1)), ErrorCode::UNEXPECTED_FRAME);
    assert_eq!(violation(registration.delta(7)), ErrorCode::VERSION_GAP);
    assert_eq!(registration.delta(8), Ok(()));
    assert!(registration.is_resuming());
    let late = registration.snapshot(true, true, 9);
    assert_eq!(violation(late), ErrorCode::UNEXPECTED_FRAME, "after a DELTA");
    let other = registration.resume(&resume(6, 8, 1), 5, 1);
    assert_eq!(violation(other), ErrorCode::UNEXPECTED_FRAME);
    let behind = registration.resume(&resume(5, 7, 1), 5, 1);
    assert_eq!(violation(behind), ErrorCode::VERSION_GAP);
    let differs = registration.resume(&resume(5, 8, 2), 5, 1);
    assert_eq!(violation(differs), ErrorCode::DIGEST_MISMATCH);
    assert_eq!(registration.resume(&resume(5, 8, 1), 5, 1), Ok(()));
    assert!(registration.is_live());
    let again = registration.resume(&resume(5, 8, 1), 5, 1);
    assert_eq!(violation(again), ErrorCode::UNEXPECTED_FRAME);
    assert_eq!(registration.delta(9), Ok(()));

    let mut anew = Registration::resuming(7);
    assert_eq!(violation(anew.snapshot(false, true, 7)), ErrorCode::UNEXPECTED_FRAME);
    assert_eq!(anew.snapshot(true, false, 3), Ok(Filled::More));
    assert!(!anew.is_resuming());
    assert_eq!(anew.snapshot(false, true, 3), Ok(Filled::Complete));
    assert_eq!((anew.is_live(), anew.version()), (true, 3));
}

/// TAG-4, TAG-5.
#[test]
fn tags_share_the_versions_of_registrations() {
    let records = [TagRecord { namespace: 7, op: Op::ADD, tag: "vip" }];
    let removes = [records[0], TagRecord { op: Op::REMOVE, ..records[0] }];
    let delta = |version| TagDelta { version, tag_records: (&records).into() };
    let removal = |version| TagDelta { version, tag_records: (&removes).into() };

    let mut registration = Registration::default();
    assert_eq!(violation(registration.tag_delta(&delta(1))), ErrorCode::UNEXPECTED_FRAME);
    assert_eq!(registration.snapshot(true, false, 5), Ok(Filled::More));
    assert_eq!(registration.tag_delta(&delta(5)), Ok(()));
    assert_eq!(registration.tag_delta(&delta(5)), Ok(()), "as many as it takes");
    let other = registration.tag_delta(&delta(6)).unwrap_err();
    assert_eq!((other.code, other.reference), (ErrorCode::UNEXPECTED_FRAME, 6));
    assert_eq!(violation(registration.tag_delta(&removal(5))), ErrorCode::UNEXPECTED_FRAME);
    assert_eq!(registration.snapshot(false, true, 5), Ok(Filled::Complete));

    assert_eq!(violation(registration.tag_delta(&delta(5))), ErrorCode::VERSION_GAP);
    assert_eq!(registration.tag_delta(&removal(6)), Ok(()));
    assert_eq!(registration.delta(7), Ok(()));
    assert_eq!(registration.tag_delta(&delta(8)), Ok(()));
    assert_eq!((registration.version(), registration.barrier(8, 1, 1)), (8, Ok(())));
    assert_eq!(registration.suspend(), Ok(()));
    assert_eq!(violation(registration.tag_delta(&delta(9))), ErrorCode::UNEXPECTED_FRAME);

    let mut resuming = Registration::resuming(7);
    assert_eq!(violation(resuming.tag_delta(&delta(7))), ErrorCode::VERSION_GAP);
    assert_eq!(resuming.tag_delta(&delta(8)), Ok(()));
    let late = resuming.snapshot(true, true, 9);
    assert_eq!(violation(late), ErrorCode::UNEXPECTED_FRAME, "after a delta");
    let resume = Resume { session: 5, version: 8, digest: 1 };
    assert_eq!(resuming.resume(&resume, 5, 1), Ok(()));
}

/// RES-10.
#[test]
fn nothing_is_declared_after_suspend() {
    let mut registration = Registration::default();
    assert_eq!(violation(registration.suspend()), ErrorCode::UNEXPECTED_FRAME, "nothing is live");
    assert_eq!(registration.snapshot(true, true, 1), Ok(Filled::Complete));
    assert_eq!(registration.suspend(), Ok(()));
    assert!(registration.is_suspended() && !registration.is_live());
    assert_eq!(violation(registration.suspend()), ErrorCode::UNEXPECTED_FRAME);
    assert_eq!(violation(registration.delta(2)), ErrorCode::UNEXPECTED_FRAME);
    assert_eq!(violation(registration.barrier(1, 0, 0)), ErrorCode::UNEXPECTED_FRAME);
    assert_eq!(violation(registration.snapshot(true, true, 2)), ErrorCode::UNEXPECTED_FRAME);
}
