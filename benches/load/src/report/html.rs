//! A run as one page that needs nothing else: drawings are made here, its script only emphasises.
//!
//! Every plot has its numbers in a table. Colours belong to targets, on the whole page.

mod bars;
mod glance;
mod lines;
mod looks;
mod scale;
mod section;
mod svg;
mod tables;
mod trends;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use self::looks::Looks;
use self::svg::{Svg, escape};
use super::{method, words};
use crate::results::{Results, Row, ScenarioResult};
use crate::summary::table::{SUBJECT, targets_of};

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// The page of a run.
#[must_use]
pub fn page(results: &Results) -> String {
    let looks = Looks::of(&targets_of(&results.scenarios));
    let sections: Vec<String> =
        results.scenarios.iter().map(|scenario| section::section(scenario, &looks)).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" \
         content=\"light dark\"><title>Waybill load bench, \
         {started}</title>\n<style>{STYLE}{colours}{panes}</style></head>\n<body>{header}{legend}\
         <main>{glance}{sections}{driven}{weak}</main>{footer}<script>{SCRIPT}</script></body>\
         </html>\n",
        started = escape(&results.started),
        colours = looks.style(),
        panes = panes_style(&sections),
        header = header(results),
        legend = legend(&looks),
        glance = glance::section(results, &looks),
        sections = sections.concat(),
        driven = driven(results, &looks),
        weak = weak(),
        footer = footer(results),
    )
}

fn rows(results: &Results) -> impl Iterator<Item = &Row> {
    results.scenarios.iter().flat_map(|scenario| &scenario.rows)
}

/// Whether the run is good, and what is to be said of all of it.
fn verdict(results: &Results) -> (&'static str, String) {
    let count = |what: fn(&&Row) -> bool| rows(results).filter(what).count();
    let failed = count(|row| !row.ok);
    let allowed = count(|row| row.ok && !row.faults.is_empty());
    let broken = |scenario: &&ScenarioResult| scenario.assertions.iter().any(|one| !one.held);
    let broken = results.scenarios.iter().filter(broken).count();
    let runs = words::several(count(|_| true), "run");
    if results.interrupted {
        return (
            "bad",
            format!("The run was interrupted after {runs}: what is missing was not run."),
        );
    }
    if failed > 0 {
        return ("bad", format!("{failed} of {runs} failed the check. They count for nothing."));
    }
    if broken > 0 {
        let scenarios = words::several(broken, "scenario");
        let words =
            format!("The check passed in {runs}, but assertions of {scenarios} did not hold.");
        return ("bad", words);
    }
    if allowed > 0 {
        let words = format!("The check passed in {runs}; {allowed} had faults that are allowed.");
        return ("good", words);
    }
    let words = format!("Every message of {runs} arrived once, at the right gateway and user.");
    ("good", words)
}

fn header(results: &Results) -> String {
    let (class, verdict) = verdict(results);
    // A flag is not broken at its hyphens.
    let word = |word: &str| format!("<span class=\"word\">{}</span>", escape(word));
    let command = results.command.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let fact =
        |name: &str, value: &str| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(value));
    format!(
        "<header><h1>Waybill load bench</h1><p class=\"verdict {class}\">{verdict}</p>\
         <dl class=\"facts\">{}{}{}</dl></header>",
        fact("Machine", &words::machine(&results.machine)),
        fact("Started", &results.started),
        format_args!("<div><dt>Command</dt><dd><code>{command}</code></dd></div>"),
    )
}

/// The targets with their marks. Without the script its buttons do nothing, and are as useful.
fn legend(looks: &Looks<'_>) -> String {
    let mut text = String::from("<nav class=\"legend\" aria-label=\"Targets\"><ul>");
    for (target, look) in looks.all() {
        let strong = if target == SUBJECT { " subject" } else { "" };
        let _ = write!(
            text,
            "<li><button type=\"button\" class=\"t-{class}{strong}\" data-target=\"t-{class}\" \
             aria-pressed=\"false\">{}{}</button></li>",
            swatch(looks, target),
            escape(target),
            class = look.class,
        );
    }
    text.push_str("</ul></nav>");
    text
}

/// A target's line and mark, as in the plots.
fn swatch(looks: &Looks<'_>, target: &str) -> String {
    let mut svg = Svg::new(26.0, 12.0, "");
    svg.path("line", &[(0.0, 6.0), (26.0, 6.0)]);
    svg.mark(looks.get(target).shape, (13.0, 6.0), 4.0);
    let drawn = svg.finish().replace(" role=\"img\" aria-label=\"\"", " aria-hidden=\"true\"");
    format!("<span class=\"swatch t-{}\">{drawn}</span>", looks.get(target).class)
}

/// A drawing with its head, and what lies behind it.
fn figure(title: &str, drawn: &str, below: &str) -> String {
    format!("<figure><figcaption>{}</figcaption>{drawn}{below}</figure>", escape(title))
}

/// A drawing in two sizes, of which the style sheet shows one: letters do not shrink on a phone.
fn two_sizes(draw: impl Fn(f64) -> String) -> String {
    let (wide, narrow) = (draw(WIDE), draw(NARROW));
    format!("<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>")
}

/// Widths of drawings in their own units, which are about a pixel.
const WIDE: f64 = 920.0;
const NARROW: f64 = 380.0;

/// One pane of each set of tabs is shown: that of the chosen one.
fn panes_style(sections: &[String]) -> String {
    let most = sections.iter().map(|section| section.matches("class=\"pane\"").count()).max();
    (1..=most.unwrap_or(0)).fold(String::new(), |mut style, at| {
        let _ = write!(
            style,
            ".tabs>input:nth-of-type({at}):checked~.panes>.pane:nth-child({at}){{display:block}}"
        );
        style
    })
}

fn driven(results: &Results, looks: &Looks<'_>) -> String {
    let mut text =
        String::from("<section id=\"driven\"><h2>How each was driven</h2><dl class=\"driven\">");
    for (target, _) in looks.all() {
        let of = rows(results).filter(|row| row.target == target);
        let ways: BTreeSet<&str> = of.map(|row| row.driven.as_str()).collect();
        let ways: Vec<String> = ways.into_iter().map(escape).collect();
        let head = tables::target(looks, target);
        let _ = write!(text, "<div><dt>{head}</dt><dd>{}</dd></div>", ways.join("<br>"));
    }
    text.push_str("</dl>");
    text.push_str("<h3>Versions</h3><ul class=\"versions\">");
    for (name, version) in &results.versions {
        let _ = write!(text, "<li><b>{}</b> {}</li>", escape(name), escape(version));
    }
    text + "</ul></section>"
}

fn weak() -> String {
    let list = |lines: &[&str]| -> String {
        lines.iter().map(|line| format!("<li>{}</li>", escape(line))).collect()
    };
    format!(
        "<section id=\"method\"><h2>How to read this, and where it is weak</h2>\
         <div class=\"columns\"><div><h3>Reading</h3><ul>{}</ul></div>\
         <div><h3>Weak</h3><ul>{}</ul></div></div></section>",
        list(&method::READING),
        list(&method::WEAK)
    )
}

fn footer(results: &Results) -> String {
    format!(
        "<footer><p>Made by <code>waybill-bench</code> {}. The numbers behind this page are in the \
         JSON of the same run; <code>docs/benchmarking.md</code> explains them.</p></footer>",
        escape(results.versions.get("waybill").map_or("", String::as_str))
    )
}

#[cfg(test)]
mod tests;
