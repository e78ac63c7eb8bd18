//! The test of the test: each planted bug is found by the seeds that are known to find it, and the
//! same seeds are clean without it.
//!
//! The seeds are what `waybill-sim --hunt` prints. They depend on every choice a run makes: whoever
//! changes the simulator hunts again.

use waybill_sim::{run, run_with};
use waybill_wire::planted::Bug;

fn seeds_of(bug: Bug) -> Vec<u64> {
    let table: toml::Table = include_str!("planted.toml").parse().expect("planted.toml is TOML");
    let seeds = table[&format!("{bug:?}")].as_array().expect("a list of seeds").iter();
    seeds.map(|seed| u64::try_from(seed.as_integer().expect("a seed")).expect("a seed")).collect()
}

#[test]
fn each_planted_bug_is_found_by_its_seeds_and_they_are_clean_without_it() {
    for bug in Bug::ALL {
        let seeds = seeds_of(bug);
        assert!(!seeds.is_empty(), "{bug:?} is not found by any seed");
        for seed in seeds {
            assert!(run_with(bug, seed).is_err(), "{bug:?} is not found by seed {seed}");
            assert_eq!(run(seed, false).err(), None, "seed {seed} without {bug:?}");
        }
    }
}
