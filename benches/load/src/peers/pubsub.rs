//! One driver for what publishes to names: channels of Redis, subjects of NATS.
//!
//! What differs between the two is a [`Protocol`]; how users become names is an [`Addressing`]:
//! a name for each UID, published to one by one; or a name for each gateway, with the route looked
//! up in a table ([`Routes`]), or known for nothing. Messages for everyone go to one name that all
//! gateways subscribe to. Set-up, deliveries and what a server does to a slow reader are the same
//! for all of them.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::net::SocketAddr;

use super::decimal::{self, Decimal};
use super::routes::{Resolved, Routes};
use super::{Malformed, parcel, words};
use crate::driver::{Audience, Driver, Message};
use crate::failure::Failure;
use crate::io::{Io, Socket};
use crate::tally::{Tally, fault};
use crate::work::{UID_FIRST, gateway_of, uid_of};

mod channels;
mod subjects;

pub(super) use channels::Channels;
pub(super) use subjects::Subjects;

/// The name that messages for everyone are published to.
const EVERYONE: &[u8] = b"all";
/// Subscriptions of one gateway that may be unconfirmed during the set-up.
const UNCONFIRMED_MAX: u64 = 8_192;
/// Subscriptions appended at once.
const SUBSCRIBE_COUNT: u64 = 512;

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A message came to a name.
    Message { name: &'a [u8], payload: &'a [u8] },
    /// One more subscription is in effect.
    Subscribed,
    /// All is in effect that came before the barrier.
    Barrier,
    /// Wants an answer, this one.
    Ping(&'static [u8]),
    /// Refuses something, or says why it is going to close the connection.
    Error(&'a [u8]),
    /// The server's first words, where it speaks first.
    Hello,
    /// Nothing that matters here.
    Other,
}

/// What the driver needs of a protocol.
pub(super) trait Protocol {
    /// Whether the server speaks first, which the greeting waits for.
    const SERVER_FIRST: bool;
    /// What is sent after subscriptions to hear that they are in effect; `None` if each is
    /// answered.
    const BARRIER: Option<&'static [u8]>;
    /// What a connection says first.
    fn greet(out: &mut Vec<u8>, publishes: bool);
    /// Subscribes to names, numbered from `first`.
    fn subscribe(out: &mut Vec<u8>, first: u64, names: &[Name]);
    /// Publishes a payload given in pieces.
    fn publish(out: &mut Vec<u8>, name: &[u8], payload: &[&[u8]]);
    /// The first event and its length.
    fn event(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>, Malformed>;
}

/// A short name: `all`, `g` and a gateway, or a UID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(Vec<u8>);

impl Name {
    fn everyone() -> Self {
        Self(EVERYONE.to_vec())
    }

    fn gateway(gateway: usize) -> Self {
        Self(format!("g{gateway}").into_bytes())
    }

    fn user(uid: u64) -> Self {
        Self(Decimal::new(uid).as_bytes().to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// How users become names.
pub(super) enum Addressing {
    /// A name for each UID: the server routes.
    PerUser,
    /// A name for each gateway; the producer knows the gateway of a UID without asking.
    Known,
    /// A name for each gateway; the producer asks a table.
    LookedUp(Box<Routes>),
}

/// One subscribing connection.
#[derive(Debug)]
struct Gateway {
    socket: Option<Socket>,
    greeted: bool,
    /// Subscriptions written, and those confirmed; the first one or two are not of users.
    asked: u64,
    confirmed: u64,
    /// Value of `asked` at each barrier that is not answered.
    barriers: VecDeque<u64>,
}

/// The driver.
pub(super) struct PubSub<P> {
    address: SocketAddr,
    addressing: Addressing,
    users: u64,
    gateways: Vec<Gateway>,
    /// No more subscriptions than are under way.
    stopped: bool,
    producer: Option<Socket>,
    producer_greeted: bool,
    /// Names of gateways, for publishing.
    names: Vec<Name>,
    /// UIDs of the present message by gateway, where the route is known.
    by_gateway: Vec<Vec<u64>>,
    /// The head of a parcel, rewritten for each.
    head: Vec<u8>,
    protocol: PhantomData<P>,
}

impl<P: Protocol> PubSub<P> {
    /// For a server at this address, users `0..users` and so many gateways.
    pub(super) fn new(
        address: SocketAddr,
        addressing: Addressing,
        users: u64,
        gateways: usize,
    ) -> Self {
        let gateway = || Gateway {
            socket: None,
            greeted: false,
            asked: 0,
            confirmed: 0,
            barriers: VecDeque::new(),
        };
        Self {
            address,
            addressing,
            users,
            gateways: std::iter::repeat_with(gateway).take(gateways).collect(),
            stopped: false,
            producer: None,
            producer_greeted: false,
            names: (0..gateways).map(Name::gateway).collect(),
            by_gateway: vec![Vec::new(); gateways],
            head: Vec::new(),
            protocol: PhantomData,
        }
    }

    /// Subscriptions of a gateway that are not of users, and come first.
    fn fixed(&self) -> u64 {
        if matches!(self.addressing, Addressing::PerUser) { 1 } else { 2 }
    }

    /// The user behind subscription `index` of a gateway, in the order of users.
    fn user(&self, gateway: usize, index: u64) -> u64 {
        let gateways = self.gateways.len() as u64;
        let first = (gateway as u64 + gateways - UID_FIRST % gateways) % gateways;
        first + (index - self.fixed()) * gateways
    }

    /// The name of subscription `index` of a gateway; `None` if it has fewer.
    fn name(&self, gateway: usize, index: u64) -> Option<Name> {
        match index {
            0 => Some(Name::everyone()),
            1 if self.fixed() == 2 => Some(self.names[gateway].clone()),
            _ if self.fixed() == 2 => None,
            _ => Some(self.user(gateway, index))
                .filter(|user| *user < self.users)
                .map(|user| Name::user(uid_of(user))),
        }
    }

    /// Writes more subscriptions of a gateway; whether there were more.
    fn subscribe(&mut self, gateway: usize, io: &mut Io) -> bool {
        let Gateway { socket: Some(socket), greeted: true, asked, confirmed, .. } =
            self.gateways[gateway]
        else {
            return false;
        };
        if asked - confirmed > UNCONFIRMED_MAX - SUBSCRIBE_COUNT || (self.stopped && asked > 1) {
            return false;
        }
        let more = (asked..asked + SUBSCRIBE_COUNT).map_while(|at| self.name(gateway, at));
        let names: Vec<Name> = more.collect();
        if names.is_empty() {
            return false;
        }
        let out = io.out(socket);
        P::subscribe(out, asked, &names);
        let asked = asked + names.len() as u64;
        let gateway = &mut self.gateways[gateway];
        gateway.asked = asked;
        if let Some(barrier) = P::BARRIER {
            out.extend_from_slice(barrier);
            gateway.barriers.push_back(asked);
        }
        true
    }

    /// Users below which all subscriptions are confirmed.
    fn users_subscribed(&self) -> u64 {
        if self.fixed() == 2 {
            return self.users;
        }
        let first_missing = |(at, gateway): (usize, &Gateway)| {
            if gateway.confirmed == 0 { 0 } else { self.user(at, gateway.confirmed) }
        };
        let all = self.gateways.iter().enumerate().map(first_missing).min();
        all.unwrap_or(0).min(self.users)
    }

    /// All subscriptions a gateway will ask for are in effect.
    fn is_subscribed(&self, at: usize) -> bool {
        let gateway = &self.gateways[at];
        let fixed_done = gateway.confirmed >= self.fixed();
        let all_asked = self.stopped || self.name(at, gateway.asked).is_none();
        gateway.greeted && fixed_done && all_asked && gateway.confirmed == gateway.asked
    }

    fn gateway_of_socket(&self, socket: Socket) -> Option<usize> {
        // Gateways' sockets are opened one after the other.
        let first = self.gateways.first()?.socket?.index();
        let at = socket.index().checked_sub(first)?;
        (at < self.gateways.len()).then_some(at)
    }

    /// What the server said to a gateway's connection.
    fn heard(&mut self, at: usize, event: Event<'_>, io: &mut Io, tally: &mut Tally) {
        let gateway = &mut self.gateways[at];
        match event {
            Event::Message { name, payload } => self.delivered(at, name, payload, tally),
            Event::Subscribed => gateway.confirmed += 1,
            Event::Barrier => {
                if let Some(asked) = gateway.barriers.pop_front() {
                    gateway.confirmed = asked;
                }
            }
            Event::Error(said) => {
                tally.fault(fault::REFUSED, format_args!("gateway {at} is told {}", words(said)));
            }
            Event::Ping(answer) => {
                if let Some(socket) = gateway.socket {
                    io.out(socket).extend_from_slice(answer);
                }
            }
            Event::Hello => self.greet(at, io),
            Event::Other => {}
        }
    }

    /// What the server said to the producer's connection.
    fn told(&mut self, event: Event<'_>, io: &mut Io) -> Result<(), Failure> {
        match event {
            Event::Hello => self.greet_from_producer(io),
            Event::Ping(answer) => {
                if let Some(producer) = self.producer {
                    io.out(producer).extend_from_slice(answer);
                }
            }
            Event::Error(said) => {
                return Err(Failure::new(format_args!("the producer is told {}", words(said))));
            }
            _ => {}
        }
        Ok(())
    }

    fn delivered(&self, at: usize, name: &[u8], payload: &[u8], tally: &mut Tally) {
        if name == EVERYONE {
            tally.broadcast(at, payload);
        } else if let Addressing::PerUser = self.addressing {
            match decimal::parse(name) {
                Some(uid) => tally.delivered(at, payload, [uid]),
                None => tally.fault(fault::DAMAGED, format_args!("a message to {name:?}")),
            }
        } else {
            match parcel::open(payload) {
                Some((uids, payload)) => tally.delivered(at, payload, uids),
                None => tally.fault(fault::DAMAGED, "a parcel that does not open"),
            }
        }
    }

    /// Says what a connection says first, once.
    fn greet(&mut self, at: usize, io: &mut Io) {
        let gateway = &mut self.gateways[at];
        if let Some(socket) = gateway.socket
            && !std::mem::replace(&mut gateway.greeted, true)
        {
            P::greet(io.out(socket), false);
        }
    }

    fn greet_from_producer(&mut self, io: &mut Io) {
        if let Some(socket) = self.producer
            && !std::mem::replace(&mut self.producer_greeted, true)
        {
            P::greet(io.out(socket), true);
        }
    }
}

/// Publishes what is resolved.
fn forward<P: Protocol>(
    (resolved, payload): (Resolved<'_>, &[u8]),
    names: &[Name],
    head: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    match resolved {
        Resolved::Everyone => P::publish(out, EVERYONE, &[payload]),
        Resolved::Gateway(gateway, uids) => {
            parcel::head(head, uids);
            P::publish(out, names[gateway].as_bytes(), &[head, payload]);
        }
    }
}

impl<P: Protocol> Driver for PubSub<P> {
    fn connect(&mut self, io: &mut Io) -> Result<(), Failure> {
        for at in 0..self.gateways.len() {
            self.gateways[at].socket = Some(io.open(self.address)?);
        }
        self.producer = Some(io.open(self.address)?);
        if let Addressing::LookedUp(routes) = &mut self.addressing {
            routes.connect(io)?;
        }
        if !P::SERVER_FIRST {
            for at in 0..self.gateways.len() {
                self.greet(at, io);
            }
            self.greet_from_producer(io);
        }
        Ok(())
    }

    fn received(
        &mut self,
        socket: Socket,
        bytes: &[u8],
        io: &mut Io,
        tally: &mut Tally,
    ) -> Result<usize, Failure> {
        if let Addressing::LookedUp(routes) = &mut self.addressing
            && routes.is_socket(socket)
        {
            let producer = self.producer.expect("it is connected");
            let (names, head, out) = (&self.names, &mut self.head, io.out(producer));
            return routes.received(bytes, |resolved, payload| {
                forward::<P>((resolved, payload), names, head, out);
            });
        }
        let gateway = self.gateway_of_socket(socket);
        let mut at = 0;
        while let Some((event, length)) = P::event(&bytes[at..])? {
            at += length;
            match gateway {
                Some(gateway) => self.heard(gateway, event, io, tally),
                None => self.told(event, io)?,
            }
        }
        Ok(at)
    }

    fn is_ready(&self) -> bool {
        let routes = match &self.addressing {
            Addressing::LookedUp(routes) => routes.is_ready(),
            _ => true,
        };
        routes && self.producer_greeted && (0..self.gateways.len()).all(|at| self.is_subscribed(at))
    }

    fn set_up(&mut self, io: &mut Io) -> Result<(), Failure> {
        for at in 0..self.gateways.len() {
            while self.subscribe(at, io) {}
        }
        if let Addressing::LookedUp(routes) = &mut self.addressing {
            routes.set_up(io);
        }
        Ok(())
    }

    fn users_ready(&self) -> u64 {
        let subscribed = self.users_subscribed();
        match &self.addressing {
            Addressing::LookedUp(routes) => subscribed.min(routes.users_ready()),
            _ => subscribed,
        }
    }

    fn stop_set_up(&mut self) {
        self.stopped = true;
        if let Addressing::LookedUp(routes) = &mut self.addressing {
            routes.stop_set_up();
        }
    }

    fn publish(&mut self, message: &Message<'_>, io: &mut Io) -> Result<(), Failure> {
        let producer = self.producer.expect("it is connected");
        if let Addressing::LookedUp(routes) = &mut self.addressing {
            routes.ask(message, io);
            let (names, head, out) = (&self.names, &mut self.head, io.out(producer));
            routes.drain(&mut |resolved, payload| {
                forward::<P>((resolved, payload), names, head, out);
            });
            return Ok(());
        }
        let out = io.out(producer);
        match message.audience {
            Audience::Everyone => P::publish(out, EVERYONE, &[message.payload]),
            Audience::Users(uids) if matches!(self.addressing, Addressing::PerUser) => {
                for uid in uids {
                    P::publish(out, Decimal::new(*uid).as_bytes(), &[message.payload]);
                }
            }
            Audience::Users(uids) => {
                for uid in uids {
                    self.by_gateway[gateway_of(*uid, self.gateways.len())].push(*uid);
                }
                for (gateway, uids) in self.by_gateway.iter_mut().enumerate() {
                    if !uids.is_empty() {
                        let resolved = (Resolved::Gateway(gateway, uids), message.payload);
                        forward::<P>(resolved, &self.names, &mut self.head, out);
                        uids.clear();
                    }
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, io: &mut Io) {
        if let Addressing::LookedUp(routes) = &mut self.addressing {
            routes.flush(io);
        }
    }

    fn ended(&mut self, socket: Socket, tally: &mut Tally) -> Result<(), Failure> {
        let Some(gateway) = self.gateway_of_socket(socket) else {
            return Err(Failure::new("the server closed the producer's connection"));
        };
        let words = format_args!("the server closed the connection of gateway {gateway}");
        tally.fault(fault::DISCONNECTED, words);
        Ok(())
    }
}
