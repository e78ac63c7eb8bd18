//! Producers that change users' tags.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use waybill_client::{Publish, TagChange};
use waybill_wire::frame::Tag;

use super::backends::STRANGERS;
use super::{Work, World};
use crate::oracle::Tagging;
use crate::scenario::{MS, SECOND};
use crate::wish::{LAST_TAG, TAGS, Wish, text_of};

/// Numbers of changes begin here, those of messages below.
const CHANGES: u64 = 1 << 40;

/// Time that the last changes have, and the messages after them.
const LAST: u64 = 4 * SECOND;

/// How often a receipt is looked for.
const STEP: u64 = MS;

/// The number of the change, if it is of one.
pub(super) fn is_change(number: u64) -> Option<u64> {
    number.checked_sub(CHANGES)
}

/// The number of a change by its frame: it names a user who is nobody, and nobody else's.
pub(super) fn number_of(tag: &Tag<'_>) -> u64 {
    let last = tag.uids.iter().last().expect("a list is not empty");
    last - STRANGERS
}

impl World {
    /// Some producer gives some users a few tags and takes others.
    pub(super) fn tags_change(&mut self) {
        let at = self.chance.place(self.producers.len());
        if !self.producers[at].process.runs() {
            return;
        }
        let namespace = u32::from(self.chance.one_in(2));
        let uids = self.some_uids(self.scenario.uids);
        let first = u8::try_from(self.chance.below(TAGS.into())).expect("a few");
        let count = u8::try_from(self.chance.between(1, 3)).expect("a few");
        let tags = (first..first + count).map(|tag| (tag % TAGS, self.chance.one_in(2)));
        let tags = tags.collect();
        self.change_tags(at, namespace, &uids, tags);
    }

    fn change_tags(
        &mut self,
        at: usize,
        namespace: u32,
        uids: &[u64],
        tags: Vec<(u8, bool)>,
    ) -> u64 {
        let change = |(tag, add): &(u8, bool)| match add {
            true => TagChange::add(text_of(*tag)),
            false => TagChange::remove(text_of(*tag)),
        };
        let changes: Vec<TagChange> = tags.iter().map(change).collect();
        let nobody = STRANGERS + self.oracle.changes();
        let uids: Vec<u64> = uids.iter().copied().chain([nobody]).collect();
        let tagging = Tagging::new(at, namespace, uids.iter().copied(), tags);
        let number = self.oracle.tags_change(tagging);
        self.note(|_| format!("producer {at} changes {number}: {namespace} {uids:?} {changes:?}"));
        let producer = &mut self.producers[at];
        let now = self.origin + Duration::from_micros(producer.process.local(self.now));
        let of = (uids, changes);
        producer.sim.tag(now, CHANGES + number, namespace, of).expect("tags that may be");
        self.work.push_back(Work::End(producer.end));
        number
    }

    /// When all is well: by one broker everybody gets a tag, a message for whoever has it, loses it
    /// again, and the same message goes to nobody.
    pub(super) fn last_tags(&mut self, online: &BTreeMap<u32, BTreeSet<u64>>) {
        let broker = self.chance.place(self.brokers.len());
        self.add_producer(Some(broker));
        let producer = self.producers.len() - 1;
        let all: Vec<u64> = (1..=self.scenario.uids + 2).collect();
        let nobody = BTreeSet::new();
        for add in [true, false] {
            for namespace in 0..2 {
                let here = online.get(&namespace).unwrap_or(&nobody);
                let number = self.change_tags(producer, namespace, &all, vec![(LAST_TAG, add)]);
                // The receipt is the barrier (TAG-18): the message follows it at once.
                for _ in 0..LAST / STEP {
                    if self.oracle.tags_are_settled(number) {
                        break;
                    }
                    self.run_for(STEP);
                }
                self.oracle.last_tagged(number, here);
                let wish = Some(Wish::Has(LAST_TAG));
                let publish = Publish::everyone().namespace(namespace);
                let number = self.publish(producer, publish, wish);
                self.run_for(LAST);
                for user in self.users.iter().filter(|it| it.who().0 == namespace) {
                    let copies = user.sockets.iter().filter(|at| self.oracle.has(**at, number));
                    let (copies, due) = (copies.count(), add && self.may_stay(user));
                    let who = user.who();
                    assert_eq!(copies, usize::from(due), "liveness: {who:?} and its tags {number}");
                }
            }
        }
    }
}
