//! Cron patterns in a time zone. `croner` finds the times of a pattern on a wall clock that is never set;
//! this file decides what becomes of them where the clocks of a zone are set forward or back.
//!
//! A pattern is *fixed* if its second, minute and hour are all given, as one value or several. A fixed
//! time that does not exist fires at the first moment that does; one that comes twice fires the first
//! time only. Any other pattern follows the wall clock as it runs: it passes over times that do not
//! exist, and fires at both of those that come twice. So `@hourly` and `*/15 * * * *` keep to real time.

use croner::{Cron, errors::CronError, parser::CronParser, parser::Year};
use hostel_task::UnixMs;
use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};
use std::sync::LazyLock;

/// Longer than any two offsets of a zone differ.
const DAYS: SignedDuration = SignedDuration::from_hours(48);

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A cron pattern in a time zone.
#[derive(Debug, Clone)]
pub(crate) struct ZonedCron {
    cron: Cron,
    fixed: bool,
    zone: TimeZone,
}

/// Parses a pattern of five or six fields, or a nickname such as `@hourly`, and says whether it is fixed.
pub(crate) fn parse(pattern: &str) -> Result<(Cron, bool), String> {
    if pattern.trim().is_empty() {
        return Err("it is empty".into());
    }
    if !pattern.is_ascii() {
        return Err("only ASCII characters are allowed".into());
    }
    let fields: Vec<_> = pattern.split_ascii_whitespace().collect();
    let nickname = fields[0].starts_with('@');
    if nickname && fields.len() == 1 {
        const NICKNAMES: [&str; 6] = [
            "@yearly",
            "@annually",
            "@monthly",
            "@weekly",
            "@daily",
            "@hourly",
        ];
        let known = |name: &&str| name.eq_ignore_ascii_case(fields[0]);
        if !NICKNAMES.iter().any(known) {
            let known = NICKNAMES.join(", ");
            return Err(format!(
                "{:?} is not known; the nicknames are {known}",
                fields[0]
            ));
        }
    } else if !matches!(fields.len(), 5 | 6) {
        return Err(format!(
            "{} fields; a pattern has five (minute hour day month weekday), or six with a second first, \
             or is a nickname such as @hourly",
            fields.len()
        ));
    }
    let parser = CronParser::builder().year(Year::Disallowed).build();
    let cron = parser.parse(&fields.join(" ")).map_err(explain)?;
    let fixed = if nickname {
        !fields[0].eq_ignore_ascii_case("@hourly")
    } else {
        let clock = &fields[..fields.len() - 3];
        !clock.iter().any(|field| field.starts_with(['*', '?']))
    };
    Ok((cron, fixed))
}

fn explain(error: CronError) -> String {
    match error {
        CronError::InvalidPattern(what)
        | CronError::IllegalCharacters(what)
        | CronError::ComponentError(what) => what,
        other => other.to_string(),
    }
}

/// Returns the time zone of an IANA name.
pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
    if let Ok(zone) = ZONES.get(name) {
        return Ok(zone);
    }
    let known: Vec<_> = ZONES.available().map(|name| name.to_string()).collect();
    let distance =
        |known: &String| strsim::osa_distance(&known.to_lowercase(), &name.to_lowercase());
    let nearest = known.iter().min_by_key(|known| distance(known));
    let hint = nearest.filter(|nearest| distance(nearest) <= 4);
    let hint = hint.map_or_else(
        || "; use a name such as Europe/Berlin or UTC".into(),
        |nearest| format!("; did you mean {nearest}?"),
    );
    Err(format!("there is no time zone {name:?}{hint}"))
}

impl ZonedCron {
    pub fn new((cron, fixed): (Cron, bool), zone: TimeZone) -> Self {
        Self { cron, fixed, zone }
    }

    /// Returns the first time after `after`, in whole seconds; `None` if there is none before the year
    /// 5000.
    pub fn next_after(&self, after: UnixMs) -> Option<UnixMs> {
        let after = i64::try_from(after.0 / 1000).ok()?;
        let after = Timestamp::from_second(after).ok()?;
        let next = if self.fixed {
            self.next_fixed(after)
        } else {
            self.next_wildcard(after)
        };
        let second = u64::try_from(next?.as_second()).ok()?;
        Some(UnixMs(second.checked_mul(1000)?))
    }

    /// Each time of the wall clock stands for one moment, and these moments never go back while the times
    /// go on. So the first moment after `after` belongs to a time after that of `after`.
    fn next_fixed(&self, after: Timestamp) -> Option<Timestamp> {
        let mut wall = self.zone.to_datetime(after);
        loop {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            let moment = self.moment(wall)?;
            // In the second pass of an hour that comes twice the times of the first are still behind.
            if moment > after {
                return Some(moment);
            }
        }
    }

    /// Returns the moment of a fixed time.
    fn moment(&self, wall: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                // The time that the new offset gives is before the moment at which the clock is set.
                let before = after.to_timestamp(wall).ok()?;
                let mut set = self.zone.following(before);
                let set = set.find(|transition| transition.offset() == after)?;
                Some(set.timestamp())
            }
        }
    }

    /// Between two moments at which the clock is set, the wall clock has one offset, and all of its times
    /// exist once.
    fn next_wildcard(&self, after: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        loop {
            let offset = self.zone.to_offset(from);
            let wall = offset.to_datetime(from);
            let wall = self.cron.find_next_occurrence(&wall, inclusive).ok()?;
            let found = offset.to_timestamp(wall).ok()?;
            let set = self.zone.following(from).next();
            let set = set.map(|transition| transition.timestamp());
            let Some(set) = set.filter(|&set| set <= found) else {
                return Some(found);
            };
            // From two days on, no time of the wall clock is before that of `from`, so nothing matches
            // until about `found`, whatever the offset is then.
            let far = found.checked_sub(DAYS).ok()?;
            let is_far = set > from.checked_add(DAYS).ok()?;
            from = if is_far { set.max(far) } else { set };
            inclusive = true;
        }
    }
}
