//! `config.json` of mBART and mBART-50 (Liu et al. 2020, arXiv 2001.08210; Tang et al. 2020, arXiv 2008.00401): BART's tensors in pre-norm
//! order with final norms. The output starts with the target language's id (mBART), or with EOS and that id forced behind it (mBART-50).

use super::seq2seq::{Class, NormOrder, Positions};
use super::{ModelFamily, SpecialTokens};

/// As in `MBartConfig` and `MBartForConditionalGeneration`.
pub(super) fn class() -> Class {
    Class {
        family: ModelFamily::Mbart,
        name: "mBART",
        norm_order: NormOrder::Pre,
        embedding_norm: true,
        positions: Positions::Learned { offset: 2 },
        vocab_size: 50_265,
        special_tokens: SpecialTokens { bos: Some(0), eos: vec![2], pad: Some(1), decoder_start: None },
        may_separate: false,
    }
}
