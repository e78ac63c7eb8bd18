//! The gateway without sockets, tasks and clock, for a simulator: the real switchboard (hub,
//! upstream, fanout, memory of recent messages), and for each connection the real session and
//! queue. Only WebSocket framing of what clients say is left out.
//!
//! Everything is synchronous. The simulator owns time and all connections' and links' bytes:
//!
//! ```no_run
//! use waybill_gateway::auth::Grant;
//! use waybill_gateway::session::Now;
//! use waybill_gateway::sim::{self, SimGateway, ToClient};
//! # fn broker_takes(_: usize, _: &waybill_client::gateway::GatewayCommand) -> bool { true }
//!
//! let mut config = waybill_gateway::GatewayConfig::default();
//! config.jwt.secret = "0123456789abcdef0123456789abcdef".into();
//! // A link per address of the config, all down.
//! let mut gateway = SimGateway::new(&config, 0x5a17);
//! let now = Now { ms: 0, unix_s: 1_800_000_000 };
//! let conn = gateway.connect(now);
//! let expires_at = now.unix_s + 3600;
//! let grant = Grant { namespace: 0, uid: 1001, device_class: 0, login: 0, tags: &[], expires_at };
//! let login = sim::login(config.jwt.secret.as_bytes(), grant);
//! gateway.from_client(conn, now, false, &login);
//! // After every call: what the links must be told.
//! for (link, command) in gateway.commands() {
//!     if !broker_takes(link, &command) {
//!         gateway.not_taken(link, command);
//!     }
//! }
//! // What the client's socket takes, here up to 4 KiB: nothing reaches a client otherwise.
//! for said in gateway.to_client(conn, now, 4096) {
//!     if let ToClient::Message(bytes) = said { let _ = sim::read(&bytes); }
//! }
//! ```
//!
//! Between two calls of [`to_client`](SimGateway::to_client) a client's socket takes nothing: what
//! waits counts against `limits.queue_bytes_max`, and a client that is not let read long enough is
//! closed as `slow_connection`. Connections speak the binary subprotocol.
//!
//! Never here: decisions of the gateway's. What is missing in here is missing in the product.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use waybill_client::gateway::{GatewayCommand, GatewayEvent};
use waybill_wire::code::{ClientMessage, CloseCode, ErrorCode};

use crate::auth::{Grant, Verifier, mint};
use crate::config::GatewayConfig;
use crate::hub::LoginRefused;
use crate::session::{Now, Session, SessionLimits};
use crate::shortage::Shortage;
use crate::subprotocol::Subprotocol;
use crate::switchboard::{Arrived, Switchboard};
use crate::telemetry::{GatewayStats, Telemetry};
use crate::transports::line::{Framing, Line};
use crate::transports::writer::SLICES_MAX;
use crate::transports::{Outbox, QueueShared, Word};

/// UIDs kept per message on average; when the lists are longer, fewer messages are remembered.
pub const UIDS_PER_MESSAGE: usize = crate::recent::UIDS_PER_MESSAGE;

/// What the tables of a gateway hold; each member is bounded by the setting it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// `uplinks_max`.
    pub uplinks: usize,
    /// `uplink_bytes_max`.
    pub uplink_bytes: usize,
    /// Twice `reports_max`: deliveries and users that wait, and reports that are made.
    pub reports: usize,
    /// `recent_messages_max`: ids by which a message is recognised that comes again.
    pub recent: usize,
    /// [`UIDS_PER_MESSAGE`] for each of these on average, or one list: UIDs kept with the ids.
    pub recent_uids: usize,
    /// `recent_messages_max`: deliveries that were reported on.
    pub past: usize,
    /// [`UIDS_PER_MESSAGE`] for each of these on average: their users.
    pub past_users: usize,
}

/// A client's connection; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// What a client's socket got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToClient {
    /// A message of the binary subprotocol; [`read`] says what it means.
    Message(Bytes),
    /// A WebSocket Ping. A client that lives answers by [`SimGateway::heard`].
    Ping,
    /// A close frame. Nothing follows; the client is expected to [`SimGateway::disconnect`].
    Close(CloseCode),
}

/// A message of the binary subprotocol to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the members are those of chapter 13.2")]
pub enum Said {
    Ready { uid: u64, namespace: u32, connection: u64 },
    Message { origin: u64, sequence: u64, sender: Option<u64>, payload: Bytes },
    Sent { id: u32, code: ErrorCode },
    Pong,
    Drain { reconnect_after_ms: u32 },
}

/// The gateway. Every method with `now` expects `now.ms` never to go back; `now.unix_s` may jump.
/// After every step the ledger is checked (promise 5); one that does not balance is a panic.
pub struct SimGateway {
    switchboard: Switchboard,
    verifier: Verifier,
    limits: Arc<SessionLimits>,
    connections_max: usize,
    drain_ms: Option<u64>,
    config_drain_ms: u64,
    telemetry: Arc<Telemetry>,
    queues: Arc<QueueShared>,
    lines: BTreeMap<Conn, Peer>,
    opened: u64,
}

struct Peer {
    line: Line<Frames>,
    /// Bytes the client has that are not a whole frame yet.
    partial: BytesMut,
}

impl SimGateway {
    /// A gateway with one link, down, for each of the configuration's broker addresses: link 0 is
    /// the first. `salt` is part of connection numbers and differs between gateways.
    ///
    /// # Panics
    ///
    /// If the configuration is not valid.
    #[must_use]
    pub fn new(config: &GatewayConfig, salt: u64) -> Self {
        config.validate().expect("the simulator's configuration is valid");
        let telemetry = Arc::<Telemetry>::default();
        let links = config.broker.addresses.len();
        let queues = Arc::new(QueueShared::new(&config.limits, Arc::clone(&telemetry)));
        Self {
            switchboard: Switchboard::new(config, links, salt, Arc::clone(&queues)),
            verifier: config.verifier(),
            limits: Arc::new(config.session_limits()),
            connections_max: config.limits.connections_max,
            drain_ms: None,
            config_drain_ms: config.deadlines.drain_ms,
            telemetry,
            queues,
            lines: BTreeMap::new(),
            opened: 0,
        }
    }

    /// A client has connected and was upgraded.
    pub fn connect(&mut self, now: Now) -> Conn {
        self.telemetry.upgrades.add(1);
        let subprotocol = Subprotocol::Binary;
        let session = Session::new(Arc::clone(&self.limits), subprotocol, now);
        let outbox = Arc::new(Outbox::new(subprotocol, Arc::clone(&self.queues)));
        if let Some(drain_ms) = self.drain_ms {
            outbox.say(Word::drain(usize::try_from(self.opened).unwrap_or(0), drain_ms));
        }
        let mut line = Line::new(Frames, session, outbox);
        if self.lines.len() >= self.connections_max {
            line.close(CloseCode::TOO_MANY, LoginRefused::Connections.reason().into(), now);
        }
        let conn = Conn(self.opened);
        self.opened += 1;
        self.lines.insert(conn, Peer { line, partial: BytesMut::new() });
        self.settle(now);
        conn
    }

    /// Whether the gateway still has the connection: it has neither been
    /// [disconnected](Self::disconnect) nor ended by the gateway, which ends one that does not
    /// answer its close frame within `deadlines.close_ms`.
    #[must_use]
    pub fn is_connected(&self, conn: Conn) -> bool {
        self.lines.contains_key(&conn)
    }

    /// Whether the gateway reads what this client sends: not while as many of its *send*s are
    /// unanswered as may be (WS-9). Bytes then stay with the simulator.
    #[must_use]
    pub fn is_read(&self, conn: Conn) -> bool {
        self.lines.get(&conn).is_some_and(|peer| peer.line.is_reading())
    }

    /// A whole message of the client's came. Not to be called unless it [is read](Self::is_read);
    /// ignored if the connection has gone.
    pub fn from_client(&mut self, conn: Conn, now: Now, is_text: bool, bytes: &Bytes) {
        if let Some(Peer { line, .. }) = self.lines.get_mut(&conn) {
            line.heard(now);
            line.message(is_text, bytes, &self.verifier, now);
        }
        self.settle(now);
    }

    /// Something came that is no message: a Pong, a part of a frame.
    pub fn heard(&mut self, conn: Conn, now: Now) {
        if let Some(Peer { line, .. }) = self.lines.get_mut(&conn) {
            line.heard(now);
        }
    }

    /// The socket takes up to `bytes_budget` bytes: what a client reads of them. A frame that was
    /// taken in part is told when the rest of it is; if the connection ends before, it is in doubt.
    pub fn to_client(&mut self, conn: Conn, now: Now, bytes_budget: usize) -> Vec<ToClient> {
        let Some(Peer { line, partial }) = self.lines.get_mut(&conn) else { return Vec::new() };
        line.take_from_hub(now);
        let mut left = bytes_budget;
        while line.wants_to_write(now.ms) {
            if left == 0 {
                line.blocked(now.ms);
                break;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = line.slices(&mut slices);
            let mut taken = 0;
            for slice in &slices[..filled] {
                let len = slice.len().min(left - taken);
                partial.extend_from_slice(&slice[..len]);
                taken += len;
            }
            left -= taken;
            line.written(taken, || wall_us(now));
        }
        let said = std::iter::from_fn(|| deframe(partial)).collect();
        self.settle(now);
        said
    }

    /// Bytes that wait to be written to this client, if it has any.
    #[must_use]
    pub fn waits(&mut self, conn: Conn, now: Now) -> bool {
        self.lines.get_mut(&conn).is_some_and(|peer| peer.line.wants_to_write(now.ms))
    }

    /// The client's close frame was read: it is not [disconnected](Self::disconnect) yet, but what
    /// has not begun to be written is not for it any more.
    pub fn closed_by_client(&mut self, conn: Conn, now: Now) {
        if let Some(Peer { line, .. }) = self.lines.get_mut(&conn) {
            line.closed_by_client(now);
        }
        self.settle(now);
    }

    /// The socket has ended, whoever ended it: an orderly close that both have said, or a reset.
    pub fn disconnect(&mut self, conn: Conn, now: Now) {
        if let Some(Peer { line, .. }) = self.lines.get_mut(&conn) {
            line.lost(now);
        }
        self.settle(now);
        self.lines.remove(&conn);
        self.check();
    }

    /// Whether this link says nothing now: what it said last is not done yet.
    #[must_use]
    pub fn is_held(&self, link: usize) -> bool {
        self.switchboard.is_held(link)
    }

    /// Whether [`go_on`](Self::go_on) has something to do. To be asked after each other call.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.switchboard.is_unfinished()
    }

    /// Does another part of what links have said. The link that is not [held](Self::is_held) any
    /// more, if there is one.
    pub fn go_on(&mut self, now: Now) -> Option<usize> {
        let freed = self.switchboard.go_on(now.ms);
        self.settle(now);
        freed
    }

    /// As if so few connections, or changes of tags, were as many as are met in one part.
    pub fn set_part(&mut self, size: usize) {
        self.switchboard.set_part(size);
    }

    /// A link says something; `link` as in [`commands`](Self::commands). `now` is when it said it:
    /// the time to live of a message counts from here. Not to be called while the link
    /// [is held](Self::is_held).
    pub fn link_event(&mut self, link: usize, event: GatewayEvent, now: Now) {
        let at = Arrived { waited_ms: 0, wall_us: &|| wall_us(now) };
        self.switchboard.handle_link(link, event, at, now.ms);
        self.settle(now);
    }

    /// What each link must be told, in order. To be called after every other call, and each command
    /// handed to its link or given to [`not_taken`](Self::not_taken) before the next one.
    pub fn commands(&mut self) -> Vec<(usize, GatewayCommand)> {
        let commands = self.switchboard.commands();
        self.check();
        commands
    }

    /// The link had no room for the command; registrations are offered again, the rest is answered.
    pub fn not_taken(&mut self, link: usize, command: GatewayCommand) {
        self.switchboard.not_taken(link, command);
    }

    /// The link has ended for good and took nothing.
    pub fn link_gone(&mut self, link: usize, command: GatewayCommand) {
        self.switchboard.link_closed(link, vec![command]);
    }

    /// Whether a link was behind: then commands should be asked for again soon.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.switchboard.has_changes()
    }

    /// The gateway is told to stop: every client is sent away within `deadlines.drain_ms`. When no
    /// connection [is left](Self::connections) the simulator closes the links.
    pub fn drain(&mut self, now: Now) {
        self.drain_ms = Some(self.config_drain_ms);
        for (conn, peer) in &self.lines {
            let key = usize::try_from(conn.0).unwrap_or(0);
            peer.line.outbox().say(Word::drain(key, self.config_drain_ms));
        }
        self.settle(now);
    }

    /// Time has passed. To be called at [`deadline`](Self::deadline) at the latest; earlier does no
    /// harm.
    pub fn tick(&mut self, now: Now) {
        self.switchboard.tick(now.ms);
        for peer in self.lines.values_mut().filter(|peer| peer.line.deadline_ms() <= now.ms) {
            peer.line.tick(now);
        }
        self.settle(now);
    }

    /// When [`tick`](Self::tick) has something to do, in milliseconds of `now.ms`.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let lines = self.lines.values().map(|peer| peer.line.deadline_ms());
        lines.chain(self.switchboard.deadline_ms()).min()
    }

    /// Connections there are, in order of their opening.
    pub fn connections(&self) -> impl Iterator<Item = Conn> {
        self.lines.keys().copied()
    }

    /// The counters now, with the ledger.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        self.telemetry.snapshot(self.lines.len(), self.queues.pool.held())
    }

    /// The most bytes that wait for one connection: at most `limits.queue_bytes_max` and what was
    /// put there last, a message or an answer.
    #[must_use]
    pub fn queue_bytes_most(&self) -> usize {
        let waiting = self.lines.values().map(|peer| peer.line.outbox().waiting_bytes());
        waiting.max().unwrap_or(0)
    }

    /// What the tables of the switchboard hold.
    #[must_use]
    pub fn load(&self) -> Load {
        self.switchboard.load()
    }

    /// What connections owe the hub goes there, and what the hub says to sessions is heard, until
    /// nobody has anything to say: as if each task were polled once it is woken.
    fn settle(&mut self, now: Now) {
        let mut shortage = Shortage::new(now.ms);
        while self.pass_on(now) || self.relieve(&mut shortage) {}
        self.lines.retain(|_, peer| !peer.line.is_aborted());
        debug_assert!(!self.queues.pressure.is_on(), "every queue has been looked at");
        self.check();
    }

    /// Whether anybody had anything to say.
    fn pass_on(&mut self, now: Now) -> bool {
        let mut progress = false;
        for peer in self.lines.values_mut() {
            progress |= peer.line.take_from_hub(now);
            while let Some(event) = peer.line.pop_to_hub() {
                self.switchboard.handle_connection(event, now.ms);
                progress = true;
            }
            // Nothing is taken by the socket but in `to_client`.
            if peer.line.wants_to_write(now.ms) {
                peer.line.blocked(now.ms);
            }
        }
        progress
    }

    /// Whether somebody has to go because too much is held. A step takes no time in which it could
    /// be waited for those who have just got on.
    fn relieve(&mut self, shortage: &mut Shortage) -> bool {
        if !self.queues.pool.is_over() {
            return false;
        }
        let outboxes: Vec<_> = self.lines.values().map(|peer| peer.line.outbox()).collect();
        if shortage.from().is_some() {
            let stuck = outboxes.iter().map(|outbox| outbox.stuck()).enumerate();
            stuck.for_each(|(key, stuck)| stuck.iter().for_each(|it| shortage.note(*it, key)));
            shortage.looked(outboxes.len(), true);
        }
        while !shortage.rank() {}
        let part = shortage.next_part(&self.queues.pool);
        let still = part.into_iter().filter_map(|key| {
            let stuck = outboxes[key].stuck()?;
            outboxes[key].send_away();
            Some(stuck.bytes)
        });
        let bytes = still.sum();
        shortage.told(bytes);
        !shortage.is_waiting
    }

    /// Promise 5, at every step: here nothing happens between two counters.
    fn check(&self) {
        assert_eq!(self.telemetry.ledger_at_rest().balances(), Ok(()), "promise 5");
    }
}

impl std::fmt::Debug for SimGateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimGateway").field("connections", &self.lines.len()).finish_non_exhaustive()
    }
}

/// A simulator's wall clock has the seconds of `unix_s` and the milliseconds of `ms`.
fn wall_us(now: Now) -> u64 {
    now.unix_s * 1_000_000 + now.ms % 1000 * 1000
}

/// Control frames as the library writes them.
struct Frames;

impl Framing for Frames {
    fn ping(&mut self) -> Vec<u8> {
        vec![PING, 0]
    }

    fn close(&mut self, code: CloseCode, reason: &str) -> Vec<u8> {
        let len = u8::try_from(2 + reason.len()).expect("a reason has at most 123 bytes");
        [&[CLOSE, len][..], &code.0.to_be_bytes(), reason.as_bytes()].concat()
    }
}

/// FIN and the opcodes of RFC 6455, 5.2.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// Takes one whole frame off the front.
fn deframe(bytes: &mut BytesMut) -> Option<ToClient> {
    let (len, header) = match *bytes.get(1)? {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (short.into(), 2),
    };
    let len = usize::try_from(len).ok()?;
    if bytes.len() < header + len {
        return None;
    }
    let opcode = bytes[0];
    bytes.advance(header);
    let payload = bytes.split_to(len).freeze();
    Some(match opcode {
        BINARY => ToClient::Message(payload),
        PING => ToClient::Ping,
        CLOSE => ToClient::Close(CloseCode(u16::from_be_bytes([payload[0], payload[1]]))),
        other => unreachable!("a gateway writes no frame of {other:#x}"),
    })
}

/// What a message of the binary subprotocol to a client says.
///
/// # Panics
///
/// If it is none that a gateway writes.
#[must_use]
pub fn read(message: &Bytes) -> Said {
    let mut bytes = message.clone();
    match ClientMessage(bytes.get_u8()) {
        ClientMessage::READY => {
            bytes.advance(7);
            let (uid, connection) = (bytes.get_u64_le(), bytes.get_u64_le());
            Said::Ready { uid, namespace: bytes.get_u32_le(), connection }
        }
        ClientMessage::MESSAGE => {
            let (flags, labels) = (bytes.get_u8(), bytes.get_u8());
            bytes.advance(5);
            let (origin, sequence) = (bytes.get_u64_le(), bytes.get_u64_le());
            let sender = (flags & 1 != 0).then(|| bytes.get_u64_le());
            for _ in 0..labels {
                let len = bytes.get_u8();
                bytes.advance(len.into());
            }
            Said::Message { origin, sequence, sender, payload: bytes }
        }
        ClientMessage::SENT => {
            bytes.advance(1);
            let code = ErrorCode(bytes.get_u16_le());
            Said::Sent { code, id: bytes.get_u32_le() }
        }
        ClientMessage::PONG => Said::Pong,
        ClientMessage::DRAIN => {
            bytes.advance(3);
            Said::Drain { reconnect_after_ms: bytes.get_u32_le() }
        }
        other => panic!("a gateway writes no message {other:?}"),
    }
}

/// A user's LOGIN with a token signed by this secret.
///
/// # Panics
///
/// Never: a token is shorter than 64 KiB.
#[must_use]
pub fn login(secret: &[u8], grant: Grant<'_>) -> Bytes {
    let token = mint(secret, grant);
    let len = u16::try_from(token.len()).expect("a token is short");
    [&[ClientMessage::LOGIN.0, 0][..], &len.to_le_bytes(), token.as_bytes()].concat().into()
}

/// A SEND of this id, without labels.
#[must_use]
pub fn send(id: u32, payload: &[u8]) -> Bytes {
    [&[ClientMessage::SEND.0, 0, 0, 0][..], &id.to_le_bytes(), payload].concat().into()
}

#[cfg(test)]
#[path = "sim_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sim_memory_tests.rs"]
mod memory_tests;

#[cfg(test)]
#[path = "sim_parts_tests.rs"]
mod parts_tests;
