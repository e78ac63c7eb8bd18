//! The route table answers as the naive oracle does.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_routing::fuzzing::operations(data);
});
