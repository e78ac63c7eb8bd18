//! How many publishes may wait for a receipt of stage delivered.
//!
//! A broker keeps each of them, with everyone it was sent to, until gateways have reported, and
//! refuses more than it has room for. What it keeps is estimated here, from above in any cluster
//! of up to [`GATEWAYS`] gateways with each user at up to [`COPIES`] of them; beyond that it may
//! refuse, and the publish is sent again a little later.

/// Estimated bytes, at one broker, of what may wait at once; one more part may exceed it.
pub const AWAITED_BYTES_MAX: usize = (4 << 20) - (256 << 10);

/// Gateways one publish may reach.
pub const GATEWAYS: usize = 64;

/// Gateways one user may be at.
pub const COPIES: usize = 3;

/// Bytes a broker keeps of a publish, without targets and gateways.
const PUBLISH_BYTES: usize = 256;

/// Bytes of a target: itself, its fate, and its place at each gateway it is at.
const TARGET_BYTES: usize = 14 + 2 * COPIES;

/// Bytes of a gateway that has to report.
const GATEWAY_BYTES: usize = 160;

/// Bytes of the times of a traced publish, at as many gateways as a receipt tells of.
pub const TRACE_BYTES: usize = 2048;

/// Estimated bytes that a broker keeps of a publish to so many users; 0 stands for everyone.
#[must_use]
pub const fn awaited_bytes(targets: usize) -> usize {
    let gateways = match targets.saturating_mul(COPIES) {
        few @ 1..GATEWAYS => few,
        _ => GATEWAYS,
    };
    PUBLISH_BYTES + targets * TARGET_BYTES + gateways * GATEWAY_BYTES
}
