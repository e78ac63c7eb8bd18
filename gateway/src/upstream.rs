//! What the gateway owes its brokers and what it waits for from them, as a pure machine: one link per
//! broker, each told the same changes; a login is confirmed by the first of them.
//!
//! ```text
//! register --> changes of the turn's ticket --> command --> InEffect{ticket or later} --> Confirmed
//! uplink   --> Waiting{deadline}            --> command --> UplinkAck or deadline     --> Answered
//! ```
//!
//! A link that is down confirms nothing; logins wait, users that are ready stay. What a link could
//! not take over is kept and offered again with what has come since. How long a login waits is its
//! session's affair; one that has gone is confirmed to nobody.
//!
//! A user's uplinks stay on one link for as long as one of them is unanswered there (promise 2): a
//! link that comes back takes its users over one by one. An uplink whose deadline has passed is
//! abandoned at its link too, whose room it would else hold for ever.
//!
//! Invariant: `paths` counts exactly those of `uplinks` that have a link.
//!
//! Never here: the links themselves, a clock, a random source.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use waybill_client::gateway::{Change, GatewayCommand, Registration, Uplink};
use waybill_wire::code::{ErrorCode, Op};

use crate::hub::ConnectionId;

/// Changes one link may be behind with before no more logins and logouts should be taken in.
pub const BEHIND_MAX: usize = 1 << 16;

/// What a connection must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Its registration is in effect at a broker.
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

/// The machine.
#[derive(Debug)]
pub struct Upstream {
    links: Vec<Link>,
    uplinks_max: usize,
    uplink_ms: u64,
    /// Ticket of the changes being gathered; those below have been offered to the links.
    ticket: u64,
    gathered: bool,
    /// The ticket each standing registration was made by. Kept after its confirmation: the broker
    /// that confirmed it may be lost while another is still behind.
    registered: HashMap<Registration, u64>,
    /// Logins that wait for a ticket.
    waiting: BTreeMap<u64, Vec<ConnectionId>>,
    sequence: u64,
    /// Sequence -> who waits. Deadlines rise with sequences.
    uplinks: BTreeMap<u64, Waiting>,
    /// Where the unanswered uplinks of each user are.
    paths: HashMap<User, Path>,
    /// Links and sequences nobody waits for any more, to be told.
    abandoned: Vec<(usize, u64)>,
}

/// Namespace and UID.
type User = (u32, u64);

#[derive(Debug)]
struct Path {
    link: usize,
    unanswered: usize,
}

#[derive(Debug, Default)]
struct Link {
    up: bool,
    /// Highest ticket in effect since the link came up.
    in_effect: Option<u64>,
    /// Not yet taken over by the link, the latest for each registration.
    changes: BTreeMap<Registration, Op>,
}

#[derive(Debug)]
struct Waiting {
    connection: ConnectionId,
    id: u32,
    until_ms: u64,
    user: User,
    /// `None` once the link has ended: the answer comes from this side of it, or never.
    link: Option<usize>,
}

impl Upstream {
    /// A machine for this many links, all down. `uplinks_max` bounds the uplinks without an answer,
    /// each of which waits `uplink_ms`.
    #[must_use]
    pub fn new(links: usize, uplinks_max: usize, uplink_ms: u64) -> Self {
        Self {
            links: std::iter::repeat_with(Link::default).take(links).collect(),
            uplinks_max,
            uplink_ms,
            ticket: 1,
            gathered: false,
            registered: HashMap::new(),
            waiting: BTreeMap::new(),
            sequence: 0,
            uplinks: BTreeMap::new(),
            paths: HashMap::new(),
            abandoned: Vec::new(),
        }
    }

    /// A registration is the first of its kind here: tell the brokers.
    pub fn register(&mut self, registration: Registration) {
        self.gather(registration, Op::ADD);
        self.registered.insert(registration, self.ticket);
    }

    /// A registration has no connection left: tell the brokers.
    pub fn unregister(&mut self, registration: Registration) {
        self.gather(registration, Op::REMOVE);
        self.registered.remove(&registration);
    }

    fn gather(&mut self, registration: Registration, op: Op) {
        self.gathered = true;
        for link in &mut self.links {
            link.changes.insert(registration, op);
        }
    }

    /// A connection waits for its registration; it is confirmed at once if a broker has done so.
    pub fn wait(
        &mut self,
        connection: ConnectionId,
        registration: Registration,
        out: &mut Vec<Notice>,
    ) {
        let ticket = self.registered.get(&registration).copied().unwrap_or(self.ticket);
        if self.confirmed() >= Some(ticket) {
            out.push(Notice::Confirmed(connection));
        } else {
            self.waiting.entry(ticket).or_default().push(connection);
        }
    }

    /// The highest ticket in effect at any broker that is linked.
    fn confirmed(&self) -> Option<u64> {
        self.links.iter().filter_map(|link| link.in_effect).max()
    }

    /// A link has come up; it has confirmed nothing yet.
    pub fn link_up(&mut self, link: usize) {
        self.links[link].up = true;
        self.links[link].in_effect = None;
    }

    /// A link is gone. Its uplinks are answered by whoever runs the link.
    pub fn link_down(&mut self, link: usize) {
        self.links[link].up = false;
        self.links[link].in_effect = None;
        for waiting in self.uplinks.values_mut().filter(|waiting| waiting.link == Some(link)) {
            waiting.link = None;
        }
        self.paths.retain(|_, path| path.link != link);
        self.abandoned.retain(|(at, _)| *at != link);
    }

    /// Everything up to this ticket is in effect at this link's broker.
    pub fn in_effect(&mut self, link: usize, ticket: u64, out: &mut Vec<Notice>) {
        self.links[link].in_effect = Some(ticket);
        let later = self.waiting.split_off(&ticket.saturating_add(1));
        let done = std::mem::replace(&mut self.waiting, later);
        out.extend(done.into_values().flatten().map(Notice::Confirmed));
    }

    /// Links that are linked to a broker.
    #[must_use]
    pub fn links_up(&self) -> usize {
        self.links.iter().filter(|link| link.up).count()
    }

    /// Whether a link is so far behind that logins and logouts should wait where they are.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.links.iter().any(|link| link.changes.len() >= BEHIND_MAX)
    }

    /// Whether a link has not taken over all it should.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.abandoned.is_empty() || self.links.iter().any(|link| !link.changes.is_empty())
    }

    /// Ends a turn: what was gathered gets its ticket, and each link that has changes gives a
    /// command to be sent on it, and one for each uplink it may forget. A command that could not be
    /// sent is given to [`keep`](Self::keep), before anything else happens.
    pub fn commands(&mut self) -> Vec<(usize, GatewayCommand)> {
        if std::mem::take(&mut self.gathered) {
            self.ticket += 1;
        }
        // With nothing gathered, what a link was behind with belongs to the ticket before.
        let ticket = self.ticket - 1;
        let behind = self.links.iter_mut().enumerate().filter(|(_, link)| !link.changes.is_empty());
        let changes = behind.map(|(number, link)| {
            let changes = std::mem::take(&mut link.changes);
            let changes = changes.into_iter().map(|(registration, op)| Change { op, registration });
            (number, GatewayCommand::Change { ticket, changes: changes.collect() })
        });
        let abandoned = self.abandoned.drain(..);
        let abandoned =
            abandoned.map(|(link, sequence)| (link, GatewayCommand::Abandon { sequence }));
        changes.chain(abandoned).collect()
    }

    /// A command of [`commands`](Self::commands) was not taken over: it is offered again.
    pub fn keep(&mut self, link: usize, command: GatewayCommand) {
        match command {
            GatewayCommand::Change { changes, .. } => {
                let kept = &mut self.links[link].changes;
                debug_assert!(kept.is_empty(), "nothing is gathered between commands and keep");
                kept.extend(changes.into_iter().map(|change| (change.registration, change.op)));
            }
            GatewayCommand::Abandon { sequence } => self.abandoned.push((link, sequence)),
            _ => {}
        }
    }

    /// A link will never work again: nothing is kept for it.
    pub fn link_failed(&mut self, link: usize) {
        self.link_down(link);
        self.links[link].changes.clear();
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
        let Outgoing { connection, id, labels, payload } = message;
        let refuse = |code| Notice::Answered { connection, id, code };
        let Some(link) = self.link_of(user) else {
            out.push(refuse(ErrorCode::NO_CONSUMER));
            return None;
        };
        if self.uplinks.len() + self.abandoned.len() >= self.uplinks_max {
            out.push(refuse(ErrorCode::OVERLOADED));
            return None;
        }
        self.sequence += 1;
        let until_ms = now_ms.saturating_add(self.uplink_ms);
        let key = (user.namespace, user.uid);
        self.paths.entry(key).or_insert(Path { link, unanswered: 0 }).unanswered += 1;
        let waiting = Waiting { connection, id, until_ms, user: key, link: Some(link) };
        self.uplinks.insert(self.sequence, waiting);
        let uplink = Uplink {
            sequence: self.sequence,
            namespace: user.namespace,
            uid: user.uid,
            connection: connection.0,
            resend: false,
            labels,
            content: None,
            payload,
        };
        Some((link, GatewayCommand::Uplink(uplink)))
    }

    /// The link for a user's messages: the one that has unanswered ones of theirs, else one that is
    /// the same as long as the same links are up, so that they stay in order (promise 2).
    fn link_of(&self, user: Registration) -> Option<usize> {
        if let Some(path) = self.paths.get(&(user.namespace, user.uid)) {
            debug_assert!(self.links[path.link].up, "the paths of a link end with it");
            return Some(path.link);
        }
        let up = self.links.iter().enumerate().filter(|(_, link)| link.up);
        let weight = |link: usize| {
            let mixed = (user.uid ^ u64::from(user.namespace).rotate_left(32))
                .wrapping_add(link as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ mixed >> 32
        };
        up.max_by_key(|(number, _)| weight(*number)).map(|(number, _)| number)
    }

    /// An uplink was answered, by a broker or because its link could not take it.
    pub fn answered(&mut self, sequence: u64, code: ErrorCode, out: &mut Vec<Notice>) {
        // Absent: its deadline had passed, and its user has been told.
        if let Some(waiting) = self.uplinks.remove(&sequence) {
            self.settle(&waiting, code, out);
        }
    }

    /// An uplink that does not wait any more: its user is told, and may take another link once
    /// nothing of theirs is left on this one.
    fn settle(&mut self, waiting: &Waiting, code: ErrorCode, out: &mut Vec<Notice>) {
        let Waiting { connection, id, user, link, .. } = *waiting;
        if link.is_some()
            && let Entry::Occupied(mut path) = self.paths.entry(user)
        {
            debug_assert_eq!(Some(path.get().link), link, "a user has one path at a time");
            path.get_mut().unanswered -= 1;
            if path.get().unanswered == 0 {
                path.remove();
            }
        }
        out.push(Notice::Answered { connection, id, code });
    }

    /// When [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.uplinks.first_key_value().map(|(_, waiting)| waiting.until_ms)
    }

    /// Time has passed: uplinks that were not answered in time are of unknown fate (WS-9).
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Notice>) {
        while let Some(first) = self.uplinks.first_entry() {
            if first.get().until_ms > now_ms {
                return;
            }
            let (sequence, waiting) = first.remove_entry();
            self.abandoned.extend(waiting.link.map(|link| (link, sequence)));
            self.settle(&waiting, ErrorCode::CONSUMER_LOST, out);
        }
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
