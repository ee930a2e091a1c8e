//! The README's commands run as they are printed, in a folder that has the demo beside it.

#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

mod common;

/// The repository's README.
fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text between two headings.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let begin = text.find(from).unwrap_or_else(|| panic!("README.md has no {from:?}"));
    let length = text[begin..].find(to).unwrap_or_else(|| panic!("README.md has no {to:?} behind {from:?}"));
    &text[begin..begin + length]
}

/// The blocks of code of one language, in order.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(&fence) {
        rest = &rest[begin + fence.len()..];
        let end = rest.find("```").expect("a block ends");
        found.push(&rest[..end]);
        rest = &rest[end..];
    }
    found
}

/// Runs a script in `folder`, where `elgen` is the program under test; returns its output.
#[track_caller]
fn run(folder: &Path, script: &str) -> String {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = bin.join("elgen");
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_elgen"), &program).unwrap();
        symlink(root().join("demo"), folder.join("demo")).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let finished = Command::new("bash")
        // As in a shell that somebody types into, `head` may end before what feeds it.
        .args(["-eu", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    let (stdout, stderr) = (String::from_utf8_lossy(&finished.stdout), String::from_utf8_lossy(&finished.stderr));
    assert!(finished.status.success(), "{script}\n{}\n{stdout}\n{stderr}", finished.status);
    assert!(!stderr.contains("error: "), "{script}\n{stderr}");
    stdout.into_owned()
}

/// One shell runs all blocks: later ones use files and variables of those before.
/// One shell runs all blocks: later ones use files and variables of those before. What needs the network is left out.
#[test]
fn the_shell_commands_run_as_printed() {
    let text = readme();
    let scripts = blocks(between(&text, "## In 30 seconds", "## As a library"), "sh");
    assert!(scripts.len() >= 4, "{scripts:?}");
    let script: Vec<&str> = scripts.iter().flat_map(|script| script.lines()).collect();
    let (online, offline): (Vec<&str>, Vec<&str>) = script.iter().partition(|line| line.starts_with("elgen pull "));
    assert!(online.len() <= 1, "{online:?}");
    let folder = tempfile::tempdir().unwrap();
    let printed = run(folder.path(), &offline.join("\n"));
    assert!(printed.contains("Je suis né en 1979."), "{printed}");
}

/// What `$ elgen …` prints is what stands below it.
#[test]
fn the_console_examples_print_what_they_show() {
    let text = readme();
    let examples = blocks(between(&text, "## In 30 seconds", "## As a library"), "console");
    assert!(!examples.is_empty());
    let folder = tempfile::tempdir().unwrap();
    for example in examples {
        let (command, shown) = example.split_once('\n').unwrap();
        let command = command.strip_prefix("$ ").expect("a console block begins with a prompt");
        assert_eq!(run(folder.path(), command), shown, "{command}");
    }
}
