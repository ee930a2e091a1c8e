//! One model, several threads, each with its own session: `cargo run -p elgen-engine --example threads -- demo/bart-eng-fra`.

use std::error::Error;
use std::path::Path;
use std::thread;

use elgen_engine::{EngineError, Generation, GenerationOptions, Model, Request, RunOptions, SessionOptions, on_done};

/// The translations of each thread's text. The weights are on the device once.
pub(crate) fn run(model: &Path, options: &SessionOptions, texts: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    let model = Model::load(model, options)?;
    let config = model.config(&GenerationOptions::default())?;
    let work = |text: &str| -> Result<String, EngineError> {
        let mut found: Option<Result<Generation, EngineError>> = None;
        let mut session = model.session();
        let request = [Request::new(0, text)];
        session.generate(&request, &config, &RunOptions::default(), &mut on_done(|_, r| found = Some(r)))?;
        let generation = found.unwrap_or(Err(EngineError::Cancelled))?;
        Ok(generation.sequences.into_iter().next().and_then(|s| s.text).unwrap_or_default())
    };
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = texts.iter().map(|text| scope.spawn(move || work(text))).collect();
        let joined = threads.into_iter().map(|t| Ok(t.join().map_err(|_| "a thread panicked")??));
        joined.collect::<Result<Vec<_>, Box<dyn Error>>>()
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).ok_or("give a model's directory")?;
    let texts = ["I was born in 1979.", "Where is the station?", "Tom is tired."];
    for (text, translation) in texts.iter().zip(run(Path::new(&model), &SessionOptions::default(), &texts)?) {
        println!("{text} -> {translation}");
    }
    Ok(())
}
