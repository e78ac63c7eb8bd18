//! Which tags a connection has, as far as a naive onlooker can know: those of its token, and what
//! producers said and were told of.
//!
//! A change is *made* for a user when its receipt says so and it was transmitted once; until then,
//! and wherever something went wrong, it may have been made, may be, or may not.

use std::collections::BTreeSet;

use super::judge::named;
use super::{LET_GO, Message, Oracle, Stay, Verdict};

/// Changes of tags that a producer asked for.
#[derive(Debug)]
pub(crate) struct Tagging {
    at: u64,
    producer: usize,
    namespace: u32,
    uids: BTreeSet<u64>,
    /// Each tag at most once; `true`: it is added.
    tags: Vec<(u8, bool)>,
    /// The broker of each time that it was transmitted.
    transmitted: Vec<usize>,
    settled: Option<(u64, Verdict)>,
    orphan: bool,
}

/// What became of a change for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Perhaps,
    /// The broker knew no connection of it.
    Nothing,
    /// By this time, for all connections that this broker knew.
    Made {
        by: u64,
        broker: usize,
    },
}

impl Tagging {
    /// One that `producer` is about to ask for.
    pub(crate) fn new(
        producer: usize,
        namespace: u32,
        uids: impl IntoIterator<Item = u64>,
        tags: Vec<(u8, bool)>,
    ) -> Self {
        Self {
            at: 0,
            producer,
            namespace,
            uids: uids.into_iter().collect(),
            tags,
            transmitted: Vec::new(),
            settled: None,
            orphan: false,
        }
    }

    fn change(&self, (namespace, uid): (u32, u64), tag: u8) -> Option<bool> {
        let is_for = self.namespace == namespace && self.uids.contains(&uid);
        let change = self.tags.iter().find(|(of, _)| *of == tag);
        change.filter(|_| is_for).map(|(_, add)| *add)
    }

    fn fate(&self, uid: u64) -> Fate {
        let Some((by, Verdict { receipt: Some(receipt) })) = &self.settled else {
            return Fate::Perhaps;
        };
        let &[broker] = self.transmitted.as_slice() else { return Fate::Perhaps };
        if receipt.in_doubt || receipt.unknown.contains(&uid) {
            return Fate::Perhaps;
        }
        if receipt.offline.contains(&uid) {
            return Fate::Nothing;
        }
        let refused = receipt.dropped.iter().any(|it| it.uids.contains(&uid));
        if refused { Fate::Perhaps } else { Fate::Made { by: *by, broker } }
    }
}

impl Oracle {
    /// How many changes of tags were asked for.
    pub(crate) fn changes(&self) -> u64 {
        self.taggings.len() as u64
    }

    /// A change of tags is asked for; its number.
    pub(crate) fn tags_change(&mut self, tagging: Tagging) -> u64 {
        self.taggings.push(Tagging { at: self.now, ..tagging });
        self.taggings.len() as u64 - 1
    }

    fn tagging(&mut self, number: u64) -> &mut Tagging {
        let place = usize::try_from(number).expect("a number of a change");
        &mut self.taggings[place]
    }

    /// Its producer wrote it to a link.
    pub(crate) fn tags_transmitted(&mut self, number: u64, broker: usize) {
        self.tagging(number).transmitted.push(broker);
    }

    /// Its producer was told what became of it.
    pub(crate) fn tags_settled(&mut self, number: u64, verdict: Verdict) {
        let now = self.now;
        let tagging = self.tagging(number);
        assert!(tagging.settled.is_none(), "change {number} has two outcomes");
        tagging.settled = Some((now, verdict));
        let Some((_, Verdict { receipt: Some(receipt) })) = &tagging.settled else { return };
        if receipt.in_doubt {
            return;
        }
        let sum = receipt.sent as usize + receipt.unknown_count as usize + named(receipt).len();
        assert_eq!(sum, tagging.uids.len(), "promise 5: each counts once: {tagging:?}");
    }

    /// Its producer will be told nothing of what it has not heard yet.
    pub(super) fn tagger_killed(&mut self, producer: usize) {
        let of = self.taggings.iter_mut().filter(|it| it.producer == producer);
        of.for_each(|tagging| tagging.orphan |= tagging.settled.is_none());
    }

    /// Whether the selector of a message is true of a connection in all of this time; for what
    /// `broker` sends, if it is one that has to know.
    pub(super) fn matches(
        &self,
        message: &Message,
        stay: &Stay,
        span: (u64, u64),
        broker: Option<usize>,
    ) -> Option<bool> {
        let Some(wish) = &message.wish else { return Some(true) };
        wish.judge(&|tag| self.has_tag(stay, tag, span, broker))
    }

    /// Whether a connection has a tag in all of this time; `None` if that can't be known.
    fn has_tag(
        &self,
        stay: &Stay,
        tag: u8,
        (from, to): (u64, u64),
        broker: Option<usize>,
    ) -> Option<bool> {
        let at_first = stay.tags.contains(&tag);
        let until = self.taggings.iter().take_while(|it| it.at <= to);
        let about =
            until.filter_map(|it| Some((it, it.change(stay.who, tag)?, it.fate(stay.who.1))));
        let about: Vec<_> = about.filter(|(_, _, fate)| *fate != Fate::Nothing).collect();
        if about.iter().all(|(_, add, _)| *add == at_first) {
            return Some(at_first);
        }
        // One that was made for this connection, and nothing to the contrary since it was begun.
        let stands = about.iter().find(|(tagging, add, fate)| {
            let Fate::Made { by, broker: told } = *fate else { return false };
            let before = |fate: &Fate| matches!(fate, Fate::Made { by, .. } if *by < tagging.at);
            by <= from
                && (!*add || broker.is_none_or(|broker| broker == told))
                && self.was_here(stay, told, tagging.at, by)
                && about.iter().all(|(_, other, fate)| other == add || before(fate))
        });
        stands.map(|(_, add, _)| *add)
    }

    /// Promise 8: whom a broker must have known is not offline to it.
    pub(super) fn judge_taggings(&self) {
        for tagging in &self.taggings {
            let Some((at, Verdict { receipt: Some(receipt) })) = &tagging.settled else { continue };
            let &[broker] = tagging.transmitted.as_slice() else { continue };
            for stay in self.stays.iter().filter(|it| it.who.0 == tagging.namespace) {
                let there = receipt.offline.contains(&stay.who.1)
                    && self.was_here(stay, broker, tagging.at, at + LET_GO);
                assert!(!there, "promise 8: told offline: {tagging:?} {stay:?}");
            }
        }
    }

    /// Every change whose producer lives has an outcome.
    pub(super) fn all_tags_settled(&self) {
        for tagging in &self.taggings {
            let settled = tagging.settled.is_some() || tagging.orphan;
            assert!(settled, "promise 6: no outcome of {tagging:?}");
        }
    }

    /// Whether its producer was told what became of it.
    pub(crate) fn tags_are_settled(&self, number: u64) -> bool {
        let place = usize::try_from(number).expect("a number of a change");
        self.taggings[place].settled.is_some()
    }

    /// Where all is well a change is made for everyone who is online.
    pub(crate) fn last_tagged(&self, number: u64, online: &BTreeSet<u64>) {
        let place = usize::try_from(number).expect("a number of a change");
        let tagging = &self.taggings[place];
        for uid in online {
            let made = matches!(tagging.fate(*uid), Fate::Made { .. });
            assert!(made, "liveness: {uid} is online and was not tagged: {tagging:?}");
        }
    }
}
