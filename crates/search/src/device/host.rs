//! Beams that the host keeps: the device computes and ranks each row's continuations, the host takes the sentences' steps
//! with the code of [`crate::twin`] and gives the new running beams back. One wait per step.
//!
//! Diverse beams are always kept so, others where stop criteria or users' processors must see them. Users' processors need
//! whole rows of scores: with them the host reads the logits and does the rest of the step itself.

use std::cmp::Reverse;

use elgen_tensor::{Arena, Readback, Recorder, Rows, Tensor};

use super::candidates;
use super::settings::NONE;
use super::{DeviceSearch, Found, Result, Running, SearchError, Sentence, advance};
use crate::config::GenerationConfig;
use crate::error::{NotFinite, TwinError};
use crate::twin::beam::{Ask, Candidate, Search, finite, hamming, rank_logits};
use crate::twin::processors::candidate_key;
use crate::twin::task::Task;

/// The sentences of a batch, and what their steps are read with.
pub(super) struct HostBeams {
    searches: Vec<Search>,
    done: Vec<bool>,
    /// Sentences whose scores are not finite; they are done too.
    failed: Vec<bool>,
    /// Lists of candidates, or logits.
    readback: Readback,
    by_logits: bool,
}

impl HostBeams {
    /// Allocates or counts what the steps of `max_rows` rows are read with.
    pub(super) fn build(arena: &Arena, config: &GenerationConfig, max_rows: usize, by_logits: bool) -> Result<Self> {
        let readback = arena.readback("search candidates", read_bytes(config, max_rows, by_logits))?;
        Ok(Self { searches: Vec::new(), done: Vec::new(), failed: Vec::new(), readback, by_logits })
    }

    /// Whether it reads logits.
    pub(super) fn is_by_logits(&self) -> bool {
        self.by_logits
    }

    pub(super) fn begin(&mut self, config: &GenerationConfig, starts: &[Sentence]) {
        self.searches = starts.iter().map(|start| Search::new(config, &start.prompt)).collect();
        self.done = vec![false; self.searches.len()];
        self.failed = vec![false; self.searches.len()];
    }

    /// Takes a sentence no further.
    pub(super) fn cancel(&mut self, sentence: usize) {
        self.done[sentence] = true;
    }

    /// `task` gives the sentence's task.
    pub(super) fn finish<'t>(&self, config: &GenerationConfig, task: impl Fn(usize) -> Task<'t>) -> Vec<Found> {
        let found = |(sentence, search): (usize, &Search)| match (self.failed[sentence], self.done[sentence]) {
            (true, _) => Err(NotFinite),
            (false, true) => finite(search.finish(config, task(sentence).prompt_len)),
            (false, false) => Ok(search.so_far(&task(sentence))),
        };
        self.searches.iter().enumerate().map(found).collect()
    }

    /// The rows as `advance` takes them.
    fn running(&self) -> Vec<Running> {
        let mut rows = Vec::new();
        for (search, done) in self.searches.iter().zip(&self.done) {
            for (row, beam) in search.running().iter().enumerate() {
                rows.push(match beam.tokens.last() {
                    Some(&token) if beam.grew && !done => {
                        Running { score: beam.score, token, parent: beam.parent as u32, grows: 1 }
                    }
                    _ => Running { score: beam.score, token: 0, parent: row as u32, grows: 0 },
                });
            }
        }
        rows
    }
}

/// Bytes that a step reads: logits, or lists of candidates.
fn read_bytes(config: &GenerationConfig, rows: usize, by_logits: bool) -> u64 {
    if by_logits { logits_bytes(config, rows) } else { candidates::list_bytes(rows, config) }
}

/// Bytes of whole rows of logits.
pub(super) fn logits_bytes(config: &GenerationConfig, rows: usize) -> u64 {
    elgen_tensor::product(&[rows, elgen_tensor::padded(config.vocab_size), 4])
}

impl DeviceSearch {
    /// [`DeviceSearch::step`] with beams on the host.
    pub(super) fn step_beams(
        &mut self,
        host: &mut HostBeams,
        rec: &mut Recorder,
        rows: &mut Rows,
        logits: &Tensor,
    ) -> Result<()> {
        let beams = self
            .buffers
            .beams
            .as_ref()
            .ok_or_else(|| SearchError::Batch { message: "a search without beams".into() })?;
        let (from, bytes) = if host.by_logits {
            (&logits.buffer, logits_bytes(&self.config, rows.count()))
        } else {
            self.process(rec, rows, logits)?;
            self.run_processors(rec, rows, logits)?;
            self.warp(rec, rows, logits)?;
            candidates::candidates(rec, self, beams, rows, logits)?;
            (&beams.lists, candidates::list_bytes(rows.count(), &self.config))
        };
        let words: Vec<u32> = rec.submit_and_see(&host.readback, from, bytes, bytemuck::pod_collect_to_vec)?;
        let per_row = words.len() / rows.count().max(1);
        let sentence_rows = words.chunks((per_row * self.width()).max(1));
        for (active, words) in rows.active_rows().chunks(self.width()).zip(sentence_rows) {
            let sentence = active[0] as usize / self.width();
            if host.done[sentence] {
                continue;
            }
            let task = self.task(sentence);
            let mut rank = |ask: &Ask<'_>| {
                if host.by_logits {
                    let all: &[f32] = bytemuck::cast_slice(words);
                    let rows: Vec<&[f32]> = all.chunks(per_row).map(|row| &row[..self.config.vocab_size]).collect();
                    rank_logits(&task, &rows, ask)
                } else {
                    Ok(merge(&task, words, per_row, ask))
                }
            };
            let done = match host.searches[sentence].step(&task, &mut rank) {
                Ok(done) => done,
                Err(TwinError::NotFinite(_)) => {
                    host.failed[sentence] = true;
                    true
                }
                Err(error) => return Err(error.into()),
            };
            if done {
                host.done[sentence] = true;
                rec.write(&self.buffers.open, sentence as u64 * 4, &0u32.to_ne_bytes())?;
            }
        }
        if !host.done.iter().all(|done| *done) {
            // The next step's recording begins with these.
            rec.write(&beams.running, 0, bytemuck::cast_slice(&host.running()))?;
            advance::advance(rec, beams, rows)?;
            rows.flip();
        }
        self.done.clone_from(&host.done);
        Ok(())
    }
}

/// Steps 1 and 2 from the lists of a sentence's rows, `per_row` words each.
fn merge(task: &Task<'_>, words: &[u32], per_row: usize, ask: &Ask<'_>) -> Vec<Candidate> {
    let config = task.config;
    let (list, entry) = (candidates::list_length(config), candidates::entry_words(config));
    let penalties = hamming(config.diversity_penalty, ask.chosen);
    let mut found: Vec<(u32, Candidate)> = Vec::new();
    for beam in ask.beams.clone() {
        let running = &ask.running[beam];
        let forced = is_forced(task, running.tokens.len());
        for part in words[beam * per_row..(beam + 1) * per_row].chunks(list * entry) {
            for words in part.chunks(entry).take_while(|words| words[0] != NONE) {
                let (token, mut logprob) = (words[0], f32::from_bits(words[1]));
                if let Some((_, amount)) = penalties.iter().find(|(chosen, _)| *chosen == token)
                    && !forced
                {
                    // The penalty comes before the processors, and a log-probability is never positive, so the repetition
                    // penalty multiplied both.
                    let seen = config.repetition_penalty != 1.0 && running.tokens.contains(&token);
                    logprob -= amount * if seen { config.repetition_penalty } else { 1.0 };
                }
                let score = logprob + running.score;
                let key = words.get(2).copied().unwrap_or_else(|| candidate_key(score));
                found.push((key, Candidate { beam, token, logprob, score }));
            }
        }
    }
    found.sort_unstable_by_key(|(key, candidate)| (Reverse(*key), candidate.beam, candidate.token));
    found.truncate(ask.count);
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Whether a forced token replaces all scores behind a sequence of this length (§4 rows 11 and 12).
fn is_forced(task: &Task<'_>, length: usize) -> bool {
    let config = task.config;
    let eos = !config.forced_eos_token_id.is_empty() && length + 1 == task.lengths.max_length;
    eos || (config.forced_bos_token_id.is_some() && length == 1)
}
