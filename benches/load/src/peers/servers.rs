//! Starts the servers of peers: configured for this work, on free ports of loopback, in the folder
//! of their place.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::process::{Place, Server, find};
use crate::targets::{Pending, Skipped};

/// Bytes a server may keep for one connection that reads slowly, where that is raised: beyond, it
/// cuts it off. Both NATS (64 MiB) and Redis (32 MiB) have less by default.
const PENDING_BYTES_MAX: u64 = 256 << 20;

/// Servers that listen.
pub(super) struct Started {
    pub(super) address: SocketAddr,
    pub(super) servers: Vec<Server>,
    pub(super) versions: Vec<(String, String)>,
}

/// How many subjects messages go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subjects {
    /// One for each user.
    Many,
    /// One for each gateway.
    Few,
}

fn program(name: &str, how_to_get: &str) -> Result<PathBuf, Skipped> {
    find(name).ok_or_else(|| {
        Skipped::absent(format_args!("{name} is not on PATH; to get it: {how_to_get}"))
    })
}

/// The word of a `--version` that `found` picks.
fn version(program: &PathBuf, found: impl Fn(&str) -> Option<&str>) -> Result<String, Failure> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.split_ascii_whitespace().find_map(found);
    version
        .map(String::from)
        .ok_or_else(|| Failure::new(format_args!("{} --version says {said:?}", program.display())))
}

/// Redis without persistence. One thread: more are advised from four cores on (`redis.conf`,
/// THREADED I/O).
pub(super) fn redis(place: &Place, pending: Pending) -> Result<Started, Skipped> {
    let program = program("redis-server", "apt-get install redis-server")?;
    let version = version(&program, |word| word.strip_prefix("v="))?;
    let address = place.free_address()?;
    let mut command = place.command(program);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
    if pending == Pending::Raised {
        let limit = format!("pubsub {PENDING_BYTES_MAX} 0 0");
        command.args(["--client-output-buffer-limit", &limit]);
    }
    let mut server = place.start("redis-server", command)?;
    server.wait_for(address)?;
    let versions = vec![("redis".into(), version)];
    Ok(Started { address, servers: vec![server], versions })
}

/// NATS without persistence. With a subject for each user its cache of subjects is off: its
/// documentation says that this "saves resources in situations where different subjects are used
/// all the time" (<https://docs.nats.io/reference/2.14/config/disable_sublist_cache>).
pub(super) fn nats(
    place: &Place,
    subjects: Subjects,
    pending: Pending,
) -> Result<Started, Skipped> {
    let how = "go install github.com/nats-io/nats-server/v2@latest";
    let program = program("nats-server", how)?;
    let version = version(&program, |word| word.strip_prefix('v'))?;
    let address = place.free_address()?;
    let config = place.folder().join("nats.conf");
    let uncached = subjects == Subjects::Many;
    let limit = match pending {
        Pending::Raised => format!("max_pending: {PENDING_BYTES_MAX}\n"),
        Pending::Shipped => String::new(),
    };
    let text = format!(
        "listen: \"{address}\"\n{limit}max_payload: 8MB\ndisable_sublist_cache: {uncached}\n"
    );
    fs::write(&config, text)?;
    let mut command = place.command(program);
    command.arg("-c").arg(config);
    let mut server = place.start("nats-server", command)?;
    server.wait_for(address)?;
    let versions = vec![("nats".into(), version)];
    Ok(Started { address, servers: vec![server], versions })
}

/// Larger buffers of sockets are what RabbitMQ's documentation names for throughput
/// (<https://www.rabbitmq.com/docs/networking#tuning-for-throughput>). Its log goes to stdout,
/// where the version is read.
fn rabbitmq_config(address: SocketAddr) -> String {
    format!(
        "listeners.tcp.1 = {address}\n\
         tcp_listen_options.nodelay = true\n\
         tcp_listen_options.sndbuf = 196608\n\
         tcp_listen_options.recbuf = 196608\n\
         heartbeat = 0\n\
         vm_memory_high_watermark.absolute = 8GB\n\
         disk_free_limit.absolute = 1MB\n\
         log.file = false\n\
         log.console = true\n\
         log.console.level = error\n"
    )
}

/// RabbitMQ without plugins, and the port mapper of Erlang that it does not start without.
pub(super) fn rabbitmq(place: &Place) -> Result<Started, Skipped> {
    let how = "apt-get install rabbitmq-server";
    // The one on PATH changes to a system user first; the one behind it does not.
    let program = PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
    let program = if program.is_file() { program } else { self::program("rabbitmq-server", how)? };
    let epmd = self::program("epmd", how)?;
    let (address, mapper) = (place.free_address()?, place.free_address()?);
    let distribution = place.free_address()?;
    let folder = place.folder();
    fs::write(folder.join("rabbitmq.conf"), rabbitmq_config(address))?;
    fs::write(folder.join("enabled_plugins"), "[].")?;

    let mut command = place.command(epmd);
    command.args(["-address", "127.0.0.1", "-port", &mapper.port().to_string()]);
    let mut epmd = place.start("epmd", command)?;
    epmd.wait_for(mapper)?;

    let mut command = place.command(program);
    let paths = [
        ("HOME", ""),
        ("RABBITMQ_MNESIA_BASE", "mnesia"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ("RABBITMQ_PID_FILE", "pid"),
    ];
    command.envs(paths.map(|(name, path)| (name, folder.join(path))));
    command.envs([
        // The script becomes the server instead of waiting for it.
        ("RUNNING_UNDER_SYSTEMD", "1"),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null"),
        ("RABBITMQ_NODENAME", "bench@localhost"),
        ("RABBITMQ_DIST_PORT", &distribution.port().to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1"),
        ("ERL_EPMD_PORT", &mapper.port().to_string()),
    ]);
    let arguments = "-kernel inet_dist_use_interface {127,0,0,1}";
    command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments);
    let mut server = place.start("rabbitmq-server", command)?;
    server.wait_for(address)?;
    let said = |server: &mut Server, before: &str| {
        server.wait_for_line(|line| {
            let (_, after) = line.split_once(before)?;
            after.split_ascii_whitespace().next().map(String::from)
        })
    };
    let versions = vec![
        ("rabbitmq".into(), said(&mut server, "RabbitMQ ")?),
        ("erlang".into(), said(&mut server, "Erlang: ")?),
    ];
    // The one started first is ended last.
    Ok(Started { address, servers: vec![server, epmd], versions })
}
