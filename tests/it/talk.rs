//! What producers, gateways and consumers say, frame by frame, over a [`Net`] link.

use std::collections::BTreeSet;

use waybill_wire::code::{ErrorCode, Fate, Kind, Level, Op, Role};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Barrier, Delta, Frame, Hello, Ping, Record, Snapshot};
use waybill_wire::message::MessageHead;

use crate::support::{Line, Net};

pub(crate) fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out).expect("the test makes a valid frame");
    out
}

pub(crate) fn hello(role: Role, instance: u64) -> Vec<u8> {
    hello_with(role, instance, b"")
}

pub(crate) fn hello_with(role: Role, instance: u64, credential: &[u8]) -> Vec<u8> {
    hello_offering(role, instance, credential, 0)
}

pub(crate) fn hello_offering(
    role: Role,
    instance: u64,
    credential: &[u8],
    capabilities: u64,
) -> Vec<u8> {
    hello_to(role, instance, credential, 0, capabilities)
}

/// Asks to go on with a session.
pub(crate) fn hello_in_session(
    role: Role,
    instance: u64,
    session: u64,
    capabilities: u64,
) -> Vec<u8> {
    hello_to(role, instance, b"", session, capabilities)
}

fn hello_to(
    role: Role,
    instance: u64,
    credential: &[u8],
    session: u64,
    capabilities: u64,
) -> Vec<u8> {
    encode(&Frame::Hello(Hello {
        session,
        capabilities,
        credential,
        ..plain_hello(role, instance)
    }))
}

/// A HELLO that wants nothing in particular.
pub(crate) fn plain_hello(role: Role, instance: u64) -> Hello<'static> {
    let wanted_shard = Hello::ANY_SHARD;
    Hello { role, version_min: 1, version_max: 1, instance, wanted_shard, ..Hello::default() }
}

/// A HELLO that wants a shard.
pub(crate) fn hello_for(role: Role, instance: u64, wanted_shard: u16) -> Hello<'static> {
    Hello { wanted_shard, ..plain_hello(role, instance) }
}

pub(crate) fn link(net: &mut Net, role: Role, instance: u64) -> Line {
    link_offering(net, role, instance, 0)
}

pub(crate) fn link_offering(net: &mut Net, role: Role, instance: u64, capabilities: u64) -> Line {
    let line = net.connect();
    net.send(line, &hello_offering(role, instance, b"", capabilities));
    let welcome = net.frame(line).expect("WELCOME");
    let Ok(Frame::Welcome(welcome)) = Frame::decode(&welcome) else { panic!("{welcome:02x?}") };
    assert_eq!(welcome.capabilities, capabilities, "the broker runs what the test offers");
    line
}

/// The next frame says that what was declared is in effect.
pub(crate) fn in_effect(net: &mut Net, line: Line, version: u64, digest: u64) {
    let frame = net.frame(line).expect("IN_EFFECT");
    match Frame::decode(&frame) {
        Ok(Frame::InEffect(it)) => assert_eq!((it.version, it.digest), (version, digest)),
        other => panic!("no IN_EFFECT: {other:?}"),
    }
}

/// Everything sent before on this link has been handled when this returns, and nothing came.
pub(crate) fn fence(net: &mut Net, line: Line) {
    net.send(line, &encode(&Frame::Ping(Ping { token: 7 })));
    let frame = net.frame(line).expect("PONG");
    assert!(matches!(Frame::decode(&frame), Ok(Frame::Pong(_))), "{:?}", Frame::decode(&frame));
}

/// The link is told why, and ends.
pub(crate) fn ends_with(net: &mut Net, line: Line, code: ErrorCode) {
    let frame = net.frame(line).expect("an ERROR");
    match Frame::decode(&frame) {
        Ok(Frame::Error(error)) => assert_eq!((error.code, error.fatal), (code, true), "{error:?}"),
        other => panic!("{code:?} was expected and came {other:?}"),
    }
    assert_eq!(net.frame(line), None);
}

/// A receipt, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) sequence: u64,
    pub(crate) code: ErrorCode,
    pub(crate) sent: u32,
    pub(crate) gateways: u32,
    pub(crate) unknown: u32,
    pub(crate) offline: Vec<u64>,
    pub(crate) filtered: Vec<u64>,
    pub(crate) dropped: Vec<u64>,
}

pub(crate) struct Producer {
    pub(crate) line: Line,
    pub(crate) sequence: u64,
}

impl Producer {
    pub(crate) fn link(net: &mut Net, instance: u64) -> Self {
        Self { line: link(net, Role::PRODUCER, instance), sequence: 0 }
    }

    pub(crate) fn publish(&mut self, net: &mut Net, uids: &[u64], payload: &[u8]) -> Receipt {
        self.publish_with(net, MessageHead::default(), uids, payload)
    }

    pub(crate) fn publish_with(
        &mut self,
        net: &mut Net,
        head: MessageHead<'_>,
        uids: &[u64],
        payload: &[u8],
    ) -> Receipt {
        self.send_with(net, MessageHead { level: Level::ROUTED, ..head }, uids, payload);
        self.receipt(net)
    }

    pub(crate) fn send_with(
        &mut self,
        net: &mut Net,
        head: MessageHead<'_>,
        uids: &[u64],
        payload: &[u8],
    ) {
        self.sequence += 1;
        let head = MessageHead { sequence: self.sequence, ..head };
        let mut out = Vec::new();
        head.encode_publish(uids, payload, &mut out).expect("the test makes a valid PUBLISH");
        net.send(self.line, &out);
    }

    /// The next receipt.
    pub(crate) fn receipt(&mut self, net: &mut Net) -> Receipt {
        let frame = net.frame(self.line).expect("a receipt");
        match Frame::decode(&frame) {
            Ok(Frame::Receipt(receipt)) => Receipt::of(&receipt),
            _ => panic!("no receipt: {frame:02x?}"),
        }
    }
}

impl Receipt {
    pub(crate) fn of(receipt: &waybill_wire::frame::Receipt<'_>) -> Self {
        let of = |fate: Fate| -> Vec<u64> {
            let sets = receipt.fate_sets.iter().filter(|set| set.fate == fate);
            sets.flat_map(|set| set.uids.iter().collect::<Vec<_>>()).collect()
        };
        Self {
            sequence: receipt.sequence,
            code: receipt.code,
            sent: receipt.sent,
            gateways: receipt.gateways,
            unknown: receipt.unknown,
            offline: of(Fate::OFFLINE),
            filtered: of(Fate::FILTERED),
            dropped: of(Fate::DROPPED),
        }
    }
}

pub(crate) struct Gateway {
    pub(crate) line: Line,
    version: u64,
    declared: BTreeSet<Registered>,
}

/// A DELIVER, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) namespace: u32,
    pub(crate) targets: Vec<u64>,
    pub(crate) except: Vec<u64>,
    pub(crate) everyone: bool,
    pub(crate) origin: Option<u64>,
    pub(crate) sequence: u64,
    pub(crate) payload: Vec<u8>,
}

impl Gateway {
    /// Links and ends its snapshot with these users of namespace 0.
    pub(crate) fn link(net: &mut Net, incarnation: u64, uids: &[u64]) -> Self {
        let users: Vec<_> = uids.iter().map(|&uid| (0, uid)).collect();
        Self::link_with(net, incarnation, &users)
    }

    pub(crate) fn link_with(net: &mut Net, incarnation: u64, users: &[(u32, u64)]) -> Self {
        let line = link(net, Role::GATEWAY, incarnation);
        let mut gateway = Self { line, version: 1, declared: BTreeSet::new() };
        let records = gateway.records(Op::ADD, users);
        let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
        net.send(line, &encode(&Frame::Snapshot(snapshot)));
        gateway.in_effect(net);
        gateway
    }

    fn records(&mut self, op: Op, users: &[(u32, u64)]) -> Vec<Record> {
        let record = |&(namespace, uid): &(u32, u64)| {
            let registered = Registered { namespace, uid, device_class: 0, login: 0 };
            if op == Op::ADD {
                self.declared.insert(registered);
            } else {
                self.declared.remove(&registered);
            }
            Record { uid, login: 0, namespace, op, device_class: 0 }
        };
        users.iter().map(record).collect()
    }

    fn digest(&self) -> u64 {
        self.declared.iter().copied().collect::<Digest>().value()
    }

    /// Adds or removes users of namespace 0 and waits until that is in effect.
    pub(crate) fn change(&mut self, net: &mut Net, op: Op, uids: &[u64]) {
        let users: Vec<_> = uids.iter().map(|&uid| (0, uid)).collect();
        let records = self.records(op, &users);
        self.version += 1;
        let delta = Delta { version: self.version, records: (&records).into() };
        net.send(self.line, &encode(&Frame::Delta(delta)));
        let barrier = Barrier { version: self.version, digest: self.digest() };
        net.send(self.line, &encode(&Frame::Barrier(barrier)));
        self.in_effect(net);
    }

    fn in_effect(&self, net: &mut Net) {
        in_effect(net, self.line, self.version, self.digest());
    }

    pub(crate) fn delivery(&self, net: &mut Net) -> Delivery {
        let frame = net.frame(self.line).expect("a DELIVER");
        let Ok(Frame::Deliver(message)) = Frame::decode(&frame) else {
            panic!("no DELIVER: {:?}", Kind(frame[1]))
        };
        Delivery {
            namespace: message.namespace,
            targets: message.targets.iter().collect(),
            except: message.except.iter().collect(),
            everyone: message.everyone,
            origin: message.origin,
            sequence: message.sequence,
            payload: message.payload.to_vec(),
        }
    }
}
