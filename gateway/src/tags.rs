//! Which tags connections have here, and what backends said of them. Pure, and part of the hub.
//!
//! A connection has the tags of its token, changed by what TAG said of its registration (TAG-2).
//! The latter is kept as long as the registration stands, so that a connection which comes later
//! has it too (TAG-14). Of a tag that TAG took away, and that no token had, it is kept while there
//! is room: a user may join one group after another, and leave them, for ever. That some connection
//! has a tag is declared to the brokers; who has it is told to nobody.
//!
//! Invariants: at most `Bounds::of_connection` tags for each connection, and as many that something
//! is kept of for each registration; at most `Bounds::declared` in all; at most `Bounds::held` that
//! connections have, and twice that with what is kept. What a connection has, and nothing is kept
//! of, it has by a token.
//!
//! Never here: which connections a registration has, tickets, brokers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use waybill_client::gateway::{DeclaredTag, Registration, TagUpdate};
use waybill_routing::{ConnectionTags, Inserted, Matcher, Matching, Namespace, Removed};
use waybill_wire::code::{ErrorCode, Op};
use waybill_wire::selector::Selector;

/// How many tags there may be (TAG-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagBounds {
    /// Of one connection, and kept of what TAG said of one registration.
    pub of_connection: usize,
    /// Different ones that connections have.
    pub declared: usize,
    /// Of all connections, counted for each of them; and kept of what TAG said of all
    /// registrations, beyond which TAG may only take tags away.
    pub held: usize,
}

/// A limit that a login or a TAG would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// That of a connection.
    Connection,
    /// That of the gateway.
    Gateway,
}

impl NoRoom {
    /// As a REPORT says it (TAG-16).
    pub(crate) fn cause(self) -> ErrorCode {
        match self {
            Self::Connection => ErrorCode::CONNECTION_TAGS,
            Self::Gateway => ErrorCode::GATEWAY_TAGS,
        }
    }
}

/// The tags of all connections.
#[derive(Debug)]
pub(crate) struct Tags {
    of_connections: ConnectionTags,
    /// What TAG said last of each tag, of registrations that stand.
    said: HashMap<Registration, BTreeMap<Box<str>, Said>>,
    /// What is to be declared, in order, and was not taken yet.
    updates: Vec<TagUpdate>,
    matcher: Matcher,
    /// Of all connections, and of all that TAG said.
    held: usize,
    kept: usize,
    bounds: TagBounds,
}

/// What TAG said last of a tag.
#[derive(Clone, Copy, Debug)]
struct Said {
    op: Op,
    /// A connection of the registration had the tag by its token.
    of_token: bool,
}

impl Said {
    /// Whether it may not be forgotten. What was taken away and no token had comes back only with
    /// another token.
    fn is_kept(self) -> bool {
        self.op == Op::ADD || self.of_token
    }
}

/// What TAG says last of each tag that it names.
pub type LastChanges<'a> = BTreeMap<&'a str, Op>;

/// A tag that a connection got or lost, to be taken back.
struct Done {
    connection: u32,
    op: Op,
    text: Box<str>,
}

impl Tags {
    pub(crate) fn new(bounds: TagBounds) -> Self {
        Self {
            of_connections: ConnectionTags::new(),
            said: HashMap::new(),
            updates: Vec::new(),
            matcher: Matcher::new(),
            held: 0,
            kept: 0,
            bounds,
        }
    }

    /// A connection comes to a registration, with the tags of its token.
    pub(crate) fn login(
        &mut self,
        registration: Registration,
        token: &[Box<str>],
        connection: u32,
    ) -> Result<(), NoRoom> {
        let token: BTreeSet<&str> = token.iter().map(|text| &**text).collect();
        let mut texts = token.clone();
        // Taken out so that its texts can be read while tags are given.
        let said = self.said.remove(&registration);
        for (text, Said { op, .. }) in said.iter().flatten() {
            let _changed = if *op == Op::ADD { texts.insert(text) } else { texts.remove(&**text) };
        }
        let result = self.give(Namespace(registration.namespace), &texts, connection);
        if let Some(mut said) = said {
            let here = result.is_ok();
            for (text, said) in &mut said {
                said.of_token |= here && token.contains(&**text);
            }
            self.said.insert(registration, said);
        }
        result
    }

    fn give(
        &mut self,
        namespace: Namespace,
        texts: &BTreeSet<&str>,
        connection: u32,
    ) -> Result<(), NoRoom> {
        if texts.len() > self.bounds.of_connection {
            return Err(NoRoom::Connection);
        }
        let new = texts.iter().filter(|text| !self.of_connections.is_declared(namespace, text));
        let has_room = self.of_connections.len() + new.count() <= self.bounds.declared;
        let held = self.held + texts.len();
        // A tag that is taken away counts as kept instead, so there is room for that as well.
        let may_lose = held + self.kept <= 2 * self.bounds.held;
        if !has_room || held > self.bounds.held || !may_lose {
            return Err(NoRoom::Gateway);
        }
        for text in texts {
            self.change(namespace, Op::ADD, text, connection);
        }
        Ok(())
    }

    /// A connection ends, and its registration with it if no other `stands`.
    pub(crate) fn logout(&mut self, registration: Registration, connection: u32, stands: bool) {
        let updates = &mut self.updates;
        self.held -= self.of_connections.count(connection);
        self.of_connections.end(connection, |namespace, text| {
            updates.push(TagUpdate::remove(declared(namespace, text)));
        });
        if !stands {
            self.kept -= self.said.remove(&registration).map_or(0, |said| said.len());
        }
    }

    /// TAG changes a registration, and so all its connections (TAG-14). Nothing is changed if there
    /// is no room for all of it. For a change that only takes tags away there is: what has to be
    /// kept of it were tags that connections had.
    pub(crate) fn change_all(
        &mut self,
        registration: Registration,
        last: &LastChanges<'_>,
        connections: &[u32],
    ) -> Result<(), NoRoom> {
        let namespace = Namespace(registration.namespace);
        let (says, kept) = self.says(registration, last, connections);
        if kept > self.bounds.of_connection {
            return Err(NoRoom::Connection);
        }
        let of_others = self.kept - self.said.get(&registration).map_or(0, BTreeMap::len);
        let gives = last.values().any(|op| *op == Op::ADD);
        if gives && of_others + kept > self.bounds.held {
            return Err(NoRoom::Gateway);
        }
        let done = self.make(namespace, last, connections)?;
        if self.of_connections.len() > self.bounds.declared || self.held > self.bounds.held {
            self.undo(namespace, done);
            return Err(NoRoom::Gateway);
        }
        let said = self.said.entry(registration).or_default();
        said.extend(says.into_iter().map(|(text, says)| (Box::from(text), says)));
        // What may be forgotten never takes the half of the room that what may not needs.
        let room = (self.bounds.held / 2).saturating_sub(of_others);
        let mut over = said.len().saturating_sub(room.min(self.bounds.of_connection));
        // First what was said before.
        for is_old in [true, false] {
            said.retain(|text, said| {
                let stays = over == 0 || said.is_kept() || (is_old && last.contains_key(&**text));
                over -= usize::from(!stays);
                stays
            });
        }
        self.kept = of_others + said.len();
        if said.is_empty() {
            self.said.remove(&registration);
        }
        Ok(())
    }

    /// What TAG says of each tag of a registration with these connections, and of how many
    /// something has to be kept after it.
    fn says<'a>(
        &self,
        registration: Registration,
        last: &LastChanges<'a>,
        connections: &[u32],
    ) -> (Vec<(&'a str, Said)>, usize) {
        let namespace = Namespace(registration.namespace);
        let said = self.said.get(&registration);
        let mut kept = said.map_or(0, |said| said.values().filter(|it| it.is_kept()).count());
        let says = last.iter().map(|(text, op)| {
            let before = said.and_then(|said| said.get(*text));
            let has = |connection: &u32| self.of_connections.has(namespace, text, *connection);
            let of_token = before.map_or_else(|| connections.iter().any(has), |it| it.of_token);
            let says = Said { op: *op, of_token };
            kept += usize::from(says.is_kept());
            kept -= usize::from(before.is_some_and(|before| before.is_kept()));
            (*text, says)
        });
        let says = says.collect();
        (says, kept)
    }

    fn make(
        &mut self,
        namespace: Namespace,
        last: &LastChanges<'_>,
        connections: &[u32],
    ) -> Result<Vec<Done>, NoRoom> {
        let mut done = Vec::new();
        for connection in connections {
            for (text, op) in last {
                if self.change(namespace, *op, text, *connection) {
                    done.push(Done { connection: *connection, op: *op, text: Box::from(*text) });
                }
            }
            if self.of_connections.count(*connection) > self.bounds.of_connection {
                self.undo(namespace, done);
                return Err(NoRoom::Connection);
            }
        }
        Ok(done)
    }

    fn undo(&mut self, namespace: Namespace, done: Vec<Done>) {
        for Done { connection, op, text } in done.into_iter().rev() {
            let back = if op == Op::ADD { Op::REMOVE } else { Op::ADD };
            self.change(namespace, back, &text, connection);
        }
    }

    /// Gives a connection a tag or takes it; whether that changed anything.
    fn change(&mut self, namespace: Namespace, op: Op, text: &str, connection: u32) -> bool {
        if op == Op::ADD {
            let inserted = self.of_connections.insert(namespace, text, connection);
            if inserted == Inserted::First {
                self.updates.push(TagUpdate::add(declared(namespace, text)));
            }
            let is_new = inserted != Inserted::Already;
            self.held += usize::from(is_new);
            return is_new;
        }
        let removed = self.of_connections.remove(namespace, text, connection);
        if removed == Removed::Last {
            self.updates.push(TagUpdate::remove(declared(namespace, text)));
        }
        let is_gone = removed != Removed::Absent;
        self.held -= usize::from(is_gone);
        is_gone
    }

    /// What has to be declared since this was asked last, in order.
    pub(crate) fn take_updates(&mut self) -> Vec<TagUpdate> {
        std::mem::take(&mut self.updates)
    }

    /// The tags of a connection, in no order.
    pub(crate) fn of(&self, connection: u32) -> impl Iterator<Item = &str> {
        self.of_connections.of(connection)
    }

    /// Different tags that connections have.
    pub(crate) fn len(&self) -> usize {
        self.of_connections.len()
    }

    /// Makes a selector ready to be asked of connections of that namespace.
    pub(crate) fn select(&mut self, namespace: Namespace, selector: Selector<'_>) -> Selected<'_> {
        let Self { matcher, of_connections: tags, .. } = self;
        matcher.compile(tags, namespace, selector);
        Selected { matcher, tags }
    }

    #[cfg(test)]
    pub(crate) fn invariants(&self) {
        self.of_connections.invariants();
        assert!(self.len() <= self.bounds.declared);
        let lens = self.said.values().map(BTreeMap::len);
        assert_eq!(self.kept, lens.clone().sum::<usize>());
        assert!(self.held <= self.bounds.held && self.held + self.kept <= 2 * self.bounds.held);
        assert!(lens.max().unwrap_or(0) <= self.bounds.of_connection);
    }
}

/// A selector, and who matches it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected<'a> {
    matcher: &'a Matcher,
    tags: &'a ConnectionTags,
}

impl<'a> Selected<'a> {
    pub(crate) fn matches(self, connection: u32) -> bool {
        self.matcher.matches(self.tags, connection)
    }

    /// How many connections are asked to find those; `None` if every one.
    pub(crate) fn asked(self) -> Option<usize> {
        self.matcher.asked(self.tags)
    }

    /// The connections that match, each once; `None` if every one has to be asked.
    pub(crate) fn matching(self) -> Option<Matching<'a>> {
        self.matcher.matching(self.tags)
    }
}

fn declared(namespace: Namespace, text: &str) -> DeclaredTag {
    DeclaredTag { namespace: namespace.0, text: Arc::from(text) }
}
