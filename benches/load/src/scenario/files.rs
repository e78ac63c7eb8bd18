//! Where scenarios are, and reading them by name.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Loaded, Scenario};
use crate::failure::Failure;

/// Where scenarios are looked for by name: the source tree this was built from, else here.
#[must_use]
pub fn folder() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
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
        let hint = "`waybill-bench list` shows those there are";
        Failure::new(format_args!("scenario {name}: {}: {error}; {hint}", path.display()))
    })?;
    let scenario = Scenario::parse(&text)
        .map_err(|failure| failure.during(format_args!("scenario {}", path.display())))?;
    let name = path.file_stem().map_or(name.into(), |stem| stem.to_string_lossy().into_owned());
    let file = if is_path { path.display().to_string() } else { shown(&name) };
    Ok(Loaded { name, file, scenario })
}

fn shown(name: &str) -> String {
    format!("benches/scenarios/{name}.toml")
}

/// Every scenario of the folder, by name.
///
/// # Errors
/// The folder cannot be read, or one of them is wrong.
pub fn list() -> Result<Vec<Loaded>, Failure> {
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
    names.iter().map(|name| load(name)).collect()
}
