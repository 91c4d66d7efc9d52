//! `catchwater storage check|repair|dump`: a data directory, offline. The work is the storage crate's, on the same code that a
//! start runs; here it is only shown.

use super::refused::{recover_failure, unreadable};
use crate::cli::Storage;
use crate::report::{self, Done, Exit, Failure, Output, table};
use catchwater_base::Clock;
use catchwater_broker::owners::owners;
use catchwater_record::{Gid, TopicId};
use catchwater_storage::Verdict;
use catchwater_storage::check::{Checked, Finding, GroupState, Weight, check};
use catchwater_storage::disk::real::RealDisk;
use catchwater_storage::dump::{DumpError, Line, dump};
use catchwater_storage::recover::{Layout, Survivor};
use catchwater_storage::repair::{ClosedGroup, carry_out, let_go, plan};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The group that holds the cluster's own log: topics and where their partitions are.
const CLUSTER: Gid = Gid(0);
/// Findings shown in table form; JSON has all.
const FINDINGS_SHOWN: usize = 50;
/// Lost ranges of one partition shown in table form.
const RANGES_SHOWN: usize = 50;
/// Files that a dump of a directory shows, at most.
const FILES_MAX: usize = 10_000;

pub fn run(command: &Storage, output: Output) -> Result<Done, Failure> {
    match command {
        Storage::Check { dir } => run_check(dir, output),
        Storage::Repair { dir, yes } => run_repair(dir, *yes, output),
        Storage::Dump { path, limit } => run_dump(path, *limit, output),
    }
}

fn run_check(dir: &Path, output: Output) -> Result<Done, Failure> {
    let shown = dir.display().to_string();
    let checked = check(&RealDisk::new(), &Layout::new(&shown)).map_err(|e| recover_failure(&shown, &e))?;
    let result = check_json(&checked);
    let text = check_text(&shown, &checked);
    let count = |weight| checked.findings.iter().filter(|f| f.weight == weight).count();
    let (damage, warnings) = (count(Weight::Damage), count(Weight::Warning));
    if damage + warnings == 0 {
        let summary = format!(
            "{shown}: sound; {} partition(s), {} batch(es), {} byte(s) compared",
            checked.groups.len(),
            checked.batches,
            checked.bytes
        );
        return Ok(Done::new(summary, result, text));
    }
    if output == Output::Table {
        report::print(&text);
    }
    let message = format!("{shown}: {damage} damage(s), {warnings} warning(s)");
    let mut failure = Failure::new(Exit::Runtime, "CW0230", message);
    failure = if damage > 0 {
        failure.cause("stored bytes are not what was written").next(
            "copy the directory before anything else and look at the disk; see the page for what a start does with it",
        )
    } else {
        failure
            .cause("one of two copies, or something that is made again from what is whole; nothing is lost")
            .next("a start goes on by itself; look at the disk")
    };
    failure.details = Some(Box::new(result));
    Err(failure)
}

/// Says what it would do; with `yes` does it. Partitions that cannot go on make it fail in both cases, after the others.
fn run_repair(dir: &Path, yes: bool, output: Output) -> Result<Done, Failure> {
    let shown = dir.display().to_string();
    let (disk, layout) = (RealDisk::new(), Layout::new(&shown));
    let mut plan = plan(&disk, &layout).map_err(|e| recover_failure(&shown, &e))?;
    if plan.lacks_owners() {
        let known = plan.batches(&disk, &layout, CLUSTER).map_err(|e| e.to_string());
        match known.and_then(|batches| owners(&batches, plan.node())) {
            Ok(owners) => plan.adopt(&owners),
            Err(why) => eprintln!("the cluster's own log does not say whose the partitions are: {why}"),
        }
    }
    let closed = plan.closed.clone();
    let refused = closed.iter().filter(|g| g.refused.is_some()).count();
    let goes_on = closed.len() - refused;
    let aside = if yes && goes_on > 0 {
        let now = catchwater_runtime::time::SystemClock::default().now();
        carry_out(&disk, &layout, plan, now)
            .map_err(|e| {
                unreadable(&e.path, e.to_string()).next("nothing is lost: mend the cause and run the repair again")
            })?
            .aside
    } else {
        let_go(&disk, &layout);
        Vec::new()
    };
    let group = |g: &ClosedGroup| {
        json!({
            "gid": format!("{:016x}", g.gid.0), "topic_id": g.topic.to_string(), "partition": g.partition.0,
            "verdict": verdict_word(g.verdict), "log_start": g.log_start.0, "end_offset": g.end.0,
            "last_index": g.last_index.0, "entries_kept_aside": g.kept, "refused": g.refused,
            "lost_offsets": g.lost.offsets.iter().map(|r| json!({"from": r.from.0, "to": r.to.0})).collect::<Vec<_>>(),
            "offsets_given_again": !g.whole_end && matches!(g.verdict, Verdict::Suspect), "lost_entries": g.lost.entries, "lost_contexts": g.lost.contexts,
        })
    };
    let done = yes && goes_on > 0;
    let result = json!({
        "done": done, "partitions": closed.iter().map(group).collect::<Vec<_>>(), "kept_aside": aside,
    });
    let mut text = String::new();
    if !closed.is_empty() {
        let row = |g: &ClosedGroup| {
            let will = match g.refused {
                Some(why) => format!("stays closed: {why}"),
                None if done => format!("goes on, next offset {}", g.end),
                None => format!("would go on, next offset {}", g.end),
            };
            let name = format!("{}-{}", g.topic, g.partition);
            vec![format!("{:016x}", g.gid.0), name, verdict_word(g.verdict).into(), will]
        };
        let rows: Vec<Vec<String>> = closed.iter().map(row).collect();
        text.push_str(&table(&["GID", "TOPIC-ID-PARTITION", "VERDICT", "REPAIR"], &rows));
    }
    for g in closed.iter().filter(|g| g.refused.is_none()) {
        text.push_str(&lost_text(g));
    }
    for name in &aside {
        text.push_str(&format!("kept: {name}\n"));
    }
    if goes_on > 0 && !done {
        text.push_str("Nothing was changed: --yes does it.\n");
    }
    if refused > 0 {
        if output == Output::Table {
            report::print(&text);
        }
        let message = format!("{shown}: {refused} partition(s) cannot go on, {goes_on} can");
        let mut failure = Failure::new(Exit::Runtime, "CW0231", message)
            .cause("nothing says any more whose they are, where their logs begin, or where their offsets end")
            .next("restore the directory from a copy, or capture into a new topic; the page says more");
        failure.details = Some(Box::new(result));
        return Err(failure);
    }
    let summary = match (goes_on, done) {
        (0, _) => format!("{shown}: no partition is closed or damaged, nothing to repair"),
        (n, true) => format!("{shown}: {n} partition(s) go on at the next start; {} file(s) kept aside", aside.len()),
        (n, false) => format!(
            "{shown}: {n} partition(s) would go on without the records at the named offsets and behind the named ends. Nothing was changed: --yes does it"
        ),
    };
    Ok(Done::new(summary, result, text))
}

/// A partition that goes on from an end that is proved may have had more, and gives those offsets again.
fn behind_text(g: &ClosedGroup) -> String {
    let (gid, end) = (g.gid.0, g.end);
    match g.kept {
        _ if g.whole_end => String::new(),
        0 if g.verdict == Verdict::Damaged => String::new(),
        0 => format!("lost: {gid:016x} offset {end} and behind it, if there was more; those offsets are given again\n"),
        kept => format!(
            "lost: {gid:016x} offset {end} and behind it; those offsets are given again. {kept} entries of it are whole, do not \
             follow on, and stay in a file beside\n"
        ),
    }
}

/// What is lost of one partition's files, line by line.
fn lost_text(g: &ClosedGroup) -> String {
    let mut text = String::new();
    for range in g.lost.offsets.iter().take(RANGES_SHOWN) {
        let records = range.to.0 - range.from.0;
        text.push_str(&format!(
            "lost: {:016x} offsets {} to {} ({records})\n",
            g.gid.0,
            range.from,
            range.to.0.saturating_sub(1)
        ));
    }
    if matches!(g.verdict, Verdict::Suspect | Verdict::Damaged) {
        text.push_str(&behind_text(g));
    }
    let more = g.lost.offsets.len().saturating_sub(RANGES_SHOWN);
    if more > 0 {
        text.push_str(&format!("… and {more} more ranges (-o json has them)\n"));
    }
    if g.lost.contexts > 0 {
        let contexts = g.lost.contexts;
        text.push_str(&format!(
            "lost: {:016x} the source positions of {contexts} batch(es): what they hold may come again\n",
            g.gid.0
        ));
    }
    text
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Suspect => "suspect",
        Verdict::HardStateUncertain => "hard-state-uncertain",
        Verdict::Damaged => "damaged",
    }
}

fn survivor_word(survivor: Survivor) -> &'static str {
    match survivor {
        Survivor::Fresh => "fresh",
        Survivor::Clean => "clean stop",
        Survivor::Process => "the process died",
        Survivor::Power => "power loss, or unknown",
    }
}

fn weight_word(weight: Weight) -> &'static str {
    match weight {
        Weight::Note => "note",
        Weight::Warning => "warning",
        Weight::Damage => "DAMAGE",
    }
}

fn gid(finding: &Finding) -> Option<String> {
    finding.gid.map(|g| format!("{:016x}", g.0))
}

fn check_json(c: &Checked) -> Value {
    let r = &c.found.report;
    let group = |g: &GroupState| {
        json!({
            "gid": format!("{:016x}", g.gid.0), "topic_id": g.topic.to_string(), "partition": g.partition.0,
            "verdict": verdict_word(g.verdict), "log_start": g.log_start.0, "end_offset": g.end.0,
            "first_index": g.first_index.0, "last_index": g.last_index.0, "segments": g.segments,
            "bytes": g.bytes, "entries_in_journal_only": g.journaled,
        })
    };
    let finding = |f: &Finding| {
        json!({
            "weight": weight_word(f.weight).to_lowercase(), "kind": f.kind, "gid": gid(f), "file": f.file, "what": f.what,
        })
    };
    json!({
        "cluster_id": TopicId(c.found.meta.cluster_id).to_string(), "node_id": c.found.meta.node,
        "format": c.found.meta.format, "last_end": survivor_word(c.found.survivor),
        "journal": {
            "flushes": r.flushes, "torn": r.torn_flushes, "damaged": r.corrupt_flushes, "frames_lost": r.lost_frames,
            "bytes": r.journal_bytes, "entries_only_there": r.entries_from_journal,
        },
        "bytes_compared": c.bytes, "batches": c.batches,
        "partitions": c.groups.iter().map(group).collect::<Vec<_>>(),
        "findings": c.findings.iter().map(finding).collect::<Vec<_>>(), "findings_left_out": c.findings_left_out,
    })
}

fn check_text(dir: &str, c: &Checked) -> String {
    let r = &c.found.report;
    let mut text = format!(
        "{dir}: node {} of cluster {}, last end: {}\n{} partition(s); {} batch(es), {} byte(s) compared; journal: {} flush(es), {} entr(ies) only there\n",
        c.found.meta.node,
        TopicId(c.found.meta.cluster_id),
        survivor_word(c.found.survivor),
        c.groups.len(),
        c.batches,
        c.bytes,
        r.flushes,
        r.entries_from_journal,
    );
    let closed: Vec<Vec<String>> = c
        .groups
        .iter()
        .filter(|g| g.verdict != Verdict::Ok)
        .map(|g| {
            let range = format!("{}..{}", g.log_start, g.end);
            let name = format!("{}-{}", g.topic, g.partition);
            vec![format!("{:016x}", g.gid.0), name, verdict_word(g.verdict).into(), range]
        })
        .collect();
    if !closed.is_empty() {
        text.push_str(&table(&["GID", "TOPIC-ID-PARTITION", "VERDICT", "OFFSETS PROVED"], &closed));
    }
    for f in c.findings.iter().take(FINDINGS_SHOWN) {
        text.push_str(&format!("{:7} {:10} {}: {}\n", weight_word(f.weight), f.kind, f.file, f.what));
    }
    let more = c.findings.len().saturating_sub(FINDINGS_SHOWN) as u64 + c.findings_left_out;
    if more > 0 {
        text.push_str(&format!("… and {more} more (-o json has them)\n"));
    }
    text
}

fn run_dump(path: &Path, limit: usize, output: Output) -> Result<Done, Failure> {
    let meta = std::fs::metadata(path).map_err(|e| unreadable(&path.display().to_string(), e.to_string()))?;
    let disk = RealDisk::new();
    // It ends by itself: a reader that went away is no matter.
    let mut give = |line: Line| {
        report::print(&line_text(&line, output));
    };
    if meta.is_file() {
        let shown = path.display().to_string();
        let more = dump(&disk, &shown, limit, &mut give).map_err(|e| dump_failure(&shown, e))?;
        if more {
            eprintln!("… more than {limit} lines (--limit N)");
        }
        return Ok(Done::silent());
    }
    let files = files_of(path)?;
    if files.is_empty() {
        return Err(unreadable(&path.display().to_string(), "it holds no file of a log directory"));
    }
    for file in files {
        let shown = file.display().to_string();
        give(Line { word: "file", values: vec![("path", shown.clone())] });
        match dump(&disk, &shown, limit, &mut give) {
            Ok(true) => eprintln!("… {shown}: more than {limit} lines (--limit N)"),
            Ok(false) => {}
            Err(DumpError::Unknown(_)) => {}
            Err(e) => return Err(dump_failure(&shown, e)),
        }
    }
    Ok(Done::silent())
}

/// Slots first, then the journal, then the groups; sorted, bounded.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut out = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        let entries = std::fs::read_dir(&at).map_err(|e| unreadable(&at.display().to_string(), e.to_string()))?;
        let mut names: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        names.sort();
        let (dirs, files): (Vec<_>, Vec<_>) = names.into_iter().partition(|p| p.is_dir());
        out.extend(files);
        left.extend(dirs.into_iter().rev());
        if out.len() > FILES_MAX {
            eprintln!("… only the first {FILES_MAX} files; name a folder or a file for the rest");
            out.truncate(FILES_MAX);
            break;
        }
    }
    Ok(out)
}

fn line_text(line: &Line, output: Output) -> String {
    match output {
        Output::Json => {
            let mut map = serde_json::Map::new();
            map.insert("is".into(), json!(line.word));
            map.extend(line.values.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
            format!("{}\n", Value::Object(map))
        }
        Output::Table => {
            let values: String = line.values.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            format!("{}{values}\n", line.word)
        }
    }
}

fn dump_failure(path: &str, error: DumpError) -> Failure {
    match error {
        DumpError::Unknown(_) => Failure::new(Exit::Refused, "CW0232", format!("{path} is no stored file"))
            .cause("its name is not one that this program gives")
            .next("name a data directory, or a .wal, .log, .ent, .ext, .txn, .snap, manifest, dir.meta or boot.state file"),
        DumpError::Disk(e) => unreadable(path, e.to_string()),
    }
}
