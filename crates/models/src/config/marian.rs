//! `config.json` of Marian's translation models, opus-mt (Junczys-Dowmunt et al. 2018, arXiv 1804.00344): post-norm without a norm behind
//! the embeddings, computed positions, one vocabulary or two. Leftovers of the original format (`normalize_before`,
//! `static_position_embeddings`, ...) have no meaning here, as in transformers.

use super::seq2seq::{Class, NormOrder, Positions};
use super::{ModelFamily, SpecialTokens};

/// As in `MarianConfig` and `MarianMTModel`.
pub(super) fn class() -> Class {
    Class {
        family: ModelFamily::Marian,
        name: "Marian",
        norm_order: NormOrder::Post,
        embedding_norm: false,
        positions: Positions::Sinusoidal,
        vocab_size: 58_101,
        special_tokens: SpecialTokens { bos: None, eos: vec![0], pad: Some(58_100), decoder_start: Some(58_100) },
        may_separate: true,
    }
}
