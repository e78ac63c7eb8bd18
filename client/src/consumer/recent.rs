//! What was received lately over all links of a consumer, so that nothing is handed out twice.
//!
//! Uplinks: a gateway that lost a link sends again what was unanswered, by way of another broker. A
//! copy is answered as the first one is; one whose first copy never came here, and which comes
//! behind later ones of its connection, is refused: nobody sees a user's messages out of order.
//! Presence: each broker tells what it sees, so that one login is told as often as there are
//! brokers.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use waybill_wire::code::ErrorCode;

use super::event::PresenceEvent;

/// Answers, and presence events, that are remembered: some 4 MiB each.
const REMEMBERED_MAX: usize = 1 << 16;

/// How far apart brokers may tell the same event.
const APART_MAX: Duration = Duration::from_secs(10);

/// Names an uplink: the gateway's incarnation and its sequence.
pub(super) type Key = (u64, u64);

/// A user's connection: the gateway's incarnation, namespace, UID and the connection's number.
pub(super) type Source = (u64, u32, u64, u64);

/// What to do about an uplink.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered<P> {
    /// It was not seen before: hand it out.
    New,
    /// The application has it and has not answered: this copy is answered then.
    Waits,
    /// It was answered so, and this copy is too; or it comes too late.
    Answered(ErrorCode, P),
}

#[derive(Debug)]
enum Known<P> {
    Waiting(Source, Vec<P>),
    Answered(ErrorCode),
}

/// Uplinks by name; a `P` is the place an answer goes to. Those that wait are bounded by the places
/// there are, those that were answered by [`REMEMBERED_MAX`].
#[derive(Debug)]
pub(super) struct RecentUplinks<P> {
    known: HashMap<Key, Known<P>>,
    /// Those of `known` that were answered, the oldest first.
    answered: VecDeque<(Key, Source)>,
    /// The highest sequence of each source in `known`.
    last: HashMap<Source, u64>,
}

impl<P> Default for RecentUplinks<P> {
    fn default() -> Self {
        Self { known: HashMap::new(), answered: VecDeque::new(), last: HashMap::new() }
    }
}

impl<P> RecentUplinks<P> {
    /// Whether it is to be handed out: no copy of it came before, nor a later one of its source.
    pub(super) fn is_new(&self, key: Key, source: Source) -> bool {
        !self.known.contains_key(&key) && !self.is_passed(key, source)
    }

    fn is_passed(&self, (_, sequence): Key, source: Source) -> bool {
        self.last.get(&source).is_some_and(|last| *last > sequence)
    }

    /// A copy came, to be answered at `place`.
    pub(super) fn offer(&mut self, key: Key, source: Source, place: P) -> Offered<P> {
        let is_passed = self.is_passed(key, source);
        match self.known.get_mut(&key) {
            None if is_passed => Offered::Answered(ErrorCode::CONSUMER_LOST, place),
            None => {
                self.known.insert(key, Known::Waiting(source, vec![place]));
                self.last.insert(source, key.1);
                Offered::New
            }
            Some(Known::Waiting(_, places)) => {
                places.push(place);
                Offered::Waits
            }
            Some(Known::Answered(code)) => Offered::Answered(*code, place),
        }
    }

    /// The application's answer; the places it goes to.
    pub(super) fn answer(&mut self, key: Key, code: ErrorCode) -> Vec<P> {
        let Some(Known::Waiting(source, places)) = self.known.insert(key, Known::Answered(code))
        else {
            return Vec::new();
        };
        self.answered.push_back((key, source));
        if self.answered.len() > REMEMBERED_MAX
            && let Some((oldest, source)) = self.answered.pop_front()
        {
            self.known.remove(&oldest);
            if self.last.get(&source) == Some(&oldest.1) {
                self.last.remove(&source);
            }
        }
        places
    }
}

/// One event, and who has told it.
#[derive(Debug)]
struct Told {
    /// When it was handed out last.
    at: Instant,
    /// How often it was handed out.
    times: u32,
    /// How often each link has told it.
    by: Vec<(u64, u32)>,
}

/// Presence events of the last seconds. An event that happens twice is told twice by each broker:
/// so each broker's are counted, and the one that is ahead is heard.
#[derive(Debug, Default)]
pub(super) struct RecentPresence {
    told: HashMap<PresenceEvent, Told>,
    /// Those of `told`, the oldest first.
    order: VecDeque<PresenceEvent>,
}

impl RecentPresence {
    /// Whether this is not a copy of what another link has told.
    pub(super) fn is_new(&mut self, now: Instant, link: u64, event: PresenceEvent) -> bool {
        let stale = |told: &Told| now.saturating_duration_since(told.at) > APART_MAX;
        match self.told.get_mut(&event) {
            Some(told) if !stale(told) => {
                let at = told.by.iter().position(|(other, _)| *other == link);
                let at = at.unwrap_or_else(|| {
                    told.by.push((link, 0));
                    told.by.len() - 1
                });
                told.by[at].1 += 1;
                let ahead = told.by[at].1 > told.times;
                if ahead {
                    (told.times, told.at) = (told.by[at].1, now);
                }
                ahead
            }
            Some(told) => {
                *told = Told { at: now, times: 1, by: vec![(link, 1)] };
                true
            }
            None => {
                self.told.insert(event, Told { at: now, times: 1, by: vec![(link, 1)] });
                self.order.push_back(event);
                if self.order.len() > REMEMBERED_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.told.remove(&oldest);
                }
                true
            }
        }
    }

    /// The link has ended: what it had yet to tell it will not, so others need not wait for it. An
    /// event told twice is better than one that is not told.
    pub(super) fn forget(&mut self, link: u64) {
        for told in self.told.values_mut() {
            told.by.retain(|(other, _)| *other != link);
            told.times = told.by.iter().map(|(_, times)| *times).max().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use waybill_wire::code::Event;

    use super::*;

    const SOURCE: Source = (8, 0, 7, 70);

    /// UP-13.
    #[test]
    fn a_copy_is_answered_as_the_first_is() {
        let mut recent = RecentUplinks::default();
        let key = (8, 1);
        assert!(recent.is_new(key, SOURCE));
        assert_eq!(recent.offer(key, SOURCE, 'a'), Offered::New);
        assert_eq!(recent.offer(key, SOURCE, 'b'), Offered::Waits);
        assert_eq!(recent.offer((8, 2), SOURCE, 'c'), Offered::New, "another message");
        assert_eq!(recent.answer(key, ErrorCode::EXPIRED), ['a', 'b']);
        assert_eq!(recent.offer(key, SOURCE, 'd'), Offered::Answered(ErrorCode::EXPIRED, 'd'));
        assert!(!recent.is_new(key, SOURCE) && recent.answer(key, ErrorCode(0)).is_empty());
    }

    /// UP-14.
    #[test]
    fn promise_2_an_uplink_that_others_have_passed_is_not_handed_out() {
        let mut recent = RecentUplinks::default();
        assert_eq!(recent.offer((8, 5), SOURCE, 'a'), Offered::New);
        let lost = |place| Offered::Answered(ErrorCode::CONSUMER_LOST, place);
        assert!(!recent.is_new((8, 4), SOURCE));
        assert_eq!(recent.offer((8, 4), SOURCE, 'b'), lost('b'));
        assert_eq!(recent.offer((8, 6), SOURCE, 'c'), Offered::New);
        assert_eq!(recent.offer((8, 4), (8, 0, 7, 71), 'd'), Offered::New, "another connection");
        assert_eq!(recent.offer((9, 4), (9, 0, 7, 70), 'e'), Offered::New, "another gateway");
        recent.answer((8, 5), ErrorCode(0));
        recent.answer((8, 6), ErrorCode(0));
        assert_eq!(recent.offer((8, 3), SOURCE, 'f'), lost('f'), "the memory outlives answers");
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut recent = RecentUplinks::default();
        let count = REMEMBERED_MAX as u64 + 10;
        for sequence in 0..count {
            let source = (8, 0, sequence / 2, 70);
            recent.offer((8, sequence), source, ());
            recent.answer((8, sequence), ErrorCode(0));
        }
        assert_eq!(recent.known.len(), REMEMBERED_MAX);
        assert_eq!(recent.last.len(), REMEMBERED_MAX / 2);
        let fresh = (8, 1, 1, 1);
        assert!(recent.is_new((8, 9), fresh) && !recent.is_new((8, 10), fresh));
        let mut recent = RecentPresence::default();
        for uid in 0..count {
            recent.is_new(Instant::now(), 1, event(Event::LOGIN, uid));
        }
        assert_eq!(recent.told.len(), REMEMBERED_MAX);
    }

    fn event(event: Event, uid: u64) -> PresenceEvent {
        PresenceEvent { event, namespace: 0, uid, device_class: 0, login: 0, gateway: 9 }
    }

    #[test]
    fn what_each_broker_tells_is_told_once_each_time_it_happens() {
        let mut recent = RecentPresence::default();
        let now = Instant::now();
        let mut told = |link, what| recent.is_new(now, link, event(what, 7));
        // Link 1 is ahead by a login, a logout and a login.
        assert!(told(1, Event::LOGIN) && told(1, Event::LOGOUT) && told(1, Event::LOGIN));
        assert!(!told(2, Event::LOGIN) && !told(2, Event::LOGOUT) && !told(2, Event::LOGIN));
        assert!(told(2, Event::LOGOUT), "now link 2 is ahead");
        assert!(!told(1, Event::LOGOUT));
        let later = now + APART_MAX + Duration::from_millis(1);
        assert!(recent.is_new(later, 2, event(Event::LOGIN, 7)), "nobody is that late");
    }

    #[test]
    fn a_link_that_ended_keeps_nothing_back() {
        let mut recent = RecentPresence::default();
        let now = Instant::now();
        assert!(recent.is_new(now, 1, event(Event::LOGIN, 7)));
        recent.forget(1);
        assert!(recent.is_new(now, 2, event(Event::LOGIN, 7)));
        assert!(!recent.is_new(now, 3, event(Event::LOGIN, 7)));
    }
}
