//! GPT-2 in f64 on the CPU, read straight from the files: the judge of whether two tokens that compete are a near tie.

use std::collections::HashMap;
use std::path::Path;

use half::f16;
use safetensors::{Dtype, SafeTensors};

/// A GPT-2 checkpoint in f16 or f32, widened to f64. Slow and plain.
#[derive(Debug)]
pub struct Gpt2 {
    tensors: HashMap<String, Vec<f64>>,
    width: usize,
    layers: usize,
    heads: usize,
}

impl Gpt2 {
    /// Reads `config.json` and `model.safetensors`.
    ///
    /// # Panics
    /// A file is missing or of another kind.
    pub fn load(model: &Path) -> Self {
        let config = std::fs::read_to_string(model.join("config.json")).expect("config.json");
        let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
        let number = |key: &str| config[key].as_u64().expect("a number") as usize;
        let bytes = std::fs::read(model.join("model.safetensors")).expect("model.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let widen = |view: &safetensors::tensor::TensorView<'_>| -> Vec<f64> {
            match view.dtype() {
                Dtype::F16 => view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
                Dtype::F32 => {
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect()
                }
                other => panic!("{other:?} weights"),
            }
        };
        let tensors = file
            .iter()
            .map(|(name, view)| (name.trim_start_matches("transformer.").to_owned(), widen(&view)))
            .collect();
        Self { tensors, width: number("n_embd"), layers: number("n_layer"), heads: number("n_head") }
    }

    /// Log-probabilities of the id that follows `ids`.
    ///
    /// # Panics
    /// An id or a position is outside its table.
    pub fn next(&self, ids: &[u32]) -> Vec<f64> {
        let width = self.width;
        let embedding = &self.tensors["wte.weight"];
        let mut rows: Vec<Vec<f64>> = ids
            .iter()
            .enumerate()
            .map(|(position, id)| {
                let token = &embedding[*id as usize * width..][..width];
                token.iter().zip(&self.tensors["wpe.weight"][position * width..]).map(|(t, p)| t + p).collect()
            })
            .collect();
        for layer in 0..self.layers {
            self.attend(layer, &mut rows);
            for row in &mut rows {
                let inner = self.linear(&format!("h.{layer}.mlp.c_fc"), &self.norm(&format!("h.{layer}.ln_2"), row));
                let out =
                    self.linear(&format!("h.{layer}.mlp.c_proj"), &inner.into_iter().map(gelu).collect::<Vec<_>>());
                add(row, &out);
            }
        }
        let last = self.norm("ln_f", rows.last().expect("a prompt"));
        let logits: Vec<f64> = embedding.chunks_exact(width).map(|token| dot(token, &last)).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - most).exp()).sum();
        logits.into_iter().map(|x| x - most - sum.ln()).collect()
    }

    fn attend(&self, layer: usize, rows: &mut [Vec<f64>]) {
        let (width, head) = (self.width, self.width / self.heads);
        let name = |part: &str| format!("h.{layer}.{part}");
        let qkv: Vec<Vec<f64>> =
            rows.iter().map(|row| self.linear(&name("attn.c_attn"), &self.norm(&name("ln_1"), row))).collect();
        for (t, row) in rows.iter_mut().enumerate() {
            let mut context = vec![0.0; width];
            for h in 0..self.heads {
                let part = |row: &[f64], third: usize| row[third * width + h * head..][..head].to_vec();
                let query = part(&qkv[t], 0);
                let weights: Vec<f64> =
                    qkv[..=t].iter().map(|r| (dot(&query, &part(r, 1)) / (head as f64).sqrt()).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (weight, r) in weights.iter().zip(&qkv) {
                    for (c, v) in context[h * head..].iter_mut().zip(part(r, 2)) {
                        *c += weight / sum * v;
                    }
                }
            }
            add(row, &self.linear(&name("attn.c_proj"), &context));
        }
    }

    fn norm(&self, name: &str, row: &[f64]) -> Vec<f64> {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let (gain, bias) = (&self.tensors[&format!("{name}.weight")], &self.tensors[&format!("{name}.bias")]);
        row.iter().zip(gain.iter().zip(bias)).map(|(x, (g, b))| (x - mean) / (variance + 1e-5).sqrt() * g + b).collect()
    }

    /// `Conv1D`: weights are `[in, out]`.
    fn linear(&self, name: &str, row: &[f64]) -> Vec<f64> {
        let mut out = self.tensors[&format!("{name}.bias")].clone();
        for (x, weights) in row.iter().zip(self.tensors[&format!("{name}.weight")].chunks_exact(out.len())) {
            for (o, w) in out.iter_mut().zip(weights) {
                *o += x * w;
            }
        }
        out
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], other: &[f64]) {
    for (a, b) in to.iter_mut().zip(other) {
        *a += b;
    }
}

/// `gelu_new`, the tanh form.
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Story;

    #[test]
    fn agrees_with_pytorch_on_a_story() {
        let judge = Gpt2::load(&Story::model());
        let story = Story::load().remove(0);
        let mut ids = story.input_ids;
        let mut score = 0.0;
        for id in &story.greedy.token_ids[..10] {
            let next = judge.next(&ids);
            assert!(next.iter().all(|x| *x <= next[*id as usize]), "{id} is not the best");
            assert!((next.iter().map(|x| x.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
            score += next[*id as usize];
            ids.push(*id);
        }
        // Ten of forty tokens cannot cost more than all of them.
        assert!(score < 0.0 && score > story.greedy.score, "{score}");
    }
}
