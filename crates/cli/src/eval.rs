//! `elgen eval`: scores hypotheses against references.

use std::{
    fmt::Write,
    fs,
    io::{self, Read},
    path::Path,
};

use elgen_metrics::{
    BleuOptions, BleuScore, ChrfOptions, ChrfScore, MetricError, RougeOptions, RougeScore, TerOptions, TerScore,
    corpus_bleu, corpus_chrf, corpus_ter, rouge,
};
use serde::{Deserialize, Serialize};

use crate::{
    console::Console,
    error::CliError,
    files::FileUses,
    flags::{EvalArgs, MetricFlag, ReportFormat},
    input::{RecordFormat, value_message},
    pretty_json, print_report,
};

/// Runs `elgen eval`; returns the exit code.
pub(crate) fn eval(arguments: &EvalArgs) -> Result<u8, CliError> {
    let mut uses = FileUses::default();
    uses.reads("HYPOTHESES", Some(&arguments.hypotheses));
    arguments.references.iter().for_each(|path| uses.reads("--references", Some(path)));
    uses.results("", None);
    uses.check()?;
    let (hypotheses, failed) = hypotheses(arguments)?;
    if failed > 0 {
        Console::new(false)
            .warning(&format!("{failed} failed records in {} count as empty", arguments.hypotheses.display()));
    }
    let references = references(arguments, hypotheses.len())?;
    if hypotheses.is_empty() {
        return Err(CliError::Failed(format!("{}: no hypotheses", arguments.hypotheses.display())));
    }
    let report = Report { segments: hypotheses.len(), metrics: scores(arguments, &hypotheses, &references)? };
    match arguments.format {
        ReportFormat::Json => print_report(&pretty_json(&report)?),
        ReportFormat::Text => print_report(&report.lines()),
    }
}

/// The texts, and how many of them are empty because their records failed.
fn hypotheses(arguments: &EvalArgs) -> Result<(Vec<String>, usize), CliError> {
    let path = &arguments.hypotheses;
    let format = arguments.hypotheses_format.unwrap_or_else(|| RecordFormat::of_path(path));
    let text = read(path)?;
    let mut failed = 0;
    let found = match format {
        RecordFormat::Text if arguments.raw => lines(&text).map(|(_, line)| line.to_owned()).collect(),
        RecordFormat::Text => lines(&text).map(|(_, line)| unescape(line)).collect(),
        RecordFormat::Jsonl => records(path, &text, |record: HypothesisRecord| {
            if record.error.is_some() {
                failed += 1;
                return Ok(String::new());
            }
            match (record.text, record.sequences) {
                (Some(text), None) => Ok(text),
                (None, Some(sequences)) => match sequences.into_iter().next() {
                    Some(first) => first.text.ok_or_else(|| "the first sequence's `text` is null".to_owned()),
                    // What `elgen generate` writes for an empty line.
                    None => Ok(String::new()),
                },
                (Some(_), Some(_)) => Err("give either `sequences` or `text`, not both".to_owned()),
                (None, None) => Err("neither `sequences` nor `text`".to_owned()),
            }
        })?,
    };
    Ok((found, failed))
}

/// For each hypothesis its references, from all files.
fn references(arguments: &EvalArgs, hypotheses: usize) -> Result<Vec<Vec<String>>, CliError> {
    let mut all = vec![Vec::new(); hypotheses];
    for path in &arguments.references {
        let text = read(path)?;
        let found: Vec<Vec<String>> = match RecordFormat::of_path(path) {
            RecordFormat::Text => lines(&text).map(|(_, line)| vec![line.to_owned()]).collect(),
            RecordFormat::Jsonl => records(path, &text, |record: ReferenceRecord| match record {
                ReferenceRecord { text: Some(one), reference: None, references: None }
                | ReferenceRecord { text: None, reference: Some(one), references: None } => Ok(vec![one]),
                ReferenceRecord { text: None, reference: None, references: Some(list) } if !list.is_empty() => Ok(list),
                ReferenceRecord { text: None, reference: None, references: Some(_) } => {
                    Err("`references` is empty".to_owned())
                }
                _ => Err("give one of `text`, `reference` and `references`".to_owned()),
            })?,
        };
        if found.len() != hypotheses {
            return Err(CliError::Failed(format!(
                "{} hypotheses in {}, but {} references in {}",
                hypotheses,
                arguments.hypotheses.display(),
                found.len(),
                path.display()
            )));
        }
        for (all, found) in all.iter_mut().zip(found) {
            all.extend(found);
        }
    }
    Ok(all)
}

#[derive(Deserialize)]
struct HypothesisRecord {
    sequences: Option<Vec<SequenceRecord>>,
    text: Option<String>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct SequenceRecord {
    text: Option<String>,
}

#[derive(Deserialize)]
struct ReferenceRecord {
    text: Option<String>,
    reference: Option<String>,
    references: Option<Vec<String>>,
}

fn read(path: &Path) -> Result<String, CliError> {
    let fail = |source| CliError::File { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().read_to_end(&mut bytes).map_err(fail)?;
    } else {
        bytes = fs::read(path).map_err(fail)?;
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        CliError::Failed(format!("{}:{line}: invalid UTF-8", path.display()))
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// The lines with their 1-based numbers. `\n` and `\r\n` end a line and nothing else does.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn records<T: for<'a> Deserialize<'a>, R>(
    path: &Path,
    text: &str,
    mut take: impl FnMut(T) -> Result<R, String>,
) -> Result<Vec<R>, CliError> {
    let mut found = Vec::new();
    for (number, line) in lines(text).filter(|(_, line)| !line.trim_ascii().is_empty()) {
        // Deserialising a struct would also take an array of its fields.
        let record = if line.trim_ascii_start().starts_with('{') {
            serde_json::from_str(line)
                .map_err(|error| format!("{} at column {}", value_message(&error), error.column()))
        } else {
            Err("not a JSON object".to_owned())
        };
        let taken = record.and_then(&mut take);
        found.push(taken.map_err(|what| CliError::Failed(format!("{}:{number}: {what}", path.display())))?);
    }
    Ok(found)
}

/// Undoes what the text output escapes: `\n`, `\r` and `\\`. Any other backslash stays.
fn unescape(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (c, length) = match rest.as_bytes().get(at + 1) {
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b'\\') => ('\\', 2),
            _ => ('\\', 1),
        };
        text.push(c);
        rest = &rest[at + length..];
    }
    text + rest
}

fn scores(
    arguments: &EvalArgs,
    hypotheses: &[String],
    references: &[Vec<String>],
) -> Result<Vec<MetricReport>, CliError> {
    let refuse = |error: MetricError| {
        let flag = if matches!(error, MetricError::WordPairs { .. }) { " (--max-word-pairs)" } else { "" };
        CliError::Failed(format!("{error}{flag}"))
    };
    let mut reports = Vec::new();
    let mut done = Vec::new();
    for &metric in &arguments.metric {
        // A metric named twice is told once.
        if done.contains(&metric) {
            continue;
        }
        done.push(metric);
        let lowercase = arguments.lowercase;
        match metric {
            MetricFlag::Bleu => {
                let options = BleuOptions { lowercase, ..BleuOptions::default() };
                reports.push(MetricReport::bleu(corpus_bleu(hypotheses, references, &options).map_err(refuse)?));
            }
            MetricFlag::Chrf | MetricFlag::ChrfPlusPlus => {
                let plus = metric == MetricFlag::ChrfPlusPlus;
                let options = if plus { ChrfOptions::plus_plus() } else { ChrfOptions::default() };
                let options = ChrfOptions { lowercase, ..options };
                reports.push(MetricReport::chrf(corpus_chrf(hypotheses, references, &options).map_err(refuse)?));
            }
            MetricFlag::Ter => {
                let options = TerOptions::default();
                reports.push(MetricReport::ter(corpus_ter(hypotheses, references, &options).map_err(refuse)?));
            }
            MetricFlag::Rouge => {
                let options = RougeOptions { stemmer: arguments.stemmer, max_word_pairs: arguments.max_word_pairs };
                let found = rouge(hypotheses, references, &options).map_err(refuse)?;
                reports.extend(found.named().map(|(name, score)| MetricReport::rouge(name, score, options.stemmer)));
            }
        }
    }
    Ok(reports)
}

#[derive(Serialize)]
struct Report {
    segments: usize,
    metrics: Vec<MetricReport>,
}

impl Report {
    fn lines(&self) -> String {
        let mut text = String::new();
        for metric in &self.metrics {
            // Writing to a String cannot fail.
            let _ = match &metric.parts {
                Parts::Bleu { precisions, brevity_penalty, hypothesis_tokens, reference_tokens, .. } => {
                    let precisions: Vec<_> = precisions.iter().map(|precision| format!("{precision:.1}")).collect();
                    let ratio = *hypothesis_tokens as f64 / (*reference_tokens).max(1) as f64;
                    writeln!(
                        text,
                        "{}|{} = {:.2} {} (BP = {brevity_penalty:.3} ratio = {ratio:.3} hyp_len = {hypothesis_tokens} ref_len = {reference_tokens})",
                        metric.name,
                        metric.signature,
                        metric.score,
                        precisions.join("/")
                    )
                }
                Parts::Chrf {} => writeln!(text, "{}|{} = {:.2}", metric.name, metric.signature, metric.score),
                Parts::Ter { edits, reference_words } => writeln!(
                    text,
                    "{}|{} = {:.2} ({edits} edits, {reference_words} words)",
                    metric.name, metric.signature, metric.score
                ),
                Parts::Rouge { precision, recall } => writeln!(
                    text,
                    "{}|{} = {:.4} (precision = {precision:.4} recall = {recall:.4})",
                    metric.name, metric.signature, metric.score
                ),
            };
        }
        text
    }
}

#[derive(Serialize)]
struct MetricReport {
    name: String,
    score: f64,
    signature: String,
    #[serde(flatten)]
    parts: Parts,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Parts {
    Bleu {
        precisions: [f64; 4],
        correct: [usize; 4],
        total: [usize; 4],
        brevity_penalty: f64,
        hypothesis_tokens: usize,
        reference_tokens: usize,
    },
    Chrf {},
    Ter {
        edits: usize,
        reference_words: f64,
    },
    Rouge {
        precision: f64,
        recall: f64,
    },
}

impl MetricReport {
    fn bleu(score: BleuScore) -> MetricReport {
        let BleuScore {
            score,
            precisions,
            correct,
            total,
            brevity_penalty,
            hypothesis_tokens,
            reference_tokens,
            signature,
        } = score;
        let parts = Parts::Bleu { precisions, correct, total, brevity_penalty, hypothesis_tokens, reference_tokens };
        MetricReport { name: "BLEU".to_owned(), score, signature, parts }
    }

    fn chrf(score: ChrfScore) -> MetricReport {
        MetricReport { name: score.name, score: score.score, signature: score.signature, parts: Parts::Chrf {} }
    }

    fn ter(score: TerScore) -> MetricReport {
        let TerScore { score, edits, reference_words, signature } = score;
        MetricReport { name: "TER".to_owned(), score, signature, parts: Parts::Ter { edits, reference_words } }
    }

    fn rouge(name: &str, score: RougeScore, stemmer: bool) -> MetricReport {
        MetricReport {
            name: name.to_owned(),
            score: score.f1,
            signature: format!("stem:{}", if stemmer { "yes" } else { "no" }),
            parts: Parts::Rouge { precision: score.precision, recall: score.recall },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"a\nb\\n\r\x\"), "a\nb\\n\r\\x\\");
        assert_eq!(unescape("été"), "été");
    }
}
