//! A gateway's control link and its data links as tasks that put what they are told into one queue,
//! in the order in which the gateway takes it in.
//!
//! Each task hands its events out under one lock, with a look at whether its link still counts:
//! when the control link hands out that a data link is lost, nothing of that one comes after
//! (LNK-7), whatever its task has read. `together.rs` decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use waybill_wire::code::Role;

use super::data::{DataEvent, DataMachine, shard_of};
use super::together::{Joining, Order, Together};
use super::{GatewayEvent, Report};
use crate::connection::{Connection, Identity};
use crate::options::Options;
use crate::outlet::{NoSlot, Outlet, Queue, Weight as _};

/// Reports that wait for a data link's task.
const REPORTS_MAX: usize = 256;

/// Bytes of reports that a data link's machine takes, at most: there may be many such links, and
/// what one does not take waits with the gateway.
const REPORT_BYTES_MAX: usize = 1 << 20;

const UNPOISONED: &str = "nothing panics while it holds this lock";

/// The links of one gateway to one broker.
#[derive(Debug)]
pub(super) struct Joint {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    together: Together,
    data: BTreeMap<u16, Running>,
    lives: u32,
}

/// The task of one data link.
#[derive(Debug)]
struct Running {
    life: u32,
    reports: mpsc::Sender<Report>,
    task: AbortHandle,
}

impl Joint {
    pub(super) fn new(data_links: u16) -> Arc<Self> {
        let (together, data) = (Together::new(data_links), BTreeMap::new());
        Arc::new(Self { inner: Mutex::new(Inner { together, data, lives: 0 }) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect(UNPOISONED)
    }

    /// Where a report goes that belongs to a data link: `Some(None)` if that has gone, `None` if it
    /// does not.
    pub(super) fn way_of(&self, report: &Report) -> Option<Option<mpsc::Sender<Report>>> {
        let shard = shard_of(report.link)?;
        Some(self.inner().data.get(&shard).map(|data| data.reports.clone()))
    }
}

impl Inner {
    fn drop_data(&mut self, shard: u16) {
        if let Some(data) = self.data.remove(&shard) {
            data.task.abort();
        }
    }
}

/// What data links are opened with.
#[derive(Debug)]
pub(super) struct Opener {
    queue: Queue<GatewayEvent>,
    joint: Arc<Joint>,
    options: Options,
    incarnation: u64,
}

impl Opener {
    fn carry_out(&self, inner: &mut Inner, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Drop { shard } => inner.drop_data(shard),
                Order::Open { shard, joining, is_again } => {
                    let delay = if is_again { self.some_time() } else { Duration::ZERO };
                    self.open(inner, shard, &joining, delay);
                }
            }
        }
    }

    /// Until another attempt (ERR-4).
    fn some_time(&self) -> Duration {
        self.options.backoff.min.mul_f64(rand::random())
    }

    fn open(&self, inner: &mut Inner, shard: u16, joining: &Joining, delay: Duration) {
        let brokers = vec![joining.broker.to_string()];
        let options = Options { brokers, ..self.options.clone() };
        inner.lives = inner.lives.wrapping_add(1);
        let pending_bytes_max = options.max_pending_bytes.min(REPORT_BYTES_MAX);
        let (life, bounds) = (inner.lives, (options.max_in_flight, pending_bytes_max));
        let machine = DataMachine::new(joining, (self.incarnation, shard, life), bounds);
        let (reports, inbox) = mpsc::channel(REPORTS_MAX);
        let outlet = DataOutlet { opener: self.another(), shard, life };
        let identity = Identity { role: Role::GATEWAY, instance: self.incarnation };
        let task = Connection::start_after(delay, options, identity, machine, inbox, outlet);
        inner.data.insert(shard, Running { life, reports, task });
    }

    fn another(&self) -> Self {
        let (queue, joint) = (self.queue.another(), Arc::clone(&self.joint));
        Self { queue, joint, options: self.options.clone(), incarnation: self.incarnation }
    }
}

/// The control link's end of the queue. With it go the data links.
#[derive(Debug)]
pub(super) struct ControlOutlet {
    opener: Opener,
}

impl ControlOutlet {
    pub(super) fn new(
        queue: Queue<GatewayEvent>,
        joint: Arc<Joint>,
        options: Options,
        incarnation: u64,
    ) -> Self {
        Self { opener: Opener { queue, joint, options, incarnation } }
    }
}

impl Drop for ControlOutlet {
    fn drop(&mut self) {
        let joint = Arc::clone(&self.opener.joint);
        let mut inner = joint.inner();
        let mut orders = Vec::new();
        inner.together.down(&mut orders);
        self.opener.carry_out(&mut inner, orders);
    }
}

impl Outlet<GatewayEvent> for ControlOutlet {
    fn offer(&mut self, event: GatewayEvent) -> Result<(), GatewayEvent> {
        let joint = Arc::clone(&self.opener.joint);
        let mut inner = joint.inner();
        let mut orders = Vec::new();
        match self.opener.queue.reserve(event.bytes()) {
            Ok(slot) => {
                inner.together.heard(&event, &mut orders);
                slot.send(event);
            }
            Err(NoSlot::Full) => return Err(event),
            Err(NoSlot::Gone) => {}
        }
        self.opener.carry_out(&mut inner, orders);
        Ok(())
    }

    async fn room(&mut self) {
        self.opener.queue.freed().await;
    }

    fn is_gone(&self) -> bool {
        self.opener.queue.is_abandoned()
    }
}

/// A data link's end of it.
#[derive(Debug)]
struct DataOutlet {
    opener: Opener,
    shard: u16,
    life: u32,
}

impl Outlet<DataEvent> for DataOutlet {
    /// What comes from one that does not count any more goes nowhere.
    fn offer(&mut self, event: DataEvent) -> Result<(), DataEvent> {
        let joint = Arc::clone(&self.opener.joint);
        let mut inner = joint.inner();
        if inner.data.get(&self.shard).is_none_or(|data| data.life != self.life) {
            return Ok(());
        }
        match event {
            DataEvent::Numbered(number) => {
                let mut orders = Vec::new();
                inner.together.numbered(self.shard, number, &mut orders);
                self.opener.carry_out(&mut inner, orders);
            }
            DataEvent::Ended => inner.together.ended(self.shard),
            DataEvent::Came(event) => match self.opener.queue.reserve(event.bytes()) {
                Ok(slot) => slot.send(event),
                Err(NoSlot::Full) => return Err(DataEvent::Came(event)),
                Err(NoSlot::Gone) => {}
            },
        }
        Ok(())
    }

    async fn room(&mut self) {
        self.opener.queue.freed().await;
    }

    fn is_gone(&self) -> bool {
        self.opener.queue.is_abandoned()
    }
}
