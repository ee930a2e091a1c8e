//! What a steady step of the translator costs the host: `step_cost [KIND]`. Prints CPU time of the thread a dispatch, beside that of wgpu's
//! calls alone in the same run, in turns. Build it with optimisation.

use elgen_models::Kinds;
use elgen_search::GenerationOptions;
use elgen_tensor::DType;
use elgen_tests::counting_allocator::CountingAllocator;
use elgen_tests::demo::Translations;
use elgen_tests::kinds::{Files, Start, device};
use elgen_tests::step_cost::{median, steps};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "mha".to_owned());
    let kind =
        elgen_attention::Kind::BUILT_IN.into_iter().find(|kind| kind.name() == name).expect("a kind of attention");
    let (dir, device) = (Translations::model(), device());
    let files = Files::open(&dir);
    let tokenizer = files.tokenizer(&dir);
    let mut loaded = files.load(&device, Kinds::both(kind), DType::F32);
    let asked =
        GenerationOptions { min_new_tokens: Some(100), max_new_tokens: Some(100), ..GenerationOptions::default() };
    let config = files.config(asked, loaded.limits());
    let mut costs = Vec::new();
    for source in Translations::load().spread(6).sources {
        let source = tokenizer.encode(&source).expect("ids");
        let prompt = vec![config.decoder_start_token_id.expect("a start token")];
        let batch = steps(&mut loaded, &config, &[Start { source, prompt }], CountingAllocator::count);
        // The first steps meet new shapes and new bind groups.
        costs.extend_from_slice(&batch[10..]);
    }
    let of = |bare: bool| {
        let seconds: Vec<f64> =
            costs.iter().filter(|cost| cost.bare == bare).map(|cost| cost.seconds / cost.dispatches as f64).collect();
        (seconds.len(), median(seconds) * 1e6)
    };
    let recording = median(costs.iter().map(|cost| cost.recording / cost.dispatches as f64).collect()) * 1e6;
    let ((whole_steps, whole), (bare_steps, bare)) = (of(false), of(true));
    let sum = |of: fn(&elgen_tests::step_cost::StepCost) -> u64| costs.iter().map(of).sum::<u64>();
    println!("device: {} ({})", device.report().name, device.report().driver);
    println!("{name}: {} dispatches a step, one sentence, 4 beams", costs[0].dispatches);
    println!(
        "elgen, ops and submission: {whole:.2} us of CPU time a dispatch (median of {whole_steps} steps), {recording:.2} before the submission"
    );
    println!("wgpu's calls alone:        {bare:.2} us (median of {bare_steps} steps); ratio {:.2}", whole / bare);
    println!(
        "kernels looked up by text {}, bind groups made {}, allocations while recording {}",
        sum(|cost| cost.counts.text_lookups),
        sum(|cost| cost.counts.bind_groups),
        sum(|cost| cost.recorded_allocations)
    );
}
