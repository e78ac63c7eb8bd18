//! What a broker is told of each delivery that asks for it (level delivered): who was reached and
//! who was not. A pure machine.
//!
//! ```text
//! open --> Draft: one call per user and connection --> sealed --> settle ... --> Report
//!                                                        |                         ^
//!                                                        +--- report_ms, unknown --+
//! ```
//!
//! Each connection that a tracked message is queued for carries a [`Ticket`]; wherever the message
//! leaves that queue the ticket is settled, once. A user is reached as soon as one of their
//! connections is. A delivery of a level below never comes here, so it costs nothing.
//!
//! Reached means: the whole message was handed to the socket of a connection whose close, or end of
//! stream, had not been read by then. Not reached, whatever the socket still took, is a user whose
//! connection had told that it ends. What remains is inherent: a close that is on its way while the
//! message is written crosses it, and its user counts as reached.
//!
//! Bounded in *places*: one for each delivery and each of its users, from its opening until its
//! report is with the link. What finds no room is reported at once, with the users it was queued
//! for as unknown; if links take no reports at all, such reports are not made: the broker then
//! counts the same by itself.
//!
//! Invariant: `places` is the sum over `tracked` and `ready`.
//!
//! Never here: queues, links, a clock.

use std::collections::{BTreeMap, HashMap, VecDeque};

use waybill_client::gateway::Report;
use waybill_wire::code::{ErrorCode, Fate};

/// Names one connection's copy of a tracked message; 0 in `report` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    report: u64,
    user: u32,
}

impl Ticket {
    /// That of a message nobody wants to hear of.
    pub(crate) const NONE: Self = Self { report: 0, user: 0 };

    pub(crate) fn is_some(self) -> bool {
        self.report != 0
    }
}

/// How a message left a connection's queue. In the order in which one outweighs another of the same
/// user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The connection ended before any of it was written: that one is not here any more.
    Gone,
    /// EXCEPT or EXCEPT_SELF.
    Filtered,
    /// Its time to live ran out.
    Expired,
    /// The queue was full.
    Full,
    /// The connection ended when a part was written, or it was not heard of in time.
    InDoubt,
    /// Handed to the socket, whose client had not been heard to close it.
    Reached,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Reports {
    places_max: usize,
    report_ms: u64,
    places: usize,
    opened: u64,
    /// By number; deadlines rise with it.
    tracked: BTreeMap<u64, Tracked>,
    /// Finished, with the gateway's number of its link.
    ready: VecDeque<(usize, Report)>,
    counts: Counts,
}

/// What became of deliveries that asked for a report. `asked` is `told` and `lost` and those that
/// are tracked or ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) asked: usize,
    /// Given to links.
    pub(crate) told: usize,
    /// The link had ended, or there was no room for the report.
    pub(crate) lost: usize,
    /// Reported at once, with users in doubt, for want of room.
    pub(crate) untracked: usize,
}

#[derive(Debug)]
struct Tracked {
    link: usize,
    report: Report,
    until_ms: u64,
    users: Vec<User>,
    /// Users that are not settled.
    open: usize,
    everyone: bool,
}

#[derive(Debug)]
struct User {
    uid: u64,
    /// Connections whose copy is still on its way.
    waiting: u32,
    best: Option<Outcome>,
}

impl User {
    fn is_open(&self) -> bool {
        self.waiting > 0 && self.best != Some(Outcome::Reached)
    }
}

/// A delivery that is being handed out.
#[derive(Debug)]
pub(crate) struct Draft {
    number: u64,
    is_tracked: bool,
    users: Vec<User>,
    /// UID to its place in `users`, for an audience of everyone, whose connections come in no
    /// order.
    by_uid: Option<HashMap<u64, u32>>,
    offline: Vec<u64>,
}

impl Draft {
    /// The user's connection was passed over, or had this message already.
    pub(crate) fn settled(&mut self, uid: u64, outcome: Outcome) {
        let user = self.user(uid);
        self.users[user as usize].best = self.users[user as usize].best.max(Some(outcome));
    }

    /// The message is queued for one of the user's connections; it settles this ticket.
    pub(crate) fn queued(&mut self, uid: u64) -> Ticket {
        let user = self.user(uid);
        if !self.is_tracked {
            self.settled(uid, Outcome::InDoubt);
            return Ticket::NONE;
        }
        self.users[user as usize].waiting += 1;
        Ticket { report: self.number, user }
    }

    /// The user has no connection here.
    pub(crate) fn offline(&mut self, uid: u64) {
        self.offline.push(uid);
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
            self.users.push(User { uid, waiting: 0, best: None });
        }
        user
    }
}

impl Reports {
    /// A machine that holds `places_max` places at most and gives a delivery `report_ms`.
    pub(crate) fn new(places_max: usize, report_ms: u64) -> Self {
        Self {
            places_max,
            report_ms,
            places: 0,
            opened: 0,
            tracked: BTreeMap::new(),
            ready: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// A delivery begins to be handed out to at most `users` users.
    pub(crate) fn open(&mut self, users: usize, everyone: bool) -> Draft {
        let is_tracked = self.places + users < self.places_max;
        self.counts.asked += 1;
        self.counts.untracked += usize::from(!is_tracked);
        self.opened += 1;
        Draft {
            number: self.opened,
            is_tracked,
            users: Vec::new(),
            by_uid: everyone.then(HashMap::new),
            offline: Vec::new(),
        }
    }

    /// It has been handed out. `report` names it and counts nobody yet; `link` is the gateway's
    /// number of the link it came by.
    pub(crate) fn seal(&mut self, draft: Draft, link: usize, mut report: Report, now_ms: u64) {
        let Draft { number, users, by_uid, mut offline, .. } = draft;
        offline.sort_unstable();
        offline.dedup();
        for uid in offline {
            report.add(Fate::OFFLINE, ErrorCode(0), uid);
        }
        let everyone = by_uid.is_some();
        let open = users.iter().filter(|user| user.is_open()).count();
        let until_ms = now_ms.saturating_add(self.report_ms);
        let tracked = Tracked { link, report, until_ms, users, open, everyone };
        self.places += tracked.places();
        if open == 0 {
            self.finish(tracked);
        } else {
            self.tracked.insert(number, tracked);
        }
    }

    /// A message left a queue. A report that was made meanwhile is not changed.
    pub(crate) fn settle(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(tracked) = self.tracked.get_mut(&ticket.report) else { return };
        let Some(user) = tracked.users.get_mut(ticket.user as usize) else { return };
        let was_open = user.is_open();
        debug_assert!(user.waiting > 0, "a ticket is settled once");
        user.waiting = user.waiting.saturating_sub(1);
        user.best = user.best.max(Some(outcome));
        if was_open && !user.is_open() {
            tracked.open -= 1;
            if tracked.open == 0
                && let Some(tracked) = self.tracked.remove(&ticket.report)
            {
                self.finish(tracked);
            }
        }
    }

    fn finish(&mut self, tracked: Tracked) {
        self.places -= tracked.places();
        let Tracked { link, mut report, users, everyone, .. } = tracked;
        for user in users {
            let best = if user.is_open() { Some(Outcome::InDoubt) } else { user.best };
            let (fate, cause) = match best {
                Some(Outcome::Reached) => {
                    report.reached = report.reached.saturating_add(1);
                    continue;
                }
                Some(Outcome::InDoubt) => (Fate::UNKNOWN, ErrorCode(0)),
                Some(Outcome::Full) => (Fate::DROPPED, ErrorCode::OUTBOX_FULL),
                Some(Outcome::Expired) => (Fate::DROPPED, ErrorCode::EXPIRED),
                Some(Outcome::Filtered) => (Fate::FILTERED, ErrorCode(0)),
                Some(Outcome::Gone) | None => (Fate::OFFLINE, ErrorCode(0)),
            };
            if everyone {
                report.count(fate, 1);
            } else {
                report.add(fate, cause, user.uid);
            }
        }
        self.keep(link, report);
    }

    /// A report that its link has not taken yet: offered again. Reports have no order.
    pub(crate) fn put_back(&mut self, link: usize, report: Report) {
        self.places += places(&report);
        self.counts.told -= 1;
        self.ready.push_back((link, report));
    }

    fn keep(&mut self, link: usize, report: Report) {
        let places = places(&report);
        // Twice: those that were tracked always fit, those that were not only while links take
        // some.
        if self.places + places > 2 * self.places_max {
            self.counts.lost += 1;
            return;
        }
        self.places += places;
        self.ready.push_back((link, report));
    }

    /// The next report that is finished.
    pub(crate) fn pop(&mut self) -> Option<(usize, Report)> {
        let (link, report) = self.ready.pop_front()?;
        self.places -= places(&report);
        self.counts.told += 1;
        Some((link, report))
    }

    /// Whether a report waits for its link.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The link has ended: its deliveries are reported to nobody.
    pub(crate) fn link_down(&mut self, link: usize) {
        let before = self.waiting();
        self.tracked.retain(|_, tracked| tracked.link != link);
        self.ready.retain(|(at, _)| *at != link);
        self.counts.lost += before - self.waiting();
        let tracked: usize = self.tracked.values().map(Tracked::places).sum();
        self.places = tracked + self.ready.iter().map(|(_, report)| places(report)).sum::<usize>();
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.tracked.first_key_value().map(|(_, tracked)| tracked.until_ms)
    }

    /// Time has passed: who was not heard of in time is in doubt.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        while let Some(first) = self.tracked.first_entry() {
            if first.get().until_ms > now_ms {
                return;
            }
            let tracked = first.remove();
            self.finish(tracked);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let Counts { asked, told, lost, .. } = self.counts;
        debug_assert_eq!(asked, told + lost + self.waiting(), "each has one ending");
        self.counts
    }

    /// Whether it has never been given anything, and holds no memory for it.
    #[cfg(test)]
    pub(crate) fn is_untouched(&self) -> bool {
        self.counts == Counts::default() && self.tracked.is_empty() && self.ready.capacity() == 0
    }

    /// Deliveries whose report is neither with its link nor lost.
    pub(crate) fn waiting(&self) -> usize {
        self.tracked.len() + self.ready.len()
    }
}

impl Tracked {
    fn places(&self) -> usize {
        1 + self.users.len() + places(&self.report)
    }
}

fn places(report: &Report) -> usize {
    1 + report.fates.iter().map(|fates| fates.uids.len()).sum::<usize>()
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
