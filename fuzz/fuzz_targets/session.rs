//! No order of frames, times and calls breaks the session machine.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_wire::fuzzing::session(data);
});
