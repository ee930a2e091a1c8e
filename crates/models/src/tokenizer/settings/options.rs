//! Arguments of a tokenizer's class that are no tokens: those that take part in tokenization, and those whose value makes
//! transformers refuse the tokenizer.
//!
//! All other keys have no part: `name_or_path`, `processor_class`, `auto_map` of a known class, `chat_template`,
//! `response_template`, `errors`, `legacy`, `do_lower_case`, `keep_accents`, `use_fast`, `backend`, `verbose`, `max_length`,
//! `stride`, `truncation_strategy`, `pad_to_multiple_of`, `pad_token_type_id`, `target_lang` and `source_lang` of Marian apart
//! from messages, `sp_model_kwargs` of all but Marian, and names of files.

use super::argument::Argument;
use super::arguments::{Arguments, Problem};
use crate::tokenizer::class::TokenizerClass;

/// Far above any published number of sentinel or pretraining tokens.
const MAX_CLASS_TOKENS: i64 = 100_000;
/// Arguments that only a program can give; as text in a file they are no values of their kinds.
const OF_PROGRAMS: [&str; 7] = [
    "tokenizer_object",
    "tokenizer_padding",
    "tokenizer_truncation",
    "_json_padding",
    "_json_truncation",
    "post_processor",
    "_spm_precompiled_charsmap",
];
/// Settings of SentencePiece that matter only where it samples.
const SAMPLING: [&str; 4] = ["enable_sampling", "nbest_size", "alpha", "num_threads"];

/// The options of a tokenizer.
#[derive(Debug)]
pub(in crate::tokenizer) struct Options {
    pub(in crate::tokenizer) clean_up_spaces: bool,
    pub(in crate::tokenizer) clean_up_spaces_of_bpe: bool,
    /// Whether special tokens in a text are ordinary text.
    pub(in crate::tokenizer) split_special_tokens: bool,
    /// Whether byte-level BPE puts a space before a text.
    pub(in crate::tokenizer) add_prefix_space: bool,
    pub(in crate::tokenizer) trim_offsets: bool,
    /// Whether the next two replace the template that the tokenizer has.
    pub(in crate::tokenizer) replaces_template: bool,
    pub(in crate::tokenizer) add_bos: bool,
    pub(in crate::tokenizer) add_eos: bool,
    /// T5: number of sentinel tokens.
    pub(in crate::tokenizer) extra_ids: u32,
    /// Pegasus: ids before those of the SentencePiece model.
    pub(in crate::tokenizer) offset: u32,
    /// The language of texts to be read.
    pub(in crate::tokenizer) source_language: Option<String>,
    /// The language of texts to be written.
    pub(in crate::tokenizer) target_language: Option<String>,
    /// Marian: whether the sides have vocabularies of their own.
    pub(in crate::tokenizer) separate_vocabs: bool,
}

impl Options {
    /// Reads and checks them for `class`; `has_single` where there is a tokenizer.json.
    pub(super) fn read(class: TokenizerClass, arguments: &Arguments, has_single: bool) -> Result<Self, Problem> {
        check(class, arguments, has_single)?;
        let truthy = |key: &str| arguments.get(key).is_some_and(Argument::is_truthy);
        let flag = |key: &str, default: bool| match arguments.get(key) {
            None => Ok(default),
            Some(Argument::Bool(value)) => Ok(*value),
            Some(_) => Err(arguments.wrong(key, "true or false")),
        };
        let count = |key: &str, default: u32| match arguments.get(key) {
            None => Ok(default),
            Some(Argument::Bool(value)) => Ok(u32::from(*value)),
            Some(Argument::Number(number)) => match number.as_i64() {
                Some(number) if number <= MAX_CLASS_TOKENS => Ok(number.max(0) as u32),
                _ => Err(arguments.wrong(key, &format!("a whole number up to {MAX_CLASS_TOKENS}"))),
            },
            Some(_) => Err(arguments.wrong(key, &format!("a whole number up to {MAX_CLASS_TOKENS}"))),
        };
        let text = |key: &str| match arguments.get(key) {
            Some(Argument::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let byte_level = matches!(class, TokenizerClass::Gpt2 | TokenizerClass::Roberta);
        let (source, target) = match class {
            TokenizerClass::Marian => ("source_lang", "target_lang"),
            _ => ("src_lang", "tgt_lang"),
        };
        if matches!(class, TokenizerClass::MBart | TokenizerClass::MBart50)
            && !matches!(arguments.get(source), None | Some(Argument::Null | Argument::Text(_)))
        {
            return Err(arguments.wrong(source, "a language"));
        }
        Ok(Self {
            clean_up_spaces: truthy("clean_up_tokenization_spaces"),
            clean_up_spaces_of_bpe: truthy("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"),
            split_special_tokens: match class {
                TokenizerClass::Marian => truthy("split_special_tokens"),
                _ => flag("split_special_tokens", false)?,
            },
            add_prefix_space: byte_level && flag("add_prefix_space", false)?,
            trim_offsets: class != TokenizerClass::Roberta || flag("trim_offsets", true)?,
            replaces_template: ["add_bos_token", "add_eos_token"].iter().any(|key| arguments.get(key).is_some()),
            add_bos: truthy("add_bos_token"),
            add_eos: truthy("add_eos_token"),
            extra_ids: if class == TokenizerClass::T5 { count("extra_ids", 100)? } else { 0 },
            offset: if class == TokenizerClass::Pegasus { count("offset", 103)? } else { 0 },
            source_language: text(source),
            target_language: text(target),
            separate_vocabs: truthy("separate_vocabs"),
        })
    }
}

/// Refuses what the class refuses, and what would have a part but is not supported.
fn check(class: TokenizerClass, arguments: &Arguments, has_single: bool) -> Result<(), Problem> {
    for side in ["padding_side", "truncation_side"] {
        if arguments.get(side).is_some_and(|value| !matches!(value.python_str().as_str(), "left" | "right")) {
            return Err(arguments.wrong(side, "`left` or `right`"));
        }
    }
    // Marian's class has a length of its own, before which the older name counts for nothing.
    let has_length = class == TokenizerClass::Marian || arguments.get("model_max_length").is_some();
    let length = if has_length { "model_max_length" } else { "max_len" };
    if !matches!(arguments.get(length), None | Some(Argument::Null | Argument::Number(_) | Argument::Bool(_))) {
        return Err(arguments.wrong(length, "a number"));
    }
    if let Some(names) = arguments.get("model_input_names") {
        let names = names.elements().ok_or_else(|| arguments.wrong("model_input_names", "a list of names"))?;
        let first_is_ids = names.first() == Some(&Argument::Text("input_ids".into()));
        if class == TokenizerClass::Marian && !first_is_ids && names.contains(&Argument::Text("attention_mask".into()))
        {
            return Err(arguments.wrong("model_input_names", "a list that begins with `input_ids`"));
        }
    }
    if !matches!(arguments.get("chat_control_tokens"), None | Some(Argument::Null | Argument::List(_))) {
        return Err(arguments.wrong("chat_control_tokens", "a list of tokens"));
    }
    if let Some(files) = arguments.get("fast_tokenizer_files") {
        let files = files.elements().ok_or_else(|| arguments.wrong("fast_tokenizer_files", "a list of file names"))?;
        let versioned = |name: &str| {
            name.find("tokenizer.").is_some_and(|place| name[place + "tokenizer.".len()..].contains(".json"))
        };
        if files.iter().any(|file| versioned(&file.python_str())) {
            let reason = "a tokenizer.json for some versions of transformers alone is not supported";
            return Err(arguments.problem("fast_tokenizer_files", reason));
        }
    }
    match class {
        TokenizerClass::Marian => check_sampling(arguments),
        _ => {
            let given = |key: &&str| arguments.get(key).is_some_and(Argument::is_truthy);
            if let Some(key) = OF_PROGRAMS.iter().find(|key| given(key)) {
                return Err(arguments.problem(key, "only a program can set this"));
            }
            let own = ["vocab", "merges"].iter().find(|key| given(key));
            match own.filter(|_| matches!(class, TokenizerClass::Gpt2 | TokenizerClass::Roberta) && !has_single) {
                Some(key) => Err(arguments.problem(key, "the vocabulary is read from its own file alone")),
                None => Ok(()),
            }
        }
    }
}

/// Marian hands these to SentencePiece; what would change its pieces, or draw them at random, is refused.
fn check_sampling(arguments: &Arguments) -> Result<(), Problem> {
    let key = "sp_model_kwargs";
    match arguments.get(key) {
        None | Some(Argument::Null) => Ok(()),
        Some(Argument::Object(options)) => {
            let samples = options.get("enable_sampling").is_some_and(|value| *value != serde_json::Value::Bool(false));
            if samples || options.keys().any(|option| !SAMPLING.contains(&option.as_str())) {
                return Err(arguments.problem(key, "settings of SentencePiece are not supported"));
            }
            Ok(())
        }
        Some(_) => Err(arguments.wrong(key, "an object")),
    }
}
