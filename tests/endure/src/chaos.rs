//! `chaos`: a cluster of real processes under load, hurt again and again, then judged.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::clock::{Clock, Micros, SECOND, micros, seconds};
use crate::faults::{Fault, Kind, hurt};
use crate::judge::{Fates, Timeline, judge};
use crate::ledgers;
use crate::load::{Load, Probes, consume, has_reports, probe, produce};
use crate::net::Net;
use crate::readings::Readings;
use crate::record::{Record, Shared};
use crate::report::{Report, talk};
use crate::servers::{Server, Settings};
use crate::users::live;
use crate::world::{Device, Phase, World, devices};

/// What `chaos` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long faults are done.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The same in seconds, instead.
    #[arg(long)]
    seconds: Option<f64>,
    /// What load and faults follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 2)]
    brokers: usize,
    #[arg(long, default_value_t = 3)]
    gateways: usize,
    /// Users; half as many connections more.
    #[arg(long, default_value_t = 3_000)]
    users: usize,
    /// Publishes a second, over all producers.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Messages from users a second.
    #[arg(long, default_value_t = 30.0)]
    uplinks: f64,
    /// Stay out of network namespaces: no partitions. Without root this is so anyway.
    #[arg(long)]
    loopback: bool,
}

/// What all commands take.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// The `waybill` program. Default: the one beside this.
    #[arg(long, global = true, value_name = "PROGRAM")]
    waybill: Option<PathBuf>,
    /// Where the report goes as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where settings and logs go; they are kept then. Default: a folder that is removed if all
    /// is well.
    #[arg(long, global = true, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Log filter of the processes.
    #[arg(long, global = true, default_value = "info")]
    log: String,
}

impl Common {
    /// The program, and a folder for its files.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let beside = || {
            let exe = std::env::current_exe().map_err(|error| error.to_string())?;
            Ok::<PathBuf, String>(exe.with_file_name("waybill"))
        };
        let waybill = self.waybill.clone().map_or_else(beside, Ok)?;
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => std::env::temp_dir().join(format!("waybill-endure-{}", std::process::id())),
        };
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Settings::of(waybill, folder, self.log.clone())
    }

    /// Removes the folder after a good run, unless it was named.
    pub(crate) fn clean(&self, settings: &Settings, good: bool) {
        if good && self.folder.is_none() {
            let _left_behind = std::fs::remove_dir_all(&settings.folder);
        } else {
            talk(&format!("settings and logs: {}", settings.folder.display()));
        }
    }
}

/// Starts every process and waits until each takes connections.
pub(crate) async fn start_all(world: &World) -> Result<(), String> {
    for server in world.brokers.iter().chain(&world.gateways) {
        server.start(&world.net)?;
    }
    for server in world.brokers.iter().chain(&world.gateways) {
        let mut tries = 0;
        while tokio::net::TcpStream::connect(server.address).await.is_err() {
            tries += 1;
            if tries > 200 || server.ended().is_some() {
                let log = std::fs::read_to_string(server.log()).unwrap_or_default();
                return Err(format!("{} does not start: {log}", server.name()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// A world with its processes, none started.
pub(crate) fn world(
    settings: &Settings,
    net: Net,
    (brokers, gateways): (usize, usize),
    seed: u64,
) -> Result<World, String> {
    let clock = Clock::start();
    let broker = |index| settings.broker(&net, index, gateways);
    let brokers = (0..brokers).map(broker).collect::<Result<Vec<Server>, _>>()?;
    let gateway = |index| settings.gateway(&net, index, &brokers);
    let gateways = (0..gateways).map(gateway).collect::<Result<Vec<_>, _>>()?;
    let (shared, phase) = (Shared::new(clock), watch::Sender::new(Phase::Filling));
    let (others, pending) = (Vec::new(), AtomicU64::new(0));
    let (uplink_every, leave_every) = (0, 0);
    Ok(World {
        clock,
        shared,
        brokers,
        gateways,
        others,
        net,
        phase,
        seed,
        uplink_every,
        leave_every,
        pending,
        reports: AtomicBool::new(false),
    })
}

/// Runs it; whether all is well.
pub(crate) async fn run(args: &Args, common: &Common) -> Result<bool, String> {
    let settings = common.settings()?;
    let spaces = !args.loopback && rustix::process::geteuid().is_root();
    let net = Net::open(args.brokers + args.gateways, spaces)?;
    let mut world = world(&settings, net, (args.brokers, args.gateways), args.seed)?;
    let devices = devices(args.users, args.gateways, true);
    world.uplink_every = every(devices.len(), args.uplinks);
    world.leave_every = 200 * SECOND;
    let world = Arc::new(world);
    start_all(&world).await?;
    let mut tasks = JoinSet::new();
    let readings = Readings::start(&world.net, args.brokers + args.gateways, world.clock);
    let probes = Probes::default();
    start_load(&world, args, &probes, &mut tasks);
    let users = start_users(&world, &devices).await;
    talk(&format!("{} connections of {} users", devices.len(), args.users));
    sleep(Duration::from_secs(2)).await;
    world.reports.store(has_reports(&world).await, Ordering::Relaxed);
    world.phase.send_replace(Phase::Running);
    let sampler = sample(Arc::clone(&world), Arc::clone(&readings));
    let sampler = tokio::spawn(sampler);
    let length = args.seconds.unwrap_or(args.minutes * 60.0);
    let until = world.clock.now() + micros(Duration::from_secs_f64(length));
    sleep(Duration::from_secs(2)).await;
    let faults = hurt(Arc::clone(&world), until, Arc::clone(&probes)).await;
    sleep(Duration::from_secs(2)).await;
    settle(&world).await;
    sampler.abort();
    for server in world.servers() {
        readings.take(server).await;
    }
    let ended = world.clock.now();
    world.phase.send_replace(Phase::Over);
    let users = tokio::time::timeout(Duration::from_secs(20), users.join_all()).await;
    let mut failures: Vec<String> = Vec::new();
    if users.is_err() {
        failures.push("some users did not end".into());
    }
    while let Ok(Some(done)) =
        tokio::time::timeout(Duration::from_secs(10), tasks.join_next()).await
    {
        failures.extend(done.map_err(|error| error.to_string()).and_then(|done| done).err());
    }
    let good = conclude(&world, args, common, &devices, (&faults, ended), &readings, &failures)?;
    common.clean(&settings, good);
    Ok(good)
}

fn every(count: usize, rate: f64) -> Micros {
    if rate > 0.0 { micros(Duration::from_secs_f64(count as f64 / rate)) } else { 0 }
}

fn start_load(
    world: &Arc<World>,
    args: &Args,
    probes: &Probes,
    tasks: &mut JoinSet<Result<(), String>>,
) {
    const PRODUCERS: u16 = 4;
    for producer in 0..PRODUCERS {
        let rate = (args.rate / f64::from(PRODUCERS)).max(0.1);
        let load = Load { producer, rate, users: args.users, everyone: true };
        tasks.spawn(produce(Arc::clone(world), load));
    }
    for broker in 0..args.brokers {
        let every = (Duration::from_millis(150), 0);
        tasks.spawn(probe(Arc::clone(world), broker, every, Arc::clone(probes)));
    }
    tasks.spawn(consume(Arc::clone(world)));
}

/// Starts users at a pace that a small machine can stand, and waits until nearly all are ready.
pub(crate) async fn start_users(world: &Arc<World>, devices: &[Device]) -> JoinSet<()> {
    let mut users = JoinSet::new();
    for some in devices.chunks(50) {
        for device in some {
            users.spawn(live(Arc::clone(world), *device));
        }
        sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..300 {
        let ready = world
            .shared
            .with(|record| record.lives.iter().filter(|life| life.ready_at.is_some()).count());
        if ready >= devices.len() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    users
}

async fn sample(world: Arc<World>, readings: Arc<Readings>) {
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        // At once: one that stands still keeps only its own reader waiting.
        let all: Vec<_> = world.servers().map(|server| readings.take(server)).collect();
        futures_util::future::join_all(all).await;
    }
}

/// Nothing new; waits for outcomes and stragglers.
pub(crate) async fn settle(world: &World) {
    world.phase.send_replace(Phase::Settling);
    for _ in 0..700 {
        if world.pending.load(Ordering::Relaxed) == 0 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    // Answers to uplinks take up to their deadline.
    for _ in 0..120 {
        if !world.shared.with(|record| record.awaits_answers()) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_millis(1_500)).await;
}

fn conclude(
    world: &World,
    args: &Args,
    common: &Common,
    devices: &[Device],
    (faults, ended): (&[Fault], Micros),
    readings: &Readings,
    failures: &[String],
) -> Result<bool, String> {
    let mut record = world.shared.with(std::mem::take);
    let timeline = Timeline::of(faults);
    let mut fates = judge(&mut record, devices, &timeline);
    for failure in failures {
        fates.violations.add("a task of this program failed", || failure.clone());
    }
    for server in world.servers() {
        let log = std::fs::read_to_string(server.log()).unwrap_or_default();
        for line in log.lines().filter(|line| line.contains("panicked")) {
            fates.violations.add("a process panicked", || format!("{}: {line}", server.name()));
        }
        if let Some(status) = server.ended() {
            fates.violations.add("a process ended by itself", || {
                format!("{}: {status}; see {}", server.name(), server.log().display())
            });
        }
    }
    let mut report = Report::default();
    heading(&mut report, args, &record, world);
    tell_fates(&mut report, &fates);
    tell_faults(&mut report, faults, &timeline, ended);
    report.times("times", "reconnect, end to ready", &record.reconnects);
    for (name, why) in readings.absent() {
        report.row(&format!("no ledger of {name}"), why);
    }
    report.row("ledger readings", readings.taken());
    ledgers::check(world, &readings.last(), &record, &mut fates.violations, &mut report);
    tell_verdict(&mut report, &fates, args.seed);
    report.print();
    if let Some(file) = &common.json {
        let text = report.json().to_string();
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(fates.violations.total() == 0)
}

fn heading(report: &mut Report, args: &Args, record: &Record, world: &World) {
    report.heading("chaos");
    report.row("seed", args.seed);
    report.row(
        "brokers / gateways / users",
        format!("{} / {} / {}", args.brokers, args.gateways, args.users),
    );
    report.row("partitions", if world.net.can_part() { "yes" } else { "no: not in namespaces" });
    let reports = world.reports.load(Ordering::Relaxed);
    report.row("receipts", if reports { "delivered" } else { "routed: no others to be had" });
    report.row("publishes, probes among them", record.messages.len());
    report.row("connections", record.lives.len());
    report.value("seed", json!(args.seed));
    report.value("publishes", json!(record.messages.len()));
    report.value("connections", json!(record.lives.len()));
}

fn tell_fates(report: &mut Report, fates: &Fates) {
    report.heading("fates of (message, UID)");
    report.row("copies that reached connections", fates.arrivals);
    for (fate, count) in &fates.messages {
        report.row(fate, count);
    }
    report.heading("fates of uplinks");
    for (fate, count) in &fates.uplinks {
        report.row(fate, count);
    }
    report.value("messages", json!(fates.messages));
    report.value("uplinks", json!(fates.uplinks));
    report.value("arrivals", json!(fates.arrivals));
}

fn tell_faults(report: &mut Report, faults: &[Fault], timeline: &Timeline, ended: Micros) {
    report.heading("faults");
    let kills = faults.iter().filter(|fault| matches!(fault.kind, Kind::Kill { .. })).count();
    let stops = faults.iter().filter(|fault| matches!(fault.kind, Kind::Stop { .. })).count();
    report.row(
        "kills / stops / partitions",
        format!("{kills} / {stops} / {}", faults.len() - kills - stops),
    );
    report.row("time under a fault or its aftermath", seconds(timeline.total(ended)));
    report.row("time of the run", seconds(ended));
    let times = |of: &dyn Fn(&Kind) -> bool, what: &dyn Fn(&Fault) -> Vec<Micros>| {
        faults.iter().filter(|fault| of(&fault.kind)).flat_map(what).collect::<Vec<_>>()
    };
    let well = |fault: &Fault| fault.well_at.map(|well| well - fault.to).into_iter().collect();
    let detected = |fault: &Fault| fault.detected.clone();
    type Of = fn(&Kind) -> bool;
    let kinds: [(&str, Of); 3] = [
        ("kill", |kind| matches!(kind, Kind::Kill { .. })),
        ("stop", |kind| matches!(kind, Kind::Stop { .. })),
        ("partition", |kind| matches!(kind, Kind::Part { .. })),
    ];
    for (name, of) in kinds {
        report.times("times", &format!("{name}: its end to all well"), &times(&of, &well));
        let name = format!("{name}: to a broker saying offline");
        report.times("times", &name, &times(&of, &detected));
    }
    let all: Vec<_> = faults.iter().map(|fault| json!({
        "what": fault.words, "from_us": fault.from, "to_us": fault.to, "well_us": fault.well_at,
        "detected_after_us": fault.detected,
    })).collect();
    report.value("faults", json!(all));
}

fn tell_verdict(report: &mut Report, fates: &Fates, seed: u64) {
    report.heading("verdict");
    for what in ["wrong recipient", "duplicate"] {
        let count = fates.violations.counts.get(what).copied().unwrap_or_default();
        report.row(what, count);
    }
    for (what, count) in &fates.violations.counts {
        report.row(&format!("VIOLATED: {what}"), count);
        let kept = fates.violations.kept.iter().filter(|kept| kept.what == *what);
        for kept in kept.take(5) {
            report.row("", format!("seed {seed}: {}", kept.details));
        }
    }
    let total = fates.violations.total();
    report.row("verdict", if total == 0 { "clean".into() } else { format!("{total} violations") });
    report.value("violations", json!(fates.violations.counts));
    let kept = fates.violations.kept.iter();
    let kept: Vec<_> =
        kept.map(|kept| json!({ "what": kept.what, "details": kept.details })).collect();
    report.value("violation_details", json!(kept));
    report.value("clean", json!(total == 0));
}
