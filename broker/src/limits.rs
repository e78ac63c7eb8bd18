//! Every bound of the broker that is no setting, and the one sum they make.
//!
//! Memory of a broker under any load is at most
//!
//! ```text
//! links_max x ( READ_BYTES                          the buffer being read into
//!             + header_bytes_max + payload_bytes_max one frame split between reads
//!             + outbox_bytes_max                     frames waiting
//!             + 2 x (WRITE_BYTES + one frame)        being written, and its spare
//!             + CONTROL_BYTES_MAX )                  answers waiting
//! + routes_max x bytes of a route
//! + consumers x UPLINKS_UNANSWERED_MAX x 48
//! ```
//!
//! Mail between shards is inside `outbox_bytes_max`: its place is reserved before it is sent.

/// Bytes of a read buffer. 64 KiB is what one read of a saturated loopback socket brings.
pub const READ_BYTES: usize = 64 << 10;

/// Bytes after which a write ends, at the next frame, so that answers and keepalive never wait
/// behind more than this.
pub const WRITE_BYTES: usize = 256 << 10;

/// Waiting answers, in bytes, at which a link that is not a gateway's is no longer read. It is
/// read again at half of it. Receipts are never dropped, so this is what bounds them.
pub const CONTROL_BYTES_STOP: usize = 256 << 10;

/// Waiting answers, in bytes, at which a link is ended as `overloaded`. It takes a gateway, which is
/// always read, that sends and never reads. Answers are small: this is some ten thousand of them.
pub const CONTROL_BYTES_MAX: usize = 4 << 20;

/// A spare buffer that grew beyond this is given back to the allocator.
pub const SPARE_BYTES: usize = 2 * WRITE_BYTES;

/// Uplinks a consumer link may owe an answer for; one more is refused as `outbox_full`.
pub const UPLINKS_UNANSWERED_MAX: usize = 65_536;

/// Milliseconds for which a link that was sent a fatal error is still read, and what it sends
/// discarded. Closing at once would make the kernel reset the connection, and the peer might
/// never see the error.
pub const LINGER_MS: u64 = 1_000;

/// Milliseconds for which a peer that ended its own direction is still written to.
pub const FLUSH_MS: u64 = 10_000;

/// Milliseconds between ticks. Deadlines of sessions are some seconds; a tick walks the links.
pub const TICK_MS: u64 = 100;

/// Routes of dead gateways forgotten in one tick of one shard. The table is locked meanwhile: at
/// some 0.35 us a route (measured at 10^6 routes) for less than 2 ms.
pub const SWEEP_STEPS: usize = 5_000;

const _: () = assert!(WRITE_BYTES >= READ_BYTES && SPARE_BYTES >= WRITE_BYTES);
