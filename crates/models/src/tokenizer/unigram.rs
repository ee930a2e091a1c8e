//! The Unigram tokenizers of T5, Pegasus and mBART, built from their pieces by the rules of their transformers classes.
//!
//! transformers 5 takes the pieces and the charsmap out of a tokenizer.json and rebuilds the rest, and does the same with a
//! SentencePiece file: both forms of a tokenizer obey the same rules.

use std::path::Path;

use tokenizers::models::ModelWrapper;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Replace, replace::ReplacePattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{normalizers, pre_tokenizers};

use super::bounds;
use super::class::TokenizerClass;
use super::guarded;
use super::languages::codes_of;
use super::settings::{Argument, Form, Rules, Settings, Token};
use super::spm_file::{PieceType, SpmFile};
use crate::error::{ModelError, TokenizerError, excerpt};

/// A vocabulary by id, with log probabilities.
type Pieces = Vec<(String, f64)>;

/// The tokenizer of the SentencePiece model in `bytes`, the content of `file`, its rules, and how many times as long it can make a text.
pub(super) fn from_spm(
    bytes: &[u8],
    file: &Path,
    settings: &Settings,
) -> Result<(tokenizers::Tokenizer, Rules, u64), ModelError> {
    let model = SpmFile::from_bytes(bytes, file)?;
    let unusable = |reason| ModelError::from(TokenizerError::File { file: file.into(), reason });
    let marked = model.pieces.iter().filter_map(|(piece, _, kind)| {
        let special = match kind {
            PieceType::Control => true,
            PieceType::UserDefined => false,
            _ => return None,
        };
        Some(Token { normalized: Some(false), ..Token::new(piece.as_str(), special) })
    });
    let rules = settings.rules(Form::Pieces(&marked.collect::<Vec<_>>()))?;
    let pieces = model.pieces.iter().map(|(piece, score, _)| (piece.clone(), f64::from(*score)));
    let vocabulary = arrange(pieces.collect(), &rules);
    let mut growth = 1;
    let charsmap = match model.charsmap.as_slice() {
        [] => None,
        bytes => {
            let damaged = |reason| unusable(format!("damaged SentencePiece model: {reason}"));
            // The crate allocates whatever length the map claims.
            growth = bounds::charsmap_growth(bytes).map_err(damaged)?;
            let map = guarded(|| Ok(Precompiled::from(bytes)?));
            Some(map.map_err(|reason| damaged(format!("its character map: {reason}")))?)
        }
    };
    let inner = with_class_rules(vocabulary, charsmap, &rules).map_err(unusable)?;
    // Beside the map, runs of spaces become one.
    Ok((inner, rules, growth * 2))
}

/// The class's tokenizer with the vocabulary and the character map of a tokenizer.json.
pub(super) fn rebuild(inner: &tokenizers::Tokenizer, rules: &Rules) -> Result<tokenizers::Tokenizer, String> {
    let ModelWrapper::Unigram(model) = inner.get_model() else {
        return Err("the class of the tokenizer needs a model of type Unigram".into());
    };
    let mut vocabulary: Pieces = model.iter().cloned().collect();
    let has_codes = || vocabulary.iter().any(|(piece, _)| codes_of(rules.class).any(|code| code == piece));
    if rules.class == TokenizerClass::MBart50 && !has_codes() {
        vocabulary = arrange(vocabulary, rules);
    }
    with_class_rules(vocabulary, inner.get_normalizer().and_then(find_charsmap), rules)
}

fn with_class_rules(
    vocabulary: Pieces,
    charsmap: Option<Precompiled>,
    rules: &Rules,
) -> Result<tokenizers::Tokenizer, String> {
    let mut inner = tokenizers::Tokenizer::new(build(vocabulary, rules)?);
    apply_rules(&mut inner, charsmap, rules.class)?;
    Ok(inner)
}

/// The vocabulary as the class arranges the pieces of a SentencePiece file.
fn arrange(pieces: Pieces, rules: &Rules) -> Pieces {
    let named = |content: &str| (content.to_owned(), 0.0);
    let role = |role: &str| (rules.role_argument(role).python_str(), 0.0);
    let fairseq = |first: &str| {
        let mut vocabulary = vec![role(first), role("pad_token"), role("eos_token"), role("unk_token")];
        vocabulary.extend(pieces.iter().skip(3).cloned());
        vocabulary.extend(codes_of(rules.class).map(named));
        vocabulary.push(role("mask_token"));
        vocabulary
    };
    match rules.class {
        TokenizerClass::MBart => fairseq("bos_token"),
        TokenizerClass::MBart50 => fairseq("cls_token"),
        TokenizerClass::Pegasus => {
            // Where the config names the mask tokens, that of words comes first; where it does not, that of sentences. One that
            // it sets to null has no place.
            let mask = |key: &str, default: &str| {
                let value = rules.argument(key).map_or_else(|| default.to_owned(), Argument::python_str);
                Some(value).filter(|value| value != "None")
            };
            let word = mask("mask_token", "<mask_1>");
            let sentence = mask("mask_token_sent", "<mask_2>").filter(|sentence| Some(sentence) != word.as_ref());
            let mut vocabulary = vec![role("pad_token"), role("eos_token")];
            vocabulary.extend(word.iter().chain(&sentence).map(|token| named(token)));
            vocabulary.extend((2..rules.options.offset).map(|number| (format!("<unk_{number}>"), -100.0)));
            vocabulary.extend(pieces.into_iter().skip(2));
            vocabulary
        }
        _ => {
            let sentinels = (0..rules.options.extra_ids).rev().map(|number| named(&format!("<extra_id_{number}>")));
            pieces.into_iter().chain(sentinels).collect()
        }
    }
}

fn build(vocabulary: Pieces, rules: &Rules) -> Result<Unigram, String> {
    let unknown = match rules.class {
        TokenizerClass::MBart | TokenizerClass::MBart50 => 3,
        TokenizerClass::Pegasus => {
            let token = rules.role_argument("unk_token").python_str();
            let place = vocabulary.iter().skip(1).position(|(piece, score)| *piece == token && *score == 0.0);
            1 + place.ok_or_else(|| format!("its pieces do not hold `{}` with score 0", excerpt(&token)))?
        }
        _ => 2,
    };
    vocabulary.iter().try_for_each(|(piece, _)| bounds::check_piece(piece))?;
    guarded(|| Unigram::from(vocabulary, Some(unknown), false))
}

fn find_charsmap(normalizer: &NormalizerWrapper) -> Option<Precompiled> {
    match normalizer {
        NormalizerWrapper::Precompiled(charsmap) => Some(charsmap.clone()),
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().find_map(|inner| match inner {
            NormalizerWrapper::Precompiled(charsmap) => Some(charsmap.clone()),
            _ => None,
        }),
        _ => None,
    }
}

/// Normaliser, word split and decoder of the class.
fn apply_rules(
    inner: &mut tokenizers::Tokenizer,
    charsmap: Option<Precompiled>,
    class: TokenizerClass,
) -> Result<(), String> {
    let replace = |pattern: &str| {
        guarded(|| Replace::new(ReplacePattern::Regex(pattern.to_owned()), " ")).map(NormalizerWrapper::Replace)
    };
    let charsmap = charsmap.map(NormalizerWrapper::Precompiled);
    let sequence = |steps: Vec<NormalizerWrapper>| Some(NormalizerWrapper::Sequence(normalizers::Sequence::new(steps)));
    let normalizer = match (class, charsmap) {
        (TokenizerClass::T5, charsmap) => charsmap,
        // The class leaves texts as they are, whatever its files hold.
        (TokenizerClass::MBart, _) => None,
        (TokenizerClass::Pegasus, None) => sequence(vec![replace("\n")?, replace(" {2,}")?]),
        (_, charsmap) => sequence(charsmap.into_iter().chain([replace(" {2,}")?]).collect()),
    };
    inner.with_normalizer(normalizer).map_err(|error| error.to_string())?;

    let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
    let split: PreTokenizerWrapper = match class {
        TokenizerClass::T5 | TokenizerClass::MBart => pre_tokenizers::sequence::Sequence::new(vec![
            PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
            PreTokenizerWrapper::Metaspace(metaspace.clone()),
        ])
        .into(),
        _ => PreTokenizerWrapper::Metaspace(metaspace.clone()),
    };
    inner.with_pre_tokenizer(Some(split));
    inner.with_decoder(Some(metaspace));
    Ok(())
}
