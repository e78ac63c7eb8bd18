//! Who gets a message and what is told of it, worked out connection by connection, in the most
//! naive way.

use std::collections::BTreeSet;
use std::ops::Range;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use waybill_wire::code::{Level, Mode};

pub(super) const TAGS: [&str; 6] = ["vip", "geo:sh", "geo:bj", "ios", "a", "two words"];
pub(super) const UIDS: Range<u64> = 1..13;
pub(super) const NAMESPACES: Range<u32> = 0..2;

/// A selector.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Tag(usize),
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
}

impl Tree {
    pub(super) fn any(random: &mut SmallRng, depth: usize) -> Self {
        let some = |random: &mut SmallRng| -> Vec<Self> {
            (0..random.random_range(2..4)).map(|_| Self::any(random, depth - 1)).collect()
        };
        match random.random_range(0..if depth == 0 { 1 } else { 5 }) {
            1 => Self::And(some(random)),
            2 | 3 => Self::Or(some(random)),
            4 => Self::Not(Box::new(Self::any(random, depth - 1))),
            _ => Self::Tag(random.random_range(0..TAGS.len())),
        }
    }

    pub(super) fn text(&self) -> String {
        let join = |trees: &[Self], by: &str| {
            format!("({})", trees.iter().map(Self::text).collect::<Vec<_>>().join(by))
        };
        match self {
            Self::Tag(tag) => format!("\"{}\"", TAGS[*tag]),
            Self::And(trees) => join(trees, "&"),
            Self::Or(trees) => join(trees, "|"),
            Self::Not(tree) => format!("!({})", tree.text()),
        }
    }

    /// SEL-5.
    fn matches(&self, tags: &BTreeSet<usize>) -> bool {
        match self {
            Self::Tag(tag) => tags.contains(tag),
            Self::And(trees) => trees.iter().all(|tree| tree.matches(tags)),
            Self::Or(trees) => trees.iter().any(|tree| tree.matches(tags)),
            Self::Not(tree) => !tree.matches(tags),
        }
    }

    /// SEL-9: whether some connection may match, and whether each must.
    fn bounds(&self, declared: impl Fn(usize) -> bool + Copy) -> (bool, bool) {
        let of = |trees: &[Self]| -> (Vec<bool>, Vec<bool>) {
            trees.iter().map(|tree| tree.bounds(declared)).unzip()
        };
        let (all, any) = (|it: &[bool]| it.iter().all(|it| *it), |it: &[bool]| it.contains(&true));
        match self {
            Self::Tag(tag) => (declared(*tag), false),
            Self::And(trees) => {
                let (may, must) = of(trees);
                (all(&may), all(&must))
            }
            Self::Or(trees) => {
                let (may, must) = of(trees);
                (any(&may), any(&must))
            }
            Self::Not(tree) => {
                let (may, must) = tree.bounds(declared);
                (!must, !may)
            }
        }
    }
}

/// A message as its producer means it. Without a list it is for everyone, or whoever matches.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) namespace: u32,
    pub(super) uids: Option<Vec<u64>>,
    pub(super) except: Vec<u64>,
    pub(super) selector: Option<Tree>,
    pub(super) mode: Mode,
    pub(super) level: Level,
}

impl Sent {
    pub(super) fn any(random: &mut SmallRng) -> Self {
        let some = |random: &mut SmallRng, most| -> Vec<u64> {
            let count = random.random_range(1..=most);
            (0..count).map(|_| random.random_range(UIDS)).collect()
        };
        let one_of = |random: &mut SmallRng| [2, 2, 1, 0][random.random_range(0..4)];
        Self {
            namespace: random.random_range(NAMESPACES),
            uids: random.random_bool(0.6).then(|| some(random, 8)),
            except: if random.random_bool(0.3) { some(random, 3) } else { Vec::new() },
            selector: random.random_bool(0.8).then(|| Tree::any(random, 3)),
            mode: [Mode::DIRECT, Mode::BROADCAST, Mode::AUTO][random.random_range(0..3)],
            level: [Level::NONE, Level::ROUTED, Level::DELIVERED][one_of(random)],
        }
    }

    pub(super) fn is_excepted(&self, uid: u64) -> bool {
        self.except.contains(&uid)
    }

    /// Users of the list, each once.
    pub(super) fn listed(&self) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        self.uids.iter().flatten().copied().filter(|uid| seen.insert(*uid)).collect()
    }

    /// Whether the broker may choose the mode.
    pub(super) fn is_open(&self) -> bool {
        is_open(self.mode, self.level)
    }

    fn is_broadcast(&self) -> bool {
        self.mode == Mode::BROADCAST
    }
}

/// Whether `auto` may choose: nobody is told what becomes of the message (TGT-6).
pub(super) fn is_open(mode: Mode, level: Level) -> bool {
    mode == Mode::AUTO && level == Level::NONE
}

/// A user's connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) namespace: u32,
    pub(super) uid: u64,
    pub(super) tags: BTreeSet<usize>,
}

/// What became of a user; the best counts (REP-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    Offline,
    Filtered,
    Reached,
}

/// A gateway's connections, and what it has declared of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    pub(super) connections: Vec<Connection>,
    pub(super) registered: BTreeSet<(u32, u64)>,
    /// These tags, and perhaps some that nobody has any more (TAG-3).
    pub(super) declared: BTreeSet<(u32, usize)>,
    /// Those of them that the broker keeps, how many others there are, and how many it may keep.
    kept: BTreeSet<(u32, usize)>,
    unkept: usize,
    most: usize,
    /// Tags are agreed on.
    pub(super) tagged: bool,
    /// Its slot answers.
    pub(super) live: bool,
}

impl Users {
    pub(super) fn new(tagged: bool, most: usize) -> Self {
        Self { tagged, most, ..Self::default() }
    }

    /// Nothing is declared any more.
    pub(super) fn begin_anew(&mut self) {
        self.declared.clear();
        self.kept.clear();
        self.unkept = 0;
    }

    /// What one frame declares; whether the gateway is told that not all is kept (TAG-10, TAG-11).
    pub(super) fn declare(
        &mut self,
        adds: &BTreeSet<(u32, usize)>,
        removes: &BTreeSet<(u32, usize)>,
    ) -> bool {
        let (before, mut told) = (self.unkept, false);
        for tag in adds {
            assert!(self.declared.insert(*tag));
            if self.kept.len() < self.most {
                self.kept.insert(*tag);
            } else {
                self.unkept += 1;
                told = before == 0;
            }
        }
        for tag in removes {
            assert!(self.declared.remove(tag));
            if !self.kept.remove(tag) {
                self.unkept -= 1;
            }
        }
        told
    }

    /// Tags that connections have.
    pub(super) fn tags(&self) -> BTreeSet<(u32, usize)> {
        let of = |it: &Connection| -> Vec<_> {
            it.tags.iter().map(|tag| (it.namespace, *tag)).collect()
        };
        self.connections.iter().flat_map(of).collect()
    }

    pub(super) fn users(&self) -> BTreeSet<(u32, u64)> {
        self.connections.iter().map(|it| (it.namespace, it.uid)).collect()
    }

    fn has(&self, sent: &Sent, uid: u64) -> bool {
        self.live && self.registered.contains(&(sent.namespace, uid))
    }

    fn may_match(&self, sent: &Sent) -> bool {
        let all = self.unkept > 0;
        let declared = |tag| all || self.kept.contains(&(sent.namespace, tag));
        match &sent.selector {
            None => true,
            Some(_) if !self.tagged => false,
            Some(tree) => tree.bounds(declared).0,
        }
    }

    /// Connections of this user that match.
    fn matching(&self, sent: &Sent, uid: u64) -> usize {
        let matches = |it: &&Connection| {
            (it.namespace, it.uid) == (sent.namespace, uid)
                && sent.selector.as_ref().is_none_or(|tree| tree.matches(&it.tags))
        };
        self.connections.iter().filter(matches).count()
    }

    /// Whether it is sent the message.
    pub(super) fn gets(&self, sent: &Sent) -> bool {
        if sent.is_broadcast() {
            return self.live && (self.tagged || sent.selector.is_none());
        }
        let wanted = |uid| match &sent.uids {
            Some(uids) => uids.contains(&uid) && !sent.is_excepted(uid),
            None => true,
        };
        self.may_match(sent) && UIDS.into_iter().any(|uid| self.has(sent, uid) && wanted(uid))
    }

    /// Whether somebody is here that must get it, by whatever mode.
    pub(super) fn must_get(&self, sent: &Sent) -> bool {
        self.live && (self.tagged || sent.selector.is_none()) && !self.audience(sent).is_empty()
    }

    /// The list of its DELIVER (TGT-3).
    pub(super) fn part(&self, sent: &Sent) -> Vec<u64> {
        if sent.is_broadcast() {
            return sent.uids.clone().unwrap_or_default();
        }
        let part = |uid: &u64| self.has(sent, *uid) && !sent.is_excepted(*uid);
        sent.listed().into_iter().filter(part).collect()
    }

    /// The users here, with how many connections, that are in the audience (TGT-1).
    pub(super) fn audience(&self, sent: &Sent) -> Vec<(u64, usize)> {
        let listed = |uid: &u64| sent.uids.as_ref().is_none_or(|uids| uids.contains(uid));
        let wanted = |uid: &u64| listed(uid) && !sent.is_excepted(*uid);
        let users = UIDS.filter(wanted).map(|uid| (uid, self.matching(sent, uid)));
        users.filter(|(_, connections)| *connections > 0).collect()
    }

    /// What it says of a user that it was asked for (REP-2).
    pub(super) fn word(&self, sent: &Sent, uid: u64) -> Word {
        if sent.is_excepted(uid) {
            Word::Filtered
        } else if !self.users().contains(&(sent.namespace, uid)) {
            Word::Offline
        } else if self.matching(sent, uid) > 0 {
            Word::Reached
        } else {
            Word::Filtered
        }
    }

    /// Users reached, and users that EXCEPT took away, of a message without a list (SEL-8).
    pub(super) fn counts(&self, sent: &Sent) -> (u32, u32) {
        let meant = UIDS.filter(|uid| self.matching(sent, *uid) > 0);
        let (excepted, reached): (Vec<u64>, Vec<u64>) =
            meant.partition(|uid| sent.is_excepted(*uid));
        (u32::try_from(reached.len()).unwrap(), u32::try_from(excepted.len()).unwrap())
    }

    /// What is known of a user here when the message has been routed (PUB-4).
    pub(super) fn routed(&self, sent: &Sent, uid: u64) -> Word {
        match self.has(sent, uid) {
            false => Word::Offline,
            true if self.may_match(sent) => Word::Reached,
            true => Word::Filtered,
        }
    }
}

/// What a receipt of stage `routed` says of a listed user; `None`: it was not looked up.
pub(super) fn routed(all: &[&Users], sent: &Sent, uid: u64) -> Option<Word> {
    if sent.is_excepted(uid) {
        return Some(Word::Filtered);
    }
    let words = all.iter().map(|users| users.routed(sent, uid));
    (!sent.is_broadcast()).then(|| words.max().unwrap_or(Word::Offline))
}

/// What the final receipt of level `delivered` says of a listed user (REP-6).
pub(super) fn delivered(all: &[&Users], sent: &Sent, uid: u64) -> Word {
    let of = |users: &&&Users| match users.gets(sent) {
        true if sent.is_broadcast() || users.part(sent).contains(&uid) => users.word(sent, uid),
        _ if sent.is_broadcast() => Word::Offline,
        _ => users.routed(sent, uid).min(Word::Filtered),
    };
    let best = all.iter().map(|users| of(&users)).max().unwrap_or(Word::Offline);
    if sent.is_excepted(uid) { Word::Filtered } else { best }
}
