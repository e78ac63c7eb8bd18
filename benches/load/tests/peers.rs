//! Every peer that is installed does the work of the bench and is judged by it, at a small size.
//!
//! A peer that is not there is said to be skipped, and its test passes: the codecs have tests of
//! their own that need no server.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use waybill_bench::engine::pace::Pace;
use waybill_bench::engine::{Engine, Measured, SetUpLimits, Spans, Usage};
use waybill_bench::output;
use waybill_bench::process::{self, Place};
use waybill_bench::tally::{Fault, Tally};
use waybill_bench::targets::{self, Pending, Plan};
use waybill_bench::work::{Shares, Work, WorkPlan};

const MIXED: Shares = Shares { single: 20, group: 1, broadcast: 1 };

const SPANS: Spans = Spans {
    warm_up: Duration::from_millis(20),
    measured: Duration::from_millis(200),
    drain: Duration::from_secs(10),
};

/// Runs a target, `users` being set up until `time` is over; `None` if it is not installed.
fn run(name: &str, users: u64, time: Duration) -> Option<(u64, Measured, Vec<Fault>)> {
    let target = targets::named(&[name.into()]).expect("it is registered")[0];
    let asked = WorkPlan {
        seed: 1,
        users,
        gateways: 4,
        payload_bytes: 128,
        shares: MIXED,
        groups: 4,
        group_uids: 100,
    };
    let place = Place::new(None, Path::new("waybill")).expect("a folder");
    let plan = Plan { work: &asked, window: 1_024, pending: Pending::Raised };
    let running = match (target.start)(&plan, &place) {
        Ok(running) => running,
        Err(skipped) if !skipped.failed => {
            output::talk(format_args!("skipped: {}", skipped.reason));
            return None;
        }
        Err(skipped) => panic!("{name}: {}", skipped.reason),
    };
    assert!(!running.versions.is_empty());
    let pids = running.pids();
    let mut usage = || -> Usage { process::usage(&pids) };
    let window = running.window.unwrap_or(1_024).min(1_024);
    let mut engine = Engine::connect(running.driver, false).expect("it listens");
    let mut tally = Tally::new(Rc::new(Work::new(WorkPlan { groups: 0, ..asked })));
    let limits = SetUpLimits { time, rss: 8 << 30, patience: Duration::from_secs(60) };
    let set_up = engine.set_up(limits, &mut tally, &mut usage).expect("users are set up");
    let work = Rc::new(Work::new(WorkPlan { users: set_up.users, ..asked }));
    let mut tally = Tally::new(Rc::clone(&work));
    let measured = engine.run(&work, &mut tally, Pace::Window(window), SPANS, &mut usage);
    Some((set_up.users, measured.expect("the run goes on to its end"), tally.end()))
}

/// All three kinds of messages reach whom they are for, once and in order.
fn delivers(name: &str) {
    let Some((users, measured, faults)) = run(name, 2_000, Duration::from_secs(120)) else {
        return;
    };
    assert_eq!(users, 2_000);
    assert_eq!(faults, []);
    assert!(measured.messages > 0 && measured.deliveries > measured.messages);
    assert!(measured.server_cpu_s > 0.0 && measured.rss > 0);
}

#[test]
fn nats_with_a_subject_for_each_uid_delivers() {
    delivers("nats/uid");
}

#[test]
fn nats_with_routes_looked_up_delivers() {
    delivers("nats/lookup");
}

#[test]
fn nats_with_routes_known_delivers() {
    delivers("nats/gw");
}

#[test]
fn redis_with_a_channel_for_each_uid_delivers() {
    delivers("redis/uid");
}

#[test]
fn redis_with_routes_looked_up_delivers() {
    delivers("redis/lookup");
}

#[test]
fn rabbitmq_with_a_binding_for_each_uid_delivers() {
    delivers("rabbitmq");
}

#[test]
fn rabbitmq_with_a_publish_for_each_uid_delivers() {
    delivers("rabbitmq/uid");
}

/// What is set up when the time is over is what the run has, and it is correct for those.
fn stops(name: &str) {
    let Some((users, _, faults)) = run(name, 100_000_000, Duration::from_millis(500)) else {
        return;
    };
    assert!((100..100_000_000).contains(&users), "{users} users");
    assert_eq!(faults, []);
}

#[test]
fn nats_runs_with_the_users_it_could_set_up() {
    stops("nats/uid");
}

#[test]
fn redis_runs_with_the_users_it_could_set_up() {
    stops("redis/uid");
}

#[test]
fn a_table_of_routes_has_the_users_it_could_set_up() {
    stops("redis/lookup");
}

#[test]
fn rabbitmq_runs_with_the_users_it_could_set_up() {
    stops("rabbitmq");
}
