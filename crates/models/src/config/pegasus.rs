//! `config.json` of Pegasus (Zhang et al. 2019, arXiv 1912.08777): pre-norm with final norms, no norm behind the embeddings, sinusoidal
//! positions that its files usually hold.

use super::seq2seq::{Class, NormOrder, Positions};
use super::{ModelFamily, SpecialTokens};

/// As in `PegasusConfig` and `PegasusForConditionalGeneration`.
pub(super) fn class() -> Class {
    Class {
        family: ModelFamily::Pegasus,
        name: "Pegasus",
        norm_order: NormOrder::Pre,
        embedding_norm: false,
        positions: Positions::Sinusoidal,
        vocab_size: 50_265,
        special_tokens: SpecialTokens { bos: None, eos: vec![1], pad: Some(0), decoder_start: Some(0) },
        may_separate: false,
    }
}
