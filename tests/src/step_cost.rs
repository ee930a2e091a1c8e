//! What a steady decode step costs the host: the search drives a model as the engine does, and every other step is given to wgpu by hand.

use elgen_models::Sentence;
use elgen_search::GenerationConfig;
use elgen_search::device::{DecodeStep, DeviceSearch, SentenceStart};
use elgen_tensor::{Bare, Class, DType, DeviceCounts, Pending, Recorder, Rows};
use rustix::time::{ClockId, clock_gettime};

use crate::kinds::{Loaded, Start};

/// What one step cost.
#[derive(Clone, Copy, Debug)]
pub struct StepCost {
    /// Dispatches.
    pub dispatches: u64,
    /// CPU seconds of this thread from the first op call until the submission returned: of the whole step, or of wgpu's calls alone.
    pub seconds: f64,
    /// The part of it until the submission began.
    pub recording: f64,
    /// Whether only wgpu's calls were measured, with all handles at hand.
    pub bare: bool,
    /// What `allocations` counted before the step was submitted.
    pub recorded_allocations: u64,
    /// The same until the submission returned.
    pub allocations: u64,
    /// What the device counted in the step.
    pub counts: DeviceCounts,
}

/// CPU seconds of this thread.
fn thread_seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

fn difference(now: DeviceCounts, before: DeviceCounts) -> DeviceCounts {
    let mut counts = now;
    counts.text_lookups -= before.text_lookups;
    counts.bind_groups -= before.bind_groups;
    counts.queue.submissions -= before.queue.submissions;
    counts.queue.uploads -= before.queue.uploads;
    counts.queue.dispatches -= before.queue.dispatches;
    counts
}

/// Runs one batch and tells what each step cost. `allocations`: how often this thread has allocated so far.
///
/// # Panics
/// The batch does not run.
pub fn steps(
    loaded: &mut Loaded,
    config: &GenerationConfig,
    starts: &[Start],
    allocations: impl Fn() -> u64,
) -> Vec<StepCost> {
    let (device, runner) = (&loaded.device, &mut loaded.runner);
    let width = config.rows_per_sentence();
    let lengths = config.lengths(1).expect("lengths");
    let max_new = lengths.max_length - 1;
    let capacity = starts.len() * width;
    let mut rows = Rows::new(device, capacity, lengths.max_length).expect("tables");
    let logits = device.tensor("logits", Class::Activations, capacity, config.vocab_size, DType::F32).expect("logits");
    let mut search = DeviceSearch::new(device, config, starts.len(), max_new).expect("a search");
    let sentences: Vec<Sentence<'_>> =
        starts.iter().map(|start| Sentence { source: &start.source, prompt: &start.prompt, max_new }).collect();
    let begins: Vec<SentenceStart<'_>> = (0..)
        .zip(starts)
        .map(|(ordinal, start)| SentenceStart { ordinal, lengths, prompt: &start.prompt, source: &start.source })
        .collect();
    runner.begin(&mut rows, &sentences, width).expect("admission");
    search.begin(&begins).expect("a batch");
    device.wait().expect("an idle device");
    let mut rec = device.recorder();
    let (mut costs, mut prepared): (Vec<StepCost>, Vec<Bare>) = (Vec::new(), Vec::new());
    let see = |search: &mut DeviceSearch, rec: &mut Recorder, pending: Pending| {
        search.see_done(rec, pending).expect("done flags").iter().all(|done| *done)
    };
    for step in 0..max_new {
        let counts = device.counts();
        let (first, began) = (allocations(), thread_seconds());
        runner.step(&mut rec, &rows, &logits).expect("a step");
        search.record_step(&mut rec, &mut rows, &logits).expect("a search step");
        let pending = search.record_done(&mut rec).expect("a read-back");
        let (recorded, recording) = (allocations(), thread_seconds() - began);
        // Steady steps are the same two, one for each half of the double-buffered tables: two are submitted as they were recorded, then two by
        // hand, from lists that were made long before, so that neither way finds its handles in a cache that the other has not.
        let bare = step % 4 >= 2 && step >= 8;
        let (dispatches, seconds, ended) = if bare {
            let now = rec.take_bare().expect("a recording without uploads");
            let commands = &prepared[step % 2];
            assert!(commands.is_same(&now), "steady steps are the same");
            let (first, began) = (allocations(), thread_seconds());
            commands.submit(&pending).expect("submission");
            let seconds = thread_seconds() - began;
            (commands.dispatches() as u64, seconds, recorded + allocations() - first)
        } else if step == 6 || step == 7 {
            let commands = rec.take_bare().expect("a recording without uploads");
            commands.submit(&pending).expect("submission");
            prepared.push(commands);
            see(&mut search, &mut rec, pending);
            continue;
        } else {
            rec.submit().expect("submission");
            (rec.take_stats().dispatches, thread_seconds() - began, allocations())
        };
        costs.push(StepCost {
            dispatches,
            seconds,
            recording,
            bare,
            recorded_allocations: recorded - first,
            allocations: ended - first,
            counts: difference(device.counts(), counts),
        });
        if see(&mut search, &mut rec, pending) {
            break;
        }
    }
    search.finish().expect("results");
    runner.end();
    costs
}

/// The median of some numbers.
///
/// # Panics
/// There are none.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
