//! `sub --consumer` with a group, presence and messages that found users offline.

use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Place, Running};
use crate::users::{SECRET, login, next};

const WANTED: [&str; 6] = ["sub", "--consumer", "--presence", "--offline", "--count", "4"];

fn consumer(place: &Place, more: &[&str]) -> Running {
    let sub = place.start(&[&WANTED[..], more].concat());
    sub.says("listening");
    sub
}

#[tokio::test]
async fn each_group_is_told_what_users_do_and_who_was_offline() {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let up = place.up();
    let ready = up.json();
    let audit = consumer(&place, &["--group", "audit", "--json"]);
    let people = consumer(&place, &["--group", "people"]);
    let filter = "label=order | kind=uplink & uid=1000..1001";
    let few = ["sub", "--consumer", "--presence", "--offline", "--count", "2", "--json"];
    let mut filtered = place.start(&[&few[..], &["--group", "few", "--filter", filter]].concat());
    filtered.says("listening");

    let mut user = login(ready["gateway"].as_str().unwrap().parse().unwrap(), 1001).await;
    let came = audit.json();
    assert_eq!((&came["presence"], &came["uid"]), (&json!("login"), &json!("1001")));
    assert_eq!((&came["login"], &came["device_class"]), (&json!("0"), &json!(0)));
    let gateway = came["gateway"].as_str().unwrap();
    let expected = format!("1001 login, device class 0, login 0, gateway {gateway}");
    assert_eq!(people.line(), expected);

    let told = place.run(&["pub", "--uid", "1001,4242", "--uid", "7", "--label", "order", "paid"]);
    told.check(0, &[]);
    let offline = audit.json();
    assert_eq!((&offline["offline"], &offline["data"]), (&json!(["4242", "7"]), &json!("paid")));
    assert_eq!(offline["labels"], json!(["order"]));
    assert_eq!(people.line(), "offline: 4242 7 <- [order] paid");

    assert_eq!(next(&mut user).await["data"], "paid");
    let up = r#"{"type":"send","id":1,"data":"from a user"}"#;
    user.send(Message::text(up)).await.unwrap();
    let message = audit.json();
    assert_eq!((&message["from"], &message["data"]), (&json!("1001"), &json!("from a user")));
    assert_eq!(people.line(), "1001 -> from a user");

    assert_eq!(filtered.json()["labels"], json!(["order"]));
    assert_eq!(filtered.json()["data"], "from a user");
    filtered.end().check(0, &[]);

    user.close(None).await.unwrap();
    assert_eq!(audit.json()["presence"], "logout");
    assert!(people.line().starts_with("1001 logout, "));
    for mut sub in [audit, people] {
        sub.end().check(0, &[]);
    }
}

#[test]
fn a_filter_that_is_none_is_refused_with_the_place() {
    let place = Place::new();
    let told = place.run(&["sub", "--consumer", "--filter", "kind=publish"]);
    told.check(2, &["filters", "kind=publish", "no value of its field", "at byte 5"]);
}
