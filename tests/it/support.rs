//! One door to a broker on any I/O backend: open links, send bytes, take frames.
//!
//! A test written against [`Net`] runs on the tokio and the io_uring backend with one shard and
//! with several, and on the simulator with any seed. Waiting ends with the event it waits for;
//! [`PATIENCE`] is only there so that a broken build fails instead of hanging.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use waybill_broker::io::sim::{Peer, Sim};
use waybill_broker::shared::Shared;
use waybill_broker::{Broker, BrokerConfig, BrokerHandle, IoChoice, Ledger, StartError};
use waybill_wire::Frame;
use waybill_wire::deframe::Deframer;
use waybill_wire::frame::{Ping, Pong};

/// How long the real backend may take for what should be at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far simulated time moves on when nothing else can happen.
const SIM_STEP: Duration = Duration::from_millis(100);

/// Looks at a broker's counters after which one that has not moved is taken to be at rest: a few
/// tenths of a second.
const STILL_POLLS: u32 = 200_000;

/// Steps of a turn so few that nearly every message takes several.
const FEW_STEPS: usize = 160;

/// Where a broker runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    /// Threads and sockets, by readiness; the number of shards.
    Tokio(u16),
    /// Threads and sockets, by io_uring; the number of shards.
    Uring(u16),
    /// The simulator; the number of shards and the seed.
    Sim(u16, u64),
}

impl Backend {
    pub(crate) fn shards(self) -> u16 {
        let (Self::Tokio(shards) | Self::Uring(shards) | Self::Sim(shards, _)) = self;
        shards
    }
}

/// Set to anything where tests may not be left out for want of io_uring.
const REQUIRE_URING: &str = "WAYBILL_REQUIRE_URING";

/// Whether this system lets a broker have io_uring; why not is printed past the capture of tests,
/// so that whoever reads that all passed sees what was not run.
fn has_uring() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let listen = ([127, 0, 0, 1], 0).into();
        let config = BrokerConfig { listen, io: IoChoice::Uring, ..BrokerConfig::default() };
        match Broker::start(config) {
            Ok(_) => true,
            Err(StartError::Uring(why)) => {
                let is_required = std::env::var_os(REQUIRE_URING).is_some();
                assert!(!is_required, "{REQUIRE_URING} is set, and there is none: {why}");
                let told = format!("nothing is tested on io_uring: {why}\n");
                std::io::stderr().write_all(told.as_bytes()).expect("stderr takes it");
                false
            }
            Err(error) => panic!("{error}"),
        }
    })
}

/// The backends every test of this suite runs on.
pub(crate) fn backends() -> Vec<Backend> {
    let mut all = vec![Backend::Tokio(1), Backend::Tokio(3)];
    if has_uring() {
        all.extend([Backend::Uring(1), Backend::Uring(3)]);
    }
    all.extend((0..8).map(|seed| Backend::Sim(1 + u16::try_from(seed % 3).unwrap(), seed)));
    all
}

/// Runs a test on every backend, naming the one it fails on.
pub(crate) fn everywhere(config: &BrokerConfig, test: impl Fn(&mut Net)) {
    for backend in backends() {
        eprintln!("on {backend:?}");
        test(&mut Net::start(backend, config.clone()));
    }
}

/// Runs a test on the simulator alone, with several seeds.
pub(crate) fn simulated(config: &BrokerConfig, test: impl Fn(&mut Net)) {
    for backend in backends().into_iter().filter(|it| matches!(it, Backend::Sim(..))) {
        eprintln!("on {backend:?}");
        test(&mut Net::start(backend, config.clone()));
    }
}

/// A number of a link in one [`Net`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(usize);

impl Line {
    pub(crate) fn number(self) -> usize {
        self.0
    }
}

/// A broker and the links a test has to it.
pub(crate) struct Net {
    inner: Inner,
    unread: Vec<VecDeque<u8>>,
}

enum Inner {
    Sockets { broker: BrokerHandle, links: Vec<TcpStream> },
    Sim { sim: Box<Sim>, links: Vec<Peer> },
}

impl Net {
    pub(crate) fn start(backend: Backend, mut config: BrokerConfig) -> Self {
        config.listen = ([127, 0, 0, 1], 0).into();
        // Most tests are about a broker that has been there for long.
        if config.ready_quiet_ms == BrokerConfig::default().ready_quiet_ms {
            config.ready_quiet_ms = 0;
        }
        let inner = match backend {
            Backend::Tokio(shards) | Backend::Uring(shards) => {
                config.shards = shards;
                let is_uring = matches!(backend, Backend::Uring(_));
                config.io = if is_uring { IoChoice::Uring } else { IoChoice::Tokio };
                let broker = Broker::start(config).expect("a broker starts");
                Inner::Sockets { broker, links: Vec::new() }
            }
            Backend::Sim(shards, seed) => {
                config.shards = shards;
                let mut sim = Box::new(Sim::new(config, seed));
                // What is done in parts comes to the same (SEC-24).
                if seed % 2 == 1 {
                    sim.set_turn(FEW_STEPS);
                }
                Inner::Sim { sim, links: Vec::new() }
            }
        };
        Self { inner, unread: Vec::new() }
    }

    pub(crate) fn connect(&mut self) -> Line {
        match &mut self.inner {
            Inner::Sockets { broker, links } => {
                let stream = TcpStream::connect(broker.local_addr()).expect("the broker listens");
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                links.push(stream);
            }
            Inner::Sim { sim, links } => links.push(sim.connect()),
        }
        self.unread.push(VecDeque::new());
        Line(self.unread.len() - 1)
    }

    pub(crate) fn send(&mut self, line: Line, bytes: &[u8]) {
        match &mut self.inner {
            // A broker that refused earlier bytes may have closed; what it said shows in `frame`.
            Inner::Sockets { links, .. } => drop((&links[line.0]).write_all(bytes)),
            Inner::Sim { sim, links } => sim.send(links[line.0], bytes),
        }
    }

    /// The wall clock, in microseconds since 1970.
    pub(crate) fn wall_us(&self) -> u64 {
        match &self.inner {
            Inner::Sockets { .. } => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                u64::try_from(since_1970.as_micros()).unwrap()
            }
            Inner::Sim { sim, .. } => sim.wall_us(),
        }
    }

    /// Ends our direction and waits until the broker has ended its own.
    pub(crate) fn close(&mut self, line: Line) {
        self.leave(line);
        while self.more(line) {}
    }

    /// Ends our direction and waits for nothing.
    pub(crate) fn leave(&mut self, line: Line) {
        match &mut self.inner {
            Inner::Sockets { links, .. } => drop(links[line.0].shutdown(Shutdown::Write)),
            Inner::Sim { sim, links } => sim.close(links[line.0]),
        }
    }

    /// Breaks a link without a word and waits for nothing.
    pub(crate) fn cut(&mut self, line: Line) {
        match &mut self.inner {
            Inner::Sockets { links, .. } => drop(links[line.0].shutdown(Shutdown::Both)),
            Inner::Sim { sim, links } => sim.reset(links[line.0]),
        }
    }

    /// Breaks a simulated link without a word.
    pub(crate) fn reset(&mut self, line: Line) {
        self.cut(line);
        if let Inner::Sim { sim, .. } = &mut self.inner {
            sim.settle();
        }
    }

    /// The next whole frame from the broker, `None` when it has ended the link. A broker that asks
    /// for a sign of life meanwhile gets it.
    pub(crate) fn frame(&mut self, line: Line) -> Option<Vec<u8>> {
        loop {
            let frame = self.any_frame(line)?;
            let Ok(Frame::Ping(Ping { token })) = Frame::decode(&frame) else { return Some(frame) };
            let mut pong = Vec::new();
            Pong { token }.encode(&mut pong);
            self.send(line, &pong);
        }
    }

    /// Waits until the broker asks for a sign of life, and gives it.
    pub(crate) fn ping(&mut self, line: Line) {
        let frame = self.any_frame(line).expect("a PING");
        let Ok(Frame::Ping(Ping { token })) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        let mut pong = Vec::new();
        Pong { token }.encode(&mut pong);
        self.send(line, &pong);
    }

    /// Lets a little time pass on the simulator; on sockets it passes by itself.
    pub(crate) fn pass_time(&mut self) {
        if let Inner::Sim { sim, .. } = &mut self.inner {
            sim.advance(SIM_STEP);
        }
    }

    /// As `frame`, for a peer that deals with PINGs itself.
    pub(crate) fn any_frame(&mut self, line: Line) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = first_frame(&mut self.unread[line.0]) {
                return Some(frame);
            }
            if !self.more(line) {
                let rest = &self.unread[line.0];
                assert!(rest.is_empty(), "the link ended inside a frame: {rest:02x?}");
                return None;
            }
        }
    }

    /// The next whole frame among what a simulated link has brought by now.
    pub(crate) fn arrived(&mut self, line: Line) -> Option<Vec<u8>> {
        let Inner::Sim { sim, links } = &mut self.inner else { panic!("a socket only waits") };
        let unread = &mut self.unread[line.0];
        unread.extend(sim.receive(links[line.0]));
        first_frame(unread)
    }

    /// Whether the broker has ended a simulated link, or its direction of it, by now.
    pub(crate) fn ended(&mut self, line: Line) -> bool {
        let Inner::Sim { sim, links } = &mut self.inner else { panic!("a socket only waits") };
        sim.ended(links[line.0])
    }

    /// Exactly this many bytes.
    pub(crate) fn bytes(&mut self, line: Line, count: usize) -> Vec<u8> {
        while self.unread[line.0].len() < count {
            assert!(self.more(line), "the link ended after {:02x?}", self.unread[line.0]);
        }
        self.unread[line.0].drain(..count).collect()
    }

    /// Waits for more bytes; `false` when there will be none.
    fn more(&mut self, line: Line) -> bool {
        let unread = &mut self.unread[line.0];
        match &mut self.inner {
            Inner::Sockets { links, .. } => {
                let mut piece = [0; 65_536];
                match (&links[line.0]).read(&mut piece) {
                    Ok(0) => false,
                    Ok(count) => {
                        unread.extend(&piece[..count]);
                        true
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
                    // A process that was stopped and goes on; signal(7).
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => true,
                    Err(error) => panic!("nothing came on {line:?}: {error}"),
                }
            }
            Inner::Sim { sim, links } => {
                let (peer, mut waited) = (links[line.0], Duration::ZERO);
                loop {
                    sim.settle();
                    let bytes = sim.receive(peer);
                    unread.extend(&bytes);
                    if !bytes.is_empty() || sim.ended(peer) {
                        return !bytes.is_empty();
                    }
                    assert!(waited < PATIENCE, "nothing came on {line:?}");
                    sim.advance(SIM_STEP);
                    waited += SIM_STEP;
                }
            }
        }
    }

    /// Sends from another thread, so that neither end waits for the other.
    pub(crate) fn send_in_background(&mut self, line: Line, bytes: Vec<u8>) {
        match &mut self.inner {
            Inner::Sockets { links, .. } => {
                let mut stream = links[line.0].try_clone().unwrap();
                std::thread::spawn(move || stream.write_all(&bytes));
            }
            Inner::Sim { sim, links } => sim.send(links[line.0], &bytes),
        }
    }

    /// Stops, or goes on with, reading at our end. A socket does that by itself when nobody reads.
    pub(crate) fn stall(&mut self, line: Line, stalled: bool) {
        if let Inner::Sim { sim, links } = &mut self.inner {
            sim.stall(links[line.0], stalled);
        }
    }

    /// Does so many of the things that can happen in the simulator, in any order.
    pub(crate) fn run(&mut self, steps: usize) {
        let Inner::Sim { sim, .. } = &mut self.inner else { panic!("sockets run by themselves") };
        for _ in 0..steps {
            if !sim.step() {
                break;
            }
        }
    }

    /// Waits until the broker has nothing to do any more. On sockets that is a guess, made when its
    /// counters have stood still for [`STILL_POLLS`] looks: what a test asserts after it must hold
    /// if the guess came too early, too.
    pub(crate) fn settle(&mut self) {
        match &mut self.inner {
            Inner::Sockets { broker, .. } => {
                let (mut last, mut still) = (broker.ledger(), 0);
                while still < STILL_POLLS {
                    std::thread::yield_now();
                    let ledger = broker.ledger();
                    still = if ledger == last { still + 1 } else { 0 };
                    last = ledger;
                }
            }
            Inner::Sim { sim, .. } => sim.settle(),
        }
    }

    /// Lets simulated time pass.
    pub(crate) fn advance(&mut self, by: Duration) {
        match &mut self.inner {
            Inner::Sockets { .. } => panic!("real time cannot be advanced"),
            Inner::Sim { sim, .. } => sim.advance(by),
        }
    }

    pub(crate) fn drain(&mut self) {
        match &mut self.inner {
            Inner::Sockets { broker, .. } => broker.drain(),
            Inner::Sim { sim, .. } => sim.drain(sim.shared().config.drain_ms),
        }
    }

    /// Waits until a broker that drains has ended.
    pub(crate) fn stopped(&mut self) {
        match &mut self.inner {
            Inner::Sockets { broker, .. } => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(broker.stopped()).unwrap();
            }
            Inner::Sim { sim, .. } => {
                sim.advance(PATIENCE);
                assert!(sim.drained());
            }
        }
    }

    /// Whether it runs on the simulator.
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self.inner, Inner::Sim { .. })
    }

    /// What the broker's shards share.
    pub(crate) fn shared(&self) -> &Shared {
        match &self.inner {
            Inner::Sockets { broker, .. } => broker.shared(),
            Inner::Sim { sim, .. } => sim.shared(),
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        match &self.inner {
            Inner::Sockets { broker, .. } => broker.ledger(),
            Inner::Sim { sim, .. } => sim.ledger(),
        }
    }

    /// Where a broker with sockets listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let Inner::Sockets { broker, .. } = &self.inner else { panic!("nobody listens") };
        broker.local_addr()
    }

    /// Waits until there are only so many links left on sockets.
    pub(crate) fn until_links(&mut self, count: u32) {
        let began = Instant::now();
        while self.shared().links() > count {
            assert!(began.elapsed() < PATIENCE, "{} links are left", self.shared().links());
            std::thread::yield_now();
        }
    }

    /// Checks promise 5 once nothing moves any more: all links closed, all mail delivered.
    pub(crate) fn finish(mut self) {
        for line in 0..self.unread.len() {
            self.close(Line(line));
        }
        let Ledger { gateways, consumers, .. } = self.ledger();
        for frames in [gateways, consumers] {
            assert_eq!((frames.waiting, frames.unconfirmed), (0, 0), "no link is left: {frames:?}");
        }
    }

    /// Waits until the ledger says so; time passes on the simulator.
    pub(crate) fn until(&mut self, happened: impl Fn(&Ledger) -> bool) {
        let (began, mut waited) = (Instant::now(), Duration::ZERO);
        while !happened(&self.ledger()) {
            assert!(began.elapsed().max(waited) < PATIENCE, "it never came: {:?}", self.ledger());
            match &mut self.inner {
                Inner::Sockets { .. } => std::thread::yield_now(),
                Inner::Sim { sim, .. } => {
                    sim.advance(SIM_STEP);
                    waited += SIM_STEP;
                }
            }
        }
    }

    /// Whether the broker's ledger balances now. On sockets its shards run while it is read, so
    /// there it has to balance before long.
    pub(crate) fn balances(&self) -> Result<(), String> {
        let simulated = self.is_simulated();
        let (began, mut result) = (Instant::now(), self.ledger().balances());
        while result.is_err() && !simulated && began.elapsed() < PATIENCE {
            std::thread::yield_now();
            result = self.ledger().balances();
        }
        result
    }
}

/// Promise 5, at the end of every test and whatever it was about.
impl Drop for Net {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.balances(), Ok(()), "promise 5: {:?}", self.ledger());
        }
    }
}

/// Cuts the first whole frame off.
fn first_frame(bytes: &mut VecDeque<u8>) -> Option<Vec<u8>> {
    let mut deframer = Deframer::new();
    let step = deframer.next(bytes.make_contiguous()).expect("a broker sends no malformed frame");
    let whole = step.frame.is_some().then_some(step.consumed)?;
    Some(bytes.drain(..whole).collect())
}
