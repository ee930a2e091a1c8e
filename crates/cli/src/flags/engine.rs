//! Engine flags: how the model runs, whatever it generates.

use clap::{Args, ValueEnum, builder::PossibleValue};
use elgen_engine::{BatchSize, DtypeChoice, Expected, Formats, Registry, SessionOptions};
use elgen_models::DEFAULT_TEXT_BYTES;
use elgen_tensor::DType;

use super::{
    attention::{AttentionFlag, AttentionParser},
    formats::FormatFlags,
    values,
};

/// The engine's options as flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine options")]
pub(crate) struct EngineFlags {
    /// Attention kind; all give the same tokens and differ in memory and speed. auto predicts which is fastest on this device and in this
    /// memory, for self- and cross-attention separately; `--stats` says why. A device is measured once, which is said unless --quiet. What
    /// auto picks may differ from machine to machine and with the inputs: for scores that are equal to the last bit over runs and machines
    /// of one kind, name a kind
    #[arg(long, value_name = "KIND", value_parser = AttentionParser::default(), default_value = "auto")]
    attention: AttentionFlag,

    /// Storage of weights and caches; sums are 32-bit always
    #[arg(long, value_name = "DTYPE", value_enum, default_value_t = DtypeFlag::Auto)]
    dtype: DtypeFlag,

    #[command(flatten)]
    formats: FormatFlags,

    /// Adapter: part of its name, or its number in `elgen devices` [default: the best one]
    #[arg(long, value_name = "DEVICE", allow_negative_numbers = true)]
    device: Option<String>,

    /// Inputs that are decoded together at most; auto takes as many as the memory allows; results do not depend on it
    /// [default: 32]
    #[arg(long, value_name = "N|auto", value_parser = values::batch_size, allow_negative_numbers = true)]
    batch_size: Option<BatchSize>,

    /// Source tokens of the inputs that are decoded together, at most; an input that has more runs alone
    #[arg(long, value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    max_batch_tokens: Option<usize>,

    /// Memory that weights, caches and activations may take together, e.g. 16GiB [default: 90 % of what is free]
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, allow_negative_numbers = true)]
    memory_limit: Option<u64>,

    #[command(flatten)]
    text: TextFlags,
}

/// How long texts may be.
#[derive(Debug, Args)]
pub(crate) struct TextFlags {
    /// Bytes of a text that are tokenised at once, which takes 150 bytes of memory for each; longer texts
    /// are cut between words where that changes nothing, else refused [default: 2MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, allow_negative_numbers = true)]
    max_text_bytes: Option<u64>,
}

impl TextFlags {
    /// The most bytes of a text that are tokenised at once.
    pub(crate) fn max_bytes(&self) -> usize {
        self.max_text_bytes.map_or(DEFAULT_TEXT_BYTES, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// A message with the option's name as a flag.
    pub(crate) fn name(message: &str) -> String {
        message.replace("(max_text_bytes)", "(--max-text-bytes)").replace("(truncation is off)", "(--truncate cuts it)")
    }
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeFlag {
    /// f32 on software adapters; elsewhere f16 where the checkpoint is f16
    Auto,
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
}

impl DtypeFlag {
    /// The engine's word for it.
    pub(crate) fn choice(self) -> DtypeChoice {
        match self {
            Self::Auto => DtypeChoice::Auto,
            Self::F32 => DtypeChoice::F32,
            Self::F16 => DtypeChoice::F16,
        }
    }

    /// Both formats for measurements, where `auto` is f32 on software adapters, else f16.
    pub(crate) fn by_adapter(self, software: bool) -> Formats {
        match self {
            Self::F32 => DType::F32.into(),
            Self::Auto if software => DType::F32.into(),
            Self::F16 | Self::Auto => DType::F16.into(),
        }
    }

    /// As it is typed.
    pub(crate) fn name(self) -> String {
        name(self.to_possible_value())
    }
}

fn name(value: Option<PossibleValue>) -> String {
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

impl EngineFlags {
    /// How to load the model, for runs as expected.
    pub(crate) fn session_options(&self, registry: &Registry, expected: Expected) -> SessionOptions {
        let options = SessionOptions::default()
            .with_registry(registry.clone())
            .with_attention(self.attention.choice())
            .with_dtype(self.dtype.choice())
            .with_device(self.device.clone())
            .with_batch_size(self.batch_size.unwrap_or(SessionOptions::default().batch_size))
            .with_max_batch_tokens(self.max_batch_tokens)
            .with_memory_limit(self.memory_limit)
            .with_checked_shaders(cfg!(debug_assertions))
            .with_expected(expected)
            .with_max_text_bytes(self.text.max_bytes());
        self.formats.apply(options)
    }

    /// The most bytes of a text that are tokenised at once.
    pub(crate) fn max_text_bytes(&self) -> usize {
        self.text.max_bytes()
    }

    /// Records that are read before the first batch runs.
    pub(crate) fn first_window(&self) -> usize {
        match self.batch_size {
            Some(BatchSize::Sentences(sentences)) => sentences,
            // Enough for a device to show what it takes; windows grow from there.
            Some(_) => 256,
            None => 32,
        }
    }

    /// `--attention` and `--dtype` as they were typed or defaulted.
    pub(crate) fn kind_and_dtype(&self) -> (String, String) {
        (self.attention.name(), self.dtype.name())
    }

    /// `--weights` and `--cache`, as far as they were typed.
    pub(crate) fn formats(&self) -> FormatFlags {
        self.formats
    }

    /// Whether the user chose a number of inputs.
    pub(crate) fn names_batch_size(&self) -> bool {
        self.batch_size.is_some()
    }

    /// Whether the user chose an adapter.
    pub(crate) fn names_device(&self) -> bool {
        self.device.is_some()
    }
}

#[cfg(test)]
mod tests {
    use elgen_engine::EngineError;

    use super::*;

    #[test]
    fn the_flag_that_helps_is_named_here_and_not_in_the_library() {
        let error = EngineError::InputTooLong { tokens: 304, limit: 128 }.to_string();
        assert_eq!(error, "the input has 304 tokens, the model has positions for 128 (truncation is off)");
        let told = "the input has 304 tokens, the model has positions for 128 (--truncate cuts it)";
        assert_eq!(TextFlags::name(&error), told);
        assert_eq!(TextFlags::name("the input has no tokens"), "the input has no tokens");
    }
}
