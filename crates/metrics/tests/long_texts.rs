//! ROUGE of very long lines: quick, or the limit says that it would not be.

use std::time::Instant;

use elgen_metrics::{MetricError, RougeOptions, rouge, sentence_rouge};

/// Words of a few letters, most of them rare, up to so many bytes.
fn line(bytes: usize, seed: u32) -> String {
    let mut state = seed;
    let mut text = String::with_capacity(bytes + 10);
    while text.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend((0..2 + state % 5).map(|i| char::from(b'a' + (state >> (8 + 3 * i) & 7) as u8 * 3)));
        text.push(' ');
    }
    text
}

#[test]
fn rouge_has_a_limit() {
    let (hypothesis, reference) = ("a b c\nd e", "a b c d");
    let limited = |max_word_pairs| RougeOptions { max_word_pairs, ..RougeOptions::default() };
    // Two lines of 64 columns each, and 4 words.
    assert!(sentence_rouge(hypothesis, &[reference], &limited(512)).is_ok());
    let refused = rouge(&["a", hypothesis], &[vec!["a"], vec![reference]], &limited(511)).unwrap_err();
    assert_eq!(refused, MetricError::WordPairs { segment: 2, pairs: 512, most: 511 });
    let message = "hypothesis 2: ROUGE-L would compare 512 pairs of words with a reference, more than the limit of 511";
    assert_eq!(refused.to_string(), message);
    // By default before any time is spent.
    let started = Instant::now();
    let long = "a ".repeat(4_000_000);
    assert!(matches!(
        sentence_rouge(&long, &[&long], &RougeOptions::default()),
        Err(MetricError::WordPairs { pairs: 16_000_000_000_000, .. })
    ));
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn forty_thousand_words_take_a_moment() {
    let [hypothesis, reference] = [3, 4].map(|seed| line(200_000, seed));
    let started = Instant::now();
    let scores = sentence_rouge(&hypothesis, &[&reference], &RougeOptions::default()).unwrap();
    println!("{:.2} s", started.elapsed().as_secs_f64());
    // One line: both are the same, but that a word may not match twice.
    assert!(scores.rouge_l.f1 > 0.05 && (scores.rouge_lsum.f1 - scores.rouge_l.f1).abs() < 1e-12, "{scores:?}");
    // The table of all pairs took 10 s.
    assert!(started.elapsed().as_secs_f64() < 5.0);
}
