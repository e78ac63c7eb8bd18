//! What became of one message, or of one TAG, from what its gateways say: the machine behind a
//! receipt of stage `delivered`.
//!
//! Each gateway that has users of it has a part of it. A part is settled once, by its REPORT or by
//! what happened to it instead. Of a user with several gateways one word counts, in whatever order
//! they come. Of a message it is the best one: reached, unknown, dropped, filtered, offline. A TAG
//! is for all connections of a user, so that what is missing counts before what was reached:
//! dropped, unknown, reached, offline. A gateway can only speak of its own part. Pure: no links, no
//! clock. See the tests for the naive oracle.

use std::cmp::Reverse;

use waybill_wire::code::{ErrorCode, Fate};
use waybill_wire::frame::Report;
use waybill_wire::limits::FATES_MAX;

use crate::outbox::Cause;

/// What a gateway was asked to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share<'a> {
    /// These users.
    Uids(&'a [u64]),
    /// The whole list, or everyone.
    Whole,
}

/// What is known of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Its gateway's REPORT.
    Told(Told),
    /// Its gateway has gone, does not report, or did not in time.
    Unknown,
    /// Its time to live ran out before it was written.
    Expired,
    /// Another message took its place before it was written.
    Conflated,
    /// Its gateway's outbox had no room, or all links together, or others made room for themselves.
    Full,
    /// What waited in its gateway's outbox waited too long, itself perhaps.
    Aged,
    /// Its gateway's link had gone before the frame reached the outbox.
    Gone,
    /// Its gateway does not run what the frame asks for, and was not sent it.
    NotSupported,
}

impl From<Cause> for Word {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Expired => Self::Expired,
            Cause::Conflated => Self::Conflated,
            Cause::Full | Cause::Pool => Self::Full,
            Cause::Aged => Self::Aged,
        }
    }
}

/// A REPORT, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Users reached.
    pub reached: u32,
    /// Users of each fate but reached, by the code of the fate less one.
    pub counts: [u32; 4],
    /// Who they are.
    pub named: Vec<(Fate, ErrorCode, Vec<u64>)>,
}

impl Told {
    /// What a frame says of a part of at most `users` listed users. Who is named beyond that many
    /// was not asked for, and is not kept: what waits is bounded by what was asked.
    #[must_use]
    pub fn of(report: &Report<'_>, users: usize) -> Self {
        let (named, mut left) = (report.fate_sets.iter(), users);
        let named = named.map(|set| {
            let uids: Vec<u64> = set.uids.iter().take(left).collect();
            left -= uids.len();
            (set.fate, set.cause, uids)
        });
        Self {
            reached: report.reached,
            counts: FATES.map(|fate| report.counter(fate)),
            named: named.filter(|(_, _, uids)| !uids.is_empty()).collect(),
        }
    }
}

/// The fates in the order of their codes, which is that of the sets in a receipt.
const FATES: [Fate; 4] = [Fate::OFFLINE, Fate::UNKNOWN, Fate::FILTERED, Fate::DROPPED];

/// A word about a user; of a message the greatest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    #[default]
    Open,
    Offline,
    Filtered,
    Dropped,
    Unknown,
    Reached,
}

impl Rank {
    fn of(fate: Fate) -> Self {
        match fate {
            Fate::OFFLINE => Self::Offline,
            Fate::FILTERED => Self::Filtered,
            Fate::DROPPED => Self::Dropped,
            _ => Self::Unknown,
        }
    }

    /// `None`: reached.
    fn fate(self) -> Option<Fate> {
        match self {
            Self::Reached => None,
            // What was sent to nobody is with nobody (REP-6).
            Self::Offline | Self::Open => Some(Fate::OFFLINE),
            Self::Filtered => Some(Fate::FILTERED),
            Self::Dropped => Some(Fate::DROPPED),
            Self::Unknown => Some(Fate::UNKNOWN),
        }
    }
}

/// Of two causes the lower code counts, so that order does not matter.
type Best = (Rank, Reverse<u16>);

/// What is asked: which word about a user counts depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    /// Who of a list was reached.
    List,
    /// How many were.
    #[default]
    Everyone,
    /// Whose changes of tags were made everywhere.
    Tags,
}

impl Asked {
    fn rank(self, fate: Fate) -> Rank {
        match Rank::of(fate) {
            // No gateway says so of a TAG (TAG-16), so nobody knows what it means.
            Rank::Filtered if self == Self::Tags => Rank::Unknown,
            rank => rank,
        }
    }

    /// The greatest counts.
    fn weight(self, (rank, cause): Best) -> (u8, Reverse<u16>) {
        let weight = match rank {
            Rank::Dropped if self == Self::Tags => Rank::Reached as u8 + 2,
            Rank::Unknown if self == Self::Tags => Rank::Reached as u8 + 1,
            _ => rank as u8,
        };
        (weight, cause)
    }
}

#[derive(Clone, Debug)]
enum Part {
    /// Places in `uids`, rising.
    Some(Box<[u16]>),
    All,
    Settled,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    /// The users of the list, each once, in its order; none of an audience without a list.
    uids: Vec<u64>,
    /// Places in `uids`, by UID.
    by_uid: Vec<u16>,
    best: Vec<Best>,
    parts: Vec<Part>,
    open: usize,
    /// Without a list: sums of users over gateways, reached first.
    sums: [u32; 5],
    asked: Asked,
}

/// The sums and the names for a receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Users reached.
    pub sent: u32,
    /// Users of each fate but reached, by the code of the fate less one.
    pub counts: [u32; 4],
    /// Who they are, by fate and cause, at most `fates_max` sets, each in the order of the list.
    pub named: Vec<(Fate, ErrorCode, Vec<u64>)>,
}

impl Merge {
    /// For a list of users, of which one that is listed twice counts once.
    #[must_use]
    pub fn list(listed: impl Iterator<Item = u64>) -> Self {
        let uids: Vec<u64> = listed.collect();
        let place = |at: usize| u16::try_from(at).expect("targets_max fits");
        let mut by_uid: Vec<u16> = (0..uids.len()).map(place).collect();
        by_uid.sort_by_key(|&at| (uids[usize::from(at)], at));
        by_uid.dedup_by_key(|at| uids[usize::from(*at)]);
        let mut merge = Self { uids, asked: Asked::List, ..Self::default() };
        if by_uid.len() < merge.uids.len() {
            let mut kept: Vec<u16> = by_uid;
            kept.sort_unstable();
            merge.uids = kept.into_iter().map(|at| merge.uids[usize::from(at)]).collect();
            by_uid = (0..merge.uids.len()).map(place).collect();
            by_uid.sort_by_key(|&at| merge.uids[usize::from(at)]);
        }
        merge.best = vec![Best::default(); merge.uids.len()];
        merge.by_uid = by_uid;
        merge
    }

    /// For the users of a TAG (TAG-17).
    #[must_use]
    pub fn tags(listed: impl Iterator<Item = u64>) -> Self {
        Self { asked: Asked::Tags, ..Self::list(listed) }
    }

    /// For everyone in a namespace: sums, and nobody named.
    #[must_use]
    pub fn everyone() -> Self {
        Self::default()
    }

    /// Bytes it holds, with what its parts hold elsewhere.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |part: &Part| match part {
            Part::Some(places) => PART_BYTES + 2 * places.len(),
            Part::All | Part::Settled => PART_BYTES,
        };
        MERGE_BYTES + self.uids.len() * UID_BYTES + self.parts.iter().map(of).sum::<usize>()
    }

    /// What was known of users before any gateway spoke.
    pub fn settle(&mut self, uids: &[u64], fate: Fate, cause: ErrorCode) {
        for &uid in uids {
            if let Some(at) = self.place(uid) {
                self.better(at, (Rank::of(fate), Reverse(cause.0)));
            }
        }
    }

    /// A gateway has a part of it; the number of that part.
    ///
    /// # Panics
    ///
    /// With more parts than 65,535, the most slots there are.
    pub fn part(&mut self, share: Share<'_>) -> u16 {
        let part = match share {
            Share::Uids(uids) => {
                let mut places: Vec<u16> = uids.iter().filter_map(|&uid| self.find(uid)).collect();
                places.sort_unstable();
                Part::Some(places.into())
            }
            Share::Whole => Part::All,
        };
        self.parts.push(part);
        self.open += 1;
        u16::try_from(self.parts.len() - 1).expect("no more parts than slots")
    }

    /// How many parts it has.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Whether every part is settled.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// Settles a part; `false` if there is no such part, or it was settled before.
    pub fn hear(&mut self, part: u16, word: &Word) -> bool {
        let Some(held) = self.parts.get_mut(usize::from(part)) else { return false };
        let held = std::mem::replace(held, Part::Settled);
        if matches!(held, Part::Settled) {
            return false;
        }
        self.open -= 1;
        if self.asked != Asked::Everyone {
            match held {
                Part::Some(places) => self.learn(places.iter().copied(), word),
                _ => self.learn(0..self.count(), word),
            }
        } else {
            self.sum(word);
        }
        true
    }

    /// Settles every part that is not, as unknown; how many there were.
    pub fn give_up(&mut self) -> usize {
        let open = self.open;
        for part in 0..self.parts.len() {
            // One that is settled stays as it is.
            let _ = self.hear(u16::try_from(part).unwrap_or(u16::MAX), &Word::Unknown);
        }
        open
    }

    fn count(&self) -> u16 {
        u16::try_from(self.uids.len()).expect("targets_max fits")
    }

    fn find(&self, uid: u64) -> Option<u16> {
        let at = self.by_uid.binary_search_by_key(&uid, |&at| self.uids[usize::from(at)]).ok()?;
        Some(self.by_uid[at])
    }

    fn place(&self, uid: u64) -> Option<usize> {
        self.find(uid).map(usize::from)
    }

    fn better(&mut self, at: usize, best: Best) {
        let held = &mut self.best[at];
        if self.asked.weight(best) > self.asked.weight(*held) {
            *held = best;
        }
    }

    fn learn(&mut self, places: impl Iterator<Item = u16> + Clone, word: &Word) {
        let all = match word {
            Word::Told(told) => return self.learn_told(places, told),
            Word::Unknown => (Rank::Unknown, Reverse(0)),
            Word::Expired => (Rank::Dropped, Reverse(ErrorCode::EXPIRED.0)),
            Word::Conflated => (Rank::Dropped, Reverse(ErrorCode::CONFLATED.0)),
            Word::Full => (Rank::Dropped, Reverse(ErrorCode::OUTBOX_FULL.0)),
            Word::Aged => (Rank::Dropped, Reverse(ErrorCode::OUTBOX_AGE.0)),
            Word::Gone => (Rank::Offline, Reverse(0)),
            Word::NotSupported => (Rank::Dropped, Reverse(ErrorCode::NOT_SUPPORTED.0)),
        };
        places.for_each(|at| self.better(at.into(), all));
    }

    /// Names outside the part say nothing. Whoever is not named was reached, if that is how many
    /// the gateway says it reached; else nobody knows.
    fn learn_told(&mut self, places: impl Iterator<Item = u16> + Clone, told: &Told) {
        let mut said: Vec<(u16, Best)> = Vec::new();
        for (fate, cause, uids) in &told.named {
            let best = (self.asked.rank(*fate), Reverse(cause.0));
            said.extend(uids.iter().filter_map(|&uid| Some((self.find(uid)?, best))));
        }
        said.sort_unstable_by_key(|(place, best)| (*place, self.asked.weight(*best)));
        let word = |at: u16| {
            // The last of several words about one user is the one that counts.
            let end = said.partition_point(|(place, _)| *place <= at);
            said[..end].last().filter(|(place, _)| *place == at).map(|(_, best)| *best)
        };
        let unnamed = places.clone().filter(|&at| word(at).is_none()).count();
        let rank = if unnamed == told.reached as usize { Rank::Reached } else { Rank::Unknown };
        for at in places {
            self.better(at.into(), word(at).unwrap_or((rank, Reverse(0))));
        }
    }

    fn sum(&mut self, word: &Word) {
        // How many users a gateway has that did not speak is not known here (REP-5).
        let Word::Told(told) = word else { return };
        let more = [told.reached].into_iter().chain(told.counts);
        for (sum, more) in self.sums.iter_mut().zip(more) {
            *sum = sum.saturating_add(more);
        }
    }

    /// What a receipt says when [`Merge::is_complete`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.asked == Asked::Everyone {
            let [sent, counts @ ..] = self.sums;
            return Outcome { sent, counts, named: Vec::new() };
        }
        let mut outcome = Outcome::default();
        for (&uid, (rank, Reverse(cause))) in self.uids.iter().zip(&self.best) {
            let Some(fate) = rank.fate() else {
                outcome.sent += 1;
                continue;
            };
            outcome.counts[usize::from(fate.0) - 1] += 1;
            let key = (fate, ErrorCode(*cause));
            match outcome.named.iter_mut().find(|(fate, cause, _)| (*fate, *cause) == key) {
                Some((_, _, uids)) => uids.push(uid),
                None => outcome.named.push((key.0, key.1, vec![uid])),
            }
        }
        if outcome.named.len() > FATES_MAX {
            self.forget_causes(&mut outcome);
        }
        outcome.named.sort_unstable_by_key(|(fate, cause, _)| (fate.0, cause.0));
        outcome
    }

    /// With more causes than a receipt has sets for, those of one fate become one set without.
    fn forget_causes(&self, outcome: &mut Outcome) {
        outcome.named.clear();
        for fate in FATES {
            let has =
                self.uids.iter().zip(&self.best).filter(|(_, best)| best.0.fate() == Some(fate));
            let uids: Vec<u64> = has.map(|(&uid, _)| uid).collect();
            if !uids.is_empty() {
                outcome.named.push((fate, ErrorCode(0), uids));
            }
        }
    }
}

/// Bytes of a [`Merge`] in a table of them, without its lists.
const MERGE_BYTES: usize = 256;
/// Bytes of a part, here and where its REPORT is waited for.
const PART_BYTES: usize = 160;
/// Bytes of one user: the UID, its place by UID, the best word.
const UID_BYTES: usize = 8 + 2 + 4;

const _: () = assert!(FATES_MAX >= FATES.len() && size_of::<Best>() <= 4);
const _: () = assert!(size_of::<Merge>() + 64 <= MERGE_BYTES && size_of::<Part>() <= 32);

#[cfg(test)]
mod tests;
