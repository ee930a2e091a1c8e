//! Weights in other formats than those of files: a format whose elements do not stand alone ([`WeightFormat::Int8Blocks`]), from the file to ids and
//! scores, and files whose rows go to the device as they lie.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use elgen_attention::{CacheFormat, Formats, Kind, Kinds};
use elgen_engine::{Model, Request, SessionOptions};
use elgen_models::{Checkpoint, ModelConfig};
use elgen_search::GenerationOptions;
use elgen_tensor::{
    Arena, Class, DType, Device, DeviceOptions, Matrix, MatrixSource, SourceError, WeightFormat, load_linear,
};
use elgen_tests::demo::{config, generate, session_options};
use elgen_tests::harness::{assert_same_bits, values};
use elgen_tests::kinds::{Files, Start};
use elgen_tests::{repo_root, twin};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Tensors by name: shape and values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of a directory. b_v is zero: what is folded into b_o is W_o b_v of the file, before a format rounds it.
fn tensors(dir: &Path) -> Tensors {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let read = |name: &str| {
        let view = checkpoint.view(name).unwrap();
        (name.to_owned(), (view.shape().to_vec(), view.to_f32().unwrap()))
    };
    let mut found: Tensors = checkpoint.names().map(read).collect();
    clear_value_biases(&mut found);
    found
}

fn clear_value_biases(tensors: &mut Tensors) {
    for (name, (_, values)) in tensors {
        if name.ends_with("v_proj.bias") {
            values.fill(0.0);
        } else if name.ends_with("c_attn.bias") {
            let values_from = values.len() / 3 * 2;
            values[values_from..].fill(0.0);
        }
    }
}

/// GPT-2's projections are stored `[in, out]`.
fn is_transposed(name: &str) -> bool {
    ["c_attn.weight", "c_proj.weight", "c_fc.weight"].iter().any(|end| name.ends_with(end))
}

fn is_position_table(name: &str) -> bool {
    name.ends_with("embed_positions.weight") || name.ends_with("wpe.weight")
}

fn is_matrix(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && name.ends_with(".weight") && !is_position_table(name)
}

fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|c| values.iter().skip(c).step_by(cols).copied()).collect()
}

/// The same model once its matrices have been stored in blocks.
fn rounded(tensors: &Tensors) -> Tensors {
    let mut all = tensors.clone();
    for (name, (shape, values)) in &mut all {
        if is_matrix(name, shape) {
            let (rows, cols) = (shape[0], shape[1]);
            *values = match is_transposed(name) {
                true => transposed(&twin::int8_blocks(&transposed(values, cols), rows), rows),
                false => twin::int8_blocks(values, cols),
            };
        }
    }
    all
}

/// A directory with this config and these tensors in f32.
fn written(config: &Value, tensors: &Tensors) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let view = |(shape, values): &(Vec<usize>, Vec<f32>)| {
        let bytes = bytemuck::cast_slice::<f32, u8>(values).to_vec();
        (shape.clone(), bytes)
    };
    let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = tensors.iter().map(|(name, t)| (name, view(t))).collect();
    let views = bytes.iter().map(|(name, (shape, bytes))| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
    dir
}

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn device(binding_limit: Option<u64>) -> Device {
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    Device::open(&DeviceOptions { selector, checked: true, binding_limit, ..DeviceOptions::default() }).unwrap()
}

fn options(kind: Kind, weights: WeightFormat) -> SessionOptions {
    session_options(kind.into(), 1).with_weights(weights).with_cache(CacheFormat::F32)
}

/// Ids and the bits of the scores of some inputs, greedy and with three beams.
fn results(model: &Model, inputs: &[Vec<u32>], max_new: usize) -> Vec<(Vec<u32>, u32)> {
    let mut session = model.session();
    let requests: Vec<Request> = (0..).zip(inputs).map(|(id, ids)| Request::new(id, ids.clone())).collect();
    let mut found = Vec::new();
    for beams in [1, 3] {
        let asked = GenerationOptions {
            num_beams: Some(beams),
            max_new_tokens: Some(max_new),
            num_return_sequences: Some(beams),
            ..GenerationOptions::default()
        };
        let config = config(&session, asked);
        for generation in generate(&mut session, &requests, &config) {
            found.extend(generation.sequences.into_iter().map(|s| (s.token_ids, s.score.to_bits())));
        }
    }
    found
}

/// Small models of both graphs, whose weights are wide enough to be cut by small bindings: heads of 16 columns, windows of 84 rows.
fn wide_models() -> [(Value, Tensors); 2] {
    let (d, f, vocab, positions) = (128, 96, 120, 16);
    let mut bart: Vec<(String, Vec<usize>)> = vec![("model.shared.weight".into(), vec![vocab, d])];
    let vector = |name: String, n: usize| (name, vec![n]);
    for (side, blocks) in [("encoder", &["self_attn"][..]), ("decoder", &["self_attn", "encoder_attn"])] {
        let side = format!("model.{side}");
        bart.push((format!("{side}.embed_positions.weight"), vec![positions, d]));
        let layer = format!("{side}.layers.0");
        for part in blocks.iter().flat_map(|b| ["q", "k", "v", "out"].map(|p| format!("{layer}.{b}.{p}_proj"))) {
            bart.extend([(format!("{part}.weight"), vec![d, d]), vector(format!("{part}.bias"), d)]);
        }
        bart.extend([(format!("{layer}.fc1.weight"), vec![f, d]), vector(format!("{layer}.fc1.bias"), f)]);
        bart.extend([(format!("{layer}.fc2.weight"), vec![d, f]), vector(format!("{layer}.fc2.bias"), d)]);
        let norms = blocks.iter().map(|b| format!("{layer}.{b}_layer_norm"));
        for norm in norms.chain([format!("{layer}.final_layer_norm"), format!("{side}.layernorm_embedding")]) {
            bart.extend(["weight", "bias"].map(|part| vector(format!("{norm}.{part}"), d)));
        }
    }
    let mut gpt2: Vec<(String, Vec<usize>)> =
        vec![("transformer.wte.weight".into(), vec![vocab, d]), ("transformer.wpe.weight".into(), vec![positions, d])];
    for (part, input, out) in
        [("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, f), ("mlp.c_proj", f, d)]
    {
        let name = format!("transformer.h.0.{part}");
        gpt2.extend([(format!("{name}.weight"), vec![input, out]), vector(format!("{name}.bias"), out)]);
    }
    for norm in ["h.0.ln_1", "h.0.ln_2", "ln_f"] {
        gpt2.extend(["weight", "bias"].map(|part| vector(format!("transformer.{norm}.{part}"), d)));
    }
    let filled = |shapes: Vec<(String, Vec<usize>)>| {
        let mut all: Tensors = (1..)
            .zip(shapes)
            .map(|(seed, (name, shape))| {
                let factor = if name.contains("norm") || name.contains("ln_") { 1.0 } else { 0.3 };
                let numbers = values(seed, shape.iter().product()).into_iter().map(|x| x * factor).collect();
                (name, (shape, numbers))
            })
            .collect();
        clear_value_biases(&mut all);
        all
    };
    let bart_config = json!({
        "model_type": "bart", "d_model": d, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 8,
        "decoder_attention_heads": 8, "encoder_ffn_dim": f, "decoder_ffn_dim": f, "vocab_size": vocab,
        "max_position_embeddings": positions - 2, "forced_eos_token_id": null,
    });
    let gpt2_config = json!({
        "model_type": "gpt2", "n_embd": d, "n_layer": 1, "n_head": 8, "n_inner": f, "vocab_size": vocab,
        "n_positions": positions, "bos_token_id": 0, "eos_token_id": 1,
    });
    [(bart_config, filled(bart)), (gpt2_config, filled(gpt2))]
}

const FIXTURES: [&str; 2] = ["bart-base-like", "gpt2-base-like"];

fn fixture(name: &str) -> (Value, Tensors) {
    let dir = repo_root().join("tests/fixtures").join(name);
    (json_file(&dir.join("config.json")), tensors(&dir))
}

/// Device bytes of a model's weights by hand: 36 bytes for each block of 32 columns, rows in fours, one table for embedding and head, f32 for all else. b_k is not
/// loaded, b_v is in b_o; the matrices that read one input are one matrix with a bias in multi-head attention.
fn bytes_in_blocks(tensors: &Tensors, kind: Kind) -> u64 {
    let stacks = |name: &str| kind == Kind::MHA && !name.contains("encoder_attn") || name.contains("encoder.layers");
    let of = |(name, (shape, values)): (&String, &(Vec<usize>, Vec<f32>))| match shape[..] {
        [rows, cols] if is_matrix(name, shape) => {
            let (rows, cols) = if is_transposed(name) { (cols, rows) } else { (rows, cols) };
            rows.next_multiple_of(4) * cols.div_ceil(32) * 36
        }
        [rows, cols] if is_position_table(name) => rows.next_multiple_of(4) * cols * 4,
        _ if name == "final_logits_bias" => {
            if values.iter().any(|x| *x != 0.0) {
                values.len() * 4
            } else {
                0
            }
        }
        _ if name.ends_with("k_proj.bias") || name.ends_with("v_proj.bias") => 0,
        [n] if name.ends_with("q_proj.bias") => n * 4 * if stacks(name) { 3 } else { 1 },
        [n] if name.ends_with("c_attn.bias") => n * 4 / if stacks(name) { 1 } else { 3 },
        [n] => n * 4,
        _ => panic!("{name} {shape:?}"),
    };
    tensors.iter().map(of).sum::<usize>() as u64
}

#[test]
fn blocks_give_what_their_values_give_in_f32() {
    let inputs = [vec![7, 30, 51, 8, 2], vec![11, 4]];
    for name in FIXTURES {
        let (config, tensors) = fixture(name);
        let (exact, lossy) = (written(&config, &tensors), written(&config, &rounded(&tensors)));
        for kind in [Kind::MHA, Kind::EL] {
            let own = device(None);
            let blocks = Model::load_on(&own, exact.path(), &options(kind, WeightFormat::Int8Blocks)).unwrap();
            assert_eq!(blocks.formats().weights, WeightFormat::Int8Blocks);
            let held = own.pool().current().of(Class::Weights);
            assert_eq!(held, bytes_in_blocks(&tensors, kind), "{name} {kind}");
            let other = device(None);
            let plain = Model::load_on(&other, lossy.path(), &options(kind, WeightFormat::F32)).unwrap();
            assert!(held * 2 < other.pool().current().of(Class::Weights));
            let (got, want) = (results(&blocks, &inputs, 6), results(&plain, &inputs, 6));
            assert_eq!(got, want, "{name} {kind}");
            let ids: BTreeSet<u32> = want.iter().flat_map(|(ids, _)| ids).copied().collect();
            assert!(ids.len() > 3, "{ids:?} could come from anywhere");
            // Rounding is felt: what was compared is not the model as it was.
            let before = Model::load_on(&other, exact.path(), &options(kind, WeightFormat::F32)).unwrap();
            assert_ne!(results(&before, &inputs, 6), want);
        }
    }
}

#[test]
fn logits_are_those_of_the_values() {
    let device = device(None);
    for name in FIXTURES {
        let (config, tensors) = fixture(name);
        let (exact, lossy) = (written(&config, &tensors), written(&config, &rounded(&tensors)));
        let encoder = name.starts_with("bart");
        let start = |source: &[u32], prompt: &[u32]| match encoder {
            true => Start { source: source.to_vec(), prompt: vec![2] },
            false => Start { source: Vec::new(), prompt: prompt.to_vec() },
        };
        let starts = [start(&[7, 30, 51, 8, 2], &[9, 40, 3]), start(&[11], &[5])];
        let targets = [vec![3, 60, 17, 44], vec![70, 1]];
        for kind in [Kind::MHA, Kind::EL] {
            let logits = |dir: &TempDir, weights| {
                let formats = Formats { weights, cache: CacheFormat::F32 };
                Files::open(dir.path())
                    .load(&device, Kinds::both(kind), formats)
                    .forced_logits(&starts, &targets)
                    .concat()
            };
            let (got, want) = (logits(&exact, WeightFormat::Int8Blocks), logits(&lossy, WeightFormat::F32));
            assert_same_bits(&got.concat(), &want.concat(), &format!("{name} {kind}"));
        }
    }
}

/// Bindings of 12 KiB hold 84 rows: they cut the table, which is embedded and multiplied, and the matrices that EL expands and contracts with, in the
/// middle of a head.
#[test]
fn windows_cut_blocks_anywhere() {
    const BINDING: u64 = 12 << 10;
    // Short ones: what is cached for a sentence has to fit a binding as well.
    let inputs = [vec![7, 30, 51], vec![11, 4]];
    for (config, tensors) in wide_models() {
        let (exact, lossy) = (written(&config, &tensors), written(&config, &rounded(&tensors)));
        let name = config["model_type"].as_str().unwrap();
        for kind in [Kind::MHA, Kind::EL] {
            let small = device(Some(BINDING));
            let cut = Model::load_on(&small, exact.path(), &options(kind, WeightFormat::Int8Blocks)).unwrap();
            assert_eq!(small.pool().current().of(Class::Weights), bytes_in_blocks(&tensors, kind), "{name} {kind}");
            let plain = Model::load_on(&device(None), lossy.path(), &options(kind, WeightFormat::F32)).unwrap();
            let want = results(&plain, &inputs, 4);
            assert_eq!(results(&cut, &inputs, 4), want, "{name} {kind}");
            let ids: BTreeSet<u32> = want.iter().flat_map(|(ids, _)| ids).copied().collect();
            assert!(ids.len() > 3, "{ids:?} could come from anywhere");
        }
    }
    let arena = Arena::counting(BINDING);
    let rows = |matrix: Matrix| matrix.window_count();
    let windows = [120, 128].map(|n| rows(Matrix::build(&arena, "w", n, 128, WeightFormat::Int8Blocks).unwrap()));
    assert_eq!((windows, BINDING / WeightFormat::Int8Blocks.row_bytes(128) / 4 * 4), ([2, 2], 84));
}

/// What is counted without loading is what is loaded, in this format too.
#[test]
fn blocks_are_planned_to_the_byte() {
    for (config, tensors) in FIXTURES.map(fixture).into_iter().chain(wide_models()) {
        let map = config.as_object().unwrap();
        let model = ModelConfig::from_map(map, "config.json".as_ref()).unwrap();
        for kind in [Kind::MHA, Kind::EL] {
            let told = model.tally_weights(Kinds::both(kind), WeightFormat::Int8Blocks, 12 << 10).unwrap();
            let bias = tensors.get("final_logits_bias").is_some_and(|(_, bias)| bias.iter().any(|x| *x != 0.0));
            let not_loaded = if model.family().is_encoder_decoder && !bias { model.vocab_size() as u64 * 4 } else { 0 };
            assert_eq!(told.usage().of(Class::Weights), bytes_in_blocks(&tensors, kind) + not_loaded, "{config}");
        }
    }
}

/// Rows of halves, with how often they were read.
struct Halves {
    cols: usize,
    bits: Vec<u16>,
    reads: Cell<usize>,
    stored_reads: Cell<usize>,
}

impl Halves {
    /// Numbers of all kinds, subnormal ones and zeros of both signs among them.
    fn new(rows: usize, cols: usize) -> Self {
        let odd = [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0x3c00];
        let bits = values(9, rows * cols).into_iter().enumerate().map(|(i, x)| match odd.get(i) {
            Some(bits) => *bits,
            None => half::f16::from_f32(x).to_bits(),
        });
        Self { cols, bits: bits.collect(), reads: Cell::new(0), stored_reads: Cell::new(0) }
    }
}

impl MatrixSource for Halves {
    fn rows(&self) -> usize {
        self.bits.len() / self.cols
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read(&self, first: usize, out: &mut [f32], _: WeightFormat) -> Result<(), SourceError> {
        self.reads.set(self.reads.get() + 1);
        for (out, bits) in out.iter_mut().zip(&self.bits[first * self.cols..]) {
            *out = half::f16::from_bits(*bits).to_f32();
        }
        Ok(())
    }
    fn format(&self) -> Option<WeightFormat> {
        Some(WeightFormat::F16)
    }
    fn read_stored(&self, first: usize, count: usize, out: &mut [u8]) -> Result<(), SourceError> {
        self.stored_reads.set(self.stored_reads.get() + 1);
        let rows = self.bits.chunks(self.cols).skip(first).take(count);
        for (row, out) in rows.zip(out.chunks_mut(WeightFormat::F16.row_bytes(self.cols) as usize)) {
            out[..2 * self.cols].copy_from_slice(bytemuck::cast_slice(row));
        }
        Ok(())
    }
}

#[test]
fn rows_in_the_format_of_the_matrix_keep_their_bits() {
    let device = device(Some(4 << 10));
    let arena = Arena::from(&device);
    // In one piece and in row windows; rows that are whole quads, and rows that are not.
    for (rows, cols) in [(5, 8), (5, 7), (300, 30)] {
        let source = Halves::new(rows, cols);
        let held = load_linear(&arena, "w", WeightFormat::F16, &source, None).unwrap().weight;
        assert_eq!((source.reads.get(), source.stored_reads.get()), (0, 1));
        let words: Vec<u16> = bytemuck::pod_collect_to_vec(&held.read_windows(&device).unwrap().concat());
        for (row, (got, want)) in words.chunks(cols.next_multiple_of(4)).zip(source.bits.chunks(cols)).enumerate() {
            assert_eq!((&got[..cols], got[cols..].iter().sum::<u16>()), (want, 0), "row {row} of {cols} columns");
        }
        // Who looks at the values gets them in f32, and the bits are the same.
        let matrix = Matrix::build(&arena, "w", rows, cols, WeightFormat::F16).unwrap();
        let mut seen = Vec::new();
        let see = &mut |first: usize, values: &[f32]| {
            assert_eq!(first * cols, seen.len());
            seen.extend(values.iter().map(|x| half::f16::from_f32(*x).to_bits()));
        };
        matrix.load_seen(&arena, 0, &source, 0..rows, Some(see)).unwrap();
        assert_eq!((source.reads.get(), source.stored_reads.get()), (1, 2));
        assert!(seen == source.bits);
        assert_eq!(matrix.read_windows(&device).unwrap(), held.read_windows(&device).unwrap());
        // Another format goes through f32.
        load_linear(&arena, "w", WeightFormat::F32, &source, None).unwrap();
        assert_eq!((source.reads.get(), source.stored_reads.get()), (2, 2));
    }
}

/// f16 holds the weights of an f16 checkpoint exactly: only bytes change.
#[test]
fn a_checkpoint_in_f16_is_the_same_model_in_f16() {
    let inputs = [vec![7, 30, 51, 8, 2], vec![11, 4]];
    for name in ["bart-head10-f16", "gpt2-head10-f16-sharded"] {
        let dir = repo_root().join("tests/fixtures").join(name);
        for kind in [Kind::MHA, Kind::EL] {
            let run = |weights: WeightFormat| {
                let own = device(None);
                let model = Model::load_on(&own, &dir, &options(kind, weights)).unwrap();
                let both = Formats { weights, ..DType::F32.into() };
                assert_eq!(model.formats(), both);
                (own.pool().current().of(Class::Weights), results(&model, &inputs, 6))
            };
            let ((half, got), (whole, want)) = (run(WeightFormat::F16), run(WeightFormat::F32));
            assert_eq!(got, want, "{name} {kind}");
            assert!(half * 5 < whole * 3, "{half} of {whole} bytes");
        }
    }
}
