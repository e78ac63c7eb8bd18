//! Exclusive logins: who has to go when a user logs in elsewhere and a policy allows one only.
//!
//! Only registrations of live slots are in here, and only those of namespaces with a policy. The
//! rule knows neither time nor order of arrival: the higher login number wins, equals stay. So any
//! two brokers that have seen the same registrations, in whatever order, agree on the winner.
//!
//! Invariant: of the entries that contend, each one below the highest was in the answer of an `add`
//! since it was last added itself, so its gateway has been told.

use std::collections::{BTreeMap, BTreeSet};

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
/// [`Logins::remove_slot`] takes a number of steps logarithmic in the entries, plus the answer's
/// length. Memory is bounded by the registrations that the owner admits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Logins {
    policies: Policies,
    entries: BTreeSet<Entry>,
}

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
        Self { policies, entries: BTreeSet::new() }
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
        self.entries.insert(entry);
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
        if let Some(entry) = self.entry(slot, login) {
            self.entries.remove(&entry);
        }
    }

    /// A slot left (suspended, replaced or dead) with `logins`, which are all it had in effect;
    /// those of namespaces without a policy may be among them. For a slot that leaves with very
    /// many, [`Logins::remove`] in portions does the same.
    pub fn remove_slot(&mut self, slot: Slot, logins: impl Iterator<Item = Login>) {
        logins.for_each(|login| self.remove(slot, login));
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
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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

    fn highest(&self, contest: Contest) -> Option<u64> {
        let all = Entry::lowest(contest, 0)..=Entry::highest(contest, u64::MAX);
        self.entries.range(all).next_back().map(|entry| entry.number)
    }

    fn with_number(&self, contest: Contest, number: u64) -> impl Iterator<Item = &Entry> {
        self.entries.range(Entry::lowest(contest, number)..=Entry::highest(contest, number))
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
