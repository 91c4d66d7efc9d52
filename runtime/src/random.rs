//! Random bytes of the operating system: ids that must be unguessable, and seeds.

use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// Fills `out`.
pub fn fill(out: &mut [u8]) -> io::Result<()> {
    #[cfg(sim)]
    if crate::sim::fill(out) {
        return Ok(());
    }
    let mut have = 0;
    while have < out.len() {
        have += getrandom(&mut out[have..], GetRandomFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let (mut a, mut b) = ([0u8; 16], [0u8; 16]);
        fill(&mut a).expect("random bytes");
        fill(&mut b).expect("random bytes");
        assert_ne!(a, b);
    }
}
