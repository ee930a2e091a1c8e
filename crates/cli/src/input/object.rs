//! A JSONL record as it stands in its line: the fields that mean something, and the names of the others.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::suggest::did_you_mean;

/// Names that are told of one input, at most.
const MOST_NAMES: usize = 8;
/// Characters of a name that are shown.
const MOST_CHARACTERS: usize = 40;

/// The fields that a record may have.
const FIELDS: [&str; 6] = ["id", "text", "input_ids", "prefix", "target", "target_ids"];

/// A record before its values are looked at.
#[derive(Default)]
pub(super) struct Object<'a> {
    pub(super) id: Option<&'a RawValue>,
    pub(super) text: Option<&'a RawValue>,
    pub(super) input_ids: Option<&'a RawValue>,
    pub(super) prefix: Option<&'a RawValue>,
    pub(super) target: Option<&'a RawValue>,
    pub(super) target_ids: Option<&'a RawValue>,
    /// Names of other fields, each once, [`MOST_NAMES`] at most.
    pub(super) others: Vec<String>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object::default();
                let mut seen = [false; FIELDS.len()];
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let Some(place) = FIELDS.iter().position(|field| *field == name) else {
                        if object.others.len() < MOST_NAMES && !object.others.iter().any(|other| *other == name) {
                            object.others.push(name.into_owned());
                        }
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if std::mem::replace(&mut seen[place], true) {
                        return Err(A::Error::duplicate_field(FIELDS[place]));
                    }
                    let value = map.next_value::<&RawValue>()?;
                    // As an absent one.
                    let value = Some(value).filter(|value| value.get() != "null");
                    match place {
                        0 => object.id = value,
                        1 => object.text = value,
                        2 => object.input_ids = value,
                        3 => object.prefix = value,
                        4 => object.target = value,
                        _ => object.target_ids = value,
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// What is odd about an input and no error: above all the names of fields that play no part, each told once.
#[derive(Debug, Default)]
pub(super) struct Oddities {
    seen: BTreeSet<String>,
    untold: Vec<String>,
}

impl Oddities {
    /// Notes the other fields of the record at `place`.
    pub(super) fn fields(&mut self, others: Vec<String>, place: impl FnOnce() -> String) {
        let new: Vec<String> = others.into_iter().filter(|name| !self.seen.contains(name)).collect();
        let room = MOST_NAMES.saturating_sub(self.seen.len());
        if new.is_empty() || room == 0 {
            return;
        }
        let shown: Vec<String> = new.iter().take(room).map(|name| shown(name)).collect();
        self.seen.extend(new.into_iter().take(room));
        let (noun, verb) = if shown.len() == 1 { ("field", "is") } else { ("fields", "are") };
        self.untold.push(format!("{}: unknown {noun} {} {verb} ignored", place(), shown.join(", ")));
    }

    /// Notes that the text at `place` is a record, if it is.
    pub(super) fn record_as_text(&mut self, text: &str, place: impl FnOnce() -> String) {
        let is_record = |object: Object<'_>| object.text.is_some() || object.input_ids.is_some();
        if text.starts_with('{') && serde_json::from_str(text).is_ok_and(is_record) {
            self.untold
                .push(format!("{}: a JSON record, taken as a text; did you mean --input-format jsonl?", place()));
        }
    }

    /// What is to be told now.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.untold)
    }
}

/// A name in quotes, short and without what a terminal would take for commands.
fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(MOST_CHARACTERS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MOST_CHARACTERS).is_some() {
        text.push('…');
    }
    format!("`{text}`{}", did_you_mean(name, FIELDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(json: &str) -> Vec<String> {
        serde_json::from_str::<Object<'_>>(json).unwrap().others
    }

    #[test]
    fn other_fields_are_found_whatever_they_hold() {
        assert!(others(r#"{"id": 1, "text": "x", "prefix": "y", "target": "z", "input_ids": null}"#).is_empty());
        let found = others(r#"{"num_beams": 1, "text": "x", "options": {"a": [1, {"text": 2}]}, "num_beams": 2}"#);
        assert_eq!(found, ["num_beams", "options"]);
        assert_eq!(others(r#"{"t\u0065xt": "x", "T": 1}"#), ["T"], "an escaped name is the same name");
        let many: String = (0..100).map(|n| format!("\"f{n}\": 0,")).collect();
        assert_eq!(others(&format!("{{{many} \"text\": \"x\"}}")).len(), MOST_NAMES);
        assert!(serde_json::from_str::<Object<'_>>(r#"{"text": "x", "text": "y"}"#).is_err());
    }

    #[test]
    fn each_name_is_told_once_and_no_flood_comes_of_it() {
        let mut unknown = Oddities::default();
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        unknown.fields(names(&["num_beams"]), || "in.jsonl:1".into());
        unknown.fields(names(&["num_beams"]), || panic!("told twice"));
        unknown.fields(names(&["num_beams", "a\u{1b}[31m", "b"]), || "in.jsonl:3".into());
        assert_eq!(
            unknown.take(),
            [
                "in.jsonl:1: unknown field `num_beams` is ignored",
                "in.jsonl:3: unknown fields `a\\u{1b}[31m`, `b` are ignored"
            ]
        );
        unknown.fields(names(&["prefx"]), || "in.jsonl:4".into());
        assert_eq!(unknown.take(), ["in.jsonl:4: unknown field `prefx` (did you mean prefix?) is ignored"]);
        for n in 0..1000 {
            unknown.fields(vec![format!("{n}{}", "x".repeat(100))], || format!("in.jsonl:{n}"));
        }
        let told = unknown.take();
        assert_eq!(told.len(), MOST_NAMES - 4);
        assert!(told.iter().all(|line| line.len() < 100), "{told:?}");
    }

    #[test]
    fn records_that_are_taken_as_texts_are_noticed() {
        let told = |text: &str| {
            let mut oddities = Oddities::default();
            oddities.record_as_text(text, || "in.txt:1".into());
            oddities.take()
        };
        let expected = ["in.txt:1: a JSON record, taken as a text; did you mean --input-format jsonl?"];
        assert_eq!(told(r#"{"id": 4, "text": "x"}"#), expected);
        assert_eq!(told(r#"{"input_ids": [1]}"#), expected);
        for text in ["{", "{}", "{\"a\": 1}", "text", "[\"text\"]", ""] {
            assert!(told(text).is_empty(), "{text}");
        }
    }
}
