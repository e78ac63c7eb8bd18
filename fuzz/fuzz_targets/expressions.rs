//! Selectors and filters are one expression each, and a selector's bytes and text say the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_wire::fuzzing::expressions(data);
});
