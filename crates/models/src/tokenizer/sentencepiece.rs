//! Text to pieces and back as the SentencePiece library does it, for unigram models.
//!
//! Marian's vocabularies are looked up by SentencePiece's own pieces, so its details count: the longest match of the
//! character map, scores summed in f32, and runs of unknown characters as one piece. The Unigram model of the `tokenizers`
//! crate differs in each.

use std::collections::HashMap;

use super::bounds;
use super::charsmap::Charsmap;
use super::spm_file::{PieceType, SpmFile};

/// The character that pieces have for a space.
pub(super) const SPACE: char = '▁';
/// Added to the smallest score of a piece, it is the score of an unknown character.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A unigram model.
#[derive(Debug, Clone)]
pub(super) struct SentencePiece {
    model: SpmFile,
    charsmap: Option<Charsmap>,
    /// Pieces that can be part of a text, by their text.
    segments: HashMap<String, usize>,
    /// All other pieces.
    reserved: HashMap<String, usize>,
    /// Texts that are cut out as they are; most models have none.
    user_defined: Vec<String>,
    longest: usize,
    min_score: f32,
    max_score: f32,
}

/// The best way to reach a place in a text.
#[derive(Clone, Copy)]
struct Best {
    from: usize,
    score: f32,
    unknown: bool,
}

impl SentencePiece {
    /// Prepares a model; the error says what is wrong with it.
    pub(super) fn new(model: SpmFile) -> Result<Self, String> {
        let charsmap = match model.charsmap.as_slice() {
            [] => None,
            bytes => Some(Charsmap::parse(bytes).map_err(|reason| format!("damaged SentencePiece model: {reason}"))?),
        };
        let (mut segments, mut reserved, mut user_defined) = (HashMap::new(), HashMap::new(), Vec::new());
        let (mut min_score, mut max_score) = (f32::MAX, f32::MIN);
        for (id, (piece, score, kind)) in model.pieces.iter().enumerate() {
            match kind {
                PieceType::Normal | PieceType::UserDefined | PieceType::Unused => {
                    segments.insert(piece.clone(), id);
                }
                PieceType::Unknown | PieceType::Control | PieceType::Byte => {
                    reserved.insert(piece.clone(), id);
                }
            }
            if *kind == PieceType::UserDefined {
                user_defined.push(piece.clone());
            }
            if *kind == PieceType::Normal {
                min_score = min_score.min(*score);
                max_score = max_score.max(*score);
            }
        }
        user_defined.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
        let longest = segments.keys().map(String::len).max().unwrap_or(0);
        model.pieces.iter().try_for_each(|(piece, _, _)| bounds::check_piece(piece))?;
        if !model.charsmap.is_empty() {
            bounds::charsmap_growth(&model.charsmap)?;
        }
        Ok(Self { model, charsmap, segments, reserved, user_defined, longest, min_score, max_score })
    }

    /// Bytes that are looked at for one byte of text, at most: of every beginning of the longest piece, and a look at each text that is
    /// cut out.
    pub(super) fn work(&self) -> u64 {
        let longest = self.longest as u64;
        (longest * (longest + 1) / 2).saturating_add(self.user_defined.len() as u64)
    }

    /// How many times as long the character map can make a text.
    pub(super) fn growth(&self) -> u64 {
        self.charsmap.as_ref().map_or(1, Charsmap::longest_replacement).max(1) as u64
    }

    /// The piece of an id.
    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        self.model.pieces.get(id as usize).map(|(piece, _, _)| piece.as_str())
    }

    /// The pieces of `text`.
    pub(super) fn encode(&self, text: &str) -> Vec<String> {
        let text = self.normalize(text);
        let mut pieces: Vec<String> = Vec::new();
        let mut after_unknown = false;
        for (part, unknown) in self.segment(&text) {
            if unknown && self.model.byte_fallback {
                pieces.extend(part.bytes().map(|byte| format!("<0x{byte:02X}>")));
            } else {
                match pieces.last_mut().filter(|_| unknown && after_unknown) {
                    Some(run) => run.push_str(part),
                    None => pieces.push(part.to_owned()),
                }
            }
            after_unknown = unknown;
        }
        pieces
    }

    /// Maps characters and arranges spaces.
    fn normalize(&self, text: &str) -> String {
        let space = if self.model.escape_whitespaces { SPACE } else { ' ' };
        let collapse = self.model.remove_extra_whitespaces;
        let mut rest = text;
        while collapse && let Some((" ", after)) = self.next_mapped(rest) {
            rest = after;
        }
        let mut out = String::with_capacity(rest.len() + rest.len() / 4);
        if rest.is_empty() {
            return out;
        }
        if self.model.add_dummy_prefix && !self.model.treat_whitespace_as_suffix {
            out.push(space);
        }
        let mut after_space = collapse;
        while let Some((mapped, after)) = self.next_mapped(rest) {
            let mapped = if after_space { mapped.trim_start_matches(' ') } else { mapped };
            if !mapped.is_empty() {
                out.extend(mapped.chars().map(|c| if c == ' ' { space } else { c }));
                after_space = collapse && mapped.ends_with(' ');
            }
            rest = after;
        }
        if collapse {
            out.truncate(out.trim_end_matches(space).len());
        }
        if self.model.add_dummy_prefix && self.model.treat_whitespace_as_suffix {
            out.push(space);
        }
        out
    }

    /// What the beginning of `text` becomes, and the text behind it; `None` at the end.
    fn next_mapped<'a>(&'a self, text: &'a str) -> Option<(&'a str, &'a str)> {
        let first = text.chars().next()?;
        if let Some(whole) = self.user_defined.iter().find(|piece| text.starts_with(piece.as_str())) {
            return Some(text.split_at(whole.len()));
        }
        match self.charsmap.as_ref().and_then(|map| map.longest_match(text)) {
            Some((length, replacement)) => Some((replacement, &text[length..])),
            None => Some(text.split_at(first.len_utf8())),
        }
    }

    /// The most probable segmentation (Viterbi), each part with whether it is an unknown character.
    fn segment<'a>(&self, text: &'a str) -> Vec<(&'a str, bool)> {
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        let unknown_score = self.min_score - UNKNOWN_PENALTY;
        for (start, first) in text.char_indices() {
            let till_here = best[start].map_or(0.0, |best| best.score);
            let mut has_single = false;
            let ends = text[start..].char_indices().map(|(at, c)| start + at + c.len_utf8());
            for end in ends.take_while(|end| end - start <= self.longest) {
                let Some(&id) = self.segments.get(&text[start..end]) else { continue };
                let (_, score, kind) = &self.model.pieces[id];
                let score = match kind {
                    PieceType::Unused => continue,
                    // Always better than any way around it.
                    PieceType::UserDefined => f64::from((end - start) as f32 * self.max_score) - 0.1,
                    _ => f64::from(*score),
                };
                relax(&mut best[end], start, score + f64::from(till_here), false);
                has_single |= end - start == first.len_utf8();
            }
            if !has_single {
                let score = f64::from(unknown_score + till_here);
                relax(&mut best[start + first.len_utf8()], start, score, true);
            }
        }
        let mut parts = Vec::new();
        let mut end = text.len();
        while end > 0
            && let Some(step) = best[end]
        {
            parts.push((&text[step.from..end], step.unknown));
            end = step.from;
        }
        parts.reverse();
        parts
    }

    /// The text of `pieces`. Pieces that the model does not know are their own text.
    pub(super) fn decode<'a>(&self, pieces: impl IntoIterator<Item = &'a str>) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        let (mut at_start, mut start_seen) = (true, false);
        for piece in pieces {
            let id = self.reserved.get(piece).or_else(|| self.segments.get(piece));
            let kind = id.map_or(PieceType::Unknown, |&id| self.model.pieces[id].2);
            if kind == PieceType::Byte {
                bytes.extend(piece.get(3..5).and_then(|hex| u8::from_str_radix(hex, 16).ok()));
                continue;
            }
            push_bytes(&mut text, &mut bytes);
            if start_seen || !text.is_empty() {
                at_start = false;
            }
            start_seen = false;
            match (kind, id) {
                (PieceType::Control, _) => {}
                (PieceType::Unknown, Some(_)) => text.push_str(&self.model.unk_surface),
                (PieceType::Unknown, None) => text.push_str(piece),
                _ => {
                    let mut piece = piece;
                    let strips = self.model.add_dummy_prefix || self.model.remove_extra_whitespaces;
                    if at_start
                        && strips
                        && let Some(rest) = piece.strip_prefix(SPACE)
                    {
                        piece = rest;
                        // Where spaces collapse, all at the beginning go, not only the one that was added.
                        start_seen = !self.model.remove_extra_whitespaces;
                    }
                    text.extend(piece.chars().map(|c| if c == SPACE { ' ' } else { c }));
                }
            }
        }
        push_bytes(&mut text, &mut bytes);
        text
    }
}

/// Takes the new way to a place if it is better. Compared in f64 and kept in f32, as SentencePiece does.
fn relax(place: &mut Option<Best>, from: usize, score: f64, unknown: bool) {
    if place.is_none_or(|best| score > f64::from(best.score)) {
        *place = Some(Best { from, score: score as f32, unknown });
    }
}

/// Appends a run of byte pieces; each byte that is no part of a character is U+FFFD.
fn push_bytes(text: &mut String, bytes: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(std::iter::repeat_n('\u{fffd}', chunk.invalid().len()));
    }
    bytes.clear();
}
