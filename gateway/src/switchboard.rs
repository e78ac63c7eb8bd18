//! Where hub and upstream meet: what connections ask and what links tell goes in, frames and words
//! go to the connections' queues, commands come out for the links. One task owns it.
//!
//! Synchronous and without a clock. Its calls never wait: a queue that is full ends its connection,
//! a link that is behind is offered its commands again.
//!
//! Never here: sockets, sessions, tokens.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{error, info, warn};
use waybill_client::gateway::{Delivery, GatewayCommand, GatewayEvent, Registration};
use waybill_wire::code::ErrorCode;

use crate::config::GatewayConfig;
use crate::fanout::Fanout;
use crate::hub::{Audience, ConnectionId, Hub};
use crate::subprotocol::Message;
use crate::telemetry::Telemetry;
use crate::transports::{NEVER, Outbox, Timed, Word};
use crate::upstream::{Notice, Outgoing, Upstream};

/// What a connection asks. Those of one connection arrive in order; its outbox names it.
#[derive(Debug)]
pub(crate) enum FromConnection {
    Login { registration: Registration, outbox: Arc<Outbox> },
    Logout { outbox: Arc<Outbox> },
    Uplink { outbox: Arc<Outbox>, id: u32, labels: Vec<String>, payload: Bytes },
}

pub(crate) struct Switchboard {
    hub: Hub<Entry>,
    upstream: Upstream,
    telemetry: Arc<Telemetry>,
    notices: Vec<Notice>,
    uplinks: Vec<(usize, GatewayCommand)>,
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
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let hub = Hub::new(config.hub_bounds(), salt);
        let upstream = Upstream::new(links, config.limits.uplinks_max, config.deadlines.uplink_ms);
        Self { hub, upstream, telemetry, notices: Vec::new(), uplinks: Vec::new() }
    }

    pub(crate) fn handle_connection(&mut self, event: FromConnection, now_ms: u64) {
        match event {
            FromConnection::Login { registration, outbox } => self.login(registration, &outbox),
            FromConnection::Logout { outbox } => {
                // Nothing there: the login was refused, or never came so far.
                let gone = self.hub.logout(outbox.connection());
                if let Some(registration) = gone.and_then(|(_, registration)| registration) {
                    self.upstream.unregister(registration);
                }
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

    fn login(&mut self, registration: Registration, outbox: &Arc<Outbox>) {
        self.telemetry.logins.add(1);
        let entry = Entry { outbox: Arc::clone(outbox), registration };
        match self.hub.login(registration, entry) {
            Ok((connection, first)) => {
                outbox.set_connection(connection);
                if first {
                    self.upstream.register(registration);
                }
                self.upstream.wait(connection, registration, &mut self.notices);
            }
            Err(refused) => outbox.say(Word::LoginRefused(refused)),
        }
    }

    pub(crate) fn handle_link(&mut self, link: usize, event: GatewayEvent, now_ms: u64) {
        match event {
            GatewayEvent::Delivery(delivery) => self.deliver(&delivery, now_ms),
            GatewayEvent::InEffect { ticket } => {
                self.upstream.in_effect(link, ticket, &mut self.notices);
            }
            GatewayEvent::UplinkAck { sequence, code } => {
                self.upstream.answered(sequence, code, &mut self.notices);
            }
            GatewayEvent::Up(welcomed) => {
                info!(link, broker = %welcomed.address, "link up");
                self.link_up(link);
            }
            GatewayEvent::Down { reason, retry_in } => {
                warn!(link, %reason, ?retry_in, "link down");
                self.telemetry.link_losses.add(1);
                self.upstream.link_down(link);
            }
            GatewayEvent::Failed(reason) => {
                error!(link, %reason, "link failed and is not tried again");
                self.telemetry.link_losses.add(1);
                self.upstream.link_failed(link);
            }
            // A broker's state concerns producers; what it has in effect is told by tickets.
            _ => {}
        }
        self.tell();
    }

    pub(crate) fn link_up(&mut self, link: usize) {
        self.upstream.link_up(link);
    }

    fn deliver(&mut self, delivery: &Delivery, now_ms: u64) {
        let message = delivery.message();
        self.telemetry.messages_in.add(1);
        // Narrower than its list, or only part of a payload: to guess would be to serve wrongly.
        if message.selector.is_some() || message.fragmented.is_some() {
            self.telemetry.messages_unsupported.add(1);
            return;
        }
        // Counted from here, where the link's events are taken: 0 is no limit (DEL-18).
        let expires_ms = match message.ttl_ms {
            0 => NEVER,
            ttl_ms => now_ms.saturating_add(ttl_ms.into()),
        };
        let id = (message.origin.unwrap_or(0), message.sequence);
        let sender = message.sender;
        let except_self = sender.filter(|_| message.except_self);
        let audience = Audience {
            namespace: message.namespace,
            everyone: message.everyone,
            listed: message.targets,
            except: message.except,
            except_self: except_self.map(|sender| (sender.uid, ConnectionId(sender.connection))),
        };
        let mut fanout = Fanout::new(Message {
            origin: id.0,
            sequence: id.1,
            content: message.content.map(|content| (content.content_type, content.encoding)),
            labels: message.labels.iter().collect(),
            sender: sender.map(|sender| sender.uid),
            payload: message.payload,
        });
        let tally = self.hub.deliver(id, &audience, |entry| {
            let bytes = fanout.frame(entry.outbox.subprotocol());
            entry.outbox.write(Timed { bytes, expires_ms });
        });
        self.telemetry.count(tally);
        self.telemetry.encodings.add(fanout.encodings());
    }

    pub(crate) fn tick(&mut self, now_ms: u64) {
        self.upstream.tick(now_ms, &mut self.notices);
        self.tell();
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.upstream.deadline_ms()
    }

    /// Whether connections should wait with what they ask.
    pub(crate) fn is_behind(&self) -> bool {
        self.upstream.is_behind()
    }

    /// Whether a link has not taken over all it should.
    pub(crate) fn has_changes(&self) -> bool {
        self.upstream.has_changes()
    }

    /// Ends a turn: what the links must be told, in order. One that a link does not take goes to
    /// [`not_taken`](Self::not_taken).
    pub(crate) fn commands(&mut self) -> Vec<(usize, GatewayCommand)> {
        self.telemetry.logged_in.set(self.hub.len());
        self.telemetry.users.set(self.hub.users());
        self.telemetry.links_up.set(self.upstream.links_up());
        let mut commands = self.upstream.commands();
        commands.append(&mut self.uplinks);
        commands
    }

    /// A link was behind and did not take a command.
    pub(crate) fn not_taken(&mut self, link: usize, command: GatewayCommand) {
        match command {
            GatewayCommand::Uplink(uplink) => {
                let code = ErrorCode::OVERLOADED;
                self.upstream.answered(uplink.sequence, code, &mut self.notices);
                self.tell();
            }
            changes => self.upstream.keep(link, changes),
        }
    }

    /// A link has ended for good.
    pub(crate) fn link_gone(&mut self, link: usize, command: GatewayCommand) {
        self.not_taken(link, command);
        self.upstream.link_failed(link);
    }

    fn tell(&mut self) {
        for notice in self.notices.drain(..) {
            match notice {
                Notice::Confirmed(connection) => {
                    if let Some(entry) = self.hub.confirm(connection) {
                        self.telemetry.readies.add(1);
                        entry.outbox.say(Word::Confirmed(connection));
                    }
                }
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
    }
}
