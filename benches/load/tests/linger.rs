//! The engine listens on when all is there: what comes again after the last delivery is a fault.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use waybill_bench::clock::Clock;
use waybill_bench::driver::{Audience, Driver, Message};
use waybill_bench::engine::pace::Pace;
use waybill_bench::engine::{Engine, Spans, Usage};
use waybill_bench::failure::Failure;
use waybill_bench::io::Io;
use waybill_bench::tally::{Fault, Tally, fault};
use waybill_bench::work::{Shares, Work, WorkPlan, gateway_of};

const GATEWAYS: usize = 4;

/// Turns after the last delivery, until it comes again.
const TURNS: u32 = 5;

/// What a test looks at when the run is over.
#[derive(Debug, Default)]
struct Seen {
    completed: Option<Instant>,
    turned: Option<Instant>,
    finished: u32,
}

/// Delivers at every turn what was published since the last one. With `repeats`, the last message
/// of the run again.
struct Fake {
    repeats: bool,
    published: Vec<(u64, Vec<u8>)>,
    last: Option<(u64, Vec<u8>)>,
    silent: u32,
    seen: Rc<RefCell<Seen>>,
}

fn deliver(tally: &mut Tally, (uid, payload): &(u64, Vec<u8>)) {
    tally.delivered(gateway_of(*uid, GATEWAYS), payload, [*uid]);
}

impl Driver for Fake {
    fn connect(&mut self, _io: &mut Io) -> Result<(), Failure> {
        Ok(())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn users_ready(&self) -> u64 {
        10
    }

    fn publish(&mut self, message: &Message<'_>, _io: &mut Io) -> Result<(), Failure> {
        let Audience::Users([uid]) = message.audience else { panic!("it is for one user") };
        self.published.push((*uid, message.payload.to_vec()));
        Ok(())
    }

    fn turn(&mut self, _clock: &Clock, tally: &mut Tally) -> Result<bool, Failure> {
        let mut seen = self.seen.borrow_mut();
        seen.turned = Some(Instant::now());
        if self.published.is_empty() {
            self.silent += 1;
            if self.repeats && self.silent == TURNS {
                deliver(tally, self.last.as_ref().unwrap());
            }
            // Bytes of a frame that is not whole yet, as far as the engine knows: no pause of the
            // machine between two turns ends the run before the repetition.
            return Ok(self.repeats && self.silent <= TURNS);
        }
        self.published.iter().for_each(|message| deliver(tally, message));
        (self.silent, self.last) = (0, self.published.pop());
        self.published.clear();
        seen.completed = Some(Instant::now());
        Ok(true)
    }

    fn finish(&mut self, tally: &mut Tally) {
        assert_eq!(tally.in_flight(), 0);
        self.seen.borrow_mut().finished += 1;
    }
}

/// Faults of a short run, and what was seen of it.
fn run(repeats: bool) -> (Vec<Fault>, Seen) {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let (published, last, silent) = (Vec::new(), None, 0);
    let fake = Fake { repeats, published, last, silent, seen: Rc::clone(&seen) };
    let work = Rc::new(Work::new(WorkPlan {
        seed: 1,
        users: 10,
        gateways: GATEWAYS,
        payload_bytes: 16,
        shares: Shares::SINGLE,
        groups: 0,
        group_uids: 1,
    }));
    let mut tally = Tally::new(Rc::clone(&work));
    let mut engine = Engine::connect(Box::new(fake), true).unwrap();
    let spans = Spans {
        warm_up: Duration::from_millis(1),
        measured: Duration::from_millis(5),
        drain: Duration::from_secs(30),
    };
    let usage = &mut Usage::default;
    engine.run(&work, &mut tally, Pace::Window(8), spans, usage).unwrap();
    drop(engine);
    (tally.end(), Rc::into_inner(seen).unwrap().into_inner())
}

#[test]
fn the_last_message_again_some_turns_later_is_a_duplicate() {
    let (faults, seen) = run(true);
    let names: Vec<_> = faults.iter().map(|fault| (&*fault.name, fault.count)).collect();
    assert_eq!((names, seen.finished), (vec![(fault::DUPLICATE, 1)], 1));
}

#[test]
fn a_run_in_which_nothing_comes_again_listens_on_all_the_same() {
    let (faults, seen) = run(false);
    assert_eq!((faults, seen.finished), (Vec::new(), 1));
    let listened = seen.turned.unwrap().duration_since(seen.completed.unwrap());
    assert!(listened >= Duration::from_millis(20), "{listened:?}");
}
