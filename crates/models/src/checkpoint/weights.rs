//! Looking up a model's tensors under the names that its family uses, with the prefixes and aliases met in the wild.

use super::random::RandomWeights;
use super::{Checkpoint, TensorView};
use crate::error::{CheckpointError, ModelError};

/// A checkpoint seen by a model family. A tensor is looked up as `prefix + name`, then as `name`: files saved from a base class
/// lack the prefix of the wrapping class.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    prefix: &'a str,
}

/// The three uses of an embedding table in BART and its kin, `[vocab_size, d_model]` each; normally one tensor.
#[derive(Debug, Clone)]
pub struct Seq2SeqEmbeddings<'a> {
    /// Input embedding of the encoder.
    pub encoder: TensorView<'a>,
    /// Input embedding of the decoder.
    pub decoder: TensorView<'a>,
    /// Output head.
    pub head: TensorView<'a>,
}

/// The two uses of an embedding table in a decoder-only model, `[vocab_size, width]` each; normally one tensor.
#[derive(Debug, Clone)]
pub struct DecoderEmbeddings<'a> {
    /// Input embedding.
    pub input: TensorView<'a>,
    /// Output head.
    pub head: TensorView<'a>,
}

impl Seq2SeqEmbeddings<'_> {
    /// Whether one tensor serves all three.
    pub fn all_shared(&self) -> bool {
        self.encoder.name() == self.decoder.name() && self.decoder.name() == self.head.name()
    }
}

impl DecoderEmbeddings<'_> {
    /// Whether one tensor serves both.
    pub fn all_shared(&self) -> bool {
        self.input.name() == self.head.name()
    }
}

const SHARED: &str = "shared.weight";
const ENCODER_EMBEDDING: &str = "encoder.embed_tokens.weight";
const DECODER_EMBEDDING: &str = "decoder.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

impl<'a> Weights<'a> {
    /// `prefix` with its dot, for example `model.` (BART) or `transformer.` (GPT-2).
    pub fn new(checkpoint: &'a Checkpoint, prefix: &'a str) -> Self {
        Self { checkpoint, prefix }
    }

    /// The checkpoint behind this view.
    pub fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// Whether the tensor exists, with or without the prefix.
    pub fn contains(&self, name: &str) -> bool {
        self.lookup(name).is_some()
    }

    /// The tensor `name`, which must have the shape `expected`.
    pub fn tensor(&self, name: &str, expected: &[usize]) -> Result<TensorView<'a>, ModelError> {
        match &self.checkpoint.random {
            Some(random) => Ok(random.view(self.checkpoint.place(), self.prefixed(name), expected)),
            None => self.optional(name, expected)?.ok_or_else(|| self.missing(&[name])),
        }
    }

    /// The tensor `name` if it exists; then it must have the shape `expected`.
    pub fn optional(&self, name: &str, expected: &[usize]) -> Result<Option<TensorView<'a>>, ModelError> {
        match self.lookup(name) {
            Some(view) if view.shape() != expected => Err(ModelError::from(CheckpointError::WrongShape {
                file: view.file().into(),
                tensor: view.name().to_owned(),
                expected: expected.into(),
                actual: view.shape().into(),
            })),
            found => Ok(found),
        }
    }

    /// The embedding tables of an encoder-decoder model with one vocabulary. `tied` is the config's `tie_word_embeddings`. Tied tables are the one of
    /// `shared.weight` and `substitutes`, in this order, that exists; one of the two `embed_tokens.weight` and `lm_head.weight` that is in the
    /// file beside it with other values stays its own, as in transformers 5. Untied, the head must be in the file.
    ///
    /// # Errors
    /// Tensors that are missing or misshapen.
    pub fn shared_embeddings(
        &self,
        substitutes: [&str; 3],
        vocab_size: usize,
        d_model: usize,
        tied: bool,
    ) -> Result<Seq2SeqEmbeddings<'a>, ModelError> {
        let shape = [vocab_size, d_model];
        let order: Vec<&str> = [SHARED].into_iter().chain(substitutes).filter(|name| tied || *name != HEAD).collect();
        let shared = self.first_of(&order, &shape)?;
        Ok(Seq2SeqEmbeddings {
            encoder: self.own_or(ENCODER_EMBEDDING, &shared, &shape)?,
            decoder: self.own_or(DECODER_EMBEDDING, &shared, &shape)?,
            head: if tied { self.own_or(HEAD, &shared, &shape)? } else { self.tensor(HEAD, &shape)? },
        })
    }

    /// The embedding tables of an encoder-decoder model with two vocabularies: an encoder's `[vocab_size, d_model]` and a decoder's
    /// `[decoder_vocab_size, d_model]`; `tied` binds the head to the decoder's.
    ///
    /// # Errors
    /// Tensors that are missing or misshapen.
    pub fn separate_embeddings(
        &self,
        vocab_size: usize,
        decoder_vocab_size: usize,
        d_model: usize,
        tied: bool,
    ) -> Result<Seq2SeqEmbeddings<'a>, ModelError> {
        let encoder = self.tensor(ENCODER_EMBEDDING, &[vocab_size, d_model])?;
        let target = self.decoder_embeddings(DECODER_EMBEDDING, decoder_vocab_size, d_model, tied)?;
        Ok(Seq2SeqEmbeddings { encoder, decoder: target.input, head: target.head })
    }

    /// The embedding tables of a decoder, `[vocab_size, width]` each: that of its input, called `input`, and the head's, by the same rules.
    ///
    /// # Errors
    /// Tensors that are missing or misshapen.
    pub fn decoder_embeddings(
        &self,
        input: &str,
        vocab_size: usize,
        width: usize,
        tied: bool,
    ) -> Result<DecoderEmbeddings<'a>, ModelError> {
        let shape = &[vocab_size, width];
        if !tied {
            return Ok(DecoderEmbeddings { input: self.tensor(input, shape)?, head: self.tensor(HEAD, shape)? });
        }
        let input = self.first_of(&[input, HEAD], shape)?;
        let head = self.own_or(HEAD, &input, shape)?;
        Ok(DecoderEmbeddings { input, head })
    }

    fn lookup(&self, name: &str) -> Option<TensorView<'a>> {
        self.checkpoint.view(&self.prefixed(name)).or_else(|| self.checkpoint.view(name))
    }

    fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn first_of(&self, names: &[&str], shape: &[usize]) -> Result<TensorView<'a>, ModelError> {
        if let (Some(_), Some(name)) = (&self.checkpoint.random, names.first()) {
            return self.tensor(name, shape);
        }
        for name in names {
            if let Some(view) = self.optional(name, shape)? {
                return Ok(view);
            }
        }
        Err(self.missing(names))
    }

    /// The tensor `name` if it is in the file with values of its own, else `shared`.
    fn own_or(&self, name: &str, shared: &TensorView<'a>, shape: &[usize]) -> Result<TensorView<'a>, ModelError> {
        let own_head = self.checkpoint.random.as_ref().is_some_and(RandomWeights::own_head);
        if own_head && name == HEAD {
            return self.tensor(name, shape);
        }
        match self.optional(name, shape)? {
            Some(own) if own.name() != shared.name() && !own.same_values(shared)? => Ok(own),
            _ => Ok(shared.clone()),
        }
    }

    fn missing(&self, names: &[&str]) -> ModelError {
        let mut tried: Vec<String> = Vec::new();
        for name in names {
            tried.push(self.prefixed(name));
            if !self.prefix.is_empty() {
                tried.push((*name).to_owned());
            }
        }
        let tensor = if tried.is_empty() { String::new() } else { tried.remove(0) };
        ModelError::from(CheckpointError::MissingTensor { place: self.checkpoint.place().into(), tensor, tried })
    }
}
