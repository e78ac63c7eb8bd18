//! Which waiting frame a new one with a conflation key replaces (DEL-21, DEL-22, DEL-36).
//!
//! A frame is for one user alone, or it is *wide*: for a list, for everyone, or narrowed by more.
//! Two that are for one user each concern the same user or none in common. A wide one may concern
//! whomever another is for, so that nothing of its key is put ahead of it, nor it ahead of anything
//! of its key. What is kept are positions alone; whether the frames agree is asked of their bytes.

use std::collections::HashMap;

use waybill_wire::Frame;
use waybill_wire::code::Class;
use waybill_wire::message::Message;

use super::lane::Lane;
use crate::limits::CONFLATION_KEYS_MAX;

/// Where the last frames of each key lie in a lane. Invariant: nothing before `floor` is replaced,
/// and whatever has a key and lies behind it is known.
#[derive(Debug)]
pub(super) struct Keys {
    spots: HashMap<Key, Spot>,
    floor: u64,
    most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Namespace and key, whomever it is for.
    Any(u32, u64),
    /// The same, for one user.
    One(u32, u64, u64),
}

/// Bytes of one, for which the map has room: a key, a place, a byte, and an eighth more.
const SPOT_BYTES: usize = (size_of::<(Key, Spot)>() + 1) * 8 / 7 + 1;

/// Those whose room is kept while nothing waits.
const KEPT: usize = 1024;

/// Positions in a lane; 0 is before all of them.
#[derive(Clone, Copy, Debug, Default)]
struct Spot {
    last: u64,
    wide: u64,
}

impl Default for Keys {
    fn default() -> Self {
        Self { spots: HashMap::new(), floor: 0, most: CONFLATION_KEYS_MAX }
    }
}

/// A frame with a key.
struct Keyed<'a> {
    message: Message<'a>,
    key: u64,
    // The user, if it is for one alone.
    one: Option<u64>,
}

impl<'a> Keyed<'a> {
    fn of(frame: &'a [u8]) -> Option<Self> {
        let Ok(Frame::Deliver(message)) = Frame::decode(frame) else { return None };
        let key = message.conflate?;
        let is_bare = message.selector.is_none()
            && message.except.is_empty()
            && !message.except_self
            && message.targets.len() == 1;
        let one = message.targets.iter().next().filter(|_| is_bare);
        Some(Self { message, key, one })
    }

    fn any(&self) -> Key {
        Key::Any(self.message.namespace, self.key)
    }

    fn may_conflate(&self) -> bool {
        let Message { class, part, fragmented, .. } = self.message;
        class == Class::LIVE && part.is_none() && fragmented.is_none()
    }

    fn is_replaced_by(&self, new: &Self) -> bool {
        let (old, it) = (&self.message, &new.message);
        // Of SENDER the audience has only what EXCEPT_SELF takes away.
        let except_self = |of: &Message<'a>| of.sender.filter(|_| of.except_self);
        self.may_conflate()
            && (old.namespace, self.key) == (it.namespace, new.key)
            && (old.everyone, old.except_self) == (it.everyone, it.except_self)
            && except_self(old) == except_self(it)
            && old.selector.map(|it| it.bytes()) == it.selector.map(|it| it.bytes())
            && old.except.as_bytes() == it.except.as_bytes()
            && old.targets.as_bytes() == it.targets.as_bytes()
    }
}

impl Keys {
    /// Nothing with a key waits any more.
    pub(super) fn clear(&mut self) {
        if !self.spots.is_empty() {
            self.spots.clear();
            self.spots.shrink_to(KEPT);
        }
    }

    /// Bytes of memory it takes.
    pub(super) fn held(&self) -> usize {
        self.spots.capacity() * SPOT_BYTES
    }

    /// From now on so many are known at most.
    pub(super) fn bound(&mut self, most: usize) {
        self.most = most;
    }

    /// Gives the memory back that is kept for keys to come.
    pub(super) fn trim(&mut self) {
        if self.spots.is_empty() {
            self.spots = HashMap::new();
        }
    }

    /// The place that the frame encoded in the lane's buffer from `before` on should take.
    pub(super) fn place_for(&self, lane: &Lane, before: usize) -> Option<usize> {
        let new = Keyed::of(lane.encoded(before)).filter(Keyed::may_conflate)?;
        let any = self.spots.get(&new.any())?;
        let at = match new.one {
            Some(uid) => {
                let spot = self.spots.get(&Key::One(new.message.namespace, new.key, uid))?;
                Some(spot.last).filter(|&at| at > any.wide)?
            }
            None => any.last,
        };
        let place = lane.place(at).filter(|_| at > self.floor)?;
        Keyed::of(lane.frame(place))?.is_replaced_by(&new).then_some(place)
    }

    /// A frame with a key was put at that position, the last of the lane.
    pub(super) fn put(&mut self, lane: &Lane, at: u64) {
        if self.spots.len() + 2 > self.most {
            self.forget_some(lane, at);
        }
        if let Some(place) = lane.place(at)
            && let Some(keyed) = Keyed::of(lane.frame(place))
        {
            self.insert(&keyed, at);
        }
    }

    fn insert(&mut self, keyed: &Keyed<'_>, at: u64) {
        let any = self.spots.entry(keyed.any()).or_default();
        any.last = at;
        if let Some(uid) = keyed.one {
            let key = Key::One(keyed.message.namespace, keyed.key, uid);
            self.spots.entry(key).or_default().last = at;
        } else {
            any.wide = at;
        }
    }

    /// Forgets those that have left; if most are still there, all, and begins anew.
    fn forget_some(&mut self, lane: &Lane, at: u64) {
        let front = lane.front();
        self.spots.retain(|_, spot| spot.last >= front);
        if self.spots.len() > self.most / 2 {
            self.spots.clear();
            self.floor = at - 1;
        }
        self.spots.shrink_to(self.most);
    }

    /// Positions in the lane are others now.
    pub(super) fn rebuild(&mut self, lane: &Lane) {
        if self.spots.is_empty() {
            return;
        }
        self.spots.clear();
        self.floor = 0;
        for (at, frame) in lane.noted() {
            if let Some(keyed) = Keyed::of(frame) {
                if self.spots.len() + 2 > self.most {
                    self.spots.clear();
                    self.floor = at - 1;
                }
                self.insert(&keyed, at);
            }
        }
    }
}
