//! Which brokers there are: a list whose entries are addresses, or names that stand for as many
//! addresses as they have.
//!
//! ```text
//!  host:port      --> one link, for good
//!  dns:host:port  --> a link to each address the name has, looked up again and again
//! ```
//!
//! [`Discovery`] decides, and is pure; a [`Finder`](crate::Finder) drives it with a resolver and a
//! clock. An address that many look-ups in a row lack is given up: a name may tell some of its
//! addresses in turn. A look-up that fails, or finds nothing, changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an entry begins with that is a name to be looked up.
pub const DNS_PREFIX: &str = "dns:";

/// Look-ups in a row an address is missing from when it is given up. A name that tells half of its
/// addresses each time gives up a living one once in 2^30 times; a dead one is tried in vain a
/// little longer.
const MISSED_MAX: u8 = 30;

/// What to do about one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Link to this address.
    Open(Arc<str>),
    /// The address is no longer one of them: leave it in good order.
    Close(Arc<str>),
}

/// A name of the list.
#[derive(Debug)]
struct Name {
    name: String,
    /// When it is looked up next; `None` while it is.
    due: Option<Instant>,
    /// Addresses it stands for, and how many look-ups in a row lacked each.
    addresses: BTreeMap<Arc<str>, u8>,
}

/// The pure part: look-ups in, links to open and close out.
///
/// Invariant: what was opened and not closed is the union of the plain entries and of the names'
/// addresses.
#[derive(Debug)]
pub struct Discovery {
    names: Vec<Name>,
    /// For each address to be linked to, how many entries stand for it.
    wanted: BTreeMap<Arc<str>, usize>,
    found: VecDeque<Found>,
    refresh: Duration,
}

impl Discovery {
    /// Plain entries are found at once, names are due at once.
    #[must_use]
    pub fn new(entries: &[String], refresh: Duration, now: Instant) -> Self {
        let (wanted, found) = (BTreeMap::new(), VecDeque::new());
        let mut discovery = Self { names: Vec::new(), wanted, found, refresh };
        for entry in entries {
            match entry.strip_prefix(DNS_PREFIX) {
                Some(name) => discovery.names.push(Name {
                    name: name.to_owned(),
                    due: Some(now),
                    addresses: BTreeMap::new(),
                }),
                None => discovery.want(Arc::from(entry.as_str())),
            }
        }
        discovery
    }

    /// Number and name of a look-up that is due. Its result goes to [`looked_up`](Self::looked_up).
    pub fn lookup(&mut self, now: Instant) -> Option<(usize, String)> {
        let is_due = |name: &Name| name.due.is_some_and(|at| at <= now);
        let number = self.names.iter().position(is_due)?;
        self.names[number].due = None;
        Some((number, self.names[number].name.clone()))
    }

    /// When the next look-up is due; `None` if none is, or one is under way.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.names.iter().filter_map(|name| name.due).min()
    }

    /// The result of a look-up; nothing if it failed.
    pub fn looked_up(&mut self, now: Instant, number: usize, addresses: &[SocketAddr]) {
        let Some(name) = self.names.get_mut(number) else { return };
        name.due = Some(now + self.refresh);
        if addresses.is_empty() {
            return;
        }
        let mut fresh = Vec::new();
        for address in addresses.iter().map(|address| Arc::<str>::from(address.to_string())) {
            if name.addresses.insert(Arc::clone(&address), 0).is_none() {
                fresh.push(address);
            }
        }
        let mut gone = Vec::new();
        let listed = |address: &str| addresses.iter().any(|other| other.to_string() == address);
        name.addresses.retain(|address, missed| {
            *missed = if listed(address) { 0 } else { *missed + 1 };
            if *missed >= MISSED_MAX {
                gone.push(Arc::clone(address));
            }
            *missed < MISSED_MAX
        });
        fresh.into_iter().for_each(|address| self.want(address));
        gone.into_iter().for_each(|address| self.unwant(&address));
    }

    /// The next link to open or close, in order.
    pub fn poll(&mut self) -> Option<Found> {
        self.found.pop_front()
    }

    fn want(&mut self, address: Arc<str>) {
        let count = self.wanted.entry(Arc::clone(&address)).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.found.push_back(Found::Open(address));
        }
    }

    fn unwant(&mut self, address: &Arc<str>) {
        if let Some(count) = self.wanted.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(address);
                self.found.push_back(Found::Close(Arc::clone(address)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(10);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7711))
    }

    /// `+` for a link to open, `-` for one to close.
    fn orders(discovery: &mut Discovery) -> Vec<String> {
        std::iter::from_fn(|| discovery.poll())
            .map(|found| match found {
                Found::Open(address) => format!("+{address}"),
                Found::Close(address) => format!("-{address}"),
            })
            .collect()
    }

    fn entries(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn plain_addresses_are_found_once_and_for_good() {
        let now = Instant::now();
        let mut discovery = Discovery::new(&entries(&["b:1", "c:2", "b:1"]), REFRESH, now);
        assert_eq!(orders(&mut discovery), ["+b:1", "+c:2"]);
        assert!(discovery.lookup(now).is_none() && discovery.deadline().is_none());
    }

    #[test]
    fn a_name_is_as_many_links_as_it_has_addresses() {
        let mut now = Instant::now();
        let mut discovery = Discovery::new(&entries(&["dns:b:7711"]), REFRESH, now);
        let mut look = |discovery: &mut Discovery, addresses: &[SocketAddr]| {
            let (number, name) = discovery.lookup(now).expect("is due");
            assert_eq!(name, "b:7711");
            assert!(discovery.lookup(now).is_none(), "one at a time");
            discovery.looked_up(now, number, addresses);
            now += REFRESH;
            assert_eq!(discovery.deadline(), Some(now));
            orders(discovery)
        };
        let both = ["+10.0.0.1:7711", "+10.0.0.2:7711"];
        assert_eq!(look(&mut discovery, &[address(1), address(2)]), both);
        assert!(look(&mut discovery, &[address(2)]).is_empty(), "missed once");
        assert!(look(&mut discovery, &[address(2), address(1)]).is_empty(), "back again");
        assert!(look(&mut discovery, &[address(2)]).is_empty());
        assert!(look(&mut discovery, &[]).is_empty(), "no answer is no news");
        for _ in 2..MISSED_MAX - 1 {
            assert!(look(&mut discovery, &[address(2)]).is_empty());
        }
        assert_eq!(look(&mut discovery, &[address(3)]), ["+10.0.0.3:7711"]);
        assert_eq!(look(&mut discovery, &[address(3)]), ["-10.0.0.1:7711"]);
    }

    #[test]
    fn a_name_that_tells_its_addresses_in_turn_keeps_them() {
        let now = Instant::now();
        let mut discovery = Discovery::new(&entries(&["dns:b:7711"]), Duration::ZERO, now);
        let mut opened = 0;
        for first in (0..9).cycle().take(100) {
            let (number, _) = discovery.lookup(now).expect("is due");
            let some = [first, (first + 1) % 9].map(address);
            discovery.looked_up(now, number, &some);
            opened += orders(&mut discovery).iter().filter(|order| order.starts_with('+')).count();
        }
        assert_eq!((opened, discovery.wanted.len()), (9, 9), "opened once, and none is left");
    }

    #[test]
    fn an_address_stays_as_long_as_any_entry_stands_for_it() {
        let now = Instant::now();
        let list = entries(&["10.0.0.1:7711", "dns:b:7711"]);
        let mut discovery = Discovery::new(&list, Duration::ZERO, now);
        assert_eq!(orders(&mut discovery), ["+10.0.0.1:7711"]);
        for last in std::iter::once(1).chain(std::iter::repeat_n(2, MISSED_MAX.into())) {
            let (number, _) = discovery.lookup(now).expect("is due");
            discovery.looked_up(now, number, &[address(last)]);
        }
        assert_eq!(orders(&mut discovery), ["+10.0.0.2:7711"]);
    }
}
