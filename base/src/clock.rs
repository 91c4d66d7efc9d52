//! Pure. Two clocks as values: monotone time for deadlines, wall time for timestamps that outlive a restart.
//!
//! Nothing below rank 4 reads a clock; `Now` comes in as an argument. `catchwater-runtime::time` implements [`Clock`].

use std::fmt;
use std::time::Duration;

/// Monotone time: nanoseconds since the process started. Never goes back; meaningless in another process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(u64);

impl Mono {
    pub const ZERO: Mono = Mono(0);
    /// Later than every real moment: "no deadline".
    pub const NEVER: Mono = Mono(u64::MAX);

    pub const fn from_nanos(nanos: u64) -> Self {
        Mono(nanos)
    }
    pub const fn from_millis(ms: u64) -> Self {
        Mono(ms.saturating_mul(1_000_000))
    }
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
    /// This moment plus `ms` milliseconds, saturating at [`Mono::NEVER`].
    pub const fn plus_millis(self, ms: u64) -> Self {
        Mono(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }
    pub fn plus(self, by: Duration) -> Self {
        Mono(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}.{:06}ms", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Wall time: microseconds since 1970-01-01 UTC. May jump either way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Wall(i64);

impl Wall {
    pub const fn from_micros(micros: i64) -> Self {
        Wall(micros)
    }
    pub const fn from_millis(ms: i64) -> Self {
        Wall(ms.saturating_mul(1000))
    }
    pub const fn as_micros(self) -> i64 {
        self.0
    }
    /// Milliseconds, rounded down: Kafka's unit.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// Both clocks read at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

/// Reads the clocks. Implemented by `runtime::time::SystemClock` and by the simulator.
pub trait Clock: Send + Sync {
    fn now(&self) -> Now;
    /// `now().mono`, for who does not need the other.
    fn mono(&self) -> Mono {
        self.now().mono
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_millis_round_down_before_the_epoch() {
        assert_eq!(Wall::from_micros(-1).as_millis(), -1);
        assert_eq!(Wall::from_micros(1999).as_millis(), 1);
    }

    #[test]
    fn mono_saturates_and_never_underflows() {
        assert_eq!(Mono::NEVER.plus_millis(1), Mono::NEVER);
        assert_eq!(Mono::ZERO.since(Mono::from_millis(5)), Duration::ZERO);
    }
}
