//! The slots of a table: which are open, in which state, and what each holds in number.
//!
//! Changes are rare and go through one lock. Queries read a view, which is replaced as a whole: a
//! swap of two slots is one step to them.
//!
//! Invariants: `dead` lists the dead slots once each, in the order they died; no incarnation has
//! two slots that are live or suspended; the view says what the entries say.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::slot::Step;
use crate::sync::{ArcSwap, AtomicUsize, Guard, Mutex, MutexGuard};
use crate::{Counts, Incarnation, Slot, SlotError, SlotState};

/// Every slot a table may have.
#[derive(Debug)]
pub(crate) struct Slots {
    max: u32,
    inner: Mutex<Inner>,
    view: ArcSwap<SlotsView>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    entries: Vec<Entry>,
    dead: VecDeque<u32>,
}

/// One slot index. `state` is `None` while it is free.
#[derive(Clone, Debug)]
struct Entry {
    /// Slots that died here: the generation of the one that is open, or of the next to open.
    generation: u64,
    incarnation: Incarnation,
    state: Option<SlotState>,
    /// Whether tags were agreed on.
    tagged: bool,
    /// Whether some of its tags are not kept, so that each counts as declared.
    every_tag: bool,
    holds: Arc<Holds>,
}

/// What a slot registered, in number; and who registers just now.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    pub(crate) routes: AtomicUsize,
    /// Tags that are kept.
    pub(crate) tags: AtomicUsize,
    /// Tags that are not kept; changed by who holds `writing`.
    pub(crate) unkept: AtomicUsize,
    /// Held while changes are applied, so that a sweep does not begin before they are.
    pub(crate) writing: Mutex<()>,
}

/// A slot that is not free.
pub(crate) struct Listed {
    pub(crate) slot: Slot,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: SlotState,
    pub(crate) agreed_on_tags: bool,
    pub(crate) holds: Arc<Holds>,
}

/// What a slot is, as a value.
pub(crate) type Standing = (u64, Incarnation, Option<SlotState>, bool, usize);

/// The slots at one moment.
#[derive(Debug, Default)]
pub(crate) struct SlotsView {
    /// Of each index.
    generations: Vec<u64>,
    /// Of each 64 of them.
    words: Vec<Word>,
}

/// 64 slots, a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Word {
    /// It answers.
    pub(crate) live: u64,
    /// It answers, and tags are agreed on.
    pub(crate) tagged: u64,
    /// Each tag counts as declared by it.
    pub(crate) every_tag: u64,
}

impl SlotsView {
    /// Whether the slot at this index answers.
    #[inline]
    pub(crate) fn is_live(&self, index: u16) -> bool {
        let (word, bit) = (usize::from(index) / 64, index % 64);
        self.words.get(word).is_some_and(|word| word.live >> bit & 1 != 0)
    }

    /// The slot at an index.
    pub(crate) fn slot(&self, index: u16) -> Slot {
        Slot::new(index.into(), self.generations[usize::from(index)])
    }

    /// Every live slot, in rising order of index.
    pub(crate) fn live(&self) -> impl Iterator<Item = Slot> + '_ {
        let indices = (0..self.generations.len()).filter_map(|index| u16::try_from(index).ok());
        indices.filter(|index| self.is_live(*index)).map(|index| self.slot(index))
    }

    /// 64 slots; nobody, where there are none.
    #[inline]
    pub(crate) fn word(&self, word: usize) -> Word {
        self.words.get(word).copied().unwrap_or_default()
    }

    /// How many answer, or only those with which tags are agreed on.
    pub(crate) fn count(&self, tagged: bool) -> u64 {
        let words = self.words.iter().map(|word| if tagged { word.tagged } else { word.live });
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// Indices there are.
    pub(crate) fn len(&self) -> usize {
        self.generations.len()
    }
}

impl Slots {
    pub(crate) fn new(max: u32) -> Self {
        Self { max, inner: Mutex::default(), view: ArcSwap::default() }
    }

    /// As of now.
    #[inline]
    pub(crate) fn view(&self) -> Guard<Arc<SlotsView>> {
        self.view.load()
    }

    pub(crate) fn open(&self, incarnation: Incarnation) -> Result<Slot, SlotError> {
        let mut inner = self.lock();
        let free = inner.entries.iter().position(|entry| entry.state.is_none());
        let at = match free {
            Some(at) => at,
            None => {
                let limit = self.max;
                if inner.entries.len() >= limit as usize {
                    return Err(SlotError::SlotsFull { limit });
                }
                inner.entries.push(Entry {
                    generation: 0,
                    incarnation,
                    state: None,
                    tagged: false,
                    every_tag: false,
                    holds: Arc::default(),
                });
                inner.entries.len() - 1
            }
        };
        let entry = &mut inner.entries[at];
        (entry.incarnation, entry.state) = (incarnation, Some(SlotState::Filling));
        let slot = Slot::new(number(at), entry.generation);
        self.publish(&inner);
        Ok(slot)
    }

    pub(crate) fn go_live(&self, slot: Slot, replaces: Option<Slot>) -> Result<(), SlotError> {
        let mut inner = self.lock();
        let incarnation = inner.entry(slot)?.incarnation;
        let state = inner.state(slot).after(Step::GoLive)?;
        // One that died in the meantime is replaced already: what is asked for holds.
        let replaced = replaces.filter(|older| inner.state(*older) != SlotState::Dead);
        if let Some(older) = replaced {
            if older == slot {
                return Err(SlotError::ReplacesItself);
            }
            if inner.entry(older)?.incarnation != incarnation {
                return Err(SlotError::OtherIncarnation);
            }
        }
        match inner.standing(incarnation) {
            Some(standing) if Some(standing) != replaced => {
                return Err(SlotError::NotReplaced { standing });
            }
            _ => {}
        }
        if let Some(older) = replaced {
            inner.kill(older)?;
        }
        inner.entries[slot.index()].state = Some(state);
        self.publish(&inner);
        Ok(())
    }

    pub(crate) fn step(&self, slot: Slot, step: Step) -> Result<(), SlotError> {
        let mut inner = self.lock();
        match step {
            Step::Kill => inner.kill(slot)?,
            step => inner.step(slot, step)?,
        }
        self.publish(&inner);
        Ok(())
    }

    /// Whether tags are agreed on with the gateway of a slot.
    pub(crate) fn agree_on_tags(&self, slot: Slot, agreed: bool) -> Result<(), SlotError> {
        self.mark(slot, |entry| std::mem::replace(&mut entry.tagged, agreed) != agreed)
    }

    /// Whether each tag counts as declared by a slot.
    pub(crate) fn count_every_tag(&self, slot: Slot, every: bool) -> Result<(), SlotError> {
        self.mark(slot, |entry| std::mem::replace(&mut entry.every_tag, every) != every)
    }

    /// Changes what a slot is marked with; `change` says whether it did.
    fn mark(&self, slot: Slot, change: impl FnOnce(&mut Entry) -> bool) -> Result<(), SlotError> {
        let mut inner = self.lock();
        if inner.state(slot) == SlotState::Dead {
            return Err(SlotError::Dead);
        }
        if change(&mut inner.entries[slot.index()]) {
            self.publish(&inner);
        }
        Ok(())
    }

    /// What a slot holds, for who applies changes to it.
    pub(crate) fn holds(&self, slot: Slot) -> Result<Arc<Holds>, SlotError> {
        Ok(Arc::clone(&self.lock().entry(slot)?.holds))
    }

    /// The dead slots, oldest death first, with what they hold.
    pub(crate) fn dead(&self) -> Vec<(u16, Arc<Holds>)> {
        let inner = self.lock();
        let dead = inner.dead.iter().map(|at| {
            let index = u16::try_from(*at).expect("as many slots as a route can name");
            (index, Arc::clone(&inner.entries[*at as usize].holds))
        });
        dead.collect()
    }

    /// Whether there is a dead slot.
    pub(crate) fn has_dead(&self) -> bool {
        !self.lock().dead.is_empty()
    }

    /// The slots that are suspended, with what they hold.
    pub(crate) fn suspended(&self) -> Vec<(u16, Arc<Holds>)> {
        let inner = self.lock();
        let suspended = inner.entries.iter().zip(0..).filter_map(|(entry, index)| {
            let is_suspended = entry.state == Some(SlotState::Suspended);
            is_suspended.then(|| (index, Arc::clone(&entry.holds)))
        });
        suspended.collect()
    }

    /// Those that are not free, in rising order of index; a dead one by the handle it had.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let inner = self.lock();
        let listed = inner.entries.iter().enumerate().filter_map(|(at, entry)| {
            let state = entry.state?;
            let died = u64::from(state == SlotState::Dead);
            Some(Listed {
                slot: Slot::new(number(at), entry.generation - died),
                incarnation: entry.incarnation,
                state,
                agreed_on_tags: entry.tagged,
                holds: Arc::clone(&entry.holds),
            })
        });
        listed.collect()
    }

    /// The same again, while nobody changes anything.
    pub(crate) fn copy(&self) -> Self {
        let mut inner = self.lock().clone();
        for entry in &mut inner.entries {
            let [routes, tags, unkept] =
                [&entry.holds.routes, &entry.holds.tags, &entry.holds.unkept]
                    .map(|number| AtomicUsize::new(number.load(Ordering::Acquire)));
            entry.holds = Arc::new(Holds { routes, tags, unkept, writing: Mutex::default() });
        }
        let view = ArcSwap::new(self.view.load_full());
        Self { max: self.max, inner: Mutex::new(inner), view }
    }

    /// Every slot there was and is, and the dead ones in the order they died.
    pub(crate) fn content(&self) -> (Vec<Standing>, Vec<u32>) {
        let inner = self.lock();
        let standing = |entry: &Entry| {
            let unkept = entry.holds.unkept.load(Ordering::Acquire);
            (entry.generation, entry.incarnation, entry.state, entry.tagged, unkept)
        };
        (inner.entries.iter().map(standing).collect(), inner.dead.iter().copied().collect())
    }

    /// The indices of dead slots can be opened again; nothing of them is left.
    pub(crate) fn free(&self, indices: &[u16]) {
        let mut inner = self.lock();
        for index in indices {
            let entry = &mut inner.entries[usize::from(*index)];
            assert_eq!(entry.state, Some(SlotState::Dead), "only the dead are swept");
            (entry.state, entry.holds) = (None, Arc::default());
            (entry.tagged, entry.every_tag) = (false, false);
        }
        inner.dead.retain(|at| !indices.iter().any(|index| u32::from(*index) == *at));
        self.publish(&inner);
    }

    pub(crate) fn state(&self, slot: Slot) -> SlotState {
        self.lock().state(slot)
    }

    pub(crate) fn standing(&self, incarnation: Incarnation) -> Option<Slot> {
        self.lock().standing(incarnation)
    }

    /// What there is, but the number of all routes.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.lock().entries {
            match entry.state {
                None => {}
                Some(SlotState::Filling) => counts.slots_filling += 1,
                Some(SlotState::Live) => counts.slots_live += 1,
                Some(SlotState::Suspended) => counts.slots_suspended += 1,
                Some(SlotState::Dead) => {
                    counts.slots_dead += 1;
                    counts.routes_dead += entry.holds.routes.load(Ordering::Relaxed);
                    counts.declared_dead += entry.holds.tags.load(Ordering::Relaxed);
                }
            }
            counts.declared += entry.holds.tags.load(Ordering::Relaxed);
            counts.unkept += entry.holds.unkept.load(Ordering::Relaxed);
        }
        counts
    }

    /// Panics unless the invariants of this file hold, and slots have so many routes and tags.
    pub(crate) fn invariants(&self, routes: &BTreeMap<u16, usize>, tags: &BTreeMap<u16, usize>) {
        let inner = self.lock();
        assert!(inner.entries.len() <= self.max as usize);
        for (at, entry) in (0..).zip(&inner.entries) {
            let index = u16::try_from(at).expect("as many slots as a route can name");
            let held = entry.holds.routes.load(Ordering::Relaxed);
            assert_eq!(held, routes.get(&index).copied().unwrap_or(0));
            let declared = entry.holds.tags.load(Ordering::Relaxed);
            assert_eq!(declared, tags.get(&index).copied().unwrap_or(0));
            assert!(entry.state.is_some() || declared == 0);
            let dead = entry.state == Some(SlotState::Dead);
            assert_eq!(inner.dead.iter().filter(|dead| **dead == at).count(), usize::from(dead));
            assert!(entry.state.is_some() || held == 0);
            let live = entry.state == Some(SlotState::Live);
            assert_eq!(self.view().is_live(index), live);
            let unkept = entry.holds.unkept.load(Ordering::Relaxed);
            let dead_or_free = dead || entry.state.is_none();
            assert!(dead_or_free || entry.every_tag == (unkept > 0));
            if matches!(entry.state, Some(SlotState::Live | SlotState::Suspended)) {
                let standing = inner.standing(entry.incarnation);
                assert_eq!(standing, Some(Slot::new(at, entry.generation)));
            }
        }
    }

    fn publish(&self, inner: &Inner) {
        let mut words = vec![Word::default(); inner.entries.len().div_ceil(64)];
        for (at, entry) in inner.entries.iter().enumerate() {
            let is_live = entry.state == Some(SlotState::Live);
            let Word { live, tagged, every_tag } = &mut words[at / 64];
            *live |= u64::from(is_live) << (at % 64);
            *tagged |= u64::from(is_live && entry.tagged) << (at % 64);
            *every_tag |= u64::from(entry.every_tag) << (at % 64);
        }
        let generations = inner.entries.iter().map(|entry| entry.generation).collect();
        let view = SlotsView { generations, words };
        self.view.store(Arc::new(view));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no invariant broke in an earlier call")
    }
}

impl Inner {
    fn kill(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.step(slot, Step::Kill)?;
        self.entries[slot.index()].generation += 1;
        self.dead.push_back(slot.number());
        Ok(())
    }

    fn step(&mut self, slot: Slot, step: Step) -> Result<(), SlotError> {
        self.entry(slot)?;
        let state = self.state(slot).after(step)?;
        self.entries[slot.index()].state = Some(state);
        Ok(())
    }

    /// The entry a handle names, unless its generation is over or it is not from this table.
    fn entry(&self, slot: Slot) -> Result<&Entry, SlotError> {
        let entry = self.entries.get(slot.index()).ok_or(SlotError::Dead)?;
        let open = entry.generation == slot.generation() && entry.state.is_some();
        if open { Ok(entry) } else { Err(SlotError::Dead) }
    }

    fn state(&self, slot: Slot) -> SlotState {
        self.entry(slot).ok().and_then(|entry| entry.state).unwrap_or(SlotState::Dead)
    }

    fn standing(&self, incarnation: Incarnation) -> Option<Slot> {
        let stands = |entry: &Entry| {
            matches!(entry.state, Some(SlotState::Live | SlotState::Suspended))
                && entry.incarnation == incarnation
        };
        let at = self.entries.iter().position(stands)?;
        Some(Slot::new(number(at), self.entries[at].generation))
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("there are at most as many slots as their limit, a u32")
}
