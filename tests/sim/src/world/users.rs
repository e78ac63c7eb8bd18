//! Users: they log in, move to another gateway, go with and without a word, stop reading, send.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use waybill_broker::LoginPolicy;
use waybill_gateway::auth::Grant;
use waybill_gateway::sim::{self, Conn, Said, ToClient};
use waybill_wire::code::CloseCode;

use super::gateways::{Gateway, SECRET, Stage};
use super::{Event, Work, World};
use crate::chance::Chance;
use crate::scenario::{MS, SECOND, Scenario};
use crate::wish::{TAGS, text_of};

/// One user with one device.
pub(super) struct User {
    namespace: u32,
    uid: u64,
    device_class: u8,
    login: u64,
    /// Tags of its token.
    tags: BTreeSet<u8>,
    /// Reads so slowly that its queue may overflow.
    slow: bool,
    /// When all is well again it does not come back.
    pub(super) away: bool,
    /// Another login of its user has won.
    pub(super) displaced: bool,
    pub(super) sockets: Vec<usize>,
}

/// One connection of a user to a gateway.
pub(super) struct Socket {
    pub(super) user: usize,
    pub(super) gateway: usize,
    pub(super) conn: Conn,
    /// The client's side is there.
    pub(super) open: bool,
    /// The gateway's side is there, as far as is known.
    pub(super) held: bool,
    pub(super) ready: bool,
    reading: bool,
    reads_at: Option<u64>,
    budget: usize,
    travelling: VecDeque<Bytes>,
    /// Arrived, and not read by the gateway.
    inbox: VecDeque<Bytes>,
    last_at: u64,
    sends: u32,
}

impl User {
    pub(super) fn new(chance: &mut Chance, scenario: &Scenario, number: usize) -> Self {
        Self {
            namespace: chance.between(0, 1).try_into().unwrap_or(0),
            uid: 1 + chance.below(scenario.uids),
            device_class: chance.between(0, 2).try_into().unwrap_or(0),
            login: number as u64,
            tags: (0..TAGS).filter(|_| scenario.tags && chance.one_in(3)).collect(),
            slow: scenario.slow_users && chance.one_in(4),
            away: chance.one_in(4),
            displaced: false,
            sockets: Vec::new(),
        }
    }

    /// Whether this login has to go when that one is there.
    pub(super) fn yields_to(&self, other: &Self, policy: LoginPolicy) -> bool {
        let contends = match policy {
            LoginPolicy::All => false,
            LoginPolicy::OnePerDeviceClass => self.device_class == other.device_class,
            LoginPolicy::One => true,
        };
        contends && !other.away && self.who() == other.who() && self.login < other.login
    }

    pub(super) fn who(&self) -> (u32, u64) {
        (self.namespace, self.uid)
    }
}

impl World {
    /// A user does something and thinks about the next.
    pub(super) fn user_acts(&mut self, user: usize) {
        if self.healing {
            return self.user_settles(user);
        }
        let live = self.live_socket(user);
        match (live, self.chance.below(12)) {
            (None, _) | (Some(_), 0) => self.log_in(user),
            (Some(socket), 1) => self.log_out(socket),
            (Some(socket), 2) => self.vanish(socket),
            (Some(socket), 3) if self.users[user].slow => self.stop_reading(socket),
            (Some(socket), 4..=7) => self.sends(socket),
            _ => {}
        }
        self.soon(4 * SECOND, Event::User { user });
    }

    fn live_socket(&self, user: usize) -> Option<usize> {
        self.users[user].sockets.iter().rev().copied().find(|at| self.sockets[*at].open)
    }

    /// While the cluster heals, everybody wants to be online once and to read.
    fn user_settles(&mut self, user: usize) {
        let mut open = self.users[user].sockets.clone();
        open.retain(|at| self.sockets[*at].open);
        let wanted = usize::from(!self.users[user].away);
        while open.len() > wanted {
            self.log_out(open.remove(0));
        }
        match open.first() {
            None if self.users[user].displaced && !self.may_stay(&self.users[user]) => {}
            None if self.users[user].away => {}
            None => self.log_in(user),
            Some(&socket) => {
                self.sockets[socket].budget = 64 << 10;
                self.sockets[socket].reading = true;
                self.read_soon(socket);
            }
        }
        self.soon(SECOND, Event::User { user });
    }

    fn log_in(&mut self, user: usize) {
        // One that drains upgrades nobody, but for those whose request it had read before.
        let read_before = self.chance.one_in(8);
        let takes = |it: &Gateway| match it.stage {
            Stage::Serving => it.process.runs(),
            Stage::Draining => it.process.runs() && read_before,
            Stage::Leaving => false,
        };
        let running = (0..self.gateways.len()).filter(|at| takes(&self.gateways[*at]));
        let running: Vec<usize> = running.collect();
        if running.is_empty() {
            return;
        }
        let gateway = running[self.chance.place(running.len())];
        let now = self.gateway_now(gateway);
        let conn = self.gateways[gateway].sim.connect(now);
        let number = self.sockets.len();
        let it = &self.users[user];
        let texts: Vec<String> = it.tags.iter().map(|tag| text_of(*tag)).collect();
        let tags: Vec<&str> = texts.iter().map(String::as_str).collect();
        let budget = if it.slow { 40 } else { 64 << 10 };
        let grant = Grant {
            namespace: it.namespace,
            uid: it.uid,
            device_class: it.device_class,
            login: it.login,
            tags: &tags,
            expires_at: now.unix_s + 3_600,
        };
        let who = (user, it.who(), it.tags.clone());
        let ready = (0..self.brokers.len()).filter(|broker| self.is_ready(*broker)).collect();
        let home = (gateway, self.gateways[gateway].incarnation);
        self.oracle.connects(number, who, home, ready);
        self.sockets.push(Socket {
            user,
            gateway,
            conn,
            open: true,
            held: true,
            ready: false,
            reading: true,
            reads_at: None,
            budget,
            travelling: VecDeque::new(),
            inbox: VecDeque::new(),
            last_at: 0,
            sends: 0,
        });
        self.users[user].sockets.push(number);
        self.gateways[gateway].sockets.push(number);
        self.note(|it| {
            format!("user {user} {:?} logs in at gateway {gateway}", it.users[user].who())
        });
        self.say(number, sim::login(SECRET.as_bytes(), grant));
        self.work.push_back(Work::Gateway(gateway));
    }

    /// A message of the client's goes out; empty is a Pong.
    fn say(&mut self, socket: usize, message: Bytes) {
        let at = self.arrival();
        let it = &mut self.sockets[socket];
        it.last_at = it.last_at.max(at);
        it.travelling.push_back(message);
        let at = it.last_at;
        self.schedule(at, Event::Said { socket });
    }

    pub(super) fn said(&mut self, socket: usize) {
        let it = &mut self.sockets[socket];
        if let Some(message) = it.travelling.pop_front() {
            it.inbox.push_back(message);
            let gateway = it.gateway;
            self.work.push_back(Work::Gateway(gateway));
        }
    }

    /// The gateway reads what came from a client.
    pub(super) fn hand_in(&mut self, socket: usize) {
        let (gateway, conn) = (self.sockets[socket].gateway, self.sockets[socket].conn);
        let now = self.gateway_now(gateway);
        while self.gateways[gateway].sim.is_read(conn)
            && let Some(message) = self.sockets[socket].inbox.pop_front()
        {
            if message.is_empty() {
                self.gateways[gateway].sim.heard(conn, now);
            } else {
                self.gateways[gateway].sim.from_client(conn, now, false, &message);
            }
            self.hand_commands(gateway);
        }
    }

    /// Finds who has something to read, and who was let go of.
    pub(super) fn look_at_sockets(&mut self, gateway: usize) {
        let now = self.gateway_now(gateway);
        let sockets = std::mem::take(&mut self.gateways[gateway].sockets);
        for &socket in &sockets {
            let conn = self.sockets[socket].conn;
            if !self.gateways[gateway].sim.is_connected(conn) {
                self.sockets[socket].held = false;
                self.goes(socket);
            } else if self.gateways[gateway].sim.waits(conn, now) {
                self.read_soon(socket);
            }
        }
        let kept = sockets.into_iter().filter(|at| self.sockets[*at].held).collect();
        self.gateways[gateway].sockets = kept;
    }

    fn read_soon(&mut self, socket: usize) {
        let it = &self.sockets[socket];
        if it.open && it.reading && it.reads_at.is_none() {
            let at = self.arrival();
            self.sockets[socket].reads_at = Some(at);
            self.schedule(at, Event::Reads { socket });
        }
    }

    /// The client's socket takes bytes.
    pub(super) fn reads(&mut self, socket: usize) {
        self.sockets[socket].reads_at = None;
        let Socket { gateway, conn, open, held, reading, budget, .. } = self.sockets[socket];
        if !(open && held && reading) {
            return;
        }
        if !self.gateways[gateway].process.runs() {
            self.sockets[socket].reads_at = Some(self.now + 50 * MS);
            return self.schedule(self.now + 50 * MS, Event::Reads { socket });
        }
        let now = self.gateway_now(gateway);
        let budget = self.chance.size(1, budget);
        let all = self.gateways[gateway].sim.to_client(conn, now, budget);
        for said in all {
            match said {
                ToClient::Message(bytes) => self.hears(socket, sim::read(&bytes)),
                ToClient::Ping => self.say(socket, Bytes::new()),
                ToClient::Close(code) => {
                    self.note(|it| {
                        let user = it.sockets[socket].user;
                        format!("user {user} is closed by gateway {gateway}: {code}")
                    });
                    self.users[self.sockets[socket].user].displaced |= code == CloseCode::DISPLACED;
                    self.goes(socket);
                    self.soon(100 * MS, Event::Hangs { socket });
                }
            }
        }
        self.work.push_back(Work::Gateway(gateway));
    }

    fn hears(&mut self, socket: usize, said: Said) {
        match said {
            Said::Ready { uid, namespace, .. } => {
                self.sockets[socket].ready = true;
                let who = self.users[self.sockets[socket].user].who();
                assert_eq!(who, (namespace, uid), "promise 1: ready as somebody else");
                let sure = self.sockets[socket].budget > 1_000;
                self.oracle.ready(socket, sure);
            }
            Said::Message { origin, sequence, payload, .. } => {
                self.oracle.receives(socket, (origin, sequence), &payload);
            }
            Said::Sent { id, code } => self.oracle.uplink_answered(socket, id, code),
            Said::Drain { reconnect_after_ms } if self.chance.one_in(2) => {
                self.soon(u64::from(reconnect_after_ms.max(1)) * MS, Event::Moves { socket });
            }
            Said::Pong | Said::Drain { .. } => {}
        }
    }

    /// The connection is of no use to its client any more.
    pub(super) fn goes(&mut self, socket: usize) {
        if std::mem::take(&mut self.sockets[socket].open) {
            self.oracle.goes(socket);
        }
    }

    /// A client was told to go, and goes elsewhere before it is closed.
    pub(super) fn moves(&mut self, socket: usize) {
        if self.sockets[socket].open {
            self.log_in(self.sockets[socket].user);
            self.log_out(socket);
        }
    }

    /// In good order.
    fn log_out(&mut self, socket: usize) {
        self.note(|it| format!("user {} logs out", it.sockets[socket].user));
        self.goes(socket);
        self.soon(50 * MS, Event::Hangs { socket });
    }

    /// Without a word: the gateway finds out late, or by itself.
    fn vanish(&mut self, socket: usize) {
        self.note(|it| format!("user {} vanishes", it.sockets[socket].user));
        self.goes(socket);
        if self.chance.one_in(2) {
            self.soon(5 * SECOND, Event::Hangs { socket });
        }
    }

    /// The gateway learns that the connection has ended.
    pub(super) fn hang_up(&mut self, socket: usize) {
        let Socket { gateway, conn, held, .. } = self.sockets[socket];
        if !held {
            return;
        }
        if self.gateways[gateway].process.paused {
            return self.soon(50 * MS, Event::Hangs { socket });
        }
        let now = self.gateway_now(gateway);
        self.gateways[gateway].sim.disconnect(conn, now);
        self.work.push_back(Work::Gateway(gateway));
    }

    fn stop_reading(&mut self, socket: usize) {
        let it = &mut self.sockets[socket];
        it.reading = !it.reading;
        self.oracle.socket_unsure(socket);
        self.read_soon(socket);
    }

    fn sends(&mut self, socket: usize) {
        if !self.sockets[socket].ready {
            return;
        }
        for _ in 0..self.chance.between(1, 4) {
            self.sends_one(socket);
        }
    }

    fn sends_one(&mut self, socket: usize) {
        self.sockets[socket].sends += 1;
        let id = self.sockets[socket].sends;
        let number = self.oracle.uplinks(socket, id);
        self.note(|it| format!("user {} sends {number}", it.sockets[socket].user));
        self.say(socket, sim::send(id, &number.to_le_bytes()));
    }

    /// So much, where sockets are small, that a link that has just died cannot take it.
    pub(super) fn everybody_sends(&mut self) {
        if !self.oracle.tight {
            return;
        }
        for _ in 0..12 {
            for user in 0..self.users.len() {
                if let Some(socket) = self.live_socket(user) {
                    self.sends(socket);
                }
            }
        }
    }

    /// A gateway was killed: its clients notice.
    pub(super) fn sockets_lost(&mut self, gateway: usize) {
        for socket in std::mem::take(&mut self.gateways[gateway].sockets) {
            self.sockets[socket].held = false;
            self.goes(socket);
        }
    }
}
