//! Whether the memory of a Redis is full but for the reserve that submissions leave free.
//! `scripts/shared/memory.lua` enforces the limit, by the same computation.

/// Whether submissions are refused, according to the text of `INFO memory`.
pub(super) fn is_full(info: &str, reserve_percent: u64) -> bool {
    let number = |name: &str| {
        let value = |line: &str| {
            line.strip_prefix(name)?
                .strip_prefix(':')?
                .trim()
                .parse()
                .ok()
        };
        info.lines().find_map(value).unwrap_or(0u64)
    };
    let most = number("maxmemory");
    let used = number("used_memory").saturating_sub(number("mem_not_counted_for_evict"));
    most > 0 && u128::from(used) * 100 >= u128::from(most) * u128::from(100 - reserve_percent)
}

/// The text of a refusal, for clients and operators.
pub(super) fn full(reserve_percent: u64) -> String {
    format!(
        "the memory of Redis is full but for the {reserve_percent} % of its maxmemory that are kept for \
         the ends of tasks (queue.reserve_percent); wait until tasks have ended and are forgotten \
         (queue.keep_completed_ms), or raise maxmemory"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_counts_as_used() {
        let info = |used, most| {
            format!(
                "# Memory\r\nused_memory:{used}\r\nused_memory_rss:9\r\nmaxmemory:{most}\r\n\
                 mem_not_counted_for_evict:10\r\n"
            )
        };
        assert!(!is_full(&info(99, 100), 10));
        assert!(is_full(&info(100, 100), 10));
        assert!(!is_full(&info(100, 100), 0));
        assert!(is_full(&info(110, 100), 0));
        assert!(
            !is_full(&info(1000, 0), 10),
            "without a maxmemory there is no limit"
        );
        assert!(!is_full("", 10));
    }
}
