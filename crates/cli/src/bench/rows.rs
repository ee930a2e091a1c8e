//! From flags to rows: which models, and what is measured on each.

use std::{path::Path, sync::Arc, time::Duration};

use elgen_engine::{
    ConfigOnly, Formats, Registry,
    bench::{BatchRows, Preset, Sources, Trial, builtin_config},
};
use elgen_search::GenerationOptions;
use serde::{Deserialize, Serialize};

use super::lengths::Lengths;
use crate::{
    builtin,
    error::CliError,
    flags::{AttentionFlag, BenchArgs, DtypeFlag},
};

/// Where a model comes from.
#[derive(Clone, Debug)]
pub(super) struct ModelSource {
    pub(super) name: String,
    pub(super) config: ConfigOnly,
    /// A directory; random weights if there is none.
    pub(super) dir: Option<std::path::PathBuf>,
}

/// What identifies a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RowKey {
    /// The preset, if it is one's.
    pub(super) preset: Option<String>,
    pub(super) model: String,
    /// As asked for.
    pub(super) attention: String,
    /// Of weights and caches: one name, or `WEIGHTS/CACHES`.
    pub(super) dtype: String,
    pub(super) num_beams: usize,
    /// A number, or "max".
    pub(super) batch_asked: String,
    /// Ids, or the longest where lengths come from a file.
    pub(super) source_length: Option<usize>,
    /// The file of lengths and what is in it.
    pub(super) lengths_from: Option<String>,
    pub(super) new_tokens: usize,
    /// Penalties and the like, by Hugging Face's names.
    pub(super) options: GenerationOptions,
    /// Values that are not the paper's.
    pub(super) ours: Vec<String>,
}

/// A row to measure.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: RowKey,
    pub(super) source: Arc<ModelSource>,
    pub(super) attention: AttentionFlag,
    pub(super) formats: Formats,
    pub(super) trial: Trial,
}

/// All rows, those of one loaded model in a stretch.
pub(super) fn rows(arguments: &BenchArgs, registry: &Registry, software: bool) -> Result<Vec<Row>, CliError> {
    let own = models(arguments)?;
    if own.is_empty() && arguments.preset.is_empty() {
        return Err(CliError::Usage("nothing to measure: give --model, --config or --preset".into()));
    }
    if arguments.preset.is_empty() {
        return own
            .iter()
            .map(|model| model_rows(arguments, registry, model, None, software))
            .collect::<Result<Vec<_>, _>>()
            .map(|rows| rows.concat());
    }
    let mut all = Vec::new();
    for name in &arguments.preset {
        let Some(preset) = Preset::find(name) else { continue };
        let models = if own.is_empty() {
            let build = |name: &&str| {
                Ok(Arc::new(ModelSource {
                    name: (*name).to_owned(),
                    config: builtin_config(name, arguments.scale)?,
                    dir: None,
                }))
            };
            preset.models.iter().map(build).collect::<Result<Vec<_>, CliError>>()?
        } else {
            own.clone()
        };
        for model in &models {
            all.extend(model_rows(arguments, registry, model, Some(preset), software)?);
        }
    }
    Ok(all)
}

/// The models that flags name.
fn models(arguments: &BenchArgs) -> Result<Vec<Arc<ModelSource>>, CliError> {
    let mut found = Vec::new();
    for dir in &arguments.model {
        if arguments.scale > 1 {
            return Err(CliError::Usage("--scale: needs --config or --preset, a checkpoint has its size".into()));
        }
        let config = ConfigOnly::read(&dir.join("config.json"))?;
        let name =
            dir.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned());
        found.push(Arc::new(ModelSource { name, config, dir: Some(dir.clone()) }));
    }
    for name in &arguments.config {
        let path = Path::new(name);
        let config = builtin::read(name, arguments.scale)?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        // Every model's config has the same file name; its folder tells them apart.
        let folder = path.parent().and_then(Path::file_name).map(|folder| folder.to_string_lossy().into_owned());
        let name = match (stem.as_deref(), folder) {
            _ if builtin::is_builtin(name) => name.clone(),
            (Some("config"), Some(folder)) => folder,
            _ => stem.unwrap_or_else(|| name.clone()),
        };
        found.push(Arc::new(ModelSource { name, config, dir: None }));
    }
    Ok(found)
}

fn or_default<T: Clone>(asked: &[T], default: &[T]) -> Vec<T> {
    if asked.is_empty() { default.to_vec() } else { asked.to_vec() }
}

/// The rows of one model, alone or as a preset has them.
fn model_rows(
    arguments: &BenchArgs,
    registry: &Registry,
    model: &Arc<ModelSource>,
    preset: Option<&Preset>,
    software: bool,
) -> Result<Vec<Row>, CliError> {
    let flags = &arguments.rows;
    let has_encoder = model.config.config().family().is_encoder_decoder;
    let all_kinds: Vec<AttentionFlag> =
        AttentionFlag::measured(registry).into_iter().filter(|kind| has_encoder || !kind.needs_encoder()).collect();
    let kinds = or_default(&flags.attention, &all_kinds);
    let dtypes = or_default(&flags.dtype, &[DtypeFlag::Auto]);
    let beams =
        or_default(&flags.num_beams, preset.map(|p| [p.num_beams]).as_ref().map_or(&[1, 4], |beams| &beams[..]));
    let batches = or_default(
        &flags.batch_size,
        &match preset {
            Some(preset) => vec![BatchRows::Sentences(preset.equal_batch), BatchRows::Largest],
            None => [1, 8, 32].map(BatchRows::Sentences).into_iter().chain([BatchRows::Largest]).collect(),
        },
    );
    let news = or_default(&flags.max_new_tokens, &[preset.map_or(32, |preset| preset.new_tokens)]);
    let lengths = or_default(&flags.source_length, &[preset.map_or(128, |preset| preset.source_length)]);
    let file = flags.lengths_from.as_deref().map(|path| Lengths::read(path, model.dir.as_deref())).transpose()?;
    let mut points = Vec::new();
    for &length in &lengths {
        for &new_tokens in &news {
            for &num_beams in &beams {
                points.extend(batches.iter().map(|&batch| Point { length, new_tokens, num_beams, batch }));
            }
        }
    }
    let mut rows = Vec::new();
    for &dtype in &dtypes {
        let formats = flags.formats.over(dtype.by_adapter(software));
        for &attention in &kinds {
            let load = Load { model, preset, attention, formats, lengths: file.as_ref() };
            rows.extend(points.iter().map(|point| row(arguments, &load, point)));
        }
    }
    Ok(rows)
}

/// What a model is loaded for.
struct Load<'a> {
    model: &'a Arc<ModelSource>,
    preset: Option<&'a Preset>,
    attention: AttentionFlag,
    formats: Formats,
    lengths: Option<&'a Lengths>,
}

/// What is done with it.
struct Point {
    length: usize,
    new_tokens: usize,
    num_beams: usize,
    batch: BatchRows,
}

/// The name of both formats, or both names.
fn names(Formats { weights, cache }: Formats) -> String {
    if weights.name() == cache.name() { cache.name().to_owned() } else { format!("{weights}/{}", cache.name()) }
}

fn row(arguments: &BenchArgs, load: &Load<'_>, point: &Point) -> Row {
    let (model, runs) = (load.model, &arguments.runs);
    let (sources, source_length) = match load.lengths {
        None => (Sources::Fixed(point.length), Some(point.length)),
        // Without a length that was asked for, only the model's positions cut.
        Some(file) if arguments.rows.source_length.is_empty() && load.preset.is_none() => {
            (file.sources(usize::MAX), None)
        }
        Some(file) => (file.sources(point.length), Some(point.length)),
    };
    let narrow = arguments.scale > 1 && model.dir.is_none();
    let options = load.preset.map_or_else(GenerationOptions::default, Preset::options);
    let key = RowKey {
        preset: load.preset.map(|preset| preset.name.to_owned()),
        model: if narrow { format!("{} / {}", model.name, arguments.scale) } else { model.name.clone() },
        attention: load.attention.name(),
        dtype: names(load.formats),
        num_beams: point.num_beams,
        batch_asked: batch_name(point.batch),
        source_length,
        lengths_from: load.lengths.map(Lengths::describe),
        new_tokens: point.new_tokens,
        options: options.clone(),
        ours: load.preset.map_or_else(Vec::new, |preset| ours(preset, arguments, point.batch)),
    };
    let trial = Trial {
        batch: point.batch,
        options,
        repetitions: runs.repetitions,
        patience: runs.row_seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 1e9))),
        seed: runs.seed,
        ..Trial::new(sources, point.new_tokens, point.num_beams)
    };
    Row { key, source: Arc::clone(model), attention: load.attention, formats: load.formats, trial }
}

/// The columns of a preset's row that are not the paper's: those that it documents, and those that flags replaced.
fn ours(preset: &Preset, arguments: &BenchArgs, batch: BatchRows) -> Vec<String> {
    let flags = &arguments.rows;
    let replaced = [
        ("model", !arguments.model.is_empty() || !arguments.config.is_empty() || arguments.scale > 1),
        ("source", !flags.source_length.is_empty() || flags.lengths_from.is_some()),
        ("new", !flags.max_new_tokens.is_empty()),
        ("beams", !flags.num_beams.is_empty()),
        ("batch", !flags.batch_size.is_empty()),
        ("options", false),
    ];
    let documented = |column: &str| preset.ours.iter().any(|(known, _)| *known == column);
    let is_ours = |(column, replaced): &(&str, bool)| match (*column, batch) {
        // The largest batch is the paper's method.
        ("batch", BatchRows::Largest) => false,
        _ => *replaced || documented(column),
    };
    replaced.iter().filter(|entry| is_ours(entry)).map(|(column, _)| (*column).to_owned()).collect()
}

fn batch_name(batch: BatchRows) -> String {
    match batch {
        BatchRows::Sentences(sentences) => sentences.to_string(),
        BatchRows::Largest => "max".to_owned(),
    }
}
