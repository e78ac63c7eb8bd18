//! Registrations as the bytes of SNAPSHOT, DELTA and BARRIER frames.
//!
//! The machine keeps what their encoders check: versions from 1, 1 to `records_max` records.

use waybill_wire::error::Unencodable;
use waybill_wire::frame::{Barrier, Delta, Record, Snapshot};

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

/// A frame that is missing shows as `version_gap` or `digest_mismatch`, and the link starts again
/// from a snapshot: wrong registrations are not possible, so there is nothing to do but to say it.
fn written(result: Result<(), Unencodable>) {
    debug_assert!(result.is_ok(), "{result:?}");
    if let Err(error) = result {
        tracing::error!(%error, "registrations cannot be encoded");
    }
}
