//! What the user asked for: flags, `--set` and `--generation-config` as one set of options that remembers who said what.

use std::{collections::BTreeMap, path::Path};

use elgen_engine::ModelDescription;
use elgen_search::{GenerationConfig, GenerationOptions, OptionError, OptionProblem, Warning};
use serde_json::{Map, Value};

use crate::{
    console::Console,
    error::CliError,
    files::{MAX_OPTIONS_BYTES, read_whole},
    flags::{GenerationFlags, Names, flag, name_flags, set_names},
    suggest::did_you_mean,
};

/// The options that the user set, in whatever way.
#[derive(Debug)]
pub(crate) struct Asked {
    /// All of them, by priority.
    pub(crate) options: GenerationOptions,
    origins: BTreeMap<String, Origin>,
    names: Names,
}

/// How the user set an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The option's flag.
    Flag,
    /// `--set`.
    Set,
    /// The file of `--generation-config`.
    File,
    /// `--src-lang` or `--tgt-lang`.
    Language,
}

impl Asked {
    /// Reads the command line and the file that it names.
    pub(crate) fn gather(flags: &GenerationFlags) -> Result<Self, CliError> {
        let mut asked = Self { options: GenerationOptions::default(), origins: BTreeMap::new(), names: Names::new() };
        asked.add(flags.options(), Origin::Flag, flag);
        asked.add(settings(&flags.set)?, Origin::Set, set_name);
        if let Some(path) = &flags.generation_config {
            let name = |option: &str| format!("{option} in {}", path.display());
            asked.add(file(path)?, Origin::File, name);
        }
        Ok(asked)
    }

    /// Adds what the languages ask for.
    pub(crate) fn add_languages(&mut self, options: GenerationOptions) {
        self.add(options, Origin::Language, |option| format!("{option} of --tgt-lang"));
    }

    /// Adds a source of lower priority.
    fn add(&mut self, options: GenerationOptions, origin: Origin, name: impl Fn(&str) -> String) {
        for option in set_names(&options) {
            self.names.entry(option.clone()).or_insert_with(|| name(&option));
            self.origins.entry(option).or_insert(origin);
        }
        self.options = std::mem::take(&mut self.options).or(options);
    }

    /// How the user set an option; `None` if the user did not.
    pub(crate) fn origin(&self, option: &str) -> Option<Origin> {
        self.origins.get(option).copied()
    }

    /// The options set, as the user wrote them.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The options of the run, concrete and as they were merged; tells the user which of theirs have no effect.
    pub(crate) fn resolve(
        &self,
        model: &ModelDescription,
        console: &Console,
    ) -> Result<(GenerationConfig, GenerationOptions), CliError> {
        let names = &self.names;
        let refuse = |error| refusal(&error, names, model.dir());
        let options = self.options.clone().or(model.checkpoint_options.clone());
        let (config, warnings) = options.resolve(&model.limits).map_err(refuse)?;
        if model.limits.is_encoder_decoder {
            // The decoder's prompt is the start token alone: lengths that cannot be are no record's fault.
            config.lengths(1).map_err(refuse)?;
        }
        // A checkpoint's own idle options are nobody's mistake, but where it is cut short one should know.
        let told = |warning: &&Warning| names.contains_key(warning.option()) || matches!(warning, Warning::Cut { .. });
        for warning in warnings.iter().filter(told) {
            console.warning(&warning_text(warning, names));
        }
        Ok((config, options))
    }
}

fn set_name(option: &str) -> String {
    format!("--set {option}")
}

fn settings(set: &[(String, Value)]) -> Result<GenerationOptions, CliError> {
    let mut fields = Map::new();
    for (key, value) in set {
        if !GenerationOptions::knows(key) {
            let hint = did_you_mean(key, GenerationOptions::NAMES.iter().copied());
            return Err(CliError::Usage(format!("--set {key}: no generation option has this name{hint}")));
        }
        fields.insert(key.clone(), value.clone());
    }
    GenerationOptions::from_json(&fields).map_err(|error| CliError::Usage(error.describe(set_name)))
}

fn file(path: &Path) -> Result<GenerationOptions, CliError> {
    let bytes = read_whole(path, MAX_OPTIONS_BYTES)?;
    let refuse = |message: String| CliError::Usage(format!("--generation-config {}: {message}", path.display()));
    let fields: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    GenerationOptions::from_json(&fields).map_err(|error: OptionError| refuse(error.to_string()))
}

/// An error of the options: the user's if it names one of theirs, else the checkpoint's.
pub(crate) fn refusal(error: &OptionError, names: &Names, model: &Path) -> CliError {
    match name_flags(&error.to_string(), names) {
        (_, true) if matches!(error.problem, OptionProblem::Needs { .. }) => {
            // What is still to be typed is named as it is typed.
            let all = GenerationOptions::NAMES.iter().map(|option| ((*option).to_owned(), flag(option)));
            let names = all.chain(names.clone()).collect();
            CliError::Usage(name_flags(&error.to_string(), &names).0)
        }
        (message, true) => CliError::Usage(message),
        (message, false) => CliError::Failed(format!("{}: generation options: {message}", model.display())),
    }
}

/// A warning about an option that was typed. What it lacks is named as it would be typed; values of other options that were not typed
/// come from the checkpoint and are named as its files have them.
fn warning_text(warning: &Warning, names: &Names) -> String {
    warning.describe(|option| match names.get(option) {
        Some(typed) => typed.clone(),
        None if matches!(warning, Warning::NeedsSampling { .. }) => flag(option),
        None => option.to_owned(),
    })
}
