//! Repeated generation in one process must not grow: 1 minute, with `ELGEN_FULL=1` 10.
//!
//! Alone in its executable, because it reads the memory of the whole process. The test runs that executable again with
//! glibc's threshold for returning freed blocks fixed: left to itself glibc raises it to the largest block that was ever
//! freed, and a process whose buffers come and go then grows by fragments for two minutes (2.3 % here) before it stays
//! level. With it fixed, what is resident is what is held.

use std::process::Command;
use std::time::{Duration, Instant};

use elgen_engine::{AttentionChoice, Request, Session};
use elgen_search::{GenerationConfig, GenerationOptions};
use elgen_tests::demo::{Story, Translations, config, generate, requests, session_options};
use elgen_tests::full;

/// Read by glibc when a process starts; other allocators do not know it.
const RETURN_THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";

/// One kind of work: a session, what to ask, and with which options.
struct Work {
    session: usize,
    requests: Vec<Request>,
    config: GenerationConfig,
}

/// Bytes of this process that lie in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Greedy, beams and samples of both models, with EL and with MHA, in batches of 1, 5 and 16.
fn work(sessions: &[Session]) -> Vec<Work> {
    let sources = Translations::load().spread(16).requests();
    let prompts = requests(&Story::prompts());
    let options = |num_beams: usize, new: usize| GenerationOptions {
        num_beams: Some(num_beams),
        max_new_tokens: Some(new),
        ..GenerationOptions::default()
    };
    let sampled = GenerationOptions {
        do_sample: Some(true),
        top_k: Some(40),
        top_p: Some(0.9),
        num_return_sequences: Some(2),
        ..options(1, 8)
    };
    let of = |session: usize, requests: &[Request], asked: &GenerationOptions| Work {
        session,
        requests: requests.to_vec(),
        config: config(&sessions[session], asked.clone()),
    };
    vec![
        of(0, &sources, &options(4, 12)),
        of(1, &prompts[..5], &sampled),
        of(0, &sources[..1], &options(1, 12)),
        of(1, &prompts[..16], &options(1, 10)),
        of(0, &sources[..5], &sampled),
        of(1, &prompts[..1], &options(4, 10)),
    ]
}

#[test]
fn memory_does_not_grow() {
    if std::env::var_os(RETURN_THRESHOLD).is_some() {
        return soak();
    }
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory_does_not_grow", "--nocapture"])
        .env(RETURN_THRESHOLD, "131072")
        .output()
        .unwrap();
    // Printed, not inherited, so that a run that passes stays quiet.
    eprint!("{}", String::from_utf8_lossy(&again.stderr));
    assert!(again.status.success(), "the soak failed: {}", again.status);
}

fn soak() {
    let (warm_up, total) = if full() { (60, 600) } else { (10, 60) };
    let mut sessions = [
        Session::load(&Translations::model(), &session_options(AttentionChoice::EL, 16)).unwrap(),
        Session::load(&Story::model(), &session_options(AttentionChoice::MHA, 16)).unwrap(),
    ];
    let works = work(&sessions);
    let start = Instant::now();
    let mut round = |samples: &mut Vec<u64>| -> u64 {
        for work in &works {
            generate(&mut sessions[work.session], &work.requests, &work.config);
            samples.push(resident());
        }
        sessions.iter().map(|s| s.device().pool().current().total).sum()
    };

    // Pipelines are compiled, slabs and heaps grow to their size. At least two rounds, however slow the machine.
    let mut rounds = 0;
    let mut pool = 0;
    while rounds < 2 || start.elapsed() < Duration::from_secs(warm_up) {
        pool = round(&mut Vec::new());
        rounds += 1;
    }
    let (mut samples, mut pools) = (Vec::new(), Vec::new());
    let warm = rounds;
    while rounds < warm + 4 || start.elapsed() < Duration::from_secs(total) {
        pools.push(round(&mut samples));
        rounds += 1;
    }

    let trend: Vec<u64> = samples.chunks(samples.len().div_ceil(10)).map(|part| median(part) >> 10).collect();
    eprintln!("resident KiB over time: {trend:?}");
    let quarter = samples.len() / 4;
    let (first, last) = (median(&samples[..quarter]), median(&samples[samples.len() - quarter..]));
    let most = pools.iter().copied().max().unwrap();
    eprintln!(
        "{warm} rounds to warm up, {} measured: pool {pool} then {most} bytes at most, process {first} then {last} bytes",
        pools.len()
    );
    assert!(most * 100 < pool * 101, "the pool grew from {pool} to {most} bytes");
    assert!(last * 100 < first * 101, "the process grew from {first} to {last} bytes");
}
