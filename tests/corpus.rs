//! Every committed fuzz input, replayed without a fuzzer: what was found once stays found.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use waybill_gateway::subprotocol::Subprotocol;
use waybill_routing::fuzzing as routing;
use waybill_wire::fuzzing as wire;

/// Runs one input and says whether it got as far as the law.
type Harness = fn(&[u8]) -> bool;

/// Each target of `fuzz/fuzz_targets/` with the harness it calls.
const TARGETS: [(&str, Harness); 7] = [
    ("client", |data| {
        let message = data.to_vec().into();
        Subprotocol::Json.decode(&message).is_ok() | Subprotocol::Binary.decode(&message).is_ok()
    }),
    ("decode", wire::decode),
    ("deframe", wire::deframe),
    ("expressions", wire::expressions),
    ("session", wire::session),
    ("narrow", wire::narrow),
    ("operations", |data| {
        routing::operations(data);
        true
    }),
];

/// Inputs of one target. More belong into a fuzzer's own store.
const INPUTS_MAX: usize = 200;

/// Bytes of all inputs together: every clone carries them.
const BYTES_MAX: usize = 300_000;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().into()).collect()
}

#[test]
fn every_input_of_every_corpus_holds() {
    let mut bytes = 0;
    for (name, harness) in TARGETS {
        let inputs: Vec<PathBuf> = fs::read_dir(fuzz().join("corpus").join(name))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert!((1..INPUTS_MAX).contains(&inputs.len()), "{name}: {} inputs", inputs.len());
        let mut reached = 0;
        for input in inputs {
            eprintln!("{}", input.display());
            let data = fs::read(input).unwrap();
            bytes += data.len();
            reached += u32::from(harness(&data));
        }
        assert!(reached > 0, "{name}: no input gets as far as the law");
    }
    assert!(bytes < BYTES_MAX, "the corpora have {bytes} bytes");
}

#[test]
fn every_target_is_replayed() {
    let replayed = TARGETS.iter().map(|(name, _)| (*name).to_string()).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), replayed);
    assert_eq!(names(&fuzz().join("corpus")), replayed);
}
