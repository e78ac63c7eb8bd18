//! What lies between a client and a broker, and breaks when a test says so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Passes bytes on in both directions, until it is cut for good.
pub(crate) struct Wire {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
    mute: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
}

impl Wire {
    pub(crate) fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wire =
            Self { address, ends: Arc::default(), mute: Arc::default(), cut: Arc::default() };
        let (ends, mute, cut) = (wire.ends.clone(), wire.mute.clone(), wire.cut.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let broker = TcpStream::connect(broker).unwrap();
                let both = [client.try_clone().unwrap(), broker.try_clone().unwrap()];
                ends.lock().unwrap().extend(both);
                let up = (client.try_clone().unwrap(), broker.try_clone().unwrap());
                std::thread::spawn(move || pass(up.0, up.1, &AtomicBool::new(false)));
                let mute = mute.clone();
                std::thread::spawn(move || pass(broker, client, &mute));
            }
        });
        wire
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on what the broker says is lost.
    pub(crate) fn mute(&self) {
        self.mute.store(true, Ordering::SeqCst);
    }

    /// Ends every connection without a word, and those that come.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for end in self.ends.lock().unwrap().drain(..) {
            let _gone = end.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mute: &AtomicBool) {
    let mut piece = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if !mute.load(Ordering::SeqCst) && to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _gone = to.shutdown(Shutdown::Both);
}
