//! What a payload costs the broker per gateway when each outbox copies it, and when all refer to
//! one copy: from the offer to the socket, in processor time. `REFERENCED_BYTES` and
//! `FRAGMENT_BYTES` of `limits.rs` follow from it.
//!
//! `cargo bench -p waybill-broker --bench payloads`

use std::io::{IoSlice, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use waybill_broker::io::Piece;
use waybill_broker::limits::{FRAGMENT_BYTES, REFERENCED_BYTES};
use waybill_broker::outbox::{Outbox, Terms, Write};
use waybill_wire::code::Kind;
use waybill_wire::message::MessageHead;

const SIZES: [usize; 8] =
    [2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20];
const GATEWAYS: [usize; 3] = [2, 8, 64];
/// Bytes that are sent for one figure, and figures of which the median is told.
const BYTES: usize = 128 << 20;
const ROUNDS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum How {
    Copied,
    Referenced,
    InPieces,
}

/// A gateway's outbox, and a connection that takes whatever is written at once.
struct Gateway {
    outbox: Outbox,
    near: UnixStream,
    far: UnixStream,
}

impl Gateway {
    fn new() -> Self {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        for end in [&near, &far] {
            end.set_nonblocking(true).expect("a socket's own switch");
        }
        Self { outbox: Outbox::new(64 << 20), near, far }
    }

    fn offer(&mut self, how: How, header: &[u8], payload: &[u8], shared: &Bytes) {
        let (now, terms) = (Duration::ZERO, Terms::default());
        let taken = match how {
            How::Copied => self.outbox.offer(now, terms, |out| {
                out.reserve(header.len() + payload.len());
                out.extend_from_slice(header);
                out.extend_from_slice(payload);
            }),
            _ => self.outbox.offer_large(now, terms, header, shared.clone()),
        };
        taken.expect("there is room");
    }

    /// Writes all that waits; the bytes.
    fn flush(&mut self, sink: &mut [u8]) -> usize {
        let mut sent = 0;
        while !self.outbox.is_empty() {
            let (Write { data, pieces, .. }, _) = self.outbox.take(Duration::ZERO);
            let mut slices = slices(&data, &pieces);
            let mut rest = &mut slices[..];
            while !rest.is_empty() {
                if let Ok(written) = self.near.write_vectored(rest) {
                    sent += written;
                    IoSlice::advance_slices(&mut rest, written);
                }
                while self.far.read(sink).is_ok_and(|read| read > 0) {}
            }
            self.outbox.recycle(Duration::ZERO, data);
        }
        sent
    }
}

fn slices<'a>(data: &'a [u8], pieces: &'a [Piece]) -> Vec<IoSlice<'a>> {
    let (mut all, mut from) = (Vec::new(), 0);
    for piece in pieces {
        all.extend([IoSlice::new(&data[from..piece.at]), IoSlice::new(&piece.bytes)]);
        from = piece.at;
    }
    all.push(IoSlice::new(&data[from..]));
    all
}

/// The processor time of this thread so far.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("the first number is that")
}

fn header(how: How, payload: usize) -> Vec<u8> {
    let total = u32::try_from(payload).expect("less than that");
    let fragmented = matches!(how, How::InPieces).then_some(total);
    let head = MessageHead { sequence: 1, origin: Some(9), fragmented, ..MessageHead::default() };
    let mut out = Vec::new();
    head.encode(Kind::DELIVER, &[1][..], &[], &mut out).expect("a valid header");
    if matches!(how, How::Copied) {
        out[4..8].copy_from_slice(&total.to_le_bytes());
    }
    out
}

/// Microseconds for each gateway of a message.
fn measure(how: How, bytes: usize, gateways: &mut [Gateway], sink: &mut [u8]) -> f64 {
    let (header, payload) = (header(how, bytes), vec![7; bytes]);
    let messages = (BYTES / bytes / gateways.len()).max(1);
    let mut all: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let before = cpu_ns();
            for _ in 0..messages {
                let shared = match how {
                    How::Copied => Bytes::new(),
                    _ => Bytes::copy_from_slice(&payload),
                };
                for gateway in &mut *gateways {
                    gateway.offer(how, &header, &payload, &shared);
                }
                for gateway in &mut *gateways {
                    assert!(gateway.flush(sink) > bytes, "all was sent");
                }
            }
            let each = (cpu_ns() - before) as f64 / (messages * gateways.len()) as f64;
            each / 1000.0
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[ROUNDS / 2]
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "us of processor time for each gateway; REFERENCED_BYTES is {REFERENCED_BYTES},"
    )?;
    writeln!(out, "FRAGMENT_BYTES {FRAGMENT_BYTES}")?;
    writeln!(
        out,
        "{:>9} {:>8} {:>9} {:>11} {:>9}",
        "bytes", "gateways", "copied", "referenced", "pieces"
    )?;
    let mut sink = vec![0; 1 << 20];
    for count in GATEWAYS {
        let mut gateways: Vec<Gateway> = (0..count).map(|_| Gateway::new()).collect();
        for bytes in SIZES {
            let mut of = |how| measure(how, bytes, &mut gateways, &mut sink);
            let (copied, referenced) = (of(How::Copied), of(How::Referenced));
            write!(out, "{bytes:>9} {count:>8} {copied:>9.2} {referenced:>11.2}")?;
            if bytes > FRAGMENT_BYTES {
                write!(out, " {:>9.2}", of(How::InPieces))?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}
