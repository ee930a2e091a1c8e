//! Storage of weights and caches: `--weights` and `--cache`, and the values that they and `--dtype` take.

use clap::{Args, ValueEnum};
use elgen_engine::{CacheFormat, DtypeChoice, Formats, SessionOptions, WeightFormat};

/// What replaces `--dtype` for weights or for caches alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct FormatFlags {
    /// Storage of weights, whatever --dtype is
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) weights: Option<StorageFlag>,

    /// Storage of attention caches, whatever --dtype is
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) cache: Option<StorageFlag>,
}

impl FormatFlags {
    /// The options with what was typed.
    pub(crate) fn apply(self, options: SessionOptions) -> SessionOptions {
        options.with_weights(self.weights.map(StorageFlag::weights)).with_cache(self.cache.map(StorageFlag::cache))
    }

    /// The formats with what was typed.
    pub(crate) fn over(self, both: Formats) -> Formats {
        Formats {
            weights: self.weights.map_or(both.weights, StorageFlag::weights),
            cache: self.cache.map_or(both.cache, StorageFlag::cache),
        }
    }

    /// The flags that were typed, with their values.
    pub(crate) fn typed(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let flags = [("--weights", self.weights), ("--cache", self.cache)];
        flags.into_iter().filter_map(|(flag, value)| Some((flag, value?.name())))
    }
}

/// One storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StorageFlag {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
}

impl StorageFlag {
    pub(crate) fn choice(self) -> DtypeChoice {
        match self {
            Self::F32 => DtypeChoice::F32,
            Self::F16 => DtypeChoice::F16,
        }
    }

    fn weights(self) -> WeightFormat {
        match self {
            Self::F32 => WeightFormat::F32,
            Self::F16 => WeightFormat::F16,
        }
    }

    fn cache(self) -> CacheFormat {
        match self {
            Self::F32 => CacheFormat::F32,
            Self::F16 => CacheFormat::F16,
        }
    }

    /// As it is typed.
    fn name(self) -> &'static str {
        self.weights().name()
    }
}
