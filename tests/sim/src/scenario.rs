//! What one seed plays: how many of everything, and which kinds of faults, each switched on or off
//! by itself so that rare combinations come up.

use waybill_broker::LoginPolicy;
use waybill_broker::config::OutboxPolicy;
use waybill_broker::limits::LINK_STEPS;

use crate::chance::Chance;

/// Milliseconds, in the clock's unit.
pub(crate) const MS: u64 = 1_000;
/// Seconds, in the clock's unit.
pub(crate) const SECOND: u64 = 1_000 * MS;

/// One of the things that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A link is reset.
    Reset,
    /// A link dies without a word, in one direction or both.
    HalfOpen,
    /// Nothing moves on a link for a while.
    Freeze,
    /// A process stops and goes on.
    Pause,
    /// A process's clock leaps.
    Jump,
    /// A broker is killed and comes back.
    BrokerCrash,
    /// A gateway is killed and comes back as another life.
    GatewayCrash,
    /// A producer is killed and comes back as another life.
    ProducerCrash,
    /// A consumer is killed and comes back as another life.
    ConsumerCrash,
    /// A broker is told to stop, and comes back.
    BrokerDrain,
    /// A gateway is told to stop, and comes back as another life.
    GatewayDrain,
    /// A gateway says that it will be away, and comes back on another link.
    Suspend,
    /// Somebody talks nonsense to a broker.
    Garbage,
}

const FAULTS: [Fault; 13] = [
    Fault::Reset,
    Fault::HalfOpen,
    Fault::Freeze,
    Fault::Pause,
    Fault::Jump,
    Fault::BrokerCrash,
    Fault::GatewayCrash,
    Fault::ProducerCrash,
    Fault::ConsumerCrash,
    Fault::BrokerDrain,
    Fault::GatewayDrain,
    Fault::Suspend,
    Fault::Garbage,
];

/// In which groups consumers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    /// In none: they serve both namespaces.
    Nameless,
    /// Each in one of its own, in both namespaces.
    Own,
    /// All in one, in namespace 0 alone.
    OneNamespace,
}

/// The play.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Brokers, and shards of each.
    pub(crate) brokers: usize,
    /// Shards of each broker.
    pub(crate) shards: u16,
    /// Data links that gateways open to a broker at most.
    pub(crate) data_links: u16,
    /// Gateways.
    pub(crate) gateways: usize,
    /// Users, each with one UID.
    pub(crate) users: usize,
    /// UIDs per namespace: fewer than users, so that some share one.
    pub(crate) uids: u64,
    /// Producers.
    pub(crate) producers: usize,
    /// Consumers.
    pub(crate) consumers: usize,
    /// Things that happen before the cluster heals.
    pub(crate) actions: u64,
    /// Longest time between two of them.
    pub(crate) pause: u64,
    /// Kinds of faults that occur.
    pub(crate) faults: Vec<Fault>,
    /// One action in so many is a fault.
    pub(crate) fault_every: u64,
    /// Longest time a chunk of bytes travels.
    pub(crate) delay: u64,
    /// Bytes a socket holds in one direction.
    pub(crate) socket_bytes: usize,
    /// Bytes that may wait for one link at a broker.
    pub(crate) outbox_bytes: usize,
    /// What happens to messages for a gateway beyond that, or when they have waited too long.
    pub(crate) outbox_policy: OutboxPolicy,
    /// For how many milliseconds they may wait, if it matters.
    pub(crate) outbox_age_max_ms: u32,
    /// Whether some messages have conflation keys.
    pub(crate) conflates: bool,
    /// Whether producers send many messages to a few users at a time.
    pub(crate) bursts: bool,
    /// Bytes that may wait for one user at a gateway.
    pub(crate) queue_bytes: usize,
    /// Largest payload.
    pub(crate) payload: u64,
    /// Whether producers cut small payloads, too.
    pub(crate) cuts: bool,
    /// Whether some payloads are so large that they go in pieces by themselves.
    pub(crate) large: bool,
    /// Whether some lists of users are so long that they go in parts.
    pub(crate) long_lists: bool,
    /// Whether users stop reading now and then.
    pub(crate) slow_users: bool,
    /// Whether clocks run at different rates.
    pub(crate) skewed: bool,
    /// Milliseconds a lost gateway's slot is kept.
    pub(crate) resume_window_ms: u32,
    /// Milliseconds without a new gateway after which a broker that started is ready.
    pub(crate) ready_quiet_ms: u32,
    /// Gateways that a broker knows at once, those that have gone among them.
    pub(crate) gateways_max: u32,
    /// Whether a broker knows how many gateways to expect.
    pub(crate) expects_gateways: bool,
    /// Messages that wait for a consumer's application, and that it may have unanswered by a link.
    pub(crate) consumer_takes: usize,
    /// In which groups consumers are.
    pub(crate) groups: Groups,
    /// Whether consumers are told of logins and of who was offline.
    pub(crate) feeds: bool,
    /// Entries of a gateway's tables of uplinks and of reports.
    pub(crate) table: usize,
    /// Messages that a gateway remembers to recognise one that was sent again.
    pub(crate) recent: usize,
    /// How much a gateway does for one frame before it hears others.
    pub(crate) part: usize,
    /// And a broker, in steps.
    pub(crate) turn: usize,
    /// Which logins of one user may stand at once.
    pub(crate) logins: LoginPolicy,
    /// Whether users have tags, messages selectors, and producers change tags.
    pub(crate) tags: bool,
    /// Tags of one gateway that a broker keeps.
    pub(crate) tags_kept: usize,
}

impl Scenario {
    /// The play of a seed.
    #[must_use]
    pub(crate) fn new(chance: &mut Chance) -> Self {
        let faults = FAULTS.into_iter().filter(|_| chance.one_in(2)).collect();
        let tight = chance.one_in(3);
        // Sockets that are soon full, so that messages wait at brokers, where there is room.
        let narrow = !tight && chance.one_in(2);
        // Over these, and with large payloads, a burst would take longer than anything may.
        let far = chance.one_in(3) && !narrow;
        let users = chance.size(3, 14);
        let gateways = chance.size(2, 4);
        Self {
            brokers: chance.size(1, 3),
            shards: [1, 2, 3][chance.place(3)],
            gateways,
            users,
            uids: chance.between(2, 2 + users as u64),
            producers: chance.size(1, 3),
            consumers: chance.size(0, 2),
            actions: chance.between(60, 160),
            pause: chance.between(5, 120) * MS,
            faults,
            fault_every: chance.between(4, 30),
            delay: if far { 60 * MS } else { 4 * MS },
            socket_bytes: match (tight, narrow) {
                (true, _) => 1_500,
                (_, true) => 1_000,
                _ => 64 << 10,
            },
            outbox_bytes: if tight { 6_000 } else { 1 << 20 },
            queue_bytes: if tight { 4_096 } else { 256 << 10 },
            payload: if chance.one_in(3) { 900 } else { 40 },
            // Where sockets are small a list of this length alone takes seconds.
            long_lists: !tight && !narrow && chance.one_in(4),
            slow_users: chance.one_in(2),
            skewed: chance.one_in(2),
            resume_window_ms: [0, 1_000, 4_000][chance.place(3)],
            ready_quiet_ms: [0, 500, 3_000][chance.place(3)],
            gateways_max: if tight { u32::try_from(2 * gateways).expect("a few") } else { 4_096 },
            expects_gateways: chance.one_in(2),
            consumer_takes: if chance.one_in(3) { 2 } else { 1_000 },
            groups: [Groups::Nameless, Groups::Own, Groups::OneNamespace][chance.place(3)],
            feeds: chance.one_in(2),
            table: if tight { 12 } else { 16_384 },
            recent: if chance.one_in(4) { 12 } else { 16_384 },
            part: if chance.one_in(2) { 2 } else { 1_024 },
            turn: if chance.one_in(2) { 192 } else { LINK_STEPS },
            logins: [LoginPolicy::All, LoginPolicy::OnePerDeviceClass, LoginPolicy::One]
                [chance.place(3)],
            tags: chance.one_in(2),
            tags_kept: if chance.one_in(4) { 2 } else { 4_096 },
            outbox_policy: match chance.below(4) {
                0 => OutboxPolicy::DropOldest,
                // Where outboxes are small a link would hardly ever last.
                1 if !tight => OutboxPolicy::Close,
                _ => OutboxPolicy::Refuse,
            },
            outbox_age_max_ms: [0, 1_000, 30_000][chance.place(3)],
            conflates: chance.one_in(2),
            bursts: chance.one_in(2) && !far,
            data_links: [0, 1, 64][chance.place(3)],
            cuts: chance.one_in(2),
            // As with long lists.
            large: !tight && !narrow && chance.one_in(4),
        }
    }
}
