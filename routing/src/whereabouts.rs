//! Where users are, each alone: what is asked of the table for messages to one user each, which
//! need no plan.

use std::sync::Arc;

use crate::map::{self, Map, Slots, Taker};
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
        let Whereabouts { users, slots, hashed, found } = whereabouts;
        hashed.clear();
        hashed.extend(uids.map(|uid| (uid, map::hash(key, uid))));
        loop {
            let view = self.slots().view();
            slots.clear();
            users.clear();
            users.resize(hashed.len(), At::Some(0, 0));
            let mut taking = Taking { view: &view, slots };
            match (space, &hashed[..]) {
                (None, _) => {}
                (Some(space), [user]) => {
                    users[0] = taking.any(space.map.view().find_one(*user, found));
                }
                (Some(space), _) => find_many(&space.map, (hashed, users), found, &mut taking),
            }
            // As for a plan: an index may have been opened again meanwhile.
            if Arc::ptr_eq(&view, &self.slots().view()) {
                return;
            }
        }
    }
}

struct Taking<'a> {
    view: &'a SlotsView,
    slots: &'a mut Vec<Slot>,
}

/// Apart, so that a user alone is not looked up in a frame that has room for many.
#[inline(never)]
fn find_many(
    map: &Map,
    (hashed, users): (&[(u64, u64)], &mut [At]),
    found: &mut Vec<u16>,
    taking: &mut Taking<'_>,
) {
    map.view().find_each(hashed, users, found, taking);
}

impl Taking<'_> {
    #[inline(always)]
    fn any(&mut self, slots: Slots<'_>) -> At {
        match slots {
            Slots::One(slot) if self.view.is_live(slot) => At::One(self.view.slot(slot)),
            slots => self.several(slots),
        }
    }

    #[inline(never)]
    fn several(&mut self, slots: Slots<'_>) -> At {
        let Self { view, slots: all } = self;
        let place = |all: &Vec<Slot>| u32::try_from(all.len()).expect("far fewer than 2^32 routes");
        let start = place(all);
        let live = slots.as_slice().iter().filter(|slot| view.is_live(**slot));
        all.extend(live.map(|slot| view.slot(*slot)));
        all[start as usize..].sort_unstable_by_key(|slot| slot.index());
        At::Some(start, place(all))
    }
}

impl Taker for Taking<'_> {
    type One = At;

    #[inline(always)]
    fn lone(&mut self, _uid: u64, slot: u16) -> Option<At> {
        self.view.is_live(slot).then(|| At::One(self.view.slot(slot)))
    }

    fn some(&mut self, _at: usize, _uid: u64, slots: Slots<'_>) -> At {
        self.several(slots)
    }
}
