//! Data links come and go while producers of every shard publish, in any order the simulator finds.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use waybill_wire::message::MessageHead;

use super::{Control, Gateway, config, producer};
use crate::support::{Backend, Net};
use crate::talk::Producer;

const SEEDS: Range<u64> = 0..300;
const STEPS: usize = 150;

struct Mix {
    net: Net,
    random: SmallRng,
    gateway: Gateway,
    producers: Vec<Producer>,
}

impl Mix {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let shards = random.random_range(1..5);
        let mut net = Net::start(Backend::Sim(shards, seed), config());
        let control = Control::link(&mut net, 1, &[1]);
        let producers = (0..shards).map(|at| producer(&mut net, 100 + u64::from(at), at)).collect();
        Self { net, random, gateway: Gateway::new(control, shards), producers }
    }

    fn step(&mut self) {
        let at = self.random.random_range(0..self.producers.len());
        let shard = u16::try_from(at).unwrap();
        match self.random.random_range(0..12) {
            0 if self.gateway.data[at].is_none() => {
                let line = self.gateway.control.ask(&mut self.net, shard);
                self.gateway.data[at] = Some((line, None));
            }
            1 => {
                if let Some((line, _)) = self.gateway.data[at].take() {
                    match self.random.random() {
                        true => self.net.cut(line),
                        false => self.net.leave(line),
                    }
                }
            }
            // The broker finds out first; what is on its way can still be read.
            2 => {
                if let Some((line, _)) = self.gateway.data[at] {
                    self.net.cut(line);
                }
            }
            3..6 => {
                for _ in 0..self.random.random_range(1..6) {
                    let producer = &mut self.producers[at];
                    producer.send_with(&mut self.net, MessageHead::default(), &[1], b"x");
                }
            }
            6..9 => self.net.run(self.random.random_range(1..40)),
            _ => self.read_one(),
        }
    }

    /// Takes in some of what has come, by one line.
    fn read_one(&mut self) {
        let lines = self.gateway.lines();
        let line = lines[self.random.random_range(0..lines.len())];
        for _ in 0..self.random.random_range(1..8) {
            let Some(frame) = self.net.arrived(line) else { return };
            self.gateway.take(&mut self.net, line, &frame);
            if !self.gateway.lines().contains(&line) {
                return;
            }
        }
    }

    /// Takes in what there is until nothing comes any more.
    fn read_all(&mut self) {
        loop {
            self.net.settle();
            let before = self.gateway.taken.len();
            let mut came = false;
            for line in self.gateway.lines() {
                while self.gateway.lines().contains(&line)
                    && let Some(frame) = self.net.arrived(line)
                {
                    came = true;
                    self.gateway.take(&mut self.net, line, &frame);
                }
            }
            if !came && before == self.gateway.taken.len() {
                return;
            }
        }
    }

    fn check(&mut self) {
        let mut last = BTreeMap::new();
        for (origin, sequence) in std::mem::take(&mut self.gateway.taken) {
            let before = last.insert(origin, sequence).unwrap_or(0);
            assert!(sequence > before, "promise 2: {origin}: {sequence} after {before}");
        }
        // Whatever was lost with links before: from now on everything arrives.
        let sent: Vec<u64> = self.producers.iter().map(|it| it.sequence).collect();
        for producer in &mut self.producers {
            for _ in 0..3 {
                producer.send_with(&mut self.net, MessageHead::default(), &[1], b"x");
            }
        }
        self.read_all();
        for (at, before) in (0_u64..).zip(sent) {
            let of_it = self.gateway.taken.iter().filter(|(origin, _)| *origin == 100 + at);
            let of_it: Vec<u64> = of_it.map(|(_, sequence)| *sequence).collect();
            assert_eq!(of_it, [before + 1, before + 2, before + 3], "producer {at}");
        }
    }
}

#[test]
fn promise_2_data_links_come_and_go_under_load() {
    for seed in SEEDS {
        let mut mix = Mix::new(seed);
        eprintln!("seed {seed}");
        (0..STEPS).for_each(|_| mix.step());
        mix.read_all();
        mix.check();
        // Promise 5: the ledger is checked as the net is dropped.
        mix.net.finish();
    }
}
