//! The processes: started with settings of their own, killed, stopped, continued, started again.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::net::Net;

/// The secret that login tokens are signed with.
pub(crate) const SECRET: &str = "thirty-two bytes of secret, or more";

/// The credential of everybody at the brokers.
pub(crate) const TOKEN: &str = "endure-endure-endure-endure";

const BROKER_PORT: u16 = 7711;
const GATEWAY_PORT: u16 = 7712;
const ADMIN_PORT: u16 = 7713;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Broker,
    Gateway,
    /// A gateway that this program plays.
    Played,
}

/// One process and its lives.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) role: Role,
    /// Number among those of its role.
    pub(crate) index: usize,
    pub(crate) node: usize,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// Where its ledger is, seen from its own node.
    pub(crate) admin: Option<SocketAddr>,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    life: AtomicU32,
    child: Mutex<Option<Child>>,
}

/// What all processes of a run have in common.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The `waybill` program.
    pub(crate) waybill: PathBuf,
    /// Where settings and logs go.
    pub(crate) folder: PathBuf,
    /// Whether this program's brokers have an admin port.
    pub(crate) has_admin: bool,
    /// Keepalive of the brokers, in milliseconds.
    pub(crate) keepalive_ms: u32,
    /// Log filter of the processes.
    pub(crate) log: String,
}

impl Settings {
    /// Asks the program what it knows.
    pub(crate) fn of(waybill: PathBuf, folder: PathBuf, log: String) -> Result<Self, String> {
        let output = Command::new(&waybill).args(["config", "defaults"]).output();
        let output = output.map_err(|error| format!("{}: {error}", waybill.display()))?;
        let known = String::from_utf8_lossy(&output.stdout).into_owned();
        let has_admin = known.contains("admin_listen");
        Ok(Self { waybill, folder, has_admin, keepalive_ms: 1_000, log })
    }

    /// A broker, not started.
    pub(crate) fn broker(
        &self,
        net: &Net,
        index: usize,
        gateways: usize,
    ) -> Result<Server, String> {
        let address = SocketAddr::new(net.address(index), BROKER_PORT);
        let admin = self.has_admin.then(|| {
            let host = if net.can_part() { [127, 0, 0, 1].into() } else { net.address(index) };
            SocketAddr::new(host, ADMIN_PORT)
        });
        let mut text = format!(
            "[broker]\nlisten = \"{address}\"\nkeepalive_ms = {}\n\
             tokens = [{{ name = \"endure\", token = \"{TOKEN}\" }}]\n",
            self.keepalive_ms
        );
        if let Some(admin) = admin {
            text += &format!("admin_listen = \"{admin}\"\n");
        }
        // How many there will be is left unknown: the quiet time has to do it.
        let _ = gateways;
        self.server(Role::Broker, index, index, (address, admin), &text)
    }

    /// A gateway, not started, that links to all brokers.
    pub(crate) fn gateway(
        &self,
        net: &Net,
        index: usize,
        brokers: &[Server],
    ) -> Result<Server, String> {
        let node = brokers.len() + index;
        let address = SocketAddr::new(net.address(node), GATEWAY_PORT);
        let list: Vec<String> = brokers.iter().map(|b| format!("\"{}\"", b.address)).collect();
        let text = format!(
            "[gateway]\nlisten = \"{address}\"\n[gateway.broker]\naddresses = [{}]\n\
             token = \"{TOKEN}\"\n[gateway.jwt]\nsecret = \"{SECRET}\"\n",
            list.join(", ")
        );
        self.server(Role::Gateway, index, node, (address, Some(address)), &text)
    }

    /// A gateway that this program plays in a process of its own.
    pub(crate) fn played(
        &self,
        net: &Net,
        node: usize,
        users: u64,
        brokers: &[Server],
    ) -> Result<Server, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut arguments = vec!["played".into(), "--users".into(), users.to_string()];
        for broker in brokers {
            arguments.extend(["--broker".into(), broker.address.to_string()]);
        }
        let address = SocketAddr::new(net.address(node), 0);
        let log = self.folder.join("played.log");
        let (life, child) = (AtomicU32::new(0), Mutex::new(None));
        let role = Role::Played;
        Ok(Server {
            role,
            index: 0,
            node,
            address,
            admin: None,
            program,
            arguments,
            log,
            life,
            child,
        })
    }

    fn server(
        &self,
        role: Role,
        index: usize,
        node: usize,
        (address, admin): (SocketAddr, Option<SocketAddr>),
        text: &str,
    ) -> Result<Server, String> {
        let word = if role == Role::Broker { "broker" } else { "gateway" };
        let config = self.folder.join(format!("{word}{index}.toml"));
        let text = format!("{text}[log]\nlevel = \"{}\"\nformat = \"text\"\n", self.log);
        std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let config = config.to_string_lossy().into_owned();
        let arguments = vec![word.into(), "--json".into(), "--config".into(), config];
        let log = self.folder.join(format!("{word}{index}.log"));
        let (life, child) = (AtomicU32::new(0), Mutex::new(None));
        let program = self.waybill.clone();
        Ok(Server { role, index, node, address, admin, program, arguments, log, life, child })
    }
}

impl Server {
    /// As people call it.
    pub(crate) fn name(&self) -> String {
        match self.role {
            Role::Broker => format!("broker {}", self.index),
            Role::Gateway => format!("gateway {}", self.index),
            Role::Played => "the large gateway".into(),
        }
    }

    /// Which of its lives this is: 1 for the first.
    pub(crate) fn life(&self) -> u32 {
        self.life.load(Ordering::Relaxed)
    }

    /// Its log.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts a life.
    pub(crate) fn start(&self, net: &Net) -> Result<(), String> {
        let open = |path: &Path| -> Result<File, String> {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map_err(|error| format!("{}: {error}", path.display()))
        };
        let log = open(&self.log)?;
        let mut command = net.command(self.node, &self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WAYBILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).stdin(Stdio::null()).stderr(log);
        command.stdout(open(&self.log.with_extension("out"))?);
        let started = command.spawn().map_err(|error| format!("{}: {error}", self.name()))?;
        self.life.fetch_add(1, Ordering::Relaxed);
        *self.child.lock().expect("no panic under the lock") = Some(started);
        Ok(())
    }

    /// Its process id, while it lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.lock().expect("no panic under the lock").as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            let _gone_already = kill_process(pid, signal);
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&self) {
        let child = self.child.lock().expect("no panic under the lock").take();
        if let Some(mut child) = child {
            let _gone_already = child.kill();
            let _status = child.wait();
        }
    }

    /// SIGSTOP.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it ended by itself; its status then.
    pub(crate) fn ended(&self) -> Option<String> {
        let mut child = self.child.lock().expect("no panic under the lock");
        let status = child.as_mut()?.try_wait().ok().flatten()?;
        child.take();
        Some(status.to_string())
    }

    /// Resident memory in bytes, while it lives.
    pub(crate) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes << 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
