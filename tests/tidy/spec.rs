//! The contract's requirements are numbered once, and each is held by a test or a vector.

use std::collections::{BTreeMap, BTreeSet};

use crate::check;
use crate::source::Source;
use crate::tree::{File, files, read_toml};

/// What is held without naming an id, and what is not held, with reasons.
const LIST: &str = "tests/tidy/spec.toml";

fn chapters() -> Vec<File> {
    files(".md").into_iter().filter(|file| file.is_in(&["protocol-spec"])).collect()
}

/// The id a line defines: `- [FRAME-1] ...`.
fn defined_by(line: &str) -> Option<&str> {
    let id = line.strip_prefix("- [")?.split(']').next()?;
    let (prefix, number) = id.split_once('-')?;
    let named = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_uppercase());
    (named && number.parse::<u16>().is_ok()).then_some(id)
}

fn defined() -> BTreeSet<String> {
    let chapters = chapters();
    let lines = chapters.iter().flat_map(|chapter| chapter.text.lines());
    lines.filter_map(defined_by).map(String::from).collect()
}

/// Everything in a text that looks like an id with one of these prefixes, and where it stands.
fn cited<'a>(text: &'a str, prefixes: &BTreeSet<&str>) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('-') {
        let start = text[..at]
            .rfind(|c: char| !c.is_ascii_uppercase())
            .map_or(0, |before| before + text[before..].chars().next().map_or(1, char::len_utf8));
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let before = text[..start].chars().next_back();
        let whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        if digits > 0 && whole && prefixes.contains(&text[start..at]) {
            found.push((start, &text[start..=at + digits]));
        }
    }
    found
}

fn prefixes(ids: &BTreeSet<String>) -> BTreeSet<&str> {
    ids.iter().filter_map(|id| id.split_once('-')).map(|(prefix, _)| prefix).collect()
}

#[test]
fn ids_are_given_once() {
    let mut seen = BTreeMap::new();
    let mut breaches = Vec::new();
    for chapter in chapters() {
        for id in chapter.text.lines().filter_map(defined_by) {
            if let Some(other) = seen.insert(id.to_string(), chapter.path.clone()) {
                breaches.push(format!("{}: {id} is also in {other}", chapter.path));
            }
        }
    }
    assert!(seen.len() > 100, "only {} requirements found: has their form changed?", seen.len());
    check(&breaches);
}

#[test]
fn cited_ids_exist() {
    let ids = defined();
    let prefixes = prefixes(&ids);
    let mut breaches = Vec::new();
    for ending in [".md", ".toml", ".rs", ".py", ".mjs", ".html", ".js"] {
        for file in files(ending) {
            for (at, id) in cited(&file.text, &prefixes) {
                if !ids.contains(id) {
                    let line = 1 + file.text[..at].matches('\n').count();
                    breaches.push(format!("{}:{line}: {id} is no requirement", file.path));
                }
            }
        }
    }
    check(&breaches);
}

/// Ids named by vectors, and by the tests of any language.
fn cited_by_tests(ids: &BTreeSet<String>) -> BTreeSet<String> {
    let prefixes = prefixes(ids);
    let mut found = BTreeSet::new();
    let mut cite = |text: &str, counts: &dyn Fn(usize) -> bool| {
        let cited = cited(text, &prefixes).into_iter().filter(|(at, _)| counts(*at));
        found.extend(cited.map(|(_, id)| id.to_string()));
    };
    for file in files(".toml").iter().filter(|file| file.is_in(&["protocol-spec/vectors"])) {
        cite(&file.text, &|_| true);
    }
    for file in files(".py").iter().chain(&files(".mjs")) {
        cite(&file.text, &|_| true);
    }
    for file in files(".rs").iter().filter(|file| !file.is_in(&["tests/tidy"])) {
        let source = Source::of(file);
        cite(&file.text, &|at| source.is_test(at));
        for function in source.functions() {
            cite(&id_in_name(&function.name).unwrap_or_default(), &|_| true);
        }
    }
    found
}

/// `WS-4` of a test that is called `ws_4_a_connection_ends_with_its_token`.
fn id_in_name(name: &str) -> Option<String> {
    let mut parts = name.split('_');
    Some(format!("{}-{}", parts.next()?.to_uppercase(), parts.next()?))
}

/// The entries of a table of the list: the ids, and the text that goes with each.
fn listed(table: &str, key: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    for entry in read_toml(LIST)[table].as_array().expect("a list of entries") {
        let text = entry[key].as_str().expect("a text");
        for id in entry["ids"].as_array().expect("a list of ids") {
            entries.push((id.as_str().expect("an id").to_string(), text.to_string()));
        }
    }
    entries
}

#[test]
fn every_requirement_is_held_or_a_stated_gap() {
    let ids = defined();
    let cited = cited_by_tests(&ids);
    let mut listed_once = BTreeSet::new();
    let mut breaches = Vec::new();
    for (id, _) in listed("held", "by").into_iter().chain(listed("gap", "reason")) {
        if !ids.contains(&id) {
            breaches.push(format!("{LIST}: {id} is no requirement"));
        } else if cited.contains(&id) {
            breaches.push(format!("{id} is named by a test now: take it out of {LIST}"));
        }
        if !listed_once.insert(id.clone()) {
            breaches.push(format!("{LIST}: {id} twice"));
        }
    }
    for id in ids.iter().filter(|id| !cited.contains(*id) && !listed_once.contains(*id)) {
        breaches.push(format!(
            "{id}: no vector and no test names it: do so where it is tested, or say in {LIST} why \
             it is not"
        ));
    }
    check(&breaches);
}

#[test]
fn tests_that_hold_requirements_are_there() {
    let sources = files(".rs");
    let is_there = |by: &str| {
        let (path, name) = by.split_once("::")?;
        let file = sources.iter().find(|file| file.path == path)?;
        let functions = Source::of(file).functions();
        functions.iter().any(|function| function.name == name).then_some(())
    };
    let missing = listed("held", "by").into_iter().filter(|(_, by)| is_there(by).is_none());
    check(&missing.map(|(id, by)| format!("{LIST}: {id}: there is no {by}")).collect::<Vec<_>>());
}

#[test]
fn bytes_in_the_prose_are_those_of_the_vector() {
    let mut vectors = BTreeMap::new();
    for file in files(".toml").iter().filter(|file| file.is_in(&["protocol-spec/vectors"])) {
        let table: toml::Table = file.text.parse().expect("vectors are TOML");
        for vector in table.get("vector").and_then(toml::Value::as_array).into_iter().flatten() {
            if let (Some(id), Some(hex)) = (vector["id"].as_str(), vector.get("hex")) {
                vectors.insert(id.to_string(), digits(hex.as_str().unwrap_or_default()));
            }
        }
    }
    let (mut breaches, mut blocks) = (Vec::new(), 0);
    for chapter in chapters() {
        for (id, bytes) in vector_blocks(&chapter.text) {
            blocks += 1;
            match vectors.get(id) {
                None => breaches.push(format!("{}: there is no vector {id}", chapter.path)),
                Some(expected) if *expected != digits(bytes) => {
                    breaches.push(format!("{}: these are not the bytes of {id}", chapter.path));
                }
                Some(_) => {}
            }
        }
    }
    assert!(blocks >= 5, "only {blocks} blocks found: has their form changed?");
    check(&breaches);
}

fn vector_blocks(text: &str) -> Vec<(&str, &str)> {
    text.split("\n```vector ")
        .skip(1)
        .filter_map(|block| {
            let (id, rest) = block.split_once('\n')?;
            Some((id.trim(), rest.split("\n```").next()?))
        })
        .collect()
}

/// Hexadecimal digits, without white space and comments.
fn digits(hex: &str) -> String {
    let data = hex.lines().flat_map(|line| line.split('#').next());
    data.flat_map(|line| line.chars().filter(|c| !c.is_whitespace())).collect()
}

#[test]
fn an_id_is_a_whole_word() {
    let prefixes = BTreeSet::from(["AB", "CD"]);
    let ids = |text| cited(text, &prefixes).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    assert_eq!(ids("(AB-12), [CD-1]\nCD-2x"), ["AB-12", "CD-1", "CD-2"]);
    assert_eq!(ids("XCD-1 EF-8 my-CD-3 CD-x é-1 AB-"), Vec::<&str>::new());
    assert_eq!(defined_by("- [AB-1] A frame"), Some("AB-1"));
    assert_eq!(defined_by("- [a link](x.md)"), None);
    assert_eq!(id_in_name("ab_1_holds").as_deref(), Some("AB-1"));
}
