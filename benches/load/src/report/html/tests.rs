//! The page of the run in `example.rs`: whole, safe, self-contained, and nothing in a plot that is
//! not in a table.

use super::*;
use crate::report::example;

#[test]
fn the_page_asks_nobody_for_anything() {
    let page = page(&example::run());
    for outside in ["http://", "https://", "src=", "@import", "url(", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn words_of_others_stay_words() {
    let mut results = example::run();
    results.command = "run \"<script>alert(1)</script>\" & more".to_owned();
    let page = page(&results);
    assert!(!page.contains("<script>alert"), "a command is text");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;</span>"));
    assert!(page.contains("&lt;slow consumer&gt;") && !page.contains("<slow consumer>"));
}

/// Every element is closed, in order: a reader of XML could follow.
#[test]
fn elements_are_closed() {
    let page = page(&example::run());
    let body = page.split("<body>").nth(1).expect("a body").split("<script>").next().expect("all");
    let mut open: Vec<&str> = Vec::new();
    for tag in body.split('<').skip(1).map(|rest| rest.split('>').next().expect("an end")) {
        let name = tag.trim_start_matches('/').split([' ', '/']).next().expect("a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closes what is open");
        } else if !tag.ends_with('/') && !["input", "br", "meta"].contains(&name) {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn every_plot_has_words_and_numbers_are_finite() {
    let page = page(&example::run());
    let plots = page.matches("<svg ").count();
    assert!(plots > 20, "{plots}");
    assert_eq!(
        plots,
        page.matches("role=\"img\" aria-label=\"").count() + page.matches("aria-hidden").count()
    );
    assert!(!page.contains("aria-label=\"\""));
    for drawing in drawings(&page) {
        assert!(!drawing.contains("inf") && !drawing.contains("NaN"), "{drawing}");
    }
}

#[test]
fn what_went_wrong_is_on_the_page() {
    let page = page(&example::run());
    for words in [
        "1 of 464 runs failed the check",
        "FAILED the check in 1 of 5 repeats",
        "lost: 8,114 in 1 repeat",
        "Not held: routes back in 5 s",
        "set up with 420,000 users, of 1,000,000",
        "nats/gw was skipped: not on PATH",
        "the generator was too busy, so only CPU figures count",
        "One producer connection.",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn the_verdict_claims_no_more_than_is_so() {
    let mut results = example::run();
    assert!(verdict(&results).1.starts_with("1 of 464 runs failed"));
    let rows = results.scenarios.iter_mut().flat_map(|scenario| &mut scenario.rows);
    rows.for_each(|row| row.ok = true);
    let (class, words) = verdict(&results);
    assert!(class == "bad" && words.contains("assertions of 1 scenario did not hold"), "{words}");
    results.scenarios.pop();
    assert!(verdict(&results).1.contains("1 had faults that are allowed"));
    for row in results.scenarios.iter_mut().flat_map(|scenario| &mut scenario.rows) {
        row.faults.clear();
    }
    assert!(verdict(&results).1.starts_with("Every message of 460 runs arrived once"));
}

#[test]
fn a_run_of_waybill_alone_and_an_empty_one_are_pages_too() {
    let mut results = example::run();
    for scenario in &mut results.scenarios {
        scenario.rows.retain(|row| row.target == "waybill");
    }
    assert!(page(&results).contains("Figures, "));
    results.scenarios.clear();
    assert!(page(&results).contains("<footer>"));
}

/// A relay has no routes, so its bytes for each are nothing; a stalled peer has no rate.
#[test]
fn nothing_at_all_has_no_place_on_a_logarithmic_axis() {
    let mut results = example::run();
    for row in results.scenarios.iter_mut().flat_map(|one| &mut one.rows) {
        if row.target.starts_with("relay") || row.target == "rabbitmq" {
            row.figures.values_mut().for_each(|value| *value = 0.0);
            row.latency_us.iter_mut().flat_map(|one| &mut one.curve).for_each(|at| at.1 = 0.0);
        }
    }
    let page = page(&results);
    for drawing in drawings(&page) {
        assert!(!drawing.contains("inf") && !drawing.contains("NaN"), "{drawing}");
    }
}

fn drawings(page: &str) -> impl Iterator<Item = &str> {
    page.split("<svg ").skip(1).map(|rest| rest.split("</svg>").next().expect("an end"))
}

#[test]
fn each_variant_has_a_rule_that_shows_it() {
    let page = page(&example::run());
    let most = 6;
    assert!(page.contains(&format!("nth-of-type({most})")));
    assert!(!page.contains(&format!("nth-of-type({})", most + 1)));
}

/// For whoever changes the page: look at it in light and dark, wide and narrow.
#[test]
#[ignore = "writes target/waybill-bench-example.html to be looked at"]
fn the_example_page_to_be_looked_at() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::write(root.join("waybill-bench-example.html"), page(&example::run()))
        .expect("written");
}
