//! Selectors the whole way: tags of login tokens, gateways as processes of their own, and
//! `waybill pub --selector` in every mode, against what a look at each connection says.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::Place;
use crate::users::{SECRET, User, login_tagged, next};

const GATEWAYS: usize = 3;
/// Connections, of fewer users.
const CONNECTIONS: usize = 60;
const USERS: u64 = 40;
const NOWHERE: u64 = 999;
const MODES: [&str; 3] = ["direct", "broadcast", "auto"];

struct Connection {
    uid: u64,
    tags: Vec<&'static str>,
    socket: User,
}

impl Connection {
    fn has(&self, tag: &str) -> bool {
        self.tags.contains(&tag)
    }
}

fn tags(number: usize) -> Vec<&'static str> {
    let each = [
        (number.is_multiple_of(2), "vip"),
        (number % 6 < 3, "geo:sh"),
        (number % 6 == 4, "geo:bj"),
        (number.is_multiple_of(5), "group:42"),
        (number.is_multiple_of(7), "two words"),
    ];
    each.into_iter().filter(|(has, _)| *has).map(|(_, tag)| tag).collect()
}

/// A selector and what it means.
type Case = (&'static str, fn(&Connection) -> bool);

const CASES: [Case; 6] = [
    ("vip", |it| it.has("vip")),
    ("group:42 & (geo:sh | geo:bj) & !vip", |it| {
        it.has("group:42") && (it.has("geo:sh") || it.has("geo:bj")) && !it.has("vip")
    }),
    ("\"two words\"", |it| it.has("two words")),
    ("!(geo:sh | geo:bj)", |it| !it.has("geo:sh") && !it.has("geo:bj")),
    ("!vip & !nobody-has-it", |it| !it.has("vip")),
    ("nobody-has-it", |_| false),
];

/// A line for `pub --lines`, and the place of its case and whether it has a list.
fn messages() -> Vec<(Value, usize, bool)> {
    let mut all = Vec::new();
    for mode in MODES {
        for (case, (selector, _)) in CASES.iter().enumerate() {
            for has_list in [false, true] {
                let data = all.len().to_string();
                let mut line = json!({ "selector": selector, "mode": mode, "data": data });
                if has_list {
                    line["uids"] = (1..=USERS / 2).chain([NOWHERE]).collect();
                    line["except"] = json!([3, 4]);
                }
                all.push((line, case, has_list));
            }
        }
    }
    all
}

fn is_listed(uid: u64) -> bool {
    uid <= USERS / 2 || uid == NOWHERE
}

fn is_excepted(uid: u64) -> bool {
    [3, 4].contains(&uid)
}

async fn logins(gateways: &[std::net::SocketAddr]) -> Vec<Connection> {
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        let (uid, tags) = (1 + number as u64 % USERS, tags(number));
        // The second connection of a user is at another gateway.
        let socket = login_tagged(gateways[number % GATEWAYS], uid, &tags).await;
        connections.push(Connection { uid, tags, socket });
    }
    connections
}

/// What the receipt of a message with a list says: `filtered` is who is there and not meant.
fn check(receipt: &Value, connections: &[Connection], matches: fn(&Connection) -> bool) {
    let of = |meant: &dyn Fn(u64) -> bool| (1..=USERS / 2).filter(|uid| meant(*uid)).collect();
    let matching: BTreeSet<u64> =
        connections.iter().filter(|it| matches(it)).map(|it| it.uid).collect();
    let is_reached = |uid: u64| matching.contains(&uid) && !is_excepted(uid);
    let (reached, filtered): (Vec<u64>, Vec<u64>) = (of(&is_reached), of(&|uid| !is_reached(uid)));
    assert_eq!(receipt["sent"], json!(reached.len()), "{receipt}");
    let filtered: Vec<String> = filtered.iter().map(u64::to_string).collect();
    assert_eq!(receipt["filtered"], json!(filtered), "{receipt}");
    assert_eq!(receipt["offline"], json!([NOWHERE.to_string()]), "{receipt}");
}

/// SEL-6, SEL-7, TGT-1, TGT-6, WS-16.
#[tokio::test]
async fn promise_1_the_mode_changes_the_cost_and_a_selector_reaches_whom_it_is_for() {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let (_broker, broker) = place.serve("broker", &[]);
    let broker = broker.to_string();
    let serve = |_| place.serve("gateway", &["--broker", &broker]);
    let (_servers, gateways): (Vec<_>, Vec<_>) = (0..GATEWAYS).map(serve).unzip();
    let mut connections = logins(&gateways).await;

    let messages = messages();
    let mut lines = String::new();
    for (line, ..) in &messages {
        writeln!(lines, "{line}").unwrap();
    }
    let publish = ["pub", "--json", "--broker", &broker, "--receipt", "delivered", "--lines", "-"];
    let ended = place.run_with(&publish, lines.as_bytes());
    ended.check(0, &[]);
    let receipts = ended.json();
    assert_eq!(receipts.len(), messages.len());
    for (receipt, (_, case, has_list)) in receipts.iter().zip(&messages) {
        if *has_list {
            check(receipt, &connections, CASES[*case].1);
        }
    }

    place.run(&["pub", "--broker", &broker, "--all", "last"]).check(0, &[]);
    for connection in &mut connections {
        let meant = messages.iter().enumerate().filter(|(_, (_, case, has_list))| {
            let in_list = is_listed(connection.uid) && !is_excepted(connection.uid);
            CASES[*case].1(connection) && (!has_list || in_list)
        });
        let mut expected: Vec<String> = meant.map(|(number, _)| number.to_string()).collect();
        expected.push("last".into());
        for expected in expected {
            let message = next(&mut connection.socket).await;
            assert_eq!(
                message["data"],
                json!(expected),
                "{} {:?}",
                connection.uid,
                connection.tags
            );
            // SEC-25
            assert!(!message.to_string().contains("geo:"), "{message}");
        }
    }
}

/// With nothing set.
#[tokio::test]
async fn up_delivers_by_a_selector() {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let up = place.up();
    let gateway = up.json()["gateway"].as_str().unwrap().parse().unwrap();
    let mut phone = login_tagged(gateway, 1001, &["platform:ios", "geo:sh"]).await;
    let mut laptop = login_tagged(gateway, 1001, &["geo:sh"]).await;
    let ended = place.run(&["pub", "--selector", "geo:sh & !platform:ios", "to laptops"]);
    ended.check(0, &[]);
    assert_eq!(ended.stdout, "to everyone who matches, gateways 1\n");
    place.run(&["pub", "--all", "last"]).check(0, &[]);
    assert_eq!(next(&mut laptop).await["data"], "to laptops");
    assert_eq!(next(&mut laptop).await["data"], "last");
    assert_eq!(next(&mut phone).await["data"], "last");
}
