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
    source_penalty: f32,
    source_ngram: u32,
    remove_invalid: u32,
    keep: u32,
    min_p: f32,
    typical_p: f32,
    epsilon: f32,
    eta: f32,
    top_h: f32,
    decay_first: u32,
    eos: List,
    forced_eos: List,
    suppress: List,
    begin_suppress: List,
    bad_words: List,
    biased: List,
    decay: List,
    divisors: u32,
    sentences: u32,
    noise: u32,
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

/// Bytes of noise from outside for this many rows.
pub(super) fn noise_bytes(config: &GenerationConfig, rows: usize) -> u64 {
    rows as u64 * padded(config.vocab_size) as u64 * 4
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
        let buffer = device.alloc("search settings", Class::Activations, bytes + noise_bytes(config, noise_rows))?;
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
        (encode(config, max_new).len() * 4 + max_sentences * size_of::<Sentence>()) as u64
    }

    pub(super) fn write_sentences(&self, device: &Device, starts: &[Start]) -> Result<()> {
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

/// As a word; nothing that a device counts comes near the largest one.
fn cut(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The records of `add_biases` in `process.wgsl`: for each biased id its sequences, those of one id first, as the twin sums
/// them.
fn biases(biases: &[(Vec<u32>, f32)], list: &mut impl FnMut(&[u32]) -> List) -> List {
    let mut sorted: Vec<&(Vec<u32>, f32)> = biases.iter().filter(|(ids, _)| !ids.is_empty()).collect();
    sorted.sort_by_key(|(ids, _)| (ids[ids.len() - 1], ids.len() > 1));
    let mut groups = Vec::new();
    for same in sorted.chunk_by(|a, b| a.0.last() == b.0.last()) {
        let mut records = Vec::new();
        for (ids, bias) in same {
            let [first, before] = list(&ids[..ids.len() - 1]);
            records.extend([first, before, bias.to_bits()]);
        }
        let id = same[0].0[same[0].0.len() - 1];
        groups.extend([id, list(&records)[0], same.len() as u32]);
    }
    [list(&groups)[0], groups.len() as u32 / 3]
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
    let biased = biases(&config.sequence_bias, &mut list);
    let decay = config.exponential_decay_length_penalty;
    let growth: Vec<u32> =
        decay.map_or(Vec::new(), |decay| (decay.first()..=max_new).map(|new| decay.growth(new).to_bits()).collect());
    let growth = list(&growth);
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
        top_k: if config.top_k > 0 { cut(config.top_k.max(keep)) } else { 0 },
        ngram: cut(config.no_repeat_ngram_size),
        forced_bos: config.forced_bos_token_id.unwrap_or(NONE),
        seed_low: config.seed as u32,
        seed_high: (config.seed >> 32) as u32,
        early_stopping: u32::from(config.early_stopping == EarlyStopping::True),
        optimistic: u32::from(config.early_stopping == EarlyStopping::Never && config.length_penalty > 0.0),
        source_penalty: (1.0 / config.encoder_repetition_penalty) as f32,
        source_ngram: cut(config.encoder_no_repeat_ngram_size),
        remove_invalid: u32::from(config.remove_invalid_values),
        keep: cut(keep),
        min_p: config.min_p as f32,
        typical_p: config.typical_p as f32,
        epsilon: config.epsilon_cutoff as f32,
        eta: config.eta_cutoff as f32,
        top_h: config.top_h.unwrap_or(0.0) as f32,
        decay_first: decay.map_or(0, |decay| cut(decay.first())),
        eos,
        forced_eos,
        suppress,
        begin_suppress,
        bad_words,
        biased,
        decay: growth,
        divisors,
        sentences: words.len() as u32,
        noise: NONE,
    };
    let mut all = bytemuck::cast_slice(&[header]).to_vec();
    all.append(&mut words);
    all
}
