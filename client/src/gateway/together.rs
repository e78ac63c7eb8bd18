//! Which data links a gateway has beside its control link (6.13), as a pure machine: what the
//! control link and they tell goes in, orders to open and to drop come out.
//!
//! ```text
//!  (none) --Up--> wanted --its WELCOME--> numbered --told as lost--> dropped, and wanted again
//!                    \--told as lost before that: dropped when its WELCOME comes--/
//! ```
//!
//! A data link that ends by itself is tried again by its own link logic. What is told of one that
//! was dropped is dropped with it: the control link brings what comes after (LNK-7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use waybill_wire::code::capability;

use super::GatewayEvent;
use crate::link::Welcomed;

/// Numbers of lost data links that are remembered, for those whose WELCOME is yet to come: more
/// than there can be links on their way.
const LOST_MAX: usize = 256;

/// A control link, as far as its data links have to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joining {
    pub(crate) session: u64,
    /// The broker's address.
    pub(crate) broker: Arc<str>,
    /// What was agreed on, for its data links as well (LNK-3).
    pub(crate) capabilities: u64,
}

/// What is to be done about data links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Open one to this shard.
    Open {
        /// The shard.
        shard: u16,
        /// What it joins.
        joining: Joining,
        /// One was lost just now: not at once.
        is_again: bool,
    },
    /// Take in nothing more from the one to this shard, and end it.
    Drop {
        /// The shard.
        shard: u16,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Together {
    most: usize,
    /// The control link, while it is open and runs data links.
    joined: Option<Joining>,
    /// Those wanted, by shard, with their numbers.
    data: BTreeMap<u16, Option<u64>>,
    /// Numbers of those that were told as lost, and were not known.
    lost: BTreeSet<u64>,
}

impl Together {
    /// At most so many data links.
    pub(crate) fn new(most: u16) -> Self {
        let (most, data, lost) = (most.into(), BTreeMap::new(), BTreeSet::new());
        Self { most, joined: None, data, lost }
    }

    /// The control link tells its owner.
    pub(crate) fn heard(&mut self, event: &GatewayEvent, orders: &mut Vec<Order>) {
        match event {
            GatewayEvent::Up(welcomed) => self.up(welcomed, orders),
            GatewayEvent::Down { .. } | GatewayEvent::Failed(_) => self.down(orders),
            GatewayEvent::DataLinkLost { number } => self.told_lost(*number, orders),
            _ => {}
        }
    }

    fn up(&mut self, welcomed: &Welcomed, orders: &mut Vec<Order>) {
        self.down(orders);
        let Welcomed { session, capabilities, .. } = *welcomed;
        if capabilities & capability::LINKS == 0 {
            return;
        }
        let broker = Arc::clone(&welcomed.address);
        self.joined = Some(Joining { session, broker, capabilities });
        // What the control link's own shard reads comes by the control link.
        let others = (0..welcomed.shards).filter(|shard| *shard != welcomed.shard);
        for shard in others.take(self.most) {
            self.data.insert(shard, None);
            self.open(shard, false, orders);
        }
    }

    fn open(&self, shard: u16, is_again: bool, orders: &mut Vec<Order>) {
        if let Some(joining) = self.joined.clone() {
            orders.push(Order::Open { shard, joining, is_again });
        }
    }

    /// The control link has ended, and with it all of them (LNK-8).
    pub(crate) fn down(&mut self, orders: &mut Vec<Order>) {
        self.joined = None;
        self.lost.clear();
        let data = std::mem::take(&mut self.data);
        orders.extend(data.into_keys().map(|shard| Order::Drop { shard }));
    }

    fn told_lost(&mut self, number: u64, orders: &mut Vec<Order>) {
        let shard = self.data.iter().find(|(_, is)| **is == Some(number)).map(|(shard, _)| *shard);
        match shard {
            Some(shard) => self.again(shard, orders),
            // It ended before that was told, or its WELCOME is on the way.
            None => {
                self.lost.insert(number);
                if self.lost.len() > LOST_MAX {
                    self.lost.pop_first();
                }
            }
        }
    }

    fn again(&mut self, shard: u16, orders: &mut Vec<Order>) {
        self.data.insert(shard, None);
        orders.push(Order::Drop { shard });
        self.open(shard, true, orders);
    }

    /// The data link to this shard has ended, and is tried again.
    pub(crate) fn ended(&mut self, shard: u16) {
        if let Some(number) = self.data.get_mut(&shard) {
            *number = None;
        }
    }

    /// Whether each that is wanted was welcomed.
    #[cfg(feature = "sim")]
    pub(crate) fn is_whole(&self) -> bool {
        self.data.values().all(Option::is_some)
    }

    /// The data link to this shard was welcomed, as this number.
    pub(crate) fn numbered(&mut self, shard: u16, number: u64, orders: &mut Vec<Order>) {
        if self.lost.remove(&number) {
            self.again(shard, orders);
        } else {
            self.data.insert(shard, Some(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(shard: u16, shards: u16, capabilities: u64) -> GatewayEvent {
        GatewayEvent::Up(Welcomed { shard, shards, capabilities, ..Welcomed::for_tests() })
    }

    fn shards(orders: &mut Vec<Order>) -> Vec<(u16, Option<bool>)> {
        let of = |order| match order {
            Order::Open { shard, is_again, .. } => (shard, Some(is_again)),
            Order::Drop { shard } => (shard, None),
        };
        orders.drain(..).map(of).collect()
    }

    #[test]
    fn one_to_each_other_shard_up_to_the_bound_where_that_is_agreed_on() {
        let orders = &mut Vec::new();
        let mut together = Together::new(2);
        together.heard(&up(1, 4, capability::RESUME), orders);
        assert_eq!(shards(orders), []);
        together.heard(&up(1, 4, capability::LINKS), orders);
        assert_eq!(shards(orders), [(0, Some(false)), (2, Some(false))]);
        together.heard(&up(0, 1, capability::LINKS), orders);
        assert_eq!(shards(orders), [(0, None), (2, None)]);
        let mut none = Together::new(0);
        none.heard(&up(1, 4, capability::LINKS), orders);
        assert_eq!(shards(orders), []);
    }

    #[test]
    fn lnk_7_one_that_is_told_as_lost_is_dropped_also_before_its_welcome() {
        let orders = &mut Vec::new();
        let mut together = Together::new(8);
        together.heard(&up(0, 3, capability::LINKS), orders);
        orders.clear();
        together.numbered(1, 70, orders);
        together.heard(&GatewayEvent::DataLinkLost { number: 71 }, orders);
        assert_eq!(shards(orders), [], "nobody knows that one");
        together.numbered(2, 71, orders);
        assert_eq!(shards(orders), [(2, None), (2, Some(true))]);
        together.heard(&GatewayEvent::DataLinkLost { number: 70 }, orders);
        assert_eq!(shards(orders), [(1, None), (1, Some(true))]);
        // Linked again by itself: what is told of the one before is not about this one.
        together.numbered(1, 72, orders);
        together.ended(1);
        together.numbered(1, 73, orders);
        together.heard(&GatewayEvent::DataLinkLost { number: 72 }, orders);
        assert_eq!(shards(orders), []);
        together.down(orders);
        assert_eq!(shards(orders), [(1, None), (2, None)]);
    }

    #[test]
    fn promise_7_lost_numbers_are_bounded() {
        let orders = &mut Vec::new();
        let mut together = Together::new(8);
        together.heard(&up(0, 3, capability::LINKS), orders);
        for number in 0..2 * LOST_MAX as u64 {
            together.heard(&GatewayEvent::DataLinkLost { number: 100 + number }, orders);
        }
        assert_eq!(together.lost.len(), LOST_MAX);
    }
}
