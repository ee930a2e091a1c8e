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
use tokenizers::{AddedToken, normalizers, pre_tokenizers};

use super::bounds;
use super::class::Class;
use super::guarded;
use super::languages::codes_of;
use super::settings::Settings;
use super::spm_file::{PieceType, SpmFile};
use crate::error::ModelError;

/// A vocabulary by id, with log probabilities.
type Pieces = Vec<(String, f64)>;

/// The tokenizer of the SentencePiece model in `bytes`, the content of `file`, and how many times as long it can make a text.
pub(super) fn from_spm(
    bytes: &[u8],
    file: &Path,
    settings: &Settings,
) -> Result<(tokenizers::Tokenizer, u64), ModelError> {
    let model = SpmFile::from_bytes(bytes, file)?;
    let unusable = |reason| ModelError::TokenizerFile { file: file.into(), reason };
    let pieces = model.pieces.iter().map(|(piece, score, _)| (piece.clone(), f64::from(*score)));
    let vocabulary = arrange(pieces.collect(), settings);
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
    let unigram = build(vocabulary, settings).map_err(unusable)?;
    let mut inner = tokenizers::Tokenizer::new(unigram);
    apply_rules(&mut inner, charsmap, settings).map_err(unusable)?;
    let mut tokens = Vec::new();
    if settings.class != Class::Pegasus {
        // Pegasus's class replaces the list that would hold these.
        tokens.extend(model.pieces.iter().filter_map(|(piece, _, kind)| match kind {
            PieceType::Control => Some(AddedToken::from(piece.as_str(), true)),
            PieceType::UserDefined => Some(AddedToken::from(piece.as_str(), false).normalized(false)),
            _ => None,
        }));
    }
    tokens.extend(class_tokens(settings));
    guarded(|| settings.add_tokens_and_defaults(&mut inner, tokens)).map_err(unusable)?;
    // Beside the map, runs of spaces become one.
    Ok((inner, growth * 2))
}

/// Applies the rules of the class to a tokenizer read from tokenizer.json, if its model is Unigram.
pub(super) fn rebuild(inner: &mut tokenizers::Tokenizer, settings: &Settings) -> Result<(), String> {
    let ModelWrapper::Unigram(model) = inner.get_model() else {
        return guarded(|| settings.add_tokens(inner));
    };
    let unigram = build(model.iter().cloned().collect(), settings)?;
    let charsmap = inner.get_normalizer().and_then(find_charsmap);
    inner.with_model(unigram);
    apply_rules(inner, charsmap, settings)?;
    guarded(|| settings.add_tokens_and_defaults(inner, class_tokens(settings)))
}

/// The vocabulary as the class arranges the pieces of a SentencePiece file.
fn arrange(pieces: Pieces, settings: &Settings) -> Pieces {
    let named = |content: &str| (content.to_owned(), 0.0);
    let role = |role: &str| named(settings.role(role).unwrap_or_default());
    let fairseq = |first: &str| {
        let mut vocabulary = vec![role(first), role("pad_token"), role("eos_token"), role("unk_token")];
        vocabulary.extend(pieces.iter().skip(3).cloned());
        vocabulary.extend(codes_of(settings.class).map(named));
        vocabulary.push(role("mask_token"));
        vocabulary
    };
    match settings.class {
        Class::MBart => fairseq("bos_token"),
        Class::MBart50 => fairseq("cls_token"),
        Class::Pegasus => {
            // Where the config names the mask tokens, that of words comes first; where it does not, that of sentences.
            let word = settings.text("mask_token").unwrap_or("<mask_1>");
            let sentence = settings.text("mask_token_sent").unwrap_or("<mask_2>");
            let mut vocabulary = vec![role("pad_token"), role("eos_token"), named(word)];
            if sentence != word {
                vocabulary.push(named(sentence));
            }
            vocabulary.extend((2..settings.offset).map(|number| (format!("<unk_{number}>"), -100.0)));
            vocabulary.extend(pieces.into_iter().skip(2));
            vocabulary
        }
        _ => {
            let sentinels = (0..settings.extra_ids).rev().map(|number| named(&format!("<extra_id_{number}>")));
            pieces.into_iter().chain(sentinels).collect()
        }
    }
}

fn build(vocabulary: Pieces, settings: &Settings) -> Result<Unigram, String> {
    let unknown = match settings.class {
        Class::MBart | Class::MBart50 => 3,
        Class::Pegasus => {
            let token = settings.role("unk_token").unwrap_or("<unk>");
            let place = vocabulary.iter().skip(1).position(|(piece, score)| piece == token && *score == 0.0);
            1 + place.ok_or_else(|| format!("its pieces do not hold `{token}` with score 0"))?
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
    settings: &Settings,
) -> Result<(), String> {
    let replace = |pattern: &str| {
        guarded(|| Replace::new(ReplacePattern::Regex(pattern.to_owned()), " ")).map(NormalizerWrapper::Replace)
    };
    let charsmap = charsmap.map(NormalizerWrapper::Precompiled);
    let sequence = |steps: Vec<NormalizerWrapper>| Some(NormalizerWrapper::Sequence(normalizers::Sequence::new(steps)));
    let normalizer = match (settings.class, charsmap) {
        (Class::T5, charsmap) => charsmap,
        // The class leaves texts as they are, whatever its files hold.
        (Class::MBart, _) => None,
        (Class::Pegasus, None) => sequence(vec![replace("\n")?, replace(" {2,}")?]),
        (_, charsmap) => sequence(charsmap.into_iter().chain([replace(" {2,}")?]).collect()),
    };
    inner.with_normalizer(normalizer).map_err(|error| error.to_string())?;

    let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
    let split: PreTokenizerWrapper = match settings.class {
        Class::T5 | Class::MBart => pre_tokenizers::sequence::Sequence::new(vec![
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

/// The special tokens of the class beside those with a role.
fn class_tokens(settings: &Settings) -> Vec<AddedToken> {
    let special = |content: String| AddedToken::from(content, true);
    match settings.class {
        Class::MBart | Class::MBart50 => codes_of(settings.class).map(|code| special(code.to_owned())).collect(),
        Class::Pegasus => {
            let sentence = settings.text("mask_token_sent").unwrap_or("<mask_1>").to_owned();
            let numbered = (2..settings.offset).map(|number| format!("<unk_{number}>"));
            [sentence].into_iter().chain(numbered).map(special).collect()
        }
        _ => (0..settings.extra_ids).map(|number| special(format!("<extra_id_{number}>"))).collect(),
    }
}
