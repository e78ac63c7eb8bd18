//! Where hub and upstream meet: what connections ask and what links tell goes in, frames and words
//! go to the connections' queues, commands come out for the links. One task owns it.
//!
//! `handing.rs` is what a DELIVER does, `tagging.rs` a TAG, `parts.rs` how much of either at a
//! time.
//!
//! Synchronous and without a clock. Its calls never wait: a queue that is full ends its connection,
//! a link that is behind is offered its commands again.
//!
//! Never here: sockets, sessions, tokens.

mod handing;
mod parts;
mod tagging;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tracing::{error, info, warn};
use waybill_client::gateway::{GatewayCommand, GatewayEvent, Registration};
use waybill_wire::code::ErrorCode;

use self::parts::Parts;
use crate::config::GatewayConfig;
use crate::hub::{ConnectionId, Hub, LoginRefused};
use crate::reports::Reports;
use crate::telemetry::Telemetry;
use crate::transports::{Outbox, QueueShared, Word};
use crate::upstream::{Notice, Outgoing, Upstream};

/// What a connection asks. Those of one connection arrive in order; its outbox names it.
#[derive(Debug)]
pub(crate) enum FromConnection {
    Login { registration: Registration, tags: Box<[Box<str>]>, outbox: Arc<Outbox> },
    Logout { outbox: Arc<Outbox> },
    Uplink { outbox: Arc<Outbox>, id: u32, labels: Vec<String>, payload: Bytes },
}

impl FromConnection {
    /// Bytes of a message.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Uplink { labels, payload, .. } => {
                labels.iter().map(String::len).sum::<usize>() + payload.len()
            }
            _ => 0,
        }
    }
}

pub(crate) struct Switchboard {
    hub: Hub<Entry>,
    upstream: Upstream,
    reports: Reports,
    queues: Arc<QueueShared>,
    telemetry: Arc<Telemetry>,
    notices: Vec<Notice>,
    /// Connections that are confirmed next; more than a part of them came at once.
    confirmed: VecDeque<ConnectionId>,
    uplinks: Vec<(usize, GatewayCommand)>,
    parts: Parts,
}

/// When a link's event came off the socket.
#[derive(Clone, Copy)]
pub(crate) struct Arrived<'a> {
    /// Milliseconds it has been on its way since.
    pub(crate) waited_ms: u64,
    /// What the wall clock said, in microseconds since 1970; asked for traced messages only.
    pub(crate) wall_us: &'a dyn Fn() -> u64,
}

/// What the hub keeps per connection.
#[derive(Debug)]
pub(crate) struct Entry {
    outbox: Arc<Outbox>,
    registration: Registration,
}

impl Switchboard {
    /// A switchboard for `links` links, all down. `salt` as in [`Hub::new`].
    pub(crate) fn new(
        config: &GatewayConfig,
        links: usize,
        salt: u64,
        queues: Arc<QueueShared>,
    ) -> Self {
        let telemetry = Arc::clone(&queues.telemetry);
        let reports = Reports::new(config.report_bounds());
        let hub = Hub::new(config.hub_bounds(), salt);
        let upstream = Upstream::new(links, config.uplink_bounds());
        Self {
            hub,
            upstream,
            reports,
            queues,
            telemetry,
            notices: Vec::new(),
            confirmed: VecDeque::new(),
            uplinks: Vec::new(),
            parts: Parts::default(),
        }
    }

    pub(crate) fn handle_connection(&mut self, event: FromConnection, now_ms: u64) {
        match event {
            FromConnection::Login { registration, tags, outbox } => {
                self.login(registration, &tags, &outbox);
            }
            FromConnection::Logout { outbox } => {
                // Nothing there: the login was refused, or never came so far.
                let gone = self.hub.logout(outbox.connection());
                if let Some(registration) = gone.and_then(|(_, registration)| registration) {
                    self.upstream.unregister(registration);
                }
                self.declare();
            }
            FromConnection::Uplink { outbox, id, labels, payload } => {
                let connection = outbox.connection();
                let Some(entry) = self.hub.handle(connection) else { return };
                self.telemetry.uplinks.add(1);
                let message = Outgoing { connection, id, labels, payload };
                let user = entry.registration;
                let command = self.upstream.uplink(user, message, now_ms, &mut self.notices);
                self.uplinks.extend(command);
            }
        }
        self.tell();
    }

    fn login(&mut self, registration: Registration, tags: &[Box<str>], outbox: &Arc<Outbox>) {
        self.telemetry.logins.add(1);
        if let Some(winner) = self.upstream.displaced_by(registration) {
            return outbox.say(Word::LoginRefused(LoginRefused::Displaced(winner)));
        }
        let entry = Entry { outbox: Arc::clone(outbox), registration };
        match self.hub.login(registration, tags, entry) {
            Ok((connection, first)) => {
                outbox.set_connection(connection);
                if first {
                    self.upstream.register(registration);
                }
                self.declare();
                let tags = self.hub.tags_of(connection);
                self.upstream.wait(connection, registration, tags, &mut self.notices);
            }
            Err(refused) => outbox.say(Word::LoginRefused(refused)),
        }
    }

    /// Tags that have come or gone since are told to the brokers.
    fn declare(&mut self) {
        for update in self.hub.take_tag_updates() {
            self.upstream.declare(update);
        }
    }

    /// What a link says. Not to be called while it [is held](Self::is_held): then all that it was
    /// held for is done first, however long that takes.
    pub(crate) fn handle_link(
        &mut self,
        link: usize,
        event: GatewayEvent,
        at: Arrived<'_>,
        now_ms: u64,
    ) {
        self.finish(link, now_ms);
        match event {
            GatewayEvent::Delivery(delivery) => self.deliver(link, delivery, at, now_ms),
            GatewayEvent::Tagging(tagging) => self.tag(link, tagging, now_ms),
            GatewayEvent::TagsNotKept { code, version } => {
                warn!(link, %code, version, "the broker does not keep all tags");
                self.telemetry.tags_not_kept.add(1);
            }
            GatewayEvent::Displaced { registration, winner } => {
                self.displaced(registration, winner);
            }
            GatewayEvent::InEffect { ticket } => {
                self.upstream.in_effect(link, ticket, &mut self.notices);
                self.reports.in_effect(link, ticket);
            }
            GatewayEvent::UplinkAck { sequence, code } => {
                self.upstream.answered(link, sequence, code, &mut self.notices);
            }
            GatewayEvent::UplinkLost { sequence, transmitted: false } => {
                self.upstream.not_transmitted(link, sequence);
            }
            GatewayEvent::Up(welcomed) => {
                info!(link, broker = %welcomed.address, "link up");
                self.link_up(link);
            }
            GatewayEvent::Restored { gap, resumed } => self.telemetry.restored(link, gap, resumed),
            GatewayEvent::Down { reason, retry_in } => {
                warn!(link, %reason, ?retry_in, "link down");
                self.telemetry.link_losses.add(1);
                self.forget(link);
                self.upstream.link_down(link, &mut self.notices);
            }
            GatewayEvent::Failed(reason) => {
                match reason.code() {
                    Some(ErrorCode::SUPERSEDED) => info!(link, %reason, "link ends"),
                    _ => error!(link, %reason, "link failed and is not tried again"),
                }
                self.telemetry.link_losses.add(1);
                self.forget(link);
                self.upstream.link_failed(link, &mut self.notices);
            }
            // A broker's state concerns producers; what it has in effect is told by tickets.
            _ => {}
        }
        self.tell();
    }

    /// A login lost against a higher number: exactly its connections go, and the registration with
    /// them. Both brokers tell it; the second finds nobody.
    fn displaced(&mut self, registration: Registration, winner: u64) {
        let losers: Vec<ConnectionId> = self.hub.holders(registration).collect();
        for connection in &losers {
            if let Some((entry, _)) = self.hub.logout(*connection) {
                self.telemetry.displaced.add(1);
                entry.outbox.say(Word::Displaced { winner });
            }
        }
        if !losers.is_empty() {
            self.upstream.displace(registration, winner);
            self.declare();
        }
    }

    #[cfg(test)]
    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    pub(crate) fn link_up(&mut self, link: usize) {
        self.upstream.link_up(link);
    }

    pub(crate) fn tick(&mut self, now_ms: u64) {
        self.upstream.tick(now_ms, &mut self.notices);
        self.collect();
        self.reports.tick(now_ms);
        self.tell();
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.upstream.deadline_ms().into_iter().chain(self.reports.deadline_ms()).min()
    }

    /// Whether connections should wait with what they ask.
    pub(crate) fn is_behind(&self) -> bool {
        self.upstream.is_behind()
    }

    /// Whether a link has not taken over all it should.
    pub(crate) fn has_changes(&self) -> bool {
        self.upstream.has_changes() || self.reports.is_ready()
    }

    /// Ends a turn: what the links must be told, in order. One that a link does not take goes to
    /// [`not_taken`](Self::not_taken).
    pub(crate) fn commands(&mut self) -> Vec<(usize, GatewayCommand)> {
        self.parts.turn_ends();
        self.telemetry.logged_in.set(self.hub.len());
        self.telemetry.users.set(self.hub.users());
        self.telemetry.tags.set(self.hub.tags());
        self.telemetry.links_up.set(self.upstream.links_up());
        self.collect();
        let mut commands = self.upstream.commands();
        commands.append(&mut self.uplinks);
        while let Some((link, report)) = self.reports.pop() {
            commands.push((link, GatewayCommand::Report(report)));
        }
        let counts = self.reports.counts();
        self.telemetry.reports_asked.set(counts.asked);
        self.telemetry.reports_lost.set(counts.lost);
        self.telemetry.reports.set(counts.told);
        self.telemetry.reports_waiting.set(self.reports.waiting());
        self.telemetry.reports_untracked.set(counts.untracked);
        commands
    }

    /// Takes over what connections say became of messages.
    fn collect(&mut self) {
        let settled = self.queues.settled.take();
        for (ticket, time_us) in self.queues.settled.take_times() {
            self.reports.passed(ticket, time_us);
        }
        for (ticket, outcome) in settled {
            self.reports.settle(ticket, outcome);
        }
    }

    /// A link was behind and did not take a command.
    pub(crate) fn not_taken(&mut self, link: usize, command: GatewayCommand) {
        match command {
            GatewayCommand::Report(report) => self.reports.put_back(link, report),
            command => {
                self.upstream.keep(link, command, &mut self.notices);
                self.tell();
            }
        }
    }

    /// A broker more; see [`Upstream::add_link`].
    pub(crate) fn add_link(&mut self) -> usize {
        self.upstream.add_link()
    }

    /// See [`Load`](crate::sim::Load).
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn load(&self) -> crate::sim::Load {
        let (uplinks, uplink_bytes) = self.upstream.uplinks_load();
        let (recent, recent_uids) = self.hub.remembered();
        let (reports, (past, past_users)) = (self.reports.load(), self.reports.past());
        crate::sim::Load { uplinks, uplink_bytes, reports, recent, recent_uids, past, past_users }
    }

    /// See [`Upstream::is_covered_without`].
    pub(crate) fn is_covered_without(&self, link: usize) -> bool {
        self.upstream.is_covered_without(link)
    }

    /// See [`Upstream::retire_link`].
    pub(crate) fn retire_link(&mut self, link: usize) {
        self.upstream.retire_link(link);
    }

    /// A link has ended for good and its number is free.
    pub(crate) fn link_gone(&mut self, link: usize) {
        self.forget(link);
        self.upstream.link_gone(link, &mut self.notices);
        self.tell();
    }

    /// A link has ended for good and did not take these commands: all that the turn had for it.
    pub(crate) fn link_closed(&mut self, link: usize, commands: Vec<GatewayCommand>) {
        for command in commands {
            if let GatewayCommand::Uplink(uplink) = command {
                self.upstream.not_transmitted(link, uplink.sequence);
            }
        }
        self.forget(link);
        self.upstream.link_failed(link, &mut self.notices);
        self.tell();
    }

    /// A link is gone, and what it had not been given yet was not transmitted.
    fn forget(&mut self, link: usize) {
        self.reports.link_down(link);
        for (_, command) in self.uplinks.extract_if(.., |(at, _)| *at == link) {
            if let GatewayCommand::Uplink(uplink) = command {
                self.upstream.not_transmitted(link, uplink.sequence);
            }
        }
    }

    /// Whether all of a connection is in effect that is confirmed. If TAG gave it another tag while
    /// it waited, it waits for that too (REG-6).
    fn is_covered(&mut self, connection: ConnectionId) -> bool {
        let Some(entry) = self.hub.handle(connection) else { return false };
        let mut due = Vec::new();
        let tags = self.hub.tags_of(connection);
        self.upstream.wait(connection, entry.registration, tags, &mut due);
        !due.is_empty()
    }

    fn tell(&mut self) {
        self.telemetry.uplinks_waiting.set(self.upstream.uplinks_waiting());
        for notice in std::mem::take(&mut self.notices) {
            match notice {
                Notice::Confirmed(connection) => self.confirmed.push_back(connection),
                Notice::Answered { connection, id, code } => {
                    let counter = match code.0 {
                        0 => &self.telemetry.uplinks_accepted,
                        _ => &self.telemetry.uplinks_refused,
                    };
                    counter.add(1);
                    if let Some(entry) = self.hub.handle(connection) {
                        entry.outbox.say(Word::Answered { id, code });
                    }
                }
            }
        }
        self.confirm();
    }

    /// As many of those that are confirmed as this turn has room for.
    fn confirm(&mut self) {
        while !self.is_spent()
            && let Some(connection) = self.confirmed.pop_front()
        {
            self.parts.spend(1);
            if self.is_covered(connection)
                && let Some(entry) = self.hub.confirm(connection)
            {
                self.telemetry.readies.add(1);
                entry.outbox.say(Word::Confirmed(connection));
            }
        }
    }
}
