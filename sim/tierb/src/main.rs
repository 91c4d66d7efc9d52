//! `catchwater-tierb [--seed N | --from N] [--seeds N] [--seconds N] [--hours N]`: runs seeds of tier B and prints what
//! happened; exit 1 = a violation. `same N`: N seeds, each twice, equal traces. `mutants`: each planted bug must be found.
//! `CW_TIERB_SEEDS=1` prints each seed before it runs, `CW_TIERB_LOG=1` what the broker logs. `--cfg sim` only.
//! A run in which nothing happens for two minutes is said to stand still, with what its threads do, and ends (exit 3).

use std::process::ExitCode;

#[cfg(not(sim))]
fn main() -> ExitCode {
    eprintln!("tier B is built with RUSTFLAGS=\"--cfg sim --cfg tokio_unstable\" only (cargo xtask tierb does it)");
    ExitCode::from(2)
}

#[cfg(sim)]
fn main() -> ExitCode {
    simulated::main()
}

#[cfg(sim)]
mod simulated {
    use catchwater_base::{log, mutant};
    use catchwater_runtime::sim;
    use catchwater_tierb::run::{self, Outcome};
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    const USAGE: &str = "usage: catchwater-tierb [--seed N | --from N] [--seeds N] [--seconds N] [--hours N]
       catchwater-tierb same N
       catchwater-tierb mutants";
    /// Planted bugs that only a whole broker shows, or that must not hide in one.
    const MUTANTS: [&str; 4] = ["no_directory_fsync", "fsync_lies", "ack_or_vote_before_fsync", "fetch_wake_lost"];
    /// A step takes milliseconds; these are looks of a second each.
    const STANDS_LOOKS: u32 = 120;
    /// Runs that may pass before a planted bug is found.
    const RUNS_MAX: &str = "40";

    /// The one that runs.
    static SEED: AtomicU64 = AtomicU64::new(0);

    /// Names the seed before it runs, should it not end.
    fn run(seed: u64) -> Outcome {
        SEED.store(seed, Ordering::Relaxed);
        if std::env::var_os("CW_TIERB_SEEDS").is_some() {
            eprintln!("seed {seed}");
        }
        run::run(seed)
    }

    struct Options {
        from: u64,
        seeds: u64,
        seconds: Option<u64>,
        hours: Option<u64>,
    }

    pub fn main() -> ExitCode {
        std::panic::set_hook(Box::new(|panic| sim::fault(format!("panic: {panic}"))));
        if let Ok(name) = std::env::var("CATCHWATER_MUTANT") {
            mutant::set_process(name);
        }
        if std::env::var_os("CW_TIERB_LOG").is_some() {
            log::set_hook(|level, event, text| eprintln!("{level:?} {event}: {text}"));
        }
        let watched = sim::watch(STANDS_LOOKS, |report| {
            println!("STANDS STILL: seed {}: {report}", SEED.load(Ordering::Relaxed));
            std::process::exit(3);
        });
        if let Err(error) = watched {
            eprintln!("no thread to watch the run: {error}");
        }
        let args: Vec<String> = std::env::args().skip(1).collect();
        if let [verb, count] = &args[..]
            && verb == "same"
        {
            return count.parse().map_or_else(|_| usage(), same);
        }
        if args == ["mutants"] {
            return mutants();
        }
        let Some(options) = options(&args) else { return usage() };
        if options.seeds == 1 {
            let out = run(options.from);
            println!("{out}\ntrace {:016x}", out.trace.0);
            out.violations.iter().for_each(|v| println!("VIOLATION {v}"));
            return if out.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        many(&options)
    }

    fn usage() -> ExitCode {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    }

    fn many(options: &Options) -> ExitCode {
        let began = Instant::now();
        let mut all = Outcome::default();
        let mut runs = 0;
        for seed in options.from..options.from.saturating_add(options.seeds) {
            let late = options.seconds.is_some_and(|s| began.elapsed() > Duration::from_secs(s));
            let enough = options.hours.is_some_and(|h| all.simulated > Duration::from_secs(h * 3600));
            if late || enough {
                break;
            }
            let out = run(seed);
            runs += 1;
            all.add(&out);
            if !out.violations.is_empty() {
                out.violations.iter().for_each(|v| println!("VIOLATION seed {seed}: {v}"));
                println!("again: catchwater-tierb --seed {seed}");
                break;
            }
        }
        let real = began.elapsed().as_secs_f64();
        let ratio = all.simulated.as_secs_f64() / real.max(0.001);
        println!("tier B: {runs} runs, {all}, {real:.1} s, {ratio:.0} x real time");
        if all.violations.is_empty() && all.kills + all.power_cuts > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn same(count: u64) -> ExitCode {
        let differ: Vec<u64> = (1..=count).filter(|seed| run(*seed) != run(*seed)).collect();
        println!("tier B: same seed twice: {} of {count} equal", count - differ.len() as u64);
        if differ.is_empty() {
            return ExitCode::SUCCESS;
        }
        println!("different: {differ:?}");
        ExitCode::FAILURE
    }

    /// Each in a process of its own: its threads are many, and one switch is for all of them.
    fn mutants() -> ExitCode {
        let survivors = MUTANTS.iter().filter(|name| {
            let began = Instant::now();
            let ran = std::env::current_exe().and_then(|own| {
                let mut command = std::process::Command::new(own);
                command.args(["--from", "1", "--seeds", RUNS_MAX]).env("CATCHWATER_MUTANT", name).output()
            });
            let text = ran.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
            let found = text.lines().find(|line| line.starts_with("VIOLATION"));
            println!("{name}: {} ({:.1} s)", found.unwrap_or("SURVIVED"), began.elapsed().as_secs_f64());
            found.is_none()
        });
        let survivors = survivors.count();
        println!("tier B: {} of {} planted bugs killed", MUTANTS.len() - survivors, MUTANTS.len());
        if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn options(args: &[String]) -> Option<Options> {
        let mut o = Options { from: 1, seeds: u64::MAX, seconds: None, hours: None };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            let value = args.next()?.parse::<u64>().ok()?;
            match name.as_str() {
                "--seed" => (o.from, o.seeds) = (value, 1),
                "--from" => o.from = value,
                "--seeds" => o.seeds = value.max(2),
                "--seconds" => o.seconds = Some(value),
                "--hours" => o.hours = Some(value),
                _ => return None,
            }
        }
        if o.seeds == u64::MAX && o.seconds.is_none() && o.hours.is_none() {
            o.seconds = Some(20);
        }
        Some(o)
    }
}
