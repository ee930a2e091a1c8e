//! A checkpoint without files: every weight that a model asks for is a random number, so that a config alone gives a model of its full size.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use elgen_tensor::ops::RandomMatrix;

use super::StoredDtype;
use super::view::{Data, TensorView};

/// Standard deviation of biases: small beside the unit variance that the projections keep, but not without effect.
const BIAS_DEVIATION: f64 = 0.01;

/// What sets the random weights of a family apart.
pub trait RandomRules: fmt::Debug + Send + Sync {
    /// Deviation of the matrix `name` as it lies in a file; `None` for that which keeps the variance of what it multiplies, where it is stored
    /// `[out, in]`: 1 / sqrt(in).
    fn deviation(&self, name: &str, shape: &[usize]) -> Option<f64> {
        let _ = (name, shape);
        None
    }

    /// Whether the head has weights of its own, whatever its loader asks for.
    fn own_head(&self) -> bool {
        false
    }
}

/// Which numbers: weights depend on the seed and on the tensor's name, so they are the same whatever kind of attention reads them.
#[derive(Debug)]
pub(super) struct RandomWeights {
    seed: u64,
    rules: Arc<dyn RandomRules>,
}

impl RandomWeights {
    pub(super) fn new(rules: Arc<dyn RandomRules>, seed: u64) -> Self {
        Self { seed, rules }
    }

    /// Whether the head has weights of its own, whatever its loader asks for.
    pub(super) fn own_head(&self) -> bool {
        self.rules.own_head()
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

    /// Deviation of a matrix.
    fn deviation(&self, name: &str, shape: &[usize]) -> f64 {
        let inputs = shape.last().copied().unwrap_or(1).max(1) as f64;
        self.rules.deviation(name, shape).unwrap_or_else(|| 1.0 / inputs.sqrt())
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
        let config = crate::ModelConfig::from_map(&map, Path::new("config.json")).unwrap();
        config.random_checkpoint(seed).random.unwrap()
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
