//! Nothing that a command reads is written, whatever name it has; special files in place of regular ones are errors; what files
//! hold does not control a terminal.

#![cfg(unix)]

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{Finished, elgen, finish, tiny};
use tempfile::TempDir;

const RECORDS: &str = "{\"input_ids\":[5,6]}\n{\"input_ids\":[7]}\n";

/// A directory with a model, inputs, and other names for them.
fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
    for name in ["m", "snapshot", "blobs", "sub"] {
        fs::create_dir(at(name)).unwrap();
    }
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(tiny().join(file), at("m").join(file)).unwrap();
        // As the hub's cache has it.
        fs::copy(tiny().join(file), at("blobs").join(file.replace('.', "_"))).unwrap();
        symlink(format!("../blobs/{}", file.replace('.', "_")), at("snapshot").join(file)).unwrap();
    }
    write("a.jsonl", RECORDS);
    write("b.jsonl", RECORDS);
    write("t.txt", "one\ntwo\n");
    write("u.txt", "one\ntwo\n");
    write("options.json", "{\"num_beams\": 1}");
    write("saved.run", "ELGENRUN");
    write("report.json", "{}");
    fs::hard_link(at("a.jsonl"), at("hard.jsonl")).unwrap();
    fs::hard_link(at("m/model.safetensors"), at("weights")).unwrap();
    symlink("a.jsonl", at("soft.jsonl")).unwrap();
    symlink("soft.jsonl", at("softer.jsonl")).unwrap();
    symlink(".", at("here")).unwrap();
    symlink("m/tokenizer.json", at("new.json")).unwrap();
    symlink("later.jsonl", at("dangling.jsonl")).unwrap();
    dir
}

/// Every file below a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() });
        }
    }
    found
}

/// A command line: words, then `< FILE`, `> FILE`, `>> FILE` and `2>> FILE` as a shell has them, but for `>`, which does not empty
/// the file here.
fn run(dir: &Path, line: &str) -> Finished {
    let mut command = elgen();
    command.current_dir(dir);
    let mut words = line.split(' ');
    while let Some(word) = words.next() {
        let mut file =
            |options: &mut fs::OpenOptions| -> Stdio { options.open(dir.join(words.next().unwrap())).unwrap().into() };
        match word {
            "<" => drop(command.stdin(file(File::options().read(true)))),
            ">" => drop(command.stdout(file(File::options().write(true).create(true).truncate(false)))),
            ">>" => drop(command.stdout(file(File::options().append(true).create(true)))),
            "2>>" => drop(command.stderr(file(File::options().append(true).create(true)))),
            "GENERATE" => {
                command.args(["generate", "--model", "m", "--input-format", "jsonl", "--format", "jsonl", "--quiet"]);
                command.args(["--max-new-tokens", "2", "--attention", "mha"]);
            }
            "SCORE" => drop(command.args(["score", "--model", "m", "--quiet", "--attention", "mha"])),
            word => drop(command.arg(word)),
        }
    }
    finish(&mut command)
}

/// Each line is refused with code 2 and one line that holds the text behind `#`, and no file is touched.
fn refused(lines: &[&str]) {
    let dir = place();
    let before = contents(dir.path());
    for line in lines {
        let (line, wanted) = line.split_once(" # ").unwrap();
        let finished = run(dir.path(), line);
        assert!(
            finished.code == Some(2) && finished.stdout.is_empty() && finished.stderr.lines().count() == 1,
            "{line}: {finished:#?}"
        );
        assert!(finished.stderr.contains(wanted), "{line}: no {wanted:?} in {finished:#?}");
        let after = contents(dir.path());
        assert!(after == before, "{line}: {:?} became {:?}", before.keys(), after.keys());
    }
}

#[test]
fn outputs_that_are_inputs() {
    refused(&[
        "GENERATE --input a.jsonl --output a.jsonl # --output a.jsonl: the same file as --input",
        "GENERATE --input a.jsonl --output hard.jsonl # the same file as --input",
        "GENERATE --input a.jsonl --output softer.jsonl # the same file as --input",
        "GENERATE --input softer.jsonl --output here/here/hard.jsonl # the same file as --input",
        "GENERATE --input a.jsonl --output ./sub/../a.jsonl # the same file as --input",
        "GENERATE --input dangling.jsonl --output later.jsonl # the same file as --input",
        "GENERATE --output a.jsonl < a.jsonl # --output a.jsonl: the same file as stdin",
        "GENERATE --output hard.jsonl < soft.jsonl # the same file as stdin",
        "GENERATE --input - --output a.jsonl < a.jsonl # the same file as stdin",
        "GENERATE --input /dev/stdin --output a.jsonl < a.jsonl # the same file as --input",
        "GENERATE --input a.jsonl --output /dev/stdin < a.jsonl # the same file as --input",
        "GENERATE --input a.jsonl --output /proc/self/fd/0 < hard.jsonl # the same file as --input",
        "GENERATE --input a.jsonl --resume --output a.jsonl # the same file as --input",
        "GENERATE --input a.jsonl --stats-json a.jsonl # --stats-json a.jsonl: the same file as --input",
        "GENERATE --stats-json hard.jsonl < a.jsonl # the same file as stdin",
        "GENERATE --input a.jsonl >> a.jsonl # stdout: the same file as --input",
        "GENERATE --input a.jsonl > hard.jsonl # stdout: the same file as --input",
        "GENERATE < a.jsonl >> a.jsonl # stdout: the same file as stdin",
        "GENERATE --input a.jsonl --output /dev/stdout >> soft.jsonl # the same file as --input",
        "GENERATE --input a.jsonl --generation-config options.json --output options.json # the same file as --generation-config",
        "GENERATE --input a.jsonl --generation-config options.json --stats-json options.json # the same file as --generation-config",
        "GENERATE --input a.jsonl --generation-config options.json >> options.json # the same file as --generation-config",
        "GENERATE --input a.jsonl --output new.jsonl --stats-json here/new.jsonl # the same file as --output",
    ]);
    // A file that stdout makes is there before the program is.
    let dir = place();
    let finished = run(dir.path(), "GENERATE --input a.jsonl --stats-json new.jsonl > new.jsonl").expect(2);
    assert!(finished.stderr.contains("--stats-json new.jsonl: the same file as stdout"), "{finished:#?}");
}

#[test]
fn names_that_an_output_needs_for_itself() {
    refused(&[
        "GENERATE --input a.jsonl --output new.jsonl --stats-json .new.jsonl.elgen-done # --output needs this name",
        "GENERATE --input a.jsonl --output new.jsonl --stats-json new.jsonl.elgen-resume # --output needs this name",
        "GENERATE --input new.jsonl.elgen-resume.tmp --output new.jsonl # --output needs this name",
        "GENERATE --generation-config new.jsonl.elgen-resume --output new.jsonl < a.jsonl # --output needs this name",
        "bench --config x.json --output rows.txt --plot rows.txt.elgen-bench # --output needs this name",
    ]);
}

#[test]
fn outputs_that_are_files_of_the_model() {
    refused(&[
        "GENERATE --input a.jsonl --output m/model.safetensors # --output m/model.safetensors: is m/model.safetensors, a file of the model",
        "GENERATE --input a.jsonl --output weights # m/model.safetensors, a file of the model",
        "GENERATE --input a.jsonl --output here/m/config.json # a file of the model",
        "GENERATE --input a.jsonl --stats-json m/generation_config.json # a file of the model",
        "GENERATE --input a.jsonl >> m/config.json # stdout: is m/config.json, a file of the model",
        "GENERATE --input a.jsonl --output m/tokenizer.json # would become a file of the model",
        "GENERATE --input a.jsonl --output new.json # would become a file of the model",
        "GENERATE --input a.jsonl --stats-json here/m/tokenizer_config.json # would become a file of the model",
        "GENERATE --input a.jsonl --output m/model-00001-of-00002.safetensors # would become a file of the model",
        "GENERATE --input a.jsonl --output m/source.spm # would become a file of the model",
        "generate --model snapshot --input a.jsonl --output blobs/model_safetensors # snapshot/model.safetensors, a file of the model",
        "generate --model snapshot --input a.jsonl --output snapshot/config.json # a file of the model",
        "generate --model here/snapshot --input a.jsonl --stats-json blobs/config_json # a file of the model",
        "generate --model snapshot --input a.jsonl --print-config >> blobs/config_json # stdout: is snapshot/config.json",
        "SCORE --input a.jsonl --save-run m/model.safetensors # a file of the model",
        "SCORE --input a.jsonl --output m/vocab.json # would become a file of the model",
        "tokenize --model m one >> m/config.json # a file of the model",
        "inspect m >> m/config.json # stdout: is m/config.json, a file of the model",
        "plan --model m --memory-limit 1GiB --plot m/config.json # a file of the model",
        "plan --model m --memory-limit 1GiB >> m/config.json # a file of the model",
        "bench --model m --output m/model.safetensors # a file of the model",
        "bench --model m --plot m/config.json # a file of the model",
    ]);
}

#[test]
fn files_of_the_other_commands() {
    refused(&[
        "SCORE --input a.jsonl --output hard.jsonl # --output hard.jsonl: the same file as --input",
        "SCORE --output a.jsonl < a.jsonl # the same file as stdin",
        "SCORE --input t.txt --targets u.txt --output u.txt # the same file as --targets",
        "SCORE --input t.txt --targets - --output u.txt < u.txt # the same file as stdin",
        "SCORE --input t.txt --targets u.txt >> u.txt # stdout: the same file as --targets",
        "SCORE --input a.jsonl --save-run a.jsonl # --save-run a.jsonl: the same file as --input",
        "SCORE --input a.jsonl --save-run x --stats-json x # the same file as --save-run",
        "SCORE --input a.jsonl --compare-run saved.run --output saved.run # the same file as --compare-run",
        "SCORE --input a.jsonl --compare-run saved.run --stats-json saved.run # the same file as --compare-run",
        "tokenize --model m --input t.txt >> t.txt # stdout: the same file as --input",
        "tokenize --model m < t.txt >> t.txt # stdout: the same file as stdin",
        "eval t.txt --references u.txt >> t.txt # stdout: the same file as HYPOTHESES",
        "eval t.txt --references u.txt >> u.txt # stdout: the same file as --references",
        "eval - --references u.txt < t.txt >> t.txt # stdout: the same file as stdin",
        "plan --config m/config.json --memory-limit 1GiB --plot m/config.json # the same file as --config",
        "plan --config m/config.json --memory-limit 1GiB >> m/config.json # the same file as --config",
        "bench --config m/config.json --output m/config.json # the same file as --config",
        "bench --config m/config.json --lengths-from a.jsonl --plot a.jsonl # the same file as --lengths-from",
        "bench --from report.json --output report.json # the same file as --from",
        "bench --from report.json >> report.json # stdout: the same file as --from",
        "bench --config m/config.json --output x --plot x # the same file as --output",
    ]);
}

#[test]
fn messages_into_files_that_count() {
    let dir = place();
    for (line, file) in
        [("GENERATE --input a.jsonl 2>> a.jsonl", "a.jsonl"), ("GENERATE --input a.jsonl --output o 2>> o", "o")]
    {
        run(dir.path(), line).expect(2);
        // The reason is all that was added.
        let text = fs::read_to_string(dir.path().join(file)).unwrap();
        assert!(text.lines().last().unwrap().starts_with("error: stderr: the same file as --"), "{text}");
    }
}

#[test]
fn two_names_for_what_holds_nothing() {
    let dir = place();
    // A device may be named twice, and one log may have results and messages.
    run(dir.path(), "GENERATE --input /dev/null --output /dev/null --stats-json /dev/null").expect(0);
    run(dir.path(), "eval t.txt --references u.txt > log 2>> log").expect(0);
    assert!(fs::read_to_string(dir.path().join("log")).unwrap().contains("BLEU"));
    // Files beside those of a model are the user's.
    run(dir.path(), "plan --model m --memory-limit 1GiB --plot m/plot.svg").expect(0);
}

#[test]
fn outputs_in_directories_that_are_not_there() {
    let dir = place();
    let before = contents(dir.path());
    for (line, wanted) in [
        (
            "GENERATE --input a.jsonl --output nowhere/x.jsonl",
            "cannot write nowhere/x.jsonl: no such directory: nowhere",
        ),
        ("GENERATE --input a.jsonl --stats-json /nonexistent/x", "no such directory: /nonexistent"),
        ("GENERATE --input a.jsonl --output a.jsonl/x", "cannot write a.jsonl/x: Not a directory"),
        ("GENERATE --input a.jsonl --output sub", "cannot write sub: is a directory"),
        ("GENERATE --input a.jsonl --output new/", "cannot write new/: not the name of a file"),
        ("SCORE --input a.jsonl --save-run nowhere/x", "no such directory: nowhere"),
        ("plan --config m/config.json --memory-limit 1GiB --plot nowhere/x.svg", "no such directory: nowhere"),
        ("bench --config m/config.json --output nowhere/x", "no such directory: nowhere"),
        ("bench --config m/config.json --plot nowhere/x", "no such directory: nowhere"),
    ] {
        let finished = run(dir.path(), line).expect(1);
        assert!(finished.stderr.contains(wanted) && finished.stderr.lines().count() == 1, "{line}: {finished:#?}");
        assert!(contents(dir.path()) == before, "{line}");
    }
}

#[test]
fn special_files_in_place_of_regular_ones() {
    let dir = place();
    let at = |name: &str| dir.path().join(name);
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    symlink("/dev/zero", at("zero")).unwrap();
    symlink("pipe", at("link.elgen-resume")).unwrap();
    fs::write(at("link"), "x\n").unwrap();
    for (output, target) in [("p", "pipe"), ("z", "zero"), ("d", "sub"), ("s", "socket")] {
        fs::write(at(output), "x\n").unwrap();
        let journal = at(&format!("{output}.elgen-resume"));
        match target {
            "pipe" => assert!(Command::new("mkfifo").arg(&journal).status().unwrap().success()),
            "sub" => fs::create_dir(&journal).unwrap(),
            "socket" => fs::rename(at("socket"), &journal).unwrap(),
            _ => symlink("/dev/zero", &journal).unwrap(),
        }
        for resume in ["", " --resume"] {
            let line = format!("GENERATE --input a.jsonl --output {output}{resume}");
            let finished = run(dir.path(), &line).expect(1);
            assert!(finished.stderr.contains(&format!("{output}.elgen-resume")), "{line}: {finished:#?}");
            assert_eq!(fs::read_to_string(at(output)).unwrap(), "x\n");
            assert!(journal.symlink_metadata().is_ok());
        }
    }
    let finished = run(dir.path(), "GENERATE --input a.jsonl --output link --resume").expect(1);
    assert!(finished.stderr.contains("a link, not a regular file"), "{finished:#?}");
    for line in [
        "GENERATE --input a.jsonl --generation-config pipe",
        "GENERATE --input a.jsonl --generation-config zero",
        "SCORE --input a.jsonl --compare-run pipe",
        "SCORE --input a.jsonl --compare-run zero",
        "plan --memory-limit 1GiB --config pipe",
        "plan --memory-limit 1GiB --config zero",
        "bench --config pipe",
        "bench --config m/config.json --lengths-from pipe",
        "bench --config m/config.json --lengths-from zero",
        "bench --from pipe",
        "bench --from zero",
    ] {
        let finished = run(dir.path(), line).expect(1);
        assert!(finished.stderr.ends_with(": not a regular file\n"), "{line}: {finished:#?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{line}: {finished:#?}");
    }
    for line in ["GENERATE --input pipe --output o --resume", "GENERATE --input a.jsonl --output pipe --resume"] {
        assert!(run(dir.path(), line).expect(2).stderr.contains("that is a regular file"), "{line}");
    }
    drop(socket);
}

#[test]
fn a_journal_without_end_costs_nothing() {
    let dir = place();
    let journal = File::create(dir.path().join("o.elgen-resume")).unwrap();
    journal.set_len(4 << 30).unwrap();
    fs::write(dir.path().join("o"), "x\n").unwrap();
    let finished = run(dir.path(), "GENERATE --input a.jsonl --output o --resume").expect(1);
    assert!(finished.stderr.contains("o.elgen-resume is damaged"), "{finished:#?}");
}

#[test]
fn streams_are_inputs_still() {
    let dir = place();
    let at = |name: &str| dir.path().join(name);
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    // The writer is gone before the program has read anything.
    let pipe = at("pipe");
    let writer =
        std::thread::spawn(move || File::options().write(true).open(pipe).unwrap().write_all(RECORDS.as_bytes()));
    let finished = run(dir.path(), "GENERATE --input pipe --output piped.jsonl").expect(0);
    writer.join().unwrap().unwrap();
    assert_eq!(fs::read_to_string(at("piped.jsonl")).unwrap().lines().count(), 2, "{finished:#?}");
    let finished = run(dir.path(), "GENERATE --input /dev/stdin < a.jsonl").expect(0);
    assert_eq!(finished.lines().len(), 2, "{finished:#?}");
    // As with `<(…)`.
    for (line, wanted) in [
        ("GENERATE --print-config --input a.jsonl --generation-config /dev/fd/0 < options.json", "--generation-config"),
        ("plan --memory-limit 1GiB --config /dev/stdin < m/config.json", "{\"model\""),
        ("eval /dev/fd/0 --references u.txt < t.txt", "BLEU"),
    ] {
        let finished = run(dir.path(), line).expect(0);
        assert!(finished.stdout.contains(wanted) || wanted.starts_with('{'), "{line}: {finished:#?}");
    }
}

#[test]
fn long_names_are_names() {
    let dir = place();
    let output = "y".repeat(250);
    let line = format!("GENERATE --input a.jsonl --output {output}");
    run(dir.path(), &line).expect(0);
    assert_eq!(fs::read_to_string(dir.path().join(&output)).unwrap().lines().count(), 2);
    let finished = run(dir.path(), &format!("{line} --resume")).expect(0);
    assert_eq!(finished.stderr, "", "it is complete: {finished:#?}");
    let before = contents(dir.path());
    let finished = run(dir.path(), &format!("GENERATE --input a.jsonl --output {}", "y".repeat(256))).expect(1);
    assert!(finished.stderr.contains("too long"), "{finished:#?}");
    assert!(contents(dir.path()) == before);
}

#[test]
fn a_run_that_fails_leaves_nothing_half_made() {
    let dir = place();
    let before = contents(dir.path());
    // The records do not fit into a file of no bytes, as on a disk that is full.
    for flags in ["", " --resume"] {
        let line = format!("GENERATE --input a.jsonl --output o.jsonl{flags}");
        let shell = format!(
            "ulimit -f 0; trap '' XFSZ; exec {} {}",
            env!("CARGO_BIN_EXE_elgen"),
            line.replace(
                "GENERATE",
                "generate --model m --format jsonl --quiet --max-new-tokens 2 --attention mha --dtype f32"
            )
        );
        let mut command = Command::new("sh");
        command.args(["-c", &shell]).current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        let finished = finish(&mut command).expect(1);
        assert!(finished.stderr.contains("cannot write o.jsonl: File too large"), "{finished:#?}");
        assert!(contents(dir.path()) == before, "{:?}", contents(dir.path()).keys());
    }
}

/// What a terminal would take for more than a letter.
fn controls(text: &str) -> Vec<char> {
    text.chars().filter(|c| c.is_control() && *c != '\n').collect()
}

#[test]
fn what_files_hold_does_not_control_a_terminal() {
    let dir = place();
    let at = |name: &str| dir.path().join(name);
    let evil = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}";
    let json = serde_json::to_string(evil).unwrap();
    let shards = at("shards");
    fs::create_dir(&shards).unwrap();
    for file in ["config.json", "generation_config.json"] {
        fs::copy(tiny().join(file), shards.join(file)).unwrap();
    }
    let index = serde_json::json!({ "weight_map": { evil: format!("{evil}.safetensors") } }).to_string();
    fs::write(shards.join("model.safetensors.index.json"), index).unwrap();
    let config = at("config");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("config.json"), format!("{{\"model_type\": {json}}}")).unwrap();
    fs::write(at("evil.json"), format!("{{{json}: 1, \"num_beams\": {json}}}")).unwrap();
    fs::write(at("evil.jsonl"), format!("{{\"id\": {json}, \"text\": {json}, {json}\n")).unwrap();
    fs::write(at(evil), RECORDS).unwrap();
    let header = serde_json::json!({ "vocab_size": 96, "model": "x", "labels": { "model": evil } }).to_string();
    let mut saved = b"ELGENRUN\x01\0\0\0".to_vec();
    saved.extend((header.len() as u32).to_le_bytes());
    saved.extend(header.bytes());
    fs::write(at("saved.run"), saved).unwrap();
    for line in [
        "generate --model shards --input a.jsonl --format jsonl",
        "generate --model config --input a.jsonl --format jsonl",
        "inspect shards",
        "inspect config",
        "GENERATE --input a.jsonl --generation-config evil.json",
        "GENERATE --input a.jsonl --print-config --generation-config evil.json",
        &format!("GENERATE --input {evil} --output {evil}"),
        &format!("GENERATE --input {evil}.jsonl"),
        &format!("GENERATE --input a.jsonl --output {evil}/x"),
        &format!("GENERATE --input a.jsonl --no-such-flag={evil}"),
        &format!("GENERATE --num-beams {evil}"),
        evil,
        &format!("generate --model {evil} --input a.jsonl"),
        "SCORE --input a.jsonl --compare-run saved.run",
        "eval evil.jsonl --references evil.jsonl",
        "plan --memory-limit 1GiB --config evil.json",
        "bench --config evil.json",
        "bench --config m/config.json --lengths-from evil.jsonl",
        "bench --from evil.json",
    ] {
        let finished = run(dir.path(), line);
        assert!(finished.code == Some(1) || finished.code == Some(2), "{line}: {finished:#?}");
        assert!(finished.stderr.starts_with("error: "), "{line}: {finished:#?}");
        assert_eq!(controls(&finished.stderr), [], "{line}: {finished:#?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn streams_that_are_closed_or_full() {
    let dir = place();
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &line.replace("elgen", env!("CARGO_BIN_EXE_elgen"))]).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(&mut command)
    };
    for line in ["--help", "--version", "generate --help", "score -h", "help plan", "devices --help"] {
        let finished = shell(&format!("elgen {line} > /dev/full")).expect(1);
        assert!(finished.stderr.contains("cannot write <stdout>: No space left"), "{line}: {finished:#?}");
    }
    for line in [
        "elgen generate --model m --input a.jsonl --format jsonl",
        "elgen generate --model m --input a.jsonl --print-config",
        "elgen score --model m --input a.jsonl",
        "elgen tokenize --model m one",
        "elgen inspect m",
        "elgen eval t.txt --references u.txt",
        "elgen plan --model m --memory-limit 1GiB",
        "elgen bench --config m/config.json",
        "elgen --version",
    ] {
        shell(&format!("{line} >&-")).expect_error(1, &["cannot write <stdout>: it is closed"]);
    }
    shell("elgen generate --model m --format jsonl --output o.jsonl <&-")
        .expect_error(1, &["cannot read <stdin>: it is closed"]);
    assert!(!dir.path().join("o.jsonl").exists());
    // What is not needed may be closed.
    shell("elgen plan --model m --memory-limit 1GiB > plan.txt <&-").expect(0);
    shell("elgen generate --model m --input /dev/null --input-format jsonl --format jsonl --output o.jsonl >&- <&-")
        .expect(0);
}
