//! How long the kernel waits for a client that has vanished without a word.
//!
//! An idle socket is probed; one with bytes on their way that nobody acknowledges is given up. On
//! Linux the second covers a client that is alive and does not read, too, so it is no shorter than
//! a user may take to come back to a page: the heartbeat (WS-8) is what finds most that have gone.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Probes that may stay without an answer.
const PROBES: u32 = 3;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// 0 asks for none.
    pub(crate) keepalive_ms: u64,
    /// 0 leaves it to the system.
    pub(crate) user_timeout_ms: u64,
}

impl Liveness {
    pub(crate) fn apply(self, socket: &TcpStream) -> std::io::Result<()> {
        let socket = SockRef::from(socket);
        if self.keepalive_ms > 0 {
            let idle = Duration::from_millis(self.keepalive_ms);
            // Whole seconds are what the kernel takes.
            let interval = (idle / PROBES).max(Duration::from_secs(1));
            let keepalive = TcpKeepalive::new().with_time(idle.max(Duration::from_secs(1)));
            let keepalive = keepalive.with_interval(interval).with_retries(PROBES);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        if self.user_timeout_ms > 0 {
            socket.set_tcp_user_timeout(Some(Duration::from_millis(self.user_timeout_ms)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_probed_and_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let liveness = Liveness { keepalive_ms: 3_000, user_timeout_ms: 30_000 };
        liveness.apply(&socket).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(3));
            let timeout = socket.tcp_user_timeout().unwrap();
            assert_eq!(timeout, Some(Duration::from_secs(30)));
        }
    }
}
