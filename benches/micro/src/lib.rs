//! Small pieces of wire and routing to be measured: the same cases for time (`benches/wire.rs`,
//! `benches/routing.rs`) and for instructions ([`count`], [`baseline`]).
//!
//! Every input follows from [`SEED`]. Only what the crates show to everybody is used, so that a
//! table or a codec can be replaced and measured against the one before. Never here: a clock.

use std::hint::black_box;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub mod baseline;
pub mod count;
pub mod routing;
pub mod selector;
pub mod wire;

/// Where every input comes from. Programs print it beside their figures.
pub const SEED: u64 = 0x5741_5942_494c_4c01;

/// Single messages that one run of a case takes, as a broker takes what one read brought.
pub const BATCH: usize = 64;

/// Targets of a long list.
pub const LIST: usize = 1_000;

/// Payload of every message, in bytes.
pub const PAYLOAD_BYTES: usize = 128;

/// UID of the first user; the others follow it.
pub const FIRST_UID: u64 = 1_000_000_000;

/// A piece of work that can be done again and again.
pub trait Work {
    /// Puts things as [`Work::run`] needs to find them. Not measured.
    fn prepare(&mut self) {}

    /// Does what is measured; how many elements it dealt with.
    fn run(&mut self) -> u64;
}

impl<F: FnMut() -> u64> Work for F {
    fn run(&mut self) -> u64 {
        self()
    }
}

/// Something to measure.
pub struct Case {
    /// What is measured, after its group: `decode PUBLISH/1`.
    pub name: String,
    /// What [`Work::run`] returns: the elements that its cost is divided by.
    pub elements: usize,
    /// Whether [`Work::prepare`] is needed before each run.
    pub prepares: bool,
    make: Box<dyn Fn() -> Box<dyn Work>>,
}

impl Case {
    fn plain<W, M>(name: impl Into<String>, elements: usize, make: M) -> Self
    where
        W: FnMut() -> u64 + 'static,
        M: Fn() -> W + 'static,
    {
        let make = Box::new(move || Box::new(make()) as Box<dyn Work>);
        Self { name: name.into(), elements, prepares: false, make }
    }

    fn prepared<W, M>(name: impl Into<String>, elements: usize, make: M) -> Self
    where
        W: Work + 'static,
        M: Fn() -> W + 'static,
    {
        let make = Box::new(move || Box::new(make()) as Box<dyn Work>);
        Self { name: name.into(), elements, prepares: true, make }
    }

    /// Builds its inputs. The first run may still grow buffers.
    #[must_use]
    pub fn work(&self) -> Box<dyn Work> {
        (self.make)()
    }
}

/// All cases for [`count`], `wire/...`, `routing/...` and `selector/...`, small enough for a
/// simulated machine.
#[must_use]
pub fn counted_cases() -> Vec<Case> {
    let named = |group: &'static str| {
        move |case: Case| Case { name: format!("{group}/{}", case.name), ..case }
    };
    let routing = routing::cases(10_000).into_iter().chain(routing::plans(10_000));
    let selector = selector::cases().into_iter().map(named("selector"));
    let routing = routing.map(named("routing")).chain(selector);
    wire::cases().into_iter().map(named("wire")).chain(routing).collect()
}

/// The random numbers of one case: the same whichever other cases are made.
fn random() -> SmallRng {
    SmallRng::seed_from_u64(SEED)
}

/// `count` different users out of the first `users`, in no order.
fn some_uids(random: &mut SmallRng, users: usize, count: usize) -> Vec<u64> {
    let places = rand::seq::index::sample(random, users, count);
    places.into_iter().map(|place| FIRST_UID + place as u64).collect()
}

/// Keeps the compiler from knowing the input and from leaving the work out.
fn opaque<T>(value: T) -> T {
    black_box(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_does_what_it_is_divided_by() {
        let cases = counted_cases();
        let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len(), "a name names one case");
        for case in &cases {
            let mut work = case.work();
            for run in 0..3 {
                if case.prepares {
                    work.prepare();
                }
                assert_eq!(work.run(), case.elements as u64, "{}, run {run}", case.name);
            }
        }
    }
}
