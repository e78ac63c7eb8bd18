//! Asking a broker's admin address, by HTTP.
//!
//! Flags come first, then `broker.admin_listen` of the settings, then the running `waybill up` by
//! its runtime file. There is no default: a broker has such an address only if it is told to.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::{Failure, Outcome};
use crate::runtime_file;
use crate::settings::Loaded;

/// Bytes of an answer, at most: what a broker tells is bounded by less.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where it is, and what to say if it is not.
pub(crate) struct Address {
    pub(crate) name: String,
    from: From,
}

enum From {
    Flag,
    Settings,
    Runtime,
}

/// Where to ask; `flags` are the addresses given to `--admin`.
pub(crate) fn addresses(flags: &[String], loaded: &Loaded) -> Outcome<Vec<Address>> {
    let of = |name: &str, from| Address { name: name.into(), from };
    if !flags.is_empty() {
        return Ok(flags.iter().map(|name| of(name, From::Flag)).collect());
    }
    let configured = &loaded.settings.broker.admin_listen;
    // Port 0 says that there is one, and not which.
    if !configured.is_empty() && !configured.ends_with(":0") {
        return Ok(vec![of(configured, From::Settings)]);
    }
    if let Some(runtime) = runtime_file::read(&runtime_file::path())?
        && !runtime.admin.is_empty()
    {
        return Ok(vec![of(&runtime.admin, From::Runtime)]);
    }
    Err(Failure::failed(
        "no admin address of a broker is known",
        "set broker.admin_listen at the broker and name it with --admin (on the broker's machine), \
         or run `waybill up`, which has one",
    ))
}

/// An address with a port; for clap.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(text.into()),
        _ => Err("it must be HOST:PORT, as 127.0.0.1:7710".into()),
    }
}

impl Address {
    /// Status and body of the answer to a POST of JSON.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> Outcome<(StatusCode, Bytes)> {
        match timeout(within, self.exchange(path, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) => Err(self.failure(&cause)),
            Err(_) => Err(self.failure(&format!("no answer came within {within:?}"))),
        }
    }

    async fn exchange(&self, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), String> {
        let stream = TcpStream::connect(&self.name).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let driven = tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, &self.name)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => format!("its answer has more than {ANSWER_BYTES_MAX} bytes"),
            false => error.to_string(),
        });
        driven.abort();
        Ok((status, body?.to_bytes()))
    }

    /// Why there is no answer.
    pub(crate) fn failure(&self, cause: &str) -> Failure {
        let name = &self.name;
        let remedy = match self.from {
            From::Flag => "see that it is a broker's broker.admin_listen, and that the broker runs",
            From::Settings => {
                "the address is broker.admin_listen of the settings: does that broker run on this \
                 machine?"
            }
            From::Runtime => "the address is from the runtime file: does `waybill up` still run?",
        };
        Failure::failed(format_args!("cannot ask {name}: {cause}"), remedy)
    }
}
