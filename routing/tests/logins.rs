//! Exclusive logins against a list of pairs, and the rule in cases written out (promise 8).

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use waybill_routing::{
    Displaced, Incarnation, Login, Logins, Namespace, Policies, Policy, Routes, Slot, Uid,
};

/// Namespaces 1 and 2 are named, 3 has the policy of the others.
const NAMESPACES: [Namespace; 3] = [Namespace(1), Namespace(2), Namespace(3)];

fn policies(others: Policy) -> Policies {
    let named = [(Namespace(1), Policy::One), (Namespace(2), Policy::OnePerDeviceClass)];
    Policies::new(named, others)
}

fn slots() -> Vec<Slot> {
    let routes = Routes::default();
    let mut slots: Vec<Slot> =
        (0..3).map(|life| routes.open(Incarnation(life)).expect("a free slot")).collect();
    // A later generation at the last index.
    routes.kill(slots[2]).expect("it is open");
    routes.sweep(usize::MAX);
    slots.push(routes.open(Incarnation(9)).expect("a free slot"));
    slots
}

fn login(namespace: u32, uid: u64, device_class: u8, number: u64) -> Login {
    Login { namespace: Namespace(namespace), uid: Uid(uid), device_class, number }
}

/// Every login that stands, with its slot, and which of them were told since they were added.
struct Naive {
    policies: Policies,
    standing: BTreeSet<(Slot, Login)>,
    told: BTreeSet<(Slot, Login)>,
}

impl Naive {
    fn contend(&self, a: &Login, b: &Login) -> bool {
        let same_user = (a.namespace, a.uid) == (b.namespace, b.uid);
        same_user
            && match self.policies.of(a.namespace) {
                Policy::All => false,
                Policy::OnePerDeviceClass => a.device_class == b.device_class,
                Policy::One => true,
            }
    }

    fn winner(&self, login: &Login) -> Option<u64> {
        let contenders = self.standing.iter().filter(|(_, other)| self.contend(login, other));
        contenders.map(|(_, other)| other.number).max()
    }

    /// Who loses now and did not before, plus the added one if it loses.
    fn add(&mut self, slot: Slot, login: Login) -> BTreeSet<Displaced> {
        let before = self.losers();
        self.standing.insert((slot, login));
        self.told.remove(&(slot, login));
        let mut news = self.losers();
        news.retain(|lost| {
            let added = (lost.slot, lost.login) == (slot, login);
            added || !before.iter().any(|old| (old.slot, old.login) == (lost.slot, lost.login))
        });
        self.told.extend(news.iter().map(|lost| (lost.slot, lost.login)));
        news
    }

    fn losers(&self) -> BTreeSet<Displaced> {
        let lost = |&(slot, login): &(Slot, Login)| {
            let winner = self.winner(&login).filter(|winner| *winner > login.number)?;
            Some(Displaced { slot, login, winner })
        };
        self.standing.iter().filter_map(lost).collect()
    }

    fn remove(&mut self, slot: Slot, login: Login) {
        self.standing.remove(&(slot, login));
        self.told.remove(&(slot, login));
    }

    fn of_slot(&self, slot: Slot) -> Vec<Login> {
        let held = self.standing.iter().filter(|(holder, _)| *holder == slot);
        held.map(|(_, login)| *login).collect()
    }

    fn exclusive(&self) -> usize {
        let has_policy = |login: &Login| self.policies.of(login.namespace) != Policy::All;
        self.standing.iter().filter(|(_, login)| has_policy(login)).count()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize, Login),
    Remove(usize, Login),
    Leave(usize),
    Sweep(usize),
}

fn any_login() -> impl Strategy<Value = Login> {
    let number = prop::sample::select(vec![0, 1, 2, 7, u64::MAX]);
    let class = prop::sample::select(vec![0, 1, u8::MAX]);
    (prop::sample::select(NAMESPACES.to_vec()), prop::sample::select(vec![0, 1, u64::MAX]))
        .prop_flat_map(move |(namespace, uid)| {
            (class.clone(), number.clone()).prop_map(move |(device_class, number)| Login {
                namespace,
                uid: Uid(uid),
                device_class,
                number,
            })
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_usize, any_login()).prop_map(|(slot, login)| Step::Add(slot, login)),
        3 => (0..4_usize, any_login()).prop_map(|(slot, login)| Step::Remove(slot, login)),
        1 => (0..4_usize).prop_map(Step::Leave),
        1 => (0..4_usize).prop_map(Step::Sweep),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![Policy::All, Policy::One, Policy::OnePerDeviceClass])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn promise_8_who_is_displaced_is_as_the_list_of_logins_says(
        others in policy(), steps in prop::collection::vec(step(), 0..60)
    ) {
        let slots = slots();
        let policies = policies(others);
        let mut logins = Logins::new(policies.clone());
        let mut naive =
            Naive { policies, standing: BTreeSet::new(), told: BTreeSet::new() };
        for step in steps {
            match step {
                Step::Add(slot, login) => {
                    let got = logins.add(slots[slot], login);
                    prop_assert!(got.is_sorted(), "in rising order, so that runs repeat");
                    let lost: BTreeSet<Displaced> = got.iter().copied().collect();
                    prop_assert_eq!(got.len(), lost.len(), "each is told once");
                    prop_assert_eq!(lost, naive.add(slots[slot], login));
                    prop_assert_eq!(logins.winner(login), naive.winner(&login));
                }
                Step::Remove(slot, login) => {
                    logins.remove(slots[slot], login);
                    naive.remove(slots[slot], login);
                    prop_assert_eq!(logins.winner(login), naive.winner(&login));
                }
                Step::Leave(slot) => {
                    logins.leave(slots[slot]);
                    let held = naive.of_slot(slots[slot]);
                    held.into_iter().for_each(|login| naive.remove(slots[slot], login));
                }
                Step::Sweep(budget) => logins.sweep(budget),
            }
            prop_assert_eq!(logins.len(), naive.exclusive());
            prop_assert_eq!(logins.is_empty(), naive.exclusive() == 0);
            for lost in naive.losers() {
                prop_assert!(naive.told.contains(&(lost.slot, lost.login)), "a loser was told");
            }
        }
    }

    #[test]
    fn promise_8_the_order_of_arrival_decides_nothing(
        mut arrivals in prop::collection::vec((0..4_usize, any_login()), 0..20),
        seed in any::<prop::sample::Index>(),
    ) {
        let slots = slots();
        let fill = |arrivals: &[(usize, Login)]| {
            let mut logins = Logins::new(policies(Policy::One));
            for (slot, login) in arrivals {
                logins.add(slots[*slot], *login);
            }
            logins
        };
        let before = fill(&arrivals);
        if !arrivals.is_empty() {
            let turn = seed.index(arrivals.len());
            arrivals.rotate_left(turn);
        }
        prop_assert_eq!(before, fill(&arrivals));
    }
}

#[test]
fn promise_8_the_higher_login_number_wins_and_a_tie_keeps_both() {
    let slots = slots();
    let mut logins = Logins::new(policies(Policy::All));
    let (low, high) = (login(1, 7, 0, 3), login(1, 7, 1, 5));
    assert_eq!(logins.add(slots[0], low), []);
    let lost = Displaced { slot: slots[0], login: low, winner: 5 };
    assert_eq!(logins.add(slots[1], high), [lost], "another class contends under `one`");
    assert_eq!(logins.add(slots[2], high), [], "a tie keeps both");
    assert_eq!(logins.add(slots[0], low), [lost], "a loser that is added again is told again");

    let middle = login(1, 7, 2, 4);
    let lost = Displaced { slot: slots[3], login: middle, winner: 5 };
    assert_eq!(logins.add(slots[3], middle), [lost], "the newcomer itself may lose");
    let highest = login(1, 7, 0, 6);
    let both = [1, 2].map(|at| Displaced { slot: slots[at], login: high, winner: 6 });
    assert_eq!(logins.add(slots[0], highest), both, "those below were told earlier");
}

#[test]
fn promise_8_a_policy_reaches_no_further_than_its_namespace_and_class() {
    let slots = slots();
    let mut logins = Logins::new(policies(Policy::All));
    assert_eq!(logins.add(slots[0], login(2, 7, 0, 1)), []);
    assert_eq!(logins.add(slots[1], login(2, 7, 1, 2)), [], "another class");
    assert_eq!(logins.add(slots[1], login(2, 8, 0, 2)), [], "another user");
    assert_eq!(logins.add(slots[1], login(1, 7, 0, 2)), [], "another namespace");
    assert_eq!(logins.len(), 4);
    assert_eq!(logins.add(slots[0], login(3, 7, 0, 1)), []);
    assert_eq!(logins.add(slots[1], login(3, 7, 0, 2)), [], "all may stay");
    assert_eq!(logins.len(), 4, "and cost nothing");
    assert_eq!(logins.winner(login(3, 7, 0, 1)), None);
}

#[test]
fn promise_7_what_a_slot_leaves_behind_is_forgotten_in_portions_and_counts_for_nothing() {
    const USERS: u64 = 1_000;
    let slots = slots();
    let mut logins = Logins::new(policies(Policy::All));
    for uid in 0..USERS {
        logins.add(slots[0], login(1, uid, 0, 9));
        assert_eq!(logins.add(slots[1], login(2, uid, 0, 1)), []);
    }
    logins.leave(slots[0]);
    assert_eq!((logins.len(), logins.unswept()), (1_000, 1_000));
    assert_eq!(logins.add(slots[2], login(1, 7, 0, 3)), [], "who has left displaces nobody");
    assert_eq!(logins.winner(login(1, 7, 0, 0)), Some(3));
    let mut swept = Logins::new(policies(Policy::All));
    swept.add(slots[2], login(1, 7, 0, 3));
    (0..USERS).for_each(|uid| drop(swept.add(slots[1], login(2, uid, 0, 1))));
    assert_eq!(logins, swept);
    for _ in 0..21 {
        let before = logins.unswept();
        logins.sweep(100);
        assert!(before - logins.unswept() <= 100);
    }
    assert_eq!((logins.len(), logins.unswept()), (1_001, 0));
    assert_eq!(logins, swept);
}

#[test]
fn promise_7_a_slot_that_comes_and_goes_leaves_no_more_behind_than_there_is() {
    const USERS: u64 = 500;
    let routes = Routes::default();
    let mut logins = Logins::new(policies(Policy::One));
    for life in 0..40 {
        let slot = routes.open(Incarnation(life)).expect("a free slot");
        (0..USERS).for_each(|uid| drop(logins.add(slot, login(1, uid, 0, 0))));
        assert!(logins.unswept() <= 1_000, "{} in life {life}", logins.unswept());
        logins.leave(slot);
    }
}

#[test]
fn policies_are_by_namespace_with_one_for_the_others() {
    let policies = policies(Policy::All);
    assert_eq!(
        NAMESPACES.map(|namespace| policies.of(namespace)),
        [Policy::One, Policy::OnePerDeviceClass, Policy::All]
    );
    assert!(!policies.allow_all());
    assert!(!Policies::new([], Policy::One).allow_all());
    assert!(Policies::new([(Namespace(1), Policy::All)], Policy::All).allow_all());
    assert!(Policies::default().allow_all());
    let twice = [(Namespace(1), Policy::All), (Namespace(1), Policy::One)];
    assert_eq!(Policies::new(twice, Policy::All).of(Namespace(1)), Policy::One);
}
