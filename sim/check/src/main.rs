//! `catchwater-check FILE…`: judges histories. Exit 0 = no anomaly, 1 = anomalies, 2 = a file cannot be read.
//! `catchwater-check selftest [N]`: N made-up histories of each sort, with the table of what was found.

use catchwater_check::history::{decode, decode_head};
use catchwater_check::{Checker, Report, twin};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        None | Some("--help" | "-h") => {
            eprintln!("usage: catchwater-check <FILE… | selftest [N]>");
            ExitCode::from(2)
        }
        Some("selftest") => selftest(args.get(1).and_then(|n| n.parse().ok()).unwrap_or(50)),
        Some(_) => {
            let mut code = ExitCode::SUCCESS;
            for path in &args {
                match judge(path) {
                    Ok(report) => {
                        println!("{path}: {report}");
                        if report.faults == 0 {
                            println!("{path}: no fault was injected; this run proves little");
                        }
                        if !report.clean() {
                            code = ExitCode::from(1);
                        }
                    }
                    Err(error) => {
                        eprintln!("{path}: {error}");
                        return ExitCode::from(2);
                    }
                }
            }
            code
        }
    }
}

fn judge(path: &str) -> Result<Report, Box<dyn std::error::Error>> {
    let mut lines = BufReader::new(File::open(path)?).lines();
    let head = lines.next().ok_or("an empty file")??;
    let mut checker = Checker::new(decode_head(&head)?);
    for (n, line) in lines.enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            checker.feed(decode(&line, n as u64 + 2)?);
        } else {
            checker.skip_line();
        }
    }
    Ok(checker.finish())
}

fn selftest(n: u64) -> ExitCode {
    let mut ok = true;
    let silent = (0..n).filter(|seed| twin::judge(&twin::clean(*seed)).clean()).count() as u64;
    println!("clean: {silent} of {n} silent");
    ok &= silent == n;
    let (mut always, mut sorts) = (0, std::collections::BTreeSet::new());
    for plant in twin::PLANTS {
        let found = (0..n)
            .filter(|seed| {
                let mut ops = twin::clean(*seed);
                (plant.plant)(&mut ops, *seed);
                twin::judge(&ops).counts.contains_key(&plant.kind)
            })
            .count() as u64;
        println!("{} ({}): {found} of {n} found", plant.name, plant.kind);
        ok &= found == n;
        always += u64::from(found == n);
        sorts.insert(plant.kind);
    }
    println!(
        "{} plants of {} sorts of anomaly, {always} of them found in {n} of {n} histories; {silent} of {n} clean ones silent",
        twin::PLANTS.len(),
        sorts.len()
    );
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
