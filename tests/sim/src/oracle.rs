//! What must be true of a run, kept naively: what clients did and saw, what receipts said, and from
//! when to when each link and connection was undisturbed. It knows nothing of how anything works.
//!
//! *Sure* is a connection from the moment its user was told `ready` until its user goes or stops
//! reading, and a gateway's link from the moment the broker confirmed what was declared until
//! something is done to its connection or it goes. In between nothing excuses a message that does
//! not come.

use std::collections::{BTreeMap, BTreeSet};

use waybill_client::{ErrorCode, Publish, PublishError, Receipt};
use waybill_wire::code::Priority;
use waybill_wire::limits::TARGETS_MAX;
use waybill_wire::message as wire;

use crate::scenario::SECOND;
use crate::wish::Wish;

mod feeds;
mod judge;
mod memory;
mod tags;
mod uplinks;

pub(crate) use feeds::Consumers;
use feeds::Feeds;
use memory::Memory;
pub(crate) use tags::Tagging;
use uplinks::Uplinks;

/// Within this time a message passes a cluster that nothing disturbs.
const GRACE: u64 = 5 * SECOND;

/// Within this time a receipt comes, whatever happens to others.
const PROMPT: u64 = 3 * SECOND;

/// For this long a gateway's link may wait for an older one: a second, a tick, and clocks that
/// differ.
pub(crate) const HANDOVER: u64 = SECOND + SECOND / 5;

/// For this long a gateway may have let go of a connection before its user knows.
const LET_GO: u64 = 2 * SECOND;

/// A publish.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    at: u64,
    producer: usize,
    namespace: u32,
    except: Vec<u64>,
    expires: bool,
    priority: Priority,
    conflate: Option<u64>,
    receipted: bool,
    delivered: bool,
    list: bool,
    /// Which connections of its users it is for; `None`: all.
    wish: Option<Wish>,
    padding: usize,
    /// Its producer was killed.
    orphan: bool,
    parts: Vec<Part>,
    settled: Option<(u64, Verdict)>,
    /// In rising order, each once, and the part that it belongs to. `None`: everyone.
    targets: Option<Vec<(u64, usize)>>,
}

/// A message as it goes to the broker: a long list is several.
#[derive(Clone, Debug, Default)]
struct Part {
    /// The pipe and the broker of each time that it was.
    transmitted: Vec<(usize, usize)>,
    /// When it was first.
    at: u64,
    resent: bool,
}

impl Part {
    /// The pipe and the broker, if it was transmitted once.
    fn once(&self) -> Option<(usize, usize)> {
        let [once] = self.transmitted[..] else { return None };
        Some(once)
    }
}

/// What its producer was told of it.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    receipt: Option<Receipt>,
}

impl Verdict {
    /// From an outcome.
    #[must_use]
    pub(crate) fn new(outcome: Result<Receipt, PublishError>) -> Self {
        match outcome {
            Ok(receipt) => Self { receipt: Some(receipt) },
            Err(_) => Self { receipt: None },
        }
    }
}

impl Message {
    /// A publish that `producer` is about to make.
    #[must_use]
    pub(crate) fn new(
        publish: &Publish,
        wish: Option<Wish>,
        producer: usize,
        padding: u64,
    ) -> Self {
        let parts = publish.targets().map_or(1, |uids| uids.len().div_ceil(TARGETS_MAX));
        let targets = publish.targets().map(|uids| {
            let parts = (0..).map(|place| place / TARGETS_MAX);
            let mut targets: Vec<(u64, usize)> = uids.iter().copied().zip(parts).collect();
            targets.sort();
            targets.dedup_by_key(|(uid, _)| *uid);
            targets
        });
        // Nobody is told what becomes of its users, so the broker may look nobody up.
        let is_open = publish.mode == waybill_client::Mode::AUTO
            && publish.level == waybill_client::ReceiptLevel::None;
        Self {
            at: 0,
            producer,
            namespace: publish.namespace,
            except: publish.except.clone(),
            expires: publish.ttl.is_some(),
            priority: publish.priority,
            conflate: publish.conflate,
            receipted: publish.level != waybill_client::ReceiptLevel::None,
            delivered: publish.level == waybill_client::ReceiptLevel::Delivered,
            list: publish.targets().is_some()
                && publish.mode != waybill_client::Mode::BROADCAST
                && !is_open,
            wish,
            padding: usize::try_from(padding).unwrap_or(0),
            orphan: false,
            parts: vec![Part::default(); parts],
            settled: None,
            targets,
        }
    }

    fn is_for(&self, (namespace, uid): (u32, u64)) -> bool {
        let listed = self.targets.is_none() || self.place(uid).is_some();
        self.namespace == namespace && listed && !self.except.contains(&uid)
    }

    /// The part of a long list that this target belongs to.
    fn place(&self, uid: u64) -> Option<usize> {
        let targets = self.targets.as_ref()?;
        let place = targets.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
        Some(targets[place].1)
    }

    /// What this user, who is in the audience, was sent by.
    fn part_for(&self, uid: u64) -> &Part {
        &self.parts[self.place(uid).unwrap_or(0)]
    }

    fn uids(&self) -> impl Iterator<Item = u64> {
        self.targets.iter().flatten().map(|(uid, _)| *uid)
    }
}

/// A time something lasted; without an end it lasts.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: u64,
    to: Option<u64>,
}

impl Span {
    fn covers(&self, from: u64, to: u64) -> bool {
        self.from <= from && self.to.is_none_or(|end| end > to)
    }
}

/// One connection of a user.
#[derive(Debug)]
struct Stay {
    user: usize,
    who: (u32, u64),
    gateway: usize,
    incarnation: u64,
    /// Tags of its token.
    tags: BTreeSet<u8>,
    /// When it began, and which brokers were ready then.
    at: u64,
    brokers_ready: Vec<usize>,
    gone_at: Option<u64>,
    ready: bool,
    gone: bool,
    sure: Option<Span>,
    /// By broker: the ticket that its registration is in effect with, and since when it is.
    known: BTreeMap<usize, (u64, Option<u64>)>,
    /// Messages, and when they came.
    got: BTreeMap<u64, u64>,
    /// By producer's link and priority: the last message that was not sent again and has no key,
    /// and that of each key.
    last: BTreeMap<(usize, u8, Option<u64>), u64>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Microseconds since the run began.
    pub(crate) now: u64,
    messages: Vec<Message>,
    stays: Vec<Stay>,
    /// By gateway and broker.
    links: BTreeMap<(usize, usize), Vec<Span>>,
    /// Producers' links that something was done to, and when.
    disturbed: BTreeMap<usize, u64>,
    /// By gateway and broker: the ticket told last, and the one in effect.
    tickets: BTreeMap<(usize, usize), (u64, u64)>,
    uplinks: Uplinks,
    feeds: Feeds,
    memory: Memory,
    taggings: Vec<Tagging>,
    /// Queues are so small that what nobody asked a receipt for may be dropped.
    pub(crate) tight: bool,
    /// A broker said that it had no room for what a consumer was to be told: large messages for
    /// users who are offline are soon a full outbox, if a consumer takes its time.
    pub(crate) feeds_dropped: bool,
    /// Brokers drop what has waited for less than [`HANDOVER`].
    pub(crate) drops_soon: bool,
    /// Brokers drop what was queued to make room.
    pub(crate) drops_oldest: bool,
}

/// The number a payload begins with.
fn number_of(payload: &[u8]) -> u64 {
    let bytes = payload.first_chunk().expect("every payload begins with its number");
    u64::from_le_bytes(*bytes)
}

fn message_of(messages: &[Message], number: u64) -> &Message {
    let message = usize::try_from(number).ok().and_then(|place| messages.get(place));
    message.unwrap_or_else(|| panic!("promise 10: nobody published {number}"))
}

impl Oracle {
    fn message(&self, number: u64) -> &Message {
        message_of(&self.messages, number)
    }

    fn message_mut(&mut self, number: u64) -> &mut Message {
        let place = usize::try_from(number).expect("a number of a message");
        &mut self.messages[place]
    }

    /// Each gateway remembers so many messages.
    pub(crate) fn remembered(&mut self, messages_max: usize) {
        self.memory.messages_max = messages_max as u64;
    }

    /// A publish is made; its number.
    pub(crate) fn published(&mut self, message: Message) -> u64 {
        self.messages.push(Message { at: self.now, ..message });
        self.messages.len() as u64 - 1
    }

    /// The payload of a message.
    #[must_use]
    pub(crate) fn payload_of(&self, number: u64) -> Vec<u8> {
        let mut payload = number.to_le_bytes().to_vec();
        let byte = |place: usize| (place ^ place >> 8) % 255;
        let padding = (0..self.message(number).padding).map(byte);
        payload.extend(padding.map(|byte| u8::try_from(byte).unwrap_or(0)));
        payload
    }

    /// Its producer wrote this part of it to a link.
    pub(crate) fn transmitted(&mut self, message: &wire::Message<'_>, pipe: usize, broker: usize) {
        let (number, resend) = (number_of(message.payload), message.resend);
        let place = message.part.map_or(0, |part| part.index);
        let now = self.now;
        let parts = &mut self.message_mut(number).parts;
        let part = &mut parts[usize::try_from(place).expect("a place of a part")];
        if part.transmitted.is_empty() {
            part.at = now;
        }
        assert!(
            resend || part.transmitted.is_empty(),
            "promise 3: {number} is sent again and does not say so"
        );
        part.resent |= resend;
        part.transmitted.push((pipe, broker));
    }

    /// Its producer was told what became of it.
    pub(crate) fn settled(&mut self, number: u64, verdict: Verdict) {
        let now = self.now;
        let message = self.message_mut(number);
        assert!(message.settled.is_none(), "{number} has two outcomes");
        message.settled = Some((now, verdict));
        self.judge_receipt(number);
    }

    /// Its producer will be told nothing of what it has not heard yet.
    pub(crate) fn producer_killed(&mut self, producer: usize) {
        let of = self.messages.iter_mut().filter(|it| it.producer == producer);
        of.for_each(|message| message.orphan |= message.settled.is_none());
        self.tagger_killed(producer);
    }

    /// A user connects.
    pub(crate) fn connects(
        &mut self,
        socket: usize,
        (user, who, tags): (usize, (u32, u64), BTreeSet<u8>),
        (gateway, incarnation): (usize, u64),
        brokers_ready: Vec<usize>,
    ) {
        assert_eq!(socket, self.stays.len());
        self.stays.push(Stay {
            user,
            who,
            gateway,
            incarnation,
            tags,
            at: self.now,
            brokers_ready,
            gone_at: None,
            ready: false,
            gone: false,
            sure: None,
            known: BTreeMap::new(),
            got: BTreeMap::new(),
            last: BTreeMap::new(),
        });
    }

    /// A user was told that it is online; `sure` if it reads as fast as it should.
    pub(crate) fn ready(&mut self, socket: usize, sure: bool) {
        let now = self.now;
        let stay = &mut self.stays[socket];
        for (&(gateway, broker), &(told, in_effect)) in &self.tickets {
            if gateway == stay.gateway {
                // `ready` says that one broker knows; what the others were told by now covers it.
                stay.known.insert(broker, (told, (in_effect >= told).then_some(now)));
            }
        }
        assert!(!stay.ready, "ready twice");
        stay.ready = true;
        if sure && !stay.gone {
            stay.sure = Some(Span { from: now, to: None });
        }
    }

    /// A user stops, or goes on, reading.
    pub(crate) fn socket_unsure(&mut self, socket: usize) {
        let now = self.now;
        if let Some(span) = &mut self.stays[socket].sure {
            span.to.get_or_insert(now);
        }
    }

    /// A user's connection is over.
    pub(crate) fn goes(&mut self, socket: usize) {
        self.stays[socket].gone = true;
        self.stays[socket].gone_at.get_or_insert(self.now);
        self.socket_unsure(socket);
    }

    /// A gateway's link is told changes under this ticket.
    pub(crate) fn told(&mut self, gateway: usize, broker: usize, ticket: u64) {
        self.tickets.entry((gateway, broker)).or_default().0 = ticket;
    }

    /// Changes up to this ticket are in effect at the broker.
    pub(crate) fn in_effect(&mut self, gateway: usize, broker: usize, ticket: u64) {
        let now = self.now;
        self.tickets.entry((gateway, broker)).or_default().1 = ticket;
        for stay in self.stays.iter_mut().filter(|stay| stay.gateway == gateway && !stay.gone) {
            if let Some((told, since)) = stay.known.get_mut(&broker)
                && *told <= ticket
            {
                since.get_or_insert(now);
            }
        }
    }

    /// A gateway lives again: it counts from the beginning.
    pub(crate) fn gateway_killed(&mut self, gateway: usize) {
        self.tickets.retain(|(of, _), _| *of != gateway);
        self.memory.killed(gateway);
    }

    /// The broker confirmed what the gateway declared, over this connection.
    pub(crate) fn link_sure(&mut self, gateway: usize, broker: usize, pipes: &[usize]) {
        let now = self.now;
        if pipes.iter().any(|pipe| self.disturbed.contains_key(pipe)) {
            return;
        }
        let spans = self.links.entry((gateway, broker)).or_default();
        if spans.last().is_none_or(|span| span.to.is_some()) {
            spans.push(Span { from: now, to: None });
        }
    }

    /// Something was done to the link, or it went.
    pub(crate) fn link_unsure(&mut self, gateway: usize, broker: usize) {
        let now = self.now;
        if let Some(span) = self.links.get_mut(&(gateway, broker)).and_then(|it| it.last_mut()) {
            span.to.get_or_insert(now);
        }
    }

    /// Something was done to a connection; whether that is the first.
    pub(crate) fn pipe_disturbed(&mut self, pipe: usize) -> bool {
        let is_first = !self.disturbed.contains_key(&pipe);
        self.disturbed.entry(pipe).or_insert(self.now);
        is_first
    }

    /// A link was given up for silence: promise 6 allows that only if something was done to it.
    pub(crate) fn timed_out(&self, pipe: usize) {
        let excused = self.disturbed.contains_key(&pipe);
        assert!(excused, "promise 6: pipe {pipe} was timed out, and nothing was done to it");
    }

    /// A message came to a connection: promises 1, 2 and 3.
    pub(crate) fn receives(&mut self, socket: usize, id: (u64, u64), payload: &[u8]) {
        let number = number_of(payload);
        assert_eq!(payload, self.payload_of(number), "the payload is opaque: {number}");
        let message = message_of(&self.messages, number);
        let stay = &self.stays[socket];
        let about = (number, id, stay.who);
        assert!(stay.ready, "WS: a message before ready: {about:?}");
        let is_for = message.is_for(stay.who);
        assert!(is_for, "promise 1: not for this user: {about:?} {message:?}");
        let matches = self.matches(message, stay, (message.at, self.now), None);
        assert!(matches != Some(false), "promise 1: its tags: {about:?} {message:?} {stay:?}");
        let stay = &mut self.stays[socket];
        let before = stay.got.insert(number, self.now);
        let key = (number, message.place(stay.who.1).unwrap_or(0));
        let once = before.is_none() || self.memory.is_excused(stay.gateway, key);
        assert!(once, "promise 3: twice: {about:?}");
        let Some((pipe, _)) = message.part_for(stay.who.1).once() else { return };
        // One with a key may have taken the place of an older one: it may come ahead of others, not
        // behind those that are newer, and nothing newer of its key was there before.
        let of = (pipe, message.priority.rank());
        let without = stay.last.get(&(of.0, of.1, None)).copied();
        let before = stay.last.insert((of.0, of.1, message.conflate), number);
        let before = before.max(without);
        assert!(before.is_none_or(|before| before < number), "promise 2: {before:?} {about:?}");
    }

    /// A gateway is given a message for these of its users: promise 1, and the narrowing behind it.
    pub(crate) fn given(&mut self, gateway: usize, given: &wire::Message<'_>) {
        let number = number_of(given.payload);
        let part = given.part.map_or(0, |part| part.index) as usize;
        self.memory.given(gateway, (number, part), given.targets.len() as u64);
        let message = self.message(number);
        if !message.list {
            return;
        }
        for uid in given.targets.iter() {
            let who = (message.namespace, uid);
            let was_here = self.stays.iter().any(|it| it.gateway == gateway && it.who == who);
            assert!(was_here, "promise 1: {uid} never was at gateway {gateway}: {message:?}");
            assert!(message.is_for(who), "promise 1: {uid} was not asked for: {message:?}");
        }
    }

    /// Whether a connection got a message.
    #[must_use]
    pub(crate) fn has(&self, socket: usize, number: u64) -> bool {
        self.stays[socket].got.contains_key(&number)
    }

    /// Every publish whose producer lives has an outcome (promise 6: receipts are never lost).
    pub(crate) fn all_settled(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            let settled = message.settled.is_some() || message.orphan;
            assert!(settled, "promise 6: no outcome of {number}: {message:?}");
        }
        self.all_tags_settled();
        self.uplinks.all_answered(&self.stays, self.now);
    }

    /// A user sends a message; its number.
    pub(crate) fn uplinks(&mut self, socket: usize, id: u32) -> u64 {
        self.uplinks.sent(socket, id, self.stays[socket].who, self.now)
    }

    /// A user was told what became of it.
    pub(crate) fn uplink_answered(&mut self, socket: usize, id: u32, code: ErrorCode) {
        self.uplinks.told(socket, id, code);
    }

    /// A consumer, in this life, got it.
    pub(crate) fn handed(&mut self, consumer: (usize, u64), payload: &[u8], who: (u32, u64)) {
        self.uplinks.handed(consumer, number_of(payload), who);
    }

    /// A consumer answered it.
    pub(crate) fn consumer_answers(&mut self, payload: &[u8], code: ErrorCode) {
        self.uplinks.answered(number_of(payload), code);
    }

    /// A last message is judged by what is known of everybody.
    pub(crate) fn last_reached(&self, number: u64, broker: usize, online: &BTreeSet<u64>) {
        let message = self.message(number);
        let settled = message.settled.as_ref().map(|(_, verdict)| verdict);
        let Some(Verdict { receipt: Some(receipt), .. }) = settled else {
            panic!("liveness: no receipt through broker {broker}: {message:?}");
        };
        let offline: Vec<u64> = message.uids().filter(|uid| !online.contains(uid)).collect();
        assert_eq!(receipt.offline, offline, "promise 8: routes of broker {broker}: {receipt:?}");
        assert_eq!(receipt.sent as usize, online.len(), "promise 8: {receipt:?}");
    }
}
