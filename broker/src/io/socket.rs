//! What every backend asks of the system for an accepted connection.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::config::BrokerConfig;

/// Unanswered probes after which the system ends a connection.
const PROBES: u32 = 3;

/// What the system itself does to notice that a peer is gone. The protocol's PING is quicker; this
/// is for where it does not count: a link that is not read, and one whose keepalive is off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignsOfLife {
    /// Idle time before the first probe; zero: no probes.
    keepalive: Duration,
    /// How long sent bytes may stay unacknowledged; zero: the system's own.
    user_timeout: Duration,
}

impl SignsOfLife {
    /// As configured.
    pub(crate) fn new(config: &BrokerConfig) -> Self {
        Self {
            keepalive: Duration::from_millis(config.tcp_keepalive_ms.into()),
            user_timeout: Duration::from_millis(config.tcp_user_timeout_ms.into()),
        }
    }

    /// Prepares a connection. Small frames are sent at once: what can be written together is.
    pub(super) fn prepare(self, stream: &TcpStream, nonblocking: bool) -> io::Result<()> {
        stream.set_nodelay(true)?;
        self.ask_of(stream)?;
        stream.set_nonblocking(nonblocking)
    }

    fn ask_of(self, stream: &TcpStream) -> io::Result<()> {
        let socket = socket2::SockRef::from(stream);
        if !self.keepalive.is_zero() {
            let probes = socket2::TcpKeepalive::new()
                .with_time(self.keepalive)
                .with_interval((self.keepalive / PROBES).max(Duration::from_secs(1)))
                .with_retries(PROBES);
            socket.set_tcp_keepalive(&probes)?;
        }
        #[cfg(target_os = "linux")]
        if !self.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        Ok(())
    }
}

/// Where a connection comes from, for people.
pub(super) fn peer(stream: &TcpStream) -> Option<Arc<str>> {
    stream.peer_addr().ok().map(|peer| peer.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_asked_for_what_is_configured() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let config = BrokerConfig::default();
        SignsOfLife::new(&config).prepare(&stream, true).unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        let none = SignsOfLife { keepalive: Duration::ZERO, user_timeout: Duration::ZERO };
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        none.prepare(&stream, true).unwrap();
        assert!(!socket2::SockRef::from(&stream).keepalive().unwrap());
    }
}
