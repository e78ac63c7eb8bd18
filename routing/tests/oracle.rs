//! Random operations on the route table against the naive oracle: the same answers at each step.
//!
//! The comparison itself is `fuzzing::check`; this file says only how operations are drawn.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use waybill_routing::fuzzing::{self, Operation, RawChange, RawQuery};

/// Small numbers: beyond the lists they pick from, they only repeat.
const NUMBER: std::ops::Range<usize> = 0..6;

fn change() -> impl Strategy<Value = RawChange> {
    // Three adds for a remove: tables must fill up to meet their limits.
    (prop::bool::weighted(0.75), NUMBER, NUMBER).prop_map(|(add, namespace, uid)| RawChange {
        add,
        namespace,
        uid,
    })
}

fn query() -> impl Strategy<Value = RawQuery> {
    let uids = prop::option::weighted(0.75, prop::collection::vec(NUMBER, 0..10));
    let selector = prop::collection::vec(any::<u8>(), 0..12);
    (NUMBER, uids, selector, prop::collection::vec(NUMBER, 0..4), NUMBER).prop_map(
        |(namespace, uids, selector, except, mode)| RawQuery {
            namespace,
            uids,
            selector,
            except,
            mode,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let changes = prop::collection::vec(change(), 0..8);
    let tags = prop::collection::vec(change(), 0..6);
    prop_oneof![
        3 => NUMBER.prop_map(|incarnation| Operation::Open { incarnation }),
        1 => (NUMBER, prop::option::of(NUMBER))
            .prop_map(|(slot, replaces)| Operation::GoLive { slot, replaces }),
        3 => NUMBER.prop_map(|slot| Operation::Swap { slot }),
        5 => (NUMBER, changes).prop_map(|(slot, changes)| Operation::Apply { slot, changes }),
        2 => (NUMBER, prop::bool::weighted(0.8))
            .prop_map(|(slot, agreed)| Operation::Agree { slot, agreed }),
        3 => (NUMBER, tags).prop_map(|(slot, tags)| Operation::Declare { slot, tags }),
        1 => NUMBER.prop_map(|slot| Operation::Suspend { slot }),
        1 => NUMBER.prop_map(|slot| Operation::Resume { slot }),
        1 => NUMBER.prop_map(|slot| Operation::Kill { slot }),
        2 => (0..10_usize).prop_map(|budget| Operation::Sweep { budget }),
        3 => prop::collection::vec(query(), 0..4)
            .prop_map(|queries| Operation::Resolve { queries }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_500,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn promises_1_and_8_the_table_answers_as_the_oracle_does(
        operations in prop::collection::vec(operation(), 0..40)
    ) {
        fuzzing::check(&operations);
    }

    #[test]
    fn any_bytes_are_a_fair_sequence_of_operations(
        data in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        fuzzing::operations(&data);
    }
}
