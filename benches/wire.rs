//! Time of the codec, the deframer and a step of the session: `cargo bench --bench wire`.

mod measure;

fn main() {
    let mut criterion = measure::criterion();
    measure::measure(&mut criterion, "wire", &waybill_micro::wire::cases());
    criterion.final_summary();
}
