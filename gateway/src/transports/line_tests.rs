//! A connection whose client leaves: what its queue held, and what had begun to be written.

use super::*;
use crate::auth::{Grant, mint};
use crate::config::GatewayConfig;
use crate::hub::ConnectionId;
use crate::pool::{ENTRY_BYTES, Image};
use crate::reports::{Draft, Reports, Ticket};
use crate::subprotocol::Subprotocol;
use crate::telemetry::{Dropped, Telemetry};
use crate::transports::{NEVER, QueueShared, Timed};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: Now = Now { ms: 0, unix_s: 1_800_000_000 };

/// A close frame is one byte.
struct Frames;

impl Framing for Frames {
    fn ping(&mut self) -> Vec<u8> {
        vec![b'P']
    }

    fn close(&mut self, _code: CloseCode, _reason: &str) -> Vec<u8> {
        vec![b'C']
    }
}

struct Rig {
    line: Line<Frames>,
    shared: Arc<QueueShared>,
    telemetry: Arc<Telemetry>,
    draft: Draft,
}

/// A connection that has been told *ready*.
fn rig() -> Rig {
    let mut config = GatewayConfig::default();
    config.jwt.secret = SECRET.into();
    let telemetry = Arc::<Telemetry>::default();
    let shared = Arc::new(QueueShared::new(&config.limits, Arc::clone(&telemetry)));
    let session = Session::new(Arc::new(config.session_limits()), Subprotocol::Json, NOW);
    let outbox = Arc::new(Outbox::new(Subprotocol::Json, Arc::clone(&shared)));
    let mut line = Line::new(Frames, session, outbox);
    let expires_at = NOW.unix_s + 3600;
    let grant = Grant { namespace: 0, uid: 1, device_class: 0, login: 0, tags: &[], expires_at };
    let login = format!(r#"{{"type":"login","token":"{}"}}"#, mint(SECRET.as_bytes(), grant));
    line.message(true, &Bytes::from(login), &config.verifier(), NOW);
    assert!(matches!(line.pop_to_hub(), Some(FromConnection::Login { .. })));
    line.outbox().say(Word::Confirmed(ConnectionId(7)));
    let draft = Reports::new(config.report_bounds()).open((1, (7, 1)), 1, false);
    let mut rig = Rig { line, shared, telemetry, draft };
    rig.take();
    rig.write(usize::MAX);
    rig
}

impl Rig {
    /// Messages of these bytes are queued, each of which a report waits for.
    fn queue(&mut self, messages: &[&'static [u8]]) -> Vec<Ticket> {
        let queue = |bytes: &&'static [u8]| {
            let ticket = self.draft.queued(1);
            self.queue_one(Bytes::from_static(bytes), ticket);
            ticket
        };
        messages.iter().map(queue).collect()
    }

    fn queue_one(&self, bytes: Bytes, ticket: Ticket) {
        self.telemetry.addressed.add(1);
        let _queued = self.line.outbox().write(1, Timed { bytes, expires_ms: NEVER, ticket });
    }

    fn take(&mut self) {
        self.line.take_from_hub(NOW);
    }

    /// The socket takes up to `len` bytes.
    fn write(&mut self, len: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while self.line.wants_to_write(NOW.ms) && taken.len() < len {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.line.slices(&mut slices);
            let bytes = slices[..filled].iter().flat_map(|slice| slice.to_vec());
            let mut bytes: Vec<u8> = bytes.collect();
            bytes.truncate(len - taken.len());
            self.line.written(bytes.len(), || 1);
            taken.extend(bytes);
        }
        taken
    }

    fn settled(&self) -> Vec<Outcome> {
        self.shared.settled.take().into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// Delivered, dropped as closed, in doubt.
    fn ledger(&self) -> (u64, u64, u64) {
        let stats = self.telemetry.snapshot(1, 0);
        assert_eq!(stats.balances(), Ok(()));
        let Dropped { closed, .. } = stats.dropped;
        (stats.delivered, closed, stats.in_doubt)
    }
}

#[test]
fn what_was_queued_when_a_close_is_read_is_neither_delivered_nor_reached() {
    let mut rig = rig();
    rig.queue(&[b"aaaa"]);
    rig.take();
    // One is in the writer, one still in the queue.
    rig.queue(&[b"bbbb"]);
    rig.line.closed_by_client(NOW);
    // Before anything is written the hub is told.
    assert!(matches!(rig.line.pop_to_hub(), Some(FromConnection::Logout { .. })));
    rig.queue(&[b"cccc"]);
    rig.take();
    assert_eq!(rig.write(usize::MAX), b"");
    assert_eq!((rig.ledger(), rig.settled()), ((0, 3, 0), vec![Outcome::Gone; 3]));
    // The answer to its close still goes out.
    rig.line.control(b"C".to_vec(), NOW);
    assert_eq!(rig.write(usize::MAX), b"C");
    drop(rig.line);
    assert_eq!(rig.telemetry.waiting.value(), 0);
}

#[test]
fn what_had_begun_when_a_close_is_read_is_in_doubt_though_it_is_completed() {
    let mut rig = rig();
    rig.queue(&[b"aaaa", b"bbbb", b"cccc"]);
    rig.take();
    assert_eq!(rig.write(6), b"aaaabb");
    rig.line.closed_by_client(NOW);
    rig.line.control(b"C".to_vec(), NOW);
    // A frame can't be left half written before another.
    assert_eq!(rig.write(usize::MAX), b"bbC");
    assert_eq!(rig.ledger(), (1, 1, 1));
    assert_eq!(rig.settled(), [Outcome::Reached, Outcome::Gone, Outcome::InDoubt]);
    drop(rig.line);
    assert_eq!(rig.telemetry.snapshot(0, 0).balances(), Ok(()));
}

#[test]
fn closes_that_cross_leave_our_own_and_no_message() {
    let mut rig = rig();
    rig.queue(&[b"aaaa", b"bbbb"]);
    rig.take();
    assert_eq!(rig.write(1), b"a");
    rig.line.close(CloseCode::DRAINING, "".into(), NOW);
    rig.line.closed_by_client(NOW);
    assert_eq!(rig.write(usize::MAX), b"aaaC");
    assert_eq!(rig.ledger(), (0, 1, 1));
    assert_eq!(rig.settled(), [Outcome::Gone, Outcome::InDoubt]);
}

#[test]
fn a_close_that_answers_ours_finds_everything_written() {
    let mut rig = rig();
    rig.queue(&[b"aaaa"]);
    rig.take();
    rig.line.close(CloseCode::DRAINING, "".into(), NOW);
    assert_eq!(rig.write(usize::MAX), b"aaaaC");
    rig.line.closed_by_client(NOW);
    assert_eq!((rig.ledger(), rig.settled()), ((1, 0, 0), vec![Outcome::Reached]));
}

#[test]
fn promise_7_once_nobody_is_told_to_go_any_more_what_they_held_is_given_back() {
    let close = ENTRY_BYTES + 1;
    for (written, is_closed, left) in [(0, false, close), (6, false, 0), (2, true, 0)] {
        let mut rig = rig();
        let image = Image::new(vec![b'a'; 4], &rig.shared.pool).share(0);
        rig.queue_one(image.clone(), Ticket::NONE);
        rig.queue_one(image, Ticket::NONE);
        rig.take();
        assert_eq!(rig.write(written).len(), written);
        rig.line.outbox().send_away();
        if is_closed {
            rig.line.lost(NOW);
        }
        assert!(!rig.shared.pool.is_settled());
        rig.take();
        assert_eq!(rig.line.is_aborted(), written > 0);
        assert!(rig.shared.pool.is_settled());
        assert_eq!(rig.shared.pool.held(), left, "after {written} bytes");
    }
}

#[test]
fn the_end_of_the_stream_counts_as_a_close() {
    let mut rig = rig();
    rig.queue(&[b"aaaa", b"bbbb"]);
    rig.take();
    assert_eq!(rig.write(2), b"aa");
    rig.line.lost(NOW);
    assert!(matches!(rig.line.pop_to_hub(), Some(FromConnection::Logout { .. })));
    assert_eq!((rig.ledger(), rig.settled()), ((0, 1, 1), vec![Outcome::Gone, Outcome::InDoubt]));
}
