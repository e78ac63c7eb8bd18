//! What is told of a message tells the same as publishing it does: the receipt's code and counts,
//! each gateway's frame to the byte, and who gets nothing and why. States and messages come from
//! seeds.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use waybill_broker::explain::answer::{Explanation, Fate, Outcome, Reached, UserSeen};
use waybill_broker::explain::explain;
use waybill_broker::explain::question::{Question, UserId};
use waybill_broker::{BrokerConfig, TokenConfig};
use waybill_routing::{Change, Incarnation, Namespace, Op as Does, Slot, TagChange, Uid};
use waybill_wire::Frame;
use waybill_wire::code::{Kind, Level, Mode, Op, Role, capability};
use waybill_wire::frame::{Record, Snapshot};
use waybill_wire::message::MessageHead;
use waybill_wire::selector::{Selector, parse};
use waybill_wire::targets::Uids;

use crate::batches::{linked, until_fence};
use crate::support::{Backend, Line, Net, backends};
use crate::talk::{Receipt, encode};

/// Messages for each state.
const MESSAGES: usize = 60;

const USERS: u64 = 24;

/// The gateways of most states, and what each of them has come to.
const GATEWAYS: [(u64, After); 6] = [
    (1, After::Live),
    (2, After::Live),
    (3, After::Stalled),
    (4, After::Suspended),
    (5, After::Filling),
    (6, After::Dead),
];

/// The life of a gateway that has a slot and never a link.
const WITHOUT_LINK: u64 = 7;

/// More than an outbox takes, so that such a message is refused whatever waits there.
const TOO_LARGE: usize = 300_000;

/// What fills an outbox without being refused.
const LARGE: usize = 100_000;

const TAGS: [&str; 3] = ["vip", "ios", "group:42"];
const SELECTORS: [&str; 5] = [
    "vip",
    "ios & vip",
    "vip | group:42",
    "!(ios | nobody)",
    // So long that a broadcast to one gateway is cheaper than asking it.
    "vip & ios | vip & nobody | ios & nobody | vip & group:42 | ios & group:42 | group:42 & nobody \
     | vip & ios & nobody | !vip & !ios & !nobody",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Live,
    /// Nothing of what it is sent is read, where the backend can do that.
    Stalled,
    Suspended,
    Filling,
    Dead,
}

fn config(ready: bool) -> BrokerConfig {
    let token = |role: &str, namespaces| TokenConfig {
        name: role.into(),
        token: role.into(),
        roles: vec![role.into()],
        namespaces,
    };
    BrokerConfig {
        tokens: vec![token("producer", None), token("gateway", Some(vec![0]))],
        outbox_bytes_max: 262_144,
        gateways_expected: if ready { 0 } else { 99 },
        ready_quiet_ms: if ready { 0 } else { 600_000 },
        ready_max_ms: 3_600_000,
        resume_window_ms: 600_000,
        keepalive_ms: 0,
        ..BrokerConfig::default()
    }
}

/// A broker in a state from a seed, and a producer.
struct State {
    net: Net,
    random: SmallRng,
    gateways: Vec<(u64, Line)>,
    producer: Line,
    sequence: u64,
    /// Who is registered where, in whatever state.
    held: BTreeSet<(u64, u64)>,
}

impl State {
    fn new(backend: Backend, seed: u64, ready: bool) -> Self {
        let mut net = Net::start(backend, config(ready));
        let random = SmallRng::seed_from_u64(seed);
        let producer = linked(&mut net, Role::PRODUCER, 70, 0);
        until_fence(&mut net, producer);
        let (gateways, held, sequence) = (Vec::new(), BTreeSet::new(), 0);
        let mut state = Self { net, random, gateways, producer, sequence, held };
        // One gateway is where a broadcast may be the cheaper way.
        let lonely = seed % 3 == 2;
        for (incarnation, after) in GATEWAYS {
            if !lonely || incarnation == 1 || after == After::Filling {
                state.link(incarnation, after);
            }
        }
        if !lonely {
            state.open_without_link();
        }
        for slot in state.slots() {
            state.tag(slot);
        }
        for (incarnation, line) in state.gateways.clone() {
            if state.stalls(incarnation) {
                state.net.stall(line, true);
            }
        }
        state
    }

    fn users(&mut self, incarnation: u64) -> Vec<u64> {
        let users = 0..USERS;
        let users: Vec<u64> = users.filter(|_| self.random.random_range(0..4) == 0).collect();
        self.held.extend(users.iter().map(|uid| (incarnation, *uid)));
        users
    }

    fn link(&mut self, incarnation: u64, after: After) {
        let capabilities = if after == After::Suspended { capability::RESUME } else { 0 };
        let line = linked(&mut self.net, Role::GATEWAY, incarnation, capabilities);
        let mut users = self.users(incarnation);
        if after == After::Suspended && users.is_empty() {
            // Without users nothing would be kept.
            users.push(1);
            self.held.insert((incarnation, 1));
        }
        let record =
            |uid: &u64| Record { uid: *uid, login: 0, namespace: 0, op: Op::ADD, device_class: 0 };
        let records: Vec<Record> = users.iter().map(record).collect();
        let last = after != After::Filling;
        let snapshot = Snapshot { first: true, last, version: 1, records: (&records).into() };
        self.net.send(line, &encode(&Frame::Snapshot(snapshot)));
        until_fence(&mut self.net, line);
        if matches!(after, After::Suspended | After::Dead) {
            self.net.close(line);
        } else {
            self.gateways.push((incarnation, line));
        }
    }

    /// A slot answers, and the link has just gone.
    fn open_without_link(&mut self) {
        let users = self.users(WITHOUT_LINK);
        let routes = &self.net.shared().routes;
        let slot = routes.open(Incarnation(WITHOUT_LINK)).unwrap();
        let add = |uid: &u64| Change { op: Does::Add, namespace: Namespace(0), uid: Uid(*uid) };
        routes.apply(slot, &users.iter().map(add).collect::<Vec<_>>()).unwrap();
        routes.go_live(slot, None).unwrap();
    }

    fn slots(&self) -> Vec<Slot> {
        let slots = self.net.shared().routes.gateway_slots(Namespace(0));
        slots.iter().map(|it| it.slot).collect()
    }

    /// Tags are agreed on with most gateways, and each has some of them.
    fn tag(&mut self, slot: Slot) {
        let routes = &self.net.shared().routes;
        let declared: Vec<_> = TAGS
            .iter()
            .filter(|_| self.random.random_range(0..2) == 0)
            .map(|tag| TagChange { op: Does::Add, namespace: Namespace(0), tag })
            .collect();
        if self.random.random_range(0..4) > 0 && routes.agree_on_tags(slot, true).is_ok() {
            routes.apply_tags(slot, &declared).unwrap();
        }
    }

    fn question(&mut self) -> Question {
        let random = &mut self.random;
        let mut some = |most: usize| -> Vec<UserId> {
            let count = random.random_range(0..=most);
            (0..count).map(|_| UserId(random.random_range(0..USERS + 4))).collect()
        };
        let (users, except) = (some(12), some(3));
        let one_in = |random: &mut SmallRng, many: u32| random.random_range(0..many) == 0;
        let selector = one_in(random, 2)
            .then(|| SELECTORS[random.random_range(0..SELECTORS.len())].to_string());
        let users = if one_in(random, 4) { Vec::new() } else { users };
        Question {
            namespace: if one_in(random, 12) { 2 } else { 0 },
            everyone: users.is_empty(),
            users,
            selector,
            except: if one_in(random, 2) { except } else { Vec::new() },
            mode: ["direct", "broadcast", "auto"][random.random_range(0..3)].into(),
            receipt: ["none", "routed", "routed"][random.random_range(0..3)].into(),
            payload_bytes: match random.random_range(0..20) {
                0 => TOO_LARGE,
                1..4 => LARGE,
                _ => random.random_range(0..200),
            },
        }
    }

    /// Publishes what was asked about: the receipt, and what each gateway got.
    fn publish(&mut self, question: &Question) -> (Option<Receipt>, BTreeMap<u64, Vec<Vec<u8>>>) {
        let plain = |users: &[UserId]| users.iter().map(|it| it.0).collect::<Vec<u64>>();
        let (users, except) = (plain(&question.users), plain(&question.except));
        let selector = question.selector.as_deref().map(|text| parse(text).unwrap());
        let level = [("none", Level::NONE), ("routed", Level::ROUTED)];
        self.sequence += 1;
        let head = MessageHead {
            everyone: users.is_empty() && selector.is_none(),
            sequence: self.sequence,
            namespace: question.namespace,
            mode: Mode::from_name(&question.mode).unwrap(),
            level: level.iter().find(|it| it.0 == question.receipt).unwrap().1,
            selector: selector.as_deref().map(|bytes| Selector::check(bytes).unwrap()),
            except: Uids::Slice(&except),
            ..MessageHead::default()
        };
        let (mut out, payload) = (Vec::new(), vec![b'x'; question.payload_bytes]);
        head.encode_publish(&users[..], &payload, &mut out).unwrap();
        self.net.send(self.producer, &out);
        let mut receipts = until_fence(&mut self.net, self.producer).into_iter();
        let receipt = receipts.next().map(|frame| match Frame::decode(&frame) {
            Ok(Frame::Receipt(receipt)) => Receipt::of(&receipt),
            other => panic!("no receipt: {other:?}"),
        });
        self.net.until(|ledger| ledger.gateways.between_shards == 0);
        let mut got = BTreeMap::new();
        for (incarnation, line) in self.gateways.clone() {
            if !self.stalls(incarnation) {
                got.insert(incarnation, until_fence(&mut self.net, line));
            }
        }
        (receipt, got)
    }

    /// Whether nothing of what this gateway is sent is read.
    fn stalls(&self, incarnation: u64) -> bool {
        self.net.is_simulated() && GATEWAYS.contains(&(incarnation, After::Stalled))
    }
}

fn users_with(told: &Explanation, fate: Fate) -> Vec<u64> {
    let with = |it: &&UserSeen| it.fate == fate;
    told.users.iter().filter(with).map(|it| it.uid.0).collect()
}

/// Compares what was told with what came.
fn compare(
    told: &Explanation,
    receipt: Option<&Receipt>,
    got: &BTreeMap<u64, Vec<Vec<u8>>>,
    held: &BTreeSet<(u64, u64)>,
) {
    let refused = told.refused.as_ref().map(|it| it.code.clone());
    let code = receipt.filter(|it| it.code.0 != 0).map(|it| it.code.to_string());
    assert_eq!(refused, code);
    let counted = |count: u32| usize::try_from(count).unwrap();
    if let Some(real) = receipt.filter(|_| refused.is_none()) {
        let Receipt { sent, gateways, unknown, offline, filtered, dropped, .. } = real;
        let counts = &told.receipt;
        assert_eq!(counts.sent, counted(*sent));
        assert_eq!((counts.unknown, counts.gateways), (counted(*unknown), counted(*gateways)));
        assert_eq!(counts.offline, offline.len());
        assert_eq!((counts.filtered, counts.dropped), (filtered.len(), dropped.len()));
        if told.mode.taken == "direct" && told.fates.is_some() {
            let sorted = |users: &[u64]| users.iter().copied().collect::<BTreeSet<u64>>();
            for (fate, real) in
                [(Fate::Offline, offline), (Fate::Filtered, filtered), (Fate::Dropped, dropped)]
            {
                assert_eq!(sorted(&users_with(told, fate)), sorted(real), "{fate:?}");
            }
        }
    }
    let mut taken = BTreeSet::new();
    for (incarnation, frames) in got {
        let name = format!("{incarnation:016x}");
        let seen = told.gateways.iter().find(|it| it.incarnation == name);
        let sent = seen.filter(|it| it.outcome == Outcome::Sent && refused.is_none());
        assert_eq!(frames.len(), usize::from(sent.is_some()), "at {incarnation}: {seen:?}");
        let Some(seen) = sent else { continue };
        let Ok(Frame::Deliver(message)) = Frame::decode(&frames[0]) else {
            panic!("no DELIVER: {:?}", Kind(frames[0][1]))
        };
        let frame = seen.frame.unwrap();
        assert_eq!(frame.bytes.payload, message.payload.len());
        assert_eq!(frame.bytes.header, frames[0].len() - message.payload.len());
        assert_eq!(frame.users, message.targets.len());
        let listed = message.targets.iter().filter(|uid| held.contains(&(*incarnation, *uid)));
        taken.extend(listed);
    }
    if refused.is_none() {
        reached(told, &taken, got);
    }
}

/// Whoever would be reached is in a list that a gateway got which holds them. Nobody else is in
/// one, but those it is not for, and those of gateways that have no match and get a broadcast all
/// the same.
fn reached(told: &Explanation, taken: &BTreeSet<u64>, got: &BTreeMap<u64, Vec<Vec<u8>>>) {
    for user in &told.users {
        // A gateway that does not read is not looked at.
        let unseen = user.gateways.iter().any(|it| {
            let is = |seen: &&waybill_broker::explain::answer::GatewaySeen| seen.slot == it.slot;
            let seen = told.gateways.iter().find(is).unwrap();
            let incarnation = u64::from_str_radix(&seen.incarnation, 16).unwrap();
            it.outcome == Outcome::Sent && !got.contains_key(&incarnation)
        });
        let no_match = user.gateways.iter().any(|it| it.outcome == Outcome::NoMatch);
        let gets_all = no_match && told.mode.taken == "broadcast";
        let is_taken = taken.contains(&user.uid.0);
        if user.fate <= Fate::May {
            assert!(is_taken || unseen, "{user:?}");
        } else if user.fate != Fate::Filtered {
            assert!(!is_taken || gets_all, "{user:?}");
        }
    }
    let any = told.users.iter().any(|user| user.fate <= Fate::May);
    assert!(told.fates.is_none() || any == (told.reached != Reached::Nobody));
}

fn check(ready: bool) -> BTreeMap<String, usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (seed, backend) in (0..).zip(backends()) {
        let mut state = State::new(backend, seed, ready);
        for _ in 0..MESSAGES {
            let question = state.question();
            eprintln!("on {backend:?}, state {seed}: {question:?}");
            let told = explain(state.net.shared(), &question).unwrap();
            assert_eq!(told.gateways_filling, 1, "of every state");
            let (receipt, got) = state.publish(&question);
            compare(&told, receipt.as_ref(), &got, &state.held);
            let outcomes = told.gateways.iter().map(|it| format!("{:?}", it.outcome));
            let fates = told.users.iter().map(|it| format!("{:?}", it.fate));
            let modes = [format!("auto {}", told.mode.auto), format!("{:?}", told.reached)];
            outcomes.chain(fates).chain(modes).for_each(|it| *seen.entry(it).or_default() += 1);
        }
    }
    seen
}

#[test]
fn it_tells_what_publishing_does() {
    let seen = check(true);
    eprintln!("{seen:?}");
    let missing: Vec<&str> = [
        "Sent",
        "OutboxFull",
        "NoLink",
        "NotPermitted",
        "Filling",
        "Suspended",
        "TagsNotAgreed",
        "NoMatch",
        "May",
        "Offline",
        "Filtered",
        "Dropped",
        "auto direct",
        "auto broadcast",
        "Nobody",
        "Some",
        "All",
    ]
    .into_iter()
    .filter(|it| !seen.contains_key(*it))
    .collect();
    assert!(missing.is_empty(), "{missing:?} never came: {seen:?}");
}

#[test]
fn of_a_broker_that_is_not_ready_it_tells_so() {
    let seen = check(false);
    assert!(!seen.contains_key("Some") && !seen.contains_key("All"), "{seen:?}");
}
