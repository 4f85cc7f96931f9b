//! The delay of each firing, which follows from the schedule's name and the time, so that all nodes agree.

use super::spec::ScheduleSpec;
use hostel_task::UnixMs;
use std::time::Duration;

/// Returns when the firing for `time` is made: later by a part of the jitter that follows from the name
/// and the time, so that all nodes agree.
pub(crate) fn fire_at(spec: &ScheduleSpec, time: UnixMs) -> UnixMs {
    let jitter = ms(spec.jitter);
    if jitter == 0 {
        return time;
    }
    let name = spec.name.as_str().bytes();
    let bytes = name.chain(time.0.to_le_bytes());
    // FNV-1a, and the last steps of MurmurHash3, which spread the few bits that differ.
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    let part = (u128::from(hash) * u128::from(jitter + 1)) >> 64;
    UnixMs(time.0.saturating_add(u64::try_from(part).unwrap_or(0)))
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
