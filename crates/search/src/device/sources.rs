//! The sources of a batch's sentences on the device, for the options that look at them. Uploaded only where there is one.

use elgen_tensor::{Buffer, Class, Device, product};

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

    /// Bytes of `sentences` sources with `ids` ids in sum, if no id comes twice.
    pub(super) fn most_bytes(sentences: usize, ids: usize) -> u64 {
        product(&[4, HEAD, sentences]).saturating_add(product(&[4, 2, ids]))
    }

    /// The sources on the device, if they are needed.
    pub(super) fn buffer(&self) -> Option<&Buffer> {
        self.buffer.as_ref()
    }

    /// Uploads the sources of a batch.
    pub(super) fn write(&mut self, device: &Device, config: &GenerationConfig, starts: &[Sentence]) -> Result<()> {
        if !Self::are_needed(config) || starts.is_empty() {
            return Ok(());
        }
        let words = encode(starts);
        let bytes = words.len() as u64 * 4;
        let buffer = match self.buffer.take() {
            Some(buffer) if buffer.bytes() >= bytes => buffer,
            // The smaller one is free before the larger one is asked for.
            smaller => {
                drop(smaller);
                device.alloc("search sources", Class::Activations, bytes)?
            }
        };
        device.write(&buffer, 0, bytemuck::cast_slice(&words))?;
        self.buffer = Some(buffer);
        Ok(())
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
