//! From when an outage counts: a link that was silent was gone before anybody noticed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use waybill_wire::code::{BrokerState, Role};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{InEffect, Welcome};

use super::{adds, user};
use crate::connection::{Identity, LinkCore};
use crate::gateway::{GatewayCommand, GatewayEvent, GatewayMachine};
use crate::options::Options;

const KEEPALIVE_MS: u32 = 1_000;

struct Rig {
    core: LinkCore<GatewayMachine>,
    began: Instant,
}

impl Rig {
    /// A link with one user in effect, who was confirmed at 0.
    fn new() -> Self {
        let machine = GatewayMachine::new(0xa1, 16, 1 << 20);
        let identity = Identity { role: Role::GATEWAY, instance: 7 };
        let core = LinkCore::new(machine, identity, &Options::default());
        let mut rig = Self { core, began: Instant::now() };
        let changes = adds([1]);
        rig.core
            .command(rig.began, GatewayCommand::Change { ticket: 1, changes, tags: Vec::new() });
        rig.link(0);
        rig
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn link(&mut self, ms: u64) {
        let (now, address) = (self.at(ms), Arc::from("broker"));
        self.core.open(now, &address, now + Duration::from_secs(1)).expect("fits");
        let mut bytes = Vec::new();
        Welcome {
            state: BrokerState::READY,
            version: u16::from(waybill_wire::limits::DRAFT),
            session: 5,
            shards: 1,
            keepalive_ms: KEEPALIVE_MS,
            ..Welcome::default()
        }
        .encode(&mut bytes);
        self.write(ms);
        self.core.received(now, &bytes).expect("a welcome");
        self.write(ms);
        let crate::gateway::Registration { namespace, uid, device_class, login } = user(1);
        let registered = Registered { namespace, uid, device_class, login };
        let digest = [registered].into_iter().collect::<Digest>().value();
        bytes.clear();
        InEffect { version: 1, digest }.encode(&mut bytes);
        self.core.received(now, &bytes).expect("it was declared");
    }

    fn write(&mut self, ms: u64) {
        let now = self.at(ms);
        loop {
            let len = self.core.output(now).len();
            if len == 0 {
                return;
            }
            self.core.written(len);
        }
    }

    /// The transport ends at `down`, and everything is back at `back`: the gap that is told.
    fn gap(&mut self, down: u64, back: u64) -> Duration {
        let error = self.core.lost(None);
        self.core.down(self.at(down), &error, 0).expect("it is tried again");
        while self.core.poll_event().is_some() {}
        self.link(back);
        let gaps = std::iter::from_fn(|| self.core.poll_event()).filter_map(|event| match event {
            GatewayEvent::Restored { gap, .. } => Some(gap),
            _ => None,
        });
        let gaps: Vec<Duration> = gaps.collect();
        assert_eq!(gaps.len(), 1);
        gaps[0]
    }
}

#[test]
fn an_outage_counts_from_the_last_byte_if_the_link_was_silent_before_it() {
    let keepalive = u64::from(KEEPALIVE_MS);
    assert_eq!(Rig::new().gap(3 * keepalive, 3_500), Duration::from_millis(3_500));
    assert_eq!(Rig::new().gap(2 * keepalive + 1, 2_500), Duration::from_millis(2_500));
    // Nobody expected anything: it ended when it ended.
    assert_eq!(Rig::new().gap(keepalive, 1_500), Duration::from_millis(500));
}

#[test]
fn silence_while_we_do_not_read_is_our_own() {
    let mut rig = Rig::new();
    let event = rig.core.poll_event().expect("the link is up");
    rig.core.hold(event);
    assert!(!rig.core.set_reading(rig.at(10)));
    assert_eq!(rig.gap(5_000, 5_100), Duration::from_millis(100));
}
