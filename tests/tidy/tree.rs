//! The files of the repository, read once for each test that asks.

use std::fs;
use std::path::{Path, PathBuf};

/// What tools make, folders mostly (in a further work tree `.git` is a file); none is committed.
const MADE_BY_TOOLS: [&str; 6] =
    [".git", "target", "node_modules", "__pycache__", "artifacts", "coverage"];

/// A text file and where it lies.
pub(crate) struct File {
    /// From the root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Whether it lies in one of these folders, or is one of these files.
    pub(crate) fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| match self.path.strip_prefix(place) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || place.ends_with('/'),
            None => false,
        })
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file whose name ends so; an empty ending takes them all. In order of their paths.
pub(crate) fn files(ending: &str) -> Vec<File> {
    let mut paths = Vec::new();
    walk(root(), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
        let path = path.strip_prefix(root()).expect("below the root").to_str()?.replace('\\', "/");
        Some(File { path, text })
    };
    let named = paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ending));
    named.filter_map(read).collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry of it").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if MADE_BY_TOOLS.contains(&name.as_ref()) {
            continue;
        }
        match path.is_dir() {
            true => walk(&path, paths),
            false => paths.push(path),
        }
    }
}

/// A file that must be there.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A TOML file that must be there.
pub(crate) fn read_toml(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}
