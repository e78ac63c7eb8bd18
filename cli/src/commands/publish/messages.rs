//! The messages to publish: one from the arguments, or one per line of an input.
//!
//! Who they are for is settled here, and an audience that is empty is refused here: nothing ever
//! becomes "everyone" by being left out.

use std::fmt;

use base64::Engine;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use tokio::sync::mpsc;
use waybill_client::{Audience, Content, Publish, ReceiptLevel, Selector, TextError};
use waybill_wire::code::Encoding;
use waybill_wire::limits::MESSAGE_BYTES_MAX;

use super::Args;
use crate::failure::{Failure, Outcome};
use crate::input::{Input, Line, one_stdin};
use crate::output::shortened;
use crate::parse;

/// Where messages come from.
pub(super) struct Messages {
    /// What the arguments say about every message.
    template: Publish,
    source: Source,
    /// Each gets a trace id.
    traces: bool,
}

enum Source {
    /// The template is the message.
    One { done: bool },
    /// Each line is a payload.
    Payloads(Lines),
    /// Each line is a message in JSON.
    Objects(Lines),
}

struct Lines {
    input: Input,
    lines: mpsc::Receiver<Line>,
    /// Lines read.
    count: u64,
}

impl Messages {
    pub(super) fn new(args: &Args) -> Outcome<Self> {
        one_stdin(&[
            ("--uids-file", args.uids_file.as_ref()),
            ("--payload-file", args.payload_file.as_ref()),
            ("--lines", args.lines.as_ref()),
            ("--each-line", args.each_line.as_ref()),
        ])?;
        if args.trace && args.level() == ReceiptLevel::None {
            return Err(Failure::usage(
                "--trace: hop times come with the receipt, and --receipt none asks for none",
                "leave out one of the two",
            ));
        }
        let template = template(args)?;
        let source = if let Some(input) = &args.lines {
            Source::Objects(Lines::open(input)?)
        } else if let Some(input) = &args.each_line {
            Source::Payloads(Lines::open(input)?)
        } else {
            Source::One { done: false }
        };
        Ok(Self { template, source, traces: args.trace })
    }

    /// The line that the last message was read from, if each is a line of an input.
    pub(super) fn line(&self) -> Option<u64> {
        match &self.source {
            Source::One { .. } => None,
            Source::Payloads(lines) | Source::Objects(lines) => Some(lines.count),
        }
    }

    /// The next message; nothing is lost if this is not awaited to its end.
    pub(super) async fn next(&mut self) -> Outcome<Option<Publish>> {
        let mut next = self.untraced().await?;
        if let Some(publish) = &mut next
            && self.traces
        {
            publish.trace = Some(rand::random());
        }
        Ok(next)
    }

    async fn untraced(&mut self) -> Outcome<Option<Publish>> {
        match &mut self.source {
            Source::One { done: true } => Ok(None),
            Source::One { done } => {
                *done = true;
                Ok(Some(self.template.clone()))
            }
            Source::Payloads(lines) => {
                let line = lines.next().await?;
                Ok(line.map(|payload| self.template.clone().payload(payload)))
            }
            Source::Objects(lines) => {
                let line = loop {
                    let Some(line) = lines.next().await? else { return Ok(None) };
                    if !line.trim_ascii().is_empty() {
                        break line;
                    }
                };
                let message = object(&line, &self.template);
                message.map(Some).map_err(|problem| lines.failure(&problem))
            }
        }
    }
}

impl Lines {
    fn open(input: &Input) -> Outcome<Self> {
        Ok(Self { input: input.clone(), lines: input.lines()?, count: 0 })
    }

    async fn next(&mut self) -> Outcome<Option<Vec<u8>>> {
        let Some(line) = self.lines.recv().await else { return Ok(None) };
        self.count += 1;
        line.map(Some).map_err(|error| self.input.failure(&error))
    }

    fn failure(&self, problem: &str) -> Failure {
        let (name, count) = (self.input.name(), self.count);
        Failure::failed(
            format_args!("line {count} of {name}: {problem}"),
            "mend that line; those before it were sent, none after it",
        )
    }
}

/// What the arguments say about every message.
fn template(args: &Args) -> Outcome<Publish> {
    let mut publish = audience(args)?;
    if let Some(text) = &args.selector {
        publish = publish.selector(parse::selector("--selector", text)?);
    }
    publish = publish
        .namespace(args.namespace)
        .except(parse::joined(&args.except))
        .mode(args.mode)
        .level(args.level())
        .priority(args.priority);
    publish.ttl = args.ttl;
    publish.conflate = args.conflate_key;
    publish.labels.clone_from(&args.labels);
    publish.content = args
        .content_type
        .map(|content_type| Content { content_type, encoding: Encoding::IDENTITY });
    publish.payload = payload(args)?;
    // What can be judged now is a mistake in the arguments, not a failure of one of many messages.
    if args.lines.is_none() {
        publish.check().map_err(|error| Failure::usage(error, "see `waybill pub --help`"))?;
    }
    Ok(publish)
}

/// Who each message is for, apart from a selector, which narrows it.
fn audience(args: &Args) -> Outcome<Publish> {
    if args.lines.is_some() {
        // Each line brings its own.
        return Ok(Publish::to([]));
    }
    let named = !args.uid.is_empty() || args.uids_file.is_some();
    if args.all || (args.selector.is_some() && !named) {
        return Ok(Publish::everyone());
    }
    let mut uids = parse::joined(&args.uid);
    if let Some(file) = &args.uids_file {
        uids.extend(file.uids("--uids-file")?);
    } else if uids.is_empty() {
        return Err(Failure::usage(
            "no audience: nobody is named",
            "give --uid, --uids-file, --selector, --lines, or --all if everyone is meant",
        ));
    }
    Ok(Publish::to(uids))
}

fn payload(args: &Args) -> Outcome<Bytes> {
    match (&args.payload, &args.payload_file) {
        (Some(text), _) => Ok(Bytes::from(text.clone().into_bytes())),
        (None, Some(file)) => file.read_all(MESSAGE_BYTES_MAX).map(Bytes::from),
        (None, None) if args.lines.is_some() || args.each_line.is_some() => Ok(Bytes::new()),
        (None, None) => Err(Failure::usage(
            "no payload: nothing to send",
            "give it as an argument, or --payload-file, --lines or --each-line",
        )),
    }
}

/// Longest problem told of a line: it may repeat a name from there.
const PROBLEM_CHARS_MAX: usize = 200;

/// One line of `--lines`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    uids: Option<Vec<Uid>>,
    #[serde(default)]
    all: bool,
    selector: Option<String>,
    except: Option<Vec<Uid>>,
    namespace: Option<u32>,
    mode: Option<String>,
    priority: Option<String>,
    ttl: Option<String>,
    conflate_key: Option<Uid>,
    labels: Option<Vec<String>>,
    content_type: Option<String>,
    data: Option<String>,
    data64: Option<String>,
}

impl Object {
    /// Who it is for; `flags` is the selector of the arguments, which one of the line stands over.
    fn audience(&self, flags: Option<&Selector>) -> Result<Audience, String> {
        let selector = match &self.selector {
            Some(text) => {
                Some(text.parse().map_err(|error: TextError| format!("selector: {error}"))?)
            }
            None => flags.cloned().filter(|_| !self.all),
        };
        match (&self.uids, self.all, selector) {
            (Some(_), true, _) => Err("`uids` and `all` exclude each other".into()),
            (None, true, Some(_)) => Err("`selector` and `all` exclude each other".into()),
            (None, true, None) => Ok(Audience::Everyone),
            (Some(uids), false, None) => Ok(Audience::Uids(numbers(uids))),
            (Some(uids), false, Some(selector)) => {
                Ok(Audience::UidsMatching(numbers(uids), selector))
            }
            (None, false, Some(selector)) => Ok(Audience::Matching(selector)),
            (None, false, None) => {
                Err("no audience: give `uids`, `selector`, or `all`: true".into())
            }
        }
    }
}

/// A UID in JSON: a string, or a number for those whose JSON has 64-bit ones.
struct Uid(u64);

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfEither;
        impl Visitor<'_> for OfEither {
            type Value = Uid;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a UID: a whole number from 0 to {}, or that in quotes", u64::MAX)
            }

            fn visit_u64<E>(self, uid: u64) -> Result<Uid, E> {
                Ok(Uid(uid))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Uid, E> {
                parse::uid(text).map(Uid).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(OfEither)
    }
}

fn numbers(uids: &[Uid]) -> Vec<u64> {
    uids.iter().map(|uid| uid.0).collect()
}

fn object(line: &[u8], template: &Publish) -> Result<Publish, String> {
    let object: Object = serde_json::from_slice(line)
        .map_err(|error| shortened(&error.to_string(), PROBLEM_CHARS_MAX).into_owned())?;
    let mut publish = template.clone();
    publish.audience = object.audience(template.matched_by())?;
    if let Some(except) = &object.except {
        publish.except = numbers(except);
    }
    publish.namespace = object.namespace.unwrap_or(publish.namespace);
    if let Some(mode) = &object.mode {
        publish.mode = parse::mode(mode)?;
    }
    if let Some(priority) = &object.priority {
        publish.priority = parse::priority(priority)?;
    }
    if let Some(ttl) = &object.ttl {
        publish.ttl = Some(parse::duration(ttl)?);
    }
    publish.conflate = object.conflate_key.map(|key| key.0).or(publish.conflate);
    publish.labels = object.labels.unwrap_or(publish.labels);
    if let Some(content_type) = &object.content_type {
        let content_type = parse::content_type(content_type)?;
        publish.content = Some(Content { content_type, encoding: Encoding::IDENTITY });
    }
    publish.payload = match (object.data, object.data64) {
        (Some(_), Some(_)) => return Err("`data` and `data64` exclude each other".into()),
        (Some(text), None) => text.into(),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|error| format!("data64: {error}"))?
            .into(),
        (None, None) => return Err("no payload: give `data` or `data64`".into()),
    };
    publish.check().map_err(|error| error.to_string())?;
    Ok(publish)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(line: &str, expected: Result<Publish, &str>) {
        let template = Publish::to([]).label("from.flags").namespace(3);
        let found = object(line.as_bytes(), &template);
        match expected {
            Ok(publish) => assert_eq!(found, Ok(publish), "{line}"),
            Err(words) => {
                let problem = found.expect_err(line);
                assert!(problem.contains(words), "{line}: {problem}");
            }
        }
    }

    #[test]
    fn lines_stand_over_flags() {
        let base = || Publish::to([1001, 1002]).namespace(3).label("from.flags").payload("x");
        check(r#"{"uids":["1001",1002],"data":"x"}"#, Ok(base()));
        check(
            r#"{"uids":[1001,"1002"],"data64":"eA==","ttl":"5s"}"#,
            Ok(base().ttl(Duration::from_secs(5))),
        );
        let other = Publish::everyone().label("a").except([7]).payload("");
        check(r#"{"all":true,"namespace":0,"labels":["a"],"except":["7"],"data":""}"#, Ok(other));
    }

    #[test]
    fn a_line_has_a_selector_of_its_own_or_that_of_the_flags() {
        let base = |publish: Publish| publish.namespace(3).label("from.flags").payload("x");
        let [vip, ios] = ["vip", "ios"].map(|text| text.parse::<Selector>().unwrap());
        check(
            r#"{"uids":[1],"selector":"vip","data":"x"}"#,
            Ok(base(Publish::to([1]).selector(vip.clone()))),
        );
        check(r#"{"selector":"vip","data":"x"}"#, Ok(base(Publish::matching(vip.clone()))));
        check(r#"{"all":true,"selector":"vip","data":"x"}"#, Err("exclude each other"));
        let wrong = "selector: a term must stand here, at byte 6";
        check(r#"{"selector":"vip & ","data":"x"}"#, Err(wrong));
        let template = Publish::to([]).selector(ios.clone());
        let of = |line: &str| object(line.as_bytes(), &template).unwrap().audience;
        assert_eq!(of(r#"{"uids":[1],"data":""}"#), Audience::UidsMatching(vec![1], ios.clone()));
        assert_eq!(of(r#"{"selector":"vip","data":""}"#), Audience::Matching(vip));
        assert_eq!(of(r#"{"data":""}"#), Audience::Matching(ios));
        assert_eq!(of(r#"{"all":true,"data":""}"#), Audience::Everyone);
    }

    #[test]
    fn a_wrong_line_says_why() {
        check("", Err("EOF"));
        check(r#"{"data":"x"}"#, Err("no audience"));
        check(r#"{"uids":[],"data":"x"}"#, Err("the audience is empty"));
        check(r#"{"uids":[1],"all":true,"data":"x"}"#, Err("exclude each other"));
        check(r#"{"uids":[1]}"#, Err("no payload"));
        check(r#"{"uids":[1],"data":"x","data64":""}"#, Err("exclude each other"));
        check(r#"{"uids":[-1],"data":"x"}"#, Err("`-1`, expected a UID: a whole number"));
        check(r#"{"uids":[1.0],"data":"x"}"#, Err("`1.0`, expected a UID: a whole number"));
        check(r#"{"uids":["x"],"data":"x"}"#, Err("is not a UID"));
        check(r#"{"uids":[1],"data":"x","lable":["a"]}"#, Err("unknown field `lable`"));
        check(r#"{"uids":[1],"data":"x","mode":"fast"}"#, Err("is no mode"));
    }
}
