//! Messages that follow each other and go to every gateway as they are lie in memory once, whatever
//! the number of gateways: one shard by hand, so that it can be seen what is written from where.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use waybill_broker::io::{Input, LinkId, Output, Piece, joined};
use waybill_broker::limits::{LINK_BYTES, RUN_BYTES_MIN};
use waybill_broker::shard::Shard;
use waybill_broker::shared::Shared;
use waybill_broker::{BrokerConfig, Ledger};
use waybill_wire::Frame;
use waybill_wire::code::{Level, Op, Priority, Role};
use waybill_wire::deframe::Deframer;
use waybill_wire::frame::{Record, Snapshot};
use waybill_wire::message::MessageHead;

use crate::talk::{encode, hello_offering};

const GATEWAYS: u64 = 5;
const PRODUCER: LinkId = LinkId(9);
const PAYLOAD: usize = 1_000;

/// A write that was ordered.
struct Written {
    data: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Written {
    /// Sequences of its DELIVERs.
    fn sequences(&self) -> Vec<u64> {
        let all = joined(self.data.clone(), &self.pieces);
        let (mut deframer, mut rest, mut sequences) = (Deframer::new(), &all[..], Vec::new());
        while let Some(raw) = deframer.whole(rest) {
            if let Ok(Frame::Deliver(message)) = raw.decode() {
                sequences.push(message.sequence);
            }
            rest = &rest[raw.bytes().len()..];
        }
        sequences
    }
}

struct Site {
    shard: Shard,
    shared: Arc<Shared>,
    reads: BTreeMap<LinkId, Vec<u8>>,
    /// Writes that are not done.
    writes: BTreeMap<LinkId, Written>,
}

impl Site {
    fn new() -> Self {
        let config = BrokerConfig { ready_quiet_ms: 0, keepalive_ms: 0, ..BrokerConfig::default() };
        let shared = Arc::new(Shared::new(config, 1, 2));
        let shard = Shard::new(0, Arc::clone(&shared));
        let mut site = Self { shard, shared, reads: BTreeMap::new(), writes: BTreeMap::new() };
        for gateway in 1..=GATEWAYS {
            site.link(LinkId(gateway), Role::GATEWAY);
            let records = [Record { uid: 1, login: 0, namespace: 0, op: Op::ADD, device_class: 0 }];
            let records = (&records).into();
            let snapshot = Snapshot { first: true, last: true, version: 1, records };
            site.bytes(LinkId(gateway), &encode(&Frame::Snapshot(snapshot)));
        }
        site.link(PRODUCER, Role::PRODUCER);
        (1..=GATEWAYS).for_each(|gateway| site.wrote(LinkId(gateway)));
        site
    }

    fn link(&mut self, link: LinkId, role: Role) {
        self.input(Input::Accepted { link, peer: None });
        self.bytes(link, &hello_offering(role, link.0, b"", 0));
    }

    fn bytes(&mut self, link: LinkId, bytes: &[u8]) {
        let mut data = self.reads.remove(&link).expect("it is read");
        data.extend_from_slice(bytes);
        self.input(Input::Bytes { link, data });
    }

    /// What was ordered for a link is done, and what follows from that, too.
    fn wrote(&mut self, link: LinkId) {
        while let Some(Written { data, .. }) = self.writes.remove(&link) {
            self.input(Input::Wrote { link, data });
        }
    }

    fn input(&mut self, input: Input) {
        self.shard.handle(Duration::ZERO, input);
        self.shard.flush(Duration::ZERO);
        while let Some(output) = self.shard.output() {
            match output {
                Output::Read { link, buffer } => drop(self.reads.insert(link, buffer)),
                Output::Write { link, data, pieces } => {
                    assert!(self.writes.insert(link, Written { data, pieces }).is_none());
                }
                _ => {}
            }
        }
    }

    fn used(&self) -> usize {
        self.shared.pools.waiting.used()
    }
}

fn head(sequence: u64) -> MessageHead<'static> {
    MessageHead { sequence, everyone: true, ..MessageHead::default() }
}

fn publish(head: MessageHead<'_>, bytes: usize) -> Vec<u8> {
    let targets: &[u64] = if head.everyone { &[] } else { &[1] };
    let mut out = Vec::new();
    head.encode_publish(targets, &vec![b'e'; bytes], &mut out).expect("a test's own message");
    out
}

fn messages(sequences: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    sequences.flat_map(|sequence| publish(head(sequence), PAYLOAD)).collect()
}

#[test]
fn messages_to_every_gateway_lie_in_memory_once_for_all_of_them() {
    let mut site = Site::new();
    site.bytes(PRODUCER, &messages(1..=20));
    let first = &site.writes[&LinkId(1)];
    assert!(first.data.is_empty() && !first.pieces.is_empty(), "nothing of it is its own");
    let places = |written: &Written| -> Vec<_> {
        written.pieces.iter().map(|it| (it.at, it.bytes.as_ptr_range())).collect()
    };
    for gateway in 1..=GATEWAYS {
        let written = &site.writes[&LinkId(gateway)];
        assert_eq!(written.sequences(), (1..=20).collect::<Vec<_>>());
        assert_eq!(places(written), places(first), "gateway {gateway}");
    }
}

#[test]
fn promise_2_what_cannot_be_shared_keeps_its_place_between_what_can() {
    let odd: [fn(&mut MessageHead<'static>); 5] = [
        |it| it.ttl_ms = 60_000,
        |it| it.conflate = Some(3),
        |it| it.level = Level::ROUTED,
        |it| it.priority = Priority::HIGH,
        |it| it.everyone = false,
    ];
    for (at, change) in odd.into_iter().enumerate() {
        let mut site = Site::new();
        let mut between = head(11);
        change(&mut between);
        let is_urgent = between.priority == Priority::HIGH;
        let read = [messages(1..=10), publish(between, PAYLOAD), messages(12..=20)].concat();
        site.bytes(PRODUCER, &read);
        let mut expected: Vec<u64> = (1..=20).collect();
        if is_urgent {
            expected[..11].rotate_right(1);
        }
        for gateway in 1..=GATEWAYS {
            let written = &site.writes[&LinkId(gateway)];
            assert_eq!(written.sequences(), expected, "{at}");
            assert!(written.pieces.len() >= 2, "{at}: what is before and behind it is shared");
        }
    }
}

#[test]
fn little_is_copied() {
    let mut site = Site::new();
    let few = RUN_BYTES_MIN / PAYLOAD - 1;
    site.bytes(PRODUCER, &messages(1..=few as u64));
    for written in site.writes.values().filter(|it| !it.sequences().is_empty()) {
        assert!(written.pieces.is_empty());
    }
}

#[test]
fn promise_7_what_is_shared_is_charged_to_every_gateway_until_it_is_written() {
    let mut site = Site::new();
    let before = site.used();
    let rounds = 10_u64;
    for round in 0..rounds {
        site.bytes(PRODUCER, &messages(20 * round + 1..=20 * round + 20));
        (2..=GATEWAYS).for_each(|gateway| site.wrote(LinkId(gateway)));
    }
    // The others have taken all of it, so the first is charged with what there is only for it.
    let bytes = 20 * PAYLOAD * usize::try_from(rounds).expect("a few");
    let charged = site.used() - before;
    assert!(charged + LINK_BYTES > bytes, "{charged} for {bytes}");
    assert!(charged < 3 * bytes, "{charged} for {bytes}");
    site.wrote(LinkId(1));
    assert!(site.used() <= before + bytes / 10, "{} after {before}", site.used());
}

#[test]
fn promise_5_a_gateway_without_room_for_all_of_a_run_takes_what_fits() {
    let mut site = Site::new();
    let outbox = site.shared.config.outbox_bytes_max;
    let mut sequence = 0;
    // The first gateway takes nothing, so its outbox fills up.
    for _ in 0..outbox / (20 * PAYLOAD) + 2 {
        site.bytes(PRODUCER, &messages(sequence + 1..=sequence + 20));
        sequence += 20;
        (2..=GATEWAYS).for_each(|gateway| site.wrote(LinkId(gateway)));
    }
    let mut came = Vec::new();
    while let Some(Written { data, pieces }) = site.writes.remove(&LinkId(1)) {
        let written = Written { data, pieces };
        came.extend(written.sequences());
        site.input(Input::Wrote { link: LinkId(1), data: written.data });
    }
    assert!(came.iter().copied().eq(1..=came.len() as u64), "the first ones, in order");
    let refused = sequence - came.len() as u64;
    assert!(refused > 0 && !refused.is_multiple_of(20), "{refused}: the last run in part");
    let ledger = Ledger::of([site.shard.counters().as_ref()]);
    assert_eq!(ledger.gateways.dropped_outbox_full, refused);
}
