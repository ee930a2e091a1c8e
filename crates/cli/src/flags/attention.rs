//! `--attention`: the kinds of a registry by name, or `auto`.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use elgen_attention::Standing;
use elgen_engine::{AttentionChoice, Kind, Registry, compared};

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
    /// All kinds of a registry and `auto`, in the order of the paper's tables: what caches least cleverly first.
    pub(crate) fn measured(registry: &Registry) -> Vec<Self> {
        let last_resorts = registry.kinds().iter().copied().filter(|kind| kind.standing() == Standing::LastResort);
        let kinds = last_resorts.chain(compared(registry.kinds()));
        kinds.map(Self::Kind).chain([Self::Auto]).collect()
    }

    /// Whether it can be had without an encoder.
    pub(crate) fn needs_encoder(self) -> bool {
        matches!(self, Self::Kind(kind) if kind.needs_encoder())
    }

    /// The engine's word for it.
    pub(crate) fn choice(self) -> AttentionChoice {
        match self {
            Self::Auto => AttentionChoice::Auto,
            Self::Kind(kind) => kind.into(),
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
        let kinds = self.0.kinds().iter().map(|kind| PossibleValue::new(kind.name()).help(kind.about()));
        [PossibleValue::new(AUTO).help(auto)].into_iter().chain(kinds).collect()
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
