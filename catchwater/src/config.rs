//! Configuration of a node: flag > environment `CATCHWATER_<KEY>` > file > default. Every key with reason, unit and
//! bounds in `docs/configuration.md`; a wrong key is refused with its place.

use crate::cli::Node;
use crate::pipeline::finding::{Finding, Span, nearest};
use crate::pipeline::tree::{self, Kind};
use crate::report::{Exit, Failure};
use catchwater_coordinator::cluster::configs;
use catchwater_record::TopicId;
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// Everything a node needs to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    /// `connect`: of Kafka Connect's REST API; `None` = off.
    pub connect: Option<SocketAddr>,
    /// Somebody asked for that address.
    pub connect_given: bool,
    pub port_file: Option<PathBuf>,
    /// Validate every produced batch as Apache Kafka does.
    pub compat: bool,
    /// `num.partitions`: of auto-created topics.
    pub num_partitions: u32,
    /// `auto.create.topics.enable`
    pub auto_create: bool,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_ms: u64,
    /// `message.max.bytes`
    pub message_bytes_max: u64,
    /// `log.segment.bytes`
    pub segment_bytes: u64,
    /// `log.retention.check.interval.ms`
    pub retention_check_ms: u64,
    /// `storage.journal.file.bytes`
    pub journal_file_bytes: u64,
    /// `log.cleaner.backoff.ms`
    pub cleaner_backoff_ms: u64,
    /// `log.cleaner.dedupe.buffer.size`
    pub cleaner_memory_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`
    pub cleaner_bytes_per_second: u64,
    /// Kafka's broker keys that give topics their defaults, as the file or the environment says them.
    pub topic_defaults: BTreeMap<String, String>,
    /// `cluster.id`: founded if the directory is new, else the only one that is opened.
    pub cluster_id: Option<[u8; 16]>,
    /// `node.id`, the same way.
    pub node_id: Option<u32>,
    /// `producer.id.expiration.ms`
    pub producer_expiration_ms: u64,
    /// `storage.allow.unsafe.filesystem`
    pub allow_unsafe_filesystem: bool,
    /// `min.free.bytes`; `None` = by the size of the filesystem.
    pub min_free_bytes: Option<u64>,
    /// What Kafka's requests change is written to the audit topic; `dev` does not.
    pub audit: bool,
}

/// Keys of the file: name, default, what it must be.
const KEYS: [(&str, &str); 20] = [
    ("data_dir", "catchwater-data"),
    ("listen", "127.0.0.1:9092"),
    ("http", "127.0.0.1:8080"),
    ("connect", "127.0.0.1:8083"),
    ("profile", ""),
    ("num.partitions", "1"),
    ("auto.create.topics.enable", "true"),
    ("group.initial.rebalance.delay.ms", "3000"),
    ("message.max.bytes", "1048588"),
    ("log.segment.bytes", "1073741824"),
    ("log.retention.check.interval.ms", "300000"),
    ("producer.id.expiration.ms", "86400000"),
    ("cluster.id", ""),
    ("node.id", ""),
    ("storage.allow.unsafe.filesystem", "false"),
    ("storage.journal.file.bytes", "16777216"),
    ("min.free.bytes", "auto"),
    ("log.cleaner.backoff.ms", "15000"),
    ("log.cleaner.dedupe.buffer.size", "134217728"),
    ("log.cleaner.io.max.bytes.per.second", "52428800"),
];

/// Names beside [`KEYS`] that give topics their defaults: no default of their own here.
fn topic_defaults() -> impl Iterator<Item = &'static str> {
    configs::default_names().filter(|name| !KEYS.iter().any(|(key, _)| key == name))
}

/// Where a value came from, for messages.
struct Value {
    text: String,
    origin: String,
}

/// Reads flags, environment and file. `defaults` override the table (the demo's throw-away directory).
pub fn load(
    flags: &Node,
    profile: Option<&str>,
    file: Option<&Path>,
    defaults: &[(&str, String)],
) -> Result<NodeConfig, Failure> {
    let from_file = file.map(read_file).transpose()?.unwrap_or_default();
    let flag = |key: &str| match key {
        "data_dir" => flags.data_dir.as_ref().map(|p| (p.display().to_string(), "--data-dir")),
        "listen" => flags.listen.clone().map(|v| (v, "--listen")),
        "http" => flags.http.clone().map(|v| (v, "--http")),
        "connect" => flags.connect.clone().map(|v| (v, "--connect")),
        "profile" => profile.map(|v| (v.to_owned(), "--profile")),
        _ => None,
    };
    let get = |key: &str| -> Value {
        if let Some((text, origin)) = flag(key) {
            return Value { text, origin: origin.to_owned() };
        }
        let name = format!("CATCHWATER_{}", key.to_uppercase().replace('.', "_"));
        if let Ok(text) = std::env::var(&name) {
            return Value { text, origin: name };
        }
        if let Some((_, text, origin)) = from_file.iter().find(|(k, ..)| k == key) {
            return Value { text: text.clone(), origin: origin.clone() };
        }
        let text = defaults.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone());
        let text = text.or_else(|| KEYS.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()));
        Value { text: text.unwrap_or_default(), origin: "default".into() }
    };
    let profile = get("profile");
    let config = NodeConfig {
        audit: true,
        data_dir: PathBuf::from(get("data_dir").text),
        listen: address("listen", &get("listen"))?,
        http: address("http", &get("http"))?,
        connect: match get("connect") {
            v if v.text == "off" => None,
            v => Some(address("connect", &v)?),
        },
        connect_given: get("connect").origin != "default",
        port_file: flags.port_file.clone(),
        compat: match profile.text.as_str() {
            "" => false,
            "compat" => true,
            other => return Err(wrong("profile", other, &profile.origin, "the only profile is `compat`")),
        },
        num_partitions: number("num.partitions", &get("num.partitions"), 1, 10_000)? as u32,
        auto_create: boolean("auto.create.topics.enable", &get("auto.create.topics.enable"))?,
        initial_rebalance_ms: number(
            "group.initial.rebalance.delay.ms",
            &get("group.initial.rebalance.delay.ms"),
            0,
            600_000,
        )?,
        message_bytes_max: number("message.max.bytes", &get("message.max.bytes"), 1024, 64 << 20)?,
        producer_expiration_ms: number(
            "producer.id.expiration.ms",
            &get("producer.id.expiration.ms"),
            1,
            i32::MAX as u64,
        )?,
        cluster_id: cluster_id(&get("cluster.id"))?,
        node_id: match get("node.id") {
            v if v.text.is_empty() => None,
            v => Some(number("node.id", &v, 0, i32::MAX as u64)? as u32),
        },
        allow_unsafe_filesystem: boolean("storage.allow.unsafe.filesystem", &get("storage.allow.unsafe.filesystem"))?,
        segment_bytes: number("log.segment.bytes", &get("log.segment.bytes"), 1 << 20, 1 << 30)?,
        retention_check_ms: number(
            "log.retention.check.interval.ms",
            &get("log.retention.check.interval.ms"),
            10,
            86_400_000,
        )?,
        journal_file_bytes: number("storage.journal.file.bytes", &get("storage.journal.file.bytes"), 1 << 20, 1 << 30)?,
        cleaner_backoff_ms: number("log.cleaner.backoff.ms", &get("log.cleaner.backoff.ms"), 10, 86_400_000)?,
        cleaner_memory_bytes: number(
            "log.cleaner.dedupe.buffer.size",
            &get("log.cleaner.dedupe.buffer.size"),
            64 << 10,
            64 << 30,
        )?,
        cleaner_bytes_per_second: number(
            "log.cleaner.io.max.bytes.per.second",
            &get("log.cleaner.io.max.bytes.per.second"),
            64 << 10,
            1 << 40,
        )?,
        topic_defaults: BTreeMap::new(),
        min_free_bytes: match get("min.free.bytes") {
            v if v.text == "auto" => None,
            v => Some(number("min.free.bytes", &v, 0, 1 << 50)?),
        },
    };
    let mut topic_defaults_given = BTreeMap::new();
    for name in topic_defaults() {
        let value = get(name);
        if value.origin == "default" {
            continue;
        }
        if let Some(Err(why)) = configs::check_default(name, &value.text) {
            return Err(wrong(name, &value.text, &value.origin, &why.to_string()));
        }
        topic_defaults_given.insert(name.to_owned(), value.text);
    }
    Ok(NodeConfig { topic_defaults: topic_defaults_given, ..config })
}

fn wrong(key: &str, value: &str, origin: &str, why: &str) -> Failure {
    Failure::new(Exit::Refused, "CW0004", format!("`{key}: {value}` ({origin}): {why}"))
        .next("see docs/configuration.md for the key's bounds")
}

fn number(key: &str, v: &Value, min: u64, max: u64) -> Result<u64, Failure> {
    match v.text.parse::<u64>() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(wrong(key, &v.text, &v.origin, &format!("a whole number from {min} to {max}"))),
    }
}

/// Kafka's form of a cluster id; empty = none given.
fn cluster_id(v: &Value) -> Result<Option<[u8; 16]>, Failure> {
    if v.text.is_empty() {
        return Ok(None);
    }
    let id = TopicId::parse(&v.text).filter(|id| !id.is_none());
    let why = "22 characters of URL-safe base64, as `kafka-storage.sh random-uuid` prints them";
    id.map(|id| Some(id.0)).ok_or_else(|| wrong("cluster.id", &v.text, &v.origin, why))
}

fn boolean(key: &str, v: &Value) -> Result<bool, Failure> {
    v.text.parse().map_err(|_| wrong(key, &v.text, &v.origin, "true or false"))
}

/// A loopback address: there is no authentication yet, so nothing else may be bound.
fn address(key: &str, v: &Value) -> Result<SocketAddr, Failure> {
    let bad = || wrong(key, &v.text, &v.origin, "an address is HOST:PORT, e.g. 127.0.0.1:9092");
    let address = v.text.to_socket_addrs().map_err(|_| bad())?.next().ok_or_else(bad)?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(Failure::new(Exit::Refused, "CW0005", format!("`{key}: {}` ({}) is not a loopback address", v.text, v.origin))
        .cause("there is no authentication yet, so whoever reaches the port may do everything")
        .next("listen on 127.0.0.1 and reach it through a tunnel"))
}

type FileValues = Vec<(String, String, String)>;

fn read_file(path: &Path) -> Result<FileValues, Failure> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| {
        Failure::new(Exit::Environment, "CW0004", format!("cannot read {name}"))
            .cause(e.to_string())
            .next("check the path")
    })?;
    let refuse = |f: &Finding| {
        Failure::new(Exit::Refused, "CW0004", format!("{name}:{}:{}: {}", f.span.line, f.span.column, f.message))
            .next(f.suggestions.first().cloned().unwrap_or_else(|| "see docs/configuration.md".into()))
    };
    let (root, findings) = tree::parse(&bytes).map_err(|f| {
        f.first().map_or_else(|| Failure::new(Exit::Refused, "CW0004", format!("{name}: unreadable")), refuse)
    })?;
    if let Some(f) = findings.first() {
        return Err(refuse(f));
    }
    let Kind::Map(entries) = &root.kind else {
        return Err(refuse(&Finding::error("CW0004", Span::START, "the file must be a mapping".into())));
    };
    let mut out = Vec::new();
    for e in entries {
        let names = || KEYS.iter().map(|(k, _)| *k).chain(topic_defaults());
        if !names().any(|k| k == e.key) {
            let mut f = Finding::error("CW0004", e.key_span, format!("unknown key `{}`", e.key));
            if let Some(near) = nearest(&e.key, names()) {
                f = f.suggest(format!("did you mean `{near}`?"));
            }
            return Err(refuse(&f));
        }
        let Kind::Scalar { text, .. } = &e.value.kind else {
            return Err(refuse(&Finding::error(
                "CW0004",
                e.value.span,
                format!("`{}` must be a text or number", e.key),
            )));
        };
        out.push((e.key.clone(), text.clone(), format!("{name}:{}", e.value.span.line)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(listen: &str) -> Node {
        Node { listen: Some(listen.into()), ..Node::default() }
    }

    #[test]
    fn flags_win_and_foreign_addresses_are_refused() {
        let c = load(&flags("127.0.0.1:0"), Some("compat"), None, &[("data_dir", "/x".into())]).expect("legal");
        assert_eq!((c.listen.port(), c.compat, c.data_dir), (0, true, PathBuf::from("/x")));
        assert_eq!(load(&flags("0.0.0.0:9092"), None, None, &[]).expect_err("open").code, "CW0005");
        assert_eq!(load(&flags("nonsense"), None, None, &[]).expect_err("no port").code, "CW0004");
    }

    #[test]
    fn a_wrong_key_names_its_place_and_the_right_one() {
        let dir = std::env::temp_dir().join(format!("cw-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        let file = dir.join("c.yaml");
        std::fs::write(&file, "listen: 127.0.0.1:1\nnum.partition: 3\n").expect("file");
        let e = load(&Node::default(), None, Some(&file), &[]).expect_err("unknown key");
        assert!(e.message.contains("c.yaml:2:1") && e.next.contains("num.partitions"), "{e:?}");
        std::fs::write(&file, "num.partitions: 0\n").expect("file");
        let e = load(&Node::default(), None, Some(&file), &[]).expect_err("out of range");
        assert!(e.message.contains("c.yaml:1") && e.message.contains("from 1"), "{e:?}");
        std::fs::write(&file, "num.partitions: 3\nmessage.max.bytes: 2000000\n").expect("file");
        let c = load(&Node::default(), None, Some(&file), &[]).expect("legal");
        assert_eq!((c.num_partitions, c.message_bytes_max), (3, 2_000_000));
        std::fs::write(&file, "log.retention.hours: 2\n").expect("file");
        let c = load(&Node::default(), None, Some(&file), &[]).expect("legal");
        assert_eq!(c.topic_defaults.get("log.retention.hours").map(String::as_str), Some("2"));
        std::fs::write(&file, "log.cleanup.policy: squash\n").expect("file");
        let e = load(&Node::default(), None, Some(&file), &[]).expect_err("no such policy");
        assert!(e.message.contains("c.yaml:1") && e.message.contains("compact, delete"), "{e:?}");
        std::fs::write(&file, "cluster.id: oqkHbGV3Qg2dUySKJ4Lx0A\nnode.id: 7\n").expect("file");
        let c = load(&Node::default(), None, Some(&file), &[]).expect("legal");
        assert_eq!(
            (c.cluster_id.map(|id| TopicId(id).to_string()), c.node_id),
            (Some("oqkHbGV3Qg2dUySKJ4Lx0A".into()), Some(7))
        );
        std::fs::write(&file, "cluster.id: mine\n").expect("file");
        assert_eq!(load(&Node::default(), None, Some(&file), &[]).expect_err("no id").code, "CW0004");
        let _ = std::fs::remove_dir_all(&dir);
    }
}
