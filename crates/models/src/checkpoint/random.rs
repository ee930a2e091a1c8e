//! A checkpoint without files: every weight that a model asks for is a random number, so that a config alone gives a model of its full size.

use std::borrow::Cow;
use std::path::Path;

use elgen_tensor::ops::RandomMatrix;

use super::StoredDtype;
use super::view::{Data, TensorView};
use crate::config::{ModelConfig, ModelFamily};

/// Standard deviation of biases: small beside the unit variance that the projections keep, but not without effect.
const BIAS_DEVIATION: f64 = 0.01;

/// Which numbers: weights depend on the seed and on the tensor's name, so they are the same whatever kind of attention reads them.
#[derive(Debug)]
pub(super) struct RandomWeights {
    seed: u64,
    /// GPT-2 stores its layers' weights `[in, out]`.
    inputs_first: bool,
    /// Deviation of the embedding tables; `None`: as of any matrix.
    table_deviation: Option<f64>,
    /// T5 does not scale its scores: its queries are small instead, as in Hugging Face's `_init_weights`.
    query_factor: f64,
    /// The head has weights of its own, whatever its loader asks for.
    pub(super) own_head: bool,
}

impl RandomWeights {
    pub(super) fn new(config: &ModelConfig, seed: u64) -> Self {
        let (table_deviation, query_factor, own_head) = match config {
            // A tied head's input is scaled by d_model^-0.5.
            ModelConfig::T5(c) => (Some(1.0), (c.d_kv as f64).powf(-0.5), !c.tie_word_embeddings),
            _ => (None, 1.0, false),
        };
        Self { seed, inputs_first: config.family() == ModelFamily::Gpt2, table_deviation, query_factor, own_head }
    }

    /// The tensor of this name and shape.
    pub(super) fn view<'a>(&self, place: &'a Path, name: String, shape: &[usize]) -> TensorView<'a> {
        let random = match shape {
            [_] if name.ends_with(".bias") => Some(RandomMatrix::new(self.key(&name), BIAS_DEVIATION)),
            [_] => None,
            _ => Some(RandomMatrix::new(self.key(&name), self.deviation(&name, shape))),
        };
        TensorView {
            name: Cow::Owned(name),
            file: place,
            dtype: &StoredDtype::F32,
            shape: Cow::Owned(shape.to_vec()),
            data: random.map_or(Data::Ones, Data::Random),
        }
    }

    /// Deviation of a matrix: 1 / sqrt(inputs) keeps the variance of what it multiplies.
    fn deviation(&self, name: &str, shape: &[usize]) -> f64 {
        let table = ["shared.weight", "embed_tokens.weight"].iter().any(|table| name.ends_with(table));
        if let (true, Some(deviation)) = (table, self.table_deviation) {
            return deviation;
        }
        let layer = name.split('.').any(|part| part == "h");
        let inputs = if self.inputs_first && layer { shape.first() } else { shape.last() };
        let factor = if name.ends_with("Attention.q.weight") { self.query_factor } else { 1.0 };
        factor / (inputs.copied().unwrap_or(1).max(1) as f64).sqrt()
    }

    /// FNV-1a of the name, and the seed, through the finaliser of splitmix64.
    fn key(&self, name: &str) -> u64 {
        let named = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        finish(named ^ finish(self.seed))
    }
}

/// The finaliser of splitmix64.
fn finish(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(text: &str, seed: u64) -> RandomWeights {
        let map = serde_json::from_str(text).unwrap();
        RandomWeights::new(&ModelConfig::from_map(&map, Path::new("config.json")).unwrap(), seed)
    }

    fn read(weights: &RandomWeights, name: &str, shape: &[usize]) -> Vec<f32> {
        weights.view(Path::new("here"), name.into(), shape).to_f32().unwrap()
    }

    fn deviation(values: &[f32]) -> f64 {
        (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn values_depend_on_seed_and_name() {
        let bart = weights(r#"{"model_type": "bart"}"#, 1);
        let (a, shape) = ("model.encoder.layers.0.fc1.weight", [8, 64]);
        assert_eq!(read(&bart, a, &shape), read(&weights(r#"{"model_type": "bart"}"#, 1), a, &shape));
        assert_ne!(read(&bart, a, &shape), read(&weights(r#"{"model_type": "bart"}"#, 2), a, &shape));
        assert_ne!(read(&bart, a, &shape), read(&bart, "model.encoder.layers.1.fc1.weight", &shape));
    }

    #[test]
    fn norms_are_one_and_biases_small() {
        let bart = weights(r#"{"model_type": "bart"}"#, 1);
        assert_eq!(read(&bart, "model.encoder.layernorm_embedding.weight", &[8]), [1.0; 8]);
        let bias = read(&bart, "model.encoder.layernorm_embedding.bias", &[256]);
        assert!(bias.iter().all(|x| x.abs() < 0.03) && deviation(&bias) > 0.003, "{}", deviation(&bias));
    }

    #[test]
    fn matrices_keep_the_variance_of_their_inputs() {
        let near = |values: Vec<f32>, wanted: f64| {
            let ratio = deviation(&values) / wanted;
            assert!((0.65..1.5).contains(&ratio), "{ratio} of {wanted}");
        };
        let gpt2 = weights(r#"{"model_type": "gpt2"}"#, 3);
        near(read(&gpt2, "transformer.h.0.mlp.c_fc.weight", &[64, 256]), 1.0 / 8.0);
        near(read(&gpt2, "transformer.wte.weight", &[64, 256]), 1.0 / 16.0);
        let t5 = weights(r#"{"model_type": "t5", "d_kv": 16}"#, 3);
        near(read(&t5, "decoder.block.0.layer.0.SelfAttention.q.weight", &[64, 256]), 1.0 / 64.0);
        near(read(&t5, "decoder.block.0.layer.0.SelfAttention.k.weight", &[64, 256]), 1.0 / 16.0);
        near(read(&t5, "shared.weight", &[64, 256]), 1.0);
    }
}
