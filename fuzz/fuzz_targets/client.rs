//! No bytes an end user sends make the gateway panic, in either subprotocol.
#![no_main]

use waybill_gateway::subprotocol::Subprotocol;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let message = data.to_vec().into();
    let _ = (Subprotocol::Json.decode(&message), Subprotocol::Binary.decode(&message));
});
