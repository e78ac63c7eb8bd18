//! What connections hold is within its bound, and all of it is counted (promise 7): clients that
//! never read are given, or ask for, more than there may be, and what the gateway allocates is
//! measured.

use super::tests::{Site, now};
use super::*;

const MOST: usize = 2 << 20;

/// What the tables of messages and reports may grow by meanwhile, and the frame that comes.
const BESIDES: usize = 2 << 20;

fn site() -> Site {
    Site::with(|config| {
        config.limits.connections_max = 100;
        config.limits.connections_bytes_max = MOST;
        config.limits.queue_bytes_max = MOST / 8;
        config.limits.recent_messages_max = 64;
    })
}

/// Loads a gateway until some connections had to go; what it holds is never more than may be, and
/// everything it allocates is in that.
fn holds(site: &mut Site, mut load: impl FnMut(&mut Site), most: usize) {
    let loaded = allocation_counter::measure(|| {
        let mut rounds = 0;
        while site.gateway.stats().closed_pool < 10 {
            rounds += 1;
            assert!(rounds < 2_000, "the load does not reach the bound");
            load(site);
            let held = usize::try_from(site.gateway.stats().bytes_held).unwrap();
            assert!(held <= most, "{held} bytes are held");
        }
    });
    let (bytes, held) = (loaded.bytes_max, site.gateway.stats().bytes_held);
    assert!(bytes <= (most + BESIDES) as u64, "{bytes} bytes were allocated");
    assert!(held > (MOST / 2) as u64, "{held} bytes are held in the end: more had to go than must");
}

#[test]
fn promise_7_what_waits_for_connections_that_do_not_read_is_bounded() {
    for bytes in [0, 1_000, 300_000] {
        let mut site = site();
        let slow: Vec<_> = (1..=40).map(|uid| site.user(uid)).collect();
        let quick = site.user(1000);
        let (mut sequence, payload) = (0, vec![7; bytes]);
        let load = |site: &mut Site| {
            for uid in 1..=40 {
                sequence += 1;
                site.deliver_to(sequence, &[uid, 1000], &payload);
                // Others get everything meanwhile (promise 6).
                let said = site.gateway.to_client(quick, now(sequence), usize::MAX);
                let [ToClient::Message(message)] = &said[..] else { panic!("{said:?}") };
                let is_it =
                    |said| matches!(said, Said::Message { sequence: it, .. } if it == sequence);
                assert!(is_it(read(message)));
            }
        };
        holds(&mut site, load, MOST);
        let stats = site.gateway.stats();
        assert!(stats.dropped.pool >= 10 && stats.dropped.slow == 0, "{stats:?}");
        assert_eq!(stats.closes["slow_connection"], stats.closed_pool);
        // Those who were given theirs first have been stuck for the longest.
        let is_closed = |conn| {
            let said = site.gateway.to_client(conn, now(1 << 40), usize::MAX);
            said.last() == Some(&ToClient::Close(CloseCode::SLOW_CONNECTION))
        };
        let closed: Vec<bool> = slow.into_iter().map(is_closed).collect();
        assert!(closed[0] && !closed[39], "{closed:?}");
    }
}

#[test]
fn promise_7_one_message_for_many_who_do_not_read_is_held_once() {
    let mut site = site();
    let uids: Vec<u64> = (1..=40).collect();
    let slow: Vec<_> = uids.iter().map(|uid| site.user(*uid)).collect();
    site.deliver_to(1, &uids, &[7; 1 << 20]);
    let stats = site.gateway.stats();
    assert_eq!((stats.waiting, stats.closed_pool), (40, 0));
    assert!(slow.iter().all(|conn| site.gateway.is_connected(*conn)));
}

#[test]
fn promise_7_answers_that_nobody_reads_are_bounded() {
    let mut site = site();
    let conns: Vec<_> = (1..=40).map(|uid| site.user(uid)).collect();
    let ping = Bytes::from_static(&[ClientMessage::PING.0]);
    let mut ms = 0;
    let load = |site: &mut Site| {
        for conn in &conns {
            ms += 1;
            if site.gateway.is_read(*conn) {
                site.gateway.from_client(*conn, now(ms), false, &ping);
            }
        }
    };
    holds(&mut site, load, MOST);
}
