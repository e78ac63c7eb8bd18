//! The limits of `registry.toml`, and the relations between them that this crate relies on.
//!
//! A limit is checked before anything is reserved or trusted (FRAME-10).

/// The draft this crate speaks.
pub const DRAFT: u8 = 1;

/// Constants with their registry names.
macro_rules! limits {
    ($list:ident: $($(#[$meta:meta])+ $entry:ident: $int:ty = $value:literal $spec:literal,)+) => {
        $($(#[$meta])+ pub const $entry: $int = $value;)+

        #[doc = concat!("Registry names and values of the table `", stringify!($list), "`.")]
        pub const $list: &[(&str, u64)] = &[$(($spec, $entry as u64),)+];
    };
}

limits! { LIMITS:
    /// Bytes of the prologue.
    PROLOGUE_BYTES: usize = 8 "prologue_bytes",
    /// Least length of a header.
    HEADER_BYTES_MIN: usize = 16 "header_bytes_min",
    /// Greatest length of a header.
    HEADER_BYTES_MAX: usize = 131_072 "header_bytes_max",
    /// Greatest payload of one frame.
    PAYLOAD_BYTES_MAX: usize = 1_048_576 "payload_bytes_max",
    /// Greatest payload of a message in fragments.
    MESSAGE_BYTES_MAX: usize = 16_777_216 "message_bytes_max",
    /// Messages in fragments that are open at once in one direction of a link (FRG-3).
    FRAGMENTED_MAX: usize = 8 "fragmented_max",
    /// Bytes of their whole payloads together.
    FRAGMENTED_BYTES_MAX: usize = 33_554_432 "fragmented_bytes_max",
    /// UIDs in one list.
    TARGETS_MAX: usize = 4096 "targets_max",
    /// UIDs in EXCEPT.
    EXCEPT_MAX: usize = 4096 "except_max",
    /// Labels of a message.
    LABELS_MAX: usize = 16 "labels_max",
    /// Bytes of a label.
    LABEL_BYTES_MAX: usize = 64 "label_bytes_max",
    /// Bytes of a selector.
    SELECTOR_BYTES_MAX: usize = 4096 "selector_bytes_max",
    /// Terms of a selector.
    SELECTOR_TERMS_MAX: usize = 64 "selector_terms_max",
    /// Depth of a selector, and parentheses open at once in its text.
    SELECTOR_DEPTH_MAX: usize = 16 "selector_depth_max",
    /// Bytes of a selector's text.
    SELECTOR_TEXT_BYTES_MAX: usize = 16_384 "selector_text_bytes_max",
    /// Bytes of all extension items of a message.
    EXTENSION_BYTES_MAX: usize = 1024 "extension_bytes_max",
    /// Extension items of a message.
    EXTENSIONS_MAX: usize = 16 "extensions_max",
    /// Bytes of a tag.
    TAG_BYTES_MAX: usize = 64 "tag_bytes_max",
    /// Changes in one TAG.
    TAG_CHANGES_MAX: usize = 64 "tag_changes_max",
    /// Tags of one connection, and tags of which TAG has said something for one registration.
    CONNECTION_TAGS_MAX: usize = 256 "connection_tags_max",
    /// Tags that one gateway has declared, and that a broker keeps of it.
    GATEWAY_TAGS_MAX: usize = 1_048_576 "gateway_tags_max",
    /// Different tags that a broker keeps.
    BROKER_TAGS_MAX: usize = 16_777_216 "broker_tags_max",
    /// Bytes of a credential.
    CREDENTIAL_BYTES_MAX: usize = 4096 "credential_bytes_max",
    /// Bytes of an error's detail.
    DETAIL_BYTES_MAX: usize = 512 "detail_bytes_max",
    /// Records in one DELTA or SNAPSHOT.
    RECORDS_MAX: usize = 4096 "records_max",
    /// Records in one TAG_DELTA.
    TAG_RECORDS_MAX: usize = 1024 "tag_records_max",
    /// Bytes of a filter expression.
    EXPRESSION_BYTES_MAX: usize = 4096 "expression_bytes_max",
    /// Filters of one consumer link.
    FILTERS_MAX: usize = 64 "filters_max",
    /// Terms of a filter, and of all filters of one link in one namespace.
    FILTER_TERMS_MAX: usize = 64 "filter_terms_max",
    /// Parentheses open at once in a filter's text.
    FILTER_DEPTH_MAX: usize = 16 "filter_depth_max",
    /// Bytes of a consumer group's name.
    GROUP_BYTES_MAX: usize = 64 "group_bytes_max",
    /// Brokers that may still forward a message.
    HOPS_MAX: u8 = 15 "hops_max",
    /// Fate sets in one receipt or report.
    FATES_MAX: usize = 8 "fates_max",
    /// Hop times in one receipt or report.
    TRACE_HOPS_MAX: usize = 50 "trace_hops_max",
    /// Messages asked for by one FETCH.
    FETCH_MAX: usize = 1024 "fetch_max",
    /// Pairs in one ACK.
    ACKS_MAX: usize = 4096 "acks_max",
    /// How long a broker waits for HELLO.
    HELLO_TIMEOUT_MS: u64 = 5000 "hello_timeout_ms",
    /// Silent keepalive periods after which a link has ended.
    MISSED_PINGS_MAX: u32 = 3 "missed_pings_max",
    /// First bound of the delay before a reconnect (ERR-4).
    BACKOFF_BASE_MS: u64 = 100 "backoff_base_ms",
    /// Greatest bound of the delay before a reconnect (ERR-4).
    BACKOFF_CAP_MS: u64 = 5000 "backoff_cap_ms",
    /// Namespaces of one consumer link that may have a group.
    GROUPS_MAX: usize = 64 "groups_max",
}

limits! { CLIENT_LIMITS:
    /// Bytes of a client's token.
    TOKEN_BYTES_MAX: usize = 4096 "token_bytes_max",
    /// Bytes of a message of a client subprotocol.
    CLIENT_MESSAGE_BYTES_MAX: usize = 65_536 "client_message_bytes_max",
}

/// Greatest length of a whole frame.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX;

const _: () = {
    // `header_words` is a u16 and can say the greatest header.
    assert!(HEADER_BYTES_MAX.is_multiple_of(8) && HEADER_BYTES_MAX / 8 <= u16::MAX as usize);
    assert!(HEADER_BYTES_MIN >= PROLOGUE_BYTES + 2);
    assert!(PAYLOAD_BYTES_MAX <= MESSAGE_BYTES_MAX && MESSAGE_BYTES_MAX <= u32::MAX as usize);
    // The largest message has room when nothing else is open.
    assert!(MESSAGE_BYTES_MAX <= FRAGMENTED_BYTES_MAX);
    // A message with every section at its limit still fits in a header.
    let labels = 8 + (LABELS_MAX * (1 + LABEL_BYTES_MAX)).next_multiple_of(8);
    let fixed_sections = 8 + 16 + 8 + 16 + 16 + 8 + 8 + 16;
    let lists = 8 * TARGETS_MAX + 8 + 8 * EXCEPT_MAX;
    let open = 8 + SELECTOR_BYTES_MAX + 8 + EXTENSION_BYTES_MAX;
    assert!(32 + fixed_sections + labels + lists + open <= HEADER_BYTES_MAX);
    assert!(24 + 24 * RECORDS_MAX <= HEADER_BYTES_MAX);
    assert!(24 + (8 + TAG_BYTES_MAX) * TAG_RECORDS_MAX <= HEADER_BYTES_MAX);
    let changes = ((2 + TAG_BYTES_MAX) * TAG_CHANGES_MAX).next_multiple_of(8);
    assert!(40 + 8 * TARGETS_MAX + changes <= HEADER_BYTES_MAX);
    assert!(24 + 16 * ACKS_MAX <= HEADER_BYTES_MAX);
    // A receipt names each target of one publish at most once, so its sets share `targets_max`.
    assert!(56 + FATES_MAX * 8 + 8 * TARGETS_MAX + 8 + 32 * TRACE_HOPS_MAX <= HEADER_BYTES_MAX);
    // Counts and lengths fit the integers that carry them.
    assert!(TARGETS_MAX <= u16::MAX as usize && RECORDS_MAX <= u16::MAX as usize);
    assert!(ACKS_MAX <= u16::MAX as usize);
    // Which terms a connection meets fits into one word, and an operand count into its byte.
    assert!(SELECTOR_TERMS_MAX <= u64::BITS as usize);
    assert!(SELECTOR_BYTES_MAX <= u16::MAX as usize);
    // Any selector can be written: twice its bytes has room for escapes, `!` and parentheses, and 5
    // more for the quotes of a term and the sign before it.
    assert!(2 * SELECTOR_BYTES_MAX + 5 * SELECTOR_TERMS_MAX <= SELECTOR_TEXT_BYTES_MAX);
    assert!(TAG_RECORDS_MAX <= u16::MAX as usize);
    assert!(LABEL_BYTES_MAX <= u8::MAX as usize && TAG_BYTES_MAX <= u8::MAX as usize);
    assert!(LABELS_MAX * (1 + LABEL_BYTES_MAX) <= u16::MAX as usize);
    assert!(GROUP_BYTES_MAX <= u8::MAX as usize && CREDENTIAL_BYTES_MAX <= u16::MAX as usize);
};
