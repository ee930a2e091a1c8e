use std::{cell::RefCell, rc::Rc};

use elgen_engine::Sequence;
use serde_json::value::RawValue;

use super::*;

/// A sink that can be read after it was given away.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

fn writer(format: OutputFormat, with_scores: bool, sequences: usize) -> (OrderedWriter, Shared) {
    let sink = Shared::default();
    let layout = Layout { format, with_scores, sequences, token_logprobs: false, raw: false };
    (OrderedWriter::new(Box::new(sink.clone()), layout, 0), sink)
}

fn done(texts: &[(&str, f32)]) -> Outcome {
    let sequences = texts
        .iter()
        .map(|&(text, score)| {
            let logprobs = vec![-0.5, f32::NEG_INFINITY, 0.0];
            Sequence::new(vec![0, 42, 2], logprobs, score, FinishReason::Eos).with_text(text)
        })
        .collect();
    Outcome::Done(Generation::new(sequences, 5))
}

fn failed() -> Outcome {
    Outcome::Failed("no \"luck\"".to_owned())
}

#[test]
fn results_come_out_in_input_order_and_at_once() {
    let (mut writer, sink) = writer(OutputFormat::Text, false, 1);
    let id = RecordId::Index(0);
    writer.put(2, &id, &done(&[("c", 0.0)])).unwrap();
    writer.put(1, &id, &failed()).unwrap();
    assert_eq!(sink.text(), "");
    writer.put(0, &id, &done(&[("a", 0.0)])).unwrap();
    assert_eq!(sink.text(), "a\n\nc\n");
    writer.put(4, &id, &done(&[("e", 0.0)])).unwrap();
    writer.put(3, &id, &Outcome::Empty).unwrap();
    assert_eq!(sink.text(), "a\n\nc\n\ne\n");
}

#[test]
fn text_is_one_line_each_and_can_be_restored() {
    let (mut writer, sink) = writer(OutputFormat::Text, false, 1);
    writer.put(0, &RecordId::Index(0), &done(&[("a\nb\r\n\\n é", 0.0)])).unwrap();
    assert_eq!(sink.text(), "a\\nb\\r\\n\\\\n é\n");
}

#[test]
fn n_best_gives_n_lines_whatever_happened() {
    let (mut writer, sink) = writer(OutputFormat::Text, true, 2);
    let id = RecordId::Index(0);
    writer.put(0, &id, &done(&[("best", -0.1), ("second", -1e9)])).unwrap();
    writer.put(1, &id, &Outcome::Empty).unwrap();
    writer.put(2, &id, &failed()).unwrap();
    assert_eq!(sink.text(), "-0.1 ||| best\n-1000000000 ||| second\n\n\n\n\n");
}

#[test]
fn json_lines_have_the_documented_fields() {
    let (mut writer, sink) = writer(OutputFormat::Jsonl, false, 1);
    let given = RecordId::Given(RawValue::from_string("{\"b\": 1.50}".to_owned()).unwrap());
    writer.put(0, &given, &done(&[("a\nb", -0.53)])).unwrap();
    writer.put(1, &RecordId::Index(1), &failed()).unwrap();
    writer.put(2, &RecordId::Index(2), &Outcome::Empty).unwrap();
    let ids = Sequence::new(vec![], vec![], f32::NEG_INFINITY, FinishReason::Length);
    let mut without_text = Generation::new(vec![ids], 1);
    without_text.truncated = true;
    writer.put(3, &RecordId::Index(3), &Outcome::Done(without_text)).unwrap();
    let text = sink.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            r#"{"id":{"b": 1.50},"sequences":[{"text":"a\nb","token_ids":[0,42,2],"score":-0.53,"finish_reason":"eos"}],"prompt_tokens":5}"#,
            r#"{"id":1,"error":"no \"luck\""}"#,
            r#"{"id":2,"sequences":[],"prompt_tokens":0}"#,
            r#"{"id":3,"sequences":[{"text":null,"token_ids":[],"score":null,"finish_reason":"length"}],"prompt_tokens":1}"#,
        ]
    );
}

#[test]
fn scores_are_the_shortest_text_that_reads_back() {
    for score in [-0.53_f32, -1.023_857, 0.1, -1e-7, -16_777_216.0, f32::MIN_POSITIVE] {
        let (mut text, text_sink) = writer(OutputFormat::Text, true, 1);
        let (mut json, json_sink) = writer(OutputFormat::Jsonl, false, 1);
        text.put(0, &RecordId::Index(0), &done(&[("x", score)])).unwrap();
        json.put(0, &RecordId::Index(0), &done(&[("x", score)])).unwrap();
        assert_eq!(text_sink.text().split(" ||| ").next().unwrap().parse::<f32>().unwrap(), score);
        let line: serde_json::Value = serde_json::from_str(&json_sink.text()).unwrap();
        assert_eq!(line["sequences"][0]["score"].as_f64().unwrap() as f32, score);
    }
}

#[test]
fn a_failing_sink_is_an_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let layout =
        Layout { format: OutputFormat::Text, with_scores: false, sequences: 1, token_logprobs: false, raw: false };
    let mut writer = OrderedWriter::new(Box::new(Closed), layout, 0);
    let error = writer.put(0, &RecordId::Index(0), &Outcome::Empty).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn token_logprobs_are_an_array_beside_the_ids() {
    let sink = Shared::default();
    let layout =
        Layout { format: OutputFormat::Jsonl, with_scores: false, sequences: 1, token_logprobs: true, raw: false };
    let mut writer = OrderedWriter::new(Box::new(sink.clone()), layout, 0);
    writer.put(0, &RecordId::Index(0), &done(&[("x", -0.5)])).unwrap();
    assert_eq!(
        sink.text(),
        concat!(
            r#"{"id":0,"sequences":[{"text":"x","token_ids":[0,42,2],"score":-0.5,"finish_reason":"eos","#,
            r#""token_logprobs":[-0.5,null,0.0]}],"prompt_tokens":5}"#,
            "\n"
        )
    );
}

#[test]
fn an_alignment_is_a_list_for_each_id() {
    let (mut writer, sink) = writer(OutputFormat::Jsonl, false, 1);
    let Outcome::Done(mut generation) = done(&[("x", -0.5)]) else { unreachable!() };
    generation.sequences[0].alignment = Some(vec![vec![0.25, 0.75], vec![1.0, 0.0], vec![1e-7, 0.9999999]]);
    writer.put(0, &RecordId::Index(0), &Outcome::Done(generation)).unwrap();
    assert_eq!(
        sink.text(),
        concat!(
            r#"{"id":0,"sequences":[{"text":"x","token_ids":[0,42,2],"score":-0.5,"finish_reason":"eos","#,
            r#""alignment":[[0.25,0.75],[1.0,0.0],[1e-7,0.9999999]]}],"prompt_tokens":5}"#,
            "\n"
        )
    );
}

#[test]
fn a_continued_output_begins_with_its_next_record() {
    let sink = Shared::default();
    let layout =
        Layout { format: OutputFormat::Text, with_scores: false, sequences: 2, token_logprobs: false, raw: false };
    assert_eq!(layout.lines_per_record(), 2);
    assert_eq!(Layout { format: OutputFormat::Jsonl, ..layout }.lines_per_record(), 1);
    let mut writer = OrderedWriter::new(Box::new(sink.clone()), layout, 7);
    writer.put(8, &RecordId::Index(8), &Outcome::Empty).unwrap();
    assert_eq!(sink.text(), "");
    writer.put(7, &RecordId::Index(7), &done(&[("a", 0.0), ("b", 0.0)])).unwrap();
    assert_eq!(sink.text(), "a\nb\n\n\n");
}

#[test]
fn every_write_ends_with_a_record() {
    #[derive(Default)]
    struct Whole(Rc<RefCell<Vec<usize>>>);
    impl Write for Whole {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            assert_eq!(bytes.last(), Some(&b'\n'));
            self.0.borrow_mut().push(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sizes = Rc::default();
    let layout =
        Layout { format: OutputFormat::Text, with_scores: false, sequences: 1, token_logprobs: false, raw: false };
    let mut writer = OrderedWriter::new(Box::new(Whole(Rc::clone(&sizes))), layout, 0);
    let long = "x".repeat(300_000);
    for index in (0..20).rev() {
        writer.put(index, &RecordId::Index(index), &done(&[(&long, 0.0)])).unwrap();
    }
    assert_eq!(sizes.borrow().iter().sum::<usize>(), 20 * (long.len() + 1));
    assert!(sizes.borrow().iter().all(|&size| size < WRITE_BYTES + long.len() + 2), "{sizes:?}");
}

#[test]
fn moses_lines_carry_the_number_of_their_input() {
    let (mut writer, sink) = writer(OutputFormat::Moses, false, 2);
    let given = RecordId::Given(RawValue::from_string("\"a\"".to_owned()).unwrap());
    writer.put(1, &given, &done(&[("b\n1", -0.5), ("b2", -1e9)])).unwrap();
    writer.put(0, &given, &done(&[("a1", -0.25)])).unwrap();
    writer.put(2, &given, &Outcome::Empty).unwrap();
    writer.put(3, &given, &failed()).unwrap();
    let expected =
        "0 ||| a1 ||| -0.25\n\n1 ||| b\\n1 ||| -0.5\n1 ||| b2 ||| -1000000000\n2 |||  ||| 0\n2 |||  ||| 0\n\n\n";
    assert_eq!(sink.text(), expected);
}

#[test]
fn raw_texts_keep_their_line_ends() {
    let sink = Shared::default();
    let layout =
        Layout { format: OutputFormat::Text, with_scores: true, sequences: 1, token_logprobs: false, raw: true };
    let mut writer = OrderedWriter::new(Box::new(sink.clone()), layout, 0);
    writer.put(0, &RecordId::Index(0), &done(&[("a\nb\\", -0.5)])).unwrap();
    assert_eq!(sink.text(), "-0.5 ||| a\nb\\\n");
}
