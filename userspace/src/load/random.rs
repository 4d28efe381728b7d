//! Seeded random numbers: the same seed gives the same run, whichever other random choices are made meanwhile.
//!
//! ChaCha has 2^64 independent streams for one seed: each purpose, and each client, draws from a stream of its own, so
//! that one more draw of one of them does not move all others. `rand` promises the same numbers in every version for
//! its ChaCha generators, which it does not for its default ones.

use rand::SeedableRng;
pub(crate) use rand::rngs::ChaCha8Rng as Generator;

/// What random numbers are drawn for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// When requests are meant to start.
    Schedule = 1,
    /// Which client does a request.
    Turns = 2,
    /// How large payloads are.
    Payload = 3,
    /// Which connection of a client does a request.
    Balance = 4,
    /// How long a backend works on a request.
    Service = 5,
    /// How large answers are asked for.
    Answer = 6,
}

/// The generator of the `which`-th of those who draw for `purpose`.
pub(crate) fn generator(seed: u64, purpose: Purpose, which: usize) -> Generator {
    let mut generator = Generator::seed_from_u64(seed);
    generator.set_stream((which as u64) << 8 | purpose as u64);
    generator
}

/// A seed for a run that was given none; short enough to be typed again.
pub fn fresh_seed() -> u64 {
    let mut bytes = [0; 4];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    // Without random bytes (a kernel that has just booted) any seed will do: it is printed.
    if filled.is_ok() {
        u64::from(u32::from_ne_bytes(bytes))
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    #[test]
    fn a_seed_gives_the_same_numbers_and_purposes_share_none() {
        let first = |purpose, which| generator(7, purpose, which).next_u64();
        assert_eq!(first(Purpose::Schedule, 0), first(Purpose::Schedule, 0));
        assert_ne!(first(Purpose::Schedule, 0), first(Purpose::Turns, 0));
        assert_ne!(first(Purpose::Balance, 0), first(Purpose::Balance, 1));
    }
}
