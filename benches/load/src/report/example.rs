//! A run that never took place, for tests of what shows runs. Its figures are made up, of the size
//! that this kind of run has.

use std::collections::BTreeMap;

use crate::results::{
    Assertion, FORMAT, LatencyUs, Machine, Rate, Results, Row, ScenarioResult, SkippedTarget,
    Variant, figure, mark,
};
use crate::tally::Fault;

const REPEATS: usize = 5;

/// Name, how driven, messages/s at 128 B, CPU in us for a message, bytes a route, generator idle.
const TARGETS: [(&str, &str, [f64; 4]); 9] = [
    (
        "waybill",
        "frames of the wire crate, one producer link, no receipts",
        [3.1e6, 0.31, 38.0, 0.5],
    ),
    ("waybill-client", "the client crate's batch interface, no receipts", [2.9e6, 0.32, 38.0, 0.3]),
    (
        "relay-epoll",
        "the same frames, output = UID % gateways, no table",
        [9.7e6, 0.094, 0.0, 0.12],
    ),
    ("relay-uring", "the same frames over io_uring", [11.1e6, 0.084, 0.0, 0.09]),
    ("nats/uid", "a subject per UID, PUB without reply", [3.42e5, 2.92, 801.0, 0.9]),
    ("nats/lookup", "MGET of 64 from Redis, then a subject per gateway", [6.6e5, 1.6, 110.0, 0.6]),
    ("redis/uid", "a channel per UID, PUBLISH pipelined", [5.8e5, 1.71, 203.0, 0.8]),
    ("redis/lookup", "MGET of 64, then a channel per gateway", [6.4e5, 1.57, 110.0, 0.7]),
    (
        "rabbitmq",
        "direct exchange, a queue per gateway, a binding per UID",
        [5.2e4, 21.0, 950.0, 0.95],
    ),
];

/// Numbers between 0 and 1 that look like chance and are the same each time.
struct Jitter(u64);

impl Jitter {
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 33).expect("31 bits")) / f64::from(1_u32 << 31)
    }

    /// A factor around 1.
    fn around(&mut self, share: f64) -> f64 {
        1.0 + share * (2.0 * self.next() - 1.0)
    }
}

/// The run: `direct` in six variants, `latency` at capacity and at four rates, and `relearn`.
pub(super) fn run() -> Results {
    let versions = [("waybill", "0.0.0 (example)"), ("redis", "7.0.15"), ("nats-server", "2.12.1")];
    Results {
        format: FORMAT,
        command: "waybill-bench run direct latency relearn --repeats 5 (example, made up)"
            .to_owned(),
        started: "2026-01-01T00:00:00Z".to_owned(),
        machine: Machine {
            cpu: "Example CPU <2 GHz>".to_owned(),
            cores: 2,
            memory_bytes: 24 << 30,
            kernel: "Linux 6.18".to_owned(),
            placement: "pinned".to_owned(),
        },
        versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        scenarios: vec![direct(), latency(), relearn()],
        interrupted: false,
        check: false,
    }
}

fn scenario(name: &str, kind: &str, title: &str, rows: Vec<Row>) -> ScenarioResult {
    ScenarioResult {
        name: name.to_owned(),
        kind: kind.to_owned(),
        title: title.to_owned(),
        file: format!("benches/scenarios/{name}.toml"),
        parameters: BTreeMap::from([
            ("seconds".to_owned(), 3.into()),
            ("window".to_owned(), 32_768.into()),
        ]),
        rows,
        skipped: vec![SkippedTarget {
            target: "nats/gw".to_owned(),
            reason: "not on PATH: go install github.com/nats-io/nats-server/v2@latest".to_owned(),
        }],
        assertions: vec![Assertion { words: "lost = 0".to_owned(), held: true }],
    }
}

fn row(target: usize, variant: Variant, repeat: usize) -> Row {
    let (name, driven, _) = TARGETS[target];
    Row {
        target: name.to_owned(),
        driven: driven.to_owned(),
        users: variant.users,
        variant,
        repeat,
        order: repeat * TARGETS.len() + target,
        ok: true,
        faults: Vec::new(),
        marks: Vec::new(),
        figures: BTreeMap::new(),
        latency_us: None,
        spans_ms: BTreeMap::new(),
        notes: Vec::new(),
    }
}

fn variant(payload_bytes: usize, users: u64, rate: Option<f64>) -> Variant {
    let rate = rate.map(|per_s| Rate { asked: format!("{per_s}/s"), per_s });
    Variant { payload_bytes, users, gateways: 8, rate }
}

fn direct() -> ScenarioResult {
    let mut jitter = Jitter(1);
    let mut rows = Vec::new();
    for (users, slower) in [(100_000, 1.0), (1_000_000, 1.25)] {
        for (payload, factor) in [(16, 0.55), (128, 1.0), (1024, 3.1)] {
            for repeat in 0..REPEATS {
                // What the machine does to all of a repeat.
                let weather = jitter.around(0.12);
                for target in 0..TARGETS.len() {
                    let mut row = row(target, variant(payload, users, None), repeat);
                    capacity(&mut row, target, factor * slower * weather * jitter.around(0.05));
                    rows.push(row);
                }
            }
        }
    }
    for row in rows.iter_mut().filter(|row| row.target == "rabbitmq" && row.variant.users > 100_000)
    {
        row.users = 420_000;
        row.marks.push(mark::FEWER_USERS.to_owned());
        row.notes.push("420,000 users were all it could set up in 120 s".to_owned());
    }
    let lost =
        rows.iter_mut().find(|row| row.target == "nats/uid" && row.variant.payload_bytes == 1024);
    let lost = lost.expect("such a row");
    lost.ok = false;
    lost.faults.push(Fault {
        name: "lost".to_owned(),
        count: 8_114,
        example: "message 1,204 for 1000000007 at gateway 7: <slow consumer>".to_owned(),
    });
    scenario("direct", "throughput", "one user a message, 8 gateways", rows)
}

fn capacity(row: &mut Row, target: usize, cost: f64) {
    let [rate, cpu, route, idle] = TARGETS[target].2;
    let rate = rate / cost;
    #[expect(clippy::cast_precision_loss, reason = "made up")]
    let users = row.users as f64;
    row.figures = [
        (figure::MESSAGES_PER_S, rate),
        (figure::DELIVERIES_PER_S, rate),
        (figure::CPU_US_PER_MESSAGE, cpu * cost),
        (figure::CPU_US_PER_DELIVERY, cpu * cost),
        (figure::RSS_BYTES, 12e6 + route * users),
        (figure::GENERATOR_IDLE, idle),
        (figure::SERVER_CORES, 0.99),
        (figure::SETUP_S, users / 5e5),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if route > 0.0 {
        row.figures.insert(figure::BYTES_PER_ROUTE.to_owned(), route);
    }
    if idle < 0.15 {
        row.marks.push(mark::GENERATOR_BUSY.to_owned());
    }
}

fn latency() -> ScenarioResult {
    let mut jitter = Jitter(2);
    let mut rows = Vec::new();
    for repeat in 0..REPEATS {
        for target in 0..TARGETS.len() {
            let mut row = row(target, variant(128, 100_000, None), repeat);
            capacity(&mut row, target, jitter.around(0.1));
            rows.push(row);
        }
    }
    for rate in [1e4, 5e4, 2e5, 1e6] {
        for repeat in 0..REPEATS {
            for (target, (_, _, [capacity, cpu, ..])) in TARGETS.iter().enumerate() {
                if rate > capacity * 0.8 {
                    continue;
                }
                let mut row = row(target, variant(128, 100_000, Some(rate)), repeat);
                let load = 1.0 / (1.0 - rate / capacity);
                let base = (12.0 + 3.0 * cpu) * load * jitter.around(0.15);
                row.latency_us = Some(latencies(base, 4.0 * cpu.sqrt() * load, rate));
                row.figures.insert(figure::MESSAGES_PER_S.to_owned(), rate);
                row.figures.insert(figure::CPU_US_PER_MESSAGE.to_owned(), cpu * 4.0);
                row.figures.insert(figure::GENERATOR_IDLE.to_owned(), 0.8);
                rows.push(row);
            }
        }
    }
    scenario("latency", "latency", "from when a message was due to its receipt", rows)
}

/// A curve that rises slowly, then by `tail` for each nine.
fn latencies(base: f64, tail: f64, rate: f64) -> LatencyUs {
    let at = |percentile: f64| {
        let nines = -(1.0 - percentile / 100.0).log10();
        base * (1.0 + 0.1 * nines) + tail * nines.powi(3)
    };
    let halves = (0..40_i32).map(|step| 100.0 * (1.0 - 0.5_f64.powf(f64::from(step) / 2.0)));
    let curve: Vec<(f64, f64)> = halves.map(|percentile| (percentile, at(percentile))).collect();
    let max = at(99.999_999);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and positive"
    )]
    let count = (rate * 5.0) as u64;
    LatencyUs { count, p50: at(50.0), p90: at(90.0), p99: at(99.0), p999: at(99.9), max, curve }
}

fn relearn() -> ScenarioResult {
    let mut rows = Vec::new();
    for (users, ms) in [(1_000_000, 812.0), (10_000_000, 8_900.0)] {
        for repeat in 0..2 {
            let mut row = row(0, variant(128, users, None), repeat);
            row.spans_ms.insert("all routes back".to_owned(), ms);
            row.figures.insert("registrations_per_s".to_owned(), 1.2e6);
            rows.push(row);
        }
    }
    let mut scenario =
        scenario("relearn", "system", "the broker starts again: all routes back", rows);
    scenario.assertions.push(Assertion { words: "routes back in 5 s".to_owned(), held: false });
    scenario
}
