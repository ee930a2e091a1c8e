//! The attention kinds side by side: what each takes and how many sentences it lets run together.

use elgen_attention::planner::{self, choose};
use elgen_attention::{Formats, Kind, Kinds, Standing};
use elgen_models::{ModelConfig, Outline};
use serde::Serialize;

use super::report::{AttentionPlan, report, shape};
use super::{BatchWorkload, MemoryPlan, PlannedBytes};
use crate::device_class::MeasuredClass;

/// What one attention kind takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlanRow {
    /// The name of a kind, or `auto`.
    pub attention: &'static str,
    /// Kind of the decoder's self-attention.
    #[serde(rename = "self")]
    pub self_: &'static str,
    /// Kind of cross-attention; `None` for decoder-only models.
    pub cross: Option<&'static str>,
    /// Bytes at the batch that was asked for; `None` if it cannot run on this device, whatever its memory.
    pub bytes: Option<PlannedBytes>,
    /// Why it cannot.
    pub error: Option<String>,
    /// What each further sentence adds to a large batch; `None` where no batch can run.
    pub bytes_per_sentence: Option<u64>,
    /// The most sentences that run together within the memory limit; `None` if one does not.
    pub largest_batch: Option<usize>,
    /// What stops a larger batch: `memory`, or a `binding` of the device.
    pub limited_by: Option<&'static str>,
    /// Why `auto` picked these kinds.
    pub reason: Option<String>,
    /// What `auto` compared, on a measured device.
    pub plan: Option<AttentionPlan>,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// Storage of weights and caches.
    pub formats: Formats,
    /// Bytes that one binding of the device holds.
    pub max_binding_bytes: u64,
    /// Bytes that the pool may hold.
    pub memory_limit: u64,
    /// The kinds that are known.
    pub kinds: &'a [Kind],
    /// The sentences.
    pub workload: &'a BatchWorkload<'a>,
    /// What the device was measured at; without, `auto` goes by memory alone.
    pub class: Option<&'a MeasuredClass>,
}

/// The kinds that a table compares, what caches least cleverly first: baselines, what `auto` picks from, what is only used where it is named.
/// What computes anew what others keep is for where nothing else fits.
pub fn compared(kinds: &[Kind]) -> Vec<Kind> {
    let of = |standing: Standing| kinds.iter().copied().filter(move |kind| kind.standing() == standing);
    [Standing::Baseline, Standing::Regular, Standing::Named].into_iter().flat_map(of).collect()
}

/// The batch from which on bytes grow evenly: encoder micro-batches have reached their budget.
const LARGE_BATCH: usize = 256;

impl<'a> Comparison<'a> {
    /// The rows of [`compared`] kinds and of `auto`, at this batch.
    pub fn rows(&self, batch: usize) -> Vec<PlanRow> {
        let kinds = compared(self.kinds).into_iter();
        let mut rows: Vec<PlanRow> = kinds.map(|kind| self.row(kind.name(), Kinds::both(kind), batch)).collect();
        rows.push(self.auto_row(batch));
        rows
    }

    /// Total bytes of the kinds of a row, at some batches; those that cannot run are left out.
    pub fn totals(&self, kinds: Kinds, batches: impl IntoIterator<Item = usize>) -> Vec<(usize, u64)> {
        let plan = self.plan(kinds);
        let total = |batch| Some((batch, plan.predict(self.workload, batch).ok()?.total));
        batches.into_iter().filter_map(total).collect()
    }

    fn outline(&self) -> Outline {
        Outline::new(self.model)
    }

    fn plan(&self, kinds: Kinds) -> MemoryPlan<'a> {
        MemoryPlan {
            model: self.model,
            kinds,
            formats: self.formats,
            max_binding_bytes: self.max_binding_bytes,
            memory_limit: self.memory_limit,
        }
    }

    fn row(&self, attention: &'static str, kinds: Kinds, batch: usize) -> PlanRow {
        let plan = self.plan(kinds);
        let (bytes, error) = match plan.predict(self.workload, batch) {
            Ok(bytes) => (Some(bytes), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let largest_batch = plan.largest_batch(self.workload);
        let beyond = plan.predict(self.workload, largest_batch.unwrap_or(0).saturating_add(1));
        PlanRow {
            attention,
            self_: kinds.self_.name(),
            cross: self.outline().encoder.map(|_| kinds.cross.name()),
            bytes,
            error,
            bytes_per_sentence: bytes_per_sentence(&plan, self.workload),
            largest_batch,
            limited_by: Some(if beyond.is_ok() { "memory" } else { "binding" }),
            reason: None,
            plan: None,
        }
    }

    fn auto_row(&self, batch: usize) -> PlanRow {
        match self.class {
            Some(known) => self.fastest_row(known, batch),
            None => self.largest_row(batch),
        }
    }

    /// What `auto` picks on a measured device: the kinds that are predicted to serve most sentences a second, each at its largest batch.
    fn fastest_row(&self, known: &MeasuredClass, batch: usize) -> PlanRow {
        let workload = planner::Workload {
            beams: self.workload.config.rows_per_sentence(),
            source_length: self.workload.source_len,
            prompt_length: self.workload.prompt_len,
            max_new_tokens: self.workload.max_new,
            batch_limit: usize::MAX,
        };
        let fits = |kinds| self.plan(kinds).largest_batch(self.workload);
        let chosen = choose(&known.class, &shape(&self.outline()), &workload, self.formats, self.kinds, fits);
        let reason = match chosen.prediction() {
            Some(best) => format!("predicted {:.3} sentences/s at batch {}", best.sentences_per_second(), best.batch),
            None => "not one sentence fits".to_owned(),
        };
        let plan = report(&chosen, &workload, known);
        PlanRow { reason: Some(reason), plan: Some(plan), ..self.row("auto", chosen.pick, batch) }
    }

    /// What `auto` picks where no device has been measured: the kinds with the largest batch. Ties go to multi-head attention, which computes
    /// least, for cross-attention before self-attention; a last resort (`mha-nocache`) only takes what no other kinds can.
    fn largest_row(&self, batch: usize) -> PlanRow {
        let candidates = planner::combinations(self.kinds, self.outline().encoder.is_some());
        let sized = |standing: Standing| {
            let these = candidates.iter().filter(move |kinds| planner::standing(**kinds) == standing);
            let sized = these.filter_map(|kinds| Some((self.plan(*kinds).largest_batch(self.workload)?, *kinds)));
            // The first of the largest: `max_by_key` would take the last.
            sized.rev().max_by_key(|(largest, _)| *largest)
        };
        let found = sized(Standing::Regular).or_else(|| sized(Standing::LastResort));
        let (largest, pick) = match found {
            Some((largest, kinds)) => (Some(largest), kinds),
            None => (None, Kinds::both(Kind::MHA)),
        };
        let reason = match largest {
            Some(largest) => format!("no device class is given: the largest batch, {largest}"),
            None => "no device class is given, and not one sentence fits".to_owned(),
        };
        PlanRow { reason: Some(reason), ..self.row("auto", pick, batch) }
    }
}

fn bytes_per_sentence(plan: &MemoryPlan<'_>, workload: &BatchWorkload<'_>) -> Option<u64> {
    let total = |batch| plan.predict(workload, batch).ok().map(|bytes| bytes.total);
    // Where two large batches cannot run, smaller ones tell.
    let mut batch = LARGE_BATCH;
    while batch > 0 {
        if let (Some(more), Some(less)) = (total(2 * batch), total(batch)) {
            return Some(more.saturating_sub(less) / batch as u64);
        }
        batch /= 2;
    }
    None
}
