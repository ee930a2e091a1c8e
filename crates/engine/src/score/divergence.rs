//! How far a run is from a saved one: Kullback-Leibler divergence, position by position.

use std::collections::BTreeMap;

use serde::Serialize;

use super::run_file::{RunFileError, RunReader, SavedRecord, source_checksum};
use super::{CorpusScore, CorpusSummary, TargetScore};

/// `KL(p || q)`, in nats, of two rows of natural log-probabilities. Rows of different lengths have no divergence: NaN.
///
/// The sum is that of `p log(p/q) - p + q`, which is the same where both rows sum to 1 and has no negative terms: rows are
/// stored as f32, and the rounding of their sums, some 1e-7, would otherwise hide smaller divergences.
pub fn kl_divergence(p: &[f32], q: &[f32]) -> f64 {
    if p.len() != q.len() {
        return f64::NAN;
    }
    let term = |(p, q): (&f32, &f32)| {
        let (log_p, log_q) = (f64::from(*p), f64::from(*q));
        if log_p == f64::NEG_INFINITY {
            return log_q.exp();
        }
        let log_ratio = log_p - log_q;
        // q - p is p (exp(-log_ratio) - 1).
        log_p.exp() * (log_ratio + (-log_ratio).exp_m1())
    };
    p.iter().zip(q).map(term).sum()
}

/// The id that is the most likely, of equal ones the first.
fn top(row: &[f32]) -> usize {
    let mut best = 0;
    for (id, logprob) in row.iter().enumerate() {
        if *logprob > row[best] {
            best = id;
        }
    }
    best
}

/// One position in both runs.
#[derive(Clone, Copy, Debug)]
struct Position {
    kl: f64,
    same_top: bool,
    /// The target's log-probabilities.
    saved: f64,
    this: f64,
}

/// Compares a run, row by row as it computes them, with a saved one.
#[derive(Debug)]
pub struct RunComparison {
    reader: RunReader,
    row: Vec<f32>,
    /// Positions of records that have not ended, by record and place.
    pending: BTreeMap<(usize, usize), Position>,
    ended: usize,
    left_out: u64,
    kl: Vec<f64>,
    same_top: u64,
    difference: f64,
    max_difference: f64,
    saved: CorpusScore,
    this: CorpusScore,
}

/// How far a run is from a saved one, over all positions of all records that both scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Divergence {
    /// Records that one of the runs, or both, could not score.
    pub left_out: u64,
    /// Mean over the positions of `KL(saved || this)`, in nats.
    pub mean_kl: f64,
    /// The smallest divergence that 99 % of the positions do not exceed.
    pub p99_kl: f64,
    /// The largest one.
    pub max_kl: f64,
    /// Share of the positions at which both runs hold the same id the most likely.
    pub top1_agreement: f64,
    /// Mean difference of the target's log-probabilities, taken as absolute values.
    pub mean_logprob_difference: f64,
    /// The largest one.
    pub max_logprob_difference: f64,
    /// The saved run.
    pub saved: CorpusSummary,
    /// The run that was compared with it.
    pub this: CorpusSummary,
}

impl RunComparison {
    /// A comparison with the run that `reader` reads.
    pub fn new(reader: RunReader) -> Self {
        Self {
            reader,
            row: Vec::new(),
            pending: BTreeMap::new(),
            ended: 0,
            left_out: 0,
            kl: Vec::new(),
            same_top: 0,
            difference: 0.0,
            max_difference: 0.0,
            saved: CorpusScore::default(),
            this: CorpusScore::default(),
        }
    }

    /// Takes the row at `place` of the target of record `record`; one that is shown again replaces itself.
    ///
    /// # Errors
    /// The saved run has another vocabulary, other records or other targets, or it is damaged.
    pub fn row(&mut self, record: usize, place: usize, row: &[f32]) -> Result<(), RunFileError> {
        let saved = self.saved_record(record)?;
        if saved.target_ids.is_empty() {
            return Ok(());
        }
        let Some(target) = saved.target_ids.get(place).map(|id| *id as usize) else {
            let what = format!("the target of record {record} has {} tokens there", saved.target_ids.len());
            return Err(self.reader.other_run(what));
        };
        if row.len() != self.reader.header().vocab_size {
            let what = format!("its vocabulary has {} ids, this {}", self.reader.header().vocab_size, row.len());
            return Err(self.reader.other_run(what));
        }
        self.reader.row(record, place, &mut self.row)?;
        let position = Position {
            kl: kl_divergence(&self.row, row),
            same_top: top(&self.row) == top(row),
            saved: f64::from(self.row[target]),
            this: f64::from(row[target]),
        };
        self.pending.insert((record, place), position);
        Ok(())
    }

    /// Ends the next record, whose id is the JSON value `id`; `None`: it could not be scored.
    ///
    /// # Errors
    /// The saved run has another record in this place.
    pub fn end_record(&mut self, id: &str, score: Option<&TargetScore>) -> Result<(), RunFileError> {
        let record = self.ended;
        self.ended += 1;
        let mut positions = std::mem::take(&mut self.pending);
        self.pending = positions.split_off(&(record + 1, 0));
        let saved = self.saved_record(record)?;
        let there = &saved.id;
        if there != id {
            let what = format!("record {record} has the id {there} there, {id} here");
            return Err(self.reader.other_run(what));
        }
        let (Some(score), false) = (score, saved.target_ids.is_empty()) else {
            self.left_out += 1;
            return Ok(());
        };
        if saved.target_ids != score.token_ids {
            let what = format!("the target of record {record} (id {id}) has other tokens there");
            return Err(self.reader.other_run(what));
        }
        if saved.source_checksum != source_checksum(score) {
            let what = format!("the source of record {record} (id {id}) has other tokens there");
            return Err(self.reader.other_run(what));
        }
        self.saved.add_logprobs(positions.values().map(|p| p.saved));
        self.this.add_logprobs(positions.values().map(|p| p.this));
        for position in positions.into_values() {
            self.kl.push(position.kl);
            self.same_top += u64::from(position.same_top);
            // Equal infinities do not differ.
            let off = if position.saved == position.this { 0.0 } else { (position.saved - position.this).abs() };
            self.difference += off;
            self.max_difference = self.max_difference.max(off);
        }
        Ok(())
    }

    /// The result over all records.
    ///
    /// # Errors
    /// The saved run has more records; no position was compared.
    pub fn finish(mut self) -> Result<Divergence, RunFileError> {
        let there = self.reader.records().len();
        if there != self.ended {
            return Err(self.reader.other_run(format!("it has {there} records, the input {}", self.ended)));
        }
        self.kl.sort_unstable_by(f64::total_cmp);
        let tokens = self.kl.len();
        let Some(max_kl) = self.kl.last().copied() else {
            return Err(self.reader.other_run("no record was scored by both".to_owned()));
        };
        Ok(Divergence {
            left_out: self.left_out,
            mean_kl: self.kl.iter().sum::<f64>() / tokens as f64,
            p99_kl: self.kl[(tokens * 99).div_ceil(100) - 1],
            max_kl,
            top1_agreement: self.same_top as f64 / tokens as f64,
            mean_logprob_difference: self.difference / tokens as f64,
            max_logprob_difference: self.max_difference,
            saved: self.saved.summary(),
            this: self.this.summary(),
        })
    }

    fn saved_record(&self, record: usize) -> Result<&SavedRecord, RunFileError> {
        let records = self.reader.records();
        records
            .get(record)
            .ok_or_else(|| self.reader.other_run(format!("it has {} records, the input more", records.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(row: &[f64]) -> Vec<f32> {
        row.iter().map(|p| p.ln() as f32).collect()
    }

    #[test]
    fn divergences_by_hand() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-7;
        let (p, q) = (logs(&[0.5, 0.25, 0.25]), logs(&[0.25, 0.5, 0.25]));
        // 1/2 ln 2 + 1/4 ln 1/2
        assert!(close(kl_divergence(&p, &q), 0.25 * 2f64.ln()));
        // 3/4 ln 3/2 + 1/4 ln 1/2, and the other way round.
        let (p, q) = (logs(&[0.75, 0.25]), logs(&[0.5, 0.5]));
        assert!(close(kl_divergence(&p, &q), 0.130_812_04), "{}", kl_divergence(&p, &q));
        assert!(close(kl_divergence(&q, &p), 0.143_841_04), "{}", kl_divergence(&q, &p));
        assert_eq!(kl_divergence(&p, &p), 0.0);
    }

    #[test]
    fn ids_that_cannot_be() {
        let (sure, even) = (logs(&[1.0, 0.0]), logs(&[0.5, 0.5]));
        assert!((kl_divergence(&sure, &even) - 2f64.ln()).abs() < 1e-7);
        assert_eq!(kl_divergence(&even, &sure), f64::INFINITY);
        assert_eq!(kl_divergence(&sure, &sure), 0.0);
        assert!(kl_divergence(&sure, &[0.0]).is_nan());
    }

    #[test]
    fn rounding_of_the_rows_does_not_count() {
        let row: Vec<f32> = (0..1000).map(|i| -(f32::from(i as u16) % 7.0)).collect();
        let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        let row: Vec<f32> = row.iter().map(|x| x - total.ln() as f32).collect();
        // One unit in the last place, as another order of sums gives.
        let shaken: Vec<f32> = row.iter().enumerate().map(|(i, x)| if i % 3 == 0 { x.next_up() } else { *x }).collect();
        let kl = kl_divergence(&row, &shaken);
        assert!(kl > 0.0 && kl < 1e-12, "{kl}");
    }

    #[test]
    fn of_equal_ids_the_first_is_the_top() {
        assert_eq!((top(&[-2.0, -1.0, -1.0]), top(&[-1.0]), top(&[f32::NEG_INFINITY, -9.0])), (1, 0, 1));
    }
}
