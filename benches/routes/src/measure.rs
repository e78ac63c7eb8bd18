//! One layout at one size: built, looked up in, looked up in while it grows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use waybill_wire::digest::mix;

use crate::failure::Failure;
use crate::layout::{Layout, Name};

/// Users in one call of a build: small, so that a call with a step of growth is mostly that step.
const BATCH: usize = 16;

/// What no call of a build is to take, in seconds of CPU time.
const LONG: f64 = 200e-6;

/// UIDs of a list, and single-target messages of a read.
const LIST: usize = 1_000;

/// Lists that take turns, so that the lines of one are gone when it comes again.
const LISTS: usize = 256;

/// Look-ups of each kind are repeated this often; the median counts.
const ROUNDS: usize = 9;

/// One in so many users comes while somebody looks up.
const LATE: u64 = 10;

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) layout: Name,
    pub(crate) users: u64,
    pub(crate) gateways: u16,
    pub(crate) seed: u64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) layout: String,
    pub(crate) users: u64,
    pub(crate) gateways: u16,
    /// Resident memory that the build added, per user: at its end, and at most.
    pub(crate) bytes_per_route: f64,
    pub(crate) bytes_per_route_peak: f64,
    /// Users added in a second of CPU time, by one thread.
    pub(crate) builds_per_second: f64,
    /// CPU time of the call of the build that took longest, of 16 users; and how many calls of a
    /// million took longer than [`LONG`].
    pub(crate) longest_step_us: f64,
    pub(crate) long_steps_per_million: f64,
    /// One message of one UID at a time: median of the rounds, lowest and highest.
    pub(crate) single_ns: Spread,
    /// A thousand messages of one UID in one call, per UID.
    pub(crate) read_ns: Spread,
    /// A list of a thousand UIDs, per UID.
    pub(crate) list_ns: Spread,
    /// Wall time of single look-ups while another thread adds a tenth of the users.
    pub(crate) growing_p50_ns: f64,
    pub(crate) growing_p9999_us: f64,
    pub(crate) growing_max_us: f64,
}

/// Median, lowest and highest of some rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let median = rounds[rounds.len() / 2];
        Self { median, lowest: rounds[0], highest: rounds[rounds.len() - 1] }
    }
}

/// Users are numbered; their UIDs are all over the numbers there are (finaliser of SplitMix64).
fn uid(user: u64) -> u64 {
    mix(user.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// Measures a case. To be called once in a process: what an earlier one left in the allocator would
/// be counted.
pub(crate) fn run(case: Case) -> Result<Measured, Failure> {
    let layout = case.layout.empty(case.gateways);
    let late = case.users / LATE;
    let before = memory("VmRSS")?;
    let built = build(&*layout, case, 0..case.users);
    let (after, peak) = (memory("VmRSS")?, memory("VmHWM")?);
    let mut rng = SmallRng::seed_from_u64(case.seed);
    let list = |_| (0..LIST).map(|_| uid(rng.random_range(0..case.users))).collect();
    let lists: Vec<Vec<u64>> = (0..LISTS).map(list).collect();
    let single = rounds(&*layout, &lists, |reader, list| {
        list.iter().map(|uid| reader.list(std::slice::from_ref(uid))).sum()
    });
    let read = rounds(&*layout, &lists, |reader, list| reader.singles(list));
    let grouped = rounds(&*layout, &lists, |reader, list| reader.list(list));
    let growing = growing(&*layout, case, case.users..case.users + late, &lists);
    let per_user = |bytes: u64| bytes.saturating_sub(before) as f64 / case.users as f64;
    let at = |part: usize| growing[(growing.len() - 1) * part / 10_000] as f64;
    Ok(Measured {
        layout: case.layout.to_string(),
        users: case.users,
        gateways: case.gateways,
        bytes_per_route: per_user(after),
        bytes_per_route_peak: per_user(peak),
        builds_per_second: case.users as f64 / built.all,
        longest_step_us: built.longest * 1e6,
        long_steps_per_million: built.long as f64 * 1e6 / built.calls as f64,
        single_ns: single,
        read_ns: read,
        list_ns: grouped,
        growing_p50_ns: at(5_000),
        growing_p9999_us: at(9_999) / 1e3,
        growing_max_us: at(10_000) / 1e3,
    })
}

/// CPU time of the calls of a build: of all, and of the longest, in seconds; calls, and those that
/// took too long.
#[derive(Clone, Copy, Debug, Default)]
struct Built {
    all: f64,
    longest: f64,
    calls: u64,
    long: u64,
}

/// Adds users, gateway by gateway.
fn build(layout: &dyn Layout, case: Case, users: std::ops::Range<u64>) -> Built {
    let mut built = Built::default();
    let mut batch = Vec::with_capacity(BATCH);
    for gateway in 0..case.gateways {
        let first = users.start + u64::from(gateway);
        let mut here = (first..users.end).step_by(usize::from(case.gateways)).map(uid);
        loop {
            batch.clear();
            batch.extend(here.by_ref().take(BATCH));
            if batch.is_empty() {
                break;
            }
            let from = cpu_time();
            layout.add(gateway, &batch);
            let took = cpu_time() - from;
            built.all += took;
            built.longest = built.longest.max(took);
            built.calls += 1;
            built.long += u64::from(took > LONG);
        }
    }
    built
}

/// Nanoseconds a UID, of looking all lists up, round by round.
fn rounds(
    layout: &dyn Layout,
    lists: &[Vec<u64>],
    look_up: impl Fn(&mut dyn crate::layout::Reader, &[u64]) -> usize,
) -> Spread {
    let mut reader = layout.reader();
    let mut round = |_| {
        let from = cpu_time();
        let found: usize = lists.iter().map(|list| look_up(&mut *reader, list)).sum();
        let took = cpu_time() - from;
        let all: usize = lists.iter().map(Vec::len).sum();
        assert!(found <= all && found * 100 >= all * 99, "every user looked up is there, once");
        took * 1e9 / all as f64
    };
    round(0);
    Spread::of((0..ROUNDS).map(round).collect())
}

/// Wall time of each single look-up while another thread adds users, sorted.
fn growing(
    layout: &dyn Layout,
    case: Case,
    users: std::ops::Range<u64>,
    lists: &[Vec<u64>],
) -> Vec<u64> {
    let is_done = AtomicBool::new(false);
    let mut took = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            build(layout, case, users);
            is_done.store(true, Ordering::Release);
        });
        let mut reader = layout.reader();
        for uid in lists.iter().flatten().cycle() {
            if is_done.load(Ordering::Acquire) {
                break;
            }
            let from = Instant::now();
            let found = reader.list(std::slice::from_ref(uid));
            took.push(u64::try_from(from.elapsed().as_nanos()).expect("shorter than a century"));
            assert_eq!(found, 1, "a user who is there is found while others come");
        }
    });
    if took.is_empty() {
        took.push(0);
    }
    took.sort_unstable();
    took
}

/// CPU time of this thread, in seconds.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A line of this process's status, in bytes.
fn memory(name: &'static str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(Failure::Memory)?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or(Failure::NoMemory { name })
}
