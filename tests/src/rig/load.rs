//! Load with a ledger: idempotent and plain producers over topics that roll, trim, come and go; readers that judge.
//!
//! A producer keeps its id, epoch and sequences for the whole run, across every death of the broker: what has no answer is
//! sent again after the restart with its old sequence, and must come out once. Plain producers (a quarter) send nothing
//! twice. One batch in flight per producer: the ledger knows at each moment what may be there.

use super::ledger::{Answer, Got, Ledger, Part, Reading, Taken, Window, key, value};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use catchwater_base::Rng;
use catchwater_client::remote::{
    Acks, Code, FetchFrom, FetchLimits, Kafka, NewTopic, OffsetAt, Options, ProduceOutcome, RemoteError, decode_records,
};
use catchwater_record::batch::build::Builder;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limit of one call. A dead broker closes its connections at once; this is for one that hangs.
const CALL: Duration = Duration::from_secs(20);

/// One topic of a run.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    pub partitions: i32,
    pub configs: Vec<(String, String)>,
    pub trims: bool,
    state: Life,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    /// Asked for, maybe there.
    Making,
    Live,
    /// Asked away, maybe still there.
    Going,
    Gone,
}

/// How much a run sends.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub producers: u32,
    /// Largest body of a record, bytes.
    pub value_bytes_max: u32,
    /// Most records of a batch.
    pub records_max: u32,
    /// Topics are replaced after so many cycles.
    pub era_cycles: u32,
    /// `storage.durability=relaxed`: a power cut may take the end of a log. All producers are plain then: a sequence whose
    /// predecessor is gone would be refused.
    pub relaxed: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { producers: 6, value_bytes_max: 4096, records_max: 8, era_cycles: 12, relaxed: false }
    }
}

struct Producer {
    number: u32,
    /// Id and epoch; none = plain.
    idempotent: bool,
    id: Option<(i64, i16)>,
    rng: Rng,
    next: BTreeMap<Part, u64>,
    /// Without an answer: to be sent again.
    pending: Option<Pending>,
}

#[derive(Clone)]
struct Pending {
    part: Part,
    first: u64,
    batch: Bytes,
    count: u32,
    value_bytes: u32,
}

/// What readers and writers found wrong, and how much they did.
#[derive(Debug, Default)]
pub struct Tally {
    pub wrong: Mutex<Vec<String>>,
    pub sent: AtomicU64,
    pub acked: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
    pub compared: AtomicU64,
    /// Acknowledgements by the moment their batch left, for "none after the fault".
    pub last_ack_sent: Mutex<Option<std::time::SystemTime>>,
}

/// See the file head.
pub struct Load {
    pub ledger: Arc<Mutex<Ledger>>,
    pub tally: Arc<Tally>,
    runtime: tokio::runtime::Runtime,
    producers: Vec<Producer>,
    topics: Vec<Topic>,
    shape: Shape,
    era: u32,
    cycle: u32,
    /// Tells the topics of two runs apart.
    tag: String,
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    pub fn new(seed: u64, shape: Shape) -> Load {
        let mut rng = Rng::new(seed);
        let producers = (0..shape.producers)
            .map(|number| Producer {
                number,
                idempotent: number % 4 != 3 && !shape.relaxed,
                id: None,
                rng: rng.fork(u64::from(number)),
                next: BTreeMap::new(),
                pending: None,
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime of two threads");
        Load {
            ledger: Arc::default(),
            tally: Arc::default(),
            runtime,
            producers,
            topics: Vec::new(),
            shape,
            era: 0,
            cycle: 0,
            tag: format!("{:x}", seed & 0xffff),
        }
    }

    /// Runs a call against the broker at `kafka`.
    pub fn with<T>(&self, kafka: &str, work: impl AsyncFnOnce(Kafka) -> Result<T>) -> Result<T> {
        self.runtime.block_on(async {
            let kafka = connect(kafka).await?;
            work(kafka).await
        })
    }

    /// The next load deletes the topics of now and makes new ones.
    pub fn replace_topics(&mut self) {
        self.cycle = self.cycle.next_multiple_of(self.shape.era_cycles);
    }

    /// Is it of the topics that were made last?
    pub fn is_newest(&self, topic: &str) -> bool {
        topic.starts_with(&format!("rig-{}-{}-", self.tag, self.era))
    }

    fn plan_topics(&mut self) {
        if !self.cycle.is_multiple_of(self.shape.era_cycles) {
            return;
        }
        self.era += 1;
        for t in &mut self.topics {
            if matches!(t.state, Life::Live | Life::Making) {
                t.state = Life::Going;
            }
        }
        self.topics.retain(|t| t.state != Life::Gone);
        let set = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let relaxed = self.shape.relaxed;
        let mut topic = |name: &str, partitions, mut configs: Vec<_>, trims| {
            if relaxed {
                configs.push(set("storage.durability", "relaxed"));
            }
            let name = format!("rig-{}-{}-{name}", self.tag, self.era);
            self.topics.push(Topic { name, partitions, configs, trims, state: Life::Making });
        };
        topic("plain", 3, vec![], false);
        topic("roll", 1, vec![set("segment.bytes", "1048576")], false);
        let small = || vec![set("segment.bytes", "1048576"), set("retention.bytes", "1048576")];
        topic("trim", 1, small(), true);
        // Files go with the trim, not behind it.
        topic("gone", 1, [small(), vec![set("file.delete.delay.ms", "0")]].concat(), true);
    }

    /// One cycle's load: topics that are due, then producers until `stop` says so. Returns when every producer has its
    /// answer or lost its connection. Whatever is wrong goes into the tally.
    pub fn run(&mut self, kafka: &str, stop: &(dyn Fn() -> bool + Sync)) {
        self.plan_topics();
        self.cycle += 1;
        let ended = AtomicBool::new(false);
        let (ledger, tally, shape) = (&self.ledger, &self.tally, self.shape);
        let topics = Mutex::new(&mut self.topics);
        let producers = &mut self.producers;
        self.runtime.block_on(async {
            let watch = async {
                while !stop() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                ended.store(true, Ordering::Relaxed);
            };
            let admin = administer(kafka, &topics, ledger, tally, &ended);
            let parts = || -> Vec<Part> {
                let topics = lock(&topics);
                let live = topics.iter().filter(|t| t.state == Life::Live);
                live.flat_map(|t| (0..t.partitions).map(|p| (t.name.clone(), p))).collect()
            };
            let work = futures_join(
                producers.iter_mut().map(|p| produce(p, kafka, ledger, tally, &parts, shape, &ended)).collect(),
            );
            let tail = follow(kafka, ledger, tally, &parts, &ended);
            tokio::join!(watch, admin, work, tail);
        });
    }

    /// After a power cut, before [`Load::verify`], where every topic is relaxed: what the cut took from each partition, if it took
    /// anything. More than the window allows is wrong.
    pub fn forgive(&mut self, kafka: &str, window: Window) -> Result<Vec<Taken>> {
        let (ledger, tally) = (&self.ledger, &self.tally);
        self.runtime.block_on(async {
            let kafka = connect(kafka).await?;
            let there: Vec<String> = kafka.topics().await.context("topics")?.into_iter().map(|t| t.name).collect();
            let mut all = Vec::new();
            let parts = lock(ledger).parts();
            for part in parts.iter().filter(|(name, _)| there.contains(name)) {
                let end = kafka.list_offset(&part.0, part.1, OffsetAt::Latest).await.context("latest")?;
                let (taken, wrong) = lock(ledger).forgive(part, end, window);
                lock(&tally.wrong).extend(wrong);
                all.extend((taken.records > 0).then_some(taken));
            }
            Ok(all)
        })
    }

    /// Reads every partition whole, from the log start, and lets the ledger judge; then the topics: what was made is there,
    /// what was removed is not. Returns the records compared.
    pub fn verify(&mut self, kafka: &str) -> Result<u64> {
        let mut compared = 0;
        let (ledger, tally) = (self.ledger.clone(), self.tally.clone());
        let topics = &mut self.topics;
        self.runtime.block_on(async {
            let kafka = connect(kafka).await?;
            let there: Vec<String> = kafka.topics().await.context("topics")?.into_iter().map(|t| t.name).collect();
            for t in topics.iter_mut() {
                match (t.state, there.contains(&t.name)) {
                    (Life::Live, false) => lock(&tally.wrong).push(format!("LOST: topic {} was created", t.name)),
                    (Life::Gone, true) => lock(&tally.wrong).push(format!("topic {} was deleted and is there", t.name)),
                    (Life::Making, true) => {
                        t.state = Life::Live;
                        open(&ledger, t);
                    }
                    (Life::Going, false) => {
                        t.state = Life::Gone;
                        lock(&ledger).close(&t.name);
                    }
                    _ => {}
                }
            }
            let parts = lock(&ledger).parts();
            for part in parts.iter().filter(|(name, _)| there.contains(name)) {
                let reading = read(&kafka, part).await.with_context(|| format!("reading {part:?}"))?;
                compared += reading.records.len() as u64;
                lock(&tally.wrong).extend(lock(&ledger).judge(part, &reading));
            }
            anyhow::Ok(())
        })?;
        self.tally.compared.fetch_add(compared, Ordering::Relaxed);
        Ok(compared)
    }

    /// What was found wrong since the last call.
    pub fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.tally.wrong))
    }
}

fn open(ledger: &Mutex<Ledger>, topic: &Topic) {
    for p in 0..topic.partitions {
        lock(ledger).open((topic.name.clone(), p), topic.trims);
    }
}

async fn connect(kafka: &str) -> Result<Kafka> {
    let options = Options { client_id: "rig".into(), timeout: CALL, ..Options::default() };
    Kafka::connect(&[kafka], options).await.context("connecting")
}

/// All of them, on one task: they wait most of the time.
async fn futures_join(mut all: Vec<impl Future<Output = ()>>) {
    let mut all: Vec<_> = all.drain(..).map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|f| f.as_mut().poll(cx).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Creates and deletes what is due. An error of a call is no news here: the outcome is unknown until the next reading.
async fn administer(
    kafka: &str,
    topics: &Mutex<&mut Vec<Topic>>,
    ledger: &Mutex<Ledger>,
    tally: &Tally,
    ended: &AtomicBool,
) {
    let Ok(kafka) = connect(kafka).await else { return };
    let count = lock(topics).len();
    for at in 0..count {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let topic = lock(topics)[at].clone();
        match topic.state {
            Life::Making => {
                let new = NewTopic {
                    name: topic.name.clone(),
                    partitions: Some(topic.partitions),
                    replication: Some(1),
                    configs: topic.configs.clone(),
                };
                match kafka.create_topic(&new).await {
                    // 36: made before a death, its answer lost.
                    Ok(_) | Err(RemoteError::Refused { code: Code(36), .. }) => {
                        open(ledger, &topic);
                        lock(topics)[at].state = Life::Live;
                    }
                    Err(RemoteError::Refused { code, .. }) if !is_disk(code) => {
                        lock(&tally.wrong).push(format!("creating {}: {code}", topic.name));
                    }
                    Err(_) => return,
                }
            }
            Life::Going => match kafka.delete_topic(&topic.name).await {
                Ok(()) | Err(RemoteError::Refused { code: Code(3), .. }) => {
                    lock(topics)[at].state = Life::Gone;
                    lock(ledger).close(&topic.name);
                }
                Err(_) => return,
            },
            Life::Live | Life::Gone => {}
        }
    }
}

/// A reader that waits at the end of one partition after the other, and remembers what it was told.
async fn follow(
    kafka: &str,
    ledger: &Mutex<Ledger>,
    tally: &Tally,
    parts: &(dyn Fn() -> Vec<Part> + Sync),
    ended: &AtomicBool,
) {
    let Ok(kafka) = connect(kafka).await else { return };
    for turn in 0.. {
        let live = parts();
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let Some(part) = live.get(turn % live.len().max(1)) else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        let (topic, partition) = (part.0.as_str(), part.1);
        let offset = match kafka.list_offset(topic, partition, OffsetAt::Latest).await {
            Ok(offset) => offset,
            // A topic that was deleted meanwhile.
            Err(RemoteError::Refused { .. }) => continue,
            Err(_) => return,
        };
        let limits = FetchLimits { max_wait: Duration::from_millis(100), min_bytes: 1, ..FetchLimits::default() };
        match kafka.fetch(FetchFrom { topic, partition, offset }, limits).await {
            Ok(fetched) => {
                let complaint = lock(ledger).observe(part, fetched.log_start, fetched.high_watermark);
                lock(&tally.wrong).extend(complaint);
            }
            Err(RemoteError::Refused { .. }) => {}
            Err(_) => return,
        }
    }
}

/// KAFKA_STORAGE_ERROR, a timeout, or a coordinator without a log: the disk may have failed, so nothing is sure.
fn is_disk(code: Code) -> bool {
    matches!(code.0, -1 | 7 | 15 | 41 | 56)
}

async fn produce(
    me: &mut Producer,
    kafka: &str,
    ledger: &Mutex<Ledger>,
    tally: &Tally,
    parts: &(dyn Fn() -> Vec<Part> + Sync),
    shape: Shape,
    ended: &AtomicBool,
) {
    let Ok(kafka) = connect(kafka).await else { return };
    if me.idempotent && me.id.is_none() {
        match kafka.init_producer().await {
            Ok(id) => me.id = Some(id),
            Err(_) => return,
        }
    }
    while !ended.load(Ordering::Relaxed) {
        let live = parts();
        // A topic that went meanwhile takes its unanswered batch with it.
        if me.pending.as_ref().is_some_and(|p| !live.contains(&p.part)) {
            me.pending = None;
        }
        if live.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        let send = match me.pending.take() {
            Some(again) => again,
            None => me.next_batch(&live, shape),
        };
        lock(ledger).send(&send.part, me.number, send.first, send.count, send.value_bytes);
        tally.sent.fetch_add(1, Ordering::Relaxed);
        let left = std::time::SystemTime::now();
        let outcome = kafka.produce(&send.part.0, send.part.1, send.batch.clone(), Acks::All).await;
        let answer = match &outcome {
            ProduceOutcome::Written(Some(base)) => Answer::Acked(*base),
            ProduceOutcome::Written(None) => Answer::Unknown,
            // The request never left, or the broker looked at it and said no; but a storage error says nothing.
            ProduceOutcome::Refused(e) if e.code().is_none_or(|c| !is_disk(c)) => Answer::Refused,
            ProduceOutcome::Refused(_) | ProduceOutcome::Unknown(_) => Answer::Unknown,
        };
        let complaint = lock(ledger).answer(&send.part, me.number, send.first, answer);
        lock(&tally.wrong).extend(complaint);
        match answer {
            Answer::Acked(_) => {
                tally.acked.fetch_add(u64::from(send.count), Ordering::Relaxed);
                *lock(&tally.last_ack_sent) = Some(left);
            }
            Answer::Refused | Answer::Unknown | Answer::Open => {
                let counter = if answer == Answer::Refused { &tally.refused } else { &tally.unknown };
                counter.fetch_add(1, Ordering::Relaxed);
                let code = match &outcome {
                    ProduceOutcome::Refused(e) | ProduceOutcome::Unknown(e) => e.code(),
                    ProduceOutcome::Written(_) => None,
                };
                // A topic that is being deleted refuses; everything else that is neither that nor a dying disk is news.
                if let Some(code) = code.filter(|c| !is_disk(*c) && !matches!(c.0, 3 | 100)) {
                    lock(&tally.wrong)
                        .push(format!("{:?}: produce of {}/{}: {code}", send.part, me.number, send.first));
                }
                if me.idempotent {
                    me.pending = Some(send);
                }
                match code {
                    // The broker lives: go on, at a pace that does not flood it.
                    Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    None => return,
                }
            }
        }
    }
}

impl Producer {
    fn next_batch(&mut self, live: &[Part], shape: Shape) -> Pending {
        let part = live[self.rng.below(live.len() as u64) as usize].clone();
        let first = *self.next.entry(part.clone()).or_default();
        let count = self.rng.between(1, u64::from(shape.records_max)) as u32;
        // Mostly small, now and then as large as the shape allows.
        let top = if self.rng.chance(250_000) { shape.value_bytes_max } else { 200.min(shape.value_bytes_max) };
        let value_bytes = self.rng.between(0, u64::from(top)) as u32;
        self.next.insert(part.clone(), first + u64::from(count));
        let mut builder = Builder::new();
        if let Some((id, epoch)) = self.id {
            builder = builder.producer(id, epoch, i32::try_from(first).unwrap_or(i32::MAX));
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        for seq in first..first + u64::from(count) {
            let (k, v) = (key(self.number, seq), value(self.number, seq, value_bytes));
            builder.push(now.as_millis() as i64, Some(&k), Some(&v), []);
        }
        Pending { part, first, batch: builder.finish().freeze(), count, value_bytes }
    }
}

/// A partition from its log start to its high watermark.
pub async fn read(kafka: &Kafka, part: &Part) -> Result<Reading> {
    let (topic, partition) = (part.0.as_str(), part.1);
    let mut offset = kafka.list_offset(topic, partition, OffsetAt::Earliest).await.context("earliest")?;
    let mut reading = Reading { log_start: offset, ..Reading::default() };
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        ensure!(Instant::now() < deadline, "{part:?} could not be read within two minutes");
        let limits = FetchLimits { max_wait: Duration::from_millis(0), max_bytes: 4 << 20, ..FetchLimits::default() };
        let fetched = match kafka.fetch(FetchFrom { topic, partition, offset }, limits).await {
            Ok(fetched) => fetched,
            // Retention went on while we read: begin again at the new log start.
            Err(e) if e.code() == Some(Code(1)) => {
                offset = kafka.list_offset(topic, partition, OffsetAt::Earliest).await.context("earliest")?;
                ensure!(offset > reading.log_start, "{part:?}: offset out of range above its log start {offset}");
                reading = Reading { log_start: offset, ..Reading::default() };
                continue;
            }
            Err(e) => return Err(e).context("fetch"),
        };
        reading.high_watermark = fetched.high_watermark;
        for record in decode_records(&fetched.batches, offset).with_context(|| format!("{part:?} at {offset}"))? {
            offset = record.offset + 1;
            reading.records.push(Got {
                offset: record.offset,
                key: record.key.unwrap_or_default().to_vec(),
                value: record.value.unwrap_or_default().to_vec(),
            });
        }
        if offset >= fetched.high_watermark {
            return Ok(reading);
        }
        ensure!(
            !fetched.batches.is_empty(),
            "{part:?}: nothing at {offset}, high watermark {}",
            fetched.high_watermark
        );
    }
}
