//! A data link's half, without socket and clock: messages come in, reports go out (LNK-4).

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, capability};
use waybill_wire::error::Violation;

use super::together::Joining;
use super::{Delivery, GatewayEvent, Report, Tagging};
use crate::link::{LinkError, LinkErrorKind, Welcomed};
use crate::machine::{Ending, Machine, WRITE_BYTES, Wishes, unexpected};

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
    incarnation: u64,
    session: u64,
    capabilities: u64,
    shard: u16,
    /// This link's number in [`Delivery::link`].
    link: u64,
    open: bool,
    traces: bool,
    reports: VecDeque<Report>,
    report_bytes: usize,
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
            incarnation,
            session: joining.session,
            capabilities: joining.capabilities,
            shard,
            link: IS_DATA | u64::from(shard) << SHARD_AT | life << LIFE_AT,
            open: false,
            traces: joining.capabilities & capability::TRACE != 0,
            reports: VecDeque::new(),
            report_bytes: 0,
            events: VecDeque::new(),
            in_flight_max,
            pending_bytes_max,
        }
    }

    fn came(&mut self, event: GatewayEvent) {
        self.events.push_back(DataEvent::Came(event));
    }
}

impl Machine for DataMachine {
    type Command = Report;
    type Event = DataEvent;

    const IS_SERVED: bool = true;

    /// A report on a delivery of an earlier link is for nobody.
    fn handle_command(&mut self, _now: Instant, report: Report) {
        if self.open && report.link == self.link {
            self.report_bytes += report.pending_bytes();
            self.reports.push_back(report);
        }
    }

    fn wants_commands(&self) -> bool {
        self.events.len() < self.in_flight_max && self.report_bytes < self.pending_bytes_max
    }

    fn hello(&self) -> Wishes {
        let Self { capabilities, session, shard, .. } = *self;
        Wishes { capabilities, session, data: Some(shard) }
    }

    fn handle_open(&mut self, _now: Instant, welcomed: &Welcomed) {
        self.link += 1;
        self.open = true;
        self.events.push_back(DataEvent::Numbered(welcomed.session));
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        match frame {
            Frame::Deliver(message) => {
                let header_bytes = bytes.len() - message.payload.len();
                let bytes = Bytes::copy_from_slice(bytes);
                let delivery = Delivery::new(bytes, header_bytes, self.link, now);
                self.came(GatewayEvent::Delivery(delivery));
                Ok(())
            }
            Frame::Tag(_) => {
                let tagging = Tagging::new(Bytes::copy_from_slice(bytes), self.link);
                self.came(GatewayEvent::Tagging(tagging));
                Ok(())
            }
            other => Err(unexpected(other.kind(), 0, "not a frame for a data link")),
        }
    }

    fn handle_down(&mut self, _now: Instant, _ending: &Ending) {
        if std::mem::take(&mut self.open) {
            self.events.push_back(DataEvent::Ended);
        }
        self.reports.clear();
        self.report_bytes = 0;
    }

    /// Another attempt would not find more room: the control link serves its shard.
    fn gives_up(&self, error: &LinkError) -> bool {
        error.kind == LinkErrorKind::Refused(ErrorCode::TOO_MANY_LINKS)
    }

    fn transmit(&mut self, _now: Instant, out: &mut Vec<u8>) {
        while out.len() < WRITE_BYTES
            && let Some(report) = self.reports.pop_front()
        {
            self.report_bytes -= report.pending_bytes();
            let traced_by = self.traces.then_some(self.incarnation);
            if let Err(error) = report.encode(traced_by, out) {
                // The broker counts its targets as unknown when the report does not come.
                tracing::error!(%error, "a report cannot be encoded");
            }
        }
    }

    fn poll_event(&mut self) -> Option<DataEvent> {
        self.events.pop_front()
    }

    fn is_settled(&self) -> bool {
        self.reports.is_empty()
    }
}
