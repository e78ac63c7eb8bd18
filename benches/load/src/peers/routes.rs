//! The table of routes that teams keep in Redis: UID to gateway, asked for every message.
//!
//! One key for each UID, its value the gateway. Filled by `MSET`, asked by `MGET` of at most
//! [`ASK_UIDS`] keys, pipelined: both are what the documentation of Redis advises for many keys
//! (<https://redis.io/docs/latest/develop/using-commands/pipelining/>,
//! <https://redis.io/commands/mget/>). The producer groups the UIDs of a message by gateway once
//! all its routes are there. Messages leave in the order they came in, those for everyone among
//! them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::resp::{self, Token};
use super::{decimal, words};
use crate::driver::{Audience, Message};
use crate::failure::Failure;
use crate::io::{Io, Socket};
use crate::work::{gateway_of, uid_of};

/// UIDs of one `MGET`.
pub(super) const ASK_UIDS: usize = 64;
/// Keys of one `MSET`.
const SET_UIDS: u64 = 512;
/// Keys that may be on their way to the table while it is filled.
const SET_UNCONFIRMED_MAX: u64 = 64 * SET_UIDS;

/// A message that waits for its routes.
#[derive(Debug, Default)]
struct Waiting {
    payload: Vec<u8>,
    /// Routes still to come.
    missing: usize,
    everyone: bool,
}

/// Where a message goes.
pub(super) enum Resolved<'a> {
    /// These users of this gateway.
    Gateway(usize, &'a [u64]),
    /// Every gateway.
    Everyone,
}

/// The table, and the messages that wait for it.
#[derive(Debug)]
pub(super) struct Routes {
    address: SocketAddr,
    socket: Option<Socket>,
    gateways: usize,
    /// Users whose keys are to be set.
    users: u64,
    set: u64,
    confirmed: u64,
    /// UIDs not asked yet.
    unasked: Vec<u64>,
    /// UIDs asked, in order.
    asked: VecDeque<u64>,
    /// Elements of the present reply still to come.
    elements: usize,
    waiting: VecDeque<Waiting>,
    /// Payloads' buffers to be used again.
    spare: Vec<Waiting>,
    /// UIDs of the first message that waits, by gateway.
    by_gateway: Vec<Vec<u64>>,
}

impl Routes {
    /// An empty table at this address, for users `0..users`.
    pub(super) fn new(address: SocketAddr, users: u64, gateways: usize) -> Self {
        Self {
            address,
            socket: None,
            gateways,
            users,
            set: 0,
            confirmed: 0,
            unasked: Vec::new(),
            asked: VecDeque::new(),
            elements: 0,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            by_gateway: vec![Vec::new(); gateways],
        }
    }

    /// Opens its connection.
    pub(super) fn connect(&mut self, io: &mut Io) -> Result<(), Failure> {
        self.socket = Some(io.open(self.address)?);
        Ok(())
    }

    pub(super) fn is_socket(&self, socket: Socket) -> bool {
        self.socket == Some(socket)
    }

    /// Sets more keys.
    pub(super) fn set_up(&mut self, io: &mut Io) {
        let Some(socket) = self.socket else { return };
        while self.set < self.users && self.set - self.confirmed < SET_UNCONFIRMED_MAX {
            let to = self.users.min(self.set + SET_UIDS);
            let out = io.out(socket);
            let pairs = usize::try_from(to - self.set).expect("at most SET_UIDS");
            resp::arguments(out, 1 + 2 * pairs);
            resp::bulk(out, &[b"MSET"]);
            for uid in (self.set..to).map(uid_of) {
                resp::bulk(out, &[decimal::Decimal::new(uid).as_bytes()]);
                let gateway = gateway_of(uid, self.gateways) as u64;
                resp::bulk(out, &[decimal::Decimal::new(gateway).as_bytes()]);
            }
            self.set = to;
        }
    }

    /// No more keys than are on their way.
    pub(super) fn stop_set_up(&mut self) {
        self.users = self.set;
    }

    /// Users whose routes are there.
    pub(super) fn users_ready(&self) -> u64 {
        self.confirmed
    }

    pub(super) fn is_ready(&self) -> bool {
        self.confirmed == self.users
    }

    /// Takes a message in and asks for its routes once there are enough to ask for.
    pub(super) fn ask(&mut self, message: &Message<'_>, io: &mut Io) {
        let mut waiting = self.spare.pop().unwrap_or_default();
        waiting.payload.clear();
        waiting.payload.extend_from_slice(message.payload);
        let uids = match message.audience {
            Audience::Users(uids) => uids,
            Audience::Everyone => &[],
        };
        waiting.missing = uids.len();
        waiting.everyone = message.audience == Audience::Everyone;
        self.waiting.push_back(waiting);
        for uid in uids {
            self.unasked.push(*uid);
            if self.unasked.len() == ASK_UIDS {
                self.flush(io);
            }
        }
    }

    /// Asks for what waits for company.
    pub(super) fn flush(&mut self, io: &mut Io) {
        if let Some(socket) = self.socket
            && !self.unasked.is_empty()
        {
            let out = io.out(socket);
            resp::arguments(out, 1 + self.unasked.len());
            resp::bulk(out, &[b"MGET"]);
            for uid in &self.unasked {
                resp::bulk(out, &[decimal::Decimal::new(*uid).as_bytes()]);
            }
            self.asked.extend(self.unasked.drain(..));
        }
    }

    /// Replies came in; messages whose routes are all there are handed to `resolved`, with their
    /// payload. How many bytes it took.
    pub(super) fn received(
        &mut self,
        bytes: &[u8],
        mut resolved: impl FnMut(Resolved<'_>, &[u8]),
    ) -> Result<usize, Failure> {
        let mut at = 0;
        while let Some((token, length)) = resp::token(&bytes[at..])? {
            at += length;
            match token {
                Token::Status(b"OK") => {
                    self.confirmed = self.set.min(self.confirmed + SET_UIDS);
                }
                Token::Array(elements) => self.elements = elements,
                Token::Bulk(gateway) if self.elements > 0 => {
                    self.elements -= 1;
                    self.routed(gateway)?;
                    self.drain(&mut resolved);
                }
                Token::Error(said) => {
                    let said = words(said);
                    return Err(Failure::new(format_args!("the table of routes says {said:?}")));
                }
                other => {
                    return Err(Failure::new(format_args!("the table of routes says {other:?}")));
                }
            }
        }
        Ok(at)
    }

    fn routed(&mut self, gateway: Option<&[u8]>) -> Result<(), Failure> {
        let uid = self.asked.pop_front();
        let gateway = gateway.and_then(decimal::parse).and_then(|at| usize::try_from(at).ok());
        let (Some(uid), Some(gateway)) = (uid, gateway.filter(|at| *at < self.gateways)) else {
            return Err(Failure::new(format_args!("the table of routes has none for {uid:?}")));
        };
        // Those that miss nothing have left.
        self.waiting.front_mut().expect("what was asked is missed by a message").missing -= 1;
        self.by_gateway[gateway].push(uid);
        Ok(())
    }

    /// Hands out the messages at the front that miss nothing; to be called after each
    /// [`Routes::ask`] for everyone.
    pub(super) fn drain(&mut self, resolved: &mut impl FnMut(Resolved<'_>, &[u8])) {
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.missing == 0) {
            if waiting.everyone {
                resolved(Resolved::Everyone, &waiting.payload);
            }
            for (gateway, uids) in self.by_gateway.iter_mut().enumerate() {
                if !uids.is_empty() {
                    resolved(Resolved::Gateway(gateway, uids), &waiting.payload);
                    uids.clear();
                }
            }
            self.spare.push(waiting);
        }
    }
}
