//! Storms of clients against a few invariants.

use super::*;

/// A client as librdkafka and the Java consumer behave.
#[derive(Debug)]
struct Client {
    instance: Option<String>,
    state: Doing,
    /// Ids it may still use: issued, not left, heard within the session.
    member: String,
    generation: i32,
    /// Not a step taken before this time.
    busy_until: u64,
    last_heard: u64,
    assignment: Option<String>,
}

#[derive(Debug, PartialEq)]
enum Doing {
    Out,
    Joining(u64),
    Syncing(u64),
    Stable,
}

struct Storm {
    rig: Rig,
    rng: Rng,
    clients: Vec<Client>,
    /// What may each cost one rebalance: a join of a new member, a leave, an expiry.
    causes: u32,
    generation: i32,
    rebalances: u32,
    clock_ms: u64,
}

const SESSION_MS: u64 = 10_000;

impl Storm {
    fn new(seed: u64, delay: u32) -> Self {
        let mut rng = Rng::new(seed);
        let clients = (0..3 + rng.below(3))
            .map(|n| Client {
                instance: (n % 2 == 1).then(|| format!("i{n}")),
                state: Doing::Out,
                member: String::new(),
                generation: -1,
                busy_until: 0,
                last_heard: 0,
                assignment: None,
            })
            .collect();
        let rig = Rig::with(Settings { initial_delay_ms: delay, ..Settings::default() });
        Storm { rig, rng, clients, causes: 0, generation: 0, rebalances: 0, clock_ms: 0 }
    }

    fn join(&mut self, n: usize) {
        let uuid = self.rng.bytes16();
        let client = &mut self.clients[n];
        let join = Join {
            member: client.member.clone(),
            instance: client.instance.clone(),
            require_known_member: true,
            supports_skip: false,
            uuid,
            ..new_member()
        };
        let ticket = self.rig.join(join);
        self.clients[n].state = Doing::Joining(ticket);
        self.clients[n].last_heard = self.clock_ms;
    }

    fn step(&mut self, n: usize) {
        if self.clients[n].busy_until > self.clock_ms {
            return;
        }
        match self.clients[n].state {
            Doing::Out => {}
            Doing::Joining(ticket) => match self.rig.got(ticket) {
                None => {}
                Some(Reply::Join(Ok(joined))) => {
                    let everybody: Vec<String> = joined.members.iter().map(|m| m.member.clone()).collect();
                    if joined.generation != self.generation {
                        assert!(joined.generation > self.generation, "generations rise");
                        self.rebalances += (joined.generation - self.generation) as u32;
                        self.generation = joined.generation;
                    }
                    let client = &mut self.clients[n];
                    client.member = joined.member.clone();
                    client.generation = joined.generation;
                    client.last_heard = self.clock_ms;
                    let parts: Vec<(String, String)> =
                        everybody.iter().map(|m| (m.clone(), format!("{}:{m}", joined.generation))).collect();
                    let parts: Vec<(&str, &str)> = parts.iter().map(|(m, p)| (m.as_str(), p.as_str())).collect();
                    self.clients[n].state = Doing::Syncing(self.rig.sync(&joined, &parts));
                }
                Some(Reply::Join(Err(GroupError::MemberIdRequired(id)))) => {
                    self.clients[n].member = id;
                    self.join(n);
                }
                Some(Reply::Join(Err(error))) => self.lost(n, &error),
                other => panic!("{other:?}"),
            },
            Doing::Syncing(ticket) => match self.rig.got(ticket) {
                None => {}
                Some(Reply::Sync(Ok(synced))) => {
                    let part = String::from_utf8(synced.assignment.to_vec()).unwrap();
                    let client = &mut self.clients[n];
                    client.assignment = Some(part);
                    client.state = Doing::Stable;
                    client.last_heard = self.clock_ms;
                }
                Some(Reply::Sync(Err(error))) => self.lost(n, &error),
                other => panic!("{other:?}"),
            },
            Doing::Stable => {
                let (member, generation) = (self.clients[n].member.clone(), self.clients[n].generation);
                match self.rig.beat(&member, generation) {
                    Ok(()) => self.clients[n].last_heard = self.clock_ms,
                    Err(error) => self.lost(n, &error),
                }
            }
        }
    }

    /// Sent back: with its id, unless the coordinator does not know it any more.
    fn lost(&mut self, n: usize, error: &GroupError) {
        let silent = self.clock_ms - self.clients[n].last_heard;
        match error {
            GroupError::Rebalancing => {}
            GroupError::UnknownMember => {
                // Only silence makes a member unknown; it is one cause, and its return another.
                assert!(silent + 1_000 >= SESSION_MS, "no id that was issued is unknown: {:?}", self.clients[n]);
                self.clients[n].member.clear();
                self.causes += 2;
            }
            other => panic!("client {n}: {other:?}"),
        }
        self.clients[n].assignment = None;
        self.join(n);
    }

    fn act(&mut self) {
        let n = self.rng.below(self.clients.len() as u64) as usize;
        if self.clients[n].busy_until > self.clock_ms {
            return;
        }
        match (self.rng.below(4), &self.clients[n].state) {
            // Starts, or leaves for good.
            (0 | 1, Doing::Out) => {
                self.causes += 1;
                self.join(n);
            }
            (0, Doing::Stable) => {
                self.causes += 1;
                let member = std::mem::take(&mut self.clients[n].member);
                assert_eq!(self.rig.leave(&[(&member, None)]), [Ok(())]);
                self.clients[n].state = Doing::Out;
                self.clients[n].assignment = None;
            }
            // Is killed and starts anew: a dynamic one as somebody else, a static one in its own place.
            (1, Doing::Stable) => {
                self.causes += 2;
                self.clients[n].member.clear();
                self.clients[n].assignment = None;
                self.join(n);
            }
            // Stands still, sometimes beyond its session.
            (2, Doing::Stable) => {
                let ms = self.rng.between(1_000, 14_000);
                if ms + 1_000 >= SESSION_MS {
                    self.causes += 2;
                }
                self.clients[n].busy_until = self.clock_ms + ms;
            }
            _ => {}
        }
    }

    fn run(&mut self) {
        for _round in 0..50 {
            self.act();
            for _ in 0..self.rng.between(1, 20) {
                self.turn();
            }
        }
        // Peace: everybody comes to rest in one generation, and each part is owned once.
        for _ in 0..400 {
            self.turn();
        }
        for (n, c) in self.clients.iter().enumerate() {
            assert!(matches!(c.state, Doing::Out | Doing::Stable), "client {n} never came to rest: {c:?}");
            if c.state == Doing::Stable {
                assert_eq!(c.generation, self.generation, "client {n}: {c:?}");
            }
        }
        assert!(self.rebalances <= self.causes, "{} rebalances for {} causes", self.rebalances, self.causes);
        let mut parts: Vec<_> = self.clients.iter().filter_map(|c| c.assignment.clone()).collect();
        let count = parts.len();
        parts.sort();
        parts.dedup();
        assert_eq!(parts.len(), count, "two own one part");
        let unanswered = self.rig.soft.live.values().map(|l| l.describe().members.len()).sum::<usize>();
        let stable = self.clients.iter().filter(|c| c.state == Doing::Stable).count();
        assert_eq!(unanswered, stable, "no ghost is left in the group");
        self.rig.failover();
        self.turn();
        for c in &self.clients {
            assert!(matches!(c.state, Doing::Out | Doing::Stable), "a failover at rest disturbs nobody: {c:?}");
        }
    }

    fn turn(&mut self) {
        self.rig.pass(500);
        self.clock_ms += 500;
        for n in 0..self.clients.len() {
            self.step(n);
        }
    }
}

#[test]
fn fifty_rounds_of_joins_leaves_kills_and_pauses_cost_one_rebalance_per_cause() {
    for seed in 0..200 {
        let delay = [0, 3_000][seed as usize % 2];
        Storm::new(seed, delay).run();
    }
}
