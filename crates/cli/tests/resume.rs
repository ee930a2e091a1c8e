//! `--resume`: whatever happens to a run, the output in the end is that of a run to which nothing happened.

#![cfg(unix)]

mod common;

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Random, TINY_VOCAB, demo, finish, full, generate, quick, tiny};
use serde_json::{Value, json};
use tempfile::TempDir;

/// JSONL records of a few ids, among them bad ones and blank lines.
fn records(count: usize, random: &mut Random) -> Vec<u8> {
    let mut lines = Vec::new();
    for index in 0..count {
        let ids: Vec<_> = (0..1 + random.below(9)).map(|_| 3 + random.below(TINY_VOCAB - 3)).collect();
        match random.below(60) {
            0 => lines.extend(b"{\"id\": \"broken\", \"input_ids\": [1,"),
            1 => lines.extend(b"{\"text\": \"\xFF\"}"),
            2 => lines.extend(json!({ "id": index, "input_ids": [TINY_VOCAB] }).to_string().bytes()),
            3 => lines.extend(json!({ "id": "long", "input_ids": vec![5; 60] }).to_string().bytes()),
            4 => lines.extend(format!("\n \r\n{}", json!({ "input_ids": ids })).bytes()),
            5 => lines.extend(json!({ "id": { "é": index }, "input_ids": ids }).to_string().bytes()),
            _ => lines.extend(json!({ "input_ids": ids }).to_string().bytes()),
        }
        lines.push(b'\n');
    }
    lines
}

/// A copy of the tiny model with a tokenizer of one word for each id, some of them of several bytes or with a line end.
fn tiny_with_words() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(tiny().join(file), dir.path().join(file)).unwrap();
    }
    let vocab: serde_json::Map<_, _> =
        (0..TINY_VOCAB).map(|id| (if id == 50 { "\n".to_owned() } else { format!("é{id}") }, json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "é3" }
    });
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    dir
}

fn words(count: usize, random: &mut Random) -> Vec<u8> {
    let mut lines = Vec::new();
    for _ in 0..count {
        match random.below(40) {
            0 => lines.extend(b"\xE9 is no UTF-8"),
            1 => {}
            2 => lines.extend("é7 ".repeat(60).bytes()),
            _ => (0..1 + random.below(9)).for_each(|_| lines.extend(format!("é{} ", random.below(99)).bytes())),
        }
        lines.push(b'\n');
    }
    lines
}

/// A run from a file to a file.
struct Job {
    model: PathBuf,
    flags: Vec<&'static str>,
    input: PathBuf,
    output: PathBuf,
}

impl Job {
    fn command(&self) -> Command {
        let mut command = generate(&self.model);
        command.args(&self.flags).arg("--input").arg(&self.input).arg("--output").arg(&self.output);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn journal(&self) -> PathBuf {
        PathBuf::from(format!("{}.elgen-resume", self.output.display()))
    }

    fn length(&self) -> u64 {
        fs::metadata(&self.output).map_or(0, |found| found.len())
    }
}

/// Kills the job `kills` times at random points, resuming it each time; the last run may end. A run that ends before its
/// kill is compared too, and all begins anew.
fn kill_and_resume(job: &Job, kills: usize, random: &mut Random) {
    let begin = Instant::now();
    assert_eq!(job.command().status().unwrap().code(), Some(1), "some records fail");
    let takes = begin.elapsed();
    let expected = fs::read(&job.output).unwrap();
    assert!(!job.journal().exists(), "a complete output has no journal");
    fs::remove_file(&job.output).unwrap();

    let (mut killed, mut points, mut completed) = (0, Vec::new(), 0);
    while killed < kills || completed == 0 {
        let mut child = job.command().arg("--resume").spawn().unwrap();
        if killed < kills {
            let begin = Instant::now();
            // Half of the kills come at any time, half as soon as the output has grown by so much.
            if random.below(2) == 0 {
                thread::sleep(takes.mul_f64(random.below(1000) as f64 / 1000.0));
            } else {
                let wanted = job.length() + random.below(expected.len() as u64);
                while job.length() < wanted && begin.elapsed() < takes {
                    thread::sleep(Duration::from_micros(300));
                }
            }
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        let text = fs::read(&job.output).unwrap_or_default();
        if status.signal() == Some(9) {
            killed += 1;
            points.push(text.len());
            assert!(expected.starts_with(&text), "not a beginning of the output after kill {killed}");
            continue;
        }
        // Failed records count, whichever run met them.
        assert_eq!(status.code(), Some(1));
        assert!(text == expected, "{} bytes, expected {}", text.len(), expected.len());
        assert!(!job.journal().exists());
        fs::remove_file(&job.output).unwrap();
        completed += 1;
    }
    println!("killed {killed} times at bytes {points:?} of {}; {completed} runs completed", expected.len());
}

#[test]
fn json_lines_after_kills() {
    let (count, kills) = if full() { (20_000, 20) } else { (2_000, 5) };
    let mut random = Random::seeded("json_lines_after_kills");
    let dir = tempfile::tempdir().unwrap();
    let job = Job {
        model: tiny(),
        flags: vec![
            "--quiet",
            "--num-beams=1",
            "--max-new-tokens=6",
            "--batch-size=16",
            "--token-logprobs",
            "--alignment",
        ],
        input: dir.path().join("in.jsonl"),
        output: dir.path().join("out.jsonl"),
    };
    fs::write(&job.input, records(count, &mut random)).unwrap();
    kill_and_resume(&job, kills, &mut random);
}

#[test]
fn n_best_texts_after_kills() {
    let mut random = Random::seeded("n_best_texts_after_kills");
    let (dir, model) = (tempfile::tempdir().unwrap(), tiny_with_words());
    let job = Job {
        model: model.path().to_owned(),
        flags: vec![
            "--quiet",
            "--do-sample",
            "--num-beams=1",
            "--num-return-sequences=3",
            "--max-new-tokens=5",
            "--batch-size=8",
            "--with-scores",
        ],
        input: dir.path().join("in.txt"),
        output: dir.path().join("out.txt"),
    };
    fs::write(&job.input, words(400, &mut random)).unwrap();
    kill_and_resume(&job, if full() { 10 } else { 5 }, &mut random);
}

/// A job of the demo model that was killed behind its first record, and its whole output.
fn interrupted(dir: &Path) -> (Job, Vec<u8>) {
    let job = Job {
        model: demo(),
        flags: vec![
            "--quiet",
            "--num-beams=2",
            "--num-return-sequences=2",
            "--max-new-tokens=6",
            "--with-scores",
            "--batch-size=1",
        ],
        input: dir.join("in.txt"),
        output: dir.join("out.txt"),
    };
    fs::write(&job.input, "Where is he?\n\nI was born in 1979.\nWe lost everything.\nNo.\n").unwrap();
    assert!(job.command().status().unwrap().success());
    let expected = fs::read(&job.output).unwrap();
    loop {
        fs::write(&job.output, "an earlier output\n").unwrap();
        let mut child = job.command().spawn().unwrap();
        while !job.journal().exists() {
            assert_eq!(child.try_wait().unwrap(), None);
            thread::sleep(Duration::from_micros(200));
        }
        while job.length() == 0 && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // It may have been too quick for us.
        if job.journal().exists() {
            return (job, expected);
        }
    }
}

#[test]
fn torn_outputs_and_changed_setups() {
    let dir = tempfile::tempdir().unwrap();
    let (mut job, expected) = interrupted(dir.path());
    let journal = fs::read(job.journal()).unwrap();

    // Another setup is refused, by name, and nothing is touched.
    let killed = fs::read(&job.output).unwrap();
    assert!(!killed.is_empty() && expected.starts_with(&killed));
    for (flags, parts) in [
        (&["--num-beams=3"][..], &["another setup", "--num-beams is 3, was 2"][..]),
        (&["--num-beams=2", "--seed=4"], &["--seed is 4, was not set"]),
        (&["--num-beams=2", "--attention=el"], &["--attention is \"el\", was \"auto\""]),
        (&["--num-beams=2", "--dtype=f16"], &["--dtype is \"f16\", was \"auto\""]),
        (&["--num-beams=2", "--weights=f16"], &["--weights is \"f16\", was not set"]),
        (&["--num-beams=2", "--cache=f16"], &["--cache is \"f16\", was not set"]),
        (&["--num-beams=2", "--format=jsonl"], &["--format is \"jsonl\", was \"text\""]),
        (&["--num-beams=2", "--format=jsonl", "--alignment=0"], &["--alignment is 0, was not set"]),
    ] {
        let mut command = generate(&job.model);
        command.args(&job.flags[2..]).args(["--quiet"]).args(flags).arg("--resume");
        command.arg("--input").arg(&job.input).arg("--output").arg(&job.output);
        finish(&mut command).expect_error(2, parts);
    }
    let texts = fs::read_to_string(&job.input).unwrap();
    fs::write(&job.input, texts.replace("1979", "1980")).unwrap();
    finish(job.command().arg("--resume").stdout(Stdio::piped()).stderr(Stdio::piped()))
        .expect_error(2, &["the input has changed"]);
    fs::write(&job.input, &texts).unwrap();
    assert_eq!(fs::read(&job.output).unwrap(), killed);

    job.flags.remove(0);
    // As it was left; cut, and that is told where more is gone than a kill takes; changed.
    for end in [killed.len(), killed.len() - 1, 0] {
        fs::write(job.journal(), &journal).unwrap();
        fs::write(&job.output, &killed[..end]).unwrap();
        let finished = finish(job.command().arg("--resume").stderr(Stdio::piped())).expect(0);
        let told = finished.stderr.contains("resuming");
        assert!((end > 0 || !told) && (end < killed.len() || told), "{finished:#?}");
        assert!(fs::read(&job.output).unwrap() == expected, "{end}");
        assert!(!job.journal().exists());
    }
    let text = String::from_utf8(killed.clone()).unwrap();
    for (changed, wanted) in [
        (format!("{text}zzz\n"), "4 bytes that the run did not write"),
        (text.replacen(" ||| ", " ||  ", 1), "differs"),
        (text.replacen('\n', "\n\n", 1), "that the run did not write"),
    ] {
        fs::write(job.journal(), &journal).unwrap();
        fs::write(&job.output, &changed).unwrap();
        let told = finish(job.command().arg("--resume").stdout(Stdio::piped()).stderr(Stdio::piped())).expect(2).stderr;
        assert!(told.contains("was changed since its run stopped"), "{wanted}: {told}");
        assert_eq!(fs::read_to_string(&job.output).unwrap(), changed);
    }
}

#[test]
fn a_complete_output_is_told_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job {
        model: tiny(),
        flags: vec!["--num-beams=1", "--max-new-tokens=3", "--attention=mha"],
        input: dir.path().join("in.jsonl"),
        output: dir.path().join("out.jsonl"),
    };
    let records = "{\"input_ids\":[5,6]}\n{\"input_ids\":[7]}\n";
    fs::write(&job.input, records).unwrap();
    assert!(job.command().status().unwrap().success());
    let whole = fs::read_to_string(&job.output).unwrap();
    let names = || fs::read_dir(dir.path()).unwrap().count();
    assert_eq!((names(), job.journal().exists()), (3, false), "one small file stays, which is hidden");
    let again = || {
        let mut command = job.command();
        command.arg("--resume").stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(&mut command)
    };
    for _ in 0..2 {
        let finished = again().expect(0);
        assert_eq!(finished.stderr, format!("{} is already complete: 2 records\n", job.output.display()));
        assert_eq!(fs::read_to_string(&job.output).unwrap(), whole);
    }
    for (text, wanted) in [
        (format!("{records}{{\"input_ids\":[8]}}\n"), "the input has changed: it has 56 bytes, had 38"),
        (records.replace('7', "8"), "the input has changed"),
        (records[..20].to_owned(), "the input has changed: it has 20 bytes, had 38"),
    ] {
        fs::write(&job.input, text).unwrap();
        again().expect_error(2, &["--resume", "was made with another setup", wanted]);
    }
    fs::write(&job.input, records).unwrap();
    for (text, wanted) in [
        (whole.replacen("\"id\":0", "\"id\":9", 1), "it has other bytes"),
        (format!("{whole}{{}}\n"), "was changed since it was complete"),
        (whole[..whole.len() - 1].to_owned(), "was changed since it was complete"),
    ] {
        fs::write(&job.output, &text).unwrap();
        again().expect_error(2, &["--resume", wanted]);
        assert_eq!(fs::read_to_string(&job.output).unwrap(), text);
    }
    fs::remove_file(&job.output).unwrap();
    again().expect(0);
    assert_eq!(fs::read_to_string(&job.output).unwrap(), whole);
}

/// A job of many records that goes on for a while.
fn long_job(dir: &Path) -> Job {
    let job = Job {
        model: tiny(),
        flags: vec!["--num-beams=1", "--max-new-tokens=12", "--batch-size=2", "--attention=mha"],
        input: dir.join("in.jsonl"),
        output: dir.join("out.jsonl"),
    };
    let lines: String = (0..3000).map(|id| format!("{}\n", json!({ "input_ids": [3 + id % 90, 4] }))).collect();
    fs::write(&job.input, lines).unwrap();
    job
}

/// Starts a job and changes something behind its first results.
fn changed_while_running(job: &Job, change: impl FnOnce()) -> common::Finished {
    let child = job.command().stderr(Stdio::piped()).spawn().unwrap();
    while job.length() == 0 {
        thread::sleep(Duration::from_millis(2));
    }
    change();
    common::finish_child(child)
}

#[test]
fn an_input_that_changes_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let job = long_job(dir.path());
    let text = fs::read_to_string(&job.input).unwrap();
    // In place, as an editor or a program that appends does.
    let grown = format!("{text}{}\n", json!({ "input_ids": [4] }));
    let finished = changed_while_running(&job, || fs::write(&job.input, &grown[..grown.len() - 20]).unwrap()).expect(1);
    assert!(finished.stderr.contains("in.jsonl changed while it was read: it had"), "{finished:#?}");
    assert!(finished.stderr.contains("and 3000 records"), "{finished:#?}");
    assert!(job.journal().exists(), "not taken for complete");
    finish(job.command().arg("--resume").stdout(Stdio::piped()).stderr(Stdio::piped()))
        .expect_error(2, &["the input has changed"]);
}

#[test]
fn an_output_that_goes_away_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let job = long_job(dir.path());
    let begin = Instant::now();
    let finished = changed_while_running(&job, || fs::remove_file(&job.output).unwrap()).expect(1);
    assert!(finished.stderr.contains("cannot write") && finished.stderr.contains("it was removed"), "{finished:#?}");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["in.jsonl"], "told after {:?}", begin.elapsed());
}

#[test]
fn one_output_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.txt");
    let mut first = quick();
    let mut first = first.arg("--output").arg(&output).stdin(Stdio::piped()).spawn().unwrap();
    while !output.exists() {
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(Duration::from_millis(50));
    finish(quick().arg("x").arg("--output").arg(&output))
        .expect_error(1, &["cannot write", "out.txt", "another process is writing it"]);
    drop(first.stdin.take());
    common::finish_child(first).expect(0);
}

#[test]
fn what_cannot_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.txt"), dir.path().join("out.txt"));
    fs::write(&input, "Hello.\n").unwrap();
    let with = |edit: &dyn Fn(&mut Command), parts: &[&str]| {
        let mut command = quick();
        command.arg("--resume");
        edit(&mut command);
        finish(&mut command).expect_error(2, parts);
    };
    with(
        &|c| {
            c.arg("--input").arg(&input);
        },
        &["--resume: needs --output FILE"],
    );
    with(
        &|c| {
            c.arg("--input").arg(&input).args(["--output", "-"]);
        },
        &["--resume: needs --output FILE"],
    );
    with(
        &|c| {
            c.arg("--output").arg(&output);
        },
        &["--resume: needs --input FILE", "stdin"],
    );
    with(
        &|c| {
            c.arg("text").arg("--output").arg(&output);
        },
        &["--resume: needs --input FILE", "arguments"],
    );
    with(
        &|c| {
            c.args(["--input", "/dev/null"]).arg("--output").arg(&output);
        },
        &["--resume: needs an input that is a regular file"],
    );
    with(
        &|c| {
            c.args(["--output", "/dev/null"]).arg("--input").arg(&input);
        },
        &["--resume: needs an output that is a regular file"],
    );
    assert!(!output.exists());
    let journal = dir.path().join("out.txt.elgen-resume");
    fs::write(&journal, "a user's text\n").unwrap();
    finish(quick().arg("--input").arg(&journal).arg("--output").arg(&output))
        .expect_error(2, &["--output needs this name", "out.txt.elgen-resume", "--input"]);
    assert_eq!(fs::read_to_string(&journal).unwrap(), "a user's text\n");
}

#[test]
fn an_interrupted_run_says_how_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job {
        model: tiny(),
        flags: vec!["--num-beams=1", "--max-new-tokens=12", "--batch-size=2"],
        input: dir.path().join("in.jsonl"),
        output: dir.path().join("out.jsonl"),
    };
    let lines: String = (0..3000).map(|id| format!("{}\n", json!({ "input_ids": [3 + id % 90, 4] }))).collect();
    fs::write(&job.input, lines).unwrap();
    let child = job.command().stderr(Stdio::piped()).spawn().unwrap();
    while job.length() == 0 {
        thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let finished = common::finish_child(child).expect(1);
    assert!(finished.stderr.ends_with("interrupted\nthe same command with --resume continues\n"), "{finished:#?}");
    let part = fs::read_to_string(&job.output).unwrap();
    let done = part.lines().count();
    assert!(part.ends_with('\n') && done < 3000);

    let finished = finish(job.command().args(["--resume", "--progress=always"]).stderr(Stdio::piped())).expect(0);
    assert!(finished.stderr.contains(&format!("out.jsonl at record {} of 3000\n", done + 1)), "{finished:#?}");
    assert!(finished.stderr.contains("progress: 3000/3000 records (100 %), "), "{finished:#?}");
    let text = fs::read_to_string(&job.output).unwrap();
    assert!(text.starts_with(&part));
    for (index, line) in text.lines().enumerate() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["id"], index);
    }
    assert_eq!(text.lines().count(), 3000);
}
