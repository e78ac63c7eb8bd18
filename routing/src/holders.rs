//! Who holds a user, in whatever state, and what each slot is: for people who ask why a message
//! went where it went. Nothing that routes goes this way.

use std::sync::atomic::Ordering;

use crate::slots::Listed;
use crate::table::Table;
use crate::{Incarnation, Namespace, Slot, SlotState, map};

/// A slot as it is just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewaySlot {
    /// Its handle; void if it is dead.
    pub slot: Slot,
    /// The gateway it was opened for.
    pub incarnation: Incarnation,
    /// Where it is in its life.
    pub state: SlotState,
    /// Routes in all namespaces.
    pub routes: usize,
    /// Routes in the namespace that was asked for.
    pub routes_here: usize,
    /// Tags in all namespaces that are kept.
    pub tags: usize,
    /// Tags that were declared beside them and are not kept: it counts as having every tag while
    /// there is one.
    pub unkept: usize,
    /// Whether tags are agreed on with it.
    pub agreed_on_tags: bool,
}

impl Table {
    pub(crate) fn gateway_slots(&self, namespace: Namespace) -> Vec<GatewaySlot> {
        let around = self.spaces().around(namespace);
        let space = around.get(namespace);
        let listed = self.slots().list().into_iter();
        listed
            .map(|Listed { slot, incarnation, state, agreed_on_tags, holds }| {
                let index =
                    u16::try_from(slot.number()).expect("as many slots as a route can name");
                GatewaySlot {
                    slot,
                    incarnation,
                    state,
                    routes: holds.routes.load(Ordering::Relaxed),
                    routes_here: space.map_or(0, |space| space.count(index)),
                    tags: holds.tags.load(Ordering::Relaxed),
                    unkept: holds.unkept.load(Ordering::Relaxed),
                    agreed_on_tags,
                }
            })
            .collect()
    }

    pub(crate) fn holders(&self, namespace: Namespace, uid: u64, slots: &mut Vec<u16>) {
        slots.clear();
        if let Some(space) = self.spaces().around(namespace).get(namespace) {
            let (user, mut several) = ((uid, map::hash(space.map.key(), uid)), Vec::new());
            let view = space.map.view();
            slots.extend_from_slice(view.find_one(user, &mut several).as_slice());
        }
        slots.sort_unstable();
    }

    pub(crate) fn declares(&self, slot: Slot, namespace: Namespace, tag: &str) -> bool {
        let index = u16::try_from(slot.number());
        index.is_ok_and(|index| self.tags().has(namespace, tag, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Op, Routes, TagChange, Uid};

    fn routes(routes: &Routes, slot: Slot, uids: &[u64]) {
        let change = |uid: &u64| Change { op: Op::Add, namespace: Namespace(7), uid: Uid(*uid) };
        routes.apply(slot, &uids.iter().map(change).collect::<Vec<_>>()).unwrap();
    }

    fn holders(routes: &Routes, namespace: u32, uid: u64) -> Vec<u16> {
        let mut slots = vec![9];
        routes.holders(Namespace(namespace), Uid(uid), &mut slots);
        slots
    }

    #[test]
    fn slots_are_told_in_every_state_with_what_they_hold() {
        let table = Routes::default();
        let [filling, live, suspended, dead] = [1, 2, 3, 4].map(|incarnation| {
            let slot = table.open(Incarnation(incarnation)).unwrap();
            routes(&table, slot, &[1, incarnation]);
            slot
        });
        for slot in [live, suspended, dead] {
            table.go_live(slot, None).unwrap();
        }
        table.suspend(suspended).unwrap();
        table.kill(dead).unwrap();
        table.agree_on_tags(live, true).unwrap();
        let tag = TagChange { op: Op::Add, namespace: Namespace(7), tag: "vip" };
        table.apply_tags(live, &[tag]).unwrap();

        let told = table.gateway_slots(Namespace(7));
        let states = told.iter().map(|it| (it.slot, it.incarnation.0, it.state));
        let expected = [
            (filling, 1, SlotState::Filling),
            (live, 2, SlotState::Live),
            (suspended, 3, SlotState::Suspended),
            (dead, 4, SlotState::Dead),
        ];
        assert!(states.eq(expected), "{told:?}");
        let held: Vec<_> = told.iter().map(|it| (it.routes, it.routes_here, it.tags)).collect();
        assert_eq!(held, [(1, 1, 0), (2, 2, 1), (2, 2, 0), (2, 2, 0)]);
        assert_eq!(told[1].unkept, 0);
        let agreed: Vec<_> = told.iter().map(|it| it.agreed_on_tags).collect();
        assert_eq!(agreed, [false, true, false, false]);
        assert!(table.gateway_slots(Namespace(8)).iter().all(|it| it.routes_here == 0));

        assert_eq!(holders(&table, 7, 1), [0, 1, 2, 3]);
        assert_eq!(holders(&table, 7, 3), [2]);
        assert_eq!(holders(&table, 7, 5), []);
        assert_eq!(holders(&table, 8, 1), []);
        let declares = |slot, namespace, tag| table.declares(slot, Namespace(namespace), tag);
        assert!(declares(live, 7, "vip") && !declares(live, 7, "ios"));
        assert!(!declares(live, 8, "vip") && !declares(suspended, 7, "vip"));

        // Swept, the index of the dead one is free, and told no more.
        while table.sweep(1_000).slots_left > 0 {}
        assert_eq!(table.gateway_slots(Namespace(7)).len(), 3);
        assert_eq!(holders(&table, 7, 1), [0, 1, 2]);
    }
}
