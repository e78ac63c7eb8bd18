//! Who has to go when connections hold too much, with a clock of the test's.

use super::*;
use crate::subprotocol::Subprotocol;
use crate::transports::writer::{Left, Own};

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
    let told = |(key, outbox): (usize, &Arc<Outbox>)| outbox.take().goes.then_some(key);
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
