//! Frames for links of another shard travel together: two shards by hand, so that the mail between
//! them can be counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_broker::io::{Input, LinkId, Output, joined};
use waybill_broker::limits::PARCEL_BYTES;
use waybill_broker::mail::Mail;
use waybill_broker::shard::Shard;
use waybill_broker::shared::Shared;
use waybill_wire::Frame;
use waybill_wire::code::{Op, Role};
use waybill_wire::deframe::Deframer;
use waybill_wire::frame::{Record, Snapshot};
use waybill_wire::message::MessageHead;

use crate::talk::{encode, hello_offering};

/// Shards: that of the producer, and those of the gateways.
const SHARDS: u16 = 3;
const LINK: LinkId = LinkId(1);

struct Site {
    shards: Vec<Shard>,
    shared: Arc<Shared>,
    reads: BTreeMap<u16, Vec<u8>>,
    mail: Vec<(u16, Mail)>,
    /// Sequences of the DELIVERs that each shard's link was written.
    written: BTreeMap<u16, Vec<u64>>,
}

impl Site {
    /// Each shard but the first has a gateway, with the user of its number.
    fn new() -> Self {
        let config = BrokerConfig {
            ready_quiet_ms: 0,
            keepalive_ms: 0,
            shards: SHARDS,
            ..BrokerConfig::default()
        };
        let shared = Arc::new(Shared::new(config, 1, 2));
        let shards = (0..SHARDS).map(|id| Shard::new(id, Arc::clone(&shared))).collect();
        let (reads, mail, written) = Default::default();
        let mut site = Self { shards, shared, reads, mail, written };
        for shard in 1..SHARDS {
            site.link(shard, Role::GATEWAY);
            let uid = u64::from(shard);
            let records = [Record { uid, login: 0, namespace: 0, op: Op::ADD, device_class: 0 }];
            let records = (&records).into();
            let snapshot = Snapshot { first: true, last: true, version: 1, records };
            site.bytes(shard, &encode(&Frame::Snapshot(snapshot)));
        }
        site.link(0, Role::PRODUCER);
        assert!(site.mail.is_empty());
        site
    }

    fn link(&mut self, shard: u16, role: Role) {
        self.input(shard, Input::Accepted { link: LINK, peer: None });
        self.bytes(shard, &hello_offering(role, u64::from(shard) + 1, b"", 0));
    }

    fn bytes(&mut self, shard: u16, bytes: &[u8]) {
        let mut data = self.reads.remove(&shard).expect("it is read");
        data.extend_from_slice(bytes);
        self.input(shard, Input::Bytes { link: LINK, data });
    }

    fn input(&mut self, at: u16, input: Input) {
        let shard = &mut self.shards[usize::from(at)];
        shard.handle(Duration::ZERO, input);
        shard.flush(Duration::ZERO);
        let mut wrote = Vec::new();
        while let Some(output) = shard.output() {
            match output {
                Output::Read { buffer, .. } => drop(self.reads.insert(at, buffer)),
                Output::Write { link, data, pieces } => {
                    let all = joined(data.clone(), &pieces);
                    self.written.entry(at).or_default().extend(sequences(&all));
                    wrote.push(Input::Wrote { link, data });
                }
                Output::Mail { to, mail } => self.mail.push((to, mail)),
                _ => {}
            }
        }
        wrote.into_iter().for_each(|wrote| self.input(at, wrote));
    }

    /// Hands the mail over; for each piece its shard and how many frames it had.
    fn deliver(&mut self) -> Vec<(u16, usize)> {
        let all = std::mem::take(&mut self.mail);
        let frames = |mail: &Mail| match mail {
            Mail::Parcel(parcel) => parcel.frames(),
            other => panic!("{other:?}"),
        };
        let told = all.iter().map(|(to, mail)| (*to, frames(mail))).collect();
        all.into_iter().for_each(|(to, mail)| self.input(to, Input::Mail(mail)));
        told
    }
}

fn sequences(mut rest: &[u8]) -> Vec<u64> {
    let (mut deframer, mut sequences) = (Deframer::new(), Vec::new());
    while let Some(raw) = deframer.whole(rest) {
        if let Ok(Frame::Deliver(message)) = raw.decode() {
            sequences.push(message.sequence);
        }
        rest = &rest[raw.bytes().len()..];
    }
    sequences
}

/// To these users in turn.
fn messages(sequences: std::ops::RangeInclusive<u64>, uids: &[u64], bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (sequence, uid) in sequences.zip(uids.iter().cycle()) {
        let head = MessageHead { sequence, ..MessageHead::default() };
        head.encode_publish(&[*uid][..], &vec![b'x'; bytes], &mut out).expect("a valid PUBLISH");
    }
    out
}

#[test]
fn promise_2_what_one_read_brings_for_a_shard_is_one_mail_in_its_order() {
    let mut site = Site::new();
    site.bytes(0, &messages(1..=40, &[1, 2], 100));
    assert_eq!(site.deliver(), [(1, 20), (2, 20)]);
    assert!(site.written[&1].iter().copied().eq((1..=39).step_by(2)));
    assert!(site.written[&2].iter().copied().eq((2..=40).step_by(2)));
    assert_eq!(site.shared.pools.waiting.used(), 0, "what travelled is charged to nobody any more");
}

#[test]
fn promise_7_a_parcel_ends_at_its_size() {
    let mut site = Site::new();
    let bytes = PARCEL_BYTES / 4;
    site.bytes(0, &messages(1..=9, &[1], bytes));
    assert!(site.shared.pools.waiting.used() >= 9 * bytes, "it is charged on its way");
    assert_eq!(site.deliver(), [(1, 4), (1, 4), (1, 1)]);
    assert!(site.written[&1].iter().copied().eq(1..=9));
}

#[test]
fn promise_5_what_finds_no_room_there_is_counted_and_sends_no_mail() {
    let mut site = Site::new();
    // The other shard does not take its mail, so what is reserved stays.
    let bytes = 1 << 19;
    let fits = site.shared.config.outbox_bytes_max as u64 / bytes as u64;
    for sequence in 1..=fits + 2 {
        site.bytes(0, &messages(sequence..=sequence, &[1], bytes));
    }
    let ledger = waybill_broker::Ledger::of([site.shards[0].counters().as_ref()]);
    let refused = ledger.gateways.dropped_outbox_full;
    assert!(refused > 0, "{ledger:?}");
    assert_eq!(site.mail.len() as u64 + refused, fits + 2);
}

#[test]
fn promise_5_what_a_shard_that_has_ended_is_sent_is_counted() {
    let mut site = Site::new();
    site.bytes(0, &messages(1..=6, &[1], 100));
    let all = std::mem::take(&mut site.mail);
    all.iter().for_each(|(_, mail)| site.shards[0].undeliverable(mail));
    let ledger = waybill_broker::Ledger::of([site.shards[0].counters().as_ref()]);
    assert_eq!((ledger.gateways.dropped_no_link, ledger.gateways.between_shards), (6, 0));
    assert_eq!(site.shared.pools.waiting.used(), 0);
}
