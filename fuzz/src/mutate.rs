//! Pure. A seeded mutator of bytes.

use catchwater_base::Rng;

/// Numbers that break length fields.
const NASTY: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX, 61];

/// One to six changes of `input`; `other` is something to splice with.
pub fn mutate(input: &[u8], other: &[u8], rng: &mut Rng, bytes_max: usize) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..rng.between(1, 6) {
        change(&mut out, other, rng);
    }
    out.truncate(bytes_max);
    out
}

fn change(out: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.below(out.len() as u64 + 1) as usize;
    match rng.below(9) {
        0 if at < out.len() => out[at] ^= 1 << rng.below(8),
        1 if at < out.len() => out[at] = rng.next_u64() as u8,
        2 => {
            let number = NASTY[rng.below(NASTY.len() as u64) as usize];
            let width = [1, 2, 4, 8][rng.below(4) as usize];
            let bytes = if rng.chance(500_000) {
                number.to_be_bytes()[8 - width..].to_vec()
            } else {
                number.to_le_bytes()[..width].to_vec()
            };
            for (to, from) in out.iter_mut().skip(at).zip(bytes) {
                *to = from;
            }
        }
        3 => out.insert(at, rng.next_u64() as u8),
        4 if at < out.len() => {
            let len = rng.between(1, 16).min((out.len() - at) as u64) as usize;
            out.drain(at..at + len);
        }
        5 => out.truncate(at),
        6 if at < out.len() => {
            let len = rng.between(1, 64).min((out.len() - at) as u64) as usize;
            let piece = out[at..at + len].to_vec();
            let to = rng.below(out.len() as u64 + 1) as usize;
            out.splice(to..to, piece);
        }
        7 if !other.is_empty() => {
            let from = rng.below(other.len() as u64) as usize;
            let len = rng.between(1, 256).min((other.len() - from) as u64) as usize;
            out.splice(at..at, other[from..from + len].iter().copied());
        }
        // A whole other input, but for the front of this one: heads stay, tails change.
        8 if !other.is_empty() => {
            out.truncate(at);
            out.extend_from_slice(&other[at.min(other.len())..]);
        }
        _ => out.push(rng.next_u64() as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_bytes_and_the_bound_holds() {
        let run = |seed| {
            let mut rng = Rng::new(seed);
            (0..200).map(|_| mutate(b"some seed to begin with", b"another one", &mut rng, 30)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(3).iter().all(|m| m.len() <= 30));
    }
}
