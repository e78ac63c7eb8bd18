//! The ring against real sockets: nothing is let go of while the system may touch it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;

const LINK: LinkId = LinkId(3);
const WAIT: Duration = Duration::from_secs(10);

/// A ring with one end of a connection, and the other end; `None` where there is no io_uring.
fn ring() -> Option<(Ring, Place, TcpStream)> {
    let mut ring = Ring::new(Sizes { least: 2, most: 4, bytes: 16 }).ok()?;
    ring.begin().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let place = ring.adopt(LINK, listener.accept().unwrap().0);
    Some((ring, place, far))
}

fn event(ring: &mut Ring) -> Event {
    loop {
        if let Some(event) = ring.next() {
            return event;
        }
        ring.enter(WAIT).unwrap();
    }
}

/// Waits until nothing is under way; nobody is told of anything meanwhile.
fn until_quiet(ring: &mut Ring) {
    while !ring.is_quiet() {
        ring.enter(WAIT).unwrap();
        assert!(ring.next().is_none());
    }
}

#[test]
fn what_the_system_may_touch_stays_until_it_says_that_it_is_done() {
    let Some((mut ring, place, mut far)) = ring() else { return };
    ring.receive(place, Vec::with_capacity(64));
    // More than a peer that does not read takes.
    ring.send(place, vec![9; 64 << 20], Vec::new());
    ring.enter(Duration::ZERO).unwrap();
    ring.close(place);
    let slot = &ring.slots[place.slot as usize];
    assert!(slot.sends.is_some() && matches!(slot.receipt, Receipt::Into(_)) && !ring.is_quiet());
    until_quiet(&mut ring);
    let slot = &ring.slots[place.slot as usize];
    assert!(slot.sends.is_none() && matches!(slot.receipt, Receipt::None));
    // What was sent before that arrives; then the connection has ended.
    let mut rest = Vec::new();
    let _ = far.read_to_end(&mut rest);
    assert!(rest.iter().all(|&byte| byte == 9));
    assert_eq!(ring.take_incidents(), Incidents::default());
}

#[test]
fn a_place_has_another_generation_for_the_next_socket() {
    let Some((mut ring, place, far)) = ring() else { return };
    ring.receive_all(place);
    ring.enter(Duration::ZERO).unwrap();
    ring.close(place);
    until_quiet(&mut ring);
    let next = ring.adopt(LinkId(4), far);
    assert_eq!((next.slot, next.generation), (place.slot, place.generation + 1));
}

#[test]
fn a_socket_that_leaves_brings_along_what_has_come() {
    let Some((mut ring, place, mut far)) = ring() else { return };
    ring.receive_all(place);
    far.write_all(b"before").unwrap();
    assert!(matches!(event(&mut ring), Event::Bytes(LINK, data) if data == b"before"));
    assert!(ring.leave(place).is_none(), "it is received from");
    let near = loop {
        match event(&mut ring) {
            Event::Left(LINK, near) => break near,
            Event::Stopped(LINK) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(ring.is_quiet());
    far.write_all(b"after").unwrap();
    let mut bytes = [0; 5];
    (&near).read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"after");
    let place = ring.adopt(LINK, near);
    assert!(ring.leave(place).is_some(), "nothing of it is under way");
}

#[test]
fn whoever_finds_no_buffer_is_told_and_receives_when_there_are_some() {
    let Some((mut ring, place, mut far)) = ring() else { return };
    ring.receive_all(place);
    far.write_all(&[1; 100]).unwrap();
    let (mut taken, mut starved) = (Vec::new(), 0);
    while taken.len() < 100 {
        match event(&mut ring) {
            Event::Bytes(LINK, data) => taken.extend(data),
            Event::Starved(LINK) => {
                starved += 1;
                ring.starve();
                ring.receive_all(place);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(starved > 0, "two buffers of 16 bytes do not hold 100");
}

#[test]
fn a_send_that_is_interrupted_by_the_end_of_its_peer_fails() {
    let Some((mut ring, place, far)) = ring() else { return };
    ring.send(place, vec![9; 64 << 20], Vec::new());
    ring.enter(Duration::ZERO).unwrap();
    drop(far);
    assert!(matches!(event(&mut ring), Event::SendFailed(LINK, _)));
    ring.close(place);
    assert!(ring.is_quiet());
}

#[test]
fn a_ring_that_ends_waits_for_what_is_under_way() {
    let Some((mut ring, place, far)) = ring() else { return };
    ring.receive_all(place);
    ring.send(place, vec![9; 64 << 20], Vec::new());
    ring.enter(Duration::ZERO).unwrap();
    assert!(ring.end() && ring.is_quiet());
    drop(far);
}

#[test]
fn what_lies_in_several_places_arrives_in_order_however_little_is_taken_at_a_time() {
    let Some((mut ring, place, mut far)) = ring() else { return };
    let pattern = |from: usize, bytes: usize| -> Vec<u8> {
        (from..from + bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
    };
    // Far more slices than one order takes, and more bytes than a socket does.
    let (own, piece) = (pattern(0, 3 * 1500), bytes::Bytes::from(pattern(3, 9000)));
    let pieces = (1..=1500).map(|at| Piece { at: 3 * at, bytes: piece.clone() });
    let pieces: Vec<Piece> = pieces.chain([Piece { at: 4500, bytes: piece.clone() }]).collect();
    let expected = crate::io::joined(own.clone(), &pieces);
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; expected.len()];
        far.read_exact(&mut all).unwrap();
        all == expected
    });
    ring.send(place, own.clone(), pieces);
    assert!(matches!(event(&mut ring), Event::Sent(LINK, data) if data == own));
    assert!(reader.join().unwrap());
    assert!(ring.take_incidents().short_sends > 0, "the slices take several orders");
    assert!(piece.is_unique(), "nothing refers to it any more");
}
