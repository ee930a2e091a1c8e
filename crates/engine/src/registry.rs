//! The attention kinds that a program knows by name.

use elgen_attention::{Kind, Kinds};

use crate::options::AttentionChoice;

/// The attention kinds that a program knows by name: what its command line takes and its saved runs are read with. A value, so that two
/// programs in one process may know different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    kinds: Vec<Kind>,
}

impl Default for Registry {
    /// The built-in kinds.
    fn default() -> Self {
        Self { kinds: Kind::BUILT_IN.to_vec() }
    }
}

impl Registry {
    /// These and `kind`, which takes the place of one of the same name.
    #[must_use]
    pub fn with(mut self, kind: Kind) -> Self {
        self.kinds.retain(|known| *known != kind);
        self.kinds.push(kind);
        self
    }

    /// Its kinds, in the order in which they are listed to users.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The kind of this name.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        self.kinds.iter().copied().find(|kind| kind.name() == name)
    }

    /// The kinds of these names, as [`crate::AttentionKinds`] has them: self-attention, and cross-attention if there is one.
    pub fn choice(&self, self_: &str, cross: Option<&str>) -> Option<AttentionChoice> {
        let self_ = self.kind(self_)?;
        let cross = cross.map_or(Some(self_), |name| self.kind(name))?;
        Some(AttentionChoice::Kinds(Kinds::new(self_, cross)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_names_alone() {
        let registry = Registry::default();
        for kind in Kind::BUILT_IN {
            assert_eq!(registry.kind(kind.name()), Some(kind));
        }
        assert_eq!(registry.kind("MHA").or(registry.kind("")), None);
        let mixed = Kinds::new(Kind::EL, Kind::MHA);
        assert_eq!(registry.choice("el", Some("mha")), Some(AttentionChoice::Kinds(mixed)));
        assert_eq!(registry.choice("el", None), Some(AttentionChoice::Kinds(Kinds::both(Kind::EL))));
        assert_eq!(registry.choice("el", Some("flash")).or(registry.choice("auto", None)), None);
    }
}
