//! Where texts come from: several files, whole files, prefixes, fields that play no part, file names given as texts.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{demo, elgen, finish, finish_with_input, generate};
use serde_json::Value;

const FILES: [&str; 2] = ["I was born in 1979.\n\nWhere is he?", "It is late.\nThe dog sleeps.\n"];

/// Quick generation with a named kind: `auto` may choose differently for inputs of different lengths, and scores of two kinds differ
/// in their last digits.
fn quick() -> Command {
    let mut command = common::quick();
    command.args(["--attention", "mha"]);
    command
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn parsed(lines: &[&str]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn several_inputs_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let one = write(dir.path(), "one.txt", &format!("{}\n{}", FILES[0], FILES[1]));
    let paths = [write(dir.path(), "a.txt", FILES[0]), write(dir.path(), "b.txt", FILES[1])];
    let together = finish(quick().args(["--format=jsonl", "--input"]).arg(one)).expect(0);
    let (stats, output) = (dir.path().join("stats.json"), dir.path().join("out.jsonl"));
    let mut command = quick();
    command.arg("--input").arg(&paths[0]).arg("-i").arg(&paths[1]).arg("--output").arg(&output);
    let apart = finish(command.args(["--progress", "always", "--stats-json"]).arg(&stats)).expect(0);
    assert_eq!(fs::read_to_string(&output).unwrap(), together.stdout);
    assert!(apart.stderr.starts_with("progress: 5/5 records (100 %), "), "{apart:#?}");
}

#[test]
fn errors_name_the_file_of_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), "a.jsonl", "{\"text\": \"No.\"}\n");
    let b = write(dir.path(), "b.jsonl", "\n{\"txt\": \"No.\"}\n{\"input_ids\": [0, 8000, 2]}\n");
    let mut command = quick();
    let finished = finish(command.arg("-i").arg(&a).arg("-i").arg(&b).args(["--format", "jsonl"])).expect(1);
    let ids: Vec<String> = parsed(&finished.lines()).iter().map(|line| line["id"].to_string()).collect();
    assert_eq!(ids, ["0", "1", "2"]);
    let place = |line: u64| format!("error: {}:{line}: ", b.display());
    let mut told: Vec<&str> = finished.stderr.lines().collect();
    told.sort_unstable();
    assert!(told.len() == 2 && told[0].starts_with(&place(2)) && told[1].starts_with(&place(3)), "{finished:#?}");
}

#[test]
fn inputs_that_do_not_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), "a.txt", "No.\n");
    let (json, missing, new) = (write(dir.path(), "b.jsonl", "{}"), dir.path().join("none"), dir.path().join("new"));
    let with = |flags: &[&Path]| {
        let mut command = quick();
        command.arg("--input").arg(&a);
        flags.iter().for_each(|flag| _ = command.arg(flag));
        finish(&mut command)
    };
    let input = Path::new("--input");
    with(&[input, &json]).expect_error(2, &["a.txt is text and ", "b.jsonl jsonl by name; give --input-format"]);
    with(&[input, &missing]).expect_error(1, &["cannot read", "none", "No such file"]);
    with(&[input, dir.path()]).expect_error(1, &["cannot read", "is a directory"]);
    with(&[input, Path::new("-")]).expect_error(2, &["--input -: stdin cannot be one of several inputs"]);
    let output = |path: &Path| with(&[input, &json, Path::new("--input-format=text"), Path::new("--output"), path]);
    output(&json).expect_error(2, &["--output", "b.jsonl: the same file as --input"]);
    assert_eq!(fs::read_to_string(&json).unwrap(), "{}");
    let no_file = finish(quick().args(["--input", "It is late."]));
    no_file.expect_error(1, &["cannot read It is late.: No such file", "a text is given without --input"]);
    let resume = Path::new("--resume");
    with(&[input, &a, Path::new("--output"), &new, resume])
        .expect_error(2, &["--resume: needs one --input FILE, not several"]);
    with(&[Path::new("--whole-file"), Path::new("--output"), &new, resume])
        .expect_error(2, &["--resume: not with --whole-file"]);
    assert!(!new.exists());
}

#[test]
fn whole_files_are_one_record_each() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [write(dir.path(), "a.txt", "It is late.\n"), write(dir.path(), "b.txt", FILES[0])];
    let mut command = quick();
    command.args(["--whole-file", "--format=jsonl", "-i"]).arg(&paths[0]).arg("-i").arg(&paths[1]);
    let whole = finish(&mut command).expect(0);
    let records: Vec<String> =
        ["It is late.", FILES[0]].iter().map(|text| serde_json::json!({"text": text}).to_string()).collect();
    let lines =
        finish_with_input(quick().args(["--input-format=jsonl", "--format=jsonl"]), records.join("\n").as_bytes());
    assert_eq!(whole.stdout, lines.expect(0).stdout);
    let piped = finish_with_input(quick().args(["--whole-file", "--format=jsonl"]), b"It is late.\n").expect(0);
    assert_eq!(piped.lines(), whole.lines()[..1]);

    let long = write(dir.path(), "long.txt", &"we saw the dog and ".repeat(40));
    let finished = finish(quick().args(["--whole-file", "--input"]).arg(&long)).expect(1);
    assert!(finished.stderr.starts_with(&format!("error: {}: the input has ", long.display())), "{finished:#?}");
    finish(quick().args(["--whole-file", "--input-format=jsonl"])).expect_error(2, &["--whole-file: takes texts"]);
    let finished = finish(quick().args(["--whole-file", "a text"])).expect(2);
    assert!(finished.stderr.contains("--whole-file"), "{finished:#?}");
}

#[test]
fn a_source_prefix_stands_before_each_text() {
    let flags = ["--format=jsonl", "--input-format=jsonl"];
    let run = |more: &[&str], input: &str| {
        finish_with_input(quick().args(flags).args(more), input.as_bytes()).expect(0).stdout
    };
    let plain = run(&[], "{\"text\": \"Tom said: I was born.\"}\n{\"input_ids\": [0, 60, 2]}\n");
    let prefixed =
        run(&["--source-prefix", "Tom said: "], "{\"text\": \"I was born.\"}\n{\"input_ids\": [0, 60, 2]}\n");
    assert_eq!(prefixed, plain);
    let typed = finish(quick().args(["--format=jsonl", "--source-prefix=Tom said: ", "", "I was born."])).expect(0);
    let lines = parsed(&typed.lines());
    assert_eq!(lines[0]["prompt_tokens"], 0, "an empty line stays one");
    assert_eq!(lines[1]["sequences"], parsed(&plain.lines().collect::<Vec<_>>())[0]["sequences"]);
    let score = |flags: &[&str], text: &str| {
        let mut command = elgen();
        command
            .args(["score", "--quiet", "--attention=mha", "--input-format=jsonl", "--model"])
            .arg(demo())
            .args(flags);
        let record = serde_json::json!({"text": text, "target": "Non."}).to_string();
        finish_with_input(&mut command, record.as_bytes()).expect(0).stdout
    };
    assert_eq!(score(&["--source-prefix=Tom said: "], "No."), score(&[], "Tom said: No."));
    let finished = finish(quick().arg("--source-prefix")).expect(2);
    assert!(finished.stderr.contains("--source-prefix <TEXT>"), "{finished:#?}");
}

#[test]
fn a_file_name_given_as_a_text_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "in.txt", "No.\n");
    let run = |flags: &[&str]| {
        finish(
            elgen()
                .args(["tokenize", "--model"])
                .arg(demo())
                .args(flags)
                .args(["No.", file.to_str().unwrap()])
                .arg(&file),
        )
    };
    let warning =
        format!("warning: {} is an existing file, taken as a text here; did you mean --input?\n", file.display());
    assert_eq!(run(&[]).expect(0).stderr, warning);
    let mut command = generate(&demo());
    command.args(["--num-beams=1", "--max-new-tokens=2", "--print-config"]).arg(&file).arg(dir.path());
    assert_eq!(finish(&mut command).expect(0).stderr, warning);
    assert_eq!(finish(command.arg("--quiet")).expect(0).stderr, "");
    // A folder's name is an ordinary word more often.
    assert_eq!(finish(generate(&demo()).args(["--print-config", "."])).expect(0).stderr, "");
}

#[test]
fn jsonl_read_as_text_is_noticed() {
    let mut command = elgen();
    command.args(["tokenize", "--model"]).arg(demo());
    let finished = finish_with_input(&mut command, b"{\"text\": \"No.\"}\n{\"text\": \"Yes.\"}\n").expect(0);
    let expected = "warning: <stdin>:1: a JSON record, taken as a text; did you mean --input-format jsonl?\n";
    assert_eq!(finished.stderr, expected);
    let finished = finish_with_input(command.arg("--input-format=jsonl"), b"{\"text\": \"No.\"}\n").expect(0);
    assert_eq!(finished.stderr, "");
}

#[test]
fn fields_that_play_no_part_are_named_once() {
    let input = [
        r#"{"text": "No.", "num_beams": 1}"#,
        r#"{"text": "No.", "num_beams": 2, "options": {"top_k": 3}}"#,
        r#"{"id": 7, "text": "No.", "target": "Non."}"#,
    ]
    .join("\n");
    let flags = ["--input-format=jsonl", "--format=jsonl", "--num-beams=1", "--max-new-tokens=5", "--attention=mha"];
    let finished = finish_with_input(generate(&demo()).args(flags), input.as_bytes()).expect(0);
    let told: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("unknown")).collect();
    let expected = [
        "warning: <stdin>:1: unknown field `num_beams` is ignored",
        "warning: <stdin>:2: unknown field `options` is ignored",
    ];
    assert_eq!(told, expected);
    let quiet = finish_with_input(quick().args(&flags[..2]), input.as_bytes()).expect(0);
    assert_eq!((quiet.stderr.as_str(), quiet.stdout.as_str()), ("", finished.stdout.as_str()));
    let mut command = elgen();
    command.args(["tokenize", "--input-format=jsonl", "--model"]).arg(demo());
    let finished = finish_with_input(&mut command, input.as_bytes()).expect(0);
    assert_eq!(finished.stderr.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn moses_lists_have_numbers_texts_and_scores() {
    let flags = ["--quiet", "--num-beams=3", "--num-return-sequences=2", "--max-new-tokens=6", "--attention=mha"];
    let texts = ["I was born in 1979.", "", "No."];
    let json = finish(generate(&demo()).args(flags).arg("--format=jsonl").args(texts)).expect(0);
    let moses = finish(generate(&demo()).args(flags).arg("--format=moses").args(texts)).expect(0);
    let mut expected = Vec::new();
    for (number, record) in parsed(&json.lines()).iter().enumerate() {
        let sequences = record["sequences"].as_array().unwrap();
        if sequences.is_empty() {
            expected.extend([format!("{number} |||  ||| 0"), format!("{number} |||  ||| 0")]);
        }
        for sequence in sequences {
            let score = sequence["score"].as_f64().unwrap() as f32;
            expected.push(format!("{number} ||| {} ||| {score}", sequence["text"].as_str().unwrap()));
        }
    }
    assert_eq!(moses.lines(), expected);
}

#[test]
fn what_moses_and_raw_output_cannot_have() {
    let refused = |flags: &[&str], parts: &[&str]| {
        finish(generate(&demo()).args(["--quiet", "--num-beams=1"]).args(flags).arg("x")).expect_error(2, parts);
    };
    refused(&["--format=moses", "--stream"], &["--stream: not with --format moses"]);
    refused(&["--format=moses", "--alignment"], &["--alignment: text output has no place for it"]);
    refused(&["--raw", "--format=jsonl"], &["--raw: needs --format text"]);
    refused(&["--raw", "--format=moses"], &["--raw: needs --format text"]);
    refused(&["--raw", "--output=x.txt"], &["--raw: writes to stdout; a file has a line for each text"]);
    refused(&["--echo"], &["--echo: needs --stream"]);
    refused(&["--echo", "--stream"], &["--echo: is for decoder-only models"]);
    let stories = common::stories();
    finish(generate(&stories).args(["--echo", "--stream", "--format=jsonl", "x"]))
        .expect_error(2, &["--echo: needs --format text"]);
    let mut command = generate(&demo());
    command.args(["--num-beams=1", "--max-new-tokens=2", "--attention=mha", "--format=moses", "--with-scores", "No."]);
    let told = finish(&mut command).expect(0).stderr;
    assert!(told.contains("warning: --with-scores: has no effect with --format moses"), "{told}");
}

#[test]
fn raw_texts_and_echoes_as_asked_for() {
    let stories = common::stories();
    let flags = ["--quiet", "--do-sample", "--seed=1", "--max-new-tokens=60", "--stream", "--attention=mha"];
    let run =
        |more: &[&str]| finish(generate(&stories).args(flags).args(more).arg("Once upon a time")).expect(0).stdout;
    let (escaped, raw) = (run(&[]), run(&["--raw", "--echo"]));
    assert!(escaped.contains("\\n"), "the sample has a paragraph's end: {escaped}");
    assert_eq!(raw, format!("Once upon a time{}", escaped.replace("\\n", "\n")));
    // The prefix is part of what is continued.
    let prefixed = run(&["--echo", "--prefix= there"]);
    assert!(prefixed.starts_with("Once upon a time there"), "{prefixed}");
}

#[test]
fn models_without_an_owner_are_helped() {
    let dir = tempfile::tempdir().unwrap();
    for (name, hint) in [("gpt2", "openai-community/gpt2"), ("t5-small", "google-t5/t5-small"), ("nowhere", "e.g. ")] {
        for command in ["generate", "tokenize", "score"] {
            let mut command = elgen_with(command, name);
            finish(command.current_dir(dir.path()))
                .expect_error(1, &[&format!("model directory {name}: "), "OWNER/NAME", hint]);
        }
    }
    // A path is no name.
    finish(elgen_with("tokenize", "./no/such/dir").current_dir(dir.path()))
        .expect_error(1, &["./no/such/dir: No such file"]);
}

fn elgen_with(command: &str, model: &str) -> Command {
    let mut elgen = elgen();
    elgen.args([command, "--model", model]);
    elgen
}

#[test]
fn built_in_configs_are_known_to_plan_and_bench() {
    let mut plan = elgen();
    plan.args(["plan", "--config", "bart-large", "--dtype=f16", "--memory-limit=16GiB", "--batch-size=32"]);
    let shown = finish(&mut plan).expect(0).stdout;
    assert!(shown.starts_with("bart in f16, 1024 source and "), "{shown}");
    for command in ["plan", "bench"] {
        finish(elgen().args([command, "--config", "bart-bse"]))
            .expect_error(1, &["--config bart-bse: ", "(did you mean bart-base?)", "gpt2-medium", "t5-base"]);
        finish(elgen().args([command, "--config", "no/config.json"])).expect_error(1, &["cannot read no/config.json"]);
    }
    let shown = finish(elgen().args(["plan", "--config", "gpt2", "--memory-limit", "2PiB"])).expect(0).stdout;
    assert!(shown.contains("within 2.0 PiB"), "{shown}");
}

#[cfg(target_os = "linux")]
#[test]
fn limits_of_the_process_are_named() {
    let limited = |limit: &str, arguments: &str| {
        let mut command = Command::new("bash");
        let line = format!("ulimit {limit} && exec {} {arguments}", env!("CARGO_BIN_EXE_elgen"));
        command.args(["-c", &line]).stdin(std::process::Stdio::null());
        finish(command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()))
    };
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("plot.svg");
    let plan = format!("plan --config bart-base --memory-limit 16GiB --plot {}", plot.display());
    limited("-f 1", &plan).expect_error(1, &["cannot write", "plot.svg: File too large"]);
    // Enough for the program, too little for the driver.
    limited("-v 200000", "devices")
        .expect_error(1, &["no Vulkan adapter was found", "195.3 MiB (ulimit -v)", "install"]);
}

#[test]
fn colours_where_they_are_wanted() {
    let run = |flags: &[&str], variable: Option<(&str, &str)>| {
        let mut command = elgen();
        command.args(flags).args(["inspect", "/nonexistent/model"]).envs(variable);
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
            if variable.is_none_or(|(set, _)| set != name) {
                command.env_remove(name);
            }
        }
        finish(&mut command).expect(1).stderr
    };
    let red = "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m ";
    assert!(run(&[], None).starts_with("error: "));
    assert!(run(&["--color", "always"], None).starts_with(red));
    assert!(run(&["--color=always"], Some(("NO_COLOR", "1"))).starts_with(red));
    assert!(run(&[], Some(("CLICOLOR_FORCE", "1"))).starts_with(red));
    assert!(run(&["--color=never"], Some(("CLICOLOR_FORCE", "1"))).starts_with("error: "));
    let usage = |flags: &[&str]| finish(elgen().args(flags).arg("inspect")).expect(2).stderr;
    assert!(usage(&["--color=always"]).starts_with("\u{1b}[1m\u{1b}[31merror:") && usage(&[]).starts_with("error:"));
    let wrong = finish(elgen().args(["devices", "--color", "sometimes"])).expect(2).stderr;
    assert!(wrong.contains("possible values: auto, always, never"), "{wrong}");
    let mut command = elgen();
    command.args(["tokenize", "--color=always", "--model"]).arg(demo()).arg(demo().join("config.json"));
    assert!(finish(&mut command).expect(0).stderr.starts_with("\u{1b}[1m\u{1b}[33mwarning:\u{1b}[0m "));
}

#[test]
fn columns_of_scores_are_named_on_request() {
    let score = |flags: &[&str], input: &str| {
        let mut command = elgen();
        command.args(["score", "--quiet", "--attention=mha", "--model"]).arg(common::stories()).args(flags);
        finish_with_input(&mut command, input.as_bytes())
    };
    let plain = score(&[], "The dog.\n").expect(0);
    let named = score(&["--header"], "The dog.\n").expect(0);
    assert_eq!(named.stdout, format!("log-probability\ttokens\tperplexity\n{}", plain.stdout));
    let named = score(&["--header", "--token-scores"], "The dog.\n").expect(0);
    assert!(named.stdout.starts_with("mean ||| tokens ||| log-probabilities\n"), "{named:#?}");
    score(&["--header", "--format=jsonl"], "").expect_error(2, &["--header: is for text output"]);
    score(&["--header", "--output=x.jsonl"], "").expect_error(2, &["--header: is for text output"]);
}
