//! What a running `waybill up` leaves for other terminals: where it listens, and its secrets.
//!
//! The file is private: mode 0600, owned by the user, in a directory only the user can write to.
//! Whoever reads it checks that before believing a word, since a file put there by somebody else
//! could send messages to a stranger. It is written to the side and renamed, so that nobody reads
//! half of it, and removed by the `up` that wrote it.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};

/// Variable that says where the file lies.
pub(crate) const VARIABLE: &str = "WAYBILL_RUNTIME";

/// Most bytes that are read; secrets may be long.
const BYTES_MAX: u64 = 64 << 10;

/// What the file says.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Runtime {
    /// Process that wrote it.
    pub(crate) pid: u32,
    /// Address of the broker.
    pub(crate) broker: String,
    /// Address of the broker's health, ledger and explanations; empty if one of before wrote it.
    #[serde(default)]
    pub(crate) admin: String,
    /// Address of the demo page.
    pub(crate) page: String,
    /// Secret that login tokens are signed with.
    pub(crate) secret: String,
    /// Credential for the broker; empty if it wants none.
    pub(crate) token: String,
}

impl Runtime {
    /// Whether the `up` that wrote it, or another process of this user with its number, runs.
    pub(crate) fn is_running(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid).is_ok())
    }
}

/// Removes the file when `up` ends.
pub(crate) struct Written {
    path: PathBuf,
}

/// Where the file lies.
pub(crate) fn path() -> PathBuf {
    if let Some(path) = variable(VARIABLE) {
        return path;
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(directory) => directory.join("waybill/up.json"),
        None => std::env::temp_dir().join(format!("waybill-{}", euid())).join("up.json"),
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Writes the file, over one that an `up` of before has left.
pub(crate) fn write(path: &Path, runtime: &Runtime) -> Outcome<Written> {
    let fail = |error: &dyn std::fmt::Display| {
        let shown = path.display();
        Failure::failed(
            format_args!("cannot write the runtime file {shown}: {error}"),
            format_args!("set {VARIABLE} to a path in a directory that is yours alone"),
        )
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory).map_err(|error| fail(&error))?;
    let found = fs::metadata(directory).map_err(|error| fail(&error))?;
    if variable(VARIABLE).is_none() {
        private(&found, 0o022).map_err(|problem| fail(&format!("its directory {problem}")))?;
    }
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    let written = put(&aside, runtime).and_then(|()| fs::rename(&aside, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&aside);
        return Err(fail(&error));
    }
    Ok(Written { path: path.into() })
}

fn put(path: &Path, runtime: &Runtime) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(runtime)?)
}

/// What the running `up` has left; `None` if none is running.
pub(crate) fn read(path: &Path) -> Outcome<Option<Runtime>> {
    let fail = |error: &dyn std::fmt::Display| {
        let shown = path.display();
        Failure::failed(
            format_args!("cannot use the runtime file {shown}: {error}"),
            format_args!("remove it, or name another with {VARIABLE}"),
        )
    };
    // A FIFO must not make us wait for whoever writes to it.
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(no_wait).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(&error)),
    };
    let found = file.metadata().map_err(|error| fail(&error))?;
    if !found.is_file() {
        return Err(fail(&"it is not a regular file"));
    }
    private(&found, 0o077).map_err(|problem| fail(&problem))?;
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| fail(&error))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(fail(&format!("it has more than {BYTES_MAX} bytes, none of ours does")));
    }
    serde_json::from_str(&text).map(Some).map_err(|error| fail(&error))
}

/// Whether this is the user's own and others have none of these permissions.
fn private(found: &Metadata, denied: u32) -> Result<(), String> {
    if found.uid() != euid() {
        return Err(format!("belongs to user {}, not to you", found.uid()));
    }
    if found.mode() & denied != 0 {
        return Err(format!("is open to others (mode {:o})", found.mode() & 0o777));
    }
    Ok(())
}

fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl Drop for Written {
    /// Another `up` may have written its own in the meantime: that one stays.
    fn drop(&mut self) {
        let ours = matches!(read(&self.path), Ok(Some(found)) if found.pid == std::process::id());
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn runtime(pid: u32) -> Runtime {
        let text = |text: &str| text.to_string();
        Runtime {
            pid,
            broker: text("127.0.0.1:1"),
            admin: text("127.0.0.1:3"),
            page: text("http://127.0.0.1:2/"),
            secret: text("s"),
            token: String::new(),
        }
    }

    #[test]
    fn it_is_private_and_goes_with_its_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/up.json");
        let written = write(&path, &runtime(std::process::id())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(read(&path).unwrap().unwrap().secret, "s");
        drop(written);
        assert!(read(&path).unwrap().is_none());
    }

    #[test]
    fn that_of_another_process_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("up.json");
        drop(write(&path, &runtime(1)).unwrap());
        assert_eq!(read(&path).unwrap().unwrap().pid, 1);
    }

    #[test]
    fn what_is_no_file_of_ours_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let cause = |path: &Path| read(path).err().unwrap().words().unwrap().cause.clone();
        assert!(cause(directory.path()).contains("not a regular file"));
        let path = directory.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        assert!(cause(&path).contains("not a regular file"));
        let path = directory.path().join("huge");
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(cause(&path).contains("more than 65536 bytes"));
    }

    #[test]
    fn one_that_others_can_read_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("up.json");
        let written = write(&path, &runtime(1)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let failure = read(&path).err().unwrap();
        assert!(failure.words().unwrap().cause.contains("open to others (mode 644)"));
        drop(written);
    }
}
