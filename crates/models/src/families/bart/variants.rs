//! The config classes of BART's kin.

use super::config::{Positions, Variant};
use crate::config::NormOrder;

/// BART (Lewis et al. 2019, arXiv 1910.13461): post-norm, a norm behind the embeddings, learned positions. DistilBART and others whose two sides
/// differ in layers, heads and widths are BARTs too. As in `BartConfig` and `BartForConditionalGeneration`.
pub(crate) const BART: Variant = Variant {
    name: "BART",
    norm_order: NormOrder::Post,
    embedding_norm: true,
    positions: Positions::Learned { offset: 2 },
    vocab_size: 50_265,
    may_separate: false,
};

/// Marian's translation models, opus-mt (Junczys-Dowmunt et al. 2018, arXiv 1804.00344): post-norm without a norm behind the embeddings, computed
/// positions, one vocabulary or two. Leftovers of the original format (`normalize_before`, `static_position_embeddings`, ...) have no meaning
/// here, as in transformers. As in `MarianConfig` and `MarianMTModel`.
pub(crate) const MARIAN: Variant = Variant {
    name: "Marian",
    norm_order: NormOrder::Post,
    embedding_norm: false,
    positions: Positions::Sinusoidal,
    vocab_size: 58_101,
    may_separate: true,
};

/// mBART and mBART-50 (Liu et al. 2020, arXiv 2001.08210; Tang et al. 2020, arXiv 2008.00401): BART's tensors in pre-norm order with final norms.
/// The output starts with the target language's id (mBART), or with EOS and that id forced behind it (mBART-50). As in `MBartConfig` and
/// `MBartForConditionalGeneration`.
pub(crate) const MBART: Variant = Variant {
    name: "mBART",
    norm_order: NormOrder::Pre,
    embedding_norm: true,
    positions: Positions::Learned { offset: 2 },
    vocab_size: 50_265,
    may_separate: false,
};

/// Pegasus (Zhang et al. 2019, arXiv 1912.08777): pre-norm with final norms, no norm behind the embeddings, sinusoidal positions that its files
/// usually hold. As in `PegasusConfig` and `PegasusForConditionalGeneration`.
pub(crate) const PEGASUS: Variant = Variant {
    name: "Pegasus",
    norm_order: NormOrder::Pre,
    embedding_norm: false,
    positions: Positions::Sinusoidal,
    vocab_size: 50_265,
    may_separate: false,
};
