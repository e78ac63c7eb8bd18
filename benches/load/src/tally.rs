//! Whether every message reached exactly whom it was for.
//!
//! A message number stands for its audience ([`Work::job`]), so each delivery is judged on its own:
//! right user, right gateway, for the first time, not behind a later one. What is kept of a message
//! are 16 bytes until it is complete; of one for a group whose users come one by one, a bit each.
//! No I/O and no clock: the time is told by [`Tally::at`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Display;
use std::rc::Rc;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::work::{Group, Job, PAYLOAD_BYTES_MIN, Work, filler, gateway_of};

pub mod fault;
#[cfg(test)]
mod tests;

/// One kind of fault: how often, and the first of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its name, one of [`fault`].
    pub name: String,
    /// How often; of `lost`, deliveries.
    pub count: u64,
    /// The first.
    pub example: String,
}

/// Messages that may be open before the oldest open one is kept apart. It takes a lost one.
const OPEN_MAX: usize = 1 << 22;

/// A filler is compared whole in one of so many messages.
const FILLER_EVERY: u64 = 64;

/// Longest latency told apart, in nanoseconds: a minute.
const LATENCY_MAX: u64 = 60_000_000_000;

/// A message that is not complete.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// A bit for each gateway that has all of it.
    done: u64,
    /// Deliveries to come.
    left: u32,
    /// Index of its users one by one in `pieces`, or [`NO_PIECES`].
    pieces: u32,
}

const NO_PIECES: u32 = u32::MAX;

/// The judge of one run.
#[derive(Debug)]
pub struct Tally {
    work: Rc<Work>,
    now: u64,
    /// Number of the first of `open`.
    base: u64,
    open: VecDeque<Open>,
    /// Incomplete ones before `base`.
    overdue: HashMap<u64, Open>,
    incomplete: u64,
    /// A bit for each user of a group, and free places among them.
    pieces: Vec<Vec<u64>>,
    pieces_free: Vec<u32>,
    /// Number of the latest delivery of each gateway, plus 1.
    latest: Vec<u64>,
    filler: Vec<u8>,
    deliveries: u64,
    latency: Option<Latency>,
    /// A gateway that is not judged by speed, nor by what is lost.
    excused: Option<usize>,
    /// Messages for it that are not complete.
    excused_open: u64,
    excused_lost: u64,
    faults: BTreeMap<&'static str, (u64, String)>,
}

#[derive(Debug)]
struct Latency {
    first: u64,
    end: u64,
    histogram: Histogram<u64>,
}

impl Tally {
    /// Nothing has been published yet.
    #[must_use]
    pub fn new(work: Rc<Work>) -> Self {
        Self {
            now: 0,
            base: 0,
            open: VecDeque::new(),
            overdue: HashMap::new(),
            incomplete: 0,
            pieces: Vec::new(),
            pieces_free: Vec::new(),
            latest: vec![0; work.plan().gateways],
            filler: filler(work.plan().payload_bytes),
            deliveries: 0,
            latency: None,
            excused: None,
            excused_open: 0,
            excused_lost: 0,
            faults: BTreeMap::new(),
            work,
        }
    }

    /// What comes now comes at `now` nanoseconds since the run's origin.
    pub fn at(&mut self, now: u64) {
        self.now = now;
    }

    /// The next message is published; its number.
    pub fn published(&mut self, job: Job) -> u64 {
        let number = self.next();
        if self.open.len() >= OPEN_MAX {
            self.set_apart();
        }
        let left = self.work.deliveries(job);
        self.open.push_back(Open { done: 0, left, pieces: NO_PIECES });
        self.incomplete += 1;
        self.excused_open += u64::from(self.is_excused_job(job));
        number
    }

    fn set_apart(&mut self) {
        if let Some(open) = self.open.pop_front() {
            self.overdue.insert(self.base, open);
            self.base += 1;
            self.forget_complete();
        }
    }

    /// How many messages have been published; the number of the next one.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.base + self.open.len() as u64
    }

    /// How many of them are not complete.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.incomplete
    }

    /// How many of them are not complete though nothing excuses it.
    #[must_use]
    pub fn awaited(&self) -> u64 {
        self.incomplete - self.excused_open
    }

    /// How many are complete.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.next() - self.incomplete
    }

    /// Right deliveries so far: one for each user, or for each gateway of a message to everyone.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// A frame for users came in at a gateway.
    #[inline]
    pub fn delivered(
        &mut self,
        gateway: usize,
        payload: &[u8],
        uids: impl IntoIterator<Item = u64>,
    ) {
        let Some((number, due)) = self.opened(gateway, payload) else { return };
        let before = self.deliveries;
        let mut uids = uids.into_iter();
        match self.work.job(number) {
            Job::User(expected) => {
                let first = uids.next();
                if first == Some(expected) {
                    self.single(gateway, number, expected);
                } else {
                    self.no_target(gateway, number, first);
                }
                for uid in uids {
                    self.surplus(gateway, number, expected, uid);
                }
            }
            Job::Group(index) => {
                let work = Rc::clone(&self.work);
                self.group(gateway, number, &work.groups()[index], uids);
            }
            Job::Everyone => self.no_target(gateway, number, uids.next()),
        }
        self.arrived(gateway, number, due, before);
    }

    /// A frame for everyone came in at a gateway.
    #[inline]
    pub fn broadcast(&mut self, gateway: usize, payload: &[u8]) {
        let Some((number, due)) = self.opened(gateway, payload) else { return };
        let before = self.deliveries;
        if self.work.job(number) == Job::Everyone {
            self.gateway_has(gateway, number, 1);
        } else {
            self.no_target(gateway, number, None);
        }
        self.arrived(gateway, number, due, before);
    }

    /// Something is wrong that only the driver can see. Only the first `example` of a name is kept.
    #[cold]
    pub fn fault(&mut self, name: &'static str, example: impl Display) {
        self.faults_of(name, 1, example);
    }

    #[cold]
    fn faults_of(&mut self, name: &'static str, count: u64, example: impl Display) {
        let entry = self.faults.entry(name).or_insert_with(|| (0, example.to_string()));
        entry.0 += count;
    }

    /// What comes to this gateway is late on purpose: its latency is not recorded, and what it
    /// alone never got is no fault but counted by [`Tally::excused_lost`]. To be said before the
    /// first message.
    pub fn excuse(&mut self, gateway: usize) {
        self.excused = Some(gateway);
    }

    /// Messages for one user of the excused gateway that were lost, once the run is over.
    #[must_use]
    pub fn excused_lost(&self) -> u64 {
        self.excused_lost
    }

    /// Latency is recorded of messages from `first` on.
    pub fn measure_from(&mut self, first: u64) {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX, 3);
        let histogram = histogram.expect("bounds and digits that are constants");
        self.latency = Some(Latency { first, end: u64::MAX, histogram });
    }

    /// Latency is recorded of messages before `end`.
    pub fn measure_until(&mut self, end: u64) {
        if let Some(latency) = &mut self.latency {
            latency.end = end;
        }
    }

    /// Nanoseconds from due time to delivery, a value for each frame; `None` if it is not measured.
    #[must_use]
    pub fn latency(&self) -> Option<&Histogram<u64>> {
        self.latency.as_ref().map(|latency| &latency.histogram)
    }

    /// The run is over: what is not complete is lost. All faults, by name.
    #[must_use]
    pub fn end(&mut self) -> Vec<Fault> {
        let open = self.open.iter().enumerate().map(|(at, open)| (self.base + at as u64, *open));
        let mut incomplete: Vec<(u64, Open)> =
            self.overdue.iter().map(|(number, open)| (*number, *open)).chain(open).collect();
        incomplete.retain(|(_, open)| open.left > 0);
        incomplete.sort_unstable_by_key(|(number, _)| *number);
        for (number, open) in incomplete {
            if self.is_excused(number) {
                self.excused_lost += 1;
                continue;
            }
            let missing = self.missing(number, open);
            self.faults_of(fault::LOST, u64::from(open.left), missing);
        }
        let entry = |(name, (count, example)): (&&str, &(u64, String))| Fault {
            name: (*name).into(),
            count: *count,
            example: example.clone(),
        };
        self.faults.iter().map(entry).collect()
    }
}

impl Tally {
    /// Whether a message was for one user of the excused gateway.
    fn is_excused(&self, number: u64) -> bool {
        self.excused.is_some() && self.is_excused_job(self.work.job(number))
    }

    #[inline]
    fn is_excused_job(&self, job: Job) -> bool {
        match job {
            Job::User(uid) => {
                self.excused.is_some_and(|slow| slow == gateway_of(uid, self.latest.len()))
            }
            _ => false,
        }
    }

    /// Number and due time of a payload that is one of ours.
    #[inline]
    fn opened(&mut self, gateway: usize, payload: &[u8]) -> Option<(u64, u64)> {
        if payload.len() != self.filler.len() || payload.len() < PAYLOAD_BYTES_MIN {
            let bytes = payload.len();
            self.fault(
                fault::DAMAGED,
                format_args!("a payload of {bytes} bytes at gateway {gateway}"),
            );
            return None;
        }
        let (words, _) = payload[..PAYLOAD_BYTES_MIN].as_chunks::<8>();
        let (number, due) = (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
        if number >= self.next() {
            self.fault(fault::UNKNOWN, format_args!("message {number} at gateway {gateway}"));
            return None;
        }
        if due > self.now {
            self.fault(
                fault::DAMAGED,
                format_args!("the due time of message {number} at gateway {gateway}"),
            );
        }
        let same = || payload[PAYLOAD_BYTES_MIN..] == self.filler[PAYLOAD_BYTES_MIN..];
        if number.is_multiple_of(FILLER_EVERY) && !same() {
            self.fault(
                fault::DAMAGED,
                format_args!("the filler of message {number} at gateway {gateway}"),
            );
        }
        Some((number, due))
    }

    /// What is known of a message; `None` once it is complete.
    #[inline]
    fn open(&mut self, number: u64) -> Option<&mut Open> {
        match number.checked_sub(self.base) {
            Some(at) => {
                let at = usize::try_from(at).expect("within `open`");
                Some(&mut self.open[at]).filter(|open| open.left > 0)
            }
            None => self.overdue.get_mut(&number),
        }
    }

    #[inline]
    fn single(&mut self, gateway: usize, number: u64, uid: u64) {
        if gateway == gateway_of(uid, self.latest.len()) {
            self.gateway_has(gateway, number, 1);
        } else {
            self.fault(
                fault::WRONG_GATEWAY,
                format_args!("message {number} for user {uid} at gateway {gateway}"),
            );
        }
    }

    /// The gateway has all of its share of a message, `deliveries` in number.
    #[inline]
    fn gateway_has(&mut self, gateway: usize, number: u64, deliveries: u32) {
        let bit = 1 << gateway;
        match self.open(number) {
            Some(open) if open.done & bit == 0 => {
                open.done |= bit;
                open.left -= deliveries;
                let complete = open.left == 0;
                self.deliveries += u64::from(deliveries);
                if complete {
                    self.complete(number);
                }
            }
            _ => self.faults_of(
                fault::DUPLICATE,
                deliveries.into(),
                format_args!("message {number} again at gateway {gateway}"),
            ),
        }
    }

    /// A message is complete: `left` is 0, or it is taken out of `overdue`.
    #[inline]
    fn complete(&mut self, number: u64) {
        self.incomplete -= 1;
        self.excused_open -= u64::from(self.is_excused(number));
        if number < self.base {
            self.overdue.remove(&number);
        } else if number == self.base {
            self.forget_complete();
        }
    }

    fn forget_complete(&mut self) {
        while self.open.front().is_some_and(|open| open.left == 0) {
            self.open.pop_front();
            self.base += 1;
        }
    }

    fn group(
        &mut self,
        gateway: usize,
        number: u64,
        group: &Group,
        mut uids: impl Iterator<Item = u64>,
    ) {
        // All of a gateway's users in their order is what a broker that narrows sends.
        let expected = &group.by_gateway[gateway];
        let mut same = 0;
        let mut other = None;
        for uid in uids.by_ref() {
            if expected.get(same) != Some(&uid) {
                other = Some(uid);
                break;
            }
            same += 1;
        }
        if same == 0 && other.is_none() {
            return self.no_target(gateway, number, None);
        }
        let has_pieces = self.open(number).is_some_and(|open| open.pieces != NO_PIECES);
        if other.is_none() && same == expected.len() && !has_pieces {
            let count = u32::try_from(same).expect("a group has fewer than 2^32 users");
            return self.gateway_has(gateway, number, count);
        }
        for uid in expected[..same].iter().copied().chain(other).chain(uids) {
            self.piece(gateway, number, group, uid);
        }
    }

    /// One user of a group.
    fn piece(&mut self, gateway: usize, number: u64, group: &Group, uid: u64) {
        let Some(place) = group.place(gateway, uid) else {
            let home = gateway_of(uid, self.latest.len());
            let name = match group.place(home, uid) {
                Some(_) => fault::WRONG_GATEWAY,
                None => fault::WRONG_UID,
            };
            let words = format_args!("message {number} for user {uid} at gateway {gateway}");
            return self.fault(name, words);
        };
        let again = format_args!("message {number} for user {uid} again at gateway {gateway}");
        let Some(open) = self.open(number).copied() else {
            return self.fault(fault::DUPLICATE, again);
        };
        if open.done & 1 << gateway != 0 {
            return self.fault(fault::DUPLICATE, again);
        }
        let pieces = self.pieces_of(number, open, group.uids.len());
        let (word, bit) = (&mut self.pieces[pieces as usize][place / 64], 1 << (place % 64));
        if *word & bit != 0 {
            return self.fault(fault::DUPLICATE, again);
        }
        *word |= bit;
        self.deliveries += 1;
        let open = self.open(number).expect("it was open above");
        open.left -= 1;
        if open.left == 0 {
            self.pieces_free.push(pieces);
            self.complete(number);
        }
    }

    /// Where its users one by one are.
    fn pieces_of(&mut self, number: u64, open: Open, users: usize) -> u32 {
        if open.pieces != NO_PIECES {
            return open.pieces;
        }
        let words = users.div_ceil(64);
        let index = self.pieces_free.pop().unwrap_or_else(|| {
            self.pieces.push(Vec::new());
            u32::try_from(self.pieces.len() - 1).expect("fewer than 2^32 messages")
        });
        let pieces = &mut self.pieces[index as usize];
        pieces.clear();
        pieces.resize(words, 0);
        // Gateways that have all of it had it in one frame: their users count as there.
        self.open(number).expect("it is open").pieces = index;
        index
    }

    /// The order of a gateway, and the latency.
    #[inline]
    fn arrived(&mut self, gateway: usize, number: u64, due: u64, deliveries_before: u64) {
        if self.deliveries == deliveries_before {
            return;
        }
        let latest = &mut self.latest[gateway];
        if number < *latest && number + 1 != *latest {
            let later = *latest - 1;
            self.fault(
                fault::DISORDER,
                format_args!("message {number} behind message {later} at gateway {gateway}"),
            );
        } else {
            *latest = number + 1;
        }
        if let Some(latency) = &mut self.latency
            && (latency.first..latency.end).contains(&number)
            && self.excused != Some(gateway)
        {
            latency.histogram.saturating_record(self.now.saturating_sub(due).max(1));
        }
    }

    /// A frame without a user that it could be for.
    #[cold]
    fn no_target(&mut self, gateway: usize, number: u64, uid: Option<u64>) {
        match uid {
            Some(uid) => self.fault(
                fault::WRONG_UID,
                format_args!("message {number} for user {uid} at gateway {gateway}"),
            ),
            None => self.fault(
                fault::WRONG_UID,
                format_args!("message {number} without its users at gateway {gateway}"),
            ),
        }
    }

    /// One more user in a frame that is for one.
    #[cold]
    fn surplus(&mut self, gateway: usize, number: u64, expected: u64, uid: u64) {
        if uid == expected {
            self.single(gateway, number, uid);
        } else {
            self.no_target(gateway, number, Some(uid));
        }
    }

    /// Which delivery of a lost message is the first that is missing.
    fn missing(&self, number: u64, open: Open) -> String {
        let gateways = self.latest.len();
        let is_done = |gateway: usize| open.done & 1 << gateway != 0;
        match self.work.job(number) {
            Job::User(uid) => {
                let gateway = gateway_of(uid, gateways);
                format!("message {number} for user {uid} of gateway {gateway}")
            }
            Job::Everyone => {
                let gateway = (0..gateways).find(|gateway| !is_done(*gateway)).unwrap_or(0);
                format!("message {number} for everyone at gateway {gateway}")
            }
            Job::Group(index) => {
                let group = &self.work.groups()[index];
                let pieces = (open.pieces != NO_PIECES).then(|| &self.pieces[open.pieces as usize]);
                let has =
                    |place: usize| pieces.is_some_and(|it| it[place / 64] >> (place % 64) & 1 != 0);
                let mut missing = (0..gateways)
                    .filter(|gateway| !is_done(*gateway))
                    .flat_map(|gateway| group.places(gateway).map(move |place| (gateway, place)))
                    .filter(|(_, place)| !has(*place));
                let (gateway, place) = missing.next().unwrap_or((0, 0));
                let uid = group.user_at(place);
                format!("message {number} for user {uid} of gateway {gateway}")
            }
        }
    }
}
