//! How much the planner's picks lose: runs what `--attention auto` picks and every other combination of kinds, each at the largest batch
//! that the plan gives it, on models with random weights. Regret is the pick's time per sentence over the best one's, minus one.
//!
//! `planner_regret [small|full] [first,last]`: `small` (the default) is made for software adapters, `full` for GPUs; `first,last` runs some
//! of the points. A table goes to stderr, JSON to stdout. `$ELGEN_TEST_DEVICE` selects the adapter.

use std::time::Instant;

use elgen_engine::{
    AttentionChoice, BatchSize, ConfigOnly, DtypeChoice, Expected, Model, PlannedKinds, Request, RunOptions, Session,
    SessionOptions, on_done,
};
use elgen_search::{GenerationConfig, GenerationOptions};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

/// One Session tuple.
#[derive(Clone, Copy, Debug)]
struct Point {
    encoder: bool,
    d_model: usize,
    heads: usize,
    layers: usize,
    beams: usize,
    source: usize,
    new_tokens: usize,
    batch: usize,
    memory_mib: Option<u64>,
}

const fn point(
    (encoder, d_model, heads, layers): (bool, usize, usize, usize),
    (beams, source, new_tokens): (usize, usize, usize),
    batch: usize,
    memory_mib: u64,
) -> Point {
    let memory_mib = if memory_mib == 0 { None } else { Some(memory_mib) };
    Point { encoder, d_model, heads, layers, beams, source, new_tokens, batch, memory_mib }
}

/// 30 points for a software adapter: widths, heads, beams and lengths, with and without memory to spare.
const SMALL: [Point; 30] = [
    point((true, 64, 2, 2), (1, 32, 12), 8, 0),
    point((true, 64, 2, 2), (4, 32, 12), 8, 0),
    point((true, 64, 2, 2), (4, 256, 12), 8, 0),
    point((true, 64, 2, 2), (4, 256, 12), 64, 24),
    point((true, 128, 1, 2), (1, 64, 12), 8, 0),
    point((true, 128, 1, 2), (2, 256, 8), 8, 0),
    point((true, 128, 2, 2), (4, 128, 8), 8, 0),
    point((true, 128, 4, 2), (1, 256, 8), 8, 0),
    point((true, 128, 4, 2), (4, 256, 8), 8, 0),
    point((true, 128, 4, 2), (4, 256, 8), 32, 24),
    point((true, 128, 8, 2), (2, 128, 8), 8, 0),
    point((true, 128, 8, 4), (4, 64, 8), 8, 0),
    point((true, 256, 2, 2), (1, 128, 8), 4, 0),
    point((true, 256, 4, 2), (2, 128, 8), 4, 0),
    point((true, 256, 4, 2), (4, 256, 8), 16, 40),
    point((true, 256, 8, 2), (1, 256, 8), 4, 0),
    point((true, 256, 8, 3), (4, 64, 8), 4, 0),
    point((true, 256, 16, 2), (4, 64, 8), 4, 0),
    point((true, 512, 8, 1), (1, 128, 6), 2, 0),
    point((true, 512, 8, 1), (4, 64, 6), 4, 0),
    point((false, 64, 1, 2), (1, 64, 24), 8, 0),
    point((false, 64, 2, 2), (1, 16, 24), 16, 0),
    point((false, 64, 2, 2), (4, 128, 16), 8, 0),
    point((false, 128, 2, 2), (1, 256, 12), 8, 0),
    point((false, 128, 4, 2), (4, 64, 12), 8, 0),
    point((false, 128, 4, 4), (4, 256, 12), 32, 32),
    point((false, 128, 8, 2), (1, 128, 12), 8, 0),
    point((false, 256, 4, 2), (1, 128, 12), 4, 0),
    point((false, 256, 4, 2), (4, 128, 12), 4, 0),
    point((false, 256, 8, 2), (2, 64, 12), 4, 0),
];

/// 30 points for a GPU: the shapes of BART, the classic Transformer and GPT-2.
const FULL: [Point; 30] = [
    point((true, 1024, 16, 12), (4, 1024, 140), 32, 0),
    point((true, 1024, 16, 12), (4, 1024, 140), 512, 16384),
    point((true, 1024, 16, 12), (1, 1024, 140), 32, 0),
    point((true, 1024, 16, 12), (1, 1024, 140), 1024, 16384),
    point((true, 1024, 16, 12), (6, 1024, 60), 32, 0),
    point((true, 1024, 16, 12), (6, 1024, 60), 512, 16384),
    point((true, 1024, 16, 12), (4, 256, 60), 64, 0),
    point((true, 1024, 16, 12), (4, 1024, 140), 1, 0),
    point((true, 1024, 16, 12), (4, 1024, 140), 128, 4096),
    point((true, 768, 12, 6), (4, 1024, 140), 32, 0),
    point((true, 768, 12, 6), (4, 1024, 140), 1024, 16384),
    point((true, 768, 12, 6), (1, 512, 64), 64, 0),
    point((true, 768, 12, 6), (8, 512, 64), 64, 0),
    point((true, 768, 12, 6), (4, 1024, 64), 256, 2048),
    point((true, 512, 8, 6), (4, 128, 64), 256, 0),
    point((true, 512, 8, 6), (4, 512, 32), 256, 0),
    point((true, 512, 8, 6), (4, 512, 32), 2048, 4096),
    point((true, 512, 4, 6), (1, 512, 64), 128, 0),
    point((true, 1024, 8, 6), (4, 512, 64), 64, 0),
    point((true, 1024, 4, 6), (1, 1024, 64), 64, 0),
    point((false, 768, 12, 12), (1, 512, 140), 64, 0),
    point((false, 768, 12, 12), (4, 512, 140), 64, 0),
    point((false, 768, 12, 12), (4, 512, 140), 512, 8192),
    point((false, 768, 12, 12), (1, 16, 512), 64, 0),
    point((false, 1024, 16, 24), (1, 512, 140), 32, 0),
    point((false, 1024, 16, 24), (4, 512, 140), 32, 0),
    point((false, 1024, 16, 24), (4, 512, 140), 256, 8192),
    point((false, 1280, 20, 36), (1, 512, 100), 16, 0),
    point((false, 1280, 20, 36), (4, 512, 100), 64, 16384),
    point((false, 1600, 25, 48), (1, 512, 60), 16, 0),
];

const VOCAB: usize = 4096;

/// Timed runs of each combination on a software adapter.
const TURNS: usize = 5;

/// A warm session, what it runs, and its best seconds per sentence so far.
struct Contender {
    session: Session,
    config: GenerationConfig,
    requests: Vec<Request>,
    best: f64,
}

impl Contender {
    /// Every sentence has the point's lengths, whatever its ids.
    fn run(&mut self) -> Result<(), Failure> {
        let mut failure = None;
        let mut events = on_done(|_, result| failure = result.err().or(failure.take()));
        let started = Instant::now();
        self.session.generate(&self.requests, &self.config, &RunOptions::default(), &mut events)?;
        let seconds = started.elapsed().as_secs_f64();
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        self.best = self.best.min(seconds / self.requests.len() as f64);
        Ok(())
    }
}

impl Point {
    fn config(&self) -> Result<ConfigOnly, Failure> {
        let positions = (self.source + self.new_tokens + 8).max(64);
        let config = if self.encoder {
            json!({
                "model_type": "bart", "vocab_size": VOCAB, "d_model": self.d_model, "max_position_embeddings": positions,
                "encoder_layers": self.layers, "decoder_layers": self.layers,
                "encoder_attention_heads": self.heads, "decoder_attention_heads": self.heads,
                "encoder_ffn_dim": 4 * self.d_model, "decoder_ffn_dim": 4 * self.d_model,
            })
        } else {
            json!({
                "model_type": "gpt2", "vocab_size": VOCAB, "n_embd": self.d_model, "n_layer": self.layers,
                "n_head": self.heads, "n_positions": positions, "bos_token_id": 1, "eos_token_id": 2,
            })
        };
        Ok(ConfigOnly::parse(&config.to_string(), "config.json".as_ref())?)
    }

    fn options(&self, attention: AttentionChoice, batch: usize) -> SessionOptions {
        SessionOptions::default()
            .with_attention(attention)
            .with_dtype(DtypeChoice::F32)
            .with_device(std::env::var("ELGEN_TEST_DEVICE").ok())
            .with_batch_size(BatchSize::Sentences(batch))
            .with_memory_limit(self.memory_mib.map(|mib| mib << 20))
            .with_expected(
                Expected::default()
                    .with_num_beams(self.beams)
                    .with_source_length(self.source)
                    .with_max_new_tokens(self.new_tokens),
            )
    }

    /// A session of these kinds that has run once, with what it is to run.
    fn warm(&self, attention: AttentionChoice, batch: usize) -> Result<Contender, Failure> {
        let model = Model::random(&self.config()?, 1, &self.options(attention, batch))?;
        let asked = GenerationOptions {
            num_beams: Some(self.beams),
            max_new_tokens: Some(self.new_tokens),
            min_new_tokens: Some(self.new_tokens),
            ..GenerationOptions::default()
        };
        let config = model.config(&asked)?;
        let ids =
            |n: usize| (0..self.source).map(|i| (3 + (n * 131 + i * 17) % (VOCAB - 3)) as u32).collect::<Vec<_>>();
        let requests: Vec<Request> = (0..batch).map(|n| Request::new(n as u64, ids(n))).collect();
        let mut contender = Contender { session: model.session(), config, requests, best: f64::INFINITY };
        contender.run()?;
        contender.best = f64::INFINITY;
        Ok(contender)
    }

    /// The regret, and what it was made of.
    fn regret(&self) -> Result<(f64, Value), Failure> {
        let model = Model::random(&self.config()?, 1, &self.options(AttentionChoice::Auto, self.batch))?;
        let plan = model.plan().cloned().ok_or("a model without a plan")?;
        let picked = (model.kinds().self_.name().to_owned(), model.kinds().cross.name().to_owned());
        let software = model.device().capabilities().software;
        drop(model);
        let candidates: Vec<_> = plan.candidates.iter().filter_map(|c| Some((c, c.batch?))).collect();
        let warm = |(candidate, batch): &(&PlannedKinds, usize)| -> Result<Contender, Failure> {
            let choice = elgen_engine::Registry::default().choice(&candidate.self_, candidate.cross.as_deref());
            self.warm(choice.ok_or("a kind without a name")?, *batch)
        };
        let mut seconds = Vec::new();
        if software {
            // All at once and in turns, so that what else the machine does meets each of them.
            let mut contenders = candidates.iter().map(warm).collect::<Result<Vec<_>, _>>()?;
            for _ in 0..TURNS {
                contenders.iter_mut().try_for_each(Contender::run)?;
            }
            seconds.extend(contenders.iter().map(|c| c.best));
        } else {
            // Too large to be held together.
            for candidate in &candidates {
                let mut contender = warm(candidate)?;
                contender.run()?;
                contender.run()?;
                seconds.push(contender.best);
            }
        }
        let (mut best, mut own, mut runs) = (f64::INFINITY, f64::NAN, Vec::new());
        for ((candidate, batch), seconds) in candidates.into_iter().zip(seconds) {
            best = best.min(seconds);
            if candidate.self_ == picked.0 && candidate.cross.as_ref().is_none_or(|cross| *cross == picked.1) {
                own = seconds;
            }
            runs.push(json!({
                "self": candidate.self_, "cross": candidate.cross, "batch": batch,
                "measured_sentences_per_second": 1.0 / seconds, "predicted_sentences_per_second": candidate.sentences_per_second,
            }));
        }
        let regret = own / best - 1.0;
        let report = json!({
            "encoder": self.encoder, "d_model": self.d_model, "heads": self.heads, "layers": self.layers, "beams": self.beams,
            "source": self.source, "new_tokens": self.new_tokens, "batch_limit": self.batch, "memory_limit_mib": self.memory_mib,
            "pick": {"self": picked.0, "cross": plan.cross_reason.as_ref().map(|_| picked.1)},
            "why": {"self": plan.self_reason, "cross": plan.cross_reason}, "runs": runs, "regret": regret,
        });
        Ok((regret, report))
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let points = match arguments.first().map(String::as_str) {
        None | Some("small") => &SMALL,
        Some("full") => &FULL,
        Some(other) => return Err(format!("{other}: give small or full").into()),
    };
    let range = match arguments.get(1) {
        None => 0..points.len(),
        Some(text) => {
            let (first, last) = text.split_once(',').ok_or("give first,last")?;
            first.parse()?..last.parse::<usize>()?.min(points.len() - 1) + 1
        }
    };
    let mut reports = Vec::new();
    let mut sum = 0.0;
    for (number, point) in points.iter().enumerate().take(range.end).skip(range.start) {
        let (regret, report) = point.regret().map_err(|error| format!("point {number}, {point:?}: {error}"))?;
        let kind = |place: &str| report["pick"][place].as_str().unwrap_or("-").to_owned();
        eprintln!(
            "{number:2}  self {:4} cross {:12} regret {:6.1} %  {point:?}",
            kind("self"),
            kind("cross"),
            100.0 * regret
        );
        sum += regret;
        reports.push(report);
    }
    let mean = sum / reports.len().max(1) as f64;
    eprintln!("mean regret {:.1} % over {} points", 100.0 * mean, reports.len());
    println!("{:#}", json!({"mean_regret": mean, "points": reports}));
    Ok(())
}
