use std::{
    fs,
    io::{self, Write},
};

use serde_json::json;

use super::*;

fn setup(seed: u64) -> Setup {
    let mut setup = Setup::default();
    setup.set("--seed", json!(seed));
    setup
}

fn read_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn begin(output: &Path, seed: u64) -> Output {
    let (output, warning) = start(output, Some(&setup(seed)), 1).unwrap();
    assert_eq!(warning, None);
    output
}

/// What `--resume` finds; the error's text where it refuses.
fn find(output: &Path, seed: u64) -> Result<Found, String> {
    examine(output, &setup(seed), &[]).map_err(|error| error.to_string())
}

fn part(output: &Path, seed: u64) -> Part {
    match find(output, seed) {
        Ok(Found::Part(part)) => *part,
        other => panic!("{other:?}"),
    }
}

fn refused(output: &Path, seed: u64) -> String {
    find(output, seed).unwrap_err()
}

/// An output of the four records `a`, `b`, an empty one and `é`, of which the second failed, whose run was killed.
fn killed(output: &Path) -> &'static str {
    let text = "a\nb\n\né\n";
    let mut run = begin(output, 1);
    run.failed(1);
    text.split_inclusive('\n').for_each(|line| run.write_all(line.as_bytes()).unwrap());
    text
}

#[test]
fn a_run_is_continued_where_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    for end in 0..=8 {
        fs::write(&output, "of an earlier run\n").unwrap();
        let whole = killed(&output);
        let places = Places::of(&output);
        // The journal as it is while the write goes on that `end` is in.
        let written = journal::read(&places.journal).unwrap().unwrap();
        let records = whole.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count();
        drop(Journal::create(&places, &setup(1), &written.notes[..(records + 1).min(4)]).unwrap());
        fs::write(&output, &whole.as_bytes()[..end]).unwrap();
        if end == 0 {
            assert!(matches!(find(&output, 1), Ok(Found::Nothing(None))));
            continue;
        }
        let found = part(&output, 1);
        assert_eq!(found.notice, None);
        assert_eq!(fs::read(&output).unwrap(), &whole.as_bytes()[..end], "nothing is touched yet");
        let mut second = found.go_on(&setup(1), 1).unwrap();
        assert_eq!((second.records(), second.failures()), (records as u64, u64::from(records > 1)));
        for (index, line) in whole.split_inclusive('\n').enumerate().skip(records) {
            if index == 1 {
                second.failed(1);
            }
            second.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(second.complete().unwrap(), None);
        drop(second);
        assert_eq!(read_text(&output), whole);
        assert!(!places.journal.exists());
        assert!(matches!(find(&output, 1), Ok(Found::Complete { records: 4, failed: 1 })));
    }
}

#[test]
fn an_output_that_was_changed_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let whole = killed(&output);
    for (text, wanted) in [
        ("a\n\né\n", "differs at record 2"),
        ("a\nc\n\né\n", "differs at record 2"),
        ("x\nb\n\né\n", "differs at record 1"),
        ("a\nb\nb\n\né\n", "differs at record 3"),
        (
            "a\nb\n\né\nzzz\n",
            "behind 4 records it has 4 bytes that the run did not write; cut them off (`truncate -s 8 FILE`)",
        ),
        ("another file, which is longer\n", "differs at record 1"),
    ] {
        fs::write(&output, text).unwrap();
        let told = refused(&output, 1);
        assert!(told.contains("was changed since its run stopped") && told.contains(wanted), "{told}");
        assert_eq!(read_text(&output), text);
    }
    fs::write(&output, whole).unwrap();
    assert_eq!(part(&output, 1).compared.good.records, 4);
    // A record of an earlier complete output has no say.
    let places = Places::of(&output);
    let journal = fs::read(&places.journal).unwrap();
    let run = part(&output, 1).go_on(&setup(1), 1).unwrap();
    run.complete().unwrap();
    drop(run);
    fs::write(&places.journal, journal).unwrap();
    fs::write(&output, "a\nb\n\n").unwrap();
    assert_eq!(part(&output, 1).compared.good.records, 3);
    fs::write(&output, "a\nc\n\n").unwrap();
    assert!(refused(&output, 1).contains("differs at record 2"));
}

#[test]
fn an_output_that_lost_bytes_is_repaired_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let whole = killed(&output);
    for (text, records, wanted) in [
        ("a\n", 1, "has lost 2 records that had been written; they are made anew"),
        ("a\nb", 1, "has lost 2 records"),
        ("a\nb\n\0\0\0", 2, "holds NUL bytes"),
        ("a\n\0\0\0\0\0\0\0\0\0", 1, "holds NUL bytes"),
    ] {
        fs::write(&output, text).unwrap();
        let found = part(&output, 1);
        assert!(found.notice.as_ref().unwrap().contains(wanted), "{found:?}");
        assert_eq!(found.compared.good.records, records);
    }
    fs::write(&output, "").unwrap();
    let Ok(Found::Nothing(Some(why))) = find(&output, 1) else { panic!() };
    assert!(why.contains("is empty, though 3 records had been written"), "{why}");
    fs::remove_file(&output).unwrap();
    let Ok(Found::Nothing(Some(why))) = find(&output, 1) else { panic!() };
    assert!(why.contains("is gone, though 3 records had been written"), "{why}");
    assert_eq!(whole.len(), 8);
}

#[test]
fn what_cannot_be_continued_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    fs::write(&output, "kept\n").unwrap();
    let told = refused(&output, 1);
    assert!(told.contains("was not left by a run of elgen"), "{told}");

    let mut begun = begin(&output, 1);
    begun.write_all(b"x\n").unwrap();
    assert!(refused(&output, 1).contains("another process is writing it"));
    let error = start(&output, None, 1).unwrap_err().to_string();
    assert!(error.contains("another process is writing it"), "{error}");
    assert_eq!(read_text(&output), "x\n");
    drop(begun);

    assert!(refused(&output, 2).contains("--seed is 2, was 1"));
    let error = part(&output, 1).go_on(&setup(2), 1).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    fs::write(Places::of(&output).journal, "{").unwrap();
    assert!(refused(&output, 1).contains("is damaged"));
    assert_eq!(read_text(&output), "x\n");
}

#[test]
fn nothing_to_continue_is_a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    assert!(matches!(find(&output, 1), Ok(Found::Nothing(None))));
    assert!(!output.exists());
    fs::write(&output, "").unwrap();
    assert!(matches!(find(&output, 1), Ok(Found::Nothing(None))));
    let begun = begin(&output, 1);
    begun.interrupted().unwrap();
    drop(begun);
    // Killed before the first record.
    assert!(Places::of(&output).journal.exists());
    assert!(matches!(find(&output, 1), Ok(Found::Nothing(None))));
    assert!(refused(&output, 2).contains("another setup"));
}

#[test]
fn a_complete_output_is_known_until_it_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let whole = "a\nb\n";
    let mut run = begin(&output, 1);
    run.failed(0);
    run.write_all(whole.as_bytes()).unwrap();
    run.complete().unwrap();
    drop(run);
    assert!(matches!(find(&output, 1), Ok(Found::Complete { records: 2, failed: 1 })));
    assert!(refused(&output, 2).contains("was made with another setup: --seed is 2, was 1"));
    for (text, wanted) in [
        ("a\nc\n", "was changed since it was complete: it has other bytes"),
        ("a\n", "it has 2 bytes, had 4"),
        ("a\nb\nc\n", "it has 6 bytes, had 4"),
    ] {
        fs::write(&output, text).unwrap();
        let told = refused(&output, 1);
        assert!(told.contains(wanted), "{told}");
    }
    // What was moved away is no reason not to begin anew, with whatever setup.
    fs::remove_file(&output).unwrap();
    assert!(matches!(find(&output, 2), Ok(Found::Nothing(None))));
    let run = begin(&output, 2);
    assert!(!Places::of(&output).done.exists());
    run.complete().unwrap();
    drop(run);
    assert!(output.exists(), "the output of an empty input is an empty file");
    assert!(matches!(find(&output, 2), Ok(Found::Complete { records: 0, failed: 0 })));
}

#[test]
fn a_run_that_cannot_be_continued_leaves_no_journal_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    killed(&output);
    let (second, _) = start(&output, None, 1).unwrap();
    assert!(!second.is_resumable());
    assert!(!Places::of(&output).journal.exists());
}

#[test]
fn a_run_that_fails_at_once_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    drop(begin(&output, 1));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // An output that was there before stays, though it is empty now.
    fs::write(&output, "old").unwrap();
    drop(begin(&output, 1));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(read_text(&output), "");
}

#[test]
fn files_of_others_beside_an_output_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    for path in beside(&output) {
        fs::write(&path, "a user's text\n").unwrap();
        let error = crate::error::one_line(&start(&output, Some(&setup(1)), 1).unwrap_err());
        assert!(error.contains("cannot replace") && error.contains("no run of elgen has left"), "{error}");
        assert_eq!(read_text(&path), "a user's text\n");
        assert!(!output.exists());
        fs::remove_file(&path).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn an_output_that_is_removed_or_replaced_is_noticed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let written = |run: &mut Output| run.write_all(b"x\n").map_err(|error: io::Error| error.to_string());
    let mut run = begin(&output, 1);
    written(&mut run).unwrap();
    fs::remove_file(&output).unwrap();
    assert_eq!(written(&mut run), Err("it was removed while the run wrote it".to_owned()));
    assert!(run.complete().is_err() && run.interrupted().is_err());
    // Another run begins; the end of the first leaves its files alone.
    let second = begin(&output, 1);
    assert_eq!(written(&mut run), Err("another file has taken its place while the run wrote it".to_owned()));
    drop(run);
    assert!(output.exists() && Places::of(&output).journal.exists());
    drop(second);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn devices_have_no_journal() {
    let (output, _) = start(Path::new("/dev/null"), Some(&setup(1)), 1).unwrap();
    assert!(!output.is_resumable());
    assert!(!Path::new("/dev/null.elgen-resume").exists());
    let (mut full, _) = start(Path::new("/dev/full"), None, 1).unwrap();
    assert_eq!(full.write_all(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[cfg(target_os = "linux")]
#[test]
fn special_files_in_place_of_a_journal_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    fs::write(&output, "x\n").unwrap();
    for path in [Places::of(&output).journal, Places::of(&output).done] {
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let told = crate::error::one_line(&examine(&output, &setup(1), &[]).unwrap_err());
        assert!(told.contains("cannot read") && told.contains("not a regular file"), "{told}");
        assert!(start(&output, None, 1).is_err());
        assert!(path.is_symlink());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(examine(&output, &setup(1), &[]).is_err());
        fs::remove_dir(&path).unwrap();
    }
    assert_eq!(read_text(&output), "x\n");
}
