//! Time of the route table with 10^5 and 10^6 routes, and of selectors:
//! `cargo bench --bench routing`.

mod measure;

use waybill_micro::{routing, selector};

fn main() {
    let mut criterion = measure::criterion();
    for routes in [100_000, 1_000_000] {
        measure::measure(&mut criterion, "routing", &routing::cases(routes));
    }
    measure::measure(&mut criterion, "routing", &routing::plans(100_000));
    measure::measure(&mut criterion, "selector", &selector::cases());
    criterion.final_summary();
}
