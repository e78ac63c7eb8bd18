//! Laws that hold for all bytes: the harnesses of `fuzzing.rs` on random messages, on vectors with
//! random damage, and on the committed corpora.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "vectors/files.rs"]
mod files;

use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use waybill_wire::code::{Class, ContentType, Encoding, Kind, Level, Mode, Priority};
use waybill_wire::message::{Content, Extension, History, Part, Sender};
use waybill_wire::{Frame, MessageHead, Selector, fuzzing};

/// The bytes of all vectors, valid and not.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let vectors = [files::vectors("frames"), files::vectors("invalid")].concat();
        vectors.iter().map(|vector| files::bytes(files::text(vector, "hex"))).collect()
    })
}

/// A vector of which some bytes are others.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<Index>(), prop_oneof![any::<u8>(), 0..4u8]), 0..4);
    (0..samples().len(), damage).prop_map(|(which, damage)| {
        let mut bytes = samples()[which].clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// A message head that owns its lists.
#[derive(Clone, Debug)]
struct Owned {
    kind: Kind,
    head: MessageHead<'static>,
    trace: Option<[u8; 16]>,
    labels: Vec<String>,
    selector: Option<Vec<u8>>,
    except: Vec<u64>,
    extensions: Vec<(u16, Vec<u8>)>,
    targets: Vec<u64>,
    payload: Vec<u8>,
}

impl Owned {
    /// Calls `with` with the borrowed head.
    fn lend<T>(&self, with: impl FnOnce(&MessageHead<'_>) -> T) -> T {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        let extensions: Vec<Extension<'_>> = self
            .extensions
            .iter()
            .map(|(extension_type, data)| Extension { extension_type: *extension_type, data })
            .collect();
        with(&MessageHead {
            trace: self.trace.as_ref(),
            labels: (&labels).into(),
            selector: self.selector.as_deref().map(|bytes| Selector::check(bytes).unwrap()),
            except: (&self.except).into(),
            extensions: (&extensions).into(),
            ..self.head
        })
    }
}

fn scalars() -> impl Strategy<Value = MessageHead<'static>> {
    let switches = (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let handling = (0..4u8, 0..3u8, 0..4u8, 0..4u8, 0..17u8);
    let numbers = (0..u64::MAX, any::<u32>(), any::<u32>());
    let sections = (
        option::of(any::<u64>()),
        option::of(any::<u64>()),
        option::of((any::<u64>(), any::<u64>())),
        option::of((any::<u64>(), 0..4u32, 0..5u32)),
        option::of((0..8u16, 0..6u16)),
        option::weighted(0.2, any::<u32>()),
        option::weighted(0.3, (any::<u64>(), 0..2u64)),
    );
    (switches, handling, numbers, sections).prop_map(|(switches, handling, numbers, sections)| {
        let (origin, conflate, sender, part, content, fragmented, history) = sections;
        MessageHead {
            resend: switches.0,
            everyone: switches.1,
            except_self: switches.2,
            mode: Mode(handling.0),
            class: Class(handling.1),
            level: Level(handling.2),
            priority: Priority(handling.3),
            hops: handling.4,
            sequence: numbers.0,
            namespace: numbers.1,
            ttl_ms: numbers.2,
            origin,
            conflate,
            sender: sender.map(|(uid, connection)| Sender { uid, connection }),
            part: part.map(|(list, index, parts)| Part { list, index, parts }),
            content: content.map(|(content_type, encoding)| Content {
                content_type: ContentType(content_type),
                encoding: Encoding(encoding),
            }),
            fragmented,
            history: history.map(|(channel, cursor)| History { channel, cursor }),
            ..MessageHead::default()
        }
    })
}

/// Bytes of selectors, some of them longer than a message may carry.
fn selectors() -> impl Strategy<Value = Vec<u8>> {
    let texts = select(vec!["vip", "!(a & b)", "group:42 & (geo:sh | geo:bj) & !platform:ios"]);
    let long = [&[3, 64][..], &[&[1, 64][..], &[b'l'; 64]].concat().repeat(64)].concat();
    let parse = |text: &str| waybill_wire::selector::parse(text).unwrap();
    prop_oneof![8 => texts.prop_map(parse), 1 => Just(long)]
}

fn messages() -> impl Strategy<Value = Owned> {
    let kinds = select(vec![Kind::PUBLISH, Kind::DELIVER, Kind::UPLINK]);
    let lists = (
        option::of(any::<[u8; 16]>()),
        vec("[a-zé.]{0,33}", 0..18),
        option::weighted(0.3, selectors()),
        vec(any::<u64>(), 0..6),
        vec((0..0x8002u16, vec(any::<u8>(), 0..20)), 0..4),
        vec(any::<u64>(), 0..20),
        vec(any::<u8>(), 0..64),
    );
    (kinds, scalars(), lists).prop_map(|(kind, head, lists)| {
        let (trace, labels, selector, except, extensions, targets, payload) = lists;
        Owned { kind, head, trace, labels, selector, except, extensions, targets, payload }
    })
}

/// What a broker would most often see: audiences that are right.
fn tame(mut message: Owned) -> Owned {
    let head = &mut message.head;
    head.sequence = head.sequence.max(1);
    head.hops &= 15;
    (head.mode, head.class) = (Mode(head.mode.0 % 3), Class(head.class.0 % 2));
    head.part = head.part.map(|part| Part { parts: part.index + 1, ..part });
    head.content = head
        .content
        .filter(|content| content.content_type.is_registered() && content.encoding.is_registered());
    head.fragmented = None;
    head.history = head.history.filter(|_| head.class == Class::STORED);
    head.except_self &= head.sender.is_some();
    message.labels.retain(|label| !label.is_empty() && label.len() <= 64);
    message.labels.truncate(16);
    message.selector = message.selector.filter(|selector| selector.len() <= 4096);
    message.extensions.retain(|(extension_type, _)| *extension_type < 0x8000);
    match message.kind {
        Kind::UPLINK => {
            head.sender = Some(head.sender.unwrap_or_default());
            (head.everyone, head.except_self, head.history) = (false, false, None);
            (message.selector, message.except, message.targets) = (None, Vec::new(), Vec::new());
        }
        Kind::PUBLISH => {
            (head.origin, head.class, head.history) = (None, Class::LIVE, None);
        }
        _ => head.origin = Some(7),
    }
    if message.kind != Kind::DELIVER && head.priority == Priority::CONTROL {
        head.priority = Priority::HIGH;
    }
    if message.kind != Kind::UPLINK {
        head.everyone &= message.targets.is_empty() && message.selector.is_none();
        if !head.everyone && message.targets.is_empty() && message.selector.is_none() {
            message.targets.push(1001);
        }
    }
    message
}

/// A message either is refused and leaves nothing behind, or decodes to what it was made of.
fn check_round_trip(owned: &Owned) -> bool {
    owned.lend(|head| {
        let mut out = vec![0xAA; 3];
        let result = head.encode(owned.kind, &owned.targets, &owned.payload, &mut out);
        let written = out.split_off(3);
        assert_eq!(out, [0xAA; 3], "what was there stays");
        if result.is_err() {
            assert!(written.is_empty());
            return false;
        }
        let (Frame::Publish(found) | Frame::Deliver(found) | Frame::Uplink(found)) =
            Frame::decode(&written).unwrap()
        else {
            panic!("a message went in")
        };
        assert_eq!(found.head(), *head);
        assert!(found.targets.iter().eq(owned.targets.iter().copied()));
        assert_eq!(found.payload, owned.payload);
        assert!(fuzzing::decode(&written));
        let mut narrow = vec![owned.targets.first().map_or(0, |uid| uid.to_le_bytes()[0])];
        narrow.extend_from_slice(&written);
        assert_eq!(fuzzing::narrow(&narrow), owned.kind == Kind::PUBLISH);
        true
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// CONV-5.
    #[test]
    fn messages_come_back_or_are_refused(message in messages()) {
        check_round_trip(&message);
        let tamed = tame(message);
        prop_assert!(check_round_trip(&tamed), "{tamed:?}");
    }

    /// CONV-5.
    #[test]
    fn accepted_frames_encode_to_the_same_bytes(bytes in damaged()) {
        fuzzing::decode(&bytes);
    }

    /// MSG-3.
    #[test]
    fn a_plain_message_is_read_as_it_is(
        numbers in (1..u64::MAX, any::<u32>(), any::<u32>(), 0..4u8, 0..18u8),
        damage in vec((0..48usize, prop_oneof![any::<u8>(), 0..4u8]), 0..3),
        end in 0..80usize,
    ) {
        let (sequence, namespace, ttl_ms, priority, hops) = numbers;
        let head = MessageHead { sequence, namespace, ttl_ms, ..MessageHead::default() };
        let mut bytes = Vec::new();
        head.encode_publish(&[sequence], &[7; 16], &mut bytes).unwrap();
        bytes[12] |= priority << 6;
        bytes[13] = hops;
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        bytes.truncate(end.max(40));
        fuzzing::decode(&bytes);
    }

    /// FRAME-6.
    #[test]
    fn chunking_never_changes_the_outcome(
        lengths in vec(1..64u8, 0..6),
        frames in vec(damaged(), 1..5),
        cut in any::<Index>(),
    ) {
        let stream = frames.concat();
        let end = if cut.index(4) == 0 { cut.index(stream.len()) } else { stream.len() };
        fuzzing::deframe(&[&lengths[..], &[0], &stream[..end]].concat());
    }

    /// TGT-3, TGT-4.
    #[test]
    fn narrowing_changes_what_it_may_and_nothing_else(choice in any::<u8>(), bytes in damaged()) {
        fuzzing::narrow(&[&[choice], &bytes[..]].concat());
    }

    #[test]
    fn sessions_stay_bounded(data in vec(any::<u8>(), 0..400)) {
        fuzzing::session(&data);
    }

    #[test]
    fn noise_is_refused_or_right(data in vec(any::<u8>(), 0..200)) {
        fuzzing::decode(&data);
        fuzzing::deframe(&data);
        fuzzing::narrow(&data);
        fuzzing::expressions(&data);
    }
}

/// The harnesses reach their laws: otherwise the tests above would prove nothing.
#[test]
fn harnesses_reach_their_laws() {
    let frames = samples();
    assert!(frames.iter().filter(|bytes| fuzzing::decode(bytes)).count() >= 100);
    let narrows = |bytes: &&Vec<u8>| fuzzing::narrow(&[&[1], &bytes[..]].concat());
    assert!(frames.iter().filter(narrows).count() >= 20);
    let deframes = |bytes: &&Vec<u8>| fuzzing::deframe(&[&[3, 0], &bytes[..]].concat());
    assert!(frames.iter().filter(deframes).count() >= 100);
    assert!(fuzzing::expressions(b"vip & !(a | b)") && fuzzing::expressions(b"\x04\x01\x01a"));
    assert!(fuzzing::expressions(b"uid=1..2 | !label=*") && !fuzzing::expressions(b"a b"));
    assert!(fuzzing::session(&[0, 7, 8, 7, 2]));
    assert!(fuzzing::session(&[3, 7, 9, 7, 2]));
}
