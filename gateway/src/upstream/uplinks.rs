//! What users have sent to the backends and no answer has come to.
//!
//! ```text
//! uplink --> on a link --> answered | deadline
//!              ^    |
//!              |    +-- link ended --> without a link --> deadline
//!              +--- the same or another link is up ---+
//! ```
//!
//! A user's uplinks stay on one link for as long as one of them is unanswered there (promise 2).
//! When the link ends they go, in their order and before any new one, to another link that is up,
//! or to the next that comes up, marked as sent again: their sequences are behind what that link
//! has carried. A link that is behind gets them later. One that may have been transmitted goes
//! once; when that link ends too, its user is told that its fate is unknown. So is the user of one
//! whose deadline has passed; it is abandoned at its link, whose room it would else hold for ever.
//!
//! Invariants: `paths` counts exactly those of `waiting` that have a link; `bytes` is their size.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use waybill_client::gateway::{GatewayCommand, Registration, Uplink};
use waybill_wire::code::ErrorCode;

use super::{Notice, Outgoing, UplinkBounds};

#[derive(Debug)]
pub(super) struct Uplinks {
    bounds: UplinkBounds,
    sequence: u64,
    /// By sequence. Deadlines rise with sequences.
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
    /// Where the unanswered uplinks of each user are.
    paths: HashMap<User, Path>,
    links: Vec<Link>,
    /// Links and sequences nobody waits for any more, to be told.
    abandoned: Vec<(usize, u64)>,
    /// To be sent on another link than at first; of each link in the order of sequences.
    moved: Vec<(usize, GatewayCommand)>,
}

/// Namespace and UID.
type User = (u32, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Link {
    #[default]
    Down,
    Up,
    /// Up, and only for users who are on it.
    Retiring,
}

#[derive(Debug)]
struct Path {
    link: usize,
    unanswered: usize,
}

#[derive(Debug)]
struct Waiting {
    user: Registration,
    message: Outgoing,
    until_ms: u64,
    link: Option<usize>,
    /// It was given to a link that ended, and may have been transmitted.
    lost_once: bool,
    /// Its link is about to end and has not transmitted it, or has not taken it over yet.
    unsent: bool,
}

impl Waiting {
    fn key(&self) -> User {
        (self.user.namespace, self.user.uid)
    }

    fn bytes(&self) -> usize {
        let labels: usize = self.message.labels.iter().map(String::len).sum();
        size_of::<Self>() + labels + self.message.payload.len()
    }

    /// `resend` on any link but the first: that has risen above the sequence (UP-1, UP-12).
    fn command(&self, sequence: u64, resend: bool) -> GatewayCommand {
        GatewayCommand::Uplink(Uplink {
            sequence,
            namespace: self.user.namespace,
            uid: self.user.uid,
            connection: self.message.connection.0,
            resend,
            labels: self.message.labels.clone(),
            content: None,
            payload: self.message.payload.clone(),
        })
    }
}

impl Uplinks {
    pub(super) fn new(links: usize, bounds: UplinkBounds) -> Self {
        Self {
            bounds,
            sequence: 0,
            waiting: BTreeMap::new(),
            bytes: 0,
            paths: HashMap::new(),
            links: vec![Link::Down; links],
            abandoned: Vec::new(),
            moved: Vec::new(),
        }
    }

    pub(super) fn uplink(
        &mut self,
        user: Registration,
        message: Outgoing,
        now_ms: u64,
        out: &mut Vec<Notice>,
    ) -> Option<(usize, GatewayCommand)> {
        let (connection, id) = (message.connection, message.id);
        let refuse = |code| Notice::Answered { connection, id, code };
        let key = (user.namespace, user.uid);
        let Some(link) = self.link_of(key) else {
            out.push(refuse(ErrorCode::NO_CONSUMER));
            return None;
        };
        let until_ms = now_ms.saturating_add(self.bounds.wait_ms);
        let waiting =
            Waiting { user, message, until_ms, link: Some(link), lost_once: false, unsent: false };
        let is_full = self.waiting.len() + self.abandoned.len() >= self.bounds.count_max;
        if is_full || self.bytes + waiting.bytes() > self.bounds.bytes_max {
            out.push(refuse(ErrorCode::OVERLOADED));
            return None;
        }
        self.sequence += 1;
        self.enter(key, link);
        self.bytes += waiting.bytes();
        let command = waiting.command(self.sequence, false);
        self.waiting.insert(self.sequence, waiting);
        Some((link, command))
    }

    fn enter(&mut self, user: User, link: usize) {
        let path = self.paths.entry(user).or_insert(Path { link, unanswered: 0 });
        debug_assert_eq!(path.link, link, "a user has one path at a time");
        path.unanswered += 1;
    }

    /// The link for a user's messages: the one that has unanswered ones of theirs, else one that is
    /// the same as long as the same links are up, so that they stay in order (promise 2).
    pub(super) fn link_of(&self, user: User) -> Option<usize> {
        if let Some(path) = self.paths.get(&user) {
            debug_assert!(self.links[path.link] != Link::Down, "the paths of a link end with it");
            return Some(path.link);
        }
        let up = self.links.iter().enumerate().filter(|(_, link)| **link == Link::Up);
        let (namespace, uid) = user;
        let weight = |link: usize| {
            let mixed = (uid ^ u64::from(namespace).rotate_left(32))
                .wrapping_add(link as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ mixed >> 32
        };
        up.max_by_key(|(number, _)| weight(*number)).map(|(number, _)| number)
    }

    pub(super) fn add_link(&mut self, place: usize) {
        self.links.resize(self.links.len().max(place + 1), Link::Down);
        self.links[place] = Link::Down;
    }

    pub(super) fn retire(&mut self, link: usize) {
        if self.links[link] == Link::Up {
            self.links[link] = Link::Retiring;
        }
    }

    pub(super) fn link_up(&mut self, link: usize) {
        self.links[link] = Link::Up;
        self.rehome();
    }

    /// Lost before it was transmitted: sending it on does not use up its second time.
    pub(super) fn not_transmitted(&mut self, link: usize, sequence: u64) {
        if let Some(waiting) = self.waiting.get_mut(&sequence)
            && waiting.link == Some(link)
        {
            waiting.unsent = true;
        }
    }

    /// Takes an uplink that has lost its link off its user's path.
    fn leave(&mut self, sequence: u64) {
        let Some(waiting) = self.waiting.get(&sequence) else { return };
        if let Entry::Occupied(mut path) = self.paths.entry(waiting.key()) {
            path.get_mut().unanswered -= 1;
            if path.get().unanswered == 0 {
                path.remove();
            }
        }
    }

    pub(super) fn link_down(&mut self, link: usize, out: &mut Vec<Notice>) {
        self.links[link] = Link::Down;
        self.abandoned.retain(|(at, _)| *at != link);
        self.moved.retain(|(at, _)| *at != link);
        self.paths.retain(|_, path| path.link != link);
        let mut lost = Vec::new();
        for (sequence, waiting) in &mut self.waiting {
            if waiting.link == Some(link) {
                waiting.link = None;
                let is_unsent = std::mem::take(&mut waiting.unsent);
                if !is_unsent && std::mem::replace(&mut waiting.lost_once, true) {
                    lost.push(*sequence);
                }
            }
        }
        for sequence in lost {
            self.settle(sequence, ErrorCode::CONSUMER_LOST, out);
        }
        self.rehome();
    }

    /// Uplinks without a link get one, if one is up; in order, so that each user's stay so.
    fn rehome(&mut self) {
        let mut homeless = std::mem::take(&mut self.waiting);
        for (sequence, waiting) in homeless.iter_mut().filter(|(_, w)| w.link.is_none()) {
            let Some(link) = self.link_of(waiting.key()) else { continue };
            self.enter(waiting.key(), link);
            waiting.link = Some(link);
            self.moved.push((link, waiting.command(*sequence, true)));
        }
        self.waiting = homeless;
    }

    /// An answer by this link; one by a link that had it before counts for nothing.
    pub(super) fn answered(
        &mut self,
        link: usize,
        sequence: u64,
        code: ErrorCode,
        out: &mut Vec<Notice>,
    ) {
        // Absent: its deadline had passed, and its user has been told.
        if self.waiting.get(&sequence).is_some_and(|waiting| waiting.link == Some(link)) {
            self.settle(sequence, code, out);
        }
    }

    /// The link was behind and did not take it over. One that has lost its link already is offered
    /// again, ahead of what comes from its user meanwhile; a new one is refused.
    pub(super) fn not_taken(&mut self, link: usize, uplink: Uplink, out: &mut Vec<Notice>) {
        if !uplink.resend {
            return self.answered(link, uplink.sequence, ErrorCode::OVERLOADED, out);
        }
        if let Some(waiting) = self.waiting.get_mut(&uplink.sequence)
            && waiting.link == Some(link)
        {
            waiting.unsent = true;
            self.moved.push((link, GatewayCommand::Uplink(uplink)));
        }
    }

    /// It does not wait any more: its user is told, and may take another link once nothing of
    /// theirs is left on this one.
    fn settle(&mut self, sequence: u64, code: ErrorCode, out: &mut Vec<Notice>) {
        if self.waiting.get(&sequence).is_some_and(|waiting| waiting.link.is_some()) {
            self.leave(sequence);
        }
        if let Some(waiting) = self.waiting.remove(&sequence) {
            self.bytes -= waiting.bytes();
            let Outgoing { connection, id, .. } = waiting.message;
            out.push(Notice::Answered { connection, id, code });
        }
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.abandoned.is_empty() || !self.moved.is_empty()
    }

    pub(super) fn commands(&mut self) -> impl Iterator<Item = (usize, GatewayCommand)> {
        for (_, command) in &self.moved {
            if let GatewayCommand::Uplink(uplink) = command
                && let Some(waiting) = self.waiting.get_mut(&uplink.sequence)
            {
                waiting.unsent = false;
            }
        }
        let abandoned = std::mem::take(&mut self.abandoned).into_iter();
        let abandoned =
            abandoned.map(|(link, sequence)| (link, GatewayCommand::Abandon { sequence }));
        abandoned.chain(std::mem::take(&mut self.moved))
    }

    pub(super) fn keep_abandoned(&mut self, link: usize, sequence: u64) {
        self.abandoned.push((link, sequence));
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.until_ms)
    }

    pub(super) fn tick(&mut self, now_ms: u64, out: &mut Vec<Notice>) {
        while let Some((&sequence, waiting)) = self.waiting.first_key_value() {
            if waiting.until_ms > now_ms {
                return;
            }
            let code = match (waiting.link, waiting.lost_once) {
                // It was never sent.
                (None, false) => ErrorCode::NO_CONSUMER,
                _ => ErrorCode::CONSUMER_LOST,
            };
            if let Some(link) = waiting.link {
                self.abandoned.push((link, sequence));
                self.moved.retain(|(_, command)| !is_uplink(command, sequence));
            }
            self.settle(sequence, code, out);
        }
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn load(&self) -> (usize, usize) {
        (self.waiting.len() + self.abandoned.len(), self.bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn is_uplink(command: &GatewayCommand, sequence: u64) -> bool {
    matches!(command, GatewayCommand::Uplink(uplink) if uplink.sequence == sequence)
}
