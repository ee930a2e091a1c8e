//! What stays constant over a search or a batch, in one small buffer (`include/search.wgsl`).

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Buffer, Class, Device, Recorder, padded, product};

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
    product(&[rows, padded(config.vocab_size), 4])
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
        let bytes = Self::bytes(config, max_sentences, max_new);
        // Before the words are made, of which there are as many as new tokens.
        let all = bytes.saturating_add(noise_bytes(config, noise_rows));
        let buffer = device.alloc("search settings", Class::Activations, all)?;
        let mut words = encode(config, max_new);
        let sentences_at = words.len() as u64 * 4;
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
    pub(super) fn write_noise(&self, rec: &mut Recorder, noise: &[f32]) -> Result<()> {
        match self.noise_at {
            Some(at) => Ok(rec.write(&self.buffer, at, bytemuck::cast_slice(noise))?),
            None => Ok(()),
        }
    }

    pub(super) fn bytes(config: &GenerationConfig, max_sentences: usize, max_new: usize) -> u64 {
        // All but the two tables that have a word for each new token are as long as the options, which are there.
        let tables = table_words(config, max_new).iter().fold(0, |sum: u64, words| sum.saturating_add(*words));
        let fixed = encode_tables(config, &[], &[]).len() as u64;
        let words = tables.saturating_add(fixed).saturating_mul(4);
        words.saturating_add(product(&[max_sentences, size_of::<Sentence>()]))
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
fn biases(biases: &[(Vec<u32>, f32)], vocab: usize, list: &mut impl FnMut(&[u32]) -> List) -> List {
    let acts = |ids: &[u32]| !ids.is_empty() && ids.iter().all(|id| (*id as usize) < vocab);
    let mut sorted: Vec<&(Vec<u32>, f32)> = biases.iter().filter(|(ids, _)| acts(ids)).collect();
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

/// Words of the tables that have one for each new token: growths and divisors.
fn table_words(config: &GenerationConfig, max_new: usize) -> [u64; 2] {
    let decay = config.exponential_decay_length_penalty;
    let growths = decay.map_or(0, |decay| (max_new as u64).saturating_add(1).saturating_sub(decay.first() as u64));
    [growths, (max_new as u64).saturating_add(1)]
}

/// The header and the lists behind it; the table of sentences follows.
fn encode(config: &GenerationConfig, max_new: usize) -> Vec<u32> {
    let decay = config.exponential_decay_length_penalty;
    let growth: Vec<u32> =
        decay.map_or(Vec::new(), |decay| (decay.first()..=max_new).map(|new| decay.growth(new).to_bits()).collect());
    // The power in f64, rounded; the kernel then divides in f32 as the reference does.
    let divisors: Vec<u32> =
        (0..=max_new).map(|length| ((length as f64).powf(config.length_penalty) as f32).to_bits()).collect();
    encode_tables(config, &growth, &divisors)
}

/// [`encode`] with these tables. Ids that the vocabulary does not hold cannot occur: they, and sequences with one of them, are left out, so
/// that kernels find no id without a score.
fn encode_tables(config: &GenerationConfig, growth: &[u32], divisors: &[u32]) -> Vec<u32> {
    let held = |ids: &[u32]| ids.iter().all(|id| (*id as usize) < config.vocab_size);
    let within = |ids: &[u32]| ids.iter().copied().filter(|id| held(&[*id])).collect::<Vec<u32>>();
    let mut words: Vec<u32> = Vec::new();
    let mut list = |ids: &[u32]| {
        let at = words.len() as u32;
        words.extend_from_slice(ids);
        [at, ids.len() as u32]
    };
    let eos = list(&within(&config.eos_token_id));
    let forced_eos = list(&within(&config.forced_eos_token_id));
    let suppress = list(&within(&config.suppress_tokens));
    let begin_suppress = list(&within(&config.begin_suppress_tokens));
    let bad_words = config.bad_words_ids.iter().filter(|word| !word.is_empty() && held(word));
    let places: Vec<List> = bad_words.map(|word| list(word)).collect();
    let bad_words = [list(places.as_flattened())[0], places.len() as u32];
    let biased = biases(&config.sequence_bias, config.vocab_size, &mut list);
    let decay = config.exponential_decay_length_penalty;
    let growth = list(growth);
    let divisors = list(divisors)[0];
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
        sentences: words.len() as u32,
        noise: NONE,
    };
    let mut all = bytemuck::cast_slice(&[header]).to_vec();
    all.append(&mut words);
    all
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
                let expected = encode(&config, max_new).len() * 4 + 3 * size_of::<Sentence>();
                assert_eq!(Settings::bytes(&config, 3, max_new), expected as u64, "{decay:?} {max_new}");
            }
        }
        assert_eq!(Settings::bytes(&config, usize::MAX, usize::MAX), u64::MAX);
    }

    #[test]
    fn ids_that_the_vocabulary_does_not_hold_are_left_out() {
        let within = encode(&config(), 4);
        let mut far = config();
        far.eos_token_id = vec![50, u32::MAX];
        far.suppress_tokens = vec![4_000_000_000];
        far.begin_suppress_tokens = vec![50];
        far.bad_words_ids = vec![vec![1, 50], vec![u32::MAX]];
        far.sequence_bias = vec![(vec![50], 1.0), (vec![50, 1], 1.0)];
        let words = encode(&far, 4);
        // What a step keeps for beams counts the ends that were named.
        let keep = offset_of!(Header, keep) / 4;
        let same = |(at, (a, b)): (usize, (&u32, &u32))| a == b || at == keep;
        assert!(words.len() == within.len() && words.iter().zip(&within).enumerate().all(same), "{words:?} {within:?}");
    }
}
