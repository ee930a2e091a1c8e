//! GPT-2 in f64 over whole sequences, with a window on its self-attention: what the kind is compared with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A small GPT-2 of the repository.
pub fn model_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/gpt2-base-like")
}

pub const HEADS: usize = 3;
pub const LAYERS: usize = 2;
const EPSILON: f64 = 1e-5;

/// The weights of a model directory, widened.
pub struct Gpt2 {
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
    /// Positions before this one are always seen.
    pub keep_first: usize,
    /// Last positions that a query sees, its own counted.
    pub window: usize,
}

impl Gpt2 {
    pub fn load(dir: &Path, keep_first: usize, window: usize) -> Self {
        let bytes = std::fs::read(dir.join("model.safetensors")).expect("weights");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let widen = |bytes: &[u8]| -> Vec<f64> {
            bytes.chunks(4).map(|x| f64::from(f32::from_le_bytes([x[0], x[1], x[2], x[3]]))).collect()
        };
        let tensors = file
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, (view.shape().to_vec(), widen(view.data()))))
            .collect();
        Self { tensors, keep_first, window }
    }

    fn tensor(&self, name: &str) -> &[f64] {
        &self.tensors.get(&format!("transformer.{name}")).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (gain, shift) = (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")));
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (variance + EPSILON).sqrt();
        x.iter().zip(gain.iter().zip(shift)).map(|(v, (g, s))| (v - mean) * scale * g + s).collect()
    }

    /// `x W + b` with `W` stored `[in, out]`.
    fn conv1d(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")));
        let mut out = bias.to_vec();
        for (value, row) in x.iter().zip(weight.chunks(bias.len())) {
            out.iter_mut().zip(row).for_each(|(o, w)| *o += value * w);
        }
        out
    }

    /// Whether the query at `i` sees the key at `j`.
    fn sees(&self, i: usize, j: usize) -> bool {
        j <= i && (j < self.keep_first || j + self.window > i)
    }

    fn attention(&self, layer: usize, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let d = x[0].len();
        let width = d / HEADS;
        let qkv: Vec<Vec<f64>> = x.iter().map(|x| self.conv1d(&format!("h.{layer}.attn.c_attn"), x)).collect();
        let contexts = (0..x.len()).map(|i| {
            let mut context = vec![0.0; d];
            for h in 0..HEADS {
                let part = |row: usize, which: usize| &qkv[row][which * d + h * width..][..width];
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let keys: Vec<usize> = (0..=i).filter(|j| self.sees(i, *j)).collect();
                let scores: Vec<f64> =
                    keys.iter().map(|j| dot(part(i, 0), part(*j, 1)) / (width as f64).sqrt()).collect();
                let peak = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in keys.iter().zip(&weights) {
                    let to = &mut context[h * width..][..width];
                    to.iter_mut().zip(part(*j, 2)).for_each(|(c, v)| *c += weight / total * v);
                }
            }
            context
        });
        contexts.map(|c| self.conv1d(&format!("h.{layer}.attn.c_proj"), &c)).collect()
    }

    /// The hidden states of all positions behind the last layer, before the last norm.
    pub fn states(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let (wte, wpe) = (self.tensor("wte.weight"), self.tensor("wpe.weight"));
        let d = self.tensor("ln_f.weight").len();
        let row = |table: &[f64], at: usize| table[at * d..][..d].to_vec();
        let add = |a: &mut [f64], b: &[f64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        let mut x: Vec<Vec<f64>> = tokens
            .iter()
            .enumerate()
            .map(|(position, id)| {
                let mut x = row(wte, *id as usize);
                add(&mut x, &row(wpe, position));
                x
            })
            .collect();
        for layer in 0..LAYERS {
            let normed: Vec<Vec<f64>> = x.iter().map(|x| self.norm(&format!("h.{layer}.ln_1"), x)).collect();
            for (x, out) in x.iter_mut().zip(self.attention(layer, &normed)) {
                add(x, &out);
            }
            for x in &mut x {
                let normed = self.norm(&format!("h.{layer}.ln_2"), x);
                let mut inner = self.conv1d(&format!("h.{layer}.mlp.c_fc"), &normed);
                for v in &mut inner {
                    let tanh = ((2.0 / std::f64::consts::PI).sqrt() * (*v + 0.044715 * v.powi(3))).tanh();
                    *v = 0.5 * *v * (1.0 + tanh);
                }
                add(x, &self.conv1d(&format!("h.{layer}.mlp.c_proj"), &inner));
            }
        }
        x
    }

    /// The logits behind the last position.
    pub fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        let states = self.states(tokens);
        let last = self.norm("ln_f", states.last().expect("a position"));
        let table = self.tensor("wte.weight");
        table.chunks(last.len()).map(|row| row.iter().zip(&last).map(|(w, x)| w * x).sum::<f64>() as f32).collect()
    }
}
