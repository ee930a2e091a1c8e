//! What the pool counts is what the process takes: resident memory on a software adapter, the driver's account of the heap on a GPU.
//!
//! The test runs its executable again, alone, with glibc's threshold for returning freed blocks fixed (see soak.rs): the memory of the whole
//! process is read.

use std::process::Command;

use elgen_engine::AttentionChoice;
use elgen_tensor::{DType, Device};
use elgen_tests::demo::generate;
use elgen_tests::planned::Planned;

/// Read by glibc when a process starts; other allocators do not know it.
const RETURN_THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";

const GIB: u64 = 1 << 30;

/// Few weights and wide caches: eight layers of keys and values, once per beam.
const MODEL: &str = r#"{"model_type": "bart", "d_model": 64, "encoder_layers": 1, "decoder_layers": 8, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 203, "max_position_embeddings": 512}"#;

/// Bytes that this process holds by another account than the pool's, and whose account it is.
fn held(device: &Device) -> (u64, &'static str) {
    if let Some(bytes) = device.driver_bytes() {
        return (bytes, "the driver");
    }
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    (statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096, "the process")
}

/// Bytes of memory that the machine has left.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_gibibyte_of_the_pool_is_a_gibibyte_of_the_process() {
    if std::env::var_os(RETURN_THRESHOLD).is_some() {
        return measure();
    }
    if available() < 5 * GIB / 2 {
        eprintln!("skipped: {} MiB of memory are left, 2560 are needed", available() >> 20);
        return;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads", "1"])
        .env(RETURN_THRESHOLD, "131072")
        .output()
        .unwrap();
    // Printed, not inherited, so that a run that passes stays quiet.
    eprint!("{}", String::from_utf8_lossy(&again.stderr));
    assert!(again.status.success(), "the run failed: {}", again.status);
}

fn measure() {
    let case = Planned {
        model: MODEL,
        attention: AttentionChoice::MHA_REPLICATED,
        dtype: DType::F32,
        input: 500,
        max_new: 8,
        beams: 16,
        batch: 36,
        memory_limit: None,
        short: true,
    };
    let mut session = case.session(case.batch.into());
    let config = case.config(&session);
    let planned = case.plan(&session, &config, |plan, workload| plan.predict(workload, case.batch)).unwrap();
    // Pipelines are compiled, and the driver has what it needs for itself.
    generate(&mut session, &case.requests(2), &config);
    session.device().wait().unwrap();
    let pool = |session: &elgen_engine::Session| session.device().pool().current().total;
    let (before, (held_before, who)) = (pool(&session), held(session.device()));
    generate(&mut session, &case.requests(case.batch), &config);
    session.device().wait().unwrap();
    let (after, (held_after, _)) = (pool(&session), held(session.device()));
    let (counted, grown) = (after - before, held_after.saturating_sub(held_before));
    eprintln!("planned {}, the pool holds {after}: it grew by {counted}, {who} by {grown}", planned.total);
    assert!(counted >= GIB, "{counted} bytes are too few to tell");
    assert!(planned.total.abs_diff(session.device().pool().peak().total) * 50 <= planned.total, "{planned:?}");
    assert!(counted.abs_diff(grown) * 10 <= counted, "the pool grew by {counted} bytes, {who} by {grown}");
}
