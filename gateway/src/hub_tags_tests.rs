//! Tags and selectors of the hub, against a naive one that keeps a set for each connection and asks
//! each of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use waybill_wire::code::Op;
use waybill_wire::selector;

use super::*;

const TAGS: TagBounds = TagBounds { of_connection: 3, declared: 5, held: 1 << 20 };
const BOUNDS: Bounds = Bounds { connections: 12, per_user: 4, recent: 64, tags: TAGS };

fn registration(namespace: u32, uid: u64, login: u64) -> Registration {
    Registration { namespace, uid, device_class: 0, login }
}

fn texts(tags: &[&str]) -> Vec<Box<str>> {
    tags.iter().map(|tag| Box::from(*tag)).collect()
}

fn run(uids: &[u64]) -> Vec<u8> {
    uids.iter().flat_map(|uid| uid.to_le_bytes()).collect()
}

fn join(
    hub: &mut Hub<u32>,
    registration: Registration,
    tags: &[&str],
    handle: u32,
) -> ConnectionId {
    let (id, _) = hub.login(registration, &texts(tags), handle).unwrap();
    hub.confirm(id);
    id
}

/// Delivers by a selector, to `uids` or to all; who was served, and what was counted.
fn select(
    hub: &mut Hub<u32>,
    text: &str,
    uids: Option<&[u64]>,
    sequence: u64,
) -> (Vec<u32>, Tally) {
    let bytes = selector::parse(text).unwrap();
    let listed = run(uids.unwrap_or_default());
    let audience = Audience {
        everyone: uids.is_none(),
        listed: UidRun::new(&listed).unwrap(),
        selector: Selector::check(&bytes).ok(),
        ..Audience::default()
    };
    let mut served = Vec::new();
    let tally = hub.deliver((1, sequence), &audience, |handle| served.push(*handle));
    served.sort_unstable();
    (served, tally)
}

fn tag(hub: &mut Hub<u32>, uid: u64, changes: &[(Op, &str)]) -> Tagged {
    hub.tag(0, uid, &changes.iter().map(|(op, text)| (*text, *op)).collect())
}

#[test]
fn sel_5_each_connection_is_judged_by_its_own_tags() {
    let mut hub = Hub::new(BOUNDS, 7);
    join(&mut hub, registration(0, 1001, 0), &["geo:sh", "ios"], 1);
    join(&mut hub, registration(0, 1001, 0), &["geo:sh"], 2);
    join(&mut hub, registration(0, 1002, 0), &[], 3);
    join(&mut hub, registration(5, 1001, 0), &["geo:sh"], 4);
    let served = |tally| Tally { served: tally, ..Tally::default() };
    assert_eq!(select(&mut hub, "geo:sh & !ios", None, 1), (vec![2], served(1)));
    assert_eq!(select(&mut hub, "!ios", None, 2), (vec![2, 3], served(2)));
    assert_eq!(select(&mut hub, "unheard", None, 3), (vec![], served(0)));
    // Beside a list the others of these users are left out, and counted (SEL-7).
    let tally = Tally { filtered: 2, missed: 1, ..served(1) };
    assert_eq!(select(&mut hub, "ios", Some(&[1001, 1002, 7]), 4), (vec![1], tally));
}

#[test]
fn sel_6_whom_except_takes_away_no_selector_gives_back() {
    let mut hub = Hub::new(BOUNDS, 7);
    let one = join(&mut hub, registration(0, 1001, 0), &["vip"], 1);
    join(&mut hub, registration(0, 1002, 0), &["vip"], 2);
    join(&mut hub, registration(0, 1003, 0), &["vip"], 3);
    let (bytes, except) = (selector::parse("vip | !vip").unwrap(), run(&[1002]));
    let audience = Audience {
        everyone: true,
        selector: Selector::check(&bytes).ok(),
        except: UidRun::new(&except).unwrap(),
        except_self: Some((1001, one)),
        ..Audience::default()
    };
    let mut served = Vec::new();
    let tally = hub.deliver((1, 1), &audience, |handle| served.push(*handle));
    assert_eq!(served, [3]);
    assert_eq!(tally, Tally { served: 1, filtered: 2, ..Tally::default() });
}

#[test]
fn tag_14_what_tag_said_stays_as_long_as_the_registration() {
    let mut hub = Hub::new(BOUNDS, 7);
    let (phone, laptop) = (registration(0, 1001, 1), registration(0, 1001, 2));
    let one = join(&mut hub, phone, &["a", "b"], 1);
    let other = join(&mut hub, laptop, &["b"], 2);
    assert_eq!(tag(&mut hub, 1001, &[(Op::ADD, "vip"), (Op::REMOVE, "b")]), Tagged::Made);
    assert_eq!(tag(&mut hub, 7, &[(Op::ADD, "vip")]), Tagged::Missed);
    let tags = |hub: &Hub<u32>, id| hub.tags_of(id).map(String::from).collect::<BTreeSet<_>>();
    assert_eq!(tags(&hub, one), ["a", "vip"].map(String::from).into());
    assert_eq!(tags(&hub, other), ["vip"].map(String::from).into());
    // A connection that comes to the registration has it too, whatever its token says.
    let late = join(&mut hub, phone, &["b", "c"], 3);
    assert_eq!(tags(&hub, late), ["c", "vip"].map(String::from).into());
    hub.logout(one);
    hub.logout(late);
    let back = join(&mut hub, phone, &["b"], 4);
    assert_eq!(tags(&hub, back), ["b"].map(String::from).into(), "the registration had ended");
    assert_eq!(tags(&hub, other), ["vip"].map(String::from).into());
}

#[test]
fn tag_14_what_was_given_and_taken_away_again_takes_no_room() {
    let mut hub = Hub::new(BOUNDS, 7);
    let phone = registration(0, 1, 0);
    let one = join(&mut hub, phone, &["vip"], 1);
    for room in 0..1_000 {
        let text = format!("room:{room}");
        assert_eq!(tag(&mut hub, 1, &[(Op::ADD, &text)]), Tagged::Made);
        assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, &text)]), Tagged::Made);
        assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "never:there")]), Tagged::Made);
    }
    assert_eq!(hub.tags_of(one).collect::<Vec<_>>(), ["vip"]);
    // What a token had stays taken away, whatever was said of it before.
    assert_eq!(tag(&mut hub, 1, &[(Op::ADD, "vip"), (Op::ADD, "x")]), Tagged::Made);
    let other = join(&mut hub, phone, &["x"], 2);
    assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "vip"), (Op::REMOVE, "x")]), Tagged::Made);
    let late = join(&mut hub, phone, &["vip", "x"], 3);
    for id in [one, other, late] {
        assert_eq!(hub.tags_of(id).count(), 0);
    }
    hub.tags.invariants();
}

#[test]
fn tag_14_what_only_a_connection_that_has_gone_had_by_its_token_takes_no_room_either() {
    let mut hub = Hub::new(BOUNDS, 7);
    let phone = registration(0, 1, 0);
    let gone = join(&mut hub, phone, &["geo:sh"], 1);
    assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "a")]), Tagged::Made);
    let one = join(&mut hub, phone, &["a", "f"], 2);
    hub.logout(gone);
    assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "f")]), Tagged::Made);
    // Kept are a, f and b, which is as many as there may be.
    assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "geo:sh"), (Op::ADD, "b")]), Tagged::Made);
    assert_eq!(hub.tags_of(one).collect::<Vec<_>>(), ["b"]);
    hub.tags.invariants();
}

#[test]
fn tag_9_a_login_without_room_is_refused_and_leaves_nothing() {
    let mut hub = Hub::new(BOUNDS, 7);
    let one = registration(0, 1, 0);
    let four = texts(&["a", "b", "c", "d"]);
    assert_eq!(hub.login(one, &four, 9), Err(LoginRefused::TagsOfConnection));
    join(&mut hub, one, &["a", "b", "c"], 1);
    // What TAG said counts too: this one would have four.
    join(&mut hub, registration(0, 2, 0), &["a"], 2);
    assert_eq!(tag(&mut hub, 2, &[(Op::ADD, "x"), (Op::ADD, "b")]), Tagged::Made);
    let found = hub.login(registration(0, 2, 0), &texts(&["c", "a"]), 9);
    assert_eq!(found, Err(LoginRefused::TagsOfConnection));
    // Five are declared with the next one.
    join(&mut hub, registration(0, 3, 0), &["d"], 3);
    assert_eq!((hub.tags(), hub.len()), (5, 3));
    assert_eq!(hub.login(registration(0, 4, 0), &texts(&["e"]), 9), Err(LoginRefused::Tags));
    assert_eq!((hub.tags(), hub.len()), (5, 3));
    join(&mut hub, registration(0, 4, 0), &["a", "d"], 4);
}

#[test]
fn promise_7_tags_of_all_connections_and_what_tag_said_are_bounded() {
    let tags = TagBounds { held: 3, ..TAGS };
    let mut hub = Hub::new(Bounds { tags, ..BOUNDS }, 7);
    let one = join(&mut hub, registration(0, 1, 0), &["a", "b"], 1);
    let two = registration(0, 2, 0);
    assert_eq!(hub.login(two, &texts(&["a", "b"]), 9), Err(LoginRefused::Tags));
    let other = join(&mut hub, two, &["a"], 2);
    let full = Tagged::Dropped(ErrorCode::GATEWAY_TAGS);
    assert_eq!(tag(&mut hub, 2, &[(Op::ADD, "b")]), full);
    assert_eq!(hub.tags_of(other).collect::<Vec<_>>(), ["a"]);
    hub.logout(one);
    assert_eq!(tag(&mut hub, 2, &[(Op::ADD, "b"), (Op::REMOVE, "x")]), Tagged::Made);
    join(&mut hub, registration(0, 3, 0), &[], 3);
    assert_eq!(tag(&mut hub, 3, &[(Op::ADD, "c")]), Tagged::Made);
    // With what user 2 had by its token there is room for nothing more of what TAG says.
    assert_eq!(tag(&mut hub, 2, &[(Op::REMOVE, "a")]), Tagged::Made);
    assert_eq!(tag(&mut hub, 3, &[(Op::ADD, "d")]), full);
    assert_eq!(tag(&mut hub, 3, &[(Op::REMOVE, "x"), (Op::REMOVE, "y")]), Tagged::Made);
    assert_eq!(tag(&mut hub, 3, &[(Op::ADD, "d"), (Op::REMOVE, "c")]), Tagged::Made);
    assert_eq!(tag(&mut hub, 3, &[(Op::REMOVE, "d")]), Tagged::Made);
    hub.logout(other);
    assert_eq!(tag(&mut hub, 3, &[(Op::ADD, "d")]), Tagged::Made);
    hub.tags.invariants();
}

#[test]
fn promise_7_tags_that_tokens_gave_are_taken_away_whatever_is_kept() {
    let tags = TagBounds { held: 3, ..TAGS };
    let mut hub = Hub::new(Bounds { tags, ..BOUNDS }, 7);
    let three = texts(&["a", "b", "c"]);
    let all = [(Op::REMOVE, "a"), (Op::REMOVE, "b"), (Op::REMOVE, "c")];
    for uid in [1, 2] {
        let one = registration(0, uid, 0);
        join(&mut hub, one, &["a", "b", "c"], 1);
        assert_eq!(tag(&mut hub, uid, &all), Tagged::Made);
        let late = join(&mut hub, one, &["a", "b", "c"], 2);
        assert_eq!(hub.tags_of(late).count(), 0);
        hub.tags.invariants();
    }
    // Twice the bound is kept: nobody comes whose tags could be taken away as well.
    assert_eq!(hub.login(registration(0, 3, 0), &three, 9), Err(LoginRefused::Tags));
    join(&mut hub, registration(0, 3, 0), &[], 3);
    assert_eq!(tag(&mut hub, 3, &[(Op::ADD, "a")]), Tagged::Dropped(ErrorCode::GATEWAY_TAGS));
    hub.tags.invariants();
}

#[test]
fn tag_16_a_registration_without_room_is_not_changed_at_all() {
    let mut hub = Hub::new(BOUNDS, 7);
    join(&mut hub, registration(0, 1, 0), &["a", "b", "c"], 1);
    let full = Tagged::Dropped(ErrorCode::CONNECTION_TAGS);
    assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "x"), (Op::ADD, "d")]), full);
    assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "a"), (Op::ADD, "d")]), Tagged::Made);
    // Said of a and d: one more has room, and two do not. x, which no token had, is forgotten.
    assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "b"), (Op::REMOVE, "c")]), full);
    assert_eq!(tag(&mut hub, 1, &[(Op::REMOVE, "b"), (Op::REMOVE, "x")]), Tagged::Made);
    assert_eq!(tag(&mut hub, 1, &[(Op::ADD, "b")]), Tagged::Made);
    join(&mut hub, registration(0, 2, 0), &["e", "f"], 2);
    hub.take_tag_updates();
    let full = Tagged::Dropped(ErrorCode::GATEWAY_TAGS);
    assert_eq!(tag(&mut hub, 2, &[(Op::ADD, "g")]), full);
    let updates = hub.take_tag_updates();
    assert!(updates.iter().all(|update| &*update.tag.text == "g"), "{updates:?}");
    // One goes where one comes.
    assert_eq!(tag(&mut hub, 2, &[(Op::ADD, "g"), (Op::REMOVE, "e")]), Tagged::Made);
    let (served, _) = select(&mut hub, "g & !e", None, 1);
    assert_eq!(served, [2]);
}

#[test]
fn promise_3_a_copy_is_judged_as_the_first_one_was() {
    let mut hub = Hub::new(BOUNDS, 7);
    join(&mut hub, registration(0, 1, 0), &["vip"], 1);
    join(&mut hub, registration(0, 2, 0), &[], 2);
    assert_eq!(select(&mut hub, "vip", None, 1).0, [1]);
    tag(&mut hub, 2, &[(Op::ADD, "vip")]);
    let (served, tally) = select(&mut hub, "vip", None, 1);
    assert_eq!((served, tally.repeated), (vec![], 2));
    assert_eq!(select(&mut hub, "vip", None, 2).0, [1, 2]);
}

/// A selector and its meaning.
#[derive(Clone, Debug)]
enum Expression {
    Tag(usize),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

const NAMES: [&str; 6] = ["a", "b", "c", "geo:sh", "e", "f"];

impl Expression {
    fn text(&self) -> String {
        let row = |of: &[Self], by: &str| {
            let all: Vec<String> = of.iter().map(Self::text).collect();
            format!("({})", all.join(by))
        };
        match self {
            Self::Tag(name) => NAMES[*name].into(),
            Self::Not(of) => format!("!{}", of.text()),
            Self::And(of) => row(of, "&"),
            Self::Or(of) => row(of, "|"),
        }
    }

    fn is_true(&self, tags: &BTreeSet<String>) -> bool {
        match self {
            Self::Tag(name) => tags.contains(NAMES[*name]),
            Self::Not(of) => !of.is_true(tags),
            Self::And(of) => of.iter().all(|it| it.is_true(tags)),
            Self::Or(of) => of.iter().any(|it| it.is_true(tags)),
        }
    }
}

fn expression() -> impl Strategy<Value = Expression> {
    let tag = (0..NAMES.len()).prop_map(Expression::Tag);
    tag.prop_recursive(3, 12, 3, |inner| {
        let some = || proptest::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            inner.clone().prop_map(|of| Expression::Not(Box::new(of))),
            some().prop_map(Expression::And),
            some().prop_map(Expression::Or),
        ]
    })
}

#[derive(Clone, Debug)]
enum Step {
    Login(u32, u64, u64, Vec<usize>),
    Confirm(usize),
    Logout(usize),
    Tag(u32, u64, Vec<(bool, usize)>),
    Deliver(u32, Expression, Option<Vec<u64>>, Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let names = || proptest::collection::vec(0..NAMES.len(), 0..4);
    let uids = || proptest::collection::vec(0u64..5, 0..5);
    let change = (any::<bool>(), 0..NAMES.len());
    prop_oneof![
        3 => (0u32..2, 0u64..4, 0u64..2, names())
            .prop_map(|(namespace, uid, login, tags)| Step::Login(namespace, uid, login, tags)),
        2 => (0usize..30).prop_map(Step::Confirm),
        1 => (0usize..30).prop_map(Step::Logout),
        2 => (0u32..2, 0u64..5, proptest::collection::vec(change, 1..4))
            .prop_map(|(namespace, uid, changes)| Step::Tag(namespace, uid, changes)),
        3 => (0u32..2, expression(), proptest::option::of(uids()), uids())
            .prop_map(|(namespace, of, listed, except)| {
                let listed = listed.filter(|listed| !listed.is_empty());
                Step::Deliver(namespace, of, listed, except)
            }),
    ]
}

/// A connection as the naive hub sees it.
#[derive(Clone, Debug)]
struct Naive {
    id: ConnectionId,
    registration: Registration,
    confirmed: bool,
    token: BTreeSet<String>,
    tags: BTreeSet<String>,
}

/// What TAG said last of a tag of a registration: whether it was added, and whether a connection
/// that was there when TAG named it first, or came after, had it by its token.
type Said = BTreeMap<String, (bool, bool)>;

#[derive(Default)]
struct World {
    there: BTreeMap<u32, Naive>,
    ever: Vec<ConnectionId>,
    said: BTreeMap<Registration, Said>,
    /// As the updates say.
    declared: BTreeSet<(u32, String)>,
    sequence: u64,
}

fn union(there: &BTreeMap<u32, Naive>) -> BTreeSet<(u32, String)> {
    let of = |it: &Naive| {
        let namespace = it.registration.namespace;
        it.tags.iter().map(move |tag| (namespace, tag.clone())).collect::<Vec<_>>()
    };
    there.values().flat_map(of).collect()
}

fn changed(tags: &mut BTreeSet<String>, text: &str, add: bool) {
    let _changed = if add { tags.insert(text.into()) } else { tags.remove(text) };
}

impl World {
    fn login(&mut self, hub: &mut Hub<u32>, registration: Registration, token: &[usize]) {
        let token: BTreeSet<String> = token.iter().map(|name| NAMES[*name].into()).collect();
        let (mut tags, mut said) = (token.clone(), self.said.clone());
        for (text, (add, of_token)) in said.get_mut(&registration).into_iter().flatten() {
            changed(&mut tags, text, *add);
            *of_token |= token.contains(text);
        }
        let handle = u32::try_from(self.ever.len()).unwrap();
        let boxed: Vec<Box<str>> = token.iter().map(|text| Box::from(&**text)).collect();
        let (of_connection, id) = (tags.len(), ConnectionId(0));
        let mut with = self.there.clone();
        with.insert(handle, Naive { id, registration, confirmed: false, token, tags });
        match hub.login(registration, &boxed, handle) {
            Ok((id, _)) => {
                assert!(of_connection <= TAGS.of_connection);
                assert!(union(&with).len() <= TAGS.declared);
                (self.there, self.said) = (with, said);
                self.there.get_mut(&handle).unwrap().id = id;
                self.ever.push(id);
            }
            Err(LoginRefused::TagsOfConnection) => assert!(of_connection > TAGS.of_connection),
            Err(LoginRefused::Tags) => assert!(union(&with).len() > TAGS.declared),
            Err(_) => assert!(self.there.len() >= 4, "the other bounds have tests of their own"),
        }
    }

    fn logout(&mut self, hub: &mut Hub<u32>, pick: usize) {
        let Some(id) = self.ever.get(pick) else { return };
        hub.logout(*id);
        let Some(gone) = self.there.remove(&u32::try_from(pick).unwrap()) else { return };
        if !self.there.values().any(|it| it.registration == gone.registration) {
            self.said.remove(&gone.registration);
        }
    }

    fn tag(&mut self, hub: &mut Hub<u32>, namespace: u32, uid: u64, changes: &[(bool, usize)]) {
        let last: BTreeMap<String, bool> =
            changes.iter().map(|(add, name)| (NAMES[*name].into(), *add)).collect();
        let op = |add| if add { Op::ADD } else { Op::REMOVE };
        let wire = changes.iter().map(|(add, name)| (NAMES[*name], op(*add))).collect();
        let found = hub.tag(namespace, uid, &wire);
        let its = self.there.values().map(|it| it.registration);
        let its: BTreeSet<Registration> =
            its.filter(|it| (it.namespace, it.uid) == (namespace, uid)).collect();
        let mut causes = Vec::new();
        for registration in &its {
            let (mut there, mut said) = (self.there.clone(), self.said.clone());
            let said_of = said.entry(*registration).or_default();
            let its = there.values_mut().filter(|it| it.registration == *registration);
            let mut its: Vec<&mut Naive> = its.collect();
            for (text, add) in &last {
                let of_token = || its.iter().any(|it| it.token.contains(text));
                let before = said_of.get(text).map_or_else(of_token, |(_, of_token)| *of_token);
                said_of.insert(text.clone(), (*add, before));
            }
            let kept = |(_, (added, of_token)): &(&String, &(bool, bool))| *added || *of_token;
            let mut most = said_of.iter().filter(kept).count();
            while said_of.len() > TAGS.of_connection.max(most) {
                let mut free = said_of.iter().filter(|it| !kept(it)).map(|(text, _)| text.clone());
                let first = free.clone().find(|text| !last.contains_key(text)).or(free.next());
                said_of.remove(&first.expect("there are more than are kept"));
            }
            for it in &mut its {
                last.iter().for_each(|(text, add)| changed(&mut it.tags, text, *add));
                most = most.max(it.tags.len());
            }
            if most > TAGS.of_connection {
                causes.push(ErrorCode::CONNECTION_TAGS);
            } else if union(&there).len() > TAGS.declared {
                causes.push(ErrorCode::GATEWAY_TAGS);
            } else {
                (self.there, self.said) = (there, said);
            }
        }
        match found {
            Tagged::Missed => assert!(its.is_empty()),
            Tagged::Made => assert!(!its.is_empty() && causes.is_empty()),
            Tagged::Dropped(cause) => assert!(causes.contains(&cause)),
        }
    }

    fn deliver(
        &mut self,
        hub: &mut Hub<u32>,
        namespace: u32,
        of: &Expression,
        listed: Option<&[u64]>,
        except: &[u64],
    ) {
        self.sequence += 1;
        let bytes = selector::parse(&of.text()).unwrap();
        let (run_of_listed, run_of_except) = (run(listed.unwrap_or_default()), run(except));
        let audience = Audience {
            namespace,
            everyone: listed.is_none(),
            listed: UidRun::new(&run_of_listed).unwrap(),
            selector: Selector::check(&bytes).ok(),
            except: UidRun::new(&run_of_except).unwrap(),
            except_self: None,
        };
        let mut served = Vec::new();
        let tally = hub.deliver((1, self.sequence), &audience, |handle| served.push(*handle));
        served.sort_unstable();
        let (mut expected, mut all) = (Tally::default(), Vec::new());
        for (handle, it) in &self.there {
            let Registration { namespace: own, uid, .. } = it.registration;
            let matches = of.is_true(&it.tags);
            let addressed = listed.map_or(matches, |listed| listed.contains(&uid));
            if own != namespace || !addressed {
                continue;
            }
            match (except.contains(&uid), it.confirmed) {
                (true, _) => expected.filtered += 1,
                (false, false) => expected.unready += 1,
                (false, true) if !matches => expected.filtered += 1,
                (false, true) => {
                    expected.served += 1;
                    all.push(*handle);
                }
            }
        }
        let here = |uid: &u64| {
            let mut of_space = self.there.values().map(|it| it.registration);
            of_space.any(|it| (it.namespace, it.uid) == (namespace, *uid))
        };
        let missed = listed.unwrap_or_default().iter().filter(|uid| !here(uid)).count();
        expected.missed = missed as u64;
        assert_eq!((served, tally), (all, expected), "{}", of.text());
    }

    fn check(&mut self, hub: &mut Hub<u32>) {
        for TagUpdate { op, tag } in hub.take_tag_updates() {
            let pair = (tag.namespace, String::from(&*tag.text));
            let changed = match op {
                Op::ADD => self.declared.insert(pair),
                _ => self.declared.remove(&pair),
            };
            assert!(changed, "TAG-6: nothing is declared twice");
        }
        assert_eq!(self.declared, union(&self.there), "TAG-3");
        assert_eq!(hub.tags(), self.declared.len());
        hub.tags.invariants();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A message reaches exactly the connections whose tags match, and what is declared is what
    /// connections have (promise 1, SEL-5 to SEL-8, TAG-2, TAG-3, TAG-9, TAG-14, TAG-15).
    #[test]
    fn promise_1_a_selector_reaches_exactly_who_matches(
        steps in proptest::collection::vec(step(), 1..100),
    ) {
        let (mut hub, mut world) = (Hub::new(BOUNDS, 7), World::default());
        for step in steps {
            match step {
                Step::Login(namespace, uid, login, tags) => {
                    world.login(&mut hub, registration(namespace, uid, login), &tags);
                }
                Step::Confirm(pick) => {
                    if let Some(id) = world.ever.get(pick) {
                        hub.confirm(*id);
                        let naive = world.there.get_mut(&u32::try_from(pick).unwrap());
                        naive.into_iter().for_each(|it| it.confirmed = true);
                    }
                }
                Step::Logout(pick) => world.logout(&mut hub, pick),
                Step::Tag(namespace, uid, changes) => {
                    world.tag(&mut hub, namespace, uid, &changes);
                }
                Step::Deliver(namespace, of, listed, except) => {
                    world.deliver(&mut hub, namespace, &of, listed.as_deref(), &except);
                }
            }
            world.check(&mut hub);
        }
    }
}
