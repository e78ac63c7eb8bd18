//! One attempt at a socket: an entry of the list of brokers may stand for several addresses.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};

use crate::discovery::DNS_PREFIX;

/// Connects to `entry`. The addresses of a name with `dns:` are alternatives: each `turn` begins
/// with another one of them and takes the first that accepts. Says which it was.
pub(super) async fn dial(entry: &str, turn: usize) -> io::Result<(TcpStream, Arc<str>)> {
    let Some(name) = entry.strip_prefix(DNS_PREFIX) else {
        return Ok((TcpStream::connect(entry).await?, Arc::from(entry)));
    };
    let mut addresses: Vec<_> = lookup_host(name).await?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let first = turn % addresses.len().max(1);
    addresses.rotate_left(first);
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok((stream, Arc::from(address.to_string()))),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_dialled_by_its_addresses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("is bound");
        let entry = format!("dns:127.0.0.1:{}", address.port());
        for turn in 0..3 {
            let (_stream, named) = dial(&entry, turn).await.expect("is there");
            assert_eq!(*named, address.to_string());
        }
    }
}
