//! Users on WebSockets, who share no code with the gateway but the minting of their tokens.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::support::PATIENCE;

/// What gateways check tokens with, as `WAYBILL_GATEWAY__JWT__SECRET`.
pub(crate) const SECRET: &str = "thirty-two bytes of secret, or more";

pub(crate) type User = WebSocketStream<tokio::net::TcpStream>;

/// A user of namespace 0 who has been told *ready*.
pub(crate) async fn login(gateway: SocketAddr, uid: u64) -> User {
    login_as(gateway, uid, 0).await
}

/// The same with a login number.
pub(crate) async fn login_as(gateway: SocketAddr, uid: u64, number: u64) -> User {
    login_by(gateway, uid, &mint(uid, number, &[])).await
}

/// The same with tags.
pub(crate) async fn login_tagged(gateway: SocketAddr, uid: u64, tags: &[&str]) -> User {
    login_by(gateway, uid, &mint(uid, 0, tags)).await
}

async fn login_by(gateway: SocketAddr, uid: u64, token: &str) -> User {
    let mut request = format!("ws://{gateway}/ws").into_client_request().unwrap();
    let protocol = HeaderValue::from_static("waybill.json.v1");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    let stream = tokio::net::TcpStream::connect(gateway).await.unwrap();
    let (mut user, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    user.send(Message::text(format!(r#"{{"type":"login","token":"{token}"}}"#))).await.unwrap();
    let ready = next(&mut user).await;
    assert_eq!(
        (ready["type"].as_str(), ready["uid"].as_str()),
        (Some("ready"), Some(&*uid.to_string()))
    );
    user
}

fn mint(uid: u64, login: u64, tags: &[&str]) -> String {
    let grant = waybill_gateway::auth::Grant {
        uid,
        namespace: 0,
        expires_at: 4_000_000_000,
        device_class: 0,
        login,
        tags,
    };
    waybill_gateway::auth::mint(SECRET.as_bytes(), grant)
}

/// The next message a user gets.
pub(crate) async fn next(user: &mut User) -> Value {
    loop {
        let message = tokio::time::timeout(PATIENCE, user.next()).await.expect("a message in time");
        if let Message::Text(text) = message.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// How its gateway ended a connection.
pub(crate) async fn ended(user: &mut User) -> u16 {
    loop {
        let message = tokio::time::timeout(PATIENCE, user.next()).await.expect("an end in time");
        if let Message::Close(Some(frame)) = message.unwrap().unwrap() {
            return frame.code.into();
        }
    }
}
