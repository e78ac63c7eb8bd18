//! A link to each broker of the list: opened as brokers are found, closed as they go, and the state
//! of all of them told as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use waybill_wire::code::Role;

use super::filters::Filters;
use super::machine::{Command, ConsumerMachine};
use super::merge::{Inlet, Merged};
use super::{ConsumerConfig, ConsumerEvent};
use crate::connection::{Connection, Control, Identity};
use crate::discovery::{DNS_PREFIX, Found};
use crate::finder::{Finder, Resolver};
use crate::link::{LinkError, LinkErrorKind, LinkState};
use crate::options::Options;
use crate::outlet::{Queue, Queuing, queue};

/// A consumer's link to one broker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BrokerLink {
    /// The broker's address.
    pub broker: Arc<str>,
    /// Where the link is in its life.
    pub state: LinkState,
}

/// The task that has the links.
struct Links {
    options: Options,
    config: ConsumerConfig,
    filters: watch::Receiver<Arc<Filters>>,
    identity: Identity,
    merged: Merged,
    events: Queue<ConsumerEvent>,
    open: BTreeMap<Arc<str>, Control>,
    /// Links made so far.
    count: u64,
    /// Whether brokers may still be found.
    seeks: bool,
    changed: Arc<Notify>,
    state: watch::Sender<LinkState>,
    links: watch::Sender<Vec<BrokerLink>>,
}

/// Starts the task; both arguments were checked.
pub(super) fn start(
    options: Options,
    config: ConsumerConfig,
    filters: watch::Receiver<Arc<Filters>>,
    resolver: Arc<dyn Resolver>,
) -> (Control, watch::Receiver<Vec<BrokerLink>>, Queuing<ConsumerEvent>) {
    let (queue, events) = queue(options.max_in_flight, options.max_pending_bytes);
    let (state, states) = watch::channel(LinkState::Connecting);
    let (links, all) = watch::channel(Vec::new());
    let (close, closing) = watch::channel(false);
    let finder = Finder::new(&options.brokers, options.dns_refresh, resolver);
    let task = Links {
        identity: Identity { role: Role::CONSUMER, instance: rand::random_range(1..=u64::MAX) },
        seeks: options.brokers.iter().any(|entry| entry.starts_with(DNS_PREFIX)),
        options,
        config,
        filters,
        merged: Merged::default(),
        events: queue,
        open: BTreeMap::new(),
        count: 0,
        changed: Arc::new(Notify::new()),
        state,
        links,
    };
    tokio::spawn(task.run(finder, closing));
    (Control::new(states, close), all, events)
}

impl Links {
    async fn run(mut self, mut finder: Finder, mut closing: watch::Receiver<bool>) {
        let changed = Arc::clone(&self.changed);
        loop {
            tokio::select! {
                found = finder.next() => match found {
                    Found::Open(address) => self.open(address),
                    Found::Close(address) => self.leave(&address),
                },
                () = changed.notified() => {}
                // An error says that every handle is gone; the stream keeps the links alive.
                Ok(()) = closing.changed() => break,
                () = self.events.abandoned() => break,
            }
            if self.tell() {
                return;
            }
        }
        let open = std::mem::take(&mut self.open);
        for control in open.values() {
            control.begin_close();
        }
        for control in open.into_values() {
            control.close().await;
        }
        self.links.send_replace(Vec::new());
        self.state.send_replace(LinkState::Closed);
    }

    fn open(&mut self, address: Arc<str>) {
        let options = Options { brokers: vec![address.to_string()], ..self.options.clone() };
        let (answers, inbox) = mpsc::channel(options.max_in_flight);
        self.count += 1;
        let (number, merged) = (self.count, self.merged.clone());
        let mut filters = self.filters.clone();
        let wanted = Arc::clone(&filters.borrow_and_update());
        let machine = ConsumerMachine::new(&self.config, wanted);
        let commands = answers.clone();
        let outlet = Inlet { number, events: self.events.another(), answers, merged };
        match Connection::start(options, self.identity, machine, inbox, outlet) {
            Ok(control) => {
                tokio::spawn(pass_on(filters, commands.downgrade()));
                let (mut states, changed) = (control.watch(), Arc::clone(&self.changed));
                tokio::spawn(async move {
                    while states.changed().await.is_ok() {
                        changed.notify_one();
                    }
                    changed.notify_one();
                });
                self.open.insert(address, control);
            }
            // The options were checked; an address that was found is one.
            Err(error) => tracing::error!(%error, "a link cannot be opened"),
        }
    }

    /// The broker is no longer one of the list: finishes what is under way there.
    fn leave(&mut self, address: &str) {
        if let Some(control) = self.open.remove(address) {
            control.begin_close();
        }
    }

    /// Tells the state of all links; whether it is over.
    fn tell(&self) -> bool {
        let link = |(broker, control): (&Arc<str>, &Control)| BrokerLink {
            broker: Arc::clone(broker),
            state: control.state(),
        };
        let links: Vec<BrokerLink> = self.open.iter().map(link).collect();
        let state = together(&links, self.seeks);
        let over = matches!(state, LinkState::Failed(_));
        self.links.send_replace(links);
        self.state.send_replace(state);
        over
    }
}

/// Passes what is wanted on to one link, the newest only, until one of them has gone.
async fn pass_on(mut filters: watch::Receiver<Arc<Filters>>, link: mpsc::WeakSender<Command>) {
    while filters.changed().await.is_ok() {
        let wanted = Arc::clone(&filters.borrow_and_update());
        let Some(link) = link.upgrade() else { return };
        if link.send(Command::Filters(wanted)).await.is_err() {
            return;
        }
    }
}

/// The state of several links as that of one: the best of them.
fn together(links: &[BrokerLink], seeks: bool) -> LinkState {
    let rank = |state: &LinkState| match state {
        LinkState::Open(_) => 0,
        LinkState::Connecting => 1,
        LinkState::Down { .. } => 2,
        LinkState::Failed(_) => 3,
        LinkState::Closed => 4,
    };
    let best = links.iter().map(|link| &link.state).min_by_key(|state| rank(state));
    match best {
        None => LinkState::Connecting,
        // A name may have other addresses some day; nobody has to be told that it is over.
        Some(LinkState::Failed(error)) if seeks => LinkState::Down {
            reason: error.clone(),
            retry_in: std::time::Duration::ZERO,
            attempts: 1,
        },
        Some(LinkState::Closed) => {
            LinkState::Failed(LinkError::new(LinkErrorKind::Closed, &Arc::from("")))
        }
        Some(state) => state.clone(),
    }
}
