//! Server processes: each in a folder of its own, on a core of its own, measured from outside, and
//! gone when their owner is.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use crate::clock::{Clock, SECOND, nanos};
use crate::engine::Usage;
use crate::failure::Failure;
use crate::interrupt;

/// How long a server may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at a process that is to change: nothing tells when it listens, or has ended.
const LOOK: Duration = Duration::from_millis(2);

/// Bytes of a page, the unit of /proc/PID/statm.
const PAGE_BYTES: u64 = 4096;

/// Clock ticks per second of /proc/PID/stat, the same on every Linux of today.
const TICKS_PER_SECOND: u64 = 100;

/// Pins the calling thread.
///
/// # Errors
/// There is no such core, or this process may not use it.
pub fn pin(core: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)
        .map_err(|error| Failure::new(error).during(format_args!("pinning to core {core}")))
}

/// CPU time of the calling thread in nanoseconds.
///
/// # Errors
/// The kernel does not tell.
pub fn own_cpu() -> Result<u64, Failure> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).map_err(|error| Failure::from(error).during(path))?;
    first_number(&text).ok_or_else(|| Failure::new(format_args!("{path} says {text:?}")))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Where the processes of a target live.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    /// Core that all processes of the target are pinned to.
    core: Option<usize>,
    waybill: PathBuf,
}

impl Place {
    /// A new folder. `waybill` is the program of that name.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(core: Option<usize>, waybill: &Path) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("waybill-bench-").tempdir()?;
        Ok(Self { folder, core, waybill: waybill.into() })
    }

    /// The folder, empty at first; it goes when the place does.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The `waybill` program.
    #[must_use]
    pub fn waybill(&self) -> &Path {
        &self.waybill
    }

    /// Whether servers have a core of their own.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.core.is_some()
    }

    /// A loopback address that nobody listens on. Somebody may before the server does: then it
    /// fails to start.
    ///
    /// # Errors
    /// There is none.
    pub fn free_address(&self) -> Result<SocketAddr, Failure> {
        Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
    }

    /// A command for `program`, in the folder and on the core of this place. Where `setpriv` is
    /// there, the process ends when this one does, even if this one is killed.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut words: Vec<String> = Vec::new();
        if find("setpriv").is_some() {
            words.extend(["setpriv", "--pdeathsig", "KILL"].map(String::from));
        }
        if let Some(core) = self.core {
            words.extend(["taskset".into(), "-c".into(), core.to_string()]);
        }
        let mut command = match words.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(self.folder()).stdin(Stdio::null());
        command
    }

    /// Starts a server, its output in `NAME.log` and `NAME.out` of the folder.
    ///
    /// # Errors
    /// The system cannot start it.
    pub fn start(&self, name: &str, mut command: Command) -> Result<Server, Failure> {
        let log = self.folder().join(format!("{name}.log"));
        let out = self.folder().join(format!("{name}.out"));
        command.stderr(File::create(&log)?).stdout(File::create(&out)?);
        let child = command
            .spawn()
            .map_err(|error| Failure::from(error).during(format_args!("starting {name}")))?;
        Ok(Server { name: name.into(), child, log, out, others: Vec::new(), killed: false })
    }
}

/// Looks for a program on PATH, and where servers and tools of a language put theirs.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let go = std::env::var_os("GOPATH").map(PathBuf::from);
    let go = go.or_else(|| home.map(|home| home.join("go"))).map(|go| go.join("bin"));
    let more = ["/usr/local/bin", "/usr/sbin", "/usr/lib/rabbitmq/bin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(go).chain(more);
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
}

/// A server process and those it started.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    out: PathBuf,
    /// Processes that belong to it and are not its descendants.
    others: Vec<u32>,
    /// It was killed and is gone; its number may be somebody else's.
    killed: bool,
}

impl Server {
    /// As people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A process that left the tree of this one, to be measured and ended with it.
    pub fn adopt(&mut self, pid: u32) {
        self.others.push(pid);
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// It ended, or does not listen in time.
    pub fn wait_for(&mut self, address: SocketAddr) -> Result<(), Failure> {
        self.wait_until("listen", |_| TcpStream::connect(address).ok().map(drop))
    }

    /// Waits for a line on its stdout for which `found` has something.
    ///
    /// # Errors
    /// It ended, or does not say it in time.
    pub fn wait_for_line<T>(
        &mut self,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Failure> {
        self.wait_until("say that it is ready", |server| {
            let text = fs::read_to_string(&server.out).ok()?;
            text.lines().find_map(&mut found)
        })
    }

    /// Waits until `found` has something.
    ///
    /// # Errors
    /// It ended, or `found` has nothing in time.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        mut found: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Failure> {
        let clock = Clock::start();
        loop {
            if let Some(found) = found(self) {
                return Ok(found);
            }
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                return Err(self.said(format_args!("ended with {status}")));
            }
            if clock.nanos() > nanos(START_TIMEOUT) {
                return Err(self.said(format_args!("did not {what} in {START_TIMEOUT:?}")));
            }
            rest();
        }
    }

    /// How it ended, if it has, though nobody stopped it; with the last lines of its log.
    #[must_use]
    pub fn ended(&mut self) -> Option<Failure> {
        let status = self.child.try_wait().ok()??;
        Some(self.said(format_args!("ended with {status}")))
    }

    /// A failure with the last lines of its log.
    #[must_use]
    pub fn said(&self, what: impl std::fmt::Display) -> Failure {
        let tail = |path: &Path| {
            let text = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let from = text.lines().count().saturating_sub(5);
            text.lines().skip(from).collect::<Vec<_>>().join(" | ")
        };
        let (log, out) = (tail(&self.log), tail(&self.out));
        Failure::new(format_args!("{} {what}; it said: {log} {out}", self.name))
    }

    /// Its log: what it wrote to stderr.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// It, its descendants, and what it adopted.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let parents = parents();
        let mut pids = vec![self.child.id()];
        pids.extend(&self.others);
        let mut at = 0;
        while let Some(parent) = pids.get(at).copied() {
            let children = parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid);
            let new: Vec<u32> = children.filter(|pid| !pids.contains(pid)).collect();
            pids.extend(new);
            at += 1;
        }
        pids
    }

    /// Ends it at once, without a word: as a machine that lost its power would.
    pub fn kill(&mut self) {
        signal(&self.pids(), Signal::KILL);
        self.killed = self.child.wait().is_ok();
    }

    /// Ends it and its descendants, politely first.
    pub fn stop(&mut self) {
        if self.killed {
            return;
        }
        let mut pids = self.pids();
        signal(&pids, Signal::TERM);
        let clock = Clock::start();
        let mut own_left = true;
        while own_left || pids[1..].iter().any(|pid| is_alive(*pid)) {
            own_left = own_left && matches!(self.child.try_wait(), Ok(None));
            if clock.nanos() > nanos(STOP_TIMEOUT) {
                // What was started meanwhile goes too.
                pids.extend(self.pids());
                if !own_left {
                    pids.retain(|pid| *pid != self.child.id());
                }
                signal(&pids, Signal::KILL);
                break;
            }
            rest();
        }
        let _status = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets a little time pass.
fn rest() {
    std::thread::park_timeout(LOOK);
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
        let _gone_already = pid.map(|pid| kill_process(pid, signal));
    }
}

/// Whether a process that is no child of ours runs.
fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// Every process and its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?.parent))).collect()
}

struct Stat {
    state: char,
    parent: u32,
    /// User and system time in nanoseconds.
    cpu: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    Some(Stat {
        state: words.first()?.chars().next()?,
        parent: words.get(1)?.parse().ok()?,
        cpu: ticks * (SECOND / TICKS_PER_SECOND),
    })
}

/// What these processes used so far, and hold now.
#[must_use]
pub fn usage(pids: &[u32]) -> Usage {
    let cpu = |pid: &u32| thread_times(*pid).or_else(|| Some(stat(*pid)?.cpu)).unwrap_or(0);
    let cpu = pids.iter().map(cpu).sum();
    let rss = pids.iter().filter_map(|pid| resident(*pid)).sum();
    Usage { cpu, rss }
}

/// CPU time of all threads of a process, to the nanosecond.
fn thread_times(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        if let Ok(text) = fs::read_to_string(task.path().join("schedstat")) {
            sum += first_number(&text)?;
        }
    }
    // A kernel without these says 0 of a process that has run.
    (sum > 0).then_some(sum)
}

fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}
