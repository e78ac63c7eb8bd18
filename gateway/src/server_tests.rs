//! Who has to go when connections hold too much, with a clock of the test's.

use bytes::Bytes;

use super::*;
use crate::pool::{ENTRY_BYTES, Image};
use crate::reports::Ticket;
use crate::subprotocol::Subprotocol;
use crate::transports::writer::{Left, Own};
use crate::transports::{NEVER, Timed};

const HELD: usize = 200_000;

/// Connections of which each holds a little less than a fifth of what all may, and a gateway that
/// nobody drives.
fn stuck(connections: usize) -> (Shared, Vec<Arc<Outbox>>) {
    let mut config = GatewayConfig::default();
    config.jwt.secret = "0123456789abcdef0123456789abcdef".into();
    config.limits.connections_max = 100;
    config.limits.connections_bytes_max = 1 << 20;
    let shared = Shared::new(&config, mpsc::channel(1).0);
    let enter = |_| {
        let outbox = Arc::new(Outbox::new(Subprotocol::Json, Arc::clone(&shared.queues)));
        shared.enter(&outbox);
        let _fits = outbox.charge(HELD);
        outbox
    };
    let outboxes = (0..connections).map(enter).collect();
    (shared, outboxes)
}

/// A look at all; those that were told to go.
fn relieve(
    shared: &Shared,
    outboxes: &[Arc<Outbox>],
    shortage: &mut Shortage,
    ms: u64,
) -> Vec<usize> {
    shared.relieve(shortage, ms);
    let told = |(key, outbox): (usize, &Arc<Outbox>)| {
        let goes = outbox.take().goes;
        outbox.gone();
        goes.then_some(key)
    };
    outboxes.iter().enumerate().filter_map(told).collect()
}

/// Its socket has taken this much.
fn got_on(outbox: &Outbox, bytes: usize) {
    let own = Own { frames: 0, bytes };
    outbox.release(Left { messages: 0, bytes, frames: 0, own });
}

#[test]
fn promise_6_a_shortage_of_a_moment_ends_nobody_who_got_on_a_moment_ago() {
    let (shared, outboxes) = stuck(7);
    outboxes[0].block(0);
    outboxes[1..].iter().for_each(|outbox| outbox.block(900));
    let mut shortage = Shortage::new(1000);
    assert_eq!(relieve(&shared, &outboxes, &mut shortage, 1000), [0]);
    assert!(!shortage.is_waiting);
    got_on(&outboxes[0], HELD);
    for (key, outbox) in outboxes.iter().enumerate().skip(1) {
        got_on(outbox, 1);
        outbox.block(1500 + key as u64);
    }
    assert!(shared.queues.pool.is_over());
    assert!(relieve(&shared, &outboxes, &mut shortage, 1999).is_empty() && shortage.is_waiting);
    // A second is enough: as many as it takes, those first that have not got on for the longest.
    assert_eq!(relieve(&shared, &outboxes, &mut shortage, 2000), [1, 2]);
}

/// Connections that take nothing in groups that each have messages of their own, with what their
/// tasks hold of these; together a little more than they may.
struct Frozen {
    shared: Shared,
    outboxes: Vec<(Arc<Outbox>, Vec<Bytes>)>,
}

const GROUPS: usize = 100;
const MEMBERS: usize = 100;

impl Frozen {
    /// Each is stuck since the time that `since_ms` gives it; one in [`GROUPS`] is of a group.
    fn new(since_ms: impl Fn(usize) -> u64) -> Self {
        let (all, image) = (GROUPS * MEMBERS, 1 << 20);
        let mut config = GatewayConfig::default();
        config.jwt.secret = "0123456789abcdef0123456789abcdef".into();
        config.limits.connections_max = 2 * all;
        config.limits.connections_bytes_max = (GROUPS - 1) * image + all * ENTRY_BYTES;
        let shared = Shared::new(&config, mpsc::channel(1).0);
        let enter = |_| {
            let outbox = Arc::new(Outbox::new(Subprotocol::Json, Arc::clone(&shared.queues)));
            shared.enter(&outbox);
            (outbox, Vec::new())
        };
        let outboxes = (0..all).map(enter).collect();
        let mut frozen = Self { shared, outboxes };
        (0..GROUPS).for_each(|group| frozen.give(group, image));
        for (key, (outbox, _)) in frozen.outboxes.iter().enumerate() {
            outbox.block(since_ms(key));
        }
        assert!(frozen.shared.queues.pool.is_over());
        frozen
    }

    /// A message for a group.
    fn give(&mut self, group: usize, bytes: usize) {
        let message = Image::new(vec![0; bytes], &self.shared.queues.pool).share(0);
        for (outbox, held) in self.outboxes.iter_mut().skip(group).step_by(GROUPS) {
            let (bytes, ticket) = (message.clone(), Ticket::NONE);
            assert!(outbox.write(group as u64, Timed { bytes, expires_ms: NEVER, ticket }));
            held.extend(outbox.take().frames.into_iter().map(|frame| frame.bytes));
        }
    }

    /// Looks at all, and tells some to go, as often as it takes or as there is somebody; how many
    /// went, each time.
    fn relieve(&mut self, shortage: &mut Shortage, now_ms: u64) -> Vec<usize> {
        let mut rounds = Vec::new();
        while !self.shared.queues.pool.has_room() && !shortage.is_waiting {
            self.shared.relieve(shortage, now_ms);
            rounds.push(self.go());
        }
        rounds.retain(|gone| *gone > 0);
        rounds
    }

    /// Those who were told to go do; how many.
    fn go(&mut self) -> usize {
        let goes = |it: &&mut (Arc<Outbox>, _)| it.0.take().goes;
        let gone = self.outboxes.iter_mut().filter(goes).map(|(outbox, held)| {
            let (frames, bytes) = (held.len(), held.drain(..).map(|it| it.len()).sum());
            self.shared.telemetry.waiting.sub(frames as u64);
            outbox.release(Left { bytes, frames, ..Left::default() });
            outbox.gone();
        });
        gone.count()
    }

    /// Members that a group has left.
    fn left(&self, group: usize) -> usize {
        let members = self.outboxes.iter().skip(group).step_by(GROUPS);
        members.filter(|(_, held)| !held.is_empty()).count()
    }
}

#[test]
fn promise_6_a_shortage_of_messages_that_many_share_is_over_after_a_few_rounds() {
    // All froze within a second, whatever group they are of.
    let mut frozen = Frozen::new(|key| key as u64 / GROUPS as u64 * 10);
    let rounds = frozen.relieve(&mut Shortage::new(5000), 5000);
    assert!(frozen.shared.queues.pool.has_room());
    // Thirteen groups have an eighth.
    let gone = rounds.iter().sum::<usize>();
    assert!(rounds.len() <= 8 && gone <= 15 * MEMBERS, "{gone} went: {rounds:?}");
    let hit: Vec<_> = (0..GROUPS).map(|it| frozen.left(it)).filter(|it| *it < MEMBERS).collect();
    let whole = hit.iter().filter(|left| **left == 0).count();
    assert!(hit.len() - whole <= 1, "all of a group, or nobody: {hit:?}");
}

#[test]
fn promise_7_a_look_that_was_begun_goes_on_while_bursts_come_and_go() {
    let mut frozen = Frozen::new(|_| 0);
    // Two groups have gone, and those who read bring as much by and by.
    let first = frozen.outboxes.iter().enumerate().filter(|(key, _)| key % GROUPS < 2);
    first.for_each(|(_, (outbox, _))| outbox.send_away());
    assert_eq!(frozen.go(), 2 * MEMBERS);
    let pool = Arc::clone(&frozen.shared.queues.pool);
    let mut shortage = None;
    let mut attend = |frozen: &Frozen| {
        frozen.shared.attend(&mut shortage, pool.is_over(), 5000);
        shortage.as_ref().is_some_and(Shortage::is_begun)
    };
    assert!(!attend(&frozen), "nothing is over");
    // Two turns each, which is enough to look at all places and to put all in line.
    for _ in 0..2 * (GROUPS * MEMBERS).div_ceil(LOOKED_AT_ONCE) {
        let burst = Image::new(vec![0; 2 << 20], &pool);
        assert!(pool.is_over() && attend(&frozen));
        drop(burst);
        assert!(!pool.is_over() && attend(&frozen));
    }
    assert!(!pool.is_settled(), "nobody was told to go");
    // Then it is gone on with until there is room.
    while frozen.go() > 0 {
        attend(&frozen);
    }
    assert!(pool.has_room());
    assert!(!attend(&frozen) && shortage.is_none());
}

#[test]
fn promise_6_while_messages_are_taken_nobody_goes_who_got_on_a_moment_ago() {
    // The members of three groups are stuck for long, the others' sockets have just become full.
    let since_ms = |key| if key % GROUPS < 3 { 0 } else { 9900 };
    let mut frozen = Frozen::new(since_ms);
    // It has lasted for so long that readers have to go as well, if that is what it takes.
    let mut shortage = Shortage::new(5000);
    let gone = frozen.relieve(&mut shortage, 10_000).iter().sum::<usize>();
    let pool = &frozen.shared.queues.pool;
    assert!(!pool.is_over() && !pool.has_room());
    assert_eq!(gone, 3 * MEMBERS);
    assert!((0..3).all(|group| frozen.left(group) == 0));
    // Nobody is waited for, and the next look is for the next time that too much is held.
    assert_eq!((shortage.is_waiting, shortage.from()), (true, Some(0)));
}
