//! The load: producers with receipts, probes of every pair of broker and gateway, a consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{MissedTickBehavior, interval, timeout};
use waybill_client::{
    Consumer, ConsumerConfig, ConsumerEvent, LinkState, Options, PendingReceipt, Producer, Publish,
    Receipt, ReceiptLevel,
};

use crate::clock::Micros;
use crate::record::{Message, Outcome, To};
use crate::servers::TOKEN;
use crate::world::{LARGE, NAMESPACES, NOBODY, PINNED, Phase, World, probe_uid, uid_of};

/// How long an outcome is awaited before the client is said to have forgotten it.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of a message, from its payload.
pub(crate) fn number_in(payload: &str) -> Option<usize> {
    payload.split(' ').next()?.parse().ok()
}

/// The load of one producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) producer: u16,
    /// Publishes a second.
    pub(crate) rate: f64,
    /// Users there are.
    pub(crate) users: usize,
    /// Whether everyone is addressed now and then.
    pub(crate) everyone: bool,
}

/// A producer and the number of its present link.
struct Link {
    producer: Producer,
    link: Arc<AtomicU32>,
    index: u16,
}

impl Link {
    fn start(options: Options, index: u16) -> Result<Self, String> {
        let producer = Producer::start(options).map_err(|error| error.to_string())?;
        let link = Arc::new(AtomicU32::new(0));
        let (mut states, counter) = (producer.watch(), Arc::clone(&link));
        tokio::spawn(async move {
            while states.changed().await.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { producer, link, index })
    }

    /// Sends and records; the outcome is recorded when it comes.
    fn send(&self, world: &Arc<World>, draft: Draft) -> Option<(usize, PendingReceipt)> {
        let Draft { namespace, to, except, reported } = draft;
        let publish = match &to {
            To::Uids(uids) => Publish::to(uids.clone()),
            To::Everyone => Publish::everyone(),
        };
        let publish = publish.namespace(namespace).except(except.clone()).level(level(reported));
        let link = self.link.load(Ordering::Relaxed);
        let number = world.shared.publish(Message {
            namespace,
            to,
            except,
            producer: self.index,
            link,
            sent_at: world.clock.now(),
            settled_at: None,
            one_link: false,
            outcome: Outcome::Open,
            arrivals: Vec::new(),
        });
        let filler = "x".repeat(16 + number % 200);
        match self.producer.send(publish.payload(format!("{number} {filler}"))) {
            Ok(pending) => Some((number, pending)),
            Err(error) => {
                world.shared.settle(number, u32::MAX, Outcome::Failed(error.to_string()));
                None
            }
        }
    }
}

/// A publish to be made.
struct Draft {
    namespace: u32,
    to: To,
    except: Vec<u64>,
    reported: bool,
}

fn level(reported: bool) -> ReceiptLevel {
    if reported { ReceiptLevel::Delivered } else { ReceiptLevel::Routed }
}

/// Asks for a receipt of level *delivered*; whether the brokers give such.
pub(crate) async fn has_reports(world: &World) -> bool {
    let Ok(producer) = Producer::start(options(world, 0)) else { return false };
    let publish = Publish::to([NOBODY]).namespace(NAMESPACES[0]).level(level(true));
    let receipt = timeout(Duration::from_secs(10), producer.publish(publish)).await;
    producer.close().await;
    matches!(receipt, Ok(Ok(Receipt { stage: ReceiptLevel::Delivered, .. })))
}

fn options(world: &World, first: usize) -> Options {
    let brokers = world.broker_list(first).into_iter().map(|address| address.to_string());
    let mut options = Options::new(brokers).token(TOKEN);
    options.connect_timeout = Duration::from_secs(2);
    options.backoff.max = Duration::from_secs(5);
    options
}

/// Publishes at a steady rate until the load is over, whatever the answers do.
pub(crate) async fn produce(world: Arc<World>, load: Load) -> Result<(), String> {
    let link = Link::start(options(&world, usize::from(load.producer)), load.producer)?;
    let mut random = StdRng::seed_from_u64(world.seed ^ 0x10ad ^ u64::from(load.producer));
    world.reaches(Phase::Running).await;
    let mut ticks = interval(Duration::from_secs_f64(1.0 / load.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while *world.phase.borrow() == Phase::Running {
        ticks.tick().await;
        let reported = world.reports.load(Ordering::Relaxed);
        let draft = draft(&mut random, load, reported);
        if let Some((number, pending)) = link.send(&world, draft) {
            let (world, counter) = (Arc::clone(&world), Arc::clone(&link.link));
            world.pending.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let outcome = outcome(pending).await;
                world.shared.settle(number, counter.load(Ordering::Relaxed), outcome);
                world.pending.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
    world.reaches(Phase::Over).await;
    link.producer.close().await;
    Ok(())
}

async fn outcome(pending: PendingReceipt) -> Outcome {
    match timeout(OUTCOME_TIMEOUT, pending).await {
        Ok(Ok(receipt)) => Outcome::Receipt(receipt),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Open,
    }
}

/// A random publish: to one, to some, to hundreds, to nobody who is there, to everyone.
fn draft(random: &mut StdRng, load: Load, reported: bool) -> Draft {
    let namespace = NAMESPACES[random.random_range(0..2)];
    let last = uid_of(load.users.saturating_sub(1)).max(2);
    let one = |random: &mut StdRng| random.random_range(1..=last);
    let mut except = Vec::new();
    let kind = random.random_range(0..1000);
    let to = match kind {
        0..600 => To::Uids(vec![one(random)]),
        600..680 => To::Uids(vec![NOBODY + one(random)]),
        680..990 => {
            let count = if kind < 900 { 10..60 } else { 100..800 };
            let count = random.random_range(count);
            let mut uids: Vec<u64> = (0..count).map(|_| one(random)).collect();
            if kind % 5 == 0 {
                uids.push(NOBODY + 1);
            }
            uids.sort_unstable();
            uids.dedup();
            if kind % 7 == 0 {
                except = uids.iter().copied().step_by(9).collect();
            }
            To::Uids(uids)
        }
        _ if load.everyone => To::Everyone,
        _ => To::Uids(vec![one(random)]),
    };
    Draft { namespace, to, except, reported }
}

/// What a probe was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Sent,
    Offline,
    /// In doubt, or dropped.
    Doubt,
    /// Refused as a whole: the broker is not ready.
    Refused,
    /// There is no link to the broker.
    NoLink,
}

/// One probe of a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) broker: usize,
    /// Number of the target, not only among gateways: the large one comes after them.
    pub(crate) gateway: usize,
    pub(crate) asked_at: Micros,
    pub(crate) answered_at: Micros,
    pub(crate) told: Told,
}

/// The probes so far, in the order of their answers.
pub(crate) type Probes = Arc<std::sync::Mutex<Vec<Probe>>>;

/// Asks one broker again and again, for a user of each gateway, whether it has a route there.
/// `large` users of a gateway that is played come in addition, if there are any.
pub(crate) async fn probe(
    world: Arc<World>,
    broker: usize,
    (every, large): (Duration, u64),
    probes: Probes,
) -> Result<(), String> {
    let mut options = options(&world, broker);
    options.brokers.truncate(1);
    options.backoff.max = Duration::from_millis(500);
    // An answer has to tell of the moment it was asked for.
    options.resend_within = Duration::ZERO;
    options.publish_timeout = Duration::from_secs(2);
    let index = u16::try_from(1000 + broker).unwrap_or(u16::MAX);
    let link = Link::start(options, index)?;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round = 0;
    while *world.phase.borrow() < Phase::Settling {
        ticks.tick().await;
        round += 1;
        let targets = world.gateways.len() + usize::from(large > 0);
        for gateway in 0..targets {
            let uid = match world.gateways.get(gateway) {
                Some(_) => probe_uid(gateway, round % PINNED),
                None => LARGE + (round as u64 * 7919) % large,
            };
            ask(&world, &link, (broker, gateway, uid), &probes);
        }
    }
    world.reaches(Phase::Over).await;
    link.producer.close().await;
    Ok(())
}

fn ask(
    world: &Arc<World>,
    link: &Link,
    (broker, gateway, uid): (usize, usize, u64),
    probes: &Probes,
) {
    let asked_at = world.clock.now();
    let clock = world.clock;
    let note = move |probes: &Probes, told| {
        let probe = Probe { broker, gateway, asked_at, answered_at: clock.now(), told };
        probes.lock().expect("no panic under the lock").push(probe);
    };
    // Without a link it would wait in the client, and the answer would tell of another time.
    if !matches!(link.producer.state(), LinkState::Open(_)) {
        return note(probes, Told::NoLink);
    }
    let to = To::Uids(vec![uid]);
    let draft = Draft { namespace: NAMESPACES[0], to, except: Vec::new(), reported: false };
    let Some((number, pending)) = link.send(world, draft) else {
        return note(probes, Told::NoLink);
    };
    let (world, counter, probes) = (Arc::clone(world), Arc::clone(&link.link), Arc::clone(probes));
    tokio::spawn(async move {
        let outcome = outcome(pending).await;
        note(&probes, told(&outcome));
        world.shared.settle(number, counter.load(Ordering::Relaxed), outcome);
    });
}

fn told(outcome: &Outcome) -> Told {
    match outcome {
        Outcome::Receipt(Receipt { sent: 1.., .. }) => Told::Sent,
        Outcome::Receipt(receipt) if !receipt.offline.is_empty() => Told::Offline,
        Outcome::Receipt(_) | Outcome::Open => Told::Doubt,
        Outcome::Failed(_) => Told::Refused,
    }
}

/// Takes what users send, and records it.
pub(crate) async fn consume(world: Arc<World>) -> Result<(), String> {
    let started = Consumer::start(options(&world, 0), ConsumerConfig::default());
    let (consumer, mut events) = started.map_err(|error| error.to_string())?;
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return Ok(()) };
                if let ConsumerEvent::Uplink(message) = event {
                    receive(&world, message.uid, &message.payload);
                }
            }
            () = world.reaches(Phase::Over) => {
                consumer.close().await;
                return Ok(());
            }
        }
    }
}

fn receive(world: &World, uid: u64, payload: &[u8]) {
    let number: Option<usize> = std::str::from_utf8(payload).ok().and_then(|t| t.parse().ok());
    let now = world.clock.now();
    world.shared.with(|record| match number.and_then(|number| record.uplinks.get_mut(number)) {
        Some(uplink) => uplink.received.push(now),
        None => record.violations.add("an uplink that nobody sent", || format!("user {uid}")),
    });
}
