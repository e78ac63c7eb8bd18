//! Reports on TAG (TAG-16): the users whose changes were made count as reached once the broker that
//! sent it has their tags in effect, and as unknown if it has not in time.
//!
//! A TAG is owed like a delivery, with the same places, the same time and the same order; what it
//! waits for is one thing, and no connection's.

use std::collections::BTreeSet;

use waybill_client::gateway::Report;
use waybill_wire::code::{ErrorCode, Fate};

use super::{Owed, Reports};

/// What is asked of a broker before a TAG is reported on.
#[derive(Debug)]
pub(super) struct Tagging {
    /// With which the tags are in effect at the broker.
    ticket: u64,
    /// Users whose changes were made.
    made: Box<[u64]>,
}

/// Taggings whose broker has not confirmed their tags: by link, ticket and number.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed(BTreeSet<(usize, u64, u64)>);

impl Unconfirmed {
    pub(super) fn link_down(&mut self, link: usize) {
        self.0.retain(|(at, ..)| *at != link);
    }

    pub(super) fn remove(&mut self, link: usize, tagging: &Tagging, number: u64) {
        self.0.remove(&(link, tagging.ticket, number));
    }

    fn pop(&mut self, link: usize, ticket: u64) -> Option<u64> {
        let key = *self.0.range((link, 0, 0)..=(link, ticket, u64::MAX)).next()?;
        self.0.remove(&key);
        Some(key.2)
    }
}

impl Reports {
    /// A TAG has been done: `made` are the users whose changes were made, `report` names it and
    /// counts all others. Their tags are in effect at that broker with this ticket, if they are not
    /// already.
    pub(crate) fn tagged(
        &mut self,
        link: usize,
        ticket: Option<u64>,
        report: Report,
        made: Vec<u64>,
        now_ms: u64,
    ) {
        self.counts.asked += 1;
        self.opened += 1;
        let (number, users) = (self.opened, made.len());
        let id = (report.origin, report.sequence);
        let until_ms = now_ms.saturating_add(self.bounds.report_ms);
        let ticket = ticket.filter(|_| users > 0);
        let tagging = Tagging { ticket: ticket.unwrap_or(0), made: made.into() };
        let mut owed = Owed::new(link, id, report, until_ms);
        (owed.users, owed.sums.open) = (users, usize::from(ticket.is_some()));
        let is_tracked = self.places + owed.places() <= self.bounds.places;
        if is_tracked || owed.sums.open == 0 {
            owed.tagging = Some(tagging);
        } else {
            self.counts.untracked += 1;
            (owed.users, owed.sums.open) = (0, 0);
            unknown(&mut owed.report, &tagging.made);
        }
        self.places += owed.places();
        if let Some(ticket) = ticket.filter(|_| owed.sums.open > 0) {
            self.unconfirmed.0.insert((link, ticket, number));
        }
        self.owe(number, owed, is_tracked);
    }

    /// This link's broker has everything up to this ticket in effect.
    pub(crate) fn in_effect(&mut self, link: usize, ticket: u64) {
        while let Some(number) = self.unconfirmed.pop(link, ticket) {
            let Some(owed) = self.owed.get_mut(&number) else { continue };
            owed.sums.open = 0;
            let id = owed.id;
            self.finish_line(link, id);
        }
    }
}

/// What became of those whose changes were made.
pub(super) fn told(report: &mut Report, tagging: &Tagging, is_confirmed: bool) {
    if is_confirmed {
        let made = u32::try_from(tagging.made.len()).unwrap_or(u32::MAX);
        report.reached = report.reached.saturating_add(made);
    } else {
        unknown(report, &tagging.made);
    }
}

fn unknown(report: &mut Report, uids: &[u64]) {
    uids.iter().for_each(|uid| report.add(Fate::UNKNOWN, ErrorCode(0), *uid));
}
