//! A data link's half, without socket and clock: messages come in, reports go out (LNK-4).

use std::collections::VecDeque;
use std::time::Instant;

use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, capability};
use waybill_wire::error::Violation;

use super::inbox::{Inbox, Taken};
use super::reports::Reports;
use super::together::Joining;
use super::{GatewayEvent, Report};
use crate::link::{LinkError, LinkErrorKind, Welcomed};
use crate::machine::{Ending, Machine, Wishes, unexpected};

/// Marks the numbers of data links among those of [`Delivery::link`].
const IS_DATA: u64 = 1 << 63;

/// Where the shard lies in such a number. Below it are the life of the data link's task, and its
/// links.
const SHARD_AT: u32 = 44;

/// Links of one life are counted below this.
const LIFE_AT: u32 = 22;

/// The shard of the data link with this number of [`Delivery::link`]; `None` for a control link's.
pub(crate) fn shard_of(link: u64) -> Option<u16> {
    (link & IS_DATA != 0).then(|| u16::try_from(link >> SHARD_AT & 0xFFFF).unwrap_or(u16::MAX))
}

/// What a data link tells.
#[derive(Debug)]
pub(crate) enum DataEvent {
    /// It was welcomed, as this number.
    Numbered(u64),
    /// It has ended.
    Ended,
    /// For the gateway.
    Came(GatewayEvent),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct DataMachine {
    session: u64,
    capabilities: u64,
    shard: u16,
    /// This link's number in [`Delivery::link`].
    link: u64,
    open: bool,
    reports: Reports,
    inbox: Inbox,
    events: VecDeque<DataEvent>,
    in_flight_max: usize,
    pending_bytes_max: usize,
}

impl DataMachine {
    /// The data link to this shard; `life` differs from that of each before it.
    pub(crate) fn new(
        joining: &Joining,
        (incarnation, shard, life): (u64, u16, u32),
        (in_flight_max, pending_bytes_max): (usize, usize),
    ) -> Self {
        let life = u64::from(life) & ((1 << (SHARD_AT - LIFE_AT)) - 1);
        Self {
            session: joining.session,
            capabilities: joining.capabilities,
            shard,
            link: IS_DATA | u64::from(shard) << SHARD_AT | life << LIFE_AT,
            open: false,
            reports: Reports::new(incarnation),
            inbox: Inbox::default(),
            events: VecDeque::new(),
            in_flight_max,
            pending_bytes_max,
        }
    }
}

impl Machine for DataMachine {
    type Command = Report;
    type Event = DataEvent;

    const IS_SERVED: bool = true;

    fn handle_command(&mut self, _now: Instant, report: Report) {
        self.reports.push(report);
    }

    fn wants_commands(&self) -> bool {
        self.events.len() < self.in_flight_max && self.reports.bytes() < self.pending_bytes_max
    }

    fn hello(&self) -> Wishes {
        let Self { capabilities, session, shard, .. } = *self;
        Wishes { capabilities, session, data: Some(shard) }
    }

    fn handle_open(&mut self, _now: Instant, welcomed: &Welcomed) {
        self.link += 1;
        self.open = true;
        self.reports.open(self.link, self.capabilities & capability::TRACE != 0);
        self.events.push_back(DataEvent::Numbered(welcomed.session));
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        match self.inbox.take(now, frame, bytes, self.link)? {
            Taken::Event(event) => self.events.push_back(DataEvent::Came(event)),
            Taken::Piece => {}
            Taken::Nothing => {
                return Err(unexpected(frame.kind(), 0, "not a frame for a data link"));
            }
        }
        Ok(())
    }

    fn handle_down(&mut self, _now: Instant, _ending: &Ending) {
        if std::mem::take(&mut self.open) {
            self.events.push_back(DataEvent::Ended);
        }
        self.inbox.clear();
        self.reports.close();
    }

    /// Another attempt would not find more room: the control link serves its shard.
    fn gives_up(&self, error: &LinkError) -> bool {
        error.kind == LinkErrorKind::Refused(ErrorCode::TOO_MANY_LINKS)
    }

    fn transmit(&mut self, _now: Instant, out: &mut Vec<u8>) {
        self.reports.transmit(out);
    }

    fn poll_event(&mut self) -> Option<DataEvent> {
        self.events.pop_front()
    }

    fn is_settled(&self) -> bool {
        self.reports.is_empty()
    }
}
