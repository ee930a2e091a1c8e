//! What stays constant over a search or a batch, in one small buffer (`include/search.wgsl`).

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Arena, Buffer, Class, Device, Recorder, padded, product};

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

/// The settings on the device.
pub(super) struct Settings {
    pub(super) buffer: Buffer,
    /// Bytes before the table of sentences.
    sentences_at: u64,
    /// Bytes before the noise from outside, if there is room for it.
    noise_at: Option<u64>,
}

impl Settings {
    /// Allocates or counts what `max_sentences` sentences of up to `max_new` new tokens need, with room for `noise_rows` rows of noise.
    pub(super) fn build(
        arena: &Arena,
        config: &GenerationConfig,
        max_sentences: usize,
        max_new: usize,
        noise_rows: usize,
    ) -> Result<Self> {
        // Before the words are made, of which there are as many as new tokens.
        let sentences_at = encode(Words::counted(), config, max_new).bytes();
        let bytes = sentences_at.saturating_add(product(&[max_sentences, size_of::<Sentence>()]));
        let noise = product(&[noise_rows, padded(config.vocab_size), 4]);
        arena.will_upload(bytes.max(noise));
        let buffer = arena.buffer("search settings", Class::Activations, bytes.saturating_add(noise))?;
        let noise_at = (noise_rows > 0).then_some(bytes);
        if let Some(device) = arena.device() {
            let mut words = encode(Words::default(), config, max_new).all;
            if let Some(at) = noise_at {
                words[offset_of!(Header, noise) / 4] = ((at - size_of::<Header>() as u64) / 4) as u32;
            }
            device.write(&buffer, 0, bytemuck::cast_slice(&words))?;
        }
        Ok(Self { buffer, sentences_at, noise_at })
    }

    /// Whether it holds noise from outside.
    pub(super) fn has_noise(&self) -> bool {
        self.noise_at.is_some()
    }

    /// Uploads noise `[active row][padded vocabulary]`.
    pub(super) fn write_noise(&self, rec: &mut Recorder, noise: &[f32]) -> Result<()> {
        match self.noise_at {
            Some(at) => Ok(rec.write(&self.buffer, at, bytemuck::cast_slice(noise))?),
            None => Ok(()),
        }
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
fn biases(biases: &[(Vec<u32>, f32)], vocab: usize, words: &mut Words) -> List {
    let acts = |ids: &[u32]| !ids.is_empty() && ids.iter().all(|id| (*id as usize) < vocab);
    let mut sorted: Vec<&(Vec<u32>, f32)> = biases.iter().filter(|(ids, _)| acts(ids)).collect();
    sorted.sort_by_key(|(ids, _)| (ids[ids.len() - 1], ids.len() > 1));
    let mut groups = Vec::new();
    for same in sorted.chunk_by(|a, b| a.0.last() == b.0.last()) {
        let mut records = Vec::new();
        for (ids, bias) in same {
            let [first, before] = words.list(&ids[..ids.len() - 1]);
            records.extend([first, before, bias.to_bits()]);
        }
        let id = same[0].0[same[0].0.len() - 1];
        groups.extend([id, words.list(&records)[0], same.len() as u32]);
    }
    [words.list(&groups)[0], groups.len() as u32 / 3]
}

/// The words of the settings: collected, or counted without making those of which there is one for each new token.
#[derive(Default)]
struct Words {
    /// The header and the lists behind it; empty where they are counted.
    all: Vec<u32>,
    /// Words of the lists.
    listed: u64,
    counts_only: bool,
}

impl Words {
    fn counted() -> Self {
        Self { counts_only: true, ..Self::default() }
    }

    /// Appends a list.
    fn list(&mut self, ids: &[u32]) -> List {
        self.table(ids.len() as u64, ids.iter().copied())
    }

    /// Appends a list of `count` ids, which are only made where they are collected.
    fn table(&mut self, count: u64, ids: impl Iterator<Item = u32>) -> List {
        let at = self.listed as u32;
        self.listed = self.listed.saturating_add(count);
        if !self.counts_only {
            self.all.extend(ids);
        }
        [at, count as u32]
    }

    fn bytes(&self) -> u64 {
        self.listed.saturating_mul(4).saturating_add(size_of::<Header>() as u64)
    }
}

/// The header and the lists behind it; the table of sentences follows. Ids that the vocabulary does not hold cannot occur: they, and
/// sequences with one of them, are left out, so that kernels find no id without a score.
fn encode(mut words: Words, config: &GenerationConfig, max_new: usize) -> Words {
    let held = |ids: &[u32]| ids.iter().all(|id| (*id as usize) < config.vocab_size);
    let within = |ids: &[u32]| ids.iter().copied().filter(|id| held(&[*id])).collect::<Vec<u32>>();
    let eos = words.list(&within(&config.eos_token_id));
    let forced_eos = words.list(&within(&config.forced_eos_token_id));
    let suppress = words.list(&within(&config.suppress_tokens));
    let begin_suppress = words.list(&within(&config.begin_suppress_tokens));
    let bad_words = config.bad_words_ids.iter().filter(|word| !word.is_empty() && held(word));
    let places: Vec<List> = bad_words.map(|word| words.list(word)).collect();
    let bad_words = [words.list(places.as_flattened())[0], places.len() as u32];
    let biased = biases(&config.sequence_bias, config.vocab_size, &mut words);
    let lengths = (max_new as u64).saturating_add(1);
    let decay = config.exponential_decay_length_penalty;
    let growth = match decay {
        Some(decay) => {
            let growths = lengths.saturating_sub(decay.first() as u64);
            words.table(growths, (decay.first()..=max_new).map(|new| decay.growth(new).to_bits()))
        }
        None => words.list(&[]),
    };
    // The power in f64, rounded; the kernel then divides in f32 as the reference does.
    let divisor = |length: usize| (length as f64).powf(config.length_penalty) as f32;
    let divisors = words.table(lengths, (0..=max_new).map(|length| divisor(length).to_bits()))[0];
    let keep = config.min_tokens_to_keep();
    let header = Header {
        neg_inf: f32::NEG_INFINITY,
        masked: MASKED,
        repetition_penalty: config.repetition_penalty,
        temperature: config.temperature,
        top_p_limit: (1.0 - config.top_p) as f32,
        top_k: if config.top_k > 0 { cut(config.top_k.max(keep)) } else { 0 },
        ngram: cut(config.no_repeat_ngram_size),
        forced_bos: config.forced_bos_token_id.filter(|id| held(&[*id])).unwrap_or(NONE),
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
        sentences: words.listed as u32,
        noise: NONE,
    };
    if !words.counts_only {
        words.all.splice(..0, bytemuck::cast_slice(&[header]).iter().copied());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ExponentialDecay;
    use crate::{GenerationOptions, ModelLimits};

    fn config() -> GenerationConfig {
        let limits = ModelLimits { vocab_size: 50, max_position_embeddings: None, is_encoder_decoder: false };
        GenerationOptions { num_beams: Some(2), ..GenerationOptions::default() }.resolve(&limits).expect("options").0
    }

    #[test]
    fn bytes_are_known_without_the_words() {
        let mut config = config();
        config.bad_words_ids = vec![vec![3], vec![4, 5], vec![6, 70]];
        config.sequence_bias = vec![(vec![1, 2], 1.0), (vec![2], -1.0), (vec![99], 1.0)];
        for decay in [None, Some(3), Some(40)] {
            config.exponential_decay_length_penalty =
                decay.map(|start: u8| ExponentialDecay { start: start.into(), factor: 1.5 });
            for max_new in [0, 1, 7, 100] {
                let words = encode(Words::default(), &config, max_new);
                let counted = encode(Words::counted(), &config, max_new);
                assert_eq!(words.all.len() as u64 * 4, words.bytes(), "{decay:?} {max_new}");
                assert_eq!((counted.bytes(), counted.all.len()), (words.bytes(), 0), "{decay:?} {max_new}");
            }
        }
        let plan = Arena::counting(1 << 20);
        Settings::build(&plan, &config, usize::MAX, usize::MAX, usize::MAX).expect("counted");
        assert_eq!(plan.tally().usage().total, u64::MAX);
    }

    #[test]
    fn ids_that_the_vocabulary_does_not_hold_are_left_out() {
        let within = encode(Words::default(), &config(), 4).all;
        let mut far = config();
        far.eos_token_id = vec![50, u32::MAX];
        far.suppress_tokens = vec![4_000_000_000];
        far.begin_suppress_tokens = vec![50];
        far.bad_words_ids = vec![vec![1, 50], vec![u32::MAX]];
        far.sequence_bias = vec![(vec![50], 1.0), (vec![50, 1], 1.0)];
        let words = encode(Words::default(), &far, 4).all;
        // What a step keeps for beams counts the ends that were named.
        let keep = offset_of!(Header, keep) / 4;
        let same = |(at, (a, b)): (usize, (&u32, &u32))| a == b || at == keep;
        assert!(words.len() == within.len() && words.iter().zip(&within).enumerate().all(same), "{words:?} {within:?}");
    }
}
