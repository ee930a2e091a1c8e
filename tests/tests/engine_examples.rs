//! The examples of `elgen-engine` on the demo models.

use elgen_engine::{AttentionChoice, SessionOptions};
use elgen_tests::demo::{Story, Translations, session_options};

#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../../crates/engine/examples/custom_processor.rs"]
mod custom_processor;
#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../../crates/engine/examples/embeddings.rs"]
mod embeddings;
#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../../crates/engine/examples/stream.rs"]
mod stream;
#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../../crates/engine/examples/threads.rs"]
mod threads;
#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../../crates/engine/examples/translate.rs"]
mod translate;

fn options() -> SessionOptions {
    session_options(AttentionChoice::MHA, 8)
}

#[test]
fn translate_gives_pytorchs_texts() {
    let data = Translations::load().spread(3);
    let texts: Vec<&str> = data.sources.iter().map(String::as_str).collect();
    assert_eq!(translate::run(&Translations::model(), &options(), &texts).unwrap(), data.hypotheses);
    assert_eq!(threads::run(&Translations::model(), &options(), &texts).unwrap(), data.hypotheses);
}

#[test]
fn embeddings_of_texts_that_say_the_same_are_nearer() {
    let texts = ["It is late.", "It is very late.", "I like cats."];
    let found = embeddings::run(&Translations::model(), &options(), &texts).unwrap();
    assert!((found[0] - 1.0).abs() < 1e-5 && found[1] > found[2] && found[1] < 1.0, "{found:?}");
}

#[test]
fn stream_prints_the_whole_text() {
    let mut out = Vec::new();
    let tokens = stream::run(&Story::model(), &options(), "Once upon a time", &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(tokens == 24 && text.trim_end().len() > 40, "{tokens} tokens: {text:?}");
}

#[test]
fn the_custom_processor_is_heard() {
    let run = |letter| custom_processor::run(&Story::model(), &options(), "Once upon a time", letter).unwrap();
    let (plain, lipogram) = (run('\u{1}'), run('e'));
    assert!(plain.contains('e') && !lipogram.contains('e') && lipogram.len() > 20, "{plain:?}, {lipogram:?}");
}
