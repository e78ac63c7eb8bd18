//! A producer and gateways of Waybill that know what became of every message: which receipt it got,
//! in which life of the broker, and whether it came. Their links may end and come again.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use waybill_wire::Digest;
use waybill_wire::code::{BrokerState, ErrorCode, Level, Mode, Op, Role, capability};
use waybill_wire::digest::Registered;
use waybill_wire::frame::{Frame, Ping, Pong, Receipt, Record, Snapshot};
use waybill_wire::limits::{PROLOGUE_BYTES, RECORDS_MAX};
use waybill_wire::message::{self, MessageHead};
use waybill_wire::prologue::Prologue;

use super::churn::Churn;
use super::departure::Departure;
use super::overload::Arrivals;
use crate::clock;
use crate::driver::{Audience, Driver, Message};
use crate::failure::Failure;
use crate::io::{Io, Socket};
use crate::tally::{Tally, fault};
use crate::waybill::{open_link, open_link_offering};
use crate::work::{WorkPlan, gateway_of, uid_of};

/// A gateway appends more of its snapshot while it has fewer bytes than this to be written.
const SNAPSHOT_BYTES: usize = 256 << 10;

/// A gateway that is not read says that it lives, as one does that is slow and not gone.
const PING_EVERY: Duration = Duration::from_secs(1);

/// What is known of a message, but whether it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// There was no link to send it by.
    Unsent,
    /// Sent in the first life of the broker, and not answered when its link ended.
    Unanswered,
    /// Answered in the first life of the broker: it was in a gateway's outbox when that link ended.
    Answered,
    /// Refused as a whole, or dropped: the receipt says so.
    Refused,
    /// Sent in a life of the broker that goes on.
    Sent,
}

/// One gateway and its link.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) socket: Socket,
    welcomed: bool,
    /// How many of its users are declared.
    declared: u64,
    /// LAST is written.
    ended: bool,
    in_effect: bool,
    /// Version of what it declared last.
    pub(super) version: u64,
    /// Digest of all that it declared.
    pub(super) digest: Digest,
}

/// Moments since the first connection of this life, once they have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moments {
    pub(super) ready: Option<Instant>,
    pub(super) in_effect: Option<Instant>,
    pub(super) answered: Option<Instant>,
}

/// What receipts said, in sums.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) receipts: u64,
    pub(super) sent: u64,
    pub(super) dropped: u64,
    pub(super) offline: u64,
}

/// Does something in the middle of a run: with this message.
pub(super) struct Strike {
    pub(super) at: u64,
    pub(super) what: Box<dyn FnMut()>,
}

/// The producer and the gateways.
pub(super) struct Cluster {
    plan: WorkPlan,
    address: SocketAddr,
    level: Level,
    pub(super) gateways: Vec<Gateway>,
    pub(super) producer: Option<Socket>,
    broker_ready: bool,
    /// The broker was ended; links end too, and are opened again by the next set-up.
    down: bool,
    sequence: u64,
    records: Vec<Record>,
    pub(super) told: Told,
    pub(super) moments: Moments,
    /// By message number.
    pub(super) fates: Vec<(Fate, bool)>,
    pub(super) strike: Option<Strike>,
    pub(super) churn: Option<Churn>,
    pub(super) departure: Option<Departure>,
    /// What comes where nobody waits for each single message, and all gateways read slowly.
    pub(super) arrivals: Option<Arrivals>,
    /// The gateway that is not read.
    pub(super) frozen: Option<usize>,
    pinged: Option<Instant>,
}

/// A cluster as the engine drives it, and as its scenario looks at it meanwhile.
#[derive(Clone)]
pub(super) struct Shared(pub(super) Rc<RefCell<Cluster>>);

impl Shared {
    /// Not connected yet; every message asks for this receipt.
    pub(super) fn new(plan: WorkPlan, address: SocketAddr, level: Level) -> Self {
        Self(Rc::new(RefCell::new(Cluster {
            plan,
            address,
            level,
            gateways: Vec::new(),
            producer: None,
            broker_ready: false,
            down: false,
            sequence: 0,
            records: Vec::with_capacity(RECORDS_MAX),
            told: Told::default(),
            moments: Moments::default(),
            fates: Vec::new(),
            strike: None,
            churn: None,
            departure: None,
            arrivals: None,
            frozen: None,
            pinged: None,
        })))
    }
}

impl Cluster {
    fn open_all(&mut self, io: &mut Io) -> Result<(), Failure> {
        self.gateways.clear();
        // The one that leaves comes behind those that messages are for.
        let count = self.plan.gateways + usize::from(self.departure.is_some());
        let tags = self.churn.as_ref().is_some_and(Churn::is_of_tags);
        let offered = if tags { capability::TAGS } else { 0 };
        for index in 0..count {
            let (seed, who) = (self.plan.seed, (Role::GATEWAY, index));
            let socket = open_link_offering(self.address, seed, who, offered, io)?;
            self.gateways.push(Gateway {
                socket,
                welcomed: false,
                declared: 0,
                ended: false,
                in_effect: false,
                version: 1,
                digest: Digest::default(),
            });
        }
        self.producer = Some(open_link(self.address, self.plan.seed, (Role::PRODUCER, count), io)?);
        (self.broker_ready, self.moments) = (false, Moments::default());
        Ok(())
    }

    fn gateway_at(&self, socket: Socket) -> Option<usize> {
        // Their sockets are opened one after the other.
        let at = socket.index().checked_sub(self.gateways.first()?.socket.index())?;
        (at < self.gateways.len()).then_some(at)
    }

    /// The least `k` that lives on a gateway, and how many do.
    fn home(&self, gateway: usize) -> (u64, u64) {
        if gateway >= self.plan.gateways {
            return (0, 0);
        }
        let step = self.plan.gateways as u64;
        let first = (0..step).find(|k| gateway_of(uid_of(*k), self.plan.gateways) == gateway);
        let first = first.expect("as many users in a row as gateways are one on each");
        (first, self.plan.users.saturating_sub(first).div_ceil(step))
    }

    /// Appends the next frame of a gateway's snapshot.
    fn declare(&mut self, at: usize, io: &mut Io) -> Result<(), Failure> {
        self.records.clear();
        let mut next = self.gateways[at].declared;
        let (first, stay) = self.home(at);
        let (step, churn) = (self.plan.gateways as u64, self.churn.as_ref());
        let departure = self.departure.as_ref().filter(|_| at == self.plan.gateways);
        // Who stay, then who come and go.
        let user = |n: u64| match n < stay {
            true => Some(uid_of(first + n * step)),
            false => churn
                .and_then(|churn| churn.at_first(at, n - stay))
                .or_else(|| departure.and_then(|departure| departure.at_first(n))),
        };
        while self.records.len() < RECORDS_MAX
            && let Some(uid) = user(next)
        {
            self.records.push(Record { uid, op: Op::ADD, ..Record::default() });
            next += 1;
        }
        let last = user(next).is_none();
        let gateway = &mut self.gateways[at];
        self.records.iter().for_each(|record| gateway.digest.add(registered(record)));
        let (first, version) = (gateway.declared == 0, gateway.version);
        (gateway.declared, gateway.ended) = (next, last);
        let snapshot = Snapshot { first, last, version, records: self.records.as_slice().into() };
        snapshot.encode(io.out(gateway.socket)).map_err(Failure::new)
    }

    fn deliver(&mut self, at: usize, message: &message::Message<'_>, tally: &mut Tally) {
        if let Some(arrivals) = &mut self.arrivals {
            return arrivals.delivered(at, message, tally);
        }
        if message.everyone {
            return tally.broadcast(at, message.payload);
        }
        if let (Some(churn), Some(uid)) = (&mut self.churn, message.targets.iter().next())
            && churn.is_about(uid)
        {
            return churn.delivered(at, uid, message.payload, tally);
        }
        if let (Some(departure), Some(uid)) = (&mut self.departure, message.targets.iter().next())
            && departure.is_about(uid)
        {
            return departure.delivered(at, uid, self.plan.gateways, tally);
        }
        if let Some(number) = message.payload.first_chunk().map(|it| u64::from_le_bytes(*it))
            && let Some(fate) = usize::try_from(number).ok().and_then(|at| self.fates.get_mut(at))
        {
            fate.1 = true;
        }
        tally.delivered(at, message.payload, message.targets.iter());
    }

    fn receipt(&mut self, receipt: &Receipt<'_>, tally: &mut Tally) {
        if let Some(departure) = &mut self.departure {
            return departure.answered(receipt, tally);
        }
        self.told.receipts += 1;
        self.told.sent += u64::from(receipt.sent);
        self.told.dropped += u64::from(receipt.dropped);
        self.told.offline += u64::from(receipt.offline);
        let number = receipt.sequence - 1;
        let refused = receipt.code != ErrorCode(0);
        if refused {
            tally.fault(fault::REFUSED, format_args!("message {number}: {}", receipt.code));
        } else {
            self.moments.answered.get_or_insert_with(clock::instant);
        }
        let at = usize::try_from(number).ok();
        if let Some(fate) = at.and_then(|at| self.fates.get_mut(at)) {
            fate.0 = match fate.0 {
                _ if refused || receipt.sent == 0 => Fate::Refused,
                Fate::Unanswered => Fate::Answered,
                other => other,
            };
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
        let at = self.gateway_at(socket);
        match (frame, at) {
            (Frame::Welcome(_), Some(at)) => self.gateways[at].welcomed = true,
            (Frame::Welcome(welcome), None) => self.state(welcome.state),
            (Frame::State(state), None) => self.state(state.state),
            (Frame::InEffect(in_effect), Some(at)) => {
                self.gateways[at].in_effect = true;
                if let Some(churn) = &mut self.churn {
                    churn.in_effect(at, in_effect.version);
                }
                if self.gateways.iter().all(|gateway| gateway.in_effect) {
                    self.moments.in_effect.get_or_insert_with(clock::instant);
                }
            }
            (Frame::Receipt(receipt), _) => self.receipt(receipt, tally),
            (Frame::Ping(ping), _) if !self.down => {
                Pong { token: ping.token }.encode(io.out(socket));
            }
            (Frame::Error(error), _) => {
                let words = format!("the broker says {}: {}", error.code, error.detail);
                if error.fatal {
                    return Err(Failure::new(words));
                }
                tally.fault(fault::REFUSED, words);
            }
            _ => {}
        }
        Ok(())
    }

    fn state(&mut self, state: BrokerState) {
        self.broker_ready = state == BrokerState::READY;
        if self.broker_ready {
            self.moments.ready.get_or_insert_with(clock::instant);
        }
    }

    fn received(
        &mut self,
        socket: Socket,
        bytes: &[u8],
        io: &mut Io,
        tally: &mut Tally,
    ) -> Result<usize, Failure> {
        let mut taken = 0;
        while let Some(prologue) = bytes[taken..].first_chunk::<PROLOGUE_BYTES>() {
            let length = Prologue::decode(prologue).map_err(Failure::new)?.frame_bytes();
            let Some(frame) = bytes.get(taken..taken + length) else { break };
            taken += length;
            match Frame::decode(frame).map_err(Failure::new)? {
                Frame::Deliver(message) => {
                    if let Some(at) = self.gateway_at(socket) {
                        self.deliver(at, &message, tally);
                    }
                }
                frame => self.control(socket, &frame, io, tally)?,
            }
        }
        Ok(taken)
    }

    fn publish(&mut self, message: &Message<'_>, io: &mut Io) -> Result<(), Failure> {
        let Audience::Users(targets) = message.audience else {
            return Err(Failure::new("work: is not for one user each"));
        };
        if let Some(strike) = self.strike.as_mut().filter(|strike| strike.at == message.number) {
            (strike.what)();
            self.down = true;
        }
        let fate = match (self.down, self.strike.is_some()) {
            (true, _) => Fate::Unsent,
            (false, true) => Fate::Unanswered,
            (false, false) => Fate::Sent,
        };
        self.fates.push((fate, false));
        let Some(producer) = self.producer.filter(|_| !self.down) else { return Ok(()) };
        // Probes of a churn come in between; nothing else needs to know a message by its sequence.
        self.sequence = self.next_sequence(message.number);
        put(targets, message.payload, (self.level, self.sequence), io.out(producer))?;
        if let Some(churn) = &mut self.churn {
            churn.turn(clock::instant(), &mut self.gateways, io)?;
            for (uid, payload) in churn.probes() {
                self.sequence += 1;
                put(&[uid], &payload, (Level::NONE, self.sequence), io.out(producer))?;
            }
        }
        if let Some(departure) = &mut self.departure {
            let leaving = self.gateways[self.plan.gateways].socket;
            if let Some(uid) = departure.turn(message.number, leaving, io) {
                self.sequence += 1;
                departure.asked(self.sequence);
                put(&[uid], &[], (Level::ROUTED, self.sequence), io.out(producer))?;
            }
        }
        Ok(())
    }

    fn next_sequence(&self, number: u64) -> u64 {
        let alone = self.churn.is_none() && self.departure.is_none();
        if alone { number + 1 } else { self.sequence + 1 }
    }
}

/// What a record declares, as digests have it.
pub(super) fn registered(record: &Record) -> Registered {
    let Record { namespace, uid, device_class, login, .. } = *record;
    Registered { namespace, uid, device_class, login }
}

pub(super) fn put(
    targets: &[u64],
    payload: &[u8],
    (level, sequence): (Level, u64),
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let head = MessageHead { mode: Mode::DIRECT, level, sequence, ..MessageHead::default() };
    head.encode_publish(targets, payload, out).map_err(Failure::new)
}

impl Driver for Shared {
    fn connect(&mut self, io: &mut Io) -> Result<(), Failure> {
        self.0.borrow_mut().open_all(io)
    }

    fn received(
        &mut self,
        socket: Socket,
        bytes: &[u8],
        io: &mut Io,
        tally: &mut Tally,
    ) -> Result<usize, Failure> {
        self.0.borrow_mut().received(socket, bytes, io, tally)
    }

    fn is_ready(&self) -> bool {
        let cluster = self.0.borrow();
        let in_effect = cluster.gateways.iter().all(|gateway| gateway.in_effect);
        !cluster.down && cluster.broker_ready && in_effect
    }

    fn set_up(&mut self, io: &mut Io) -> Result<(), Failure> {
        let mut cluster = self.0.borrow_mut();
        if std::mem::take(&mut cluster.down) {
            cluster.strike = None;
            cluster.open_all(io)?;
        }
        for at in 0..cluster.gateways.len() {
            let gateway = &cluster.gateways[at];
            if gateway.welcomed && !gateway.ended && io.queued(gateway.socket) < SNAPSHOT_BYTES {
                cluster.declare(at, io)?;
            }
        }
        Ok(())
    }

    fn users_ready(&self) -> u64 {
        if self.is_ready() { self.0.borrow().plan.users } else { 0 }
    }

    fn publish(&mut self, message: &Message<'_>, io: &mut Io) -> Result<(), Failure> {
        self.0.borrow_mut().publish(message, io)
    }

    fn tick(&mut self, now: Instant, io: &mut Io) {
        let mut cluster = self.0.borrow_mut();
        let due = cluster.pinged.is_none_or(|last| now.duration_since(last) >= PING_EVERY);
        let slow = match (cluster.frozen, &cluster.arrivals) {
            _ if !due => 0..0,
            (Some(at), _) => at..at + 1,
            (None, Some(_)) => 0..cluster.gateways.len(),
            (None, None) => 0..0,
        };
        for at in slow {
            cluster.pinged = Some(now);
            Ping { token: 1 }.encode(io.out(cluster.gateways[at].socket));
        }
    }

    fn ended(&mut self, socket: Socket, tally: &mut Tally) -> Result<(), Failure> {
        let cluster = self.0.borrow();
        if !cluster.down {
            let who = match cluster.gateway_at(socket) {
                Some(at) => format!("gateway {at}"),
                None => return Err(Failure::new("the broker closed the producer's link")),
            };
            tally.fault(fault::DISCONNECTED, format_args!("the broker closed the link of {who}"));
        }
        Ok(())
    }
}
