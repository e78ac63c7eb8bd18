//! A power of two of buckets: a route lies in the bucket that its hash names, its home, or in one
//! of those behind it, and the home says how far to look.
//!
//! One writer at a time; readers take no lock. A route that is there all the time is met by each of
//! them: it moves within a block only into its home, and is taken out of where it was after that.
//! Whoever misses it there finds that the home has changed since it was looked at, and looks again.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a place is chosen by the lowest bits of a hash"
)]

use super::bucket::{Bucket, ENTRIES, Glance, Near, Probe, REACH_MAX, Sight, State};
use super::group::Found;
use crate::ahead;
use crate::scratch::{Bits, NO_SLOT};
use crate::sync::size;

/// Some buckets: a power of two of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    buckets: &'a [Bucket],
}

/// Buckets behind a home that are looked at without a branch.
const NEAR: usize = size(2, 2, 1);

/// What became of a route that was to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is new.
    New,
    /// It was there.
    Already,
    /// Its home is full, and so is what lies within reach.
    NoRoom,
}

impl<'a> Block<'a> {
    /// These. They are as many as a power of two.
    #[inline]
    pub(super) fn of(buckets: &'a [Bucket]) -> Self {
        Self { buckets }
    }

    /// How many buckets.
    pub(super) fn len(self) -> usize {
        self.buckets.len()
    }

    /// Asks for the lines where most of a hash's routes lie: the home, which it returns, and the
    /// one behind it.
    #[inline]
    pub(super) fn ask(self, hash: u64) -> &'a Bucket {
        let at = self.home(hash);
        let home = &self.buckets[at];
        ahead::ask(home);
        ahead::ask(self.behind(at, 1));
        home
    }

    /// Asks for the line where most of a hash's routes lie.
    #[inline(always)]
    pub(super) fn ask_home(self, hash: u64) {
        ahead::ask(self.home_of(hash));
    }

    /// Asks for the lines where nearly all others do, as far as the home says that there are any.
    #[inline(always)]
    pub(super) fn ask_behind(self, hash: u64) {
        let at = self.home(hash);
        let reach = self.buckets[at].state_now().reach();
        for distance in 1..=NEAR {
            ahead::ask(self.behind(at, distance * usize::from(distance <= reach)));
        }
    }

    /// Asks for the lines where the rest of them do.
    #[inline]
    pub(super) fn ask_far(self, hash: u64) {
        let at = self.home(hash);
        for distance in NEAR + 1..=self.buckets[at].state_now().reach() {
            ahead::ask(self.behind(at, distance));
        }
    }

    /// A slot of a UID, and whether it is seen to be the only one: without a branch.
    #[inline(always)]
    pub(super) fn lone(self, hash: u64, uid: u64) -> (bool, u16) {
        self.home_of(hash).lone(uid)
    }

    /// What there is of a UID in its home and close behind: without a branch.
    #[inline(always)]
    pub(super) fn near(self, hash: u64, uid: u64) -> Near {
        let at = self.home(hash);
        let home = &self.buckets[at];
        let state = home.state_now();
        let mut near = home.sight(uid);
        for distance in 1..=NEAR {
            let distance = distance * usize::from(distance <= state.reach());
            near = near.or(self.behind(at, distance).sight(uid));
        }
        let is_all = (near.slot != NO_SLOT) | (state.reach() <= NEAR);
        near.is_clear &= is_all & home.says(state) & state.is_plain();
        near
    }

    /// The bucket where a hash's routes lie, or which says how far from it they do.
    #[inline]
    fn home_of(self, hash: u64) -> &'a Bucket {
        &self.buckets[self.home(hash)]
    }

    /// What the home of a UID has of it.
    #[inline(always)]
    pub(super) fn glance(self, hash: u64, uid: u64) -> Glance {
        self.home_of(hash).glance(uid)
    }

    /// What there is of a UID whose home is seen so.
    #[inline(always)]
    pub(super) fn find_one(self, hash: u64, uid: u64, home: Glance) -> Found {
        if home.state().may_have_several() {
            return Found::Unclear;
        }
        match home.sight() {
            // Nearly all have one route: at 85 % load, looking on cost as much as a miss a UID.
            Sight::Slot(slot) => Found::Lone(slot),
            Sight::Nothing if home.state().reach() == 0 => Found::Nobody,
            Sight::Nothing => self.find_behind(self.home(hash), uid, home.state()),
            Sight::Unclear => Found::Unclear,
        }
    }

    /// The same in the buckets behind a home. If that changed meanwhile, the user may have come to
    /// one place while it was looked for in another.
    #[inline(always)]
    fn find_behind(self, at: usize, uid: u64, home: State) -> Found {
        for distance in 1..home.reach() + 1 {
            match self.behind(at, distance).glance(uid).sight() {
                Sight::Slot(slot) => return self.if_unchanged(at, home, Found::Lone(slot)),
                Sight::Nothing => {}
                Sight::Unclear => return Found::Unclear,
            }
        }
        self.if_unchanged(at, home, Found::Nobody)
    }

    /// What was found behind a home that said this, if it says so still: else a second route may
    /// have come nearer than the one that was there all the time.
    #[inline(always)]
    fn if_unchanged(self, at: usize, home: State, found: Found) -> Found {
        if self.buckets[at].says(home) { found } else { Found::Unclear }
    }

    /// Tells `found` each slot of the UID, some of them again if its home changes meanwhile; what
    /// its home says.
    pub(super) fn find(self, hash: u64, uid: u64, mut found: impl FnMut(u16)) -> State {
        loop {
            let home = self.look(hash, |bucket| bucket.probe(uid), &mut found);
            // Also when some were found: another one may have been pulled home meanwhile.
            if self.home_of(hash).says(home) {
                return home;
            }
        }
    }

    #[inline]
    fn look(
        self,
        hash: u64,
        probe_of: impl Fn(&Bucket) -> Probe,
        mut found: impl FnMut(u16),
    ) -> State {
        let at = self.home(hash);
        let probe = probe_of(&self.buckets[at]);
        let (home, mut is_found) = (probe.state(), false);
        for slot in probe.slots() {
            found(slot);
            is_found = true;
        }
        for distance in 1..=home.reach() {
            if is_found && !home.has_several() {
                break;
            }
            for slot in probe_of(self.behind(at, distance)).slots() {
                found(slot);
                is_found = true;
            }
        }
        home
    }

    /// Puts a route where there is room, unless it is there.
    pub(super) fn put(self, hash: u64, uid: u64, slot: u16) -> Put {
        let (mut is_there, mut has_others) = (false, false);
        let home = self.look(
            hash,
            |bucket| bucket.own().probe(uid),
            |found| {
                is_there |= found == slot;
                has_others |= found != slot;
            },
        );
        if is_there {
            return Put::Already;
        }
        let at = self.home(hash);
        if has_others && !home.has_several() {
            self.buckets[at].several(true);
        }
        if self.buckets[at].put(uid, slot) {
            return Put::New;
        }
        let farthest = if home.may_spill() { REACH_MAX.min(self.len() - 1) } else { 0 };
        let room = (1..=farthest).find(|distance| self.behind(at, *distance).has_room());
        let Some(distance) = room else { return Put::NoRoom };
        // The home says so first: whoever is to meet the route has to know where to look.
        self.buckets[at].spill(distance);
        assert!(self.behind(at, distance).put(uid, slot), "nobody else writes");
        Put::New
    }

    /// Takes a route out; whether it was there. `hash_of` is that of any UID.
    pub(super) fn take(self, hash: u64, uid: u64, slot: u16, hash_of: impl Fn(u64) -> u64) -> bool {
        let at = self.home(hash);
        let home = self.buckets[at].own().state();
        let mut taken = self.buckets[at].take(uid, slot);
        if !taken {
            taken = (1..=home.reach()).any(|distance| self.behind(at, distance).take(uid, slot));
            if taken {
                self.buckets[at].unspill();
            }
        }
        if taken {
            self.settle(at, hash_of);
        }
        taken
    }

    /// Takes out those entries of a bucket that have a bit.
    pub(super) fn clear(self, at: usize, entries: u32, hash_of: impl Fn(u64) -> u64) {
        let mut homes = [at; ENTRIES];
        for entry in Bits(entries.into()) {
            homes[entry] = self.home(hash_of(self.buckets[at].own_entry(entry).0));
        }
        self.buckets[at].clear(entries);
        for home in Bits(entries.into()).map(|entry| homes[entry]) {
            if home != at {
                self.buckets[home].unspill();
            }
            self.settle(home, &hash_of);
        }
    }

    /// Pulls those entries of a bucket that have a bit into their homes, where there is room. Each
    /// of them has a route.
    pub(super) fn pull(self, at: usize, entries: u32, hash_of: impl Fn(u64) -> u64) {
        let mut pulled = 0;
        for entry in Bits(entries.into()) {
            let (uid, slot) = self.buckets[at].own_entry(entry);
            let is_home = self.buckets[self.home(hash_of(uid))].take_in(uid, slot);
            pulled |= u32::from(is_home) << entry;
        }
        if pulled != 0 {
            self.buckets[at].clear(pulled);
        }
    }

    /// Takes all routes of the slots that `goes` names out of some buckets, and tells `taken` each.
    pub(super) fn take_all(
        self,
        buckets: std::ops::Range<usize>,
        goes: impl Fn(u16) -> bool,
        hash_of: impl Fn(u64) -> u64,
        mut taken: impl FnMut(u16),
    ) {
        for at in buckets {
            let mut entries = 0;
            for (entry, _, slot) in self.buckets[at].own().entries().filter(|entry| goes(entry.2)) {
                entries |= 1 << entry;
                taken(slot);
            }
            if entries != 0 {
                self.clear(at, entries, &hash_of);
            }
        }
    }

    /// A home of which a route was taken no longer says that a UID has several, if none has.
    fn settle(self, at: usize, hash_of: impl Fn(u64) -> u64) {
        let home = self.buckets[at].own().state();
        if home.has_several() && !self.finds_several(at, hash_of) {
            self.buckets[at].several(false);
        }
    }

    /// Whether a UID with this home has several routes.
    fn finds_several(self, at: usize, hash_of: impl Fn(u64) -> u64) -> bool {
        let reach = self.buckets[at].own().state().reach();
        let near = (0..=reach).flat_map(|distance| self.behind(at, distance).own().all());
        let here = near.map(|(uid, _)| uid).filter(|uid| self.home(hash_of(*uid)) == at);
        let mut here: Vec<u64> = here.collect();
        here.sort_unstable();
        here.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Some routes of this hash are in the crowd.
    pub(super) fn crowd(self, hash: u64) {
        if !self.is_crowded(hash) {
            self.buckets[self.home(hash)].crowd();
        }
    }

    /// Whether routes of this hash may be in the crowd.
    pub(super) fn is_crowded(self, hash: u64) -> bool {
        self.buckets[self.home(hash)].own().state().is_crowded()
    }

    /// The buckets.
    pub(super) fn buckets(self) -> &'a [Bucket] {
        self.buckets
    }

    /// Every route in it.
    pub(super) fn routes(self) -> impl Iterator<Item = (u64, u16)> + 'a {
        self.buckets.iter().flat_map(|bucket| bucket.own().all())
    }

    /// The lowest bits of a hash choose the bucket; the highest ones choose the block.
    #[inline]
    pub(super) fn home(self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// The triangular numbers from the home, which meet each bucket once: neighbours of a full home
    /// do not fill up with it, so that the next ones to look at are seldom full together.
    #[inline]
    fn behind(self, at: usize, distance: usize) -> &'a Bucket {
        &self.buckets[(at + distance * (distance + 1) / 2) & (self.buckets.len() - 1)]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn buckets(number: usize) -> Vec<Bucket> {
        (0..number).map(|_| Bucket::default()).collect()
    }

    fn found(block: Block<'_>, hash: u64, uid: u64) -> Vec<u16> {
        let mut slots = Vec::new();
        block.find(hash, uid, |slot| slots.push(slot));
        slots
    }

    #[test]
    fn what_finds_its_home_full_lies_behind_it_and_is_found() {
        let buckets = buckets(8);
        let block = Block::of(&buckets);
        for uid in 0..48 {
            assert_eq!(block.put(3, uid, 1), Put::New, "eight buckets of six");
            assert_eq!(block.put(3, uid, 1), Put::Already);
        }
        assert_eq!(block.put(3, 48, 1), Put::NoRoom);
        assert!((0..48).all(|uid| found(block, 3, uid) == [1]));
        assert!((0..48).all(|uid| block.take(3, uid, 1, |_| 3) && !block.take(3, uid, 1, |_| 3)));
        assert_eq!(block.routes().count(), 0);
        assert_eq!(block.find(3, 1, |_| ()).reach(), 0);
    }

    #[test]
    fn a_home_says_whether_one_of_its_users_has_several_routes() {
        let buckets = buckets(8);
        let block = Block::of(&buckets);
        (0..6).for_each(|uid| assert_eq!(block.put(3, uid, 1), Put::New));
        assert!(!block.find(3, 2, |_| ()).has_several());
        assert_eq!(block.put(3, 2, 9), Put::New);
        assert_eq!(found(block, 3, 2), [1, 9]);
        assert!(block.take(3, 4, 1, |_| 3));
        assert!(block.find(3, 0, |_| ()).has_several(), "the other one has them still");
        assert!(block.take(3, 2, 1, |_| 3));
        assert!(!block.find(3, 0, |_| ()).has_several());
        assert_eq!(found(block, 3, 2), [9]);
    }

    /// At home, in the buckets close behind, and in one behind those.
    #[test]
    fn who_lies_close_to_a_full_home_is_seen_there_and_who_may_lie_farther_is_not_clear() {
        let buckets = buckets(8);
        let block = Block::of(&buckets);
        let near = |uid| {
            let near = block.near(3, uid);
            near.is_clear.then_some(near.slot)
        };
        assert_eq!((near(1), near(0)), (Some(NO_SLOT), None), "UID 0 is what free entries have");
        assert!((1..19).all(|uid| block.put(3, uid, 1) == Put::New));
        assert!((1..19).all(|uid| near(uid) == Some(1)));
        assert_eq!(near(99), Some(NO_SLOT), "nobody lies farther");
        assert!((19..25).all(|uid| block.put(3, uid, 1) == Put::New));
        assert_eq!((near(18), near(19), near(99)), (Some(1), None, None));
        assert!((1..7).all(|uid| block.lone(3, uid) == (true, 1)));
        assert!((7..25).all(|uid| !block.lone(3, uid).0));
        assert!(block.take(3, 24, 1, |_| 3));
        assert_eq!(block.put(3, 1, 2), Put::New);
        assert!((1..24).all(|uid| near(uid).is_none() && !block.lone(3, uid).0), "one has several");
    }

    /// A reader has seen the home; then a second route comes nearer to it than the first one is.
    #[test]
    fn promise_8_a_route_that_was_there_all_the_time_is_not_hidden_by_one_that_comes_nearer() {
        let buckets = buckets(8);
        let block = Block::of(&buckets);
        assert!((0..12).all(|uid| block.put(3, uid, 1) == Put::New), "the home, and the next one");
        assert_eq!(block.put(3, 99, 2), Put::New);
        let home = block.glance(3, 99);
        assert!(matches!(block.find_one(3, 99, home), Found::Lone(2)));
        assert!((6..12).all(|uid| block.take(3, uid, 1, |_| 3)));
        assert_eq!(block.put(3, 99, 7), Put::New);
        assert!(matches!(block.find_one(3, 99, home), Found::Unclear));
        assert_eq!(found(block, 3, 99), [7, 2]);
    }

    /// Four that lie behind a full home, of which two leave; the others are pulled there.
    #[test]
    fn who_is_pulled_home_lies_there_and_nowhere_else() {
        let buckets = buckets(8);
        let block = Block::of(&buckets);
        assert!((0..10).all(|uid| block.put(3, uid, 1) == Put::New));
        assert!(block.take(3, 0, 1, |_| 3) && block.take(3, 1, 1, |_| 3));
        block.pull(4, 0b1011, |_| 3);
        assert_eq!(buckets[3].own().all().count(), ENTRIES);
        assert_eq!(block.routes().count(), 8);
        assert!((2..10).all(|uid| found(block, 3, uid) == [1]));
        block.pull(4, 0b1100, |_| 3);
        assert_eq!(buckets[4].own().all().count(), 2, "there is no room");
        assert!((2..6).all(|uid| block.take(3, uid, 1, |_| 3)));
        block.pull(4, 0b1100, |_| 3);
        assert_eq!(block.find(3, 9, |_| ()).reach(), 0, "nobody lies elsewhere");
        assert!((6..10).all(|uid| found(block, 3, uid) == [1]));
    }

    /// A reader has seen the home; then the route that it looks for next is pulled there.
    #[test]
    fn promise_8_a_route_is_not_hidden_by_being_pulled_home() {
        let buckets = buckets(8);
        let block = Block::of(&buckets);
        assert!((0..7).all(|uid| block.put(3, uid, 1) == Put::New));
        assert!(block.take(3, 0, 1, |_| 3));
        let home = block.glance(3, 6);
        assert!(matches!(block.find_one(3, 6, home), Found::Lone(1)));
        block.pull(4, 1, |_| 3);
        assert!(matches!(block.find_one(3, 6, home), Found::Unclear));
        assert_eq!(found(block, 3, 6), [1]);
    }

    #[test]
    fn of_one_bucket_nothing_lies_elsewhere() {
        let buckets = buckets(1);
        let block = Block::of(&buckets);
        assert!((0..6).all(|slot| block.put(9, 7, slot) == Put::New));
        assert_eq!(block.put(9, 7, 6), Put::NoRoom);
        assert_eq!(found(block, 9, 7), [0, 1, 2, 3, 4, 5]);
    }
}
