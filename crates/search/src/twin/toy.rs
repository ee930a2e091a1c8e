//! A language model small enough to know by heart.

/// A toy language model, for tests and examples: the logits are a hash of the seed, the last two tokens and the length, so
/// searches on it are the same everywhere.
///
/// Without the length, sequences that take the same steps in another order would have the same score, and real ties
/// are decided by the last bits of sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToyModel {
    /// Number of token ids.
    pub vocab: usize,
    /// Another seed is another model.
    pub seed: u64,
}

impl ToyModel {
    /// The logits of the token that follows `tokens`: multiples of 2^-20 in −4 to 4, exact in f32.
    #[must_use]
    pub fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        let mut last = tokens.iter().rev().map(|&token| u64::from(token) + 1);
        let (one, two) = (last.next().unwrap_or(0), last.next().unwrap_or(0));
        let state = mix(mix(mix(mix(self.seed) ^ one) ^ two) ^ tokens.len() as u64);
        (0..self.vocab as u64)
            .map(|id| {
                let bits = (mix(state ^ id) >> 41) as u32;
                bits as f32 / 1_048_576.0 - 4.0
            })
            .collect()
    }
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
