//! Reading the processes' ledgers over HTTP, each from within its own network namespace.
//!
//! One thread per process enters its namespace and asks when told to. Of each life of each process
//! the last reading is kept.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clock, Micros};
use crate::net::Net;
use crate::servers::{Role, Server};

/// How long a process has to answer.
const PATIENCE: Duration = Duration::from_millis(800);

struct Ask {
    address: SocketAddr,
    path: &'static str,
    answer: oneshot::Sender<Result<Value, String>>,
}

/// What a ledger said, and when.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) at: Micros,
    pub(crate) ledger: Value,
}

/// Of each life of a process, by name and number, the last reading.
pub(crate) type Lives = BTreeMap<(String, u32), Reading>;

/// The readers and what they read.
pub(crate) struct Readings {
    readers: Vec<mpsc::Sender<Ask>>,
    clock: Clock,
    last: Mutex<Lives>,
    /// Why a process gave none, by its name; the newest reason.
    absent: Mutex<BTreeMap<String, String>>,
    taken: Mutex<u64>,
}

impl Readings {
    /// Starts a thread for each node.
    pub(crate) fn start(net: &Net, nodes: usize, clock: Clock) -> Arc<Self> {
        let readers = (0..nodes).map(|node| reader(net.space_file(node))).collect();
        let (last, absent, taken) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { readers, clock, last, absent, taken })
    }

    /// Asks a process for a path of its HTTP side.
    pub(crate) async fn ask(&self, server: &Server, path: &'static str) -> Result<Value, String> {
        let Some(address) = server.admin else {
            return Err("it has no admin port".into());
        };
        let (answer, answered) = oneshot::channel();
        let ask = Ask { address, path, answer };
        let gone = |_| "its reader is gone".to_string();
        self.readers[server.node].send(ask).await.map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))?
    }

    /// Reads one ledger and keeps it.
    pub(crate) async fn take(&self, server: &Server) {
        if server.role == Role::Played || server.pid().is_none() {
            return;
        }
        let (name, life) = (server.name(), server.life());
        let ledger = match self.ask(server, "/ledger").await {
            // A gateway without one has the same counters in its health.
            Err(why) if server.role == Role::Gateway => {
                let health = self.ask(server, "/healthz").await;
                health.and_then(|health| health.get("counters").cloned().ok_or(why))
            }
            read => read,
        };
        match ledger {
            Ok(ledger) => {
                let reading = Reading { at: self.clock.now(), ledger };
                *self.taken.lock().expect("no panic under the lock") += 1;
                self.last.lock().expect("no panic under the lock").insert((name, life), reading);
            }
            Err(why) => {
                self.absent.lock().expect("no panic under the lock").insert(name, why);
            }
        }
    }

    /// The last reading of each life.
    pub(crate) fn last(&self) -> Lives {
        self.last.lock().expect("no panic under the lock").clone()
    }

    /// How many readings there were.
    pub(crate) fn taken(&self) -> u64 {
        *self.taken.lock().expect("no panic under the lock")
    }

    /// Processes that never gave a ledger, and why.
    pub(crate) fn absent(&self) -> Vec<(String, String)> {
        let last = self.last();
        let absent = self.absent.lock().expect("no panic under the lock").clone();
        let never = |name: &String| !last.keys().any(|(known, _)| known == name);
        absent.into_iter().filter(|(name, _)| never(name)).collect()
    }
}

fn reader(space: Option<String>) -> mpsc::Sender<Ask> {
    let (asks, mut inbox) = mpsc::channel::<Ask>(16);
    std::thread::spawn(move || {
        let entered = space.map_or(Ok(()), |space| enter(&space));
        while let Some(Ask { address, path, answer }) = inbox.blocking_recv() {
            let read = entered.clone().and_then(|()| fetch(address, path));
            let _nobody_waits = answer.send(read);
        }
    });
    asks
}

/// Moves this thread into a network namespace.
fn enter(space: &str) -> Result<(), String> {
    let file = std::fs::File::open(space).map_err(|error| format!("{space}: {error}"))?;
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), kind).map_err(|error| format!("{space}: {error}"))
}

/// GET, and its answer as JSON, whatever its status.
fn fetch(address: SocketAddr, path: &str) -> Result<Value, String> {
    let failed = |error: std::io::Error| format!("http://{address}{path}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().unwrap_or_default();
    let json = body.find('{').zip(body.rfind('}')).and_then(|(from, to)| body.get(from..=to));
    json.and_then(|json| serde_json::from_str(json).ok())
        .ok_or_else(|| format!("http://{address}{path}: {status}, and no JSON"))
}
