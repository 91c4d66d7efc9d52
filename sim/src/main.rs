//! `catchwater-sim`: runs seeds until the time is up and prints what happened. Exit 1 = a violation.

use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let mut voters = vec![1, 3];
    let (mut from, mut count, mut seconds) = (1u64, u64::MAX, 10u64);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let mut value = || args.next().and_then(|v| v.parse::<u64>().ok());
        match name.as_str() {
            "--seed" => (from, count) = (value().unwrap_or(1), 1),
            "--from" => from = value().unwrap_or(1),
            "--seeds" => count = value().unwrap_or(1),
            "--seconds" => seconds = value().unwrap_or(10),
            "--voters" => voters = vec![value().unwrap_or(3) as usize],
            _ => {
                eprintln!("usage: catchwater-sim [--seed N | --from N --seeds N] [--seconds N] [--voters N]");
                return ExitCode::from(2);
            }
        }
    }
    // A panic inside a core is caught there and becomes a violation; its text is in it.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let (mut runs, mut simulated, mut steps, mut acked, mut crashes, mut power, mut cuts) = (0u64, 0, 0, 0, 0, 0, 0);
    'all: for seed in from..from.saturating_add(count) {
        for v in &voters {
            if began.elapsed() > Duration::from_secs(seconds) && count > 1 {
                break 'all;
            }
            let out = catchwater_sim::run(seed, *v);
            if count == 1 {
                println!("{out:#?}");
            }
            if let Some(violation) = &out.violation {
                println!("VIOLATION seed {seed} voters {v}: {violation}");
                println!("again: catchwater-sim --seed {seed} --voters {v}");
                return ExitCode::FAILURE;
            }
            runs += 1;
            simulated += out.simulated;
            steps += out.steps;
            acked += out.acked;
            crashes += out.crashes;
            power += out.power_cuts;
            cuts += out.cuts;
        }
    }
    let hours = simulated as f64 / 3.6e9;
    println!(
        "{runs} runs, {hours:.2} simulated hours, {steps} steps, {acked} acknowledged writes, {crashes} crashes ({power} power cuts), {cuts} partitions, 0 violations, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    if crashes == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
