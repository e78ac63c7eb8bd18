//! Registrations as the bytes of SNAPSHOT, DELTA, BARRIER, RESUME and SUSPEND frames.
//!
//! The machine keeps what their encoders check: versions from 1, 1 to `records_max` records.

use waybill_wire::error::Unencodable;
use waybill_wire::frame::{Barrier, Delta, Record, Resume, Snapshot, Suspend};

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
/// from a snapshot: wrong registrations are not possible, so there is nothing to do but to say it.
fn written(result: Result<(), Unencodable>) {
    debug_assert!(result.is_ok(), "{result:?}");
    if let Err(error) = result {
        tracing::error!(%error, "registrations cannot be encoded");
    }
}
