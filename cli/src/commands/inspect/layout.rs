//! Where fixed fields lie: the tables of chapters 4 and 7, by the specification's names.
//!
//! `wire` keeps its offsets to itself; these are for showing. A test holds them against the
//! vectors.

use waybill_wire::code::Kind;

/// Byte of a field in its frame, if it has a fixed place.
pub(super) fn offset(kind: Kind, field: &str) -> Option<usize> {
    let own = LAYOUTS.iter().find(|(known, _)| *known == kind).map_or(MESSAGE, |(_, own)| *own);
    // A kind's own fields first: several have a `version` besides the prologue's.
    own.iter().chain(PROLOGUE).find(|(name, _)| *name == field).map(|(_, offset)| *offset)
}

type Layout = &'static [(&'static str, usize)];

const PROLOGUE: Layout = &[
    ("version", 0),
    ("draft", 0), // the prologue's version, where a kind has one of its own
    ("kind", 1),
    ("header_words", 2),
    ("header length", 2), // as wire's errors call it
    ("payload_len", 4),
    ("flags", 8),
];

const MESSAGE: Layout = &[
    ("target_count", 10),
    ("handling", 12),
    ("mode", 12),
    ("class", 12),
    ("level", 12),
    ("priority", 12),
    ("hops", 13),
    ("sequence", 16),
    ("namespace", 24),
    ("ttl_ms", 28),
];

const LAYOUTS: &[(Kind, Layout)] = &[
    (
        Kind::HELLO,
        &[
            ("role", 10),
            ("version_min", 12),
            ("version_max", 14),
            ("instance", 16),
            ("session", 24),
            ("capabilities", 32),
            ("route_group", 40),
            ("wanted_shard", 44),
            ("credential_len", 46),
            ("credential", 48),
        ],
    ),
    (
        Kind::WELCOME,
        &[
            ("state", 10),
            ("version", 12),
            ("shard", 14),
            ("session", 16),
            ("capabilities", 24),
            ("broker", 32),
            ("shards", 40),
            ("keepalive_ms", 44),
            ("credit", 48),
            ("payload_max", 52),
        ],
    ),
    (Kind::STATE, &[("state", 10), ("gateways_missing", 12)]),
    (Kind::PING, &[("token", 12)]),
    (Kind::PONG, &[("token", 12)]),
    (Kind::DRAIN, &[("deadline_ms", 12)]),
    (
        Kind::ERROR,
        &[
            ("code", 10),
            ("ref_kind", 12),
            ("detail_len", 14),
            ("ref", 16),
            ("retry_after_ms", 24),
            ("detail", 32),
        ],
    ),
    (Kind::CREDIT, &[("lane", 10), ("frames", 12)]),
    (Kind::FRAGMENT, &[("offset", 12), ("sequence", 16), ("origin", 24)]),
    (
        Kind::RECEIPT,
        &[
            ("stage", 10),
            ("code", 12),
            ("sets", 14),
            ("sequence", 16),
            ("sent", 24),
            ("offline", 28),
            ("unknown", 32),
            ("filtered", 36),
            ("dropped", 40),
            ("gateways", 44),
            ("fate_sets", 48),
        ],
    ),
    (
        Kind::REPORT,
        &[
            ("stage", 10),
            ("sets", 12),
            ("sequence", 16),
            ("origin", 24),
            ("reached", 32),
            ("offline", 36),
            ("filtered", 40),
            ("dropped", 44),
            ("unknown", 48),
            ("fate_sets", 56),
        ],
    ),
    (Kind::UPLINK_ACK, &[("code", 10), ("sequence", 16), ("origin", 24)]),
    (Kind::DELTA, &[("count", 10), ("version", 16), ("records", 24)]),
    (Kind::SNAPSHOT, &[("count", 10), ("version", 16), ("records", 24)]),
    (Kind::BARRIER, &[("version", 16), ("digest", 24)]),
    (Kind::IN_EFFECT, &[("version", 16), ("digest", 24)]),
    (Kind::SUSPEND, &[("window_ms", 12)]),
    (Kind::RESUME, &[("session", 16), ("version", 24), ("digest", 32)]),
    (Kind::RESUMED, &[("version", 16), ("digest", 24)]),
    (
        Kind::DISPLACED,
        &[("device_class", 10), ("namespace", 12), ("uid", 16), ("login", 24), ("winner", 32)],
    ),
    (Kind::TAG_DELTA, &[("count", 10), ("version", 16), ("tag_records", 24)]),
    (
        Kind::FILTER,
        &[
            ("op", 10),
            ("expression_len", 12),
            ("filter", 16),
            ("namespace", 20),
            ("expression", 24),
        ],
    ),
    (Kind::GROUP, &[("op", 10), ("name_len", 11), ("namespace", 12), ("name", 16)]),
    (
        Kind::TAG,
        &[
            ("changes", 10),
            ("namespace", 12),
            ("sequence", 16),
            ("origin", 24),
            ("count", 32),
            ("uids", 40),
        ],
    ),
    (
        Kind::PRESENCE,
        &[
            ("event", 10),
            ("device_class", 11),
            ("namespace", 12),
            ("uid", 16),
            ("login", 24),
            ("gateway", 32),
        ],
    ),
    (Kind::PRESENCE_QUERY, &[("count", 10), ("namespace", 12), ("sequence", 16), ("uids", 24)]),
    (
        Kind::FETCH,
        &[
            ("limit", 10),
            ("namespace", 12),
            ("sequence", 16),
            ("uid", 24),
            ("channel", 32),
            ("after", 40),
        ],
    ),
    (Kind::PAGE_END, &[("count", 10), ("sequence", 16), ("next", 24)]),
    (Kind::ACK, &[("count", 10), ("namespace", 12), ("uid", 16), ("pairs", 24)]),
];
