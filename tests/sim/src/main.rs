//! Plays seeds: one with its trace, or many on all cores.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use waybill_sim::{Failure, Played, run};

/// What was asked for.
struct Wish {
    first: u64,
    count: u64,
    trace: bool,
    hunt: bool,
}

fn wish() -> Result<Wish, String> {
    let mut wish = Wish { first: 0, count: 1_000, trace: false, hunt: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let value = words.next().ok_or_else(|| format!("{word} wants a number"))?;
            value.parse().map_err(|_| format!("{value} is not a number"))
        };
        match word.as_str() {
            "--seed" => (wish.first, wish.count) = (number()?, 1),
            "--from" => wish.first = number()?,
            "--seeds" => wish.count = number()?,
            "--trace" => wish.trace = true,
            "--hunt" => wish.hunt = true,
            other => {
                return Err(format!("{other}: not one of --seed --from --seeds --trace --hunt"));
            }
        }
    }
    Ok(wish)
}

/// Plays the seeds on all cores until so many have failed; those that did.
fn play(
    wish: &Wish,
    enough: usize,
    run: impl Fn(u64) -> Result<Played, Failure> + Sync,
) -> (Vec<Failure>, Played) {
    let next = AtomicU64::new(wish.first);
    let failures = Mutex::new(Vec::<Failure>::new());
    let all = Mutex::new(Played::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let found = failures.lock().map_or(0, |failures| failures.len());
                    if seed >= wish.first + wish.count || found >= enough {
                        return;
                    }
                    match run(seed) {
                        Ok(played) => {
                            let _one_panicked = all.lock().map(|mut all| *all = all.and(played));
                        }
                        Err(failure) => {
                            let _one_panicked =
                                failures.lock().map(|mut failures| failures.push(failure));
                        }
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort_by_key(|failure| failure.seed);
    (failures, all.into_inner().unwrap_or_default())
}

/// Milliseconds of processor time this process has taken, where the system tells (Linux). Others
/// may keep the cores busy, so the time on the wall says little.
fn cpu_ms() -> Option<f64> {
    /// Milliseconds of one of the ticks in `/proc`.
    const TICK_MS: f64 = 10.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program is in parentheses and may have blanks in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) * TICK_MS)
}

/// For each bug the first seeds that find it, in the form of `planted.toml`.
#[cfg(feature = "planted")]
fn hunt(wish: &Wish) -> ExitCode {
    let mut all_found = true;
    for bug in waybill_wire::planted::Bug::ALL {
        let (found, _) = play(wish, 3, |seed| match waybill_sim::run_with(bug, seed) {
            // What fails without the bug too says nothing of it.
            Err(failure) => run(seed, false).map_or(Ok(Played::default()), |_| Err(failure)),
            found_nothing => found_nothing,
        });
        let seeds: Vec<u64> = found.iter().map(|failure| failure.seed).collect();
        let words = found.first().map_or("not found", |failure| failure.words.as_str());
        let words = &words[..words.floor_char_boundary(160)];
        let words = words.replace('\n', " ");
        let _gone = writeln!(std::io::stdout(), "# {words}\n{bug:?} = {seeds:?}\n");
        all_found &= !seeds.is_empty();
    }
    ExitCode::from(u8::from(!all_found))
}

#[cfg(not(feature = "planted"))]
fn hunt(_wish: &Wish) -> ExitCode {
    let _gone = writeln!(std::io::stderr(), "--hunt needs the feature planted");
    ExitCode::from(2)
}

fn main() -> ExitCode {
    let mut out = std::io::stdout();
    let wish = match wish() {
        Ok(wish) => wish,
        Err(words) => {
            let _gone = writeln!(std::io::stderr(), "{words}");
            return ExitCode::from(2);
        }
    };
    if wish.hunt {
        return hunt(&wish);
    }
    let began = Instant::now();
    let (failures, all) = play(&wish, usize::MAX, |seed| run(seed, wish.trace));
    let wall = began.elapsed().as_secs_f64();
    let cpu = cpu_ms().map_or("unknown".into(), |ms| format!("{:.2}", ms / wish.count as f64));
    for Failure { seed, words } in failures.iter().take(20) {
        let words = &words[..words.floor_char_boundary(1_500)];
        let _gone = writeln!(out, "seed {seed}: {words}");
    }
    let failed = failures.len();
    let _gone = writeln!(
        out,
        "{} seeds, {failed} failed, {cpu} ms of CPU each, {wall:.1} s in all",
        wish.count
    );
    let Played { events, conflated, expired, aged, full } = all;
    let _gone = writeln!(
        out,
        "at brokers {conflated} conflated, {expired} expired, {aged} too old, {full} without room; \
         {events} events"
    );
    ExitCode::from(u8::from(failed > 0))
}
