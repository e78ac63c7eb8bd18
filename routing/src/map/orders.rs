//! Every order in which a reader and a writer may meet at a bucket or a map, each as often as the
//! memory model has an outcome for it. Maps are tiny here ([`size`](crate::sync::size)): a bucket
//! has one route, a block two buckets, a group two blocks.

use loom::sync::Arc;
use loom::thread;

use super::block::{Block, Put};
use super::bucket::Bucket;
use super::group::{Added, Found};
use super::{Map, Replacing};
use crate::{Change, Namespace, Op, Uid};

/// Runs through all orders with at most so many switches between threads that are no waiting.
fn every_order(switches: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 20_000;
    builder.check(run);
}

fn slots_of(map: &Map, uid: u64) -> Vec<u16> {
    let (mut slots, mut found) = (Vec::new(), Vec::new());
    let user = (uid, super::hash(map.key(), uid));
    map.view().find(&[user], &mut found, |_, there| slots.extend_from_slice(there.as_slice()));
    slots
}

fn change(map: &Map, op: Op, uid: u64, slot: u16) -> bool {
    let change = Change { op, namespace: Namespace(1), uid: Uid(uid) };
    map.apply(slot, &[change]) != (0, 0)
}

fn add(map: &Map, uid: u64, slot: u16) -> bool {
    change(map, Op::Add, uid, slot)
}

fn remove(map: &Map, uid: u64, slot: u16) -> bool {
    change(map, Op::Remove, uid, slot)
}

fn map(routes: &[(u64, u16)]) -> Arc<Map> {
    let map = Map::new(7);
    for (uid, slot) in routes {
        assert!(add(&map, *uid, *slot));
    }
    Arc::new(map)
}

#[test]
fn a_reader_of_a_bucket_sees_one_moment() {
    every_order(3, || {
        let bucket = Arc::new(Bucket::default());
        assert!(bucket.put(1, 10));
        let writer = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || {
                assert!(bucket.take(1, 10));
                assert!(bucket.put(2, 20));
            })
        };
        let [first, second] = [1, 2].map(|uid| bucket.probe(uid).slots().collect::<Vec<u16>>());
        assert!(first.is_empty() || first == [10], "{first:?}");
        assert!(second.is_empty() || second == [20], "{second:?}");
        writer.join().expect("it holds");
    });
}

/// A user's only route, and one of two, while one of the first of a block is pulled home: a bucket
/// has one entry, so the home was full when they came.
#[test]
fn promise_8_a_route_is_found_while_it_is_pulled_home() {
    for others in [&[][..], &[11]] {
        every_order(4, move || {
            let buckets: Arc<[Bucket; 4]> = Arc::new(std::array::from_fn(|_| Bucket::default()));
            let block = Block::of(&buckets[..]);
            assert_eq!(block.put(0, 1, 10), Put::New);
            for slot in [10].iter().chain(others) {
                assert_eq!(block.put(0, 2, *slot), Put::New);
            }
            assert!(block.take(0, 1, 10, |_| 0));
            let writer = {
                let buckets = Arc::clone(&buckets);
                thread::spawn(move || Block::of(&buckets[..]).pull(1, 1, |_| 0))
            };
            let found = block.find_one(0, 2, block.glance(0, 2));
            let may_be_one = others.is_empty();
            assert!(match found {
                Found::Lone(slot) => may_be_one && slot == 10,
                Found::Nobody => false,
                Found::Unclear => true,
            });
            let mut slots = Vec::new();
            block.find(0, 2, |slot| slots.push(slot));
            slots.sort_unstable();
            slots.dedup();
            assert!(slots.iter().eq([10].iter().chain(others)), "{slots:?}");
            writer.join().expect("it holds");
            assert_eq!(buckets[0].own().all().count(), 1, "it is at home");
        });
    }
}

/// The same for who looks at many, and at none of them closely.
#[test]
fn promise_8_a_route_is_seen_where_it_is_or_unclear_while_it_is_pulled_home() {
    for others in [&[][..], &[11]] {
        every_order(3, move || {
            let buckets: Arc<[Bucket; 4]> = Arc::new(std::array::from_fn(|_| Bucket::default()));
            let block = Block::of(&buckets[..]);
            for (uid, slot) in
                [(1, 10), (2, 10)].into_iter().chain(others.iter().map(|it| (2, *it)))
            {
                assert_eq!(block.put(0, uid, slot), Put::New);
            }
            assert!(block.take(0, 1, 10, |_| 0));
            let writer = {
                let buckets = Arc::clone(&buckets);
                thread::spawn(move || Block::of(&buckets[..]).pull(1, 1, |_| 0))
            };
            let (is_lone, slot) = block.lone(0, 2);
            assert!(!is_lone || others.is_empty() && slot == 10);
            let near = block.near(0, 2);
            assert!(!near.is_clear || others.is_empty() && near.slot == 10, "{near:?}");
            writer.join().expect("it holds");
        });
    }
}

/// A reader looks for a route while the one is added with which a map has grown so far. Each that
/// was there in turn: which ones move is for their hashes to say.
fn found_while_one_is_added(switches: usize, grown: fn(&Map) -> bool) {
    let before = until(grown) - 1;
    assert!(before > 0, "there is one to look for");
    for wanted in 0..before {
        every_order(switches, move || {
            let routes: Vec<(u64, u16)> = (0..before).map(|uid| (uid, 10)).collect();
            let map = map(&routes);
            assert!(!grown(&map));
            let writer = {
                let map = Arc::clone(&map);
                thread::spawn(move || assert!(add(&map, before, 20)))
            };
            assert_eq!(slots_of(&map, wanted), [10]);
            writer.join().expect("it holds");
            assert!(grown(&map));
            assert!((0..before).all(|uid| slots_of(&map, uid) == [10]));
            assert_eq!(slots_of(&map, before), [20]);
        });
    }
}

/// How many routes a map has when it has grown so far.
fn until(grown: fn(&Map) -> bool) -> u64 {
    let number = std::sync::Arc::new(std::sync::OnceLock::new());
    let found = std::sync::Arc::clone(&number);
    every_order(0, move || {
        let map = Map::new(7);
        let last = (0..).find(|uid| add(&map, *uid, 10) && grown(&map));
        found.set(last.expect("it grows") + 1).expect("there is one order");
    });
    *number.get().expect("it was found")
}

/// Two switches, and three in the next one: with more, which nothing was found by before many users
/// were looked at together, these take longer than anybody waits. Many groups in one look are not
/// modelled, since the count of moves is one for all.
#[test]
fn promise_8_a_route_is_found_while_its_group_takes_another_block() {
    found_while_one_is_added(2, |map| map.group(1).shape().is_growing());
    found_while_one_is_added(2, |map| map.group(1).shape().blocks() == 2);
}

#[test]
fn promise_8_a_route_is_found_while_its_group_becomes_two_and_the_directory_doubles() {
    found_while_one_is_added(3, |map| map.directory.load().places.len() == 2);
    found_while_one_is_added(3, |map| map.directory.load().places.len() == 4);
}

/// Whoever replaces a group keeps others from its successors until it is over: their blocks are
/// the same, and a reader of the group would not notice what they move.
#[test]
fn promise_8_nobody_writes_to_the_successors_of_a_group_before_it_is_over() {
    let before = until(|map| map.directory.load().places.len() == 2) - 1;
    for wanted in 0..before {
        every_order(3, move || {
            let routes: Vec<(u64, u16)> = (0..before).map(|uid| (uid, 10)).collect();
            let map = map(&routes);
            let [hash, added] = [wanted, before].map(|uid| super::hash(map.key(), uid));
            let view = map.view();
            let group = view.group(hash);
            let full = group.add(&map.ground, (before, added), 10, &mut 1);
            assert_eq!(full, Added::New { is_full: true });
            let located = group.locate(hash);
            let Replacing { group: writing, _successors: successors, _directory: directory } =
                map.begin_to_replace(group).expect("it is full");
            let writer = {
                let map = Arc::clone(&map);
                thread::spawn(move || {
                    (before + 1..before + 6).for_each(|uid| assert!(add(&map, uid, 20)));
                })
            };
            thread::yield_now();
            let mut found = Vec::new();
            assert!(located.find_all(hash, wanted, &mut found) && found == [10], "{found:?}");
            group.end(&map.ground, writing);
            drop((successors, directory));
            writer.join().expect("it holds");
            assert!((0..=before).all(|uid| slots_of(&map, uid) == [10]));
            assert!((before + 1..before + 6).all(|uid| slots_of(&map, uid) == [20]));
        });
    }
}

#[test]
fn promise_8_no_route_of_two_writers_is_lost_when_both_need_room() {
    every_order(6, || {
        let map = map(&[]);
        let writer = {
            let map = Arc::clone(&map);
            thread::spawn(move || {
                assert!(add(&map, 3, 10) && add(&map, 4, 10));
                assert!(remove(&map, 4, 10));
            })
        };
        assert!(add(&map, 3, 20) && add(&map, 5, 20));
        writer.join().expect("it holds");
        let mut all = map.all();
        all.sort_unstable();
        assert_eq!(all, [(3, 10), (3, 20), (5, 20)]);
        assert!((1..6).all(|uid| {
            let mut found = slots_of(&map, uid);
            found.sort_unstable();
            found.into_iter().eq(all.iter().filter(|route| route.0 == uid).map(|route| route.1))
        }));
    });
}

#[test]
fn promise_8_a_sweep_takes_every_dead_route_and_no_other_while_a_group_makes_room() {
    every_order(6, || {
        let map = map(&[(1, 10), (2, 20)]);
        let sweeper = {
            let map = Arc::clone(&map);
            thread::spawn(move || {
                let (mut at, mut taken) = (Some((0, 0)), 0);
                while let Some((group, bucket)) = at {
                    let dead = |slot| slot == 20;
                    at = map.sweep(group, bucket..bucket + 1, dead, |_| taken += 1).next;
                }
                taken
            })
        };
        assert!(add(&map, 3, 10) && add(&map, 4, 10));
        assert_eq!(slots_of(&map, 1), [10]);
        assert_eq!(sweeper.join().expect("it holds"), 1);
        assert_eq!(slots_of(&map, 2), []);
        assert_eq!([1, 3, 4].map(|uid| slots_of(&map, uid)), [[10], [10], [10]]);
    });
}
