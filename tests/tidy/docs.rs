//! What the documents say of the tree is true: links, paths, commands.

use crate::check;
use crate::tree::{File, files, read, root};

/// Text outside of fenced blocks, line by line with numbers from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((at + 1, line));
        }
    }
    lines
}

/// What stands between two backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Targets of `[text](target)`.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut breaches = Vec::new();
    for file in files(".md") {
        let folder = root().join(&file.path).parent().expect("a folder").to_path_buf();
        for (line, text) in prose(&file.text) {
            for link in links(text) {
                let path = link.split(['#', ' ']).next().unwrap_or_default();
                let elsewhere = path.is_empty() || path.contains("://") || path.contains(':');
                if !elsewhere && !folder.join(path).exists() {
                    breaches.push(format!("{}:{line}: {link} leads nowhere", file.path));
                }
            }
        }
    }
    check(&breaches);
}

/// Whether a span is a path from the root: it begins with something that is there.
fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let Some((first, _)) = span.split_once('/') else { return false };
    span.chars().all(plain) && !first.is_empty() && root().join(first).exists()
}

#[test]
fn paths_named_in_documents_exist() {
    let mut breaches = Vec::new();
    let told = |file: &File| !file.path.contains('/') || file.is_in(&["docs", "fuzz/README.md"]);
    for file in files(".md").iter().filter(|file| told(file)) {
        for (line, text) in prose(&file.text) {
            for span in spans(text).filter(|span| is_path(span)) {
                // Made by commands, hence not always there.
                if !span.starts_with("target/") && !root().join(span).exists() {
                    breaches.push(format!("{}:{line}: {span} does not exist", file.path));
                }
            }
        }
    }
    check(&breaches);
}

#[test]
fn the_path_of_a_frame_names_files() {
    let text = read("ARCHITECTURE.md");
    let section = text.split("\n## ").find(|section| section.starts_with("The path of a frame"));
    let section = section.expect("ARCHITECTURE.md: a section `The path of a frame`");
    let rows: Vec<&str> =
        section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    assert!(rows.len() >= 10, "only {} steps", rows.len());
    let mut breaches = Vec::new();
    for row in rows {
        let mut named = spans(row.split('|').nth(2).unwrap_or_default()).peekable();
        if named.peek().is_none() {
            breaches.push(format!("names no file: {row}"));
        }
        for path in named.filter(|path| !root().join(path).is_file()) {
            breaches.push(format!("{path} is no file: {row}"));
        }
    }
    check(&breaches);
}

#[test]
fn promises_that_tests_name_are_stated() {
    let text = read("ARCHITECTURE.md");
    for number in 1..=10 {
        let stated = format!("**Promise {number}:");
        assert!(text.contains(&stated), "ARCHITECTURE.md: {stated}");
    }
}

#[test]
fn commands_of_the_readme_are_run_by_ci() {
    let ci = read(".ci/run") + &read(".ci/test");
    let readme = read("README.md");
    let blocks = readme.split("\n```sh\n").skip(1).filter_map(|block| block.split("\n```").next());
    let commands = blocks.flat_map(str::lines).map(|line| match line.split_once("  #") {
        Some((command, _)) => command.trim(),
        None => line.trim(),
    });
    let (mut breaches, mut seen) = (Vec::new(), 0);
    for command in commands.filter(|command| !command.is_empty() && !command.starts_with('#')) {
        seen += 1;
        if !ci.contains(command) {
            breaches.push(format!("README.md: `{command}` is in neither .ci/run nor .ci/test"));
        }
    }
    assert!(seen >= 2, "README.md: the two commands stand in blocks marked sh");
    check(&breaches);
}

#[test]
fn spans_and_links_are_found() {
    assert_eq!(spans("a `b/c` d `e`").collect::<Vec<_>>(), ["b/c", "e"]);
    assert_eq!(links("[a](b.md) and [c](d.md#e)"), ["b.md", "d.md#e"]);
    assert_eq!(prose("a\n```\nb\n```\nc"), [(1, "a"), (5, "c")]);
    assert!(is_path("tests/nowhere.rs") && !is_path("/ws") && !is_path("a/b") && !is_path("x.rs"));
}
