//! Where users are, each alone: what is asked of the table for messages to one user each, which
//! need no plan.

use std::sync::Arc;

use crate::map::{self, Map, Slots};
use crate::scratch::NO_SLOT;
use crate::slots::SlotsView;
use crate::table::Table;
use crate::{Namespace, Slot};

/// The gateways of each of some users. Filled by
/// [`Routes::locate`](crate::Routes::locate), which overwrites what was there; reused, it keeps its
/// memory, so that nothing is allocated once the most users have been seen that a caller asks for.
#[derive(Debug, Default)]
pub struct Whereabouts {
    users: Vec<At>,
    /// Of those who are not at one.
    slots: Vec<Slot>,
    hashed: Vec<(u64, u64)>,
    /// A slot of each, and what there is to say of those of whom one is not all.
    firsts: Vec<u16>,
    others: Vec<(usize, At)>,
    found: Vec<u16>,
}

/// Where one user is.
#[derive(Clone, Copy, Debug)]
enum At {
    One(Slot),
    /// At those between two places.
    Some(u32, u32),
}

impl Whereabouts {
    /// One without memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The live slots that have a route of the user at `index` of those asked for, each once, in
    /// rising order of slot index; none if the user is offline.
    ///
    /// # Panics
    ///
    /// If fewer were asked for.
    #[inline]
    #[must_use]
    pub fn of(&self, index: usize) -> &[Slot] {
        match &self.users[index] {
            At::One(slot) => std::slice::from_ref(slot),
            At::Some(start, end) => &self.slots[*start as usize..*end as usize],
        }
    }
}

impl Table {
    /// Overwrites `whereabouts` with where these users are.
    pub(crate) fn locate(
        &self,
        namespace: Namespace,
        uids: impl Iterator<Item = u64>,
        whereabouts: &mut Whereabouts,
    ) {
        let around = self.spaces().around(namespace);
        let space = around.get(namespace);
        let key = space.map_or(self.key(), |space| space.map.key());
        whereabouts.hashed.clear();
        whereabouts.hashed.extend(uids.map(|uid| (uid, map::hash(key, uid))));
        loop {
            let view = self.slots().view();
            whereabouts.users.clear();
            whereabouts.slots.clear();
            match (space, &whereabouts.hashed[..]) {
                (None, users) => whereabouts.users.resize(users.len(), At::NOWHERE),
                (Some(space), [user]) => whereabouts.find_one(&space.map, *user, &view),
                (Some(space), _) => whereabouts.find_many(&space.map, &view),
            }
            // As for a plan: an index may have been opened again meanwhile.
            if Arc::ptr_eq(&view, &self.slots().view()) {
                return;
            }
        }
    }
}

impl Whereabouts {
    fn find_one(&mut self, map: &Map, user: (u64, u64), view: &SlotsView) {
        let at = match map.view().find_one(user, &mut self.found) {
            Slots::One(slot) => At::one(slot, view),
            Slots::Some(slots) => At::some(slots, view, &mut self.slots),
        };
        self.users.push(at);
    }

    /// Apart, so that a user alone is not looked up in a frame that has room for many.
    #[inline(never)]
    fn find_many(&mut self, map: &Map, view: &SlotsView) {
        let Self { users, slots, hashed, firsts, others, found } = self;
        firsts.resize(hashed.len(), NO_SLOT);
        others.clear();
        map.view().find_each(hashed, firsts, found, |at, there| {
            others.push((at, At::some(there.as_slice(), view, slots)));
            NO_SLOT
        });
        users.extend(firsts.iter().map(|slot| At::one(*slot, view)));
        for (at, some) in others.iter() {
            users[*at] = *some;
        }
    }
}

impl At {
    const NOWHERE: Self = Self::Some(0, 0);

    /// At a slot, if it answers.
    #[inline]
    fn one(slot: u16, view: &SlotsView) -> Self {
        if view.is_live(slot) { Self::One(view.slot(slot)) } else { Self::NOWHERE }
    }

    /// At those of some slots that answer, which are added to `all`.
    fn some(slots: &[u16], view: &SlotsView, all: &mut Vec<Slot>) -> Self {
        let place = |all: &Vec<Slot>| u32::try_from(all.len()).expect("far fewer than 2^32 routes");
        let start = place(all);
        all.extend(slots.iter().filter(|slot| view.is_live(**slot)).map(|slot| view.slot(*slot)));
        all[start as usize..].sort_unstable_by_key(|slot| slot.index());
        Self::Some(start, place(all))
    }
}
