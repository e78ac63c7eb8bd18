//! Names of faults.

/// Not there when the run ended.
pub const LOST: &str = "lost";
/// There more than once.
pub const DUPLICATE: &str = "duplicate";
/// At a gateway that its user is not on.
pub const WRONG_GATEWAY: &str = "wrong_gateway";
/// For a user that it was not for.
pub const WRONG_UID: &str = "wrong_uid";
/// Behind a later one of the same gateway.
pub const DISORDER: &str = "disorder";
/// Its payload is not what was published.
pub const DAMAGED: &str = "damaged";
/// Its number was never published.
pub const UNKNOWN: &str = "unknown";
/// Nothing was delivered any more.
pub const STALLED: &str = "stalled";
/// The server ended a connection.
pub const DISCONNECTED: &str = "disconnected";
/// The server answered with an error.
pub const REFUSED: &str = "refused";
/// The run could not go on.
pub const FAILED: &str = "failed";

/// All of them.
pub const ALL: [&str; 11] = [
    LOST,
    DUPLICATE,
    WRONG_GATEWAY,
    WRONG_UID,
    DISORDER,
    DAMAGED,
    UNKNOWN,
    STALLED,
    DISCONNECTED,
    REFUSED,
    FAILED,
];
