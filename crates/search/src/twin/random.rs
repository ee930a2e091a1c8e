//! Random numbers that depend on nothing but their place: a counter-based generator in u32 arithmetic, the same bits here
//! and in a shader.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011; library Random123).
//! One call gives the four words of token ids `4q … 4q + 3`, word `id % 4` being that of `id`. The input words are
//!
//! | word | holds |
//! |---|---|
//! | key 0, key 1 | low and high half of the seed |
//! | counter 0 | `q = id / 4` |
//! | counter 1 | the number of the new token, from 0 |
//! | counter 2 | low half of the input's ordinal |
//! | counter 3 | `sequence << 16` (in beam sampling the beam's number), plus bits 32 to 47 of the ordinal |

/// Whose random numbers: one returned sequence, or one beam, of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// The input's number among all of the run, below 2^48.
    pub ordinal: u64,
    /// The returned sequence's or beam's number in its sentence, below 2^16.
    pub sequence: u32,
}

/// Philox4x32-10: ten rounds on `counter` with `key`.
#[must_use]
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (high0, low0) = mul_wide(0xD251_1F53, counter[0]);
        let (high1, low1) = mul_wide(0xCD9E_8D57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// High and low half of a product. A shader, without 64-bit integers, builds them from four 16-bit products.
fn mul_wide(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    ((product >> 32) as u32, product as u32)
}

/// The random words of token ids `4 * quad … 4 * quad + 3` for new token number `step`.
#[must_use]
pub fn words(stream: Stream, step: u32, quad: u32) -> [u32; 4] {
    let ordinal_high = (stream.ordinal >> 32) as u32 & 0xFFFF;
    let counter = [quad, step, stream.ordinal as u32, stream.sequence << 16 | ordinal_high];
    philox4x32(counter, [stream.seed as u32, (stream.seed >> 32) as u32])
}

/// An exponentially distributed number with mean 1 from a random word: `−ln(1 − v)` with `v = word / 2^32`, never 0.
///
/// Sampling compares `p / e` over a whole vocabulary, so it is the *small* values that decide whether an improbable token
/// wins: `−ln(u)` of a 24-bit `u` would let each of them win once in 2^24 draws whatever its probability, and a shader's
/// logarithm has an absolute error near 1. So below `v = 1/2` this sums `2 artanh(v / (2 − v))`, to which all bits
/// of `v` contribute, and above it takes the logarithm of `1 − v`, which is far from 1.
#[must_use]
pub fn exponential(word: u32) -> f32 {
    if word < 1 << 31 {
        let v = unit(word.max(1));
        let t = v / (2.0 - v);
        let square = t * t;
        let mut sum = 0.0;
        for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
            sum = sum * square + 1.0 / odd;
        }
        2.0 * t * sum
    } else {
        -unit(word.wrapping_neg()).ln()
    }
}

/// `word / 2^32`, cut to the 24 bits of a float so that the conversion is exact on every device.
fn unit(word: u32) -> f32 {
    let exact = if word < 1 << 24 { word } else { word & 0xFFFF_FF00 };
    exact as f32 / 4_294_967_296.0
}

/// Draws a token id from `softmax(scores)`: the largest `score − ln(e)` with an independent exponential `e` for each id,
/// which is the largest `p / e`. Ties go to the lower id.
#[must_use]
pub fn draw(scores: &[f32], stream: Stream, step: u32) -> usize {
    let mut noise = vec![0.0; scores.len()];
    fill(stream, step, &mut noise);
    choose(scores, &noise)
}

/// Fills `noise` with the exponential numbers of all token ids.
pub fn fill(stream: Stream, step: u32, noise: &mut [f32]) {
    for (quad, four) in noise.chunks_mut(4).enumerate() {
        for (e, word) in four.iter_mut().zip(words(stream, step, quad as u32)) {
            *e = exponential(word);
        }
    }
}

/// The token id with the largest `score − ln(e)`.
#[must_use]
pub fn choose(scores: &[f32], noise: &[f32]) -> usize {
    let noisy: Vec<f32> = scores.iter().zip(noise).map(|(score, e)| score - e.ln()).collect();
    super::processors::argmax(&noisy)
}
