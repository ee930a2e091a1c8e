//! `elgen generate` as it is meant to be used.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Command,
    thread,
    time::Duration,
};

use common::{demo, elgen, finish, finish_child, finish_with_input, generate, quick, stories};
use serde_json::Value;

/// Sentences enough to keep a software adapter busy for a while, the longest first, so that their results come early.
fn many_sentences() -> String {
    let pairs = fs::read_to_string(demo().join("test.tsv")).unwrap();
    let mut sentences: Vec<_> = pairs.lines().filter_map(|line| line.split('\t').next()).collect();
    sentences.sort_by_key(|sentence| std::cmp::Reverse(sentence.len()));
    sentences.join("\n") + "\n"
}

#[test]
fn texts_from_arguments_stdin_and_files_give_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.txt"), dir.path().join("out.txt"));
    let texts = ["I was born in 1979.", "", "The thief stubbed his toe on the door."];
    let from_arguments = finish(quick().args(texts)).expect(0);
    assert_eq!(from_arguments.lines().len(), 3);
    assert_eq!(from_arguments.lines()[1], "");
    assert_eq!(from_arguments.stderr, "");

    let joined = texts.join("\r\n");
    let from_stdin = finish_with_input(&mut quick(), joined.as_bytes()).expect(0);
    assert_eq!(from_stdin.stdout, from_arguments.stdout);

    fs::write(&input, joined).unwrap();
    let finished = finish(quick().arg("--input").arg(&input).arg("--output").arg(&output)).expect(0);
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
    assert_eq!(fs::read_to_string(&output).unwrap(), from_arguments.stdout);
}

#[test]
fn formats_follow_the_file_names_and_flags() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
    fs::write(&input, "{\"id\": {\"n\": 1.50}, \"text\": \"I was born.\"}\n{\"input_ids\": [0, 60, 17, 2]}\n").unwrap();
    finish(quick().arg("--input").arg(&input).arg("--output").arg(&output)).expect(0);
    let text = fs::read_to_string(&output).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(text.starts_with("{\"id\":{\"n\": 1.50},\"sequences\":[{\"text\":\""), "{text}");
    for (index, line) in lines.iter().enumerate() {
        let keys: Vec<_> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["id", "sequences", "prompt_tokens"]);
        let sequence = line["sequences"][0].as_object().unwrap();
        assert_eq!(sequence.keys().collect::<Vec<_>>(), ["text", "token_ids", "score", "finish_reason"]);
        let ids = sequence["token_ids"].as_array().unwrap();
        assert!((1..=5).contains(&ids.len()), "{line}");
        assert!(sequence["score"].as_f64().unwrap() <= 0.0, "{line}");
        let ended = ids.last() == Some(&2.into());
        assert!(sequence["finish_reason"] == if ended { "eos" } else { "length" }, "{line}");
        assert_eq!(line["id"] == 1, index == 1);
    }
    assert_eq!(lines[1]["prompt_tokens"], 4);
}

#[test]
fn n_best_with_scores() {
    let mut command = generate(&demo());
    command.args([
        "--num-beams",
        "3",
        "--num-return-sequences",
        "3",
        "--max-new-tokens",
        "6",
        "--quiet",
        "--with-scores",
    ]);
    let finished = finish(command.args(["I was born.", "", "Hot, dry areas will become hotter."])).expect(0);
    let lines = finished.lines();
    assert_eq!(lines.len(), 9, "{finished:#?}");
    assert_eq!(lines[3..6], ["", "", ""]);
    for block in [&lines[..3], &lines[6..]] {
        let scores: Vec<f32> = block.iter().map(|line| line.split_once(" ||| ").unwrap().0.parse().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{finished:#?}");
    }
}

#[test]
fn attention_kinds_and_batch_sizes_agree() {
    let texts = ["I was born in 1979.", "Is there anything you want me to buy for you?", "No."];
    let run = |flags: &[&str]| {
        let mut command = generate(&demo());
        command.args(["--num-beams", "2", "--max-new-tokens", "8", "--quiet", "--with-scores", "--dtype", "f32"]);
        finish(command.args(flags).args(texts)).expect(0).stdout
    };
    let expected = run(&["--attention", "mha"]);
    for batch in [&["--batch-size=1"][..], &["--batch-size=auto"], &["--max-batch-tokens=9"]] {
        assert_eq!(run(&[&["--attention", "mha"], batch].concat()), expected);
    }
    let texts_of =
        |lines: &str| lines.lines().map(|line| line.split_once(" ||| ").unwrap().1.to_owned()).collect::<Vec<_>>();
    assert_eq!(texts_of(&run(&["--attention", "el"])), texts_of(&expected));
}

#[test]
fn a_decoder_only_model_continues_prompts() {
    let input = "{\"text\": \"Once upon a time\"}\n{\"text\": \"\"}\n{\"input_ids\": [589, 634]}\n";
    let mut command = generate(&stories());
    command.args(["--quiet", "--max-new-tokens", "6", "--input-format", "jsonl", "--format", "jsonl"]);
    let finished = finish_with_input(&mut command, input.as_bytes()).expect(0);
    for line in finished.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        // The new ids alone, and for an empty text what follows the token that begins one.
        let sequence = &line["sequences"][0];
        assert_eq!(sequence["token_ids"].as_array().unwrap().len(), 6, "{line}");
        assert!(line["prompt_tokens"].as_u64().unwrap() > 0, "{line}");
        assert!(!sequence["text"].as_str().unwrap().starts_with("Once upon a time,") || line["id"] == 1, "{line}");
    }
}

#[test]
fn samples_depend_on_the_seed_and_not_on_the_batch() {
    let run = |seed: &str, batch: &str| {
        let mut command = generate(&stories());
        command.args([
            "--quiet",
            "--do-sample",
            "--num-return-sequences",
            "2",
            "--max-new-tokens",
            "8",
            "--with-scores",
        ]);
        command.args(["--seed", seed, "--batch-size", batch, "Once upon a time", "The dog", "A girl"]);
        finish(&mut command).expect(0).stdout
    };
    let first = run("7", "1");
    assert_eq!(first.lines().count(), 6);
    assert_eq!(run("7", "3"), first);
    assert_ne!(run("8", "3"), first);
}

#[test]
fn outputs_begin_with_their_prefix() {
    // What the model says by itself, cut in two, is what it goes on with.
    let run = |flags: &[&str], input: &str| -> Vec<Value> {
        let mut command = generate(&demo());
        command.args(["--quiet", "--num-beams=1", "--dtype=f32", "--input-format=jsonl", "--format=jsonl"]).args(flags);
        let finished = finish_with_input(&mut command, input.as_bytes()).expect(0);
        finished.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let ids = |line: &Value| line["sequences"][0]["token_ids"].as_array().unwrap().clone();
    let whole = ids(&run(&[], "{\"text\": \"I was born in 1979.\"}")[0]);
    let (begin, rest) = whole.split_at(whole.len() / 2);
    let begin = Value::from(begin.to_vec());
    let record = format!("{{\"text\": \"I was born in 1979.\", \"prefix\": {begin}}}");
    assert_eq!(ids(&run(&[], &record)[0]), rest);
    // A record's own prefix comes before the flag's.
    let both = run(&["--prefix=Elle"], &format!("{record}\n{{\"text\": \"I was born in 1979.\"}}"));
    assert_eq!(ids(&both[0]), rest);
    assert_ne!(ids(&both[1]), whole);
}

#[test]
fn alignments_stand_beside_their_ids() {
    let run = |flags: &[&str]| -> Vec<Value> {
        let mut command = generate(&demo());
        command.args(["--quiet", "--dtype=f32", "--format=jsonl", "--max-new-tokens=6"]).args(flags);
        let finished = finish(command.args(["I was born in 1979.", "Where?"])).expect(0);
        finished.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let beams = ["--num-beams=3", "--num-return-sequences=2"];
    let [mha, el, first] = [&["--alignment"][..], &["--alignment=-1", "--attention=el"], &["--alignment=0"]]
        .map(|flags| run(&[&beams, flags].concat()));
    let numbers = |row: &Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<f64>>();
    let rows = |sequence: &Value| sequence["alignment"].as_array().unwrap().iter().map(numbers).collect::<Vec<_>>();
    for (record, line) in mha.iter().enumerate() {
        for (rank, sequence) in line["sequences"].as_array().unwrap().iter().enumerate() {
            let found = rows(sequence);
            assert_eq!(found.len(), sequence["token_ids"].as_array().unwrap().len());
            for (a, b) in found.iter().zip(rows(&el[record]["sequences"][rank])) {
                assert_eq!(line["prompt_tokens"], a.len());
                assert!((a.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{a:?}");
                assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
            }
            assert_ne!(found, rows(&first[record]["sequences"][rank]), "another layer");
        }
    }
    // A streamed record's own line has them too.
    let streamed = run(&["--num-beams=1", "--stream", "--alignment"]);
    let records: Vec<_> = streamed.iter().filter(|line| line.get("sequences").is_some()).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(
        rows(&records[1]["sequences"][0]).len(),
        records[1]["sequences"][0]["token_ids"].as_array().unwrap().len()
    );
}

#[test]
fn statistics_go_to_stderr_and_to_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stats.json");
    let finished = finish(quick().args(["--stats", "--stats-json"]).arg(&file).args(["I was born.", ""])).expect(0);
    assert_eq!(finished.lines().len(), 2);
    for row in ["device", "storage", "attention", "inputs", "tokens per second", "peak memory", "attention caches"] {
        assert!(finished.stderr.lines().any(|line| line.starts_with(row)), "{row}: {finished:#?}");
    }
    let stats: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(stats["inputs"], 1);
    assert!(stats["generated_tokens"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["peak_bytes"]["weights"].as_u64().unwrap() > 1_000_000, "{stats}");
    let software = stats["software_adapter"].as_bool().unwrap();
    assert_eq!(finished.stderr.contains("software adapter"), software, "{finished:#?}");
}

/// Half of the weights' bytes with f16, and of the caches' with f16, each alone.
#[test]
fn weights_and_caches_are_stored_apart() {
    let dir = tempfile::tempdir().unwrap();
    let run = |flags: &[&str]| -> Value {
        let file = dir.path().join("stats.json");
        let mut command = quick();
        command.args(["--attention=el", "--dtype=f32", "--stats", "--stats-json"]).arg(&file);
        let finished = finish(command.args(flags).arg("I was born.")).expect(0);
        let stats: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let told =
            format!("weights {}, cache {}", stats["weights"].as_str().unwrap(), stats["cache"].as_str().unwrap());
        assert!(finished.stderr.lines().any(|line| line.starts_with("storage") && line.ends_with(&told)), "{told}");
        stats
    };
    let both = run(&[]);
    assert_eq!((&both["weights"], &both["cache"]), (&Value::from("f32"), &Value::from("f32")));
    let bytes = |stats: &Value| {
        let cache = &stats["cache_bytes"];
        [&stats["peak_bytes"]["weights"], &cache["self"], &cache["cross"]].map(|bytes| bytes.as_f64().unwrap())
    };
    let [weights, own, cross] = bytes(&both);
    let half = |part: f64, whole: f64| (0.49..0.53).contains(&(part / whole));
    let halves = run(&["--weights=f16"]);
    assert_eq!((&halves["weights"], &halves["cache"]), (&Value::from("f16"), &Value::from("f32")));
    let [w, o, c] = bytes(&halves);
    assert!(half(w, weights) && (o, c) == (own, cross), "{halves}");
    let halves = run(&["--cache=f16"]);
    assert_eq!((&halves["weights"], &halves["cache"]), (&Value::from("f32"), &Value::from("f16")));
    let [w, o, c] = bytes(&halves);
    assert!(w == weights && half(o, own) && half(c, cross), "{halves}");
}

#[test]
fn an_empty_input_is_an_empty_output() {
    let finished = finish(&mut quick()).expect(0);
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.txt");
    fs::write(&input, many_sentences()).unwrap();
    let mut child = quick().args(["--batch-size", "2", "--input"]).arg(&input).spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let finished = finish_child(child).expect(0);
    assert!(first.ends_with('\n'));
    assert_eq!(finished.stderr, "");
}

#[test]
fn a_closed_pipe_ends_reports_quietly() {
    for arguments in [&["--help"][..], &["generate", "--help"], &["devices"]] {
        let mut child = elgen().args(arguments).spawn().unwrap();
        drop(child.stdout.take());
        let finished = finish_child(child).expect(0);
        assert_eq!(finished.stderr, "");
    }
}

#[cfg(unix)]
fn interrupt(pid: u32) {
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_whole_lines() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.txt"), dir.path().join("out.jsonl"));
    let sentences = many_sentences();
    fs::write(&input, &sentences).unwrap();
    // To a file …
    let child =
        quick().args(["--batch-size", "2", "--input"]).arg(&input).arg("--output").arg(&output).spawn().unwrap();
    while fs::metadata(&output).map_or(0, |found| found.len()) == 0 {
        thread::sleep(Duration::from_millis(2));
    }
    interrupt(child.id());
    let finished = finish_child(child).expect(1);
    assert_eq!(finished.stderr, "interrupted\n");
    let text = fs::read_to_string(&output).unwrap();
    assert!(text.ends_with('\n'));
    let total = sentences.lines().count();
    assert!(text.lines().count() < total);
    // What had begun is no record: a run that goes on makes it anew.
    assert!(!text.contains("cancelled"));
    for (index, line) in text.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["id"], index);
        assert!(line.get("error").is_none(), "{line}");
    }

    // … and to a pipe.
    let mut child = quick().args(["--batch-size", "2", "--input"]).arg(&input).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    interrupt(child.id());
    stdout.read_to_string(&mut text).unwrap();
    let finished = finish_child(child).expect(1);
    assert_eq!(finished.stderr, "interrupted\n");
    assert!(text.ends_with('\n') && text.lines().count() < total);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_run_that_waits_for_input() {
    let mut command = quick();
    let child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    // Wherever it is by now, loading or reading, it has nothing to finish.
    thread::sleep(Duration::from_millis(1500));
    interrupt(child.id());
    let mut child = child;
    let stdin = child.stdin.take();
    let finished = finish_child(child).expect(1);
    drop(stdin);
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", "interrupted\n"));
}

#[test]
fn help_and_version() {
    let version = finish(elgen().arg("--version")).expect(0);
    assert_eq!(version.stdout, format!("elgen {}\n", env!("CARGO_PKG_VERSION")));
    let help = finish(elgen().arg("--help")).expect(0);
    for part in ["generate", "devices", "inspect", "Exit codes: 0 all done; 1 something failed", "2 wrong usage"] {
        assert!(help.stdout.contains(part), "{part}");
    }
    let help = finish(elgen().args(["generate", "--help"])).expect(0);
    for part in [
        "Input and output:",
        "Generation options:",
        "Engine options:",
        "Reports:",
        "Score: with beams",
        "sequences_scores",
        "Exit codes:",
        "\"finish_reason\": \"eos|length|stop\"",
        "--num-beams <N>",
        "--early-stopping <true|false|never>",
        "--do-sample[=<true|false>]",
        "--memory-limit <SIZE>",
    ] {
        assert!(help.stdout.contains(part), "{part}\n{}", help.stdout);
    }
    assert_eq!((version.stderr.as_str(), help.stderr.as_str()), ("", ""));
}
