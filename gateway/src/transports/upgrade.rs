//! From an HTTP request to a WebSocket, or to the status that says why not. Headers in, a verdict
//! out; the order of checks is the order of the verdicts below.

use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::origin::{self, Origin};
use crate::subprotocol::Subprotocol;

/// Why a request is not upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotWebSocket,
    Http,
    Host,
    Version,
    Key,
    Origin,
    Subprotocol,
}

/// A request that can be upgraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) subprotocol: Subprotocol,
    accept_key: String,
}

/// Judges a request (RFC 6455, 4.2.1; WS-1; WS-14).
pub(crate) fn judge(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    allowed_origins: &[Origin],
) -> Result<Accepted, Refused> {
    let has_token = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    };
    if method != Method::GET
        || !has_token(header::CONNECTION, "upgrade")
        || !has_token(header::UPGRADE, "websocket")
    {
        return Err(Refused::NotWebSocket);
    }
    if version < Version::HTTP_11 {
        return Err(Refused::Http);
    }
    let host = only(headers, header::HOST).ok_or(Refused::Host)?;
    if !has_token(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(Refused::Version);
    }
    let key = only(headers, header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
    let key = key.ok_or(Refused::Key)?;
    let origins = headers.get_all(header::ORIGIN).iter().map(|origin| origin.as_bytes());
    if !origin::is_allowed(origins, Some(host), allowed_origins) {
        return Err(Refused::Origin);
    }
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offers = offers.filter_map(|offer| offer.to_str().ok());
    let subprotocol = Subprotocol::choose(offers).ok_or(Refused::Subprotocol)?;
    Ok(Accepted { subprotocol, accept_key: derive_accept_key(key.as_bytes()) })
}

/// The value of a header that is there exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

impl Accepted {
    /// The answer that switches protocols.
    pub(crate) fn response(&self) -> Response {
        let headers = [
            (header::CONNECTION, "Upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_ACCEPT, self.accept_key.as_str()),
            (header::SEC_WEBSOCKET_PROTOCOL, self.subprotocol.name()),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}

impl Refused {
    /// The answer that says why not.
    pub(crate) fn response(self) -> Response {
        let (status, text) = match self {
            Self::NotWebSocket => {
                let headers = [(header::UPGRADE, "websocket"), (header::CONNECTION, "Upgrade")];
                let text = "this path speaks WebSocket\n";
                return (StatusCode::UPGRADE_REQUIRED, headers, text).into_response();
            }
            Self::Version => {
                let headers = [(header::SEC_WEBSOCKET_VERSION, "13")];
                let text = "the WebSocket version must be 13\n";
                return (StatusCode::UPGRADE_REQUIRED, headers, text).into_response();
            }
            Self::Http => (StatusCode::BAD_REQUEST, "a WebSocket needs HTTP/1.1\n"),
            Self::Host => (StatusCode::BAD_REQUEST, "a request must have one Host header\n"),
            Self::Key => (
                StatusCode::BAD_REQUEST,
                "a request must have one Sec-WebSocket-Key, 16 bytes in base64\n",
            ),
            Self::Origin => (StatusCode::FORBIDDEN, "this origin is not allowed\n"),
            Self::Subprotocol => (
                StatusCode::BAD_REQUEST,
                "ask for the subprotocol waybill.json.v1 or waybill.bin.v1\n",
            ),
        };
        (status, text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(changed: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "waybill.json.v1"),
            ("host", "localhost:7712"),
        ];
        for (name, value) in usual.iter().chain(changed) {
            let name = HeaderName::from_static(name);
            match *value {
                "" => headers.remove(name),
                value => headers.insert(name, HeaderValue::from_static(value)),
            };
        }
        headers
    }

    fn check(
        changed: &[(&'static str, &'static str)],
        expected: Result<Subprotocol, (Refused, u16)>,
    ) {
        let found = judge(&Method::GET, Version::HTTP_11, &headers(changed), &[]);
        let status = |refused: Refused| (refused, refused.response().status().as_u16());
        assert_eq!(found.map(|accepted| accepted.subprotocol).map_err(status), expected);
    }

    #[test]
    fn ws_1_the_first_known_subprotocol_is_taken() {
        check(&[], Ok(Subprotocol::Json));
        let two = "chat, waybill.bin.v1 ,waybill.json.v1";
        check(&[("sec-websocket-protocol", two)], Ok(Subprotocol::Binary));
        for none in ["", "chat", "waybill.json.v2", "Waybill.Json.V1"] {
            check(&[("sec-websocket-protocol", none)], Err((Refused::Subprotocol, 400)));
        }
    }

    #[test]
    fn what_is_not_a_websocket_handshake_is_told_so() {
        check(&[("connection", "keep-alive")], Err((Refused::NotWebSocket, 426)));
        check(&[("upgrade", "h2c")], Err((Refused::NotWebSocket, 426)));
        check(&[("sec-websocket-version", "8")], Err((Refused::Version, 426)));
        check(&[("sec-websocket-key", "")], Err((Refused::Key, 400)));
        let keys = [
            "short",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25j****",
            "dGhlIHNhbXBsZSBub25jZTE=",
        ];
        for key in keys {
            check(&[("sec-websocket-key", key)], Err((Refused::Key, 400)));
        }
        check(&[("host", "")], Err((Refused::Host, 400)));
        check(&[("origin", "http://evil.org")], Err((Refused::Origin, 403)));
        check(&[("origin", "http://localhost:7712")], Ok(Subprotocol::Json));
        let usual = headers(&[]);
        let posted = judge(&Method::POST, Version::HTTP_11, &usual, &[]);
        assert_eq!(posted, Err(Refused::NotWebSocket));
        assert_eq!(judge(&Method::GET, Version::HTTP_10, &usual, &[]), Err(Refused::Http));
        assert_eq!(Refused::Http.response().status(), 400);
        for (name, refused) in
            [(header::SEC_WEBSOCKET_KEY, Refused::Key), (header::HOST, Refused::Host)]
        {
            let mut twice = usual.clone();
            twice.append(&name, usual[&name].clone());
            assert_eq!(judge(&Method::GET, Version::HTTP_11, &twice, &[]), Err(refused));
        }
    }

    #[test]
    fn the_answer_has_the_key_of_rfc_6455() {
        let response =
            judge(&Method::GET, Version::HTTP_11, &headers(&[]), &[]).unwrap().response();
        assert_eq!(response.status(), 101);
        let accept = &response.headers()[header::SEC_WEBSOCKET_ACCEPT];
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "waybill.json.v1");
    }
}
