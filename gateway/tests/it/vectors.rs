//! Every vector of `protocol-spec/vectors/client`, against the codec of the gateway's side: what a
//! client says is decoded, what a gateway says is encoded.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use toml::Value;
use waybill_gateway::subprotocol::{Message, Reply, Request, Subprotocol};
use waybill_wire::code::{ContentType, Encoding, ErrorCode};

#[test]
fn every_client_vector_holds() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec/vectors/client");
    let mut held = 0;
    for name in ["json.toml", "bin.toml"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let file: toml::Table = text.parse().unwrap();
        for vector in file["vector"].as_array().unwrap() {
            check(vector);
            held += 1;
        }
    }
    assert!(held > 60, "{held} vectors");
}

fn check(vector: &Value) {
    let id = vector["id"].as_str().unwrap();
    let (subprotocol, bytes) = match vector["subprotocol"].as_str().unwrap() {
        "json" => (Subprotocol::Json, vector["text"].as_str().unwrap().as_bytes().to_vec()),
        "bin" => (Subprotocol::Binary, hex(vector["hex"].as_str().unwrap())),
        other => panic!("{id}: subprotocol {other}"),
    };
    if vector["from"].as_str() == Some("client") {
        let found = subprotocol.decode(&Bytes::from(bytes));
        match vector.get("error") {
            Some(error) => {
                assert_eq!(error.as_str(), Some("bad_message"), "{id}");
                assert!(found.is_err(), "{id}: {found:?}");
            }
            None => assert_eq!(found, Ok(request(&vector["message"])), "{id}"),
        }
        return;
    }
    let found = encoded(subprotocol, &Fields(&vector["message"]));
    if subprotocol == Subprotocol::Json {
        // The order of members means nothing.
        let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        assert_eq!(parse(&found), parse(&bytes), "{id}");
    } else {
        assert_eq!(found, bytes, "{id}");
    }
}

fn request(message: &Value) -> Request {
    let fields = Fields(message);
    match fields.text("type").unwrap().to_ascii_lowercase().as_str() {
        "login" => Request::Login { token: fields.text("token").unwrap().to_owned() },
        "send" => Request::Send {
            id: u32::try_from(fields.number("id")).unwrap(),
            labels: fields.labels().into_iter().map(str::to_owned).collect(),
            payload: Bytes::from(fields.payload()),
        },
        "ping" => Request::Ping,
        other => panic!("a client says {other}"),
    }
}

fn encoded(subprotocol: Subprotocol, fields: &Fields<'_>) -> Vec<u8> {
    let id = u32::try_from(fields.number("id")).unwrap_or(0);
    let payload = fields.payload();
    let code = ErrorCode(u16::try_from(fields.code("code")).unwrap());
    let reply = match fields.text("type").unwrap().to_ascii_lowercase().as_str() {
        "ready" => Reply::Ready {
            uid: fields.number("uid"),
            namespace: u32::try_from(fields.number("namespace")).unwrap(),
            connection: fields.number("connection"),
            heartbeat_ms: u32::try_from(fields.number("heartbeat_ms")).unwrap(),
        },
        "message" => {
            let (origin, sequence) = fields.message_id();
            let sender = ["from", "sender"].iter().find(|name| fields.0.get(**name).is_some());
            Reply::Message(Message {
                origin,
                sequence,
                content: fields.content(),
                labels: fields.labels(),
                sender: sender.map(|name| fields.number(name)),
                payload: &payload,
            })
        }
        "refused" => Reply::Refused { id, code },
        "sent" if code.0 != 0 => Reply::Refused { id, code },
        "sent" => Reply::Sent { id },
        "pong" => Reply::Pong,
        "drain" => Reply::Drain {
            reconnect_after_ms: u32::try_from(fields.number("reconnect_after_ms")).unwrap(),
        },
        other => panic!("a gateway says {other}"),
    };
    let mut out = Vec::new();
    subprotocol.encode(&reply, &mut out);
    out
}

/// `[vector.message]`, read as the README of the vectors says.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Integer, `0x...` or, as in JSON, digits; 0 if absent or something else.
    fn number(&self, name: &str) -> u64 {
        match self.0.get(name) {
            Some(Value::Integer(number)) => u64::try_from(*number).unwrap(),
            Some(Value::String(text)) => match text.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
                None => text.parse().unwrap_or(0),
            },
            _ => 0,
        }
    }

    fn code(&self, name: &str) -> u64 {
        match self.text(name).and_then(ErrorCode::from_name) {
            Some(code) => code.0.into(),
            None => self.number(name),
        }
    }

    fn labels(&self) -> Vec<&'a str> {
        let labels = self.0.get("labels").and_then(Value::as_array);
        labels.into_iter().flatten().map(|label| label.as_str().unwrap()).collect()
    }

    fn payload(&self) -> Vec<u8> {
        if let Some(data) = self.text("data") {
            return data.as_bytes().to_vec();
        }
        if let Some(data64) = self.text("data64") {
            return STANDARD.decode(data64).unwrap();
        }
        self.text("payload").map(hex).unwrap_or_default()
    }

    fn message_id(&self) -> (u64, u64) {
        match self.text("id").and_then(|id| id.split_once('-')) {
            Some((origin, sequence)) => {
                (u64::from_str_radix(origin, 16).unwrap(), sequence.parse().unwrap())
            }
            None => (self.number("origin"), self.number("sequence")),
        }
    }

    fn content(&self) -> Option<(ContentType, Encoding)> {
        let name =
            ["content", "content_type"].into_iter().find(|name| self.0.get(name).is_some())?;
        let content = self.text(name).and_then(ContentType::from_name);
        let content = content.unwrap_or(ContentType(u16::try_from(self.number(name)).unwrap()));
        let encoding = self.text("encoding").and_then(Encoding::from_name);
        Some((content, encoding.unwrap_or_default()))
    }
}

fn hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap());
    let digits: Vec<char> = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    let pair = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}
