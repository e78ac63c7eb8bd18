//! Handing one message to connections in parts, so that the largest audience does not keep others
//! waiting (SEC-24).
//!
//! A message whose audience fits into its part is handed out at once, with marks in the slots. A
//! longer one is a [`Walk`]: it remembers where it has come to by what nobody else can move, UIDs
//! and indices, and asks again at each part who is there.
//!
//! Between two parts connections come and go. Each is judged once, at the part that meets it: one
//! that was confirmed after the message came counts as not ready, since the memory of recent
//! messages says that it was not there (promise 3); one that came into the place of another is met
//! there for the first time, or not at all.

use slab::Slab;
use waybill_client::gateway::Registration;
use waybill_routing::{Namespace, Uid};

use super::{Audience, Hub, MessageId, Met, Slot, Tally, member};
use crate::recent::Served;
use crate::tags::Selected;

/// Connections that tags name and that are looked through at once to find who matches: 0.4 ms of
/// them. A selector whose tags name more is asked of each connection, a part at a time.
pub(super) const FOUND_MAX: usize = 1 << 14;

/// A message that has not been handed out to all it is for.
#[derive(Debug)]
pub struct Walk {
    course: Course,
    /// UIDs it is not for, rising.
    except: Box<[u64]>,
    /// The hub's `rank` when it came.
    rank: u64,
    repeat: Option<Served>,
}

/// What is still to be met, each once.
#[derive(Debug)]
enum Course {
    /// Connections of the namespace, from this index on.
    All { from: u32 },
    /// Indices and serials of those that match, from this place on.
    Found { found: Vec<(u32, u64)>, at: usize },
    /// Listed UIDs, rising, from this place on.
    Listed { rest: Vec<u64>, at: usize },
}

/// By what a connection is judged.
#[derive(Clone, Copy)]
struct Rules<'a> {
    namespace: u32,
    selected: Option<Selected<'a>>,
    rank: u64,
    repeat: Option<&'a Served>,
}

impl Rules<'_> {
    /// What a connection is to the message, `None` if it is not addressed at all. `uid` is the
    /// target the directory was asked for, `None` for everyone.
    fn judge<'s, H>(
        &self,
        slot: &'s Slot<H>,
        member: u32,
        uid: Option<u64>,
        is_excluded: bool,
    ) -> Option<Met<'s, H>> {
        let Registration { namespace, uid: own, .. } = slot.registration;
        // Promise 1, at the last place that could break it: what the slot says of itself decides.
        if namespace != self.namespace || uid.is_some_and(|uid| uid != own) {
            debug_assert!(false, "the directory and the slots disagree");
            return None;
        }
        let matches = self.selected.is_none_or(|selected| selected.matches(member));
        if !matches && uid.is_none() {
            // Not addressed at all (SEL-8, DEL-11).
            return None;
        }
        let is_ready = slot.rank > 0 && slot.rank <= self.rank;
        Some(match self.repeat {
            _ if is_excluded => Met::Filtered,
            _ if !is_ready => Met::Unready,
            _ if !matches => Met::Filtered,
            Some(served) if served.had(own, slot.rank) => Met::Repeated,
            _ => Met::Connection(&slot.handle),
        })
    }
}

impl Tally {
    fn count<H>(&mut self, met: &Met<'_, H>) {
        let count = match met {
            Met::Connection(_) => &mut self.served,
            Met::Filtered => &mut self.filtered,
            Met::Repeated => &mut self.repeated,
            Met::Unready => &mut self.unready,
            Met::Missed => &mut self.missed,
        };
        *count += 1;
    }
}

/// One part of a message going over the slots.
struct Visit<'a, H, M> {
    slots: &'a mut Slab<Slot<H>>,
    rules: Rules<'a>,
    tally: Tally,
    left: &'a mut usize,
    meet: M,
}

impl<H, M: FnMut(u64, Met<'_, H>)> Visit<'_, H, M> {
    /// As [`Rules::judge`] has it; `is_excluded` sees index and slot.
    fn meet(
        &mut self,
        member: u32,
        uid: Option<u64>,
        is_excluded: impl FnOnce(u32, &Slot<H>) -> bool,
    ) {
        *self.left = self.left.saturating_sub(1);
        let slot = &self.slots[member as usize];
        if let Some(met) = self.rules.judge(slot, member, uid, is_excluded(member, slot)) {
            self.tally.count(&met);
            (self.meet)(slot.registration.uid, met);
        }
    }

    /// The same, of a connection that this message may have met already.
    fn meet_once(&mut self, member: u32, uid: Option<u64>, marks: Marks) {
        let slot = &mut self.slots[member as usize];
        let mark = std::mem::replace(&mut slot.mark, marks.touched);
        if mark != marks.touched {
            self.meet(member, uid, |_, _| mark == marks.excluded);
        }
    }

    fn missed(&mut self, uid: u64) {
        *self.left = self.left.saturating_sub(1);
        self.tally.missed += 1;
        (self.meet)(uid, Met::Missed);
    }
}

/// What a message that is handed out at once leaves in the slots.
#[derive(Clone, Copy)]
struct Marks {
    excluded: u64,
    touched: u64,
}

impl Walk {
    /// Whether nobody is left to be met.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.course {
            Course::All { from } => *from == u32::MAX,
            Course::Found { found, at } => *at == found.len(),
            Course::Listed { rest, at } => *at == rest.len(),
        }
    }
}

impl<H> Hub<H> {
    /// Takes a message up and remembers its id. Gives `meet` each connection in the audience once,
    /// those of one listed UID one after another, and each listed UID that nobody has; with their
    /// UIDs. `left` is how many connections and UIDs may be looked at, less those that were: what
    /// is beyond, except for a user's last connections, is for [`go_on`](Self::go_on).
    pub fn begin(
        &mut self,
        id: MessageId,
        audience: &Audience<'_>,
        left: &mut usize,
        meet: impl FnMut(u64, Met<'_, H>),
    ) -> (Tally, Option<Walk>) {
        // RESEND is not asked: a copy sent again through one broker may overtake the first, which
        // then comes by another and without the flag (DEL-7).
        let key = (audience.namespace, id);
        // A connection that did not match when the first copy came counts as served by it: that was
        // when the message was judged (SEL-6).
        let repeat = self.recent.note(key, self.rank, audience.everyone, audience.listed);
        let course = match audience.everyone {
            true => self.course_of_all(audience, *left),
            false => {
                let is_long = audience.listed.len() + audience.except.len() > *left;
                is_long.then(|| Course::Listed { rest: sorted(audience.listed.iter()), at: 0 })
            }
        };
        let Some(course) = course else { return self.at_once(audience, repeat, left, meet) };
        let except = sorted(audience.except.iter()).into_boxed_slice();
        let mut walk = Walk { course, except, rank: self.rank, repeat };
        let tally = self.go_on(&mut walk, audience, left, meet);
        (tally, (!walk.is_done()).then_some(walk))
    }

    /// The way of a message to everyone, or everyone that matches, if it takes more than one part.
    fn course_of_all(&mut self, audience: &Audience<'_>, left: usize) -> Option<Course> {
        let namespace = Namespace(audience.namespace);
        let selected = audience.selector.map(|selector| self.tags.select(namespace, selector));
        let asked = selected.and_then(Selected::asked);
        let all = self.directory.holders(namespace);
        if audience.except.len() + asked.unwrap_or(all) <= left {
            return None;
        }
        let few = selected.filter(|_| asked.is_some_and(|asked| asked <= FOUND_MAX));
        let Some(matching) = few.and_then(Selected::matching) else {
            return Some(Course::All { from: 0 });
        };
        let found = matching.map(|member| (member, self.slots[member as usize].serial)).collect();
        Some(Course::Found { found, at: 0 })
    }

    fn at_once(
        &mut self,
        audience: &Audience<'_>,
        repeat: Option<Served>,
        left: &mut usize,
        meet: impl FnMut(u64, Met<'_, H>),
    ) -> (Tally, Option<Walk>) {
        self.message += 1;
        let marks = Marks { excluded: self.message * 2, touched: self.message * 2 + 1 };
        let namespace = Namespace(audience.namespace);
        for uid in audience.except.iter() {
            for member in self.directory.members(namespace, Uid(uid)) {
                self.slots[*member as usize].mark = marks.excluded;
            }
        }
        if let Some(index) = self.excepted_self(audience) {
            self.slots[index].mark = marks.excluded;
        }
        *left = left.saturating_sub(audience.except.len());
        let selected = audience.selector.map(|selector| self.tags.select(namespace, selector));
        let matching = selected.filter(|_| audience.everyone).and_then(Selected::matching);
        let rules = Rules {
            namespace: audience.namespace,
            selected: selected.filter(|_| matching.is_none()),
            rank: self.rank,
            repeat: repeat.as_ref(),
        };
        let slots = &mut self.slots;
        let mut visit = Visit { slots, rules, tally: Tally::default(), left, meet };
        if let Some(matching) = matching {
            matching.for_each(|member| visit.meet_once(member, None, marks));
            return (visit.tally, None);
        }
        if audience.everyone {
            let all = self.directory.all(namespace);
            all.for_each(|member| visit.meet_once(member, None, marks));
            return (visit.tally, None);
        }
        let mut rest = None;
        for (at, uid) in audience.listed.iter().enumerate() {
            if *visit.left == 0 {
                rest = Some(at);
                break;
            }
            let members = self.directory.members(namespace, Uid(uid));
            if members.is_empty() {
                visit.missed(uid);
            }
            members.iter().for_each(|member| visit.meet_once(*member, Some(uid), marks));
        }
        let (tally, rank) = (visit.tally, self.rank);
        let walk = rest.map(|at| {
            let met = sorted(audience.listed.iter().take(at));
            let mut rest = sorted(audience.listed.iter().skip(at));
            rest.retain(|uid| met.binary_search(uid).is_err());
            let except = sorted(audience.except.iter()).into_boxed_slice();
            Walk { course: Course::Listed { rest, at: 0 }, except, rank, repeat }
        });
        (tally, walk)
    }

    /// Another part of a message; as [`begin`](Self::begin). `audience` is what it was then.
    /// Whether it was the last is for [`is_done`](Walk::is_done) to say.
    pub fn go_on(
        &mut self,
        walk: &mut Walk,
        audience: &Audience<'_>,
        left: &mut usize,
        meet: impl FnMut(u64, Met<'_, H>),
    ) -> Tally {
        let namespace = Namespace(audience.namespace);
        let except_self = self.excepted_self(audience).map(member);
        let Walk { course, except, rank, repeat } = walk;
        let selector = audience.selector.filter(|_| !matches!(course, Course::Found { .. }));
        let rules = Rules {
            namespace: audience.namespace,
            selected: selector.map(|selector| self.tags.select(namespace, selector)),
            rank: *rank,
            repeat: repeat.as_ref(),
        };
        let is_excluded = |member: u32, slot: &Slot<H>| {
            except_self == Some(member) || except.binary_search(&slot.registration.uid).is_ok()
        };
        let slots = &mut self.slots;
        let mut visit = Visit { slots, rules, tally: Tally::default(), left, meet };
        match course {
            Course::All { from } => {
                let mut rest = self.directory.all_from(namespace, *from);
                *from = loop {
                    // A connection's index is far below.
                    let Some(member) = rest.next() else { break u32::MAX };
                    if *visit.left == 0 {
                        break member;
                    }
                    visit.meet(member, None, is_excluded);
                };
            }
            Course::Found { found, at } => {
                while *visit.left > 0
                    && let Some((member, serial)) = found.get(*at)
                {
                    *at += 1;
                    let slot = visit.slots.get(*member as usize);
                    if slot.is_some_and(|slot| slot.serial == *serial) {
                        visit.meet(*member, None, is_excluded);
                    }
                }
            }
            Course::Listed { rest, at } => {
                while *visit.left > 0
                    && let Some(uid) = rest.get(*at)
                {
                    *at += 1;
                    let members = self.directory.members(namespace, Uid(*uid));
                    if members.is_empty() {
                        visit.missed(*uid);
                    }
                    members.iter().for_each(|it| visit.meet(*it, Some(*uid), is_excluded));
                }
            }
        }
        visit.tally
    }

    /// Index of the connection that EXCEPT_SELF names, if that is here and the user's.
    fn excepted_self(&self, audience: &Audience<'_>) -> Option<usize> {
        let (uid, connection) = audience.except_self?;
        let index = self.index(connection)?;
        let Registration { namespace, uid: own, .. } = self.slots[index].registration;
        ((namespace, own) == (audience.namespace, uid)).then_some(index)
    }
}

/// Each once, rising.
fn sorted(uids: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut sorted: Vec<u64> = uids.collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}
