//! A logits processor of one's own: `cargo run -p elgen-engine --example custom_processor -- demo/gpt2-stories`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use elgen_engine::{EngineError, Generation, Model, Request, RunOptions, SessionOptions, on_done};
use elgen_search::hooks::{LogitsProcessor, SequenceView};
use elgen_search::{GenerationOptions, Hooks};

/// Never says the same token twice in a row.
#[derive(Debug)]
struct NoEcho;

impl LogitsProcessor for NoEcho {
    fn process(&self, sequence: &SequenceView<'_>, scores: &mut [f32]) {
        if let Some(score) = sequence.token_ids.last().and_then(|last| scores.get_mut(*last as usize)) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// What the model makes of a prompt under this rule.
pub fn run(model: &Path, options: &SessionOptions, prompt: &str) -> Result<Generation, Box<dyn Error>> {
    let model = Model::load(model, options)?;
    let asked = GenerationOptions { num_beams: Some(1), max_new_tokens: Some(24), ..GenerationOptions::default() };
    let hooks = Hooks { processors: vec![Arc::new(NoEcho)], ..Hooks::default() };
    let run = RunOptions { hooks, ..RunOptions::default() };
    let mut found: Option<Result<Generation, EngineError>> = None;
    let events = &mut on_done(|_, result| found = Some(result));
    model.session().generate(&[Request::new(0, prompt)], &model.config(&asked)?, &run, events)?;
    Ok(found.unwrap_or(Err(EngineError::Cancelled))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).ok_or("give a model's directory")?;
    let generation = run(Path::new(&model), &SessionOptions::default(), "Once upon a time")?;
    println!("{}", generation.sequences[0].text.as_deref().unwrap_or_default());
    Ok(())
}
