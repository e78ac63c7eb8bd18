//! What travels on a link, and the users it is about.

use waybill_routing::{Login, Namespace, Uid};
use waybill_wire::Digest;
use waybill_wire::digest::Registered;

/// A set of the scenario's logins, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Users(pub(crate) u8);

impl Users {
    pub(crate) fn of(index: usize) -> Self {
        Self(1 << index)
    }

    pub(crate) fn has(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The lowest, and the rest.
    pub(crate) fn split(self) -> (Self, Self) {
        let first = Self(self.0 & self.0.wrapping_neg());
        (first, self.without(first))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |index| self.has(*index))
    }

    pub(crate) fn digest(self, logins: &[Login]) -> u64 {
        self.iter().map(|index| registered(logins[index])).collect::<Digest>().value()
    }
}

pub(crate) fn login(uid: u64, device_class: u8, number: u64) -> Login {
    Login { namespace: Namespace(1), uid: Uid(uid), device_class, number }
}

pub(crate) fn registered(login: Login) -> Registered {
    let Login { namespace, uid, device_class, number } = login;
    Registered { namespace: namespace.0, uid: uid.0, device_class, login: number }
}

/// From a gateway to a broker. `all` is for the oracle only: everything the gateway has declared
/// once this frame is applied. A DELTA, and a snapshot's last frame, stand for themselves and the
/// BARRIER after them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Up {
    Hello { incarnation: u64, session: u64 },
    Snapshot { first: bool, last: bool, version: u64, records: Users, all: Users },
    Delta { version: u64, adds: Users, removes: Users, all: Users },
    Resume { session: u64, version: u64, all: Users },
    Suspend,
}

/// From a broker to a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Down {
    Welcome {
        session: u64,
    },
    /// WELCOME with the flag, and RESUMED right after it.
    Resumed {
        session: u64,
        version: u64,
        digest: u64,
    },
    Displaced {
        login: Login,
    },
}

/// One connection. Each end learns of the other's end in its own time; what is in `up` then may
/// arrive or be lost, at every point.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Link {
    pub(crate) serial: u64,
    pub(crate) up: Vec<Up>,
    pub(crate) down: Vec<Down>,
    pub(crate) gateway_open: bool,
    pub(crate) broker_open: bool,
}

impl Link {
    pub(crate) fn new(serial: u64, hello: Up) -> Self {
        Self { serial, up: vec![hello], down: Vec::new(), gateway_open: true, broker_open: true }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.gateway_open && self.broker_open && self.up.is_empty() && self.down.is_empty()
    }

    /// What is sent to an end that is gone goes nowhere.
    pub(crate) fn send_up(&mut self, frame: Up) {
        if self.broker_open {
            self.up.push(frame);
        }
    }

    pub(crate) fn send_down(&mut self, frame: Down) {
        if self.gateway_open && self.broker_open {
            self.down.push(frame);
        }
    }

    pub(crate) fn end_gateway(&mut self) {
        self.gateway_open = false;
        self.down.clear();
    }

    /// What it had sent may still arrive.
    pub(crate) fn end_broker(&mut self) {
        self.broker_open = false;
        self.up.clear();
    }
}

/// The links of one gateway to one broker, oldest first; a gateway uses the last.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Pair {
    pub(crate) links: Vec<Link>,
    /// Of the next link.
    pub(crate) serial: u64,
}

impl Pair {
    pub(crate) fn connect(&mut self, hello: Up) {
        self.links.push(Link::new(self.serial, hello));
        self.serial += 1;
    }

    pub(crate) fn of(&mut self, serial: u64) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.serial == serial)
    }

    /// The gateway's present link.
    pub(crate) fn present(&self) -> Option<&Link> {
        self.links.last().filter(|link| link.gateway_open)
    }

    pub(crate) fn present_mut(&mut self) -> Option<&mut Link> {
        self.links.last_mut().filter(|link| link.gateway_open)
    }

    /// Forgets what neither end has.
    pub(crate) fn tidy(&mut self) {
        self.links.retain(|link| link.gateway_open || link.broker_open);
    }
}
