//! Waybill by its frames: a producer and gateways that have nothing but the codec, so that what is
//! measured is the broker.

use std::net::SocketAddr;

use waybill_wire::code::{BrokerState, ErrorCode, Level, Op, Role, capability};
use waybill_wire::frame::{ErrorFrame, Frame, Hello, Pong, Receipt, Record, Snapshot, Welcome};
use waybill_wire::limits::{DRAFT, PROLOGUE_BYTES, RECORDS_MAX};
use waybill_wire::prologue::Prologue;

use super::prepared::{self, Addressed, Heads};
use super::receipts::Answers;
use crate::driver::{Driver, Message};
use crate::failure::Failure;
use crate::io::{Io, Socket};
use crate::tally::{Tally, fault};
use crate::work::{WorkPlan, gateway_of, mix, uid_of};

/// A gateway appends more of its snapshot while it has fewer bytes than this to be written.
const SNAPSHOT_BYTES: usize = 256 << 10;

/// Version of the snapshot; there is no other.
const VERSION: u64 = 1;

/// One DELIVER in so many is read by the codec, which checks all of its header.
const CHECKED_EVERY: u64 = 64;

/// What the broker is asked to tell of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipts {
    None,
    Routed,
}

/// The links that gateways have to a broker of several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// One each, to the shards in turns.
    Control,
    /// To every shard: one of them for control, the others for data.
    Data,
}

#[derive(Debug)]
struct Gateway {
    socket: Socket,
    /// Data links that were opened and not welcomed yet.
    joining: usize,
    welcomed: bool,
    /// The user that its snapshot goes on with: `k`, beyond the last if it has all.
    next: u64,
    /// LAST is written.
    ended: bool,
    in_effect: bool,
}

/// The producer and the gateways.
#[derive(Debug)]
pub(super) struct Frames {
    plan: WorkPlan,
    address: SocketAddr,
    heads: Heads,
    /// What asked for receipts, if messages do.
    answers: Option<Answers>,
    links: Links,
    /// The gateway of each data link, whose sockets come behind the producer's.
    joined: Vec<usize>,
    /// DELIVERs so far.
    count: u64,
    gateways: Vec<Gateway>,
    producer: Option<Socket>,
    broker_ready: bool,
    stopped: bool,
    records: Vec<Record>,
}

impl Frames {
    pub(super) fn new(
        plan: WorkPlan,
        address: SocketAddr,
        receipts: Receipts,
        links: Links,
    ) -> Self {
        let (level, answers) = match receipts {
            Receipts::None => (Level::NONE, None),
            Receipts::Routed => (Level::ROUTED, Some(Answers::new(plan.gateways))),
        };
        Self {
            plan,
            address,
            heads: Heads::new(level, plan.payload_bytes),
            answers,
            links,
            joined: Vec::new(),
            count: 0,
            gateways: Vec::new(),
            producer: None,
            broker_ready: false,
            stopped: false,
            records: Vec::with_capacity(RECORDS_MAX),
        }
    }

    /// Everything but a DELIVER.
    #[cold]
    fn control(
        &mut self,
        socket: Socket,
        frame: &Frame<'_>,
        io: &mut Io,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let gateway = self.gateways.get_mut(socket.index());
        match frame {
            Frame::Welcome(welcome) => return self.welcomed(socket, welcome, io),
            Frame::State(state) if gateway.is_none() => {
                self.broker_ready = state.state == BrokerState::READY;
            }
            Frame::InEffect(_) => {
                if let Some(gateway) = gateway {
                    gateway.in_effect = true;
                }
            }
            Frame::Ping(ping) => Pong { token: ping.token }.encode(io.out(socket)),
            Frame::Error(error) => return refused(error, tally),
            _ => {}
        }
        Ok(())
    }

    fn welcomed(&mut self, socket: Socket, welcome: &Welcome, io: &mut Io) -> Result<(), Failure> {
        let index = socket.index();
        if index == self.plan.gateways {
            self.broker_ready = welcome.state == BrokerState::READY;
            return Ok(());
        }
        let owner = self.owner(socket);
        let gateway = &mut self.gateways[owner];
        if index > self.plan.gateways {
            gateway.joining -= 1;
            return Ok(());
        }
        gateway.welcomed = true;
        if self.links == Links::Control {
            return Ok(());
        }
        for shard in (0..welcome.shards).filter(|shard| *shard != welcome.shard) {
            let hello = Hello {
                data: true,
                session: welcome.session,
                wanted_shard: shard,
                ..hello(self.plan.seed, Role::GATEWAY, owner)
            };
            open(self.address, &hello, io)?;
            self.joined.push(owner);
            gateway.joining += 1;
        }
        Ok(())
    }

    /// The gateway that this socket is of.
    fn owner(&self, socket: Socket) -> usize {
        let index = socket.index();
        let data = index.checked_sub(self.plan.gateways + 1);
        data.map_or(index, |data| self.joined[data])
    }

    fn receipt(&mut self, receipt: &Receipt<'_>, tally: &mut Tally) {
        let number = receipt.sequence - 1;
        match &mut self.answers {
            Some(answers) => answers.received(receipt, tally),
            None if receipt.code == ErrorCode(0) => {
                let words = format_args!("a receipt of message {number}, which asked for none");
                tally.fault(fault::UNKNOWN, words);
            }
            None => {
                let words = format_args!("message {number}: {}", receipt.code);
                tally.fault(fault::REFUSED, words);
            }
        }
    }

    /// Appends the next frame of a gateway's snapshot.
    fn declare(
        gateway: &mut Gateway,
        plan: &WorkPlan,
        stopped: bool,
        records: &mut Vec<Record>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        records.clear();
        let step = plan.gateways as u64;
        let first = gateway.next < step;
        while !stopped && records.len() < RECORDS_MAX && gateway.next < plan.users {
            records.push(Record { uid: uid_of(gateway.next), op: Op::ADD, ..Record::default() });
            gateway.next += step;
        }
        let last = stopped || gateway.next >= plan.users;
        gateway.ended = last;
        let snapshot = Snapshot { first, last, version: VERSION, records: (&*records).into() };
        snapshot.encode(out).map_err(Failure::new)
    }
}

/// Opens a link to the broker and greets it; `index` tells the links of a run apart.
pub(crate) fn open_link(
    address: SocketAddr,
    seed: u64,
    (role, index): (Role, usize),
    io: &mut Io,
) -> Result<Socket, Failure> {
    open_link_offering(address, seed, (role, index), 0, io)
}

/// The same, offering these capabilities.
pub(crate) fn open_link_offering(
    address: SocketAddr,
    seed: u64,
    (role, index): (Role, usize),
    capabilities: u64,
    io: &mut Io,
) -> Result<Socket, Failure> {
    open(address, &Hello { capabilities, ..hello(seed, role, index) }, io)
}

fn hello(seed: u64, role: Role, index: usize) -> Hello<'static> {
    Hello {
        role,
        version_min: DRAFT.into(),
        version_max: DRAFT.into(),
        instance: mix(seed ^ mix(index as u64)) | 1,
        wanted_shard: Hello::ANY_SHARD,
        ..Hello::default()
    }
}

fn open(address: SocketAddr, hello: &Hello<'_>, io: &mut Io) -> Result<Socket, Failure> {
    let socket = io.open(address)?;
    hello.encode(io.out(socket)).map_err(Failure::new)?;
    Ok(socket)
}

/// An error that is not fatal is a fault, one that is ends the run.
fn refused(error: &ErrorFrame<'_>, tally: &mut Tally) -> Result<(), Failure> {
    let words = format!("the broker says {}: {}", error.code, error.detail);
    if error.fatal {
        return Err(Failure::new(words));
    }
    tally.fault(fault::REFUSED, words);
    Ok(())
}

impl Driver for Frames {
    fn connect(&mut self, io: &mut Io) -> Result<(), Failure> {
        for index in 0..self.plan.gateways {
            let capabilities = if self.links == Links::Data { capability::LINKS } else { 0 };
            let hello = Hello { capabilities, ..hello(self.plan.seed, Role::GATEWAY, index) };
            let socket = open(self.address, &hello, io)?;
            // The least `k` that lives there.
            let mut users = 0..self.plan.gateways as u64;
            let next = users.find(|k| gateway_of(uid_of(*k), self.plan.gateways) == index);
            let next = next.expect("as many users in a row as gateways are one on each");
            let (welcomed, ended, in_effect) = (false, false, false);
            let joining = 0;
            self.gateways.push(Gateway { socket, joining, welcomed, next, ended, in_effect });
        }
        self.producer = Some(open_link(
            self.address,
            self.plan.seed,
            (Role::PRODUCER, self.plan.gateways),
            io,
        )?);
        Ok(())
    }

    fn received(
        &mut self,
        socket: Socket,
        bytes: &[u8],
        io: &mut Io,
        tally: &mut Tally,
    ) -> Result<usize, Failure> {
        let owner = self.owner(socket);
        let mut taken = 0;
        while let Some(prologue) = bytes[taken..].first_chunk::<PROLOGUE_BYTES>() {
            let prologue = Prologue::decode(prologue).map_err(Failure::new)?;
            let end = taken + prologue.frame_bytes();
            let Some(frame) = bytes.get(taken..end) else { break };
            taken = end;
            match prepared::delivery(prologue, frame) {
                Some((addressed, payload)) => {
                    self.count += 1;
                    if self.count.is_multiple_of(CHECKED_EVERY) {
                        let _right = Frame::decode(frame).map_err(Failure::new)?;
                    }
                    match addressed {
                        Addressed::Users(uids) => {
                            tally.delivered(owner, payload, uids.iter());
                        }
                        Addressed::Everyone => tally.broadcast(owner, payload),
                    }
                }
                None => match Frame::decode(frame).map_err(Failure::new)? {
                    Frame::Receipt(receipt) => self.receipt(&receipt, tally),
                    frame => self.control(socket, &frame, io, tally)?,
                },
            }
        }
        Ok(taken)
    }

    fn is_ready(&self) -> bool {
        self.broker_ready
            && self.gateways.iter().all(|gateway| gateway.in_effect && gateway.joining == 0)
    }

    fn set_up(&mut self, io: &mut Io) -> Result<(), Failure> {
        for gateway in self.gateways.iter_mut().filter(|it| it.welcomed && !it.ended) {
            while !gateway.ended && io.queued(gateway.socket) < SNAPSHOT_BYTES {
                let out = io.out(gateway.socket);
                Self::declare(gateway, &self.plan, self.stopped, &mut self.records, out)?;
            }
        }
        Ok(())
    }

    fn users_ready(&self) -> u64 {
        if !self.is_ready() {
            return 0;
        }
        let next = self.gateways.iter().map(|gateway| gateway.next).min();
        next.unwrap_or(0).min(self.plan.users)
    }

    fn stop_set_up(&mut self) {
        self.stopped = true;
    }

    fn publish(&mut self, message: &Message<'_>, io: &mut Io) -> Result<(), Failure> {
        let producer = self.producer.expect("it is connected before it publishes");
        if let Some(answers) = &mut self.answers {
            answers.published(message);
        }
        let out = io.out(producer);
        self.heads.publish(message.number + 1, message.audience, message.payload, out)
    }

    fn finish(&mut self, tally: &mut Tally) {
        if let Some(answers) = &mut self.answers {
            answers.end(tally);
        }
    }
}
