//! `waybill config`: check settings, show what they amount to, print the commented defaults.

use serde_json::json;
use waybill_wire::memory::{Term, sum};

use crate::Common;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Form, bytes_in_words};
use crate::settings::{self, Flags, Mistake, Part};

/// Arguments of `waybill config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum What {
    /// Tell every mistake in file and environment: exit 0 if there is none, else 2.
    Check,
    /// Print the effective settings and where each value comes from; secrets are masked.
    Print,
    /// Print a commented settings file with every key at its default.
    Defaults,
    /// Print the most memory that a broker and a gateway with these settings may take, by term.
    Memory,
}

pub(crate) fn run(args: &Args, common: &Common) -> Outcome {
    match args.what {
        What::Check => check(common),
        What::Print => print(common),
        What::Defaults => defaults(common.form()),
        What::Memory => memory(common),
    }
}

fn check(common: &Common) -> Outcome {
    let loaded = common.load(Flags::default())?;
    let mistakes = loaded.all_mistakes();
    if common.form().is_json() {
        let shown: Vec<_> = mistakes.iter().map(as_json).collect();
        output::json(&json!({ "ok": mistakes.is_empty(), "mistakes": shown }))?;
    }
    let Some((last, others)) = mistakes.split_last() else {
        if loaded.settings.gateway.jwt.secret.is_empty() {
            output::talk(
                "note: gateway.jwt.secret is not set: `waybill gateway` will not start, \
                 `waybill up` makes its own",
            );
        }
        if !common.form().is_json() {
            output::line("the settings are fine")?;
        }
        return Ok(());
    };
    for mistake in others {
        output::talk_failure(&Failure::usage(&mistake.cause, &mistake.remedy));
    }
    Err(Failure::usage(&last.cause, &last.remedy))
}

fn as_json(mistake: &Mistake) -> serde_json::Value {
    let Mistake { key, cause, remedy } = mistake;
    json!({ "key": key, "cause": cause, "remedy": remedy })
}

fn print(common: &Common) -> Outcome {
    let loaded = common.load(Flags::default())?;
    let parts = [Part::Broker, Part::GatewayButSecret, Part::Client, Part::Log];
    let loaded = loaded.usable(&parts)?;
    match common.form() {
        Form::Human => output::text(&settings::as_toml(&loaded)),
        Form::Json => output::json(&settings::as_json(&loaded)),
    }
}

fn defaults(form: Form) -> Outcome {
    match form {
        Form::Human => output::text(settings::DEFAULT_FILE),
        Form::Json => output::json(&settings::Settings::default()),
    }
}

fn memory(common: &Common) -> Outcome {
    let loaded = common.load(Flags::default())?.usable(&[Part::Broker, Part::GatewayButSecret])?;
    let settings = &loaded.settings;
    let roles = [
        ("broker", waybill_broker::memory::terms(&settings.broker)),
        ("gateway", waybill_gateway::memory::terms(&settings.gateway)),
    ];
    if common.form().is_json() {
        let shown = roles.map(|(role, terms)| {
            let all: Vec<_> = terms.iter().map(term_json).collect();
            json!({ "role": role, "terms": all, "bytes_max": sum(&terms) })
        });
        return shown.iter().try_for_each(output::json);
    }
    let mut page = output::Page::default();
    for (role, terms) in &roles {
        page.line(format_args!("{role}: at most {}", bytes_in_words(sum(terms))))?;
        for term in terms {
            let Term { what, count, of, each } = *term;
            let (all, each) = (bytes_in_words(term.bytes()), bytes_in_words(each));
            page.line(format_args!("  {all:>10}  {what}: {count} {of} of {each}"))?;
        }
    }
    page.line("A bound whatever happens, not what is used; `waybill plan` tells what is needed.")?;
    page.write()
}

fn term_json(term: &Term) -> serde_json::Value {
    let Term { what, count, of, each } = *term;
    json!({ "what": what, "count": count, "of": of, "each": each, "bytes_max": term.bytes() })
}
