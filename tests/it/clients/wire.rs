//! What lies between a client and a broker, and breaks when a test says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes bytes on in both directions. Dropping it cuts it and takes nothing new.
pub(crate) struct Wire {
    address: SocketAddr,
    cuts: watch::Sender<usize>,
    mute: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, cut) = watch::channel(ALL);
        let mute = Arc::new(AtomicBool::new(false));
        let muted = Arc::clone(&mute);
        let accepting = tokio::spawn(async move {
            let mut number = 0;
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, broker, number, cut.clone(), Arc::clone(&muted)));
                number += 1;
            }
        });
        Self { address, cuts, mute, accepting }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection without a word; the next ones are passed on again.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(ALL);
    }

    /// Ends one connection, by its number from 0 in the order in which they came.
    pub(crate) fn cut_one(&self, number: usize) {
        self.cuts.send_replace(number);
    }

    /// From now on what the broker says is lost.
    pub(crate) fn mute(&self) {
        self.mute.store(true, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// Every connection there is.
const ALL: usize = usize::MAX;

async fn pass(
    client: TcpStream,
    broker: SocketAddr,
    number: usize,
    mut cut: watch::Receiver<usize>,
    mute: Arc<AtomicBool>,
) {
    cut.mark_unchanged();
    let Ok(broker) = TcpStream::connect(broker).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let down = async {
        let mut piece = [0; 65_536];
        while let Ok(count @ 1..) = from_broker.read(&mut piece).await {
            if !mute.load(Ordering::SeqCst) && to_client.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_broker) => {}
        () = down => {}
        _ = is_cut(&mut cut, number) => {}
    }
}

async fn is_cut(cut: &mut watch::Receiver<usize>, number: usize) {
    // An error says that the wire is gone.
    while cut.changed().await.is_ok() && ![ALL, number].contains(&*cut.borrow_and_update()) {}
}
