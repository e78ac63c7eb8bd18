//! HTTP in front of the WebSockets: accepting sockets, `/ws`, `/healthz`, `/ledger` and the routes
//! of whoever embeds the gateway.
//!
//! hyper serves each socket and gives it back, raw, when it was upgraded. A socket counts against
//! one bound from its acceptance to its end; beyond it the kernel's backlog holds what comes.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep_until, timeout_at};
use tracing::{debug, warn};

use crate::hub::LoginRefused;
use crate::server::{Shared, Stage};
use crate::subprotocol::Subprotocol;
use crate::telemetry::GatewayStats;
use crate::transports::upgrade;
use crate::transports::websocket::Connection;

/// Sockets beyond `connections_max`: requests that are not upgraded yet, health checks, and clients
/// that are told `too_many`.
pub(crate) const EXTRA_SOCKETS: usize = 1024;

/// Bytes of a request's head, at most.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long accepting rests when the system has no more file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Keeps a socket counted for as long as it is anywhere.
type Place = Arc<OwnedSemaphorePermit>;

pub(crate) fn router(shared: Arc<Shared>, extra_routes: Option<Router>) -> Router {
    let own = Router::new()
        .route("/ws", get(websocket))
        .route("/healthz", get(health))
        .route("/ledger", get(ledger))
        .with_state(shared);
    own.merge(extra_routes.unwrap_or_default())
}

pub(crate) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    router: Router,
    mut stop: watch::Receiver<Stage>,
) {
    let places = Arc::new(Semaphore::new(shared.connections_max + EXTRA_SOCKETS));
    loop {
        let accepted = tokio::select! {
            stage = stop.wait_for(|stage| *stage >= Stage::Empty) => {
                drop(stage);
                return;
            }
            accepted = accept_one(&listener, &places) => accepted,
        };
        match accepted {
            Ok((socket, place)) => {
                let serving =
                    serve(socket, place, Arc::clone(&shared), router.clone(), stop.clone());
                tokio::spawn(serving);
            }
            Err(error) => {
                warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, Place)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.expect("nobody closes the semaphore");
    let (socket, _) = listener.accept().await?;
    Ok((socket, Arc::new(place)))
}

async fn serve(
    socket: TcpStream,
    place: Place,
    shared: Arc<Shared>,
    router: Router,
    mut stop: watch::Receiver<Stage>,
) {
    // Frames are small and coalesced here already; waiting for more would only delay them.
    let _ = socket.set_nodelay(true);
    if let Err(error) = shared.liveness.apply(&socket) {
        debug!(%error, "a socket without keepalive");
    }
    let (login_ms, clock) = (shared.session_limits.login_ms, &shared.clock);
    let deadline = clock.instant(clock.ms() + login_ms);
    // The library takes 8 KiB for a request before there is one: where all users came at once, all
    // had them at once, and what they left between sessions was not given back to the system.
    let mut first = [0];
    tokio::select! {
        // The runtime takes a new socket for readable.
        peeked = timeout_at(deadline, socket.peek(&mut first)) => match peeked {
            Ok(Ok(1..)) => {}
            _ => return,
        },
        stage = stop.wait_for(|stage| *stage >= Stage::Empty) => return drop(stage),
    }
    let routes = TowerToHyperService::new(router);
    let is_asked = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_asked);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Arc::clone(&place));
        routes.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(login_ms))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    // The library counts from the first byte of each request; of the first one all of the time
    // until then is taken off.
    let late = async {
        sleep_until(deadline).await;
        if is_asked.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = late => debug!("no request in time"),
        served = serving => {
            if let Err(error) = served {
                debug!(%error, "HTTP connection ended");
            }
        }
        stage = stop.wait_for(|stage| *stage >= Stage::Empty) => drop(stage),
    }
}

async fn websocket(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let (method, version) = (request.method(), request.version());
    let judged = upgrade::judge(method, version, request.headers(), &shared.allowed_origins);
    let accepted = match judged {
        Ok(accepted) => accepted,
        Err(refused) => {
            debug!(?refused, "not upgraded");
            shared.telemetry.upgrades_refused.add(1);
            return refused.response();
        }
    };
    let place = request.extensions_mut().remove::<Place>();
    let (Some(place), false) = (place, shared.is_draining()) else {
        shared.telemetry.upgrades_refused.add(1);
        let headers = [(header::RETRY_AFTER, "5")];
        return (StatusCode::SERVICE_UNAVAILABLE, headers, "the gateway is going away\n")
            .into_response();
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(connect(upgraded, shared, accepted.subprotocol, place));
    accepted.response()
}

/// The life of a WebSocket, from the moment its upgrade was answered.
async fn connect(upgraded: OnUpgrade, shared: Arc<Shared>, subprotocol: Subprotocol, place: Place) {
    let parts = match upgraded.await.map(|upgraded| upgraded.downcast::<TokioIo<TcpStream>>()) {
        Ok(Ok(parts)) => parts,
        Ok(Err(_)) => return warn!("the upgraded connection is not a TCP socket"),
        Err(error) => return debug!(%error, "the client left during the upgrade"),
    };
    shared.telemetry.upgrades.add(1);
    let socket = parts.io.into_inner();
    let mut connection = Connection::new(Arc::clone(&shared), socket, &parts.read_buf, subprotocol);
    drop(parts.read_buf);
    let (key, fits) = shared.enter(connection.outbox());
    if !fits {
        connection.refuse(LoginRefused::Connections);
    }
    // By reference: awaiting it by value would keep room for it twice in this task.
    (&mut connection).await;
    drop(connection);
    shared.leave(key);
    drop(place);
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    links_up: u64,
    counters: GatewayStats,
}

/// What became of every message, in the words of [`GatewayStats`].
async fn ledger(State(shared): State<Arc<Shared>>) -> Json<GatewayStats> {
    Json(shared.stats())
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let counters = shared.stats();
    let links_up = counters.links_up;
    let (code, status) = match (shared.is_draining(), links_up) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, 0) => (StatusCode::SERVICE_UNAVAILABLE, "no broker"),
        (false, _) => (StatusCode::OK, "up"),
    };
    (code, Json(Health { status, links_up, counters })).into_response()
}
