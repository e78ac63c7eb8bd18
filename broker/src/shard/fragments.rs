//! Messages in fragments, as they come from producers: put together, then published like any other
//! (6.14). What can be judged by the first piece is, so that nothing is held for what is refused.

use std::time::Duration;

use bytes::Bytes;
use waybill_wire::assembly::{Assembly, Piece, Whole};
use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::frame::Fragment;
use waybill_wire::message::Message;
use waybill_wire::session::support;

use super::batch::refusal;
use super::link::{Fault, Part, RoleState};
use super::parts::piece_steps;
use super::publish::Sums;
use super::{Core, Links};
use crate::limits::{FRAGMENT_BYTES, REFERENCED_BYTES};
use crate::outbox::TTL_OFFSET;

impl Core {
    /// The first piece of a PUBLISH, in this frame.
    ///
    /// # Errors
    /// It may not come now.
    pub(super) fn begin_pieces(
        &mut self,
        part: &mut Part,
        message: &Message<'_>,
        frame: &[u8],
    ) -> Result<(), Fault> {
        let RoleState::Producer(producer) = &mut part.role else {
            unreachable!("the session passes PUBLISH from producers only");
        };
        producer.sequence.advance(Kind::PUBLISH, message.sequence, message.resend)?;
        producer.assembly.begin(self.now, message, frame)?;
        self.turn.take(piece_steps(frame.len()));
        let permitted = producer.grant.covers(message.namespace);
        let overloaded = !self.has_room_for_pieces(producer.assembly.reserved());
        let refusal = refusal(message, permitted, support::CAPABILITIES);
        if let Some(code) = refusal.or(overloaded.then_some(ErrorCode::OVERLOADED)) {
            producer.assembly.forget(message.sequence, 0);
            self.refuse_pieces(part, message, code);
        }
        Ok(())
    }

    /// A later piece. When it is the last, its message is published.
    ///
    /// # Errors
    /// It does not fit (FRG-4): as any from a gateway.
    pub(super) fn add_piece(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        fragment: &Fragment<'_>,
    ) -> Result<(), Fault> {
        let RoleState::Producer(producer) = &mut part.role else {
            return Ok(Assembly::<Duration>::default().add(fragment).map(drop)?);
        };
        self.turn.take(piece_steps(fragment.payload.len()));
        match producer.assembly.add(fragment)? {
            Piece::Taken => {
                if !self.has_room_for_pieces(producer.assembly.reserved()) {
                    self.give_pieces_up(part, fragment.sequence, ErrorCode::OVERLOADED);
                }
            }
            Piece::Completed(whole) => self.publish_pieces(links, part, whole),
            Piece::Forgotten => {}
        }
        Ok(())
    }

    /// Whether a link may hold so much of messages that are not whole.
    fn has_room_for_pieces(&self, held: usize) -> bool {
        held <= self.shared.pools.brought.share()
    }

    /// Refuses a message that is open, and keeps nothing of it.
    pub(super) fn give_pieces_up(&mut self, part: &mut Part, sequence: u64, code: ErrorCode) {
        let RoleState::Producer(producer) = &mut part.role else { return };
        let mut assembly = std::mem::take(&mut producer.assembly);
        if let Some(message) = assembly.message(sequence, 0) {
            self.refuse_pieces(part, &message, code);
        }
        assembly.forget(sequence, 0);
        if let RoleState::Producer(producer) = &mut part.role {
            producer.assembly = assembly;
        }
    }

    fn refuse_pieces(&mut self, part: &mut Part, message: &Message<'_>, code: ErrorCode) {
        let mut sums = Sums::default();
        Self::refuse(part, message, code, &mut sums);
        self.concluded(&mut sums);
    }

    /// All of it has come. Its time to live has run since its first piece (FRG-8).
    fn publish_pieces(&mut self, links: &mut Links, part: &mut Part, whole: Whole<Duration>) {
        let message = whole.message();
        let (ttl_ms, passed) = (message.ttl_ms, self.now.saturating_sub(whole.since()));
        let left = Duration::from_millis(ttl_ms.into()).saturating_sub(passed).as_millis();
        if ttl_ms != 0 && left == 0 {
            return self.refuse_pieces(part, &message, ErrorCode::EXPIRED);
        }
        let mut frame = whole.into_bytes();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        frame[TTL_OFFSET..][..4].copy_from_slice(&left.to_le_bytes());
        self.publish_whole(links, part, Bytes::from(frame));
    }
}

/// The payload of a whole message, sharing its bytes, if it is large. Where it is referred to the
/// header stays as well, so that should not be most of the frame.
pub(super) fn payload_of(frame: &Bytes, message: &Message<'_>) -> Option<Bytes> {
    let bytes = message.payload.len();
    let is_most = bytes >= REFERENCED_BYTES && 2 * bytes >= frame.len();
    (bytes > FRAGMENT_BYTES || is_most).then(|| frame.slice(frame.len() - bytes..))
}
