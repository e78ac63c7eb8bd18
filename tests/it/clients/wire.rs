//! What lies between a client and a broker, and breaks when a test says so.

use std::collections::BTreeSet;
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
    answered: watch::Sender<BTreeSet<usize>>,
    accepting: JoinHandle<()>,
}

/// What one connection goes by.
#[derive(Clone)]
struct Passing {
    number: usize,
    cut: watch::Receiver<usize>,
    mute: Arc<AtomicBool>,
    answered: watch::Sender<BTreeSet<usize>>,
}

impl Wire {
    pub(crate) async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, mute) = (watch::Sender::new(ALL), Arc::new(AtomicBool::new(false)));
        let answered = watch::Sender::new(BTreeSet::new());
        let (cut, muted) = (cuts.subscribe(), Arc::clone(&mute));
        let mut next = Passing { number: 0, cut, mute: muted, answered: answered.clone() };
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, broker, next.clone()));
                next.number += 1;
            }
        });
        Self { address, cuts, mute, answered, accepting }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection without a word; the next ones are passed on again.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(ALL);
    }

    /// Ends one connection, by its number from 0 in the order in which they came, when the broker
    /// has said something on it: a link is welcome by then.
    pub(crate) async fn cut_one(&self, number: usize) {
        let mut answered = self.answered.subscribe();
        answered.wait_for(|all| all.contains(&number)).await.expect("the wire is there");
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

async fn pass(client: TcpStream, broker: SocketAddr, passing: Passing) {
    let Passing { number, mut cut, mute, answered } = passing;
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
            answered.send_if_modified(|all| all.insert(number));
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
