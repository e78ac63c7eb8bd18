//! Running the program: once to its end, or in the background while lines of it are awaited.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take before a test fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A place for one test: its own runtime file and settings, nothing of the caller's environment.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its arguments, for the message of a failed test.
    #[expect(dead_code, reason = "shown by Debug")]
    arguments: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Writes a file; its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    pub(crate) fn runtime_file(&self) -> PathBuf {
        self.directory.path().join("up.json")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_by(&[], arguments)
    }

    /// As the arguments of another command.
    fn command_by(&self, other: &[&str], arguments: &[&str]) -> Command {
        let waybill = env!("CARGO_BIN_EXE_waybill");
        let mut command = match other {
            [] => Command::new(waybill),
            [other, before @ ..] => {
                let mut command = Command::new(other);
                command.args(before).arg(waybill);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WAYBILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.env("WAYBILL_RUNTIME", self.runtime_file());
        if arguments.first() == Some(&"broker") {
            // A test knows whom it started; its broker need not wait for others.
            command.env("WAYBILL_BROKER__READY_QUIET_MS", "0");
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, b"")
    }

    /// Runs it to its end with this on stdin.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Ended {
        let mut running = self.start(arguments);
        let mut input = running.child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        // It may end without reading all of it.
        let writer = std::thread::spawn(move || input.write_all(&stdin));
        let ended = running.end();
        let _broken_pipe = writer.join().unwrap();
        ended
    }

    /// Starts it in the background.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.start_by(&[], arguments)
    }

    /// Starts it in the background as the arguments of another command.
    pub(crate) fn start_by(&self, other: &[&str], arguments: &[&str]) -> Running {
        let mut child = self.command_by(other, arguments).spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Running { child, stdout, stderr, name: arguments.join(" ") }
    }

    /// Starts it with nobody to read its stdout; its exit code and stderr.
    pub(crate) fn run_unread(&self, arguments: &[&str]) -> Ended {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = self.command(arguments);
        let mut child = command.stdout(writer).stdin(Stdio::null()).spawn().unwrap();
        drop(command);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let code = child.wait().unwrap().code();
        Ended { arguments: arguments.join(" "), code, stdout: String::new(), stderr }
    }

    /// A running `waybill up` on free ports, ready.
    pub(crate) fn up(&self) -> Running {
        self.up_with(&[])
    }

    /// A server of this role, alone, on a free port; and the port.
    pub(crate) fn serve(&self, role: &str, more: &[&str]) -> (Running, SocketAddr) {
        let running = self.start(&[&[role, "--json", "--listen", "127.0.0.1:0"], more].concat());
        let address = running.json()[role].as_str().unwrap().parse().unwrap();
        (running, address)
    }

    pub(crate) fn up_with(&self, more: &[&str]) -> Running {
        let ports = ["up", "--json", "--listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0"];
        self.start(&[&ports, more].concat())
    }
}

/// A run in the background; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    name: String,
}

/// Lines of a pipe as they come. All are kept: a test that does not look must not block the
/// program.
#[derive(Clone, Default)]
struct Lines {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<String>,
    ended: bool,
}

/// What waiting for a line came to.
enum Next {
    Line(String),
    Ended,
    TimeIsUp,
}

fn lines(pipe: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let writer = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            writer.change(|waiting| waiting.lines.push_back(line));
        }
        writer.change(|waiting| waiting.ended = true);
    });
    lines
}

impl Lines {
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let (waiting, changed) = &*self.shared;
        change(&mut waiting.lock().unwrap());
        changed.notify_all();
    }

    fn next(&self, deadline: Instant) -> Next {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock().unwrap();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                return Next::Line(line);
            }
            if waiting.ended {
                return Next::Ended;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::TimeIsUp;
            }
            (waiting, _) = changed.wait_timeout(waiting, left).unwrap();
        }
    }
}

impl Running {
    /// The next line of stdout.
    pub(crate) fn line(&self) -> String {
        match self.stdout.next(Instant::now() + PATIENCE) {
            Next::Line(line) => line,
            _ => panic!("{}: no line; stderr: {}", self.name, self.rest(&self.stderr).1),
        }
    }

    /// The next line of stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// Waits for a line of stderr that has these words; the line.
    pub(crate) fn says(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.stderr.next(deadline) {
                Next::Line(line) if line.contains(words) => return line,
                Next::Line(_) => {}
                Next::Ended | Next::TimeIsUp => panic!("{} never says {words:?}", self.name),
            }
        }
    }

    /// All lines up to the end, and whether that came in time.
    fn rest(&self, lines: &Lines) -> (bool, String) {
        let (deadline, mut text) = (Instant::now() + PATIENCE, String::new());
        loop {
            match lines.next(deadline) {
                Next::Line(line) => text.extend([line.as_str(), "\n"]),
                Next::Ended => return (true, text),
                Next::TimeIsUp => return (false, text),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Writes to its stdin, which stays open until the end is awaited.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for its end; what it printed since.
    pub(crate) fn end(&mut self) -> Ended {
        drop(self.child.stdin.take());
        // Its outputs close when it ends.
        let (stdout_ended, stdout) = self.rest(&self.stdout);
        let (stderr_ended, stderr) = self.rest(&self.stderr);
        assert!(stdout_ended && stderr_ended, "{} does not end: {stdout}{stderr}", self.name);
        let status: ExitStatus = self.child.wait().unwrap();
        Ended { arguments: self.name.clone(), code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Ended {
    /// Fails unless it ended with this code and said all of this on stderr.
    #[track_caller]
    pub(crate) fn check(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
    }

    /// Its stdout, one JSON value a line.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        self.stdout.lines().map(parse).collect()
    }
}
