//! Nobody reads stdout any more: a quiet end.

use crate::support::Place;

#[test]
fn a_closed_stdout_ends_quietly() {
    let place = Place::new();
    let ping = "01 04 02 00 00 00 00 00  00 00 00 00 2a 00 00 00";
    for arguments in [
        &["config", "defaults"][..],
        &["config", "print"],
        &["config", "print", "--json"],
        &["inspect", ping, ping],
        &["token", "--uid", "1", "--secret-file", &place.file("s", "0".repeat(32))],
    ] {
        let ended = place.run_unread(arguments);
        ended.check(0, &[]);
        assert_eq!(ended.stderr.lines().filter(|line| !line.starts_with("note")).count(), 0);
    }
}

#[test]
fn messages_are_published_although_nobody_reads_the_receipts() {
    let place = Place::new();
    let up = place.up();
    up.json();
    let mut sub = place.start(&["sub", "--uid", "1", "--count", "300"]);
    sub.says("listening");
    let lines: String = (0..300).map(|n| format!("{n}\n")).collect();
    let file = place.file("lines", lines);
    place.run_unread(&["pub", "--uid", "1", "--each-line", &file]).check(0, &[]);
    let ended = sub.end();
    ended.check(0, &[]);
    assert_eq!(ended.stdout.lines().count(), 300);
}
