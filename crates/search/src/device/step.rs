//! Taking a step: what is recorded between a model's logits and its next step, and what the host learns of it.

use elgen_tensor::{DType, Pending, Recorder, Rows, Tensor, padded};

use super::state::Host;
use super::{
    DeviceSearch, Result, SearchError, StepReport, advance, beam_step, candidates, process, renormalize, select, warp,
};

impl DeviceSearch {
    /// Records what follows a decode step: `logits` `[active rows or more, V]` f32 are turned into scores in place,
    /// every active row takes its next token, and `rows` stands for the next step. Sentences that are done stay as they
    /// are.
    ///
    /// # Errors
    /// Logits, tables or active rows that do not fit the search; or the host takes part in this batch's steps, which needs
    /// [`DeviceSearch::step`].
    pub fn record_step(&mut self, rec: &mut Recorder, rows: &mut Rows, logits: &Tensor) -> Result<()> {
        if !matches!(self.buffers.host, Host::Idle) || self.buffers.settings.has_noise() {
            let message = "diverse beams, hooks and reports need whole steps".to_owned();
            return Err(SearchError::Batch { message });
        }
        self.check_step(rec, rows, logits)?;
        self.record_checked(rec, rows, logits)
    }

    /// Rows that kernels take on trust: those of the batch's sentences, with room for all ids that they may get (of ids beyond the vocabulary
    /// the kernels themselves keep off). Looked at once, until the rows begin anew.
    fn check_rows(&mut self, rows: &Rows) -> Result<()> {
        if self.checked_rows == Some(rows.begun()) {
            return Ok(());
        }
        let width = self.width();
        for row in 0..self.batch_rows() {
            let (sentence, start) = (row / width, &self.starts[row / width]);
            let fits = rows.start(row as u32).is_some_and(|(state, max_length)| {
                let place = [state.sentence, state.beam, state.width].map(|number| number as usize);
                place == [sentence, row % width, width]
                    && [state.prompt_len, state.length] == [start.prompt.len() as u32; 2]
                    && max_length >= start.lengths.max_length
            });
            if !fits {
                let message = format!(
                    "row {row} did not begin as row {} of sentence {sentence} with a prompt of {} ids and room for {}",
                    row % width,
                    start.prompt.len(),
                    start.lengths.max_length
                );
                return Err(SearchError::Batch { message });
            }
        }
        self.checked_rows = Some(rows.begun());
        Ok(())
    }

    fn check_step(&mut self, rec: &Recorder, rows: &Rows, logits: &Tensor) -> Result<()> {
        self.check_rows(rows)?;
        if self.advanced_in.is_some_and(|id| id != rec.id()) {
            let message = "the recording of the step before goes on with this one, and was not given".to_owned();
            return Err(SearchError::Batch { message });
        }
        let (width, count) = (self.width(), rows.count());
        let longest = self.starts.iter().map(|start| start.lengths.max_length).max().unwrap_or(0);
        let batch = self.batch_rows();
        let problem = if logits.dtype != DType::F32 || logits.cols != self.config.vocab_size || logits.rows < count {
            Some(format!("logits {} for {count} rows and {} ids", logits.describe(), self.config.vocab_size))
        } else if rows.max_length() < longest {
            Some(format!("tables of {} ids for sequences of {longest}", rows.max_length()))
        } else if self.config.mode.has_beams() && !complete(rows.active_rows(), width, batch) {
            Some(format!("{count} active rows that are not whole sentences of {width} rows in a batch of {batch}"))
        } else if rows.active_rows().iter().any(|row| *row as usize >= batch) || !rows.active_rows().is_sorted() {
            Some(format!("{count} active rows that are not in order or not in a batch of {batch}"))
        } else {
            None
        };
        match problem {
            Some(message) => Err(SearchError::Batch { message }),
            None => Ok(()),
        }
    }

    fn record_checked(&mut self, rec: &mut Recorder, rows: &mut Rows, logits: &Tensor) -> Result<()> {
        self.steps += 1;
        if self.processes {
            self.process(rec, rows, logits)?;
        }
        self.run_processors(rec, rows, logits)?;
        self.warp(rec, rows, logits)?;
        if let Some(beams) = &self.buffers.beams {
            candidates::candidates(rec, self, beams, rows, logits)?;
            beam_step::beam_step(rec, self, beams, rows)?;
            advance::advance(rec, beams, rows)?;
            rows.flip();
        } else {
            select::select(rec, self, rows, logits)?;
        }
        Ok(())
    }

    /// Rows 2 to 15 of §4.
    pub(super) fn process(&self, rec: &mut Recorder, rows: &Rows, logits: &Tensor) -> Result<()> {
        process::process(
            rec,
            &self.config,
            &self.buffers.settings,
            &self.buffers.sources,
            rows,
            &self.buffers.open,
            logits,
        )
    }

    /// Rows 17 to 26 of §4, as far as options ask for them.
    pub(super) fn warp(&self, rec: &mut Recorder, rows: &Rows, logits: &Tensor) -> Result<()> {
        warp::warp(rec, &self.config, &self.buffers.settings, rows, &self.buffers.open, logits)?;
        if self.config.renormalize_logits {
            renormalize::renormalize(rec, rows, &self.buffers.open, logits)?;
        }
        Ok(())
    }

    /// Takes a recording that ends in a model's decode step, adds what follows, submits it and waits; the recorder goes on with the next
    /// step. `logits` are turned into scores in place, every active row takes its next token, and `rows` stands for the next step. With stop
    /// criteria or reports, rows without beams that have ended are active no more.
    ///
    /// # Errors
    /// Logits, tables or active rows that do not fit the search; the device failed; a hook failed.
    pub fn step(&mut self, rec: &mut Recorder, rows: &mut Rows, logits: &Tensor) -> Result<StepReport<'_>> {
        self.check_step(rec, rows, logits)?;
        self.new_tokens.clear();
        if self.buffers.settings.has_noise() {
            self.write_noise(rec, rows)?;
        }
        // Taken out while it works on the rest.
        let mut host = std::mem::take(&mut self.buffers.host);
        let stepped = match &mut host {
            Host::Beams(beams) => self.step_beams(beams, rec, rows, logits),
            Host::Rows(sequences) => self.step_rows(sequences, rec, rows, logits),
            Host::Idle => self.record_checked(rec, rows, logits).and_then(|()| self.submit(rec).map(drop)),
        };
        if !matches!(host, Host::Idle) {
            self.steps += 1;
        }
        self.advanced_in = matches!(host, Host::Beams(_)).then_some(rec.id());
        self.buffers.host = host;
        stepped?;
        Ok(StepReport { done: &self.done, tokens: &self.new_tokens })
    }

    /// Uploads the noise of the coming step, one padded row of the vocabulary for each active row.
    fn write_noise(&self, rec: &mut Recorder, rows: &Rows) -> Result<()> {
        let (vocab, ld, width) = (self.config.vocab_size, padded(self.config.vocab_size), self.width());
        let mut noise = vec![1.0; rows.count() * ld];
        for (row, out) in rows.active_rows().iter().zip(noise.chunks_mut(ld)) {
            let row = *row as usize;
            self.task(row / width).noise(row % width, self.steps, &mut out[..vocab]);
        }
        self.buffers.settings.write_noise(rec, &noise)
    }

    /// Submits a recording, waits for it, and tells which sentences of the batch are done: the one thing that the host reads of a step.
    ///
    /// # Errors
    /// The device failed.
    pub fn submit(&mut self, rec: &mut Recorder) -> Result<&[bool]> {
        let pending = self.record_done(rec)?;
        rec.submit()?;
        self.see_done(rec, pending)
    }

    /// Records what tells which sentences are done, for [`DeviceSearch::see_done`].
    ///
    /// # Errors
    /// What was recorded before was not seen.
    pub fn record_done(&self, rec: &mut Recorder) -> Result<Pending> {
        Ok(rec.read_back(&self.buffers.open_readback, &self.buffers.open, 0, self.starts.len() as u64 * 4)?)
    }

    /// Waits for what [`DeviceSearch::record_done`] recorded, and tells which sentences of the batch are done.
    ///
    /// # Errors
    /// The recording was not submitted; the device failed.
    pub fn see_done(&mut self, rec: &mut Recorder, pending: Pending) -> Result<&[bool]> {
        let done = &mut self.done;
        rec.see(pending, |bytes| {
            for (done, rows) in done.iter_mut().zip(bytes.chunks_exact(4)) {
                *done = rows == [0; 4];
            }
        })?;
        Ok(&self.done)
    }
}

/// Whether the rows are whole sentences of `width` rows in order, all within the batch.
fn complete(active: &[u32], width: usize, batch: usize) -> bool {
    active.len().is_multiple_of(width)
        && active.chunks(width).all(|rows| {
            let first = rows[0] as usize;
            first.is_multiple_of(width)
                && first + width <= batch
                && rows.iter().enumerate().all(|(beam, row)| *row as usize == first + beam)
        })
}
