//! Many times as much is published as gateways read, for as long as it is told to: what the broker
//! takes, against the sum that it documents, and whether all that did not come was told by cause.
//!
//! Gateways read at a steady pace, and say that they live. The producer is an open loop; what the
//! broker does not read of it in time is held back here and counted.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use waybill_wire::code::{Level, Mode};
use waybill_wire::message::{self, MessageHead};

use super::cluster::Shared;
use super::{Findings, Trial, is_rate};
use crate::clock::{Clock, SECOND, nanos};
use crate::driver::Driver as _;
use crate::engine::pace::due_before;
use crate::failure::Failure;
use crate::interrupt;
use crate::io::{Arrived, Io};
use crate::process;
use crate::results::figure;
use crate::tally::{Tally, fault};
use crate::targets::Skipped;
use crate::waybill::documented_bytes_max;
use crate::work::{RATE_MAX, Work, gateway_of, uid_of};

/// Nothing has come for so long: what was kept for gateways has come.
const QUIET: Duration = Duration::from_millis(500);

/// A set-up that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that wait for the broker to read, at which the producer holds the rest back.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Bytes of one read: a gateway reads no more than that beyond its pace.
const READ_BYTES: usize = 16 << 10;

/// How much too much is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverloadPlan {
    /// Messages per second that all gateways together read.
    pub reads: f64,
    /// How many times as many are published.
    pub times: f64,
    /// Settings of the broker, lines of its table: bounds that the load can reach, where those of a
    /// machine with thousands of links and gateways would be beyond it.
    pub settings: String,
    /// Milliseconds that one message in three has to live; 0: all that it takes.
    #[serde(default)]
    pub ttl_ms: u32,
    /// Whether another one in three takes the place of what waits for its user with a key.
    #[serde(default)]
    pub conflates: bool,
}

impl OverloadPlan {
    /// The head of a message, whose number is also that of its user: so every user has all kinds.
    fn head(&self, number: u64) -> MessageHead<'static> {
        let (sequence, level, mode) = (number + 1, Level::ROUTED, Mode::DIRECT);
        let head = MessageHead { sequence, level, mode, ..MessageHead::default() };
        match number % 3 {
            1 if self.conflates => MessageHead { conflate: Some(1), ..head },
            2 => MessageHead { ttl_ms: self.ttl_ms, ..head },
            _ => head,
        }
    }
}

/// What came to gateways.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Number of the latest message of each, plus 1.
    latest: Vec<u64>,
    came: u64,
}

impl Arrivals {
    /// A message came to a gateway: to the right one, for the first time, and behind no later one.
    pub(super) fn delivered(
        &mut self,
        at: usize,
        message: &message::Message<'_>,
        tally: &mut Tally,
    ) {
        let uid = message.targets.iter().next().unwrap_or_default();
        let number = message.payload.first_chunk().map_or(0, |it| u64::from_le_bytes(*it));
        if gateway_of(uid, self.latest.len()) != at {
            let words = format_args!("message {number} for user {uid} at gateway {at}");
            return tally.fault(fault::WRONG_GATEWAY, words);
        }
        if number < self.latest[at] {
            let words = format_args!("message {number} behind {} at gateway {at}", self.latest[at]);
            return tally.fault(fault::DISORDER, words);
        }
        self.came += 1;
        // One with a key may have the place of another that came before what it has overtaken.
        if message.conflate.is_none() {
            self.latest[at] = number + 1;
        }
    }
}

/// A run that goes on.
struct Run<'a> {
    clock: Clock,
    io: Io,
    driver: Shared,
    tally: Tally,
    trial: &'a Trial<'a>,
    buffer: Vec<u8>,
    /// Bytes that each gateway may still read; beyond all bounds at the end.
    left: Vec<f64>,
    bytes_per_s: f64,
    refilled: u64,
    payload: Vec<u8>,
    published: u64,
}

impl OverloadPlan {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Option<String> {
        let (reads, times) = (self.reads, self.times);
        if !is_rate(reads, 1.0) || !is_rate(reads * times, 1.0) {
            return Some(format!(
                "reads {reads} and {times} times as many are not in 1..={RATE_MAX}"
            ));
        }
        (times < 1.0).then(|| format!("times {times} is less than 1"))
    }

    /// Messages per second.
    pub(super) fn rate(&self) -> f64 {
        self.reads * self.times
    }

    /// Runs it.
    pub(super) fn run(&self, trial: &mut Trial<'_>) -> Result<Findings, Skipped> {
        let admin = trial.place.free_address()?;
        let settings = format!("admin_listen = \"{admin}\"\n{}", self.settings);
        let (server, address) = trial.broker_with(None, &settings)?;
        let bound = documented_bytes_max(trial.place)?;
        let pids = server.pids();
        let mut run = Run::new(trial, address, self.reads)?;
        let mut findings = Findings::default();
        let began = run.clock.nanos();
        run.set_up()?;
        findings.users = trial.work.users;
        findings.figure(figure::SETUP_S, (run.clock.nanos() - began) as f64 / SECOND as f64);

        let before = process::usage(&pids);
        let start = run.clock.nanos();
        let (end, mut sampled) = (start + nanos(trial.spans.measured), start);
        let mut samples = Vec::new();
        while run.clock.nanos() < end {
            let now = run.clock.nanos();
            run.publish(due_before(now - start, self.rate()), self)?;
            run.turn()?;
            if now - sampled >= SECOND {
                sampled += SECOND;
                samples.push(process::usage(&pids).rss as f64);
            }
        }
        let seconds = (run.clock.nanos() - start) as f64 / SECOND as f64;
        let after = process::usage(&pids);
        samples.push(after.rss as f64);
        let (published, came) = (run.published, run.came());
        findings.figure(figure::MESSAGES_PER_S, published as f64 / seconds);
        findings.figure(figure::SERVER_CORES, (after.cpu - before.cpu) as f64 / 1e9 / seconds);
        findings.figure("read_per_s", came as f64 / seconds);
        findings.figure("held_back", self.rate() * seconds - published as f64);
        rss_figures(samples, bound, &mut findings);
        run.settle()?;
        run.account(&ledger(admin)?, &mut findings);
        findings.faults = run.tally.end();
        Ok(findings)
    }
}

/// Resident memory of all seconds, against the sum.
fn rss_figures(mut samples: Vec<f64>, bound: f64, findings: &mut Findings) {
    let beyond = samples.iter().filter(|rss| **rss > bound).count();
    samples.sort_by(f64::total_cmp);
    let (half, most) = (samples[samples.len() / 2], samples[samples.len() - 1]);
    findings.figure("rss_samples", samples.len() as f64);
    findings.figure("rss_p50_bytes", half);
    findings.figure(figure::RSS_BYTES, most);
    findings.figure("documented_bytes_max", bound);
    findings.figure("rss_of_documented", most / bound);
    findings.figure("rss_samples_beyond", beyond as f64);
}

impl<'a> Run<'a> {
    fn new(trial: &'a Trial<'a>, address: SocketAddr, reads: f64) -> Result<Self, Failure> {
        let gateways = trial.work.gateways;
        let mut driver = Shared::new(trial.work, address, Level::ROUTED);
        driver.0.borrow_mut().arrivals =
            Some(Arrivals { latest: vec![0; gateways], ..Arrivals::default() });
        let mut io = Io::new()?;
        driver.connect(&mut io)?;
        // A header for one user is 48 bytes.
        let frame = trial.work.payload_bytes as f64 + 48.0;
        Ok(Self {
            clock: Clock::start(),
            io,
            driver,
            tally: Tally::new(Work::new(trial.work).into()),
            trial,
            buffer: vec![0; READ_BYTES],
            left: vec![0.0; gateways],
            bytes_per_s: reads * frame / gateways as f64,
            refilled: 0,
            payload: vec![0x5A; trial.work.payload_bytes],
            published: 0,
        })
    }

    fn came(&self) -> u64 {
        self.driver.0.borrow().arrivals.as_ref().map_or(0, |arrivals| arrivals.came)
    }

    fn set_up(&mut self) -> Result<(), Failure> {
        let began = self.clock.nanos();
        while !self.driver.is_ready() {
            self.left.fill(READ_BYTES as f64);
            self.driver.set_up(&mut self.io)?;
            self.turn()?;
            if self.clock.nanos() - began > nanos(PATIENCE) {
                return Err(Failure::new("the set-up came to a halt"));
            }
        }
        self.left.fill(0.0);
        Ok(())
    }

    /// Publishes up to that many in all, or as many as the broker reads.
    fn publish(&mut self, upto: u64, plan: &OverloadPlan) -> Result<(), Failure> {
        let Some(producer) = self.driver.0.borrow().producer else {
            return Err(Failure::new("there is no link to publish by"));
        };
        while self.published < upto && self.io.queued(producer) < WAITING_BYTES_MAX {
            let number = self.published;
            self.payload[..8].copy_from_slice(&number.to_le_bytes());
            let uid = uid_of(number % self.trial.work.users);
            let out = self.io.out(producer);
            plan.head(number).encode_publish(&[uid], &self.payload, out).map_err(Failure::new)?;
            self.published += 1;
        }
        Ok(())
    }

    /// Reads what may be read, and writes. Whether anything came.
    fn turn(&mut self) -> Result<bool, Failure> {
        interrupt::check()?;
        let now = self.clock.nanos();
        let more = self.bytes_per_s * (now - self.refilled) as f64 / SECOND as f64;
        self.refilled = now;
        // Half a second of what was not read may be read at once.
        let most = (self.bytes_per_s / 2.0).max(READ_BYTES as f64);
        self.left.iter_mut().for_each(|left| *left = (*left + more).min(most.max(*left)));
        self.io.write(0)?;
        self.io.wait(Some(Duration::from_millis(1)))?;
        let mut came = false;
        for at in 0..self.io.count() {
            let may = self.left.get(at).is_none_or(|left| *left > 0.0);
            if may && self.io.is_readable(at) {
                came |= self.read(at)?;
            }
        }
        self.driver.tick(self.clock.now(), &mut self.io);
        self.io.write(0)?;
        Ok(came)
    }

    fn read(&mut self, at: usize) -> Result<bool, Failure> {
        let (socket, before) = (self.io.socket(at), self.io.bytes());
        match self.io.read(at, &mut self.buffer)? {
            Arrived::Nothing => Ok(false),
            Arrived::End => {
                self.io.close(socket);
                self.driver.ended(socket, &mut self.tally)?;
                Ok(true)
            }
            Arrived::Bytes(count) => {
                if let Some(left) = self.left.get_mut(at) {
                    *left -= (self.io.bytes() - before) as f64;
                }
                let bytes = &self.buffer[..count];
                let taken = self.driver.received(socket, bytes, &mut self.io, &mut self.tally)?;
                self.io.keep(at, &bytes[taken..]);
                Ok(true)
            }
        }
    }

    /// Reads all that there is.
    fn settle(&mut self) -> Result<(), Failure> {
        let mut heard = self.clock.nanos();
        while self.clock.nanos() - heard < nanos(QUIET) {
            self.left.fill(f64::MAX);
            if self.turn()? {
                heard = self.clock.nanos();
            }
        }
        Ok(())
    }

    /// Whether all that was published came, or was told of: by receipts, and by the broker's ledger
    /// by cause.
    fn account(&mut self, ledger: &Value, findings: &mut Findings) {
        let told = self.driver.0.borrow().told;
        let (published, came) = (self.published, self.came());
        let of = |name: &str| ledger["gateways"][name].as_u64().unwrap_or_default();
        findings.figure("came", came as f64);
        findings.figure("told_dropped", told.dropped as f64);
        findings.figure("unanswered", published.abs_diff(told.receipts) as f64);
        let causes = [
            "dropped_outbox_full",
            "dropped_pool_full",
            "dropped_outbox_age",
            "dropped_no_link",
            "expired",
            "conflated",
            "evicted_outbox_full",
            "evicted_pool_full",
            "evicted_outbox_age",
            "lost",
            "in_doubt",
        ];
        let mut gone = 0;
        for cause in causes {
            gone += of(cause);
            findings.figure(cause, of(cause) as f64);
        }
        findings.figure("unaccounted", published.abs_diff(came + gone) as f64);
        let refused: u64 = causes[..4].iter().map(|cause| of(cause)).sum();
        findings.figure("untold", told.dropped.abs_diff(refused) as f64);
        let balances = of("offered") == refused + of("queued") + of("between_shards");
        findings.figure("ledger_off", f64::from(u8::from(!balances)));
    }
}

/// What a broker counts.
fn ledger(admin: SocketAddr) -> Result<Value, Failure> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET /ledger HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(|error| Failure::new(error).during("reading the ledger"))
}
