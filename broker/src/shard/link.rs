//! What a shard keeps of one link: its protocol session, its outbox, its role, its place in life.
//!
//! ```text
//!  Open --peer ends its direction, or a fault--> Closing --all written--> Lingering --> Gone
//!   |                                               |                         peer ended, or time
//!   +-----------transport failed, peer's fatal ERROR+----------------------------------> Gone
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use waybill_wire::assembly::Assembly;
use waybill_wire::code::{ErrorCode, Kind, capability};
use waybill_wire::deframe::Deframer;
use waybill_wire::frame::{ErrorFrame, Frame};
use waybill_wire::session::{Refusal, Sequence, Session};

use crate::auth::Grant;
use crate::io::LinkId;
use crate::limits::{CONTROL_BYTES_STOP, PARTIAL_BYTES_LEAST};
use crate::mail::Receiver;
use crate::outbox::Outbox;
use crate::pool::Charges;
use crate::shard::data::{DataState, Fence};
use crate::shard::gateway::GatewayState;
use crate::shard::halfway::Halfway;
use crate::shard::hops::Unrouted;
use crate::shard::parts::Rest;
use crate::shard::reading::Reading;
use crate::shard::receipts::{Receipts, Reports};
use crate::shard::standing::Standing;
use crate::shard::uplink::Owed;
use crate::shared::Shared;

pub(super) use waybill_wire::session::Fault;

/// A link. The deframer stands apart, since a frame borrowed from it is handled while the rest of
/// the link changes.
pub(super) struct Link {
    pub(super) deframer: Deframer,
    pub(super) part: Part,
}

/// A link but for its deframer.
pub(super) struct Part {
    pub(super) id: LinkId,
    // Where it comes from, if the transport knows.
    pub(super) peer: Option<Arc<str>>,
    pub(super) life: Life,
    pub(super) session: Session,
    pub(super) outbox: Outbox,
    pub(super) role: RoleState,
    // What its HELLO offered and this broker runs.
    pub(super) capabilities: u64,
    pub(super) reading: Reading,
    // Whether a write is on its way.
    pub(super) writing: bool,
    // Whose messages its outbox holds.
    pub(super) receiver: Receiver,
    // Messages given to the transport, and how many of them the peer is known to have read.
    pub(super) handed: u64,
    pub(super) confirmed: u64,
    // A PING that is on its way, and what was handed to the transport before it.
    pub(super) asked: Option<(u32, u64)>,
    pub(super) asked_at: Duration,
    // When a link that is Closing or Lingering is closed, come what may.
    pub(super) linger: Duration,
    // Not read until it has read its answers.
    pub(super) waits: bool,
    pub(super) touched: bool,
    pub(super) admission: Admission,
    // Written after everything that waits, as the link's last frame.
    pub(super) farewell: Option<Fault>,
    // Messages wait until the link it took over from is written out.
    pub(super) held: bool,
    // Those of a data link wait until what its shard sent by the control link was taken in.
    pub(super) fenced: bool,
    // Data links that wait for that of this control link.
    pub(super) fences: Vec<Fence>,
    // The life of a gateway whose messages it writes, until it is written out, or gone.
    pub(super) path: Option<u64>,
    // What it has brought and waits for its next turn; then it is not read.
    pub(super) rest: Option<Rest>,
    // A message of a producer that takes several turns.
    pub(super) halfway: Option<Box<Halfway>>,
    // What the pools of all links are charged with for it.
    pub(super) charges: Charges,
    // Bytes of a frame that is not whole yet, and since when there is none for the rest of it.
    pub(super) partial: usize,
    pub(super) short_since: Option<Duration>,
    // Nothing was written to it between the last two ticks.
    pub(super) is_idle: bool,
    pub(super) wrote_lately: bool,
}

/// What a link is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// A link whose HELLO has not been accepted.
    Stranger,
    Link,
    /// One too many: it is only told so.
    Refusal,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    Closing,
    Lingering,
    Gone,
}

/// What the link is after its HELLO.
#[derive(Default)]
pub(super) enum RoleState {
    #[default]
    None,
    Producer(Box<ProducerState>),
    Gateway(Box<GatewayState>),
    Data(Box<DataState>),
    Consumer(Box<ConsumerState>),
}

pub(super) struct ProducerState {
    pub(super) instance: u64,
    pub(super) grant: Grant,
    pub(super) sequence: Sequence,
    // Messages of which not all pieces have come.
    pub(super) assembly: Assembly<Duration>,
    pub(super) standing: Standing,
    pub(super) receipts: Receipts,
    // Traced messages of the turn that has not ended.
    pub(super) unrouted: Vec<Unrouted>,
}

pub(super) struct ConsumerState {
    pub(super) grant: Grant,
    pub(super) owed: Owed,
    // Bytes of its filters' texts, by namespace and number.
    pub(super) filters: BTreeMap<(u32, u32), usize>,
}

/// What a filter takes, as a multiple of its text, and besides.
const FILTER_TIMES: usize = 16;
const FILTER_BYTES: usize = 256;

impl ConsumerState {
    /// Bytes of memory that it takes.
    pub(super) fn held(&self) -> usize {
        let of = |text: &usize| text * FILTER_TIMES + FILTER_BYTES;
        self.owed.held() + self.filters.values().map(of).sum::<usize>()
    }
}

impl Link {
    pub(super) fn new(id: LinkId, now: Duration, shared: &Shared, admission: Admission) -> Self {
        let part = Part {
            id,
            peer: None,
            life: Life::Open,
            session: Session::broker(now),
            outbox: Outbox::sharing(
                shared.config.outbox_bytes_max,
                Arc::clone(&shared.pools.waiting),
            ),
            role: RoleState::None,
            capabilities: 0,
            reading: Reading::default(),
            writing: false,
            receiver: Receiver::Gateways,
            handed: 0,
            confirmed: 0,
            asked: None,
            asked_at: now,
            linger: Duration::ZERO,
            waits: false,
            touched: false,
            admission,
            farewell: None,
            held: false,
            fenced: false,
            fences: Vec::new(),
            path: None,
            rest: None,
            halfway: None,
            charges: Charges::new(&shared.pools),
            partial: 0,
            short_since: None,
            is_idle: false,
            wrote_lately: false,
        };
        Self { deframer: Deframer::new(), part }
    }
}

impl Part {
    /// Encodes an answer.
    pub(super) fn put(&mut self, frame: &Frame<'_>) {
        let encoded = frame.encode(self.outbox.control());
        encoded.expect("what the broker says is within the limits");
    }

    /// Whether messages may still be queued: it is open, or will be written out before it ends.
    pub(super) fn takes_messages(&self) -> bool {
        self.life == Life::Open || self.farewell.is_some()
    }

    /// Whether nobody waits for anything: nothing unsent, unread, unserved or reserved by another
    /// shard, and no uplink without its answer.
    pub(super) fn is_idle(&self) -> bool {
        let answered = match &self.role {
            RoleState::Gateway(gateway) => gateway.uplinked.is_empty(),
            RoleState::Consumer(consumer) => consumer.owed.is_empty(),
            RoleState::Producer(producer) => producer.receipts.is_empty(),
            RoleState::Data(_) | RoleState::None => true,
        };
        let sent = self.outbox.is_empty() && !self.writing && self.confirmed == self.handed;
        answered && sent && self.rest.is_none() && self.outbox.room().waiting() == 0
    }

    /// Whether its HELLO offered that, and this broker runs it.
    pub(super) fn can(&self, capability: u64) -> bool {
        self.capabilities & capability != 0
    }

    /// The number for the next frame of that kind, which a gateway is to report on; `None` if it
    /// reports on none of them.
    pub(super) fn report_number(&mut self, kind: Kind) -> Option<u64> {
        let on_tags = kind == Kind::TAG;
        let reports = self.can(if on_tags { capability::TAGS } else { capability::REPORTS });
        self.reports().filter(|_| reports).map(Reports::next)
    }

    /// What a gateway owes by this link, if it is one's.
    pub(super) fn reports(&mut self) -> Option<&mut Reports> {
        match &mut self.role {
            RoleState::Gateway(gateway) => Some(&mut gateway.reports),
            RoleState::Data(data) => Some(&mut data.reports),
            _ => None,
        }
    }

    /// Whose link it is, if it is a gateway's.
    pub(super) fn incarnation(&self) -> Option<u64> {
        match &self.role {
            RoleState::Gateway(gateway) => Some(gateway.incarnation),
            RoleState::Data(data) => Some(data.incarnation),
            _ => None,
        }
    }

    /// Whether its messages may not be written yet.
    pub(super) fn holds_messages(&self) -> bool {
        self.held || self.fenced
    }

    /// Answers a frame that is refused, and whose link lives on.
    pub(super) fn refuse(
        &mut self,
        (ref_kind, reference): (Kind, u64),
        code: ErrorCode,
        detail: &str,
    ) {
        let error = ErrorFrame { code, ref_kind, reference, detail, ..ErrorFrame::default() };
        self.put(&Frame::Error(error));
    }

    /// Answers a frame that has no effect here (SES-7).
    pub(super) fn not_supported(&mut self, frame: &Frame<'_>) {
        let detail = "this broker does not run what the frame asks for";
        let error = ErrorFrame::not_supported(frame.kind(), frame.reference(), detail);
        self.put(&Frame::Error(error));
    }

    /// Whether so many of its answers wait that it is not read until it has taken some, or it is in
    /// the middle of a frame that is more than its share.
    pub(super) fn must_wait(&self, share: usize) -> bool {
        let waiting = self.outbox.control_bytes();
        let stop = if self.waits { CONTROL_BYTES_STOP / 2 } else { CONTROL_BYTES_STOP };
        let always_read = self.incarnation().is_some() || self.life != Life::Open;
        !always_read && (waiting > stop.min(share) || self.partial > share.max(PARTIAL_BYTES_LEAST))
    }
}

/// The end of a link in the broker's own words.
pub(super) fn refused(code: ErrorCode, kind: Kind, detail: &'static str) -> Fault {
    Refusal { code, kind, detail, ..Refusal::default() }.into()
}
