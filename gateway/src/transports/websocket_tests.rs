//! One connection, polled by hand; what it says to the hub is read from the mailbox.

use std::mem::MaybeUninit;
use std::task::Waker;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use waybill_wire::code::ErrorCode;

use super::*;
use crate::auth::{Grant, mint};
use crate::config::GatewayConfig;
use crate::hub::ConnectionId;
use crate::reports::Ticket;
use crate::transports::{NEVER, Timed, Word};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Rig {
    connection: Pin<Box<Connection>>,
    inbox: mpsc::Receiver<FromConnection>,
    /// Open for as long as the test runs.
    client: TcpStream,
}

/// A connection whose client has sent a login and then so many *send*s, with ids from 0, all of
/// which the gateway got at once.
async fn rig(sends: usize, uplinks_max: usize) -> Rig {
    let mut config = GatewayConfig::default();
    config.jwt.secret = SECRET.into();
    config.limits.uplinks_per_connection_max = uplinks_max;
    let (mailbox, inbox) = mpsc::channel(1024);
    let shared = Arc::new(Shared::new(&config, mailbox));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let expires_at = shared.clock.now().unix_s + 3600;
    let grant = Grant { namespace: 0, uid: 1, device_class: 0, login: 0, tags: &[], expires_at };
    let token = mint(SECRET.as_bytes(), grant);
    let mut early = masked(&format!(r#"{{"type":"login","token":"{token}"}}"#));
    for id in 0..sends {
        early.extend(masked(&format!(r#"{{"type":"send","id":{id},"data":"x"}}"#)));
    }
    let connection = Connection::new(shared, tcp, &early, Subprotocol::Json);
    Rig { connection: Box::pin(connection), inbox, client }
}

/// A text message in a frame whose mask is 0.
fn masked(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    let mut frame = match u8::try_from(len) {
        Ok(short @ ..126) => vec![0x81, 0x80 | short],
        _ => [&[0x81, 0xfe][..], &len.to_be_bytes()].concat(),
    };
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

impl Rig {
    /// Polls once; how many messages went to the hub.
    fn poll(&mut self) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.connection.as_mut().poll(&mut context).is_pending());
        std::iter::from_fn(|| self.inbox.try_recv().ok()).count()
    }
}

#[tokio::test]
async fn promise_6_a_poll_handles_a_bounded_number_of_messages() {
    let mut rig = rig(3 * MESSAGES_MAX, 1000).await;
    // Nothing but the polls happens: what the connection has read already is not forgotten.
    let polls = [rig.poll(), rig.poll(), rig.poll(), rig.poll(), rig.poll()];
    assert_eq!(polls, [MESSAGES_MAX, MESSAGES_MAX, MESSAGES_MAX, 1, 0]);
    assert!(rig.connection.rest.is_none(), "nothing is kept for it");
}

#[tokio::test]
async fn ws_9_a_connection_with_its_fill_of_unanswered_sends_is_not_read_until_one_is_answered() {
    let mut rig = rig(6, 2).await;
    assert_eq!([rig.poll(), rig.poll()], [3, 0], "the login, and two");
    let answer = |id| Word::Answered { id, code: ErrorCode(0) };
    rig.connection.outbox().say(answer(0));
    assert_eq!([rig.poll(), rig.poll()], [1, 0]);
    rig.connection.outbox().say(answer(1));
    rig.connection.outbox().say(answer(2));
    assert_eq!([rig.poll(), rig.poll()], [2, 0]);
    // A connection that ends is read again, for its close frame.
    let now = rig.connection.shared.clock.now();
    rig.connection.line.close(CloseCode::DRAINING, "the test ends".into(), now);
    assert_eq!([rig.poll(), rig.poll()], [1, 0], "the logout");
    assert!(rig.connection.rest.is_none());
}

/// What the runtime has not been told of yet: nothing lets it look between the client's close and
/// the poll.
#[tokio::test]
async fn a_close_that_lies_in_the_kernel_is_read_before_anything_is_written() {
    let mut rig = rig(0, 2).await;
    assert_eq!(rig.poll(), 1, "the login");
    rig.connection.outbox().say(Word::Confirmed(ConnectionId(7)));
    assert_eq!(rig.poll(), 0, "ready is written");
    let telemetry = Arc::clone(&rig.connection.shared.telemetry);
    // A close frame without a code, its mask 0.
    rig.client.try_write(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    while SockRef::from(&rig.connection.tcp).peek(&mut [MaybeUninit::uninit()]).is_err() {
        std::thread::yield_now();
    }
    telemetry.addressed.add(1);
    let message = Bytes::from_static(b"\x81\x02hi");
    let _queued = rig
        .connection
        .outbox()
        .write(1, Timed { bytes: message, expires_ms: NEVER, ticket: Ticket::NONE });
    let mut context = Context::from_waker(Waker::noop());
    assert!(rig.connection.as_mut().poll(&mut context).is_ready());
    let said: Vec<FromConnection> = std::iter::from_fn(|| rig.inbox.try_recv().ok()).collect();
    assert!(matches!(said[..], [FromConnection::Logout { .. }]), "{said:?}");
    let stats = telemetry.snapshot(0, 0);
    assert_eq!((stats.delivered, stats.dropped.closed, stats.balances()), (0, 1, Ok(())));
}

/// A connection that was told *ready*; the time passes only as the test says.
async fn ready() -> Rig {
    let mut rig = rig(0, 2).await;
    assert_eq!(rig.poll(), 1, "the login");
    rig.connection.outbox().say(Word::Confirmed(ConnectionId(7)));
    assert_eq!(rig.poll(), 0, "ready is written");
    tokio::time::pause();
    rig
}

#[tokio::test]
async fn promise_6_what_is_not_read_for_want_of_memory_is_no_silence() {
    let mut rig = ready().await;
    let pool = Arc::clone(&rig.connection.shared.queues.pool);
    let config = GatewayConfig::default();
    // A timer fires up to a millisecond after its time.
    let heartbeat = Duration::from_millis(config.deadlines.heartbeat_ms + 1);
    let most = config.limits.connections_bytes_max;
    pool.take(most + 1);
    for _ in 0..4 {
        tokio::time::advance(heartbeat).await;
        assert_eq!(rig.poll(), 0);
        assert!(rig.connection.line.is_open());
    }
    pool.give(most + 1);
    assert_eq!(rig.poll(), 0);
    tokio::time::advance(heartbeat).await;
    assert_eq!(rig.poll(), 0, "a Ping");
    tokio::time::advance(heartbeat).await;
    assert_eq!(rig.poll(), 1, "the logout");
    assert!(!rig.connection.line.is_open());
}

#[tokio::test]
async fn a_client_that_sends_one_long_message_after_another_gets_on() {
    let mut rig = ready().await;
    let message = masked(&format!(r#"{{"type":"send","id":1,"data":"{}"}}"#, "x".repeat(10_000)));
    let (head, rest) = message.split_at(8);
    let mut since = Vec::new();
    for (bytes, handed) in [(head.to_vec(), 0), ([rest, head].concat(), 1)] {
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(rig.client.try_write(&bytes).unwrap(), bytes.len());
        rig.connection.tcp.readable().await.unwrap();
        let now_ms = rig.connection.shared.clock.ms();
        assert_eq!(rig.poll(), handed);
        since.push((rig.connection.outbox().stuck().unwrap().since_ms, now_ms));
    }
    assert!(since.iter().all(|(since_ms, now_ms)| since_ms == now_ms), "{since:?}");
}
