//! Odd values of the keys of `config.json` and `generation_config.json`, one at a time, against what transformers made of them
//! (`tools/make_sweep_fixtures.py`): the same ids, or an error in both. What elgen decides otherwise stands in [`REASONS`].

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use elgen_engine::{
    AttentionChoice, DtypeChoice, Model, Request, RunOptions, SessionOptions, describe, on_done, open_device,
};
use elgen_models::ModelConfig;
use elgen_search::GenerationConfig;
use elgen_tensor::Device;
use elgen_tests::repo_root;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Sweep {
    bases: Vec<Base>,
}

#[derive(Deserialize)]
struct Base {
    name: String,
    model: String,
    generation: Map<String, Value>,
    inputs: Vec<Vec<u32>>,
    outcomes: Vec<Outcome>,
    config: HashMap<String, Vec<Vec<Value>>>,
    generation_keys: HashMap<String, Vec<Vec<Value>>>,
}

/// Per input its sequences, or nothing where it failed.
type Outcome = Vec<Option<Vec<Vec<u32>>>>;

/// One value of one key.
struct Case<'a> {
    of_config: bool,
    key: &'a str,
    /// `None`: the key is taken out.
    value: Option<&'a Value>,
    /// What transformers made of it: an outcome, or an error.
    expected: Option<usize>,
    /// Transformers made up weights that the file lacks.
    made_up: bool,
}

impl Case<'_> {
    fn is(&self, keys: &[&str]) -> bool {
        keys.contains(&self.key)
    }

    fn number(&self) -> Option<f64> {
        self.value.and_then(Value::as_f64)
    }
}

/// What elgen does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Difference {
    /// Fails, where transformers runs.
    Refuses,
    /// Runs, where transformers fails.
    Accepts,
    /// Gives other ids.
    Gives,
}
use Difference::{Accepts, Gives, Refuses};

/// What elgen decides otherwise, and why; the same rows stand in docs/testing.md.
type Reason = (&'static str, fn(&Case<'_>, Difference) -> bool);
const REASONS: &[Reason] = &[
    (
        "what config.json does not say, or says as null, is the class's default, and keys without a part have any type",
        |case, difference| {
            let unread = case.is(&["use_cache", "is_decoder", "model_type", "forced_eos_token_id"]);
            let absent = case.value.is_none_or(Value::is_null);
            difference == Accepts && case.of_config && (unread || absent)
        },
    ),
    ("a checkpoint's length is cut to the positions, whatever it is", |case, difference| {
        difference == Accepts && case.is(&["max_length", "max_new_tokens"]) && case.number() > Some(48.0)
    }),
    (
        "a number may be written as a float, an int or a boolean, and an empty list asks for nothing",
        |case, difference| difference == Accepts && case.value.is_some_and(plain) && !case.is(&["use_cache"]),
    ),
    ("a type is checked where the option acts: a text for top_k is one where no token is drawn", |case, difference| {
        difference == Accepts && case.is(&["top_k"])
    }),
    ("a decay whose ends cannot come has nothing to raise", |case, difference| {
        difference == Accepts && case.is(&["eos_token_id"]) && !case.of_config
    }),
    ("a flag, an id or a count is no text, no nested list and no fraction", |case, difference| {
        let nested = |value: &Value| value.as_array().is_some_and(|items| items.iter().any(Value::is_array));
        let fraction = !case.of_config && case.number().is_some_and(|x| x.fract() != 0.0);
        difference == Refuses && (fraction || case.value.is_some_and(|value| value.is_string() || nested(value)))
    }),
    ("a model has layers, norms a positive epsilon, and those of OPT weights", |case, difference| {
        let layers =
            ["n_layer", "encoder_layers", "decoder_layers", "num_layers", "num_decoder_layers", "num_hidden_layers"];
        let norms = ["layer_norm_epsilon", "layer_norm_elementwise_affine"];
        difference == Refuses && (case.is(&layers) && case.number() <= Some(0.0) || case.is(&norms))
    }),
    ("two names of one thing must agree, and a family's kind cannot be denied", |case, difference| {
        difference != Accepts && case.is(&["num_attention_heads", "num_hidden_layers", "is_encoder_decoder"])
    }),
    ("an id that is to be forced at the end must exist, whether or not the end is reached", |case, difference| {
        difference == Refuses && case.is(&["forced_eos_token_id"])
    }),
    ("accidents of Python: a cache for 0, sequences [:-1] for -1, an index of true", |case, _| {
        let zero = case.is(&["use_cache"]) && case.number() == Some(0.0);
        let few = case.is(&["num_return_sequences"]) && case.number() < Some(1.0);
        let index = case.is(&["forced_bos_token_id"])
            && (case.value == Some(&Value::Bool(true)) || case.value.is_some_and(Value::is_array));
        !case.of_config && (zero || few || index)
    }),
];

/// Whether a value is a number or a boolean, or a list of such; an empty one too.
fn plain(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(plain),
        other => other.is_number() || other.is_boolean(),
    }
}

/// Runs the cases of a base; each model and each set of options once.
struct Runner<'a> {
    base: &'a Base,
    folder: tempfile::TempDir,
    device: &'a Device,
    models: HashMap<String, Option<Model>>,
    runs: HashMap<String, Outcome>,
}

impl Runner<'_> {
    fn outcome(&mut self, config: &Map<String, Value>, generation: &Map<String, Value>) -> Outcome {
        let nothing = vec![None; self.base.inputs.len()];
        let write = |name: &str, map: &Map<String, Value>| {
            let text = serde_json::to_string(map).expect("JSON");
            fs::write(self.folder.path().join(name), text).expect("a writable folder");
        };
        write("config.json", config);
        write("generation_config.json", generation);
        let Ok(described) = describe(self.folder.path()) else { return nothing };
        let Ok((options, _)) = described.checkpoint_options.resolve(&described.limits) else { return nothing };
        let shape = shape(&described.config);
        let run = format!("{shape} {options:?}");
        if let Some(known) = self.runs.get(&run) {
            return known.clone();
        }
        let load = SessionOptions::default().with_attention(AttentionChoice::MHA).with_dtype(DtypeChoice::F32);
        let model =
            self.models.entry(shape).or_insert_with(|| Model::load_on(self.device, self.folder.path(), &load).ok());
        let outcome = model.as_ref().map_or(nothing, |model| generate(model, &self.base.inputs, &options));
        self.runs.insert(run, outcome.clone());
        outcome
    }
}

/// What loading depends on: all but the ids.
fn shape(config: &ModelConfig) -> String {
    format!("{} {:?} {:?}", config.family(), config.dtype(), config.family_config())
}

fn generate(model: &Model, inputs: &[Vec<u32>], options: &GenerationConfig) -> Outcome {
    let requests: Vec<Request> = (0..).zip(inputs).map(|(n, ids)| Request::new(n, ids.clone())).collect();
    let mut outcome = vec![None; inputs.len()];
    let mut done = on_done(|index, result| {
        outcome[index] = result.ok().map(|found| found.sequences.into_iter().map(|s| s.token_ids).collect());
    });
    // A run that fails as a whole tells each request so.
    let _ = model.session().generate(&requests, options, &RunOptions::default(), &mut done);
    outcome
}

fn cases(base: &Base) -> Vec<Case<'_>> {
    let parts = [(true, &base.config), (false, &base.generation_keys)];
    let mut found: Vec<Case<'_>> = Vec::new();
    for (of_config, keys) in parts {
        for (key, cases) in keys {
            for case in cases {
                let (value, outcome) = match &case[..] {
                    [outcome] => (None, outcome),
                    [value, outcome] => (Some(value), outcome),
                    _ => panic!("{}, {key}: {case:?} is no case", base.name),
                };
                let outcome = outcome.as_i64().expect("the number of an outcome");
                let expected = usize::try_from(outcome).ok();
                found.push(Case { of_config, key, value, expected, made_up: outcome == -2 });
            }
        }
    }
    found
}

#[test]
fn every_value_runs_as_in_transformers_or_fails_as_there() {
    let text = fs::read_to_string(repo_root().join("tests/fixtures/sweep.json")).expect("a part of the repository");
    let sweep: Sweep = serde_json::from_str(&text).expect("what the generator writes");
    let options = SessionOptions::default().with_device(std::env::var("ELGEN_TEST_DEVICE").ok());
    let device = open_device(&options).expect("a device");
    let mut used = vec![0; REASONS.len()];
    let (mut compared, mut runs, mut wrong) = (0, 0, Vec::new());
    for base in &sweep.bases {
        let source = repo_root().join("tests/fixtures").join(&base.model);
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::copy(source.join("model.safetensors"), folder.path().join("model.safetensors")).expect("the weights");
        let config = read(&source.join("config.json"));
        let mut runner = Runner { base, folder, device: &device, models: HashMap::new(), runs: HashMap::new() };
        assert_eq!(runner.outcome(&config, &base.generation), base.outcomes[0], "{}", base.name);
        for case in cases(base) {
            compared += 1;
            let (mut config, mut generation) = (config.clone(), base.generation.clone());
            let file = if case.of_config { &mut config } else { &mut generation };
            match case.value {
                Some(value) => file.insert(case.key.to_owned(), value.clone()),
                None => file.remove(case.key),
            };
            let found = runner.outcome(&config, &generation);
            let expected = case.expected.map_or_else(|| vec![None; base.inputs.len()], |n| base.outcomes[n].clone());
            let differences = expected.iter().zip(&found).filter_map(|(expected, found)| match (expected, found) {
                (Some(_), None) => Some(Refuses),
                (None, Some(_)) => Some(Accepts),
                (expected, found) => (expected != found).then_some(Gives),
            });
            for difference in differences {
                match REASONS.iter().position(|(_, holds)| holds(&case, difference)) {
                    Some(reason) => used[reason] += 1,
                    None => wrong.push(format!(
                        "{} {} {} {}: elgen {difference:?} {found:?}, transformers {expected:?}{}",
                        base.name,
                        if case.of_config { "config.json" } else { "generation_config.json" },
                        case.key,
                        case.value.map_or_else(|| "absent".to_owned(), Value::to_string),
                        if case.made_up { " with weights made up" } else { "" },
                    )),
                }
            }
        }
        runs += runner.runs.len();
    }
    println!("{compared} values, {runs} different runs; reasons used {used:?}");
    assert!(wrong.is_empty(), "{} of {compared} values differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared >= 1000 && runs >= 150, "only {compared} values and {runs} runs");
    assert!(REASONS.len() <= 10, "{} reasons", REASONS.len());
    for ((reason, _), count) in REASONS.iter().zip(used) {
        assert!(count > 0, "no longer needed: {reason}");
    }
}

fn read(path: &Path) -> Map<String, Value> {
    serde_json::from_str(&fs::read_to_string(path).expect("a fixture")).expect("an object")
}
