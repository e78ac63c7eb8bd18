//! What is declared as the bytes of SNAPSHOT, DELTA, TAG_DELTA, BARRIER, RESUME and SUSPEND frames.
//!
//! The machine keeps what their encoders check: versions from 1, 1 to `records_max` records, or
//! `tag_records_max` of tags. That a tag is one (TAG-1) is for who declares it.

use waybill_wire::error::Unencodable;
use waybill_wire::frame::{Barrier, Delta, Record, Resume, Snapshot, Suspend, TagDelta, TagRecord};

use super::tags::TagUpdate;

pub(super) fn snapshot(
    version: u64,
    first: bool,
    last: bool,
    records: &[Record],
    out: &mut Vec<u8>,
) {
    written(Snapshot { first, last, version, records: records.into() }.encode(out));
}

pub(super) fn delta(version: u64, records: &[Record], out: &mut Vec<u8>) {
    written(Delta { version, records: records.into() }.encode(out));
}

pub(super) fn tag_delta(version: u64, updates: &[TagUpdate], out: &mut Vec<u8>) {
    let records = updates.iter().map(|TagUpdate { op, tag }| TagRecord {
        namespace: tag.namespace,
        op: *op,
        tag: &tag.text,
    });
    let records: Vec<TagRecord<'_>> = records.collect();
    written(TagDelta { version, tag_records: records.as_slice().into() }.encode(out));
}

pub(super) fn barrier(version: u64, digest: u64, out: &mut Vec<u8>) {
    Barrier { version, digest }.encode(out);
}

pub(super) fn resume(session: u64, version: u64, digest: u64, out: &mut Vec<u8>) {
    Resume { session, version, digest }.encode(out);
}

pub(super) fn suspend(window_ms: u32, out: &mut Vec<u8>) {
    Suspend { window_ms }.encode(out);
}

/// A frame that is missing shows as `version_gap` or `digest_mismatch`, and the link starts again
/// from a snapshot: the broker holds nothing wrong, so there is nothing to do but to say it.
fn written(result: Result<(), Unencodable>) {
    debug_assert!(result.is_ok(), "{result:?}");
    if let Err(error) = result {
        tracing::error!(%error, "what is declared cannot be encoded");
    }
}
