//! Every order in which a reader and writers may meet at the tag index. A bucket of it is crowded
//! with more than one tag here ([`size`](crate::sync::size)).

use loom::sync::Arc;
use loom::thread;

use super::{Added, TagIndex};
use crate::Namespace;

const NAMESPACE: Namespace = Namespace(1);

fn slots_of(index: &TagIndex, tag: &str) -> Vec<usize> {
    let mut slots = Vec::new();
    index.find(NAMESPACE, tag, |word, bits| {
        slots.extend((0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| 64 * word + bit));
    });
    slots
}

fn index() -> Arc<TagIndex> {
    let index = TagIndex::new(7, 100);
    assert_eq!(index.add(NAMESPACE, "a", 1), Added::New);
    Arc::new(index)
}

fn every_order(switches: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(run);
}

#[test]
fn promise_8_a_slot_that_has_a_tag_all_the_time_is_found_while_the_tag_gets_and_loses_others() {
    every_order(4, || {
        let index = index();
        let writer = {
            let index = Arc::clone(&index);
            thread::spawn(move || {
                assert_eq!(index.add(NAMESPACE, "a", 2), Added::New);
                assert!(index.remove(NAMESPACE, "a", 2));
            })
        };
        let found = slots_of(&index, "a");
        assert!(found == [1] || found == [1, 2], "{found:?}");
        writer.join().expect("it holds");
        assert_eq!(slots_of(&index, "a"), [1]);
    });
}

#[test]
fn promise_8_a_tag_is_found_while_its_part_gets_twice_as_many_buckets() {
    every_order(4, || {
        let index = index();
        let writer = {
            let index = Arc::clone(&index);
            thread::spawn(move || {
                for tag in ["b", "c"] {
                    assert_eq!(index.add(NAMESPACE, tag, 2), Added::New);
                }
            })
        };
        assert_eq!(slots_of(&index, "a"), [1]);
        let found = slots_of(&index, "c");
        assert!(found.is_empty() || found == [2], "{found:?}");
        writer.join().expect("it holds");
        assert_eq!(["a", "b", "c"].map(|tag| slots_of(&index, tag)), [[1], [2], [2]]);
    });
}

#[test]
fn promise_8_no_tag_of_two_writers_is_lost_when_both_need_room() {
    every_order(4, || {
        let index = index();
        let writer = {
            let index = Arc::clone(&index);
            thread::spawn(move || assert_eq!(index.add(NAMESPACE, "b", 2), Added::New))
        };
        assert_eq!(index.add(NAMESPACE, "c", 3), Added::New);
        assert_eq!(index.add(NAMESPACE, "a", 3), Added::New);
        writer.join().expect("it holds");
        assert_eq!(["b", "c"].map(|tag| slots_of(&index, tag)), [[2], [3]]);
        assert_eq!(slots_of(&index, "a"), [1, 3]);
        assert_eq!(index.tags(), 3);
    });
}
