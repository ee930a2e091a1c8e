//! The sources of a batch's sentences on the device, for the options that look at them. Uploaded only where there is one.

use elgen_tensor::{Arena, Buffer, Class, Device, product};

use super::{Result, Sentence};
use crate::config::GenerationConfig;

/// Words before the ids: for each sentence the first word and the number of its ids, and the same of its distinct ids.
const HEAD: usize = 4;

/// A buffer that grows to the largest batch so far.
#[derive(Default)]
pub(super) struct Sources {
    buffer: Option<Buffer>,
}

impl Sources {
    /// Whether any option looks at sources.
    pub(super) fn are_needed(config: &GenerationConfig) -> bool {
        config.encoder_repetition_penalty != 1.0 || config.encoder_no_repeat_ngram_size > 0
    }

    /// The sources on the device, if they are needed.
    pub(super) fn buffer(&self) -> Option<&Buffer> {
        self.buffer.as_ref()
    }

    /// Allocates or counts room for `sentences` sources with `ids` ids in sum, repeated and distinct ones, if an option looks at them.
    pub(super) fn reserve(
        &mut self,
        arena: &Arena,
        config: &GenerationConfig,
        sentences: usize,
        ids: usize,
    ) -> Result<()> {
        if !Self::are_needed(config) {
            return Ok(());
        }
        let bytes = product(&[4, HEAD, sentences]).saturating_add(product(&[4, ids]));
        arena.will_upload(bytes);
        if self.buffer.as_ref().is_none_or(|held| held.bytes() < bytes) {
            // The smaller one is free before the larger one is asked for.
            self.buffer = None;
            self.buffer = Some(arena.buffer("search sources", Class::Activations, bytes)?);
        }
        Ok(())
    }

    /// Uploads the sources of a batch.
    pub(super) fn write(&mut self, device: &Device, config: &GenerationConfig, starts: &[Sentence]) -> Result<()> {
        if !Self::are_needed(config) || starts.is_empty() {
            return Ok(());
        }
        let words = encode(starts);
        self.reserve(&device.into(), config, starts.len(), words.len() - HEAD * starts.len())?;
        match &self.buffer {
            Some(buffer) => Ok(device.write(buffer, 0, bytemuck::cast_slice(&words))?),
            None => Ok(()),
        }
    }
}

fn encode(starts: &[Sentence]) -> Vec<u32> {
    let mut heads = Vec::with_capacity(starts.len() * HEAD);
    let mut ids = Vec::new();
    let behind = starts.len() * HEAD;
    let mut append = |list: &[u32]| {
        heads.extend([(behind + ids.len()) as u32, list.len() as u32]);
        ids.extend_from_slice(list);
    };
    for start in starts {
        append(&start.source);
        let mut distinct = start.source.clone();
        distinct.sort_unstable();
        distinct.dedup();
        append(&distinct);
    }
    heads.append(&mut ids);
    heads
}
