//! Users' logits processors on the device: which searches they can run in, and their place in a step.

use elgen_tensor::{Recorder, Rows, Tensor};

use super::state::BatchTraits;
use super::{DeviceSearch, Result, SearchError};
use crate::config::{GenerationConfig, Mode};
use crate::hooks::{Effect, Hooks};

/// Refuses processors that would not get the scores that they are promised.
pub(super) fn check(hooks: &Hooks, config: &GenerationConfig, batch: BatchTraits) -> Result<()> {
    let refuse =
        |name: &str, reason: &str| Err(SearchError::Processor { name: name.to_owned(), reason: reason.to_owned() });
    for processor in &hooks.device_processors {
        if batch.processors {
            return refuse(processor.name(), "it runs on the device and cannot be mixed with processors of the host");
        }
        if config.mode == Mode::DiverseBeam && processor.effect() != Effect::Bans {
            return refuse(
                processor.name(),
                "diverse beams subtract their penalty before processors: only one that declares to ban alone can run there",
            );
        }
        if batch.reads_logits(config) {
            return refuse(processor.name(), "these options make the host compute the scores of diverse beams");
        }
    }
    Ok(())
}

impl DeviceSearch {
    /// Row 16 of docs/generation.md §4.
    pub(super) fn run_processors(&self, rec: &mut Recorder, rows: &Rows, scores: &Tensor) -> Result<()> {
        for processor in &self.hooks.device_processors {
            processor.record(rec, rows, scores).map_err(|error| SearchError::Processor {
                name: processor.name().to_owned(),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }
}
