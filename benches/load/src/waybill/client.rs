//! Waybill through the client crate: publishes in batches, gateway links as a gateway has them. The
//! crate's tasks run in this thread, a little at every turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::{Builder, Runtime};
use waybill_client::gateway::{
    Change, GatewayCommand, GatewayEvent, GatewayEvents, GatewayLink, Registration,
};
use waybill_client::{LinkState, Mode, Options, Producer, Publish, ReceiptLevel};

use crate::clock::Clock;
use crate::driver::{Audience, Driver, Message};
use crate::failure::Failure;
use crate::io::Io;
use crate::tally::{Tally, fault};
use crate::work::{WorkPlan, gateway_of, mix, uid_of};

/// Publishes that may be unsettled: more than any window, so that none waits in the client.
const UNSETTLED_MAX: usize = 1 << 17;

/// Bytes of them.
const UNSETTLED_BYTES_MAX: usize = 256 << 20;

/// Longest time between two looks at what gateways got.
const LOOK: Duration = Duration::from_millis(1);

struct Gateway {
    /// Dropping it would close the link.
    link: GatewayLink,
    events: GatewayEvents,
    asked: bool,
    in_effect: bool,
}

/// A producer and gateway links of the client crate.
pub(super) struct Client {
    plan: WorkPlan,
    address: SocketAddr,
    runtime: Runtime,
    gateways: Vec<Gateway>,
    producer: Option<Producer>,
    batch: Vec<Publish>,
    refused: Arc<AtomicU64>,
    /// Refusals that the producer had counted at the last look.
    refused_late: u64,
}

impl Client {
    pub(super) fn new(plan: WorkPlan, address: SocketAddr) -> Result<Self, Failure> {
        Ok(Self {
            plan,
            address,
            runtime: Builder::new_current_thread().enable_all().build()?,
            gateways: Vec::new(),
            producer: None,
            batch: Vec::new(),
            refused: Arc::new(AtomicU64::new(0)),
            refused_late: 0,
        })
    }

    fn options(&self) -> Options {
        Options {
            max_in_flight: UNSETTLED_MAX,
            max_pending_bytes: UNSETTLED_BYTES_MAX,
            ..Options::new([self.address.to_string()])
        }
    }

    fn all_in_effect(&self) -> bool {
        self.gateways.iter().all(|gateway| gateway.in_effect)
    }

    fn event(
        gateway: &mut Gateway,
        index: usize,
        event: GatewayEvent,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        match event {
            GatewayEvent::Delivery(delivery) => {
                let message = delivery.message();
                if message.everyone {
                    tally.broadcast(index, message.payload);
                } else {
                    tally.delivered(index, message.payload, message.targets.iter());
                }
            }
            GatewayEvent::InEffect { ticket: 1.. } => gateway.in_effect = true,
            GatewayEvent::Down { reason, .. } | GatewayEvent::Failed(reason) => {
                return Err(Failure::new(reason));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Driver for Client {
    fn connect(&mut self, _io: &mut Io) -> Result<(), Failure> {
        let _in_runtime = self.runtime.enter();
        for index in 0..self.plan.gateways as u64 {
            let incarnation = mix(self.plan.seed ^ mix(index)) | 1;
            let (link, events) =
                GatewayLink::start(self.options(), incarnation).map_err(Failure::new)?;
            self.gateways.push(Gateway { link, events, asked: false, in_effect: false });
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let open = |producer: &Producer| matches!(producer.state(), LinkState::Open(_));
        self.all_in_effect() && self.producer.as_ref().is_some_and(open)
    }

    fn set_up(&mut self, _io: &mut Io) -> Result<(), Failure> {
        let count = self.plan.gateways;
        for (index, gateway) in self.gateways.iter_mut().enumerate().filter(|(_, it)| !it.asked) {
            let users = (0..self.plan.users).map(uid_of);
            let here = users.filter(|uid| gateway_of(*uid, count) == index);
            let add =
                |uid| Change::add(Registration { namespace: 0, uid, device_class: 0, login: 0 });
            let change = GatewayCommand::Change {
                ticket: 1,
                changes: here.map(add).collect(),
                tags: Vec::new(),
            };
            gateway.link.try_command(change).map_err(Failure::new)?;
            gateway.asked = true;
        }
        if self.producer.is_none() && self.all_in_effect() {
            let _in_runtime = self.runtime.enter();
            self.producer = Some(Producer::start(self.options()).map_err(Failure::new)?);
        }
        Ok(())
    }

    fn users_ready(&self) -> u64 {
        if self.is_ready() { self.plan.users } else { 0 }
    }

    fn publish(&mut self, message: &Message<'_>, _io: &mut Io) -> Result<(), Failure> {
        let publish = match message.audience {
            Audience::Users(uids) => Publish::to(uids),
            Audience::Everyone => Publish::everyone().mode(Mode::BROADCAST),
        };
        let payload = Bytes::copy_from_slice(message.payload);
        self.batch.push(publish.level(ReceiptLevel::None).payload(payload));
        Ok(())
    }

    fn flush(&mut self, _io: &mut Io) {
        let batch = std::mem::take(&mut self.batch);
        if let Some(producer) = self.producer.clone().filter(|_| !batch.is_empty()) {
            let refused = Arc::clone(&self.refused);
            self.runtime.spawn(async move {
                let outcomes = producer.publish_batch(batch).await;
                let wrong = outcomes.iter().filter(|outcome| outcome.is_err()).count();
                refused.fetch_add(wrong as u64, Ordering::Relaxed);
            });
        }
    }

    fn wait(&mut self, at_most: Duration) -> bool {
        // Its tasks run meanwhile. What they got is looked at afterwards.
        self.runtime.block_on(async { tokio::time::sleep(at_most.min(LOOK)).await });
        true
    }

    fn turn(&mut self, clock: &Clock, tally: &mut Tally) -> Result<bool, Failure> {
        self.runtime.block_on(tokio::task::yield_now());
        tally.at(clock.nanos());
        let mut busy = false;
        for (index, gateway) in self.gateways.iter_mut().enumerate() {
            while let Some(event) = gateway.events.next().now_or_never() {
                let event = event.ok_or_else(|| Failure::new("a gateway link has ended"))?;
                Self::event(gateway, index, event, tally)?;
                busy = true;
            }
        }
        let refused = self.refused.swap(0, Ordering::Relaxed);
        // The producer counts from its start.
        let late = self.producer.as_ref().map_or(0, Producer::refusals);
        let refused = refused + late - self.refused_late;
        self.refused_late = late;
        for _ in 0..refused {
            tally.fault(fault::REFUSED, "a publish");
        }
        Ok(busy)
    }
}
