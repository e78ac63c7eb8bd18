//! Reports on what came by one link, until they are written to it.

use std::collections::VecDeque;

use super::Report;
use crate::machine::WRITE_BYTES;

/// See the module.
#[derive(Debug)]
pub(super) struct Reports {
    incarnation: u64,
    /// The link's number, while it is open.
    link: Option<u64>,
    /// Whether the link's broker takes hop times.
    traces: bool,
    waiting: VecDeque<Report>,
    bytes: usize,
}

impl Reports {
    /// None, and no link, of a gateway of this incarnation.
    pub(super) fn new(incarnation: u64) -> Self {
        Self { incarnation, link: None, traces: false, waiting: VecDeque::new(), bytes: 0 }
    }

    /// The link with this number opened.
    pub(super) fn open(&mut self, link: u64, traces: bool) {
        (self.link, self.traces) = (Some(link), traces);
    }

    /// The link ended: what waits is for nobody.
    pub(super) fn close(&mut self) {
        self.link = None;
        self.waiting.clear();
        self.bytes = 0;
    }

    /// Adds one. A report on a delivery of an earlier link is for nobody.
    pub(super) fn push(&mut self, report: Report) {
        if self.link == Some(report.link) {
            self.bytes += report.pending_bytes();
            self.waiting.push_back(report);
        }
    }

    /// About as many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Appends reports to `out` until it has [`WRITE_BYTES`] or none is left.
    pub(super) fn transmit(&mut self, out: &mut Vec<u8>) {
        while out.len() < WRITE_BYTES
            && let Some(report) = self.waiting.pop_front()
        {
            self.bytes -= report.pending_bytes();
            let traced_by = self.traces.then_some(self.incarnation);
            if let Err(error) = report.encode(traced_by, out) {
                // The broker counts its targets as unknown when the report does not come.
                tracing::error!(%error, "a report cannot be encoded");
            }
        }
    }
}
