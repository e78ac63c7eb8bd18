//! What goes again after a link died or a broker was not ready, and what no longer does.

use std::time::Duration;

use proptest::prelude::*;
use waybill_wire::code::{BrokerState, ErrorCode};
use waybill_wire::frame::Receipt as WireReceipt;

use super::{Rig, Sent, code, retry, welcomed};
use crate::error::{Obstacle, PublishError};
use crate::link::{LinkError, LinkErrorKind, Welcomed};
use crate::machine::{Ending, Machine};
use crate::publish::{Publish, ReceiptLevel};

const WITHIN: Duration = Duration::from_secs(5);

impl Rig {
    fn cut(&mut self) {
        self.machine.handle_down(self.now, &retry());
    }

    fn reopen(&mut self) {
        self.machine.handle_open(self.now, &welcomed(0, 1 << 20));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        while self.machine.deadline().is_some_and(|at| at <= self.now) {
            let before = self.machine.deadline();
            self.machine.handle_timeout(self.now);
            assert_ne!(self.machine.deadline(), before, "a time that is over is over");
        }
    }
}

fn resending(in_flight_max: usize) -> Rig {
    let mut rig = Rig::resending(in_flight_max, WITHIN);
    rig.reopen();
    rig
}

fn shape(sent: &[Sent]) -> Vec<(u64, bool)> {
    sent.iter().map(|sent| (sent.sequence, sent.resend)).collect()
}

fn not_ready() -> Welcomed {
    Welcomed { state: BrokerState::NOT_READY, ..welcomed(0, 1 << 20) }
}

/// [PUB-5], [DEL-6]: the message keeps its sequence, and goes before anything new.
#[test]
fn what_flew_goes_again_first_in_order_and_says_so() {
    let mut rig = resending(2);
    for uid in 1..=4 {
        rig.order(Publish::to([uid]));
    }
    let first = rig.transmit();
    assert_eq!(shape(&first), [(1, false), (2, false)]);
    rig.all_sent(&first[0]);
    assert!(!rig.one().expect("served").resent);
    assert_eq!(shape(&rig.transmit()), [(3, false)]);
    rig.cut();
    assert!(rig.settled().is_empty(), "nobody is in doubt yet");
    rig.reopen();
    let again = rig.transmit();
    assert_eq!(shape(&again), [(2, true), (3, true)]);
    assert_eq!(again[0].targets, [2]);
    again.iter().for_each(|sent| rig.all_sent(sent));
    for (_, outcome) in rig.settled() {
        let receipt = outcome.expect("served");
        assert!(receipt.resent && !receipt.in_doubt);
    }
    assert_eq!(shape(&rig.transmit()), [(4, false)]);
}

#[test]
fn what_finds_no_link_in_time_is_in_doubt() {
    let mut rig = resending(10);
    rig.order(Publish::to([1, 2]));
    rig.transmit();
    rig.cut();
    rig.pass(WITHIN - Duration::from_millis(1));
    assert!(rig.settled().is_empty());
    rig.pass(Duration::from_millis(1));
    let receipt = rig.one().expect("in doubt is not refused");
    assert_eq!((receipt.unknown, receipt.in_doubt, receipt.resent), (vec![1, 2], true, false));
    rig.reopen();
    assert!(rig.transmit().is_empty() && rig.machine.is_settled());
}

#[test]
fn a_second_loss_does_not_begin_a_second_time() {
    let mut rig = resending(10);
    rig.order(Publish::to([1]));
    rig.transmit();
    rig.cut();
    rig.pass(Duration::from_secs(3));
    rig.reopen();
    assert_eq!(shape(&rig.transmit()), [(1, true)]);
    rig.pass(Duration::from_secs(1));
    rig.cut();
    rig.reopen();
    assert_eq!(shape(&rig.transmit()), [(1, true)], "four seconds after the first loss");
    rig.pass(Duration::from_secs(1));
    rig.cut();
    assert_eq!(rig.one().expect("in doubt").unknown, [1]);
}

#[test]
fn a_list_goes_again_part_by_part_with_what_was_not_sent_yet() {
    let mut rig = resending(2);
    rig.order(Publish::to((0..10_000).collect::<Vec<_>>()));
    let sent = rig.transmit();
    rig.all_sent(&sent[0]);
    rig.cut();
    rig.reopen();
    let sent = rig.transmit();
    let parts: Vec<_> = sent.iter().map(|s| (s.sequence, s.resend, s.part)).collect();
    assert_eq!(parts, [(2, true, Some((1, 1, 3))), (3, false, Some((1, 2, 3)))]);
    sent.iter().for_each(|sent| rig.all_sent(sent));
    let receipt = rig.one().expect("served");
    assert_eq!((receipt.sent, receipt.resent, receipt.in_doubt), (10_000, true, false));
}

#[test]
fn ttl_runs_on_while_it_waits_to_go_again() {
    let mut rig = resending(10);
    rig.order(Publish::to([1]).ttl(Duration::from_millis(900)));
    rig.order(Publish::to([2]).ttl(Duration::from_millis(500)));
    rig.transmit();
    rig.cut();
    rig.pass(Duration::from_millis(600));
    rig.reopen();
    assert_eq!(rig.transmit().iter().map(|sent| sent.ttl_ms).collect::<Vec<_>>(), [300]);
    assert_eq!(rig.one().expect("it may have arrived").unknown, [2]);
}

/// [PUB-3] as the producer sees it.
#[test]
fn nothing_is_sent_to_a_broker_that_is_not_ready() {
    let mut rig = Rig::resending(10, WITHIN);
    rig.machine.handle_open(rig.now, &not_ready());
    rig.order(Publish::to([1]));
    assert!(rig.transmit().is_empty());
    assert!(rig.machine.wants_another() && !rig.machine.is_settled());
    rig.machine.handle_state(BrokerState::READY, 0);
    assert!(!rig.machine.wants_another());
    assert_eq!(shape(&rig.transmit()), [(1, false)]);
}

#[test]
fn what_was_refused_as_not_ready_goes_again() {
    let mut rig = resending(10);
    rig.order(Publish::to([1]));
    rig.order(Publish::to([2]));
    rig.transmit();
    for sequence in [1, 2] {
        let code = ErrorCode::NOT_READY;
        rig.receipt(WireReceipt { sequence, code, ..WireReceipt::default() });
    }
    assert!(rig.settled().is_empty() && rig.transmit().is_empty());
    assert!(rig.machine.wants_another(), "nothing flies here any more");
    rig.cut();
    rig.reopen();
    let sent = rig.transmit();
    assert_eq!(shape(&sent), [(1, true), (2, true)]);
    rig.all_sent(&sent[0]);
    assert!(!rig.one().expect("served").resent, "the first copy was certainly not served");
}

#[test]
fn what_cannot_be_sent_fails_in_time_and_says_why() {
    let mut rig = Rig::resending(10, WITHIN);
    let patience = Duration::from_secs(30);
    rig.order(Publish::to([1]));
    rig.pass(patience);
    let timed_out = |rig: &mut Rig| match rig.one() {
        Err(PublishError::TimedOut(obstacle)) => obstacle,
        other => panic!("{other:?}"),
    };
    assert!(matches!(timed_out(&mut rig), Obstacle::Connecting));

    rig.machine.handle_open(rig.now, &not_ready());
    rig.order(Publish::to([1]));
    rig.pass(patience / 2);
    rig.order(Publish::to([2]));
    rig.pass(patience / 2);
    let obstacle = timed_out(&mut rig);
    assert!(matches!(&obstacle, Obstacle::NotReady { broker, .. } if &**broker == "b:1"));
    assert_eq!(
        PublishError::TimedOut(obstacle).to_string(),
        "not sent in time: broker b:1 is not ready: it does not know yet who is online"
    );
    rig.cut();
    rig.pass(patience / 2);
    assert!(matches!(timed_out(&mut rig), Obstacle::Down(_)));
    assert!(rig.machine.deadline().is_none());
}

/// The link is fine and the broker ready: the error must not sound as if either were not.
#[test]
fn what_waits_for_a_full_window_too_long_says_so() {
    let mut rig = resending(2);
    for uid in 1..=3 {
        rig.order(Publish::to([uid]));
    }
    let sent = rig.transmit();
    assert_eq!(sent.len(), 2);
    rig.pass(Duration::from_secs(30));
    let outcome = rig.one().expect_err("was not sent");
    assert!(matches!(&outcome, PublishError::TimedOut(Obstacle::Busy { unanswered: 2, .. })));
    assert_eq!(
        outcome.to_string(),
        "not sent in time: broker b:1 is behind: 2 sent before still wait for their receipts"
    );
    sent.iter().for_each(|sent| rig.all_sent(sent));
    assert!(rig.settled().into_iter().all(|(_, outcome)| outcome.is_ok()), "those are not lost");
}

#[test]
fn a_list_that_stops_half_way_names_who_was_not_served() {
    let mut rig = Rig::resending(1, Duration::ZERO);
    rig.reopen();
    rig.order(Publish::to((0..5000).collect::<Vec<_>>()));
    let sent = rig.transmit();
    rig.pass(Duration::from_secs(20));
    rig.all_sent(&sent[0]);
    rig.cut();
    rig.pass(Duration::from_secs(10));
    let receipt = rig.one().expect("served in part");
    assert_eq!((receipt.sent, receipt.dropped_count()), (4096, 904));
    assert_eq!(receipt.dropped[0].cause, ErrorCode::NOT_READY);
}

#[test]
fn the_end_leaves_nothing_waiting() {
    let mut rig = resending(10);
    rig.order(Publish::to([1]));
    rig.order(Publish::to([2]).level(ReceiptLevel::None));
    rig.transmit();
    rig.cut();
    let error = LinkError::new(LinkErrorKind::Closed, &"b:1".into());
    rig.machine.handle_down(rig.now, &Ending::Final(error));
    for (_, outcome) in rig.settled() {
        assert!(outcome.expect("in doubt is no refusal").in_doubt);
    }
    assert!(rig.machine.is_settled());
}

proptest! {
    /// A broker that remembers whom it served by message id serves each publish at most once, and
    /// exactly once if it is not in doubt (promise 3).
    #[test]
    fn a_broker_with_a_memory_serves_nobody_twice(
        happenings in prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..60),
    ) {
        let mut rig = Rig::resending(4, WITHIN);
        let (mut open, mut wire, mut served) = (false, Vec::<Sent>::new(), Vec::<u64>::new());
        let (mut settled, mut asked) = (Vec::new(), 0u64);
        let mut newest = 0;
        for (happening, which) in happenings {
            match happening {
                0 => {
                    rig.order(Publish::to([asked]));
                    asked += 1;
                }
                1 if open => {
                    for sent in rig.transmit() {
                        // [PUB-1]
                        assert!(sent.resend || sent.sequence > newest);
                        newest = newest.max(sent.sequence);
                        wire.push(sent);
                    }
                }
                2 if !wire.is_empty() => {
                    let sent = wire.remove(0);
                    if !served.contains(&sent.sequence) {
                        served.push(sent.sequence);
                    }
                    rig.all_sent(&sent);
                }
                3 if open => {
                    // Some of what is on its way still arrives, its receipts do not.
                    let arrived = which.index(wire.len() + 1);
                    for sent in wire.drain(..).take(arrived) {
                        if !served.contains(&sent.sequence) {
                            served.push(sent.sequence);
                        }
                    }
                    rig.cut();
                    open = false;
                }
                _ if !open => {
                    rig.reopen();
                    open = true;
                }
                _ => rig.pass(Duration::from_millis(900)),
            }
            settled.extend(rig.settled());
        }
        for (_, outcome) in &settled {
            prop_assert!(code(outcome).is_none());
            if let Ok(receipt) = outcome {
                prop_assert!(receipt.in_doubt || served.contains(&receipt.sequence));
            }
        }
        prop_assert!(served.len() as u64 <= asked);
    }
}
