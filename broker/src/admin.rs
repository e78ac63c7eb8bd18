//! Health and ledger over HTTP, for whoever runs this machine, and where a message would go:
//! `GET /healthz`, `GET /ledger`, `POST /explain`.
//!
//! A thread beside the shards, which reads their counters and what they share, and asks them
//! nothing. It listens on a loopback address only, since whoever asks is answered. Never: anything
//! that changes the broker.

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header, uri::Authority};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, warn};
use waybill_wire::code::BrokerState;

use crate::explain::answer::Explanation;
use crate::explain::explain;
use crate::explain::question::{Mistake, QUESTION_BYTES_MAX, Question};
use crate::io::choice::Backend;
use crate::ledger::{Counters, Ledger};
use crate::limits::ADMIN_CONNECTIONS_MAX;
use crate::shared::Shared;

/// Bytes of a request's head, at most; hyper's least.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// How long a request's head may take, and then its body.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// How long accepting rests when the system has no more file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Admin {
    shared: Arc<Shared>,
    backend: Backend,
    counters: Vec<Arc<Counters>>,
    stopping: watch::Receiver<Option<u32>>,
}

#[derive(Serialize)]
struct Health<'a> {
    state: &'static str,
    links: u32,
    routes: usize,
    backend: &'a Backend,
}

/// The ledger, and which backend its counters of I/O are of.
#[derive(Serialize)]
struct Account<'a> {
    backend: &'a Backend,
    #[serde(flatten)]
    ledger: Ledger,
}

impl Admin {
    /// Serves until the sender of `stopping` is gone.
    pub(crate) fn new(
        shared: Arc<Shared>,
        backend: Backend,
        counters: Vec<Arc<Counters>>,
        stopping: watch::Receiver<Option<u32>>,
    ) -> Self {
        Self { shared, backend, counters, stopping }
    }

    pub(crate) async fn serve(self, listener: TcpListener) {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return warn!(%error, "the admin listener cannot be watched"),
        };
        let mut stopping = self.stopping.clone();
        let routes = Router::new()
            .route("/healthz", get(health))
            .route("/ledger", get(ledger))
            .route("/explain", post(question))
            .layer(DefaultBodyLimit::max(QUESTION_BYTES_MAX))
            .with_state(Arc::new(self));
        let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
        let accepting = async {
            loop {
                match accept(&listener, &places).await {
                    Ok((stream, place)) => {
                        tokio::spawn(answer(stream, place, routes.clone()));
                    }
                    Err(error) => {
                        warn!(%error, "an admin connection could not be accepted");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            // Nothing that is sent ends it, only the end of the sender.
            _ = stopping.wait_for(|_| false) => {}
        }
    }

    fn state(&self) -> BrokerState {
        if self.stopping.borrow().is_some() {
            BrokerState::DRAINING
        } else if self.shared.is_ready() {
            BrokerState::READY
        } else {
            BrokerState::NOT_READY
        }
    }
}

async fn accept(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("nobody closes the semaphore");
    Ok((listener.accept().await?.0, place))
}

async fn answer(stream: TcpStream, place: OwnedSemaphorePermit, routes: Router) {
    let _place = place;
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        // One request each: an idle connection would keep others out.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await;
    if let Err(error) = served {
        debug!(%error, "admin connection ended");
    }
}

async fn health(State(admin): State<Arc<Admin>>) -> Response {
    let state = admin.state();
    let code =
        if state == BrokerState::READY { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let health = Health {
        state: state.name().unwrap_or("unknown"),
        links: admin.shared.links(),
        routes: admin.shared.routes.routes(),
        backend: &admin.backend,
    };
    (code, NOT_STORED, Json(health)).into_response()
}

async fn ledger(State(admin): State<Arc<Admin>>) -> Response {
    let ledger = Ledger::of(admin.counters.iter().map(Arc::as_ref));
    (NOT_STORED, Json(Account { backend: &admin.backend, ledger })).into_response()
}

/// A mistake is told with its field.
async fn question(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let told = match asked(request).await {
        Ok(question) => explain(&admin.shared, &question)
            .map_err(|mistake| (StatusCode::UNPROCESSABLE_ENTITY, mistake)),
        Err(refusal) => Err(refusal),
    };
    match told {
        Ok(explanation) => {
            let state = admin.state().to_string();
            (NOT_STORED, Json(Explanation { state, ..explanation })).into_response()
        }
        Err((code, error)) => (code, NOT_STORED, Json(Refusal { error })).into_response(),
    }
}

/// What is wrong with a question.
#[derive(Serialize)]
struct Refusal {
    error: Mistake,
}

async fn asked(request: Request) -> Result<Question, (StatusCode, Mistake)> {
    let no = |code, field: &str, reason: &str| Err((code, Mistake::new(field, reason)));
    if !is_from_here(request.headers()) {
        let words = "the Host of the request must be a loopback address or localhost";
        return no(StatusCode::MISDIRECTED_REQUEST, "", words);
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return no(StatusCode::UNSUPPORTED_MEDIA_TYPE, "", "the body must be application/json");
    }
    let body = match timeout(HEAD_WITHIN, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return no(error.status(), "", &error.body_text()),
        Err(_) => return no(StatusCode::REQUEST_TIMEOUT, "", "the body took too long"),
    };
    let mut json = serde_json::Deserializer::from_slice(&body);
    let question = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (field, reason) = (error.path().to_string(), error.inner().to_string());
        let field = if field == "." { String::new() } else { field };
        (StatusCode::BAD_REQUEST, Mistake::new(field, reason))
    })?;
    match json.end() {
        Ok(()) => Ok(question),
        Err(error) => no(StatusCode::BAD_REQUEST, "", &error.to_string()),
    }
}

/// A page of somebody else, in a browser on this machine, could ask by a name of its own that it
/// lets point here. Who is online is not for it.
fn is_from_here(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address: Result<IpAddr, _> = name.parse();
        name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
    })
}

const NOT_STORED: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];
