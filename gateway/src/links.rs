//! The links to all brokers: one to each address that discovery finds, as long as it finds it.
//!
//! A link whose address is no longer listed is left once another broker has everything in effect:
//! its users' messages are answered there first, then it ends and its number is free.
//!
//! One broker may have two addresses. Its newer link then takes over from the older one (REG-8),
//! whose address is parked: it is tried again when the link that took over is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{BoxStream, SelectAll, Stream, StreamExt as _, once};
use futures_util::task::AtomicWaker;
use tokio::sync::mpsc::error::TrySendError;
use tracing::info;
use waybill_client::gateway::{GatewayCommand, GatewayEvent, GatewayEvents, GatewayLink};
use waybill_client::{ErrorCode, Finder, Found, Options, OptionsError, Resolver};

use crate::config::GatewayConfig;
use crate::switchboard::Switchboard;

/// Bytes of events that wait for the switchboard, and of uplinks that wait for a link. A message
/// that is longer waits alone.
const PENDING_BYTES_MAX: usize = 16 << 20;

/// What a link says; nothing if it has ended for good and its number is free.
pub(crate) type Said = (usize, Option<GatewayEvent>);

/// What a link says of its broker.
pub(crate) enum News {
    /// It is linked to the broker of this number.
    Up(u64),
    /// It is not, or no longer.
    Down,
    /// A newer link of ours to the same broker has taken over; this one is not tried again.
    Superseded,
}

impl News {
    pub(crate) fn of(event: &GatewayEvent) -> Option<Self> {
        match event {
            GatewayEvent::Up(welcomed) => Some(Self::Up(welcomed.broker)),
            GatewayEvent::Failed(error) if error.code() == Some(ErrorCode::SUPERSEDED) => {
                Some(Self::Superseded)
            }
            GatewayEvent::Down { .. } | GatewayEvent::Failed(_) => Some(Self::Down),
            _ => None,
        }
    }
}

/// What [`Links::next`] waits for.
pub(crate) enum Next {
    Said(Said),
    Found(Found),
}

pub(crate) struct Links {
    /// The life of this process, the same on every link.
    incarnation: u64,
    options: Options,
    finder: Finder,
    links: Vec<Option<Link>>,
    /// Other addresses of brokers that are linked, and the broker's number.
    parked: BTreeMap<Arc<str>, u64>,
    events: SelectAll<BoxStream<'static, Said>>,
}

struct Link {
    address: Arc<str>,
    handle: GatewayLink,
    gate: Arc<Gate>,
    /// No longer listed; to be left when another broker has everything.
    unlisted: bool,
    /// It is being left.
    leaving: bool,
    /// The broker's number, while it is linked.
    broker: Option<u64>,
}

/// Whether anything is taken from a link.
#[derive(Default)]
struct Gate {
    is_held: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    fn set(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Release);
        if !is_held {
            self.waker.wake();
        }
    }
}

/// What a link says, unless it is held.
struct Gated {
    events: BoxStream<'static, Said>,
    gate: Arc<Gate>,
}

impl Stream for Gated {
    type Item = Said;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Said>> {
        if self.gate.is_held.load(Ordering::Acquire) {
            self.gate.waker.register(context.waker());
            // It may have been let go in between.
            if self.gate.is_held.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        self.events.as_mut().poll_next(context)
    }
}

impl Links {
    pub(crate) fn new(config: &GatewayConfig, resolver: Arc<dyn Resolver>) -> Self {
        let mut options = Options::default();
        if !config.broker.token.is_empty() {
            options = options.token(&config.broker.token);
        }
        options.tags = config.broker.tags;
        options.data_links = config.broker.data_links;
        options.max_in_flight = config.limits.uplinks_max;
        options.max_pending_bytes = PENDING_BYTES_MAX;
        options.connect_timeout = Duration::from_millis(config.broker.connect_timeout_ms);
        let refresh = Duration::from_millis(config.broker.dns_refresh_ms);
        Self {
            // 0 is not one.
            incarnation: rand::random::<u64>().max(1),
            options,
            finder: Finder::new(&config.broker.addresses, refresh, resolver),
            links: Vec::new(),
            parked: BTreeMap::new(),
            events: SelectAll::new(),
        }
    }

    /// Waits for a link's next event, if those are wanted, or for a broker to come or go. Nothing
    /// is lost if it is not awaited to its end.
    pub(crate) async fn next(&mut self, wants_events: bool) -> Next {
        tokio::select! {
            Some(said) = self.events.next(), if wants_events => Next::Said(said),
            found = self.finder.next() => Next::Found(found),
        }
    }

    /// Takes nothing more from a link, or does so again. What it says meanwhile waits with it,
    /// within its bounds; then it is not read.
    pub(crate) fn hold(&mut self, link: usize, is_held: bool) {
        if let Some(Some(link)) = self.links.get(link) {
            link.gate.set(is_held);
        }
    }

    /// What a link has said already.
    pub(crate) fn said(&mut self) -> Option<Said> {
        self.events.next().now_or_never().flatten()
    }

    /// A broker that has come or gone already.
    pub(crate) fn found(&mut self) -> Option<Found> {
        self.finder.next().now_or_never()
    }

    /// Links to the broker, or remembers that its link is to end.
    ///
    /// # Errors
    ///
    /// Options that cannot work; the same for every broker.
    pub(crate) fn follow(
        &mut self,
        found: Found,
        switchboard: &mut Switchboard,
    ) -> Result<(), OptionsError> {
        match found {
            Found::Open(address) => {
                // Back before its link was left: the same broker must not have two.
                let mut linked = self.links.iter_mut().flatten();
                if let Some(link) = linked.find(|link| link.address == address && !link.leaving) {
                    link.unlisted = false;
                    return Ok(());
                }
                self.open(address, switchboard)?;
            }
            Found::Close(address) => {
                let listed = self.links.iter_mut().flatten();
                for link in listed.filter(|link| link.address == address) {
                    info!(broker = %address, "the broker is no longer listed");
                    link.unlisted = true;
                }
                self.parked.remove(&address);
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        address: Arc<str>,
        switchboard: &mut Switchboard,
    ) -> Result<(), OptionsError> {
        let mut options = self.options.clone();
        options.brokers = vec![address.to_string()];
        let (handle, events): (GatewayLink, GatewayEvents) =
            GatewayLink::start(options, self.incarnation)?;
        let number = switchboard.add_link();
        info!(link = number, broker = %address, "a broker is listed");
        let said = events.map(move |event| (number, Some(event)));
        let said = said.chain(once(async move { (number, None) }));
        let gate = Arc::<Gate>::default();
        self.events.push(Gated { events: said.boxed(), gate: Arc::clone(&gate) }.boxed());
        self.links.resize_with(self.links.len().max(number + 1), || None);
        let link = Link { address, handle, gate, unlisted: false, leaving: false, broker: None };
        self.links[number] = Some(link);
        Ok(())
    }

    /// What a link says of its broker decides which address of that broker is used. To be called
    /// after the switchboard has heard of it.
    ///
    /// # Errors
    ///
    /// As [`follow`](Self::follow).
    pub(crate) fn heard(
        &mut self,
        link: usize,
        news: &News,
        switchboard: &mut Switchboard,
    ) -> Result<(), OptionsError> {
        let Some(Some(it)) = self.links.get_mut(link) else { return Ok(()) };
        let before = it.broker;
        match news {
            News::Up(broker) => {
                it.broker = Some(*broker);
                return Ok(());
            }
            News::Superseded => {
                let (address, listed) = (Arc::clone(&it.address), !it.unlisted && !it.leaving);
                if let Some(broker) = it.broker.take().filter(|_| listed) {
                    info!(link, broker = %address, "another address of this broker is in use");
                    self.parked.insert(address, broker);
                }
            }
            News::Down => it.broker = None,
        }
        let Some(lost) = before else { return Ok(()) };
        if self.links.iter().flatten().any(|link| link.broker == Some(lost)) {
            return Ok(());
        }
        for (address, _) in
            self.parked.extract_if(.., |_, broker| *broker == lost).collect::<Vec<_>>()
        {
            self.open(address, switchboard)?;
        }
        Ok(())
    }

    /// Leaves brokers that are not listed any more, if others have everything.
    pub(crate) fn leave_unlisted(&mut self, switchboard: &mut Switchboard) {
        for (number, link) in self.links.iter_mut().enumerate() {
            if let Some(link) = link
                && link.unlisted
                && switchboard.is_covered_without(number)
            {
                (link.unlisted, link.leaving) = (false, true);
                switchboard.retire_link(number);
                let handle = link.handle.clone();
                tokio::spawn(async move { handle.close().await });
            }
        }
    }

    /// A link has ended for good; another address of its broker is used, if there is one.
    ///
    /// # Errors
    ///
    /// As [`follow`](Self::follow).
    pub(crate) fn gone(
        &mut self,
        link: usize,
        switchboard: &mut Switchboard,
    ) -> Result<(), OptionsError> {
        let heard = self.heard(link, &News::Down, switchboard);
        self.links[link] = None;
        heard
    }

    /// Tells the links what they have to know. One that does not take a command gets no other in
    /// the same turn: what it is told stays in order.
    pub(crate) fn tell(&mut self, switchboard: &mut Switchboard) {
        let mut full = BTreeSet::new();
        let mut closed: BTreeMap<usize, Vec<GatewayCommand>> = BTreeMap::new();
        for (number, command) in switchboard.commands() {
            if full.contains(&number) {
                switchboard.not_taken(number, command);
                continue;
            }
            let told = match self.links.get(number) {
                Some(Some(link)) => link.handle.try_command(command),
                _ => Err(TrySendError::Closed(command)),
            };
            match told {
                Ok(()) => {}
                Err(TrySendError::Full(command)) => {
                    full.insert(number);
                    switchboard.not_taken(number, command);
                }
                Err(TrySendError::Closed(command)) => {
                    closed.entry(number).or_default().push(command);
                }
            }
        }
        for (number, commands) in closed {
            switchboard.link_closed(number, commands);
        }
    }

    /// Tells what is left and ends all links in good order. `hear` is given what they bring until
    /// they have closed: their brokers count it as read.
    pub(crate) async fn close(
        mut self,
        commands: Vec<(usize, GatewayCommand)>,
        mut hear: impl FnMut(Said),
    ) {
        for (number, command) in commands {
            if let Some(Some(link)) = self.links.get(number) {
                // A link that is gone has nothing registered either.
                let _ = link.handle.command(command).await;
            }
        }
        // At once: one that is told later would go on being read until then.
        for link in self.links.iter().flatten() {
            link.gate.set(false);
            let handle = link.handle.clone();
            tokio::spawn(async move { handle.close().await });
        }
        while let Some(said) = self.events.next().await {
            hear(said);
        }
    }
}
