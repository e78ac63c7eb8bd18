//! The loop: reads, checks, publishes, writes; one thread, one turn after the other.
//!
//! ```text
//!  set_up ──ready──> warming ──time──> measuring ──time──> draining ──all there, or silence──> end
//! ```
//!
//! With a *closed window* as many messages are in flight as fit, so that the target is never idle
//! and never flooded: its capacity. In an *open loop* message n is due at start + n / rate whatever
//! became of the others, and its latency counts from then: what a user would wait.

use std::time::Duration;

use crate::clock::{Clock, nanos, seconds};
use crate::driver::{Audience, Driver, Message};
use crate::failure::Failure;
use crate::interrupt;
use crate::io::{Arrived, Io, WRITE_BYTES};
use crate::process;
use crate::tally::{Tally, fault};
use crate::work::{Job, Payload, Work};

pub mod pace;

use pace::Pace;

/// Bytes asked for in one read. A buffer for all sockets, so that it stays in the cache.
const READ_BYTES: usize = 256 << 10;

/// Messages after which outputs are looked at for being long enough to be written.
const BATCH: u64 = 64;

/// Bytes that may wait to be written before an open loop holds what is due back, with its due time.
const WAITING_BYTES_MAX: usize = 64 << 20;

const TICK: Duration = Duration::from_millis(100);

/// Shorter waits are spent polling.
const SLEEP_LEAST: Duration = Duration::from_millis(3);

/// A sleep ends so long before something is due.
const SLEEP_MARGIN: Duration = Duration::from_millis(2);

/// Between a reading of what the processes used and the messages whose latency counts: it takes
/// time, and what is due meanwhile is late.
const SETTLE: Duration = Duration::from_millis(20);

/// Messages that must complete in a measured span, or it becomes longer: a rate made of less would
/// tell of its ends.
const COMPLETED_LEAST: u64 = 50;

/// It becomes no longer than this for them.
const SPAN_MAX: Duration = Duration::from_secs(20);

/// When all is there, or lost, what should not come may still be on its way: so long without a
/// byte, and the run is over.
const LINGER: Duration = Duration::from_millis(50);

/// What is measured of the target's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in nanoseconds, user and system.
    pub cpu: u64,
    /// Resident memory in bytes.
    pub rss: u64,
}

/// How long a run is in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Not measured, at the start.
    pub warm_up: Duration,
    /// Measured.
    pub measured: Duration,
    /// After the last message, and at any time: so long without a delivery, and what is missing is
    /// lost.
    pub drain: Duration,
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: u64,
    idle: u64,
    messages: u64,
    deliveries: u64,
    bytes: u64,
    generator_cpu: u64,
    usage: Usage,
}

/// What was measured in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Length of the measured span in seconds.
    pub seconds: f64,
    /// Messages completed in it.
    pub messages: u64,
    /// Deliveries in it: a user each, or a gateway of a message for everyone.
    pub deliveries: u64,
    /// Bytes read and written over all sockets in it.
    pub bytes: u64,
    /// Share of it in which the generator had nothing to do, 0 to 1.
    pub generator_idle: f64,
    /// CPU seconds of the generator.
    pub generator_cpu_s: f64,
    /// CPU seconds of the target.
    pub server_cpu_s: f64,
    /// Resident memory of the target at its end, in bytes.
    pub rss: u64,
    /// In an open loop: 99 in 100 messages were published no more than so many microseconds after
    /// they were due.
    pub late_p99_us: Option<f64>,
}

/// What the set-up took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SetUp {
    /// Users that are there.
    pub users: u64,
    /// Seconds until all were.
    pub seconds: f64,
}

/// Bounds of a set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetUpLimits {
    /// Time after which no more users are added.
    pub time: Duration,
    /// Resident memory of the target in bytes after which no more users are added.
    pub rss: u64,
    /// Time that may pass without progress, then it has failed.
    pub patience: Duration,
}

/// Where a run is.
struct Stage {
    start: u64,
    /// Number of its first message.
    first: u64,
    spans: Spans,
    begin: Option<Reading>,
    /// When the last message was published whose latency counts.
    closed: Option<u64>,
    end: Option<Reading>,
}

impl Stage {
    fn new(start: u64, first: u64, spans: Spans) -> Self {
        Self { start, first, spans, begin: None, closed: None, end: None }
    }
}

/// One target under load.
pub struct Engine {
    clock: Clock,
    io: Io,
    driver: Box<dyn Driver>,
    /// Always polls; else it sleeps when there is nothing to do.
    spins: bool,
    buffer: Vec<u8>,
    idle: u64,
    ticked: u64,
}

impl Engine {
    /// Connects the driver.
    ///
    /// # Errors
    /// The target cannot be reached.
    pub fn connect(mut driver: Box<dyn Driver>, spins: bool) -> Result<Self, Failure> {
        let mut io = Io::new()?;
        driver.connect(&mut io)?;
        let (clock, buffer) = (Clock::start(), vec![0; READ_BYTES]);
        Ok(Self { clock, io, driver, spins, buffer, idle: 0, ticked: 0 })
    }

    /// Lets the driver set up its users. `usage` reads what the processes use.
    ///
    /// # Errors
    /// The target refused, or stopped answering.
    pub fn set_up(
        &mut self,
        limits: SetUpLimits,
        tally: &mut Tally,
        usage: &mut dyn FnMut() -> Usage,
    ) -> Result<SetUp, Failure> {
        let start = self.clock.nanos();
        let (mut heard, mut looked, mut stopped) = (start, start, false);
        while !self.driver.is_ready() {
            let now = self.clock.nanos();
            self.driver.set_up(&mut self.io)?;
            let busy = self.turn(now, tally)?;
            self.pass(now, busy, Some(TICK))?;
            if busy {
                heard = now;
            } else if now.saturating_sub(heard) > nanos(limits.patience) {
                let users = self.driver.users_ready();
                let words = format!("the set-up came to a halt at {users} users");
                return Err(Failure::new(words));
            }
            if now - looked > nanos(TICK) && !stopped {
                looked = now;
                if now - start > nanos(limits.time) || usage().rss > limits.rss {
                    stopped = true;
                    self.driver.stop_set_up();
                }
            }
        }
        let users = self.driver.users_ready();
        if users == 0 {
            return Err(Failure::new("not a single user could be set up in time"));
        }
        Ok(SetUp { users, seconds: seconds(self.clock.nanos() - start) })
    }

    /// Runs the work at this pace and measures. What the tally finds wrong is in the tally.
    ///
    /// # Errors
    /// The run could not go on.
    pub fn run(
        &mut self,
        work: &Work,
        tally: &mut Tally,
        pace: Pace,
        spans: Spans,
        usage: &mut dyn FnMut() -> Usage,
    ) -> Result<Measured, Failure> {
        let mut payload = Payload::new(work.plan().payload_bytes);
        let mut stage = Stage::new(self.clock.nanos(), tally.next(), spans);
        let (mut heard, mut deliveries) = (stage.start, 0);
        let mut paced = pace.start(stage.start, stage.first);
        loop {
            let now = self.clock.nanos();
            self.advance(now, &mut stage, &mut paced, tally, usage)?;
            let mut busy = self.turn(now, tally)?;
            if stage.end.is_none() {
                busy |= self.publish(work, tally, &mut paced, &mut payload)?;
            } else if tally.awaited() == 0 {
                break;
            }
            busy |= self.write()?;
            if tally.deliveries() > deliveries || tally.awaited() == 0 {
                (heard, deliveries) = (now, tally.deliveries());
            } else if now.saturating_sub(heard) > nanos(spans.drain) {
                if stage.end.is_none() {
                    let missing = tally.in_flight();
                    tally.fault(fault::STALLED, format_args!("with {missing} messages in flight"));
                }
                break;
            }
            let ended = stage.end.is_some();
            let wait = if ended { None } else { paced.wait(self.clock.nanos(), tally) };
            self.pass(now, busy, wait)?;
        }
        let last = match stage.end {
            Some(end) => end,
            None => self.reading(tally, usage)?,
        };
        self.settle(LINGER, tally)?;
        self.driver.finish(tally);
        let measured = last.since(&stage.begin.unwrap_or(last));
        Ok(Measured { late_p99_us: paced.late_p99_us(), ..measured })
    }

    /// Begins and ends what is measured, when it is time.
    fn advance(
        &mut self,
        now: u64,
        stage: &mut Stage,
        paced: &mut pace::Paced,
        tally: &mut Tally,
        usage: &mut dyn FnMut() -> Usage,
    ) -> Result<(), Failure> {
        let Some(begin) = &stage.begin else {
            if now - stage.start >= nanos(stage.spans.warm_up) {
                stage.begin = Some(self.reading(tally, usage)?);
                paced.measure();
                if let Some(rate) = paced.rate() {
                    let settled = self.clock.nanos() + nanos(SETTLE);
                    let due = pace::due_before(settled - stage.start, rate);
                    tally.measure_from(stage.first + due);
                }
            }
            return Ok(());
        };
        match stage.closed {
            None => {
                let (span, least) = (nanos(stage.spans.measured), begin.messages + COMPLETED_LEAST);
                let passed = now.saturating_sub(begin.at);
                let enough = tally.completed() >= least
                    || passed >= span.max(nanos(SPAN_MAX)) && tally.completed() > begin.messages;
                if passed >= span && enough {
                    stage.closed = Some(now);
                    tally.measure_until(tally.next());
                }
            }
            // What is in flight now has its time before the processes are read.
            Some(closed) if stage.end.is_none() && now - closed >= nanos(SETTLE) => {
                stage.end = Some(self.reading(tally, usage)?);
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Leaves a socket unread, by its number, or reads it again.
    pub fn freeze(&mut self, socket: usize, frozen: bool) {
        self.io.freeze(socket, frozen);
    }

    /// Publishes nothing and reads until nothing has come for `quiet`.
    ///
    /// # Errors
    /// As of [`Engine::run`].
    pub fn settle(&mut self, quiet: Duration, tally: &mut Tally) -> Result<(), Failure> {
        let mut heard = self.clock.nanos();
        loop {
            let now = self.clock.nanos();
            let busy = self.turn(now, tally)?;
            self.pass(now, busy, Some(TICK))?;
            if busy {
                heard = now;
            } else if now - heard > nanos(quiet) {
                return Ok(());
            }
        }
    }

    /// Reads what came in.
    fn turn(&mut self, now: u64, tally: &mut Tally) -> Result<bool, Failure> {
        interrupt::check()?;
        self.io.wait(Some(Duration::ZERO))?;
        let mut busy = false;
        for at in 0..self.io.count() {
            if self.io.is_readable(at) {
                busy |= self.read(at, tally)?;
            }
        }
        if now - self.ticked >= nanos(TICK) {
            self.ticked = now;
            self.driver.tick(self.clock.now(), &mut self.io);
        }
        tally.at(now);
        busy |= self.driver.turn(&self.clock, tally)?;
        busy |= self.io.write(0)? > 0;
        Ok(busy)
    }

    fn read(&mut self, at: usize, tally: &mut Tally) -> Result<bool, Failure> {
        let socket = self.io.socket(at);
        match self.io.read(at, &mut self.buffer)? {
            Arrived::Nothing => Ok(false),
            Arrived::End => {
                self.io.close(socket);
                self.driver.ended(socket, tally)?;
                Ok(true)
            }
            Arrived::Bytes(count) => {
                tally.at(self.clock.nanos());
                let bytes = &self.buffer[..count];
                let taken = self.driver.received(socket, bytes, &mut self.io, tally)?;
                self.io.keep(at, &bytes[taken..]);
                Ok(true)
            }
        }
    }

    /// Publishes what the pace asks for now.
    fn publish(
        &mut self,
        work: &Work,
        tally: &mut Tally,
        paced: &mut pace::Paced,
        payload: &mut Payload,
    ) -> Result<bool, Failure> {
        let mut count = paced.due(self.clock.nanos(), tally);
        if count == 0 {
            return Ok(false);
        }
        while count > 0 && self.io.queued_in_all() < WAITING_BYTES_MAX {
            let batch = count.min(BATCH);
            let now = self.clock.nanos();
            for _ in 0..batch {
                self.publish_one(work, tally, paced, payload, now)?;
            }
            count -= batch;
            self.io.write(WRITE_BYTES)?;
        }
        self.driver.flush(&mut self.io);
        Ok(true)
    }

    fn publish_one(
        &mut self,
        work: &Work,
        tally: &mut Tally,
        paced: &mut pace::Paced,
        payload: &mut Payload,
        now: u64,
    ) -> Result<(), Failure> {
        let job = work.job(tally.next());
        let number = tally.published(job);
        let payload = payload.of(number, paced.take(number, now));
        let single;
        let (audience, group) = match job {
            Job::User(uid) => {
                single = [uid];
                (Audience::Users(&single), None)
            }
            Job::Group(index) => (Audience::Users(&work.groups()[index].uids), Some(index)),
            Job::Everyone => (Audience::Everyone, None),
        };
        self.driver.publish(&Message { number, audience, group, payload }, &mut self.io)
    }

    fn write(&mut self) -> Result<bool, Failure> {
        Ok(self.io.write(0)? > 0)
    }

    /// Ends a turn that began at `began`: counts it as idle if it was, and sleeps if this engine
    /// does and nothing is to be done for `wait`.
    fn pass(&mut self, began: u64, busy: bool, wait: Option<Duration>) -> Result<(), Failure> {
        if busy {
            return Ok(());
        }
        if !self.spins && !self.io.has_work() {
            let wait = wait.map_or(TICK, |wait| wait.min(TICK));
            // The poller rounds up to a millisecond, and what is due must not be late for that.
            if wait >= SLEEP_LEAST && !self.driver.wait(wait) {
                self.io.wait(Some(wait - SLEEP_MARGIN))?;
            }
        }
        let now = self.clock.nanos();
        self.idle += now - began;
        Ok(())
    }

    fn reading(&self, tally: &Tally, usage: &mut dyn FnMut() -> Usage) -> Result<Reading, Failure> {
        Ok(Reading {
            usage: usage(),
            generator_cpu: process::own_cpu()?,
            at: self.clock.nanos(),
            idle: self.idle,
            messages: tally.completed(),
            deliveries: tally.deliveries(),
            bytes: self.io.bytes(),
        })
    }
}

impl Reading {
    fn since(&self, begin: &Self) -> Measured {
        let span = self.at - begin.at;
        Measured {
            seconds: seconds(span),
            messages: self.messages - begin.messages,
            deliveries: self.deliveries - begin.deliveries,
            bytes: self.bytes - begin.bytes,
            generator_idle: seconds(self.idle - begin.idle) / seconds(span.max(1)),
            generator_cpu_s: seconds(self.generator_cpu - begin.generator_cpu),
            server_cpu_s: seconds(self.usage.cpu.saturating_sub(begin.usage.cpu)),
            rss: self.usage.rss,
            late_p99_us: None,
        }
    }
}
