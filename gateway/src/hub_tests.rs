//! The hub against a naive one that looks at every connection for every message.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

const TAGS: TagBounds = TagBounds { of_connection: 4, declared: 9, held: 1 << 20 };
const BOUNDS: Bounds = Bounds { connections: 12, per_user: 3, recent: 64, tags: TAGS };

fn registration(namespace: u32, uid: u64, login: u64) -> Registration {
    Registration { namespace, uid, device_class: 0, login }
}

fn run(uids: &[u64]) -> Vec<u8> {
    uids.iter().flat_map(|uid| uid.to_le_bytes()).collect()
}

/// Delivers to listed UIDs; the handles served, in order.
fn served(hub: &mut Hub<u32>, namespace: u32, uids: &[u64]) -> (Vec<u32>, Tally) {
    let listed = run(uids);
    let listed = UidRun::new(&listed).unwrap();
    let mut served = Vec::new();
    let audience = Audience { namespace, listed, ..Audience::default() };
    let tally = hub.deliver((1, 1), &audience, |handle| served.push(*handle));
    (served, tally)
}

fn login(hub: &mut Hub<u32>, registration: Registration, handle: u32) -> ConnectionId {
    let (id, _) = hub.login(registration, &[], handle).unwrap();
    hub.confirm(id);
    id
}

#[test]
fn the_first_login_registers_and_the_last_logout_withdraws() {
    let mut hub = Hub::new(BOUNDS, 7);
    let (phone, laptop) = (registration(0, 1001, 1), registration(0, 1001, 2));
    let (a, first) = hub.login(phone, &[], 0).unwrap();
    assert!(first);
    let (b, first) = hub.login(phone, &[], 1).unwrap();
    assert!(!first, "the same registration stands");
    let (c, first) = hub.login(laptop, &[], 2).unwrap();
    assert!(first, "another login number is another registration");
    assert_eq!(hub.logout(a), Some((0, None)));
    assert_eq!(hub.logout(c), Some((2, Some(laptop))));
    assert_eq!(hub.logout(b), Some((1, Some(phone))));
    assert_eq!(hub.logout(b), None);
    assert!(hub.is_empty() && hub.users() == 0);
}

#[test]
fn both_bounds_are_kept() {
    let mut hub = Hub::new(BOUNDS, 7);
    for handle in 0..3 {
        login(&mut hub, registration(0, 1, 0), handle);
    }
    assert_eq!(hub.login(registration(0, 1, 0), &[], 9), Err(LoginRefused::ConnectionsOfUser));
    assert!(hub.login(registration(1, 1, 0), &[], 9).is_ok(), "a namesake is another user");
    for uid in 10..18 {
        login(&mut hub, registration(0, uid, 0), 0);
    }
    assert_eq!(hub.login(registration(0, 99, 0), &[], 9), Err(LoginRefused::Connections));
}

#[test]
fn ws_6_every_connection_of_a_user_once() {
    let mut hub = Hub::new(BOUNDS, 7);
    login(&mut hub, registration(0, 1001, 0), 1);
    login(&mut hub, registration(0, 1001, 0), 2);
    login(&mut hub, registration(0, 1002, 0), 3);
    login(&mut hub, registration(5, 1001, 0), 4);
    let (handles, tally) = served(&mut hub, 0, &[1001, 7, 1001, 1001]);
    assert_eq!(handles, [1, 2]);
    assert_eq!(tally, Tally { served: 2, missed: 1, ..Tally::default() });
    assert!(served(&mut hub, 9, &[1001]).0.is_empty());
}

#[test]
fn except_self_is_one_connection_of_that_user_only() {
    let mut hub = Hub::new(BOUNDS, 7);
    let a = login(&mut hub, registration(0, 1001, 0), 1);
    login(&mut hub, registration(0, 1001, 0), 2);
    let mut sequence = 0;
    let mut check = |uid, connection, expected: &[u32]| {
        sequence += 1;
        let audience = Audience {
            everyone: true,
            except_self: Some((uid, connection)),
            ..Audience::default()
        };
        let mut served = Vec::new();
        hub.deliver((1, sequence), &audience, |handle| served.push(*handle));
        assert_eq!(served, expected);
    };
    check(1001, a, &[2]);
    check(1002, a, &[1, 2]);
    check(1001, ConnectionId(a.0 ^ 1 << 40), &[1, 2]);
}

#[test]
fn gateways_number_their_connections_differently() {
    let first = |salt| Hub::new(BOUNDS, salt).login(registration(0, 1, 0), &[], 0).unwrap().0;
    assert_ne!(first(0x1234_5678_9abc_def0), first(0x0fed_cba9_8765_4321));
}

#[test]
fn a_number_is_not_given_twice() {
    let mut hub = Hub::new(BOUNDS, 7);
    let mut seen = BTreeSet::new();
    for _ in 0..1000 {
        let (id, _) = hub.login(registration(0, 1, 0), &[], 0).unwrap();
        assert!(seen.insert(id));
        hub.logout(id);
    }
    for old in seen {
        assert!(hub.handle(old).is_none() && hub.confirm(old).is_none());
        assert_eq!(hub.logout(old), None);
    }
}

#[test]
fn promise_3_a_message_sent_again_reaches_a_connection_once() {
    let mut hub = Hub::new(BOUNDS, 7);
    login(&mut hub, registration(0, 1001, 0), 1);
    let (late, _) = hub.login(registration(0, 1001, 0), &[], 2).unwrap();
    let send = |hub: &mut Hub<u32>, id, uids: &[u64]| {
        let listed = run(uids);
        let listed = UidRun::new(&listed).unwrap();
        let audience = Audience { listed, ..Audience::default() };
        let mut served = Vec::new();
        let tally = hub.deliver(id, &audience, |handle| served.push(*handle));
        (served, tally.repeated)
    };
    assert_eq!(send(&mut hub, (1, 1), &[1001]), (vec![1], 0));
    // It was not confirmed then, so that first sending was not for it.
    hub.confirm(late);
    login(&mut hub, registration(0, 1002, 0), 3);
    assert_eq!(send(&mut hub, (1, 1), &[1001, 1002]), (vec![2, 3], 1));
    assert_eq!(send(&mut hub, (1, 1), &[1001, 1002]), (vec![], 3));
    assert_eq!(send(&mut hub, (2, 1), &[1001]), (vec![1, 2], 0), "another producer's");
}

#[derive(Clone, Debug)]
enum Step {
    Login {
        namespace: u32,
        uid: u64,
        login: u64,
    },
    Confirm {
        pick: usize,
    },
    Logout {
        pick: usize,
    },
    Deliver {
        namespace: u32,
        everyone: bool,
        listed: Vec<u64>,
        except: Vec<u64>,
        except_self: Option<(u64, usize)>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let uids = || proptest::collection::vec(0u64..6, 0..6);
    prop_oneof![
        (0u32..3, 0u64..6, 0u64..2).prop_map(|(namespace, uid, login)| Step::Login {
            namespace,
            uid,
            login
        }),
        (0usize..40).prop_map(|pick| Step::Confirm { pick }),
        (0usize..40).prop_map(|pick| Step::Logout { pick }),
        (0u32..3, any::<bool>(), uids(), uids(), proptest::option::of((0u64..6, 0usize..40)))
            .prop_map(|(namespace, everyone, listed, except, except_self)| Step::Deliver {
                namespace,
                everyone,
                listed: if everyone { Vec::new() } else { listed },
                except,
                except_self,
            }),
    ]
}

/// A connection as the naive hub sees it.
#[derive(Clone, Copy, Debug)]
struct Naive {
    id: ConnectionId,
    registration: Registration,
    confirmed: bool,
}

/// What the brokers have been told must follow from who is there, and nothing else.
fn registered(connections: &BTreeMap<u32, Naive>) -> BTreeSet<Registration> {
    connections.values().map(|connection| connection.registration).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn promise_1_a_message_reaches_exactly_its_audience(
        salt in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut hub = Hub::new(BOUNDS, salt);
        // Every connection there ever was, by handle; the stale ones must stay without effect.
        let mut ever: Vec<ConnectionId> = Vec::new();
        let mut there: BTreeMap<u32, Naive> = BTreeMap::new();
        let mut upstream = BTreeSet::new();
        let mut sequence = 0;
        for step in steps {
            match step {
                Step::Login { namespace, uid, login } => {
                    let registration = registration(namespace, uid, login);
                    let handle = u32::try_from(ever.len()).unwrap();
                    let of_user = there.values().filter(|c| {
                        (c.registration.namespace, c.registration.uid) == (namespace, uid)
                    });
                    let expected = match (there.len() < BOUNDS.connections, of_user.count()) {
                        (false, _) => Err(LoginRefused::Connections),
                        (true, 3..) => Err(LoginRefused::ConnectionsOfUser),
                        (true, _) => Ok(!registered(&there).contains(&registration)),
                    };
                    let found = hub.login(registration, &[], handle);
                    prop_assert_eq!(found.map(|(_, first)| first), expected);
                    if let Ok((id, first)) = found {
                        if first {
                            upstream.insert(registration);
                        }
                        ever.push(id);
                        there.insert(handle, Naive { id, registration, confirmed: false });
                    }
                }
                Step::Confirm { pick } => {
                    let Some(id) = ever.get(pick) else { continue };
                    let naive = there.values_mut().find(|connection| connection.id == *id);
                    prop_assert_eq!(hub.confirm(*id).is_some(), naive.is_some());
                    if let Some(naive) = naive {
                        naive.confirmed = true;
                    }
                }
                Step::Logout { pick } => {
                    let Some(id) = ever.get(pick) else { continue };
                    let handle = u32::try_from(pick).unwrap();
                    let gone = there.remove(&handle);
                    let found = hub.logout(*id);
                    prop_assert_eq!(found.map(|(found, _)| found), gone.map(|_| handle));
                    if let Some((_, Some(registration))) = found {
                        upstream.remove(&registration);
                    }
                }
                Step::Deliver { namespace, everyone, listed, except, except_self } => {
                    sequence += 1;
                    let except_self = except_self
                        .and_then(|(uid, pick)| ever.get(pick).map(|id| (uid, *id)));
                    let (listed_run, except_run) = (run(&listed), run(&except));
                    let audience = Audience {
                        namespace,
                        everyone,
                        listed: UidRun::new(&listed_run).unwrap(),
                        selector: None,
                        except: UidRun::new(&except_run).unwrap(),
                        except_self,
                    };
                    let mut found: HashMap<u32, u32> = HashMap::new();
                    let tally = hub.deliver((1, sequence), &audience, |handle| {
                        *found.entry(*handle).or_default() += 1;
                    });
                    prop_assert_eq!(hub.deliver((1, sequence), &audience, |_| ()).served, 0);
                    let mut expected = Tally::default();
                    for (handle, connection) in &there {
                        let Registration { namespace: own, uid, .. } = connection.registration;
                        if own != namespace || !(everyone || listed.contains(&uid)) {
                            prop_assert!(!found.contains_key(handle), "a stranger got it");
                            continue;
                        }
                        let is_self = except_self == Some((uid, connection.id));
                        let takes = if except.contains(&uid) || is_self {
                            expected.filtered += 1;
                            0
                        } else if !connection.confirmed {
                            expected.unready += 1;
                            0
                        } else {
                            expected.served += 1;
                            1
                        };
                        prop_assert_eq!(found.get(handle).copied().unwrap_or(0), takes);
                    }
                    let absent = |uid: &&u64| !there.values().any(|connection| {
                        let it = connection.registration;
                        (it.namespace, it.uid) == (namespace, **uid)
                    });
                    expected.missed = listed.iter().filter(absent).count() as u64;
                    prop_assert_eq!(tally, expected);
                    prop_assert!(found.keys().all(|handle| there.contains_key(handle)));
                }
            }
            prop_assert_eq!(&upstream, &registered(&there));
            prop_assert_eq!(hub.len(), there.len());
        }
    }
}
