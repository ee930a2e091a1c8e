//! Logits of given decoder sequences (teacher forcing): the packed prefill, then the head in windows of rows.

use std::ops::Range;
use std::sync::Arc;

use elgen_tensor::{Arena, Class, DType, Device, RecordStats, Recorder, Tensor, TensorError};

use super::{Runner, Sentence};
use crate::architecture::Architecture;
use crate::error::ModelError;
use crate::space::PerRow;

/// Logits of some decoder positions, recorded but not yet run.
#[derive(Debug)]
pub struct LogitRows<'a> {
    /// `[rows or more, vocab_size]` f32: row `i` belongs to `rows[i]`.
    pub logits: &'a Tensor,
    /// (sentence, position): these logits predict the id at `position + 1` of the sentence's prompt.
    pub rows: &'a [(usize, usize)],
}

/// Takes a recording that ends in logits, adds what it wants to know of them, and submits it.
pub type SeeLogits<'a> = &'a mut dyn FnMut(&mut Recorder, LogitRows<'_>) -> Result<(), ModelError>;

/// The head's part of a scoring run.
struct Scoring<'a> {
    /// Per sentence the first position whose logits are wanted.
    from: &'a [usize],
    /// `[window rows, d_model]`.
    hidden: Option<Tensor>,
    /// `[window rows, vocab_size]`.
    logits: &'a Tensor,
    see: SeeLogits<'a>,
}

impl Scoring<'_> {
    /// Runs the head over the wanted rows of a stretch whose final hidden states are `states`.
    fn chunk(
        &mut self,
        device: &Device,
        model: &dyn Architecture,
        states: &Tensor,
        sentences: &[Sentence<'_>],
        chunk: Range<usize>,
    ) -> Result<RecordStats, ModelError> {
        // (row of the packed states, sentence, position), in order.
        let mut wanted: Vec<(usize, (usize, usize))> = Vec::new();
        let mut first = 0;
        for s in chunk {
            let rows = sentences[s].prompt.len() - 1;
            wanted.extend((self.from[s]..rows).map(|position| (first + position, (s, position))));
            first += rows;
        }
        let row_bytes = states.ld() as u64 * states.dtype.bytes();
        let hidden = match &mut self.hidden {
            Some(hidden) => hidden,
            none => none.insert(device.tensor(
                "hidden states to score",
                Class::Activations,
                self.logits.rows,
                states.cols,
                DType::F32,
            )?),
        };
        let mut rec = device.recorder();
        for window in wanted.chunks(self.logits.rows) {
            let mut to = 0;
            for run in window.chunk_by(|a, b| b.0 == a.0 + 1) {
                let bytes = run.len() as u64 * row_bytes;
                rec.copy(&states.buffer, run[0].0 as u64 * row_bytes, &hidden.buffer, to, bytes)?;
                to += bytes;
            }
            model.head(&mut rec, hidden, self.logits, window.len())?;
            let rows: Vec<(usize, usize)> = window.iter().map(|(_, row)| *row).collect();
            (self.see)(&mut rec, LogitRows { logits: self.logits, rows: &rows })?;
        }
        Ok(rec.take_stats())
    }
}

impl Runner {
    /// Runs whole decoder sequences: `sentences[s].prompt` is the decoder prompt and behind it the target. `see` gets the
    /// logits that predict the ids from `from[s]` on, in windows of at most `window_bytes` of logits (one row at least). A
    /// batch that is admitted is released; nothing stays admitted.
    ///
    /// # Errors
    /// Ids outside the vocabulary; out of memory; a sentence larger than a slab or a binding; the device failed; what `see` returns; `from` is not one
    /// number for each sentence, or holds a 0: nothing predicts the first id.
    pub fn score(
        &mut self,
        sentences: &[Sentence<'_>],
        from: &[usize],
        window_bytes: u64,
        see: SeeLogits<'_>,
    ) -> Result<RecordStats, ModelError> {
        self.end();
        let result = self.run_scoring(sentences, from, window_bytes, see);
        self.end();
        result
    }

    fn run_scoring(
        &mut self,
        sentences: &[Sentence<'_>],
        from: &[usize],
        window_bytes: u64,
        see: SeeLogits<'_>,
    ) -> Result<RecordStats, ModelError> {
        if from.len() != sentences.len() || from.contains(&0) {
            let message = format!("{} sentences are scored from the positions {from:?} on", sentences.len());
            return Err(TensorError::Shape { op: "score", message }.into());
        }
        self.check(sentences)?;
        let vocab = self.model.limits().vocab_size;
        let binding = self.device.capabilities().max_binding_bytes;
        let logits = |arena: &Arena, rows: usize| arena.tensor("logits", Class::Activations, rows, vocab, DType::F32);
        let row = PerRow::of(|arena, rows| Ok(logits(arena, rows).map(drop)?));
        let wanted: usize = sentences.iter().zip(from).map(|(s, from)| s.prompt.len().saturating_sub(*from)).sum();
        let rows = row.within(window_bytes, binding).clamp(1, wanted.max(1));
        let logits = logits(&Arena::from(&self.device), rows)?;
        self.place(sentences, 1)?;
        self.prepare_packed()?;
        let mut stats = RecordStats::default();
        if self.model.encoder_shape().is_some() {
            stats += self.encode(sentences, None)?;
        }
        let from: Vec<usize> = from.iter().map(|position| position - 1).collect();
        let (device, model) = (self.device.clone(), Arc::clone(&self.model));
        let mut scoring = Scoring { from: &from, hidden: None, logits: &logits, see };
        let mut head = |states: &Tensor, chunk| scoring.chunk(&device, &*model, states, sentences, chunk);
        stats += self.prefill(sentences, Some(&mut head))?;
        Ok(stats)
    }
}
