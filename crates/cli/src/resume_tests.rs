use std::io::Write;

use serde_json::json;

use super::*;

fn setup(seed: u64) -> Setup {
    let mut setup = Setup::default();
    setup.set("--seed", json!(seed));
    setup
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn torn_outputs_are_cut_behind_their_last_complete_record() {
    let whole = "é ||| a\n\nß\n\n\n日本\n".as_bytes();
    for lines in [1, 2, 3] {
        for end in 0..=whole.len() {
            let part = &whole[..end];
            let found = complete_records(part, lines).unwrap();
            let ends: Vec<_> = (1..=end).filter(|&at| part[at - 1] == b'\n').collect();
            let records = ends.len() / lines as usize;
            let bytes = if records == 0 { 0 } else { ends[records * lines as usize - 1] };
            assert_eq!(found, Complete { records: records as u64, bytes: bytes as u64 }, "{lines} {end}");
        }
    }
    assert_eq!(complete_records(&b"a\nb\0\nc\n"[..], 1).unwrap(), Complete { records: 1, bytes: 2 });
}

#[test]
fn a_run_is_continued_where_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let whole = "a\nb\n\né\n";
    for end in 0..=whole.len() {
        fs::write(&output, "of an earlier run\n").unwrap();
        let mut first = start(&output, Some(&setup(1))).unwrap();
        assert_eq!((first.records, read(&output).as_str()), (0, ""));
        for index in [0, 2, 3] {
            first.journal.as_mut().unwrap().failed(index).unwrap();
        }
        first.file.write_all(&whole.as_bytes()[..end]).unwrap();
        drop(first);
        let mut second = resume(&output, &setup(1), 1).unwrap();
        let records = whole.as_bytes()[..end].iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(second.records, records as u64);
        assert_eq!(second.failed, [0, 2, 3].iter().filter(|&&index| index < records).count() as u64);
        for line in whole.split_inclusive('\n').skip(records) {
            second.file.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(read(&output), whole);
        second.journal.unwrap().remove().unwrap();
    }
}

#[test]
fn what_cannot_be_continued_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let refused = |setup: &Setup| resume(&output, setup, 1).unwrap_err();
    fs::write(&output, "kept\n").unwrap();
    let error = refused(&setup(1));
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("was not left by an interrupted run"), "{error}");

    let mut begun = start(&output, Some(&setup(1))).unwrap();
    begun.file.write_all(b"x\n").unwrap();
    let error = refused(&setup(1)).to_string();
    assert!(error.contains("another process is writing it"), "{error}");
    let error = start(&output, None).unwrap_err().to_string();
    assert!(error.contains("another process is writing it"), "{error}");
    assert_eq!(read(&output), "x\n");
    drop(begun);

    let error = refused(&setup(2));
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--seed is 2, was 1"), "{error}");
    fs::write(Journal::path_of(&output), "{").unwrap();
    assert!(refused(&setup(1)).to_string().contains("is damaged"));
    assert_eq!(read(&output), "x\n");
}

#[test]
fn nothing_to_continue_is_a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let begun = resume(&output, &setup(1), 1).unwrap();
    assert_eq!((begun.records, begun.journal.is_some()), (0, true));
    drop(begun);
    // Killed before the first record, or the output was removed by hand.
    assert_eq!(resume(&output, &setup(1), 1).unwrap().records, 0);
    fs::remove_file(&output).unwrap();
    assert_eq!(resume(&output, &setup(1), 1).unwrap().records, 0);
    assert!(resume(&output, &setup(2), 1).is_err());
}

#[test]
fn a_run_that_cannot_be_continued_leaves_no_journal_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    drop(start(&output, Some(&setup(1))).unwrap());
    let second = start(&output, None).unwrap();
    assert!(second.journal.is_none());
    assert!(!Journal::path_of(&output).exists());
}

#[cfg(target_os = "linux")]
#[test]
fn devices_have_no_journal() {
    assert!(start(Path::new("/dev/null"), Some(&setup(1))).unwrap().journal.is_none());
    assert!(!Path::new("/dev/null.elgen-resume").exists());
}
