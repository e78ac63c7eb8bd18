//! Payloads that go out in pieces: what goes between them, in what order they end, and what becomes
//! of them when a link does.

use waybill_wire::Message;
use waybill_wire::assembly::{Assembly, Piece};
use waybill_wire::code::{Priority, capability};
use waybill_wire::frame::Fragment;
use waybill_wire::limits::MESSAGE_BYTES_MAX;

use super::*;
use crate::machine::WRITE_BYTES;
use crate::producer::cut::{PIECE_BYTES, WHOLE_BYTES_MAX};

/// A message as it reached the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Came {
    sequence: u64,
    priority: Priority,
    resend: bool,
    payload: Vec<u8>,
    /// Writes it was in, from the first piece to the last.
    writes: usize,
}

/// The broker's end: what came, in the order in which it was whole.
#[derive(Default)]
struct Broker {
    assembly: Assembly<usize>,
    came: Vec<Came>,
    writes: usize,
    /// Bytes of the longest payload of a frame.
    longest: usize,
}

impl Broker {
    /// Takes in one write; whether there was any.
    fn take(&mut self, rig: &mut Rig) -> bool {
        let mut out = Vec::new();
        rig.machine.transmit(rig.now, &mut out);
        let most = WRITE_BYTES + WHOLE_BYTES_MAX + PIECE_BYTES + 200;
        assert!(self.assembly.is_empty() || out.len() < most, "{}", out.len());
        self.writes += 1;
        let mut deframer = Deframer::new();
        let mut rest = &out[..];
        while !rest.is_empty() {
            let step = deframer.next(rest).expect("is right");
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { panic!("half a frame") };
            let frame = raw.decode().expect("is right");
            if let Frame::Publish(Message { payload, .. })
            | Frame::Fragment(Fragment { payload, .. }) = &frame
            {
                self.longest = self.longest.max(payload.len());
            }
            let whole = match frame {
                Frame::Publish(message) if message.fragmented.is_some() => {
                    self.assembly.begin(self.writes, &message, raw.bytes()).expect("may begin");
                    continue;
                }
                Frame::Fragment(piece) => match self.assembly.add(&piece).expect("fits") {
                    Piece::Completed(whole) => whole,
                    _ => continue,
                },
                Frame::Publish(message) => {
                    self.came.push(came(&message, 1));
                    continue;
                }
                other => panic!("{other:?}"),
            };
            self.came.push(came(&whole.message(), 1 + self.writes - whole.since()));
        }
        !out.is_empty()
    }

    fn take_all(&mut self, rig: &mut Rig) {
        while self.take(rig) {
            rig.machine.handle_written();
        }
        rig.machine.handle_written();
    }

    fn sequences(&self) -> Vec<u64> {
        self.came.iter().map(|it| it.sequence).collect()
    }
}

fn came(message: &waybill_wire::Message<'_>, writes: usize) -> Came {
    let (sequence, priority, resend) = (message.sequence, message.priority, message.resend);
    Came { sequence, priority, resend, payload: message.payload.to_vec(), writes }
}

fn open(resend_within: Duration) -> Rig {
    let mut rig = Rig::resending(1000, resend_within);
    reopen(&mut rig);
    rig
}

fn reopen(rig: &mut Rig) {
    let capabilities = capability::FRAGMENTS;
    let welcomed = Welcomed { capabilities, ..welcomed(0, 1 << 20) };
    rig.machine.handle_open(rig.now, &welcomed);
}

fn publish(bytes: usize, level: ReceiptLevel) -> Publish {
    let payload: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).expect("fits")).collect();
    Publish::to([1]).payload(payload).level(level)
}

const LARGE: usize = 1_000_000;

/// FRG-1: the limit of a broker is one of each frame.
#[test]
fn every_piece_is_within_the_payloads_that_the_broker_takes() {
    for payload_max in [1_000, 10_000, 1 << 20] {
        let mut rig = Rig::new(1000);
        let capabilities = capability::FRAGMENTS;
        let welcomed = Welcomed { capabilities, ..welcomed(0, payload_max) };
        rig.machine.handle_open(rig.now, &welcomed);
        rig.order(publish(LARGE, ReceiptLevel::Routed));
        let mut broker = Broker::default();
        broker.take_all(&mut rig);
        assert_eq!(broker.came[0].payload, publish(LARGE, ReceiptLevel::Routed).payload);
        assert!(broker.longest <= payload_max as usize, "{} of {payload_max}", broker.longest);
    }
}

/// FRG-2, FRG-6: what is of other priorities goes between the pieces, what is of the same behind
/// them.
#[test]
fn promise_2_others_pass_what_is_cut_but_for_those_of_its_priority() {
    let mut rig = open(Duration::ZERO);
    rig.order(publish(3 * LARGE, ReceiptLevel::Routed));
    let mut broker = Broker::default();
    broker.take(&mut rig);
    for priority in [Priority::NORMAL, Priority::HIGH, Priority::NORMAL, Priority::BULK] {
        rig.order(publish(3, ReceiptLevel::Routed).priority(priority));
    }
    rig.order(publish(LARGE, ReceiptLevel::Routed).priority(Priority::HIGH));
    broker.take(&mut rig);
    assert_eq!(broker.sequences(), [2, 3], "high and bulk wait for no piece");
    broker.take_all(&mut rig);
    // 4 is the large one of high priority; the two small ones of normal come after the first.
    assert_eq!(broker.sequences(), [2, 3, 4, 1, 5, 6]);
    assert!(broker.came[3].writes > 40, "{}", broker.came[3].writes);
    assert_eq!(broker.came[3].payload, publish(3 * LARGE, ReceiptLevel::Routed).payload);
}

/// FRG-2: what is urgent goes first, and does not keep what was begun from its end.
#[test]
fn what_was_begun_comes_to_its_end_however_much_is_more_urgent() {
    let mut rig = open(Duration::ZERO);
    rig.order(publish(LARGE, ReceiptLevel::Routed).priority(Priority::BULK));
    rig.order(publish(LARGE, ReceiptLevel::Routed));
    let mut broker = Broker::default();
    while broker.sequences().last() != Some(&1) {
        assert!(broker.came.len() < 9, "{:?}", broker.sequences());
        rig.order(publish(LARGE, ReceiptLevel::Routed));
        rig.order(publish(3, ReceiptLevel::Routed).priority(Priority::HIGH));
        for _ in 0..LARGE / WRITE_BYTES {
            broker.take(&mut rig);
            rig.machine.handle_written();
            broker.came.retain(|it| it.payload.len() == LARGE);
        }
    }
    let passed = broker.came.len() - 1;
    assert_eq!(passed, 3, "what is more urgent has three pieces for each of its own");
}

/// FRG-7: it is settled when all of it is written, or goes again from its beginning.
#[test]
fn of_level_none_it_is_settled_by_its_last_piece_and_goes_again_if_that_was_not_written() {
    let mut rig = open(Duration::from_secs(5));
    rig.order(publish(LARGE, ReceiptLevel::None));
    let mut broker = Broker::default();
    broker.take(&mut rig);
    rig.machine.handle_written();
    assert!(rig.settled().is_empty() && !rig.machine.is_settled(), "there are pieces to come");
    rig.machine.handle_down(rig.now, &retry());
    reopen(&mut rig);
    let mut broker = Broker::default();
    broker.take_all(&mut rig);
    assert_eq!((broker.sequences(), broker.came[0].resend), (vec![1], true));
    assert!(rig.one().is_ok() && rig.machine.is_settled());
}

/// FRG-3, PUB-5: what was refused while it was open begins anew when that has ended, and
/// before anything new.
#[test]
fn what_is_refused_while_it_is_open_is_finished_before_it_goes_again() {
    let mut rig = open(Duration::from_secs(5));
    rig.order(publish(LARGE, ReceiptLevel::Delivered));
    rig.order(publish(3, ReceiptLevel::Routed));
    let mut broker = Broker::default();
    broker.take(&mut rig);
    let code = ErrorCode::OVERLOADED;
    rig.receipt(WireReceipt { sequence: 1, code, ..WireReceipt::default() });
    rig.now += Duration::from_secs(1);
    rig.machine.handle_timeout(rig.now);
    broker.take_all(&mut rig);
    let resent: Vec<_> = broker.came.iter().map(|it| (it.sequence, it.resend)).collect();
    assert_eq!(resent, [(1, false), (1, true), (2, false)]);
}

/// SES-11: a broker that drains gets the rest of what was begun, and nothing else.
#[test]
fn what_was_begun_is_finished_on_a_link_that_drains() {
    let mut rig = open(Duration::ZERO);
    rig.order(publish(LARGE, ReceiptLevel::Routed));
    let mut broker = Broker::default();
    broker.take(&mut rig);
    rig.machine.handle_drain();
    rig.order(publish(3, ReceiptLevel::Routed).priority(Priority::HIGH));
    broker.take_all(&mut rig);
    assert_eq!(broker.sequences(), [1]);
}

/// FRG-1: a broker that takes no pieces takes what fits into a frame.
#[test]
fn where_fragments_are_not_agreed_on_the_limit_is_that_of_a_frame() {
    let mut rig = Rig::open(10);
    rig.order(publish(1 << 20, ReceiptLevel::Routed));
    let mut broker = Broker::default();
    broker.take_all(&mut rig);
    assert_eq!((broker.sequences(), broker.came[0].writes), (vec![1], 1));
    rig.order(publish((1 << 20) + 1, ReceiptLevel::Routed));
    broker.take_all(&mut rig);
    rig.all_sent(&Sent {
        sequence: 1,
        targets: vec![1],
        part: None,
        level: Level::ROUTED,
        ttl_ms: 0,
        resend: false,
    });
    let mut settled = rig.settled();
    settled.sort_by_key(|(order, _)| *order);
    let error = settled.remove(1).1.expect_err("is too long for this broker").to_string();
    assert!(error.contains("1048577 bytes, the limit is 1048576"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// FRG-1 to FRG-3, FRG-6: whatever is published, all of it comes, of each priority in order.
    #[test]
    fn promise_2_all_of_it_comes_and_of_each_priority_in_order(
        orders in prop::collection::vec((0..5usize, 0..3u8, 0..3usize), 1..40),
    ) {
        let mut rig = open(Duration::ZERO);
        let mut broker = Broker::default();
        let mut expected = Vec::new();
        for (size, priority, writes) in orders {
            let bytes = [0, 40, WHOLE_BYTES_MAX + 1, 300_000, MESSAGE_BYTES_MAX][size];
            // A few of the largest are enough.
            let bytes = if expected.len() > 2 { bytes.min(300_000) } else { bytes };
            rig.order(publish(bytes, ReceiptLevel::Routed).priority(Priority(priority)));
            expected.push((Priority(priority), bytes));
            for _ in 0..writes {
                broker.take(&mut rig);
                rig.machine.handle_written();
            }
        }
        broker.take_all(&mut rig);
        prop_assert_eq!(broker.came.len(), expected.len());
        for priority in (0..3).map(Priority) {
            let of_it = |it: &&Came| it.priority == priority;
            let came = broker.came.iter().filter(of_it);
            let came: Vec<_> = came.map(|it| it.payload.len()).collect();
            let wanted = expected.iter().filter(|it| it.0 == priority).map(|it| it.1);
            prop_assert_eq!(came, wanted.collect::<Vec<_>>());
        }
        prop_assert!(broker.assembly.is_empty());
    }
}
