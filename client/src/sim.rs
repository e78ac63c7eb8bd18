//! The links as the simulator drives them: the real machines and the real link logic, with bytes,
//! times and random numbers handed in. No socket, no task, no clock.
//!
//! A link is driven in this order: [`connecting`](Link::connecting), [`open`](Link::open) once
//! there is a transport, then bytes both ways, [`advance`](Link::advance) whenever
//! [`deadline`](Link::deadline) has come, and [`end`](Link::end) with the first error. After each
//! call its events are taken and [`output`](Link::output) is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use waybill_wire::code::{ErrorCode, Role};

use crate::connection::{Identity, LinkCore};
pub use crate::consumer::sim::Consumer;
use crate::error::{InvalidTags, PublishError};
use crate::gateway::{DataEvent, DataMachine, Order as DataOrder, Together, shard_of};
use crate::gateway::{GatewayCommand, GatewayEvent, GatewayMachine};
use crate::link::LinkError;
use crate::machine::Machine;
use crate::options::Options;
pub use crate::producer::window;
use crate::producer::{Bounds, Order, ProducerEvent, ProducerMachine, Request, job::Reply};
use crate::publish::Publish;
use crate::receipt::{Progress, Receipt};
use crate::tags::{TagChange, Tagging};
use crate::wall::Wall;

/// A link of any role, as its driver sees it.
pub trait Link {
    /// An attempt begins: the broker to connect to.
    fn connecting(&mut self) -> Arc<str>;

    /// There is a transport to `broker`; WELCOME is due by `until`.
    ///
    /// # Errors
    ///
    /// HELLO cannot be written.
    fn open(&mut self, now: Instant, broker: &Arc<str>, until: Instant) -> Result<(), LinkError>;

    /// What is to be written now; ask again until it is empty or the transport is full.
    fn output(&mut self, now: Instant) -> &[u8];

    /// The transport took so many bytes of the output.
    fn written(&mut self, count: usize);

    /// Bytes came in.
    ///
    /// # Errors
    ///
    /// The link is to end.
    fn received(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LinkError>;

    /// The transport broke, or the broker will send nothing more: the error to end with.
    fn lost(&self) -> LinkError;

    /// Whether [`advance`](Self::advance) is about to judge silence: what lies unread counts first.
    fn judges_silence(&self, now: Instant) -> bool;

    /// What is due by time. `true`: this end says nothing more after what was written.
    ///
    /// # Errors
    ///
    /// The link is to end.
    fn advance(&mut self, now: Instant) -> Result<bool, LinkError>;

    /// Whether there is something to do without anything having happened.
    fn is_busy(&self) -> bool;

    /// Whether to read from now on.
    fn set_reading(&mut self, now: Instant) -> bool;

    /// When something is due.
    fn deadline(&self, now: Instant) -> Option<Instant>;

    /// The link or attempt is over: the delay before the next one, or `None` if it was the last.
    fn end(&mut self, now: Instant, error: LinkError, random: u64) -> Option<Duration>;

    /// Its owner takes leave.
    fn close(&mut self, now: Instant);

    /// Whether its owner closed it and nothing is left to finish, or no time.
    fn may_leave(&self, now: Instant) -> bool;
}

impl<M: Machine> Link for LinkCore<M> {
    fn connecting(&mut self) -> Arc<str> {
        LinkCore::connecting(self)
    }

    fn open(&mut self, now: Instant, broker: &Arc<str>, until: Instant) -> Result<(), LinkError> {
        LinkCore::open(self, now, broker, until)
    }

    fn output(&mut self, now: Instant) -> &[u8] {
        LinkCore::output(self, now)
    }

    fn written(&mut self, count: usize) {
        LinkCore::written(self, count);
    }

    fn received(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LinkError> {
        LinkCore::received(self, now, bytes)
    }

    fn lost(&self) -> LinkError {
        LinkCore::lost(self, None)
    }

    fn judges_silence(&self, now: Instant) -> bool {
        LinkCore::judges_silence(self, now)
    }

    fn advance(&mut self, now: Instant) -> Result<bool, LinkError> {
        LinkCore::advance(self, now)
    }

    fn is_busy(&self) -> bool {
        LinkCore::is_busy(self)
    }

    fn set_reading(&mut self, now: Instant) -> bool {
        LinkCore::set_reading(self, now)
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        LinkCore::deadline(self, now)
    }

    fn end(&mut self, now: Instant, error: LinkError, random: u64) -> Option<Duration> {
        let error = self.cause(error);
        let retry_in = self.down(now, &error, random);
        if retry_in.is_none() {
            self.finish(now, &error);
        }
        retry_in
    }

    fn close(&mut self, now: Instant) {
        self.end_commands(now);
    }

    fn may_leave(&self, now: Instant) -> bool {
        LinkCore::may_leave(self, now)
    }
}

/// What a producer's link tells.
#[derive(Debug)]
pub enum ProducerNews {
    /// The outcome of a publish, by the number it was given.
    Settled {
        /// That number.
        publish: u64,
        /// Its receipt, or why there is none.
        outcome: Result<Receipt, PublishError>,
    },
    /// A publish of level none was refused after it was settled.
    Refused {
        /// Its sequence.
        sequence: u64,
        /// Why.
        code: ErrorCode,
    },
}

/// A publish by the number it was given.
#[derive(Debug)]
struct Number(u64);

impl Reply for Number {
    fn progress(&mut self, _progress: Progress) {}
}

/// A producer.
#[derive(Debug)]
pub struct Producer {
    core: LinkCore<ProducerMachine<Number>>,
    wall: Option<Wall>,
}

impl Producer {
    /// A producer with this random number of its life, not 0. The options must pass
    /// [`Options::check`].
    #[must_use]
    pub fn new(options: &Options, instance: u64) -> Self {
        Self::with(options, instance, |machine| machine)
    }

    /// The same, that cuts payloads longer than the first into pieces of the second, which is not 0
    /// nor greater.
    #[must_use]
    pub fn cutting(options: &Options, instance: u64, sizes: (usize, usize)) -> Self {
        Self::with(options, instance, |machine| machine.cutting(sizes.0, sizes.1))
    }

    fn with(
        options: &Options,
        instance: u64,
        change: impl FnOnce(ProducerMachine<Number>) -> ProducerMachine<Number>,
    ) -> Self {
        let bounds = Bounds {
            in_flight_max: options.max_in_flight,
            resend_within: options.resend_within,
            publish_timeout: options.publish_timeout,
        };
        let machine = change(ProducerMachine::new(instance, bounds));
        let identity = Identity { role: Role::PRODUCER, instance };
        Self { core: LinkCore::new(machine, identity, options), wall: None }
    }

    /// What its wall clock says. Without it no hop time is told, whatever is traced.
    pub fn set_wall(&mut self, wall: Wall) {
        self.wall = Some(wall);
    }

    /// Publishes; `number` comes back with the outcome.
    pub fn publish(&mut self, now: Instant, number: u64, publish: Publish) {
        let wall = publish.trace.and(self.wall);
        self.core
            .command(now, vec![Order { request: publish.into(), reply: Number(number), wall }]);
    }

    /// Makes these changes to the tags of each of these users; `number` comes back with the
    /// outcome.
    ///
    /// # Errors
    ///
    /// The protocol does not allow it; nothing is sent.
    pub fn tag(
        &mut self,
        now: Instant,
        number: u64,
        namespace: u32,
        (uids, changes): (Vec<u64>, Vec<TagChange>),
    ) -> Result<(), InvalidTags> {
        let tagging = Tagging { namespace, uids, changes };
        tagging.check()?;
        let request = Request::Tags(tagging);
        self.core.command(now, vec![Order { request, reply: Number(number), wall: None }]);
        Ok(())
    }

    /// What it tells next.
    pub fn poll(&mut self) -> Option<ProducerNews> {
        Some(match self.core.poll_event()? {
            ProducerEvent::Settled { reply, outcome } => {
                ProducerNews::Settled { publish: reply.0, outcome }
            }
            ProducerEvent::Refused { sequence, code } => ProducerNews::Refused { sequence, code },
        })
    }

    /// Its link.
    pub fn link(&mut self) -> &mut dyn Link {
        &mut self.core
    }
}

/// A gateway's links to one broker: a control link, and data links as the broker has shards.
#[derive(Debug)]
pub struct GatewayLink {
    core: LinkCore<GatewayMachine>,
    together: Together,
    data: BTreeMap<u16, LinkCore<DataMachine>>,
    news: Vec<DataNews>,
    lives: u32,
    options: Options,
    incarnation: u64,
}

/// What became of the data link to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataNews {
    /// There is one, to be driven from its first attempt on.
    New(u16),
    /// It is not to be driven any more, and its transport is to be let go.
    Gone(u16),
}

impl GatewayLink {
    /// A link of the gateway with this incarnation, not 0. The options must pass
    /// [`Options::check`].
    #[must_use]
    pub fn new(options: &Options, incarnation: u64) -> Self {
        let (in_flight_max, bytes_max) = (options.max_in_flight, options.max_pending_bytes);
        let machine = GatewayMachine::new(incarnation, in_flight_max, bytes_max);
        let machine = machine.offering_tags(options.tags);
        let machine = machine.offering_links(options.data_links > 0);
        let identity = Identity { role: Role::GATEWAY, instance: incarnation };
        Self {
            core: LinkCore::new(machine, identity, options),
            together: Together::new(options.data_links),
            data: BTreeMap::new(),
            news: Vec::new(),
            lives: 0,
            options: options.clone(),
            incarnation,
        }
    }

    /// Takes a command over.
    pub fn command(&mut self, now: Instant, command: GatewayCommand) {
        match command {
            GatewayCommand::Report(report) if shard_of(report.link).is_some() => {
                let data = shard_of(report.link).and_then(|shard| self.data.get_mut(&shard));
                if let Some(data) = data {
                    data.command(now, report);
                }
            }
            command => self.core.command(now, command),
        }
    }

    /// Whether another command has room.
    #[must_use]
    pub fn wants_commands(&self) -> bool {
        self.core.wants_commands() && self.data.values().all(LinkCore::wants_commands)
    }

    /// What it tells next. [`data_news`](Self::data_news) may have something after it.
    pub fn poll(&mut self) -> Option<GatewayEvent> {
        // First what the control link told: it was asked whether that was taken in, before a data
        // link had anything (LNK-6).
        if let Some(event) = self.core.poll_event() {
            let mut orders = Vec::new();
            self.together.heard(&event, &mut orders);
            self.carry_out(orders);
            return Some(event);
        }
        for shard in self.data.keys().copied().collect::<Vec<_>>() {
            while let Some(event) = self.data.get_mut(&shard).and_then(LinkCore::poll_event) {
                match event {
                    DataEvent::Came(event) => return Some(event),
                    DataEvent::Ended => self.together.ended(shard),
                    DataEvent::Numbered(number) => {
                        let mut orders = Vec::new();
                        self.together.numbered(shard, number, &mut orders);
                        self.carry_out(orders);
                    }
                }
            }
        }
        None
    }

    /// Data links that have come and gone, in order.
    pub fn data_news(&mut self) -> Vec<DataNews> {
        std::mem::take(&mut self.news)
    }

    fn carry_out(&mut self, orders: Vec<DataOrder>) {
        for order in orders {
            match order {
                DataOrder::Drop { shard } => {
                    self.data.remove(&shard);
                    self.news.push(DataNews::Gone(shard));
                }
                DataOrder::Open { shard, joining, .. } => {
                    let brokers = vec![joining.broker.to_string()];
                    let options = Options { brokers, ..self.options.clone() };
                    let bounds = (options.max_in_flight, options.max_pending_bytes);
                    self.lives += 1;
                    let of_it = (self.incarnation, shard, self.lives);
                    let machine = DataMachine::new(&joining, of_it, bounds);
                    let identity = Identity { role: Role::GATEWAY, instance: self.incarnation };
                    self.data.insert(shard, LinkCore::new(machine, identity, &options));
                    self.news.push(DataNews::New(shard));
                }
            }
        }
    }

    /// Whether each data link that is wanted was welcomed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.together.is_whole()
    }

    /// Whether its owner takes no events now.
    pub fn set_held(&mut self, is_held: bool) {
        self.core.set_untaken(is_held);
        self.data.values_mut().for_each(|data| data.set_untaken(is_held));
    }

    /// All its data links go: the control link is over for good.
    pub fn finish(&mut self) {
        let mut orders = Vec::new();
        self.together.down(&mut orders);
        self.carry_out(orders);
    }

    /// Its control link.
    pub fn link(&mut self) -> &mut dyn Link {
        &mut self.core
    }

    /// Its data link to a shard, if there is one.
    pub fn data_link(&mut self, shard: u16) -> Option<&mut dyn Link> {
        self.data.get_mut(&shard).map(|core| core as &mut dyn Link)
    }
}
