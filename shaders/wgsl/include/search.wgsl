// What all search kernels share: the settings of a search, the lengths of its sentences, and the order of scores.
// Mirrors crates/search/src/device/settings.rs.
struct Settings {
    neg_inf: f32,            // -inf: a literal of it would not compile
    masked: f32,             // -1e9, added to take a score out of a competition; no literal, lest additions be merged
    repetition_penalty: f32, // 1: off
    temperature: f32,
    top_p_limit: f32,        // 1 - top_p; 0: off
    top_k: u32,              // 0: off
    ngram: u32,              // no_repeat_ngram_size; 0: off
    forced_bos: u32,         // NONE: off
    seed_low: u32,
    seed_high: u32,
    early_stopping: u32,     // 1: stop when all slots are done
    optimistic: u32,         // 1: compare running beams at their best possible length
    source_penalty: f32,     // 1 / encoder_repetition_penalty; 1: off
    source_ngram: u32,       // encoder_no_repeat_ngram_size; 0: off
    remove_invalid: u32,     // 1: on
    keep: u32,               // tokens that a warper leaves at least
    min_p: f32,              // 0: off
    typical_p: f32,          // 1: off
    epsilon: f32,            // 0: off
    eta: f32,                // 0: off
    top_h: f32,              // 0: off
    decay_first: u32,
    // Each list: first word in `words`, number of ids.
    eos: vec2<u32>,
    forced_eos: vec2<u32>,
    suppress: vec2<u32>,
    begin_suppress: vec2<u32>,
    bad_words: vec2<u32>,    // pairs (first word, number of ids)
    biased: vec2<u32>,       // records of `add_biases`
    decay: vec2<u32>,        // new tokens, from decay_first on -> growth (f32); none: off
    divisors: u32,           // first word of the table length -> length ^ length_penalty (f32)
    sentences: u32,          // first word of the table of `Sentence`
    noise: u32,              // first word of noise from outside, [active row][padded vocabulary]; NONE: off
    words: array<u32>,
}

const NONE: u32 = 0xffffffffu;
// The lowest finite number; a maximum starts here, so that no difference is inf - inf.
const LOWEST: f32 = -3.40282347e38;

fn is_finite(value: f32) -> bool { return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u; }

// A float as an integer that orders like it: -0 and 0 have one key, NaN has the lowest.
fn ordered_key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0u; }
    if (bits == 0x80000000u) { return 0x80000000u; }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
