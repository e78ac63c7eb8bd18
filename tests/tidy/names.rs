//! Names that have no place in a room, or anywhere.

use crate::check;
use crate::source::Source;
use crate::tree::{File, files};

/// Where a name must not stand.
struct Ban {
    names: &'static [&'static str],
    /// Files and folders it is banned from; empty is everywhere.
    rooms: &'static [&'static str],
    /// Files and folders among them where it may stand all the same.
    but: &'static [&'static str],
    scope: Scope,
    instead: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    All,
    Tests,
    OutsideTests,
}

/// Rooms whose state is a function of what went in: codec, routing, and every polled machine.
const PURE: &[&str] = &[
    "wire/src",
    "routing/src",
    "broker/src/shard.rs",
    "broker/src/shard",
    "broker/src/outbox.rs",
    "broker/src/mail.rs",
    "broker/src/io.rs",
    "gateway/src/hub.rs",
    "gateway/src/hub",
    "gateway/src/session.rs",
    "gateway/src/session",
    "gateway/src/upstream.rs",
    "gateway/src/upstream",
    "gateway/src/fanout.rs",
    "gateway/src/fanout",
    "gateway/src/recent.rs",
    "gateway/src/subprotocol.rs",
    "gateway/src/subprotocol",
    "client/src/machine.rs",
    "client/src/gateway/machine.rs",
    "client/src/producer/machine.rs",
    "client/src/consumer/machine.rs",
];

/// The files that read a clock: what drives a machine, and what checks a token's dates.
const CLOCKS: &[&str] = &[
    "benches/load/src/clock.rs",
    "benches/routes/src/measure.rs",
    "broker/src/io/wall.rs",
    "broker/src/server.rs",
    "cli/src/commands",
    "cli/src/demo.rs",
    "client/src/connection.rs",
    "client/src/connection",
    "client/src/consumer/merge.rs",
    "client/src/finder.rs",
    "client/src/wall.rs",
    "gateway/src/clock.rs",
    "tests/endure/src/clock.rs",
];

/// The files that may be unsafe: an interface of the system that has no safe form, with the reason
/// why it is sound in the file's head and at each block.
const UNSAFE: &[&str] = &[
    "benches/load/src/relay/ring.rs",
    "broker/src/io/uring/buffers.rs",
    "broker/src/io/uring/ring.rs",
    "broker/src/io/uring/sending.rs",
    "routing/src/ahead.rs",
];

const BANS: &[Ban] = &[
    Ban {
        names: &[
            ".await",
            "async fn",
            "async move",
            "tokio::",
            "std::net",
            "std::fs",
            "std::thread",
        ],
        rooms: PURE,
        but: &[],
        scope: Scope::All,
        instead: "take an event and yield an order; the driver does the rest",
    },
    Ban {
        names: &["Instant", "SystemTime", ".elapsed()", "rand::", "RandomState", "tracing::"],
        rooms: &["wire/src", "routing/src"],
        but: &[],
        scope: Scope::All,
        instead: "time, chance and words are arguments and results here",
    },
    Ban {
        names: &["HashMap", "HashSet"],
        rooms: &["broker/src/shard.rs", "broker/src/shard", "routing/src"],
        // It cannot be gone through but in order.
        but: &["broker/src/shard/links.rs"],
        scope: Scope::OutsideTests,
        instead: "an ordered map or an index: a run must follow from its inputs alone",
    },
    Ban {
        names: &["Instant::now", "SystemTime::now"],
        rooms: &[],
        but: CLOCKS,
        scope: Scope::OutsideTests,
        instead: "time is an argument; the drivers in CLOCKS read it",
    },
    Ban {
        names: &["thread::sleep"],
        rooms: &[],
        but: &[],
        scope: Scope::All,
        instead: "wait for an event",
    },
    Ban {
        names: &["time::sleep", "sleep_until"],
        rooms: &[],
        but: &[],
        scope: Scope::Tests,
        instead: "wait for an event, or move a virtual clock",
    },
    Ban {
        names: &["unbounded", "unbounded_channel", "std::sync::mpsc"],
        rooms: &[],
        but: &[],
        scope: Scope::All,
        instead: "every queue has a bound",
    },
    Ban {
        names: &["println!", "print!", "eprintln!", "eprint!", "dbg!"],
        rooms: &[],
        but: &[],
        scope: Scope::OutsideTests,
        instead: "data and talk go through cli/src/output.rs, events through tracing",
    },
    Ban {
        names: &["unsafe"],
        rooms: &[],
        but: UNSAFE,
        scope: Scope::All,
        instead: "safe code, as long as no measurement speaks for the other",
    },
    Ban {
        names: &["todo!", "unimplemented!"],
        rooms: &[],
        but: &[],
        scope: Scope::All,
        instead: "finish it, or refuse it as not supported",
    },
];

#[test]
fn banned_names() {
    let mut breaches = Vec::new();
    for file in files(".rs") {
        let source = Source::of(&file);
        for ban in BANS {
            let banned_here = ban.rooms.is_empty() || file.is_in(ban.rooms);
            if banned_here && !file.is_in(ban.but) {
                breaches.extend(breaches_of(ban, &file, &source));
            }
        }
    }
    check(&breaches);
}

fn breaches_of(ban: &Ban, file: &File, source: &Source) -> Vec<String> {
    let in_scope = |at: &usize| match ban.scope {
        Scope::All => true,
        Scope::Tests => source.is_test(*at),
        Scope::OutsideTests => !source.is_test(*at),
    };
    let mut found = Vec::new();
    for name in ban.names {
        for at in source.places(name).into_iter().filter(in_scope) {
            let line = source.line(at);
            found.push(format!("{}:{line}: {name} here; instead: {}", file.path, ban.instead));
        }
    }
    found
}

#[test]
fn every_exception_is_needed() {
    let files = files(".rs");
    let mut breaches = Vec::new();
    for ban in BANS {
        let names = ban.names.join(", ");
        for place in ban.but {
            let mut there = files.iter().filter(|file| file.is_in(&[place]));
            if !there.any(|file| !breaches_of(ban, file, &Source::of(file)).is_empty()) {
                breaches.push(format!("{place} has none of {names}: take its exception away"));
            }
        }
    }
    check(&breaches);
}

#[test]
fn no_file_promises_to_be_finished_later() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut breaches = Vec::new();
    for file in files("").iter().filter(|file| !file.path.ends_with(".lock")) {
        let marked = |line: &str| marks.iter().any(|mark| line.contains(mark));
        for (at, _) in file.text.lines().enumerate().filter(|(_, line)| marked(line)) {
            breaches.push(format!("{}:{}: do it, or open an issue", file.path, at + 1));
        }
    }
    check(&breaches);
}

#[test]
fn functions_and_types_are_named_for_what_they_are() {
    let mut breaches = Vec::new();
    for file in files(".rs") {
        let source = Source::of(&file);
        for function in source.functions() {
            if function.name.starts_with("get_") {
                let (name, line) = (&function.name, function.line);
                breaches.push(format!("{}:{line}: {name}: drop the get_", file.path));
            }
        }
        for keyword in ["struct", "enum", "trait", "mod"] {
            for at in source.places(keyword) {
                let rest = source.code[at + keyword.len()..].trim_start();
                let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                if name.is_some_and(says_nothing) {
                    let line = source.line(at);
                    breaches.push(format!("{}:{line}: say what it does", file.path));
                }
            }
        }
    }
    check(&breaches);
}

fn says_nothing(name: &str) -> bool {
    ["manager", "util", "utils", "helper", "helpers"].iter().any(|word| {
        name.to_lowercase().strip_suffix(word).is_some_and(|rest| {
            // `Util` and `FrameUtil`, not `futil`.
            let begins_a_word = name[rest.len()..].starts_with(char::is_uppercase);
            rest.is_empty() || rest.ends_with('_') || begins_a_word
        })
    })
}

#[test]
fn names_that_say_nothing() {
    for name in ["Manager", "LinkManager", "FrameUtils", "utils", "test_helper"] {
        assert!(says_nothing(name), "{name}");
    }
    for name in ["Helping", "Managed", "futil", "Outbox"] {
        assert!(!says_nothing(name), "{name}");
    }
}
