//! `--attention`: the kinds of a registry by name, or `auto`.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use elgen_engine::{AttentionChoice, Kind, Registry};

/// What the planner is asked with.
const AUTO: &str = "auto";

/// `--attention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttentionFlag {
    /// Whichever the planner predicts to be fastest.
    Auto,
    /// One kind for self- and cross-attention.
    Kind(Kind),
}

impl AttentionFlag {
    /// In the order of the paper's tables: what caches least cleverly first.
    pub(crate) const MEASURED: [Self; 5] = [
        Self::Kind(Kind::MhaNocache),
        Self::Kind(Kind::MhaReplicated),
        Self::Kind(Kind::Mha),
        Self::Kind(Kind::El),
        Self::Auto,
    ];

    /// The engine's word for it.
    pub(crate) fn choice(self) -> AttentionChoice {
        match self {
            Self::Auto => AttentionChoice::Auto,
            Self::Kind(Kind::Mha) => AttentionChoice::Mha,
            Self::Kind(Kind::MhaReplicated) => AttentionChoice::MhaReplicated,
            Self::Kind(Kind::MhaNocache) => AttentionChoice::MhaNocache,
            Self::Kind(Kind::El) => AttentionChoice::El,
        }
    }

    /// As it is typed.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Auto => AUTO.to_owned(),
            Self::Kind(kind) => kind.name().to_owned(),
        }
    }
}

/// Takes `auto` and the names of a registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttentionParser(Registry);

impl AttentionParser {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self(registry.clone())
    }

    fn values(&self) -> Vec<PossibleValue> {
        let auto = "mha or el, whichever is predicted to be faster; measures a device once, for a few seconds";
        let kinds = self.0.kinds().iter().map(|kind| PossibleValue::new(kind.name()).help(help(*kind)));
        [PossibleValue::new(AUTO).help(auto)].into_iter().chain(kinds).collect()
    }
}

fn help(kind: Kind) -> &'static str {
    match kind {
        Kind::Mha => "Multi-head attention; the beams of an input share the cross-attention cache",
        Kind::MhaReplicated => "Multi-head attention; everything is cached once per beam",
        Kind::MhaNocache => {
            "Multi-head attention; cross keys and values are computed anew at each step (encoder-decoder models only)"
        }
        Kind::El => "EL-attention: caches one hidden state instead of a key and a value per head and layer",
    }
}

impl TypedValueParser for AttentionParser {
    type Value = AttentionFlag;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<AttentionFlag, Error> {
        // clap words the refusal.
        let name = PossibleValuesParser::new(self.values()).parse_ref(command, argument, value)?;
        Ok(self.0.kind(&name).map_or(AttentionFlag::Auto, AttentionFlag::Kind))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values().into_iter()))
    }
}
