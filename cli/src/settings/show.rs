//! Settings for people and programs to read, with where each came from. Secrets are masked.

use std::fmt::Write;

use toml::{Table, Value};

use super::Loaded;
use super::layers::{Source, is_secret, join_key};

/// What stands in place of a secret.
const MASK: &str = "***";

/// The effective settings as a TOML file; a comment after each value says where it comes from.
pub(crate) fn as_toml(loaded: &Loaded) -> String {
    let mut out = String::new();
    section(&mut out, "", &effective(loaded), loaded);
    out
}

/// The effective settings as one JSON object: the values, and the source of each that is no
/// default.
pub(crate) fn as_json(loaded: &Loaded) -> serde_json::Value {
    let sources: serde_json::Map<String, serde_json::Value> =
        loaded.sources.iter().map(|(key, source)| (key.clone(), kind(source))).collect();
    serde_json::json!({ "settings": effective(loaded), "sources": sources })
}

fn kind(source: &Source) -> serde_json::Value {
    source.to_string().into()
}

/// Values first, then the tables below, as TOML wants it.
fn section(out: &mut String, prefix: &str, table: &Table, loaded: &Loaded) {
    let values: Vec<_> = table.iter().filter(|(_, value)| !value.is_table()).collect();
    if !values.is_empty() {
        let blank = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{blank}[{prefix}]");
    }
    for (name, value) in values {
        let source = loaded.sources.get(&join_key(prefix, name));
        let source = source.map_or("default".into(), |source| format!("from {source}"));
        let _ = writeln!(out, "{:<44} # {source}", format!("{name} = {value}"));
    }
    for (name, value) in table {
        if let Value::Table(inner) = value {
            section(out, &join_key(prefix, name), inner, loaded);
        }
    }
}

fn effective(loaded: &Loaded) -> Table {
    let mut table = Table::try_from(&loaded.settings).unwrap_or_default();
    mask(&mut table);
    table
}

fn mask(table: &mut Table) {
    for (name, value) in table.iter_mut() {
        match value {
            Value::Table(inner) => mask(inner),
            Value::Array(items) => items.iter_mut().for_each(|item| {
                if let Value::Table(inner) = item {
                    mask(inner);
                }
            }),
            Value::String(text) if is_secret(name) && !text.is_empty() => *text = MASK.into(),
            _ => {}
        }
    }
}
