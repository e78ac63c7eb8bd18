//! An accepted frame encodes to the same bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_wire::fuzzing::decode(data);
});
