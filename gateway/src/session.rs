//! One connection's life as a pure machine: what a client says, what the hub answers and the time
//! go in; what must now be done comes out.
//!
//! ```text
//!          login ok                confirmed
//! Opened ------------> Registering ----------> Ready
//!    |                      |                    |
//!    +----------------------+--------------------+--close--> Closing --deadline--> (abort)
//!      deadline, bad token,   deadline, too many,   expiry, silence,
//!      bad message            bad message           drain, bad message
//! ```
//!
//! Each call appends to `out`; the caller acts on all of it before the next call. After a close
//! nothing but an abort comes out. Messages for the user do not pass through here: the hub serves
//! only connections whose session was told [`Session::confirmed`].
//!
//! Never here: sockets, queues, a clock, a logger.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use waybill_wire::code::{CloseCode, ErrorCode};

use crate::auth::{Identity, TokenError, Verifier};
use crate::hub::{ConnectionId, LoginRefused};
use crate::subprotocol::{Reply, Request, Subprotocol};

/// What time it is, on the two clocks a session needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub ms: u64,
    /// Seconds since 1970, for tokens.
    pub unix_s: u64,
}

/// Times and bounds all sessions of a gateway share; milliseconds, as in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// From the upgrade to a login.
    pub login_ms: u64,
    /// From the login to its confirmation.
    pub register_ms: u64,
    /// Silence before a Ping, and half of that before the end.
    pub heartbeat_ms: u64,
    /// From a close frame to the end of the socket.
    pub close_ms: u64,
    /// Unanswered *send*s.
    pub uplinks_max: usize,
}

/// What the owner of a session must now do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell the client.
    Reply(Reply<'static>),
    /// Send a WebSocket Ping.
    Ping,
    /// Log this user in at the hub.
    Login(Identity),
    /// Log the connection out at the hub. Comes once for each [`Output::Login`], unless the hub
    /// refused it or let the connection go itself.
    Logout,
    /// Send this to the backend and bring the answer to [`Session::answered`].
    Uplink {
        /// The client's number.
        id: u32,
        /// Labels.
        labels: Vec<String>,
        /// Payload.
        payload: Bytes,
    },
    /// Send a close frame, and nothing after it.
    Close {
        /// Why, for the client's program.
        code: CloseCode,
        /// Why, for a person.
        reason: Cow<'static, str>,
    },
    /// End the socket now.
    Abort,
}

/// The machine. Methods that take `now` expect it never to go back.
#[derive(Debug)]
pub struct Session {
    limits: Arc<SessionLimits>,
    subprotocol: Subprotocol,
    state: State,
    /// When something was last received.
    heard_ms: u64,
    /// Whether a Ping was sent since.
    pinged: bool,
    /// When the token, or a drain, ends the connection.
    expires_ms: u64,
    drains_ms: u64,
    uplinks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opened { until_ms: u64 },
    Registering { until_ms: u64, namespace: u32, uid: u64 },
    Ready,
    Closing { until_ms: u64 },
}

impl Session {
    /// The session of a connection that was just upgraded.
    #[must_use]
    pub fn new(limits: Arc<SessionLimits>, subprotocol: Subprotocol, now: Now) -> Self {
        let until_ms = now.ms.saturating_add(limits.login_ms);
        Self {
            limits,
            subprotocol,
            state: State::Opened { until_ms },
            heard_ms: now.ms,
            pinged: false,
            expires_ms: u64::MAX,
            drains_ms: u64::MAX,
            uplinks: 0,
        }
    }

    /// Its language.
    #[must_use]
    pub fn subprotocol(&self) -> Subprotocol {
        self.subprotocol
    }

    /// Whether messages may still be sent to the client.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closing { .. })
    }

    /// The time at which [`tick`](Self::tick) has something to do, in milliseconds of `now.ms`. It
    /// may move later without notice, never earlier but by a call that changes the state.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        let heartbeats = if self.pinged { 2 } else { 1 };
        let silence = self.heard_ms.saturating_add(heartbeats * self.limits.heartbeat_ms);
        let open = self.expires_ms.min(self.drains_ms);
        match self.state {
            State::Closing { until_ms } => until_ms,
            State::Opened { until_ms } => until_ms.min(open),
            State::Registering { until_ms, .. } => until_ms.min(open).min(silence),
            State::Ready => open.min(silence),
        }
    }

    /// Whether it takes no further message before an answer: as many *send*s as may be are
    /// unanswered (WS-9). What is not read then is no silence of the client's.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_open() && self.uplinks >= self.limits.uplinks_max
    }

    /// Anything was received, be it a part of a message (WS-8).
    pub fn heard(&mut self, now: Now) {
        self.heard_ms = now.ms;
        self.pinged = false;
    }

    /// The client sent a message. Not to be called while the session [is full](Self::is_full).
    pub fn message(
        &mut self,
        is_text: bool,
        message: &Bytes,
        verifier: &Verifier,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if !self.is_open() {
            return;
        }
        debug_assert!(!self.is_full(), "a full session is not read for");
        if is_text != self.subprotocol.is_text() {
            let kind = if is_text { "binary" } else { "text" };
            let reason = format!("{} uses {kind} messages", self.subprotocol.name());
            return self.close(CloseCode::BAD_MESSAGE, reason.into(), now, out);
        }
        match self.subprotocol.decode(message) {
            Ok(request) => self.request(request, verifier, now, out),
            Err(error) => self.close(CloseCode::BAD_MESSAGE, error.0, now, out),
        }
    }

    fn request(&mut self, request: Request, verifier: &Verifier, now: Now, out: &mut Vec<Output>) {
        let opened = matches!(self.state, State::Opened { .. });
        match request {
            Request::Login { token } if opened => self.login(&token, verifier, now, out),
            _ if opened => {
                let reason = "the first message must be a login";
                self.close(CloseCode::BAD_MESSAGE, reason.into(), now, out);
            }
            Request::Login { .. } => {
                let reason = "the connection is logged in already";
                self.close(CloseCode::BAD_MESSAGE, reason.into(), now, out);
            }
            Request::Ping => out.push(Output::Reply(Reply::Pong)),
            Request::Send { id, labels, payload } => {
                self.uplinks += 1;
                out.push(Output::Uplink { id, labels, payload });
            }
        }
    }

    fn login(&mut self, token: &str, verifier: &Verifier, now: Now, out: &mut Vec<Output>) {
        match verifier.verify(token, now.unix_s) {
            Ok(identity) => {
                let life_ms = (identity.expires_at - now.unix_s).saturating_mul(1000);
                self.expires_ms = now.ms.saturating_add(life_ms);
                let until_ms = now.ms.saturating_add(self.limits.register_ms);
                let Identity { namespace, uid, .. } = identity;
                self.state = State::Registering { until_ms, namespace, uid };
                out.push(Output::Login(identity));
            }
            Err(error) => {
                let code = match error {
                    TokenError::Expired => CloseCode::TOKEN_EXPIRED,
                    _ => CloseCode::BAD_TOKEN,
                };
                self.close(code, error.to_string().into(), now, out);
            }
        }
    }

    /// The hub would not take the login; it keeps nothing of it.
    pub fn login_refused(&mut self, refused: LoginRefused, now: Now, out: &mut Vec<Output>) {
        if let State::Registering { .. } = self.state {
            // Nothing to log out: the hub has not taken it.
            match refused {
                LoginRefused::Displaced(winner) => self.displaced(winner, now, out),
                _ => self.shut(CloseCode::TOO_MANY, refused.reason().into(), now, out),
            }
        }
    }

    /// A login with a higher number, `winner`, has taken this one's place. The hub has let the
    /// connection go already.
    pub fn displaced(&mut self, winner: u64, now: Now, out: &mut Vec<Output>) {
        let reason = format!("the login with number {winner} has taken over");
        self.shut(CloseCode::DISPLACED, reason.into(), now, out);
    }

    /// The user's registration is in effect (WS-5).
    pub fn confirmed(&mut self, connection: ConnectionId, out: &mut Vec<Output>) {
        if let State::Registering { namespace, uid, .. } = self.state {
            self.state = State::Ready;
            out.push(Output::Reply(Reply::Ready {
                uid,
                namespace,
                connection: connection.0,
                heartbeat_ms: u32::try_from(self.limits.heartbeat_ms).unwrap_or(u32::MAX),
            }));
        }
    }

    /// The *send* of this id was answered; code 0 says a consumer has it.
    pub fn answered(&mut self, id: u32, code: ErrorCode, now: Now, out: &mut Vec<Output>) {
        if self.is_full() {
            self.heard(now);
        }
        self.uplinks = self.uplinks.saturating_sub(1);
        if self.is_open() {
            let reply = match code.0 {
                0 => Reply::Sent { id },
                _ => Reply::Refused { id, code },
            };
            out.push(Output::Reply(reply));
        }
    }

    /// The gateway goes away; this connection is closed `close_in_ms` from now (WS-13).
    pub fn drain(
        &mut self,
        reconnect_after_ms: u32,
        close_in_ms: u64,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        match self.state {
            State::Closing { .. } => {}
            // WS-3: until the login the gateway sends nothing.
            State::Opened { .. } => {
                self.close(CloseCode::DRAINING, "the gateway is going away".into(), now, out);
            }
            State::Registering { .. } | State::Ready => {
                out.push(Output::Reply(Reply::Drain { reconnect_after_ms }));
                self.drains_ms = now.ms.saturating_add(close_in_ms);
                self.tick(now, out);
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.is_full() {
            self.heard(now);
        }
        let late = |until_ms: u64| now.ms >= until_ms;
        let silence_ms = now.ms.saturating_sub(self.heard_ms);
        let (code, reason) = match self.state {
            State::Closing { until_ms } => {
                if late(until_ms) {
                    out.push(Output::Abort);
                }
                return;
            }
            State::Opened { until_ms } if late(until_ms) => {
                (CloseCode::LOGIN_TIMEOUT, "no login in time")
            }
            State::Opened { .. } => return,
            _ if late(self.expires_ms) => (CloseCode::TOKEN_EXPIRED, "the token has expired"),
            _ if late(self.drains_ms) => (CloseCode::DRAINING, "the gateway is going away"),
            State::Registering { until_ms, .. } if late(until_ms) => {
                (CloseCode::NOT_REGISTERED, "no broker has confirmed the registration in time")
            }
            _ if silence_ms >= 2 * self.limits.heartbeat_ms => {
                (CloseCode::HEARTBEAT_LOST, "nothing heard for two heartbeats")
            }
            _ => {
                if silence_ms >= self.limits.heartbeat_ms && !self.pinged {
                    self.pinged = true;
                    out.push(Output::Ping);
                }
                return;
            }
        };
        self.close(code, reason.into(), now, out);
    }

    /// Ends the connection for a reason found outside: its queue is full, a message too long.
    pub fn close(
        &mut self,
        code: CloseCode,
        reason: Cow<'static, str>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if matches!(self.state, State::Registering { .. } | State::Ready) {
            out.push(Output::Logout);
        }
        self.shut(code, reason, now, out);
    }

    fn shut(
        &mut self,
        code: CloseCode,
        reason: Cow<'static, str>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if self.is_open() {
            self.state = State::Closing { until_ms: now.ms.saturating_add(self.limits.close_ms) };
            out.push(Output::Close { code, reason });
        }
    }

    /// The socket has ended, or the client has closed it: nothing can be sent any more.
    pub fn ended(&mut self, now: Now, out: &mut Vec<Output>) {
        if matches!(self.state, State::Registering { .. } | State::Ready) {
            out.push(Output::Logout);
        }
        if self.is_open() {
            self.state = State::Closing { until_ms: now.ms.saturating_add(self.limits.close_ms) };
        }
    }
}

impl LoginRefused {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Connections => "the gateway has too many connections",
            Self::ConnectionsOfUser => "the user has too many connections here",
            Self::TagsOfConnection => "the connection has too many tags",
            Self::Tags => "the connections of this gateway have too many tags",
            Self::Displaced(_) => "a login with a higher number has taken over",
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
