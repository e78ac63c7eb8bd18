//! How a stream is cut into reads never changes what comes out.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_wire::fuzzing::deframe(data);
});
