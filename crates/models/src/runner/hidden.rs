//! Final hidden states of given ids: of the encoder, or of the decoder of a model without one.

use elgen_tensor::{RecordStats, Tensor};

use super::{Runner, Sentence};
use crate::error::ModelError;

impl Runner {
    /// The final hidden states of each input, `[ids, hidden_size]` row-major: what the encoder gives to cross-attention, or what the head
    /// of a decoder-only model reads, each id seeing those before it. Behind the last norm where there is one. No input is empty. A batch that
    /// is admitted is released; nothing stays admitted.
    ///
    /// # Errors
    /// Out of memory; an input larger than a slab or a binding; the device failed.
    pub fn hidden_states(&mut self, inputs: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.end();
        let result = self.run_hidden(inputs);
        self.end();
        result
    }

    fn run_hidden(&mut self, inputs: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let encoder = self.model.encoder_shape();
        // The last id of a prompt is not run: an encoder's decoder has one id, and inputs that are prompts get one more.
        let prompts: Vec<Vec<u32>> = match encoder {
            Some(_) => vec![vec![0]; inputs.len()],
            None => inputs.iter().map(|ids| [ids, &[0][..]].concat()).collect(),
        };
        let sentences: Vec<Sentence<'_>> = inputs
            .iter()
            .zip(&prompts)
            .map(|(ids, prompt)| Sentence { source: if encoder.is_some() { ids } else { &[] }, prompt, max_new: 0 })
            .collect();
        self.place(&sentences, 1)?;
        self.prepare_packed()?;
        let (device, width) = (self.device.clone(), self.model.hidden_size());
        let mut found: Vec<Vec<f32>> = Vec::with_capacity(inputs.len());
        let mut see = |states: &Tensor, chunk: std::ops::Range<usize>| {
            let rows = inputs[chunk.clone()].iter().map(|ids| ids.len()).sum::<usize>();
            let bytes = (rows * states.ld()) as u64 * states.dtype.bytes();
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(&device.read(&states.buffer, bytes)?);
            let mut rows = values.chunks(states.ld().max(1)).map(|row| &row[..width.min(row.len())]);
            found.extend(inputs[chunk].iter().map(|ids| rows.by_ref().take(ids.len()).flatten().copied().collect()));
            Ok(RecordStats::default())
        };
        match encoder {
            Some(_) => self.encode(&sentences, Some(&mut see))?,
            None => self.prefill(&sentences, Some(&mut see))?,
        };
        Ok(found)
    }
}
