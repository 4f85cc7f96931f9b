//! The conformance suite of the stores of limits: the contract of `LimitStore`, one case a sentence. Each
//! case needs a fresh, empty backend.

use super::helpers::name;
use crate::{LimitStore, MAX_LIMITS, Opened, PutLimits, StoredLimits};
use futures_util::future::join_all;
use hostel_task::{GivenLimit, GivenLimits, LimitScope, RuntimeLimits};

/// One rule of the contract. It closes the backend that it ran on.
pub type LimitCase = hostel_runtime::conformance::Case<Opened>;

macro_rules! cases {
    ($($case:ident,)*) => {
        const CASES: &[LimitCase] = &[$(LimitCase::new(
            stringify!($case),
            |opened| Box::pin(async move {
                $case(&*opened.limits).await;
                opened.tasks.close().await;
            }),
        )),*];
    };
}

cases! {
    limits_come_back_as_they_were_stored,
    limits_are_stored_over_the_expected_version_only,
    of_concurrent_changes_of_limits_each_is_stored,
    a_full_store_takes_no_new_limits,
}

/// The cases of every store.
pub fn limit_cases() -> impl Iterator<Item = LimitCase> {
    CASES.iter().copied()
}

fn pending(max: usize) -> GivenLimits {
    GivenLimits {
        max_pending: Some(GivenLimit::Max(max)),
        ..GivenLimits::default()
    }
}

async fn read(store: &dyn LimitStore) -> StoredLimits {
    // Before any was set there is nothing to be read.
    let read = store.limits(0).await.unwrap();
    read.unwrap_or_default()
}

/// Stores limits over whatever there is, and returns the version.
async fn put(store: &dyn LimitStore, scope: &LimitScope, limits: &GivenLimits) -> u64 {
    loop {
        let expected = read(store).await.version;
        match store.put_limits(scope, limits, expected).await.unwrap() {
            PutLimits::Stored(version) => return version,
            PutLimits::Changed => {}
            PutLimits::Full => panic!("{scope} does not fit"),
        }
    }
}

async fn limits_come_back_as_they_were_stored(store: &dyn LimitStore) {
    assert_eq!(store.limits(0).await.unwrap(), None);
    let (echo, acme) = (name("word:count"), name("acme"));
    let all = GivenLimits {
        max_concurrency: Some(GivenLimit::Max(1)),
        max_cluster_concurrency: Some(GivenLimit::Unlimited),
        max_rate: Some(GivenLimit::Max("60/m burst 5".parse().unwrap())),
        max_pending: Some(GivenLimit::Max(1_000_000_000)),
    };
    let scopes = [
        (LimitScope::Type(echo.clone()), all),
        (LimitScope::EachGroup(echo.clone()), pending(2)),
        (LimitScope::Group(echo.clone(), acme), pending(3)),
        (LimitScope::Type(name("other")), pending(4)),
    ];
    let mut expected = RuntimeLimits::default();
    let mut versions = vec![0];
    for (scope, limits) in &scopes {
        versions.push(put(store, scope, limits).await);
        expected.set(scope, *limits);
    }
    let stored = read(store).await;
    assert_eq!(stored.limits, expected);
    assert!(stored.damaged.is_empty());
    let latest = *versions.last().unwrap();
    assert_eq!(
        (stored.version, store.limits(latest).await.unwrap()),
        (latest, None)
    );
    // Others take their place, and none at all.
    let (scope, _) = &scopes[0];
    versions.push(put(store, scope, &pending(9)).await);
    expected.set(scope, pending(9));
    assert_eq!(read(store).await.limits, expected);
    for (scope, _) in &scopes {
        versions.push(put(store, scope, &GivenLimits::default()).await);
    }
    assert_eq!(read(store).await.limits, RuntimeLimits::default());
    let count = versions.len();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), count, "a version was used twice");
}

async fn limits_are_stored_over_the_expected_version_only(store: &dyn LimitStore) {
    let scope = LimitScope::Type(name("echo"));
    let first = put(store, &scope, &pending(1)).await;
    for expected in [0, first + 1, u64::MAX] {
        for limits in [pending(2), GivenLimits::default()] {
            let put = store.put_limits(&scope, &limits, expected).await.unwrap();
            assert_eq!(put, PutLimits::Changed);
        }
    }
    let stored = read(store).await;
    assert_eq!(
        (stored.version, stored.limits.get(&scope)),
        (first, pending(1))
    );
}

async fn of_concurrent_changes_of_limits_each_is_stored(store: &dyn LimitStore) {
    let scopes: Vec<_> = (0..8)
        .map(|n| LimitScope::Group(name("echo"), name(&format!("g{n}"))))
        .collect();
    let limits = pending(7);
    join_all(scopes.iter().map(|scope| put(store, scope, &limits))).await;
    let stored = read(store).await;
    for scope in &scopes {
        assert_eq!(stored.limits.get(scope), limits);
    }
}

async fn a_full_store_takes_no_new_limits(store: &dyn LimitStore) {
    let scope = |n: usize| LimitScope::Group(name("echo"), name(&format!("g{n}")));
    let mut version = 0;
    for n in 0..MAX_LIMITS {
        let put = store.put_limits(&scope(n), &pending(1), version).await;
        let PutLimits::Stored(stored) = put.unwrap() else {
            panic!("{n} limits are stored");
        };
        version = stored;
    }
    let one_more = store
        .put_limits(&scope(MAX_LIMITS), &pending(1), version)
        .await;
    assert_eq!(one_more.unwrap(), PutLimits::Full);
    // Those that have limits can be changed, and one that is removed makes room.
    version = put(store, &scope(3), &pending(2)).await;
    let none = GivenLimits::default();
    assert!(put(store, &scope(4), &none).await > version);
    put(store, &scope(MAX_LIMITS), &pending(1)).await;
    assert_eq!(read(store).await.limits.get(&scope(3)), pending(2));
}
