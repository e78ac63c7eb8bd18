//! The demo page of `waybill up`: the page, tokens for it, and publishing on its behalf.
//!
//! Tokens are handed to whoever asks, so these routes exist only in `up`, only on a loopback
//! address, and answer only requests that name a loopback host and come from the page itself: a
//! foreign page whose name resolves to this machine (DNS rebinding) is refused by its Host, one
//! that posts across origins by its Origin and by the content type, for which a browser would have
//! to ask first.

mod guard;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use waybill_client::{ContentType, Encoding, Producer, Publish, PublishError};
use waybill_gateway::auth::{Grant, mint};

use crate::commands::receipt_json;
use crate::parse;

/// The page: one file, nothing from outside.
const PAGE: &str = include_str!("../assets/demo.html");

/// What the page may do: its own script and styles, and talk to where it came from.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src \
    'unsafe-inline'; img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// How long the page's tokens last; it fetches another when one has expired.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// What the routes need.
pub(crate) struct Demo {
    pub(crate) secret: String,
    pub(crate) producer: Producer,
}

/// The routes, for the gateway to serve beside its own.
pub(crate) fn routes(demo: Demo) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/demo/token", post(token))
        .route("/demo/publish", post(publish))
        .layer(axum::middleware::from_fn(guard::check))
        .with_state(Arc::new(demo))
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, PAGE)
}

#[derive(Deserialize)]
struct TokenRequest {
    uid: String,
}

async fn token(State(demo): State<Arc<Demo>>, Json(request): Json<TokenRequest>) -> Response {
    let uid = match parse::uid(&request.uid) {
        Ok(uid) => uid,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, &problem),
    };
    let since = (SystemTime::now() + TOKEN_TTL).duration_since(UNIX_EPOCH);
    let expires_at = since.map_or(0, |since| since.as_secs());
    let grant = Grant { namespace: 0, uid, device_class: 0, login: 0, tags: &[], expires_at };
    let token = mint(demo.secret.as_bytes(), grant);
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "token": token }))).into_response()
}

#[derive(Deserialize)]
struct PublishRequest {
    uids: Option<Vec<String>>,
    #[serde(default)]
    all: bool,
    text: String,
    from: Option<String>,
    /// The page's clock when it sent, milliseconds since 1970; comes back in the message.
    sent_at: Option<f64>,
}

/// The page's own payload, of content type JSON.
#[derive(Serialize)]
struct Envelope<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<f64>,
}

async fn publish(State(demo): State<Arc<Demo>>, Json(request): Json<PublishRequest>) -> Response {
    let publish = match message(&request) {
        Ok(publish) => publish,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, &problem),
    };
    let started = Instant::now();
    match demo.producer.publish(publish).await {
        Ok(receipt) => {
            let broker_ms = started.elapsed().as_secs_f64() * 1000.0;
            let receipt = receipt_json(&receipt);
            Json(json!({ "receipt": receipt, "broker_ms": broker_ms })).into_response()
        }
        Err(error @ PublishError::Invalid(_)) => {
            refuse(StatusCode::BAD_REQUEST, &error.to_string())
        }
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

fn message(request: &PublishRequest) -> Result<Publish, String> {
    let publish = match (&request.uids, request.all) {
        (Some(_), true) => return Err("`uids` and `all` exclude each other".into()),
        (None, false) => return Err("no audience: give `uids`, or `all`: true".into()),
        (None, true) => Publish::everyone(),
        (Some(uids), false) => {
            let uids: Result<Vec<u64>, _> = uids.iter().map(|uid| parse::uid(uid)).collect();
            Publish::to(uids?)
        }
    };
    let from = request.from.as_deref().map(parse::uid).transpose()?.map(|uid| uid.to_string());
    let envelope = Envelope { text: &request.text, from, sent_at: request.sent_at };
    let payload = serde_json::to_vec(&envelope).map_err(|error| error.to_string())?;
    let publish = publish.content(ContentType::JSON, Encoding::IDENTITY).payload(payload);
    publish.check().map_err(|error| error.to_string())?;
    Ok(publish)
}

fn refuse(status: StatusCode, problem: &str) -> Response {
    (status, Json(json!({ "error": problem }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<&str, &str>) {
        let request: PublishRequest = serde_json::from_str(body).unwrap();
        match (message(&request), expected) {
            (Ok(publish), Ok(payload)) => assert_eq!(publish.payload, payload.as_bytes(), "{body}"),
            (Err(problem), Err(words)) => assert!(problem.contains(words), "{body}: {problem}"),
            (found, _) => panic!("{body}: {found:?}"),
        }
    }

    #[test]
    fn requests() {
        check(r#"{"uids":["1"],"text":"hi"}"#, Ok(r#"{"text":"hi"}"#));
        check(
            r#"{"all":true,"text":"hi","from":"2","sent_at":1.5}"#,
            Ok(r#"{"text":"hi","from":"2","sent_at":1.5}"#),
        );
        check(r#"{"uids":[],"text":""}"#, Err("the audience is empty"));
        check(r#"{"text":""}"#, Err("no audience"));
        check(r#"{"uids":["1"],"all":true,"text":""}"#, Err("exclude each other"));
        check(r#"{"uids":["x"],"text":""}"#, Err("is not a UID"));
        check(r#"{"uids":["1"],"text":"","from":"<b>"}"#, Err("is not a UID"));
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        for outside in ["src=\"http", "href=\"http", "url(http", "@import", "fetch(\"http"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
