//! The gateway's rules: what it tells each broker, and what it makes of the answers.

use waybill_routing::Login;

use crate::frames::{Down, Pair, Up, Users};
use crate::scenario::{Rule, Scenario};

/// One gateway: the life of its process, its users, and its end of the link to each broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gateway {
    pub(crate) incarnation: u64,
    pub(crate) users: Users,
    pub(crate) ends: Vec<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) enum Phase {
    #[default]
    Down,
    Greeting,
    Open,
}

/// The gateway's end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct End {
    pub(crate) phase: Phase,
    /// The last session, 0 for none.
    session: u64,
    /// What was declared in that session at each version since the last one known to be in effect.
    told: Vec<(u64, Users)>,
}

impl Gateway {
    pub(crate) fn new(incarnation: u64, brokers: usize) -> Self {
        Self { incarnation, users: Users::default(), ends: vec![End::default(); brokers] }
    }

    /// A new process of the same gateway.
    pub(crate) fn reborn(&self) -> Self {
        Self::new(self.incarnation + 1, self.ends.len())
    }

    pub(crate) fn connect(&mut self, broker: usize, pair: &mut Pair) {
        let end = &mut self.ends[broker];
        end.phase = Phase::Greeting;
        pair.connect(Up::Hello { incarnation: self.incarnation, session: end.session });
    }

    pub(crate) fn disconnect(&mut self, broker: usize, pair: &mut Pair) {
        if let Some(link) = pair.present_mut() {
            link.end_gateway();
        }
        self.ends[broker].phase = Phase::Down;
    }

    /// Users came or went: every open link is told at once.
    pub(crate) fn change(&mut self, adds: Users, removes: Users, pairs: &mut [&mut Pair]) {
        self.users = self.users.with(adds).without(removes);
        for (end, pair) in self.ends.iter_mut().zip(pairs) {
            if end.phase == Phase::Open
                && let Some(link) = pair.present_mut()
            {
                link.send_up(end.delta(self.users));
            }
        }
    }

    /// A frame of the broker; `forget`: it does not use what it could resume from.
    pub(crate) fn receive(
        &mut self,
        scenario: &Scenario,
        broker: usize,
        frame: &Down,
        forget: bool,
        pairs: &mut [&mut Pair],
    ) {
        match *frame {
            Down::Welcome { session } => {
                self.ends[broker].session = session;
                self.snapshot(broker, pairs[broker]);
            }
            Down::Resumed { version, digest, .. } => {
                let known = self.ends[broker].known(scenario, version, digest);
                match known.filter(|_| !forget) {
                    Some(then) => self.resume(broker, version, then, pairs[broker]),
                    None => self.snapshot(broker, pairs[broker]),
                }
            }
            Down::Displaced { login } => {
                if let Some(index) = self.index(scenario, login) {
                    self.change(Users::default(), Users::of(index), pairs);
                }
            }
        }
    }

    /// The connection that is displaced, if it is still here: exactly that registration.
    pub(crate) fn index(&self, scenario: &Scenario, login: Login) -> Option<usize> {
        self.users.iter().find(|index| scenario.logins[*index] == login)
    }

    /// IN_EFFECT: no broker will come back to a version before this one.
    pub(crate) fn in_effect(&mut self, broker: usize, version: u64) {
        self.ends[broker].told.retain(|(told, _)| *told >= version);
    }

    fn snapshot(&mut self, broker: usize, pair: &mut Pair) {
        let (all, version) = (self.users, 1);
        let end = &mut self.ends[broker];
        end.phase = Phase::Open;
        end.told = vec![(version, all)];
        let Some(link) = pair.present_mut() else { return };
        let (records, rest) = all.split();
        let last = rest.is_empty();
        link.send_up(Up::Snapshot { first: true, last, version, records, all });
        if !last {
            link.send_up(Up::Snapshot { first: false, last: true, version, records: rest, all });
        }
    }

    /// Tells what has changed since `version`, where the broker holds `then`.
    fn resume(&mut self, broker: usize, version: u64, then: Users, pair: &mut Pair) {
        let all = self.users;
        let end = &mut self.ends[broker];
        end.phase = Phase::Open;
        // What was sent later was lost; those versions will be given again.
        end.told = vec![(version, then)];
        let Some(link) = pair.present_mut() else { return };
        if all != then {
            link.send_up(end.delta(all));
        }
        let version = end.last().0;
        link.send_up(Up::Resume { session: end.session, version, all });
    }
}

impl End {
    fn last(&self) -> (u64, Users) {
        *self.told.last().expect("an open end has told a snapshot")
    }

    fn delta(&mut self, all: Users) -> Up {
        let (version, then) = self.last();
        self.told.push((version + 1, all));
        let (adds, removes) = (all.without(then), then.without(all));
        Up::Delta { version: version + 1, adds, removes, all }
    }

    /// What was declared at `version`, if the broker's digest says the same.
    fn known(&self, scenario: &Scenario, version: u64, digest: u64) -> Option<Users> {
        if scenario.breaks(Rule::StaleDigest) {
            // It takes the last it told for what the broker holds.
            return self.told.last().map(|(_, users)| *users);
        }
        let (_, users) = self.told.iter().find(|(told, _)| *told == version)?;
        (users.digest(&scenario.logins) == digest).then_some(*users)
    }
}
