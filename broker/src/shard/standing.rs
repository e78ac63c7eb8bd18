//! Messages in fragments that stand still are given up, so that nobody keeps a share of the pool by
//! saying nothing (FRG-9).

use std::time::Duration;

use waybill_wire::assembly::Assembly;
use waybill_wire::code::ErrorCode;

use super::Core;
use super::link::{Part, RoleState};
use crate::limits::PIECES_STILL_MS;
use crate::telemetry::count;

/// How much had come of each open message when that was last seen to change.
#[derive(Debug, Default)]
pub(super) struct Standing(Vec<Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    sequence: u64,
    bytes: usize,
    // Of a frame that was not whole then: the next piece, maybe.
    partial: usize,
    since: Duration,
}

impl Standing {
    /// The messages of which nothing has come for too long, and no more of a frame of which there
    /// are `partial` bytes. Time in which nothing could be seen to come, since the link is not
    /// read, does not count: then that is `None`.
    fn look<T: Copy>(
        &mut self,
        now: Duration,
        partial: Option<usize>,
        assembly: &Assembly<T>,
    ) -> Vec<u64> {
        let before = std::mem::take(&mut self.0);
        self.0.extend(assembly.progress().map(|(sequence, bytes)| {
            let same = |seen: &&Seen| {
                (seen.sequence, seen.bytes, Some(seen.partial)) == (sequence, bytes, partial)
            };
            let since = before.iter().find(same).map_or(now, |seen| seen.since);
            Seen { sequence, bytes, partial: partial.unwrap_or(0), since }
        }));
        let most = Duration::from_millis(PIECES_STILL_MS);
        let overdue = self.0.iter().filter(|seen| now.saturating_sub(seen.since) >= most);
        overdue.map(|seen| seen.sequence).collect()
    }
}

impl Core {
    /// Refuses what a producer has begun and does not go on with.
    pub(super) fn give_up_still(&mut self, part: &mut Part) {
        let partial = (!part.waits && part.rest.is_none()).then_some(part.partial);
        let RoleState::Producer(producer) = &mut part.role else { return };
        if producer.assembly.is_empty() {
            producer.standing = Standing::default();
            return;
        }
        for sequence in producer.standing.look(self.now, partial, &producer.assembly) {
            let (shard, link) = (self.id, part.id.0);
            tracing::info!(shard, link, sequence, "a message in fragments is given up");
            count(&self.counters.publishes_stood_still, 1);
            self.give_pieces_up(part, sequence, ErrorCode::OVERLOADED);
        }
    }
}

#[cfg(test)]
mod tests {
    use waybill_wire::Frame;
    use waybill_wire::deframe::Deframer;
    use waybill_wire::message::MessageHead;

    use super::*;

    #[test]
    fn time_in_which_nothing_could_be_seen_to_come_does_not_count() {
        let (mut frame, mut assembly) = (Vec::new(), Assembly::default());
        let head = MessageHead { sequence: 5, fragmented: Some(9), ..MessageHead::default() };
        head.encode_publish(&[1], b"abc", &mut frame).unwrap();
        let mut deframer = Deframer::new();
        let raw = deframer.next(&frame).unwrap().frame.unwrap();
        let Ok(Frame::Publish(message)) = raw.decode() else { panic!() };
        assembly.begin((), &message, raw.bytes()).unwrap();
        let mut standing = Standing::default();
        let mut look = |ms, partial| {
            let now = Duration::from_millis(ms);
            standing.look(now, partial, &assembly)
        };
        assert!(look(0, Some(0)).is_empty());
        assert!(look(9_000, None).is_empty());
        assert!(look(9_001, Some(1)).is_empty(), "a byte of the next frame");
        assert!(look(9_001 + PIECES_STILL_MS - 1, Some(1)).is_empty());
        assert_eq!(look(9_001 + PIECES_STILL_MS, Some(1)), [5]);
        assembly.forget(5, 0);
        let now = Duration::from_millis(9_000 + 2 * PIECES_STILL_MS);
        assert!(standing.look(now, Some(1), &assembly).is_empty(), "it was given up before");
    }
}
