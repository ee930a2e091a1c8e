//! A logits processor of one's own, here one that writes a lipogram, a text without a certain letter:
//! `cargo run -p elgen-engine --example custom_processor -- demo/gpt2-stories`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use elgen_engine::{
    EngineError, Generation, GenerationOptions, Hooks, LogitsProcessor, Model, Request, RunOptions, SequenceView,
    SessionOptions, on_done,
};

/// Bans every token with the letter.
#[derive(Debug)]
struct Without {
    banned: Vec<u32>,
}

impl Without {
    fn new(letter: char, model: &Model) -> Result<Self, Box<dyn Error>> {
        let tokenizer = model.tokenizer().ok_or("the model has no tokenizer")?;
        let ids = 0..model.limits().vocab_size as u32;
        let has = |id: &u32| tokenizer.decode(&[*id], true).is_ok_and(|text| text.contains(letter));
        Ok(Self { banned: ids.filter(has).collect() })
    }
}

impl LogitsProcessor for Without {
    fn process(&self, _sequence: &SequenceView<'_>, scores: &mut [f32]) {
        for id in &self.banned {
            scores[*id as usize] = f32::NEG_INFINITY;
        }
    }
}

/// Continues a prompt without the letter.
pub(crate) fn run(
    model: &Path,
    options: &SessionOptions,
    prompt: &str,
    letter: char,
) -> Result<String, Box<dyn Error>> {
    let model = Model::load(model, options)?;
    let asked = GenerationOptions { num_beams: Some(1), max_new_tokens: Some(24), ..GenerationOptions::default() };
    let hooks = Hooks { processors: vec![Arc::new(Without::new(letter, &model)?)], ..Hooks::default() };
    let run = RunOptions::default().with_hooks(hooks);
    let mut found: Option<Result<Generation, EngineError>> = None;
    let events = &mut on_done(|_, result| found = Some(result));
    model.session().generate(&[Request::new(0, prompt)], &model.config(&asked)?, &run, events)?;
    let generation = found.unwrap_or(Err(EngineError::Cancelled))?;
    Ok(generation.sequences.into_iter().next().and_then(|s| s.text).unwrap_or_default())
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).ok_or("give a model's directory")?;
    println!("{}", run(Path::new(&model), &SessionOptions::default(), "Once upon a time", 'e')?);
    Ok(())
}
