//! The command line: nouns, then verbs. Only what works is here.

use crate::report::Output;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser, Debug)]
#[command(
    name = "catchwater",
    version,
    about = "Catches every change of a database, keeps it in a log that speaks Kafka, delivers it to another database.",
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Form of standard output
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

/// Of a command line that is not understood: whether it asks for JSON.
pub fn wants_json(words: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).take_while(|w| w != "--").collect();
    let joined = ["-ojson", "-o=json", "--output=json"];
    let apart = |pair: &[String]| matches!(pair, [name, value] if matches!(name.as_str(), "-o" | "--output") && value == "json");
    words.iter().any(|w| joined.contains(&w.as_str())) || words.windows(2).any(apart)
}

/// What clap says first, without its own `error:`.
pub fn first_line(text: &str) -> String {
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Broker and pipeline in one process; without FILE a demo shop on SQLite
    Dev(Dev),
    /// Run a node
    Start(Start),
    /// Check a pipeline file; nothing is contacted
    Validate {
        file: PathBuf,
        /// A password in plain text is a warning, not an error
        #[arg(long)]
        allow_plain_secrets: bool,
    },
    /// Run the tests that a pipeline file holds; nothing is contacted
    Test {
        file: PathBuf,
        /// Only those whose name holds this text
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Topics of a running node (or of any Kafka cluster)
    #[command(subcommand)]
    Topic(Topic),
    /// Consumer groups of a running node
    #[command(subcommand)]
    Group(Group),
    /// What applying a pipeline file would change; nothing is changed
    Plan {
        file: PathBuf,
        #[command(flatten)]
        http: Http,
    },
    /// Store pipeline files and run them
    Apply {
        /// Or `-f FILE`
        #[arg(required_unless_present = "file", value_name = "FILE")]
        files: Vec<PathBuf>,
        #[arg(short = 'f', long = "file", value_name = "FILE")]
        file: Vec<PathBuf>,
        /// Do exactly this plan, or nothing
        #[arg(long, value_name = "HASH")]
        plan_hash: Option<String>,
        /// Kept with the revision
        #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
        message: String,
        /// Steps that give something up for good are meant
        #[arg(long)]
        allow_destructive: bool,
        /// Only plan
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        http: Http,
    },
    /// A pipeline file against the stored text
    Diff {
        file: PathBuf,
        #[command(flatten)]
        http: Http,
    },
    /// An older revision of a pipeline becomes the newest
    Rollback {
        #[arg(value_name = "PIPELINE")]
        name: String,
        #[arg(long, value_name = "REVISION")]
        to: u64,
        #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
        message: String,
        #[arg(long)]
        allow_destructive: bool,
        #[command(flatten)]
        http: Http,
    },
    /// Stored pipelines
    #[command(subcommand)]
    Pipeline(Pipeline),
    /// One sink of a running pipeline
    #[command(subcommand)]
    Sink(Sink),
    /// Dead letters: rows that a target refused
    #[command(subcommand)]
    Dlq(Dlq),
    /// Who changed what on this node
    #[command(subcommand)]
    Audit(Audit),
    /// How far every sink is behind its source
    Lag {
        #[command(flatten)]
        http: Http,
        /// Print again every second until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Changes as they go into the log, row by row, until interrupted
    Tap(Tap),
    /// What every task does, once a second until interrupted
    Top(Top),
    /// Until what was committed at the source is visible at the sinks; ends with 1 when the time is over
    Wait(Wait),
    /// What runs elsewhere goes on here
    #[command(subcommand)]
    Import(Import),
    /// The files of a data directory; the node must not run
    #[command(subcommand)]
    Storage(Storage),
    /// The page of an error code, offline
    Explain { code: String },
    /// Look for what would stop Catchwater here; with FILE also at its databases
    Doctor {
        /// A pipeline file whose sources are examined
        file: Option<PathBuf>,
        #[command(flatten)]
        node: Node,
    },
    /// Version of this program and of what it speaks
    Version,
}

#[derive(Subcommand, Debug)]
pub enum Import {
    /// A Debezium PostgreSQL connector of a Kafka Connect worker, at the row it has come to
    Connect(ImportConnect),
}

#[derive(Args, Debug)]
pub struct ImportConnect {
    /// Address of the worker: http://HOST:8083
    pub url: String,
    /// The connector
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Stop it there first, if it is not stopped
    #[arg(long)]
    pub stop: bool,
    /// Only say what becomes of each property
    #[arg(long)]
    pub explain: bool,
    /// Another value for a property: an address, a password that the worker reads from elsewhere. Other users see a command line: give a
    /// secret as `${file:PATH}` or `${env:NAME}`, which the node reads
    #[arg(long, value_name = "PROPERTY=VALUE")]
    pub set: Vec<String>,
    /// Connect address of the node that takes it over
    #[arg(long, default_value = "127.0.0.1:8083", value_name = "HOST:PORT")]
    pub to: String,
}

/// Flags that `dev` and `start` share; they win over environment and file.
#[derive(Args, Debug, Clone, Default)]
pub struct Node {
    /// Where the log is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Kafka address; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Address of metrics, health and status; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// Address of Kafka Connect's REST API, or `off`; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// Receives {"kafka":"…","http":"…","connect":"…"} once everything answers
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Dev {
    /// A pipeline file
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub node: Node,
}

#[derive(Args, Debug)]
pub struct Start {
    /// Node configuration
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// `compat`: validate every produced batch as Apache Kafka does
    #[arg(long, value_parser = ["compat"])]
    pub profile: Option<String>,
    #[command(flatten)]
    pub node: Node,
}

#[derive(Args, Debug, Clone)]
pub struct Kafka {
    /// Kafka address
    #[arg(
        short = 'b',
        long = "bootstrap-server",
        alias = "bootstrap",
        default_value = "127.0.0.1:9092",
        env = "CATCHWATER_BOOTSTRAP",
        value_name = "HOST:PORT"
    )]
    pub bootstrap: String,
}

#[derive(Args, Debug, Clone)]
pub struct Http {
    /// HTTP address of the node
    #[arg(long = "http", default_value = "127.0.0.1:8080", env = "CATCHWATER_HTTP", value_name = "HOST:PORT")]
    pub http: String,
}

#[derive(Subcommand, Debug)]
pub enum Topic {
    /// Names and partitions
    List {
        #[command(flatten)]
        kafka: Kafka,
        /// Internal topics, too
        #[arg(long)]
        all: bool,
    },
    /// Partitions, offsets and settings of a topic
    Describe {
        #[arg(value_name = "TOPIC")]
        topic: String,
        #[command(flatten)]
        kafka: Kafka,
    },
    /// Lines of standard input become records
    Produce {
        #[arg(value_name = "TOPIC")]
        topic: String,
        #[command(flatten)]
        kafka: Kafka,
        /// Splits key from value
        #[arg(short = 'K', long, value_name = "TEXT")]
        key_separator: Option<String>,
        /// Partition; without it by key, else 0
        #[arg(short = 'p', long)]
        partition: Option<u32>,
    },
    /// Records of a topic to standard output
    Consume {
        #[arg(value_name = "TOPIC")]
        topic: String,
        #[command(flatten)]
        kafka: Kafka,
        /// Only this partition
        #[arg(short = 'p', long)]
        partition: Option<u32>,
        /// `earliest`, `latest`, or a number
        #[arg(long, default_value = "earliest")]
        offset: String,
        /// End after that many records
        #[arg(short = 'n', long = "limit", alias = "max-messages")]
        limit: Option<u64>,
        /// Go on waiting for new records at the end
        #[arg(short = 'f', long)]
        follow: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum Group {
    /// All groups
    List {
        #[command(flatten)]
        http: Http,
    },
    /// Members, offsets and lag of a group
    Describe {
        #[arg(value_name = "GROUP")]
        group: String,
        #[command(flatten)]
        http: Http,
    },
}

#[derive(Subcommand, Debug)]
pub enum Storage {
    /// Read every stored byte and compare it with what vouches for it; changes nothing
    Check {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Let partitions that a start keeps closed go on with what is proved of them, and cut out what is damaged; without --yes it
    /// only says what it would do, and what is lost
    Repair {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Do it. What is damaged, or behind the proved end, is lost to readers, and kept in files beside
        #[arg(long)]
        yes: bool,
    },
    /// Stored files as text: journal, segments, manifests, snapshots
    Dump {
        /// A data directory (an overview) or one of its files
        #[arg(value_name = "DIR|FILE")]
        path: PathBuf,
        /// Lines at most, of each file
        #[arg(short = 'n', long, default_value_t = 1000)]
        limit: usize,
    },
}

#[derive(Subcommand, Debug)]
pub enum Pipeline {
    /// All pipelines, their state and lag
    List {
        #[command(flatten)]
        http: Http,
    },
    /// The text of a pipeline
    Show {
        #[arg(value_name = "PIPELINE")]
        name: String,
        /// An older one
        #[arg(long)]
        revision: Option<u64>,
        #[command(flatten)]
        http: Http,
    },
    /// The texts it had
    Revisions {
        #[arg(value_name = "PIPELINE")]
        name: String,
        #[command(flatten)]
        http: Http,
    },
    /// Its tasks drain and wait; also after a restart of the node
    #[command(alias = "stop")]
    Pause {
        #[arg(value_name = "PIPELINE")]
        name: String,
        #[command(flatten)]
        http: Http,
    },
    /// A paused one goes on where it was
    #[command(alias = "start")]
    Resume {
        #[arg(value_name = "PIPELINE")]
        name: String,
        #[command(flatten)]
        http: Http,
    },
    /// Tables of a running source are read again, all or those rows that fit; without options: how far that is
    Snapshot {
        #[arg(value_name = "PIPELINE")]
        name: String,
        /// Which source, where the pipeline has several
        #[arg(long)]
        source: Option<String>,
        /// schema.table; may be given several times
        #[arg(long, conflicts_with_all = ["pause", "resume"])]
        table: Vec<String>,
        /// SQL condition that rows meet
        #[arg(long = "where", value_name = "SQL", requires = "table", conflicts_with = "stop")]
        filter: Option<String>,
        /// No more rows per second than that
        #[arg(long, value_name = "N", requires = "table", conflicts_with = "stop", default_value_t = 0)]
        rows_per_second: u64,
        /// All of them wait
        #[arg(long, conflicts_with_all = ["resume", "stop"])]
        pause: bool,
        /// They go on where they were
        #[arg(long, conflicts_with = "stop")]
        resume: bool,
        /// They end where they are: all, or those of --table
        #[arg(long)]
        stop: bool,
        #[command(flatten)]
        http: Http,
    },
    /// Its tasks start again where they were; references are read again
    Restart {
        #[arg(value_name = "PIPELINE")]
        name: String,
        #[command(flatten)]
        http: Http,
    },
    /// A source is read again from nothing, as after a gap: slot and topics are made anew, sinks follow when all is there
    Reset {
        #[arg(value_name = "PIPELINE")]
        name: String,
        /// Which one, where the pipeline has several
        #[arg(long)]
        source: Option<String>,
        /// It is meant: the topics' records go
        #[arg(long)]
        allow_destructive: bool,
        #[command(flatten)]
        http: Http,
    },
    /// It ends: slots, triggers and positions in the databases go; topics and target tables stay
    Delete {
        #[arg(value_name = "PIPELINE")]
        name: String,
        /// It is meant
        #[arg(long)]
        allow_destructive: bool,
        #[command(flatten)]
        http: Http,
    },
}

#[derive(Subcommand, Debug)]
pub enum Sink {
    /// Empty its tables and fill them anew from the log, in one transaction of the target
    Rebuild {
        #[arg(value_name = "PIPELINE")]
        pipeline: String,
        #[arg(value_name = "SINK")]
        sink: String,
        #[command(flatten)]
        http: Http,
    },
}

#[derive(Args, Debug)]
pub struct Tap {
    /// A topic, a source, or a pipeline
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Only what this sink of the pipeline reads
    #[arg(long)]
    pub sink: Option<String>,
    /// Only rows that meet this: "status = 'paid' and (total > 10 or note is null)"; of a delete the row before counts
    #[arg(long = "where", value_name = "CONDITION")]
    pub filter: Option<String>,
    /// Only these: c (insert), u (update), d (delete), r (read by a snapshot), t (truncate)
    #[arg(long, value_name = "OP,…", value_delimiter = ',')]
    pub op: Vec<String>,
    /// Where to begin
    #[arg(long, default_value = "latest", value_parser = ["earliest", "latest"])]
    pub from: String,
    /// End after that many changes
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,
    /// End at what the log holds now
    #[arg(long)]
    pub no_follow: bool,
    #[command(flatten)]
    pub kafka: Kafka,
    #[command(flatten)]
    pub http: Http,
}

#[derive(Args, Debug)]
pub struct Top {
    /// End after that many
    #[arg(long, value_name = "N")]
    pub frames: Option<u64>,
    #[command(flatten)]
    pub http: Http,
}

#[derive(Args, Debug)]
pub struct Wait {
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Only this sink; without it all of the pipeline
    #[arg(long)]
    pub sink: Option<String>,
    /// A position of the source (PostgreSQL: an LSN); without it what the source has committed by now
    #[arg(long)]
    pub position: Option<String>,
    /// With a unit: 500ms, 30s, 5m
    #[arg(long, default_value = "60s")]
    pub timeout: String,
    #[command(flatten)]
    pub http: Http,
}

#[derive(Subcommand, Debug)]
pub enum Dlq {
    /// Those that wait: of parked keys, and of tables without a key
    List {
        #[arg(value_name = "PIPELINE")]
        pipeline: String,
        /// Only of this sink
        #[arg(long)]
        sink: Option<String>,
        /// Also those that were applied or given up
        #[arg(long)]
        all: bool,
        /// From this offset of the topic PIPELINE.dlq on
        #[arg(long, value_name = "OFFSET", default_value_t = 0)]
        from: u64,
        /// At most that many, up to 10,000
        #[arg(short = 'n', long, default_value_t = 100)]
        limit: u64,
        #[command(flatten)]
        http: Http,
    },
    /// One with its row and all its headers
    Show {
        #[arg(value_name = "PIPELINE")]
        pipeline: String,
        #[arg(value_name = "OFFSET")]
        offset: u64,
        #[command(flatten)]
        http: Http,
    },
    /// Apply them after all, in the source's order; what is refused again stays
    Replay {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        http: Http,
    },
    /// Give them up: later rows of their keys are applied again, they are not
    #[command(alias = "drop")]
    Discard {
        #[command(flatten)]
        letters: Letters,
        /// All of them
        #[arg(long, conflicts_with_all = ["table", "offset"])]
        all: bool,
        #[command(flatten)]
        http: Http,
    },
}

/// Which dead letters; without more all of the pipeline.
#[derive(Args, Debug)]
pub struct Letters {
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Only of this sink
    #[arg(long)]
    pub sink: Option<String>,
    /// Only of this table of the source, `schema.table`
    #[arg(long)]
    pub table: Option<String>,
    /// All of the key of this dead letter
    #[arg(long, value_name = "OFFSET", conflicts_with = "table")]
    pub offset: Option<u64>,
}

#[derive(Subcommand, Debug)]
pub enum Audit {
    /// The newest records
    List {
        #[arg(short = 'n', long = "limit", default_value_t = 50)]
        limit: u64,
        #[command(flatten)]
        kafka: Kafka,
    },
    /// Is the chain of records whole?
    Verify {
        #[command(flatten)]
        kafka: Kafka,
    },
}

impl Command {
    /// The words of the command, for the envelope.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Dev(_) => "dev",
            Command::Start(_) => "start",
            Command::Validate { .. } => "validate",
            Command::Test { .. } => "test",
            Command::Topic(Topic::List { .. }) => "topic list",
            Command::Topic(Topic::Describe { .. }) => "topic describe",
            Command::Topic(Topic::Produce { .. }) => "topic produce",
            Command::Topic(Topic::Consume { .. }) => "topic consume",
            Command::Group(Group::List { .. }) => "group list",
            Command::Group(Group::Describe { .. }) => "group describe",
            Command::Plan { .. } => "plan",
            Command::Apply { .. } => "apply",
            Command::Diff { .. } => "diff",
            Command::Rollback { .. } => "rollback",
            Command::Pipeline(Pipeline::List { .. }) => "pipeline list",
            Command::Pipeline(Pipeline::Show { .. }) => "pipeline show",
            Command::Pipeline(Pipeline::Revisions { .. }) => "pipeline revisions",
            Command::Pipeline(Pipeline::Pause { .. }) => "pipeline pause",
            Command::Pipeline(Pipeline::Resume { .. }) => "pipeline resume",
            Command::Pipeline(Pipeline::Snapshot { .. }) => "pipeline snapshot",
            Command::Pipeline(Pipeline::Restart { .. }) => "pipeline restart",
            Command::Pipeline(Pipeline::Reset { .. }) => "pipeline reset",
            Command::Pipeline(Pipeline::Delete { .. }) => "pipeline delete",
            Command::Dlq(Dlq::List { .. }) => "dlq list",
            Command::Dlq(Dlq::Show { .. }) => "dlq show",
            Command::Dlq(Dlq::Replay { .. }) => "dlq replay",
            Command::Dlq(Dlq::Discard { .. }) => "dlq discard",
            Command::Audit(Audit::List { .. }) => "audit list",
            Command::Audit(Audit::Verify { .. }) => "audit verify",
            Command::Lag { .. } => "lag",
            Command::Sink(Sink::Rebuild { .. }) => "sink rebuild",
            Command::Tap(_) => "tap",
            Command::Top(_) => "top",
            Command::Wait(_) => "wait",
            Command::Import(Import::Connect(_)) => "import connect",
            Command::Storage(Storage::Check { .. }) => "storage check",
            Command::Storage(Storage::Repair { .. }) => "storage repair",
            Command::Storage(Storage::Dump { .. }) => "storage dump",
            Command::Explain { .. } => "explain",
            Command::Doctor { .. } => "doctor",
            Command::Version => "version",
        }
    }
}
