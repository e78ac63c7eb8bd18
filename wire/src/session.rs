//! The life of one link, for either end (6.1). Polled: frames and times come in, verdicts and
//! control bytes come out. No I/O and no clock; `now` is a duration since any origin, the same for
//! all calls. Every call that changes something is followed by draining [`Session::transmit`].
//!
//! ```text
//!  initiator                                     broker
//!    greeting --WELCOME--> open                    idle --HELLO--> judging --accept--> open
//!    open --DRAIN (either end)--> draining         judging --fail--> closed
//!    any --fatal ERROR sent or received--> closed  open --DRAIN (either end)--> draining
//!                                                  any --fatal ERROR sent or received--> closed
//! ```
//!
//! Not here: what frames mean, credentials, rights, and the initiator's patience for WELCOME.

mod fault;
mod keepalive;
pub mod registration;
pub mod sequence;
pub mod support;

pub use fault::{Fault, Refusal};
pub use registration::Registration;
pub use sequence::Sequence;

use std::time::Duration;

use crate::code::{ErrorCode, Kind, Role};
use crate::error::{Breach, Violation};
use crate::frame::{Drain, ErrorFrame, Frame, Ping, Pong, Welcome};
use crate::limits::{DETAIL_BYTES_MAX, DRAFT, HELLO_TIMEOUT_MS};
use keepalive::{Keepalive, Life};

/// Bytes of PING, PONG and DRAIN that may wait for [`Session::transmit`]: 64 frames. A caller that
/// drains as it should has one or two waiting.
pub const CONTROL_BYTES_MAX: usize = 64 * 16;

/// Most bytes one [`Session::transmit`] can append: the control frames and a fatal ERROR.
pub const TRANSMIT_BYTES_MAX: usize = CONTROL_BYTES_MAX + 32 + DETAIL_BYTES_MAX;

/// Which end of the link this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Initiator,
    Broker,
}

/// Where a link is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Broker: no HELLO yet.
    Idle,
    /// Broker: HELLO was handed out, the caller has not decided.
    Judging,
    /// Initiator: HELLO is on its way, WELCOME has not come.
    Greeting,
    /// Both ends agreed.
    Open,
    /// DRAIN was sent or received; frames are still served.
    Draining,
    /// A fatal ERROR was sent or received. What is left is to write and close.
    Closed,
}

/// What the caller does about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Broker: judge this HELLO, then [`Session::accept`] it or [`Session::fail`].
    Hello,
    /// Broker: HELLO has not been judged. Keep this frame and hand it in again afterwards (SES-3).
    Held,
    /// Initiator: the link is open.
    Welcome,
    /// The frame may come from this sender now; act on it.
    Pass,
    /// The frame is right, but its kind does not run here: answer `not_supported`, not fatally.
    NotSupported(Kind),
    /// The session dealt with it.
    Done,
    /// A PONG: the other end has read everything this end wrote before the PING with this token
    /// (SES-16).
    Pong {
        /// That of the PING: one that [`Session::ping`] gave, or one of the keepalive's own.
        token: u32,
    },
    /// The other end wants this end to start nothing new and to leave.
    Drain {
        /// How long it may take.
        deadline_ms: u32,
    },
    /// The other end sent a fatal ERROR, which this frame is: close without an answer.
    Ended,
}

/// One end of one link.
#[derive(Debug)]
pub struct Session {
    side: Side,
    phase: Phase,
    role: Role,
    version: u16,
    runs: u64,
    began: Duration,
    keepalive: Keepalive,
    control: Vec<u8>,
    /// PONGs, which wait for what came before them to be taken in.
    answers: Vec<u8>,
}

impl Session {
    /// The initiator's end. The caller writes HELLO with this `role` as the first frame.
    #[must_use]
    pub fn initiator(role: Role, now: Duration) -> Self {
        Self::new(Side::Initiator, Phase::Greeting, role, now)
    }

    /// The broker's end of a link that has just begun.
    #[must_use]
    pub fn broker(now: Duration) -> Self {
        Self::new(Side::Broker, Phase::Idle, Role::default(), now)
    }

    fn new(side: Side, phase: Phase, role: Role, now: Duration) -> Self {
        let keepalive = Keepalive::new(now);
        let (control, answers) = (Vec::new(), Vec::new());
        Self { side, phase, role, version: 0, runs: 0, began: now, keepalive, control, answers }
    }

    /// Where the link is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The initiator's role; of a broker's end, known from HELLO on.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Draft spoken; 0 before WELCOME.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Capabilities that this end runs on this link: what was agreed on, and of those that the
    /// link's role does not agree on what this end has. Frames that need another one are
    /// [`Step::NotSupported`]; before this call, all that need one (TAG-7, FLT-4).
    pub fn run(&mut self, capabilities: u64) {
        self.runs = capabilities;
    }

    /// Bytes came in, whatever they are.
    pub fn received(&mut self, now: Duration) {
        self.keepalive.received(now);
    }

    /// This end stops reading: the silence from now on is its own doing.
    pub fn pause(&mut self, now: Duration) {
        self.keepalive.pause(now);
    }

    /// This end reads again.
    pub fn resume(&mut self, now: Duration) {
        self.keepalive.resume(now);
    }

    /// Takes in one frame.
    ///
    /// # Errors
    /// The frame may not come now, or not from this sender. The caller passes the fault to
    /// [`Session::fail`].
    pub fn handle(&mut self, now: Duration, frame: &Frame<'_>) -> Result<Step, Fault> {
        if let Frame::Error(ErrorFrame { fatal: true, .. }) = frame {
            self.phase = Phase::Closed;
            return Ok(Step::Ended);
        }
        match self.phase {
            Phase::Idle => self.handle_first(frame),
            Phase::Judging => Ok(Step::Held),
            Phase::Greeting => self.handle_greeting(now, frame),
            Phase::Open | Phase::Draining => self.handle_open(frame),
            Phase::Closed => Ok(Step::Done),
        }
    }

    /// Whether [`Session::handle`] would pass any frame of this kind, so that it need not be asked
    /// about each of several that came together.
    #[must_use]
    pub fn passes(&self, kind: Kind) -> bool {
        let of_session =
            matches!(kind, Kind::HELLO | Kind::WELCOME | Kind::PING | Kind::PONG | Kind::DRAIN);
        matches!(self.phase, Phase::Open | Phase::Draining)
            && self.may_send(kind)
            && self.runs_kind(kind)
            && !of_session
            && kind != Kind::ERROR
    }

    /// Judges a frame by its kind once its header is there, before its payload is waited for: what
    /// is not welcome must not make this end hold a payload (SEC-15).
    ///
    /// # Errors
    /// `unexpected_frame` for anything but HELLO before HELLO.
    pub fn announced(&self, kind: Kind) -> Result<(), Fault> {
        if self.phase == Phase::Idle && kind != Kind::HELLO {
            return Err(first_must_be_hello(kind));
        }
        Ok(())
    }

    fn handle_first(&mut self, frame: &Frame<'_>) -> Result<Step, Fault> {
        let Frame::Hello(hello) = frame else {
            return Err(first_must_be_hello(frame.kind()));
        };
        self.role = hello.role;
        self.phase = Phase::Judging;
        Ok(Step::Hello)
    }

    fn handle_greeting(&mut self, now: Duration, frame: &Frame<'_>) -> Result<Step, Fault> {
        let Frame::Welcome(Welcome { version, keepalive_ms, .. }) = frame else {
            return Err(unexpected(frame, "nothing but a fatal ERROR may come before WELCOME"));
        };
        if *version != u16::from(DRAFT) {
            let what = Breach::Due("version of WELCOME", (*version).into(), DRAFT.into());
            let code = ErrorCode::NO_COMMON_VERSION;
            return Err(Violation { code, kind: Kind::WELCOME, reference: 0, what }.into());
        }
        self.open(now, *version, Duration::from_millis((*keepalive_ms).into()));
        Ok(Step::Welcome)
    }

    fn handle_open(&mut self, frame: &Frame<'_>) -> Result<Step, Fault> {
        let kind = frame.kind();
        self.check_sender(frame)?;
        match frame {
            Frame::Hello(_) | Frame::Welcome(_) => {
                Err(unexpected(frame, "the link is open already"))
            }
            Frame::Ping(Ping { token }) => {
                self.make_room()?;
                Pong { token: *token }.encode(&mut self.answers);
                Ok(Step::Done)
            }
            Frame::Pong(Pong { token }) => {
                self.keepalive.answered(*token);
                Ok(Step::Pong { token: *token })
            }
            Frame::Drain(Drain { deadline_ms }) => {
                self.phase = Phase::Draining;
                Ok(Step::Drain { deadline_ms: *deadline_ms })
            }
            _ => Ok(if self.runs_kind(kind) { Step::Pass } else { Step::NotSupported(kind) }),
        }
    }

    /// SES-7.
    fn runs_kind(&self, kind: Kind) -> bool {
        let needed = || support::needed_for(kind);
        kind.runs_everywhere() || (needed() != 0 && self.runs & needed() == needed())
    }

    /// SES-6.
    fn check_sender(&self, frame: &Frame<'_>) -> Result<(), Fault> {
        let kind = frame.kind();
        if self.may_send(kind) {
            return Ok(());
        }
        let who = match self.side {
            Side::Broker => self.role.name(),
            Side::Initiator => Some("broker"),
        };
        let what = Breach::Sender(who.unwrap_or("link of this role"));
        let (code, reference) = (ErrorCode::WRONG_ROLE, frame.reference());
        Err(Violation { code, kind, reference, what }.into())
    }

    /// Whether the other end may send this kind.
    fn may_send(&self, kind: Kind) -> bool {
        match self.side {
            Side::Broker => kind.senders().contains(self.role),
            Side::Initiator => kind.senders().broker(),
        }
    }

    /// Broker: the HELLO is accepted and WELCOME, with this keepalive, has been written. `role` is
    /// the one granted; a `keepalive` of zero means none.
    pub fn accept(&mut self, now: Duration, keepalive: Duration, role: Role) {
        debug_assert_eq!(self.phase, Phase::Judging, "there is one HELLO to accept");
        if self.phase == Phase::Judging {
            self.role = role;
            self.open(now, u16::from(DRAFT), keepalive);
        }
    }

    fn open(&mut self, now: Duration, version: u16, keepalive: Duration) {
        self.phase = Phase::Open;
        self.version = version;
        self.keepalive.start(now, keepalive);
    }

    /// Asks the other end to start nothing new and to leave within `deadline_ms`.
    ///
    /// # Errors
    /// The control bytes have not been drained for too long.
    pub fn drain(&mut self, deadline_ms: u32) -> Result<(), Fault> {
        if matches!(self.phase, Phase::Open | Phase::Draining) {
            self.make_room()?;
            Drain { deadline_ms }.encode(&mut self.control);
            self.phase = Phase::Draining;
        }
        Ok(())
    }

    /// Queues a PING whose answer proves that everything written before it has been read (SES-16),
    /// and gives its token, with which [`Step::Pong`] comes. `None` while the last one is not
    /// answered, before the link is open and after it has ended.
    pub fn ping(&mut self, now: Duration) -> Option<u32> {
        let open = matches!(self.phase, Phase::Open | Phase::Draining);
        if !open || self.make_room().is_err() {
            return None;
        }
        let token = self.keepalive.mark(now)?;
        Ping { token }.encode(&mut self.control);
        Some(token)
    }

    /// Ends the link: writes a fatal ERROR, unless it has ended already.
    pub fn fail(&mut self, fault: &Fault) {
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = Phase::Closed;
        let detail = fault.to_string();
        let frame = ErrorFrame {
            fatal: true,
            code: fault.code(),
            ref_kind: fault.ref_kind(),
            reference: fault.reference(),
            retry_after_ms: fault.retry_after_ms(),
            detail: &detail,
        };
        frame.encode(&mut self.control);
    }

    /// Appends the control bytes this end has to send, ahead of what waits; at most
    /// [`TRANSMIT_BYTES_MAX`].
    pub fn transmit(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.answers);
        self.transmit_but_answers(out);
    }

    /// The same without PONGs, for an end that has not taken in all that came before their PINGs
    /// (SES-16). They stay.
    pub fn transmit_but_answers(&mut self, out: &mut Vec<u8>) {
        debug_assert!(self.invariants());
        out.append(&mut self.control);
    }

    /// Whether [`Session::transmit`] has something to send.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.has_more_than_answers() || !self.answers.is_empty()
    }

    /// Whether [`Session::transmit_but_answers`] has something to send.
    #[must_use]
    pub fn has_more_than_answers(&self) -> bool {
        !self.control.is_empty()
    }

    /// Since when nothing has come, if that is long enough for a PING to have stayed unanswered
    /// (two keepalive periods). `None` too while this end does not read, and without keepalive.
    #[must_use]
    pub fn silent_since(&self, now: Duration) -> Option<Duration> {
        self.keepalive.silent_since(now)
    }

    /// When to call [`Session::expired`]; `None` if nothing will happen by time alone.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Idle => Some(self.began + HELLO_TIMEOUT),
            Phase::Open | Phase::Draining => self.keepalive.deadline(),
            Phase::Judging | Phase::Greeting | Phase::Closed => None,
        }
    }

    /// Time has passed. Calling it early, or without a deadline, does nothing.
    ///
    /// # Errors
    /// HELLO did not come, or nothing did for too long. The caller passes the fault to
    /// [`Session::fail`].
    pub fn expired(&mut self, now: Duration) -> Result<(), Fault> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        if self.phase == Phase::Idle {
            return Err(silent(ErrorCode::HELLO_TIMEOUT, "no whole HELLO in hello_timeout_ms"));
        }
        match self.keepalive.poll(now) {
            Life::Quiet => Ok(()),
            Life::Ask(token) => {
                self.make_room()?;
                Ping { token }.encode(&mut self.control);
                Ok(())
            }
            Life::Over => {
                let words = "nothing was received for missed_pings_max keepalive periods";
                Err(silent(ErrorCode::KEEPALIVE_TIMEOUT, words))
            }
        }
    }

    /// Refuses more control frames than may wait. The other end asks faster than it reads.
    fn make_room(&self) -> Result<(), Fault> {
        if self.control.len() + self.answers.len() < CONTROL_BYTES_MAX {
            return Ok(());
        }
        let detail = "PINGs come faster than their answers can be written";
        Err(Refusal { code: ErrorCode::OVERLOADED, detail, ..Refusal::default() }.into())
    }

    /// `control.len() <= CONTROL_BYTES_MAX`, and a fatal ERROR more once closed.
    #[must_use]
    pub fn invariants(&self) -> bool {
        let bound =
            if self.phase == Phase::Closed { TRANSMIT_BYTES_MAX } else { CONTROL_BYTES_MAX };
        self.control.len() + self.answers.len() <= bound
    }
}

const HELLO_TIMEOUT: Duration = Duration::from_millis(HELLO_TIMEOUT_MS);

fn unexpected(frame: &Frame<'_>, words: &'static str) -> Fault {
    let (kind, reference) = (frame.kind(), frame.reference());
    let code = ErrorCode::UNEXPECTED_FRAME;
    Violation { code, kind, reference, what: Breach::Words(words) }.into()
}

fn first_must_be_hello(kind: Kind) -> Fault {
    let what = Breach::Words("the first frame must be HELLO");
    Violation { code: ErrorCode::UNEXPECTED_FRAME, kind, reference: 0, what }.into()
}

fn silent(code: ErrorCode, words: &'static str) -> Fault {
    Violation { code, kind: Kind(0), reference: 0, what: Breach::Words(words) }.into()
}
