//! The contract of `KeyValue`, one case a sentence.

use super::helpers::{
    PAGE_KEYS, Store, bucket, delete, get, limits, name_cost, plugin, put, refusal, set,
};
use futures_util::future::join_all;
use std::collections::BTreeSet;

pub(super) async fn values_come_back_byte_for_byte(store: Store) {
    let at = bucket(&store);
    let keys = [
        "",
        "plain",
        "schön 日本",
        "nul\0in it",
        "nul\0",
        "%_'\"*[a]",
    ];
    let all_bytes: Vec<u8> = (0..=255).collect();
    for (number, key) in keys.iter().enumerate() {
        put(&store, &at, key, &all_bytes[number..]).await;
    }
    put(&store, &at, "empty", b"").await;
    let keys: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
    let values = store.get(&at, keys.clone()).await.unwrap();
    for (number, value) in values.iter().enumerate() {
        assert_eq!(value.as_deref(), Some(&all_bytes[number..]));
    }
    assert_eq!(get(&store, &at, "empty").await.as_deref(), Some(&b""[..]));
    assert_eq!(get(&store, &at, "nu").await, None);
    let asked = vec!["empty".into(), "nu".into(), "".into()];
    assert_eq!(store.exists(&at, asked).await.unwrap(), [true, false, true]);
    // Replaced by something longer and something shorter.
    for value in [&[9; 5000][..], b"short"] {
        put(&store, &at, "plain", value).await;
        assert_eq!(get(&store, &at, "plain").await.as_deref(), Some(value));
    }
}

pub(super) async fn changes_are_applied_in_their_order(store: Store) {
    let at = bucket(&store);
    let changes = vec![
        set("a", b"1"),
        delete("a"),
        delete("a"),
        set("a", b"2"),
        set("b", b"1"),
        set("b", b"2"),
        set("c", b"1"),
        delete("c"),
    ];
    store.apply(&at, changes).await.unwrap();
    let keys = ["a", "b", "c", "a"].map(String::from).to_vec();
    let two = Some(b"2".to_vec());
    assert_eq!(
        store.get(&at, keys).await.unwrap(),
        [two.clone(), two.clone(), None, two]
    );
    // What is gone stays gone, and deleting it again is no error.
    store
        .apply(&at, vec![delete("a"), delete("b")])
        .await
        .unwrap();
    store.apply(&at, vec![delete("a")]).await.unwrap();
    assert_eq!(get(&store, &at, "a").await, None);
    assert_eq!(store.list(&at, None).await.unwrap().keys.len(), 0);
}

pub(super) async fn plugins_and_stores_are_separate(store: Store) {
    let (one, other) = (plugin(), plugin());
    let places = [(&one, "s"), (&one, ""), (&one, "s/t"), (&other, "s")];
    let places = places.map(|(plugin, name)| store.bucket(plugin, name).unwrap());
    for (number, at) in places.iter().enumerate() {
        let value = number.to_string();
        put(&store, at, "key", value.as_bytes()).await;
        put(&store, at, &format!("own{number}"), b"").await;
    }
    store.apply(&places[0], vec![delete("key")]).await.unwrap();
    assert_eq!(get(&store, &places[0], "key").await, None);
    for (number, at) in places.iter().enumerate().skip(1) {
        let value = get(&store, at, "key").await.unwrap();
        assert_eq!(value, number.to_string().as_bytes());
        let mut keys = store.list(at, None).await.unwrap().keys;
        keys.sort();
        assert_eq!(keys, ["key".to_owned(), format!("own{number}")]);
    }
}

pub(super) async fn numbers_are_text(store: Store) {
    let at = bucket(&store);
    let increment = async |key: &str, delta| store.increment(&at, key.into(), delta).await;
    assert_eq!(increment("new", 0).await.unwrap(), 0);
    assert_eq!(get(&store, &at, "new").await.as_deref(), Some(&b"0"[..]));
    assert_eq!(increment("new", 41).await.unwrap(), 41);
    assert_eq!(increment("new", 1).await.unwrap(), 42);
    put(&store, &at, "new", b"99").await;
    assert_eq!(increment("new", 1).await.unwrap(), 100);
    assert_eq!(get(&store, &at, "new").await.as_deref(), Some(&b"100"[..]));
    assert_eq!(increment("most", u64::MAX).await.unwrap(), u64::MAX);
    assert!(refusal(increment("most", 1).await).contains("beyond"));
    for text in [
        "",
        "+1",
        "-1",
        " 1",
        "1 ",
        "1.0",
        "x",
        "18446744073709551616",
        "\0",
    ] {
        put(&store, &at, "text", text.as_bytes()).await;
        let why = refusal(increment("text", 1).await);
        assert!(why.contains("\"text\" is not a number"), "{why}");
        let kept = get(&store, &at, "text").await.unwrap();
        assert_eq!(kept, text.as_bytes());
    }
}

pub(super) async fn concurrent_increments_are_all_counted(store: Store) {
    let at = bucket(&store);
    let callers = (0..16).map(|_| async {
        let mut sums = Vec::new();
        for _ in 0..25 {
            sums.push(store.increment(&at, "n".into(), 3).await.unwrap());
        }
        sums
    });
    let mut sums = join_all(callers).await.concat();
    sums.sort_unstable();
    assert!(sums.into_iter().eq((1..=400).map(|n| n * 3)));
}

pub(super) async fn pages_hold_every_key_once(store: Store) {
    const STAY: usize = 2 * PAGE_KEYS + 7;
    let at = bucket(&store);
    let key = |n: usize| format!("key-{n}");
    for first in (0..STAY).step_by(500) {
        let some = (first..STAY.min(first + 500))
            .flat_map(|n| [set(&key(n), b""), set(&format!("goes-{n}"), b"")]);
        store.apply(&at, some.collect()).await.unwrap();
    }
    let mut listed = Vec::new();
    let mut cursor = None;
    for page_number in 0.. {
        let page = store.list(&at, cursor).await.unwrap();
        assert!(page.keys.len() <= PAGE_KEYS);
        listed.extend(page.keys);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        // Other keys are added and deleted meanwhile, and a new value moves no key.
        let busy = (0..300).map(|n| delete(&format!("goes-{}", page_number * 300 + n)));
        store.apply(&at, busy.collect()).await.unwrap();
        put(&store, &at, &key(page_number * 7), b"changed").await;
        put(&store, &at, &format!("comes-{page_number}"), b"").await;
    }
    let stay: Vec<&String> = listed
        .iter()
        .filter(|key| key.starts_with("key-"))
        .collect();
    assert_eq!(stay.len(), STAY);
    let distinct: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(distinct.len(), listed.len());
    // A cursor that was never returned is not an error.
    assert!(
        store
            .list(&at, Some(u64::MAX))
            .await
            .unwrap()
            .keys
            .is_empty()
    );
}

pub(super) async fn every_limit_is_enforced_and_names_its_setting(store: Store) {
    let limits = limits();
    let at = bucket(&store);
    let named = |why: String, setting: &str| {
        let setting = format!("(keyvalue.{setting})");
        assert!(why.contains(&setting), "{why:?} does not name {setting}");
    };
    let long = "n".repeat(limits.max_store_name_bytes + 1);
    named(
        refusal(store.bucket(&plugin(), &long)),
        "max_store_name_bytes",
    );
    store.bucket(&plugin(), &long[1..]).unwrap();

    let long = "k".repeat(limits.max_key_bytes + 1);
    let why = [
        refusal(store.get(&at, vec![long.clone()]).await),
        refusal(store.exists(&at, vec![long.clone()]).await),
        refusal(store.apply(&at, vec![set(&long, b"")]).await),
        refusal(store.apply(&at, vec![delete(&long)]).await),
        refusal(store.increment(&at, long.clone(), 1).await),
    ];
    for why in why {
        named(why, "max_key_bytes");
    }
    put(&store, &at, &long[1..], b"").await;

    let largest = vec![1; limits.max_value_bytes];
    let too_large = vec![1; limits.max_value_bytes + 1];
    let why = refusal(store.apply(&at, vec![set("v", &too_large)]).await);
    named(why, "max_value_bytes");
    put(&store, &at, "v", &largest).await;

    let many = vec!["k".to_owned(); limits.max_batch_keys + 1];
    named(
        refusal(store.get(&at, many.clone()).await),
        "max_batch_keys",
    );
    let many = many.iter().map(|key| delete(key)).collect();
    named(refusal(store.apply(&at, many).await), "max_batch_keys");

    let fits = limits.max_batch_bytes / limits.max_value_bytes;
    let together = |count| (0..count).map(|_| set("w", &largest)).collect();
    let why = refusal(store.apply(&at, together(fits + 1)).await);
    named(why, "max_batch_bytes");
    store.apply(&at, together(fits)).await.unwrap();
    let why = refusal(store.get(&at, vec!["v".into(); fits + 1]).await);
    named(why, "max_batch_bytes");
    store.get(&at, vec!["v".into(); fits]).await.unwrap();

    // The usage of a plugin is counted to the byte, over all of its stores.
    let plugin = plugin();
    let stores = ["one", "two"].map(|name| store.bucket(&plugin, name).unwrap());
    let of_stores = stores.iter().map(|store| name_cost(store.store()));
    let mut left = limits.max_plugin_bytes - of_stores.sum::<u64>();
    for number in 0.. {
        let overhead = name_cost("0000");
        let length = (largest.len() as u64).min(left - overhead);
        let value = &largest[..usize::try_from(length).unwrap()];
        put(&store, &stores[number % 2], &format!("{number:04}"), value).await;
        left -= overhead + length;
        if left == 0 {
            break;
        }
    }
    let why = refusal(store.apply(&stores[0], vec![set("x", b"")]).await);
    named(why, "max_plugin_bytes");
    let why = refusal(store.increment(&stores[1], "x".into(), 1).await);
    named(why, "max_plugin_bytes");
    let swap = vec![delete("0000"), set("x", b"")];
    store.apply(&stores[0], swap).await.unwrap();
}

pub(super) async fn names_of_stores_are_charged(store: Store) {
    let (plugin, limits) = (plugin(), limits());
    let length = limits.max_store_name_bytes;
    let name = |number: u64| format!("{number:0length$}");
    let at = |number| store.bucket(&plugin, &name(number)).unwrap();
    let each = name_cost(&name(0)) + name_cost("k");
    let fitting = limits.max_plugin_bytes / each;
    let puts = (0..fitting).map(async |number| put(&store, &at(number), "k", b"").await);
    join_all(puts).await;
    let why = refusal(store.apply(&at(fitting), vec![set("k", b"")]).await);
    assert!(why.contains("max_plugin_bytes"), "{why}");
    // The refused store does not exist, and one that is deleted makes room for another.
    assert_eq!(get(&store, &at(fitting), "k").await, None);
    store.apply(&at(0), vec![delete("k")]).await.unwrap();
    put(&store, &at(fitting), "k", b"").await;
}

pub(super) async fn a_batch_is_all_or_nothing(store: Store) {
    let at = bucket(&store);
    // Two of these values and a little more fit into one call.
    let value = vec![1; limits().max_value_bytes - 100];
    let most = limits().max_plugin_bytes / (value.len() as u64) - 1;
    for number in 0..most {
        put(&store, &at, &number.to_string(), &value).await;
    }
    let changes = vec![
        set("new", b"new"),
        delete("none"),
        set("0", b"changed"),
        set("a", &value),
        set("0", &value),
        set("b", b""),
    ];
    store
        .apply(&at, vec![set("fill", &vec![1; 60_000])])
        .await
        .unwrap();
    let why = refusal(store.apply(&at, changes).await);
    assert!(why.contains("max_plugin_bytes"), "{why}");
    for key in ["new", "a", "b"] {
        assert_eq!(get(&store, &at, key).await, None, "{key}");
    }
    assert_eq!(get(&store, &at, "0").await.as_deref(), Some(&value[..]));
}

pub(super) async fn empty_calls_have_empty_answers(store: Store) {
    let at = bucket(&store);
    assert!(store.get(&at, vec![]).await.unwrap().is_empty());
    assert!(store.exists(&at, vec![]).await.unwrap().is_empty());
    store.apply(&at, vec![]).await.unwrap();
    let page = store.list(&at, None).await.unwrap();
    assert!(page.keys.is_empty() && page.next.is_none());
}
