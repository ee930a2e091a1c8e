//! Records that fail, options that contradict each other and files that cannot be used.

mod common;

use std::fs;

use common::{demo, elgen, finish, finish_with_input, generate, quick, stories};
use serde_json::Value;

/// More words than the demo model has positions.
fn too_long() -> String {
    "we saw the dog and ".repeat(40)
}

fn parsed(lines: &[&str]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn text_lines_that_fail_leave_the_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.txt");
    let text = format!("I was born.\nbad \u{fffd}\n\n{}\nThe dog sleeps.\r\nlast", too_long());
    let mut bytes = text.into_bytes();
    let bad = bytes.windows(3).position(|window| window == "\u{fffd}".as_bytes()).unwrap();
    bytes.splice(bad..bad + 3, [0xFF]);
    fs::write(&input, bytes).unwrap();

    let finished = finish(quick().arg("--input").arg(&input)).expect(1);
    let lines = finished.lines();
    assert_eq!(lines.len(), 6, "{finished:#?}");
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line.is_empty(), [1, 2, 3].contains(&index), "{finished:#?}");
    }
    let mut errors: Vec<_> = finished.stderr.lines().collect();
    errors.sort_unstable();
    let place = input.display();
    assert_eq!(errors.len(), 2, "{finished:#?}");
    assert_eq!(errors[0], format!("error: {place}:2: invalid UTF-8 at byte 5"));
    assert!(errors[1].starts_with(&format!("error: {place}:4: ")) && errors[1].contains("128"), "{finished:#?}");
}

#[test]
fn json_records_that_fail_are_errors_in_their_place() {
    let long_ids: Vec<_> = std::iter::repeat_n("60", 200).collect();
    let input = [
        r#"{"id": "first", "text": "I was born."}"#.to_owned(),
        r#"{"id": "broken", "text": "#.to_owned(),
        r#"{"id": [1, "outside"], "input_ids": [0, 8000, 2]}"#.to_owned(),
        format!(r#"{{"id": "long", "input_ids": [{}]}}"#, long_ids.join(",")),
        String::new(),
        r#"{"id": "both", "text": "x", "input_ids": [1]}"#.to_owned(),
        r#"{"id": "none"}"#.to_owned(),
        r#"{"id": "last", "input_ids": [0, 60, 2]}"#.to_owned(),
    ]
    .join("\n");
    let finished =
        finish_with_input(quick().args(["--input-format", "jsonl", "--format", "jsonl"]), input.as_bytes()).expect(1);
    let lines = parsed(&finished.lines());
    let ids: Vec<_> = lines.iter().map(|line| line["id"].to_string()).collect();
    assert_eq!(ids, ["\"first\"", "1", "[1,\"outside\"]", "\"long\"", "\"both\"", "\"none\"", "\"last\""]);
    for (line, wanted) in
        lines.iter().zip([None, Some("JSON"), Some("8000"), Some("128"), Some("both"), Some("text"), None])
    {
        let error = line.get("error").and_then(Value::as_str);
        assert_eq!(error.is_some(), wanted.is_some(), "{line}");
        assert!(error.unwrap_or_default().contains(wanted.unwrap_or_default()), "{line}");
        assert_eq!(line.get("sequences").is_some(), wanted.is_none(), "{line}");
    }
    let mut places: Vec<_> = finished.stderr.lines().map(|line| line[.."error: <stdin>:n".len()].to_owned()).collect();
    places.sort_unstable();
    let expected = [2, 3, 4, 6, 7].map(|line| format!("error: <stdin>:{line}"));
    assert_eq!(places, expected, "{finished:#?}");
}

#[test]
fn long_sources_are_cut_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let stats = dir.path().join("stats.json");
    let mut command = quick();
    command.args(["--truncate", "--format", "jsonl", "--stats-json"]).arg(&stats).arg(too_long()).arg("Short.");
    let finished = finish(&mut command).expect(0);
    assert_eq!(parsed(&finished.lines())[0]["prompt_tokens"], 128);
    let counted: Value = serde_json::from_slice(&fs::read(&stats).unwrap()).unwrap();
    let shown = finish(quick().args(["--truncate", "--stats"]).arg(too_long())).expect(0);
    assert!(shown.stderr.contains("1 (1 cut, 0 failed)"), "{shown:#?}");
    assert_eq!((&counted["truncated"], &counted["inputs"]), (&1.into(), &2.into()));

    let mut command = quick();
    command.args(["--max-source-length", "9", "--format", "jsonl"]).arg(too_long());
    let finished = finish(&mut command).expect(0);
    assert_eq!(parsed(&finished.lines())[0]["prompt_tokens"], 9);
}

#[test]
fn contradictory_options_name_the_flags_that_were_typed() {
    for (flags, parts) in [
        (
            &["--num-return-sequences", "3", "--num-beams", "2"][..],
            &["--num-return-sequences: 3", "--num-beams (2)"][..],
        ),
        (&["--num-return-sequences", "9"], &["--num-return-sequences: 9", " num_beams (4)"]),
        (
            &["--num-return-sequences", "2", "--num-beams", "1"],
            &["--num-return-sequences: 2 needs --do-sample or as many --num-beams"],
        ),
        (
            &["--num-beams", "4", "--num-beam-groups", "2"],
            &["--num-beam-groups: 2 needs a --diversity-penalty above 0"],
        ),
        (
            &["--num-beams", "4", "--num-beam-groups", "2", "--diversity-penalty", "-1"],
            &["--diversity-penalty: must be above 0 with several groups (--num-beam-groups)"],
        ),
        (
            &["--num-beams", "4", "--num-beam-groups", "2", "--set", "diversity_penalty=0"],
            &["--set diversity_penalty: must be above 0"],
        ),
        (&["--max-new-tokens", "0"], &["--max-new-tokens", "at least 1"]),
        (&["--max-length", "1"], &["--max-length", "no room"]),
        (&["--max-new-tokens", "129"], &["--max-new-tokens", "129", "128"]),
        (&["--max-new-tokens", "500"], &["--max-new-tokens", "500", "128"]),
        (&["--do-sample", "--num-beams=1", "--temperature", "-1"], &["--temperature"]),
        (&["--do-sample", "--num-beams=1", "--top-p", "-0.5"], &["--top-p"]),
        (&["--repetition-penalty", "0"], &["--repetition-penalty"]),
        (&["--forced-eos-token-id", "2,8000"], &["--forced-eos-token-id", "8000"]),
    ] {
        finish(generate(&demo()).arg("--quiet").args(flags).arg("x")).expect_error(2, parts);
    }
}

#[test]
fn a_minimum_above_the_maximum_is_warned_about() {
    for (flags, warning) in [
        (
            &["--min-length", "9", "--max-length", "6"][..],
            "warning: --min-length: is larger than --max-length and cannot be reached",
        ),
        (
            &["--min-new-tokens", "9", "--max-new-tokens", "4"],
            "warning: --min-new-tokens: is larger than --max-new-tokens and cannot be reached",
        ),
    ] {
        let finished = finish(generate(&demo()).args(["--num-beams=1", "Hello."]).args(flags)).expect(0);
        let about: Vec<_> = finished.stderr.lines().filter(|line| line.contains("--min")).collect();
        assert_eq!(about, [warning]);
        assert_eq!(finished.lines().len(), 1);
    }
}

#[test]
fn an_attention_kind_that_the_model_cannot_have() {
    finish(generate(&stories()).args(["--attention", "mha-nocache", "x"]))
        .expect_error(2, &["--attention", "mha-nocache", "needs an encoder"]);
}

#[test]
fn alignments_that_cannot_be_given() {
    let refused = |model: &std::path::Path, flags: &[&str], parts: &[&str]| {
        finish(generate(model).args(flags).arg("x")).expect_error(2, parts);
    };
    refused(&demo(), &["--alignment"], &["--alignment", "--format jsonl"]);
    refused(&demo(), &["--alignment", "--output=x.txt"], &["--alignment", "--format jsonl"]);
    for flags in [&["--format=jsonl"][..], &["--output=x.jsonl"], &["--format=jsonl", "--print-config"]] {
        refused(&demo(), &[flags, &["--alignment=99"]].concat(), &["--alignment", "no layer 99", "(the last)"]);
    }
    refused(&stories(), &["--alignment", "--format=jsonl"], &["--alignment", "no encoder"]);
}

#[test]
fn wrong_usage_is_told_before_anything_else() {
    for (flags, wanted) in [
        (&["--batch-size", "many", "x"][..], "--batch-size"),
        (&["--no-such-flag", "x"], "--no-such-flag"),
        (&["--dtype", "bf16", "x"], "possible values: auto, f32, f16"),
        (&["--weights", "bf16", "x"], "possible values: f32, f16"),
        (&["--cache", "auto", "x"], "possible values: f32, f16"),
        (&["x", "--input", "y"], "--input"),
        (&["--attention", "flash", "x"], "mha-nocache"),
    ] {
        let finished = finish(generate(&demo()).args(flags)).expect(2);
        assert!(finished.stderr.starts_with("error: ") && finished.stderr.contains(wanted), "{finished:#?}");
        assert_eq!(finished.stdout, "");
    }
    let finished = finish(&mut elgen()).expect(2);
    assert!(finished.stderr.contains("Usage: elgen"), "{finished:#?}");
}

#[test]
fn options_without_effect_are_warned_about_once() {
    let mut command = generate(&demo());
    let finished =
        finish(command.args(["--num-beams", "1", "--max-new-tokens", "3", "--top-k", "3", "Hello."])).expect(0);
    let about: Vec<_> = finished.stderr.lines().filter(|line| line.contains("--top-k")).collect();
    assert_eq!(about, ["warning: --top-k: has no effect without --do-sample"]);
    assert_eq!(finished.lines().len(), 1);

    for (flags, warning) in [
        (&["--token-logprobs"][..], "warning: --token-logprobs: has no effect with text output; use --format jsonl"),
        (
            &["--with-scores", "--format=jsonl"],
            "warning: --with-scores: has no effect with JSONL output, which always has scores",
        ),
        (
            &["--truncate=false", "--max-source-length=9"],
            "warning: --truncate=false: has no effect with --max-source-length, which cuts",
        ),
        (
            &["--stream", "--batch-size=3"],
            "warning: --batch-size: has no effect with --stream, which runs one input at a time",
        ),
    ] {
        let mut command = generate(&demo());
        command.args(["--num-beams=1", "--max-new-tokens=3", "Hello.", "No."]).args(flags);
        let finished = finish(&mut command).expect(0);
        let about: Vec<_> = finished.stderr.lines().filter(|line| line.contains("no effect")).collect();
        assert_eq!(about, [warning]);
    }
}

#[test]
fn input_files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let missing = dir.path().join("missing.txt");
    let mut command = quick();
    finish(command.arg("--input").arg(&missing).arg("--output").arg(&output))
        .expect_error(1, &["cannot read", "missing.txt", "No such file"]);
    finish(quick().arg("--input").arg(dir.path())).expect_error(1, &["cannot read", "is a directory"]);
    assert!(!output.exists());
}

#[test]
fn output_files_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    finish(quick().arg("x").arg("--output").arg(dir.path())).expect_error(1, &["cannot write", "is a directory"]);
    let missing = dir.path().join("no/out.txt");
    finish(quick().arg("x").arg("--output").arg(&missing))
        .expect_error(1, &["cannot write", "out.txt", "no such directory: "]);
    finish(quick().arg("x").arg("--stats-json").arg(&missing)).expect_error(1, &["cannot write", "out.txt"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_is_full() {
    finish(quick().args(["x", "--output", "/dev/full"])).expect_error(1, &["cannot write /dev/full: No space left"]);
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    finish(quick().arg("x").stdout(full())).expect_error(1, &["cannot write <stdout>: No space left"]);
    finish(quick().args(["x", "--stream"]).stdout(full())).expect_error(1, &["cannot write <stdout>: No space left"]);
    finish(elgen().arg("devices").stdout(full())).expect_error(1, &["cannot write <stdout>: No space left"]);
}

#[test]
fn one_file_for_two_purposes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts.txt");
    fs::write(&file, "Hello.\n").unwrap();
    let again = dir.path().join(".").join("texts.txt");
    finish(quick().arg("--input").arg(&file).arg("--output").arg(&again))
        .expect_error(2, &["--output", "the same file as --input"]);
    finish(quick().arg("--input").arg(&file).arg("--stats-json").arg(&file))
        .expect_error(2, &["--stats-json", "the same file as --input"]);
    finish(quick().args(["x", "--stats-json", "-"])).expect_error(2, &["--stats-json", "stdout is for results"]);
    let new = dir.path().join("new");
    finish(quick().arg("x").arg("--output").arg(&new).arg("--stats-json").arg(&new))
        .expect_error(2, &["--stats-json", "the same file as --output"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "Hello.\n");
    assert!(!new.exists());
}

#[test]
fn no_vulkan_driver() {
    let without = |command: &mut std::process::Command| {
        for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
            command.env(name, "/nonexistent/icd.json");
        }
        finish(command)
    };
    let told = |finished: common::Finished| {
        let line = finished.stderr.clone();
        finished.expect_error(1, &["no Vulkan adapter was found: install", "Vulkan driver", "mesa-vulkan-drivers"]);
        line
    };
    let listed = told(without(elgen().arg("devices")));
    assert_eq!(told(without(quick().arg("x"))), listed, "one fault has one hint");
}

#[test]
fn an_adapter_that_does_not_exist() {
    finish(quick().args(["--device", "no such adapter", "x"])).expect_error(1, &["no such adapter"]);
    finish(quick().args(["--device", "99", "x"])).expect_error(1, &["99"]);
    finish(quick().args(["--device", "-1", "x"]))
        .expect_error(1, &["--device: no Vulkan adapter matches \"-1\"", "number 0"]);
    finish(elgen().args(["devices", "--measure", "--device", "-1"]))
        .expect_error(1, &["--device: no Vulkan adapter matches \"-1\""]);
    finish(elgen().args(["plan", "--config", "bart-base", "--device", "-1"]))
        .expect_error(1, &["--device: no Vulkan adapter matches \"-1\""]);
    finish(elgen().args(["bench", "--config", "bart-base", "--device", "-1"]))
        .expect_error(1, &["--device: no Vulkan adapter"]);
}

#[test]
fn a_memory_limit_that_is_too_small() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.txt");
    for (limit, shown) in [("1000", "1000 B"), ("1MiB", "1.0 MiB"), ("20MiB", "20.0 MiB")] {
        finish(quick().args(["--dtype", "f32", "--memory-limit", limit, "--output"]).arg(&output).arg("Hello."))
            .expect_error(1, &["do not fit", &format!(" of {shown} are in use"), "needs at least ", "elgen plan"]);
        assert!(!output.exists());
    }
    // Loaded, but no record fits.
    let mut command = generate(&demo());
    let finished = finish(command.args(["--attention=mha", "--memory-limit=26MiB", "I was born in 1979.", "No."]));
    let told: Vec<String> = finished.expect(1).stderr.lines().map(str::to_owned).collect();
    assert!(told.iter().any(|line| line.starts_with("error: argument 1: ")), "{told:?}");
    assert!(told.last().unwrap().starts_with("warning: memory was short: this run needs at least "), "{told:?}");
    // What is told to be enough is enough.
    let text = "I was born in 1979.";
    let run = |limit: &str| finish(quick().args(["--attention", "el", "--memory-limit", limit, text]));
    let short = run("1MiB").expect(1).stderr;
    let least = short.split("at least ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    assert_eq!(run(&least).expect(0).lines().len(), 1, "{least}");
}
