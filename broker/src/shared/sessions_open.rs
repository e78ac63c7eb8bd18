//! Sessions of gateways whose control link is open, and the data links that have joined them.
//!
//! They lie with the places of gateways, under the same lock: a data link is a place that one shard
//! prefers.

use super::{Place, Shared, UNPOISONED};
use crate::auth::Grant;
use crate::mail::Writer;

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) incarnation: u64,
    /// Its control link.
    pub(crate) place: Place,
    pub(crate) grant: Grant,
    /// What is agreed on.
    pub(crate) capabilities: u64,
    /// At most one of each shard.
    pub(crate) data: Vec<DataPlace>,
}

/// A data link.
#[derive(Clone, Debug)]
pub(crate) struct DataPlace {
    /// Its own number, which no session and no other link has.
    pub(crate) number: u64,
    pub(crate) place: Place,
}

impl Session {
    pub(super) fn data_at(&self, shard: u16) -> Option<&DataPlace> {
        self.data.iter().find(|data| data.place.shard == shard)
    }
}

/// Who wishes to join a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joining<'a> {
    pub(crate) session: u64,
    pub(crate) incarnation: u64,
    pub(crate) grant: &'a Grant,
    /// That its session must have agreed on.
    pub(crate) capability: u64,
}

/// What a data link has joined.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) control: Writer,
    /// The one of the same shard that it replaces, and its number.
    pub(crate) older: Option<(Writer, u64)>,
}

/// Why one has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotJoined {
    NoSession,
    TooMany,
}

impl Place {
    pub(crate) fn writer(&self) -> Writer {
        Writer { shard: self.shard, link: self.link }
    }
}

impl Shared {
    /// A data link joins a session. From here on its shard sees it as the gateway's link. `place`
    /// is made for the capabilities of the session.
    pub(crate) fn data_opened(
        &self,
        joining: Joining<'_>,
        number: u64,
        place: impl FnOnce(u64) -> Place,
    ) -> Result<Joined, NotJoined> {
        let most = usize::from(self.config.data_links_max);
        let mut result = Err(NotJoined::NoSession);
        self.change_gateways(|gateways| {
            let Some(session) = gateways.sessions.get_mut(&joining.session) else { return };
            let is_its = session.incarnation == joining.incarnation
                && session.grant.same_holder(joining.grant)
                && session.capabilities & joining.capability != 0;
            if !is_its {
                return;
            }
            let place = place(session.capabilities);
            let (shard, before) = (place.shard, session.data.len());
            let older = session.data_at(shard).map(|older| (older.place.writer(), older.number));
            if older.is_none() && before >= most {
                result = Err(NotJoined::TooMany);
                return;
            }
            session.data.retain(|data| data.place.shard != shard);
            session.data.push(DataPlace { number, place });
            result = Ok(Joined { control: session.place.writer(), older });
        });
        result
    }

    /// A data link ends: the control link of its session, if it was of one that is open.
    pub(crate) fn data_closed(&self, session: u64, number: u64) -> Option<Writer> {
        let mut control = None;
        self.change_gateways(|gateways| {
            let Some(session) = gateways.sessions.get_mut(&session) else { return };
            let before = session.data.len();
            session.data.retain(|data| data.number != number);
            control = (session.data.len() < before).then(|| session.place.writer());
        });
        control
    }

    /// The data links of a session whose control link is open.
    pub(crate) fn data_links(&self, session: u64) -> Vec<Writer> {
        let gateways = self.gateways.read().expect(UNPOISONED);
        let session = gateways.sessions.get(&session);
        session.iter().flat_map(|it| &it.data).map(|data| data.place.writer()).collect()
    }

    /// The control link of a session has ended: the data links that end with it.
    pub(crate) fn session_closed(&self, session: u64) -> Vec<Writer> {
        let mut data = Vec::new();
        self.change_gateways(|gateways| {
            data = gateways.sessions.remove(&session).map_or(Vec::new(), |session| session.data);
        });
        data.iter().map(|data| data.place.writer()).collect()
    }
}

#[cfg(test)]
mod tests {
    use waybill_routing::Incarnation;
    use waybill_wire::code::Role;

    use super::super::{Found, Places};
    use super::*;
    use crate::config::BrokerConfig;
    use crate::io::LinkId;
    use crate::outbox::Room;

    fn place(shard: u16, link: u64) -> Place {
        let (link, room) = (LinkId(link), Room::new(1));
        Place { shard, link, peer: None, room, tags: false, fragments: false }
    }

    #[test]
    fn lnk_5_each_shard_sees_its_own_data_link_and_otherwise_the_control_link() {
        let config = BrokerConfig { data_links_max: 2, ..BrokerConfig::default() };
        let shared = Shared::new(config, 1, 1);
        let grant = shared.credentials.judge(b"", Role::GATEWAY).unwrap();
        let slot = shared.routes.open(Incarnation(1)).unwrap();
        let (id, incarnation, data) = (5, 1, Vec::new());
        let control = Session { id, incarnation, place: place(0, 7), grant, capabilities: 4, data };
        let joining = |session, incarnation, capability| Joining {
            session,
            incarnation,
            grant: &control.grant,
            capability,
        };
        let mut seen = [0, 1, 2].map(Places::seen_from);
        let mut sees = |shard: usize| match seen[shard].of(&shared, slot, 0) {
            Found::At(place) => Some(place.link.0),
            _ => None,
        };
        let open = |joining, shard, link| {
            let opened = shared.data_opened(joining, link, |_| place(shard, link));
            opened.map(|joined| joined.older.map(|(_, number)| number))
        };
        assert_eq!(open(joining(5, 1, 4), 1, 8), Err(NotJoined::NoSession), "it is not open");
        shared.gateway_opened(slot, control.clone());
        for wrong in [joining(6, 1, 4), joining(5, 2, 4), joining(5, 1, 8)] {
            assert_eq!(open(wrong, 1, 8), Err(NotJoined::NoSession));
        }
        assert_eq!([0, 1, 2].map(&mut sees), [Some(7); 3]);
        assert_eq!(open(joining(5, 1, 4), 1, 8), Ok(None));
        assert_eq!([0, 1, 2].map(&mut sees), [Some(7), Some(8), Some(7)]);
        assert_eq!(open(joining(5, 1, 4), 0, 9), Ok(None));
        assert_eq!(open(joining(5, 1, 4), 2, 10), Err(NotJoined::TooMany));
        assert_eq!(open(joining(5, 1, 4), 1, 11), Ok(Some(8)), "it takes the place of the older");
        assert_eq!([0, 1, 2].map(&mut sees), [Some(9), Some(11), Some(7)]);
        assert_eq!(shared.data_closed(5, 8), None, "that had been replaced");
        assert_eq!(shared.data_closed(5, 9).map(|control| control.link.0), Some(7));
        assert_eq!([0, 1, 2].map(&mut sees), [Some(7), Some(11), Some(7)]);
        assert_eq!(shared.session_closed(5).len(), 1);
        assert_eq!(shared.data_closed(5, 11), None);
    }
}
