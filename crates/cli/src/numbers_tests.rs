//! Numbers at their ends, from flags and from files, as far as a command goes before it opens a device: each is refused or planned with, and
//! costs neither time nor memory in proportion to itself.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Arg, CommandFactory, Parser, error::ErrorKind};
use elgen_attention::{Kind, Kinds};
use elgen_engine::{
    BatchWorkload, ConfigOnly, Expected, MemoryPlan, ModelDescription, Registry,
    bench::{BUILTIN_CONFIGS, BatchRows, Sources, Trial},
    describe,
};
use elgen_models::{ModelConfig, Outline};
use elgen_search::{GenerationConfig, GenerationOptions, ModelLimits};
use elgen_tensor::DType;
use serde_json::{Map, Value};

use crate::{
    asked::Asked,
    bench, counting,
    flags::{Cli, Command, EngineFlags, flag},
    plan,
    run::check_alignment,
};

/// The ends of every integer type that a number could pass through, and what lies beside them.
const ENDS: [&str; 11] = [
    "0",
    "1",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "4294967297",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
];

/// Those that pairs are made of.
const PAIR_ENDS: [&str; 6] =
    ["1", "65536", "4294967297", "9007199254740992", "9223372036854775808", "18446744073709551615"];

/// Processor time of a case at most, and its memory.
const MOST_TIME: Duration = Duration::from_secs(1);
const MOST_BYTES: usize = 200 << 20;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// T5, whose positions have no end, and BART, whose positions end.
fn models() -> [PathBuf; 2] {
    ["t5-base-like", "bart-base-like"].map(fixture)
}

/// What commands begin with so that nothing but the numbers is missing.
fn beginning(command: &str, model: &Path) -> Vec<String> {
    let model = model.display().to_string();
    let words: &[&str] = match command {
        "plan" => &["plan", "--model", &model, "--memory-limit=1GiB"],
        "bench" => &["bench", "--model", &model],
        command => &[command, "--model", &model],
    };
    ["elgen"].iter().chain(words).map(|word| (*word).to_owned()).collect()
}

/// A flag with a number, as it is typed.
fn typed(flag: &str, number: &str) -> String {
    match flag {
        "exponential-decay-length-penalty" => format!("--{flag}={number},1.01"),
        _ => format!("--{flag}={number}"),
    }
}

/// The command line with some flags; a flag that stands there already is replaced.
fn line(command: &str, model: &Path, flags: &[String]) -> Vec<String> {
    let mut words = beginning(command, model);
    words.retain(|word| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_none_or(|name| flags.iter().all(|flag| flag.split_once('=').is_none_or(|(other, _)| other != name)))
    });
    words.extend_from_slice(flags);
    words
}

/// The flags of a command that take a number, by their long names: those that take 1 and refuse a word. Counts and sizes are whole numbers.
fn numeric_flags(command: &str) -> Vec<(String, bool)> {
    let all = Cli::command();
    let found = all.find_subcommand(command).expect("the command");
    let takes = |flag: &str, number: &str| {
        let words = line(command, &fixture("t5-base-like"), &[typed(flag, number)]);
        Cli::try_parse_from(words).is_ok()
    };
    let names = found.get_arguments().filter(|arg| arg.get_action().takes_values()).filter_map(Arg::get_long);
    names
        .filter(|name| takes(name, "1") && !takes(name, "one"))
        .map(|name| {
            let id = ["-id", "-ids", "suppress-tokens"].iter().any(|end| name.ends_with(end));
            (name.to_owned(), name == "memory-limit" || (takes(name, "2") && !takes(name, "0.5") && !id))
        })
        .collect()
}

/// Goes as far as a command does before it opens a device. The answer is what the user would see.
struct Dry {
    known: HashMap<PathBuf, ModelDescription>,
}

impl Dry {
    fn new() -> Self {
        let known = models().map(|model| {
            let described = describe(&model).expect("a fixture");
            (model, described)
        });
        Self { known: known.into() }
    }

    fn run(&self, words: &[String]) -> Result<String, String> {
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Plan(arguments) => plan::text(&arguments, &Registry::default()).map_err(|error| error.to_string()),
            Command::Bench(arguments) => {
                let trials = bench::trials(&arguments).map_err(|error| error.to_string())?;
                let limit = arguments.runs.memory_limit.unwrap_or(1 << 30);
                trials.first().map_or(Err("no rows".to_owned()), |(model, trial)| run_trial(model, trial, limit))
            }
            Command::Generate(arguments) => {
                let asked = Asked::gather(&arguments.generation).map_err(|error| error.to_string())?;
                let model = &self.known[&arguments.model];
                check_alignment(&arguments.files, model).map_err(|error| error.to_string())?;
                let options = asked.options.or(model.checkpoint_options.clone());
                let (config, _) = options.resolve(&model.limits).map_err(|error| error.to_string())?;
                let source = arguments.files.max_source_length.unwrap_or(7);
                run_for(model, &config, &arguments.engine, source)
            }
            Command::Score(arguments) => {
                let model = &self.known[&arguments.model];
                let (config, _) =
                    model.checkpoint_options.clone().resolve(&model.limits).map_err(|error| error.to_string())?;
                run_for(model, &config, &arguments.engine, arguments.files.max_source_length.unwrap_or(7))
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The sums of a run: lengths, and what its batches would take with every attention kind.
fn run_for(
    model: &ModelDescription,
    config: &GenerationConfig,
    engine: &EngineFlags,
    source: usize,
) -> Result<String, String> {
    config.check(&model.limits).map_err(|error| format!("what was resolved does not pass: {error}"))?;
    let lengths = config.lengths(1).map_err(|error| error.to_string())?;
    let options = engine.session_options(&Registry::default(), Expected::default());
    let sentences = engine.first_window();
    sums(&model.config, config, source, lengths.max_length - 1, sentences, options.memory_limit.unwrap_or(1 << 30))
}

/// The sums of a trial of `bench`.
fn run_trial(model: &ConfigOnly, trial: &Trial, memory_limit: u64) -> Result<String, String> {
    let outline = Outline::new(model.config());
    let options = GenerationOptions {
        num_beams: Some(trial.num_beams),
        max_new_tokens: Some(trial.new_tokens),
        decoder_start_token_id: Some(0),
        ..GenerationOptions::default()
    };
    let (config, _) = options.resolve(&outline.limits).map_err(|error| error.to_string())?;
    let new = config.lengths(1).map_err(|error| error.to_string())?.max_length - 1;
    let Sources::Fixed(source) = trial.sources else { return Err("lengths from a file".to_owned()) };
    let sentences = match trial.batch {
        BatchRows::Sentences(sentences) => sentences,
        BatchRows::Largest => usize::MAX,
    };
    sums(model.config(), &config, source, new, sentences, memory_limit)
}

fn sums(
    model: &ModelConfig,
    config: &GenerationConfig,
    source: usize,
    new: usize,
    sentences: usize,
    memory_limit: u64,
) -> Result<String, String> {
    let (source, prompt) = if Outline::new(model).limits.is_encoder_decoder { (source, 1) } else { (0, source.max(1)) };
    let workload = BatchWorkload::new(config, source, prompt, new);
    let mut told = String::new();
    for kind in Kind::BUILT_IN {
        let plan = MemoryPlan {
            model,
            kinds: Kinds::both(kind),
            formats: DType::F16.into(),
            max_binding_bytes: 2 << 30,
            memory_limit,
        };
        match plan.predict(&workload, sentences) {
            Ok(bytes) => told += &format!("{} bytes, ", bytes.total),
            Err(error) => told += &format!("{error}, "),
        }
        told += &format!("{:?} at most; ", plan.largest_batch(&workload));
    }
    Ok(told)
}

#[track_caller]
fn cheap<T>(case: &dyn std::fmt::Debug, run: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let (result, spent) = counting::measure(run);
    assert!(spent.time <= MOST_TIME && spent.bytes <= MOST_BYTES, "{case:?}: {spent:?}");
    match result {
        Ok(found) => Some(found),
        Err(message) => {
            let first = message.trim_end();
            assert!(!first.is_empty() && !first.contains("panicked"), "{case:?}: {message:?}");
            None
        }
    }
}

#[test]
fn every_numeric_flag_alone() {
    let dry = Dry::new();
    for (command, least) in [("generate", 30), ("score", 5), ("plan", 5), ("bench", 10)] {
        let flags = numeric_flags(command);
        println!("{command}: {flags:?}");
        assert!(flags.len() >= least, "{command} has few flags with numbers: {flags:?}");
        let mut planned = 0;
        for model in models() {
            for (flag, _) in &flags {
                for number in ENDS {
                    let words = line(command, &model, &[typed(flag, number)]);
                    planned += usize::from(cheap(&words, || dry.run(&words)).is_some());
                }
            }
        }
        assert!(planned > flags.len(), "{command}: only {planned} cases were planned");
    }
}

/// Bounds of what an input may cost: they are compared with what is there, and nothing has their size.
const LIMITS: [(&str, &str); 2] = [("eval", "max-word-pairs"), ("tokenize", "max-text-bytes")];

#[test]
fn no_other_command_takes_numbers() {
    // A command whose flags begin to take numbers has its place in the tests above.
    let refused = |words: &[&str]| {
        let error = Cli::try_parse_from(words).err().map(|error| error.kind());
        matches!(error, Some(ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::UnknownArgument))
    };
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        if ["generate", "score", "plan", "bench"].contains(&name) {
            continue;
        }
        for flag in command.get_arguments().filter(|arg| arg.get_action().takes_values()).filter_map(Arg::get_long) {
            if LIMITS.contains(&(name, flag)) {
                continue;
            }
            let [number, word] = ["1", "one"].map(|value| refused(&["elgen", name, &format!("--{flag}={value}")]));
            assert!(number || !word, "{name} --{flag} takes a number");
        }
    }
}

#[test]
fn every_pair_of_counts_and_sizes() {
    let dry = Dry::new();
    let model = &models()[0];
    for (command, least) in [("generate", 12), ("plan", 5), ("bench", 8)] {
        let counts: Vec<String> =
            numeric_flags(command).into_iter().filter(|(_, counts)| *counts).map(|(flag, _)| flag).collect();
        println!("{command}: {counts:?}");
        assert!(counts.len() >= least, "{command} has few counts: {counts:?}");
        for (at, first) in counts.iter().enumerate() {
            for second in &counts[at + 1..] {
                for a in PAIR_ENDS {
                    for b in PAIR_ENDS {
                        let words = line(command, model, &[typed(first, a), typed(second, b)]);
                        cheap(&words, || dry.run(&words));
                    }
                }
            }
        }
    }
}

/// Options of a file, checked and planned with for T5's widths.
fn planned(limits: &ModelLimits, model: &ModelConfig, options: &Map<String, Value>) -> Result<String, String> {
    let options = GenerationOptions::from_json(options).map_err(|error| error.to_string())?;
    let (config, _) = options.resolve(limits).map_err(|error| error.to_string())?;
    config.check(limits).map_err(|error| format!("what was resolved does not pass: {error}"))?;
    let new = config.lengths(1).map_err(|error| error.to_string())?.max_length - 1;
    sums(model, &config, 7, new, 3, 1 << 30)
}

#[test]
fn every_number_of_generation_options_in_files() {
    let model = describe(&models()[0]).unwrap();
    let values =
        ENDS.iter().chain(&["-1", "1e308", "9.2e18", "0.5"]).map(|number| serde_json::from_str(number).unwrap());
    let values: Vec<Value> = values.collect();
    let mut planned_cases = 0;
    for sampling in [false, true] {
        for option in GenerationOptions::NAMES {
            for value in &values {
                let forms = [
                    value.clone(),
                    Value::from(vec![value.clone()]),
                    Value::from(vec![value.clone(), Value::from(1.5)]),
                    Value::from(vec![vec![value.clone()]]),
                ];
                for form in forms {
                    let mut options = Map::new();
                    options.insert("decoder_start_token_id".to_owned(), 0.into());
                    options.insert("do_sample".to_owned(), sampling.into());
                    options.insert((*option).to_owned(), form);
                    let case = format!("{options:?}");
                    let found = cheap(&case, || planned(&model.limits, &model.config, &options));
                    planned_cases += usize::from(found.is_some());
                }
            }
        }
    }
    assert!(planned_cases > 100, "only {planned_cases} cases were planned");
}

#[test]
fn every_number_of_a_config() {
    for (name, text) in BUILTIN_CONFIGS {
        let whole: Map<String, Value> = serde_json::from_str(text).unwrap();
        // Keys that the built-in configs leave to their class.
        let more =
            ["relative_attention_num_buckets", "relative_attention_max_distance", "num_decoder_layers", "n_inner"];
        let keys = whole.iter().filter(|(_, value)| value.is_number()).map(|(key, _)| key.as_str()).chain(more);
        for key in keys {
            for number in ENDS.iter().chain(&["1000", "65536", "1000000", "9.2e18"]) {
                let mut config = whole.clone();
                config.insert(key.to_owned(), serde_json::from_str(number).unwrap());
                let case = format!("{name}: {key} = {number}");
                cheap(&case, || {
                    let text = Value::Object(config.clone()).to_string();
                    let found = ConfigOnly::parse(&text, "config.json".as_ref()).map_err(|error| error.to_string())?;
                    found.config().summary();
                    found.config().parameters().map_err(|error| error.to_string())?;
                    let limits = Outline::new(found.config()).limits;
                    let options = GenerationOptions {
                        max_new_tokens: Some(20),
                        decoder_start_token_id: Some(0),
                        eos_token_id: None,
                        ..GenerationOptions::default()
                    };
                    let (config, _) = options.resolve(&limits).map_err(|error| error.to_string())?;
                    for sentences in [1, usize::MAX] {
                        sums(found.config(), &config, 7, 20, sentences, u64::MAX)?;
                    }
                    Ok(())
                });
            }
        }
    }
}

#[test]
fn options_by_name_are_options_by_flag() {
    // `--set` reaches the same checks.
    let dry = Dry::new();
    let model = &models()[0];
    for option in GenerationOptions::NAMES.iter().filter(|option| **option != "stop_strings") {
        assert!(flag(option).starts_with("--"));
        for number in ENDS {
            let words = line("generate", model, &["--set".to_owned(), format!("{option}={number}")]);
            cheap(&words, || dry.run(&words));
        }
    }
}
