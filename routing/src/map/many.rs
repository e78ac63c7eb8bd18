//! Many users looked up together: those of whom something is not seen at once are put off, so that
//! nothing that is rare is a branch in what is done for all.
//!
//! Homes are located 64 at a time, and their lines asked for, before those of the 64 before them
//! are looked at. Who is not at home is looked for behind it when all others are found, and whoever
//! is not found so, or may have several routes, is looked at closely at the end.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a place among those that are looked up at once has eight bits"
)]

use std::sync::atomic::Ordering;

use super::blocks::Large;
use super::bucket::Near;
use super::{Directory, Slots, View};
use crate::scratch::NO_SLOT;

/// Users who are looked up before any of them is looked at closely.
const AT_ONCE: usize = 256;

/// Homes whose lines are asked for before the first of them is looked at: as fast as 16 with 10^5
/// users, and an eighth faster with 10^6 and more (docs/decisions/0018).
const AHEAD: usize = 64;

/// Some users, by their places among those that are looked up at once, in rising order.
struct Marked {
    places: [u8; AT_ONCE],
    number: usize,
}

/// Where each of some users has its home, if that is in a block of full size.
type Homes<'a> = [Option<&'a Large>; AT_ONCE];

impl Marked {
    fn none() -> Self {
        Self { places: [0; AT_ONCE], number: 0 }
    }

    /// The one at this place as well, if it `is_one`: without a branch.
    #[inline(always)]
    fn add_if(&mut self, is_one: bool, at: usize) {
        self.places[self.number % AT_ONCE] = at as u8;
        self.number += usize::from(is_one);
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = usize> + Clone {
        self.places[..self.number].iter().map(|at| usize::from(*at))
    }
}

impl View<'_> {
    /// Tells `found` the slots of each of these users, whose hashes are given with them, in their
    /// order: each slot once.
    #[inline(always)]
    pub(crate) fn find(
        &self,
        users: &[(u64, u64)],
        slots: &mut Vec<u16>,
        mut found: impl FnMut(u64, Slots<'_>),
    ) {
        let mut lone = [NO_SLOT; AT_ONCE];
        for users in users.chunks(AT_ONCE) {
            let lone = &mut lone[..users.len()];
            let unclear = self.look_together(users, lone);
            let mut unclear = unclear.iter().peekable();
            for (at, (user, slot)) in users.iter().zip(lone).enumerate() {
                if unclear.next_if_eq(&at).is_some() {
                    found(user.0, self.find_closely(*user, slots));
                } else if *slot == NO_SLOT {
                    found(user.0, Slots::Some(&[]));
                } else {
                    found(user.0, Slots::One(*slot));
                }
            }
        }
    }

    /// Overwrites `firsts` with the slot of each user who is seen to have one alone, with
    /// [`NO_SLOT`] of who is seen to have none, and of others with what `closely` makes of the one
    /// at a place.
    #[inline(always)]
    pub(crate) fn find_each(
        &self,
        users: &[(u64, u64)],
        firsts: &mut [u16],
        slots: &mut Vec<u16>,
        mut closely: impl FnMut(usize, Slots<'_>) -> u16,
    ) {
        for (begun, users) in (0..).step_by(AT_ONCE).zip(users.chunks(AT_ONCE)) {
            let firsts = &mut firsts[begun..begun + users.len()];
            for at in self.look_together(users, firsts).iter() {
                firsts[at] = closely(begun + at, self.find_closely(users[at], slots));
            }
        }
    }

    /// Overwrites `lone` with the slot of each user who is seen to have one alone, and with
    /// [`NO_SLOT`] of others; who of these is not seen to have none.
    #[inline(always)]
    fn look_together(&self, users: &[(u64, u64)], lone: &mut [u16]) -> Marked {
        let moves = self.map.ground.moves();
        let mut homes = [None; AT_ONCE];
        let away = self.look_at_home(users, &mut homes, lone);
        let mut unclear = Marked::none();
        if away.number > 0 {
            self.look_behind(users, &homes, &away, lone, &mut unclear);
        }
        if self.map.ground.moves_again() != moves {
            lone.fill(NO_SLOT);
            unclear = Marked::none();
            (0..users.len()).for_each(|at| unclear.add_if(true, at));
        }
        unclear
    }

    /// Looks at the homes of all, and says who is not seen to have one route there and no other.
    #[inline(always)]
    fn look_at_home<'a>(
        &'a self,
        users: &[(u64, u64)],
        homes: &mut Homes<'a>,
        lone: &mut [u16],
    ) -> Marked {
        let Directory { places, groups } = &**self.directory;
        let (places, groups) = (&**places, groups.reader());
        let shift = u64::BITS - 1 - places.len().ilog2();
        let ask = |users: &[(u64, u64)], homes: &mut [Option<&'a Large>]| {
            for ((_, hash), home) in users.iter().zip(homes) {
                let place = &places[(hash >> 1 >> shift) as usize];
                *home = groups.at(place.load(Ordering::Acquire)).block_of(*hash);
                if let Some(home) = home {
                    home.block().ask_home(*hash);
                }
            }
        };
        let (mut away, mut number) = ([0; AT_ONCE], 0);
        let end = |begun: usize| users.len().min(begun + AHEAD);
        ask(&users[..end(0)], &mut homes[..end(0)]);
        for begun in (0..users.len()).step_by(AHEAD) {
            let (next, last) = (end(begun), end(begun + AHEAD));
            ask(&users[next..last], &mut homes[next..last]);
            let here = users[begun..next].iter().zip(&homes[begun..next]);
            for (at, (((uid, hash), home), lone)) in (begun..).zip(here.zip(&mut lone[begun..next]))
            {
                away[number % AT_ONCE] = at as u8;
                let is_lone = home.is_some_and(|home| {
                    let (is_lone, slot) = home.block().lone(*hash, *uid);
                    *lone = slot;
                    is_lone
                });
                number += usize::from(!is_lone);
            }
        }
        Marked { places: away, number }
    }

    /// Looks for some behind their homes.
    #[inline(always)]
    fn look_behind(
        &self,
        users: &[(u64, u64)],
        homes: &Homes<'_>,
        away: &Marked,
        lone: &mut [u16],
        unclear: &mut Marked,
    ) {
        for at in away.iter() {
            if let Some(home) = homes[at] {
                home.block().ask_behind(users[at].1);
            }
        }
        for at in away.iter() {
            let (uid, hash) = users[at];
            let near = homes[at].map_or(Near::UNCLEAR, |home| home.block().near(hash, uid));
            lone[at] = near.slot;
            unclear.add_if(!near.is_clear, at);
        }
        for at in unclear.iter() {
            if let Some(home) = homes[at] {
                home.block().ask_far(users[at].1);
            }
        }
    }

    /// The slots of one of many users.
    #[inline(never)]
    fn find_closely<'a>(&self, user: (u64, u64), slots: &'a mut Vec<u16>) -> Slots<'a> {
        self.find_one(user, slots)
    }
}
