//! `elgen completions` and `elgen man`.

mod common;

use std::{
    io::Write,
    process::{Command, Stdio},
};

use common::{elgen, finish};

const COMMANDS: [&str; 10] =
    ["generate", "score", "eval", "bench", "devices", "inspect", "plan", "tokenize", "completions", "man"];

fn completions(shell: &str) -> String {
    let finished = finish(elgen().args(["completions", shell])).expect(0);
    assert_eq!(finished.stderr, "");
    finished.stdout
}

/// What a program that reads a script on stdin says of it; `None` where there is no such program.
fn checked(program: &str, flags: &[&str], script: &str) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take()?.write_all(script.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn every_shell_completes_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = completions(shell);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        for flag in ["num-beams", "source-prefix", "whole-file", "color"] {
            assert!(script.contains(flag), "{shell}: {flag}");
        }
    }
}

#[test]
fn bash_takes_its_completions() {
    let script = completions("bash");
    let Some((taken, said)) = checked("bash", &["-n"], &script) else {
        println!("skipped: the program `bash` cannot be run");
        return;
    };
    assert!(taken && said.is_empty(), "{said}");
    let ask = format!(
        "{script}\nCOMP_WORDS=(elgen gener); COMP_CWORD=1; _elgen elgen gener elgen; echo \"${{COMPREPLY[@]}}\"\n\
         COMP_WORDS=(elgen generate --source-p); COMP_CWORD=2; _elgen elgen --source-p generate; echo \"${{COMPREPLY[@]}}\"\n"
    );
    let (_, said) = checked("bash", &["--norc"], &ask).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), ["generate", "--source-prefix"], "{said}");
}

#[test]
fn a_shell_that_is_not_known() {
    let finished = finish(elgen().args(["completions", "csh"])).expect(2);
    assert!(finished.stderr.contains("possible values: bash, elvish, fish, powershell, zsh"), "{finished:#?}");
    assert_eq!(finished.stdout, "");
    let finished = finish(elgen().arg("completions")).expect(2);
    assert!(finished.stderr.contains("<SHELL>"), "{finished:#?}");
}

#[test]
fn man_pages_begin_with_their_title() {
    let all = finish(elgen().arg("man")).expect(0).stdout;
    assert!(all.starts_with(".TH elgen 1 "), "{all}");
    for command in COMMANDS {
        let page = finish(elgen().args(["man", command])).expect(0).stdout;
        assert!(page.starts_with(&format!(".TH elgen-{command} 1 ")), "{page}");
        assert!(page.contains(&format!("\n.SH NAME\nelgen\\-{command} \\- ")), "{page}");
        assert!(page.contains(&format!("\n.SH SYNOPSIS\n.nf\nelgen {command}")), "{page}");
        assert!(page.lines().all(|line| !line.starts_with('\'')), "{command}: roff takes such a line for its own");
    }
}

#[test]
fn a_page_of_no_command() {
    finish(elgen().args(["man", "generat"])).expect_error(2, &["generat: no such command (did you mean generate?)"]);
    finish(elgen().args(["man", "xyzzy"])).expect_error(2, &["xyzzy: no such command; there are generate, "]);
}
