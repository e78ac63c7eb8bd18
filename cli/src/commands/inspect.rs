//! `waybill inspect`: bytes to fields, through the deframer and decoder that brokers use.
//!
//! Every frame of a stream is shown until one is malformed, since nothing after that can be
//! trusted. Who may send what, and when, is not judged: a capture is one direction of one link at
//! best.

mod bytes;
mod fields;
mod layout;

use std::cell::RefCell;
use std::fmt::Display;

use serde_json::{Map, Value, json};
use waybill_wire::code::Kind;
use waybill_wire::deframe::RawFrame;
use waybill_wire::limits::PROLOGUE_BYTES;
use waybill_wire::prologue::Prologue;
use waybill_wire::{Deframer, Malformed};

use crate::Common;
use crate::failure::{Failure, Outcome};
use crate::input::{Input, input};
use crate::output::{Form, Page, printable};

use fields::Field;

/// Arguments of `waybill inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waybill inspect '01 04 02 00 00 00 00 00  00 00 00 00 2a 00 00 00'
  waybill inspect --file capture.bin --json
  xxd -p capture.bin | waybill inspect -

Hex may hold white space, and comments from # to the end of the line. A field's name is that of \
the specification. Frames are shown as they come. Exit 1: a frame is malformed, or the last one is \
not whole.")]
pub(crate) struct Args {
    /// Bytes in hexadecimal, or - for stdin.
    #[arg(value_name = "HEX", required_unless_present = "file", conflicts_with = "file")]
    hex: Vec<String>,
    /// File with the bytes (- for stdin): hexadecimal text if it begins so, else taken
    /// as they are.
    #[arg(long, value_name = "FILE", value_parser = input)]
    file: Option<Input>,
    /// How the bytes of a file are written.
    #[arg(long, value_enum, default_value_t = bytes::Format::Auto)]
    format: bytes::Format,
    /// Show at which byte of its frame each field lies.
    #[arg(long)]
    offsets: bool,
}

pub(crate) fn run(args: &Args, common: &Common) -> Outcome {
    let shown = Shown { form: common.form(), offsets: args.offsets, page: RefCell::default() };
    let outcome = shown.all(args);
    // What was shown before an error is seen before it.
    shown.page.borrow_mut().write().and(outcome)
}

/// How frames are shown.
struct Shown {
    form: Form,
    offsets: bool,
    /// Written when the input pauses, and at the end.
    page: RefCell<Page>,
}

impl Shown {
    fn all(&self, args: &Args) -> Outcome {
        let mut stream = Stream::default();
        let input = match (&args.file, args.hex.as_slice()) {
            (Some(file), _) => Some(file.clone()),
            (None, [only]) if only == "-" => Some(Input::stdin()),
            _ => None,
        };
        match input {
            Some(input) => {
                let wait = || self.page.borrow_mut().write();
                bytes::of_input(&input, args.format, wait, |bytes| self.more(&mut stream, bytes))?;
            }
            None => {
                let bytes = bytes::of_hex(&args.hex.join(" "))
                    .map_err(|problem| Failure::usage(problem, "see `waybill inspect --help`"))?;
                self.more(&mut stream, &bytes)?;
            }
        }
        match (stream.at, stream.rest.len()) {
            (0, 0) => Err(Failure::usage("no bytes to inspect", "see `waybill inspect --help`")),
            (_, 0) => Ok(()),
            (at, left) => Err(self.partial(at, &stream.rest, left)),
        }
    }

    /// Shows every frame that is whole with these bytes.
    fn more(&self, stream: &mut Stream, bytes: &[u8]) -> Outcome {
        stream.rest.extend_from_slice(bytes);
        let mut used = 0;
        let outcome = loop {
            match self.next(stream.at + used, &stream.rest[used..]) {
                Ok(0) => break Ok(()),
                Ok(bytes) => used += bytes,
                Err(failure) => break Err(failure),
            }
        };
        stream.rest.drain(..used);
        stream.at += used;
        outcome
    }

    /// Shows the frame that these bytes begin with; its length, 0 if it is not whole.
    fn next(&self, at: usize, bytes: &[u8]) -> Outcome<usize> {
        if let Some(prologue) = skipped(bytes) {
            self.skipped(at, prologue)?;
            return Ok(prologue.frame_bytes());
        }
        // A new one each time: what is not whole is given to it again, with more behind it.
        let mut deframer = Deframer::new();
        let step = deframer.next(bytes).map_err(|error| self.malformed(at, &error))?;
        let Some(frame) = step.frame else { return Ok(0) };
        self.frame(at, &frame).map_err(|error| match error {
            Stop::Malformed(error) => self.malformed(at, &error),
            Stop::Output(failure) => failure,
        })?;
        Ok(step.consumed)
    }

    fn put_line(&self, line: impl Display) -> Outcome {
        self.page.borrow_mut().line(line)
    }

    fn put_json(&self, value: &Value) -> Outcome {
        self.page.borrow_mut().json(value)
    }

    fn frame(&self, at: usize, raw: &RawFrame<'_>) -> Result<(), Stop> {
        let frame = raw.decode().map_err(Stop::Malformed)?;
        let (head, fields) = (fields::head(raw), fields::of(&frame, raw));
        let told = match self.form {
            Form::Json => self.put_json(&self.as_json(at, raw, &[&head[..], &fields].concat())),
            Form::Human => {
                let title = format!("{} at byte {at}, {} bytes", raw.kind(), raw.bytes().len());
                let lines = head.iter().chain(&fields).map(|field| self.line(field));
                let lines: Vec<String> = std::iter::once(title).chain(lines).collect();
                self.put_line(lines.join("\n"))
            }
        };
        told.map_err(Stop::Output)
    }

    fn as_json(&self, at: usize, raw: &RawFrame<'_>, fields: &[Field]) -> Value {
        let mut object = Map::new();
        object.insert("at".into(), at.into());
        object.insert("bytes".into(), raw.bytes().len().into());
        for field in fields {
            object.insert(field.name.into(), field.value.clone());
        }
        if self.offsets {
            let offsets = fields.iter().map(|field| (field.name.to_string(), field.at.into()));
            object.insert("offsets".into(), Value::Object(offsets.collect()));
        }
        Value::Object(object)
    }

    fn line(&self, field: &Field) -> String {
        let text = match &field.text {
            Some(text) => text.clone(),
            None => printable(&value_text(&field.value)),
        };
        match self.offsets {
            true => format!("  {:>6}  {:<17} {text}", field.at, field.name),
            false => format!("  {:<17} {text}", field.name),
        }
    }

    fn skipped(&self, at: usize, prologue: Prologue) -> Outcome {
        let (kind, bytes) = (prologue.kind, prologue.frame_bytes());
        match self.form {
            Form::Json => self.put_json(&json!({
                "at": at, "bytes": bytes, "kind": format!("{:#04x}", kind.0), "skipped": true,
            })),
            Form::Human => self.put_line(format_args!(
                "{kind} at byte {at}, {bytes} bytes: unknown, to be skipped [FRAME-3]"
            )),
        }
    }

    fn malformed(&self, at: usize, error: &Malformed) -> Failure {
        let field = layout::offset(error.kind, error.what.field);
        let byte = at + field.unwrap_or(0);
        if self.form.is_json() {
            let told = self.put_json(&json!({
                "at": at,
                "byte": byte,
                "error": error.code.to_string(),
                "rule": error.rule,
                "detail": error.what.to_string(),
            }));
            if let Err(failure) = told {
                return failure;
            }
        }
        let kind = match error.kind {
            Kind(0) => "frame".to_string(),
            kind => kind.to_string(),
        };
        let place = match field {
            Some(_) => format!("at byte {byte}"),
            None => format!("in the frame at byte {at}"),
        };
        Failure::failed(
            format_args!("malformed {kind} {place}: {}: {error}", error.code),
            format_args!("protocol-spec has {}; nothing after this frame can be read", error.rule),
        )
    }

    fn partial(&self, at: usize, rest: &[u8], left: usize) -> Failure {
        let prologue = rest.first_chunk().and_then(|bytes| Prologue::decode(bytes).ok());
        let whole = prologue.map(|prologue| prologue.frame_bytes());
        if self.form.is_json() {
            let told = self.put_json(&json!({ "at": at, "partial": left, "of": whole }));
            if let Err(failure) = told {
                return failure;
            }
        }
        let of = match (prologue, whole) {
            (Some(prologue), Some(whole)) => {
                format!("{left} of {whole} bytes of {}", prologue.kind)
            }
            _ => format!("{left} of the {PROLOGUE_BYTES} bytes of a prologue"),
        };
        Failure::failed(
            format_args!("the last frame, at byte {at}, is not whole: {of}"),
            "give the rest of it too",
        )
    }
}

/// Bytes that have come and are not shown yet, and how many there were before them.
#[derive(Default)]
struct Stream {
    at: usize,
    rest: Vec<u8>,
}

/// Why a frame was not shown.
enum Stop {
    Malformed(Malformed),
    Output(Failure),
}

/// A whole frame of a kind that receivers skip. Deframers do so without a word.
fn skipped(bytes: &[u8]) -> Option<Prologue> {
    let prologue = Prologue::decode(bytes.first_chunk()?).ok()?;
    let whole = prologue.frame_bytes() <= bytes.len();
    (prologue.kind.is_skipped() && whole).then_some(prologue)
}

/// A value for people: no quotes, lists by spaces, members as name=value.
fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(value_text).collect::<Vec<_>>().join(" "),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("{name}={}", value_text(value));
            let members: Vec<String> = members.iter().map(member).collect();
            format!("({})", members.join(" "))
        }
        other => other.to_string(),
    }
}
