//! How near texts are to each other, by the means of their hidden states:
//! `cargo run -p elgen-engine --example embeddings -- demo/bart-eng-fra "It is late." "It is very late." "I like cats."`.

use std::error::Error;
use std::path::Path;

use elgen_engine::{HiddenStates, Model, SessionOptions};

/// The cosine of each text's mean state with that of the first text.
pub(crate) fn run(model: &Path, options: &SessionOptions, texts: &[&str]) -> Result<Vec<f32>, Box<dyn Error>> {
    let model = Model::load(model, options)?;
    let means: Vec<Vec<f32>> = model.encode(texts)?.iter().map(HiddenStates::mean).collect();
    let Some(first) = means.first() else { return Ok(Vec::new()) };
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let cosine = |mean: &Vec<f32>| dot(first, mean) / (dot(first, first) * dot(mean, mean)).sqrt();
    Ok(means.iter().map(cosine).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, texts @ ..] = &arguments[..] else { return Err("usage: embeddings MODEL TEXT…".into()) };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (text, cosine) in texts.iter().zip(run(Path::new(model), &SessionOptions::default(), &texts)?) {
        println!("{cosine:.3}  {text}");
    }
    Ok(())
}
