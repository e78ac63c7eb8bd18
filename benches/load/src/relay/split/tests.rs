//! The rule against its naive form, on frames that wire wrote and reads.

use waybill_wire::code::Mode;
use waybill_wire::deframe::Deframer;
use waybill_wire::frame::Frame as Wire;
use waybill_wire::message::MessageHead;

use super::*;

/// A delivery: sequence, UIDs, payload.
type Seen = (u64, Vec<u64>, Vec<u8>);

fn frame(sequence: u64, uids: &[u64], payload: &[u8]) -> Vec<u8> {
    let everyone = uids.is_empty();
    let mode = if everyone { Mode::BROADCAST } else { Mode::DIRECT };
    let head = MessageHead { sequence, everyone, mode, namespace: 1, ..MessageHead::default() };
    let mut out = Vec::new();
    head.encode_publish(uids, payload, &mut out).unwrap();
    out
}

fn read(mut bytes: &[u8]) -> Vec<Seen> {
    let mut deframer = Deframer::new();
    let mut seen = Vec::new();
    loop {
        let step = deframer.next(bytes).unwrap();
        bytes = &bytes[step.consumed..];
        let Some(raw) = step.frame else { break };
        let Wire::Publish(message) = raw.decode().unwrap() else { panic!("only those went in") };
        seen.push((message.sequence, message.targets.iter().collect(), message.payload.into()));
    }
    assert!(deframer.is_between_frames());
    seen
}

/// What gateway `number` should get of one frame.
fn expected(number: u64, gateways: u64, (sequence, uids, payload): &Seen) -> Option<Seen> {
    let mine: Vec<u64> = uids.iter().copied().filter(|uid| uid % gateways == number).collect();
    let concerned = uids.is_empty() || !mine.is_empty();
    concerned.then(|| (*sequence, mine, payload.clone()))
}

fn mixture() -> Vec<Seen> {
    let uid = |n: u64| 1_000_000_000 + n * n % 1013;
    let messages = (1..200_u64).map(|n| {
        let uids = match n % 5 {
            0 => Vec::new(),
            1 => (0..n * 7).map(|m| uid(n + m)).collect(),
            _ => vec![uid(n)],
        };
        (n, uids, vec![n.to_le_bytes()[0]; (n % 40) as usize])
    });
    messages.collect()
}

fn run(split: &mut Split, gateways: usize, bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
    let mut waiting = vec![Vec::new(); gateways];
    let mut input = Vec::new();
    for part in bytes.chunks(step) {
        input.extend_from_slice(part);
        let taken = split.split(&input, &mut waiting).unwrap();
        input.drain(..taken);
    }
    assert!(input.is_empty());
    waiting
}

#[test]
fn each_gateway_gets_its_share_in_order() {
    let messages = mixture();
    let bytes: Vec<u8> = messages.iter().flat_map(|(n, uids, pay)| frame(*n, uids, pay)).collect();
    for gateways in [1_usize, 2, 3, 8, 11, 64, 256] {
        for step in [13, 97, 100_000_000] {
            let split = &mut Split::new(gateways, None);
            for (number, out) in run(split, gateways, &bytes, step).iter().enumerate() {
                let mine = |it: &Seen| expected(number as u64, gateways as u64, it);
                let wanted: Vec<Seen> = messages.iter().filter_map(mine).collect();
                assert_eq!(read(out), wanted, "gateway {number} of {gateways}, steps of {step}");
            }
        }
    }
}

#[test]
fn faults_are_committed_on_every_nth_message() {
    let messages: Vec<Seen> = (1..=9).map(|n| (n, vec![8 * n], vec![7])).collect();
    let bytes: Vec<u8> = messages.iter().flat_map(|(n, uids, pay)| frame(*n, uids, pay)).collect();
    let sequences = |text: &str| {
        let split = &mut Split::new(8, Some(text.parse().unwrap()));
        let waiting = run(split, 8, &bytes, 50);
        let of = |at: usize| read(&waiting[at]).iter().map(|seen| seen.0).collect::<Vec<u64>>();
        (of(0), of(1))
    };
    assert_eq!(sequences("drop:4"), (vec![1, 2, 3, 5, 6, 7, 9], vec![]));
    assert_eq!(sequences("twice:4"), (vec![1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9], vec![]));
    assert_eq!(sequences("wrong:4"), (vec![1, 2, 3, 5, 6, 7, 9], vec![4, 8]));
}

#[test]
fn what_is_no_message_is_refused() {
    let mut waiting = vec![Vec::new(); 2];
    let mut bytes = frame(1, &[5], b"x");
    bytes[2] = 1;
    assert!(Split::new(2, None).split(&bytes, &mut waiting).is_err());
    assert!(Split::new(2, None).split(&[0; 40], &mut waiting).is_err());
}
