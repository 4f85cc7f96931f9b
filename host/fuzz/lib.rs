//! Runs checks against near-valid input: valid samples with bytes changed, inserted, removed or repeated. A
//! fuzz target is a unit test whose name begins with `fuzz_`; `cargo test --lib fuzz_` runs all of them, for
//! a second each or for `HOSTEL_FUZZ_MS` milliseconds. A failure prints the seed of its input, and
//! `HOSTEL_FUZZ_SEED` repeats it.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

/// A source of near-valid input.
pub struct Near(fastrand::Rng);

/// Runs `check` with one input after another.
pub fn each(check: impl Fn(&mut Near)) {
    let setting = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = setting("HOSTEL_FUZZ_SEED") {
        return check(&mut Near(fastrand::Rng::with_seed(seed)));
    }
    let time = Duration::from_millis(setting("HOSTEL_FUZZ_MS").unwrap_or(1000));
    let (since, mut inputs) = (Instant::now(), 0_u64);
    while since.elapsed() < time {
        let seed = fastrand::u64(..);
        let run = || check(&mut Near(fastrand::Rng::with_seed(seed)));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            eprintln!("this input failed: HOSTEL_FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
        inputs += 1;
    }
    println!("{inputs} inputs");
}

impl Near {
    /// The random numbers behind the input.
    pub fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.0
    }

    /// One of `samples` with a few changes.
    pub fn bytes(&mut self, samples: &[&[u8]]) -> Vec<u8> {
        let mut bytes = samples[self.0.usize(..samples.len())].to_vec();
        for _ in 0..self.0.usize(..8) {
            self.change(&mut bytes);
        }
        bytes
    }

    /// One of `samples` with a few changes, as text.
    pub fn text(&mut self, samples: &[&str]) -> String {
        let samples: Vec<&[u8]> = samples.iter().map(|sample| sample.as_bytes()).collect();
        String::from_utf8_lossy(&self.bytes(&samples)).into_owned()
    }

    /// Nothing, or what `make` returns.
    pub fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.0.bool().then(|| make(self))
    }

    /// Any number, with numbers near the ends of the range more likely than others.
    pub fn number(&mut self) -> u64 {
        match self.0.u8(..4) {
            0 => self.0.u64(..4),
            1 => u64::MAX - self.0.u64(..4),
            2 => 1 << self.0.u32(..64),
            _ => self.0.u64(..),
        }
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let rng = &mut self.0;
        let length = bytes.len();
        let at = rng.usize(..=length);
        let end = length.min(at + rng.usize(..32));
        match rng.u8(..8) {
            0 => {
                if let Some(there) = bytes.get_mut(at) {
                    *there = rng.u8(..);
                }
            }
            1 => {
                if let Some(there) = bytes.get_mut(at) {
                    *there ^= 1 << rng.u8(..8);
                }
            }
            2 => {
                let more: Vec<u8> = (0..rng.usize(..16)).map(|_| rng.u8(..)).collect();
                bytes.splice(at..at, more);
            }
            3 => {
                let special = b"\0\xff\x7f\n\r\"'\\{}[]@:,=#/-0";
                bytes.insert(at, special[rng.usize(..special.len())]);
            }
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].to_vec();
                let to = rng.usize(..=length);
                bytes.splice(to..to, again);
            }
            6 => bytes.truncate(at),
            _ => {
                let more = vec![*bytes.get(at).unwrap_or(&b'a'); rng.usize(..1024)];
                bytes.splice(at..at, more);
            }
        }
    }
}
