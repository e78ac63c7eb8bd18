//! Tags and selectors from outside: what a broker is told, who gets a message, what is reported.

use waybill_wire::code::{Level, Op};
use waybill_wire::{MessageHead, Selector, selector};

use crate::support::{JSON, Site, User, login, run, token};

async fn ready(user: &mut User) {
    let ready = user.hear().await;
    assert_eq!(ready["type"], "ready", "{ready}");
    let mut members: Vec<&str> = ready.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    let known = ["connection", "heartbeat_ms", "namespace", "type", "uid"];
    assert_eq!(members, known, "SEC-25: nobody is told of tags");
}

async fn user(site: &Site, uid: u64, tags: &[&str]) -> User {
    let mut user = site.tagged(uid, tags).await;
    ready(&mut user).await;
    user
}

/// Sends a message by a selector, to these UIDs or to all.
async fn select(site: &Site, sequence: u64, text: &str, uids: &[u64], payload: &str) {
    let bytes = selector::parse(text).unwrap();
    let selector = Selector::check(&bytes).ok();
    let head = MessageHead { sequence, selector, level: Level::DELIVERED, ..Default::default() };
    site.broker.deliver(head, uids, payload.as_bytes()).await;
}

async fn to_all(site: &Site, sequence: u64) {
    let head = MessageHead { sequence, everyone: true, ..MessageHead::default() };
    site.broker.deliver(head, &[], b"all").await;
}

#[test]
fn promise_1_a_selector_reaches_exactly_the_connections_that_match() {
    run(async {
        let mut site = Site::start(|_| ()).await;
        let mut phone = user(&site, 1001, &["geo:sh", "platform:ios"]).await;
        let mut laptop = user(&site, 1001, &["geo:sh"]).await;
        let mut other = user(&site, 1002, &["geo:bj"]).await;
        let mut bare = site.user(1003).await;
        select(&site, 1, "(geo:sh | geo:bj) & !platform:ios", &[], "one").await;
        assert_eq!(site.broker.reports.recv().await, Some((1, [2, 0, 0, 0, 0])), "SEL-8");
        select(&site, 2, "!geo:bj", &[1001, 1002, 1003, 7], "two").await;
        // 1002 is here and does not match, 7 is not here (SEL-7).
        assert_eq!(site.broker.reports.recv().await, Some((2, [2, 1, 0, 0, 1])), "REP-2");
        select(&site, 3, "vip", &[], "three").await;
        assert_eq!(site.broker.reports.recv().await, Some((3, [0, 0, 0, 0, 0])));
        to_all(&site, 4).await;
        let got = async |user: &mut User, count: usize| {
            let mut got = Vec::new();
            for _ in 0..count {
                got.push(user.data().await);
            }
            got
        };
        assert_eq!(got(&mut phone, 2).await, ["two", "all"]);
        assert_eq!(got(&mut laptop, 3).await, ["one", "two", "all"]);
        assert_eq!(got(&mut other, 2).await, ["one", "all"]);
        assert_eq!(got(&mut bare, 2).await, ["two", "all"]);
        let stats = site.gateway.stats();
        assert_eq!((stats.messages_selected, stats.tags, stats.filtered), (3, 3, 1));
    });
}

#[test]
fn sec_25_a_message_does_not_carry_its_selector_to_a_client() {
    run(async {
        let site = Site::start(|_| ()).await;
        let mut user = user(&site, 1001, &["vip"]).await;
        select(&site, 1, "vip & !geo:bj", &[1001], "hello").await;
        let message = user.hear().await.to_string();
        assert!(message.contains("hello"), "{message}");
        assert!(!message.contains("vip") && !message.contains("geo"), "{message}");
    });
}

#[test]
fn sec_26_what_a_client_says_gives_it_no_tag() {
    run(async {
        let mut site = Site::start(|_| ()).await;
        let _other = user(&site, 1002, &["a"]).await;
        let mut user = User::connect(site.address(), JSON).await;
        let login = login(&token(0, 1001, 3600));
        user.say(&login.replacen('{', r#"{"tags":["vip"],"#, 1)).await;
        ready(&mut user).await;
        user.say(r#"{"type":"tag","tags":["vip"]}"#).await;
        assert_eq!(user.closed().await.0, 4502, "no client says that");
        site.broker.until_tags(&[(0, "a")]).await;
    });
}

#[test]
fn reg_6_nobody_is_ready_before_a_broker_has_their_tags() {
    run(async {
        let mut site = Site::start(|_| ()).await;
        let _first = site.user(1001).await;
        site.broker.hold(true).await;
        // The registration is in effect already; the tag of this connection is not.
        let mut late = site.tagged(1001, &["vip"]).await;
        site.broker.until_tags(&[(0, "vip")]).await;
        late.say(r#"{"type":"ping"}"#).await;
        assert_eq!(late.hear().await["type"], "pong", "not ready");
        site.broker.hold(false).await;
        ready(&mut late).await;
    });
}

#[test]
fn tag_3_what_connections_have_is_declared_also_to_a_broker_that_comes_back() {
    run(async {
        let mut site = Site::start(|_| ()).await;
        let one = user(&site, 1, &["a", "b"]).await;
        let other = user(&site, 2, &["b", "c"]).await;
        site.broker.until_tags(&[(0, "a"), (0, "b"), (0, "c")]).await;
        drop(one);
        site.broker.until_tags(&[(0, "b"), (0, "c")]).await;
        site.broker.hang_up().await;
        site.broker.until_tags(&[]).await;
        site.broker.accept_again().await;
        site.broker.until_tags(&[(0, "b"), (0, "c")]).await;
        drop(other);
        site.broker.until_tags(&[]).await;
    });
}

#[test]
fn tag_16_a_backend_gives_tags_and_is_told_when_the_broker_has_them() {
    run(async {
        let mut site = Site::start(|_| ()).await;
        let mut one = user(&site, 1, &["a"]).await;
        let mut other = user(&site, 2, &[]).await;
        site.broker.hold(true).await;
        let changes = [(Op::ADD, "vip"), (Op::REMOVE, "a")];
        site.broker.tag(1, &[1, 2, 7], &changes).await;
        site.broker.until_tags(&[(0, "vip")]).await;
        // In effect here at once (TAG-15); told when the broker knows of it.
        select(&site, 2, "vip & !a", &[], "for vips").await;
        assert_eq!(site.broker.reports.recv().await, Some((2, [2, 0, 0, 0, 0])));
        site.broker.hold(false).await;
        assert_eq!(site.broker.reports.recv().await, Some((1, [2, 1, 0, 0, 0])));
        assert_eq!((one.data().await, other.data().await), ("for vips".into(), "for vips".into()));
        // The broker has it already; a connection that comes to the registration has it too.
        site.broker.tag(3, &[2], &[(Op::ADD, "vip")]).await;
        assert_eq!(site.broker.reports.recv().await, Some((3, [1, 0, 0, 0, 0])));
        let mut late = user(&site, 2, &["a"]).await;
        select(&site, 4, "vip & !a", &[2], "again").await;
        assert_eq!(site.broker.reports.recv().await, Some((4, [1, 0, 0, 0, 0])));
        assert_eq!((other.data().await, late.data().await), ("again".into(), "again".into()));
        drop((other, late));
        site.broker.tag(5, &[1], &[(Op::REMOVE, "vip")]).await;
        assert_eq!(site.broker.reports.recv().await, Some((5, [1, 0, 0, 0, 0])));
        site.broker.until_tags(&[]).await;
        assert_eq!(site.gateway.stats().taggings, 3);
    });
}

#[test]
fn tag_16_what_the_broker_does_not_confirm_in_time_is_unknown() {
    run(async {
        let mut site = Site::start(|config| {
            config.deadlines.report_ms = 100;
        })
        .await;
        let _user = user(&site, 1, &[]).await;
        site.broker.hold(true).await;
        site.broker.tag(1, &[1, 7], &[(Op::ADD, "vip")]).await;
        assert_eq!(site.broker.reports.recv().await, Some((1, [0, 1, 0, 1, 0])));
        site.broker.hold(false).await;
    });
}

#[test]
fn tag_9_more_tags_than_there_is_room_for() {
    run(async {
        let mut site = Site::start(|config| {
            config.limits.tags_per_connection_max = 2;
            config.limits.tags_max = 3;
        })
        .await;
        let _one = user(&site, 1, &["a", "b"]).await;
        let (code, reason) = site.tagged(2, &["a", "b", "c"]).await.closed().await;
        assert_eq!((code, &*reason), (4005, "the connection has too many tags"));
        let _other = user(&site, 2, &["c"]).await;
        let (code, reason) = site.tagged(3, &["d"]).await.closed().await;
        let words = "the connections of this gateway have too many tags";
        assert_eq!((code, &*reason), (4005, words));
        site.broker.tag(1, &[1, 2], &[(Op::ADD, "b")]).await;
        assert_eq!(site.broker.reports.recv().await, Some((1, [2, 0, 0, 0, 0])));
        site.broker.tag(2, &[1, 2], &[(Op::ADD, "d")]).await;
        assert_eq!(site.broker.reports.recv().await, Some((2, [0, 0, 2, 0, 0])));
        assert_eq!(site.gateway.stats().taggings_refused, 2);
    });
}

#[test]
fn ws_16_a_token_whose_tags_are_none_is_a_bad_token() {
    run(async {
        let site = Site::start(|_| ()).await;
        assert_eq!(site.tagged(1, &["a\tb"]).await.closed().await.0, 4500);
    });
}

#[test]
fn tag_7_a_gateway_that_does_not_offer_tags_says_nothing_of_them() {
    run(async {
        let mut site = Site::start(|config| config.broker.tags = false).await;
        let mut one = user(&site, 1, &["vip"]).await;
        // A TAG is of no concern to it, nor does it end the link.
        site.broker.tag(1, &[1], &[(Op::ADD, "x")]).await;
        select(&site, 2, "vip", &[1], "still served").await;
        assert_eq!(site.broker.reports.recv().await, Some((2, [1, 0, 0, 0, 0])));
        assert_eq!(one.data().await, "still served");
        site.broker.until_tags(&[]).await;
    });
}

#[test]
fn sec_6_a_report_on_another_message_of_the_same_number_is_not_taken_for_that_on_a_tag() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let _one = user(&site, 1, &[]).await;
        let mut other = user(&site, 2, &[]).await;
        site.broker.hold(true).await;
        site.broker.tag(1, &[1], &[(Op::ADD, "vip")]).await;
        site.broker.until_tags(&[(0, "vip")]).await;
        let head = MessageHead { sequence: 1, level: Level::DELIVERED, ..Default::default() };
        site.broker.deliver(head, &[2, 7], b"takes its number").await;
        assert_eq!(other.data().await, "takes its number");
        // It has been handed over, and is told of after the TAG alone.
        select(&site, 2, "!vip", &[2, 1], "marks the time").await;
        assert_eq!(site.broker.reports.recv().await, Some((2, [1, 0, 0, 0, 1])));
        site.broker.hold(false).await;
        assert_eq!(site.broker.reports.recv().await, Some((1, [1, 0, 0, 0, 0])));
        assert_eq!(site.broker.reports.recv().await, Some((1, [1, 1, 0, 0, 0])));
    });
}
