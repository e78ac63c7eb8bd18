//! Files and functions of a size that fits a head, held by a ratchet.
//!
//! `exceptions.toml` lists what is over a cap, with its size today. An entry that is larger than
//! needed, or not needed any more, fails: the list only shrinks.

use std::collections::BTreeMap;

use crate::check;
use crate::source::Source;
use crate::tree::{files, read_toml};

/// Lines of a file outside its tests.
const FILE_LINES_MAX: usize = 600;

/// Lines of a function, from `fn` to its closing brace. One screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Columns, as in rustfmt.toml, which leaves comments and strings alone.
const COLUMNS_MAX: usize = 100;

const EXCEPTIONS: &str = "tests/tidy/exceptions.toml";

type Sizes = BTreeMap<String, usize>;

fn exceptions(table: &str) -> Sizes {
    let file = read_toml(EXCEPTIONS);
    let entries = file[table].as_table().expect("a table of sizes");
    let size = |value: &toml::Value| usize::try_from(value.as_integer().expect("a size")).ok();
    entries.iter().map(|(key, value)| (key.clone(), size(value).expect("a size"))).collect()
}

/// Compares what is over a cap with what is listed.
fn ratchet(over: &Sizes, listed: &Sizes, remedy: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (what, size) in over {
        match listed.get(what) {
            None => breaches.push(format!("{what}: {size}; {remedy}")),
            Some(listed) if size > listed => {
                breaches.push(format!("{what} grew from {listed} to {size}; {remedy}"));
            }
            Some(listed) if size < listed => {
                breaches.push(format!("{what} shrank to {size}: write that into {EXCEPTIONS}"));
            }
            Some(_) => {}
        }
    }
    for what in listed.keys().filter(|what| !over.contains_key(*what)) {
        breaches.push(format!("{what} needs no exception any more: take it out of {EXCEPTIONS}"));
    }
    breaches
}

#[test]
fn files_stay_small() {
    let sizes = files(".rs").into_iter().map(|file| {
        let lines = Source::of(&file).lines_outside_tests();
        (file.path, lines)
    });
    let over = sizes.filter(|(_, lines)| *lines > FILE_LINES_MAX).collect();
    let remedy = format!("{FILE_LINES_MAX} lines outside tests at most: divide it");
    check(&ratchet(&over, &exceptions("files"), &remedy));
}

#[test]
fn functions_stay_on_one_screen() {
    let mut over = Sizes::new();
    for file in files(".rs") {
        for function in Source::of(&file).functions() {
            if function.lines > FUNCTION_LINES_MAX {
                over.insert(format!("{}::{}", file.path, function.name), function.lines);
            }
        }
    }
    let remedy = format!("{FUNCTION_LINES_MAX} lines at most: move pure fragments out");
    check(&ratchet(&over, &exceptions("functions"), &remedy));
}

#[test]
fn the_ratchet_turns_one_way() {
    let sizes = |size: usize| Sizes::from([("a".to_string(), size)]);
    let none = Sizes::new();
    for (over, listed, breaches) in [
        (sizes(80), none.clone(), 1),
        (sizes(80), sizes(80), 0),
        (sizes(81), sizes(80), 1),
        (sizes(79), sizes(80), 1),
        (none.clone(), sizes(80), 1),
        (none.clone(), none, 0),
    ] {
        assert_eq!(ratchet(&over, &listed, "").len(), breaches, "{over:?} {listed:?}");
    }
}

#[test]
fn lines_fit_the_page() {
    let wide = files(".rs").into_iter().map(|file| {
        let wide = file.text.lines().filter(|line| line.chars().count() > COLUMNS_MAX).count();
        (file.path, wide)
    });
    let over = wide.filter(|(_, lines)| *lines > 0).collect();
    let remedy = format!("lines over {COLUMNS_MAX} columns: break them");
    check(&ratchet(&over, &exceptions("wide_lines"), &remedy));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = files(".rs").into_iter().filter(|file| !file.text.starts_with("//!"));
    let breaches: Vec<String> = silent
        .map(|file| format!("{}: begin with `//!`: its job, and what is never in it", file.path))
        .collect();
    check(&breaches);
}
