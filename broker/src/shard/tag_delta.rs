//! TAG_DELTA: which tags a gateway has connections with, beside its registrations.
//!
//! The route table keeps the tags; the link keeps their digest and how many there are. They go live
//! with a snapshot, are suspended and die with their slot, since they are in it.

use waybill_routing::{Namespace, Op as TagOp, TagChange, TagLimit};
use waybill_wire::code::{ErrorCode, Kind, Op};
use waybill_wire::error::{Breach, Violation};
use waybill_wire::frame::{ErrorFrame, Frame, TagDelta};
use waybill_wire::planted::{self, Bug};

use super::Core;
use super::gateway::superseded;
use super::link::{Fault, Part, refused};
use crate::telemetry::count;

impl Core {
    /// In effect on every shard when this returns, where the slot answers.
    pub(super) fn tag_delta(&mut self, part: &mut Part, frame: &TagDelta<'_>) -> Result<(), Fault> {
        let gateway = part.gateway();
        gateway.registration.tag_delta(frame)?;
        let records = frame.tag_records;
        if !records.iter().all(|record| gateway.grant.covers(record.namespace)) {
            let words = "this token does not allow a namespace that a tag is declared in here";
            return Err(refused(ErrorCode::NOT_PERMITTED, Kind::TAG_DELTA, words));
        }
        let changes: Vec<TagChange<'_>> = records
            .iter()
            .map(|record| TagChange {
                op: if record.op == Op::ADD { TagOp::Add } else { TagOp::Remove },
                namespace: Namespace(record.namespace),
                tag: record.tag,
            })
            .collect();
        gateway.torn = true;
        let kept = if planted::is(Bug::LostTags) { &[] } else { changes.as_slice() };
        let applied = self.shared.routes.apply_tags(gateway.slot, kept);
        let applied = applied.map_err(|_| superseded(Kind::TAG_DELTA))?;
        if applied.contradicting > 0 {
            return Err(contradicts(frame.version).into());
        }
        gateway.declared.declare_tags(&changes);
        gateway.torn = false;
        count(&self.counters.tag_records, changes.len() as u64);
        if let Some(limit) = applied.unkept {
            self.tell_unkept(part, frame.version, limit);
        }
        Ok(())
    }

    /// The first tag that is not kept, if all had been before (TAG-11).
    fn tell_unkept(&self, part: &mut Part, version: u64, limit: TagLimit) {
        count(&self.counters.tags_unkept, 1);
        let (code, detail) = match limit {
            TagLimit::Gateway => (
                ErrorCode::GATEWAY_TAGS,
                "this broker keeps as many tags of one gateway as gateway_tags_max allows",
            ),
            TagLimit::Broker => (
                ErrorCode::BROKER_TAGS,
                "this broker keeps as many different tags as tags_max allows",
            ),
        };
        let (shard, link) = (self.id, part.id.0);
        tracing::warn!(shard, link, %code, "every tag counts as declared by this gateway");
        let (ref_kind, reference) = (Kind::TAG_DELTA, version);
        let error = ErrorFrame { code, ref_kind, reference, detail, ..ErrorFrame::default() };
        part.put(&Frame::Error(error));
    }
}

/// TAG-6.
fn contradicts(version: u64) -> Violation {
    let words = "a tag is added that is declared, or removed that is not";
    let what = Breach::Words(words);
    let (code, kind) = (ErrorCode::DIGEST_MISMATCH, Kind::TAG_DELTA);
    Violation { code, kind, reference: version, what }
}
