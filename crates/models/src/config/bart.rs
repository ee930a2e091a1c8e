//! `config.json` of BART (Lewis et al. 2019, arXiv 1910.13461): post-norm, a norm behind the embeddings, learned positions. DistilBART and
//! others whose two sides differ in layers, heads and widths are BARTs too.

use super::seq2seq::{Class, NormOrder, Positions};
use super::{ModelFamily, SpecialTokens};

/// As in `BartConfig` and `BartForConditionalGeneration`.
pub(super) fn class() -> Class {
    Class {
        family: ModelFamily::Bart,
        name: "BART",
        norm_order: NormOrder::Post,
        embedding_norm: true,
        positions: Positions::Learned { offset: 2 },
        vocab_size: 50_265,
        special_tokens: SpecialTokens { bos: Some(0), eos: vec![2], pad: Some(1), decoder_start: Some(2) },
        may_separate: false,
    }
}
