//! Files of results: read with a word for what they are not; opened for writing before a run, so
//! that a wrong path costs no measurement.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::Failure;
use crate::results::{FORMAT, Results};

/// A file that will be written. What stands in it stays until then; one that is new goes again if
/// nothing is written.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: File,
    goes: bool,
}

impl Output {
    /// Opens it, and makes it if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let during = |error: std::io::Error| Failure::from(error).during(path.display());
        let goes = fs::symlink_metadata(path).is_err();
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(path).map_err(during)?;
        Ok(Self { path: path.into(), file, goes })
    }

    /// Refuses a file that is this one, under whatever name.
    pub(super) fn is_not(&self, other: &File, of: &str) -> Result<(), Failure> {
        let (one, other) = (self.file.metadata()?, other.metadata()?);
        if (one.dev(), one.ino()) == (other.dev(), other.ino()) {
            let words = format!("{} is the file of {of} too; name another", self.path.display());
            return Err(Failure::new(words));
        }
        Ok(())
    }

    /// Puts this into it, and nothing else.
    pub(super) fn write(mut self, text: &str) -> Result<(), Failure> {
        self.goes = false;
        // A pipe or a device has no length.
        let cut = if self.file.metadata()?.is_file() { self.file.set_len(0) } else { Ok(()) };
        cut.and_then(|()| self.file.write_all(text.as_bytes()))
            .map_err(|error| Failure::from(error).during(self.path.display()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.goes {
            let _gone_already = fs::remove_file(&self.path);
        }
    }
}

/// The two files that a run may write.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    json: Option<Output>,
    html: Option<Output>,
}

impl Outputs {
    /// Opens what is named.
    pub(super) fn open(json: Option<&Path>, html: Option<&Path>) -> Result<Self, Failure> {
        let json = json.map(Output::open).transpose()?;
        let html = html.map(Output::open).transpose()?;
        if let (Some(json), Some(html)) = (&json, &html) {
            html.is_not(&json.file, "--json")?;
        }
        Ok(Self { json, html })
    }

    /// Writes each, whatever becomes of the other; what went wrong.
    pub(super) fn write(
        self,
        json: impl FnOnce() -> Result<String, Failure>,
        html: impl FnOnce() -> String,
    ) -> Vec<Failure> {
        let json = self.json.map(|output| output.write(&json()?));
        let html = self.html.map(|output| output.write(&html()));
        [json, html].into_iter().flatten().filter_map(Result::err).collect()
    }
}

/// What every file of results begins with, whatever else its format has.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// Reads the results of a run.
pub(super) fn read(path: &Path) -> Result<Results, Failure> {
    let during = |failure: Failure| failure.during(path.display());
    let text = fs::read(path).map_err(|error| during(error.into()))?;
    let head: Head = serde_json::from_slice(&text).map_err(|error| {
        let words = format!("is not a file made by waybill-bench --json ({error})");
        during(Failure::new(words))
    })?;
    if head.format != FORMAT {
        let words = format!("format {}, this program reads {FORMAT}", head.format);
        return Err(during(Failure::new(words)));
    }
    serde_json::from_slice(&text).map_err(|error| during(Failure::new(error)))
}
