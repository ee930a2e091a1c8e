//! What stays constant over a search or a batch, in one small buffer (`include/search.wgsl`).

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Buffer, Class, Device, padded};

use super::{Result, Sentence as Start};
use crate::config::GenerationConfig;
use crate::options::EarlyStopping;

/// Added to a score in f32 to take it out of a competition. Floats are 64 apart there, so the score itself vanishes.
pub(super) const MASKED: f32 = -1.0e9;

/// Stands for no id.
pub(super) const NONE: u32 = u32::MAX;

/// The first word and the number of ids of a list in the words behind the header.
type List = [u32; 2];

/// Mirrors `Settings` up to `words`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    neg_inf: f32,
    masked: f32,
    repetition_penalty: f32,
    temperature: f32,
    top_p_limit: f32,
    top_k: u32,
    ngram: u32,
    forced_bos: u32,
    seed_low: u32,
    seed_high: u32,
    early_stopping: u32,
    optimistic: u32,
    keep: u32,
    noise: u32,
    eos: List,
    forced_eos: List,
    suppress: List,
    begin_suppress: List,
    bad_words: List,
    divisors: u32,
    sentences: u32,
}

/// Mirrors `Sentence` in `include/sentences.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Sentence {
    max_length: u32,
    min_length: u32,
    min_new_tokens: u32,
    ordinal_low: u32,
    ordinal_high: u32,
}

/// The settings on the device.
pub(super) struct Settings {
    pub(super) buffer: Buffer,
    /// Bytes before the table of sentences.
    sentences_at: u64,
    /// Bytes before the noise from outside, if there is room for it.
    noise_at: Option<u64>,
}

impl Settings {
    pub(super) fn new(
        device: &Device,
        config: &GenerationConfig,
        max_sentences: usize,
        max_new: usize,
        noise_rows: usize,
    ) -> Result<Self> {
        let mut words = encode(config, max_new);
        let sentences_at = words.len() as u64 * 4;
        let bytes = Self::bytes(config, max_sentences, max_new);
        let noise_bytes = noise_rows as u64 * padded(config.vocab_size) as u64 * 4;
        let buffer = device.alloc("search settings", Class::Activations, bytes + noise_bytes)?;
        let noise_at = (noise_rows > 0).then_some(bytes);
        if let Some(at) = noise_at {
            words[offset_of!(Header, noise) / 4] = ((at - size_of::<Header>() as u64) / 4) as u32;
        }
        device.write(&buffer, 0, bytemuck::cast_slice(&words))?;
        Ok(Self { buffer, sentences_at, noise_at })
    }

    /// Whether it holds noise from outside.
    pub(super) fn has_noise(&self) -> bool {
        self.noise_at.is_some()
    }

    /// Uploads noise `[active row][padded vocabulary]`.
    pub(super) fn write_noise(&self, device: &Device, noise: &[f32]) -> Result<()> {
        match self.noise_at {
            Some(at) => Ok(device.write(&self.buffer, at, bytemuck::cast_slice(noise))?),
            None => Ok(()),
        }
    }

    pub(super) fn bytes(config: &GenerationConfig, max_sentences: usize, max_new: usize) -> u64 {
        let word_ids: usize = config.bad_words_ids.iter().map(|word| word.len() + 2).sum();
        let lists =
            [&config.eos_token_id, &config.forced_eos_token_id, &config.suppress_tokens, &config.begin_suppress_tokens];
        let ids = lists.iter().map(|list| list.len()).sum::<usize>() + word_ids;
        (size_of::<Header>() + (ids + max_new + 1) * 4 + max_sentences * size_of::<Sentence>()) as u64
    }

    pub(super) fn write_sentences(&self, device: &Device, starts: &[Start]) -> Result<()> {
        let cut = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let table: Vec<Sentence> = starts
            .iter()
            .map(|start| Sentence {
                max_length: cut(start.lengths.max_length),
                min_length: cut(start.lengths.min_length),
                min_new_tokens: cut(start.lengths.min_new_tokens),
                ordinal_low: start.ordinal as u32,
                ordinal_high: (start.ordinal >> 32) as u32,
            })
            .collect();
        Ok(device.write(&self.buffer, self.sentences_at, bytemuck::cast_slice(&table))?)
    }
}

/// The header and the lists behind it; the table of sentences follows.
fn encode(config: &GenerationConfig, max_new: usize) -> Vec<u32> {
    let mut words: Vec<u32> = Vec::new();
    let mut list = |ids: &[u32]| {
        let at = words.len() as u32;
        words.extend_from_slice(ids);
        [at, ids.len() as u32]
    };
    let eos = list(&config.eos_token_id);
    let forced_eos = list(&config.forced_eos_token_id);
    let suppress = list(&config.suppress_tokens);
    let begin_suppress = list(&config.begin_suppress_tokens);
    let places: Vec<List> = config.bad_words_ids.iter().map(|word| list(word)).collect();
    let bad_words = [list(places.as_flattened())[0], places.len() as u32];
    // The power in f64, rounded; the kernel then divides in f32 as the reference does.
    let divisors: Vec<u32> =
        (0..=max_new).map(|length| ((length as f64).powf(config.length_penalty) as f32).to_bits()).collect();
    let divisors = list(&divisors)[0];
    let keep = config.min_tokens_to_keep();
    let header = Header {
        neg_inf: f32::NEG_INFINITY,
        masked: MASKED,
        repetition_penalty: config.repetition_penalty,
        temperature: config.temperature,
        top_p_limit: (1.0 - config.top_p) as f32,
        top_k: if config.top_k == 0 { 0 } else { u32::try_from(config.top_k.max(keep)).unwrap_or(u32::MAX) },
        ngram: u32::try_from(config.no_repeat_ngram_size).unwrap_or(u32::MAX),
        forced_bos: config.forced_bos_token_id.unwrap_or(NONE),
        seed_low: config.seed as u32,
        seed_high: (config.seed >> 32) as u32,
        early_stopping: u32::from(config.early_stopping == EarlyStopping::True),
        optimistic: u32::from(config.early_stopping == EarlyStopping::Never && config.length_penalty > 0.0),
        keep: keep as u32,
        noise: NONE,
        eos,
        forced_eos,
        suppress,
        begin_suppress,
        bad_words,
        divisors,
        sentences: words.len() as u32,
    };
    let mut all = bytemuck::cast_slice(&[header]).to_vec();
    all.append(&mut words);
    all
}
