//! Rates: how often tasks may begin. A rate is a bucket of permits (GCRA): it begins full, each task takes
//! one, and they come back evenly. So no more tasks begin within a time than the burst and what the rate
//! gives in that time. All of it is whole numbers, so that no backend rounds in its own way.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// The largest count and the largest burst of a rate.
const MAX: u32 = 1_000_000;

/// What a text may be.
const ACCEPTED: &str = "expected COUNT/UNIT or COUNT/UNIT burst BURST, such as \"100/s\", \"5000/h\" or \
     \"60/m burst 10\": COUNT and BURST are whole numbers from 1 to 1000000, UNIT is s, m, h or d";

/// One permit, in units of which each rate gives a whole number a millisecond. The largest bucket, of `MAX`
/// permits, has fewer units than the largest whole number of a double.
pub const PERMIT: u64 = 24 * 60 * 60 * 1000;

/// How often tasks may begin, and how many at once. Its text is `COUNT/UNIT`, or `COUNT/UNIT burst BURST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    count: u32,
    unit: RateUnit,
    burst: u32,
}

/// The time that the count of a rate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum RateUnit {
    Second,
    Minute,
    Hour,
    Day,
}

/// What was taken of a rate's bucket and has not come back; nothing by default. Valid for any rate, so that a
/// change of the rate neither fills nor empties the bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// How much is missing from a full bucket at `at`: `PERMIT` for each permit.
    pub units: u64,
    /// In milliseconds, by the clock of the queue backend.
    pub at: u64,
}

impl RateUnit {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    fn letter(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
        }
    }

    fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
        }
    }
}

impl Rate {
    /// How much comes back in a millisecond.
    pub fn units_per_ms(self) -> u64 {
        u64::from(self.count) * (PERMIT / 1000 / self.unit.seconds())
    }

    /// The size of the bucket in units.
    pub fn capacity(self) -> u64 {
        u64::from(self.burst) * PERMIT
    }

    /// The most tasks that may begin at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// Returns how many tasks may begin now.
    pub fn permits(self, spent: Spent, now: u64) -> u32 {
        let left = self.capacity().saturating_sub(self.missing(spent, now));
        u32::try_from(left / PERMIT).unwrap_or(u32::MAX)
    }

    /// Takes permits, as many as `permits` returns at most.
    pub fn take(self, spent: Spent, now: u64, count: u32) -> Spent {
        Spent {
            units: self.missing(spent, now) + u64::from(count) * PERMIT,
            at: spent.at.max(now),
        }
    }

    /// Returns when the next task may begin; in the past if one may now.
    pub fn next_at(self, spent: Spent) -> u64 {
        let excess = (spent.units + PERMIT).saturating_sub(self.capacity());
        spent.at + excess.div_ceil(self.units_per_ms())
    }

    /// Returns how long after `now` the next task may begin: zero if one may now.
    pub fn wait(self, spent: Spent, now: u64) -> Duration {
        Duration::from_millis(self.next_at(spent).saturating_sub(now))
    }

    /// Returns when the bucket is full again: from then on `spent` is as good as none.
    pub fn full_at(self, spent: Spent) -> u64 {
        spent.at + spent.units.div_ceil(self.units_per_ms())
    }

    /// What is missing from the bucket now. A clock that is behind `spent` gives nothing back.
    fn missing(self, spent: Spent, now: u64) -> u64 {
        let per_ms = self.units_per_ms();
        let elapsed = now.saturating_sub(spent.at);
        if elapsed > spent.units / per_ms {
            return 0;
        }
        spent.units.saturating_sub(elapsed * per_ms)
    }

    /// The burst of a rate that is given without one: what comes within a second, and at least one.
    fn default_burst(count: u32, unit: RateUnit) -> u32 {
        let seconds = u32::try_from(unit.seconds()).unwrap_or(u32::MAX);
        count.div_ceil(seconds)
    }
}

/// Parses a whole number from 1 to `MAX`.
fn number(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = is_plain.then(|| text.parse().ok())??;
    (1..=MAX).contains(&number).then_some(number)
}

fn parse(text: &str) -> Option<Rate> {
    let mut words = text.split_ascii_whitespace();
    let (count, unit) = words.next()?.split_once('/')?;
    let count = number(count)?;
    let unit = RateUnit::ALL
        .into_iter()
        .find(|known| known.letter() == unit)?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => Rate::default_burst(count, unit),
        (Some("burst"), Some(burst), None) => number(burst)?,
        _ => return None,
    };
    Some(Rate { count, unit, burst })
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        parse(given).ok_or_else(|| {
            // The text may be anything.
            let shown: String = given.chars().take(64).collect();
            format!("{shown:?} is no rate; {ACCEPTED}")
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, unit, burst } = *self;
        write!(f, "{count}/{}", unit.letter())?;
        if burst != Self::default_burst(count, unit) {
            write!(f, " burst {burst}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(given: String) -> Result<Self, String> {
        given.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_survive_a_round_trip_through_text() {
        for (given, written, burst) in [
            ("100/s", "100/s", 100),
            ("60/m", "60/m", 1),
            ("61/m", "61/m", 2),
            ("5000/h", "5000/h", 2),
            ("1/d", "1/d", 1),
            (" 60/m  burst 10 ", "60/m burst 10", 10),
            ("7/s burst 7", "7/s", 7),
            ("1000000/s burst 1000000", "1000000/s", 1_000_000),
        ] {
            let rate = rate(given);
            assert_eq!((rate.to_string().as_str(), rate.burst()), (written, burst));
            assert_eq!(written.parse(), Ok(rate));
            let json = serde_json::to_string(&rate).unwrap();
            assert_eq!(json, format!("{written:?}"));
            assert_eq!(serde_json::from_str::<Rate>(&json).unwrap(), rate);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_what_is() {
        for bad in [
            "",
            "100",
            "/s",
            "100/",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "1e3/s",
            "NaN/s",
            "inf/s",
            "1000001/s",
            "4294967297/s",
            "99999999999999999999999/s",
            "1/x",
            "1/S",
            "1/sec",
            "1 /s",
            "1/s burst",
            "1/s burst 0",
            "1/s burst -1",
            "1/s burst 1000001",
            "1/s burst 1 2",
            "1/s bursts 1",
            "\u{0661}/s",
        ] {
            let error = bad.parse::<Rate>().unwrap_err();
            assert!(error.contains("UNIT is s, m, h or d"), "{bad}: {error}");
        }
        let long = "9".repeat(10_000).parse::<Rate>().unwrap_err();
        assert!(long.len() < 400, "{long}");
    }

    #[test]
    fn the_bucket_begins_full_and_fills_evenly() {
        let rate = rate("60/m burst 3");
        let mut spent = Spent::default();
        assert_eq!(rate.permits(spent, 0), 3);
        spent = rate.take(spent, 5000, 3);
        assert_eq!(
            (rate.permits(spent, 5999), rate.permits(spent, 6000)),
            (0, 1)
        );
        assert_eq!(rate.next_at(spent), 6000);
        assert_eq!(rate.wait(spent, 5400), Duration::from_millis(600));
        assert_eq!(rate.wait(spent, 6100), Duration::ZERO);
        assert_eq!((rate.permits(spent, 7999), rate.full_at(spent)), (2, 8000));
        assert_eq!(rate.permits(spent, u64::MAX), 3);
        // A clock that went back gives nothing.
        assert_eq!(rate.permits(spent, 1000), 0);
        assert_eq!(rate.take(spent, 1000, 0), spent);
    }

    #[test]
    fn another_rate_takes_over_what_was_spent() {
        let spent = rate("1/h burst 10").take(Spent::default(), 1000, 10);
        let (fast, small) = (rate("10/s burst 10"), rate("1/s"));
        assert_eq!(
            (fast.permits(spent, 1000), fast.permits(spent, 1500)),
            (0, 5)
        );
        // Ten permits are missing from a bucket of one.
        assert_eq!(
            (small.permits(spent, 9000), small.next_at(spent)),
            (0, 11_000)
        );
        assert_eq!(small.permits(spent, 11_000), 1);
    }

    #[test]
    fn no_more_begin_than_the_burst_and_what_the_rate_gives() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let unit = RateUnit::ALL[random.below(4) as usize].letter();
            let (count, burst) = (1 + random.below(2000), 1 + random.below(50));
            let rate = rate(&format!("{count}/{unit} burst {burst}"));
            let (mut spent, mut now, mut begun) = (Spent::default(), 1_700_000_000_000, Vec::new());
            for _ in 0..200 {
                now += random.below(3000);
                let permits = rate.permits(spent, now);
                assert_eq!(permits > 0, rate.next_at(spent) <= now, "seed {seed}");
                let taken = random.below(u64::from(permits) + 1) as u32;
                spent = rate.take(spent, now, taken);
                assert!(spent.units <= rate.capacity());
                begun.push((now, u64::from(taken)));
            }
            // In every window, by exact arithmetic.
            for first in 0..begun.len() {
                let mut sum = 0;
                for &(at, taken) in &begun[first..] {
                    sum += taken;
                    let given = (at - begun[first].0) * rate.units_per_ms();
                    assert!(sum * PERMIT <= rate.capacity() + given, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn the_largest_numbers_fit_into_a_double() {
        const LARGEST: u64 = 1 << 53;
        let rate = rate("1000000/s burst 1000000");
        assert!(rate.capacity() + rate.units_per_ms() < LARGEST);
        let spent = rate.take(Spent::default(), LARGEST, MAX);
        assert!(rate.full_at(spent) < LARGEST + 1001);
    }

    /// The numbers of a test (SplitMix64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % end
        }
    }
}
