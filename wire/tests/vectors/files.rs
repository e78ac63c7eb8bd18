//! The files of `protocol-spec/vectors`.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Fewer vectors than this mean that files went missing.
const VECTORS_MIN: usize = 60;

pub(crate) fn vectors_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec/vectors")
}

pub(crate) fn read_table(path: &Path) -> Table {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All `[[vector]]` of a folder, with the folder's file names for the order.
pub(crate) fn vectors(folder: &str) -> Vec<Table> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(vectors_dir().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    paths.sort();
    let all: Vec<Table> = paths
        .iter()
        .flat_map(|path| match read_table(path).remove("vector") {
            Some(Value::Array(vectors)) => vectors,
            other => panic!("{}: no [[vector]] but {other:?}", path.display()),
        })
        .map(|vector| vector.as_table().unwrap().clone())
        .collect();
    assert!(all.len() >= VECTORS_MIN, "{folder} has only {} vectors", all.len());
    all
}

pub(crate) fn text<'t>(vector: &'t Table, key: &str) -> &'t str {
    vector.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("no {key} in {vector:?}"))
}

/// Bytes of a vector: digits, white space and comments.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex
        .lines()
        .flat_map(|line| line.split('#').next().unwrap().chars())
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap_or_else(|| panic!("{c:?} in hex")))
        .collect();
    let (pairs, odd) = digits.as_chunks::<2>();
    assert!(odd.is_empty(), "odd number of digits");
    pairs.iter().map(|[high, low]| u8::try_from(high * 16 + low).unwrap()).collect()
}
