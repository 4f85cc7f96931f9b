//! Counts the bytes, lines and words of a text. Words follow Unicode (UAX #29), so other scripts work and
//! punctuation is not part of a word.

use hostel_sdk::prelude::*;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use unicode_segmentation::UnicodeSegmentation;

/// The number of listed words.
const TOP: usize = 10;

/// How many words are counted between two reports of progress.
const REPORT_EVERY: usize = 10_000;

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

fn word_count(text: String, task: &Task) -> Result<Json<Counts>> {
    // An ordered map, so that words with equal counts are sorted.
    let mut counts = BTreeMap::<String, usize>::new();
    for (number, (offset, word)) in text.unicode_word_indices().enumerate() {
        if number > 0 && number.is_multiple_of(REPORT_EVERY) {
            task.progress(offset as u64, text.len() as u64, "bytes");
            if task.is_cancelled() {
                return Err(TaskError::retryable("cancelled"));
            }
        }
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let words = counts.values().sum();

    let mut top: Vec<_> = counts
        .into_iter()
        .map(|(word, count)| Word { word, count })
        .collect();
    top.sort_by_key(|word| Reverse(word.count));
    top.truncate(TOP);

    Ok(Json(Counts {
        bytes: text.len(),
        lines: text.lines().count(),
        words,
        top,
    }))
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
    fn a_long_text_reports_progress_and_can_be_cancelled() {
        let text = "word ".repeat(3 * REPORT_EVERY);
        let host = MockHost::new(plugin());
        host.run("word-count", text.as_str()).unwrap();
        let reported: Vec<_> = host
            .progress()
            .iter()
            .map(|it| (it.done, it.total))
            .collect();
        assert_eq!(reported, [(50_000, 150_000), (100_000, 150_000)]);
        let host = MockHost::new(plugin()).cancel_after(1);
        let error = host.run("word-count", text.as_str()).unwrap_err();
        assert_eq!(error, TaskError::retryable("cancelled"));
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
