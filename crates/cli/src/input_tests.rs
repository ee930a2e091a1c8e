use std::io::{BufReader, Cursor};

use super::*;

fn reader(bytes: &[u8], format: RecordFormat) -> RecordReader {
    // A tiny buffer, so that lines span refills.
    let lines = BufReader::with_capacity(3, Cursor::new(bytes.to_vec()));
    RecordReader::from_lines(Box::new(lines), "in".to_owned(), format)
}

fn all(bytes: &[u8], format: RecordFormat) -> Vec<Record> {
    let mut reader = reader(bytes, format);
    let records = reader.window(usize::MAX).unwrap();
    assert_eq!(reader.total(), Some(records.len() as u64));
    records
}

fn show_input(input: &Input) -> String {
    match input {
        Input::Text(text) => format!("text {text:?}"),
        Input::Ids(ids) => format!("ids {ids:?}"),
        other => panic!("{other:?}"),
    }
}

fn show(record: &Record) -> String {
    let content = match &record.content {
        Ok(Content::Run { input, prefix: None, .. }) => show_input(input),
        Ok(Content::Run { input, prefix: Some(prefix), .. }) => format!("{} {}", show_input(prefix), show_input(input)),
        Ok(Content::Empty) => "empty".to_owned(),
        Err(message) => format!("error {message}"),
    };
    format!("{} {} {content}", record.line.line, serde_json::to_string(&record.id).unwrap())
}

fn shown(bytes: &[u8], format: RecordFormat) -> Vec<String> {
    all(bytes, format).iter().map(show).collect()
}

#[test]
fn text_lines_of_every_ending() {
    let lines = shown(b"\xEF\xBB\xBFone\r\n\ntwo words\n  \nlast", RecordFormat::Text);
    assert_eq!(
        lines,
        [r#"1 0 text "one""#, "2 1 empty", r#"3 2 text "two words""#, r#"4 3 text "  ""#, r#"5 4 text "last""#]
    );
    assert!(shown(b"", RecordFormat::Text).is_empty());
    assert_eq!(shown(b"\n", RecordFormat::Text), ["1 0 empty"]);
    assert_eq!(shown(b"a\n", RecordFormat::Text).len(), 1);
    assert_eq!(shown(b"a\rb\r\r\n", RecordFormat::Text), [r#"1 0 text "a\rb\r""#]);
}

#[test]
fn a_byte_order_mark_counts_only_at_the_start() {
    let lines = shown(b"\xEF\xBB\xBF\n\xEF\xBB\xBFx", RecordFormat::Text);
    assert_eq!(lines, ["1 0 empty", "2 1 text \"\\u{feff}x\""]);
    assert_eq!(shown(b"\xEF\xBB\xBF{\"text\":\"x\"}", RecordFormat::Jsonl), [r#"1 0 text "x""#]);
}

#[test]
fn invalid_utf8_spoils_its_line_only() {
    let lines = shown(b"good\nab\xFFc\nalso good\n", RecordFormat::Text);
    assert_eq!(lines, [r#"1 0 text "good""#, "2 1 error invalid UTF-8 at byte 3", r#"3 2 text "also good""#]);
    let lines = shown(b"{\"id\": 5, \"text\": \"\xC3\"}\n{\"text\":\"b\"}", RecordFormat::Jsonl);
    assert_eq!(lines, ["1 0 error invalid UTF-8 at byte 20", r#"2 1 text "b""#]);
}

#[test]
fn json_records_and_their_ids() {
    let input = concat!(
        r#"{"id": {"doc": [1, 2.50]}, "text": "a\nb"}"#,
        "\n \n",
        r#"{"input_ids": [0, 7, 4294967295], "id": 123456789012345678901234567890}"#,
        "\r\n",
        r#"{"text": "", "id": null, "reference": "ignored"}"#,
    );
    assert_eq!(
        shown(input.as_bytes(), RecordFormat::Jsonl),
        [
            r#"1 {"doc": [1, 2.50]} text "a\nb""#,
            "3 123456789012345678901234567890 ids [0, 7, 4294967295]",
            r#"4 2 text """#,
        ]
    );
}

#[test]
fn what_is_wrong_with_a_json_record() {
    let wrong = |line: &str| {
        let records = all(line.as_bytes(), RecordFormat::Jsonl);
        assert_eq!(records.len(), 1);
        show(&records[0]).strip_prefix("1 0 error ").unwrap().to_owned()
    };
    assert_eq!(wrong("{\"text\": \"a\""), "invalid JSON: EOF while parsing an object at column 12");
    assert_eq!(wrong("{text: 1}"), "invalid JSON: key must be a string at column 2");
    assert_eq!(wrong("plain text"), "invalid JSON: expected value at column 1");
    assert_eq!(wrong("{\"text\":\"a\"} x"), "invalid JSON: trailing characters at column 14");
    assert_eq!(wrong("[null, \"a\", null, null]"), "not a JSON object");
    assert_eq!(wrong("\"a\""), "not a JSON object");
    assert_eq!(wrong("{}"), "neither `text` nor `input_ids`");
    assert_eq!(wrong("{\"text\": null}"), "neither `text` nor `input_ids`");
    assert_eq!(wrong("{\"text\": \"a\", \"input_ids\": [1]}"), "give either `text` or `input_ids`, not both");
    assert_eq!(wrong("{\"text\": 3}"), "`text`: invalid type: integer `3`, expected a string");
    assert_eq!(wrong("{\"text\": [\"a\"]}"), "`text`: invalid type: sequence, expected a string");
    assert_eq!(wrong("{\"input_ids\": \"1 2\"}"), "`input_ids`: invalid type: string \"1 2\", expected a sequence");
    assert_eq!(wrong("{\"input_ids\": [1, -2]}"), "`input_ids`: invalid value: integer `-2`, expected u32");
    assert_eq!(wrong("{\"input_ids\": [1.5]}"), "`input_ids`: invalid type: floating point `1.5`, expected u32");
    assert_eq!(
        wrong("{\"input_ids\": [4294967296]}"),
        "`input_ids`: invalid value: integer `4294967296`, expected u32"
    );
    assert_eq!(wrong("{\"input_ids\": []}"), "`input_ids` is empty");
    assert_eq!(wrong("{\"text\": \"a\", \"prefix\": 3}"), "`prefix`: invalid type: integer `3`, expected a string");
    assert_eq!(wrong("{\"text\": \"a\", \"prefix\": []}"), "`prefix` is empty");
    assert_eq!(wrong("{\"text\": \"a\", \"prefix\": [-1]}"), "`prefix`: invalid value: integer `-1`, expected u32");
    assert!(wrong("{\"text\":\"a\",\"text\":\"b\"}").starts_with("invalid JSON: duplicate field `text`"));
    assert!(wrong("{\"text\":\"\\ud800\"}").starts_with("`text`: "));
}

#[test]
fn a_failing_record_keeps_its_id() {
    assert_eq!(
        shown(br#"{"id": "x", "text": 1}"#, RecordFormat::Jsonl),
        [r#"1 "x" error `text`: invalid type: integer `1`, expected a string"#]
    );
}

#[test]
fn deeply_nested_json_is_an_error_and_no_overflow() {
    let open = "[".repeat(100_000);
    for line in [format!("{{\"id\": {open}"), format!("{{\"text\": {open}{}}}", "]".repeat(100_000)), open] {
        let records = all(line.as_bytes(), RecordFormat::Jsonl);
        assert!(records[0].content.is_err());
    }
}

#[test]
fn absurdly_long_lines_are_skipped() {
    let mut input = vec![b'a'; MAX_LINE_BYTES];
    input.extend_from_slice(b"\r\nx\n");
    input.extend(vec![b'b'; MAX_LINE_BYTES + 1]);
    input.extend_from_slice(b"\ny\n");
    input.extend(vec![b'c'; MAX_LINE_BYTES + 5]);
    let mut reader = RecordReader::from_lines(Box::new(Cursor::new(input)), "in".to_owned(), RecordFormat::Text);
    let records = reader.window(usize::MAX).unwrap();
    assert_eq!(records.len(), 5);
    assert!(
        matches!(&records[0].content, Ok(Content::Run { input: Input::Text(text), .. }) if text.len() == MAX_LINE_BYTES)
    );
    assert_eq!(show(&records[1]), r#"2 1 text "x""#);
    assert_eq!(show(&records[2]), "3 2 error the line is longer than 16 MiB");
    assert_eq!(show(&records[3]), r#"4 3 text "y""#);
    assert_eq!(show(&records[4]), "5 4 error the line is longer than 16 MiB");
}

#[test]
fn windows_are_bounded_and_go_on_where_the_last_ended() {
    let mut lines = reader(b"a\nb\nc\n", RecordFormat::Text);
    assert_eq!(lines.window(2).unwrap().len(), 2);
    assert_eq!(lines.total(), None);
    let rest = lines.window(2).unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!((rest[0].index, rest[0].line.line), (2, 3));
    assert_eq!(lines.total(), Some(3));
    assert!(lines.window(2).unwrap().is_empty());
}

#[test]
fn places_name_the_file_or_the_argument() {
    assert_eq!(reader(b"", RecordFormat::Text).place(Place { file: 0, line: 7 }), "in:7");
    let mut arguments = RecordReader::from_arguments(vec!["a".to_owned(), String::new()]);
    assert_eq!(arguments.place(Place { file: 0, line: 2 }), "argument 2");
    let records: Vec<_> = arguments.window(9).unwrap().iter().map(show).collect();
    assert_eq!(records, [r#"1 0 text "a""#, "2 1 empty"]);
}

#[test]
fn formats_follow_the_file_name() {
    assert_eq!(RecordFormat::of_path(Path::new("a/b.jsonl")), RecordFormat::Jsonl);
    assert_eq!(RecordFormat::of_path(Path::new("b.JSONL")), RecordFormat::Jsonl);
    assert_eq!(RecordFormat::of_path(Path::new("b.json")), RecordFormat::Text);
    assert_eq!(RecordFormat::of_path(Path::new("jsonl")), RecordFormat::Text);
}

#[test]
fn a_missing_file_and_a_directory_are_refused_at_once() {
    assert_eq!(
        RecordReader::from_file(Path::new("no/such/file"), RecordFormat::Text).err().unwrap().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        RecordReader::from_file(Path::new("."), RecordFormat::Text).err().unwrap().kind(),
        io::ErrorKind::IsADirectory
    );
}

#[test]
fn records_may_have_a_prefix() {
    let lines = b"{\"text\": \"a\", \"prefix\": \"b\"}\n{\"text\": \"a\", \"prefix\": null}\n{\"input_ids\": [1], \"prefix\": [2, 3]}\n";
    let records: Vec<_> = reader(lines, RecordFormat::Jsonl).window(9).unwrap().iter().map(show).collect();
    assert_eq!(records, [r#"1 0 text "b" text "a""#, r#"2 1 text "a""#, "3 2 ids [2, 3] ids [1]"]);
}

#[test]
fn skipped_records_keep_their_numbers() {
    let mut lines = reader(b"{}\n\n{\"text\": \"a\"}\nx\n{\"text\": \"b\"}\n", RecordFormat::Jsonl);
    assert_eq!(lines.skip(3).unwrap(), 3);
    let rest: Vec<_> = lines.window(9).unwrap().iter().map(show).collect();
    assert_eq!(rest, [r#"5 3 text "b""#]);
    assert_eq!(lines.skip(3).unwrap(), 0);
}

fn files(dir: &Path, contents: &[&[u8]]) -> Vec<PathBuf> {
    let write = |(number, bytes): (usize, &&[u8])| {
        let path = dir.join(format!("{number}.txt"));
        std::fs::write(&path, bytes).unwrap();
        path
    };
    contents.iter().enumerate().map(write).collect()
}

#[test]
fn several_files_are_one_stream_whose_lines_know_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path(), &[b"\xEF\xBB\xBFa\nb", b"", b"\xEF\xBB\xBFc\n\n", b"d\xFF\n"]);
    let mut reader = RecordReader::from_files(&paths, RecordFormat::Text).unwrap();
    assert_eq!(reader.skip(1).unwrap(), 1);
    let records = reader.window(usize::MAX).unwrap();
    let places: Vec<String> = records.iter().map(|record| reader.place(record.line)).collect();
    let of = |file: usize, line: u64| format!("{}:{line}", paths[file].display());
    assert_eq!(places, [of(0, 2), of(2, 1), of(2, 2), of(3, 1)]);
    let shown: Vec<String> = records.iter().map(show).collect();
    assert_eq!(shown, [r#"2 1 text "b""#, r#"1 2 text "c""#, "2 3 empty", "1 4 error invalid UTF-8 at byte 2"]);
    assert_eq!(reader.total(), Some(5));
}

#[test]
fn several_files_of_records_are_numbered_through() {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path(), &[b"\n{\"text\": \"a\"}\n", b"{\"text\": \"b\", \"x\": 1}\n{"]);
    let mut reader = RecordReader::from_files(&paths, RecordFormat::Jsonl).unwrap();
    let records = reader.window(usize::MAX).unwrap();
    let shown: Vec<String> = records.iter().map(show).collect();
    assert_eq!(&shown[..2], [r#"2 0 text "a""#, r#"1 1 text "b""#]);
    assert!(shown[2].starts_with("2 2 error invalid JSON"), "{shown:?}");
    assert_eq!(reader.take_warnings(), [format!("{}:1: unknown field `x` is ignored", paths[1].display())]);
    assert!(reader.take_warnings().is_empty());
}

#[test]
fn a_file_that_is_missing_is_told_before_the_first_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = files(dir.path(), &[b"a"]);
    for wrong in [dir.path().join("missing"), dir.path().to_owned()] {
        paths.truncate(1);
        paths.push(wrong.clone());
        let (path, error) = RecordReader::from_files(&paths, RecordFormat::Text).err().unwrap();
        assert_eq!(path, wrong);
        assert!([io::ErrorKind::NotFound, io::ErrorKind::IsADirectory].contains(&error.kind()), "{error}");
    }
}

#[test]
fn whole_files_are_one_text_each() {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path(), &[b"\xEF\xBB\xBFone\ntwo\r\n\r\n", b"", b"\n", b"three", b"a\xFF"]);
    let mut reader = RecordReader::from_files(&paths, RecordFormat::Text).unwrap().whole();
    let records = reader.window(usize::MAX).unwrap();
    let shown: Vec<String> = records.iter().map(show).collect();
    assert_eq!(
        shown,
        [
            r#"1 0 text "one\ntwo\r\n""#,
            "1 1 empty",
            "1 2 empty",
            r#"1 3 text "three""#,
            "1 4 error invalid UTF-8 at byte 2"
        ]
    );
    assert_eq!(reader.place(records[4].line), paths[4].display().to_string());
    assert_eq!(reader.total(), Some(5));
}

#[test]
fn a_whole_file_has_the_limit_of_a_line() {
    for (length, end, fits) in [(MAX_LINE_BYTES, "\r\n", true), (MAX_LINE_BYTES + 1, "", false)] {
        let mut text = vec![b'x'; length];
        text.extend(end.as_bytes());
        let mut reader = reader(&text, RecordFormat::Text).whole();
        let record = reader.window(1).unwrap().remove(0);
        assert_eq!(record.content.is_ok(), fits);
        if let Err(message) = record.content {
            assert_eq!(message, "the file is longer than 16 MiB");
        }
        assert!(reader.window(1).unwrap().is_empty());
    }
}

#[test]
fn a_prefix_has_no_part_in_scoring() {
    let line = br#"{"text": "x", "target": "y", "prefix": "z"}"#;
    let mut scored = reader(line, RecordFormat::Jsonl).scored();
    scored.window(1).unwrap();
    assert_eq!(scored.take_warnings(), ["in:1: unknown field `prefix` is ignored"]);
    let mut generated = reader(line, RecordFormat::Jsonl);
    generated.window(1).unwrap();
    assert!(generated.take_warnings().is_empty(), "a file of pairs serves both");
}

#[test]
fn a_source_prefix_is_for_texts() {
    let behind = |line: &[u8]| {
        show(&Record {
            content: Ok(all(line, RecordFormat::Jsonl).remove(0).content.unwrap().behind(Some("summarize: "))),
            ..all(line, RecordFormat::Jsonl).remove(0)
        })
    };
    assert_eq!(behind(br#"{"text": "a b"}"#), r#"1 0 text "summarize: a b""#);
    assert_eq!(behind(br#"{"input_ids": [4]}"#), "1 0 ids [4]");
    assert!(matches!(Content::Empty.behind(Some("x")), Content::Empty));
}
