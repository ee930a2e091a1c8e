//! Prints a story while it is written: `cargo run -p elgen-engine --example stream -- demo/gpt2-stories`.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use elgen_engine::{
    EngineError, Events, Generation, GenerationOptions, Model, Request, RunOptions, SessionOptions, StreamedToken,
};

/// Writes each piece of text as it comes.
struct Printer<W> {
    out: W,
    tokens: usize,
    result: Result<(), EngineError>,
}

impl<W: Write> Events for Printer<W> {
    fn token(&mut self, token: &StreamedToken) {
        self.tokens += 1;
        let _ = write!(self.out, "{}", token.text).and_then(|()| self.out.flush());
    }

    fn sequence_end(&mut self, _index: usize, _sequence: usize, rest: &str) {
        let _ = writeln!(self.out, "{rest}");
    }

    fn done(&mut self, _index: usize, result: Result<Generation, EngineError>) {
        self.result = result.map(|_| ());
    }
}

/// Streams one story to `out`; returns the number of its tokens.
pub(crate) fn run(
    model: &Path,
    options: &SessionOptions,
    prompt: &str,
    out: &mut impl Write,
) -> Result<usize, Box<dyn Error>> {
    let model = Model::load(model, options)?;
    let asked = GenerationOptions { num_beams: Some(1), max_new_tokens: Some(24), ..GenerationOptions::default() };
    let config = model.config(&asked)?;
    let run = RunOptions::default().with_stream(true);
    let mut printer = Printer { out, tokens: 0, result: Ok(()) };
    model.session().generate(&[Request::new(0, prompt)], &config, &run, &mut printer)?;
    printer.result?;
    Ok(printer.tokens)
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).ok_or("give a model's directory")?;
    let prompt = "Once upon a time";
    print!("{prompt}");
    run(Path::new(&model), &SessionOptions::default(), prompt, &mut std::io::stdout())?;
    Ok(())
}
