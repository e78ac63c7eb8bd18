//! Exclusive logins: who has to go when a user logs in elsewhere and a policy allows one only.
//!
//! Only registrations of live slots are in here, and only those of namespaces with a policy. The
//! rule knows neither time nor order of arrival: the higher login number wins, equals stay. So any
//! two brokers that have seen the same registrations, in whatever order, agree on the winner.
//!
//! A slot leaves in one step, however many logins it has: each entry carries the term in which its
//! slot entered it, and counts only while that slot is in that term. What counts no more is
//! forgotten in portions; nobody can tell whether it has been.
//!
//! Invariant: of the entries that contend, each one below the highest was in the answer of an `add`
//! since it was last added itself, so its gateway has been told.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::Bound::{Excluded, Unbounded};

use crate::{Namespace, Slot, Uid};

/// How many logins of one user may stand at once, in one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Policy {
    /// Any number; nobody contends with anybody.
    #[default]
    All,
    /// One for each device class; logins of different classes do not contend.
    OnePerDeviceClass,
    /// One, whatever the device class.
    One,
}

/// The policy of every namespace: a few that are named, and one for all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Policies {
    named: BTreeMap<Namespace, Policy>,
    others: Policy,
}

impl Policies {
    /// `others` holds for each namespace that `named` does not name. One named twice has its last
    /// policy.
    pub fn new(named: impl IntoIterator<Item = (Namespace, Policy)>, others: Policy) -> Self {
        Self { named: named.into_iter().collect(), others }
    }

    /// The policy of a namespace.
    #[must_use]
    pub fn of(&self, namespace: Namespace) -> Policy {
        self.named.get(&namespace).copied().unwrap_or(self.others)
    }

    /// Whether no namespace has a policy other than [`Policy::All`], so that nothing can ever be
    /// displaced.
    #[must_use]
    pub fn allow_all(&self) -> bool {
        self.others == Policy::All && self.named.values().all(|policy| *policy == Policy::All)
    }
}

/// A registration as the policies see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Login {
    /// The user's tenant.
    pub namespace: Namespace,
    /// The user.
    pub uid: Uid,
    /// Device class; its meaning is the application's.
    pub device_class: u8,
    /// Login number: the higher one wins. 0, which stands for none, is simply the lowest.
    pub number: u64,
}

/// A login that has to go: its gateway is to be told, and nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Displaced {
    /// The slot of the gateway that holds it.
    pub slot: Slot,
    /// Exactly the registration that lost.
    pub login: Login,
    /// The login number it lost to, always above its own.
    pub winner: u64,
}

/// The logins that contend, with the slots that hold them.
///
/// A loser is only told of; it stays an entry until its own gateway removes it or its slot leaves,
/// as routes do (promise 8). Namespaces with [`Policy::All`] cost nothing here. Every call but
/// [`Logins::sweep`] takes a number of steps logarithmic in the entries, plus the answer's length,
/// plus what slots have left behind of the same user. Memory is bounded by the registrations that
/// the owner admits, and as much again for what slots have left behind: each `add` sweeps two.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    policies: Policies,
    /// With the term in which each was added.
    entries: BTreeMap<Entry, u64>,
    /// Slots with entries that count.
    seats: BTreeMap<Slot, Seat>,
    terms: u64,
    /// Entries that do not count, and the last one a sweep has looked at.
    left: usize,
    swept: Option<Entry>,
}

/// One stay of a slot, from its first login to the last, or until it leaves.
#[derive(Clone, Debug)]
struct Seat {
    term: u64,
    entries: usize,
}

/// Entries that [`Logins::add`] sweeps. With two for each one that is added, those that do not
/// count are never many more than those that do.
const SWEPT_BY_ADD: usize = 2;

/// In the order of its fields: those that contend lie together, the highest number last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Entry {
    contest: Contest,
    number: u64,
    slot: Slot,
    device_class: u8,
}

/// What entries have in common that contend with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Contest {
    namespace: Namespace,
    uid: Uid,
    /// `None` if all device classes contend.
    device_class: Option<u8>,
}

impl Logins {
    /// Nobody is logged in.
    #[must_use]
    pub fn new(policies: Policies) -> Self {
        Self { policies, ..Self::default() }
    }

    /// The policies it applies.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// A registration of a live slot came into effect. Answers with those that lose by it: itself
    /// alone if a higher number stands; if it is the new highest, those it takes that place from
    /// (entries below them lost earlier and were told then); otherwise none.
    ///
    /// Adding what is there already changes nothing, and tells it again if it is a loser.
    pub fn add(&mut self, slot: Slot, login: Login) -> Vec<Displaced> {
        let Some(entry) = self.entry(slot, login) else { return Vec::new() };
        let highest = self.highest(entry.contest);
        self.insert(entry);
        self.sweep(SWEPT_BY_ADD);
        match highest {
            Some(highest) if highest > login.number => {
                vec![Displaced { slot, login, winner: highest }]
            }
            Some(highest) if highest < login.number => {
                let losers = self.with_number(entry.contest, highest);
                losers.map(|loser| loser.displaced(login.number)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A registration went, whether it had lost or not. One that is not there changes nothing.
    pub fn remove(&mut self, slot: Slot, login: Login) {
        let Some(entry) = self.entry(slot, login) else { return };
        match self.entries.remove(&entry) {
            None => {}
            Some(term) if self.counts(&entry, term) => self.stand_up(slot),
            Some(_) => self.left -= 1,
        }
    }

    /// A slot left, suspended, replaced or dead: none of its logins contends any more. One that
    /// comes back adds them again.
    pub fn leave(&mut self, slot: Slot) {
        if let Some(seat) = self.seats.remove(&slot) {
            self.left += seat.entries;
        }
    }

    /// Looks at the next `budget` entries, if slots have left any, and forgets those that they did.
    pub fn sweep(&mut self, budget: usize) {
        if self.left == 0 {
            self.swept = None;
            return;
        }
        let from = self.swept.map_or(Unbounded, Excluded);
        let (mut looked, mut last, mut left) = (0, None, Vec::new());
        for (entry, term) in self.entries.range((from, Unbounded)).take(budget) {
            (looked, last) = (looked + 1, Some(*entry));
            if !self.counts(entry, *term) {
                left.push(*entry);
            }
        }
        self.swept = last.filter(|_| looked == budget);
        self.left -= left.len();
        for entry in &left {
            self.entries.remove(entry);
        }
    }

    /// The highest login number among those that contend with `login`, itself included if it is
    /// here; `None` if there is none, or no policy.
    #[must_use]
    pub fn winner(&self, login: Login) -> Option<u64> {
        self.highest(self.contest(login)?)
    }

    /// Number of entries: registrations in effect in namespaces with a policy.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() - self.left
    }

    /// Entries that slots left behind and that take up memory until they are swept.
    #[must_use]
    pub fn unswept(&self) -> usize {
        self.left
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn contest(&self, login: Login) -> Option<Contest> {
        let Login { namespace, uid, device_class, .. } = login;
        let device_class = match self.policies.of(namespace) {
            Policy::All => return None,
            Policy::OnePerDeviceClass => Some(device_class),
            Policy::One => None,
        };
        Some(Contest { namespace, uid, device_class })
    }

    fn entry(&self, slot: Slot, login: Login) -> Option<Entry> {
        let contest = self.contest(login)?;
        Some(Entry { contest, number: login.number, slot, device_class: login.device_class })
    }

    fn insert(&mut self, entry: Entry) {
        let seat = self.seats.entry(entry.slot).or_insert_with(|| {
            self.terms += 1;
            Seat { term: self.terms, entries: 0 }
        });
        match self.entries.insert(entry, seat.term) {
            Some(before) if before == seat.term => return,
            Some(_) => self.left -= 1,
            None => {}
        }
        seat.entries += 1;
    }

    /// One entry less that counts; a slot without any has no seat.
    fn stand_up(&mut self, slot: Slot) {
        if let Some(seat) = self.seats.get_mut(&slot) {
            seat.entries -= 1;
            if seat.entries == 0 {
                self.seats.remove(&slot);
            }
        }
    }

    fn counts(&self, entry: &Entry, term: u64) -> bool {
        self.seats.get(&entry.slot).is_some_and(|seat| seat.term == term)
    }

    fn counting(&self) -> impl Iterator<Item = &Entry> {
        let all = self.entries.iter().filter(|&(entry, term)| self.counts(entry, *term));
        all.map(|(entry, _)| entry)
    }

    fn highest(&self, contest: Contest) -> Option<u64> {
        let all = Entry::lowest(contest, 0)..=Entry::highest(contest, u64::MAX);
        let mut falling = self.entries.range(all).rev();
        falling.find(|&(entry, term)| self.counts(entry, *term)).map(|(entry, _)| entry.number)
    }

    fn with_number(&self, contest: Contest, number: u64) -> impl Iterator<Item = &Entry> {
        let equals = Entry::lowest(contest, number)..=Entry::highest(contest, number);
        let counting =
            self.entries.range(equals).filter(|&(entry, term)| self.counts(entry, *term));
        counting.map(|(entry, _)| entry)
    }
}

/// By what contends, whatever has been swept.
impl PartialEq for Logins {
    fn eq(&self, other: &Self) -> bool {
        self.policies == other.policies && self.counting().eq(other.counting())
    }
}

impl Eq for Logins {}

impl Hash for Logins {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.policies.hash(state);
        self.len().hash(state);
        self.counting().for_each(|entry| entry.hash(state));
    }
}

impl Entry {
    fn lowest(contest: Contest, number: u64) -> Self {
        Self { contest, number, slot: Slot::new(0, 0), device_class: 0 }
    }

    fn highest(contest: Contest, number: u64) -> Self {
        Self { contest, number, slot: Slot::new(u32::MAX, u64::MAX), device_class: u8::MAX }
    }

    fn displaced(&self, winner: u64) -> Displaced {
        let Self { contest: Contest { namespace, uid, .. }, number, slot, device_class } = *self;
        Displaced { slot, login: Login { namespace, uid, device_class, number }, winner }
    }
}
