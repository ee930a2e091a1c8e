//! Predicted bytes against those of the pool, and the pool's against the driver's allocator.

use elgen_engine::{AttentionChoice, BatchSize, Events, Notice, RunOptions, Session};
use elgen_search::GenerationConfig;
use elgen_tensor::DType;
use elgen_tests::demo::KINDS;
use elgen_tests::planned::Planned;

const MIB: u64 = 1 << 20;

/// Odd widths, padded heads, encoder and decoder of different shape.
const BART: &str = r#"{"model_type": "bart", "d_model": 60, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 6, "encoder_ffn_dim": 96, "decoder_ffn_dim": 64, "vocab_size": 203, "max_position_embeddings": 512}"#;
/// Gated, relative positions, heads that are not d_model wide in sum, a head of its own.
const T5: &str = r#"{"model_type": "t5", "d_model": 48, "d_kv": 10, "num_heads": 3, "d_ff": 80, "num_layers": 1, "num_decoder_layers": 2, "vocab_size": 203, "decoder_start_token_id": 0, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;
/// Two vocabularies.
const MARIAN: &str = r#"{"model_type": "marian", "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 203, "decoder_vocab_size": 301, "share_encoder_decoder_embeddings": false, "tie_word_embeddings": true, "max_position_embeddings": 512, "decoder_start_token_id": 202, "pad_token_id": 202, "eos_token_id": 0}"#;
const GPT2: &str = r#"{"model_type": "gpt2", "n_embd": 60, "n_layer": 2, "n_head": 6, "vocab_size": 203, "n_positions": 512, "bos_token_id": 202, "eos_token_id": 202}"#;
/// An embedding that is wider than the feed-forward blocks.
const OPT: &str = r#"{"model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 80, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "vocab_size": 203, "max_position_embeddings": 512, "do_layer_norm_before": false}"#;

fn case(model: &str, attention: AttentionChoice) -> Planned<'_> {
    Planned {
        model,
        attention,
        dtype: DType::F32,
        input: 1,
        max_new: 1,
        beams: 1,
        batch: 1,
        memory_limit: None,
        short: true,
    }
}

/// The kinds that a model can have.
fn kinds(model: &str) -> impl Iterator<Item = AttentionChoice> {
    let decoder_only = [GPT2, OPT].contains(&model);
    KINDS.into_iter().map(|(kind, _)| kind).filter(move |kind| !decoder_only || *kind != AttentionChoice::MHA_NOCACHE)
}

#[test]
fn what_is_predicted_is_what_the_pool_counts() {
    for model in [BART, T5, MARIAN, GPT2, OPT] {
        for attention in kinds(model) {
            let case = case(model, attention);
            case.exact();
            // Without a limit in time, which brings the host's eyes.
            Planned { input: 11, max_new: 9, beams: 4, batch: 3, short: false, ..case }.exact();
            Planned { dtype: DType::F16, input: 64, max_new: 100, beams: 4, batch: 40, ..case }.exact();
        }
    }
}

#[test]
fn long_inputs_run_in_micro_batches_within_their_budget() {
    for model in [BART, GPT2] {
        for attention in kinds(model) {
            // An eighth of 48 MiB for micro-batches: some sentences each, and all of a prompt where one alone takes more.
            let limit = Some(48 * MIB);
            let case = case(model, attention);
            Planned { input: 400, max_new: 30, beams: 1, batch: 12, memory_limit: limit, ..case }.exact();
        }
    }
}

#[test]
fn the_allocator_holds_what_the_pool_counts() {
    for model in [BART, GPT2] {
        for attention in kinds(model) {
            for (beams, batch, max_new) in [(1, 96, 300), (4, 48, 200)] {
                let case = Planned { input: 200, max_new, beams, batch, ..case(model, attention) };
                let session = case.exact();
                session.device().wait().unwrap();
                let pool = session.device().pool().current().total;
                let allocator = session.device().allocator_bytes().expect("the Vulkan backend reports");
                eprintln!(
                    "{attention:?}, {beams} beams: the pool counts {pool} bytes, the allocator holds {allocator}"
                );
                assert!(pool > 20 * MIB, "{case:?}: {pool} bytes are too few to tell");
                assert!(
                    pool.abs_diff(allocator) * 50 <= pool,
                    "{case:?}: the pool counts {pool} bytes, the allocator holds {allocator}"
                );
            }
        }
    }
}

/// Counts results and halved batches.
#[derive(Default)]
struct Heard {
    done: usize,
    halved: Vec<(usize, usize)>,
}

impl Events for Heard {
    fn done(&mut self, _: usize, result: Result<elgen_engine::Generation, elgen_engine::EngineError>) {
        result.unwrap();
        self.done += 1;
    }

    fn notice(&mut self, notice: &Notice) {
        if let Notice::BatchHalved { from, to, .. } = notice {
            self.halved.push((*from, *to));
        }
    }
}

fn run(case: &Planned<'_>, session: &mut Session, config: &GenerationConfig, count: usize) -> Heard {
    let mut heard = Heard::default();
    session.generate(&case.requests(count), config, &RunOptions::default(), &mut heard).unwrap();
    assert_eq!(heard.done, count);
    heard
}

#[test]
fn automatic_batches_fill_the_limit_and_one_sentence_more_does_not_fit() {
    for (model, limit) in [(BART, 24 * MIB), (T5, 16 * MIB), (GPT2, 24 * MIB)] {
        for attention in kinds(model) {
            let case =
                Planned { input: 100, max_new: 400, beams: 4, memory_limit: Some(limit), ..case(model, attention) };
            let mut auto = case.session(BatchSize::Auto);
            let config = case.config(&auto);
            let (largest, beyond) = case.plan(&auto, &config, |plan, workload| {
                let largest = plan.largest_batch(workload).unwrap();
                assert!(plan.predict(workload, largest).unwrap().total <= limit);
                (largest, plan.predict(workload, largest + 1).unwrap().total)
            });
            assert!(beyond > limit && largest > 1, "{case:?}: {largest} sentences, one more takes {beyond}");

            let heard = run(&case, &mut auto, &config, 2 * largest);
            let peak = auto.device().pool().peak().total;
            eprintln!("{attention:?}: {largest} sentences, {peak} of {limit} bytes");
            assert_eq!(heard.halved, [], "{case:?}");
            assert!(peak <= limit && peak * 10 >= limit * 9, "{case:?}: {peak} of {limit} bytes");
            assert_eq!(auto.metrics().steps, 2, "{case:?}: {} sentences took more than two batches", 2 * largest);
            drop(auto);

            // The plan's batch fits, and one sentence more has to be halved.
            let mut fixed = case.session((largest + 1).into());
            let heard = run(&case, &mut fixed, &config, largest + 1);
            assert_eq!(heard.halved, [(largest + 1, (largest + 1).div_ceil(2))], "{case:?}");
            assert!(fixed.device().pool().peak().total <= limit);
        }
    }
}
