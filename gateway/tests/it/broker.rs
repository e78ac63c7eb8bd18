//! A broker that does what a test says: it keeps what gateways register and declare, confirms it
//! unless held, and sends the frames it is told to. It agrees on tags with a gateway that offers
//! them. It knows the wire, and no routing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use waybill_wire::code::{BrokerState, ErrorCode, Kind, Op, capability};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{
    Displaced, ErrorFrame, InEffect, Records, Report, Tag, TagChange, TagDelta, UplinkAck, Welcome,
};
use waybill_wire::limits::PAYLOAD_BYTES_MAX;
use waybill_wire::{Frame, MessageHead};

/// A user's message as it came.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) sequence: u64,
    pub(crate) resend: bool,
    pub(crate) uid: u64,
    pub(crate) namespace: u32,
    pub(crate) connection: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) payload: Vec<u8>,
}

enum Order {
    Send(Vec<u8>),
    Hold(bool),
    /// Ends the link; the next one is accepted once this is followed by `Accept`.
    Hang,
    Accept,
    /// From now on a link whose gateway says no more stays until `Hang`.
    Linger(oneshot::Sender<()>),
}

pub(crate) struct FakeBroker {
    pub(crate) address: SocketAddr,
    orders: mpsc::Sender<Order>,
    pub(crate) uplinks: mpsc::Receiver<Uplink>,
    /// What was reported: sequence, reached, offline, dropped, unknown, filtered.
    pub(crate) reports: mpsc::Receiver<(u64, [u32; 5])>,
    registered: watch::Receiver<BTreeSet<Registered>>,
    tags: watch::Receiver<BTreeSet<(u32, String)>>,
    drained: watch::Receiver<bool>,
}

impl FakeBroker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, inbox) = mpsc::channel(16);
        let (outlet, uplinks) = mpsc::channel(64);
        let (set, registered) = watch::channel(BTreeSet::new());
        let (tag_set, tags) = watch::channel(BTreeSet::new());
        let (reported, reports) = mpsc::channel(64);
        let (draining, drained) = watch::channel(false);
        let life = Life {
            inbox,
            outlet,
            reported,
            draining,
            set,
            tag_set,
            incarnation: 0,
            held: false,
            unconfirmed: Vec::new(),
        };
        tokio::spawn(life.run(listener));
        Self { address, orders, uplinks, reports, registered, tags, drained }
    }

    /// Sends a DELIVER; `head` wants a sequence, its origin is 0x77 unless given.
    pub(crate) async fn deliver(&self, head: MessageHead<'_>, targets: &[u64], payload: &[u8]) {
        let head = MessageHead { origin: head.origin.or(Some(0x77)), ..head };
        let mut frame = Vec::new();
        head.encode(Kind::DELIVER, targets, payload, &mut frame).unwrap();
        self.order(Order::Send(frame)).await;
    }

    /// Sends DELIVERs in one write, for `target`, with sequences from 1.
    pub(crate) async fn burst(&self, target: u64, payloads: &[&[u8]]) {
        let mut frames = Vec::new();
        for (sequence, payload) in (1..).zip(payloads) {
            let head = MessageHead { sequence, origin: Some(0x77), ..MessageHead::default() };
            head.encode(Kind::DELIVER, &[target], payload, &mut frames).unwrap();
        }
        self.order(Order::Send(frames)).await;
    }

    /// Sends a TAG in namespace 0, and as producer 0x77.
    pub(crate) async fn tag(&self, sequence: u64, uids: &[u64], changes: &[(Op, &str)]) {
        let changes: Vec<_> = changes.iter().map(|&(op, tag)| TagChange { op, tag }).collect();
        let (uids, changes) = (uids.into(), changes.as_slice().into());
        let mut frame = Vec::new();
        let tag = Tag { namespace: 0, sequence, origin: 0x77, uids, changes };
        tag.encode(&mut frame).unwrap();
        self.order(Order::Send(frame)).await;
    }

    /// Waits until the declared tags are these.
    pub(crate) async fn until_tags(&mut self, tags: &[(u32, &str)]) {
        let tags = tags.iter().map(|(namespace, tag)| (*namespace, String::from(*tag))).collect();
        self.tags.wait_for(|set| *set == tags).await.unwrap();
    }

    pub(crate) async fn displace(&self, displaced: Displaced) {
        let mut frame = Vec::new();
        displaced.encode(&mut frame);
        self.order(Order::Send(frame)).await;
    }

    pub(crate) async fn acknowledge(&self, sequence: u64, code: ErrorCode) {
        let mut frame = Vec::new();
        UplinkAck { code, sequence, origin: 0 }.encode(&mut frame);
        self.order(Order::Send(frame)).await;
    }

    /// While held, nothing is confirmed.
    pub(crate) async fn hold(&self, held: bool) {
        self.order(Order::Hold(held)).await;
    }

    /// Ends the link as one that a newer link of the same gateway has taken over from.
    pub(crate) async fn supersede(&self) {
        let mut frame = Vec::new();
        let code = ErrorCode::SUPERSEDED;
        ErrorFrame {
            fatal: true,
            code,
            ref_kind: Kind(0),
            reference: 0,
            retry_after_ms: 0,
            detail: "",
        }
        .encode(&mut frame);
        self.order(Order::Send(frame)).await;
        self.order(Order::Hang).await;
    }

    /// A gateway that leaves is not let go before [`hang_up`](Self::hang_up).
    pub(crate) async fn linger(&self) {
        // Known to be taken: what the gateway does next must not overtake it.
        let (taken, wait) = oneshot::channel();
        self.order(Order::Linger(taken)).await;
        wait.await.unwrap();
    }

    pub(crate) async fn hang_up(&self) {
        self.order(Order::Hang).await;
    }

    pub(crate) async fn accept_again(&self) {
        self.order(Order::Accept).await;
    }

    /// Waits until the registered users are such.
    pub(crate) async fn until(&mut self, is_so: impl Fn(&BTreeSet<(u32, u64)>) -> bool) {
        let users = |set: &BTreeSet<Registered>| set.iter().map(|r| (r.namespace, r.uid)).collect();
        self.registered.wait_for(|set| is_so(&users(set))).await.unwrap();
    }

    /// Waits until a gateway has said that it leaves.
    pub(crate) async fn left(&mut self) {
        self.drained.wait_for(|drained| *drained).await.unwrap();
    }

    async fn order(&self, order: Order) {
        assert!(self.orders.send(order).await.is_ok(), "the fake broker has ended");
    }
}

struct Life {
    inbox: mpsc::Receiver<Order>,
    outlet: mpsc::Sender<Uplink>,
    reported: mpsc::Sender<(u64, [u32; 5])>,
    draining: watch::Sender<bool>,
    set: watch::Sender<BTreeSet<Registered>>,
    tag_set: watch::Sender<BTreeSet<(u32, String)>>,
    incarnation: u64,
    held: bool,
    /// Confirmations held back, in order.
    unconfirmed: Vec<InEffect>,
}

impl Life {
    async fn run(mut self, listener: TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            if self.serve(socket).await.is_none() {
                // Hung up by order: wait for the order to accept again.
                self.set.send_replace(BTreeSet::new());
                self.tag_set.send_replace(BTreeSet::new());
                while let Some(order) = self.inbox.recv().await {
                    match order {
                        Order::Accept => break,
                        Order::Hold(held) => self.held = held,
                        Order::Send(_) | Order::Hang | Order::Linger(_) => {}
                    }
                }
            }
        }
    }

    /// One link; `None` if it was hung up by order.
    async fn serve(&mut self, socket: TcpStream) -> Option<()> {
        let (mut reader, mut writer) = socket.into_split();
        let (frames, mut inbound) = mpsc::channel::<Vec<u8>>(64);
        tokio::spawn(async move {
            while let Some(frame) = read_frame(&mut reader).await {
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
        });
        let (mut lingers, mut is_over) = (false, false);
        loop {
            let mut out = Vec::new();
            tokio::select! {
                frame = inbound.recv(), if !is_over => match frame {
                    Some(frame) => self.handle(&frame, &mut out).await,
                    None if lingers => is_over = true,
                    None => return Some(()),
                },
                order = self.inbox.recv() => match order? {
                    Order::Send(frame) => out = frame,
                    Order::Hold(held) => {
                        self.held = held;
                        if !held {
                            self.unconfirmed.drain(..).for_each(|due| due.encode(&mut out));
                        }
                    }
                    Order::Hang => {
                        // Closed with bytes unread the socket would take back what it sent.
                        while lingers && !is_over && inbound.recv().await.is_some() {}
                        return None;
                    }
                    Order::Linger(taken) => {
                        lingers = true;
                        let _gone = taken.send(());
                    }
                    Order::Accept => {}
                },
            }
            writer.write_all(&out).await.ok()?;
        }
    }

    async fn handle(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match Frame::decode(bytes).unwrap() {
            Frame::Hello(hello) => {
                self.incarnation = hello.instance;
                self.set.send_replace(BTreeSet::new());
                self.tag_set.send_replace(BTreeSet::new());
                self.unconfirmed.clear();
                let welcome = Welcome {
                    state: BrokerState::READY,
                    version: 1,
                    session: 1,
                    broker: 1,
                    shards: 1,
                    capabilities: hello.capabilities & (capability::REPORTS | capability::TAGS),
                    payload_max: u32::try_from(PAYLOAD_BYTES_MAX).unwrap(),
                    ..Welcome::default()
                };
                welcome.encode(out);
            }
            Frame::Snapshot(snapshot) => {
                self.apply(snapshot.records);
                if snapshot.last {
                    self.confirm(snapshot.version, out);
                }
            }
            Frame::Delta(delta) => self.apply(delta.records),
            Frame::TagDelta(delta) => self.apply_tags(&delta),
            Frame::Barrier(barrier) => {
                assert_eq!(barrier.digest, self.digest());
                self.confirm(barrier.version, out);
            }
            Frame::Uplink(message) => {
                let sender = message.sender.unwrap();
                let uplink = Uplink {
                    sequence: message.sequence,
                    resend: message.resend,
                    uid: sender.uid,
                    namespace: message.namespace,
                    connection: sender.connection,
                    labels: message.labels.iter().map(str::to_owned).collect(),
                    payload: message.payload.to_vec(),
                };
                self.outlet.send(uplink).await.unwrap();
            }
            Frame::Report(report) => {
                let Report { reached, offline, dropped, unknown, filtered, .. } = report;
                let counts = [reached, offline, dropped, unknown, filtered];
                self.reported.send((report.sequence, counts)).await.unwrap();
            }
            Frame::Drain(_) => {
                self.draining.send_replace(true);
            }
            Frame::Ping(_) | Frame::Pong(_) => {}
            other => panic!("a gateway sent {other:?}"),
        }
    }

    fn apply(&mut self, records: Records<'_>) {
        self.set.send_modify(|set| {
            for record in records.iter() {
                let registered = Registered {
                    namespace: record.namespace,
                    uid: record.uid,
                    device_class: record.device_class,
                    login: record.login,
                };
                match record.op {
                    Op::ADD => assert!(set.insert(registered), "added twice: {registered:?}"),
                    _ => assert!(set.remove(&registered), "not there: {registered:?}"),
                }
            }
        });
    }

    fn apply_tags(&mut self, delta: &TagDelta<'_>) {
        self.tag_set.send_modify(|set| {
            for record in delta.tag_records {
                let tag = (record.namespace, String::from(record.tag));
                match record.op {
                    Op::ADD => assert!(set.insert(tag), "added twice: {record:?}"),
                    _ => assert!(set.remove(&tag), "not there: {record:?}"),
                }
            }
        });
    }

    fn confirm(&mut self, version: u64, out: &mut Vec<u8>) {
        let due = InEffect { version, digest: self.digest() };
        if self.held {
            self.unconfirmed.push(due);
        } else {
            due.encode(out);
        }
    }

    fn digest(&self) -> u64 {
        let mut digest: Digest = self.set.borrow().iter().copied().collect();
        for (namespace, tag) in self.tag_set.borrow().iter() {
            digest.add_tag(*namespace, tag);
        }
        digest.value()
    }
}

async fn read_frame(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut frame = vec![0; 8];
    reader.read_exact(&mut frame).await.ok()?;
    let header_bytes = usize::from(u16::from_le_bytes([frame[2], frame[3]])) * 8;
    let payload_len = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
    frame.resize(header_bytes + usize::try_from(payload_len).unwrap(), 0);
    reader.read_exact(&mut frame[8..]).await.ok()?;
    Some(frame)
}
