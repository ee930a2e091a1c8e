//! The protobuf file that SentencePiece trains: `spiece.model`, `sentencepiece.bpe.model`, `source.spm`.
//!
//! Only the fields that decide about segmentation are read. Field numbers and defaults are those of SentencePiece's
//! `sentencepiece_model.proto`; `prost` skips all others.

use std::path::Path;

use prost::Message;

use crate::error::{ModelError, TokenizerError};
use crate::json;

/// Far above any published model (that of mBART has 5 MB); keeps a mistaken file from being read into memory.
const MAX_BYTES: u64 = 256 << 20;

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum PieceType {
    /// Text.
    Normal = 1,
    /// Stands for what no piece covers.
    Unknown = 2,
    /// Never part of a text: `</s>`.
    Control = 3,
    /// Always cut out of a text as it is.
    UserDefined = 4,
    /// Kept for its id alone.
    Unused = 5,
    /// A byte of what no piece covers: `<0x0A>`.
    Byte = 6,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Piece {
    #[prost(string, optional, tag = "1")]
    pub(super) piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(super) score: Option<f32>,
    #[prost(enumeration = "PieceType", optional, tag = "3", default = "Normal")]
    pub(super) r#type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    /// 1 is unigram.
    #[prost(int32, optional, tag = "3", default = "1")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24", default = "false")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35", default = "false")]
    byte_fallback: Option<bool>,
    #[prost(string, optional, tag = "44", default = " \u{2047} ")]
    unk_surface: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer_spec: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer_spec: Option<NormalizerSpec>,
}

/// A SentencePiece model of type unigram.
#[derive(Debug, Clone)]
pub(super) struct SpmFile {
    /// By id; every one has a text.
    pub(super) pieces: Vec<(String, f32, PieceType)>,
    pub(super) treat_whitespace_as_suffix: bool,
    pub(super) byte_fallback: bool,
    /// What an unknown piece is decoded as.
    pub(super) unk_surface: String,
    /// Empty for a model that leaves characters as they are.
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

/// The bytes of `file`, if it is small enough for a SentencePiece model.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, ModelError> {
    let unreadable = |source| ModelError::Io { file: file.into(), source };
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > MAX_BYTES {
        let reason = format!("{bytes} bytes are too many for a SentencePiece model");
        return Err(unreadable(std::io::Error::other(reason)));
    }
    std::fs::read(file).map_err(unreadable)
}

impl SpmFile {
    /// From `bytes`, the content of `file`; anything but a usable unigram model is an error that says what is wrong.
    pub(super) fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self, ModelError> {
        if json::is_lfs_pointer(bytes) {
            return Err(ModelError::LfsPointer { file: file.into() });
        }
        Self::parse(bytes).map_err(|reason| ModelError::from(TokenizerError::File { file: file.into(), reason }))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let proto = ModelProto::decode(bytes).map_err(|error| format!("damaged SentencePiece model: {error}"))?;
        if proto.pieces.is_empty() {
            return Err("damaged SentencePiece model: it has no pieces".into());
        }
        // Both stand behind the pieces in every trained model; a file that was cut off between two pieces has neither.
        let (Some(trainer), Some(normalizer)) = (proto.trainer_spec, proto.normalizer_spec) else {
            return Err("damaged SentencePiece model: it ends before its settings".into());
        };
        if trainer.model_type() != 1 {
            let kind = match trainer.model_type() {
                2 => "BPE",
                3 => "word",
                4 => "character",
                _ => "unknown",
            };
            return Err(format!("a SentencePiece model of type {kind}; only unigram models are supported"));
        }
        let mut pieces = Vec::with_capacity(proto.pieces.len());
        for (id, piece) in proto.pieces.iter().enumerate() {
            let damaged = |what: &str| format!("damaged SentencePiece model: piece {id} {what}");
            if piece.piece().is_empty() {
                return Err(damaged("is empty"));
            }
            if !piece.score().is_finite() {
                return Err(damaged("has a score that is no finite number"));
            }
            let known = piece.r#type.map_or(Ok(PieceType::Normal), PieceType::try_from);
            let kind = known.map_err(|_| damaged("has an unknown type"))?;
            pieces.push((piece.piece().to_owned(), piece.score(), kind));
        }
        Ok(Self {
            pieces,
            treat_whitespace_as_suffix: trainer.treat_whitespace_as_suffix(),
            byte_fallback: trainer.byte_fallback(),
            unk_surface: trainer.unk_surface().to_owned(),
            add_dummy_prefix: normalizer.add_dummy_prefix(),
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces(),
            escape_whitespaces: normalizer.escape_whitespaces(),
            charsmap: normalizer.precompiled_charsmap.unwrap_or_default(),
        })
    }
}
