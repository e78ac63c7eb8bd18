//! A TAG, in as many parts as it needs: changes are made one user after another, and decide of
//! every delivery that comes to the user's connections from there on (TAG-15). The report says when
//! this broker knows of them.

use waybill_client::gateway::{Report, Tagging};
use waybill_wire::code::{ErrorCode, Fate, Op};
use waybill_wire::frame::Tag;

use super::Switchboard;
use super::parts::Job;
use crate::hub::{LastChanges, Tagged};

/// A TAG that was not made of all its users.
#[derive(Debug)]
pub(super) struct TagJob {
    pub(super) link: usize,
    tagging: Tagging,
    /// Each once; the last is next.
    rest: Vec<u64>,
    /// Users whose changes were made.
    made: Vec<u64>,
    report: Report,
}

impl Switchboard {
    pub(super) fn tag(&mut self, link: usize, tagging: Tagging, now_ms: u64) {
        self.telemetry.taggings.add(1);
        let mut rest: Vec<u64> = tagging.tag().uids.iter().collect();
        rest.sort_unstable_by(|one, other| other.cmp(one));
        rest.dedup();
        let report = Report::on_tagging(&tagging);
        let job = TagJob { link, tagging, rest, made: Vec::new(), report };
        if let Some(job) = self.tag_on(Box::new(job), now_ms) {
            self.parts.add(Job::Tagging(job));
        }
    }

    /// Another part of it, or the first; what is left.
    pub(super) fn tag_on(&mut self, mut job: Box<TagJob>, now_ms: u64) -> Option<Box<TagJob>> {
        let TagJob { link, tagging, rest, made, report } = &mut *job;
        let tag = tagging.tag();
        let last = last_changes(&tag);
        let mut left = self.parts.size();
        while left > 0
            && let Some(uid) = rest.pop()
        {
            let changes = self.hub.of_user(tag.namespace, uid) * last.len();
            left = left.saturating_sub(changes.max(1));
            match self.hub.tag(tag.namespace, uid, &last) {
                Tagged::Made => made.push(uid),
                Tagged::Dropped(cause) => {
                    self.telemetry.taggings_refused.add(1);
                    report.add(Fate::DROPPED, cause, uid);
                }
                Tagged::Missed => report.add(Fate::OFFLINE, ErrorCode(0), uid),
            }
        }
        self.parts.left(left);
        // Those of each part at once: a connection that logs in waits for them too (REG-6).
        self.declare();
        if !rest.is_empty() {
            return Some(job);
        }
        let added = last.iter().filter(|(_, op)| **op == Op::ADD).map(|(text, _)| *text);
        let due = self.upstream.tags_due(*link, tag.namespace, added);
        let link = *link;
        let TagJob { report, made, .. } = *job;
        self.reports.tagged(link, due, report, made, now_ms);
        None
    }
}

/// The last change of each tag counts (TAG-14).
fn last_changes<'a>(tag: &Tag<'a>) -> LastChanges<'a> {
    tag.changes.iter().map(|change| (change.tag, change.op)).collect()
}
