//! Engine flags: how the model runs, whatever it generates.

use clap::{Args, ValueEnum, builder::PossibleValue};
use elgen_engine::{AttentionChoice, DtypeChoice, SessionOptions};

use super::values;

/// The engine's options as flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine options")]
pub(crate) struct EngineFlags {
    /// Attention kind; all give the same tokens and differ in memory and speed
    #[arg(long, value_name = "KIND", value_enum, default_value_t = AttentionFlag::Auto)]
    attention: AttentionFlag,

    /// Storage of weights and caches; sums are 32-bit always
    #[arg(long, value_name = "DTYPE", value_enum, default_value_t = DtypeFlag::Auto)]
    dtype: DtypeFlag,

    /// Adapter: part of its name, or its number in `elgen devices` [default: the best one]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Inputs that are decoded together at most, or auto, which is 32; results do not depend on it
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = values::batch_size, allow_negative_numbers = true)]
    batch_size: BatchSize,

    /// Source and new tokens of the inputs that are decoded together, at most
    #[arg(long, value_name = "N", value_parser = values::positive, allow_negative_numbers = true, hide = true)]
    max_batch_tokens: Option<usize>,

    /// Memory that weights, caches and activations may take together, e.g. 16GiB [default: 90 % of what is free]
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, allow_negative_numbers = true)]
    memory_limit: Option<u64>,
}

/// `--batch-size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchSize {
    /// The engine chooses.
    Auto,
    /// This many at most.
    Sentences(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AttentionFlag {
    /// Same as mha
    Auto,
    /// Multi-head attention; the beams of an input share the cross-attention cache
    Mha,
    /// Multi-head attention; everything is cached once per beam
    MhaReplicated,
    /// Multi-head attention; cross keys and values are computed anew at each step (encoder-decoder models only)
    MhaNocache,
    /// EL-attention: caches one hidden state instead of a key and a value per head and layer
    El,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DtypeFlag {
    /// f32 on software adapters; elsewhere f16 where the checkpoint is f16
    Auto,
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
}

impl EngineFlags {
    /// How to load the model.
    pub(crate) fn session_options(&self) -> SessionOptions {
        SessionOptions {
            attention: match self.attention {
                AttentionFlag::Auto => AttentionChoice::Auto,
                AttentionFlag::Mha => AttentionChoice::Mha,
                AttentionFlag::MhaReplicated => AttentionChoice::MhaReplicated,
                AttentionFlag::MhaNocache => AttentionChoice::MhaNocache,
                AttentionFlag::El => AttentionChoice::El,
            },
            dtype: match self.dtype {
                DtypeFlag::Auto => DtypeChoice::Auto,
                DtypeFlag::F32 => DtypeChoice::F32,
                DtypeFlag::F16 => DtypeChoice::F16,
            },
            device: self.device.clone(),
            batch_size: self.batch_size(),
            memory_limit: self.memory_limit,
            checked_shaders: cfg!(debug_assertions),
        }
    }

    /// Inputs that are decoded together at most.
    pub(crate) fn batch_size(&self) -> usize {
        match self.batch_size {
            BatchSize::Auto => SessionOptions::default().batch_size,
            BatchSize::Sentences(sentences) => sentences,
        }
    }

    /// `--attention` and `--dtype` as they were typed or defaulted.
    pub(crate) fn kind_and_dtype(&self) -> (String, String) {
        let name = |value: Option<PossibleValue>| value.map_or_else(String::new, |value| value.get_name().to_owned());
        (name(self.attention.to_possible_value()), name(self.dtype.to_possible_value()))
    }

    /// Whether the user chose a number of inputs.
    pub(crate) fn names_batch_size(&self) -> bool {
        self.batch_size != BatchSize::Auto
    }

    /// Source and new tokens of a batch, at most.
    pub(crate) fn max_batch_tokens(&self) -> Option<usize> {
        self.max_batch_tokens
    }

    /// Whether the user chose an adapter.
    pub(crate) fn names_device(&self) -> bool {
        self.device.is_some()
    }
}
