//! A narrowed frame differs from its original in what narrowing may change, and in nothing else.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_wire::fuzzing::narrow(data);
});
