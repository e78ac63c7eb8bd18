//! Who is connected here, and which of them a message is for. Pure: logins, logouts and messages go
//! in, connections and registrations come out.
//!
//! The directory of `waybill-routing` maps (namespace, UID) to indices of `slots`; a slot knows its
//! own namespace and UID, so every target is checked against the connection it would reach
//! (TGT-7, promise 1). A connection is served from the moment it is confirmed, and at most once per
//! message however often its UID is listed.
//!
//! `walk.rs` hands a message out, at once or in parts.
//!
//! Never here: encoding, queues, tickets, the broker. `H` is whatever the owner keeps per
//! connection; the hub only hands it back.

mod walk;

use slab::Slab;
use waybill_client::gateway::{Registration, TagUpdate};
use waybill_routing::{Directory, Namespace, Uid};
use waybill_wire::code::ErrorCode;
use waybill_wire::selector::Selector;
use waybill_wire::targets::UidRun;

pub use self::walk::Walk;
use crate::auth::Identity;
use crate::recent::Recent;
pub use crate::tags::{LastChanges, TagBounds};
use crate::tags::{NoRoom, Tags};

/// Number of a connection, as its client sees it and as SENDER carries it.
///
/// Unlike an index it is never given twice: a late answer to a connection that has gone finds
/// nobody. Numbers of two gateways differ too, since each mixes in a random salt of its own;
/// without it EXCEPT_SELF could name the same user's connection at another gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl From<&Identity> for Registration {
    fn from(identity: &Identity) -> Self {
        let Identity { namespace, uid, device_class, login, .. } = *identity;
        Self { namespace, uid, device_class, login }
    }
}

/// Who a message is for, as its header says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audience<'a> {
    /// The tenant.
    pub namespace: u32,
    /// Everyone in the namespace, or everyone that matches `selector`; then `listed` is empty.
    pub everyone: bool,
    /// UIDs it is for; with a selector, those of their connections that match.
    pub listed: UidRun<'a>,
    /// What a connection's tags must be.
    pub selector: Option<Selector<'a>>,
    /// UIDs it is not for, whatever else says so.
    pub except: UidRun<'a>,
    /// UID and connection that are not served (EXCEPT_SELF).
    pub except_self: Option<(u64, ConnectionId)>,
}

/// Producer instance and sequence.
pub type MessageId = (u64, u64);

/// What became of one message here, in connections; `missed` is in UIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// Connections handed to the caller.
    pub served: u64,
    /// Left out by EXCEPT or EXCEPT_SELF, or of a listed UID and left out by the selector.
    pub filtered: u64,
    /// Served by this message id before.
    pub repeated: u64,
    /// Not confirmed yet: their clients have not been told *ready*.
    pub unready: u64,
    /// Listed UIDs nobody here has (TGT-8); one listed twice may count twice.
    pub missed: u64,
}

/// Why a login was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefused {
    /// The gateway has as many connections as it may.
    Connections,
    /// The user has.
    ConnectionsOfUser,
    /// The connection would have more tags than it may.
    TagsOfConnection,
    /// The gateway's connections would.
    Tags,
    /// A broker has just told that this login lost against the one with that number.
    Displaced(u64),
}

/// A target, or a connection of it, that a message met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met<'a, H> {
    /// Serve this connection.
    Connection(&'a H),
    /// Left out by EXCEPT or EXCEPT_SELF, or by the selector beside a list.
    Filtered,
    /// Served by this message id before.
    Repeated,
    /// Not confirmed yet.
    Unready,
    /// Nobody here has it.
    Missed,
}

/// What became of a TAG for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagged {
    /// The changes were made.
    Made,
    /// One of the user's registrations had no room, and stayed as it was: `connection_tags` or
    /// `gateway_tags`.
    Dropped(ErrorCode),
    /// Nobody here has the user.
    Missed,
}

/// The connections that have logged in.
#[derive(Debug)]
pub struct Hub<H> {
    directory: Directory,
    slots: Slab<Slot<H>>,
    tags: Tags,
    bounds: Bounds,
    salt: u64,
    /// Counts logins; part of each connection's number.
    serial: u64,
    /// Counts confirmations; 0 is before the first.
    rank: u64,
    /// Counts messages that were handed out at once; twice this and one more mark the slots it has
    /// touched.
    message: u64,
    recent: Recent,
}

/// How much a hub may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections; at most 2^24 - 1.
    pub connections: usize,
    /// Connections of one user.
    pub per_user: usize,
    /// Message ids remembered; 0 remembers none.
    pub recent: usize,
    /// Tags.
    pub tags: TagBounds,
}

#[derive(Debug)]
struct Slot<H> {
    serial: u64,
    registration: Registration,
    /// The hub's `rank` when it was confirmed, 0 before.
    rank: u64,
    /// Last message that touched it.
    mark: u64,
    handle: H,
}

impl<H> Hub<H> {
    /// An empty hub. `salt` should be random and different for each life of a gateway.
    ///
    /// # Panics
    ///
    /// If `bounds.connections` does not fit the index of a connection's number.
    #[must_use]
    pub fn new(bounds: Bounds, salt: u64) -> Self {
        assert!(bounds.connections < 1 << INDEX_BITS);
        Self {
            directory: Directory::new(),
            slots: Slab::new(),
            tags: Tags::new(bounds.tags),
            bounds,
            salt,
            serial: 0,
            rank: 0,
            message: 0,
            recent: Recent::new(bounds.recent),
        }
    }

    /// Takes a connection in, not yet confirmed, with the tags of its token. Says whether its
    /// registration is the first of its kind and must be made upstream; so must what
    /// [`take_tag_updates`](Self::take_tag_updates) says.
    ///
    /// # Errors
    ///
    /// [`LoginRefused`] if a bound is reached; `handle` is dropped.
    pub fn login(
        &mut self,
        registration: Registration,
        tags: &[Box<str>],
        handle: H,
    ) -> Result<(ConnectionId, bool), LoginRefused> {
        if self.slots.len() >= self.bounds.connections {
            return Err(LoginRefused::Connections);
        }
        let (namespace, uid) = (Namespace(registration.namespace), Uid(registration.uid));
        if self.directory.members(namespace, uid).len() >= self.bounds.per_user {
            return Err(LoginRefused::ConnectionsOfUser);
        }
        let first = !self.stands(registration);
        let index = self.slots.vacant_key();
        self.tags.login(registration, tags, member(index)).map_err(LoginRefused::from)?;
        // 2^40 logins, a million a second for twelve days; then the oldest numbers come again.
        self.serial = (self.serial + 1) & SERIAL_MASK;
        let slot = Slot { serial: self.serial, registration, rank: 0, mark: 0, handle };
        debug_assert_eq!(self.slots.vacant_key(), index);
        self.slots.insert(slot);
        self.directory.insert(namespace, uid, member(index));
        Ok((self.id(index), first))
    }

    /// Lets a connection go. Gives its handle back, and its registration if no other connection
    /// needs it: then it must be withdrawn upstream.
    pub fn logout(&mut self, id: ConnectionId) -> Option<(H, Option<Registration>)> {
        let index = self.index(id)?;
        let slot = self.slots.remove(index);
        let Registration { namespace, uid, .. } = slot.registration;
        self.directory.remove(Namespace(namespace), Uid(uid), member(index));
        let last = !self.stands(slot.registration);
        self.tags.logout(slot.registration, member(index), !last);
        Some((slot.handle, last.then_some(slot.registration)))
    }

    /// TAG: makes the changes, the last one of each tag, for each registration of this user, and so
    /// for all its connections (TAG-14).
    pub fn tag(&mut self, namespace: u32, uid: u64, last: &LastChanges<'_>) -> Tagged {
        let members = self.directory.members(Namespace(namespace), Uid(uid));
        let mut rest: Vec<(Registration, u32)> =
            members.iter().map(|&it| (self.slots[it as usize].registration, it)).collect();
        rest.sort_unstable();
        let mut tagged = Tagged::Missed;
        for of_it in rest.chunk_by(|one, next| one.0 == next.0) {
            let connections: Vec<u32> = of_it.iter().map(|(_, member)| *member).collect();
            match self.tags.change_all(of_it[0].0, last, &connections) {
                Ok(()) if tagged == Tagged::Missed => tagged = Tagged::Made,
                Ok(()) => {}
                Err(no_room) => tagged = Tagged::Dropped(no_room.cause()),
            }
        }
        tagged
    }

    /// What has to be declared upstream since this was asked last: tags that the first connection
    /// got or that none has any more, in order.
    pub fn take_tag_updates(&mut self) -> Vec<TagUpdate> {
        self.tags.take_updates()
    }

    /// The tags of a connection, in no order; none of one that has gone.
    pub fn tags_of(&self, id: ConnectionId) -> impl Iterator<Item = &str> {
        let members = self.index(id).into_iter().map(member);
        members.flat_map(|member| self.tags.of(member))
    }

    /// Different tags that connections have.
    #[must_use]
    pub fn tags(&self) -> usize {
        self.tags.len()
    }

    /// Serves a connection from now on; its handle, or `None` if it has gone.
    pub fn confirm(&mut self, id: ConnectionId) -> Option<&H> {
        let index = self.index(id)?;
        self.rank += 1;
        let slot = &mut self.slots[index];
        if slot.rank == 0 {
            slot.rank = self.rank;
        }
        Some(&slot.handle)
    }

    /// The handle of a connection, or `None` if it has gone.
    #[must_use]
    pub fn handle(&self, id: ConnectionId) -> Option<&H> {
        self.index(id).map(|index| &self.slots[index].handle)
    }

    /// Connections of a namespace.
    #[must_use]
    pub fn of_namespace(&self, namespace: u32) -> usize {
        self.directory.holders(Namespace(namespace))
    }

    /// Connections of a user.
    #[must_use]
    pub fn of_user(&self, namespace: u32, uid: u64) -> usize {
        self.directory.members(Namespace(namespace), Uid(uid)).len()
    }

    /// Every connection, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &H)> {
        self.slots.iter().map(|(index, slot)| (self.id(index), &slot.handle))
    }

    /// Connections that are logged in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Messages that are remembered, each time they came, and the UIDs they were for.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn remembered(&self) -> (usize, usize) {
        self.recent.load()
    }

    /// Whether nobody is logged in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Users that are logged in.
    #[must_use]
    pub fn users(&self) -> usize {
        self.directory.users()
    }

    /// The connections that have exactly this registration.
    pub fn holders(&self, registration: Registration) -> impl Iterator<Item = ConnectionId> {
        let Registration { namespace, uid, .. } = registration;
        let members = self.directory.members(Namespace(namespace), Uid(uid)).iter();
        let indices = members.map(|member| *member as usize);
        let held = indices.filter(move |index| self.slots[*index].registration == registration);
        held.map(|index| self.id(index))
    }

    /// Gives `serve` each confirmed connection in the audience, once and all in one go, and
    /// remembers the message id.
    pub fn deliver(
        &mut self,
        id: MessageId,
        audience: &Audience<'_>,
        mut serve: impl FnMut(&H),
    ) -> Tally {
        let (tally, rest) = self.begin(id, audience, &mut { usize::MAX }, |_, met| {
            if let Met::Connection(handle) = met {
                serve(handle);
            }
        });
        debug_assert!(rest.is_none(), "no connection is too many");
        tally
    }

    /// Whether a connection has exactly this registration. Its user's connections are few.
    fn stands(&self, registration: Registration) -> bool {
        let Registration { namespace, uid, .. } = registration;
        let members = self.directory.members(Namespace(namespace), Uid(uid));
        members.iter().any(|member| self.slots[*member as usize].registration == registration)
    }

    fn id(&self, index: usize) -> ConnectionId {
        let number = self.slots[index].serial << INDEX_BITS | index as u64;
        ConnectionId(number ^ self.salt)
    }

    fn index(&self, id: ConnectionId) -> Option<usize> {
        let number = id.0 ^ self.salt;
        let index = usize::try_from(number & INDEX_MASK).ok()?;
        let slot = self.slots.get(index)?;
        (slot.serial == number >> INDEX_BITS).then_some(index)
    }
}

impl From<NoRoom> for LoginRefused {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Connection => Self::TagsOfConnection,
            NoRoom::Gateway => Self::Tags,
        }
    }
}

fn member(index: usize) -> u32 {
    u32::try_from(index).expect("connections are bounded by the index bits")
}

/// A connection's number is its index below and the serial of its login above, salted.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const SERIAL_MASK: u64 = u64::MAX >> INDEX_BITS;

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "hub_tags_tests.rs"]
mod tags_tests;

#[cfg(test)]
#[path = "hub_walk_tests.rs"]
mod walk_tests;
