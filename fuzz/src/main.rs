//! `catchwater-fuzz [TARGET…] [--seconds N] [--seed N] [--corpus DIR]`: replays the corpus, then mutates for so long per target.
//! A failing input is written to the corpus and named; exit 1.

use catchwater_base::Rng;
use catchwater_fuzz::targets::{TARGETS, Target};
use catchwater_fuzz::{INPUT_BYTES_MAX, mutate, seeds, sys};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let number = |name: &str, default: u64| value(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let (seconds, seed) = (number("--seconds", 5), number("--seed", 1));
    let corpus = value("--corpus").map_or_else(|| PathBuf::from("tests/corpus/fuzz"), PathBuf::from);
    let wanted: Vec<&str> = args.iter().map(String::as_str).filter(|a| TARGETS.iter().any(|t| t.name == *a)).collect();
    std::panic::set_hook(Box::new(|_| {}));
    let (mut all, mut failed) = (0, 0);
    for target in TARGETS.iter().filter(|t| wanted.is_empty() || wanted.contains(&t.name)) {
        let (runs, failure) = fuzz(target, Duration::from_secs(seconds), seed, &corpus);
        all += runs;
        println!(
            "{}: {runs} executions{}",
            target.name,
            failure.map_or(String::new(), |f| {
                failed += 1;
                format!(", FAILED: {f}")
            })
        );
    }
    println!("{all} executions, {failed} failures, {seconds} s a target, seed {seed}");
    ExitCode::from(u8::from(failed > 0))
}

/// Runs one input; words if it fails.
fn try_one(target: &Target, input: &[u8]) -> Result<(), String> {
    let mut outcome = Ok(());
    let grown = sys::growth(|| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            outcome = Err(words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned());
        }
    });
    outcome?;
    let budget = target.budget(input.len());
    if grown > budget {
        return Err(format!("memory grew by {grown} bytes over {} of input, at most {budget}", input.len()));
    }
    Ok(())
}

fn fuzz(target: &Target, limit: Duration, seed: u64, corpus: &Path) -> (u64, Option<String>) {
    let folder = corpus.join(target.name);
    let mut inputs = seeds::of(target.name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    inputs.extend(files.iter().filter_map(|f| std::fs::read(f).ok()));
    let mut rng = Rng::new(seed);
    let (began, mut runs) = (Instant::now(), 0u64);
    // Once before anything is measured: tables that are made at the first use are nobody's memory.
    if let Some(first) = inputs.first() {
        let _ = try_one(target, first);
    }
    let mut next = 0;
    while next < inputs.len() || began.elapsed() < limit {
        let input = match inputs.get(next) {
            Some(whole) => whole.clone(),
            None => {
                let pick = |rng: &mut Rng| rng.below(inputs.len() as u64) as usize;
                let (one, other) = (pick(&mut rng), pick(&mut rng));
                mutate::mutate(&inputs[one], &inputs[other], &mut rng, INPUT_BYTES_MAX)
            }
        };
        next += 1;
        runs += 1;
        if let Err(words) = try_one(target, &input) {
            let path = folder.join(format!("crash-{:08x}", catchwater_record::crc::crc32c(&input)));
            let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, &input));
            let place = kept.map_or_else(|e| format!("not kept: {e}"), |()| path.display().to_string());
            return (runs, Some(format!("{words} ({place})")));
        }
    }
    (runs, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_and_a_greedy_decoder_are_found_and_kept() {
        let corpus = std::env::temp_dir().join(format!("catchwater-fuzz-test-{}", std::process::id()));
        let panics = Target { name: "panics", run: |input| assert!(input.len() < 5, "five bytes"), opens: false };
        let greedy =
            Target { name: "greedy", run: |input| drop(vec![0u8; 20 * input.len() + (80 << 10)]), opens: false };
        for (target, words) in [(&panics, "five bytes"), (&greedy, "memory grew")] {
            std::fs::create_dir_all(corpus.join(target.name)).expect("a folder");
            std::fs::write(corpus.join(target.name).join("seed"), b"1234").expect("a seed");
            let (_, failure) = fuzz(target, Duration::from_secs(20), 1, &corpus);
            assert!(failure.as_ref().is_some_and(|f| f.contains(words)), "{}: {failure:?}", target.name);
            let (runs, again) = fuzz(target, Duration::ZERO, 2, &corpus);
            assert!(again.is_some() && runs <= 2, "what failed is replayed first");
        }
        std::fs::remove_dir_all(&corpus).expect("its own folder");
    }
}
