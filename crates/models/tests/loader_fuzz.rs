//! Damaged files: no panic, and no allocation that the file's size does not justify.

mod loader_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use elgen_models::ModelConfig;
use elgen_models::checkpoint::{Checkpoint, Weights};
use elgen_models::families::BartConfig;
use loader_support::*;
use proptest::prelude::*;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: every call is passed on unchanged to the system allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`, and the memory came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// The files here have a few KiB; anything near this size followed a claim instead of content.
const ALLOCATION_LIMIT: usize = 1 << 20;

fn use_everything(content: &[u8]) {
    let dir = dir_with(content);
    if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
        let weights = Weights::new(&checkpoint, "model.");
        for name in checkpoint.names() {
            let view = checkpoint.view(name).unwrap();
            let _ = view.to_f32();
            if let &[n, m] = view.shape() {
                // Also empty tensors may claim long sides.
                let mut out = vec![0.0; view.len()];
                let _ = view.rows_f32(0..n, &mut out);
                let _ = view.columns_f32(0..m, &mut out);
            }
            let _ = weights.tensor(name, &[2, 3]).map_err(|e| e.to_string());
        }
        let _ = weights.shared_embeddings(BartConfig::SUBSTITUTES, 2, 3, true).map_err(|e| e.to_string());
        let _ = (checkpoint.files(), checkpoint.parameters(), checkpoint.total_bytes());
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < ALLOCATION_LIMIT, "allocated {largest} bytes at once");
}

fn good_file() -> Vec<u8> {
    file_of(&[
        f32_tensor("model.shared.weight", &[2, 3], &[0.5; 6]),
        f16_tensor("b", &[4], &[1.0; 4]),
        bf16_tensor("lm_head.weight", &[2, 3], &[0.5; 6]),
    ])
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u64..20).prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        Just("18446744073709551615".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("-1".to_owned()),
        Just("1e9".to_owned()),
        Just("null".to_owned()),
    ]
}

fn entry() -> impl Strategy<Value = String> {
    let dtype = prop_oneof![Just("F32"), Just("F16"), Just("BF16"), Just("BOOL"), Just("F4"), Just("X"), Just("\\n")];
    let name = prop_oneof![Just("a"), Just("b"), Just("__metadata__"), Just("model.shared.weight")];
    (name, dtype, prop::collection::vec(number(), 0..4), number(), number()).prop_map(
        |(name, dtype, shape, begin, end)| {
            format!(r#""{name}":{{"dtype":"{dtype}","shape":[{}],"data_offsets":[{begin},{end}]}}"#, shape.join(","))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_bytes(content in prop::collection::vec(any::<u8>(), 0..200)) {
        use_everything(&content);
    }

    #[test]
    fn changed_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<Option<u16>>()) {
        let mut content = good_file();
        for (index, byte) in changes {
            let at = index.index(content.len());
            content[at] = byte;
        }
        if let Some(cut) = cut {
            content.truncate(usize::from(cut));
        }
        use_everything(&content);
    }

    #[test]
    fn plausible_headers(entries in prop::collection::vec(entry(), 0..4), data in 0_usize..40) {
        use_everything(&raw_file(&format!("{{{}}}", entries.join(",")), data));
    }

    #[test]
    fn random_configs(key in "(vocab_size|d_model|n_embd|n_head|n_layer|encoder_layers|encoder_attention_heads|eos_token_id|n_inner)",
                      value in number(), family in "(bart|gpt2)") {
        let text = format!(r#"{{"model_type":"{family}","{key}":{value}}}"#);
        let Ok(serde_json::Value::Object(map)) = serde_json::from_str(&text) else { return Ok(()) };
        match ModelConfig::from_map(&map, "config.json".as_ref()) {
            Ok(config) => prop_assert!(config.parameters().unwrap() > 0),
            Err(error) => prop_assert!(error.to_string().contains(&key), "{error}"),
        }
    }
}

#[test]
fn deep_nesting_is_an_error() {
    use_everything(&raw_file(&format!(r#"{{"__metadata__":{}"#, "[".repeat(3000)), 0));
    use_everything(&raw_file(&format!(r#"{{"w":{}"#, "[".repeat(3000)), 0));
}

#[test]
fn empty_tensors_of_huge_sides_cost_nothing() {
    let header = r#"{"w":{"dtype":"F32","shape":[0,4611686018427387904],"data_offsets":[0,0]},"v":{"dtype":"F32","shape":[4611686018427387904,0],"data_offsets":[0,0]}}"#;
    use_everything(&raw_file(header, 0));
}
