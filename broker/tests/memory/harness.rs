//! Shards without a backend: every buffer that a brain has asked for is held here, as by a peer
//! that has sent and not read, and nothing else is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_broker::Ledger;
use waybill_broker::io::{Input, LinkId, Output, Piece};
use waybill_broker::mail::Mail;
use waybill_broker::shard::Shard;
use waybill_broker::shared::Shared;
use waybill_wire::Frame;
use waybill_wire::code::{Kind, Op, Role};
use waybill_wire::frame::{Hello, Record, Snapshot};
use waybill_wire::message::MessageHead;

/// A peer's end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peer {
    shard: usize,
    link: u64,
}

/// See the module.
pub(crate) struct Brains {
    shards: Vec<Shard>,
    pub(crate) shared: Arc<Shared>,
    reads: BTreeMap<Peer, Vec<u8>>,
    // Of peers that read nothing: the others' writes are done at once.
    writes: BTreeMap<Peer, (Vec<u8>, Vec<Piece>)>,
    frozen: Vec<Peer>,
    mail: Vec<(u16, Mail)>,
    // Mail stays where it is.
    pub(crate) holds_mail: bool,
    now: Duration,
    links: u64,
    sequence: u64,
    // What the test itself needs: one frame at a time.
    frame: Vec<u8>,
}

impl Brains {
    pub(crate) fn new(config: BrokerConfig) -> Self {
        let shards = config.shards;
        let shared = Arc::new(Shared::new(config, 1, 1));
        Self {
            shards: (0..shards).map(|id| Shard::new(id, Arc::clone(&shared))).collect(),
            shared,
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            frozen: Vec::new(),
            mail: Vec::new(),
            holds_mail: false,
            now: Duration::ZERO,
            links: 0,
            sequence: 0,
            frame: Vec::new(),
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::of(self.shards.iter().map(|shard| shard.counters().as_ref()))
    }

    /// Bytes of memory that it takes itself.
    pub(crate) fn own_bytes(&self) -> usize {
        self.frame.capacity() + self.mail.capacity() * size_of::<(u16, Mail)>()
    }

    pub(crate) fn connect(&mut self, shard: usize) -> Peer {
        self.links += 1;
        let peer = Peer { shard, link: self.links };
        self.input(shard, Input::Accepted { link: LinkId(peer.link), peer: None });
        peer
    }

    /// A link with that role, and that instance number or incarnation.
    pub(crate) fn link(
        &mut self,
        shard: usize,
        role: Role,
        instance: u64,
        capabilities: u64,
    ) -> Peer {
        let peer = self.connect(shard);
        let hello = Hello {
            role,
            version_min: 1,
            version_max: 1,
            instance,
            wanted_shard: Hello::ANY_SHARD,
            capabilities,
            ..Hello::default()
        };
        assert!(self.say(peer, &Frame::Hello(hello)), "HELLO is read");
        peer
    }

    /// A gateway with these users, that has stopped reading.
    pub(crate) fn frozen_gateway(
        &mut self,
        shard: usize,
        instance: u64,
        capabilities: u64,
        uids: &[u64],
    ) -> Peer {
        let peer = self.gateway(shard, instance, capabilities, uids);
        self.frozen.push(peer);
        peer
    }

    /// A gateway with these users, that reads and says nothing more.
    pub(crate) fn gateway(
        &mut self,
        shard: usize,
        instance: u64,
        capabilities: u64,
        uids: &[u64],
    ) -> Peer {
        let peer = self.link(shard, Role::GATEWAY, instance, capabilities);
        let record = |&uid: &u64| Record { uid, op: Op::ADD, ..Record::default() };
        let records: Vec<Record> = uids.iter().map(record).collect();
        let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
        assert!(self.say(peer, &Frame::Snapshot(snapshot)));
        peer
    }

    /// The peer reads nothing any more.
    pub(crate) fn freeze(&mut self, peer: Peer) {
        self.frozen.push(peer);
    }

    /// Whether all of the frame was read.
    pub(crate) fn say(&mut self, peer: Peer, frame: &Frame<'_>) -> bool {
        let mut out = std::mem::take(&mut self.frame);
        out.clear();
        frame.encode(&mut out).expect("a valid frame");
        let read = self.send(peer, &out);
        self.frame = out;
        read
    }

    /// The same of a PUBLISH, or of an UPLINK, with the next number.
    pub(crate) fn tell(
        &mut self,
        peer: Peer,
        kind: Kind,
        head: MessageHead<'_>,
        uids: &[u64],
        payload: &[u8],
    ) -> bool {
        self.sequence += 1;
        let head = MessageHead { sequence: self.sequence, ..head };
        let mut out = std::mem::take(&mut self.frame);
        out.clear();
        let encoded = match kind {
            Kind::UPLINK => head.encode_uplink(payload, &mut out),
            _ => head.encode_publish(uids, payload, &mut out),
        };
        encoded.expect("a valid message");
        let read = self.send(peer, &out);
        self.frame = out;
        read
    }

    /// Gives the broker bytes, as long as it reads them; whether it read all.
    pub(crate) fn send(&mut self, peer: Peer, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(mut data) = self.reads.remove(&peer) else { return false };
            let some = bytes.len().min(data.capacity());
            data.extend_from_slice(&bytes[..some]);
            bytes = &bytes[some..];
            self.input(peer.shard, Input::Bytes { link: LinkId(peer.link), data });
            self.settle();
        }
        true
    }

    /// Lets time pass, tick by tick.
    pub(crate) fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now += Duration::from_millis(100);
            for shard in 0..self.shards.len() {
                self.input(shard, Input::Tick);
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        for shard in 0..self.shards.len() {
            // Whoever waits for something that another shard holds waits on.
            for _ in 0..1000 {
                if !self.shards[shard].has_more() {
                    break;
                }
                self.shards[shard].go_on(self.now);
                self.carry_out(shard);
            }
        }
        while !self.holds_mail && !self.mail.is_empty() {
            for (to, mail) in std::mem::take(&mut self.mail) {
                self.input(to.into(), Input::Mail(mail));
            }
        }
    }

    fn input(&mut self, shard: usize, input: Input) {
        self.shards[shard].handle(self.now, input);
        self.carry_out(shard);
    }

    fn carry_out(&mut self, shard: usize) {
        self.shards[shard].flush(self.now);
        while let Some(output) = self.shards[shard].output() {
            let peer = |link: LinkId| Peer { shard, link: link.0 };
            match output {
                Output::Read { link, buffer } => drop(self.reads.insert(peer(link), buffer)),
                Output::Write { link, data, pieces } if self.frozen.contains(&peer(link)) => {
                    self.writes.insert(peer(link), (data, pieces));
                }
                Output::Write { link, data, .. } => {
                    self.shards[shard].handle(self.now, Input::Wrote { link, data });
                    self.shards[shard].flush(self.now);
                }
                Output::Close { link } => {
                    self.reads.remove(&peer(link));
                    self.writes.remove(&peer(link));
                }
                Output::Mail { to, mail } => self.mail.push((to, mail)),
                Output::Shutdown { .. } | Output::Drained => {}
                Output::HandOver { .. } => unreachable!("no HELLO wants a shard"),
            }
        }
    }
}
