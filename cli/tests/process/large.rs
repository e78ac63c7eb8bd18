//! Payloads that are longer than any frame: from a file or stdin to a subscriber and to a user's
//! WebSocket, byte for byte, with other messages between.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::Place;
use crate::users::{SECRET, login, next};

/// Three MiB that are no text.
fn payload() -> Vec<u8> {
    (0..3 << 20).map(|at: u32| u8::try_from((at ^ at >> 8) % 255).unwrap()).collect()
}

fn data(message: &Value) -> Vec<u8> {
    STANDARD.decode(message["data64"].as_str().unwrap()).unwrap()
}

/// FRG-1, FRG-5.
#[tokio::test]
async fn three_mebibytes_arrive_byte_for_byte_from_a_file_and_from_stdin() {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let up = place.up();
    let ready = up.json();
    let mut sub = place.start(&["sub", "--json", "--uid", "7", "--count", "3"]);
    sub.says("listening");
    let mut user = login(ready["gateway"].as_str().unwrap().parse().unwrap(), 1001).await;
    let (payload, both) = (payload(), "7,1001");
    let file = place.file("payload", &payload);
    // The user reads only when its test does: who waits for a report would wait in vain.
    let routed = ["pub", "--json", "--uid", both, "--payload-file"];
    for (from, stdin) in [(&*file, &[][..]), ("-", &payload)] {
        let told = place.run_with(&[&routed[..], &[from]].concat(), stdin);
        told.check(0, &[]);
        assert_eq!(told.json()[0]["sent"], 2, "{told:?}");
        assert!(data(&sub.json()) == payload, "from {from} to the subscriber");
        assert!(data(&next(&mut user).await) == payload, "from {from} to the user");
    }
    place.run(&["pub", "--uid", both, "small"]).check(0, &[]);
    assert_eq!(
        (&sub.json()["data"], &next(&mut user).await["data"]),
        (&json!("small"), &json!("small"))
    );
    sub.end().check(0, &[]);
}

/// The limit is named where a payload is beyond any message.
#[test]
fn what_no_message_can_hold_is_told_with_the_limit() {
    let place = Place::new();
    let file = place.file("payload", vec![0; (16 << 20) + 1]);
    place.run(&["pub", "--uid", "1", "--payload-file", &file]).check(1, &["16777216 bytes"]);
}
