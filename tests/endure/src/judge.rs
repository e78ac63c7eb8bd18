//! The judgement: every message and every user against what the producer was told, and every uplink
//! against what its sender was told.

use std::collections::{BTreeMap, HashMap, HashSet};

use waybill_client::{Receipt, ReceiptLevel};

use crate::clock::{Micros, SECOND};
use crate::faults::Fault;
use crate::record::{Answer, Ending, Life, Message, Outcome, Record, To, Violations};
use crate::world::{Device, LARGE, NOBODY};

/// A user who has been *ready* for that long is known to every broker.
const KNOWN_AFTER: Micros = 2 * SECOND;

/// A connection that its client ended less than this before a message may be counted as reached:
/// the end is recorded when the client decides on it, and the close has yet to be encoded, written
/// and read. That takes as long as two processes on a busy machine wait for the processor, and no
/// longer: the gateway reads what lies at a socket before it writes to it, so that a close that has
/// arrived is not passed over. Seen were 23 ms.
const CROSSES: Micros = SECOND / 4;

/// For that long after its receipt a message may still be on its way to a user.
const ON_ITS_WAY: Micros = 15 * SECOND;

/// When something was wrong.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    spans: Vec<(Micros, Micros)>,
}

impl Timeline {
    pub(crate) fn of(faults: &[Fault]) -> Self {
        let span = |fault: &Fault| {
            let end = fault.well_at.unwrap_or(u64::MAX - ON_ITS_WAY);
            (fault.from.saturating_sub(SECOND / 5), end + SECOND)
        };
        Self { spans: faults.iter().map(span).collect() }
    }

    /// Whether any fault was felt between these times.
    pub(crate) fn disturbed(&self, from: Micros, to: Micros) -> bool {
        self.spans.iter().any(|&(begun, ended)| begun <= to && from <= ended)
    }

    /// Time in which some fault was felt, up to this moment.
    pub(crate) fn total(&self, until: Micros) -> Micros {
        let mut spans = self.spans.clone();
        spans.sort_unstable();
        let (mut total, mut covered) = (0, 0);
        for (from, to) in spans {
            let (from, to) = (from.max(covered), to.min(until));
            total += to.saturating_sub(from);
            covered = covered.max(to);
        }
        total
    }
}

/// What became of everything, counted.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    /// Of (message, UID), and of publishes as a whole.
    pub(crate) messages: BTreeMap<String, u64>,
    pub(crate) uplinks: BTreeMap<String, u64>,
    /// Copies that reached connections.
    pub(crate) arrivals: u64,
    pub(crate) violations: Violations,
}

impl Fates {
    fn count(&mut self, fate: &str) {
        self.count_of(fate, 1);
    }

    fn count_of(&mut self, fate: &str, count: u64) {
        if count > 0 {
            *self.messages.entry(fate.into()).or_default() += count;
        }
    }
}

/// The judge, with what it looks things up in.
struct Judge<'a> {
    record: &'a Record,
    timeline: &'a Timeline,
    devices: &'a [Device],
    /// Lives of a user.
    lives: HashMap<(u32, u64), Vec<u32>>,
    fates: Fates,
}

/// Judges a whole run.
pub(crate) fn judge(record: &mut Record, devices: &[Device], timeline: &Timeline) -> Fates {
    for message in &mut record.messages {
        message.arrivals.sort_by_key(|arrival| (arrival.life, arrival.at));
    }
    let mut fates = Fates::default();
    std::mem::swap(&mut fates.violations, &mut record.violations);
    let mut lives: HashMap<(u32, u64), Vec<u32>> = HashMap::new();
    for (number, life) in record.lives.iter().enumerate() {
        let device = devices[life.device as usize];
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        lives.entry((device.namespace, device.uid)).or_default().push(number);
    }
    let mut judge = Judge { record, timeline, devices, lives, fates };
    for (number, message) in record.messages.iter().enumerate() {
        judge.message(number, message);
    }
    judge.order();
    judge.uplinks();
    judge.fates
}

impl Judge<'_> {
    fn message(&mut self, number: usize, message: &Message) {
        self.fates.arrivals += message.arrivals.len() as u64;
        let twice = message.arrivals.windows(2).find(|pair| pair[0].life == pair[1].life);
        if let Some(pair) = twice {
            let (first, again) = (pair[0].at, pair[1].at);
            let where_it_was = self.place(number, message, None);
            let details =
                || format!("{where_it_was}, connection {} at {first} and {again}", pair[0].life);
            self.fates.violations.add("duplicate", details);
        }
        match &message.outcome {
            Outcome::Open => self.breach("no outcome in time", number, message, None),
            Outcome::Failed(why) => {
                self.fates.count(&format!("publish failed: {why}"));
                if !message.arrivals.is_empty() {
                    self.breach("failed, but arrived", number, message, None);
                }
            }
            Outcome::Receipt(receipt) => {
                self.fates.count_of("publishes sent again", u64::from(receipt.resent));
                match &message.to {
                    To::Uids(uids) => self.listed(number, message, uids, receipt),
                    To::Everyone => self.everyone(number, message, receipt),
                }
            }
        }
    }

    /// Each UID of a list has exactly one fate, and the record agrees with it.
    fn listed(&mut self, number: usize, message: &Message, uids: &[u64], receipt: &Receipt) {
        if uids.iter().any(|uid| (LARGE..NOBODY).contains(uid)) {
            // Nobody here plays its users.
            return self.fates.count("probes of the large gateway");
        }
        let named = receipt.offline.len() + receipt.filtered.len() + receipt.dropped_count();
        let sum = named + receipt.sent as usize + receipt.unknown_count as usize;
        if sum != uids.len() {
            self.breach("a receipt does not add up", number, message, Some(receipt));
        }
        let set = |uids: &[u64]| uids.iter().copied().collect::<HashSet<u64>>();
        let (offline, filtered) = (set(&receipt.offline), set(&receipt.filtered));
        let unknown = set(&receipt.unknown);
        let dropped: HashSet<u64> =
            receipt.dropped.iter().flat_map(|dropped| dropped.uids.iter().copied()).collect();
        let none = Vec::new();
        let arrived: HashSet<u32> = message.arrivals.iter().map(|a| a.life).collect();
        for uid in uids {
            let lives = self.lives.get(&(message.namespace, *uid)).unwrap_or(&none).clone();
            let reached = lives.iter().any(|life| arrived.contains(life));
            let Receipt { stage, resent, .. } = *receipt;
            let reported = stage == ReceiptLevel::Delivered;
            let one = One { number, message, uid: *uid, lives: &lives, reached, reported, resent };
            if filtered.contains(uid) {
                self.fates.count("filtered");
            } else if offline.contains(uid) {
                self.offline(&one);
            } else if dropped.contains(uid) {
                self.fates.count("dropped");
                if reached {
                    self.breach_of("said dropped, but arrived", &one);
                }
            } else if unknown.contains(uid) {
                self.unknown(&one);
            } else {
                self.sent(&one, &arrived);
            }
        }
    }

    fn offline(&mut self, one: &One<'_>) {
        let (from, to) = one.window();
        let quiet = !self.timeline.disturbed(from.saturating_sub(KNOWN_AFTER), to);
        let stays = |life: &&u32| self.stays(self.life(**life), one.message);
        if one.reached {
            // The first copy went by a broker that is gone; the second found nobody.
            self.fates.count("offline, and arrived by an earlier copy");
            if quiet || !one.resent {
                self.breach_of("said offline, but arrived", one);
            }
        } else if quiet && one.lives.iter().any(|life| stays(&life)) {
            self.breach_of("said offline of an online user", one);
        } else {
            self.fates.count("offline");
        }
    }

    fn unknown(&mut self, one: &One<'_>) {
        let doubt = if one.reached { "in doubt, arrived" } else { "in doubt, not arrived" };
        self.fates.count(doubt);
        let (from, to) = one.window();
        let left = one.lives.iter().any(|life| self.life(*life).ended_within(from, to + SECOND));
        if !self.timeline.disturbed(from, to) && !left {
            self.breach_of("in doubt without a fault", one);
        }
    }

    fn sent(&mut self, one: &One<'_>, arrived: &HashSet<u32>) {
        let (from, to) = one.window();
        let quiet = !self.timeline.disturbed(from.saturating_sub(KNOWN_AFTER), to + 3 * SECOND);
        if one.reached {
            self.fates.count("delivered");
            let missed = one.lives.iter().find(|life| {
                let ended = self.life(**life).ended_within(from, to + ON_ITS_WAY);
                self.stays(self.life(**life), one.message) && !ended && !arrived.contains(life)
            });
            if quiet && missed.is_some() {
                self.breach_of("one of several connections did not get it", one);
            }
            return;
        }
        let ended = |life: &u32| {
            let life = self.life(*life);
            let begun = match life.ended {
                // The gateway ended it, and knew so before its user did.
                Some((_, Ending::Code(_))) => from,
                _ => from.saturating_sub(CROSSES),
            };
            life.ended_within(begun, to + ON_ITS_WAY)
        };
        if one.lives.iter().any(ended) {
            self.fates.count("said sent, connection ended: in doubt");
        } else if !one.reported && self.timeline.disturbed(from, to + ON_ITS_WAY) {
            self.fates.count("routed only, under a fault: in doubt");
        } else {
            self.breach_of("lost: said sent, and did not arrive", one);
        }
    }

    /// Whether a connection was known before a message and still there after it.
    fn stays(&self, life: &Life, message: &Message) -> bool {
        let until = message.settled_at.unwrap_or(message.sent_at);
        let known = message.sent_at.saturating_sub(KNOWN_AFTER);
        life.is_ready_at(known) && life.ended.is_none_or(|(end, _)| end > until)
    }

    /// Nobody is named here: in quiet times everybody has it, else the sum must be covered.
    fn everyone(&mut self, number: usize, message: &Message, receipt: &Receipt) {
        let (from, to) = (message.sent_at, message.settled_at.unwrap_or(message.sent_at));
        let arrived: HashSet<u32> = message.arrivals.iter().map(|a| a.life).collect();
        self.fates.count("publishes to everyone");
        self.fates.count_of("copies of messages to everyone", arrived.len() as u64);
        let until = to + ON_ITS_WAY;
        if !self.timeline.disturbed(from.saturating_sub(KNOWN_AFTER), to + 3 * SECOND) {
            let missed = self.record.lives.iter().enumerate().find(|(at, life)| {
                let at = u32::try_from(*at).unwrap_or(u32::MAX);
                self.is_of(life, message.namespace)
                    && self.stays(life, message)
                    && !life.ended_within(from, until)
                    && !arrived.contains(&at)
            });
            if let Some((life, _)) = missed {
                let details = self.place(number, message, None);
                let details = || format!("{details}, connection {life}");
                self.fates.violations.add("lost: everyone but one", details);
            }
        }
        if receipt.stage == ReceiptLevel::Delivered {
            let places: HashSet<(u32, usize)> =
                arrived.iter().map(|at| (self.life(*at).user, self.life(*at).gateway)).collect();
            let ends = self.record.lives.iter().filter(|life| life.ended_within(from, until));
            let short = (receipt.sent as usize).saturating_sub(places.len());
            self.fates.count_of("everyone: said sent, in doubt", short as u64);
            if short > ends.count() {
                self.breach("lost: fewer than said of everyone", number, message, Some(receipt));
            }
        }
    }

    fn is_of(&self, life: &Life, namespace: u32) -> bool {
        self.devices[life.device as usize].namespace == namespace
    }

    /// Messages of one producer link arrive at each connection in the order they were sent.
    fn order(&mut self) {
        let mut newest: HashMap<(u32, u16, u32), (usize, Micros)> = HashMap::new();
        let mut checked = 0;
        for (number, message) in self.record.messages.iter().enumerate() {
            let doubt = matches!(&message.outcome, Outcome::Receipt(receipt) if !receipt.in_doubt);
            if !message.one_link || !doubt {
                continue;
            }
            for arrival in &message.arrivals {
                checked += 1;
                let key = (arrival.life, message.producer, message.link);
                let before = newest.insert(key, (number, arrival.at));
                if let Some((earlier, at)) = before.filter(|(_, at)| *at > arrival.at) {
                    let details = || {
                        format!(
                            "producer {}, connection {}: message {number} at {}, {earlier} at {at}",
                            message.producer, arrival.life, arrival.at
                        )
                    };
                    self.fates.violations.add("out of order", details);
                }
            }
        }
        self.fates.count_of("arrivals checked for order", checked);
    }

    fn uplinks(&mut self) {
        let mut newest: HashMap<u32, (usize, Micros)> = HashMap::new();
        for (number, uplink) in self.record.uplinks.iter().enumerate() {
            let life = &self.record.lives[uplink.life as usize];
            let copies = uplink.received.len();
            let place = || {
                format!(
                    "uplink {number} of user {}, gateway {}, sent at {}: {:?}, received at {:?}",
                    life.user, life.gateway, uplink.sent_at, uplink.answer, uplink.received
                )
            };
            let until = uplink.sent_at + 12 * SECOND;
            let quiet = !self.timeline.disturbed(uplink.sent_at, until);
            let (fate, breach) = match (&uplink.answer, copies) {
                (_, 2..) => ("received twice".into(), Some("an uplink received twice")),
                (Answer::Sent, 1) => ("sent".to_string(), None),
                (Answer::Sent, _) => ("lost".into(), Some("lost: an uplink that was sent")),
                (Answer::Refused(why), _) if why == "consumer_lost" => {
                    let fate = format!("in doubt: {why}, received {copies} times");
                    (fate, quiet.then_some("an uplink in doubt without a fault"))
                }
                (Answer::Refused(why), 0) => {
                    let fate = format!("refused: {why}");
                    (fate, quiet.then_some("an uplink refused without a fault"))
                }
                (Answer::Refused(_), _) => {
                    ("refused, and received".into(), Some("an uplink refused, and received"))
                }
                (Answer::Open, _) if life.ended.is_some_and(|(_, end)| end != Ending::Failed) => {
                    (format!("in doubt: connection ended, received {copies} times"), None)
                }
                (Answer::Open, _) => ("no answer".into(), Some("an uplink without an answer")),
            };
            *self.fates.uplinks.entry(fate).or_default() += 1;
            if let Some(what) = breach {
                self.fates.violations.add(what, place);
            }
            if let Some(at) = uplink.received.first() {
                let before = newest.insert(uplink.life, (number, *at));
                if before.is_some_and(|(_, earlier)| earlier > *at) {
                    self.fates.violations.add("uplinks out of order", place);
                }
            }
        }
    }

    fn life(&self, number: u32) -> &Life {
        &self.record.lives[number as usize]
    }

    fn breach_of(&mut self, what: &'static str, one: &One<'_>) {
        let mut details = self.place(one.number, one.message, None);
        details += &format!(", user {}/{}", one.message.namespace, one.uid);
        for life in one.lives {
            let Life { gateway, gateway_life, ready_at, ended, .. } = self.life(*life);
            let near = ended.is_none_or(|(end, _)| end + 10 * SECOND > one.message.sent_at);
            if near {
                details += &format!(
                    "; connection {life}, gateway {gateway} ({gateway_life}), ready {ready_at:?}, \
                     ended {ended:?}"
                );
            }
        }
        self.fates.violations.add(what, || details);
    }

    fn breach(
        &mut self,
        what: &'static str,
        number: usize,
        message: &Message,
        receipt: Option<&Receipt>,
    ) {
        let mut details = self.place(number, message, receipt);
        details.truncate(2_000);
        self.fates.violations.add(what, || details);
    }

    fn place(&self, number: usize, message: &Message, receipt: Option<&Receipt>) -> String {
        let (sent, settled) = (message.sent_at, message.settled_at);
        let audience = match &message.to {
            To::Uids(uids) => format!("{} users", uids.len()),
            To::Everyone => "everyone".into(),
        };
        let receipt = receipt.map(|receipt| format!(", {receipt:?}")).unwrap_or_default();
        format!(
            "message {number} of producer {} for {audience} of {}, sent at {sent}, settled at \
             {settled:?}, {} arrivals{receipt}",
            message.producer,
            message.namespace,
            message.arrivals.len()
        )
    }
}

/// One user of one message.
struct One<'a> {
    number: usize,
    message: &'a Message,
    uid: u64,
    lives: &'a [u32],
    /// It reached one of them.
    reached: bool,
    /// The receipt is of stage *delivered*.
    reported: bool,
    /// Its producer sent it again.
    resent: bool,
}

impl One<'_> {
    /// From sending to settling.
    fn window(&self) -> (Micros, Micros) {
        (self.message.sent_at, self.message.settled_at.unwrap_or(self.message.sent_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Arrival, Uplink};

    /// Three users of namespace 1 with one connection each, ready from second 1 on.
    fn record() -> (Record, Vec<Device>) {
        let device = |number: u32| Device {
            user: number,
            device: number,
            namespace: 1,
            uid: u64::from(number) + 1,
            home: 0,
            pinned: false,
        };
        let life = |number: u32| Life {
            user: number,
            device: number,
            gateway: 0,
            gateway_life: 1,
            ready_at: Some(SECOND),
            ended: None,
            arrivals: 0,
        };
        let lives = (0..3).map(life).collect();
        (Record { lives, ..Record::default() }, (0..3).map(device).collect())
    }

    /// A message to these at second `at`, answered with this receipt.
    fn message(at: u64, uids: &[u64], receipt: Receipt, arrivals: &[(u32, u64)]) -> Message {
        let arrival = |&(life, at): &(u32, u64)| Arrival { life, at: at * SECOND };
        Message {
            namespace: 1,
            to: To::Uids(uids.to_vec()),
            except: Vec::new(),
            producer: 0,
            link: 1,
            sent_at: at * SECOND,
            settled_at: Some((at + 1) * SECOND),
            one_link: true,
            outcome: Outcome::Receipt(receipt),
            arrivals: arrivals.iter().map(arrival).collect(),
        }
    }

    fn receipt(sent: u32, offline: &[u64]) -> Receipt {
        let mut receipt = Receipt::new(1, 1);
        receipt.stage = ReceiptLevel::Delivered;
        receipt.sent = sent;
        receipt.offline = offline.to_vec();
        receipt
    }

    fn verdict(record: &mut Record, devices: &[Device], faults: &[Fault]) -> Vec<&'static str> {
        let fates = judge(record, devices, &Timeline::of(faults));
        fates.violations.counts.keys().copied().collect()
    }

    fn check(messages: Vec<Message>, expected: &[&str]) {
        let (mut record, devices) = record();
        record.messages = messages;
        assert_eq!(verdict(&mut record, &devices, &[]), expected);
    }

    #[test]
    fn what_was_promised_and_kept_is_clean() {
        check(vec![message(10, &[1, 2], receipt(2, &[]), &[(0, 10), (1, 11)])], &[]);
        check(vec![message(10, &[1, 99], receipt(1, &[99]), &[(0, 10)])], &[]);
    }

    #[test]
    fn a_loss_a_second_copy_and_a_false_offline_are_found() {
        let lost = "lost: said sent, and did not arrive";
        check(vec![message(10, &[1, 2], receipt(2, &[]), &[(0, 10)])], &[lost]);
        let twice = &[(0, 10), (0, 12)];
        check(vec![message(10, &[1], receipt(1, &[]), twice)], &["duplicate"]);
        let offline = "said offline of an online user";
        check(vec![message(10, &[1], receipt(0, &[1]), &[])], &[offline]);
        let arrived = "said offline, but arrived";
        check(vec![message(10, &[1], receipt(0, &[1]), &[(0, 10)])], &[arrived]);
        let sum = "a receipt does not add up";
        check(vec![message(10, &[1], receipt(2, &[]), &[(0, 10)])], &[sum]);
    }

    #[test]
    fn an_older_message_after_a_newer_one_is_out_of_order() {
        let older = message(10, &[1], receipt(1, &[]), &[(0, 12)]);
        let newer = message(11, &[1], receipt(1, &[]), &[(0, 11)]);
        check(vec![older.clone(), newer.clone()], &["out of order"]);
        check(vec![older, Message { link: 2, ..newer }], &[]);
    }

    #[test]
    fn a_connection_that_ended_puts_its_message_in_doubt() {
        let (mut record, devices) = record();
        record.lives[0].ended = Some((11 * SECOND, Ending::Broken));
        record.messages = vec![message(10, &[1], receipt(1, &[]), &[])];
        assert_eq!(verdict(&mut record, &devices, &[]), [""; 0]);
    }

    #[test]
    fn a_connection_that_ended_before_excuses_only_what_can_have_crossed_its_end() {
        let lost = &["lost: said sent, and did not arrive"][..];
        for (before, ending, expected) in [
            (SECOND / 5, Ending::Left, &[][..]),
            (SECOND / 5, Ending::Broken, &[]),
            (SECOND / 3, Ending::Left, lost),
            (1, Ending::Code(4001), lost),
        ] {
            let (mut record, devices) = record();
            record.lives[0].ended = Some((10 * SECOND - before, ending));
            record.messages = vec![message(10, &[1], receipt(1, &[]), &[])];
            assert_eq!(verdict(&mut record, &devices, &[]), expected, "{before} {ending:?}");
        }
    }

    #[test]
    fn under_a_fault_a_user_may_be_offline() {
        let (mut record, devices) = record();
        record.messages = vec![message(10, &[1], receipt(0, &[1]), &[])];
        let fault = Fault {
            kind: crate::faults::Kind::Stop { server: 0, still: std::time::Duration::ZERO },
            words: String::new(),
            from: 9 * SECOND,
            to: 12 * SECOND,
            well_at: Some(13 * SECOND),
            detected: Vec::new(),
        };
        assert_eq!(verdict(&mut record, &devices, &[fault]), [""; 0]);
    }

    #[test]
    fn an_uplink_that_was_sent_is_received_exactly_once() {
        for (received, expected) in [
            (vec![], &["lost: an uplink that was sent"][..]),
            (vec![SECOND], &[]),
            (vec![SECOND, SECOND], &["an uplink received twice"]),
        ] {
            let (mut record, devices) = record();
            let answer = Answer::Sent;
            record.uplinks = vec![Uplink { life: 0, sent_at: SECOND, answer, received }];
            assert_eq!(verdict(&mut record, &devices, &[]), expected);
        }
    }
}
