//! Frames at the price of a copy: a PUBLISH out of a header that the codec wrote once, and of a
//! DELIVER no more than whom it is for. So the generator's core is not what is measured.
//!
//! Offsets are those of the contract, 4.3. The tests hold both against the codec.

use waybill_wire::code::flags::message::EVERYONE;
use waybill_wire::code::{Kind, Level, Mode};
use waybill_wire::message::MessageHead;
use waybill_wire::prologue::Prologue;
use waybill_wire::targets::{UID_BYTES, UidRun};

use crate::driver::Audience;
use crate::failure::Failure;

/// Where a header has its sequence.
const SEQUENCE: std::ops::Range<usize> = 16..24;

/// PUBLISH headers, one for each length of the list.
#[derive(Debug)]
pub(super) struct Heads {
    level: Level,
    payload_bytes: usize,
    heads: Vec<Head>,
}

#[derive(Debug)]
struct Head {
    /// Users of the list; 0 is everyone.
    targets: usize,
    /// The header up to the list.
    bytes: Vec<u8>,
}

impl Heads {
    pub(super) fn new(level: Level, payload_bytes: usize) -> Self {
        Self { level, payload_bytes, heads: Vec::new() }
    }

    /// Appends a PUBLISH.
    pub(super) fn publish(
        &mut self,
        sequence: u64,
        audience: Audience<'_>,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let uids = match audience {
            Audience::Users(uids) => uids,
            Audience::Everyone => &[],
        };
        let head = match self.heads.iter().position(|head| head.targets == uids.len()) {
            Some(at) => &mut self.heads[at],
            None => self.prepare(uids)?,
        };
        head.bytes[SEQUENCE].copy_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&head.bytes);
        for uid in uids {
            out.extend_from_slice(&uid.to_le_bytes());
        }
        out.extend_from_slice(payload);
        Ok(())
    }

    #[cold]
    fn prepare(&mut self, uids: &[u64]) -> Result<&mut Head, Failure> {
        let everyone = uids.is_empty();
        let mode = if everyone { Mode::BROADCAST } else { Mode::DIRECT };
        let level = self.level;
        let head = MessageHead { everyone, mode, level, sequence: 1, ..MessageHead::default() };
        let mut bytes = Vec::new();
        head.encode_header(Kind::PUBLISH, uids, self.payload_bytes, &mut bytes)
            .map_err(Failure::new)?;
        bytes.truncate(bytes.len() - uids.len() * UID_BYTES);
        self.heads.push(Head { targets: uids.len(), bytes });
        Ok(self.heads.last_mut().expect("it was pushed above"))
    }
}

/// Whom a DELIVER is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressed<'a> {
    Users(UidRun<'a>),
    Everyone,
}

/// Reads whom a DELIVER is for, and its payload, out of a whole frame; `None` if it is none, or one
/// whose list does not fit.
#[inline]
pub(super) fn delivery(prologue: Prologue, frame: &[u8]) -> Option<(Addressed<'_>, &[u8])> {
    if prologue.kind != Kind::DELIVER {
        return None;
    }
    let (header, payload) = frame.split_at_checked(prologue.header_bytes)?;
    let fixed: &[u8; 32] = header.first_chunk()?;
    let flags = u16::from_le_bytes([fixed[8], fixed[9]]);
    if flags & EVERYONE != 0 {
        return Some((Addressed::Everyone, payload));
    }
    // The list is what a header ends with.
    let bytes = usize::from(u16::from_le_bytes([fixed[10], fixed[11]])) * UID_BYTES;
    let list = header.get(header.len().checked_sub(bytes)?..)?;
    Some((Addressed::Users(UidRun::new(list)?), payload))
}

#[cfg(test)]
mod tests {
    use waybill_wire::Frame;
    use waybill_wire::message::Sender;

    use super::*;

    #[test]
    fn a_prepared_publish_is_what_the_codec_writes() {
        let payload = [7; 100];
        for level in [Level::NONE, Level::ROUTED] {
            let mut heads = Heads::new(level, payload.len());
            for sequence in [1, 2, 1 << 40] {
                for uids in [&[][..], &[5], &[1_000_000_000, 3, u64::MAX], &[9; 1000]] {
                    let everyone = uids.is_empty();
                    let mode = if everyone { Mode::BROADCAST } else { Mode::DIRECT };
                    let audience =
                        if everyone { Audience::Everyone } else { Audience::Users(uids) };
                    let (mut ours, mut codecs) = (vec![1, 2], vec![1, 2]);
                    heads.publish(sequence, audience, &payload, &mut ours).unwrap();
                    let head =
                        MessageHead { everyone, mode, level, sequence, ..MessageHead::default() };
                    head.encode_publish(uids, &payload, &mut codecs).unwrap();
                    assert_eq!(ours, codecs);
                }
            }
        }
    }

    #[test]
    fn a_delivery_is_what_the_codec_reads() {
        let sender = Some(Sender { uid: 4, connection: 5 });
        for uids in [&[][..], &[5], &[1_000_000_000, 3, u64::MAX]] {
            for head in [
                MessageHead::default(),
                MessageHead { sender, labels: (&["a.b"]).into(), ..MessageHead::default() },
                MessageHead { except: (&[8, 9]).into(), ..MessageHead::default() },
            ] {
                let everyone = uids.is_empty();
                let head = MessageHead { everyone, sequence: 3, origin: Some(6), ..head };
                let mut frame = Vec::new();
                head.encode(Kind::DELIVER, uids, b"payload", &mut frame).unwrap();
                let Ok(Frame::Deliver(message)) = Frame::decode(&frame) else {
                    panic!("it is a DELIVER")
                };
                let prologue = Prologue::decode(frame.first_chunk().unwrap()).unwrap();
                let (addressed, payload) = delivery(prologue, &frame).unwrap();
                assert_eq!(payload, message.payload);
                match addressed {
                    Addressed::Everyone => assert!(message.everyone),
                    Addressed::Users(run) => assert_eq!(run, message.targets),
                }
            }
        }
    }

    #[test]
    fn what_is_no_delivery_is_left_to_the_codec() {
        let head = MessageHead { sequence: 1, ..MessageHead::default() };
        let mut frame = Vec::new();
        head.encode_publish(&[1], b"", &mut frame).unwrap();
        let prologue = |frame: &[u8]| Prologue::decode(frame.first_chunk().unwrap()).unwrap();
        assert_eq!(delivery(prologue(&frame), &frame), None);
        frame.clear();
        let head = MessageHead { origin: Some(1), ..head };
        head.encode(Kind::DELIVER, &[1], b"", &mut frame).unwrap();
        // More users than there is header.
        frame[10] = 200;
        assert_eq!(delivery(prologue(&frame), &frame), None);
    }
}
