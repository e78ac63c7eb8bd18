//! What must be true of a storm, kept naively: everything that was said, by whom and when.
//!
//! A moment is a place in the order of what the test did and saw. What a gateway declared counts
//! as there from the moment it was sent at the earliest, and as gone once the broker has confirmed
//! that: in between it may be either, and nothing is claimed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use waybill_broker::Ledger;
use waybill_wire::code::{ErrorCode, Mode};
use waybill_wire::frame::UplinkAck;
use waybill_wire::message::Message;

use crate::support::Line;
use crate::talk::Receipt;

pub(super) type Moment = u64;
/// (incarnation of the gateway that asks, its number for the uplink).
pub(super) type Question = (u64, u64);
type User = (u32, u64);

/// A PUBLISH.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    pub(super) line: Line,
    pub(super) instance: u64,
    pub(super) sequence: u64,
    pub(super) sent: Moment,
    pub(super) sent_ms: u64,
    pub(super) namespace: u32,
    pub(super) permitted: bool,
    pub(super) targets: Vec<u64>,
    pub(super) except: Vec<u64>,
    pub(super) everyone: bool,
    pub(super) mode: Mode,
    pub(super) receipted: bool,
    pub(super) resend: bool,
    pub(super) ttl_ms: u32,
    pub(super) payload: Vec<u8>,
    pub(super) receipt: Option<(Moment, Receipt)>,
    pub(super) frames: u32,
    pub(super) reached: BTreeSet<u64>,
}

impl Published {
    fn distinct(&self) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        self.targets.iter().copied().filter(|uid| seen.insert(*uid)).collect()
    }

    fn is_list(&self) -> bool {
        !self.everyone && self.mode != Mode::BROADCAST
    }

    /// Whether the broker may choose to look nobody up: nobody asks what becomes of its users.
    fn is_open(&self) -> bool {
        self.mode == Mode::AUTO && !self.receipted
    }
}

/// One stay of a user at one link of a gateway.
#[derive(Debug)]
struct Stay {
    user: User,
    // Version that declares it, and the one that takes it back.
    version: u64,
    left: Option<u64>,
    // From here on, and up to there, the broker must find it.
    sure: Option<Moment>,
    until: Option<Moment>,
    // What `sure` will be if the older link serves until this one takes over.
    inherits: Option<Moment>,
    // From here on the broker must not find it.
    gone: Option<Moment>,
}

/// One link of a gateway.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) incarnation: u64,
    pub(super) namespaces: &'static [u32],
    pub(super) greeted: Moment,
    welcomed: Option<Moment>,
    complete: Option<Moment>,
    live: Option<Moment>,
    gone: Option<Moment>,
    // Since a newer link's snapshot was complete, something happened that may leave a gap.
    disturbed: bool,
    // Its routes may be gone at any time.
    unsure: bool,
    ended: bool,
    stays: Vec<Stay>,
    confirmations: VecDeque<(u64, u64)>,
    // By producer link: the last message.
    order: BTreeMap<usize, usize>,
    questions: BTreeMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    user: User,
    permitted: bool,
    payload: Vec<u8>,
    answer: Option<ErrorCode>,
}

/// One link of a consumer.
#[derive(Debug)]
struct Reader {
    namespaces: &'static [u32],
    // Nothing asked after this moment may come.
    drained: Option<Moment>,
    // By the link that asked and user: the last number.
    order: BTreeMap<(usize, User), u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    now: Moment,
    pub(super) published: Vec<Published>,
    // By producer link: what receipts are due for.
    due: BTreeMap<usize, VecDeque<usize>>,
    pub(super) stations: BTreeMap<usize, Station>,
    readers: BTreeMap<usize, Reader>,
    // By question: the link that asked, when, and the consumer that got it.
    asked: BTreeMap<Question, (usize, Moment)>,
    handed: BTreeMap<Question, usize>,
    // What consumers said, asked or not.
    answered: BTreeSet<(Question, usize, ErrorCode)>,
    delivered: BTreeSet<(u64, usize)>,
    consumers_gone: bool,
    pub(super) frames: u64,
}

impl Stay {
    fn new(user: User, version: u64) -> Self {
        let (left, sure, until, inherits, gone) = (None, None, None, None, None);
        Self { user, version, left, sure, until, inherits, gone }
    }
}

impl Station {
    fn unsure(&mut self, now: Moment) {
        self.unsure = true;
        for stay in &mut self.stays {
            stay.until.get_or_insert(now);
        }
    }

    /// Whether the broker may have found the user here when a message sent at `since` came.
    fn may_have(&self, user: User, since: Moment) -> bool {
        let stays = self.stays.iter().filter(|stay| stay.user == user);
        stays.filter(|stay| stay.gone.is_none_or(|gone| gone > since)).count() > 0
    }

    /// Promise 1: what came is for this gateway, and is what was sent.
    fn may_get(&self, published: &Published, message: &Message<'_>) {
        let Published { sent, namespace, targets, except, mode, .. } = published;
        let mine: Vec<u64> = message.targets.iter().collect();
        let about = (mine.as_slice(), published.sequence, targets, except);
        let unchanged = &mine == targets && message.except.iter().eq(except.iter().copied());
        if published.is_list() && !(published.is_open() && unchanged) {
            assert!(!mine.is_empty() && message.except.is_empty(), "{about:?}");
            assert!(is_sublist(&mine, &published.distinct()), "TGT-3: {about:?}");
            for &uid in &mine {
                assert!(!except.contains(&uid), "EXCEPT always wins: {about:?}");
                let here = self.may_have((*namespace, uid), *sent);
                assert!(here, "promise 1: {uid} was not here any more: {about:?}");
            }
            return;
        }
        assert!(unchanged && message.everyone == published.everyone, "TGT-5: {about:?}");
        if *mode != Mode::BROADCAST && !published.is_open() {
            let anyone = self.stays.iter().filter(|stay| stay.user.0 == *namespace);
            let here = anyone.filter(|stay| stay.gone.is_none_or(|gone| gone > *sent)).count();
            assert!(here > 0, "nobody of the namespace is here: {about:?}");
        }
    }

    /// Whether the broker must find the user here from one moment to the other.
    fn must_have(&self, user: User, from: Moment, to: Moment) -> bool {
        self.stays.iter().any(|stay| {
            let since = stay.sure.is_some_and(|sure| sure <= from);
            stay.user == user && since && stay.until.is_none_or(|until| until > to)
        })
    }
}

/// The number of a message in the storm.
fn number_of(payload: &[u8]) -> usize {
    let bytes = payload.first_chunk().expect("every payload begins with its number");
    usize::try_from(u64::from_le_bytes(*bytes)).unwrap()
}

/// `part` is in `whole`, in its order, and nothing twice.
fn is_sublist(part: &[u64], whole: &[u64]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|uid| rest.any(|it| it == uid))
}

impl Oracle {
    pub(super) fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A PUBLISH is on its way; its number among all of the storm stands in its payload.
    pub(super) fn publish(&mut self, message: Published) {
        if message.receipted || !message.permitted {
            let number = self.published.len();
            self.due.entry(message.line.number()).or_default().push_back(number);
        }
        self.published.push(message);
    }

    pub(super) fn receipt(&mut self, line: Line, receipt: Receipt) {
        let now = self.moment();
        let due = self.due.entry(line.number()).or_default().pop_front();
        let message = &mut self.published[due.expect("a receipt nobody waits for")];
        let asked = (message.sequence, &message.targets, &message.except);
        assert_eq!(receipt.sequence, message.sequence, "receipts come in order (PUB-2)");
        let Receipt { sent, unknown, gateways, .. } = receipt;
        let sets = [&receipt.offline, &receipt.filtered, &receipt.dropped];
        let code = if message.permitted { ErrorCode(0) } else { ErrorCode::NOT_PERMITTED };
        assert_eq!(receipt.code, code, "{asked:?} {receipt:?}");
        if message.everyone || !message.permitted {
            assert_eq!((sent, unknown), (0, 0), "{asked:?} {receipt:?}");
            assert!(sets.iter().all(|set| set.is_empty()), "{asked:?} {receipt:?}");
            assert!(message.permitted || gateways == 0);
        } else {
            let distinct = message.distinct();
            let named: usize = sets.iter().map(|set| set.len()).sum();
            let sum = sent as usize + unknown as usize + named;
            assert_eq!(sum, distinct.len(), "each target counts once: {asked:?} {receipt:?}");
            assert_eq!(sent > 0, gateways > 0 && message.is_list(), "{asked:?} {receipt:?}");
            assert!(unknown == 0 || !message.is_list(), "{asked:?} {receipt:?}");
            let filtered: Vec<u64> =
                distinct.iter().copied().filter(|uid| message.except.contains(uid)).collect();
            assert_eq!(receipt.filtered, filtered, "EXCEPT always wins: {asked:?}");
            for set in sets {
                assert!(is_sublist(set, &distinct), "named in order: {asked:?} {receipt:?}");
            }
        }
        message.receipt = Some((now, receipt));
    }

    pub(super) fn greets(&mut self, line: Line, incarnation: u64, namespaces: &'static [u32]) {
        let station = Station {
            incarnation,
            namespaces,
            greeted: self.moment(),
            welcomed: None,
            complete: None,
            live: None,
            gone: None,
            disturbed: false,
            unsure: false,
            ended: false,
            stays: Vec::new(),
            confirmations: VecDeque::new(),
            order: BTreeMap::new(),
            questions: BTreeMap::new(),
        };
        self.stations.insert(line.number(), station);
    }

    pub(super) fn welcomed(&mut self, line: Line) {
        let now = self.moment();
        if let Some(station) = self.stations.get_mut(&line.number()) {
            assert_eq!(station.welcomed.replace(now), None, "one WELCOME");
        }
    }

    /// The last frame of a snapshot with these users is on its way. From here on an older link of
    /// the same life may end.
    pub(super) fn completes(&mut self, line: Line, users: &BTreeSet<User>, digest: u64) {
        let now = self.moment();
        let incarnation = self.stations[&line.number()].incarnation;
        let mut others: Vec<&mut Station> = self
            .stations
            .iter_mut()
            .filter(|(number, it)| {
                **number != line.number() && it.incarnation == incarnation && it.gone.is_none()
            })
            .map(|(_, it)| it)
            .filter(|it| !it.ended && it.complete.is_some())
            .collect();
        let older = match &others[..] {
            [older] if older.live.is_some() => Some(&**older),
            _ => None,
        };
        let inherits = |user: &User| {
            let stays = older.iter().flat_map(|older| &older.stays);
            stays.filter(|stay| stay.user == *user && stay.until.is_none()).find_map(|it| it.sure)
        };
        let stay = |user: &User| Stay { inherits: inherits(user), ..Stay::new(*user, 1) };
        let stays = users.iter().map(stay).collect();
        for other in &mut others {
            other.disturbed = false;
            other.unsure(now);
        }
        let station = self.stations.get_mut(&line.number()).expect("it greeted");
        station.complete = Some(now);
        station.stays = stays;
        station.confirmations.push_back((1, digest));
    }

    /// A DELTA is on its way that adds this user, or takes it back.
    pub(super) fn changes(&mut self, line: Line, version: u64, user: User, comes: bool) {
        let now = self.moment();
        let station = self.stations.get_mut(&line.number()).expect("it greeted");
        if comes {
            let until = station.unsure.then_some(now);
            station.stays.push(Stay { until, ..Stay::new(user, version) });
            return;
        }
        station.disturbed = true;
        let stay = station.stays.iter_mut().find(|it| it.user == user && it.left.is_none());
        let stay = stay.expect("only who is there is taken back");
        stay.left = Some(version);
        stay.until.get_or_insert(now);
    }

    pub(super) fn asks_barrier(&mut self, line: Line, version: u64, digest: u64) {
        let station = self.stations.get_mut(&line.number()).expect("it greeted");
        station.confirmations.push_back((version, digest));
    }

    pub(super) fn in_effect(&mut self, line: Line, version: u64, digest: u64) {
        let now = self.moment();
        let station = self.stations.get_mut(&line.number()).expect("it greeted");
        assert_eq!(station.confirmations.pop_front(), Some((version, digest)), "IN_EFFECT");
        if station.live.is_none() {
            self.takes_over(line, now);
        }
        let station = self.stations.get_mut(&line.number()).expect("it greeted");
        for stay in station.stays.iter_mut().filter(|stay| stay.version <= version) {
            stay.sure.get_or_insert(now);
            if stay.left.is_some_and(|left| left <= version) {
                stay.gone.get_or_insert(now);
            }
        }
    }

    /// The snapshot of a link is in effect: what was confirmed before it was sent is gone.
    fn takes_over(&mut self, line: Line, now: Moment) {
        let Station { incarnation, complete, .. } = self.stations[&line.number()];
        let (mut seamless, mut pending) = (true, false);
        for (number, other) in &mut self.stations {
            if *number == line.number() || other.incarnation != incarnation {
                continue;
            }
            pending |= other.complete.is_some() && other.live.is_none() && !other.ended;
            if other.gone.is_none() && other.live.is_some_and(|live| Some(live) < complete) {
                seamless &= !other.disturbed;
                other.gone = Some(now);
            }
        }
        let station = self.stations.get_mut(&line.number()).expect("it greeted");
        station.live = Some(now);
        for stay in station.stays.iter_mut().filter(|stay| stay.version == 1) {
            stay.sure = if seamless { stay.inherits } else { None };
        }
        if pending {
            station.unsure(now);
        }
    }

    /// A link was broken or is leaving, or the broker may end it.
    pub(super) fn disturbs(&mut self, line: Line) {
        let now = self.moment();
        if let Some(station) = self.stations.get_mut(&line.number()) {
            station.disturbed = true;
            station.unsure(now);
        }
        self.consumers_gone |= self.readers.contains_key(&line.number());
    }

    /// The broker was told to stop: it may end any link.
    pub(super) fn drains(&mut self) {
        let now = self.moment();
        self.stations.values_mut().for_each(|it| it.unsure(now));
        self.consumers_gone = true;
    }

    pub(super) fn ended(&mut self, line: Line) {
        let now = self.moment();
        self.due.remove(&line.number());
        if let Some(station) = self.stations.get_mut(&line.number()) {
            (station.ended, station.disturbed) = (true, true);
            station.unsure(now);
        }
    }

    pub(super) fn superseded(&self, line: Line) {
        let ours = &self.stations[&line.number()];
        let newer = self.stations.iter().any(|(number, it)| {
            let older = it.welcomed.is_some_and(|welcomed| welcomed < ours.greeted);
            let same = *number != line.number() && it.incarnation == ours.incarnation;
            same && !older && it.complete.is_some()
        });
        assert!(newer, "{line:?} superseded, and no link is newer (REG-8)");
    }

    pub(super) fn deliver(&mut self, line: Line, message: &Message<'_>, now_ms: u64) {
        self.frames += 1;
        let number = number_of(message.payload);
        let station = self.stations.get_mut(&line.number()).expect("DELIVER is for gateways");
        let published = &mut self.published[number];
        let about = (line, number, message.targets);
        assert_eq!(message.payload, published.payload, "the payload is opaque: {about:?}");
        assert_eq!(
            (message.origin, message.sequence, message.namespace, message.resend),
            (Some(published.instance), published.sequence, published.namespace, published.resend),
        );
        assert!(published.permitted, "refused, and delivered: {about:?}");
        let permitted = station.namespaces.contains(&message.namespace);
        assert!(permitted, "promise 1: a foreign namespace: {about:?}");
        assert!(station.complete.is_some(), "REG-1: its slot is filling: {about:?}");
        let since = published.sent;
        assert!(station.gone.is_none_or(|gone| gone > since), "it was superseded: {about:?}");
        let once = self.delivered.insert((station.incarnation, number));
        assert!(once, "promise 3: delivered twice: {about:?}");
        let before = station.order.insert(published.line.number(), number);
        assert!(before.is_none_or(|before| before < number), "promise 2: {before:?} {about:?}");
        station.may_get(published, message);
        if published.ttl_ms != 0 {
            let least = u64::from(published.ttl_ms).saturating_sub(now_ms - published.sent_ms);
            let range = u32::try_from(least.max(1)).unwrap()..=published.ttl_ms;
            assert!(range.contains(&message.ttl_ms), "ttl {} of {range:?}", message.ttl_ms);
        }
        published.frames += 1;
        if published.is_list() {
            published.reached.extend(message.targets.iter());
        }
    }

    pub(super) fn asks(&mut self, line: Line, sequence: u64, user: User, payload: &[u8]) {
        let now = self.moment();
        let station = self.stations.get_mut(&line.number()).expect("it greeted");
        let permitted = station.namespaces.contains(&user.0);
        let asked = Asked { user, permitted, payload: payload.to_vec(), answer: None };
        station.questions.insert(sequence, asked);
        self.asked.insert((station.incarnation, sequence), (line.number(), now));
    }

    pub(super) fn consumes(&mut self, line: Line, namespaces: &'static [u32]) {
        let reader = Reader { namespaces, drained: None, order: BTreeMap::new() };
        self.readers.insert(line.number(), reader);
    }

    /// The broker has read that this consumer leaves.
    pub(super) fn consumer_drained(&mut self, line: Line) {
        let now = self.moment();
        self.readers.get_mut(&line.number()).expect("it is a consumer").drained = Some(now);
    }

    pub(super) fn uplink(&mut self, line: Line, message: &Message<'_>) -> Question {
        self.frames += 1;
        let question = (message.origin.expect("ORIGIN (UP-1)"), message.sequence);
        let (asker, moment) = *self.asked.get(&question).expect("somebody asked");
        let asked = &self.stations[&asker].questions[&message.sequence];
        let sender = message.sender.expect("it came with SENDER");
        let user = (message.namespace, sender.uid);
        assert_eq!((user, message.payload), (asked.user, &asked.payload[..]), "{question:?}");
        assert!(asked.permitted, "not permitted, and handed over: {question:?}");
        let reader = self.readers.get_mut(&line.number()).expect("UPLINK is for consumers");
        assert!(reader.namespaces.contains(&user.0), "promise 1: foreign to {line:?}: {user:?}");
        assert!(reader.drained.is_none_or(|drained| drained > moment), "SES-11: {question:?}");
        let once = self.handed.insert(question, line.number()).is_none();
        assert!(once, "to one consumer (UP-1): {question:?}");
        let before = reader.order.insert((asker, user), message.sequence);
        assert!(
            before.is_none_or(|before| before < message.sequence),
            "out of order: {question:?}"
        );
        question
    }

    pub(super) fn answers(&mut self, line: Line, question: Question, code: ErrorCode) {
        self.answered.insert((question, line.number(), code));
    }

    pub(super) fn answer(&mut self, line: Line, ack: UplinkAck) {
        let UplinkAck { code, sequence, origin } = ack;
        let station = self.stations.get_mut(&line.number()).expect("it is a gateway");
        assert_eq!(origin, station.incarnation, "UP-2");
        let asked = station.questions.get_mut(&sequence);
        let asked = asked.unwrap_or_else(|| panic!("this link did not ask: {line:?} {ack:?}"));
        assert_eq!(asked.answer.replace(code), None, "answered twice: {line:?} {ack:?}");
        let question = (origin, sequence);
        match code {
            ErrorCode::NOT_PERMITTED => assert!(!asked.permitted, "{ack:?}"),
            ErrorCode::NO_CONSUMER => assert!(!self.handed.contains_key(&question), "{ack:?}"),
            ErrorCode::CONSUMER_LOST => assert!(self.consumers_gone, "{ack:?}"),
            // It may have answered before the question came: that the frame passed it is its luck.
            _ => {
                let mut given = self.answered.iter().filter(|it| (it.0, it.2) == (question, code));
                let by = |reader| self.handed.get(&question).is_none_or(|it| *it == reader);
                assert!(given.any(|it| by(it.1)), "no consumer said so: {line:?} {ack:?}");
            }
        }
    }

    /// Everybody has read everything, and no consumer is left: nothing is due on links that stand.
    pub(super) fn at_rest(&self) {
        for (line, due) in &self.due {
            assert!(due.is_empty(), "no receipt came on line {line} for {due:?}");
        }
        for (line, station) in self.stations.iter().filter(|(_, it)| !it.ended) {
            let stands = station.gone.is_none();
            assert!(stands, "line {line} was superseded, and stays");
            if !stands {
                continue;
            }
            let open = station.questions.values().filter(|asked| asked.answer.is_none());
            assert_eq!(open.count(), 0, "line {line} waits: {:?}", station.questions);
            assert!(station.confirmations.is_empty(), "line {line} has no IN_EFFECT");
        }
    }

    /// Nothing that the broker took in was lost on the way, neither a frame nor an answer.
    pub(super) fn nothing_lost(&self, ledger: &Ledger) {
        for frames in [&ledger.gateways, &ledger.consumers] {
            let gone = (frames.lost, frames.in_doubt, frames.dropped_no_link);
            assert_eq!(gone, (0, 0, 0), "{ledger:?}");
        }
        for (question, reader) in &self.handed {
            let asked = &self.stations[&self.asked[question].0].questions[&question.1];
            let code = asked.answer.unwrap_or_else(|| panic!("no answer to {question:?}"));
            let given = self.answered.contains(&(*question, *reader, code));
            assert!(given, "{question:?}: {code:?} is not what its consumer said");
        }
    }

    /// What can be judged once all is over.
    pub(super) fn judge(&self, ledger: &Ledger) {
        let mut queued = self.handed.len() as u64;
        for (number, message) in self.published.iter().enumerate() {
            let Some((seen, receipt)) = &message.receipt else {
                queued += u64::from(message.frames);
                continue;
            };
            queued += u64::from(receipt.gateways);
            let about = (number, receipt);
            assert!(message.frames <= receipt.gateways, "{} came: {about:?}", message.frames);
            for uid in [&receipt.offline, &receipt.filtered, &receipt.dropped].into_iter().flatten()
            {
                assert!(!message.reached.contains(uid), "{uid} was reached: {about:?}");
            }
            for uid in &receipt.offline {
                let user = (message.namespace, *uid);
                let here = |it: &Station| it.must_have(user, message.sent, *seen);
                let line = self.stations.iter().find(|(_, it)| here(it)).map(|(line, _)| line);
                assert_eq!(line, None, "promise 8: {uid} was here all the time: {about:?}");
            }
        }
        let both = [&ledger.gateways, &ledger.consumers];
        let most: u64 = both.iter().map(|it| it.queued + it.dropped_no_link).sum();
        assert!(queued <= most, "{queued} of {ledger:?}");
        // What was confirmed was read, and what was read had been given to the transport.
        let read: u64 = both.iter().map(|it| it.delivered).sum();
        let most: u64 = both.iter().map(|it| it.written()).sum();
        assert!((read..=most).contains(&self.frames), "{} {ledger:?}", self.frames);
    }
}
