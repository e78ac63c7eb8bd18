//! The queue of one connection, with a socket that takes what a test says.

use super::writer::Own;
use super::*;

struct Rig {
    outbox: Outbox,
    shared: Arc<QueueShared>,
    telemetry: Arc<Telemetry>,
}

/// A queue with a bound of 100 bytes.
fn rig() -> Rig {
    let telemetry = Arc::<Telemetry>::default();
    let limits = LimitConfig { queue_bytes_max: 100, ..LimitConfig::default() };
    let shared = Arc::new(QueueShared::new(&limits, Arc::clone(&telemetry)));
    Rig { outbox: Outbox::new(Subprotocol::Json, Arc::clone(&shared)), shared, telemetry }
}

fn write(outbox: &Outbox, lens: &[usize]) {
    lens.iter().for_each(|len| write_one(outbox, 1, *len));
}

fn write_one(outbox: &Outbox, number: u64, len: usize) {
    let bytes = Bytes::from(vec![b'x'; len]);
    let _queued = outbox.write(number, Timed { bytes, expires_ms: NEVER, ticket: Ticket::NONE });
}

fn release(outbox: &Outbox, frames: &VecDeque<Timed>) {
    let (messages, bytes) = (frames.len() as u64, bytes(frames));
    outbox.release(Left { messages, bytes, frames: frames.len(), ..Left::default() });
}

#[test]
fn promise_7_bytes_are_bounded_until_written() {
    let Rig { outbox, shared, telemetry } = rig();
    write(&outbox, &[60, 40]);
    let taken = outbox.take();
    assert_eq!((taken.frames.len(), taken.overrun), (2, false));
    outbox.block(0);
    // Taken but not written: the bound still counts them.
    write(&outbox, &[1]);
    assert!(outbox.take().overrun && !shared.pressure.is_on());
    assert_eq!(telemetry.dropped_slow.value(), 1);
}

#[test]
fn what_waited_in_a_full_queue_is_dropped_and_counted() {
    let Rig { outbox, telemetry, .. } = rig();
    write(&outbox, &[60]);
    outbox.block(0);
    write(&outbox, &[40, 1, 1]);
    let taken = outbox.take();
    assert!(taken.overrun && taken.frames.is_empty());
    assert_eq!(telemetry.dropped_slow.value(), 4);
    assert!(outbox.close().is_empty());
    write(&outbox, &[1]);
    assert_eq!(telemetry.dropped_closed.value(), 1);
}

#[test]
fn promise_7_a_burst_nobody_has_looked_at_presses_instead_of_ending_its_connection() {
    let Rig { outbox, shared, telemetry } = rig();
    write(&outbox, &[60, 40]);
    assert!(!shared.pressure.is_on());
    // The one that crosses the bound; whoever writes now waits until the task has looked.
    write(&outbox, &[70]);
    assert!(shared.pressure.is_on());
    let taken = outbox.take();
    assert_eq!((bytes(&taken.frames), taken.overrun), (170, false));
    outbox.release(Left { messages: 2, bytes: 100, frames: 2, ..Left::default() });
    assert!(shared.pressure.is_on(), "it is still at it");
    outbox.block(0);
    assert!(!shared.pressure.is_on());
    write(&outbox, &[31]);
    assert!(outbox.take().overrun, "now it is known that it does not read");
    assert_eq!(telemetry.dropped_slow.value(), 1);
}

#[test]
fn a_queue_that_was_emptied_may_be_filled_again_whatever_there_was_before() {
    let Rig { outbox, shared, .. } = rig();
    write(&outbox, &[60]);
    outbox.block(0);
    release(&outbox, &outbox.take().frames);
    write(&outbox, &[60, 60]);
    assert!(shared.pressure.is_on());
    release(&outbox, &outbox.take().frames);
    assert!(!shared.pressure.is_on());
    write(&outbox, &[5000]);
    assert!(shared.pressure.is_on());
    assert_eq!(bytes(&outbox.close()), 5000);
    assert!(!shared.pressure.is_on());
}

#[test]
fn a_large_message_is_taken_and_what_follows_is_not_while_it_is_stuck() {
    let Rig { outbox, telemetry, .. } = rig();
    write(&outbox, &[5000]);
    outbox.take();
    outbox.release(Left { bytes: 2000, ..Left::default() });
    outbox.block(0);
    write(&outbox, &[1]);
    assert!(outbox.take().overrun);
    assert_eq!(telemetry.dropped_slow.value(), 1);
}

#[test]
fn promise_6_nobody_is_judged_before_all_have_looked_at_their_queues() {
    let Rig { outbox, shared, .. } = rig();
    let frame = || Timed { bytes: vec![0; 60].into(), expires_ms: NEVER, ticket: Ticket::NONE };
    for look in [|outbox: &Outbox| outbox.take().frames, Outbox::close] {
        assert!(shared.pool.is_settled());
        assert!(outbox.write(1, frame()));
        shared.pool.came(1);
        assert!(!shared.pool.is_settled());
        look(&outbox);
    }
    assert!(!outbox.write(1, frame()), "it is closed");
    assert!(shared.pool.is_settled());
}

#[test]
fn promise_6_who_is_told_to_go_is_waited_for_until_it_has_let_go() {
    let Rig { outbox, shared, .. } = rig();
    outbox.send_away();
    assert!(!shared.pool.is_settled());
    assert!(outbox.take().goes);
    outbox.close();
    assert!(!shared.pool.is_settled(), "what it took it still holds");
    outbox.gone();
    assert!(shared.pool.is_settled() && !outbox.take().goes);
    outbox.send_away();
    drop(outbox);
    assert!(shared.pool.is_settled());
}

#[test]
fn what_little_a_connection_is_given_says_nothing_of_whom_it_shares_with() {
    let Rig { outbox, .. } = rig();
    let mut number = 0;
    for (lens, largest) in [(vec![1, 6_000, 5, 6_000, 5_999], 4), (vec![10, 5_000, 3_000], 7)] {
        for len in lens {
            number += 1;
            write_one(&outbox, number, len);
        }
        outbox.block(0);
        assert_eq!(outbox.stuck().unwrap().largest, largest);
        release(&outbox, &outbox.take().frames);
    }
}

#[test]
fn own_bytes_share_the_bound() {
    let Rig { outbox, shared, .. } = rig();
    assert!(outbox.charge(90));
    assert!(outbox.charge(11), "they are written in the same breath");
    assert!(!shared.pressure.is_on());
    outbox.block(0);
    assert!(!outbox.charge(1));
    let own = Own { frames: 3, bytes: 102 };
    outbox.release(Left { messages: 0, bytes: 102, frames: 3, own });
    assert!(outbox.charge(500));
}

#[test]
fn a_client_that_ends_its_messages_is_stuck_since_the_last_one_only() {
    let Rig { outbox, .. } = rig();
    let steps = [
        (60_000, false, 10, 10),
        // More of it.
        (70_000, false, 20, 10),
        // As much of the next one.
        (70_000, true, 30, 30),
        (80_000, false, 40, 30),
        // The hub has taken some.
        (50_000, false, 50, 50),
    ];
    for (bytes, has_ended, now_ms, since_ms) in steps {
        outbox.bring(bytes, has_ended, now_ms);
        assert_eq!(outbox.stuck(), Some(Stuck { since_ms, bytes, largest: 0 }));
    }
    outbox.bring(0, true, 60);
    assert_eq!(outbox.stuck(), None);
}
