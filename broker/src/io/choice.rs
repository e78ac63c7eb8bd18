//! Which backend a broker runs on: what was asked for, what the system can do, and why.

use std::fmt;

use serde::Serialize;
use tracing::{info, warn};

use crate::config::IoChoice;
#[cfg(target_os = "linux")]
use crate::io::uring::{Prepared, probe};

/// Which backend runs, and why that one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// `uring` or `tokio`.
    pub name: &'static str,
    /// In words for people.
    pub reason: String,
}

/// What io_uring was asked for and did not do.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Unavailable {
    what: &'static str,
    source: std::io::Error,
}

impl Unavailable {
    /// From what the system says of this.
    pub(crate) fn because(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self { what, source }
    }

    /// What can be done about it, in words for people.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        use std::io::ErrorKind;
        match self.source.kind() {
            _ if !cfg!(target_os = "linux") => "it is there on Linux alone: take --io auto",
            ErrorKind::PermissionDenied => {
                "allow io_uring (containers block it by default, seccomp:unconfined or a profile \
                 with io_uring_setup, io_uring_enter and io_uring_register does not; sysctl \
                 kernel.io_uring_disabled = 0), or take --io auto"
            }
            ErrorKind::Unsupported | ErrorKind::InvalidInput => {
                "it takes Linux 6.1 or newer with io_uring built in: take --io auto"
            }
            _ => "see the cause, or take --io auto",
        }
    }
}

/// What the shards' threads are to run.
pub(crate) enum Opened {
    /// The portable backend.
    Tokio,
    /// A ring for each of them.
    #[cfg(target_os = "linux")]
    Uring(Vec<Prepared>),
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokio => f.write_str("Tokio"),
            #[cfg(target_os = "linux")]
            Self::Uring(rings) => f.debug_tuple("Uring").field(&rings.len()).finish(),
        }
    }
}

/// Opens what was asked for, for so many shards.
///
/// # Errors
/// If io_uring was asked for by name, and is not there or fails its test.
pub(crate) fn open(choice: IoChoice, shards: u16) -> Result<(Opened, Backend), Unavailable> {
    let (opened, backend) = judge(choice, || rings(shards))?;
    match (&opened, choice) {
        (Opened::Tokio, IoChoice::Auto) => warn!(backend = backend.name, reason = backend.reason),
        _ => info!(backend = backend.name, reason = backend.reason),
    }
    Ok((opened, backend))
}

fn judge(
    choice: IoChoice,
    rings: impl FnOnce() -> Result<Opened, Unavailable>,
) -> Result<(Opened, Backend), Unavailable> {
    let chosen = |opened, name, reason: &str| Ok((opened, Backend { name, reason: reason.into() }));
    match choice {
        IoChoice::Tokio => chosen(Opened::Tokio, "tokio", "it was asked for"),
        IoChoice::Uring => chosen(rings()?, "uring", "it was asked for, and passed its test"),
        IoChoice::Auto => match rings() {
            Ok(opened) => chosen(opened, "uring", "this system has it, and it passed its test"),
            Err(error) => {
                let reason = format!("io_uring cannot be used here: {error}");
                chosen(Opened::Tokio, "tokio", &reason)
            }
        },
    }
}

#[cfg(target_os = "linux")]
fn rings(shards: u16) -> Result<Opened, Unavailable> {
    let open = move || {
        probe::moves_bytes()?;
        (0..shards).map(|_| Prepared::new()).collect::<Result<_, _>>().map(Opened::Uring)
    };
    // When a ring has ended, the system interrupts whatever the thread that made it waits for; so
    // that thread is not the caller's.
    let thread = std::thread::Builder::new().name("waybill-io-test".into()).spawn(open);
    let thread = thread.map_err(Unavailable::because("a thread"))?;
    let failed = || Unavailable::because("its test")(std::io::Error::other("it panicked"));
    thread.join().unwrap_or_else(|_| Err(failed()))
}

#[cfg(not(target_os = "linux"))]
fn rings(_shards: u16) -> Result<Opened, Unavailable> {
    Err(Unavailable::because("io_uring")(std::io::ErrorKind::Unsupported.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    fn refused() -> Result<Opened, Unavailable> {
        Err(Unavailable::because("a ring")(Error::from_raw_os_error(1)))
    }

    #[test]
    fn without_io_uring_the_portable_backend_runs_and_says_why() {
        let (opened, backend) = judge(IoChoice::Auto, refused).unwrap();
        assert!(matches!(opened, Opened::Tokio));
        assert_eq!(backend.name, "tokio");
        let reason = "io_uring cannot be used here: a ring: Operation not permitted (os error 1)";
        assert_eq!(backend.reason, reason);
    }

    #[test]
    fn asked_for_by_name_io_uring_runs_or_nothing_does() {
        let error = judge(IoChoice::Uring, refused).unwrap_err();
        assert!(error.remedy().contains("kernel.io_uring_disabled"), "{error}");
    }

    #[test]
    fn asked_for_by_name_the_portable_backend_runs_untested() {
        let (_, backend) = judge(IoChoice::Tokio, || panic!("nobody asked")).unwrap();
        assert_eq!((backend.name, backend.reason.as_str()), ("tokio", "it was asked for"));
    }
}
