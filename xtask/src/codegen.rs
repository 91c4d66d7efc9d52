//! `cargo xtask codegen`: writes `protocol/src/api/*.rs` and `protocol/src/records/*.rs` from the descriptions in
//! `protocol/messages/`. The output is checked in; `--check` fails when it would change.
//!
//! `--facts FOLDER [--write]` compares every description with Kafka's own definitions in FOLDER (run by hand when a
//! Kafka release is adopted); `--write` replaces the descriptions of the keys named behind it.
//!
//! Not done here: deciding what is served (that is `protocol/src/versions.rs`).

mod describe;
mod emit;
mod facts;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use describe::File;

/// `args` are the words behind `codegen`.
pub fn run(args: &[String]) -> Result<()> {
    let root = crate::root();
    let messages = root.join("protocol/messages");
    if let Some(at) = args.iter().position(|a| a == "--facts") {
        let folder = args.get(at + 1).context("--facts needs a folder")?;
        let write = args.iter().any(|a| a == "--write");
        let keys: Vec<i16> = args[at + 2..].iter().filter_map(|a| a.parse().ok()).collect();
        return facts::compare(Path::new(folder), &messages, write, &keys);
    }
    generate(&root, &messages, args.iter().any(|a| a == "--check"))
}

fn generate(root: &Path, messages: &Path, check: bool) -> Result<()> {
    let mut apis = Vec::new();
    for path in msg_files(messages)? {
        let (number, stem) =
            stem(&path)?.split_once('_').map(|(n, s)| (n.to_owned(), s.to_owned())).context("NNN_name")?;
        match describe::parse(&path)? {
            File::Api(api) => {
                if number.parse::<i16>().ok() != Some(api.key) {
                    bail!("{}: the file's number is not the api's key", path.display());
                }
                apis.push((stem, api));
            }
            File::Records(_) => bail!("{}: record schemas belong into messages/records", path.display()),
        }
    }
    let mut records = Vec::new();
    for path in msg_files(&messages.join("records"))? {
        match describe::parse(&path)? {
            File::Records(schemas) => records.push((stem(&path)?, schemas)),
            File::Api(_) => bail!("{}: an api among the record schemas", path.display()),
        }
    }
    let src = root.join("protocol/src");
    let mut files =
        vec![(src.join("api.rs"), emit::api_index(&apis)), (src.join("records.rs"), emit::record_index(&records))];
    for (stem, api) in &apis {
        files.push((src.join(format!("api/{stem}.rs")), emit::api(api)?));
    }
    for (stem, schemas) in &records {
        files.push((src.join(format!("records/{stem}.rs")), emit::records(stem, schemas)?));
    }
    let mut stale = Vec::new();
    for (path, text) in files {
        let text = format(root, &text).with_context(|| format!("rustfmt of {}", path.display()))?;
        if std::fs::read_to_string(&path).ok().as_deref() == Some(&text) {
            continue;
        }
        if check {
            stale.push(path);
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text)?;
        println!("wrote {}", path.strip_prefix(root).unwrap_or(&path).display());
    }
    if !stale.is_empty() {
        bail!("not what codegen writes: {stale:?}; run `cargo xtask codegen`");
    }
    Ok(())
}

fn msg_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "msg") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn stem(path: &Path) -> Result<String> {
    Ok(path.file_stem().and_then(|s| s.to_str()).context("file name")?.to_owned())
}

/// Through rustfmt with the repository's settings, so that `cargo fmt` never changes a generated file.
fn format(root: &Path, text: &str) -> Result<String> {
    use std::io::Write;
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--config-path"])
        .arg(root)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    let text = text.to_owned();
    let feed = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let out = child.wait_with_output()?;
    feed.join().map_err(|_| anyhow::anyhow!("feeder panicked"))??;
    if !out.status.success() {
        bail!("rustfmt failed");
    }
    Ok(String::from_utf8(out.stdout)?)
}
