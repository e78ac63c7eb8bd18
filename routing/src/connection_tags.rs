//! Which connection has which tags, at a gateway: what it declares to brokers, and who matches.
//!
//! A tag that some connection has gets a small number, and a connection is a list of them. So a
//! message's selector is turned into numbers once ([`Matcher::compile`]), and then each connection
//! costs a look at its own few numbers, whatever the selector.
//!
//! One owner, no lock. Invariant: `numbers` and `tags` name the same tags; tag t has connection c
//! at place p of its list if and only if c holds (t, p); no list of a named tag is empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use waybill_wire::planted::{self, Bug};
use waybill_wire::selector::{Node, Selector};

use crate::scratch::Bits;
use crate::{Inserted, Namespace, Program, Removed};

/// Tags of connections. A connection is any dense `u32` of the owner's choice, and is of one
/// namespace for as long as it has tags.
#[derive(Clone, Debug, Default)]
pub struct ConnectionTags {
    numbers: BTreeMap<Namespace, BTreeMap<Arc<str>, u32>>,
    /// By number.
    tags: Vec<Tag>,
    /// Numbers that no tag has.
    free: Vec<u32>,
    /// By connection.
    held: Vec<Vec<Held>>,
    named: usize,
}

#[derive(Clone, Debug)]
struct Tag {
    namespace: Namespace,
    text: Arc<str>,
    connections: Vec<u32>,
}

/// A tag of a connection.
#[derive(Clone, Copy, Debug)]
struct Held {
    tag: u32,
    /// Where the connection is among those of the tag.
    at: u32,
}

impl ConnectionTags {
    /// Nobody has any tag.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a connection a tag. With [`Inserted::First`] the gateway declares it: `add`.
    pub fn insert(&mut self, namespace: Namespace, tag: &str, connection: u32) -> Inserted {
        let (number, inserted) = match self.number(namespace, tag) {
            Some(number) if self.place(connection, number).is_some() => return Inserted::Already,
            Some(number) => (number, Inserted::Another),
            None => (self.name(namespace, tag), Inserted::First),
        };
        let connections = &mut self.tags[number as usize].connections;
        let at = u32::try_from(connections.len()).expect("connections are numbered by a u32");
        connections.push(connection);
        let index = connection as usize;
        if self.held.len() <= index {
            self.held.resize_with(index + 1, Vec::new);
        }
        self.held[index].push(Held { tag: number, at });
        inserted
    }

    /// Takes a tag from a connection. With [`Removed::Last`] the gateway takes back what it
    /// declared: `remove`.
    pub fn remove(&mut self, namespace: Namespace, tag: &str, connection: u32) -> Removed {
        let number = self.number(namespace, tag);
        let place = number.and_then(|number| self.place(connection, number));
        let Some(place) = place else { return Removed::Absent };
        let held = self.held[connection as usize].swap_remove(place);
        self.leave(held).map_or(Removed::Another, |_| Removed::Last)
    }

    /// Takes all tags from a connection, as it ended. Tells each one that no connection has any
    /// more: the gateway takes it back, `remove`.
    pub fn end(&mut self, connection: u32, mut last: impl FnMut(Namespace, &str)) {
        let Some(held) = self.held.get_mut(connection as usize) else { return };
        for held in std::mem::take(held) {
            if let Some((namespace, text)) = self.leave(held) {
                last(namespace, &text);
            }
        }
    }

    /// How many tags a connection has, to be compared with `connection_tags_max`.
    #[must_use]
    pub fn count(&self, connection: u32) -> usize {
        self.held(connection).len()
    }

    /// Whether a connection has a tag.
    #[must_use]
    pub fn has(&self, namespace: Namespace, tag: &str, connection: u32) -> bool {
        let number = self.number(namespace, tag);
        number.is_some_and(|number| self.place(connection, number).is_some())
    }

    /// The tags of a connection, in no order.
    pub fn of(&self, connection: u32) -> impl Iterator<Item = &str> {
        self.held(connection).iter().map(|held| &*self.tags[held.tag as usize].text)
    }

    /// Whether some connection has the tag, so that it is declared.
    #[must_use]
    pub fn is_declared(&self, namespace: Namespace, tag: &str) -> bool {
        self.number(namespace, tag).is_some()
    }

    /// Every tag that some connection has, in rising order: what a gateway puts into a snapshot.
    pub fn iter(&self) -> impl Iterator<Item = (Namespace, &str)> {
        let spaces = self.numbers.iter();
        spaces.flat_map(|(namespace, numbers)| numbers.keys().map(|text| (*namespace, &**text)))
    }

    /// How many tags some connection has, to be compared with `gateway_tags_max`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named
    }

    /// Whether nobody has any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named == 0
    }

    /// Panics unless the invariant of this file holds. Walks everything: for tests.
    #[doc(hidden)]
    pub fn invariants(&self) {
        let mut pairs = 0;
        for (namespace, numbers) in &self.numbers {
            assert!(!numbers.is_empty());
            for (text, number) in numbers {
                let tag = &self.tags[*number as usize];
                assert_eq!((tag.namespace, &tag.text), (*namespace, text));
                assert!(!tag.connections.is_empty() && !self.free.contains(number));
                pairs += tag.connections.len();
            }
        }
        for (connection, held) in (0..).zip(&self.held) {
            for Held { tag, at } in held {
                assert_eq!(self.tags[*tag as usize].connections[*at as usize], connection);
            }
        }
        assert_eq!(self.held.iter().map(Vec::len).sum::<usize>(), pairs);
        assert_eq!(self.iter().count(), self.named);
        assert_eq!(self.named + self.free.len(), self.tags.len());
    }

    fn number(&self, namespace: Namespace, tag: &str) -> Option<u32> {
        self.numbers.get(&namespace)?.get(tag).copied()
    }

    fn held(&self, connection: u32) -> &[Held] {
        self.held.get(connection as usize).map_or(&[], Vec::as_slice)
    }

    /// Where a tag is among those of a connection.
    fn place(&self, connection: u32, number: u32) -> Option<usize> {
        self.held(connection).iter().position(|held| held.tag == number)
    }

    /// Gives a tag a number.
    fn name(&mut self, namespace: Namespace, text: &str) -> u32 {
        let text: Arc<str> = text.into();
        let tag = Tag { namespace, text: Arc::clone(&text), connections: Vec::new() };
        let number = match self.free.pop() {
            Some(number) => {
                self.tags[number as usize] = tag;
                number
            }
            None => {
                self.tags.push(tag);
                u32::try_from(self.tags.len() - 1).expect("a gateway has at most 2^20 tags")
            }
        };
        self.numbers.entry(namespace).or_default().insert(text, number);
        self.named += 1;
        number
    }

    /// Takes a connection out of a tag's list; the tag, if the list is empty now.
    fn leave(&mut self, held: Held) -> Option<(Namespace, Arc<str>)> {
        let tag = &mut self.tags[held.tag as usize];
        tag.connections.swap_remove(held.at as usize);
        if let Some(moved) = tag.connections.get(held.at as usize) {
            let mut its = self.held[*moved as usize].iter_mut();
            let moved = its.find(|its| its.tag == held.tag).expect("it has this tag");
            moved.at = held.at;
        }
        if !tag.connections.is_empty() {
            return None;
        }
        let (namespace, text) = (tag.namespace, Arc::clone(&tag.text));
        tag.text = Arc::default();
        self.free.push(held.tag);
        self.named -= 1;
        let numbers = self.numbers.get_mut(&namespace).expect("the tag had a number");
        numbers.remove(&text);
        if numbers.is_empty() {
            self.numbers.remove(&namespace);
        }
        Some((namespace, text))
    }
}

/// A selector ready to be asked of connections. Reused: compiling allocates nothing once the
/// largest selector has been seen.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    program: Program,
    /// Open addressing: a tag's number, or [`NONE`], and the bits of its terms. At most half full.
    numbers: Vec<u32>,
    terms: Vec<u64>,
    shift: u32,
    /// Of the tags of which whoever matches has one: their numbers and the bits of their terms.
    cover: Vec<(u32, u64)>,
    is_covered: bool,
}

/// No tag's number: there are far fewer.
const NONE: u32 = u32::MAX;

impl Matcher {
    /// A matcher that no selector was compiled for yet. It matches nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Overwrites the matcher with this selector, over tags of this namespace as they are now: it
    /// is to be compiled again when a tag has come or gone.
    pub fn compile(&mut self, tags: &ConnectionTags, namespace: Namespace, selector: Selector<'_>) {
        self.program.compile(selector);
        let places = (2 * selector.terms()).next_power_of_two();
        self.shift = u32::BITS - places.ilog2();
        self.numbers.clear();
        self.numbers.resize(places, NONE);
        self.terms.clear();
        self.terms.resize(places, 0);
        let mut have = [0; u64::BITS as usize];
        let texts = selector.nodes().filter_map(|node| match node {
            Node::Tag(text) => Some(text),
            Node::And(_) | Node::Or(_) | Node::Not => None,
        });
        for (term, text) in texts.enumerate() {
            let number = tags.number(namespace, text);
            if let Some(number) = number {
                let at = self.find(number);
                self.numbers[at] = number;
                self.terms[at] |= 1 << term;
                have[term] = tags.tags[number as usize].connections.len();
            }
        }
        let cover = self.program.cover(&have);
        self.is_covered = cover.is_some();
        self.cover.clear();
        let places = self.numbers.iter().zip(&self.terms);
        let known = places.filter(|(_, terms)| **terms & cover.unwrap_or(0) != 0);
        self.cover.extend(known.map(|(number, terms)| (*number, *terms)));
    }

    /// Whether a connection of the namespace matches (\[SEL-5\]).
    #[inline]
    #[must_use]
    pub fn matches(&self, tags: &ConnectionTags, connection: u32) -> bool {
        planted::is(Bug::IgnoredSelector) || self.program.matches(self.mask(tags, connection))
    }

    /// The terms that a connection meets, as bits.
    #[inline]
    #[must_use]
    pub fn mask(&self, tags: &ConnectionTags, connection: u32) -> u64 {
        if self.numbers.is_empty() {
            return 0;
        }
        let held = tags.held(connection).iter();
        held.fold(0, |mask, held| mask | self.terms[self.find(held.tag)])
    }

    /// How many connections [`matching`](Self::matching) asks, one with several of the tags as
    /// often as it has them; `None` if every one has to be asked.
    #[must_use]
    pub fn asked(&self, tags: &ConnectionTags) -> Option<usize> {
        let of_tag = |(number, _): &(u32, u64)| tags.tags[*number as usize].connections.len();
        self.is_covered.then(|| self.cover.iter().map(of_tag).sum())
    }

    /// The connections of the namespace that match, each once and in no order; `None` if every one
    /// has to be asked. Asked are those of the tags of which whoever matches has one, and of
    /// several such sets the smallest: `group:42` in `group:42 & !ios`, and in
    /// `(group:1 | group:2) & platform:ios` the two groups.
    #[must_use]
    pub fn matching<'a>(&'a self, tags: &'a ConnectionTags) -> Option<Matching<'a>> {
        let (cover, rest, before) = (self.cover.iter(), [].iter(), (0, 0));
        self.is_covered.then_some(Matching { matcher: self, tags, cover, rest, before })
    }

    /// Where a number is, or the free place where it would be; there the bits are 0.
    #[inline]
    fn find(&self, number: u32) -> usize {
        let mask = self.numbers.len() - 1;
        let mut at = (number.wrapping_mul(0x9e37_79b1) >> self.shift) as usize;
        while self.numbers[at] != number && self.numbers[at] != NONE {
            at = (at + 1) & mask;
        }
        at
    }
}

/// See [`Matcher::matching`].
#[derive(Clone, Debug)]
pub struct Matching<'a> {
    matcher: &'a Matcher,
    tags: &'a ConnectionTags,
    cover: std::slice::Iter<'a, (u32, u64)>,
    /// Connections of the present tag that were not asked yet.
    rest: std::slice::Iter<'a, u32>,
    /// Terms of the tags before the present one, and with it: who meets one of the former was
    /// asked.
    before: (u64, u64),
}

impl Iterator for Matching<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            for connection in self.rest.by_ref() {
                let mask = self.matcher.mask(self.tags, *connection);
                if mask & self.before.0 == 0 && self.matcher.program.matches(mask) {
                    return Some(*connection);
                }
            }
            let (number, terms) = self.cover.next()?;
            self.before = (self.before.1, self.before.1 | terms);
            self.rest = self.tags.tags[*number as usize].connections.iter();
        }
    }
}

impl Program {
    /// Terms of which whoever matches meets one, so that fewest have them, where `have` says how
    /// many have each; `None` if there are no such terms. A program without groups is met by
    /// nobody, or perhaps by everybody.
    fn cover(&self, have: &[usize; u64::BITS as usize]) -> Option<u64> {
        let mut covers = [(0, 0); u64::BITS as usize];
        let mut cover = None;
        for (at, group) in self.groups().iter().enumerate() {
            let mut all = (0_usize, 0);
            let mut fewest = (usize::MAX, 0);
            let mut take = |(count, terms): (usize, u64)| {
                all = (all.0.saturating_add(count), all.1 | terms);
                fewest = if count < fewest.0 { (count, terms) } else { fewest };
            };
            Bits(group.terms).for_each(|term| take((have[term], 1 << term)));
            Bits(group.groups).for_each(|group| take(covers[group]));
            covers[at] = if group.any { all } else { fewest };
            cover = Some(covers[at].1);
        }
        cover
    }
}
