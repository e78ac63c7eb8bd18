//! The directory against a list of tuples, and what a gateway's hub relies on.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use waybill_routing::{Directory, Inserted, Namespace, Removed, Uid};

type Triple = (Namespace, Uid, u32);

/// The list in order of insertion, and everything it says about the directory.
#[derive(Default)]
struct Naive(Vec<Triple>);

impl Naive {
    fn members(&self, namespace: Namespace, uid: Uid) -> Vec<u32> {
        let same = self.0.iter().filter(|held| (held.0, held.1) == (namespace, uid));
        same.map(|held| held.2).collect()
    }

    fn insert(&mut self, triple: Triple) -> Inserted {
        let before = self.members(triple.0, triple.1);
        if before.contains(&triple.2) {
            return Inserted::Already;
        }
        self.0.push(triple);
        if before.is_empty() { Inserted::First } else { Inserted::Another }
    }

    fn remove(&mut self, triple: Triple) -> Removed {
        let before = self.members(triple.0, triple.1);
        self.0.retain(|held| *held != triple);
        match self.members(triple.0, triple.1).len() {
            after if after == before.len() => Removed::Absent,
            0 => Removed::Last,
            _ => Removed::Another,
        }
    }

    fn check(&self, directory: &Directory) {
        directory.invariants();
        assert_eq!(directory.len(), self.0.len());
        assert_eq!(directory.is_empty(), self.0.is_empty());
        let mut users: Vec<_> = self.0.iter().map(|held| (held.0, held.1)).collect();
        users.sort_unstable();
        users.dedup();
        assert_eq!(directory.users(), users.len());
        let listed: Vec<_> = directory.iter().map(|(n, uid, m)| (n, uid, m.to_vec())).collect();
        let expected: Vec<_> =
            users.iter().map(|&(n, uid)| (n, uid, self.members(n, uid))).collect();
        assert_eq!(listed, expected);
        for namespace in (0..4).map(Namespace) {
            let mut all: Vec<u32> =
                self.0.iter().filter(|held| held.0 == namespace).map(|held| held.2).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(directory.all(namespace).collect::<Vec<_>>(), all);
            for uid in (0..4).map(Uid) {
                assert_eq!(directory.members(namespace, uid), self.members(namespace, uid));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn promise_1_the_directory_answers_as_a_list_of_tuples_does(
        steps in prop::collection::vec((any::<bool>(), 0..3_u32, 0..3_u64, 0..4_u32), 0..40)
    ) {
        let (mut directory, mut naive) = (Directory::new(), Naive::default());
        for (add, namespace, uid, member) in steps {
            let triple = (Namespace(namespace), Uid(uid), member);
            if add {
                prop_assert_eq!(directory.insert(triple.0, triple.1, member), naive.insert(triple));
            } else {
                prop_assert_eq!(directory.remove(triple.0, triple.1, member), naive.remove(triple));
            }
            naive.check(&directory);
        }
    }
}

#[test]
fn a_hub_registers_on_the_first_connection_and_unregisters_on_the_last() {
    let (tenant, user) = (Namespace(1), Uid(1001));
    let mut directory = Directory::new();
    assert_eq!(directory.insert(tenant, user, 7), Inserted::First);
    assert_eq!(directory.insert(tenant, user, 3), Inserted::Another);
    assert_eq!(directory.insert(tenant, user, 7), Inserted::Already);
    assert_eq!(directory.insert(Namespace(2), user, 9), Inserted::First);
    assert_eq!(directory.members(tenant, user), [7, 3]);
    assert_eq!(directory.all(tenant).collect::<Vec<_>>(), [3, 7]);

    assert_eq!(directory.remove(tenant, user, 9), Removed::Absent);
    assert_eq!(directory.remove(tenant, user, 7), Removed::Another);
    assert_eq!(directory.remove(tenant, user, 3), Removed::Last);
    assert_eq!(directory.remove(tenant, user, 3), Removed::Absent);
    assert_eq!(directory.members(Namespace(2), user), [9]);
}
