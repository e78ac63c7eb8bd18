//! Taking the connections of one bench: all gateways and the producer, in any order.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::hello::{HELLO_BYTES, Hello};

/// How long a connection may take to say who it is.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// The connections, still blocking.
pub(super) struct Links {
    pub(super) producer: TcpStream,
    /// At their numbers.
    pub(super) gateways: Vec<TcpStream>,
}

impl Links {
    /// Waits for all of them, then tells the producer that it may begin.
    pub(super) fn accept(listener: &TcpListener, gateways: usize) -> io::Result<Self> {
        let mut producer = None;
        let mut places: Vec<Option<TcpStream>> = (0..gateways).map(|_| None).collect();
        while producer.is_none() || places.iter().any(Option::is_none) {
            let (stream, _) = listener.accept()?;
            let (hello, stream) = identified(stream)?;
            let place = match hello {
                Hello::Producer => &mut producer,
                Hello::Gateway(number) => usize::try_from(number)
                    .ok()
                    .and_then(|number| places.get_mut(number))
                    .ok_or_else(|| bad("a gateway number beyond the number of gateways"))?,
            };
            if place.replace(stream).is_some() {
                return Err(bad("two connections say that they are the same"));
            }
        }
        let mut producer = producer.ok_or_else(|| bad("no producer"))?;
        producer.write_all(&Hello::Producer.encode())?;
        Ok(Self { producer, gateways: places.into_iter().flatten().collect() })
    }
}

fn identified(mut stream: TcpStream) -> io::Result<(Hello, TcpStream)> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HELLO_TIME))?;
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes)?;
    stream.set_read_timeout(None)?;
    let hello = Hello::decode(bytes).ok_or_else(|| bad("the first bytes are no hello"))?;
    Ok((hello, stream))
}

fn bad(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}
