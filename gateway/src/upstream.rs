//! What the gateway owes its brokers and what it waits for from them, as a pure machine: one link
//! per broker, each told the same changes; a login is confirmed by the first of them.
//!
//! ```text
//! register --> changes of the turn's ticket --> command --> InEffect{ticket or later} -->
//! Confirmed uplink   --> Waiting{deadline}            --> command --> UplinkAck or deadline
//! --> Answered
//! ```
//!
//! A link that is down confirms nothing; logins wait, users that are ready stay. How long a login
//! waits is its session's affair; one that has gone is confirmed to nobody. Links come and go at
//! run time: [`add_link`](Upstream::add_link), [`retire_link`](Upstream::retire_link).
//!
//! `registrations.rs` is the upper line, `uplinks.rs` the lower one.
//!
//! Never here: the links themselves, a clock, a random source.

mod registrations;
mod uplinks;

use bytes::Bytes;
use waybill_client::gateway::{GatewayCommand, Registration, TagUpdate};
use waybill_wire::code::ErrorCode;

use self::registrations::Registrations;
use self::uplinks::Uplinks;
use crate::hub::ConnectionId;

/// Changes one link may be behind with before no more logins and logouts should be taken in.
pub const BEHIND_MAX: usize = 1 << 16;

/// What a connection must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Its registration and its tags are in effect at a broker.
    Confirmed(ConnectionId),
    /// Its *send* was answered.
    Answered {
        /// The connection.
        connection: ConnectionId,
        /// Its number for the *send*.
        id: u32,
        /// 0: a consumer has it; else why not.
        code: ErrorCode,
    },
}

/// A user's message to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The connection it came from.
    pub connection: ConnectionId,
    /// The connection's number for it.
    pub id: u32,
    /// Labels.
    pub labels: Vec<String>,
    /// Payload.
    pub payload: Bytes,
}

/// How much users may have sent without an answer, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkBounds {
    /// Messages.
    pub count_max: usize,
    /// Bytes of them, kept to be sent again.
    pub bytes_max: usize,
    /// Milliseconds that each waits.
    pub wait_ms: u64,
}

/// The machine.
#[derive(Debug)]
pub struct Upstream {
    registrations: Registrations,
    uplinks: Uplinks,
    /// Places of links that are gone.
    free: Vec<usize>,
}

impl Upstream {
    /// A machine for this many links, all down.
    #[must_use]
    pub fn new(links: usize, bounds: UplinkBounds) -> Self {
        Self {
            registrations: Registrations::new(links),
            uplinks: Uplinks::new(links, bounds),
            free: Vec::new(),
        }
    }

    /// A registration is the first of its kind here: tell the brokers.
    pub fn register(&mut self, registration: Registration) {
        self.registrations.register(registration);
    }

    /// A registration has no connection left: tell the brokers.
    pub fn unregister(&mut self, registration: Registration) {
        self.registrations.unregister(registration);
    }

    /// A registration lost against the login number `winner`: tell the brokers that it is gone.
    pub fn displace(&mut self, registration: Registration, winner: u64) {
        self.registrations.displace(registration, winner);
    }

    /// The login number that has just won against this registration, if one has and its removal is
    /// not in effect yet.
    #[must_use]
    pub fn displaced_by(&self, registration: Registration) -> Option<u64> {
        self.registrations.displaced_by(registration)
    }

    /// A tag that the first connection here got, or that none has any more: tell the brokers.
    pub fn declare(&mut self, update: TagUpdate) {
        self.registrations.declare(update);
    }

    /// A connection waits for its registration and its tags (REG-6); it is confirmed at once if a
    /// broker has all of it in effect.
    pub fn wait<'a>(
        &mut self,
        connection: ConnectionId,
        registration: Registration,
        tags: impl Iterator<Item = &'a str>,
        out: &mut Vec<Notice>,
    ) {
        self.registrations.wait(connection, registration, tags, out);
    }

    /// The ticket with which those of these tags that are declared are in effect at this link's
    /// broker; `None` if they are so already.
    #[must_use]
    pub fn tags_due<'a>(
        &self,
        link: usize,
        namespace: u32,
        tags: impl Iterator<Item = &'a str>,
    ) -> Option<u64> {
        self.registrations.tags_due(link, namespace, tags)
    }

    /// A broker more, its link down: its number, which may be that of one that [is
    /// gone](Self::link_gone). It will be told everything that stands.
    pub fn add_link(&mut self) -> usize {
        let free = self.free.pop();
        let link = self.registrations.add_link(free);
        self.uplinks.add_link(link);
        link
    }

    /// Whether another link has everything in effect that stands, so that this one can be left.
    #[must_use]
    pub fn is_covered_without(&self, link: usize) -> bool {
        self.registrations.is_covered_without(link)
    }

    /// A broker is to be left: its link is told nothing more and gets no new users' messages. What
    /// is unanswered there stays until the link ends.
    pub fn retire_link(&mut self, link: usize) {
        self.registrations.close(link);
        self.uplinks.retire(link);
    }

    /// A link has ended for good and says nothing more; its number is free.
    pub fn link_gone(&mut self, link: usize, out: &mut Vec<Notice>) {
        self.link_failed(link, out);
        debug_assert!(!self.free.contains(&link), "a link goes once");
        self.free.push(link);
    }

    /// A link has come up; it has confirmed nothing yet.
    pub fn link_up(&mut self, link: usize) {
        self.registrations.link_up(link);
        self.uplinks.link_up(link);
    }

    /// A link is gone. Its uplinks go to another, once.
    pub fn link_down(&mut self, link: usize, out: &mut Vec<Notice>) {
        self.registrations.link_down(link);
        self.uplinks.link_down(link, out);
    }

    /// A link will never work again: nothing is kept for it.
    pub fn link_failed(&mut self, link: usize, out: &mut Vec<Notice>) {
        self.link_down(link, out);
        self.registrations.close(link);
    }

    /// Everything up to this ticket is in effect at this link's broker.
    pub fn in_effect(&mut self, link: usize, ticket: u64, out: &mut Vec<Notice>) {
        self.registrations.in_effect(link, ticket, out);
    }

    /// Links that are linked to a broker.
    #[must_use]
    pub fn links_up(&self) -> usize {
        self.registrations.links_up()
    }

    /// Whether a link is so far behind that logins and logouts should wait where they are.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.registrations.is_behind()
    }

    /// Whether a link has not taken over all it should.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.registrations.has_changes() || self.uplinks.has_changes()
    }

    /// Ends a turn: what was gathered gets its ticket, and each link that has changes gives a
    /// command to be sent on it, and one for each uplink it may forget or gets from another link. A
    /// command that could not be sent is given to [`keep`](Self::keep), before anything else
    /// happens.
    pub fn commands(&mut self) -> Vec<(usize, GatewayCommand)> {
        let mut commands = self.registrations.commands();
        commands.extend(self.uplinks.commands());
        commands
    }

    /// A command was not taken over, nor was any that the same turn gave to this link after it: it
    /// is offered again, or, if it is a user's message on its first way, refused.
    pub fn keep(&mut self, link: usize, command: GatewayCommand, out: &mut Vec<Notice>) {
        match command {
            GatewayCommand::Change { changes, tags, .. } => {
                self.registrations.keep(link, changes, tags);
            }
            GatewayCommand::Abandon { sequence } => self.uplinks.keep_abandoned(link, sequence),
            GatewayCommand::Uplink(uplink) => self.uplinks.not_taken(link, uplink, out),
            _ => {}
        }
    }

    /// A user's message on its way: the link to send it on and the command, or the answer if it
    /// can't be sent.
    pub fn uplink(
        &mut self,
        user: Registration,
        message: Outgoing,
        now_ms: u64,
        out: &mut Vec<Notice>,
    ) -> Option<(usize, GatewayCommand)> {
        self.uplinks.uplink(user, message, now_ms, out)
    }

    /// An uplink was answered on this link.
    pub fn answered(&mut self, link: usize, sequence: u64, code: ErrorCode, out: &mut Vec<Notice>) {
        self.uplinks.answered(link, sequence, code, out);
    }

    /// This link ends, and had not transmitted the uplink.
    pub fn not_transmitted(&mut self, link: usize, sequence: u64) {
        self.uplinks.not_transmitted(link, sequence);
    }

    /// Uplinks without an answer.
    #[must_use]
    pub fn uplinks_waiting(&self) -> usize {
        self.uplinks.len()
    }

    /// How many they are, those that links have yet to forget included, and their bytes.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn uplinks_load(&self) -> (usize, usize) {
        self.uplinks.load()
    }

    /// When [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.uplinks.deadline_ms()
    }

    /// Time has passed: uplinks that were not answered in time are of unknown fate (WS-9).
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Notice>) {
        self.uplinks.tick(now_ms, out);
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "upstream_tags_tests.rs"]
mod tags_tests;
