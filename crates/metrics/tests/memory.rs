//! One very long line: the memory of BLEU and chrF grows with its bytes. Alone in its process, whose peak it looks at.

#![cfg(target_os = "linux")]

use std::time::Instant;

use elgen_metrics::{BleuOptions, ChrfOptions, corpus_bleu, corpus_chrf};

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

/// The most memory that this process has held, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    found.unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_line_of_two_megabytes_takes_a_small_multiple_of_its_bytes() {
    const BYTES: usize = 2 << 20;
    let (hypothesis, references) = ([line(BYTES, 1)], [vec![line(BYTES, 2)]]);
    let before = peak();
    let started = Instant::now();
    let bleu = corpus_bleu(&hypothesis, &references, &BleuOptions::default()).unwrap();
    let chrf = corpus_chrf(&hypothesis, &references, &ChrfOptions::plus_plus()).unwrap();
    let (added, seconds) = (peak() - before, started.elapsed().as_secs_f64());
    println!("{added} bytes more for a line of {BYTES}, {seconds:.1} s");
    assert!(bleu.total[0] > 300_000 && chrf.score > 0.0);
    // Two texts, in tokens of 4 bytes, twice in n-grams of 8 or 16; maps of counts took several times that.
    assert!(added < 48 * BYTES as u64, "{added}");
}
