//! The program: all commands know the kind by its name.

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_own-attention"));
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    if let Ok(device) = std::env::var("ELGEN_TEST_DEVICE")
        && ["generate", "bench"].contains(&arguments[0])
    {
        command.args(["--device", &device]);
    }
    command.output().expect("the program runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

const MODEL: &str = "tests/fixtures/gpt2-base-like";

#[test]
fn generate_runs_with_it() {
    let input = std::env::temp_dir().join(format!("own-attention-{}.jsonl", std::process::id()));
    std::fs::write(&input, "{\"input_ids\": [5, 9, 13, 2, 71, 33, 8, 8, 41, 60, 22, 17]}\n").expect("an input");
    let stats = input.with_extension("stats.json");
    let arguments = |kind: &'static str| {
        let (input, stats) = (input.display().to_string(), stats.display().to_string());
        let tail = ["--num-beams", "4", "--max-new-tokens", "20", "--format", "jsonl"];
        let head = ["generate", "--model", MODEL, "--attention", kind, "--input", &input, "--stats-json", &stats];
        let output = run(&head.iter().chain(&tail).copied().collect::<Vec<_>>());
        let stats: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&stats).expect("statistics")).expect("JSON");
        assert_eq!(stats["attention"]["self"], kind);
        stdout(&output)
    };
    let (window, mha) = (arguments("window-8"), arguments("mha"));
    assert_ne!(window, mha);
    assert_eq!(window.lines().count(), 1);
    std::fs::remove_file(&input).expect("the input");
    std::fs::remove_file(&stats).expect("the statistics");
}

#[test]
fn plan_lists_it() {
    let arguments = ["plan", "--model", MODEL, "--max-new-tokens", "20", "--format", "json"];
    let report: serde_json::Value = serde_json::from_str(&stdout(&run(&arguments))).expect("JSON");
    let kinds: Vec<&str> = report["kinds"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["attention"].as_str().expect("a name"))
        .collect();
    assert_eq!(kinds, ["mha-replicated", "mha", "el", "window-8", "window-1024", "auto"]);
    let bytes = |kind: usize| report["kinds"][kind]["bytes"]["total"].as_u64().expect("bytes");
    // Caches and working tensors are those of multi-head attention.
    assert_eq!(bytes(3), bytes(1));
}

#[test]
fn bench_measures_it() {
    let tail = ["--num-beams", "2", "--batch-size", "2", "--max-new-tokens", "4", "--source-length", "12"];
    let head = ["bench", "--model", MODEL, "--attention", "window-8,mha", "--format", "json", "--quiet"];
    let report: serde_json::Value =
        serde_json::from_str(&stdout(&run(&head.iter().chain(&tail).copied().collect::<Vec<_>>()))).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    let kinds: Vec<&str> = rows.iter().map(|row| row["attention"].as_str().expect("a name")).collect();
    assert_eq!(kinds, ["window-8", "mha"]);
    for (row, kind) in rows.iter().zip(kinds) {
        assert_eq!(row["status"], "ok", "{row}");
        assert_eq!(row["cost"]["self_attention"], kind);
    }
}

#[test]
fn help_and_refusals_name_it() {
    let help = stdout(&run(&["generate", "--help"]));
    assert!(help.contains("window-8") && help.contains("over the first few positions and a window"), "{help}");
    let refused = run(&["generate", "--model", MODEL, "--attention", "window-9", "text"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("window-8") && message.contains("window-1024"), "{message}");
    // T5 counts distances in its scores: the kind refuses by name.
    let refused = run(&[
        "generate",
        "--model",
        "tests/fixtures/t5-base-like",
        "--attention",
        "window-8",
        "--format",
        "jsonl",
        "text",
    ]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(
        message.contains("attention kind window-8 does not support") && message.contains("position bias"),
        "{message}"
    );
}
