//! Times cases of `waybill-micro` with criterion, by their elements.

use std::io::Write as _;
use std::time::Duration;

use criterion::measurement::{Measurement as _, WallTime};
use criterion::{Criterion, Throughput};
use waybill_micro::{Case, SEED};

/// Short enough that all cases of a file are done in a minute or so; `--measurement-time` asks for
/// more.
const MEASUREMENT: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_secs(1);
const SAMPLES: usize = 50;

/// Settings of every bench; arguments of the command line go before them.
pub(crate) fn criterion() -> Criterion {
    let _nobody_reads = writeln!(std::io::stderr(), "inputs from seed {SEED:#x}");
    Criterion::default()
        .measurement_time(MEASUREMENT)
        .warm_up_time(WARM_UP)
        .sample_size(SAMPLES)
        .configure_from_args()
}

/// Times each case; what it prepares is left out.
pub(crate) fn measure(criterion: &mut Criterion, group: &str, cases: &[Case]) {
    let mut group = criterion.benchmark_group(group);
    for case in cases {
        group.throughput(Throughput::Elements(case.elements as u64));
        // Criterion calls for every sample, and asks for no input of a case that is filtered out.
        let mut work = None;
        group.bench_function(&case.name, |bencher| {
            let work = work.get_or_insert_with(|| case.work());
            if !case.prepares {
                return bencher.iter(|| work.run());
            }
            bencher.iter_custom(|runs| {
                let mut spent = WallTime.zero();
                for _ in 0..runs {
                    work.prepare();
                    let start = WallTime.start();
                    std::hint::black_box(work.run());
                    spent = WallTime.add(&spent, &WallTime.end(start));
                }
                spent
            });
        });
    }
    group.finish();
}
