//! The world: gateways, brokers and the links between them, and every step that can happen next.

use stateright::{Model, Property};

use crate::broker::{Broker, Effects};
use crate::check::{self, Fault};
use crate::frames::{Down, Pair, Up, Users};
use crate::gateway::{Gateway, Phase};
use crate::part::Part;
use crate::scenario::{Bounds, Scenario};

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct World {
    pub(crate) gateways: Vec<Part<Gateway>>,
    pub(crate) brokers: Vec<Part<Broker>>,
    /// Gateway by gateway, one for each broker.
    pub(crate) pairs: Vec<Part<Pair>>,
    /// Logins that have not come yet, and those that have gone.
    coming: Users,
    gone: Users,
    /// What may still happen.
    left: Bounds,
    pub(crate) fault: Option<Fault>,
}

/// One step. Gateway and broker are by index, a link by its serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Login {
        user: usize,
        gateway: usize,
    },
    Logout {
        user: usize,
        gateway: usize,
    },
    /// A gateway takes in the broker's next frame.
    Receive {
        gateway: usize,
        broker: usize,
    },
    /// The same, but it does not resume.
    Forget {
        gateway: usize,
        broker: usize,
    },
    /// A gateway finds that its link has ended.
    Notice {
        gateway: usize,
        broker: usize,
    },
    /// A broker takes in the next frame of a link.
    Process {
        gateway: usize,
        broker: usize,
        serial: u64,
    },
    /// A broker finds that a link has ended, whatever was still on its way.
    End {
        gateway: usize,
        broker: usize,
        serial: u64,
    },
    /// The window of a suspended session is over.
    Expire {
        broker: usize,
        session: u64,
    },
    /// A link fails, and the gateway finds it first.
    Cut {
        gateway: usize,
        broker: usize,
    },
    /// A link fails, and the broker finds it first.
    CutAtBroker {
        gateway: usize,
        broker: usize,
    },
    /// A gateway leaves with SUSPEND.
    Leave {
        gateway: usize,
        broker: usize,
    },
    /// A gateway's process dies and another begins.
    Die {
        gateway: usize,
    },
    /// A broker's process dies and another begins.
    Restart {
        broker: usize,
    },
}

impl Scenario {
    fn pair(&self, gateway: usize, broker: usize) -> usize {
        gateway * self.brokers + broker
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let brokers = self.brokers;
        (0..self.gateways)
            .flat_map(move |gateway| (0..brokers).map(move |broker| (gateway, broker)))
    }

    fn user_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let untouched =
            world.gone.is_empty() && world.coming.0.count_ones() as usize == self.logins.len();
        let returning = if world.left.returns > 0 { world.gone } else { Users::default() };
        for user in world.coming.with(returning).iter() {
            // Gateways are alike: what begins at another is what begins at the first, renamed.
            let gateways = if untouched { 1 } else { self.gateways };
            actions.extend((0..gateways).map(|gateway| Action::Login { user, gateway }));
        }
        if world.left.logouts > 0 {
            for gateway in 0..self.gateways {
                let users = world.gateways[gateway].users.iter();
                actions.extend(users.map(|user| Action::Logout { user, gateway }));
            }
        }
    }

    /// What happens of itself, sooner or later.
    fn progress(&self, world: &World, actions: &mut Vec<Action>) {
        for (gateway, broker) in self.places() {
            let pair = &world.pairs[self.pair(gateway, broker)];
            let link = pair.present().expect("a gateway always has a link");
            if let Some(frame) = link.down.first() {
                actions.push(Action::Receive { gateway, broker });
                if world.left.forgets > 0 && matches!(frame, Down::Resumed { .. }) {
                    actions.push(Action::Forget { gateway, broker });
                }
            }
            if !link.broker_open {
                actions.push(Action::Notice { gateway, broker });
            }
            for link in pair.links.iter().filter(|link| link.broker_open) {
                let serial = link.serial;
                if !link.up.is_empty() {
                    actions.push(Action::Process { gateway, broker, serial });
                }
                if !link.gateway_open {
                    actions.push(Action::End { gateway, broker, serial });
                }
            }
        }
    }

    fn faults(&self, world: &World, actions: &mut Vec<Action>) {
        for (broker, at) in world.brokers.iter().zip(0..) {
            let sessions = broker.kept.iter().map(|kept| kept.id);
            actions.extend(sessions.map(|session| Action::Expire { broker: at, session }));
        }
        let Bounds { faults, cuts, leaves, deaths, restarts, .. } = world.left;
        if faults == 0 {
            return;
        }
        for (gateway, broker) in self.places() {
            let pair = &world.pairs[self.pair(gateway, broker)];
            let Some(link) = pair.present().filter(|link| link.broker_open) else { continue };
            if cuts > 0 {
                actions.push(Action::Cut { gateway, broker });
                actions.push(Action::CutAtBroker { gateway, broker });
            }
            let open = world.gateways[gateway].ends[broker].phase == Phase::Open;
            if leaves > 0 && open && link.broker_open {
                actions.push(Action::Leave { gateway, broker });
            }
        }
        if deaths > 0 {
            actions.extend((0..self.gateways).map(|gateway| Action::Die { gateway }));
        }
        if restarts > 0 {
            actions.extend((0..self.brokers).map(|broker| Action::Restart { broker }));
        }
    }
}

impl World {
    /// All links up, nobody logged in, empty snapshots in effect.
    fn start(scenario: &Scenario) -> Self {
        let lives = (0..scenario.gateways as u64).map(|gateway| 10 * (gateway + 1));
        let mut world = Self {
            gateways: lives.map(|life| Part::new(Gateway::new(life, scenario.brokers))).collect(),
            brokers: vec![Part::new(Broker::new(scenario, 0)); scenario.brokers],
            pairs: vec![Part::new(Pair::default()); scenario.gateways * scenario.brokers],
            coming: Users(u8::MAX >> (8 - scenario.logins.len())),
            gone: Users::default(),
            left: scenario.bounds,
            fault: None,
        };
        for (gateway, broker) in scenario.places() {
            world.connect(scenario, gateway, broker);
        }
        let mut actions = Vec::new();
        loop {
            scenario.progress(&world, &mut actions);
            let Some(first) = actions.first() else { return world };
            world.act(scenario, *first);
            actions.clear();
        }
    }

    fn act(&mut self, scenario: &Scenario, action: Action) {
        match action {
            Action::Login { user, gateway } => {
                let user = Users::of(user);
                if !self.coming.without(user).with(user).eq(&self.coming) {
                    self.left.returns -= 1;
                }
                self.coming = self.coming.without(user);
                self.gone = self.gone.without(user);
                self.tell(scenario, gateway, |it, pairs| it.change(user, Users::default(), pairs));
            }
            Action::Logout { user, gateway } => {
                let user = Users::of(user);
                self.left.logouts -= 1;
                self.gone = self.gone.with(user);
                self.tell(scenario, gateway, |it, pairs| it.change(Users::default(), user, pairs));
            }
            Action::Receive { gateway, broker } => self.receive(scenario, gateway, broker, false),
            Action::Forget { gateway, broker } => {
                self.left.forgets -= 1;
                self.receive(scenario, gateway, broker, true);
            }
            Action::Notice { gateway, broker } => self.reconnect(scenario, gateway, broker),
            Action::Process { gateway, broker, serial } => {
                self.process(scenario, gateway, broker, serial);
            }
            Action::End { gateway, broker, serial } => self.end(scenario, gateway, broker, serial),
            Action::Expire { broker, session } => {
                self.brokers[broker].change(|it| it.expire(scenario, session));
                self.fault = check::standing(scenario, &self.brokers[broker]);
            }
            _ => self.fail(scenario, action),
        }
    }

    fn fail(&mut self, scenario: &Scenario, action: Action) {
        self.left.faults -= 1;
        match action {
            Action::Cut { gateway, broker } => {
                self.left.cuts -= 1;
                self.reconnect(scenario, gateway, broker);
            }
            Action::CutAtBroker { gateway, broker } => {
                self.left.cuts -= 1;
                let pair = &self.pairs[scenario.pair(gateway, broker)];
                let serial = pair.present().expect("an open link is cut").serial;
                self.end(scenario, gateway, broker, serial);
            }
            Action::Leave { gateway, broker } => {
                self.left.leaves -= 1;
                let pair = &mut self.pairs[scenario.pair(gateway, broker)];
                pair.change(|pair| pair.present_mut().expect("it is open").send_up(Up::Suspend));
                self.reconnect(scenario, gateway, broker);
            }
            Action::Die { gateway } => {
                self.left.deaths -= 1;
                self.gone = self.gone.with(self.gateways[gateway].users);
                for broker in 0..scenario.brokers {
                    self.give_up(scenario, gateway, broker);
                }
                self.gateways[gateway].change(|it| *it = it.reborn());
                for broker in 0..scenario.brokers {
                    self.connect(scenario, gateway, broker);
                }
            }
            Action::Restart { broker } => {
                self.left.restarts -= 1;
                self.brokers[broker].change(|it| *it = it.reborn(scenario));
                for gateway in 0..scenario.gateways {
                    self.pairs[scenario.pair(gateway, broker)].change(|pair| {
                        pair.links.iter_mut().for_each(crate::frames::Link::end_broker);
                        pair.tidy();
                    });
                }
            }
            _ => unreachable!("it is no fault"),
        }
    }

    /// A gateway acts on some or all of its links.
    fn tell(
        &mut self,
        scenario: &Scenario,
        gateway: usize,
        act: impl FnOnce(&mut Gateway, &mut [&mut Pair]),
    ) {
        let range = scenario.pair(gateway, 0)..scenario.pair(gateway + 1, 0);
        let parts = &mut self.pairs[range];
        let mut pairs: Vec<Pair> = parts.iter().map(|pair| Pair::clone(pair)).collect();
        self.gateways[gateway].change(|it| act(it, &mut pairs.iter_mut().collect::<Vec<_>>()));
        for (part, pair) in parts.iter_mut().zip(pairs) {
            if **part != pair {
                *part = Part::new(pair);
            }
        }
    }

    fn receive(&mut self, scenario: &Scenario, gateway: usize, broker: usize, forget: bool) {
        let pair = &mut self.pairs[scenario.pair(gateway, broker)];
        let frame = pair.change(|pair| pair.present_mut().expect("a frame came").down.remove(0));
        if let Down::Displaced { login } = frame
            && let Some(user) = self.gateways[gateway].index(scenario, login)
        {
            self.gone = self.gone.with(Users::of(user));
        }
        self.tell(scenario, gateway, |it, pairs| {
            it.receive(scenario, broker, &frame, forget, pairs);
        });
    }

    fn give_up(&mut self, scenario: &Scenario, gateway: usize, broker: usize) {
        let pair = &mut self.pairs[scenario.pair(gateway, broker)];
        self.gateways[gateway].change(|it| {
            pair.change(|pair| {
                it.disconnect(broker, pair);
                pair.tidy();
            });
        });
    }

    /// A gateway says HELLO. There is no moment between the end of a link and the next HELLO: a
    /// connection that is made late looks to everybody like a HELLO that is long on its way.
    fn connect(&mut self, scenario: &Scenario, gateway: usize, broker: usize) {
        let pair = &mut self.pairs[scenario.pair(gateway, broker)];
        self.gateways[gateway].change(|it| pair.change(|pair| it.connect(broker, pair)));
    }

    fn reconnect(&mut self, scenario: &Scenario, gateway: usize, broker: usize) {
        self.give_up(scenario, gateway, broker);
        self.connect(scenario, gateway, broker);
    }

    fn process(&mut self, scenario: &Scenario, gateway: usize, broker: usize, serial: u64) {
        let at = scenario.pair(gateway, broker);
        let frame = self.pairs[at].change(|pair| pair.of(serial).expect("it is open").up.remove(0));
        let before = self.brokers[broker].clone();
        let mut effects = Effects::default();
        let outcome = self.brokers[broker]
            .change(|it| it.handle(scenario, gateway, serial, &frame, &mut effects));
        let after = &self.brokers[broker];
        let link = after.link(gateway, serial).or(before.link(gateway, serial));
        self.fault = check::step(scenario, &before, after, link, &frame, &effects, outcome)
            .or_else(|| check::standing(scenario, after));
        for (gateway, serial, down) in effects.downs {
            self.pairs[scenario.pair(gateway, broker)].change(|pair| {
                if let Some(link) = pair.of(serial) {
                    link.send_down(down);
                }
            });
        }
        let refused = outcome.is_err().then_some((gateway, serial));
        for (gateway, serial) in effects.superseded.into_iter().chain(refused) {
            self.close(scenario, gateway, broker, serial);
        }
        let is_present = self.pairs[at].present().is_some_and(|link| link.serial == serial);
        if let Some(version) = effects.in_effect.filter(|_| is_present) {
            self.gateways[gateway].change(|it| it.in_effect(broker, version));
        }
    }

    fn end(&mut self, scenario: &Scenario, gateway: usize, broker: usize, serial: u64) {
        let before = self.brokers[broker].clone();
        self.brokers[broker].change(|it| it.end(scenario, gateway, serial));
        let (link, after) = (before.link(gateway, serial), &self.brokers[broker]);
        self.fault = check::ended(scenario, &before, after, link)
            .or_else(|| check::standing(scenario, after));
        self.close(scenario, gateway, broker, serial);
    }

    fn close(&mut self, scenario: &Scenario, gateway: usize, broker: usize, serial: u64) {
        self.pairs[scenario.pair(gateway, broker)].change(|pair| {
            if let Some(link) = pair.of(serial) {
                link.end_broker();
            }
            pair.tidy();
        });
    }

    /// Brokers are alike and do not know each other: of two worlds in which they have changed
    /// places one is looked at.
    pub(crate) fn representative(&self) -> Self {
        let brokers = self.brokers.len();
        let key = |broker: usize| {
            let pairs = self.pairs.iter().skip(broker).step_by(brokers).map(Part::fingerprint);
            (self.brokers[broker].fingerprint(), pairs.collect::<Vec<_>>())
        };
        let mut order: Vec<usize> = (0..brokers).collect();
        order.sort_by_cached_key(|broker| key(*broker));
        let mut same = self.clone();
        if order.is_sorted() {
            return same;
        }
        same.brokers = order.iter().map(|at| self.brokers[*at].clone()).collect();
        for (gateway, part) in same.gateways.iter_mut().enumerate() {
            let from = &self.pairs[gateway * brokers..];
            for (to, at) in order.iter().enumerate() {
                same.pairs[gateway * brokers + to] = from[*at].clone();
            }
            part.change(|it| it.ends = order.iter().map(|at| it.ends[*at].clone()).collect());
        }
        same
    }

    /// All links are up, and all that was said has arrived.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pairs.iter().all(|pair| pair.links.len() == 1 && pair.links[0].is_quiet())
    }

    fn users(&self) -> Users {
        self.gateways.iter().fold(Users::default(), |all, gateway| all.with(gateway.users))
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::start(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.fault.is_none() {
            self.user_actions(world, actions);
            self.progress(world, actions);
            self.faults(world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(self, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NO_FAULT, |_, world: &World| world.fault.is_none()),
            Property::always(NEVER_STUCK, |scenario: &Self, world: &World| {
                let mut actions = Vec::new();
                scenario.progress(world, &mut actions);
                !actions.is_empty() || world.is_quiet() || world.fault.is_some()
            }),
            Property::always(COMPLETE, |scenario: &Self, world: &World| {
                let users: Vec<(u64, Users)> =
                    world.gateways.iter().map(|it| (it.incarnation, it.users)).collect();
                !world.is_quiet()
                    || world.brokers.iter().all(|it| check::complete(scenario, it, &users))
            }),
            Property::always(SETTLED, |scenario: &Self, world: &World| {
                !world.is_quiet() || check::settled(scenario, world.users())
            }),
        ];
        properties.extend(witnesses());
        properties
    }
}

pub(crate) const NO_FAULT: &str = "no broker does wrong";
pub(crate) const NEVER_STUCK: &str = "what is not quiet goes on by itself";
pub(crate) const COMPLETE: &str = "in quiet every broker reaches exactly the gateways' users";
pub(crate) const SETTLED: &str = "in quiet no two logins that exclude each other differ";

/// Things that must happen somewhere, or the model has proved nothing about them.
fn witnesses() -> [Property<Scenario>; 6] {
    [
        Property::sometimes("a session is resumed with users", |_, world: &World| {
            served(world, |link| {
                link.is_live() && link.has_resumed() && !link.session.held.is_empty()
            })
        }),
        Property::sometimes("a delta comes before RESUME", |_, world: &World| {
            served(world, |link| {
                link.registration.is_resuming() && link.session.held != Users::default()
            })
        }),
        Property::sometimes("a snapshot fills beside a live slot", |_, world: &World| {
            world.brokers.iter().any(|broker| {
                let of =
                    |gateway: usize| broker.links.iter().filter(move |it| it.gateway == gateway);
                broker.links.iter().any(|it| {
                    it.is_live()
                        && of(it.gateway)
                            .any(|other| !other.is_live() && !other.session.held.is_empty())
                })
            })
        }),
        Property::sometimes("a login is told to go", |_, world: &World| {
            let mut links = world.pairs.iter().flat_map(|pair| &pair.links);
            links.any(|link| link.down.iter().any(|it| matches!(it, Down::Displaced { .. })))
        }),
        Property::sometimes("two users stand in quiet", |_, world: &World| {
            world.is_quiet() && world.users().0.count_ones() > 1
        }),
        Property::sometimes("a quiet world remembers a dead gateway", |_, world: &World| {
            world.is_quiet() && world.brokers.iter().any(|broker| !broker.kept.is_empty())
        }),
    ]
}

fn served(world: &World, is: fn(&crate::broker::Served) -> bool) -> bool {
    world.brokers.iter().any(|broker| broker.links.iter().any(is))
}
