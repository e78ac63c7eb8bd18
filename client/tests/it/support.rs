//! A broker in a test's hands: it accepts, reads frames and writes what the test says.
//!
//! Nothing sleeps. A wait that would never end is ended by `soon`, so that a failure is a failed
//! test and not a hung one.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use waybill_client::{Backoff, BrokerState, ErrorCode, Options};
use waybill_wire::code::{Kind, Level, Role};
use waybill_wire::frame::{ErrorFrame, Receipt, Welcome};
use waybill_wire::limits::{FRAME_BYTES_MAX, PROLOGUE_BYTES};
use waybill_wire::prologue::Prologue;
use waybill_wire::{Frame, Message};

pub(crate) struct Broker {
    listener: TcpListener,
}

/// One accepted link.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) role: Role,
    pub(crate) instance: u64,
    pub(crate) credential: Vec<u8>,
}

/// The frame a test waited for, owned.
pub(crate) struct Got(Vec<u8>);

impl Got {
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame::decode(&self.0).expect("the client writes well-formed frames")
    }

    pub(crate) fn publish(&self) -> Message<'_> {
        match self.frame() {
            Frame::Publish(message) => message,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.frame().kind()
    }
}

/// Longer than anything here takes; shorter than a person's patience.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("happens soon")
}

impl Broker {
    pub(crate) async fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port is free") }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().expect("is bound").to_string()
    }

    /// Options that reach this broker and try again at once.
    pub(crate) fn options(&self) -> Options {
        let backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(5) };
        Options { backoff, ..Options::new([self.address()]) }
    }

    /// Accepts a socket and reads its HELLO.
    pub(crate) async fn greet(&self) -> Link {
        let (mut stream, _) = soon(self.listener.accept()).await.expect("accepts");
        let got = read_frame(&mut stream).await.expect("a HELLO");
        let Frame::Hello(hello) = got.frame() else { panic!("no HELLO") };
        let credential = hello.credential.to_vec();
        Link { stream, role: hello.role, instance: hello.instance, credential }
    }

    /// A link that got its WELCOME.
    pub(crate) async fn accept(&self) -> Link {
        self.accept_with(welcome()).await
    }

    pub(crate) async fn accept_with(&self, welcome: Welcome) -> Link {
        let mut link = self.greet().await;
        link.send(&Frame::Welcome(welcome)).await;
        link
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        state: BrokerState::READY,
        version: 1,
        session: 9,
        broker: 10,
        shards: 1,
        payload_max: 1 << 20,
        ..Welcome::default()
    }
}

impl Link {
    pub(crate) async fn send(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).expect("a well-formed frame");
        self.send_bytes(&bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.expect("the client reads");
    }

    pub(crate) async fn next(&mut self) -> Got {
        soon(read_frame(&mut self.stream)).await.expect("another frame")
    }

    /// The link's end: no frame comes any more.
    pub(crate) async fn ended(&mut self) {
        let left = soon(read_frame(&mut self.stream)).await;
        assert!(left.is_none(), "{:?}", left.map(|got| got.kind()));
    }

    pub(crate) async fn refuse(mut self, code: ErrorCode) {
        let frame = ErrorFrame { fatal: true, code, detail: "because", ..ErrorFrame::default() };
        self.send(&Frame::Error(frame)).await;
    }

    /// Answers a publish: everyone was sent.
    pub(crate) async fn all_sent(&mut self, publish: &Message<'_>) {
        let receipt = Receipt {
            last: true,
            stage: Level::ROUTED,
            sequence: publish.sequence,
            sent: u32::try_from(publish.targets.len()).expect("fits"),
            gateways: 1,
            ..Receipt::default()
        };
        self.send(&Frame::Receipt(receipt)).await;
    }
}

async fn read_frame(stream: &mut TcpStream) -> Option<Got> {
    let mut bytes = vec![0; PROLOGUE_BYTES];
    stream.read_exact(&mut bytes).await.ok()?;
    let prologue = Prologue::decode(bytes.first_chunk().expect("is as long")).expect("is right");
    assert!(prologue.frame_bytes() <= FRAME_BYTES_MAX);
    bytes.resize(prologue.frame_bytes(), 0);
    stream.read_exact(&mut bytes[PROLOGUE_BYTES..]).await.ok()?;
    Some(Got(bytes))
}
