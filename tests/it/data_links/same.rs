//! With and without data links the same users get the same messages.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use waybill_wire::code::Mode;
use waybill_wire::frame::Frame;
use waybill_wire::message::MessageHead;

use super::{Control, config, producer};
use crate::support::{Backend, Net};
use crate::talk::Receipt;

const SEEDS: Range<u64> = 0..40;
const GATEWAYS: u64 = 4;
const PUBLISHES: usize = 60;
const USERS: u64 = 20;

/// What each gateway got of each producer, in its order; and the receipts.
type Outcome = (BTreeMap<(u64, u64), Vec<(u64, Vec<u64>)>>, Vec<Receipt>);

/// Of each gateway, the shards it has data links to.
fn play(backend: Backend, seed: u64, has_links: impl Fn(u64, u16) -> bool) -> Outcome {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut net = Net::start(backend, config());
    let shards = net.shared().config.shards;
    let mut lines = Vec::new();
    for gateway in 0..GATEWAYS {
        let users: Vec<u64> = (0..USERS).filter(|_| random.random()).collect();
        let control = Control::link(&mut net, 1 + gateway, &users);
        lines.push((gateway, control.line));
        for shard in (0..shards).filter(|shard| has_links(gateway, *shard)) {
            lines.push((gateway, control.open(&mut net, shard).0));
        }
    }
    let mut producers: Vec<_> =
        (0..shards).map(|at| producer(&mut net, 100 + u64::from(at), at)).collect();
    let mut receipts = Vec::new();
    for number in 0..PUBLISHES {
        let uids: Vec<u64> =
            (0..random.random_range(1..6)).map(|_| random.random_range(0..USERS + 2)).collect();
        let mode = if random.random_range(0..5) == 0 { Mode::BROADCAST } else { Mode::DIRECT };
        let everyone = random.random_range(0..8) == 0;
        let uids = if everyone { &[][..] } else { &uids };
        let head = MessageHead { mode, everyone, ..MessageHead::default() };
        let at = number % producers.len();
        receipts.push(producers[at].publish_with(&mut net, head, uids, b"x"));
    }
    let mut came = BTreeMap::<_, Vec<_>>::new();
    let due: u32 = receipts.iter().map(|receipt| receipt.gateways).sum();
    net.until(|ledger| ledger.gateways.waiting == 0 && ledger.gateways.between_shards == 0);
    for (gateway, line) in lines {
        net.leave(line);
        while let Some(frame) = net.frame(line) {
            if let Ok(Frame::Deliver(it)) = Frame::decode(&frame) {
                let targets = it.targets.iter().collect();
                let of_it = came.entry((gateway, it.origin.unwrap())).or_default();
                of_it.push((it.sequence, targets));
            }
        }
    }
    assert_eq!(came.values().map(Vec::len).sum::<usize>(), due as usize);
    (came, receipts)
}

#[test]
fn promise_1_with_and_without_data_links_the_same_users_get_the_same_messages() {
    for seed in SEEDS {
        let shards = 1 + u16::try_from(seed % 4).unwrap();
        let backend = Backend::Sim(shards, seed);
        let without = play(backend, seed, |_, _| false);
        assert_eq!(play(backend, seed, |_, _| true), without, "seed {seed}: one to each shard");
        let some = play(backend, seed, |gateway, shard| (gateway + u64::from(shard)) % 2 == 0);
        assert_eq!(some, without, "seed {seed}: to some");
    }
    for shards in [1, 2, 4] {
        let backend = Backend::Tokio(shards);
        let without = play(backend, 7, |_, _| false);
        assert_eq!(play(backend, 7, |_, _| true), without, "{shards} shards of threads");
    }
}
