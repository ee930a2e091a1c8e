//! GPT-2 (Radford et al. 2019) as in Hugging Face `GPT2LMHeadModel`: a pre-norm decoder with learned positions, fused QKV weights stored
//! `[in, out]`, and a head tied to the embeddings.

use elgen_attention::{
    AttentionWeights, CacheLayout, Caches, Epilogue, Packed, SelfAttention, Shape, Step, self_attention,
};
use elgen_search::ModelLimits;
use elgen_tensor::ops::{self, LayerNorm, Linear, embed_packed, embed_step, layer_norm, linear};
use elgen_tensor::{Buffer, DType, Device, Recorder, Tensor};

use crate::architecture::{Architecture, Kinds, Probe};
use crate::checkpoint::{Checkpoint, Weights};
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::layers::{Columns, FeedForward, Loader, Space, StackShape, projection};

#[derive(Debug)]
struct Layer {
    attention_norm: LayerNorm,
    attention: Box<dyn SelfAttention>,
    ffn_norm: LayerNorm,
    ffn: FeedForward,
}

/// A loaded GPT-2 model.
#[derive(Debug)]
pub struct Gpt2 {
    config: Gpt2Config,
    kinds: Kinds,
    dtype: DType,
    embedding: Linear,
    positions: Linear,
    head: Linear,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
}

fn shape(config: &Gpt2Config, layer: usize) -> Shape {
    Shape {
        d_model: config.n_embd,
        num_heads: config.n_head,
        head_dim: config.head_dim(),
        scale: config.attention_scale(layer),
    }
}

/// The four projections of layer `l`: three column blocks of `c_attn`, and `c_proj`.
fn attention(
    loader: &Loader<'_>,
    config: &Gpt2Config,
    l: usize,
    kinds: Kinds,
) -> Result<Box<dyn SelfAttention>, ModelError> {
    let d = config.n_embd;
    let name = format!("h.{l}.attn");
    let qkv = loader.weights.tensor(&format!("{name}.c_attn.weight"), &[d, 3 * d])?;
    let qkv_bias = loader.vector(&format!("{name}.c_attn.bias"), 3 * d)?;
    let out = loader.weights.tensor(&format!("{name}.c_proj.weight"), &[d, d])?;
    let out_bias = loader.vector(&format!("{name}.c_proj.bias"), d)?;
    let part = |i: usize| Columns { view: qkv, first: i * d, count: d };
    let (q, k, v) = (part(0), part(1), part(2));
    let o = Columns { view: out, first: 0, count: d };
    let weights = AttentionWeights {
        q: projection(&q, &qkv_bias[..d]),
        k: projection(&k, &qkv_bias[d..2 * d]),
        v: projection(&v, &qkv_bias[2 * d..]),
        o: projection(&o, &out_bias),
    };
    Ok(self_attention(loader.device, &name, l, kinds.self_, shape(config, l), loader.dtype, weights)?)
}

impl Gpt2 {
    /// Loads the weights.
    ///
    /// # Errors
    /// Tensors that are missing, misshapen or not finite; out of memory.
    pub fn load(
        device: &Device,
        config: &Gpt2Config,
        checkpoint: &Checkpoint,
        kinds: Kinds,
        dtype: DType,
    ) -> Result<Self, ModelError> {
        let loader = Loader { device, weights: Weights::new(checkpoint, "transformer."), dtype };
        let (d, f) = (config.n_embd, config.n_inner);
        let tables = loader.weights.gpt2_embeddings(config.vocab_size, d, config.tie_word_embeddings)?;
        let embedding = loader.table("embedding", tables.input, None)?;
        let head = if tables.all_shared() { embedding.clone() } else { loader.table("head", tables.head, None)? };
        let positions = loader.weights.tensor("wpe.weight", &[config.n_positions, d])?;
        let norm = |name: &str| loader.norm(name, d, config.layer_norm_epsilon);
        let layers = (0..config.n_layer)
            .map(|l| {
                Ok(Layer {
                    attention_norm: norm(&format!("h.{l}.ln_1"))?,
                    attention: attention(&loader, config, l, kinds)?,
                    ffn_norm: norm(&format!("h.{l}.ln_2"))?,
                    ffn: FeedForward {
                        up: loader.conv1d(&format!("h.{l}.mlp.c_fc"), f, d)?,
                        down: loader.conv1d(&format!("h.{l}.mlp.c_proj"), d, f)?,
                        activation: config.activation,
                    },
                })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            config: config.clone(),
            kinds,
            dtype,
            embedding,
            positions: loader.table("positions", positions, None)?,
            head,
            layers,
            final_norm: norm("ln_f")?,
        })
    }

    /// All layers over `rows` rows whose embeddings are in `space.x`; the result, after the final norm, is in `space.h`.
    fn decode(
        &self,
        rec: &mut Recorder,
        space: &Space,
        rows: usize,
        mut attention: impl FnMut(&mut Recorder, &dyn SelfAttention, &Tensor, &Epilogue<'_>) -> elgen_attention::Result<()>,
        probe: &mut Probe<'_>,
    ) -> Result<(), ModelError> {
        let (x, y, h) = (&space.x, &space.y, &space.h);
        probe.see(rec, "decoder", 0, x, rows)?;
        let first = self.layers.first().map_or(&self.final_norm, |layer| &layer.attention_norm);
        layer_norm(rec, x, first, h, rows)?;
        for (l, layer) in self.layers.iter().enumerate() {
            let epilogue = Epilogue { residual: Some(x), out: y, norm: Some((&layer.ffn_norm, h)) };
            attention(rec, &*layer.attention, h, &epilogue)?;
            // Each block ends in the norm that the next one begins with.
            let next = self.layers.get(l + 1).map_or(&self.final_norm, |layer| &layer.attention_norm);
            layer.ffn.forward(rec, h, y, &space.inner, x, (next, h), rows)?;
            probe.see(rec, "decoder", l + 1, x, rows)?;
        }
        Ok(())
    }
}

impl Architecture for Gpt2 {
    fn limits(&self) -> ModelLimits {
        ModelLimits {
            vocab_size: self.config.vocab_size,
            max_position_embeddings: Some(self.config.n_positions),
            is_encoder_decoder: false,
        }
    }

    fn cache_layout(&self) -> CacheLayout {
        CacheLayout {
            layers: self.config.n_layer,
            self_shape: shape(&self.config, 0),
            self_kind: self.kinds.self_,
            cross: None,
            dtype: self.dtype,
        }
    }

    fn encoder_shape(&self) -> Option<StackShape> {
        None
    }

    fn decoder_shape(&self) -> StackShape {
        StackShape { attention: shape(&self.config, 0), ffn: self.config.n_inner }
    }

    fn encode(
        &self,
        _: &mut Recorder,
        _: &Buffer,
        _: &Packed,
        _: &Caches,
        _: &Space,
        _: Probe<'_>,
    ) -> Result<(), ModelError> {
        Err(elgen_attention::AttentionError::Shape("gpt2 has no encoder".into()).into())
    }

    fn prefill(
        &self,
        rec: &mut Recorder,
        ids: &Buffer,
        batch: &Packed,
        caches: &Caches,
        space: &Space,
        mut probe: Probe<'_>,
    ) -> Result<(), ModelError> {
        embed_packed(
            rec,
            ids,
            batch.tokens,
            &self.embedding,
            1.0,
            Some((self.positions.window_tensor()?, 0)),
            &space.x,
        )?;
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, h: &Tensor, epilogue: &Epilogue<'_>| {
            block.prefill(rec, h, epilogue, batch, caches, &space.attention)
        };
        self.decode(rec, space, batch.tokens, own, &mut probe)
    }

    fn step(
        &self,
        rec: &mut Recorder,
        step: Step<'_>,
        caches: &Caches,
        space: &Space,
        logits: &Tensor,
        mut probe: Probe<'_>,
    ) -> Result<(), ModelError> {
        let rows = step.rows;
        embed_step(rec, rows, &self.embedding, 1.0, Some((self.positions.window_tensor()?, 0)), &space.x)?;
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, h: &Tensor, epilogue: &Epilogue<'_>| {
            block.step(rec, h, epilogue, step, caches, &space.attention)
        };
        self.decode(rec, space, rows.count(), own, &mut probe)?;
        self.head(rec, &space.h, logits, rows.count())
    }

    fn prefilled<'s>(&self, space: &'s Space) -> &'s Tensor {
        &space.h
    }

    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        Ok(linear(rec, hidden, &self.head, ops::Activation::None, None, logits, rows)?)
    }
}
