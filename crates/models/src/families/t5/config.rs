//! `config.json` of T5, T5 v1.1 and Flan-T5.

use serde_json::Value;

use crate::checkpoint::RandomRules;
use crate::config::{Activation, ConfigKeys, MAX_FFN, MAX_LAYERS, MAX_ROWS, MAX_WIDTH, activation, activation_names};
use crate::error::ModelError;

/// The largest accepted distance that position buckets tell apart; published models have 128.
const MAX_DISTANCE: usize = 1 << 16;

/// Shape and options of a T5 model.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    /// Rows of the embedding table and number of logits.
    pub vocab_size: usize,
    /// Model width, in elements.
    pub d_model: usize,
    /// Width of a head, in elements; `num_heads * d_kv` need not be `d_model`.
    pub d_kv: usize,
    /// Inner width of the feed-forward blocks, in elements.
    pub d_ff: usize,
    /// Layers of the encoder.
    pub num_layers: usize,
    /// Layers of the decoder.
    pub num_decoder_layers: usize,
    /// Attention heads of each layer.
    pub num_heads: usize,
    /// Rows of the tables of relative position biases.
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all positions share a bucket.
    pub relative_attention_max_distance: usize,
    /// Activation of the feed-forward blocks.
    pub activation: Activation,
    /// Whether the feed-forward blocks have a gate.
    pub is_gated_act: bool,
    /// Epsilon of all norms.
    pub layer_norm_epsilon: f32,
    /// Whether the config ties embeddings and head. The head is the file's `lm_head.weight` where that has values of its own.
    pub tie_word_embeddings: bool,
    /// Whether the decoder's output is scaled by `d_model^-0.5` before the head: T5 1.0, whose head is tied.
    pub scale_decoder_outputs: bool,
}

impl T5Config {
    /// What stands for `shared.weight` where a file lacks it, in this order.
    pub const SUBSTITUTES: [&str; 3] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];

    /// Columns of the query, key and value projections.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// The bucket of a key `distance` positions behind (negative: before) the query. An encoder looks both ways and gives each half of the
    /// buckets; a decoder looks back only. Half of a direction's buckets hold one distance each, the others grow with its logarithm.
    pub fn bucket(&self, distance: i64, bidirectional: bool) -> usize {
        let (buckets, base, far) = if bidirectional {
            let half = self.relative_attention_num_buckets / 2;
            (half, if distance > 0 { half } else { 0 }, distance.unsigned_abs())
        } else {
            (self.relative_attention_num_buckets, 0, distance.min(0).unsigned_abs())
        };
        let exact = buckets / 2;
        if far < exact as u64 {
            return base + far as usize;
        }
        // PyTorch takes this logarithm in f32, the divisor in f64. Rounding an f64 logarithm to f32 is what a good f32 logarithm gives, on every
        // platform: a boundary like ln(16/8) / ln(128/8) * 8 = 2 must not come out as 1.9999999.
        let ratio = far as f32 / exact as f32;
        let span = (self.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
        let step = f64::from(ratio).ln() as f32 / span * (buckets - exact) as f32;
        base + (exact + step as usize).min(buckets - 1)
    }

    pub(crate) fn from_keys(keys: &ConfigKeys<'_>) -> Result<Self, ModelError> {
        if !keys.flag("is_encoder_decoder", true)? {
            return Err(keys.error("is_encoder_decoder", "a T5 encoder or decoder alone is not supported"));
        }
        let vocab_size = keys.count(&["vocab_size"], 32_128, MAX_ROWS)?;
        let num_layers = keys.count(&["num_layers", "num_hidden_layers"], 6, MAX_LAYERS)?;
        let (activation, is_gated_act) = feed_forward(keys)?;
        let (buckets_key, distance_key) = ("relative_attention_num_buckets", "relative_attention_max_distance");
        let buckets = keys.count(&[buckets_key], 32, MAX_ROWS)?;
        if buckets < 4 {
            return Err(keys.error(buckets_key, "must be at least 4: each direction needs near and far ones"));
        }
        let distance = keys.count(&[distance_key], 128, MAX_DISTANCE)?;
        if distance <= buckets / 2 {
            let why = format!("must exceed the {} distances that have a bucket of their own", buckets / 2);
            return Err(keys.error(distance_key, why));
        }
        // transformers 5 ties always and writes the older meaning of the key, no scaling where untied, under a name of its own. It looks
        // whether the one is `false` and whether the other counts as true.
        let tie_word_embeddings = keys.map.get("tie_word_embeddings") != Some(&Value::Bool(false));
        let scale_decoder_outputs = match keys.map.contains_key("scale_decoder_outputs") {
            true => keys.truthy("scale_decoder_outputs"),
            false => tie_word_embeddings,
        };
        Ok(Self {
            vocab_size,
            d_model: keys.count(&["d_model", "hidden_size"], 512, MAX_WIDTH)?,
            d_kv: keys.count(&["d_kv", "head_dim"], 64, MAX_WIDTH)?,
            d_ff: keys.count(&["d_ff"], 2048, MAX_FFN)?,
            num_layers,
            num_decoder_layers: keys.count(&["num_decoder_layers"], num_layers, MAX_LAYERS)?,
            num_heads: keys.count(&["num_heads", "num_attention_heads"], 8, MAX_WIDTH)?,
            relative_attention_num_buckets: buckets,
            relative_attention_max_distance: distance,
            activation,
            is_gated_act,
            layer_norm_epsilon: keys.epsilon("layer_norm_epsilon", 1e-6)?,
            tie_word_embeddings,
            scale_decoder_outputs,
        })
    }
}

impl RandomRules for T5Config {
    /// A tied head's input is scaled by d_model^-0.5. Scores are not scaled: queries are small instead, as in Hugging Face's `_init_weights`.
    fn deviation(&self, name: &str, shape: &[usize]) -> Option<f64> {
        if ["shared.weight", "embed_tokens.weight"].iter().any(|table| name.ends_with(table)) {
            return Some(1.0);
        }
        let inputs = shape.last().copied().unwrap_or(1).max(1) as f64;
        name.ends_with("Attention.q.weight").then(|| (self.d_kv as f64).powf(-0.5) / inputs.sqrt())
    }

    /// transformers 5 calls every model tied; one whose head is its own it tells by `scale_decoder_outputs`.
    fn own_head(&self) -> bool {
        !self.scale_decoder_outputs
    }
}

/// `feed_forward_proj`: `ACTIVATION` or `gated-ACTIVATION`, where `gated-gelu` has always meant the tanh form. What it stands for is
/// also written as `dense_act_fn` and `is_gated_act`, which then count.
fn feed_forward(keys: &ConfigKeys<'_>) -> Result<(Activation, bool), ModelError> {
    const KEY: &str = "feed_forward_proj";
    let name = keys.text(KEY)?.unwrap_or("relu");
    let bare = name.strip_prefix("gated-");
    if bare.unwrap_or(name).contains('-') {
        return Err(keys.error(KEY, "must be an activation, or gated- and an activation"));
    }
    let gated = if keys.map.contains_key("is_gated_act") { keys.truthy("is_gated_act") } else { bare.is_some() };
    if keys.get("dense_act_fn").is_some() {
        return Ok((keys.activation("dense_act_fn", Activation::Relu)?, gated));
    }
    let found = if name == "gated-gelu" { Some(Activation::GeluTanh) } else { activation(bare.unwrap_or(name)) };
    let found = found.ok_or_else(|| {
        keys.error(KEY, format!("is not implemented (implemented, each with gated- too: {})", activation_names()))
    })?;
    Ok((found, gated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: &Value) -> T5Config {
        let file = std::path::Path::new("config.json");
        T5Config::from_keys(&ConfigKeys { file, map: value.as_object().unwrap() }).unwrap()
    }

    #[test]
    fn buckets_of_the_published_models() {
        let c = config(&json!({}));
        // An encoder: 8 exact distances, then one more bucket from each of these on; a key behind the query has 16 more.
        for (i, from) in [8i64, 12, 16, 23, 32, 46, 64, 91].into_iter().enumerate() {
            assert_eq!([c.bucket(-from, true), c.bucket(from, true)], [8 + i, 24 + i], "{from}");
            assert_eq!(c.bucket(1 - from, true), 7 + i, "{}", from - 1);
        }
        assert_eq!([0, -7, 7, -128, 128, -5000, 5000].map(|r| c.bucket(r, true)), [0, 7, 23, 15, 31, 15, 31]);
        // A decoder: 16 exact distances, and nothing behind the query.
        assert_eq!(
            [5, 0, -15, -16, -18, -19, -127, -128, -9999].map(|r| c.bucket(r, false)),
            [0, 0, 15, 16, 16, 17, 31, 31, 31]
        );
    }

    /// Whole tables of `T5Attention._relative_position_bucket` (transformers 5.23, PyTorch 2.15), as runs: (buckets, distance, both ways, first
    /// distance, [(bucket, number of distances)]).
    #[test]
    fn buckets_are_those_of_transformers() {
        for line in include_str!("buckets.txt").lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<i64> = line.split_whitespace().map(|w| w.parse().unwrap()).collect();
            let [buckets, max_distance, both, first, ref runs @ ..] = words[..] else { panic!("{line}") };
            let c = config(&json!({
                "relative_attention_num_buckets": buckets, "relative_attention_max_distance": max_distance,
            }));
            let mut distance = first;
            for run in runs.chunks(2) {
                for _ in 0..run[1] {
                    assert_eq!(
                        c.bucket(distance, both == 1) as i64,
                        run[0],
                        "{buckets} {max_distance} {both}: {distance}"
                    );
                    distance += 1;
                }
            }
            assert!(distance > 300 && first < -300, "{line}");
        }
    }
}
