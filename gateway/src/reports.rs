//! What a broker is told of each delivery that asks for it (level delivered): who was reached and
//! who was not. A pure machine.
//!
//! ```text
//! open --> Draft: one call per user and connection --> sealed --> settle ... --> Report
//!           |  ^                                         |                         ^
//!           v  | parked between parts                    +--- report_ms, unknown --+
//! ```
//!
//! Each connection that a tracked message is queued for carries a [`Ticket`]; wherever the message
//! leaves that queue the ticket is settled, once. A user is reached as soon as one of their
//! connections is. A delivery of a level below is not kept here; all it costs is a look at whether
//! its message id is.
//!
//! A message that was sent again is a *copy*. What is told of a user is told of the message: the
//! best of this copy and the earlier ones (REP-2). While a user of the copy before waits, it holds
//! a ticket of the later copy, as a connection does, and settles it with what it comes to; so a
//! copy knows all that those before it knew. Copies stay after they were reported on, or their
//! links have gone: their queues go on settling. Where nothing is known, because a copy of another
//! level was there or the memory has gone round, a user who is not served again is in doubt.
//!
//! A broker tells the reports on copies by one link apart by their order (REP-9): one that is ready
//! before that of an earlier copy waits for it, which is no longer than its own time, since that of
//! the earlier one is over first. A report that is lost for want of room leaves a gap in that
//! order: from then on, until the link ends, those on what was sent again by it are not made.
//!
//! Reached means: the whole message was handed to the socket of a connection whose close, or end of
//! stream, had not been read by then. Not reached, whatever the socket still took, is a user whose
//! connection had told that it ends. What remains is inherent: a close that is on its way while the
//! message is written crosses it, and its user counts as reached.
//!
//! Bounded in *places*: one for each delivery and each of its users, from its opening until its
//! report is with the link. What finds no room is reported at once, with the users it was queued
//! for as unknown; if links take no reports at all, such reports are not made: the broker then
//! counts the same by itself. Copies that are not owed any more are bounded on their own, in copies
//! and in users; the first that was told goes first, and what came before it is not found by way
//! of it any more.
//!
//! A TAG is owed like a delivery, in the same order. No producer gives one number to two things
//! (DEL-6), but one could, by another's instance, to be told of the one what is so of the other.
//!
//! Invariants: `places` is the sum over `parked`, `owed` and `ready`; what is owed has its place in
//! `line`, and waits for its users, for its tags to be in effect, or for what is before it there; a
//! copy is in `owed` or in `past`; `past_users` is the sum over `past`; a user that does not wait
//! has no heir; `newest` leads to a copy that is here.
//!
//! Never here: queues, links, a clock.

mod draft;
mod tags;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use waybill_client::gateway::Report;
use waybill_wire::code::{ErrorCode, Fate};

pub(crate) use self::draft::Draft;
use self::tags::{Tagging, Unconfirmed};
use crate::hub::MessageId;
use crate::recent::{Key, UIDS_PER_MESSAGE};
pub(crate) use crate::ticket::{Outcome, Ticket};

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Deliveries that are to be reported on, and their users.
    pub(crate) places: usize,
    /// Deliveries that were, or whose links have gone.
    pub(crate) past: usize,
    /// Time from a delivery to its report.
    pub(crate) report_ms: u64,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Reports {
    bounds: Bounds,
    places: usize,
    opened: u64,
    /// By number: they are being handed out, in parts.
    parked: HashMap<u64, Draft>,
    /// By number; deadlines rise with it.
    owed: BTreeMap<u64, Owed>,
    /// What is owed, by link, message and number: the first is reported first.
    line: BTreeSet<(usize, MessageId, u64)>,
    /// Links that a report was lost of.
    gaps: BTreeSet<usize>,
    /// By number.
    copies: HashMap<u64, Copy>,
    /// Each message's last.
    newest: HashMap<Key, u64>,
    past: VecDeque<u64>,
    past_users: usize,
    /// TAGs in `owed` whose tags are not in effect yet.
    unconfirmed: Unconfirmed,
    /// Finished, with the gateway's number of its link.
    ready: VecDeque<(usize, Report)>,
    counts: Counts,
}

/// What became of deliveries that asked for a report. `asked` is `told` and `lost` and those that
/// are owed or ready.
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
struct Owed {
    link: usize,
    id: MessageId,
    report: Report,
    until_ms: u64,
    users: usize,
    sums: Sums,
    everyone: bool,
    /// It may be taken for one that was lost, and is not made.
    mute: bool,
    /// What it is on, if that is a TAG and no delivery.
    tagging: Option<Tagging>,
}

#[derive(Debug)]
struct Copy {
    key: Key,
    users: Box<[User]>,
    /// The one of the same message before it.
    previous: Option<u64>,
    /// A copy of another level came after it: what that one did is not known.
    blurred: bool,
}

#[derive(Debug)]
struct User {
    uid: u64,
    /// Connections whose copy is still on its way; one more, if an earlier copy's user waits.
    waiting: u32,
    best: Option<Outcome>,
    /// The same user of the copy after this one, who waits for what this one comes to.
    heir: Ticket,
}

/// Users that are not settled, and what the others came to.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    open: usize,
    /// By outcome; in doubt are those that are open as well, when the report is made.
    by_outcome: [u32; Outcome::Reached as usize + 1],
}

impl Sums {
    fn count(&mut self, user: &User) {
        if user.is_open() {
            self.open += 1;
        } else {
            self.settled(user);
        }
    }

    fn settled(&mut self, user: &User) {
        let outcome = user.best.unwrap_or(Outcome::Gone);
        self.by_outcome[outcome as usize] += 1;
    }
}

impl User {
    fn is_open(&self) -> bool {
        self.waiting > 0 && self.best != Some(Outcome::Reached)
    }
}

impl Reports {
    /// A machine that keeps no more than `bounds`.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            places: 0,
            opened: 0,
            parked: HashMap::new(),
            owed: BTreeMap::new(),
            line: BTreeSet::new(),
            gaps: BTreeSet::new(),
            copies: HashMap::new(),
            newest: HashMap::new(),
            past: VecDeque::new(),
            past_users: 0,
            unconfirmed: Unconfirmed::default(),
            ready: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// A message is handed out that nobody wants a report on.
    pub(crate) fn untold(&mut self, key: Key) {
        if self.newest.is_empty() {
            return;
        }
        if let Some(copy) = self.newest.get(&key).and_then(|number| self.copies.get_mut(number)) {
            copy.blurred = true;
        }
    }

    /// It is reported on when nothing is waited for any more; its places are taken.
    fn owe(&mut self, number: u64, mut owed: Owed, is_tracked: bool) {
        let (link, id) = (owed.link, owed.id);
        if owed.sums.open == 0 && self.first_in_line(link, id).is_none() {
            self.finish(number, owed);
        } else if is_tracked || self.places <= 2 * self.bounds.places {
            self.line.insert((link, id, number));
            self.owed.insert(number, owed);
        } else {
            owed.mute = true;
            self.gaps.insert(link);
            self.finish(number, owed);
        }
    }

    fn first_in_line(&self, link: usize, id: MessageId) -> Option<u64> {
        let of_it = (link, id, 0)..=(link, id, u64::MAX);
        self.line.range(of_it).next().map(|&(_, _, number)| number)
    }

    /// Reports on all of a message by a link of which nothing is waited for, up to the first of
    /// which something is.
    fn finish_line(&mut self, link: usize, id: MessageId) {
        while let Some(number) = self.first_in_line(link, id)
            && self.owed.get(&number).is_some_and(|owed| owed.sums.open == 0)
            && let Some(owed) = self.owed.remove(&number)
        {
            self.finish(number, owed);
        }
    }

    /// A message left a queue. A report that was made meanwhile is not changed, but those on later
    /// copies are.
    pub(crate) fn settle(&mut self, ticket: Ticket, outcome: Outcome) {
        let (mut ticket, mut outcome) = (ticket, Some(outcome));
        // From copy to copy, as far as somebody waits.
        while let Some((user, sums)) = self.user(ticket) {
            let was_open = user.is_open();
            debug_assert!(user.waiting > 0, "a ticket is settled once");
            user.waiting = user.waiting.saturating_sub(1);
            user.best = user.best.max(outcome);
            if !was_open || user.is_open() {
                return;
            }
            let heir = std::mem::replace(&mut user.heir, Ticket::NONE);
            outcome = user.best;
            if let Some(sums) = sums {
                sums.open -= 1;
                sums.settled(user);
                let is_last = sums.open == 0;
                if let Some(owed) = self.owed.get(&ticket.report).filter(|_| is_last) {
                    let (link, id) = (owed.link, owed.id);
                    self.finish_line(link, id);
                }
            }
            ticket = heir;
        }
    }

    /// The user of a ticket, and the sums in which it was counted.
    fn user(&mut self, ticket: Ticket) -> Option<(&mut User, Option<&mut Sums>)> {
        let at = ticket.user as usize;
        if let Some(draft) = self.parked.get_mut(&ticket.report) {
            return draft.counted(at);
        }
        let user = self.copies.get_mut(&ticket.report)?.users.get_mut(at)?;
        Some((user, self.owed.get_mut(&ticket.report).map(|owed| &mut owed.sums)))
    }

    /// A traced message was handed to a socket: the first time counts.
    pub(crate) fn passed(&mut self, ticket: Ticket, time_us: u64) {
        let owed = self.owed.get_mut(&ticket.report).map(|owed| &mut owed.report.socket_us);
        let parked = self.parked.get_mut(&ticket.report).map(Draft::socket_us);
        if let Some(first_us) = owed.or(parked) {
            *first_us = if *first_us == 0 { time_us } else { time_us.min(*first_us) };
        }
    }

    fn finish(&mut self, number: u64, owed: Owed) {
        self.places -= owed.places();
        let Owed { link, id, mut report, everyone, mute, sums, .. } = owed;
        self.line.remove(&(link, id, number));
        if let Some(tagging) = &owed.tagging {
            self.unconfirmed.remove(link, tagging, number);
            tags::told(&mut report, tagging, owed.sums.open == 0);
        }
        if everyone {
            count_all(&mut report, sums);
        } else {
            let users = self.copies.get(&number).map_or(&[][..], |copy| &copy.users);
            users.iter().for_each(|user| count_one(&mut report, user));
        }
        if mute {
            self.counts.lost += 1;
        } else {
            self.keep(link, report);
        }
        self.remember(number);
    }

    /// A copy that is not owed any more may stay, until there are too many.
    fn remember(&mut self, number: u64) {
        let Some(copy) = self.copies.get(&number) else { return };
        self.past.push_back(number);
        self.past_users += copy.users.len();
        let users_max = self.bounds.past * UIDS_PER_MESSAGE;
        while (self.past.len() > self.bounds.past || self.past_users > users_max)
            && let Some(oldest) = self.past.pop_front()
            && let Some(copy) = self.copies.remove(&oldest)
        {
            self.past_users -= copy.users.len();
            // If it was the last of its message, an earlier one that is still here could say less
            // than was the case: better nothing.
            if self.newest.get(&copy.key) == Some(&oldest) {
                self.newest.remove(&copy.key);
            }
        }
    }

    /// A report that its link has not taken yet: offered again. All that were ready have been
    /// popped, and those that were not taken come back in their order.
    pub(crate) fn put_back(&mut self, link: usize, report: Report) {
        self.places += places(&report);
        self.counts.told -= 1;
        self.ready.push_back((link, report));
    }

    fn keep(&mut self, link: usize, report: Report) {
        let places = places(&report);
        // Twice: those that were tracked always fit, those that were not only while links take
        // some.
        if self.places + places > 2 * self.bounds.places {
            self.counts.lost += 1;
            self.gaps.insert(link);
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

    /// The link has ended: its deliveries are reported to nobody. A copy by another link may ask
    /// what became of them.
    pub(crate) fn link_down(&mut self, link: usize) {
        let before = self.waiting();
        let of_it: Vec<u64> =
            self.owed.iter().filter(|(_, owed)| owed.link == link).map(|(&it, _)| it).collect();
        for number in of_it {
            self.owed.remove(&number);
            self.remember(number);
        }
        self.line.retain(|(at, ..)| *at != link);
        self.gaps.remove(&link);
        self.ready.retain(|(at, _)| *at != link);
        self.unconfirmed.link_down(link);
        self.counts.lost += before - self.waiting();
        let parked = self.parked.values().map(Draft::reserved).sum::<usize>();
        let owed = self.owed.values().map(Owed::places).sum::<usize>();
        let ready = self.ready.iter().map(|(_, report)| places(report)).sum::<usize>();
        self.places = parked + owed + ready;
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.owed.first_key_value().map(|(_, owed)| owed.until_ms)
    }

    /// Time has passed: who was not heard of in time is in doubt.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        while let Some(first) = self.owed.first_entry() {
            if first.get().until_ms > now_ms {
                return;
            }
            let (number, owed) = first.remove_entry();
            let (link, id) = (owed.link, owed.id);
            self.finish(number, owed);
            self.finish_line(link, id);
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
        self.counts == Counts::default()
            && self.copies.capacity() == 0
            && self.ready.capacity() == 0
    }

    /// Places in use.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn load(&self) -> usize {
        self.places
    }

    /// Copies that are not owed any more, or that are here beyond those that are, and the users of
    /// the former.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn past(&self) -> (usize, usize) {
        let beyond = self.copies.len().saturating_sub(self.owed.len());
        (self.past.len().max(beyond), self.past_users)
    }

    /// Deliveries whose report is neither with its link nor lost.
    pub(crate) fn waiting(&self) -> usize {
        self.parked.len() + self.owed.len() + self.ready.len()
    }
}

impl Owed {
    /// With nobody to wait for.
    fn new(link: usize, id: MessageId, report: Report, until_ms: u64) -> Self {
        let (users, sums, everyone, mute, tagging) = (0, Sums::default(), false, false, None);
        Self { link, id, report, until_ms, users, sums, everyone, mute, tagging }
    }

    fn places(&self) -> usize {
        1 + self.users + places(&self.report)
    }
}

fn count_one(report: &mut Report, user: &User) {
    let best = if user.is_open() { Outcome::InDoubt } else { user.best.unwrap_or(Outcome::Gone) };
    match fate(best) {
        None => report.reached = report.reached.saturating_add(1),
        Some((fate, cause)) => report.add(fate, cause, user.uid),
    }
}

/// As if each were counted, of an audience that is not listed.
fn count_all(report: &mut Report, mut sums: Sums) {
    sums.by_outcome[Outcome::InDoubt as usize] += u32::try_from(sums.open).unwrap_or(u32::MAX);
    for outcome in Outcome::ALL {
        let users = sums.by_outcome[outcome as usize];
        match fate(outcome) {
            None => report.reached = report.reached.saturating_add(users),
            Some((fate, _)) => report.count(fate, users),
        }
    }
}

/// What a report calls an outcome, and its cause; nothing of a user who was reached.
fn fate(outcome: Outcome) -> Option<(Fate, ErrorCode)> {
    Some(match outcome {
        Outcome::Reached => return None,
        Outcome::InDoubt => (Fate::UNKNOWN, ErrorCode(0)),
        Outcome::Full => (Fate::DROPPED, ErrorCode::OUTBOX_FULL),
        Outcome::Expired => (Fate::DROPPED, ErrorCode::EXPIRED),
        Outcome::Filtered => (Fate::FILTERED, ErrorCode(0)),
        Outcome::Gone => (Fate::OFFLINE, ErrorCode(0)),
    })
}

fn places(report: &Report) -> usize {
    1 + report.fates.iter().map(|fates| fates.uids.len()).sum::<usize>()
}

// The terms of the sum in `LimitConfig`: a place, and what a copy and its user take once they are
// told, with what the maps leave empty.
const _: () = assert!(size_of::<User>() <= 32 && size_of::<Copy>() <= 80);

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "reports_tags_tests.rs"]
mod tags_tests;
