//! Counts the bytes, lines and words of a text. Words follow Unicode (UAX #29), so other scripts work and
//! punctuation is not part of a word.

use hostel_sdk::prelude::*;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use unicode_segmentation::UnicodeSegmentation;

/// The number of listed words.
const TOP: usize = 10;

#[derive(Serialize)]
struct Counts {
    bytes: usize,
    lines: usize,
    words: usize,
    /// The most frequent words, ordered by count and then by word.
    top: Vec<Word>,
}

#[derive(Serialize)]
struct Word {
    /// The word in lower case: `The` and `the` are the same word.
    word: String,
    count: usize,
}

fn word_count(text: String) -> Json<Counts> {
    // An ordered map, so that words with equal counts are sorted.
    let mut counts = BTreeMap::<String, usize>::new();
    for word in text.unicode_words() {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let words = counts.values().sum();

    let mut top: Vec<_> = counts
        .into_iter()
        .map(|(word, count)| Word { word, count })
        .collect();
    top.sort_by_key(|word| Reverse(word.count));
    top.truncate(TOP);

    Json(Counts {
        bytes: text.len(),
        lines: text.lines().count(),
        words,
        top,
    })
}

hostel_sdk::plugin! {
    task("word-count", word_count)
        .description("UTF-8 text in; JSON out: bytes, lines, words, and the most frequent words")
        .timeout(Duration::from_secs(30)),
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_sdk::serde_json::{Value, from_slice, json};

    fn count(text: &str) -> Value {
        let result = MockHost::new(plugin()).run("word-count", text).unwrap();
        from_slice(&result).unwrap()
    }

    #[test]
    fn counts_are_ordered_by_count_then_word() {
        assert_eq!(
            count("The dog, the cat -\nand the other dog's cat.\n"),
            json!({
                "bytes": 44,
                "lines": 2,
                "words": 9,
                "top": [
                    {"word": "the", "count": 3},
                    {"word": "cat", "count": 2},
                    {"word": "and", "count": 1},
                    {"word": "dog", "count": 1},
                    {"word": "dog's", "count": 1},
                    {"word": "other", "count": 1},
                ],
            })
        );
    }

    #[test]
    fn an_empty_text_counts_nothing() {
        assert_eq!(
            count(""),
            json!({"bytes": 0, "lines": 0, "words": 0, "top": []})
        );
    }

    #[test]
    fn words_may_have_any_script() {
        let counts = count("Größe größe नमस्ते — 3.14");
        assert_eq!(counts["words"], 4);
        assert_eq!(counts["top"][0], json!({"word": "größe", "count": 2}));
    }

    #[test]
    fn only_the_most_frequent_are_listed() {
        let text: String = (0..100).map(|n| format!("w{n} ")).collect();
        assert_eq!(count(&text)["top"].as_array().unwrap().len(), TOP);
    }

    #[test]
    fn invalid_utf8_fails_permanently() {
        let error = MockHost::new(plugin())
            .run("word-count", b"ab\xff")
            .unwrap_err();
        assert_eq!(
            error,
            TaskError::permanent("the payload is not UTF-8: byte 0xff at offset 2")
        );
    }
}
