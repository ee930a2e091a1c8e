use std::fs;
use std::path::PathBuf;

use super::*;
use crate::score::{Divergence, RunComparison};

const VOCAB: usize = 3;

fn header() -> RunHeader {
    let labels = [("attention".to_owned(), "mha".to_owned())].into();
    RunHeader { vocab_size: VOCAB, model: "abc".to_owned(), labels }
}

fn logs(row: [f32; VOCAB]) -> [f32; VOCAB] {
    row.map(f32::ln)
}

fn score(prompt: &[u32], target: &[u32]) -> TargetScore {
    TargetScore { token_ids: target.to_vec(), prompt_ids: prompt.to_vec(), ..TargetScore::default() }
}

/// Records 0 and 2 are scored, 1 is not; the rows come in another order, one of them twice.
fn saved(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("run");
    let mut run = RunWriter::create(&path, &header()).unwrap();
    run.row(2, 0, &logs([0.5, 0.25, 0.25])).unwrap();
    run.row(0, 1, &[-9.0; VOCAB]).unwrap();
    run.row(0, 0, &logs([0.75, 0.125, 0.125])).unwrap();
    run.row(0, 1, &logs([0.25, 0.5, 0.25])).unwrap();
    run.end_record("0", Some(&score(&[7], &[0, 1]))).unwrap();
    run.end_record("1", None).unwrap();
    run.end_record("\"x\"", Some(&score(&[8, 9], &[2]))).unwrap();
    run.finish().unwrap();
    path
}

fn rows_of(reader: &mut RunReader) -> Result<Vec<Vec<f32>>, RunFileError> {
    let places = [(0, 0), (0, 1), (2, 0)];
    let read = |(record, place)| {
        let mut row = Vec::new();
        reader.row(record, place, &mut row).map(|()| row)
    };
    places.into_iter().map(read).collect()
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(&dir);
    let mut reader = RunReader::open(&path).unwrap();
    assert_eq!(reader.header(), &header());
    assert_eq!(reader.records()[0].target_ids, [0, 1]);
    assert!(reader.records()[1].target_ids.is_empty());
    assert_eq!(reader.records()[2].id, "\"x\"");
    let wanted = [logs([0.75, 0.125, 0.125]), logs([0.25, 0.5, 0.25]), logs([0.5, 0.25, 0.25])];
    assert_eq!(rows_of(&mut reader).unwrap(), wanted);
    let error = reader.row(1, 0, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.ends_with("record 1 has no row 0"), "{error}");
}

#[test]
fn every_cut_and_every_changed_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(&dir);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = RunReader::open(&path).unwrap_err();
        let told = error.to_string();
        assert!(!told.contains('\n') && told.contains("run"), "{told}");
        if length < 8 {
            assert!(matches!(error, RunFileError::NotARun { .. }), "{length}: {told}");
        } else {
            assert!(matches!(error, RunFileError::Truncated { .. }), "{length}: {told}");
        }
    }
    let dead = 16 + serde_json::to_vec(&header()).unwrap().len() + 4 + 16;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let read = RunReader::open(&path).and_then(|mut reader| rows_of(&mut reader));
        // The row that was replaced is never read.
        assert_eq!(read.is_ok(), (dead..dead + 16).contains(&at), "byte {at}");
    }
    fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    assert!(RunReader::open(&path).is_err());
}

#[test]
fn another_version_and_absurd_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(&dir);
    let whole = fs::read(&path).unwrap();
    let told = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        edit(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        RunReader::open(&path).unwrap_err().to_string()
    };
    assert!(told(&|bytes| bytes[8] = 2).ends_with("a saved run of version 2, this program reads version 1"));
    assert!(told(&|bytes| bytes[15] = 0xff).contains("a header of"));
    let table_length = whole.len() - 20;
    assert!(told(&|bytes| bytes[table_length + 7] = 0xff).contains("damaged"));
    fs::remove_file(&path).unwrap();
    assert!(RunReader::open(&path).unwrap_err().to_string().starts_with("cannot read "));
    let huge = RunHeader { vocab_size: usize::MAX, ..header() };
    RunWriter::create(&path, &huge).unwrap().finish().unwrap();
    assert!(RunReader::open(&path).unwrap().records().is_empty());
}

#[test]
fn a_record_without_its_rows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunWriter::create(&dir.path().join("run"), &header()).unwrap();
    assert!(run.row(0, 0, &[0.0; 2]).unwrap_err().to_string().contains("a row of 2"));
    run.row(0, 0, &[0.0; VOCAB]).unwrap();
    let error = run.end_record("0", Some(&score(&[1], &[0, 1]))).unwrap_err();
    assert!(error.to_string().ends_with("record 0 has 2 tokens and 1 rows"), "{error}");
}

/// Compares with a run that is the saved one but for what `edit` changes: ids, sources, targets.
fn compared(path: &Path, edit: impl Fn(&mut Vec<(String, Option<TargetScore>)>)) -> Result<Divergence, RunFileError> {
    let mut comparison = RunComparison::new(RunReader::open(path)?);
    let mut records = vec![
        ("0".to_owned(), Some(score(&[7], &[0, 1]))),
        ("1".to_owned(), None),
        ("\"x\"".to_owned(), Some(score(&[8, 9], &[2]))),
    ];
    edit(&mut records);
    for (number, (id, score)) in records.iter().enumerate() {
        let tokens = score.as_ref().map_or(0, |score| score.token_ids.len());
        for place in (0..tokens).rev() {
            comparison.row(number, place, &logs([0.5, 0.25, 0.25]))?;
        }
        comparison.end_record(id, score.as_ref())?;
    }
    comparison.finish()
}

#[test]
fn a_comparison_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let found = compared(&saved(&dir), |_| {}).unwrap();
    // KL of (3/4, 1/8, 1/8) and of (1/4, 1/2, 1/4) against (1/2, 1/4, 1/4).
    let (a, b) = (0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln(), 0.25 * 0.5f64.ln() + 0.5 * 2f64.ln());
    let close = |x: f64, y: f64| (x - y).abs() < 1e-6;
    assert!(close(found.mean_kl, (a + b) / 3.0), "{found:?}");
    assert!(close(found.max_kl, a.max(b)) && close(found.p99_kl, a.max(b)));
    assert_eq!((found.left_out, found.saved.records, found.saved.tokens), (1, 2, 3));
    assert!(close(found.top1_agreement, 2.0 / 3.0));
    // Targets: 3/4 and 1/2, 1/2 and 1/4, 1/4 and 1/4.
    assert!(close(found.mean_logprob_difference, (1.5f64.ln() + 2f64.ln()) / 3.0));
    assert!(close(found.max_logprob_difference, 2f64.ln()));
    assert!(close(found.saved.sum_logprob, (0.75f64 * 0.5 * 0.25).ln()));
    assert!(close(found.this.sum_logprob, (0.5f64 * 0.25 * 0.25).ln()));
}

/// Changes the records of a run.
type Edit<'a> = &'a dyn Fn(&mut Vec<(String, Option<TargetScore>)>);

#[test]
fn a_run_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(&dir);
    let told = |edit: Edit<'_>| compared(&path, edit).unwrap_err().to_string();
    assert!(told(&|r| r[2].0 = "2".to_owned()).ends_with("record 2 has the id \"x\" there, 2 here"));
    assert!(told(&|r| r[0].1 = Some(score(&[7], &[0, 2]))).contains("the target of record 0 (id 0) has other tokens"));
    assert!(told(&|r| r[0].1 = Some(score(&[6], &[0, 1]))).contains("the source of record 0 (id 0) has other tokens"));
    assert!(told(&|r| r[0].1 = Some(score(&[7], &[0, 1, 1]))).contains("the target of record 0 has 2 tokens there"));
    assert!(told(&|r| r.truncate(2)).ends_with("it has 3 records, the input 2"));
    assert!(told(&|r| r.push(("3".to_owned(), Some(score(&[1], &[1]))))).ends_with("it has 3 records, the input more"));
    let none = |r: &mut Vec<(String, Option<TargetScore>)>| r.iter_mut().for_each(|(_, score)| *score = None);
    assert!(told(&none).contains("no record was scored by both"));
    // What one of the runs could not score is left out.
    assert_eq!(compared(&path, |r| r[0].1 = None).unwrap().left_out, 2);
    assert_eq!(compared(&path, |r| r[1].1 = Some(score(&[1], &[1]))).unwrap().left_out, 1);
    let mut comparison = RunComparison::new(RunReader::open(&path).unwrap());
    let error = comparison.row(0, 0, &[0.0; 4]).unwrap_err().to_string();
    assert!(error.ends_with("its vocabulary has 3 ids, this 4"), "{error}");
}
