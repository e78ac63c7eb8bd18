//! What a broker gives a gateway to do, by one link: DELIVERs, put together if they come in
//! fragments (6.14), and TAGs.

use std::time::Instant;

use bytes::Bytes;
use waybill_wire::Frame;
use waybill_wire::assembly::{Assembly, Piece};
use waybill_wire::error::Violation;

use super::{Delivery, GatewayEvent, Tagging};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    assembly: Assembly<Instant>,
}

/// What a frame came to.
pub(super) enum Taken {
    /// Something to do.
    Event(GatewayEvent),
    /// A piece of something.
    Piece,
    /// It is about something else.
    Nothing,
}

impl Inbox {
    /// Takes a frame in that came by this link; `bytes` is the whole of it.
    ///
    /// # Errors
    /// A piece that does not fit (FRG-3, FRG-4).
    pub(super) fn take(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        bytes: &[u8],
        link: u64,
    ) -> Result<Taken, Violation> {
        let delivery = |frame, header_bytes, since| {
            let delivery = Delivery::new(frame, header_bytes, link, (since, now));
            Ok(Taken::Event(GatewayEvent::Delivery(delivery)))
        };
        match frame {
            Frame::Deliver(message) if message.fragmented.is_some() => {
                self.assembly.begin(now, message, bytes)?;
                Ok(Taken::Piece)
            }
            Frame::Deliver(message) => {
                let header_bytes = bytes.len() - message.payload.len();
                delivery(Bytes::copy_from_slice(bytes), header_bytes, now)
            }
            Frame::Fragment(piece) => match self.assembly.add(piece)? {
                Piece::Completed(whole) => {
                    let (header_bytes, since) = (whole.header_bytes(), whole.since());
                    delivery(Bytes::from(whole.into_bytes()), header_bytes, since)
                }
                Piece::Taken | Piece::Forgotten => Ok(Taken::Piece),
            },
            Frame::Tag(_) => {
                let tagging = Tagging::new(Bytes::copy_from_slice(bytes), link);
                Ok(Taken::Event(GatewayEvent::Tagging(tagging)))
            }
            _ => Ok(Taken::Nothing),
        }
    }

    /// The link has ended: what is not whole never will be (FRG-7).
    pub(super) fn clear(&mut self) {
        self.assembly = Assembly::default();
    }
}
