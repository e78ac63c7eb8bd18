//! `waybill token`: a login token for one user, on stdout.
//!
//! The secret is the one the gateway checks with: from a file, from the settings, or from the
//! running `waybill up`.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use waybill_gateway::auth::{Grant, mint};
use waybill_gateway::config::JwtConfig;
use waybill_wire::limits::CONNECTION_TAGS_MAX;

use crate::Common;
use crate::failure::{Failure, Outcome};
use crate::input::{Input, input};
use crate::output::{self, Form};
use crate::parse;
use crate::runtime_file;
use crate::settings::{Flags, Loaded};

/// Arguments of `waybill token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The secret: --secret-file, else gateway.jwt.secret of the settings (WAYBILL_GATEWAY__JWT__SECRET \
in the environment), else that of the running `waybill up`.")]
pub(crate) struct Args {
    /// The user.
    #[arg(long, value_name = "UID", value_parser = parse::uid)]
    uid: u64,
    /// The tenant.
    #[arg(long, value_name = "N", default_value_t = 0)]
    namespace: u32,
    /// How long it is valid: 500ms, 5s, 2m, 1h, 7d.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse::duration)]
    ttl: Duration,
    /// File with the secret (- for stdin); a line end after it is not part of it.
    #[arg(long, value_name = "FILE", value_parser = input)]
    secret_file: Option<Input>,
    /// Class of the device.
    #[arg(long, value_name = "N", default_value_t = 0)]
    device_class: u8,
    /// Login number; the highest wins where a policy allows one login. 0 for none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    login: u64,
    /// A tag of the connection, such as group:42; may be repeated.
    #[arg(long = "tag", value_name = "TAG", value_parser = parse::tag)]
    tags: Vec<String>,
}

pub(crate) fn run(args: &Args, common: &Common) -> Outcome {
    let loaded = common.settings(Flags::default(), &[], "warn")?;
    let secret = secret(args, &loaded)?;
    let least = JwtConfig::SECRET_BYTES_MIN;
    if secret.len() < least {
        return Err(Failure::usage(
            format_args!("the secret has {} bytes, a gateway wants {least} or more", secret.len()),
            "use a longer secret, such as the output of `openssl rand -hex 32`",
        ));
    }
    let expires = SystemTime::now().checked_add(args.ttl);
    let expires = expires.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let expires_at = expires.map(|since| since.as_secs()).ok_or_else(|| {
        Failure::usage("--ttl is longer than this machine's clock", "give a shorter --ttl")
    })?;
    let &Args { uid, namespace, device_class, login, .. } = args;
    let tags: Vec<&str> = args.tags.iter().map(String::as_str).collect();
    if tags.iter().collect::<BTreeSet<_>>().len() > CONNECTION_TAGS_MAX {
        return Err(Failure::usage(
            format_args!("{} tags, a connection has at most {CONNECTION_TAGS_MAX}", tags.len()),
            "give fewer --tag",
        ));
    }
    let grant = Grant { namespace, uid, device_class, login, tags: &tags, expires_at };
    let token = mint(&secret, grant);
    match common.form() {
        Form::Human => output::line(token),
        Form::Json => output::json(&json!({
            "token": token,
            "uid": uid.to_string(),
            "namespace": namespace,
            "expires_at": expires_at,
        })),
    }
}

fn secret(args: &Args, loaded: &Loaded) -> Outcome<Vec<u8>> {
    if let Some(file) = &args.secret_file {
        let mut secret = file.read_all(SECRET_BYTES_MAX)?;
        while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            secret.pop();
        }
        return Ok(secret);
    }
    let configured = &loaded.settings.gateway.jwt.secret;
    if !configured.is_empty() {
        return Ok(configured.clone().into());
    }
    match runtime_file::read(&runtime_file::path())? {
        Some(runtime) if runtime.is_running() => Ok(runtime.secret.into()),
        Some(runtime) => Err(Failure::usage(
            format_args!(
                "no secret to sign with: {} is of a `waybill up` that does not run any more \
                 (process {})",
                runtime_file::path().display(),
                runtime.pid
            ),
            "start `waybill up`, or give --secret-file, or gateway.jwt.secret in the settings",
        )),
        None => Err(Failure::usage(
            "no secret to sign with, and no `waybill up` is running",
            "give --secret-file, or gateway.jwt.secret in the settings, or start `waybill up`",
        )),
    }
}

/// Longest secret read from a file.
const SECRET_BYTES_MAX: usize = 64 << 10;
