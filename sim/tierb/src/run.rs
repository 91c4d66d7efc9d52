//! One run: a world from a seed, its two phases, its ending, its verdict.

use crate::client::Connection;
use crate::consume::{Fetched, LONG_WAIT_MS, Reader};
use crate::ledger::Ledger;
use crate::nemesis::{NAMES, Nemesis};
use crate::node::Machine;
use crate::swarm::Swarm;
use crate::{admin, consume, group, produce};
use catchwater_check::history::Op;
use catchwater_runtime::sim::net::Death;
use catchwater_runtime::sim::{self, Host, World};
use catchwater_runtime::time;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// In a healed world everybody is served within this.
pub const SERVED_WITHIN: Duration = Duration::from_secs(60);
/// The ending (last answers, last reads) takes at most so long.
const ENDING_LIMIT: Duration = Duration::from_secs(600);

/// What a run was and what it showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    pub trace: (u64, u64),
    pub violations: Vec<String>,
    pub simulated: Duration,
    pub acked: u64,
    pub polled: u64,
    pub commits: u64,
    pub rebalances: u64,
    pub admin: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub shutdowns: u64,
    pub disk_deaths: u64,
    pub faults: BTreeMap<&'static str, u64>,
}

impl Outcome {
    /// For a sum of runs.
    pub fn add(&mut self, other: &Outcome) {
        self.violations.extend(other.violations.iter().map(|v| format!("seed {}: {v}", other.seed)));
        self.trace.1 += other.trace.1;
        self.simulated += other.simulated;
        for (sum, one) in [
            (&mut self.acked, other.acked),
            (&mut self.polled, other.polled),
            (&mut self.commits, other.commits),
            (&mut self.rebalances, other.rebalances),
            (&mut self.admin, other.admin),
            (&mut self.kills, other.kills),
            (&mut self.power_cuts, other.power_cuts),
            (&mut self.shutdowns, other.shutdowns),
            (&mut self.disk_deaths, other.disk_deaths),
        ] {
            *sum += one;
        }
        for (name, n) in &other.faults {
            *self.faults.entry(name).or_default() += n;
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(name, n)| format!("{n} {name}")).collect();
        write!(
            f,
            "{:.2} simulated hours, {} events, {} acknowledged records, {} read, {} commits, {} rebalances, \
             {} topics made or removed; {} kills, {} power cuts, {} shutdowns, {} ends for a disk error; faults: {}; \
             {} violations",
            self.simulated.as_secs_f64() / 3600.0,
            self.trace.1,
            self.acked,
            self.polled,
            self.commits,
            self.rebalances,
            self.admin,
            self.kills,
            self.power_cuts,
            self.shutdowns,
            self.disk_deaths,
            faults.join(", "),
            self.violations.len()
        )
    }
}

/// Runs one seed.
pub fn run(seed: u64) -> Outcome {
    run_swarm(seed, Swarm::draw(seed, NAMES.len() as u64))
}

pub(crate) fn run_swarm(seed: u64, swarm: Swarm) -> Outcome {
    sim::run(seed, |world| live(world, seed, swarm))
}

struct Clients {
    hosts: Vec<Arc<Host>>,
}

async fn live(world: Arc<World>, seed: u64, swarm: Swarm) -> Outcome {
    let ledger = Ledger::new(world.clone());
    let mut machine = Machine::new(world.clone(), ledger.clone(), swarm.clone());
    machine.start();
    let topics = make_topics(&swarm, &ledger).await;
    let clients = start_clients(&world, &swarm, &topics, &ledger);
    let mut nemesis = Nemesis {
        world: world.clone(),
        clients: clients.hosts.clone(),
        swarm: swarm.clone(),
        rng: world.fork(2),
        counts: BTreeMap::new(),
    };
    let until = world.elapsed() + Duration::from_millis(swarm.safety_ms);
    nemesis.rage(&mut machine, until).await;
    serve_all(&world, &mut nemesis, &mut machine, &ledger).await;
    let ending = end(&world, &mut machine, &ledger, &topics, &clients);
    if time::timeout(ENDING_LIMIT, ending).await.is_err() {
        ledger.violation("the ending does not come to its end".to_owned());
    }
    for client in &clients.hosts {
        client.kill(world.net(), Death::Loud).await;
    }
    machine.kill(None).await;
    let report = ledger.judge(seed);
    let mut violations = ledger.violations();
    violations.extend(world.faults());
    violations.extend(report.anomalies.iter().map(|a| format!("{}: {}", a.kind, a.text)));
    if report.acked == 0 {
        violations.push("nothing was acknowledged in the whole run".to_owned());
    }
    let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    Outcome {
        seed,
        trace: world.trace(),
        violations,
        simulated: world.elapsed(),
        acked: count(&ledger.acked),
        polled: count(&ledger.polled),
        commits: count(&ledger.commits),
        rebalances: count(&ledger.rebalances),
        admin: count(&ledger.admin),
        kills: count(&machine.counts.kills),
        power_cuts: count(&machine.counts.power_cuts),
        shutdowns: count(&machine.counts.shutdowns),
        disk_deaths: count(&machine.counts.disk_deaths),
        faults: nemesis.counts,
    }
}

/// Before anything goes wrong, so that every partition is known.
async fn make_topics(swarm: &Swarm, ledger: &Ledger) -> Vec<(String, i32)> {
    let mut slot = None;
    let mut topics = Vec::new();
    for n in 0..swarm.topics {
        let name = format!("topic-{n}");
        let _ = admin::create(&mut slot, "maker", &name, swarm.partitions, ledger).await;
        topics.extend((0..swarm.partitions).map(|p| (name.clone(), p as i32)));
    }
    for (topic, partition) in &topics {
        ledger.add(Op::Topic { tp: format!("{topic}/{partition}"), retention: false, compact: false });
    }
    topics
}

fn start_clients(world: &Arc<World>, swarm: &Swarm, topics: &[(String, i32)], ledger: &Arc<Ledger>) -> Clients {
    let mut hosts = Vec::new();
    let mut label = 100;
    let mut next = |name: &str| {
        label += 1;
        let host = world.host(name);
        hosts.push(host.clone());
        ledger.expect_client(name);
        (host, world.fork(label))
    };
    for n in 0..swarm.idempotent {
        let name = format!("idempotent-{n}");
        let (host, rng) = next(&name);
        drop(host.spawn(produce::idempotent(name, topics.to_vec(), swarm.clone(), rng, ledger.clone())));
    }
    for n in 0..swarm.plain {
        let name = format!("plain-{n}");
        let (host, rng) = next(&name);
        drop(host.spawn(produce::plain(name, topics.to_vec(), swarm.clone(), rng, ledger.clone())));
    }
    for n in 0..swarm.consumers {
        let name = format!("consumer-{n}");
        let (host, rng) = next(&name);
        let of = topics[n as usize % topics.len()].clone();
        drop(host.spawn(consume::consumer(name, of, rng, ledger.clone())));
    }
    for n in 0..swarm.members {
        let name = format!("member-{n}");
        let (host, rng) = next(&name);
        drop(host.spawn(group::member(name, topics.to_vec(), rng, ledger.clone())));
    }
    for n in 0..swarm.admins {
        let name = format!("admin-{n}");
        let (host, rng) = next(&name);
        drop(host.spawn(admin::admin(name, swarm.clone(), rng, ledger.clone())));
    }
    Clients { hosts }
}

/// Everything is healed: every client must be served in time.
async fn serve_all(world: &Arc<World>, nemesis: &mut Nemesis, machine: &mut Machine, ledger: &Arc<Ledger>) {
    nemesis.heal(machine);
    // Clients that wait for an answer that will never come notice it as they would by a keep-alive.
    nemesis.clients.iter().for_each(|client| world.net().cut(client.id()));
    let before = ledger.all_served();
    let from = world.elapsed();
    loop {
        nemesis.rest(machine, Duration::from_millis(500)).await;
        let now = ledger.all_served();
        let waiting: Vec<&String> = before.iter().filter(|(name, n)| now[*name] <= **n).map(|(name, _)| name).collect();
        if waiting.is_empty() {
            return;
        }
        if world.elapsed() - from > SERVED_WITHIN {
            let why = machine.not_started().map(|why| format!("; the node does not start: {why}")).unwrap_or_default();
            ledger.violation(format!("not served within {SERVED_WITHIN:?} of a healed world: {waiting:?}{why}"));
            return;
        }
    }
}

/// Last answers, shutdown, a last life, and everything is read once more.
async fn end(
    world: &Arc<World>,
    machine: &mut Machine,
    ledger: &Arc<Ledger>,
    topics: &[(String, i32)],
    clients: &Clients,
) {
    ledger.stop.store(true, Ordering::Relaxed);
    for client in &clients.hosts {
        // A consumer that waits for what will not come is cut off.
        for _ in 0..200 {
            if client.running().0 == 0 {
                break;
            }
            time::sleep(Duration::from_millis(100)).await;
        }
        client.kill(world.net(), Death::Loud).await;
    }
    machine.shut_down().await;
    machine.start();
    ledger.stop.store(false, Ordering::Relaxed);
    if !woken(&topics[0], ledger).await {
        ledger.violation(format!("a fetch that waits is not woken within {SERVED_WITHIN:?} of what it waits for"));
    }
    ledger.add(Op::Final { at: ledger.now() });
    let mut slot = None;
    for (topic, partition) in topics {
        read_all(topic, *partition, ledger).await;
        while group::committed(&mut slot, "judge", (topic, *partition), ledger).await.is_none() {
            time::sleep(Duration::from_millis(100)).await;
        }
    }
    for (name, expected) in ledger.topics() {
        let found = loop {
            match admin::find(&mut slot, "judge", &name, ledger).await {
                Some(found) => break found,
                None => time::sleep(Duration::from_millis(100)).await,
            }
        };
        if found != expected {
            ledger.violation(format!("topic {name} has {found:?} partitions, {expected:?} were acknowledged"));
        }
    }
}

/// With nobody else about: does a fetch that waits at the end hear of a record that comes?
async fn woken((topic, partition): &(String, i32), ledger: &Arc<Ledger>) -> bool {
    let mut values = produce::Values::new("judge.0".to_owned());
    loop {
        let (Some(mut waits), Some(mut writes)) =
            (Connection::open("judge", ledger).await, Connection::open("judge", ledger).await)
        else {
            return true;
        };
        let mut reader = Reader::new("judge waits", topic, *partition, 0);
        let Some(end) = reader.end(&mut waits, ledger).await else { continue };
        reader.next = end;
        let fetched = time::timeout(SERVED_WITHIN, reader.fetch(&mut waits, LONG_WAIT_MS, ledger));
        let written = async {
            time::sleep(Duration::from_secs(1)).await;
            produce::one(&mut values, &mut writes, (topic, *partition), ledger).await
        };
        match catchwater_runtime::sim::both(fetched, written).await {
            (Ok(Fetched::Records), _) => return true,
            (Err(_), true) => return false,
            // The connection was lost on the way, by the whim of its client.
            _ => {}
        }
    }
}

async fn read_all(topic: &str, partition: i32, ledger: &Arc<Ledger>) {
    let mut reader = Reader::new("judge", topic, partition, 0);
    let mut slot: Option<Connection> = None;
    loop {
        if slot.is_none() {
            slot = Connection::open("judge", ledger).await;
        }
        let Some(connection) = &mut slot else { return };
        let Some(end) = reader.end(connection, ledger).await else {
            slot = None;
            continue;
        };
        if reader.next >= end {
            return;
        }
        match reader.fetch(connection, 0, ledger).await {
            Fetched::Records => {}
            Fetched::Nothing | Fetched::Refused(_) => time::sleep(Duration::from_millis(100)).await,
            Fetched::Lost => slot = None,
        }
    }
}
