//! Where the links of a consumer meet: one memory, one queue to the application.
//!
//! The lock is held for a look into the memory, never across a wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;
use waybill_wire::code::ErrorCode;

use super::machine::{Answer, Command, Received, ReceivedUplink};
use super::recent::{Key, Offered, RecentPresence, RecentUplinks, Source};
use super::{ConsumerEvent, UplinkMessage};
use crate::outlet::{NoSlot, Outlet, Queue};

/// The place an answer has in the queue of its link.
#[derive(Debug)]
struct Place {
    /// The link's generation.
    link: u64,
    permit: mpsc::OwnedPermit<Command>,
}

impl Place {
    /// The link drops it if the uplink came by an earlier one.
    fn answer(self, (origin, sequence): Key, code: ErrorCode) {
        let Self { link, permit } = self;
        permit.send(Command::Answer(Answer { link, origin, sequence, code }));
    }
}

#[derive(Debug, Default)]
struct Memory {
    uplinks: RecentUplinks<Place>,
    presence: RecentPresence,
}

/// What was received lately over all links.
#[derive(Clone, Debug, Default)]
pub(super) struct Merged {
    memory: Arc<Mutex<Memory>>,
}

impl Merged {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing that runs under the lock panics half way through a change.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers every copy of an uplink.
    pub(super) fn answer(&self, key: Key, code: ErrorCode) {
        let places = self.memory().uplinks.answer(key, code);
        places.into_iter().for_each(|place| place.answer(key, code));
    }
}

/// One link's end: hands out what no other link has brought before.
#[derive(Debug)]
pub(super) struct Inlet {
    /// The link's number within the consumer.
    pub(super) number: u64,
    pub(super) events: Queue<ConsumerEvent>,
    pub(super) answers: mpsc::Sender<Command>,
    pub(super) merged: Merged,
}

impl Inlet {
    /// Takes it, or gives it back for lack of room.
    fn offer_uplink(&mut self, uplink: ReceivedUplink) -> Option<ReceivedUplink> {
        let (key, source) = (key_of(&uplink), source_of(&uplink));
        let merged = self.merged.clone();
        let mut memory = merged.memory();
        // The slot first: a message that nobody takes must not hold a place.
        let bytes = weight(&uplink);
        let slot = match memory.uplinks.is_new(key, source) {
            false => None,
            true => match self.events.reserve(bytes) {
                Ok(slot) => Some(slot),
                Err(NoSlot::Full) => return Some(uplink),
                Err(NoSlot::Gone) => {
                    let (link, code) = (uplink.link, ErrorCode::NO_CONSUMER);
                    let (origin, sequence) = key;
                    // No room says that the link is closing and answers by itself.
                    let answer = Command::Answer(Answer { link, origin, sequence, code });
                    let _closing = self.answers.try_send(answer);
                    return None;
                }
            },
        };
        let permit = match self.answers.clone().try_reserve_owned() {
            Ok(permit) => permit,
            Err(mpsc::error::TrySendError::Full(_)) => return Some(uplink),
            // The link is closing: the broker tells the gateway that nobody took it.
            Err(mpsc::error::TrySendError::Closed(_)) => return None,
        };
        let place = Place { link: uplink.link, permit };
        let offered = memory.uplinks.offer(key, source, place);
        drop(memory);
        match (offered, slot) {
            (Offered::Answered(code, place), _) => place.answer(key, code),
            (Offered::New, Some(slot)) => {
                let message = UplinkMessage::new(uplink, self.merged.clone());
                slot.send(ConsumerEvent::Uplink(message));
            }
            (Offered::Waits | Offered::New, _) => {}
        }
        None
    }
}

impl Inlet {
    /// Takes what the link has brought by `now`, or gives it back for lack of room.
    pub(super) fn offer_at(
        &mut self,
        now: std::time::Instant,
        received: Received,
    ) -> Result<(), Received> {
        match received {
            Received::Uplink(uplink) => {
                self.offer_uplink(uplink).map_or(Ok(()), |uplink| Err(Received::Uplink(uplink)))
            }
            Received::Presence(event) => {
                let slot = match self.events.reserve(1) {
                    Ok(slot) => slot,
                    Err(NoSlot::Full) => return Err(received),
                    Err(NoSlot::Gone) => return Ok(()),
                };
                if self.merged.memory().presence.is_new(now, self.number, event) {
                    slot.send(ConsumerEvent::Presence(event));
                }
                Ok(())
            }
            Received::Offline(message) => {
                match self.events.reserve(message.pending_bytes()) {
                    Ok(slot) => slot.send(ConsumerEvent::Offline(*message)),
                    Err(NoSlot::Full) => return Err(Received::Offline(message)),
                    Err(NoSlot::Gone) => {}
                }
                Ok(())
            }
            Received::Ended => {
                self.merged.memory().presence.forget(self.number);
                Ok(())
            }
        }
    }
}

impl Outlet<Received> for Inlet {
    fn offer(&mut self, received: Received) -> Result<(), Received> {
        self.offer_at(Instant::now().into_std(), received)
    }

    async fn room(&mut self) {
        // Given back at once, to be taken by the next offer.
        let _place = self.answers.reserve().await;
        self.events.freed().await;
    }

    fn is_gone(&self) -> bool {
        self.events.is_abandoned()
    }
}

fn key_of(uplink: &ReceivedUplink) -> Key {
    (uplink.origin, uplink.sequence)
}

fn source_of(uplink: &ReceivedUplink) -> Source {
    (uplink.origin, uplink.namespace, uplink.uid, uplink.connection)
}

/// Bytes of an uplink beyond itself.
fn weight(uplink: &ReceivedUplink) -> usize {
    let labels: usize = uplink.labels.iter().map(String::len).sum();
    labels + uplink.payload.len()
}
