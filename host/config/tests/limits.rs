//! The limits of task types and of their groups.

use super::{error, parse};

#[test]
fn limits_of_types_and_groups_are_read_and_checked() {
    let section = "[plugin.a.task.t]\nmax_rate = \"60/m burst 10\"\nmax_pending = 7\n\
                   [plugin.a.task.t.group]\nmax_concurrency = 2\nmax_rate = \"5/h\"";
    let config = parse(section).unwrap();
    let overrides = &config.plugin["a"].task["t"];
    assert_eq!(overrides.max_rate, "60/m burst 10".parse().ok());
    assert_eq!(overrides.group.max_rate, "5/h".parse().ok());
    let (limits, of_group) = (overrides.limits(), overrides.group.limits());
    assert!(limits.max_rate.is_some() && limits.max_pending.is_some());
    assert!(limits.max_concurrency.is_none() && of_group.max_concurrency.is_some());
    for bad in ["0/s", "-1/s", "NaN/s", "1/fortnight", "1/s burst 9999999"] {
        let error = error(&format!("[plugin.a.task.t.group]\nmax_rate = {bad:?}"));
        assert!(error.contains("plugin.a.task.t.group.max_rate"), "{error}");
        assert!(error.contains("UNIT is s, m, h or d"), "{error}");
    }
    let zero = error("[plugin.a.task.t]\nmax_pending = 0");
    assert!(zero.contains("from 1 to"), "{zero}");
}
