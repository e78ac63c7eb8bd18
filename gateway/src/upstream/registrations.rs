//! Which registrations and tags each link has been told, and which logins wait until a broker has
//! theirs.
//!
//! What a link could not take over is kept and offered again with what has come since. A link that
//! is added is told all that stands; one that retires is told nothing more and confirms nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use waybill_client::gateway::{Change, DeclaredTag, GatewayCommand, Registration, TagUpdate};
use waybill_wire::code::Op;

use super::{BEHIND_MAX, Notice};
use crate::hub::ConnectionId;

#[derive(Debug)]
pub(super) struct Registrations {
    links: Vec<Link>,
    /// Ticket of the changes being gathered; those below have been offered to the links.
    ticket: u64,
    gathered: bool,
    /// The ticket each standing registration was made by. Kept after its confirmation: the broker
    /// that confirmed it may be lost while another is still behind.
    standing: HashMap<Registration, u64>,
    /// The same of tags that some connection has, by namespace and text.
    tags: HashMap<u32, HashMap<Arc<str>, u64>>,
    /// Logins that lost, the number that won, and the ticket of their removal; until that is in
    /// effect. A login of the same number meanwhile would cancel the removal, and no broker would
    /// tell again.
    displaced: HashMap<Registration, (u64, u64)>,
    /// Logins that wait for a ticket.
    waiting: BTreeMap<u64, Vec<ConnectionId>>,
}

#[derive(Debug, Default)]
struct Link {
    /// It is told nothing more: retired, failed, or a place that is free.
    is_closed: bool,
    up: bool,
    /// Highest ticket in effect since the link came up.
    in_effect: Option<u64>,
    /// Not yet taken over by the link, the latest for each registration.
    changes: BTreeMap<Registration, Op>,
    /// The same of tags.
    tags: BTreeMap<DeclaredTag, Op>,
}

impl Link {
    fn behind(&self) -> usize {
        self.changes.len() + self.tags.len()
    }
}

impl Registrations {
    pub(super) fn new(links: usize) -> Self {
        Self {
            links: std::iter::repeat_with(Link::default).take(links).collect(),
            ticket: 1,
            gathered: false,
            standing: HashMap::new(),
            tags: HashMap::new(),
            displaced: HashMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn register(&mut self, registration: Registration) {
        self.gather(registration, Op::ADD);
        self.standing.insert(registration, self.ticket);
    }

    pub(super) fn unregister(&mut self, registration: Registration) {
        self.gather(registration, Op::REMOVE);
        self.standing.remove(&registration);
    }

    pub(super) fn declare(&mut self, update: TagUpdate) {
        let TagUpdate { op, tag } = update;
        self.gathered = true;
        for link in self.links.iter_mut().filter(|link| !link.is_closed) {
            link.tags.insert(tag.clone(), op);
        }
        let DeclaredTag { namespace, text } = tag;
        let of_namespace = self.tags.entry(namespace).or_default();
        if op == Op::ADD {
            of_namespace.insert(text, self.ticket);
        } else {
            of_namespace.remove(&text);
            if of_namespace.is_empty() {
                self.tags.remove(&namespace);
            }
        }
    }

    /// The last ticket by which one of these tags was declared, of those that are.
    fn declared_by<'a>(&self, namespace: u32, tags: impl Iterator<Item = &'a str>) -> Option<u64> {
        let declared = self.tags.get(&namespace)?;
        tags.filter_map(|text| declared.get(text).copied()).max()
    }

    pub(super) fn tags_due<'a>(
        &self,
        link: usize,
        namespace: u32,
        tags: impl Iterator<Item = &'a str>,
    ) -> Option<u64> {
        let ticket = self.declared_by(namespace, tags)?;
        (self.links[link].in_effect < Some(ticket)).then_some(ticket)
    }

    pub(super) fn displace(&mut self, registration: Registration, winner: u64) {
        self.unregister(registration);
        self.displaced.insert(registration, (winner, self.ticket));
    }

    pub(super) fn displaced_by(&self, registration: Registration) -> Option<u64> {
        self.displaced.get(&registration).map(|(winner, _)| *winner)
    }

    fn gather(&mut self, registration: Registration, op: Op) {
        self.gathered = true;
        for link in self.links.iter_mut().filter(|link| !link.is_closed) {
            link.changes.insert(registration, op);
        }
    }

    pub(super) fn wait<'a>(
        &mut self,
        connection: ConnectionId,
        registration: Registration,
        tags: impl Iterator<Item = &'a str>,
        out: &mut Vec<Notice>,
    ) {
        let ticket = self.standing.get(&registration).copied().unwrap_or(self.ticket);
        let ticket = self.declared_by(registration.namespace, tags).max(Some(ticket));
        let Some(ticket) = ticket else { return };
        if self.confirmed() >= Some(ticket) {
            out.push(Notice::Confirmed(connection));
        } else {
            self.waiting.entry(ticket).or_default().push(connection);
        }
    }

    /// The highest ticket in effect at any broker that is linked.
    fn confirmed(&self) -> Option<u64> {
        self.links.iter().filter_map(|link| link.in_effect).max()
    }

    /// A new link, in the lowest place that is free.
    pub(super) fn add_link(&mut self, free: Option<usize>) -> usize {
        // A ticket of its own: what stands is in effect at the new broker once that is.
        self.gathered = true;
        let changes = self.standing.keys().map(|registration| (*registration, Op::ADD)).collect();
        let of_namespaces = self.tags.iter().flat_map(|(namespace, tags)| {
            tags.keys().map(|text| DeclaredTag { namespace: *namespace, text: Arc::clone(text) })
        });
        let tags = of_namespaces.map(|tag| (tag, Op::ADD)).collect();
        let link = Link { changes, tags, ..Link::default() };
        match free {
            Some(place) => {
                self.links[place] = link;
                place
            }
            None => {
                self.links.push(link);
                self.links.len() - 1
            }
        }
    }

    pub(super) fn is_covered_without(&self, link: usize) -> bool {
        // The ticket being gathered is not offered to anyone yet.
        let due = if self.gathered { self.ticket } else { self.ticket - 1 };
        let others = self.links.iter().enumerate().filter(|(number, _)| *number != link);
        let mut others = others.map(|(_, link)| link).filter(|link| !link.is_closed);
        others.any(|link| link.in_effect >= Some(due))
    }

    /// Nothing more is told to this link, and what it has in effect counts no longer.
    pub(super) fn close(&mut self, link: usize) {
        let up = self.links[link].up;
        self.links[link] = Link { is_closed: true, up, ..Link::default() };
    }

    pub(super) fn link_up(&mut self, link: usize) {
        self.links[link].up = true;
        self.links[link].in_effect = None;
    }

    pub(super) fn link_down(&mut self, link: usize) {
        self.links[link].up = false;
        self.links[link].in_effect = None;
    }

    pub(super) fn in_effect(&mut self, link: usize, ticket: u64, out: &mut Vec<Notice>) {
        if self.links[link].is_closed {
            return;
        }
        self.links[link].in_effect = Some(ticket);
        self.displaced.retain(|_, (_, removal)| *removal > ticket);
        let later = self.waiting.split_off(&ticket.saturating_add(1));
        let done = std::mem::replace(&mut self.waiting, later);
        out.extend(done.into_values().flatten().map(Notice::Confirmed));
    }

    pub(super) fn links_up(&self) -> usize {
        self.links.iter().filter(|link| link.up).count()
    }

    pub(super) fn is_behind(&self) -> bool {
        self.links.iter().any(|link| link.behind() >= BEHIND_MAX)
    }

    pub(super) fn has_changes(&self) -> bool {
        self.links.iter().any(|link| link.behind() > 0)
    }

    pub(super) fn commands(&mut self) -> Vec<(usize, GatewayCommand)> {
        if std::mem::take(&mut self.gathered) {
            self.ticket += 1;
        }
        // With nothing gathered, what a link was behind with belongs to the ticket before.
        let ticket = self.ticket - 1;
        let behind = self.links.iter_mut().enumerate().filter(|(_, link)| link.behind() > 0);
        let changes = behind.map(|(number, link)| {
            let changes = std::mem::take(&mut link.changes).into_iter();
            let changes = changes.map(|(registration, op)| Change { op, registration }).collect();
            let tags = std::mem::take(&mut link.tags).into_iter();
            let tags = tags.map(|(tag, op)| TagUpdate { op, tag }).collect();
            (number, GatewayCommand::Change { ticket, changes, tags })
        });
        changes.collect()
    }

    pub(super) fn keep(&mut self, link: usize, changes: Vec<Change>, tags: Vec<TagUpdate>) {
        let link = &mut self.links[link];
        if !link.is_closed {
            debug_assert!(link.behind() == 0, "nothing is gathered between commands and keep");
            link.changes.extend(changes.into_iter().map(|c| (c.registration, c.op)));
            link.tags.extend(tags.into_iter().map(|update| (update.tag, update.op)));
        }
    }
}
