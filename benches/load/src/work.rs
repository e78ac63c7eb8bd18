//! What a message is and whom it is for: a function of its number, so that every delivery can be
//! judged without keeping what was sent.

use serde::{Deserialize, Serialize};

/// UID of user 0. All UIDs have ten digits, so that they are as long as text for every peer.
pub const UID_FIRST: u64 = 1_000_000_000;

/// Least payload: the number and the due time.
pub const PAYLOAD_BYTES_MIN: usize = 16;

/// Most gateways: the tally has a bit for each.
pub const GATEWAYS_MAX: usize = 64;

/// Most users: their UIDs have ten digits and stay below twice [`UID_FIRST`].
pub const USERS_MAX: u64 = 1_000_000_000;

/// Most of anything in a second: one a nanosecond, which is what the clock tells apart.
pub const RATE_MAX: f64 = 1e9;

/// UID of user `k`.
#[must_use]
pub fn uid_of(k: u64) -> u64 {
    UID_FIRST + k
}

/// Gateway of a user.
#[must_use]
pub fn gateway_of(uid: u64, gateways: usize) -> usize {
    usize::try_from(uid % gateways as u64).expect("a remainder of a usize")
}

/// How many of each kind, in any unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// One user.
    pub single: u32,
    /// A group of users.
    pub group: u32,
    /// Everyone.
    pub broadcast: u32,
}

impl Shares {
    /// Nothing but messages for one user.
    pub const SINGLE: Self = Self { single: 1, group: 0, broadcast: 0 };
    /// Nothing but messages for a group.
    pub const GROUP: Self = Self { single: 0, group: 1, broadcast: 0 };
    /// Nothing but messages for everyone.
    pub const BROADCAST: Self = Self { single: 0, group: 0, broadcast: 1 };

    fn total(self) -> u64 {
        u64::from(self.single) + u64::from(self.group) + u64::from(self.broadcast)
    }
}

/// Numbers that describe the work of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkPlan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Users, at least 1.
    pub users: u64,
    /// Gateways, 1 to [`GATEWAYS_MAX`].
    pub gateways: usize,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`].
    pub payload_bytes: usize,
    /// How many messages of which kind.
    pub shares: Shares,
    /// Prepared groups.
    pub groups: usize,
    /// Users in each of them; no more than there are users.
    pub group_uids: usize,
}

#[cfg(test)]
impl WorkPlan {
    /// The smallest messages, one user each: for tests that look at something else.
    pub(crate) const fn single(users: u64, gateways: usize) -> Self {
        let shares = Shares::SINGLE;
        Self { seed: 1, users, gateways, payload_bytes: 16, shares, groups: 0, group_uids: 1 }
    }
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// This user.
    User(u64),
    /// The group of this index.
    Group(usize),
    /// Every gateway.
    Everyone,
}

/// Users drawn once, none of them twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// All of them, in the order they are published in.
    pub uids: Vec<u64>,
    /// Those of each gateway, in the same order.
    pub by_gateway: Vec<Vec<u64>>,
    /// Those of each gateway, sorted, each with its place in `by_gateway`.
    sorted: Vec<Vec<(u64, u32)>>,
    /// Place of each gateway's first user among all, counted gateway by gateway.
    offsets: Vec<usize>,
}

/// The work of one run.
#[derive(Clone, Debug)]
pub struct Work {
    plan: WorkPlan,
    total: u64,
    groups: Vec<Group>,
}

/// One step of splitmix64: numbers that look drawn, each from its own input.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number below `below`, each about as likely.
fn scaled(chance: u64, below: u64) -> u64 {
    u64::try_from((u128::from(chance) * u128::from(below)) >> 64).expect("below a u64")
}

impl Work {
    /// Draws the groups.
    ///
    /// # Panics
    /// Numbers outside the ranges that [`WorkPlan`] states; a scenario is checked before.
    #[must_use]
    pub fn new(plan: WorkPlan) -> Self {
        assert!(plan.users > 0 && (1..=GATEWAYS_MAX).contains(&plan.gateways));
        assert!(plan.payload_bytes >= PAYLOAD_BYTES_MIN && plan.shares.total() > 0);
        let wanted = if plan.shares.group > 0 { plan.groups } else { 0 };
        let groups = (0..wanted as u64).map(|index| Group::draw(&plan, index)).collect();
        Self { plan, total: plan.shares.total(), groups }
    }

    /// Its numbers.
    #[must_use]
    pub fn plan(&self) -> &WorkPlan {
        &self.plan
    }

    /// The prepared groups; none if no message is for one.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Whom message `number` is for.
    #[must_use]
    pub fn job(&self, number: u64) -> Job {
        let chance = mix(self.plan.seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        let shares = self.plan.shares;
        let kind = if self.total == u64::from(shares.single) {
            0
        } else {
            scaled(mix(chance), self.total)
        };
        if kind < u64::from(shares.single) {
            Job::User(uid_of(scaled(chance, self.plan.users)))
        } else if kind < u64::from(shares.single) + u64::from(shares.group) {
            Job::Group(self.group_of(number))
        } else {
            Job::Everyone
        }
    }

    fn group_of(&self, number: u64) -> usize {
        usize::try_from(number % self.groups.len() as u64).expect("an index")
    }

    /// How many deliveries a message has: users, or gateways if it is for everyone.
    #[must_use]
    pub fn deliveries(&self, job: Job) -> u32 {
        let count = match job {
            Job::User(_) => 1,
            Job::Group(index) => self.groups[index].uids.len(),
            Job::Everyone => self.plan.gateways,
        };
        u32::try_from(count).expect("a group has fewer than 2^32 users")
    }
}

impl Group {
    fn draw(plan: &WorkPlan, index: u64) -> Self {
        assert!(plan.group_uids as u64 <= plan.users, "a group draws without repetition");
        let mut drawn = std::collections::HashSet::new();
        let mut uids = Vec::with_capacity(plan.group_uids);
        let mut chance = mix(plan.seed).wrapping_add(mix(index));
        while uids.len() < plan.group_uids {
            chance = mix(chance);
            let uid = uid_of(scaled(chance, plan.users));
            if drawn.insert(uid) {
                uids.push(uid);
            }
        }
        Self::of(uids, plan.gateways)
    }

    /// The group of these users.
    #[must_use]
    pub fn of(uids: Vec<u64>, gateways: usize) -> Self {
        let mut by_gateway = vec![Vec::new(); gateways];
        for uid in &uids {
            by_gateway[gateway_of(*uid, gateways)].push(*uid);
        }
        let sorted = by_gateway.iter().map(|uids| {
            let mut sorted: Vec<(u64, u32)> = uids.iter().copied().zip(0..).collect();
            sorted.sort_unstable();
            sorted
        });
        let sorted = sorted.collect();
        let mut offsets = Vec::with_capacity(gateways);
        let mut before = 0;
        for uids in &by_gateway {
            offsets.push(before);
            before += uids.len();
        }
        Self { uids, by_gateway, sorted, offsets }
    }

    /// Place of a user of `gateway` among all users, counted gateway by gateway; `None` if it is
    /// not one.
    #[must_use]
    pub fn place(&self, gateway: usize, uid: u64) -> Option<usize> {
        let sorted = &self.sorted[gateway];
        let found = sorted.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
        Some(self.offsets[gateway] + sorted[found].1 as usize)
    }

    /// The places of all users of a gateway.
    #[must_use]
    pub fn places(&self, gateway: usize) -> std::ops::Range<usize> {
        let first = self.offsets[gateway];
        first..first + self.by_gateway[gateway].len()
    }

    /// The user of a place.
    #[must_use]
    pub fn user_at(&self, place: usize) -> u64 {
        let gateway = self.offsets.partition_point(|first| *first <= place) - 1;
        // Gateways without users share their offset with the next one that has some.
        self.by_gateway[gateway][place - self.offsets[gateway]]
    }
}

/// Writes payloads: number, due time, filler.
#[derive(Clone, Debug)]
pub struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// Payloads of `bytes`, at least [`PAYLOAD_BYTES_MIN`].
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { bytes: filler(bytes) }
    }

    /// The payload of a message that is due at `due` nanoseconds.
    pub fn of(&mut self, number: u64, due: u64) -> &[u8] {
        self.bytes[..8].copy_from_slice(&number.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&due.to_le_bytes());
        &self.bytes
    }
}

/// Bytes that no other part of a payload looks like: printable, and not all the same.
pub(crate) fn filler(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| b'a' + u8::try_from(at % 23).expect("below 23")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shares: Shares) -> WorkPlan {
        WorkPlan {
            seed: 7,
            users: 1_000,
            gateways: 8,
            payload_bytes: 16,
            shares,
            groups: 5,
            group_uids: 100,
        }
    }

    #[test]
    fn groups_have_no_user_twice_and_every_user_has_one_place() {
        let work = Work::new(plan(Shares::GROUP));
        for group in work.groups() {
            let users: std::collections::BTreeSet<u64> = group.uids.iter().copied().collect();
            assert_eq!(users.len(), 100);
            let mut places = Vec::new();
            for uid in &group.uids {
                let gateway = gateway_of(*uid, 8);
                let place = group.place(gateway, *uid).unwrap();
                assert!(group.places(gateway).contains(&place));
                assert_eq!(group.user_at(place), *uid);
                assert_eq!(group.place((gateway + 1) % 8, *uid), None);
                places.push(place);
            }
            places.sort_unstable();
            assert_eq!(places, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_group_with_empty_gateways_finds_its_users() {
        let group = Group::of(vec![UID_FIRST + 5, UID_FIRST + 1], 64);
        assert_eq!(group.user_at(0), UID_FIRST + 1);
        assert_eq!(group.user_at(1), UID_FIRST + 5);
    }

    #[test]
    fn kinds_come_in_their_shares() {
        let work = Work::new(plan(Shares { single: 90, group: 9, broadcast: 1 }));
        let mut counts = [0u32; 3];
        for number in 0..100_000 {
            counts[match work.job(number) {
                Job::User(uid) => {
                    assert!((UID_FIRST..UID_FIRST + 1_000).contains(&uid));
                    0
                }
                Job::Group(index) => {
                    assert!(index < 5);
                    1
                }
                Job::Everyone => 2,
            }] += 1;
        }
        // Five standard deviations of each.
        assert!(counts[0].abs_diff(90_000) < 475, "{counts:?}");
        assert!(counts[1].abs_diff(9_000) < 453, "{counts:?}");
        assert!(counts[2].abs_diff(1_000) < 158, "{counts:?}");
    }

    #[test]
    fn every_user_is_drawn_about_as_often() {
        let work = Work::new(plan(Shares::SINGLE));
        let mut counts = vec![0u32; 1_000];
        for number in 0..1_000_000 {
            let Job::User(uid) = work.job(number) else { panic!("only single users") };
            counts[usize::try_from(uid - UID_FIRST).unwrap()] += 1;
        }
        // 1,000 each on average, with a standard deviation of 32.
        assert!(counts.iter().all(|count| count.abs_diff(1_000) < 180));
    }
}
