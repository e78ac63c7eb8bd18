//! What the connection asks of a role: a pure machine between commands, frames and events.
//!
//! Time is an argument, bytes are appended to a buffer, nothing waits. After every call the
//! connection drains `transmit` and `poll_event`. One implementation per role; the connection is
//! generic over them and knows none.

use std::time::Instant;

use waybill_wire::Frame;
use waybill_wire::code::{BrokerState, ErrorCode, Kind};
use waybill_wire::error::{Breach, Violation};
use waybill_wire::frame::ErrorFrame;

use crate::link::{LinkError, Welcomed};

/// A role's half of a link.
pub(crate) trait Machine {
    /// What the application asks for.
    type Command;
    /// What the application is told.
    type Event;

    /// Whether the broker sends to this role of its own accord. Such an end says DRAIN before it
    /// finishes what is under way, and stays on a draining broker as long as that lets it; one that
    /// only asks leaves when its last question is answered.
    const IS_SERVED: bool;

    /// Takes a command over; allowed in every state of the link.
    fn handle_command(&mut self, now: Instant, command: Self::Command);

    /// Whether another command has room.
    fn wants_commands(&self) -> bool;

    /// What HELLO says beyond who this is; asked at each attempt.
    fn hello(&self) -> Wishes {
        Wishes::default()
    }

    /// The broker said WELCOME.
    fn handle_open(&mut self, now: Instant, welcomed: &Welcomed);

    /// A frame that is not the session's own; `bytes` is all of it.
    fn handle_frame(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Result<(), Violation>;

    /// The broker refused a frame, or does without a part of it, and the link goes on.
    fn handle_refusal(&mut self, _error: &ErrorFrame<'_>) {}

    /// The broker's state changed.
    fn handle_state(&mut self, _state: BrokerState, _gateways_missing: u32) {}

    /// The broker asked to leave: nothing new goes out on this link.
    fn handle_drain(&mut self) {}

    /// The owner closes the link: what is under way is finished, nothing new is taken on. `held` is
    /// an event that was not handed out yet; what is given back still will be.
    fn handle_close(&mut self, held: Option<Self::Event>) -> Option<Self::Event> {
        held
    }

    /// Everything transmitted so far is with the kernel.
    fn handle_written(&mut self) {}

    /// The link, about to be told as gone, has been silent since then: the other end was asked
    /// meanwhile whether it is there, and said nothing.
    fn handle_silence(&mut self, _since: Instant) {}

    /// The link, open or not, is gone; `ending` says when it is tried again, or that it is not.
    fn handle_down(&mut self, now: Instant, ending: &Ending);

    /// Whether a link that ended for this reason is not tried again, although others would be.
    fn gives_up(&self, _error: &LinkError) -> bool {
        false
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, whatever the state of the link; `None`
    /// if nothing happens by time alone.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Time has passed. Called early it does nothing.
    fn handle_timeout(&mut self, _now: Instant) {}

    /// Whether another broker of the list, if there is one, would serve better: the link is left
    /// in good order.
    fn wants_another(&self) -> bool {
        false
    }

    /// Appends frames until `out` has [`WRITE_BYTES`] or nothing is left to say. Only while open.
    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>);

    /// The next event, in order.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// Whether nothing is under way that leaving now would put in doubt.
    fn is_settled(&self) -> bool;
}

/// What an initiator asks for in HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Bits of the registry's `capabilities`.
    pub(crate) capabilities: u64,
    /// Session to go on with, or to join; 0 = a new one.
    pub(crate) session: u64,
    /// For a data link of that session: the shard it is to be served by.
    pub(crate) data: Option<u16>,
}

/// How a link ended.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// It is tried again.
    Retry { reason: LinkError, retry_in: std::time::Duration },
    /// It is not tried again.
    Final(LinkError),
}

/// Bytes gathered for one write. From about this size on the kernel's copy dominates the system
/// call (64 KiB costs some 8 us to copy, a call some 0.5 us), and more would only delay what
/// arrives next.
pub(crate) const WRITE_BYTES: usize = 64 << 10;

/// A frame that does not belong on this link, or not now.
pub(crate) fn unexpected(kind: Kind, reference: u64, words: &'static str) -> Violation {
    let code = ErrorCode::UNEXPECTED_FRAME;
    Violation { code, kind, reference, what: Breach::Words(words) }
}
