//! The ceiling: a server that forwards the producer's frames by a fixed rule, with no table.
//!
//! It does what any broker must do at the least: read, find out which gateway each frame is for,
//! copy it there, write. A message for one UID goes on as it came; a list is split; everyone gets
//! a copy each. There are two backends, so that the ceiling is not that of one system interface.
//! Never: routes, receipts, bounds against bad input. It serves one bench and ends with it.

mod driver;
mod epoll;
mod frame;
pub mod hello;
mod links;
#[cfg(target_os = "linux")]
mod ring;
mod split;
#[cfg(target_os = "linux")]
mod uring;

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use waybill_wire::planted::Fault;

use crate::process::Place;
use crate::targets::{Plan, Running, Skipped, Target};
use driver::RelayDriver;
use links::Links;
use split::Split;

/// Bytes one read may bring, as many as to the broker.
const READ_BYTES: usize = 512 * 1024;

/// While more than this waits for one gateway, the producer is not read.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Gateways one relay can serve: their numbers fit a byte.
pub const GATEWAYS_MAX: usize = 256;

/// The system interface that the relay waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Readiness: mio over epoll.
    Epoll,
    /// Completion: io_uring.
    Uring,
}

/// How a relay runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The system interface.
    #[arg(long, value_enum, default_value = "epoll")]
    pub backend: Backend,
    /// Gateways that will connect, 1 to 256.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub gateways: u16,
    /// A fault to commit: drop:N, twice:N or wrong:N, with every N-th message.
    #[arg(long, env = "WAYBILL_PLANTED")]
    pub fault: Option<Fault>,
}

/// Serves one producer and its gateways until one of them leaves. `said` gets the line
/// `listening ADDRESS` when connections are taken.
///
/// # Errors
/// What the system says of the listener, the ring or a connection; a hello that is none.
pub fn run(options: &Options, said: &mut dyn io::Write) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    writeln!(said, "listening {}", listener.local_addr()?)?;
    said.flush()?;
    let links = Links::accept(&listener, options.gateways.into())?;
    let split = Split::new(options.gateways.into(), options.fault);
    match options.backend {
        Backend::Epoll => epoll::run(links, split),
        #[cfg(target_os = "linux")]
        Backend::Uring => uring::run(&links, split),
        #[cfg(not(target_os = "linux"))]
        Backend::Uring => Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring is Linux's")),
    }
}

/// The relay on each backend.
#[must_use]
pub fn targets() -> Vec<Target> {
    let mut targets = vec![Target {
        name: "relay-epoll",
        driven: "frames of Waybill, forwarded by uid % gateways with no table, on epoll",
        routes: false,
        start: |plan, place| start(Backend::Epoll, plan, place),
    }];
    if cfg!(target_os = "linux") {
        targets.push(Target {
            name: "relay-uring",
            driven: "frames of Waybill, forwarded by uid % gateways with no table, on io_uring",
            routes: false,
            start: |plan, place| start(Backend::Uring, plan, place),
        });
    }
    targets
}

fn start(backend: Backend, plan: &Plan<'_>, place: &Place) -> Result<Running, Skipped> {
    let work = plan.work;
    let name = match backend {
        Backend::Epoll => "epoll",
        Backend::Uring => "uring",
    };
    #[cfg(target_os = "linux")]
    if backend == Backend::Uring {
        let absent = |error| Skipped::absent(format_args!("no io_uring here: {error}"));
        ring::probe().map_err(absent)?;
    }
    let mut command = place.command(std::env::current_exe()?);
    command.args(["relay", "--backend", name, "--gateways", &work.gateways.to_string()]);
    let mut server = place.start("relay", command)?;
    let listening = |line: &str| line.strip_prefix("listening ")?.parse().ok();
    let address = server.wait_for_line(listening)?;
    Ok(Running {
        driver: Box::new(RelayDriver::new(address, work.gateways, work.users)),
        servers: vec![server],
        versions: Vec::new(),
        window: None,
        notes: Vec::new(),
    })
}
