//! The broker's rules, over the real route table, logins, digest and registration machine.
//!
//! One step here is one step of a broker: what its shards share is changed under one lock there.

use waybill_routing::{Change, Displaced, Incarnation, Logins, Namespace, Op, Routes, Slot, Uid};
use waybill_routing::{Login, SlotState};
use waybill_wire::Digest;
use waybill_wire::code::ErrorCode;
use waybill_wire::error::Violation;
use waybill_wire::frame::Resume;
use waybill_wire::session::registration::{Filled, Registration};

use crate::frames::{Down, Up, Users, registered};
use crate::scenario::{Rule, Scenario};

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Broker {
    life: u64,
    pub(crate) routes: Routes,
    logins: Logins,
    /// In the order of their HELLOs.
    pub(crate) links: Vec<Served>,
    /// Suspended sessions whose link has ended.
    pub(crate) kept: Vec<Session>,
}

/// A gateway's link after its HELLO.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Served {
    pub(crate) gateway: usize,
    pub(crate) serial: u64,
    pub(crate) registration: Registration,
    pub(crate) session: Session,
    /// The session as it was suspended, while a snapshot comes in instead of RESUME.
    given_up: Option<Session>,
    /// [`Rule::LateRemove`].
    late: Users,
}

/// What a gateway has declared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) incarnation: u64,
    pub(crate) slot: Slot,
    version: u64,
    pub(crate) held: Users,
    digest: Digest,
    /// The oracle's: what the gateway says it had declared at that version.
    pub(crate) all: Users,
}

/// What follows from a frame outside the broker.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// What goes to which link (gateway, serial).
    pub(crate) downs: Vec<(usize, u64, Down)>,
    /// Links that a newer one took over from.
    pub(crate) superseded: Vec<(usize, u64)>,
    pub(crate) displaced: Vec<Displaced>,
    /// The version that IN_EFFECT names.
    pub(crate) in_effect: Option<u64>,
}

type Outcome = Result<(), ErrorCode>;

impl Broker {
    pub(crate) fn new(scenario: &Scenario, life: u64) -> Self {
        Self {
            life,
            routes: Routes::default(),
            logins: Logins::new(scenario.policies.clone()),
            links: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// A new process of the same broker, which knows nothing.
    pub(crate) fn reborn(&self, scenario: &Scenario) -> Self {
        Self::new(scenario, self.life + 1)
    }

    /// A frame came on a link. An error ends the link, and its slot dies.
    pub(crate) fn handle(
        &mut self,
        scenario: &Scenario,
        gateway: usize,
        serial: u64,
        frame: &Up,
        effects: &mut Effects,
    ) -> Outcome {
        let outcome = if let Up::Hello { incarnation, session } = *frame {
            self.hello(scenario, (gateway, serial), incarnation, session, effects);
            Ok(())
        } else {
            let at = self.position(gateway, serial).expect("HELLO came first");
            self.declare_late(scenario, at);
            self.declaration(scenario, at, frame, effects)
        };
        if outcome.is_err() {
            self.refuse(scenario, gateway, serial);
        }
        self.sweep_one();
        outcome
    }

    fn declaration(
        &mut self,
        scenario: &Scenario,
        at: usize,
        frame: &Up,
        effects: &mut Effects,
    ) -> Outcome {
        match *frame {
            Up::Hello { .. } => unreachable!("it is no declaration"),
            Up::Snapshot { first, last, version, records, all } => {
                let mut at = at;
                let resuming = self.links[at].registration.is_resuming();
                let registration = &mut self.links[at].registration;
                let filled = registration.snapshot(first, last, version).map_err(code)?;
                if resuming {
                    self.start_afresh(at);
                }
                if first && scenario.breaks(Rule::GapAtSwap) {
                    at = self.kill_standing(scenario, at, effects);
                }
                self.links[at].session.version = version;
                self.declare(scenario, at, records, Users::default())?;
                if filled == Filled::Complete {
                    self.links[at].session.all = all;
                    let at = self.go_live(scenario, at, effects)?;
                    self.barrier(scenario, at, effects)?;
                }
                Ok(())
            }
            Up::Delta { version, adds, removes, all } => {
                self.links[at].registration.delta(version).map_err(code)?;
                self.links[at].session.version = version;
                self.declare(scenario, at, adds, removes)?;
                self.links[at].session.all = all;
                if self.links[at].registration.is_live() {
                    let Session { slot, .. } = self.links[at].session;
                    self.contend(scenario, slot, adds, effects);
                    self.withdraw(scenario, slot, removes);
                    self.barrier(scenario, at, effects)?;
                }
                Ok(())
            }
            Up::Resume { session, version, all } => {
                self.resume(scenario, at, session, version, all, effects)
            }
            Up::Suspend => {
                self.links[at].registration.suspend().map_err(code)?;
                self.suspend(scenario, at);
                Ok(())
            }
        }
    }

    fn hello(
        &mut self,
        scenario: &Scenario,
        (gateway, serial): (usize, u64),
        incarnation: u64,
        asked: u64,
        effects: &mut Effects,
    ) {
        let same = |kept: &Session| kept.id == asked && kept.incarnation == incarnation;
        let mut found = self.kept.iter().position(same).map(|at| self.kept.remove(at));
        if scenario.breaks(Rule::ResumeWhileOpen)
            && let Some(at) = self.links.iter().position(|link| same(&link.session))
            && self.routes.suspend(self.links[at].session.slot).is_ok()
        {
            let session = self.links[at].session.clone();
            self.withdraw(scenario, session.slot, session.held);
            found = Some(session);
        }
        let (registration, session, answer) = match found {
            Some(session) => {
                let Session { id, version, digest, slot, .. } = session;
                if scenario.breaks(Rule::LiveBeforeResume) {
                    self.routes.resume(slot).expect("it is suspended");
                }
                let answer = Down::Resumed { session: id, version, digest: digest.value() };
                (Registration::resuming(version), session, answer)
            }
            None => {
                let id = 1 + serial + 100 * (gateway as u64 + 10 * self.life);
                let session = Session::new(id, incarnation, self.open(incarnation));
                (Registration::default(), session, Down::Welcome { session: id })
            }
        };
        let (given_up, late) = (None, Users::default());
        self.links.push(Served { gateway, serial, registration, session, given_up, late });
        effects.downs.push((gateway, serial, answer));
    }

    fn resume(
        &mut self,
        scenario: &Scenario,
        at: usize,
        id: u64,
        version: u64,
        all: Users,
        effects: &mut Effects,
    ) -> Outcome {
        let Served { registration, session, .. } = &mut self.links[at];
        let mut frame = Resume { session: id, version, digest: all.digest(&scenario.logins) };
        if scenario.breaks(Rule::StaleDigest) {
            frame.digest = session.digest.value();
        }
        registration.resume(&frame, session.id, session.digest.value()).map_err(code)?;
        session.all = all;
        let Session { slot, held, version, .. } = *session;
        if !scenario.breaks(Rule::LiveBeforeResume) {
            // A snapshot of another link of this life may have replaced it.
            self.routes.resume(slot).map_err(|_| ErrorCode::SUPERSEDED)?;
        }
        self.contend(scenario, slot, held, effects);
        effects.in_effect = Some(version);
        Ok(())
    }

    /// A snapshot instead of RESUME: it fills a fresh slot, the suspended one goes at the swap.
    fn start_afresh(&mut self, at: usize) {
        let Session { id, incarnation, .. } = self.links[at].session;
        let fresh = Session::new(id, incarnation, self.open(incarnation));
        let link = &mut self.links[at];
        link.given_up = Some(std::mem::replace(&mut link.session, fresh));
    }

    /// Where the link is in the list then.
    fn go_live(
        &mut self,
        scenario: &Scenario,
        at: usize,
        effects: &mut Effects,
    ) -> Result<usize, ErrorCode> {
        let Session { slot, incarnation, held, .. } = self.links[at].session;
        let older = self.routes.standing(Incarnation(incarnation));
        let served = |link: &Served| Some(link.session.slot) == older;
        let standing = self.links.iter().position(served);
        if standing.is_some_and(|standing| standing > at) && !scenario.breaks(Rule::OlderWins) {
            return Err(ErrorCode::SUPERSEDED);
        }
        self.routes.go_live(slot, older).map_err(|_| ErrorCode::SUPERSEDED)?;
        self.links[at].given_up = None;
        if scenario.breaks(Rule::AddsBeforeRemoves) {
            self.contend(scenario, slot, held, effects);
        }
        if let Some(standing) = standing {
            let Served { gateway, serial, session, .. } = self.links.remove(standing);
            self.withdraw(scenario, session.slot, session.held);
            effects.superseded.push((gateway, serial));
        }
        if let Some(at) = self.kept.iter().position(|kept| Some(kept.slot) == older) {
            let Session { slot, held, .. } = self.kept.remove(at);
            self.withdraw(scenario, slot, held);
        }
        if !scenario.breaks(Rule::AddsBeforeRemoves) {
            self.contend(scenario, slot, held, effects);
        }
        Ok(if standing.is_some_and(|standing| standing < at) { at - 1 } else { at })
    }

    /// The BARRIER that goes with a declaration, answered by IN_EFFECT.
    fn barrier(&self, scenario: &Scenario, at: usize, effects: &mut Effects) -> Outcome {
        let Served { registration, session, .. } = &self.links[at];
        let Session { version, all, digest, .. } = *session;
        let declared = all.digest(&scenario.logins);
        registration.barrier(version, declared, digest.value()).map_err(code)?;
        effects.in_effect = Some(version);
        Ok(())
    }

    /// Takes registrations in, and routes where a UID has its first or loses its last one.
    fn declare(&mut self, scenario: &Scenario, at: usize, adds: Users, removes: Users) -> Outcome {
        let Served { session, late, .. } = &mut self.links[at];
        let before = session.held;
        let after = before.with(adds).without(removes);
        for index in after.without(before).iter() {
            session.digest.add(registered(scenario.logins[index]));
        }
        for index in before.without(after).iter() {
            session.digest.remove(registered(scenario.logins[index]));
        }
        session.held = after;
        let (comes, mut goes) = (after, before.without(after));
        if scenario.breaks(Rule::LateRemove) {
            *late = late.with(goes).without(after);
            goes = Users::default();
        }
        let slot = session.slot;
        self.apply(scenario, slot, comes, goes, after)
    }

    fn declare_late(&mut self, scenario: &Scenario, at: usize) {
        let late = std::mem::take(&mut self.links[at].late);
        if !late.is_empty() {
            let Session { slot, held, .. } = self.links[at].session;
            let _ = self.apply(scenario, slot, Users::default(), late, held);
        }
    }

    fn apply(
        &mut self,
        scenario: &Scenario,
        slot: Slot,
        comes: Users,
        goes: Users,
        stay: Users,
    ) -> Outcome {
        let uid = |index: usize| scenario.logins[index].uid;
        let stays = |gone: &Uid| stay.iter().any(|index| uid(index) == *gone);
        let adds = comes.iter().map(|index| (Op::Add, uid(index)));
        let removes =
            goes.iter().map(uid).filter(|gone| !stays(gone)).map(|gone| (Op::Remove, gone));
        let changes: Vec<Change> = adds
            .chain(removes)
            .map(|(op, uid)| Change { op, namespace: Namespace(1), uid })
            .collect();
        self.routes.apply(slot, &changes).map(drop).map_err(|_| ErrorCode::SUPERSEDED)
    }

    fn contend(&mut self, scenario: &Scenario, slot: Slot, users: Users, effects: &mut Effects) {
        for index in users.iter() {
            let mut lost = self.logins.add(slot, scenario.contender(index));
            for displaced in &mut lost {
                let login = scenario.seen(displaced.login);
                displaced.login = login;
                displaced.winner =
                    scenario.seen(Login { number: displaced.winner, ..login }).number;
                let holds = |link: &&Served| link.session.slot == displaced.slot;
                if let Some(link) = self.links.iter().find(holds) {
                    let frame = Down::Displaced { login };
                    effects.downs.push((link.gateway, link.serial, frame));
                }
            }
            effects.displaced.extend(lost);
        }
    }

    fn withdraw(&mut self, scenario: &Scenario, slot: Slot, users: Users) {
        users.iter().for_each(|index| self.logins.remove(slot, scenario.contender(index)));
    }

    /// The link ended. What was live, or was to be resumed, is kept for the window.
    pub(crate) fn end(&mut self, scenario: &Scenario, gateway: usize, serial: u64) {
        let Some(at) = self.position(gateway, serial) else { return };
        if scenario.breaks(Rule::EndByIncarnation) {
            let Session { incarnation, .. } = self.links[at].session;
            let standing = self.routes.standing(Incarnation(incarnation));
            let served = |link: &Served| Some(link.session.slot) == standing;
            if let Some(standing) = self.links.iter().position(served) {
                self.suspend(scenario, standing);
            }
        }
        self.suspend(scenario, at);
        let Served { session, given_up, .. } = self.links.remove(at);
        // Before the end of the snapshot: suspended again, as it was (RES-9).
        self.kept.extend(given_up);
        match self.routes.state(session.slot) {
            SlotState::Suspended => self.kept.push(session),
            SlotState::Dead => {}
            _ => self.routes.kill(session.slot).expect("it is not dead"),
        }
        self.sweep_one();
    }

    /// The window of a suspended session is over.
    pub(crate) fn expire(&mut self, scenario: &Scenario, id: u64) {
        let Some(at) = self.kept.iter().position(|kept| kept.id == id) else { return };
        let Session { slot, held, .. } = self.kept.remove(at);
        self.withdraw(scenario, slot, held);
        let _ = self.routes.kill(slot);
        self.sweep_one();
    }

    fn suspend(&mut self, scenario: &Scenario, at: usize) {
        let Session { slot, held, .. } = self.links[at].session;
        if self.routes.suspend(slot).is_ok() && !scenario.breaks(Rule::SuspendedContend) {
            self.withdraw(scenario, slot, held);
        }
    }

    fn refuse(&mut self, scenario: &Scenario, gateway: usize, serial: u64) {
        let Some(at) = self.position(gateway, serial) else { return };
        let Served { session, given_up, .. } = self.links.remove(at);
        self.withdraw(scenario, session.slot, session.held);
        for session in given_up.into_iter().chain([session]) {
            let _ = self.routes.kill(session.slot);
        }
    }

    /// [`Rule::GapAtSwap`]; where the link is in the list then.
    fn kill_standing(&mut self, scenario: &Scenario, at: usize, effects: &mut Effects) -> usize {
        let Session { incarnation, .. } = self.links[at].session;
        let standing = self.routes.standing(Incarnation(incarnation));
        let served = |link: &Served| Some(link.session.slot) == standing;
        let Some(older) = self.links.iter().position(served) else { return at };
        let Served { gateway, serial, session, .. } = self.links.remove(older);
        self.withdraw(scenario, session.slot, session.held);
        self.routes.kill(session.slot).expect("it stands");
        effects.superseded.push((gateway, serial));
        if older < at { at - 1 } else { at }
    }

    /// One step in which a route goes or a slot is free again. What is only looked at is none.
    fn sweep_one(&self) {
        loop {
            let told = self.routes.sweep(1);
            if told.removed + told.freed > 0 || told.slots_left == 0 {
                return;
            }
        }
    }

    fn open(&self, incarnation: u64) -> Slot {
        self.routes.open(Incarnation(incarnation)).expect("there is no lack of slots")
    }

    fn position(&self, gateway: usize, serial: u64) -> Option<usize> {
        self.links.iter().position(|link| (link.gateway, link.serial) == (gateway, serial))
    }

    pub(crate) fn link(&self, gateway: usize, serial: u64) -> Option<&Served> {
        self.position(gateway, serial).map(|at| &self.links[at])
    }
}

impl Served {
    pub(crate) fn is_live(&self) -> bool {
        self.registration.is_live()
    }

    /// Whether it goes on with the session of an earlier link.
    pub(crate) fn has_resumed(&self) -> bool {
        (self.session.id - 1) % 100 != self.serial
    }
}

impl Session {
    fn new(id: u64, incarnation: u64, slot: Slot) -> Self {
        let (version, held, digest, all) =
            (0, Users::default(), Digest::default(), Users::default());
        Self { id, incarnation, slot, version, held, digest, all }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest.value()
    }
}

fn code(violation: Violation) -> ErrorCode {
    violation.code
}
