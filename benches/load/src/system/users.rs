//! Users on WebSockets of real gateways: all at once, and then idle. Nothing of a gateway is played
//! here; what is measured are its processes.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hdrhistogram::Histogram;
use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use waybill_client::{Options, Producer, Publish};

use super::mail::Mail;
use super::{Findings, Trial, quantiles};
use crate::clock;
use crate::failure::Failure;
use crate::interrupt;
use crate::process::{self, Server};
use crate::results::figure;
use crate::tally::{Fault, fault};
use crate::targets::Skipped;
use crate::waybill;
use crate::work::{gateway_of, uid_of};

/// Signs the tokens of this run's users; no gateway but this run's knows it.
const SECRET: &str = "thirty-two bytes of secret, or more";

/// How long a user waits to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// After the last login: what logins allocated has been returned, and the gateways have found out
/// which connections were cut.
const CALM: Duration = Duration::from_secs(1);

/// When every message is there: what comes again comes in this time.
const LINGER: Duration = Duration::from_millis(100);

/// Most times that all are cut off: each may take as long as [`READY_TIMEOUT`].
const AGAIN_MAX: usize = 100;

/// What a gateway takes for `gateway.deadlines.heartbeat_ms`.
const HEARTBEAT_MS: RangeInclusive<u64> = 100..=600_000;

/// Longest time told apart, in nanoseconds.
const LONGEST_NS: u64 = 120_000_000_000;

type User = WebSocketStream<TcpStream>;

/// Users who come at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StormPlan {
    /// Times that all are cut off and come again.
    pub again: usize,
}

/// Users who stay and say nothing, for the scenario's `seconds`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdlePlan {
    /// How often a gateway asks each of them whether it is there, in milliseconds.
    pub heartbeat_ms: u64,
}

impl StormPlan {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Option<String> {
        let again = self.again;
        (again > AGAIN_MAX).then(|| format!("again {again} is not in 0..={AGAIN_MAX}"))
    }
}

impl IdlePlan {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Option<String> {
        let (ms, fine) = (self.heartbeat_ms, HEARTBEAT_MS);
        let words = || format!("heartbeat_ms {ms} is not in {}..={}", fine.start(), fine.end());
        (!fine.contains(&ms)).then(words)
    }
}

/// A broker and its gateways.
struct World {
    broker: Server,
    address: SocketAddr,
    gateways: Vec<(Server, SocketAddr)>,
    runtime: tokio::runtime::Runtime,
}

/// Users who are connected, a task each; it ends with its connection.
struct Users {
    tasks: JoinSet<()>,
    ready_ns: Histogram<u64>,
    seconds: f64,
    failed: Vec<String>,
    /// By `k`: who is ready.
    ready: Vec<bool>,
    /// What they were told since: `k`, and the text.
    told: mpsc::Receiver<(u64, String)>,
}

impl Drop for World {
    /// Nothing is measured any more, and an orderly end would wait for every user.
    fn drop(&mut self) {
        self.gateways.iter_mut().for_each(|gateway| gateway.0.kill());
        self.broker.kill();
    }
}

impl World {
    fn start(trial: &mut Trial<'_>, heartbeat_ms: Option<u64>) -> Result<Self, Failure> {
        let (broker, address) = trial.broker(None)?;
        let heartbeat =
            heartbeat_ms.map(|ms| format!("[gateway.deadlines]\nheartbeat_ms = {ms}\n"));
        let settings = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n[gateway.broker]\naddresses = [\"{address}\"]\n\
             [gateway.jwt]\nsecret = \"{SECRET}\"\n{}[log]\nlevel = \"warn\"\n",
            heartbeat.unwrap_or_default()
        );
        let path = trial.place.folder().join("gateway.toml");
        fs::write(&path, settings)?;
        let gateway = |index: usize| -> Result<(Server, SocketAddr), Failure> {
            let mut command = trial.place.command(trial.place.waybill());
            waybill::without_settings(&mut command);
            command.args(["gateway", "--json", "--config"]).arg(&path);
            let mut server = trial.place.start(&format!("gateway-{index}"), command)?;
            let address = server.wait_for_line(|line| {
                let said: Value = serde_json::from_str(line).ok()?;
                said.get("gateway")?.as_str()?.parse().ok()
            })?;
            Ok((server, address))
        };
        let gateways = (0..trial.work.gateways).map(gateway).collect::<Result<_, _>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { broker, address, gateways, runtime })
    }

    fn usage(&self) -> crate::engine::Usage {
        process::usage(&self.gateways.iter().flat_map(|it| it.0.pids()).collect::<Vec<_>>())
    }

    /// Drives this to its end, or until the run is interrupted.
    fn block_on<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.runtime.block_on(async {
            tokio::select! {
                done = work => Ok(done),
                () = interrupt::wait() => Err(Failure::new("interrupted")),
            }
        })
    }

    /// All users come at once.
    fn storm(&self, tokens: &[String]) -> Result<Users, Failure> {
        self.block_on(async {
            let (mut tasks, (done, mut logins)) = (JoinSet::new(), mpsc::channel(tokens.len()));
            // Each may be told something twice before somebody looks.
            let (tell, told) = mpsc::channel(2 * tokens.len());
            let start = clock::instant();
            for (k, token) in (0u64..).zip(tokens) {
                let uid = uid_of(k);
                let address = self.gateways[gateway_of(uid, self.gateways.len())].1;
                let (token, done, tell) = (token.clone(), done.clone(), tell.clone());
                tasks.spawn(async move {
                    let login = timeout(READY_TIMEOUT, login(address, uid, &token)).await;
                    let login = login.unwrap_or_else(|_| Err("is not ready in time".into()));
                    let (user, outcome) = match login {
                        Ok(user) => (Some(user), Ok((k, start.elapsed()))),
                        Err(words) => (None, Err(format!("user {uid}: {words}"))),
                    };
                    let _nobody_waits = done.send(outcome).await;
                    let Some(mut user) = user else { return };
                    // Reading answers the gateway's heartbeat.
                    while let Some(Ok(message)) = user.next().await {
                        if let Message::Text(text) = message {
                            let _nobody_asks = tell.send((k, text.to_string())).await;
                        }
                    }
                });
            }
            drop(done);
            let mut ready_ns =
                Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(Failure::new)?;
            let (mut failed, mut last) = (Vec::new(), Duration::ZERO);
            let mut ready = vec![false; tokens.len()];
            for _ in tokens {
                match logins.recv().await {
                    Some(Ok((k, after))) => {
                        ready[usize::try_from(k).expect("an index of `tokens`")] = true;
                        last = last.max(after);
                        ready_ns.saturating_record(clock::nanos(after));
                    }
                    Some(Err(words)) => failed.push(words),
                    None => failed.push("a user's task ended".into()),
                }
            }
            Ok(Users { tasks, ready_ns, seconds: last.as_secs_f64(), failed, ready, told })
        })?
    }

    /// Publishes one message to each user who is ready, and looks for it on that user's WebSocket;
    /// what is wrong. What has not come when nothing came for `drain` is lost.
    fn prove(&self, users: &mut Users, drain: Duration) -> Result<Vec<Fault>, Failure> {
        let ready = || (0u64..).zip(&users.ready).filter(|it| *it.1).map(|(k, _)| k);
        let batch = ready().map(|k| {
            let payload = uid_of(k).to_string();
            Publish::to([uid_of(k)]).payload(payload)
        });
        let (batch, mut mail) = (batch.collect::<Vec<_>>(), Mail::to(ready()));
        self.block_on(async {
            sleep(CALM).await;
            let options = Options::new([self.address.to_string()]);
            let producer = Producer::connect(options).await.map_err(Failure::new)?;
            for outcome in producer.publish_batch(batch).await {
                if let Err(error) = outcome {
                    mail.fault(fault::REFUSED, error.to_string());
                }
            }
            producer.close().await;
            while mail.is_open() {
                match timeout(drain, users.told.recv()).await {
                    Ok(Some((k, text))) => mail.arrived(k, &text),
                    Ok(None) | Err(_) => break,
                }
            }
            while let Ok(Some((k, text))) = timeout(LINGER, users.told.recv()).await {
                mail.arrived(k, &text);
            }
            Ok(mail.end())
        })?
    }
}

/// One user, who has been told that it is ready.
async fn login(address: SocketAddr, uid: u64, token: &str) -> Result<User, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| words(&error))?;
    stream.set_nodelay(true).map_err(|error| words(&error))?;
    let mut request =
        format!("ws://{address}/ws").into_client_request().map_err(|error| words(&error))?;
    let protocol = HeaderValue::from_static("waybill.json.v1");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    // There are thousands of them, and messages are small.
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
    let mut user = opened.await.map_err(|error| words(&error))?.0;
    let login = json!({ "type": "login", "token": token }).to_string();
    user.send(Message::text(login)).await.map_err(|error| words(&error))?;
    loop {
        match user.next().await {
            Some(Ok(Message::Text(text))) => {
                let said: Value = serde_json::from_str(&text).map_err(|error| words(&error))?;
                let of_user = said["uid"].as_str() == Some(&*uid.to_string());
                return match said["type"].as_str() {
                    Some("ready") if of_user => Ok(user),
                    _ => Err(format!("is told {text}")),
                };
            }
            Some(Ok(Message::Ping(_))) => {}
            other => return Err(format!("is told {other:?}")),
        }
    }
}

fn tokens(users: u64) -> Result<Vec<String>, Failure> {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let expires_at = clock::since_1970() + 86_400;
    let token = |k: u64| {
        let claims = json!({ "sub": uid_of(k).to_string(), "exp": expires_at });
        jsonwebtoken::encode(&Header::default(), &claims, &key).map_err(Failure::new)
    };
    (0..users).map(token).collect()
}

/// What went wrong with logins, as a fault.
fn refused(failed: &[String], findings: &mut Findings) {
    if let Some(first) = failed.first() {
        let (name, count) = (fault::REFUSED.into(), failed.len() as u64);
        add(vec![Fault { name, count, example: first.clone() }], findings);
    }
}

/// Adds faults to those found: of a name there is one, with the first example.
fn add(faults: Vec<Fault>, findings: &mut Findings) {
    for fault in faults {
        match findings.faults.iter_mut().find(|it| it.name == fault.name) {
            Some(found) => found.count += fault.count,
            None => findings.faults.push(fault),
        }
    }
}

impl StormPlan {
    /// Runs it.
    pub(super) fn run(&self, trial: &mut Trial<'_>) -> Result<Findings, Skipped> {
        let tokens = tokens(trial.work.users)?;
        let world = World::start(trial, None)?;
        let mut findings = Findings { users: trial.work.users, ..Findings::default() };
        for round in 0..=self.again {
            let name = if round == 0 { String::new() } else { "again_".into() };
            let before = world.usage();
            let mut users = world.storm(&tokens)?;
            let after = world.usage();
            refused(&users.failed, &mut findings);
            add(world.prove(&mut users, trial.spans.drain)?, &mut findings);
            let logins = users.ready_ns.len() as f64;
            findings.figure(&format!("{name}logins_per_s"), logins / users.seconds);
            let cpu = after.cpu.saturating_sub(before.cpu) as f64 / 1e3 / logins;
            findings.figure(&format!("{name}gateway_cpu_us_per_login"), cpu);
            let words = if round == 0 { "ready" } else { "ready again" };
            quantiles(words, &users.ready_ns, &mut findings);
            findings.figure(figure::RSS_BYTES, after.rss as f64);
            // All are cut: their sockets close, and the gateways find out while they come again.
            drop(users.tasks);
        }
        Ok(findings)
    }
}

impl IdlePlan {
    /// Runs it.
    pub(super) fn run(&self, trial: &mut Trial<'_>) -> Result<Findings, Skipped> {
        let tokens = tokens(trial.work.users)?;
        let world = World::start(trial, Some(self.heartbeat_ms))?;
        let mut findings = Findings { users: trial.work.users, ..Findings::default() };
        let empty = world.usage();
        let mut users = world.storm(&tokens)?;
        refused(&users.failed, &mut findings);
        let pass = |span: Duration| world.block_on(async move { sleep(span).await });
        pass(CALM)?;
        let (begin, start) = (world.usage(), clock::instant());
        pass(trial.spans.measured)?;
        let (end, seconds) = (world.usage(), start.elapsed().as_secs_f64());
        let count = users.ready_ns.len() as f64;
        let grown = end.rss.saturating_sub(empty.rss) as f64;
        findings.figure("bytes_per_connection", grown / count);
        let cpu = end.cpu.saturating_sub(begin.cpu) as f64 / 1e3 / seconds * 60.0 / count;
        findings.figure("cpu_us_per_connection_and_minute", cpu);
        findings.figure(figure::RSS_BYTES, end.rss as f64);
        findings.notes.push(format!("a heartbeat every {} ms", self.heartbeat_ms));
        add(world.prove(&mut users, trial.spans.drain)?, &mut findings);
        let mut gone = Vec::new();
        while users.tasks.try_join_next().is_some() {
            gone.push("a connection ended while it was idle".to_string());
        }
        if gone.len() > users.failed.len() {
            refused(&gone, &mut findings);
        }
        Ok(findings)
    }
}
