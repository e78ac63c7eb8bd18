//! Reports on TAG (TAG-16): the users whose changes were made count as reached once the broker that
//! sent it has their tags in effect, and as unknown if it has not in time.
//!
//! Their places are among those of [`Reports`]; of what finds none the users are unknown at once.

use std::collections::BTreeMap;

use waybill_client::gateway::Report;
use waybill_wire::code::{ErrorCode, Fate};

use super::{Reports, places};

/// Taggings whose broker has not confirmed their tags.
#[derive(Debug, Default)]
pub(super) struct Taggings {
    /// By link, ticket of the tags and number.
    waiting: BTreeMap<(usize, u64, u64), Tagging>,
    /// By number, with the end of its time, which rises with it.
    line: BTreeMap<u64, (u64, usize, u64)>,
}

#[derive(Debug)]
struct Tagging {
    report: Report,
    /// Users whose changes were made.
    made: Vec<u64>,
}

impl Tagging {
    fn places(&self) -> usize {
        1 + self.made.len() + places(&self.report)
    }
}

impl Taggings {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn places(&self) -> usize {
        self.waiting.values().map(Tagging::places).sum()
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.line.first_key_value().map(|(_, &(until_ms, ..))| until_ms)
    }

    pub(super) fn link_down(&mut self, link: usize) {
        self.waiting.retain(|(at, ..), _| *at != link);
        self.line.retain(|_, (_, at, _)| *at != link);
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
        mut report: Report,
        made: Vec<u64>,
        now_ms: u64,
    ) {
        self.counts.asked += 1;
        let Some(ticket) = ticket.filter(|_| !made.is_empty()) else {
            report.reached = count(&made);
            return self.keep(link, report);
        };
        let tagging = Tagging { report, made };
        let places = tagging.places();
        if self.places + places > self.bounds.places {
            self.counts.untracked += 1;
            return self.keep(link, unknown(tagging));
        }
        self.places += places;
        self.opened += 1;
        let until_ms = now_ms.saturating_add(self.bounds.report_ms);
        self.taggings.line.insert(self.opened, (until_ms, link, ticket));
        self.taggings.waiting.insert((link, ticket, self.opened), tagging);
    }

    /// This link's broker has everything up to this ticket in effect.
    pub(crate) fn in_effect(&mut self, link: usize, ticket: u64) {
        loop {
            let mut due = self.taggings.waiting.range((link, 0, 0)..=(link, ticket, u64::MAX));
            let Some((&key, _)) = due.next() else { return };
            let Some(Tagging { mut report, made }) = self.leave(key) else { return };
            report.reached = count(&made);
            self.keep(link, report);
        }
    }

    /// Those whose time is over.
    pub(super) fn tick_taggings(&mut self, now_ms: u64) {
        while let Some((&number, &(until_ms, link, ticket))) = self.taggings.line.first_key_value()
            && until_ms <= now_ms
            && let Some(tagging) = self.leave((link, ticket, number))
        {
            self.keep(link, unknown(tagging));
        }
    }

    fn leave(&mut self, key: (usize, u64, u64)) -> Option<Tagging> {
        self.taggings.line.remove(&key.2);
        let tagging = self.taggings.waiting.remove(&key)?;
        self.places -= tagging.places();
        Some(tagging)
    }
}

fn unknown(Tagging { mut report, made }: Tagging) -> Report {
    made.into_iter().for_each(|uid| report.add(Fate::UNKNOWN, ErrorCode(0), uid));
    report
}

fn count(made: &[u64]) -> u32 {
    u32::try_from(made.len()).unwrap_or(u32::MAX)
}
