//! Translates a few sentences: `cargo run -p elgen-engine --example translate -- demo/bart-eng-fra`.

use std::error::Error;
use std::path::Path;

use elgen_engine::{GenerationOptions, Model, SessionOptions};

/// Translates with four beams.
pub(crate) fn run(model: &Path, options: &SessionOptions, texts: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    let model = Model::load(model, options)?;
    let config = model.config(&GenerationOptions { num_beams: Some(4), ..GenerationOptions::default() })?;
    let generations = model.generate(texts, &config)?;
    Ok(generations.into_iter().filter_map(|g| g.sequences.into_iter().next()?.text).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).ok_or("give a model's directory")?;
    let texts = ["I was born in 1979.", "Where is the station?"];
    for (text, translation) in texts.iter().zip(run(Path::new(&model), &SessionOptions::default(), &texts)?) {
        println!("{text} -> {translation}");
    }
    Ok(())
}
