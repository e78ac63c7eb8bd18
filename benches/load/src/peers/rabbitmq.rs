//! RabbitMQ: a direct exchange, a queue for each gateway, a binding for each UID.
//!
//! As its documentation says is fastest and safe for what is pushed live: transient messages,
//! queues that are neither durable nor shared, consumers without acknowledgements and publishes
//! without confirms (<https://www.rabbitmq.com/docs/confirms>), classic queues, many publishes in a
//! write. A group is one publish with its other keys in the `CC` header
//! (<https://www.rabbitmq.com/docs/sender-selected>): each gateway's queue gets one copy, with the
//! whole list, of which the gateway keeps its own users. Everyone is a fanout exchange. Heartbeats
//! are off. A server that blocks publishers because memory is short says so, which is a fault of
//! the run.
//!
//! A direct exchange of RabbitMQ before 3.11 compares each key of a `CC` with every binding
//! (`match_routing_key` in its `rabbit_router.erl`). For 1,000 keys and 20,000 bindings that is 323
//! ms of CPU, where 1,000 publishes are 28 ms and a `CC` at a topic exchange 25 ms (3.10.8, other
//! work on the machine): so publishing one by one, `rabbitmq/uid`, is measured beside it.

use std::net::SocketAddr;

use super::amqp::{self, Delivery, Event, Exchange};
use super::decimal::{self, Decimal};
use super::words;
use crate::driver::{Audience, Driver, Message};
use crate::failure::Failure;
use crate::io::{Io, Socket};
use crate::tally::{Tally, fault};
use crate::work::{UID_FIRST, gateway_of, uid_of};

/// How a message for a group is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    /// Once, with its other keys in `CC`.
    CarbonCopies,
    /// Once for each UID.
    OneByOne,
}

/// Exchanges: by UID, and for everyone.
const BY_UID: &[u8] = b"uid";
const TO_ALL: &[u8] = b"all";
/// Bindings of one gateway that may be unconfirmed: only the last of so many is answered.
const BIND_COUNT: u64 = 256;

/// Where a connection is in its set-up. Each step waits for the server's answer to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    /// `left` answers to declarations are to come.
    Declaring {
        left: u32,
    },
    Open,
}

#[derive(Debug)]
struct Connection {
    socket: Socket,
    stage: Stage,
    frame_max: usize,
    /// Users' bindings written and confirmed, of a gateway.
    asked: u64,
    confirmed: u64,
}

/// The driver.
pub(super) struct RabbitMq {
    address: SocketAddr,
    users: u64,
    gateways: usize,
    lists: Lists,
    /// Gateways, then the producer.
    connections: Vec<Connection>,
    stopped: bool,
    /// Properties of each prepared group, made when it is first used.
    groups: Vec<Vec<u8>>,
}

impl RabbitMq {
    /// For a server at this address, users `0..users` and so many gateways.
    pub(super) fn new(address: SocketAddr, users: u64, gateways: usize, lists: Lists) -> Self {
        let (connections, groups) = (Vec::new(), Vec::new());
        Self { address, users, gateways, lists, connections, stopped: false, groups }
    }

    fn connection_of(&self, socket: Socket) -> usize {
        socket.index() - self.connections[0].socket.index()
    }

    fn user(&self, gateway: usize, index: u64) -> u64 {
        let gateways = self.gateways as u64;
        let first = (gateway as u64 + gateways - UID_FIRST % gateways) % gateways;
        first + index * gateways
    }

    /// Declares what a connection needs once its channel is open.
    fn declare(&mut self, at: usize, io: &mut Io) {
        let out = io.out(self.connections[at].socket);
        amqp::declare_exchange(out, BY_UID, Exchange::Direct);
        amqp::declare_exchange(out, TO_ALL, Exchange::Fanout);
        let mut left = 2;
        if at < self.gateways {
            let queue = queue(at);
            amqp::declare_queue(out, &queue);
            amqp::bind(out, (&queue, TO_ALL), b"", true);
            amqp::consume(out, &queue);
            left += 3;
        }
        self.connections[at].stage = Stage::Declaring { left };
    }

    /// Writes the next bindings of a gateway, unless the last ones are not confirmed yet.
    fn bind(&mut self, at: usize, io: &mut Io) {
        let Connection { socket, stage, asked, confirmed, .. } = self.connections[at];
        if stage != Stage::Open || asked > confirmed || self.stopped {
            return;
        }
        let users = (asked..asked + BIND_COUNT).map(|index| self.user(at, index));
        let users: Vec<u64> = users.take_while(|user| *user < self.users).collect();
        let queue = queue(at);
        let out = io.out(socket);
        for (index, user) in users.iter().enumerate() {
            let key = Decimal::new(uid_of(*user));
            let answered = index + 1 == users.len();
            amqp::bind(out, (&queue, BY_UID), key.as_bytes(), answered);
        }
        self.connections[at].asked += users.len() as u64;
    }

    fn done(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        match connection.stage {
            Stage::Declaring { left: 1 } => connection.stage = Stage::Open,
            Stage::Declaring { left } => connection.stage = Stage::Declaring { left: left - 1 },
            Stage::Handshake | Stage::Open => connection.confirmed = connection.asked,
        }
    }

    fn heard(
        &mut self,
        at: usize,
        event: Event<'_>,
        io: &mut Io,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let connection = &mut self.connections[at];
        let out = io.out(connection.socket);
        match event {
            Event::Delivery(delivery) => self.delivered(at, &delivery, tally),
            Event::Done => self.done(at),
            Event::Start => amqp::start_ok(out, "guest", "guest"),
            Event::Tune { channel_max, frame_max } => {
                amqp::tune_ok(out, channel_max, frame_max);
                connection.frame_max = usize::try_from(frame_max).unwrap_or(usize::MAX);
                amqp::open(out);
            }
            Event::Opened => amqp::channel_open(out),
            Event::ChannelOpened => self.declare(at, io),
            Event::Heartbeat => out.extend_from_slice(amqp::HEARTBEAT),
            Event::Blocked(said) => {
                let words = format_args!("the server blocks publishers: {}", words(said));
                tally.fault(fault::REFUSED, words);
            }
            Event::Unblocked => {}
            Event::Closed { code, words: said } => {
                amqp::close_ok(out);
                let words = format_args!("RabbitMQ closes connection {at}: {code} {}", words(said));
                if at == self.gateways {
                    return Err(Failure::new(words));
                }
                tally.fault(fault::REFUSED, words);
            }
        }
        Ok(())
    }

    fn delivered(&self, at: usize, delivery: &Delivery<'_>, tally: &mut Tally) {
        if delivery.key.is_empty() {
            return tally.broadcast(at, delivery.body);
        }
        let first = decimal::parse(delivery.key);
        // A publish without a list went by its key alone.
        let mut others = delivery.carbon_copies().map(decimal::parse).peekable();
        if others.peek().is_none()
            && let Some(uid) = first
        {
            return tally.delivered(at, delivery.body, [uid]);
        }
        let own = |uid: &u64| gateway_of(*uid, self.gateways) == at;
        let uids = std::iter::once(first).chain(others).flatten().filter(own);
        tally.delivered(at, delivery.body, uids);
    }
}

fn queue(gateway: usize) -> Vec<u8> {
    format!("g{gateway}").into_bytes()
}

/// The `CC` of a publish to these users: all but the first, whose UID is the key.
fn properties(uids: &[u64]) -> Vec<u8> {
    let keys: Vec<Decimal> = uids[1..].iter().map(|uid| Decimal::new(*uid)).collect();
    amqp::carbon_copies(keys.iter().map(Decimal::as_bytes))
}

impl Driver for RabbitMq {
    fn connect(&mut self, io: &mut Io) -> Result<(), Failure> {
        for _ in 0..=self.gateways {
            let socket = io.open(self.address)?;
            io.out(socket).extend_from_slice(amqp::PROTOCOL);
            let (stage, frame_max) = (Stage::Handshake, 0);
            let connection = Connection { socket, stage, frame_max, asked: 0, confirmed: 0 };
            self.connections.push(connection);
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
        let connection = self.connection_of(socket);
        let mut at = 0;
        while let Some((event, length)) = amqp::event(&bytes[at..])? {
            at += length;
            self.heard(connection, event, io, tally)?;
        }
        Ok(at)
    }

    fn is_ready(&self) -> bool {
        let bound = |(at, connection): (usize, &Connection)| {
            let all = self.stopped || self.user(at, connection.asked) >= self.users;
            connection.stage == Stage::Open
                && connection.confirmed == connection.asked
                && (at == self.gateways || all)
        };
        !self.connections.is_empty() && self.connections.iter().enumerate().all(bound)
    }

    fn set_up(&mut self, io: &mut Io) -> Result<(), Failure> {
        for at in 0..self.gateways {
            self.bind(at, io);
        }
        Ok(())
    }

    fn users_ready(&self) -> u64 {
        let gateways = self.connections.iter().take(self.gateways).enumerate();
        let missing = gateways.map(|(at, connection)| self.user(at, connection.confirmed));
        missing.min().unwrap_or(0).min(self.users)
    }

    fn stop_set_up(&mut self) {
        self.stopped = true;
    }

    fn publish(&mut self, message: &Message<'_>, io: &mut Io) -> Result<(), Failure> {
        let Connection { socket, frame_max, .. } = self.connections[self.gateways];
        let out = io.out(socket);
        let Audience::Users(uids) = message.audience else {
            let to = (TO_ALL, &b""[..]);
            amqp::publish(out, to, amqp::NO_PROPERTIES, message.payload, frame_max);
            return Ok(());
        };
        if uids.len() == 1 || self.lists == Lists::OneByOne {
            for uid in uids {
                let key = Decimal::new(*uid);
                let to = (BY_UID, key.as_bytes());
                amqp::publish(out, to, amqp::NO_PROPERTIES, message.payload, frame_max);
            }
            return Ok(());
        }
        let key = Decimal::new(uids[0]);
        let to = (BY_UID, key.as_bytes());
        let made;
        let properties = match message.group {
            None => {
                made = properties(uids);
                &made
            }
            Some(group) => {
                if self.groups.len() <= group {
                    self.groups.resize(group + 1, Vec::new());
                }
                let properties_of_group = &mut self.groups[group];
                if properties_of_group.is_empty() {
                    *properties_of_group = properties(uids);
                }
                properties_of_group
            }
        };
        amqp::publish(out, to, properties, message.payload, frame_max);
        Ok(())
    }

    fn ended(&mut self, socket: Socket, tally: &mut Tally) -> Result<(), Failure> {
        let at = self.connection_of(socket);
        if at == self.gateways {
            return Err(Failure::new("RabbitMQ closed the producer's connection"));
        }
        let words = format_args!("RabbitMQ closed the connection of gateway {at}");
        tally.fault(fault::DISCONNECTED, words);
        Ok(())
    }
}
