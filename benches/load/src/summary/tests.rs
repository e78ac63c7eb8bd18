//! The statistics, against sums done by hand and an oracle that counts cases one by one.

use proptest::prelude::*;

use super::*;

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
}

#[test]
fn a_median_is_the_middle_or_between_the_middle_two() {
    let odd = Spread::of(&[30.0, 10.0, 20.0]).expect("three values");
    assert_eq!((odd.median, odd.min, odd.max, odd.count), (20.0, 10.0, 30.0, 3));
    assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]).expect("four values").median, 2.5);
    assert_eq!(Spread::of(&[]), None);
    assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
}

/// From the table of the binomial distribution: 9 ratios give the 2nd and the 8th with 1 - 20/512,
/// 12 the 3rd and the 10th with 1 - 2 * 79/4096, 6 the outermost with 1 - 2/64.
#[test]
fn the_interval_of_a_median_is_that_of_the_tables() {
    let upto = |n: u32| (1..=n).map(f64::from).collect::<Vec<_>>();
    for (n, low, high, confidence) in
        [(6, 1.0, 6.0, 0.968_75), (9, 2.0, 8.0, 0.960_937_5), (12, 3.0, 10.0, 0.961_425_781_25)]
    {
        let interval = median_interval(&upto(n)).expect("an interval");
        assert_eq!((interval.low, interval.high), (low, high), "of {n}");
        assert!(close(interval.confidence, confidence), "of {n}: {interval:?}");
    }
    assert_eq!(median_interval(&upto(5)), None, "15 in 16 is under 95 %");
}

/// From the table of Mann and Whitney at 5 %, two sides: 4 and 4 give 0, 5 and 5 give 2, 9 and 9
/// give 17, 3 and 3 nothing.
#[test]
fn the_interval_between_two_runs_is_that_of_the_tables() {
    for (n, rank) in [(4_u32, 0_u32), (5, 2), (9, 17)] {
        let quotients: Vec<f64> = (0..n * n).map(f64::from).collect();
        let sides = usize::try_from(n).expect("small");
        let interval = rank_sum_interval(&quotients, sides, sides).expect("an interval");
        assert_eq!(interval.low, f64::from(rank), "of {n} and {n}");
        assert_eq!(interval.high, f64::from(n * n - 1 - rank), "of {n} and {n}");
    }
    let nine: Vec<f64> = (0..9).map(f64::from).collect();
    assert_eq!(rank_sum_interval(&nine, 3, 3), None);
}

fn pairs_of(ratios: &[f64]) -> Vec<(f64, f64)> {
    ratios.iter().map(|ratio| (ratio * 7.0, 7.0)).collect()
}

fn verdict_of(ratios: &[f64]) -> Verdict {
    Ratio::paired(&pairs_of(ratios)).expect("pairs").verdict
}

#[test]
fn a_small_difference_needs_nine_pairs_and_an_interval() {
    let ten_percent = [1.10, 1.11, 1.09, 1.12, 1.08, 1.10, 1.13, 1.09, 1.11];
    assert_eq!(verdict_of(&ten_percent), Verdict::Differs);
    assert_eq!(verdict_of(&ten_percent[..8]), Verdict::FewRepeats);
    let inverse: Vec<f64> = ten_percent.iter().map(|ratio| 1.0 / ratio).collect();
    assert_eq!(verdict_of(&inverse), Verdict::Differs);
    assert_eq!(verdict_of(&inverse[..8]), Verdict::FewRepeats);
    // Sorted, the 2nd is 0.97: the interval covers 1 in spite of nine pairs.
    let torn = [0.96, 0.97, 1.09, 1.10, 1.10, 1.10, 1.13, 1.14, 1.15];
    assert_eq!(verdict_of(&torn), Verdict::CoversOne);
}

#[test]
fn a_large_difference_stands_unless_repeats_contradict_it() {
    assert_eq!(verdict_of(&[1.30, 1.28, 1.35]), Verdict::Differs);
    assert_eq!(verdict_of(&[0.70, 0.72, 0.69]), Verdict::Differs);
    assert_eq!(verdict_of(&[1.30, 0.98, 1.90]), Verdict::CoversOne);
    assert_eq!(verdict_of(&[1.24, 1.24, 1.24]), Verdict::FewRepeats);
    assert_eq!(verdict_of(&[0.81, 0.81, 0.81]), Verdict::FewRepeats);
}

/// Repeat 2 was slow for both: the ratio is 2 in each pair though the ranges overlap.
#[test]
fn what_the_machine_does_to_both_of_a_pair_cancels_out() {
    let pairs = [(20.0, 10.0), (8.0, 4.0), (22.0, 11.0)];
    let ratio = Ratio::paired(&pairs).expect("pairs");
    assert_eq!((ratio.spread.min, ratio.spread.median, ratio.spread.max), (2.0, 2.0, 2.0));
    assert_eq!(ratio.verdict, Verdict::Differs);
}

#[test]
fn a_pair_with_nothing_on_a_side_is_no_pair() {
    assert_eq!(Ratio::paired(&[(1.0, 0.0), (0.0, 1.0)]), None);
    let ratio = Ratio::paired(&[(3.0, 2.0), (1.0, 0.0)]).expect("a pair");
    assert_eq!((ratio.spread.median, ratio.spread.count), (1.5, 1));
    assert_eq!(Ratio::unpaired(&[1.0], &[0.0]), None);
}

/// Quotients of 6, 8 by 2, 4: 1.5, 2, 3, 4, in the middle the root of 2 * 3.
#[test]
fn sides_without_pairs_give_all_their_quotients() {
    let ratio = Ratio::unpaired(&[6.0, 8.0], &[2.0, 4.0]).expect("both sides");
    assert!(close(ratio.spread.median, 6.0_f64.sqrt()), "{ratio:?}");
    assert_eq!((ratio.spread.min, ratio.spread.max, ratio.spread.count), (1.5, 4.0, 2));
}

/// How often, of all 2^n ways in which n values may fall below or above the true median, it lies
/// between the k-th least and the k-th greatest, k from 1.
fn coverage(n: u32, k: u32) -> f64 {
    let ways = 1_u32 << n;
    let held = (0..ways).filter(|way| (k..=n - k).contains(&way.count_ones())).count();
    count(held) / f64::from(ways)
}

/// How often, of all orders of `above` and `below` values that are alike, the first side is greater
/// in `u` pairs or fewer.
fn rank_tail(above: u32, below: u32, u: u32) -> f64 {
    let all = above + below;
    let (mut ways, mut held) = (0, 0);
    for order in (0_u32..1 << all).filter(|order| order.count_ones() == above) {
        // Bit i set: the i-th least of all is of the first side.
        let greater = (0..all).filter(|at| order >> at & 1 == 1);
        let pairs: u32 = greater
            .map(|at| (0..at).filter(|b| order >> b & 1 == 0).count())
            .map(|below| u32::try_from(below).expect("few"))
            .sum();
        ways += 1;
        held += u32::from(pairs <= u);
    }
    f64::from(held) / f64::from(ways)
}

#[test]
fn chances_of_ranks_are_those_of_all_orders() {
    for (above, below) in [(1, 1), (2, 3), (5, 4), (6, 6), (3, 9)] {
        let sides = (usize::try_from(above).expect("few"), usize::try_from(below).expect("few"));
        let chances = rank_sum_chances(sides.0, sides.1);
        assert_eq!(chances.len(), sides.0 * sides.1 + 1);
        let mut tail = 0.0;
        for (u, chance) in chances.iter().enumerate() {
            tail += chance;
            let counted = rank_tail(above, below, u32::try_from(u).expect("few"));
            assert!(close(tail, counted), "{above} and {below}, {u}: {tail}, counted {counted}");
        }
    }
}

/// Ratios as they come: mostly near 1, some far away.
fn ratios() -> impl Strategy<Value = Vec<f64>> {
    let one = prop_oneof![4 => 0.8_f64..1.3, 1 => 0.01_f64..100.0];
    prop::collection::vec(one, 1..14)
}

proptest! {
    #[test]
    fn a_paired_ratio_is_what_the_oracle_counts(ratios in ratios()) {
        let pairs = pairs_of(&ratios);
        let ratio = Ratio::paired(&pairs).expect("pairs");
        let median = ratio.spread.median;
        let below = ratios.iter().filter(|other| **other < median * (1.0 - 1e-9)).count();
        let above = ratios.iter().filter(|other| **other > median * (1.0 + 1e-9)).count();
        prop_assert!(below <= ratios.len() / 2 && above <= ratios.len() / 2);
        prop_assert!(ratios.iter().all(|r| ratio.spread.min <= r * 1.000_001));
        prop_assert!(ratios.iter().all(|r| ratio.spread.max >= r * 0.999_999));

        let n = u32::try_from(ratios.len()).expect("few");
        let k = (1..=n / 2).rev().find(|k| coverage(n, *k) >= CONFIDENCE);
        let mut sorted: Vec<f64> = pairs.iter().map(|(above, below)| above / below).collect();
        sorted.sort_by(f64::total_cmp);
        let expected = k.map(|k| {
            let at = usize::try_from(k).expect("few");
            (sorted[at - 1], sorted[sorted.len() - at], coverage(n, k))
        });
        let found = ratio.interval.map(|found| (found.low, found.high, found.confidence));
        match (expected, found) {
            (None, None) => {}
            (Some(expected), Some(found)) => {
                prop_assert_eq!((expected.0, expected.1), (found.0, found.1));
                prop_assert!(close(expected.2, found.2));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn a_to_b_is_the_inverse_of_b_to_a(ratios in ratios()) {
        let pairs = pairs_of(&ratios);
        let turned: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
        let (there, back) = (Ratio::paired(&pairs), Ratio::paired(&turned));
        let (there, back) = (there.expect("pairs"), back.expect("pairs"));
        prop_assert!(close(there.spread.median * back.spread.median, 1.0));
        prop_assert!(close(there.spread.min * back.spread.max, 1.0));
        prop_assert_eq!(there.verdict.differs(), back.verdict.differs());
    }

    #[test]
    fn nothing_under_a_quarter_differs_with_few_pairs(ratios in ratios()) {
        let ratio = Ratio::paired(&pairs_of(&ratios)).expect("pairs");
        let median = ratio.spread.median;
        if ratios.len() < PAIRS_MIN && (1.0 / 1.249..1.249).contains(&median) {
            prop_assert!(!ratio.verdict.differs());
        }
        if ratio.interval.is_some_and(|found| found.low <= 1.0 && found.high >= 1.0) {
            prop_assert!(!ratio.verdict.differs());
        }
    }

    #[test]
    fn ratios_do_not_depend_on_units_or_order(ratios in ratios(), turn in 0_usize..14) {
        let pairs = pairs_of(&ratios);
        let larger = pairs.iter().map(|(above, below)| (above * 1024.0, below * 1024.0));
        let mut turned: Vec<(f64, f64)> = larger.collect();
        turned.rotate_left(turn % ratios.len());
        prop_assert_eq!(Ratio::paired(&pairs), Ratio::paired(&turned));
    }
}
