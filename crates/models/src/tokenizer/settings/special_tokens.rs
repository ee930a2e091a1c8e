//! The special tokens of a tokenizer: those with a role, and the list of the others, as its class in transformers settles them.

use std::collections::{HashMap, HashSet};

use tokenizers::AddedToken;

use super::ROLES;
use super::argument::Argument;
use super::arguments::{ADDITIONAL, Arguments, EXTRA, Index, NAMED, Problem};
use super::options::Options;
use super::token::Token;
use crate::tokenizer::class::TokenizerClass;
use crate::tokenizer::languages::codes_of;

/// Special tokens by name, and those without one.
#[derive(Debug)]
pub(in crate::tokenizer) struct SpecialTokens {
    /// The roles in transformers' order, then names of the model's own. Each is a text or a token.
    named: Vec<(String, Argument)>,
    /// Usually texts and tokens.
    extra: Vec<Argument>,
}

impl SpecialTokens {
    /// Settles them. `pieces` are the tokens that a SentencePiece file marks, `padding` the one that tokenizer.json pads with.
    pub(super) fn resolve(
        class: TokenizerClass,
        options: &Options,
        arguments: &Arguments,
        pieces: Option<&[Token]>,
        padding: Option<&str>,
    ) -> Result<Self, Problem> {
        let list = class_list(class, options, arguments, pieces)?;
        // A list of the config, and null, stand in place of the class's own.
        let (key, extra) = match arguments.get(EXTRA) {
            Some(list) => (EXTRA, Some(list.clone())),
            None => (ADDITIONAL, list),
        };
        let extra = match extra {
            None | Some(Argument::Null) => Vec::new(),
            Some(Argument::List(list)) => list,
            Some(_) => return Err(arguments.wrong(key, "a list of tokens, or an object of named ones")),
        };
        let mut named = Named::default();
        for role in ROLES {
            let value = match role_of(class, arguments, role) {
                Some(value) => value,
                None => match padding.filter(|_| role == "pad_token" && class == TokenizerClass::Generic) {
                    Some(padding) => Argument::Text(padding.to_owned()),
                    None => Argument::Null,
                },
            };
            match value {
                // Without a token it keeps its place.
                value if value.is_token() || value == Argument::Null => named.set(role, value),
                _ => {
                    return Err(
                        arguments.wrong(role, "a token, as a text or as an object with `\"__type\": \"AddedToken\"`")
                    );
                }
            }
        }
        for (key, value) in arguments.iter() {
            if key.ends_with("_token") && !ROLES.contains(&key) && value.is_token() {
                named.set(key, value.clone());
            }
        }
        if let Some(own) = arguments.get(NAMED).filter(|own| **own != Argument::Null) {
            let entries = own.entries().ok_or_else(|| arguments.wrong(NAMED, "an object of tokens"))?;
            for (key, value) in entries.map_err(|reason| arguments.problem(NAMED, reason))? {
                if !value.is_token() {
                    return Err(arguments.problem(NAMED, format!("{} is not a token", value.show())));
                }
                named.set(&key, value);
            }
        }
        named.tokens.retain(|(_, token)| *token != Argument::Null);
        Ok(Self { named: named.tokens, extra })
    }

    /// The token of a role.
    pub(in crate::tokenizer) fn role(&self, role: &str) -> Option<String> {
        self.named.iter().find(|(known, _)| known == role).map(|(_, token)| token.python_str())
    }

    /// The texts of all special tokens, each once.
    pub(in crate::tokenizer) fn all(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let tokens = self.named.iter().map(|(_, token)| token).chain(&self.extra).map(Argument::python_str);
        tokens.filter(|token| seen.insert(token.clone())).collect()
    }

    /// What is added to a tokenizer that has the added tokens `existing`: the files' added tokens, then the special ones.
    pub(in crate::tokenizer) fn to_add(
        &self,
        arguments: &Arguments,
        existing: impl IntoIterator<Item = String>,
    ) -> Result<Vec<AddedToken>, Problem> {
        let mut tokens = in_order(arguments)?;
        let mut known: HashSet<String> = existing.into_iter().collect();
        known.extend(tokens.iter().map(|token| token.content.clone()));
        let mut fresh = HashSet::new();
        for token in self.named.iter().map(|(_, token)| token).chain(&self.extra) {
            if known.contains(&token.python_str()) {
                continue;
            }
            let is_text = matches!(token, Argument::Text(_));
            let token = token.to_token().ok_or_else(|| Problem {
                file: arguments.problem(EXTRA, "").file,
                reason: format!("{EXTRA}: {} is not a token", token.show()),
            })?;
            if fresh.insert((is_text, token.clone())) {
                tokens.push(token);
            }
        }
        let named: HashSet<String> =
            self.named.iter().filter(|(_, token)| token.is_truthy()).map(|(_, token)| token.python_str()).collect();
        for token in &mut tokens {
            token.special |= named.contains(&token.content);
        }
        Ok(tokens.iter().map(Token::added).collect())
    }
}

/// The argument of a role: what the files say, null included, or else the class's default.
pub(in crate::tokenizer) fn role_of(class: TokenizerClass, arguments: &Arguments, role: &str) -> Option<Argument> {
    let value = match arguments.get(role) {
        Some(value) => value.clone(),
        None => {
            let (_, token) = class.default_tokens().iter().find(|(known, _)| *known == role)?;
            Argument::Text((*token).to_owned())
        }
    };
    Some(match value {
        Argument::Text(mask) if role == "mask_token" && class.strips_before_mask() => {
            Argument::Token(Token { lstrip: true, ..Token::new(mask, false) })
        }
        value => value,
    })
}

/// Named tokens in the order of their first mention.
#[derive(Default)]
struct Named {
    tokens: Vec<(String, Argument)>,
    places: HashMap<String, usize>,
}

impl Named {
    fn set(&mut self, key: &str, value: Argument) {
        match self.places.get(key) {
            Some(place) => self.tokens[*place].1 = value,
            None => {
                self.places.insert(key.to_owned(), self.tokens.len());
                self.tokens.push((key.to_owned(), value));
            }
        }
    }
}

/// The list of special tokens that the class hands on where the config has none.
fn class_list(
    class: TokenizerClass,
    options: &Options,
    arguments: &Arguments,
    pieces: Option<&[Token]>,
) -> Result<Option<Argument>, Problem> {
    let given = match pieces {
        Some(pieces) => Some(Argument::List(pieces.iter().cloned().map(Argument::Token).collect())),
        None => arguments.get(ADDITIONAL).cloned(),
    };
    let text = |content: String| Argument::Text(content);
    let codes = || codes_of(class).map(|code| text(code.to_owned()));
    let list = |value: &Argument| match value {
        Argument::List(list) => Ok(list.clone()),
        _ => Err(arguments.wrong(ADDITIONAL, "a list of tokens")),
    };
    let given = given.filter(|given| *given != Argument::Null);
    match class {
        TokenizerClass::Generic | TokenizerClass::Gpt2 | TokenizerClass::Roberta | TokenizerClass::Marian => Ok(given),
        TokenizerClass::T5 => {
            let sentinels = (0..options.extra_ids).map(|number| text(format!("<extra_id_{number}>")));
            let Some(given) = given else { return Ok(Some(Argument::List(sentinels.collect()))) };
            let mut tokens = list(&given)?;
            match tokens.iter().filter(|token| token.python_str().contains("<extra_id_")).count() {
                0 => tokens.extend(sentinels),
                count if options.extra_ids > 0 && count != options.extra_ids as usize => {
                    let reason = format!("{} sentinels, but {count} are among the special tokens", options.extra_ids);
                    return Err(arguments.problem("extra_ids", reason));
                }
                _ => {}
            }
            Ok(Some(Argument::List(tokens)))
        }
        TokenizerClass::Pegasus => {
            let sentence = sentence_mask(arguments);
            let known = match &given {
                Some(given) => {
                    given.elements().ok_or_else(|| arguments.wrong(ADDITIONAL, "a list of tokens"))?.contains(&sentence)
                }
                None => false,
            };
            let sentence = Some(sentence).filter(|sentence| *sentence != Argument::Null && !known);
            let numbered = (2..options.offset).map(|number| text(format!("<unk_{number}>")));
            Ok(Some(Argument::List(sentence.into_iter().chain(numbered).collect())))
        }
        TokenizerClass::MBart => {
            let mut tokens: Vec<Argument> = codes().collect();
            if let Some(given) = &given {
                let more = given.elements().ok_or_else(|| arguments.wrong(ADDITIONAL, "a list of tokens"))?;
                let more: Vec<Argument> = more.into_iter().filter(|token| !tokens.contains(token)).collect();
                tokens.extend(more);
            }
            Ok(Some(Argument::List(tokens)))
        }
        TokenizerClass::MBart50 => {
            let mut tokens = match given.filter(Argument::is_truthy) {
                Some(given) => list(&given)?,
                None => Vec::new(),
            };
            tokens.extend(codes());
            Ok(Some(Argument::List(tokens)))
        }
    }
}

/// Pegasus's token for a masked sentence.
fn sentence_mask(arguments: &Arguments) -> Argument {
    arguments.get("mask_token_sent").cloned().unwrap_or_else(|| Argument::Text("<mask_1>".into()))
}

/// The added tokens by their places.
fn in_order(arguments: &Arguments) -> Result<Vec<Token>, Problem> {
    let mut added = arguments.added().to_vec();
    let numbers = added.iter().all(|(index, _)| matches!(index, Index::Whole(_) | Index::Fraction(_)));
    let texts = added.iter().all(|(index, _)| matches!(index, Index::Text(_)));
    if added.len() > 1 && !numbers && !texts {
        return Err(Problem { file: arguments.added_file(), reason: "the ids of added tokens must be numbers".into() });
    }
    added.sort_by(|(a, _), (b, _)| match (a, b) {
        (Index::Whole(a), Index::Whole(b)) => a.cmp(b),
        (Index::Text(a), Index::Text(b)) => a.cmp(b),
        (a, b) => a.number().total_cmp(&b.number()),
    });
    Ok(added.into_iter().map(|(_, token)| token).collect())
}
