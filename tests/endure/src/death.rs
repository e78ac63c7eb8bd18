//! `death`: a gateway with 100,000 users dies and returns, stands still, is cut off; and what the
//! other gateways' users notice of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::chaos::{Common, settle, start_all, start_users, world};
use crate::clock::{Micros, SECOND, millis_since_1970};
use crate::judge::{Timeline, judge};
use crate::load::{Load, Probes, Told, consume, has_reports, probe, produce};
use crate::net::{End, Net, Way};
use crate::readings::Readings;
use crate::record::{Record, To};
use crate::report::{Report, talk};
use crate::servers::Server;
use crate::world::{Phase, World, devices};

/// What `death` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Users of the gateway that dies.
    #[arg(long, default_value_t = 100_000)]
    users: u64,
    /// Users on WebSockets at two other gateways.
    #[arg(long, default_value_t = 4_000)]
    others: usize,
    /// Publishes a second to those others.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds from the death to the return: longer than the resume window of 10 s.
    #[arg(long, default_value_t = 20)]
    dead: u64,
    /// Stay out of network namespaces: no cut. Without root this is so anyway.
    #[arg(long)]
    loopback: bool,
}

const BROKERS: usize = 2;
const GATEWAYS: usize = 2;

/// What was done to the large gateway, and when.
struct Act {
    name: &'static str,
    from: Micros,
    /// When it could come back.
    to: Micros,
    /// Milliseconds since 1970 at `from`.
    at: u64,
    /// Memory of the brokers before, at the end of the act, and well afterwards, in bytes.
    memory: [Vec<u64>; 3],
    /// `routes` of the brokers' health, over time.
    routes: Vec<(Micros, usize, u64)>,
}

/// Runs it; whether all is well.
pub(crate) async fn run(args: &Args, common: &Common) -> Result<bool, String> {
    let settings = common.settings()?;
    let spaces = !args.loopback && rustix::process::geteuid().is_root();
    let node = BROKERS + GATEWAYS;
    let net = Net::open(node + 1, spaces)?;
    let mut world = world(&settings, net, (BROKERS, GATEWAYS), args.seed)?;
    let large = settings.played(&world.net, node, args.users, &world.brokers)?;
    world.others.push(large);
    let devices = devices(args.others, GATEWAYS, false);
    let world = Arc::new(world);
    start_all(&world).await?;
    let readings = Readings::start(&world.net, node + 1, world.clock);
    let probes = Probes::default();
    let mut tasks = JoinSet::new();
    let users = start_users(&world, &devices).await;
    let empty = memory(&world);
    world.others[0].start(&world.net)?;
    for producer in 0..4 {
        let load = Load { producer, rate: args.rate / 4.0, users: args.others, everyone: false };
        tasks.spawn(produce(Arc::clone(&world), load));
    }
    for broker in 0..BROKERS {
        let every = (Duration::from_millis(50), args.users);
        tasks.spawn(probe(Arc::clone(&world), broker, every, Arc::clone(&probes)));
    }
    tasks.spawn(consume(Arc::clone(&world)));
    sleep(Duration::from_secs(8)).await;
    world.reports.store(has_reports(&world).await, Ordering::Relaxed);
    talk("the large gateway is there; the load begins");
    world.phase.send_replace(Phase::Running);
    sleep(Duration::from_secs(10)).await;
    let acts = perform(&world, args, &readings).await?;
    settle(&world).await;
    world.phase.send_replace(Phase::Over);
    let _ended = tokio::time::timeout(Duration::from_secs(20), users.join_all()).await;
    let _ended = tokio::time::timeout(Duration::from_secs(10), tasks.join_all()).await;
    let mut record = world.shared.with(std::mem::take);
    // Nothing was done to the others: nothing is excused.
    let fates = judge(&mut record, &devices, &Timeline::default());
    let mut report = Report::default();
    report.heading("death");
    report.row("users of the large gateway / others", format!("{} / {}", args.users, args.others));
    report.row("memory of the brokers without it", bytes(&empty));
    for act in &acts {
        tell(&mut report, &world, act, &probes);
    }
    latencies(&mut report, &record, &acts);
    report.heading("the others");
    for (fate, count) in &fates.messages {
        report.row(fate, count);
    }
    for (what, count) in &fates.violations.counts {
        report.row(&format!("VIOLATED: {what}"), count);
        for kept in fates.violations.kept.iter().filter(|kept| kept.what == *what).take(5) {
            report.row("", &kept.details);
        }
    }
    let good = fates.violations.total() == 0;
    report.row("verdict", if good { "clean: they noticed nothing" } else { "violated" });
    report.value("messages", json!(fates.messages));
    report.value("violations", json!(fates.violations.counts));
    report.print();
    if let Some(file) = &common.json {
        let text = report.json().to_string();
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    common.clean(&settings, good);
    Ok(good)
}

fn memory(world: &World) -> Vec<u64> {
    world.brokers.iter().filter_map(Server::memory).collect()
}

/// Kills it and lets it return; stops it; cuts it off; resets its connections.
async fn perform(world: &World, args: &Args, readings: &Readings) -> Result<Vec<Act>, String> {
    let large = &world.others[0];
    let dead = Duration::from_secs(args.dead);
    let mut acts = Vec::new();
    let killed = || {
        large.kill();
        Ok(())
    };
    acts.push(act(world, readings, ("kill -9", dead), killed, || large.start(&world.net)).await?);
    let stopped = || {
        large.stop();
        Ok(())
    };
    let goes_on = || {
        large.go_on();
        Ok(())
    };
    let still = ("SIGSTOP for 6 s", Duration::from_secs(6));
    acts.push(act(world, readings, still, stopped, goes_on).await?);
    if world.net.can_part() {
        let join = || world.net.join(large.node);
        let cut = || {
            let part =
                |broker: &Server| world.net.part(large.node, End::Node(broker.node), Way::Both);
            world.brokers.iter().try_for_each(part)
        };
        let apart = ("network cut for 6 s", Duration::from_secs(6));
        acts.push(act(world, readings, apart, cut, join).await?);
        let reset =
            || world.brokers.iter().try_for_each(|broker| world.net.reset(large.node, broker.node));
        let short = ("connections reset for 1 s", Duration::from_secs(1));
        acts.push(act(world, readings, short, reset, join).await?);
    }
    Ok(acts)
}

/// Does one thing, undoes it after a while, and looks on before and after.
async fn act(
    world: &World,
    readings: &Readings,
    (name, time): (&'static str, Duration),
    hurt: impl FnOnce() -> Result<(), String>,
    mend: impl FnOnce() -> Result<(), String>,
) -> Result<Act, String> {
    let mut act = begin(world, name);
    hurt()?;
    watch(world, readings, time, &mut act.routes).await;
    act.to = world.clock.now();
    act.memory[1] = memory(world);
    mend()?;
    watch(world, readings, Duration::from_secs(12), &mut act.routes).await;
    act.memory[2] = memory(world);
    Ok(act)
}

fn begin(world: &World, name: &'static str) -> Act {
    talk(name);
    let memory = [memory(world), Vec::new(), Vec::new()];
    let (from, at) = (world.clock.now(), millis_since_1970());
    Act { name, from, to: 0, at, memory, routes: Vec::new() }
}

/// Reads how many routes the brokers hold, ten times a second.
async fn watch(
    world: &World,
    readings: &Readings,
    time: Duration,
    routes: &mut Vec<(Micros, usize, u64)>,
) {
    let until = world.clock.now() + u64::try_from(time.as_micros()).unwrap_or(0);
    while world.clock.now() < until {
        for broker in &world.brokers {
            let health = readings.ask(broker, "/healthz").await.unwrap_or(Value::Null);
            if let Some(count) = health["routes"].as_u64() {
                routes.push((world.clock.now(), broker.index, count));
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// How long each state lasted, as seen by each broker's probes and told by the gateway itself.
fn tell(report: &mut Report, world: &World, act: &Act, probes: &Probes) {
    report.heading(act.name);
    let probes = probes.lock().expect("no panic under the lock");
    let ms = |micros: Option<u64>| match micros {
        Some(micros) => format!("{:.0} ms", micros as f64 / 1e3),
        None => "never".into(),
    };
    let until = act.to + 12 * SECOND;
    let mut values = Vec::new();
    for broker in 0..BROKERS {
        let of_large = || {
            probes.iter().filter(move |probe| {
                (probe.broker, probe.gateway) == (broker, GATEWAYS)
                    && (act.from..until).contains(&probe.asked_at)
            })
        };
        let gone = of_large().find(|probe| probe.told == Told::Offline);
        let gone = gone.map(|probe| probe.answered_at - act.from);
        let back = of_large().find(|p| p.asked_at >= act.to && p.told == Told::Sent);
        let back = back.map(|probe| probe.answered_at - act.to);
        report.row(&format!("broker {broker}: to the first offline"), ms(gone));
        report.row(&format!("broker {broker}: from its return to the first sent"), ms(back));
        let falls = act.routes.iter().filter(|(_, of, _)| *of == broker);
        let before = falls.clone().next().map_or(0, |(_, _, count)| *count);
        let dead = falls.clone().find(|(_, _, count)| *count < before).map(|(at, ..)| *at);
        let swept = falls.min_by_key(|(at, _, count)| (*count, *at)).map(|(at, ..)| *at);
        if dead.is_some() {
            let dead = dead.map(|at| at.saturating_sub(act.from));
            report.row(&format!("broker {broker}: to the first route swept"), ms(dead));
            let swept = swept.map(|at| at.saturating_sub(act.from));
            report.row(&format!("broker {broker}: to the last route swept"), ms(swept));
        }
        values.push(json!({ "offline_after_us": gone, "sent_after_us": back }));
    }
    report.value(act.name, json!(values));
    for (name, memory) in ["before", "at its end", "afterwards"].iter().zip(&act.memory) {
        report.row(&format!("memory of the brokers {name}"), bytes(memory));
    }
    told_by_itself(report, world, act);
}

/// What the large gateway said on stdout during the act.
fn told_by_itself(report: &mut Report, world: &World, act: &Act) {
    let file = world.others[0].log().with_extension("out");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let until = act.at + (act.to - act.from) / 1000 + 12_000;
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let at = line["at"].as_u64().unwrap_or_default();
        if !(act.at..until).contains(&at) {
            continue;
        }
        let after = (at - act.at) as i64 - ((act.to - act.from) / 1000) as i64;
        let event = line["event"].as_str().unwrap_or_default();
        let more = if event == "up" { String::new() } else { line["more"].to_string() };
        let name = format!("itself, link to broker {}: {event}", line["broker"]);
        report.row(&name, format!("{after} ms after its return {more}"));
    }
}

fn bytes(all: &[u64]) -> String {
    let all: Vec<String> =
        all.iter().map(|bytes| format!("{:.1} MiB", *bytes as f64 / f64::from(1 << 20))).collect();
    all.join(", ")
}

/// From publish to arrival, for the others: before, during and after each act.
fn latencies(report: &mut Report, record: &Record, acts: &[Act]) {
    report.heading("latency of the others");
    let within = |from: Micros, to: Micros| {
        let sent = record.messages.iter().filter(|message| {
            (from..to).contains(&message.sent_at)
                && message.producer < 1000
                && matches!(message.to, To::Uids(_))
        });
        let late = sent.flat_map(|message| {
            message.arrivals.iter().map(|arrival| arrival.at.saturating_sub(message.sent_at))
        });
        late.collect::<Vec<_>>()
    };
    for act in acts {
        let before = within(act.from - 8 * SECOND, act.from);
        report.times("latency", &format!("{}: before", act.name), &before);
        report.times("latency", &format!("{}: during", act.name), &within(act.from, act.to));
        let after = within(act.to, act.to + 8 * SECOND);
        report.times("latency", &format!("{}: its return", act.name), &after);
    }
}
