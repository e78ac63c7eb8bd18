//! Which tags connections have here, and what backends said of them. Pure, and part of the hub.
//!
//! A connection has the tags of its token, changed by what TAG said of its registration (TAG-2).
//! The latter is kept as long as the registration stands, so that a connection which comes later
//! has it too (TAG-14). That some connection has a tag is declared to the brokers; who has it is
//! told to nobody.
//!
//! Invariant: at most `Bounds::of_connection` tags for each connection, and as many that were said
//! something of for each registration; at most `Bounds::declared` in all.
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
    /// Of one connection, and said something of for one registration.
    pub of_connection: usize,
    /// Different ones that connections have.
    pub declared: usize,
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
    said: HashMap<Registration, BTreeMap<Box<str>, Op>>,
    /// What is to be declared, in order, and was not taken yet.
    updates: Vec<TagUpdate>,
    matcher: Matcher,
    bounds: TagBounds,
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
        let mut texts: BTreeSet<&str> = token.iter().map(|text| &**text).collect();
        // Taken out so that its texts can be read while tags are given.
        let said = self.said.remove(&registration);
        for (text, op) in said.iter().flatten() {
            let _changed = if *op == Op::ADD { texts.insert(text) } else { texts.remove(&**text) };
        }
        let result = self.give(Namespace(registration.namespace), &texts, connection);
        if let Some(said) = said {
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
        if self.of_connections.len() + new.count() > self.bounds.declared {
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
        self.of_connections.end(connection, |namespace, text| {
            updates.push(TagUpdate::remove(declared(namespace, text)));
        });
        if !stands {
            self.said.remove(&registration);
        }
    }

    /// TAG changes a registration, and so all its connections (TAG-14). Nothing is changed if there
    /// is no room for all of it.
    pub(crate) fn change_all(
        &mut self,
        registration: Registration,
        last: &LastChanges<'_>,
        connections: &[u32],
    ) -> Result<(), NoRoom> {
        let said = self.said.get(&registration);
        let known = said.map_or(0, BTreeMap::len);
        let new = last.keys().filter(|text| !said.is_some_and(|said| said.contains_key(**text)));
        if known + new.count() > self.bounds.of_connection {
            return Err(NoRoom::Connection);
        }
        let namespace = Namespace(registration.namespace);
        let done = self.make(namespace, last, connections)?;
        if self.of_connections.len() > self.bounds.declared {
            self.undo(namespace, done);
            return Err(NoRoom::Gateway);
        }
        let said = self.said.entry(registration).or_default();
        said.extend(last.iter().map(|(text, op)| (Box::from(*text), *op)));
        Ok(())
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
            return inserted != Inserted::Already;
        }
        let removed = self.of_connections.remove(namespace, text, connection);
        if removed == Removed::Last {
            self.updates.push(TagUpdate::remove(declared(namespace, text)));
        }
        removed != Removed::Absent
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

    /// The connections that match, each once; `None` if every one has to be asked.
    pub(crate) fn matching(self) -> Option<Matching<'a>> {
        self.matcher.matching(self.tags)
    }
}

fn declared(namespace: Namespace, text: &str) -> DeclaredTag {
    DeclaredTag { namespace: namespace.0, text: Arc::from(text) }
}
