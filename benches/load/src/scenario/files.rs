//! Where scenarios are, and reading them by name.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Loaded, Scenario};
use crate::failure::Failure;

/// Where scenarios are looked for by name: the source tree this was built from, else here.
#[must_use]
pub fn folder() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("scenarios");
    if built.is_dir() { built } else { PathBuf::from("benches/scenarios") }
}

/// Reads a scenario by its name or its file.
///
/// # Errors
/// There is none, or what is wrong with it.
pub fn load(name: &str) -> Result<Loaded, Failure> {
    let is_path = name.ends_with(".toml") || name.contains('/');
    let path = if is_path { name.into() } else { folder().join(format!("{name}.toml")) };
    let text = fs::read_to_string(&path).map_err(|error| {
        let path = path.display();
        Failure::new(format_args!("scenario {name}: {path}: {error}; {}", hint(name)))
    })?;
    let scenario = Scenario::parse(&text)
        .map_err(|failure| failure.during(format_args!("scenario {}", path.display())))?;
    let name = path.file_stem().map_or(name.into(), |stem| stem.to_string_lossy().into_owned());
    let file = if is_path { path.display().to_string() } else { shown(&name) };
    Ok(Loaded { name, file, scenario })
}

/// What may have been meant by a name of nothing.
fn hint(name: &str) -> String {
    let names = names().unwrap_or_default();
    let stem = Path::new(name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    match stem.filter(|stem| names.contains(stem)) {
        Some(stem) => format!("`{stem}` without a path or ending is one there is"),
        None => format!("there are {}, or give the path of a .toml file", names.join(", ")),
    }
}

fn shown(name: &str) -> String {
    format!("benches/scenarios/{name}.toml")
}

/// Every scenario of the folder, by name.
///
/// # Errors
/// The folder cannot be read, or one of them is wrong.
pub fn list() -> Result<Vec<Loaded>, Failure> {
    names()?.iter().map(|name| load(name)).collect()
}

/// Names of the files in the folder.
fn names() -> Result<Vec<String>, Failure> {
    let folder = folder();
    let entries =
        fs::read_dir(&folder).map_err(|error| Failure::from(error).during(folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "toml")
            && let Some(stem) = path.file_stem()
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
