//! Predicted and measured memory of the EL-attention paper's four settings at reduced width, as a Markdown table:
//! `cargo run -p elgen-tests --bin memory_table [LIMIT_MIB]`. Lengths and beams are the paper's or documented choices (docs/el-attention.md §3);
//! widths are a sixteenth, with fewer layers. Every batch is the largest that fits the limit, and ends behind its first token.

use elgen_engine::AttentionChoice;
use elgen_tensor::DType;
use elgen_tests::planned::Planned;

const BART: &str = r#"{"model_type": "bart", "d_model": 64, "encoder_layers": 1, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "vocab_size": 1000, "max_position_embeddings": 1024}"#;
const TRANSFORMER: &str = r#"{"model_type": "marian", "d_model": 64, "encoder_layers": 1, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "vocab_size": 1000, "max_position_embeddings": 1024, "decoder_start_token_id": 999, "pad_token_id": 999, "eos_token_id": 0}"#;
const GPT2: &str = r#"{"model_type": "gpt2", "n_embd": 48, "n_layer": 3, "n_head": 2, "vocab_size": 1000, "n_positions": 1024, "bos_token_id": 0, "eos_token_id": 0}"#;

/// Name, model, input length, new tokens, beams.
const SETTINGS: [(&str, &str, usize, usize, usize); 4] = [
    ("squad-qg", TRANSFORMER, 512, 32, 4),
    ("xsum", BART, 1024, 60, 6),
    ("cnndm", BART, 1024, 140, 4),
    ("gpt2-cnndm", GPT2, 800, 140, 4),
];

fn main() {
    let limit = std::env::args().nth(1).and_then(|mib| mib.parse::<u64>().ok()).unwrap_or(24) << 20;
    println!("| setting | kind | largest batch | predicted peak | pool's peak | pool now | allocator |");
    println!("|---|---|---|---|---|---|---|");
    for (name, model, input, max_new, beams) in SETTINGS {
        for attention in [AttentionChoice::MHA_REPLICATED, AttentionChoice::MHA, AttentionChoice::EL] {
            let mut case = Planned {
                model,
                attention,
                dtype: DType::F32,
                input,
                max_new,
                beams,
                batch: 1,
                memory_limit: Some(limit),
                short: true,
            };
            let session = case.session(1.into());
            let config = case.config(&session);
            let Some(largest) = case.plan(&session, &config, |plan, workload| plan.largest_batch(workload)) else {
                println!("| {name} | {attention:?} | none | | | | |");
                continue;
            };
            drop(session);
            case.batch = largest;
            let (planned, session) = case.run();
            let pool = session.device().pool();
            let allocator = session.device().allocator_bytes().unwrap_or(0);
            println!(
                "| {name} | {} | {largest} | {} | {} | {} | {allocator} |",
                elgen_tests::planned::kinds(attention).self_,
                planned.total,
                pool.peak().total,
                pool.current().total
            );
        }
    }
}
