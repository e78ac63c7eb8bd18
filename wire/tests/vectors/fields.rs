//! Fields of a vector in one form: numbers instead of names, lower-case hex, defaults left out.

use toml::{Table, Value};
use waybill_wire::code::{
    BrokerState, Class, ContentType, Encoding, ErrorCode, Event, Fate, Lane, Level, Mode, Op,
    Priority, Role, TraceHop,
};

/// Sections: one that is there is not absent, whatever is in it.
const SECTIONS: &[&str] = &[
    "origin",
    "trace",
    "conflate",
    "sender",
    "part",
    "content",
    "fragmented",
    "history",
    "selector",
];
const TEXTS: &[&str] = &["kind", "detail", "name", "tag", "expression", "labels"];
const HEX: &[&str] = &["payload", "credential", "trace", "selector", "data"];

pub(crate) fn number(value: &Value) -> u64 {
    match value {
        Value::Integer(number) => u64::try_from(*number).unwrap(),
        Value::String(hex) => {
            let digits = hex.strip_prefix("0x").unwrap_or_else(|| panic!("{hex} is no number"));
            u64::from_str_radix(digits, 16).unwrap()
        }
        other => panic!("{other} is no number"),
    }
}

pub(crate) fn from_number(number: u64) -> Value {
    match i64::try_from(number) {
        Ok(number) => Value::Integer(number),
        Err(_) => Value::String(format!("0x{number:x}")),
    }
}

/// The number of an enumerated field: by its registry name, or as it is.
pub(crate) fn code(key: &str, value: &Value) -> u64 {
    let Value::String(name) = value else { return number(value) };
    let known = match key {
        "role" => Role::from_name(name).map(|code| code.0.into()),
        "state" => BrokerState::from_name(name).map(|code| code.0.into()),
        "mode" => Mode::from_name(name).map(|code| code.0.into()),
        "class" => Class::from_name(name).map(|code| code.0.into()),
        "level" | "stage" => Level::from_name(name).map(|code| code.0.into()),
        "priority" => Priority::from_name(name).map(|code| code.0.into()),
        "fate" => Fate::from_name(name).map(|code| code.0.into()),
        "hop" => TraceHop::from_name(name).map(|code| code.0.into()),
        "op" => Op::from_name(name).map(|code| code.0.into()),
        "event" => Event::from_name(name).map(|code| code.0.into()),
        "lane" => Lane::from_name(name).map(|code| code.0.into()),
        "content_type" => ContentType::from_name(name).map(|code| code.0.into()),
        "encoding" => Encoding::from_name(name).map(|code| code.0.into()),
        "code" | "cause" => ErrorCode::from_name(name).map(|code| code.0.into()),
        _ => None,
    };
    known.unwrap_or_else(|| number(value))
}

pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    super::files::bytes(hex)
}

pub(crate) fn hex(bytes: &[u8]) -> Value {
    Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The one form of a vector's fields.
pub(crate) fn canonical(fields: &Table) -> Table {
    let message = matches!(fields["kind"].as_str(), Some("PUBLISH" | "DELIVER" | "UPLINK"));
    tidy(fields.iter().map(|(key, value)| (key.clone(), one(key, value))).collect(), message)
}

fn one(key: &str, value: &Value) -> Value {
    match value {
        Value::Table(table) => {
            tidy_value(table.iter().map(|(key, value)| (key.clone(), one(key, value))).collect())
        }
        Value::Array(values) if key == "flags" => {
            let mut names: Vec<&str> = values.iter().map(|name| name.as_str().unwrap()).collect();
            names.sort_unstable();
            Value::Array(names.into_iter().map(Value::from).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(|value| one(key, value)).collect()),
        Value::String(text) if HEX.contains(&key) => hex(&unhex(text)),
        value if TEXTS.contains(&key) => value.clone(),
        Value::Boolean(_) | Value::Float(_) | Value::Datetime(_) => panic!("{key} = {value}"),
        value => from_number(code(key, value)),
    }
}

fn tidy_value(table: Table) -> Value {
    Value::Table(tidy(table, false))
}

/// Leaves the defaults out, but for sections of a message.
pub(crate) fn tidy(table: Table, message: bool) -> Table {
    let keeps = |key: &str| message && SECTIONS.contains(&key);
    table.into_iter().filter(|(key, value)| keeps(key) || !is_default(value)).collect()
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Integer(number) => *number == 0,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}
