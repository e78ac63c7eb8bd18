//! Users on WebSockets, by the rules of chapter 13: they log in, wait for *ready*, take what comes,
//! send now and then, and come back with back-off when a connection ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use waybill_gateway::auth::{Grant, mint};

use crate::clock::{Micros, since_1970};
use crate::load::number_in;
use crate::record::{Answer, Ending, Life, Uplink};
use crate::servers::SECRET;
use crate::world::{Device, Phase, World};

/// Bound of the first delay and of all, and the life after which it starts anew (ERR-4).
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(5);
const GOOD_LIFE: Micros = 10_000_000;

/// How long a connection may take to come to *ready*.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
const READY_TIMEOUT: Duration = Duration::from_secs(15);

type Socket = WebSocketStream<TcpStream>;

/// What a gateway says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    id: serde_json::Value,
    #[serde(default)]
    reason: String,
}

/// One device for the whole run.
pub(crate) async fn live(world: Arc<World>, device: Device) {
    let mut random = StdRng::seed_from_u64(world.seed ^ (u64::from(device.device) << 20));
    let (mut gateway, mut bound) = (device.home, BACKOFF_BASE);
    let mut ended_at = None;
    while *world.phase.borrow() < Phase::Settling || (device.pinned && ended_at.is_none()) {
        let opened = world.clock.now();
        let life = begin(&world, device, gateway);
        let ending = connect(&world, device, gateway, life, &mut random, &mut ended_at).await;
        let now = world.clock.now();
        let was_ready = world.shared.with(|record| {
            let life = &mut record.lives[life as usize];
            life.ended = Some((now, ending));
            life.ready_at.is_some()
        });
        if was_ready {
            ended_at = Some(now);
        }
        if *world.phase.borrow() >= Phase::Settling {
            break;
        }
        if now - opened >= GOOD_LIFE || ending == Ending::Left {
            bound = BACKOFF_BASE;
        }
        sleep(bound.mul_f64(random.random())).await;
        bound = (bound * 2).min(BACKOFF_CAP);
        if !device.pinned && world.gateways.len() > 1 {
            let step = random.random_range(1..world.gateways.len());
            gateway = (gateway + step) % world.gateways.len();
        }
    }
}

fn begin(world: &World, device: Device, gateway: usize) -> u32 {
    let gateway_life = world.gateways[gateway].life();
    world.shared.with(|record| {
        record.lives.push(Life {
            user: device.user,
            device: device.device,
            gateway,
            gateway_life,
            ready_at: None,
            ended: None,
            arrivals: 0,
        });
        u32::try_from(record.lives.len() - 1).expect("fewer connections than that")
    })
}

/// One connection, to its end.
async fn connect(
    world: &Arc<World>,
    device: Device,
    gateway: usize,
    life: u32,
    random: &mut StdRng,
    ended_at: &mut Option<Micros>,
) -> Ending {
    let Ok(Some(mut socket)) = timeout(OPEN_TIMEOUT, open(world, gateway)).await else {
        return Ending::Failed;
    };
    let grant = Grant {
        uid: device.uid,
        namespace: device.namespace,
        expires_at: since_1970() + 86_400,
        device_class: u8::try_from(device.device % 4).unwrap_or(0),
        login: 0,
        tags: &[],
    };
    let token = mint(SECRET.as_bytes(), grant);
    let login = format!(r#"{{"type":"login","token":"{token}"}}"#);
    if socket.send(Frame::text(login)).await.is_err() {
        return Ending::Failed;
    }
    match timeout(READY_TIMEOUT, next(&mut socket)).await {
        Ok(Ok(said)) if said.kind == "ready" => {}
        Ok(Err(Ending::Code(code))) => return Ending::Code(code),
        _ => return Ending::Failed,
    }
    let now = world.clock.now();
    world.shared.with(|record| {
        record.lives[life as usize].ready_at = Some(now);
        if let Some(ended) = ended_at.take() {
            record.reconnects.push(now - ended);
        }
    });
    Connection { world, device, life, socket, uplinks: HashMap::new(), next_id: 0 }
        .run(random)
        .await
}

async fn open(world: &World, gateway: usize) -> Option<Socket> {
    let address = world.gateways[gateway].address;
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let mut request = format!("ws://{address}/ws").into_client_request().ok()?;
    let protocol = HeaderValue::from_static("waybill.json.v1");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    // There are thousands of them, and messages are small.
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
    Some(opened.await.ok()?.0)
}

/// The next thing the gateway says, or how the connection ended.
async fn next(socket: &mut Socket) -> Result<Said, Ending> {
    loop {
        match socket.next().await {
            Some(Ok(Frame::Text(text))) => match serde_json::from_str(&text) {
                Ok(said) => return Ok(said),
                Err(_) => return Err(Ending::Broken),
            },
            Some(Ok(Frame::Close(Some(frame)))) => return Err(Ending::Code(frame.code.into())),
            Some(Ok(Frame::Close(None)) | Err(_)) | None => return Err(Ending::Broken),
            Some(Ok(_)) => {}
        }
    }
}

/// A connection that is ready.
struct Connection<'a> {
    world: &'a Arc<World>,
    device: Device,
    life: u32,
    socket: Socket,
    /// Number in the record, by `id`.
    uplinks: HashMap<u32, usize>,
    next_id: u32,
}

impl Connection<'_> {
    async fn run(mut self, random: &mut StdRng) -> Ending {
        let world = Arc::clone(self.world);
        let mut phases = world.phase.subscribe();
        let leave_every = if self.device.pinned { 0 } else { world.leave_every };
        let (uplink_at, leave_at) = (after(world.uplink_every, random), after(leave_every, random));
        tokio::pin!(uplink_at, leave_at);
        loop {
            let phase = *phases.borrow_and_update();
            if phase == Phase::Over {
                return self.leave().await;
            }
            let may_send = phase == Phase::Running && !self.device.pinned;
            tokio::select! {
                said = next(&mut self.socket) => match said {
                    Ok(said) => self.take(&said),
                    Err(ending) => return ending,
                },
                () = &mut uplink_at, if may_send && world.uplink_every > 0 => {
                    uplink_at.set(after(world.uplink_every, random));
                    if self.send().await.is_err() {
                        return Ending::Broken;
                    }
                }
                () = &mut leave_at, if phase == Phase::Running && leave_every > 0 => {
                    return self.leave().await;
                }
                _ = phases.changed() => {}
            }
        }
    }

    fn take(&mut self, said: &Said) {
        let Device { namespace, uid, .. } = self.device;
        match said.kind.as_str() {
            "message" => {
                let number = number_in(&said.data);
                self.world.shared.arrive(self.life, (namespace, uid), number);
            }
            "sent" | "refused" => {
                let id = said.id.as_u64().and_then(|id| u32::try_from(id).ok());
                let Some(number) = id.and_then(|id| self.uplinks.remove(&id)) else {
                    let details = || format!("user {namespace}/{uid}: {said:?}");
                    self.world.shared.with(|record| {
                        record.violations.add("an answer to nothing", details);
                    });
                    return;
                };
                let answer = match said.kind.as_str() {
                    "sent" => Answer::Sent,
                    _ => Answer::Refused(said.reason.clone()),
                };
                self.world.shared.with(|record| record.uplinks[number].answer = answer);
            }
            _ => {}
        }
    }

    async fn send(&mut self) -> Result<(), ()> {
        self.next_id += 1;
        let (life, sent_at) = (self.life, self.world.clock.now());
        let number = self.world.shared.with(|record| {
            let received = Vec::new();
            record.uplinks.push(Uplink { life, sent_at, answer: Answer::Open, received });
            record.uplinks.len() - 1
        });
        self.uplinks.insert(self.next_id, number);
        let id = self.next_id;
        let text = format!(r#"{{"type":"send","id":{id},"labels":["up"],"data":"{number}"}}"#);
        // A gateway that stands still takes nothing; its user waits with it.
        self.socket.send(Frame::text(text)).await.map_err(|_| ())
    }

    async fn leave(mut self) -> Ending {
        let farewell = async {
            self.socket.close(None).await.ok()?;
            while let Ok(said) = next(&mut self.socket).await {
                self.take(&said);
            }
            Some(())
        };
        let _answered_or_not = timeout(Duration::from_secs(2), farewell).await;
        Ending::Left
    }
}

/// Ends after a random time of this mean, distributed as the times between independent events.
fn after(mean: Micros, random: &mut StdRng) -> Sleep {
    let unit: f64 = random.random();
    sleep(Duration::from_micros(mean).mul_f64(-(1.0 - unit).max(1e-9).ln()))
}
