//! Fuzz targets and the input they get. A [`Target`] is a check of any bytes, with samples of sound
//! ones; it lives beside the code that it checks, in a file called `fuzz.rs`. Two drivers run it: the unit
//! tests whose names begin with `fuzz_`, through [`Target::run`], and cargo-fuzz with coverage guidance,
//! through the programs in `fuzz/fuzz_targets`.
//!
//! `cargo test --workspace --lib fuzz_` runs all unit tests of that kind, each for a second or for as many
//! milliseconds as `HOSTEL_FUZZ_MS` says. A failure names the seed of its input, and `HOSTEL_FUZZ_SEED`
//! makes the same input again.

mod choices;

pub use choices::Choices;

use std::{
    env, fs, io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant},
};

/// The length of inputs without a sample, in bytes.
const NOISE_BYTES: usize = 512;

/// How many inputs without a sample a corpus begins with.
const NOISE_SEEDS: u64 = 16;

/// A check of any bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its program and of its corpus.
    pub name: &'static str,
    /// Sound inputs, which are mutated. Empty for a check that takes its input as [`Choices`], for which
    /// all bytes are equally good.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics when the code under test breaks a promise.
    pub check: fn(&[u8]),
}

impl Target {
    /// Checks one mutated seed after the other, without coverage guidance.
    pub fn run(&self) {
        let given = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let seeds = (self.seeds)();
        if let Some(seed) = given("HOSTEL_FUZZ_SEED") {
            return (self.check)(&input(&seeds, seed));
        }
        let time = Duration::from_millis(given("HOSTEL_FUZZ_MS").unwrap_or(1000));
        let (since, mut inputs) = (Instant::now(), 0_u64);
        while since.elapsed() < time {
            let seed = fastrand::u64(..);
            let bytes = input(&seeds, seed);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.check)(&bytes))) {
                let (name, shown) = (self.name, bytes.escape_ascii());
                eprintln!("target {name} failed: HOSTEL_FUZZ_SEED={seed}, input b\"{shown}\"");
                resume_unwind(panic);
            }
            inputs += 1;
        }
        println!("{}: {inputs} inputs", self.name);
    }

    /// Writes the seeds into `dir`, where libFuzzer finds its first inputs.
    pub fn write_seeds(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut seeds = (self.seeds)();
        if seeds.is_empty() {
            seeds = (0..NOISE_SEEDS).map(noise).collect();
        }
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{number}")), seed)?;
        }
        Ok(())
    }
}

fn input(seeds: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let noise = noise(seed);
    if seeds.is_empty() {
        return noise;
    }
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    Choices::new(&noise).near(&seeds)
}

fn noise(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; random.usize(..=NOISE_BYTES)];
    random.fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_input_again() {
        let seeds = [b"sound".to_vec()];
        let inputs = |seeds: &[Vec<u8>]| (0..100).map(|seed| input(seeds, seed)).collect();
        let (near, other): (Vec<_>, Vec<_>) = (inputs(&seeds), inputs(&[]));
        assert_eq!(inputs(&seeds), near);
        assert!(near.iter().any(|input| input == b"sound"));
        assert!(near.iter().any(|input| input != b"sound"));
        assert_ne!(near, other);
    }
}
