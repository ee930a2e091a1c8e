//! What people see on a terminal. `script` of util-linux gives the program one; where there is none, these tests are skipped.

#![cfg(target_os = "linux")]

mod common;

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use common::{demo, stories};

/// The program on a terminal.
struct Session {
    child: Child,
    keys: Option<ChildStdin>,
    screen: Receiver<u8>,
    shown: String,
}

impl Session {
    /// Starts the program on a terminal of `columns`.
    fn start(arguments: &str, columns: u32) -> Option<Session> {
        let program = env!("CARGO_BIN_EXE_elgen");
        let line = format!("stty cols {columns} rows 24; exec {program} {arguments}");
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        script.env("TERM", "xterm").env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            script.env_remove(name);
        }
        let Ok(mut child) = script.spawn() else {
            println!("skipped: the program `script` cannot be run");
            return None;
        };
        let (sender, screen) = mpsc::channel();
        let mut stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 256];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                for &byte in &bytes[..count] {
                    if sender.send(byte).is_err() {
                        return;
                    }
                }
            }
        });
        let keys = child.stdin.take();
        Some(Session { child, keys, screen, shown: String::new() })
    }

    /// Types.
    fn keys(&mut self, keys: &str) {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown behind what was waited for before.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let begin = Instant::now();
        let from = self.shown.len();
        while !self.shown[from..].contains(text) {
            let left = Duration::from_secs(120).saturating_sub(begin.elapsed());
            match self.screen.recv_timeout(left) {
                // What is shown here is ASCII, or is not compared.
                Ok(byte) => self.shown.push(char::from(byte)),
                Err(_) => panic!("no {text:?} in {:?}", self.shown),
            }
        }
    }

    /// All that was shown, once the program has ended with success.
    #[track_caller]
    fn end(mut self) -> String {
        // `script` ends when its input does.
        while let Ok(byte) = self.screen.recv_timeout(Duration::from_secs(120)) {
            self.shown.push(char::from(byte));
        }
        drop(self.keys.take());
        assert!(self.child.wait().unwrap().success(), "{:?}", self.shown);
        self.shown
    }
}

#[test]
fn each_line_is_answered_before_the_next() {
    let quick = "--attention mha --num-beams 1 --max-new-tokens 6";
    let Some(mut session) = Session::start(&format!("generate --model {} {quick}", demo().display()), 80) else {
        return;
    };
    session.wait_for("a line each; Ctrl-D ends them");
    for (typed, answer) in [("It is late.\n", "Il est tard."), ("I was born.\n", "Je suis n")] {
        session.keys(typed);
        session.wait_for(answer);
    }
    session.keys("\u{4}");
    session.end();
}

#[test]
fn scores_of_typed_lines_come_at_once_below_their_names() {
    let Some(mut session) = Session::start(&format!("score --attention mha --model {}", stories().display()), 80)
    else {
        return;
    };
    session.wait_for("Ctrl-D ends them");
    session.keys("The dog.\n");
    session.wait_for("log-probability");
    session.wait_for("\n-");
    session.keys("\u{4}");
    let shown = session.end();
    assert_eq!(shown.matches("perplexity").count(), 1, "{shown:?}");
    assert!(shown.contains("1 records, "), "{shown:?}");
}

#[test]
fn a_stream_is_made_for_people() {
    let flags = "--quiet --attention mha --do-sample --seed 1 --max-new-tokens 60 --stream";
    let arguments = format!("generate --model {} {flags} 'Once upon a time'", stories().display());
    let Some(session) = Session::start(&arguments, 80) else { return };
    let shown = session.end();
    assert!(shown.starts_with("Once upon a time, there"), "{shown:?}");
    assert!(shown.contains("\r\n\r\n") && !shown.contains("\\n"), "{shown:?}");
    let Some(session) = Session::start(&format!("{arguments} --raw=false --echo=false"), 80) else { return };
    let shown = session.end();
    assert!(shown.starts_with(", there") && shown.contains("\\n\\n"), "{shown:?}");
}

#[test]
fn messages_are_coloured_on_a_terminal() {
    let model = demo();
    let arguments = format!("tokenize --model {} {}", model.display(), model.join("config.json").display());
    let Some(session) = Session::start(&arguments, 200) else { return };
    assert!(session.end().starts_with("\u{1b}[1m\u{1b}[33mwarning:\u{1b}[0m "));
    let Some(session) = Session::start(&format!("{arguments} --color never"), 200) else { return };
    assert!(session.end().starts_with("warning: "));
}

/// Every state of the bar ends before the last column, so that the next is drawn over it.
#[test]
fn the_bar_fits_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.txt"), dir.path().join("out.txt"));
    std::fs::write(&input, "Hello.\nNo.\nWhere is he?\nI was born.\n".repeat(3)).unwrap();
    let files = format!("--input {} --output {}", input.display(), output.display());
    let flags = "--attention mha --quiet --progress always --num-beams 1 --max-new-tokens 5 --batch-size 1";
    for columns in [60, 40, 20] {
        let Some(session) = Session::start(&format!("generate --model {} {flags} {files}", demo().display()), columns)
        else {
            return;
        };
        let shown = session.end();
        let states: Vec<String> = shown
            .split(['\r', '\n'])
            .map(|state| {
                let state: Vec<u8> = state.chars().map(|c| c as u8).collect();
                without_controls(&String::from_utf8_lossy(&state))
            })
            .filter(|state| state.contains("/1"))
            .collect();
        assert!(!states.is_empty(), "{shown:?}");
        for state in states {
            assert!(state.chars().count() <= columns as usize, "{columns}: {state:?}");
        }
    }
}

/// A line without the terminal's control sequences.
fn without_controls(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest));
    }
    text
}
