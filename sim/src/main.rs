//! `catchwater-sim`: runs seeds until the time is up and prints what happened. Exit 1 = a violation.
//! `catchwater-sim mutants [NAME…]`: plants each bug and looks for the seed that finds it (`--cfg sim` only).

use catchwater_sim::{Profile, Swarm, Totals, run_swarm};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str =
    "usage: catchwater-sim [--seed N | --from N --seeds N] [--seconds N] [--hours N] [--voters N] [--profile NAME] [--threads N] [--tell 1]
       catchwater-sim power [--from N] [--seeds N] [--seconds N] [--threads N]   short runs of 1 and 3 voters, power losses only
       catchwater-sim mutants [NAME…]
       catchwater-sim hunt NAME --profile NAME [--voters N] [--seconds N]";

struct Options {
    voters: usize,
    from: u64,
    count: u64,
    seconds: Option<u64>,
    hours: Option<u64>,
    threads: u64,
    profile: Option<Profile>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // A panic inside a core is caught there and becomes a violation; its text is in it.
    if !args.iter().any(|a| a == "--seed") {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if args.first().is_some_and(|a| a == "mutants") {
        return mutants(&args[1..]);
    }
    if args.first().is_some_and(|a| a == "hunt") {
        return hunt(&args[1..]);
    }
    let power = args.first().is_some_and(|a| a == "power");
    let Some(mut o) = options(&args[usize::from(power)..]) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if power {
        o.profile = Some(Profile::Power);
    }
    if o.count == 1 {
        let out = run_swarm(o.from, Swarm::draw(o.from, o.voters, o.profile));
        println!("{out:#?}");
        return if out.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let began = Instant::now();
    let lanes: Vec<_> = (0..o.threads)
        .map(|lane| {
            let (from, count, voters, threads) = (o.from, o.count, o.voters, o.threads);
            let (seconds, hours, profile) = (o.seconds, o.hours, o.profile);
            std::thread::spawn(move || {
                let mut totals = Totals::default();
                for seed in (from..from.saturating_add(count)).skip(lane as usize).step_by(threads as usize) {
                    let late = seconds.is_some_and(|s| began.elapsed() > Duration::from_secs(s));
                    let enough = hours.is_some_and(|h| totals.simulated_hours() * threads as f64 >= h as f64);
                    if late || enough {
                        break;
                    }
                    // Half of them alone, half of them three.
                    let voters = if power { [1, 3][(seed % 2) as usize] } else { voters };
                    let profile = profile.or_else(|| Profile::of_hours(seed));
                    let out = run_swarm(seed, Swarm::draw(seed, voters, profile));
                    if let Some(violation) = &out.violation {
                        println!("VIOLATION seed {seed} voters {}: {violation}", out.voters);
                        let lean = profile.map_or(String::new(), |p| format!(" --profile {p:?}"));
                        println!("again: catchwater-sim --seed {seed} --voters {voters}{lean}");
                        totals.violations += 1;
                        break;
                    }
                    totals.add(&out);
                }
                totals
            })
        })
        .collect();
    let mut all = Totals::default();
    for lane in lanes {
        match lane.join() {
            Ok(totals) => all.merge(&totals),
            Err(_) => all.violations += 1,
        }
    }
    let real = began.elapsed().as_secs_f64();
    if power {
        println!(
            "power: {} seeds with 1 and 3 nodes, {} losses of power, {} acknowledged writes, {} lost",
            all.runs, all.power_cuts, all.acked, all.violations
        );
    }
    println!("{all}, {real:.1} s, {:.0} x real time", all.simulated_hours() * 3600.0 / real.max(0.001));
    if all.violations > 0 || all.crashes == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn options(args: &[String]) -> Option<Options> {
    let mut o = Options { voters: 0, from: 1, count: u64::MAX, seconds: None, hours: None, threads: 1, profile: None };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let text = args.next()?;
        if name == "--profile" {
            o.profile = Some(Profile::ALL.into_iter().find(|p| format!("{p:?}").eq_ignore_ascii_case(text))?);
            continue;
        }
        let value = text.parse::<u64>().ok()?;
        match name.as_str() {
            "--seed" => (o.from, o.count) = (value, 1),
            "--from" => o.from = value,
            "--seeds" => o.count = value.max(2),
            "--seconds" => o.seconds = Some(value),
            "--hours" => o.hours = Some(value),
            "--voters" => o.voters = value as usize,
            // Every step of one seed, on stderr.
            "--tell" if value > 0 => catchwater_sim::tell::on(),
            "--threads" => o.threads = value.clamp(1, 64),
            _ => return None,
        }
    }
    if o.count == u64::MAX && o.seconds.is_none() && o.hours.is_none() {
        o.seconds = Some(10);
    }
    Some(o)
}

#[cfg(sim)]
fn mutants(names: &[String]) -> ExitCode {
    if catchwater_sim::mutants::hunt(names) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(sim)]
fn hunt(args: &[String]) -> ExitCode {
    let planted = args.split_first().and_then(|(name, rest)| Some((name, options(rest)?)));
    let Some((name, Options { voters, seconds, profile: Some(profile), .. })) = planted else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let limit = Duration::from_secs(seconds.unwrap_or(20));
    let found = catchwater_sim::mutants::hunt_in(name.clone(), voters, profile, limit);
    if found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(sim))]
fn hunt(args: &[String]) -> ExitCode {
    mutants(args)
}

#[cfg(not(sim))]
fn mutants(_: &[String]) -> ExitCode {
    eprintln!("mutants are built with RUSTFLAGS=\"--cfg sim\" only (cargo xtask mutants does it)");
    ExitCode::from(2)
}
