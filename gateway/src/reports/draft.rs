//! Deliveries that are being handed out, at once or in parts: who their users are, what became of
//! them so far, and what earlier copies know of them.
//!
//! Between two parts a draft is parked: connections settle their tickets meanwhile. Its places are
//! kept for it, and of earlier copies it holds what its users have asked for until then.

use std::collections::HashMap;

use waybill_client::gateway::Report;
use waybill_wire::code::{ErrorCode, Fate};

use super::{Copy, Outcome, Owed, Reports, Sums, Ticket, User};
use crate::recent::{Key, SENDINGS_MAX};

/// What an earlier copy knows of a user.
#[derive(Clone, Copy, Debug)]
struct Earlier {
    /// The user there, if it waits.
    waits: Option<Ticket>,
    best: Option<Outcome>,
}

/// A delivery that is being handed out.
#[derive(Debug)]
pub(crate) struct Draft {
    number: u64,
    key: Key,
    is_tracked: bool,
    again: bool,
    is_traced: bool,
    users: Vec<User>,
    /// UID to its place in `users`, for an audience of everyone, whose connections come in no
    /// order.
    by_uid: Option<HashMap<u64, u32>>,
    offline: Vec<u64>,
    previous: Option<u64>,
    /// By UID; empty of nearly every message, which comes once.
    earlier: HashMap<u64, Earlier>,
    /// Users of earlier copies, and the tickets they are to hold.
    heirs: Vec<(Ticket, Ticket)>,
    /// Places that its users may take at most, if it is tracked.
    users_max: usize,
    is_parked: bool,
    /// What the first users are, who all have met what they will.
    sums: Sums,
    counted: usize,
    /// When a traced one was first handed to a socket.
    socket_us: u64,
}

impl Draft {
    /// The message says that it was sent before.
    pub(crate) fn sent_again(&mut self, again: bool) {
        self.again = again;
    }

    /// It is to be told when it was handed to a socket.
    pub(crate) fn trace(&mut self, is_traced: bool) {
        self.is_traced = is_traced;
    }

    /// The user's connection was passed over.
    pub(crate) fn settled(&mut self, uid: u64, outcome: Outcome) {
        let user = self.user(uid);
        self.settle(user, outcome);
    }

    /// The message is queued for one of the user's connections; it settles this ticket.
    pub(crate) fn queued(&mut self, uid: u64) -> Ticket {
        let user = self.user(uid);
        self.wait(user)
    }

    /// The user's connection was there for an earlier copy: what that came to counts.
    pub(crate) fn repeated(&mut self, uid: u64) {
        let user = self.user(uid);
        if !self.earlier.contains_key(&uid) {
            self.settle(user, Outcome::InDoubt);
        }
    }

    /// The user has no connection here.
    pub(crate) fn offline(&mut self, uid: u64) {
        self.offline.push(uid);
    }

    fn settle(&mut self, user: u32, outcome: Outcome) {
        let best = &mut self.users[user as usize].best;
        *best = (*best).max(Some(outcome));
    }

    fn wait(&mut self, user: u32) -> Ticket {
        if !self.is_tracked {
            self.settle(user, Outcome::InDoubt);
            return Ticket::NONE;
        }
        self.users[user as usize].waiting += 1;
        Ticket { report: self.number, user, is_traced: self.is_traced }
    }

    /// A listed user's connections come one after another.
    fn user(&mut self, uid: u64) -> u32 {
        let next = u32::try_from(self.users.len()).expect("users are fewer than connections");
        let user = match &mut self.by_uid {
            Some(by_uid) => *by_uid.entry(uid).or_insert(next),
            None if self.users.last().is_some_and(|last| last.uid == uid) => next - 1,
            None => next,
        };
        if user == next {
            let earlier = self.earlier.get(&uid).copied();
            let best = earlier.and_then(|it| it.best);
            self.users.push(User { uid, waiting: 0, best, heir: Ticket::NONE });
            if let Some(waits) = earlier.and_then(|it| it.waits) {
                let heir = self.wait(user);
                self.heirs.push((waits, heir));
            }
        }
        user
    }

    /// As many of its users are looked at as `left` says, less those that were; whether that was
    /// all of them. Only after all have met what they will.
    pub(crate) fn count(&mut self, left: &mut usize) -> bool {
        let rest = &self.users[self.counted..];
        let now = rest.len().min(*left);
        rest[..now].iter().for_each(|user| self.sums.count(user));
        self.counted += now;
        *left -= now;
        self.counted == self.users.len()
    }

    /// A user who settles a ticket, and the sums, if it is counted.
    pub(super) fn counted(&mut self, user: usize) -> Option<(&mut User, Option<&mut Sums>)> {
        let is_counted = user < self.counted;
        Some((self.users.get_mut(user)?, is_counted.then_some(&mut self.sums)))
    }

    pub(super) fn socket_us(&mut self) -> &mut u64 {
        &mut self.socket_us
    }

    /// Places that are kept for it.
    pub(super) fn reserved(&self) -> usize {
        if self.is_parked && self.is_tracked { 1 + self.users_max } else { 0 }
    }
}

impl Reports {
    /// A delivery begins to be handed out to at most `users` users.
    pub(crate) fn open(&mut self, key: Key, users: usize, everyone: bool) -> Draft {
        let is_tracked = self.places + users < self.bounds.places;
        self.counts.asked += 1;
        self.counts.untracked += usize::from(!is_tracked);
        self.opened += 1;
        let previous = self.newest.get(&key).copied();
        Draft {
            number: self.opened,
            key,
            is_tracked,
            again: false,
            is_traced: false,
            // All at once: a million that move into a larger table take longer than any part.
            users: Vec::with_capacity(if everyone { users } else { 0 }),
            by_uid: everyone.then(|| HashMap::with_capacity(users)),
            offline: Vec::new(),
            previous,
            earlier: previous.map(|number| self.recall(number)).unwrap_or_default(),
            heirs: Vec::new(),
            users_max: users,
            is_parked: false,
            sums: Sums::default(),
            counted: 0,
            socket_us: 0,
        }
    }

    /// It is handed out in parts, and this one is over; its number is for
    /// [`take_up`](Self::take_up).
    pub(crate) fn park(&mut self, mut draft: Draft) -> u64 {
        self.bind(&mut draft);
        draft.is_parked = true;
        self.places += draft.reserved();
        let number = draft.number;
        self.parked.insert(number, draft);
        number
    }

    /// The next part of a draft begins.
    ///
    /// # Panics
    ///
    /// If it is not parked.
    pub(crate) fn take_up(&mut self, number: u64) -> Draft {
        let mut draft = self.parked.remove(&number).expect("it is parked between its parts");
        self.places -= draft.reserved();
        draft.is_parked = false;
        draft
    }

    /// Users of earlier copies get the tickets that this one's have for them. Of those that have
    /// come to something since they were asked, that is taken over.
    fn bind(&mut self, draft: &mut Draft) {
        for (waits, heir) in std::mem::take(&mut draft.heirs) {
            let users = self.copies.get_mut(&waits.report).map(|copy| &mut copy.users);
            let user = users.map(|users| &mut users[waits.user as usize]);
            match user {
                Some(user) if user.is_open() => user.heir = heir,
                known if heir.is_some() => {
                    let known = known.and_then(|user| user.best).unwrap_or(Outcome::InDoubt);
                    let user = &mut draft.users[heir.user as usize];
                    user.waiting -= 1;
                    user.best = user.best.max(Some(known));
                }
                _ => {}
            }
        }
    }

    /// What this copy and those before it know of their users.
    fn recall(&self, number: u64) -> HashMap<u64, Earlier> {
        let mut earlier = HashMap::new();
        let (mut next, mut blurred) = (Some(number), false);
        for _ in 0..SENDINGS_MAX {
            let Some(number) = next else { break };
            // Where one is missing, those before it do not know what it did.
            let Some(copy) = self.copies.get(&number) else { break };
            blurred |= copy.blurred;
            for (at, user) in (0..).zip(&copy.users) {
                let doubt = blurred.then_some(Outcome::InDoubt);
                let waits =
                    user.is_open().then_some(Ticket { report: number, user: at, is_traced: false });
                // Newest first: it knows what the older ones do.
                earlier.entry(user.uid).or_insert(Earlier { waits, best: user.best.max(doubt) });
            }
            next = copy.previous;
        }
        earlier
    }

    /// It has been handed out. `report` names it and counts nobody yet; `link` is the gateway's
    /// number of the link it came by.
    pub(crate) fn seal(&mut self, mut draft: Draft, link: usize, mut report: Report, now_ms: u64) {
        let mut offline = std::mem::take(&mut draft.offline);
        offline.sort_unstable();
        offline.dedup();
        for uid in offline {
            if draft.earlier.contains_key(&uid) {
                draft.settled(uid, Outcome::Gone);
            } else {
                report.add(Fate::OFFLINE, ErrorCode(0), uid);
            }
        }
        self.bind(&mut draft);
        draft.count(&mut { usize::MAX });
        report.socket_us = draft.socket_us;
        let Draft { number, key, is_tracked, again, users, by_uid, previous, sums, .. } = draft;
        let everyone = by_uid.is_some();
        let until_ms = now_ms.saturating_add(self.bounds.report_ms);
        let mut owed = Owed::new(link, key.1, report, until_ms);
        owed.mute = again && self.gaps.contains(&link);
        (owed.users, owed.sums, owed.everyone) = (users.len(), sums, everyone);
        self.places += owed.places();
        if owed.users > 0 {
            let users = users.into_boxed_slice();
            self.copies.insert(number, Copy { key, users, previous, blurred: false });
            self.newest.insert(key, number);
        }
        self.owe(number, owed, is_tracked);
    }
}
