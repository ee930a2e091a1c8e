//! The special tokens around a text, as each class of transformers arranges them.

use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;

use super::class::TokenizerClass;
use super::guarded;
use super::languages::{self, codes_of};
use super::settings::Rules;
use crate::error::excerpt;

/// The tokens around a text in the target language, where they are not those of the source language.
#[derive(Debug, Clone)]
pub(super) struct LabelEnds {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

/// Sets the template of a class that builds its tokenizer itself, and that which the config asks for in place of the one of
/// tokenizer.json.
pub(super) fn set(inner: &mut tokenizers::Tokenizer, rules: &Rules) -> Result<(), String> {
    let end = |inner: &tokenizers::Tokenizer| rules.role_id(inner, "eos_token");
    match rules.class {
        TokenizerClass::Roberta => {
            let token =
                |role: &str| Ok::<_, String>((rules.role_argument(role).python_str(), rules.role_id(inner, role)?));
            let template = RobertaProcessing::new(token("sep_token")?, token("cls_token")?);
            let options = &rules.options;
            inner.with_post_processor(Some(
                template.trim_offsets(options.trim_offsets).add_prefix_space(options.add_prefix_space),
            ));
            Ok(())
        }
        TokenizerClass::T5 => {
            // The name stands for the id alone.
            let end = end(inner)?;
            put(inner, "$A </s>", vec![("</s>".into(), end)])
        }
        TokenizerClass::Pegasus => {
            let name = rules.role_argument("eos_token").python_str();
            let id =
                rules.id_or_unknown(inner, &name).ok_or_else(|| format!("token `{}` has no id", excerpt(&name)))?;
            put(inner, &format!("$A {name}"), vec![(name, id)])
        }
        TokenizerClass::MBart | TokenizerClass::MBart50 => {
            let named = rules.options.source_language.as_deref();
            let source = named.unwrap_or(languages::DEFAULT_SOURCE);
            let known =
                |code: &str| rules.class == TokenizerClass::MBart || codes_of(rules.class).any(|known| known == code);
            let id = inner.token_to_id(source).filter(|_| known(source));
            // A vocabulary without the class's own languages has the unknown token in their place.
            let id = id.or_else(|| rules.id_or_unknown(inner, source).filter(|_| named.is_none()));
            let id = id.ok_or_else(|| format!("token `{}` has no id", excerpt(source)))?;
            let end = end(inner)?;
            set_language(inner, rules.class, id, end)
        }
        TokenizerClass::Generic | TokenizerClass::Gpt2 | TokenizerClass::Marian if rules.options.replaces_template => {
            let token = |role: &str, wanted: bool| match rules.special.role(role).filter(|_| wanted) {
                Some(token) => {
                    let id = rules.role_id(inner, role)?;
                    Ok::<_, String>(Some((token, id)))
                }
                None => Ok(None),
            };
            let before = token("bos_token", rules.options.add_bos)?;
            let after = token("eos_token", rules.options.add_eos)?;
            let text = |token: &Option<(String, u32)>| token.as_ref().map(|(token, _)| format!("{token}:0"));
            let pieces: Vec<String> =
                [text(&before), Some("$A:0".into()), text(&after)].into_iter().flatten().collect();
            put(inner, &pieces.join(" "), before.into_iter().chain(after).collect())
        }
        TokenizerClass::Generic | TokenizerClass::Gpt2 | TokenizerClass::Marian => Ok(()),
    }
}

/// mBART's template for texts in the language with this id, between which and the text's end the class tells.
pub(super) fn set_language(
    inner: &mut tokenizers::Tokenizer,
    class: TokenizerClass,
    language: u32,
    end: u32,
) -> Result<(), String> {
    let name = |id: u32| inner.id_to_token(id).ok_or_else(|| format!("id {id} has no token"));
    let (language, end) = ((name(language)?, language), (name(end)?, end));
    let text = match class {
        TokenizerClass::MBart50 => format!("{} $A {}", language.0, end.0),
        _ => format!("$A {} {}", end.0, language.0),
    };
    put(inner, &text, vec![end, language])
}

/// The ends of a label in the language with this id.
pub(super) fn label_ends(class: TokenizerClass, language: u32, end: u32) -> LabelEnds {
    match class {
        TokenizerClass::MBart50 => LabelEnds { before: vec![language], after: vec![end] },
        _ => LabelEnds { before: Vec::new(), after: vec![end, language] },
    }
}

fn put(inner: &mut tokenizers::Tokenizer, text: &str, tokens: Vec<(String, u32)>) -> Result<(), String> {
    let template = guarded(|| {
        let mut builder = TemplateProcessing::builder();
        Ok(builder.try_single(text)?.special_tokens(tokens).build()?)
    })?;
    inner.with_post_processor(Some(template));
    Ok(())
}
