//! File, environment and flags become one set of values, each with its source.
//!
//! The keys that exist are those of the defaults, written as TOML: nothing lists them a second
//! time. A value is judged alone, set into the defaults, so that one mistake does not hide another.
//! Ranges are for [`check`](super::check).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::{Table, Value};

use super::nearest::nearest;
use super::{File, Loaded, Settings};

/// Variables that are no settings: where the settings file and the runtime file lie.
const NOT_SETTINGS: &[&str] = &[
    "WAYBILL_CONFIG",
    crate::runtime_file::VARIABLE,
    #[cfg(feature = "planted")]
    crate::PLANTED,
];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The settings file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Source of each key that is not at its default.
pub(crate) type Sources = BTreeMap<String, Source>;

/// Something wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Dotted key, or the variable's name if it is none.
    pub(crate) key: String,
    /// One line: what is wrong, and where it stands.
    pub(crate) cause: String,
    /// One line: what to write instead.
    pub(crate) remedy: String,
}

/// Values that flags set, by dotted key.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<(&'static str, &'static str, Value)>);

impl Flags {
    /// Sets `key` if the flag was given.
    pub(crate) fn set(
        mut self,
        flag: &'static str,
        key: &'static str,
        value: Option<impl Into<Value>>,
    ) -> Self {
        self.0.extend(value.map(|value| (flag, key, value.into())));
        self
    }

    /// Sets a list if the flag was given at least once.
    pub(crate) fn list(self, flag: &'static str, key: &'static str, values: &[String]) -> Self {
        self.set(flag, key, (!values.is_empty()).then(|| values.to_vec()))
    }
}

/// All layers on top of the defaults, the later winning.
pub(super) fn merge(
    file: Option<File>,
    variables: impl Iterator<Item = (OsString, OsString)>,
    flags: Flags,
) -> Loaded {
    let defaults = default_table();
    let mut merge = Merge {
        known: leaves(&defaults),
        table: defaults,
        sources: Sources::new(),
        mistakes: Vec::new(),
    };
    if let Some(file) = file {
        merge.file("", file.table, &Source::File(file.path));
    }
    let mut variables: Vec<_> = variables.filter_map(ours).collect();
    variables.sort();
    for (name, value) in variables {
        merge.variable(name, value);
    }
    for (flag, key, value) in flags.0 {
        merge.set(key, value, Source::Flag(flag));
    }
    let settings = Value::Table(merge.table).try_into().unwrap_or_default();
    Loaded { settings, sources: merge.sources, mistakes: merge.mistakes }
}

/// The defaults as TOML.
pub(super) fn default_table() -> Table {
    Table::try_from(Settings::default()).unwrap_or_default()
}

/// Every dotted key with its value; a table is never one.
pub(super) fn leaves(table: &Table) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, table: &Table, out: &mut BTreeMap<String, Value>) {
        for (name, value) in table {
            let key = join_key(prefix, name);
            match value {
                Value::Table(inner) => walk(&key, inner, out),
                leaf => {
                    out.insert(key, leaf.clone());
                }
            }
        }
    }
    let mut out = BTreeMap::new();
    walk("", table, &mut out);
    out
}

/// Environment name of a key.
pub(super) fn variable_name(key: &str) -> String {
    format!("WAYBILL_{}", key.to_uppercase().replace('.', "__"))
}

/// Keys whose values are not shown.
pub(super) fn is_secret(key: &str) -> bool {
    ["token", "tokens", "secret"].iter().any(|name| key.rsplit('.').next() == Some(name))
}

pub(super) fn join_key(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") }
}

/// A variable that claims to be for this program.
fn ours((name, value): (OsString, OsString)) -> Option<(String, OsString)> {
    let name = name.into_string().ok()?;
    let ours = name.starts_with("WAYBILL_") && !NOT_SETTINGS.contains(&name.as_str());
    ours.then_some((name, value))
}

struct Merge {
    known: BTreeMap<String, Value>,
    table: Table,
    sources: Sources,
    mistakes: Vec<Mistake>,
}

impl Merge {
    fn file(&mut self, prefix: &str, table: Table, source: &Source) {
        for (name, value) in table {
            let key = join_key(prefix, &name);
            let section = format!("{key}.");
            let is_section = self.known.keys().any(|known| known.starts_with(&section));
            match value {
                Value::Table(inner) if is_section => self.file(&key, inner, source),
                value if self.known.contains_key(&key) => self.set(&key, value, source.clone()),
                _ if is_section => self.mistake(
                    &key,
                    format!("{source}: {key} is a section, not a value"),
                    format!("write [{key}] and its keys below it"),
                ),
                Value::Table(_) => self.unknown_section(&key, source),
                _ => self.unknown(&key, format!("{source}: unknown key {key}")),
            }
        }
    }

    fn variable(&mut self, name: String, value: OsString) {
        let rest = name.strip_prefix("WAYBILL_").unwrap_or_default();
        let key = rest.to_lowercase().replace("__", ".");
        // The way back must give the same name: WAYBILL_broker__listen is somebody else's.
        let Some(default) = self.known.get(&key).filter(|_| variable_name(&key) == name) else {
            let names: Vec<String> = self.known.keys().map(|key| variable_name(key)).collect();
            let known = names.iter().map(String::as_str).chain(NOT_SETTINGS.iter().copied());
            let remedy = did_you_mean(nearest(&name, known));
            return self.mistake(&name, format!("unknown environment variable {name}"), remedy);
        };
        let parsed = match value.into_string() {
            Ok(text) => typed(&text, default),
            Err(_) => Err("UTF-8 text"),
        };
        match parsed {
            Ok(value) => self.set(&key, value, Source::Variable(name)),
            Err(expected) => self.mistake(
                &key,
                format!("{name}: {key} has the wrong type, expected {expected}"),
                format!("give {name} {expected}, or unset it"),
            ),
        }
    }

    /// Sets a known key if it has the right type.
    fn set(&mut self, key: &str, value: Value, source: Source) {
        let mut alone = default_table();
        put(&mut alone, key, value.clone());
        let judged: Result<Settings, _> = serde_path_to_error::deserialize(Value::Table(alone));
        match judged {
            Ok(_) => {
                put(&mut self.table, key, value);
                self.sources.insert(key.into(), source);
            }
            Err(error) => {
                let path = error.path().to_string();
                let message = error.into_inner().message().to_owned();
                let told = if is_secret(key) { without_value(&message) } else { message.as_str() };
                let told = told.lines().next().unwrap_or_default();
                let default = self.known.get(key);
                self.mistake(
                    &path,
                    format!("{source}: {path} has a wrong value: {told}"),
                    format!("{key} takes {}", type_words(default)),
                );
            }
        }
    }

    fn unknown(&mut self, key: &str, cause: String) {
        let remedy = did_you_mean(nearest(key, self.known.keys().map(String::as_str)));
        self.mistake(key, cause, remedy);
    }

    fn unknown_section(&mut self, key: &str, source: &Source) {
        let sections = self.known.keys().filter_map(|key| key.rsplit_once('.'));
        let nearest = nearest(key, sections.map(|(section, _)| section));
        let section = nearest.map(|section| format!("[{section}]"));
        let remedy = did_you_mean(section.as_deref());
        self.mistake(key, format!("{source}: unknown section [{key}]"), remedy);
    }

    fn mistake(&mut self, key: &str, cause: String, remedy: String) {
        self.mistakes.push(Mistake { key: key.into(), cause, remedy });
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    format!("did you mean {}? `waybill config defaults` lists every key", nearest.unwrap_or("none"))
}

/// serde repeats a wrong value in its message: of a secret only what was expected is kept.
fn without_value(message: &str) -> &str {
    if message.starts_with("missing field") || message.starts_with("unknown field") {
        return message;
    }
    message.rfind("expected").map_or("not of the expected type", |at| &message[at..])
}

fn type_words(default: Option<&Value>) -> &'static str {
    let is_address = |text: &str| text.parse::<SocketAddr>().is_ok();
    match default.map_or("", Value::type_str) {
        _ if default.and_then(Value::as_str).is_some_and(is_address) => {
            "IP:PORT with a numeric address, such as 127.0.0.1:7711, [::1]:7711 or 127.0.0.1:0"
        }
        "string" => "a text in quotes, as `waybill config defaults` shows",
        "integer" => "a whole number, in the range that `waybill config defaults` shows",
        "boolean" => "true or false",
        "array" => "a list in square brackets, as `waybill config defaults` shows",
        _ => "what `waybill config defaults` shows",
    }
}

/// A variable's text as the type its key has.
fn typed(text: &str, like: &Value) -> Result<Value, &'static str> {
    match like {
        Value::String(_) => Ok(text.into()),
        Value::Integer(_) => {
            let number: Result<i64, _> = text.parse();
            number.map(Value::from).map_err(|_| "a whole number")
        }
        Value::Boolean(_) => text.parse::<bool>().map(Value::from).map_err(|_| "true or false"),
        Value::Array(_) if text.trim_start().starts_with('[') => {
            let line: Result<Table, _> = format!("list = {text}").parse();
            let list = line.ok().and_then(|mut table| table.remove("list"));
            list.ok_or("a comma list or a TOML array")
        }
        Value::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            // An empty list does not say what it has; no list of texts has whole numbers alone.
            let numbers: Result<Vec<i64>, _> = parts.clone().map(str::parse).collect();
            Ok(match numbers {
                Ok(numbers) if !numbers.is_empty() => numbers.into(),
                _ => parts.map(String::from).collect::<Vec<_>>().into(),
            })
        }
        _ => Err("a value that the environment can hold"),
    }
}

/// Puts a value at a dotted key whose tables exist.
pub(super) fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
        }
        Some((section, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(section) {
                put(inner, rest, value);
            }
        }
    }
}
