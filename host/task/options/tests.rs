//! What clients may ask for, and how it is stored.

use super::*;

const LIMITS: OptionLimits = OptionLimits {
    delay: Duration::from_secs(100),
    timeout: Duration::from_secs(10),
    attempts: 5,
    keep: Duration::from_secs(1000),
};

const NOW: UnixMs = UnixMs(1_000_000);

fn validate(given: GivenOptions) -> Result<TaskOptions, Vec<&'static str>> {
    let mut violations = Vec::new();
    let options = TaskOptions::validate(&given, &LIMITS, NOW, &mut violations);
    if violations.is_empty() {
        Ok(options)
    } else {
        Err(violations.into_iter().map(|it| it.field).collect())
    }
}

#[test]
fn what_is_not_given_is_default() {
    let options = validate(GivenOptions::default()).unwrap();
    assert!(options.is_default());
    assert_eq!(options.due_at(NOW), NOW);
    let of_type = RetryPolicy::default();
    assert_eq!(options.retry_policy(of_type), of_type);
}

#[test]
fn all_faults_are_reported_at_once_and_each_edge_is_accepted() {
    let edge = GivenOptions {
        delay_ms: 100_000,
        start_by_ms: NOW.0 + 100_000,
        timeout_ms: 10_000,
        max_attempts: 5,
        backoff_initial_ms: 7 * 24 * 3600 * 1000,
        backoff_max_ms: 7 * 24 * 3600 * 1000,
        result_ttl_ms: 1_000_000,
        group: "g".into(),
        tags: vec!["t".into(); MAX_TAGS],
        unique_key: "k".into(),
        unique_for_ms: 1_000_000,
        ..GivenOptions::default()
    };
    let options = validate(edge).unwrap();
    assert_eq!(options.tags.len(), 1, "tags are a set");
    assert_eq!(options.due_at(NOW), UnixMs(NOW.0 + 100_000));
    let beyond = GivenOptions {
        delay_ms: 100_001,
        start_by_ms: 1,
        timeout_ms: 10_001,
        max_attempts: 6,
        backoff_initial_ms: u64::MAX,
        backoff_max_ms: 1,
        result_ttl_ms: u64::MAX,
        group: "a b".into(),
        tags: vec![String::new(); MAX_TAGS + 1],
        unique_for_ms: u64::MAX,
        ..GivenOptions::default()
    };
    let fields = validate(beyond).unwrap_err();
    for field in [
        "delay_ms",
        "start_by_ms",
        "timeout_ms",
        "max_attempts",
        "backoff_initial_ms",
        "backoff_max_ms",
        "result_ttl_ms",
        "group",
        "tags",
        "unique_for_ms",
    ] {
        assert!(fields.contains(&field), "{field}: {fields:?}");
    }
    let both = GivenOptions {
        delay_ms: 1,
        run_at_ms: 1,
        ..GivenOptions::default()
    };
    assert_eq!(validate(both).unwrap_err(), ["run_at_ms"]);
    let far = GivenOptions {
        run_at_ms: NOW.0 + 100_001,
        ..GivenOptions::default()
    };
    assert_eq!(validate(far).unwrap_err(), ["run_at_ms"]);
}

#[test]
fn a_time_in_the_past_is_due_now() {
    let options = validate(GivenOptions {
        run_at_ms: 1,
        ..GivenOptions::default()
    });
    assert_eq!(options.unwrap().due_at(NOW), NOW);
}

#[test]
fn options_override_the_policy_of_the_type() {
    let options = TaskOptions {
        max_attempts: Some(2),
        backoff_max: Some(Duration::from_millis(10)),
        ..TaskOptions::default()
    };
    let policy = options.retry_policy(RetryPolicy::default());
    assert_eq!(policy.max_attempts, 2);
    // The delay of the type is cut to the longest one of the task.
    assert_eq!(policy.backoff_initial, Duration::from_millis(10));
    assert_eq!(policy.backoff_max, Duration::from_millis(10));
}

#[test]
fn each_priority_gets_its_share() {
    let cycle = SHARES.iter().sum();
    let turns: Vec<_> = (0..cycle).map(Priority::of_turn).collect();
    for (priority, share) in Priority::ALL.into_iter().zip(SHARES) {
        let turns = turns.iter().filter(|turn| **turn == priority).count() as u64;
        assert_eq!(turns, share, "{priority}");
        assert_eq!(priority.as_str().parse(), Ok(priority));
    }
}

#[test]
fn stored_options_have_what_was_given_only() {
    // What a store has must be readable by every later version.
    let text = |options: &TaskOptions| serde_json::to_string(options).unwrap();
    assert_eq!(text(&TaskOptions::default()), "{}");
    let options = validate(GivenOptions {
        delay_ms: 1500,
        priority: Priority::Low,
        group: "g".into(),
        tags: vec!["b".into(), "a".into()],
        unique_key: "k".into(),
        ..GivenOptions::default()
    });
    let options = options.unwrap();
    assert_eq!(
        text(&options),
        r#"{"start":{"after":{"secs":1,"nanos":500000000}},"priority":"low","group":"g","tags":["a","b"],"unique":{"key":"k"}}"#
    );
    let read: TaskOptions = serde_json::from_str(&text(&options)).unwrap();
    assert_eq!(read, options);
}
