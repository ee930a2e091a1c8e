//! Source and target languages of multilingual tokenizers.

use super::class::TokenizerClass;
use crate::error::{LanguageRole, ModelError, TokenizerError, excerpt};

/// mBART's languages in the order of their ids.
const MBART: [&str; 25] = [
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX",
    "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN",
    "zh_CN",
];
/// Those that mBART-50 adds behind them.
const MBART50: [&str; 27] = [
    "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN", "mn_MN",
    "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK",
    "xh_ZA", "gl_ES", "sl_SI",
];
/// The source language of mBART's classes where nobody names one.
pub(super) const DEFAULT_SOURCE: &str = "en_XX";
/// Languages that a message lists.
const LISTED: usize = 8;

/// The language codes that are tokens of this class.
pub(super) fn codes_of(class: TokenizerClass) -> impl Iterator<Item = &'static str> + Clone {
    let (first, more): (&[_], &[_]) = match class {
        TokenizerClass::MBart => (&MBART, &[]),
        TokenizerClass::MBart50 => (&MBART, &MBART50),
        _ => (&[], &[]),
    };
    first.iter().chain(more).copied()
}

/// What generation must begin with to write in the target language. Fields are empty where the language needs none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LanguageTokens {
    /// For mBART (cc25): the decoder starts with the language.
    pub decoder_start_token_id: Option<u32>,
    /// For mBART-50: the language is the first token after the decoder's start.
    pub forced_bos_token_id: Option<u32>,
}

/// The error about a language that a tokenizer with the languages `known` does not have.
pub(super) fn unknown(role: LanguageRole, language: &str, known: &[&str]) -> ModelError {
    let wanted = language.to_lowercase();
    let near = known.iter().find(|code| {
        let code = code.to_lowercase();
        code == wanted || code.split('_').next() == Some(wanted.as_str())
    });
    let why = match (near, known) {
        (_, []) => "the tokenizer has no languages to choose from".to_owned(),
        (Some(near), _) => format!("not a language of the tokenizer (did you mean {near}?)"),
        (None, known) => {
            let more = if known.len() > LISTED { format!(", … ({} in all)", known.len()) } else { String::new() };
            let list = known.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
            format!("not a language of the tokenizer; it has {list}{more}")
        }
    };
    ModelError::from(TokenizerError::Language { role, language: excerpt(language), why })
}
