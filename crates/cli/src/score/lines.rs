//! How a record's score is written.

use std::{fmt::Write as _, io};

use elgen_engine::TargetScore;
use elgen_models::Tokenizer;
use serde::Serialize;

use crate::{
    input::{RecordFormat, RecordId},
    tokenize::escaped_token,
};

/// What became of a record.
pub(super) enum Outcome {
    Scored(TargetScore),
    /// An empty line.
    Empty,
    Failed(String),
}

/// How scores are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) format: RecordFormat,
    /// Text lines with every token.
    pub(super) token_scores: bool,
    /// JSON objects with the most likely ids.
    pub(super) top_ids: bool,
}

impl Layout {
    /// What the columns of text lines are.
    pub(super) fn header(self) -> Option<&'static str> {
        match self.format {
            RecordFormat::Text if self.token_scores => Some("mean ||| tokens ||| log-probabilities\n"),
            RecordFormat::Text => Some("log-probability\ttokens\tperplexity\n"),
            RecordFormat::Jsonl => None,
        }
    }

    /// The record's line.
    pub(super) fn render(self, id: &RecordId, outcome: &Outcome, tokenizer: Option<&Tokenizer>) -> io::Result<Vec<u8>> {
        let mut line = match (self.format, outcome) {
            (RecordFormat::Text, Outcome::Scored(score)) if self.token_scores => {
                token_line(score, tokenizer).into_bytes()
            }
            (RecordFormat::Text, Outcome::Scored(score)) => {
                format!("{:.6}\t{}\t{:.6}", score.sum(), score.token_ids.len(), score.perplexity()).into_bytes()
            }
            (RecordFormat::Text, _) => Vec::new(),
            (RecordFormat::Jsonl, Outcome::Scored(score)) => serde_json::to_vec(&ScoredLine {
                id,
                tokens: score.token_ids.len(),
                sum_logprob: score.sum(),
                mean_logprob: score.mean(),
                perplexity: score.perplexity(),
                token_ids: &score.token_ids,
                token_logprobs: &score.token_logprobs,
                top_ids: self.top_ids.then_some(score.top_ids.as_slice()),
                top_logprobs: self.top_ids.then_some(score.top_logprobs.as_slice()),
            })?,
            (RecordFormat::Jsonl, Outcome::Empty) => serde_json::to_vec(&EmptyLine { id, tokens: 0, token_ids: [] })?,
            (RecordFormat::Jsonl, Outcome::Failed(error)) => serde_json::to_vec(&FailedLine { id, error })?,
        };
        line.push(b'\n');
        Ok(line)
    }
}

/// `mean ||| tokens ||| log-probabilities`
fn token_line(score: &TargetScore, tokenizer: Option<&Tokenizer>) -> String {
    let token = |id: u32| match tokenizer.and_then(|tokenizer| tokenizer.id_to_token(id)) {
        Some(token) => escaped_token(&token),
        None => id.to_string(),
    };
    let mut line = format!("{:.6} |||", score.mean());
    for id in &score.token_ids {
        line.push(' ');
        line.push_str(&token(*id));
    }
    line.push_str(" |||");
    for logprob in &score.token_logprobs {
        // Writing to a String cannot fail.
        let _ = write!(line, " {logprob:.6}");
    }
    line
}

#[derive(Serialize)]
struct ScoredLine<'a> {
    id: &'a RecordId,
    tokens: usize,
    sum_logprob: f64,
    mean_logprob: f64,
    perplexity: f64,
    token_ids: &'a [u32],
    token_logprobs: &'a [f32],
    #[serde(skip_serializing_if = "Option::is_none")]
    top_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<&'a [f32]>,
}

#[derive(Serialize)]
struct EmptyLine<'a> {
    id: &'a RecordId,
    tokens: usize,
    token_ids: [u32; 0],
}

#[derive(Serialize)]
struct FailedLine<'a> {
    id: &'a RecordId,
    error: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score() -> TargetScore {
        TargetScore {
            token_ids: vec![4, 9],
            token_logprobs: vec![-0.5, -1.5],
            top_ids: vec![4, 7],
            top_logprobs: vec![-0.5, -1.0],
            prompt_ids: vec![1],
        }
    }

    fn line(format: RecordFormat, token_scores: bool, top_ids: bool, outcome: &Outcome) -> String {
        let layout = Layout { format, token_scores, top_ids };
        String::from_utf8(layout.render(&RecordId::Index(3), outcome, None).unwrap()).unwrap()
    }

    #[test]
    fn lines_of_both_formats() {
        let (text, json) = (RecordFormat::Text, RecordFormat::Jsonl);
        let scored = Outcome::Scored(score());
        assert_eq!(line(text, false, false, &scored), "-2.000000\t2\t2.718282\n");
        assert_eq!(line(text, true, false, &scored), "-1.000000 ||| 4 9 ||| -0.500000 -1.500000\n");
        assert_eq!(
            line(json, false, false, &scored),
            "{\"id\":3,\"tokens\":2,\"sum_logprob\":-2.0,\"mean_logprob\":-1.0,\"perplexity\":2.718281828459045,\
             \"token_ids\":[4,9],\"token_logprobs\":[-0.5,-1.5]}\n"
        );
        assert!(line(json, false, true, &scored).ends_with(",\"top_ids\":[4,7],\"top_logprobs\":[-0.5,-1.0]}\n"));
        assert_eq!(line(text, true, false, &Outcome::Empty), "\n");
        assert_eq!(line(text, false, false, &Outcome::Failed("x".to_owned())), "\n");
        assert_eq!(line(json, false, false, &Outcome::Failed("x".to_owned())), "{\"id\":3,\"error\":\"x\"}\n");
        assert_eq!(line(json, false, false, &Outcome::Empty), "{\"id\":3,\"tokens\":0,\"token_ids\":[]}\n");
    }
}
