//! Users who move between gateways, or tags, while messages flow to those who stay: how fast the
//! broker takes the changes, how soon they hold, and what the others feel of it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use waybill_wire::code::{Level, Op};
use waybill_wire::frame::{Barrier, Delta, Record, TagDelta, TagRecord};
use waybill_wire::limits::RECORDS_MAX;

use super::cluster::{Gateway, Shared, registered};
use super::{Findings, Trial, is_rate, latency_figures, quantiles};
use crate::clock;
use crate::engine::Engine;
use crate::engine::pace::Pace;
use crate::failure::Failure;
use crate::io::Io;
use crate::tally::{Tally, fault};
use crate::targets::Skipped;
use crate::work::{RATE_MAX, Work, uid_of};

/// Moves that one turn begins at most: what is due beyond them waits for the next.
const MOVES_A_TURN: u64 = 64;

/// Most groups of users that move: each move looks for one that rests.
const BLOCKS_MAX: usize = 1_000_000;

/// Longest time told apart, in nanoseconds: a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// What a reader of the figures must know.
const NOTES: [&str; 3] = [
    "times of deltas and of messages after a move: from when the move was due, without warm-up",
    "moves_not_begun: due while all blocks were on their way, warm-up included",
    "cpu_us_per_delta: with a barrier for each delta, and half a message to a user who moved",
];

/// How users move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChurnPlan {
    /// Messages per second to those who stay.
    pub rate: f64,
    /// Deltas per second that are asked for.
    pub deltas_per_s: f64,
    /// Users of a delta.
    pub users_of_delta: usize,
    /// Groups of so many users that move together.
    pub blocks: usize,
    /// Whether it is tags that move, of which gateways declare others, and not users.
    #[serde(default)]
    pub tags: bool,
}

/// Users that move together.
#[derive(Clone, Debug)]
struct Block {
    home: usize,
    /// It is at its home: of tags, as gateways declare none before the first move.
    declared: bool,
    /// Deltas of the move that are not in effect yet.
    waits: u32,
    /// When the move was due; `None` while nothing is under way.
    since: Option<Instant>,
}

/// The movers of one run.
pub(super) struct Churn {
    plan: ChurnPlan,
    first_uid: u64,
    gateways: usize,
    blocks: Vec<Block>,
    next: usize,
    /// When it began, and the moves that were due since and are done with: begun, or given up.
    began: Option<Instant>,
    moves: u64,
    /// Moves that were due and could not be begun, as all blocks were on their way.
    not_begun: u64,
    /// What was due before is warm-up: not in the histograms.
    measured_from: Option<Instant>,
    /// Deltas in effect at the first and at the last turn behind it.
    span: Option<[(Instant, u64); 2]>,
    /// Of each gateway: version, when it was due, and whose move it is part of.
    pending: Vec<VecDeque<(u64, Instant, usize)>>,
    probes: Vec<usize>,
    records: Vec<Record>,
    deltas: u64,
    arrived: u64,
    in_effect_ns: Histogram<u64>,
    reached_ns: Histogram<u64>,
}

impl Churn {
    fn new(plan: ChurnPlan, stay: u64, gateways: usize) -> Result<Self, Failure> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(Failure::new);
        let declared = !plan.tags;
        let block = |at: usize| Block { home: at % gateways, declared, waits: 0, since: None };
        Ok(Self {
            first_uid: uid_of(stay),
            gateways,
            blocks: (0..plan.blocks).map(block).collect(),
            next: 0,
            began: None,
            moves: 0,
            not_begun: 0,
            measured_from: None,
            span: None,
            pending: vec![VecDeque::new(); gateways],
            probes: Vec::new(),
            records: Vec::new(),
            deltas: 0,
            arrived: 0,
            in_effect_ns: histogram()?,
            reached_ns: histogram()?,
            plan,
        })
    }

    /// Whether tags move, and no users.
    pub(super) fn is_of_tags(&self) -> bool {
        self.plan.tags
    }

    /// Whether a user is one who moves.
    pub(super) fn is_about(&self, uid: u64) -> bool {
        uid >= self.first_uid
    }

    fn uid(&self, block: usize, place: usize) -> u64 {
        self.first_uid + (block * self.plan.users_of_delta + place) as u64
    }

    /// Mover `n` of those that a gateway has before the first move.
    pub(super) fn at_first(&self, gateway: usize, n: u64) -> Option<u64> {
        let n = usize::try_from(n).ok()?;
        let (block, place) = (n / self.plan.users_of_delta, n % self.plan.users_of_delta);
        let block = gateway + block * self.gateways;
        (block < self.blocks.len() && !self.plan.tags).then(|| self.uid(block, place))
    }

    /// Begins with this moment, and measures what is due after the warm-up.
    fn begin(&mut self, now: Instant, warm_up: Duration) {
        (self.began, self.measured_from) = (Some(now), Some(now + warm_up));
    }

    /// When move `n` is due, counted from 0.
    fn due(&self, began: Instant, n: u64) -> Instant {
        // A move is two deltas: one where the users go, one where they were.
        began + Duration::from_secs_f64(n as f64 * 2.0 / self.plan.deltas_per_s)
    }

    /// Begins the moves that are due. One that is due while all blocks are on their way is given up
    /// and counted; one that is late counts from when it was due.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        gateways: &mut [Gateway],
        io: &mut Io,
    ) -> Result<(), Failure> {
        let Some(began) = self.began else { return Ok(()) };
        if self.is_measured(now) {
            let here = (now, self.deltas);
            self.span.get_or_insert([here; 2])[1] = here;
        }
        let mut left = MOVES_A_TURN;
        while left > 0 {
            let due = self.due(began, self.moves);
            if due > now {
                break;
            }
            self.moves += 1;
            let Some((at, from, to)) = self.depart(due) else { continue };
            left -= 1;
            if !self.blocks[at].declared {
                self.blocks[at].declared = true;
                self.blocks[at].waits += 1;
                self.delta(at, (from, Op::ADD), due, gateways, io)?;
            }
            self.delta(at, (to, Op::ADD), due, gateways, io)?;
            self.delta(at, (from, Op::REMOVE), due, gateways, io)?;
        }
        Ok(())
    }

    /// Puts the next free block on its way to the next gateway: the block, from where, and where
    /// to. `None`, and counted, if there is none.
    fn depart(&mut self, due: Instant) -> Option<(usize, usize, usize)> {
        let free = (0..self.blocks.len())
            .map(|step| (self.next + step) % self.blocks.len())
            .find(|at| self.blocks[*at].since.is_none());
        let Some(at) = free else {
            self.not_begun += 1;
            return None;
        };
        self.next = at + 1;
        let from = self.blocks[at].home;
        let to = (from + 1) % self.gateways;
        let declared = self.blocks[at].declared;
        self.blocks[at] = Block { home: to, declared, waits: 2, since: Some(due) };
        Some((at, from, to))
    }

    /// Sends a delta, and asks when it holds.
    fn delta(
        &mut self,
        block: usize,
        (at, op): (usize, Op),
        due: Instant,
        gateways: &mut [Gateway],
        io: &mut Io,
    ) -> Result<(), Failure> {
        let gateway = &mut gateways[at];
        gateway.version += 1;
        self.pending[at].push_back((gateway.version, due, block));
        let out = io.out(gateway.socket);
        match self.plan.tags {
            true => self.tags_change(block, op, gateway, out)?,
            false => self.users_change(block, op, gateway, out)?,
        }
        let (version, digest) = (gateway.version, gateway.digest.value());
        Barrier { version, digest }.encode(io.out(gateway.socket));
        Ok(())
    }

    fn users_change(
        &mut self,
        block: usize,
        op: Op,
        gateway: &mut Gateway,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let users = (0..self.plan.users_of_delta).map(|place| self.uid(block, place));
        let records = users.map(|uid| Record { uid, op, ..Record::default() }).collect();
        self.records = records;
        let delta = Delta { version: gateway.version, records: self.records.as_slice().into() };
        delta.encode(out).map_err(Failure::new)?;
        for record in &self.records {
            match op {
                Op::ADD => gateway.digest.add(registered(record)),
                _ => gateway.digest.remove(registered(record)),
            }
        }
        Ok(())
    }

    fn tags_change(
        &self,
        block: usize,
        op: Op,
        gateway: &mut Gateway,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let places = 0..self.plan.users_of_delta;
        let texts: Vec<String> =
            places.map(|place| format!("group:{}", self.uid(block, place))).collect();
        let record = |tag| TagRecord { namespace: 0, op, tag };
        let records: Vec<TagRecord<'_>> = texts.iter().map(|text| record(text.as_str())).collect();
        let tag_records = records.as_slice().into();
        let delta = TagDelta { version: gateway.version, tag_records };
        delta.encode(out).map_err(Failure::new)?;
        for text in &texts {
            match op {
                Op::ADD => gateway.digest.add_tag(0, text),
                _ => gateway.digest.remove_tag(0, text),
            }
        }
        Ok(())
    }

    /// A gateway is told that everything up to `version` holds.
    pub(super) fn in_effect(&mut self, gateway: usize, version: u64) {
        while let Some((_, due, at)) = self.pending[gateway].pop_front_if(|it| it.0 <= version) {
            self.deltas += 1;
            if self.is_measured(due) {
                self.in_effect_ns.saturating_record(nanos_since(due));
            }
            let block = &mut self.blocks[at];
            block.waits -= 1;
            match block.waits {
                // Nobody is sent anything by a tag that moved.
                0 if self.plan.tags => block.since = None,
                0 => self.probes.push(at),
                _ => {}
            }
        }
    }

    /// A message each to the first user of every block whose move holds.
    pub(super) fn probes(&mut self) -> Vec<(u64, [u8; 8])> {
        let probes = std::mem::take(&mut self.probes);
        probes.into_iter().map(|at| (self.uid(at, 0), (at as u64).to_le_bytes())).collect()
    }

    /// A message to a mover came in at a gateway.
    pub(super) fn delivered(&mut self, at: usize, uid: u64, payload: &[u8], tally: &mut Tally) {
        let index = payload.first_chunk().map(|it| u64::from_le_bytes(*it));
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|it| *it < self.blocks.len() && self.uid(*it, 0) == uid)
        else {
            return tally.fault(fault::WRONG_UID, format_args!("user {uid}, who had moved"));
        };
        let block = &mut self.blocks[index];
        let words = format_args!("to user {uid}, who had moved, at gateway {at}");
        if at != block.home {
            return tally.fault(fault::WRONG_GATEWAY, words);
        }
        let Some(since) = block.since.take_if(|_| block.waits == 0) else {
            return tally.fault(fault::DUPLICATE, words);
        };
        self.arrived += 1;
        if self.is_measured(since) {
            self.reached_ns.saturating_record(nanos_since(since));
        }
    }

    /// Deltas that came into effect per second while users moved, without the warm-up and without
    /// what the engine waits for afterwards; no number if that was no time.
    fn deltas_per_s(&self) -> f64 {
        let Some([(from, before), (to, after)]) = self.span else { return f64::NAN };
        (after - before) as f64 / to.duration_since(from).as_secs_f64()
    }

    /// Whether what was due then is behind the warm-up.
    fn is_measured(&self, due: Instant) -> bool {
        self.measured_from.is_some_and(|from| due >= from)
    }

    /// What did not come to its end is lost.
    fn judge(&self, tally: &mut Tally) {
        for (at, block) in self.blocks.iter().enumerate().filter(|(_, it)| it.since.is_some()) {
            let (uid, waits) = (self.uid(at, 0), block.waits);
            tally.fault(
                fault::LOST,
                format_args!("the message to user {uid} after the move; {waits} deltas open"),
            );
        }
    }
}

fn nanos_since(moment: Instant) -> u64 {
    clock::nanos(moment.elapsed())
}

impl ChurnPlan {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Option<String> {
        let rates = [("rate", self.rate), ("deltas_per_s", self.deltas_per_s)];
        if let Some((key, rate)) = rates.into_iter().find(|(_, rate)| !is_rate(*rate, 1.0)) {
            return Some(format!("{key} {rate} is not in 1..={RATE_MAX}"));
        }
        let sizes = [
            ("users_of_delta", self.users_of_delta, RECORDS_MAX),
            ("blocks", self.blocks, BLOCKS_MAX),
        ];
        let wrong = sizes.into_iter().find(|(_, size, most)| !(1..=*most).contains(size));
        wrong.map(|(key, size, most)| format!("{key} {size} is not in 1..={most}"))
    }

    /// Runs it.
    pub(super) fn run(&self, trial: &mut Trial<'_>) -> Result<Findings, Skipped> {
        let broker = trial.broker(None)?;
        let shared = Shared::new(trial.work, broker.1, Level::NONE);
        let churn = Churn::new(self.clone(), trial.work.users, trial.work.gateways)?;
        shared.0.borrow_mut().churn = Some(churn);
        let mut engine = Engine::connect(Box::new(shared.clone()), trial.pinned)?;
        let pids = broker.0.pids();
        let mut usage = || crate::process::usage(&pids);
        let mut findings = Findings::default();
        findings.set_up(trial.set_up(&mut engine, &mut usage)?);
        let work = Rc::new(Work::new(trial.work));
        let mut tally = Tally::new(Rc::clone(&work));
        let (pace, spans) = (Pace::Rate(self.rate), trial.spans);
        let before = engine.run(&work, &mut tally, pace, spans, &mut usage)?;
        latency_figures("without", &before, &tally, &mut findings);

        let begun = clock::instant();
        if let Some(churn) = &mut shared.0.borrow_mut().churn {
            churn.begin(begun, spans.warm_up);
        }
        let during = engine.run(&work, &mut tally, pace, spans, &mut usage)?;
        latency_figures("with", &during, &tally, &mut findings);
        findings.measured(&during, &tally);
        let mut cluster = shared.0.borrow_mut();
        let churn = cluster.churn.as_mut().expect("it was put there above");
        churn.began = None;
        let (deltas, reached) = (churn.deltas_per_s(), churn.arrived as f64);
        drop(cluster);
        // Moves whose message is not published yet need one more message to go with.
        let last = crate::engine::Spans {
            warm_up: Duration::from_millis(10),
            measured: Duration::from_millis(100),
            drain: spans.drain,
        };
        engine.run(&work, &mut tally, pace, last, &mut usage)?;
        engine.settle(Duration::from_millis(200), &mut tally)?;
        let cluster = shared.0.borrow();
        let churn = cluster.churn.as_ref().expect("it was put there above");
        churn.judge(&mut tally);
        findings.figure("deltas_per_s", deltas);
        findings.figure("moved_users_per_s", deltas / 2.0 * self.users_of_delta as f64);
        findings.figure("moves_probed", reached);
        findings.figure("moves_not_begun", churn.not_begun as f64);
        findings.notes.extend(NOTES.map(String::from));
        quantiles("delta in effect", &churn.in_effect_ns, &mut findings);
        quantiles("move, then a message there", &churn.reached_ns, &mut findings);
        let cpu = (during.server_cpu_s / during.seconds - before.server_cpu_s / before.seconds)
            * 1e6
            / deltas;
        // Less than nothing: the traffic alone varied by more than the deltas cost.
        if cpu > 0.0 {
            findings.figure("cpu_us_per_delta", cpu);
        }
        findings.faults = tally.end();
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::WorkPlan;

    fn plan_of(rate: f64, deltas_per_s: f64, blocks: usize) -> ChurnPlan {
        ChurnPlan { rate, deltas_per_s, users_of_delta: 2, blocks, tags: false }
    }

    /// One block of two users, whose move from gateway 0 to 1 holds at both.
    fn moved() -> (Churn, Tally) {
        started(Duration::ZERO)
    }

    /// The same, this long before what is measured.
    fn started(warm_up: Duration) -> (Churn, Tally) {
        let plan = plan_of(1.0, 2.0, 1);
        let mut churn = Churn::new(plan, 10, 4).unwrap();
        let now = Instant::now();
        churn.begin(now, warm_up);
        churn.blocks[0] = Block { home: 1, declared: true, waits: 2, since: Some(now) };
        churn.pending[0].push_back((2, now, 0));
        churn.pending[1].push_back((2, now, 0));
        churn.in_effect(0, 2);
        assert!(churn.probes().is_empty(), "the other half of the move is open");
        churn.in_effect(1, 3);
        assert_eq!(churn.probes(), [(uid_of(10), [0; 8])]);
        let work = WorkPlan::single(10, 4);
        (churn, Tally::new(Rc::new(Work::new(work))))
    }

    fn names(tally: &mut Tally) -> Vec<String> {
        tally.end().into_iter().map(|fault| fault.name).collect()
    }

    #[test]
    fn a_message_after_a_move_is_right_at_the_new_gateway_once() {
        let (mut churn, mut tally) = moved();
        churn.delivered(1, uid_of(10), &[0; 8], &mut tally);
        churn.judge(&mut tally);
        assert_eq!((names(&mut tally), churn.arrived), (Vec::new(), 1));
        churn.delivered(1, uid_of(10), &[0; 8], &mut tally);
        assert_eq!(names(&mut tally), [fault::DUPLICATE]);
    }

    #[test]
    fn a_message_at_the_old_gateway_or_nowhere_is_a_fault() {
        let (mut churn, mut tally) = moved();
        churn.delivered(0, uid_of(10), &[0; 8], &mut tally);
        churn.judge(&mut tally);
        assert_eq!(names(&mut tally), [fault::LOST, fault::WRONG_GATEWAY]);
    }

    #[test]
    fn movers_begin_on_the_gateways_in_turn() {
        let plan = plan_of(1.0, 2.0, 3);
        let churn = Churn::new(plan, 10, 2).unwrap();
        let at = |gateway| (0..9).map_while(|n| churn.at_first(gateway, n)).collect::<Vec<_>>();
        assert_eq!(at(0), [10, 11, 14, 15].map(uid_of));
        assert_eq!(at(1), [12, 13].map(uid_of));
    }
    #[test]
    fn a_move_counts_from_when_it_was_due_and_one_without_a_block_is_counted() {
        let plan = plan_of(1.0, 20.0, 2);
        let mut churn = Churn::new(plan, 10, 2).unwrap();
        let began = Instant::now();
        churn.begin(began, Duration::ZERO);
        let (mut gateways, mut io) = (Vec::new(), Io::new().unwrap());
        // Moves are due ten times a second.
        let due = |n: u64| began + Duration::from_millis(100) * u32::try_from(n).unwrap();
        assert_eq!([0, 1, 25].map(|n| churn.due(began, n)), [0, 1, 25].map(due));
        assert_eq!(churn.depart(due(0)), Some((0, 0, 1)));
        assert_eq!(churn.depart(due(1)), Some((1, 1, 0)));
        assert_eq!(churn.blocks[1].since, Some(due(1)));
        churn.moves = 2;
        churn.turn(due(4), &mut gateways, &mut io).unwrap();
        assert_eq!((churn.moves, churn.not_begun), (5, 3), "moves 2, 3 and 4 found no block");
    }

    #[test]
    fn deltas_per_second_are_those_between_the_warm_up_and_the_last_turn() {
        let plan = plan_of(1.0, 1.0, 1);
        let mut churn = Churn::new(plan, 10, 2).unwrap();
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        churn.begin(began, 2 * second);
        churn.blocks[0].since = Some(began);
        assert!(churn.deltas_per_s().is_nan());
        for (at, deltas) in [(1, 100), (2, 110), (4, 130), (6, 150)] {
            churn.deltas = deltas;
            churn.turn(began + at * second, &mut [], &mut Io::new().unwrap()).unwrap();
        }
        // What comes while nothing is published any more.
        churn.deltas = 1000;
        assert!((churn.deltas_per_s() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_move_of_the_warm_up_is_in_no_histogram() {
        for (warm_up, count) in [(Duration::from_secs(60), 0), (Duration::ZERO, 1)] {
            let (mut churn, mut tally) = started(warm_up);
            churn.delivered(1, uid_of(10), &[0; 8], &mut tally);
            assert_eq!((churn.arrived, churn.deltas), (1, 2));
            let counts = (churn.in_effect_ns.len(), churn.reached_ns.len());
            assert_eq!(counts, (2 * count, count), "{warm_up:?}");
        }
    }
}
