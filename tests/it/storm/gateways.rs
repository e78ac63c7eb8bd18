//! What gateways do in a storm: come, declare, link again in the middle of it, ask, go.

use std::collections::{BTreeSet, VecDeque};

use rand::RngExt as _;
use waybill_wire::Frame;
use waybill_wire::code::{Op, Role};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Barrier, Delta, Record, Snapshot};
use waybill_wire::message::{MessageHead, Sender};

use super::{TOKENS, USERS, World};
use crate::support::Line;
use crate::talk::encode;

/// One link of a gateway, as it sees itself.
pub(super) struct Gateway {
    pub(super) line: Line,
    token: usize,
    incarnation: u64,
    // Frames of its snapshot that are not sent yet.
    filling: VecDeque<Vec<u8>>,
    version: u64,
    declared: BTreeSet<Registered>,
}

impl World {
    pub(super) fn gateway_comes(&mut self) {
        if self.gateways.len() < 5 {
            self.incarnations += 1;
            let token = self.some_token();
            self.gateway_links(self.incarnations, token);
        }
    }

    /// The same life again, whatever the older link is at.
    pub(super) fn gateway_links_again(&mut self) {
        if !self.gateways.is_empty() && self.gateways.len() < 8 {
            let at = self.below(self.gateways.len());
            let Gateway { incarnation, token, .. } = self.gateways[at];
            self.gateway_links(incarnation, token);
        }
    }

    fn gateway_links(&mut self, incarnation: u64, token: usize) {
        let line = self.connect(Role::GATEWAY, incarnation, token);
        self.oracle.greets(line, incarnation, TOKENS[token].1);
        let mut declared = BTreeSet::new();
        let mut frames = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let records: Vec<Record> =
                (0..self.below(6)).map(|_| self.record(token, Op::ADD)).collect();
            declared.extend(records.iter().map(registered));
            frames.push(records);
        }
        let count = frames.len();
        let snapshot = |(at, records): (usize, &Vec<Record>)| {
            let records = records.into();
            let (first, last) = (at == 0, at + 1 == count);
            encode(&Frame::Snapshot(Snapshot { first, last, version: 1, records }))
        };
        let filling = frames.iter().enumerate().map(snapshot).collect();
        self.gateways.push(Gateway { line, token, incarnation, filling, version: 1, declared });
        if self.one_in(2) {
            self.fill(self.gateways.len() - 1, count);
        }
    }

    fn record(&mut self, token: usize, op: Op) -> Record {
        let allowed = TOKENS[token].1;
        let namespace = allowed[self.below(allowed.len())];
        let uid = self.random.random_range(0..USERS);
        Record { uid, login: self.random.random_range(0..2), namespace, op, device_class: 0 }
    }

    fn fill(&mut self, at: usize, frames: usize) {
        let gateway = &mut self.gateways[at];
        for _ in 0..frames {
            let Some(frame) = gateway.filling.pop_front() else { return };
            if gateway.filling.is_empty() {
                let users = gateway.declared.iter().map(|it| (it.namespace, it.uid)).collect();
                self.oracle.completes(gateway.line, &users, gateway.digest());
            }
            self.net.send(gateway.line, &frame);
        }
    }

    pub(super) fn snapshots_go_on(&mut self) {
        for at in 0..self.gateways.len() {
            self.fill(at, 1);
        }
    }

    pub(super) fn gateway_goes(&mut self) {
        if !self.gateways.is_empty() {
            let at = self.below(self.gateways.len());
            let line = self.gateways.remove(at).line;
            self.goes(line);
        }
    }

    pub(super) fn gateway_changes(&mut self) {
        let at = self.below(self.gateways.len().max(1));
        let Some(token) = self.gateways.get(at).filter(|it| it.filling.is_empty()) else { return };
        let token = token.token;
        let op = if self.one_in(2) { Op::ADD } else { Op::REMOVE };
        let records: Vec<Record> =
            (0..self.random.random_range(1..5)).map(|_| self.record(token, op)).collect();
        let barrier = !self.one_in(3);
        let gateway = &mut self.gateways[at];
        gateway.version += 1;
        for record in &records {
            let user = (record.namespace, record.uid);
            let was = gateway.has(user);
            if op == Op::ADD {
                gateway.declared.insert(registered(record));
            } else {
                gateway.declared.remove(&registered(record));
            }
            let is = gateway.has(user);
            if was != is {
                self.oracle.changes(gateway.line, gateway.version, user, is);
            }
        }
        let version = gateway.version;
        let delta = Delta { version, records: (&records).into() };
        self.net.send(gateway.line, &encode(&Frame::Delta(delta)));
        if barrier {
            let digest = gateway.digest();
            self.oracle.asks_barrier(gateway.line, version, digest);
            self.net.send(gateway.line, &encode(&Frame::Barrier(Barrier { version, digest })));
        }
    }

    pub(super) fn uplinks(&mut self) {
        if self.gateways.is_empty() {
            return;
        }
        let at = self.below(self.gateways.len());
        let Gateway { line, token, incarnation, .. } = self.gateways[at];
        let mut out = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let sequence = self.next_sequence(incarnation);
            let (namespace, uid) = (self.some_namespace(token), self.random.random_range(0..USERS));
            let payload = [incarnation.to_le_bytes(), sequence.to_le_bytes()].concat();
            self.oracle.asks(line, sequence, (namespace, uid), &payload);
            let sender = Some(Sender { uid, connection: 1 });
            let head = MessageHead { sequence, namespace, sender, ..MessageHead::default() };
            head.encode_uplink(&payload, &mut out).unwrap();
        }
        self.net.send(line, &out);
    }
}

impl Gateway {
    fn has(&self, user: (u32, u64)) -> bool {
        self.declared.iter().any(|it| (it.namespace, it.uid) == user)
    }

    fn digest(&self) -> u64 {
        self.declared.iter().copied().collect::<Digest>().value()
    }
}

fn registered(record: &Record) -> Registered {
    let Record { uid, login, namespace, device_class, .. } = *record;
    Registered { namespace, uid, device_class, login }
}
