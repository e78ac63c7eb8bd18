//! A gateway on a free port with a scripted broker behind it, and users.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use waybill_gateway::auth::{Grant, mint};
use waybill_gateway::{Gateway, GatewayConfig, GatewayHandle};

use crate::broker::FakeBroker;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const JSON: &str = "waybill.json.v1";
pub(crate) const BINARY: &str = "waybill.bin.v1";

/// Runs a test on a runtime like the product's, under a deadline.
pub(crate) fn run(test: impl Future<Output = ()>) {
    run_on(Builder::new_multi_thread().worker_threads(2), test);
}

/// The same where no two tasks ever run at once.
pub(crate) fn run_on_one_thread(test: impl Future<Output = ()>) {
    run_on(&mut Builder::new_current_thread(), test);
}

fn run_on(builder: &mut Builder, test: impl Future<Output = ()>) {
    builder.enable_all().build().unwrap().block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs");
    });
}

/// A gateway and its broker.
pub(crate) struct Site {
    pub(crate) broker: FakeBroker,
    pub(crate) gateway: GatewayHandle,
}

/// Promise 5, at the end of every test and whatever it was about.
impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.gateway.stats().balances(), Ok(()), "promise 5");
        }
    }
}

impl Site {
    pub(crate) async fn start(adjust: impl FnOnce(&mut GatewayConfig)) -> Self {
        let broker = FakeBroker::start().await;
        let mut config =
            GatewayConfig { listen: "127.0.0.1:0".parse().unwrap(), ..Default::default() };
        config.broker.addresses = vec![broker.address.to_string()];
        config.jwt.secret = SECRET.into();
        adjust(&mut config);
        let gateway = Gateway::start(config, None).await.unwrap();
        Self { broker, gateway }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// A user that has been told *ready*, in JSON.
    pub(crate) async fn user(&self, uid: u64) -> User {
        self.user_of(0, uid).await
    }

    pub(crate) async fn user_of(&self, namespace: u32, uid: u64) -> User {
        self.user_with(namespace, uid, 0).await
    }

    pub(crate) async fn user_with(&self, namespace: u32, uid: u64, number: u64) -> User {
        let mut user = User::connect(self.address(), JSON).await;
        let token = token_with(namespace, uid, number, 3600);
        user.say(&login(&token)).await;
        let ready = user.hear().await;
        assert_eq!((&ready["type"], &ready["uid"]), (&"ready".into(), &uid.to_string().into()));
        user.connection = ready["connection"].as_str().unwrap().parse().unwrap();
        user
    }

    /// A user of namespace 0 whose token has these tags, *ready* or not.
    pub(crate) async fn tagged(&self, uid: u64, tags: &[&str]) -> User {
        let mut user = User::connect(self.address(), JSON).await;
        user.say(&login(&token_of(Grant { uid, tags, ..NOBODY }, 3600))).await;
        user
    }

    /// A user that has been told *ready*, in binary.
    pub(crate) async fn binary_user(&self, uid: u64) -> User {
        let mut user = User::connect(self.address(), BINARY).await;
        let token = token(0, uid, 3600);
        let mut login = vec![1, 0];
        login.extend(u16::try_from(token.len()).unwrap().to_le_bytes());
        login.extend(token.as_bytes());
        user.send(Message::binary(login)).await;
        let ready = user.hear_binary().await;
        assert_eq!((ready[0], ready.len()), (0x81, 28));
        assert_eq!(ready[8..16], uid.to_le_bytes());
        user.connection = u64::from_le_bytes(ready[16..24].try_into().unwrap());
        user
    }
}

/// A token for a user, good for so many seconds.
pub(crate) fn token(namespace: u32, uid: u64, seconds: i64) -> String {
    token_with(namespace, uid, 0, seconds)
}

fn token_with(namespace: u32, uid: u64, login: u64, seconds: i64) -> String {
    token_of(Grant { namespace, uid, login, ..NOBODY }, seconds)
}

const NOBODY: Grant<'_> =
    Grant { namespace: 0, uid: 0, device_class: 0, login: 0, tags: &[], expires_at: 0 };

fn token_of(grant: Grant<'_>, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let expires_at = now.checked_add_signed(seconds).unwrap();
    mint(SECRET.as_bytes(), Grant { expires_at, ..grant })
}

pub(crate) fn login(token: &str) -> String {
    format!(r#"{{"type":"login","token":"{token}"}}"#)
}

/// A client of another WebSocket implementation's making.
pub(crate) struct User {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) connection: u64,
}

impl User {
    pub(crate) async fn connect(address: SocketAddr, subprotocol: &str) -> Self {
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], subprotocol);
        Self { socket, connection: 0 }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    /// The next message but pings.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            match self.socket.next().await.expect("the socket has ended").unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    pub(crate) async fn hear(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("not text: {other:?}"),
        }
    }

    pub(crate) async fn hear_binary(&mut self) -> Vec<u8> {
        match self.next().await {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("not binary: {other:?}"),
        }
    }

    /// The payload of the next *message*.
    pub(crate) async fn data(&mut self) -> String {
        let message = self.hear().await;
        assert_eq!(message["type"], "message", "{message}");
        message["data"].as_str().unwrap().to_owned()
    }

    /// The code and reason the gateway closes with; nothing else may come before.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        match self.next().await {
            Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("not a close: {other:?}"),
        }
    }

    /// The socket, after the upgrade, for what no client should do.
    pub(crate) fn into_raw(self) -> TcpStream {
        self.socket.into_inner()
    }
}

/// Status and body of a plain HTTP request with these header lines.
pub(crate) async fn http(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
    let request = if headers.contains("Upgrade") {
        request.replace("Connection: close\r\n", "")
    } else {
        request
    };
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let len = socket.read(&mut chunk).await.unwrap();
        answer.extend(&chunk[..len]);
        // A refused upgrade keeps its connection; the head is all that is looked at then.
        let ended = answer.windows(4).any(|window| window == b"\r\n\r\n");
        if len == 0 || (headers.contains("Upgrade") && ended) {
            break;
        }
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
