//! `registry.toml` and the constants of this crate are equal, in both directions.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};
use waybill_wire::code::{self, *};
use waybill_wire::limits;

/// One table of the registry: name to number.
type Numbers = BTreeMap<String, u64>;

fn registry() -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec/registry.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// A table of the registry; of entries with more columns, their `code`.
fn numbers(table: &Value) -> Numbers {
    let number = |value: &Value| u64::try_from(value.as_integer().unwrap()).unwrap();
    let entries = table.as_table().unwrap().iter();
    entries
        .map(|(name, value)| (name.clone(), number(value.get("code").unwrap_or(value))))
        .collect()
}

fn named<T: Copy>(all: &[(&str, T)], number: impl Fn(T) -> u64) -> Numbers {
    all.iter().map(|(name, value)| ((*name).to_owned(), number(*value))).collect()
}

fn bits(all: &[(&str, u32)]) -> Numbers {
    named(all, u64::from)
}

/// Every table this crate has constants for.
fn constants() -> BTreeMap<&'static str, Numbers> {
    BTreeMap::from([
        ("limits", named(limits::LIMITS, |limit| limit)),
        ("client_limits", named(limits::CLIENT_LIMITS, |limit| limit)),
        ("kinds", named(Kind::ALL, |code| code.0.into())),
        ("roles", named(Role::ALL, |code| code.0.into())),
        ("states", named(BrokerState::ALL, |code| code.0.into())),
        ("modes", named(Mode::ALL, |code| code.0.into())),
        ("classes", named(Class::ALL, |code| code.0.into())),
        ("levels", named(Level::ALL, |code| code.0.into())),
        ("priorities", named(Priority::ALL, |code| code.0.into())),
        ("fates", named(Fate::ALL, |code| code.0.into())),
        ("trace_hops", named(TraceHop::ALL, |code| code.0.into())),
        ("ops", named(Op::ALL, |code| code.0.into())),
        ("selector_nodes", named(SelectorNode::ALL, |code| code.0.into())),
        ("events", named(Event::ALL, |code| code.0.into())),
        ("lanes", named(Lane::ALL, |code| code.0.into())),
        ("content_types", named(ContentType::ALL, |code| code.0.into())),
        ("encodings", named(Encoding::ALL, |code| code.0.into())),
        ("errors", named(ErrorCode::ALL, |code| code.0.into())),
        ("close_codes", named(CloseCode::ALL, |code| code.0.into())),
        ("client_messages", named(ClientMessage::ALL, |code| code.0.into())),
        ("capabilities", bits(code::capability::ALL)),
        ("message_flags", bits(flags::message::ALL)),
        ("link_flags", bits(flags::link::ALL)),
        ("welcome_flags", bits(flags::welcome::ALL)),
        ("error_flags", bits(flags::error::ALL)),
        ("receipt_flags", bits(flags::receipt::ALL)),
        ("report_flags", bits(flags::report::ALL)),
        ("fragment_flags", bits(flags::fragment::ALL)),
        ("snapshot_flags", bits(flags::snapshot::ALL)),
        ("ack_flags", bits(flags::ack::ALL)),
    ])
}

#[test]
fn every_table_equals_its_constants() {
    let mut registry = registry();
    let draft = registry.remove("draft").unwrap();
    assert_eq!(draft.as_integer(), Some(limits::DRAFT.into()));
    let registry: BTreeMap<&str, Numbers> =
        registry.iter().map(|(name, table)| (name.as_str(), numbers(table))).collect();
    assert_eq!(constants(), registry);
}

#[test]
fn kinds_have_their_senders_and_status() {
    for (name, entry) in registry()["kinds"].as_table().unwrap() {
        let kind = Kind::from_name(name).unwrap();
        assert_eq!(kind.senders().to_string(), entry["from"].as_str().unwrap(), "{name}");
        let status = if kind.supported() == Status::Now { "now" } else { "later" };
        assert_eq!(status, entry["status"].as_str().unwrap(), "{name}");
        assert!(kind.is_known() && !kind.is_skipped());
    }
}

/// ERR-1, ERR-2.
#[test]
fn errors_have_their_retry() {
    for (name, entry) in registry()["errors"].as_table().unwrap() {
        let retry = match ErrorCode::from_name(name).unwrap().retry() {
            Retry::Never => "never",
            Retry::Later => "later",
            Retry::Elsewhere => "elsewhere",
        };
        assert_eq!(retry, entry["retry"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn close_codes_say_who_reconnects() {
    for (name, entry) in registry()["close_codes"].as_table().unwrap() {
        let code = CloseCode::from_name(name).unwrap();
        assert_eq!(Some(code.reconnects()), entry["reconnect"].as_bool(), "{name}");
    }
}

#[test]
fn unknown_values_have_no_name() {
    assert_eq!(Kind(0x7f).name(), None);
    assert_eq!(format!("{:?} {:?}", Kind::PUBLISH, Kind(0x7f)), "PUBLISH kind 0x7f");
    assert_eq!(format!("{:?} {:?}", Role::LEAF, Role(9)), "leaf Role(0x9)");
    assert_eq!("gateway".parse(), Ok(Role::GATEWAY));
    assert_eq!(ErrorCode(599).retry(), Retry::Elsewhere);
    assert!(Kind(0x80).is_skipped() && !Kind(0x7f).is_skipped());
}
