//! A DELIVER on its way into the queues of connections, in as many parts as it needs.
//!
//! Connections that are met before a long message is encoded for them are kept in a list, and get
//! it when it is.

use std::collections::VecDeque;
use std::sync::Arc;

use waybill_client::gateway::{Delivery, Report};
use waybill_wire::Message;
use waybill_wire::code::Level;

use super::parts::Job;
use super::{Arrived, Entry, Switchboard};
use crate::fanout::{Fanout, Images};
use crate::hub::{Audience, ConnectionId, Met, Tally, Walk};
use crate::recent::Key;
use crate::reports::{Draft, Outcome, Ticket};
use crate::subprotocol;
use crate::telemetry::Telemetry;
use crate::transports::{NEVER, Outbox, Timed};

/// Users of a draft that are counted in one part.
const COUNTED_AT_ONCE: usize = 1 << 16;

/// Bytes of a payload that are encoded instead of meeting one connection.
///
/// CPU time of 16 MiB, in milliseconds, all of it and the longest of its parts of 64 KiB (medians
/// of 7, release build, busy machine of two cores; the encoder alone): as JSON plain text 13.7 and
/// 0.07, text with a character to escape in three 40 and 0.17, nothing but control characters 126
/// and 0.51, base64 5.5 and 0.06; in binary 0.7 and 0.005. Parts of 256 KiB took up to 1.9.
const STEP_BYTES: usize = 64;

/// A message that has not reached all it is for.
#[derive(Debug)]
pub(super) struct Handing {
    pub(super) link: usize,
    delivery: Delivery,
    progress: Progress,
}

#[derive(Debug)]
struct Progress {
    key: Key,
    /// Of the messages that came.
    number: u64,
    /// When its connections stop to be served, and when it was taken up.
    expires_ms: u64,
    since_ms: u64,
    /// When it came, if it is traced.
    gateway_in_us: u64,
    is_begun: bool,
    images: Images,
    /// Who was met and has not got it, since it is not encoded.
    met: VecDeque<(Arc<Outbox>, Ticket)>,
    walk: Option<Walk>,
    /// Number of its draft, which is parked.
    draft: Option<u64>,
}

impl Handing {
    pub(super) fn is_begun(&self) -> bool {
        self.progress.is_begun
    }

    /// Whether anything was encoded of it.
    pub(super) fn is_encoded(&self) -> bool {
        self.progress.images.is_begun()
    }

    pub(super) fn key(&self) -> Key {
        self.progress.key
    }
}

impl Switchboard {
    pub(super) fn deliver(
        &mut self,
        link: usize,
        delivery: Delivery,
        at: Arrived<'_>,
        now_ms: u64,
    ) {
        let message = delivery.message();
        let received_ms = now_ms.saturating_sub(at.waited_ms);
        self.telemetry.messages_in.add(1);
        let id = (message.origin.unwrap_or(0), message.sequence);
        let mut progress = Progress {
            key: (message.namespace, id),
            number: self.telemetry.messages_in.value(),
            // Counted from when the link had received it: 0 is no limit (DEL-18).
            expires_ms: match message.ttl_ms {
                0 => NEVER,
                ttl_ms => received_ms.saturating_add(ttl_ms.into()),
            },
            since_ms: now_ms,
            gateway_in_us: if message.trace.is_some() { (at.wall_us)() } else { 0 },
            is_begun: false,
            images: Images::default(),
            met: VecDeque::new(),
            walk: None,
            draft: None,
        };
        let waits = self.parts.is_handing(progress.key);
        if waits || !self.hand(link, &delivery, &message, &mut progress) {
            let handing = Handing { link, delivery, progress };
            self.parts.add(Job::Handing(Box::new(handing)));
        }
    }

    /// Another part of it, or the first; what is left.
    pub(super) fn hand_on(&mut self, mut handing: Box<Handing>) -> Option<Box<Handing>> {
        let Handing { link, delivery, progress } = &mut *handing;
        let is_done = self.hand(*link, delivery, &delivery.message(), progress);
        (!is_done).then_some(handing)
    }

    /// A part of a message; whether it was the last.
    fn hand(
        &mut self,
        link: usize,
        delivery: &Delivery,
        message: &Message<'_>,
        progress: &mut Progress,
    ) -> bool {
        let is_first = !std::mem::replace(&mut progress.is_begun, true);
        let mut draft = match progress.draft.take() {
            None if is_first => self.draft(message, progress.key),
            parked => parked.map(|number| self.reports.take_up(number)),
        };
        let images = std::mem::take(&mut progress.images);
        let mut fanout = Fanout::new(for_clients(message), images, &self.queues.pool);
        let (mut left, mut passed_over, mut queued) = (self.parts.size(), 0, 0);
        let meet = |uid, met: Met<'_, Entry>| {
            let ticket = draft.as_mut().map_or(Ticket::NONE, |draft| drafted(draft, uid, &met));
            match met {
                Met::Connection(entry) => {
                    match fanout.frame(entry.outbox.subprotocol()) {
                        Some(bytes) => {
                            // Before its connection can count it as delivered.
                            self.telemetry.addressed.add(1);
                            let expires_ms = progress.expires_ms;
                            let timed = Timed { bytes, expires_ms, ticket };
                            queued += usize::from(entry.outbox.write(progress.number, timed));
                        }
                        None => progress.met.push_back((Arc::clone(&entry.outbox), ticket)),
                    }
                }
                Met::Missed => {}
                Met::Filtered | Met::Repeated | Met::Unready => passed_over += 1,
            }
        };
        let (hub, audience) = (&mut self.hub, audience(message));
        let tally = match &mut progress.walk {
            Some(walk) => hub.go_on(walk, &audience, &mut left, meet),
            None if is_first => {
                let (tally, walk) = hub.begin(progress.key.1, &audience, &mut left, meet);
                progress.walk = walk;
                tally
            }
            None => Tally::default(),
        };
        self.telemetry.addressed.add(passed_over);
        self.telemetry.count(tally);
        let has_met = progress.walk.as_ref().is_none_or(Walk::is_done);
        if has_met {
            queued += catch_up(&mut fanout, progress, &mut left, &self.telemetry);
        }
        self.queues.pool.came(queued);
        self.parts.left(left);
        progress.images = fanout.into_images();
        let has_met = has_met && progress.met.is_empty();
        // All at once counts faster than it was met, but not a million users.
        let is_counted = |draft: &mut Draft| draft.count(&mut { COUNTED_AT_ONCE });
        if !has_met || !draft.as_mut().is_none_or(is_counted) {
            progress.draft = draft.map(|draft| self.reports.park(draft));
            return false;
        }
        if let Some(draft) = draft {
            let report = report_on(delivery, progress);
            self.reports.seal(draft, link, report, progress.since_ms);
        }
        self.telemetry.selected.add(message.selector.is_some().into());
        self.telemetry.encodings.add(progress.images.encodings());
        true
    }

    /// What a report is made from, if one is wanted.
    fn draft(&mut self, message: &Message<'_>, key: Key) -> Option<Draft> {
        if message.level != Level::DELIVERED {
            self.reports.untold(key);
            return None;
        }
        let everyone = is_for_all(message);
        let here = self.hub.users().min(self.hub.of_namespace(message.namespace));
        let users = if everyone { here } else { message.targets.len() };
        let mut draft = self.reports.open(key, users, everyone);
        draft.sent_again(message.resend);
        draft.trace(message.trace.is_some());
        Some(draft)
    }
}

/// Encodes what is not encoded, and gives it to those that were met meanwhile, as far as a part
/// goes; how many it was queued for.
fn catch_up(
    fanout: &mut Fanout<'_>,
    progress: &mut Progress,
    left: &mut usize,
    telemetry: &Telemetry,
) -> usize {
    let mut queued = 0;
    while *left > 0 && !fanout.go_on(*left * STEP_BYTES) {
        *left = 0;
    }
    while *left > 0
        && let Some((outbox, ticket)) = progress.met.pop_front()
    {
        *left -= 1;
        if let Some(bytes) = fanout.frame(outbox.subprotocol()) {
            telemetry.addressed.add(1);
            let timed = Timed { bytes, expires_ms: progress.expires_ms, ticket };
            queued += usize::from(outbox.write(progress.number, timed));
        }
    }
    queued
}

/// A selector alone is counted as EVERYONE (SEL-8).
fn is_for_all(message: &Message<'_>) -> bool {
    message.everyone || message.targets.is_empty()
}

fn audience<'a>(message: &Message<'a>) -> Audience<'a> {
    let except_self = message.sender.filter(|_| message.except_self);
    Audience {
        namespace: message.namespace,
        everyone: is_for_all(message),
        listed: message.targets,
        selector: message.selector,
        except: message.except,
        except_self: except_self.map(|sender| (sender.uid, ConnectionId(sender.connection))),
    }
}

/// What a client is shown of it.
fn for_clients<'a>(message: &Message<'a>) -> subprotocol::Message<'a> {
    subprotocol::Message {
        origin: message.origin.unwrap_or(0),
        sequence: message.sequence,
        content: message.content.map(|content| (content.content_type, content.encoding)),
        labels: message.labels.iter().collect(),
        sender: message.sender.map(|sender| sender.uid),
        payload: message.payload,
    }
}

/// A report that counts nobody yet; of a traced delivery (TRC-4) it says when that came.
fn report_on(delivery: &Delivery, progress: &Progress) -> Report {
    Report { gateway_in_us: progress.gateway_in_us, ..Report::on(delivery) }
}

/// Notes what a target, or a connection of it, has met; the ticket if it is queued.
fn drafted(draft: &mut Draft, uid: u64, met: &Met<'_, Entry>) -> Ticket {
    match met {
        Met::Connection(_) => return draft.queued(uid),
        Met::Filtered => draft.settled(uid, Outcome::Filtered),
        Met::Repeated => draft.repeated(uid),
        // Not told *ready*: it has no connection that could be served.
        Met::Unready => draft.settled(uid, Outcome::Gone),
        Met::Missed => draft.offline(uid),
    }
    Ticket::NONE
}
