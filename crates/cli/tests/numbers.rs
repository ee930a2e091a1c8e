//! Numbers at their ends as the program sees them: from flags, from a model's files, one and two at a time. Each run ends soon, without a panic, in
//! little memory, and with one line that says what is wrong if it is refused. What is checked before a device opens has its sweep beside the
//! code (`src/numbers_tests.rs`).

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use common::{finish_with_input, stories, tiny};
use serde_json::{Map, Value};

/// What a run takes at most; most take a tenth of it.
const MOST: Duration = Duration::from_secs(30);

/// Addresses that a run may have, in KiB: a driver takes some for itself, a table of a number's size would take more.
const ADDRESSES: &str = "12582912";

fn t5() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/t5-base-like")
}

/// A run: the words behind the program's name, and what its exit code may be.
struct Case {
    words: Vec<String>,
    codes: &'static [i32],
}

/// `{model}` in `line` stands for the model.
fn case(model: &Path, line: &str, codes: &'static [i32]) -> Case {
    let words = line.split_whitespace().map(|word| word.replace("{model}", &model.display().to_string()));
    Case { words: words.collect(), codes }
}

fn run(case: &Case) {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v \"$0\"; exec \"$@\"", ADDRESSES, env!("CARGO_BIN_EXE_elgen")]).args(&case.words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_BACKTRACE");
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let begun = Instant::now();
    let found = finish_with_input(&mut command, b"{\"input_ids\": [5, 6, 7]}\n");
    let words = case.words.join(" ");
    assert!(begun.elapsed() < MOST, "{words}: {:?}", begun.elapsed());
    assert!(found.code.is_some_and(|code| case.codes.contains(&code)), "{words}: {found:#?}");
    assert!(!found.stderr.contains("panicked") && !found.stderr.contains("internal error"), "{words}: {found:#?}");
    if case.words[0] == "bench" && !found.stdout.is_empty() {
        // A row says why it could not be measured.
        assert!(["oom", "OOM", "error"].iter().any(|word| found.stdout.contains(word)), "{words}: {found:#?}");
    } else if found.code != Some(0) {
        let errors: Vec<&str> = found.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{words}: {found:#?}");
        assert!(errors[0].len() > "error: ".len() + 10, "{words}: {found:#?}");
    }
}

/// Runs the cases, two at a time.
fn run_all(cases: Vec<Case>, least: usize) {
    assert!(cases.len() >= least, "{} cases", cases.len());
    let open = Mutex::new(cases.into_iter());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = open.lock().unwrap().next();
                    let Some(case) = next else { break };
                    run(&case);
                }
            });
        }
    });
}

const ENDS: [&str; 8] = [
    "2147483648",
    "4294967296",
    "4294967297",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
];

#[test]
fn plans() {
    let mut cases = Vec::new();
    for (model, bounded) in [(t5(), false), (tiny(), true)] {
        for number in ENDS {
            for flag in ["batch-size", "max-new-tokens", "source-length", "num-beams"] {
                // Beyond the positions of a model that has them, or the beams of a search, is wrong usage; any batch can be planned.
                let codes: &[i32] = match flag {
                    _ if number == "18446744073709551616" => &[2],
                    "batch-size" => &[0],
                    "num-beams" => &[2],
                    _ if bounded => &[2],
                    _ => &[0],
                };
                let line = format!("plan --model {{model}} --memory-limit 1GiB --{flag} {number}");
                cases.push(case(&model, &line, codes));
            }
        }
    }
    let model = t5();
    for (first, second) in [
        ("--batch-size 4294967297", "--max-new-tokens 4294967297"),
        ("--batch-size 18446744073709551615", "--source-length 18446744073709551615"),
        ("--num-beams 65536", "--max-new-tokens 18446744073709551615"),
        ("--num-beams 65536", "--batch-size 100000000"),
        ("--memory-limit 18446744073709551615", "--batch-size 18446744073709551615"),
        ("--memory-limit 1", "--batch-size 1"),
    ] {
        let limit = if first.contains("memory-limit") { "" } else { "--memory-limit 1GiB" };
        cases.push(case(&model, &format!("plan --model {{model}} {limit} {first} {second}"), &[0]));
    }
    run_all(cases, 70);
}

#[test]
fn generation() {
    let quick = "generate --model {model} --input-format jsonl --format jsonl --attention mha --quiet";
    let run = |flags: &str, codes: &'static [i32]| case(&t5(), &format!("{quick} {flags}"), codes);
    let (max, half) = ("18446744073709551615", "9223372036854775807");
    let cases = vec![
        run("--max-new-tokens 4294967296", &[1]),
        run(&format!("--max-new-tokens {half}"), &[1]),
        run(&format!("--max-new-tokens {max}"), &[1]),
        // The checkpoint names max_new_tokens, which wins.
        run(&format!("--max-length {max}"), &[0]),
        run(&format!("--max-new-tokens {half} --num-beams 4 --batch-size {max}"), &[1]),
        run(&format!("--max-new-tokens 2 --batch-size {max} --max-batch-tokens {max}"), &[0]),
        run(&format!("--max-new-tokens 2 --do-sample --top-k {max} --seed {max}"), &[0]),
        run(&format!("--max-new-tokens 2 --no-repeat-ngram-size {max} --encoder-no-repeat-ngram-size {max}"), &[0]),
        run(&format!("--max-new-tokens 2 --min-length {max} --exponential-decay-length-penalty {max},1.01"), &[0]),
        run(&format!("--max-new-tokens 2 --max-source-length {max} --memory-limit {max}"), &[0]),
        run("--max-new-tokens 2 --memory-limit 1", &[1]),
        run(&format!("--max-new-tokens 2 --num-beams {max}"), &[2]),
        run("--max-new-tokens 2 --num-beams 65536", &[1]),
        run(&format!("--max-new-tokens 2 --do-sample --num-return-sequences {max}"), &[2]),
        run("--max-new-tokens 2 --num-beams 65536 --num-beam-groups 2 --diversity-penalty 1", &[1]),
        run(&format!("--max-new-tokens 2 --eos-token-id {max}"), &[2]),
    ];
    run_all(cases, 16);
}

#[test]
fn scores_and_measurements() {
    let max = "18446744073709551615";
    let score = "score --model {model} --input-format jsonl --format jsonl --attention mha --quiet";
    let bench = "bench --config t5-small --scale 64 --attention mha --repetitions 1 --quiet --format csv";
    let model = stories();
    let mut cases = vec![
        case(&model, &format!("{score} --batch-size {max} --max-batch-tokens {max}"), &[0]),
        case(&model, &format!("{score} --stride {max}"), &[2]),
        case(&model, &format!("{score} --max-length {max}"), &[2]),
        case(&model, &format!("{score} --memory-limit 1"), &[1]),
    ];
    for flags in [
        format!("--batch-size {max} --source-length 8 --max-new-tokens 2 --num-beams 1"),
        format!("--batch-size 4294967297 --source-length {max} --max-new-tokens {max} --num-beams 4"),
        format!("--batch-size max --source-length {max} --max-new-tokens 2 --num-beams 1"),
        "--batch-size max --source-length 9007199254740992 --max-new-tokens 2 --num-beams 1".to_owned(),
        format!("--batch-size 1 --source-length 8 --max-new-tokens {max} --num-beams 1"),
        format!("--batch-size 1 --source-length 8 --max-new-tokens 2 --num-beams {max}"),
    ] {
        cases.push(case(&model, &format!("{bench} {flags}"), &[0, 1]));
    }
    run_all(cases, 10);
}

/// A copy of a model's directory with one changed file.
fn changed(file: &str, edit: impl FnOnce(&mut Map<String, Value>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(t5().join(name), dir.path().join(name)).unwrap();
    }
    let path = dir.path().join(file);
    let mut map: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut map);
    fs::write(path, Value::Object(map).to_string()).unwrap();
    dir
}

#[test]
fn files_of_models() {
    let mut kept = Vec::new();
    let mut cases = Vec::new();
    let huge = [Value::from(u64::MAX), Value::from(1_u64 << 63), Value::from(9.2e18), Value::from(1_u64 << 40)];
    for key in ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_max_distance"] {
        for value in &huge[..2] {
            let dir = changed("config.json", |map| drop(map.insert(key.to_owned(), value.clone())));
            cases.push(case(dir.path(), "inspect {model}", &[1]));
            cases.push(case(dir.path(), "plan --model {model} --memory-limit 1GiB", &[1]));
            kept.push(dir);
        }
    }
    for key in ["max_length", "max_new_tokens", "num_beams", "num_return_sequences", "min_length", "top_k"] {
        for value in &huge {
            let dir = changed("generation_config.json", |map| {
                map.insert("do_sample".to_owned(), true.into());
                map.insert(key.to_owned(), value.clone());
            });
            cases.push(case(dir.path(), "plan --model {model} --memory-limit 1GiB", &[0, 1]));
            kept.push(dir);
        }
    }
    for value in [9.2e18.into(), Value::from(i64::MAX)] {
        let dir = changed("generation_config.json", |map| {
            map.remove("max_new_tokens");
            map.insert("max_length".to_owned(), value);
        });
        let line = "generate --model {model} --input-format jsonl --format jsonl --attention mha --quiet";
        cases.push(case(dir.path(), line, &[1]));
        kept.push(dir);
    }
    run_all(cases, 50);
    drop(kept);
}
