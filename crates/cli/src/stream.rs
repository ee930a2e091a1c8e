//! Writes texts while they grow: one input after another, its tokens as they come.
//!
//! Text output ends up byte for byte as without streaming. JSONL output has a line `{"id":…,"token_id":…,"logprob":…,"text":…}`
//! for each token before the record's own line; `text` is what the token made certain, which for a token that ends inside a
//! character is nothing yet.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    input::RecordId,
    output::{Layout, Outcome, OutputFormat},
};

/// A token that was generated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    /// Its id.
    pub(crate) id: u32,
    /// Its log-probability after the processors.
    pub(crate) logprob: f32,
    /// The text that is now certain.
    pub(crate) text: &'a str,
}

#[derive(Serialize)]
struct TokenLine<'a> {
    id: &'a RecordId,
    token_id: u32,
    logprob: f32,
    text: &'a str,
}

/// Writes and flushes every piece of text at once.
pub(crate) struct StreamWriter {
    sink: Box<dyn Write>,
    layout: Layout,
    /// The input is written before its continuation.
    echo: bool,
    /// The present text has begun.
    begun: bool,
    /// What was written of it.
    written: String,
}

impl StreamWriter {
    /// A writer of records with one sequence each.
    pub(crate) fn new(sink: Box<dyn Write>, layout: Layout, echo: bool) -> StreamWriter {
        StreamWriter { sink, layout, echo, begun: false, written: String::new() }
    }

    /// Whether inputs are written before their continuations.
    pub(crate) fn echoes(&self) -> bool {
        self.echo
    }

    /// Writes a token of the record that runs now, and before its first what it `continues`.
    pub(crate) fn token(&mut self, id: &RecordId, continues: &str, token: Token<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        match self.layout.format {
            OutputFormat::Text | OutputFormat::Moses => {
                if self.echo && !std::mem::replace(&mut self.begun, true) {
                    self.layout.write_text(&mut bytes, continues);
                }
                self.layout.write_text(&mut bytes, token.text);
                self.written.push_str(token.text);
            }
            OutputFormat::Jsonl => {
                let Token { id: token_id, logprob, text } = token;
                serde_json::to_writer(&mut bytes, &TokenLine { id, token_id, logprob, text })?;
                bytes.push(b'\n');
            }
        }
        self.write(&bytes)
    }

    /// Ends the record: the rest of its text and the line's end, or its JSON object.
    pub(crate) fn put(&mut self, index: u64, id: &RecordId, outcome: &Outcome) -> io::Result<()> {
        let written = std::mem::take(&mut self.written);
        self.begun = false;
        if self.layout.format == OutputFormat::Jsonl {
            let line = self.layout.render(index, id, outcome)?;
            return self.write(&line);
        }
        let mut bytes = Vec::new();
        if let Outcome::Done(generation) = outcome {
            let text = generation.sequences.first().and_then(|sequence| sequence.text.as_deref()).unwrap_or_default();
            // What was written cannot be taken back; a stop string may end a text before it.
            self.layout.write_text(&mut bytes, text.strip_prefix(&written).unwrap_or_default());
        }
        bytes.push(b'\n');
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.sink.write_all(bytes)?;
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use elgen_engine::{FinishReason, Generation, Sequence};

    use super::*;

    /// Remembers every write.
    #[derive(Clone, Default)]
    struct Writes(Rc<RefCell<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer(format: OutputFormat) -> (StreamWriter, Writes) {
        let writes = Writes::default();
        let layout = Layout { format, with_scores: false, sequences: 1, token_logprobs: false, raw: false };
        (StreamWriter::new(Box::new(writes.clone()), layout, false), writes)
    }

    fn done(text: &str) -> Outcome {
        let sequence = Sequence::new(vec![4, 5], vec![-0.5, -1.0], -1.5, FinishReason::Eos).with_text(text);
        Outcome::Done(Generation::new(vec![sequence], 3))
    }

    fn token(text: &str) -> Token<'_> {
        Token { id: 4, logprob: -0.5, text }
    }

    #[test]
    fn texts_come_in_pieces_and_end_with_their_line() {
        let (mut writer, writes) = writer(OutputFormat::Text);
        let id = RecordId::Index(0);
        for text in ["Le", " chat", "", "\ndort"] {
            writer.token(&id, "", token(text)).unwrap();
        }
        writer.put(0, &id, &done("Le chat\ndort.")).unwrap();
        writer.token(&id, "", token("Non")).unwrap();
        writer.put(0, &id, &done("Non")).unwrap();
        writer.put(0, &id, &Outcome::Empty).unwrap();
        writer.put(0, &id, &done("nothing streamed")).unwrap();
        writer.token(&id, "", token("broken")).unwrap();
        writer.put(0, &id, &Outcome::Failed("x".to_owned())).unwrap();
        let writes = writes.0.borrow();
        let expected = ["Le", " chat", "\\ndort", ".\n", "Non", "\n", "\n", "nothing streamed\n", "broken", "\n"];
        assert_eq!(*writes, expected);
    }

    #[test]
    fn a_stop_string_that_was_written_stays() {
        let (mut writer, writes) = writer(OutputFormat::Text);
        let id = RecordId::Index(0);
        writer.token(&id, "", token("one END")).unwrap();
        writer.put(0, &id, &done("one")).unwrap();
        assert_eq!(*writes.0.borrow(), ["one END", "\n"]);
    }

    #[test]
    fn json_lines_name_the_record_and_the_token() {
        let (mut writer, writes) = writer(OutputFormat::Jsonl);
        let id = RecordId::Index(7);
        writer.token(&id, "", token("Le\n")).unwrap();
        writer.token(&id, "", Token { id: 2, logprob: f32::NEG_INFINITY, text: "" }).unwrap();
        writer.put(0, &id, &done("Le\n")).unwrap();
        assert_eq!(
            *writes.0.borrow(),
            [
                "{\"id\":7,\"token_id\":4,\"logprob\":-0.5,\"text\":\"Le\\n\"}\n",
                "{\"id\":7,\"token_id\":2,\"logprob\":null,\"text\":\"\"}\n",
                "{\"id\":7,\"sequences\":[{\"text\":\"Le\\n\",\"token_ids\":[4,5],\"score\":-1.5,\"finish_reason\":\"eos\"}],\"prompt_tokens\":3}\n",
            ]
        );
    }

    #[test]
    fn for_people_with_the_input_and_its_line_ends() {
        let writes = Writes::default();
        let format = OutputFormat::Text;
        let layout = Layout { format, with_scores: false, sequences: 1, token_logprobs: false, raw: true };
        let mut writer = StreamWriter::new(Box::new(writes.clone()), layout, true);
        let id = RecordId::Index(0);
        for text in [", there", "", " was\n\nno", "\u{1b}[2J"] {
            writer.token(&id, "Once\nupon", token(text)).unwrap();
        }
        writer.put(0, &id, &done(", there was\n\nno\u{1b}[2J one")).unwrap();
        writer.token(&id, "He", token(" is")).unwrap();
        writer.put(1, &id, &Outcome::Failed("x".to_owned())).unwrap();
        writer.put(2, &id, &Outcome::Empty).unwrap();
        let expected = ["Once\nupon, there", " was\n\nno", "\\u{1b}[2J", " one\n", "He is", "\n", "\n"];
        assert_eq!(*writes.0.borrow(), expected);
    }
}
