//! The bytes of a model's weights, told from its config alone, are those that its loading takes.

use std::path::{Path, PathBuf};

use elgen_attention::Kind;
use elgen_models::checkpoint::Weights;
use elgen_models::families::BartConfig;
use elgen_models::{Checkpoint, Kinds, ModelConfig, Outline, load};
use elgen_tensor::{Arena, Class, DType, Device, Matrix, tensor_bytes};
use elgen_tests::harness::{devices, windowed_devices};

/// Directories of models: all small ones and those of the demo.
fn models() -> Vec<PathBuf> {
    let root = elgen_tests::repo_root();
    let mut found: Vec<PathBuf> = ["tests/fixtures", "demo"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("config.json").is_file())
        .collect();
    found.sort();
    found
}

/// Bytes of an embedding table that the checkpoint holds beyond those that its config implies: files of transformers 5 have one for each of encoder
/// and decoder where an untied BART of transformers 4 had one for both.
fn own_table(config: &ModelConfig, checkpoint: &Checkpoint, dtype: DType, max_binding_bytes: u64) -> u64 {
    let Some(c) = config.downcast_ref::<BartConfig>() else { return 0 };
    if !c.share_embeddings || c.tie_word_embeddings {
        return 0;
    }
    let views = Weights::new(checkpoint, "model.")
        .shared_embeddings(BartConfig::SUBSTITUTES, c.vocab_size, c.d_model, false)
        .unwrap();
    let same = views.encoder.name() == views.decoder.name();
    if same {
        return 0;
    }
    let arena = Arena::counting(max_binding_bytes);
    Matrix::build(&arena, "embedding", c.vocab_size, c.d_model, dtype.into()).unwrap();
    arena.tally().usage().total
}

/// Loads the model and compares.
fn check(device: &Device, dir: &Path, config: &ModelConfig, checkpoint: &Checkpoint, kinds: Kinds, dtype: DType) {
    let outline = Outline::new(config);
    let before = device.pool().current().of(Class::Weights);
    let model = load(device, config, checkpoint, kinds, dtype).unwrap();
    let held = device.pool().current().of(Class::Weights) - before;
    let told =
        config.tally_weights(kinds, dtype.into(), device.capabilities().max_binding_bytes).unwrap().usage().total;
    let told = told + own_table(config, checkpoint, dtype, device.capabilities().max_binding_bytes);
    // A bias of zeros on the logits is not loaded; nothing in the config tells.
    let bias = tensor_bytes(1, config.vocab_size(), DType::F32);
    let has_bias = config.downcast_ref::<BartConfig>().is_some();
    assert!(
        told == held || (has_bias && told == held + bias),
        "{}: {kinds:?} {}: {told} bytes are told, {held} were taken",
        dir.display(),
        dtype.name()
    );
    assert_eq!(outline.cache_layout(kinds, dtype.into()), model.cache_layout());
    assert_eq!((outline.encoder, outline.decoder), (model.encoder_shape(), model.decoder_shape()));
    assert_eq!(outline.limits, model.limits());
}

fn kinds(config: &ModelConfig) -> impl Iterator<Item = Kinds> {
    let encoder = config.family().is_encoder_decoder;
    let pairs = Kind::BUILT_IN.into_iter().map(Kinds::both);
    let mixed = Kinds::new(Kind::EL, Kind::MHA);
    pairs.chain(encoder.then_some(mixed)).filter(move |k| encoder || k.self_ != Kind::MHA_NOCACHE)
}

#[test]
fn weights_take_what_the_config_tells() {
    let device = &devices()[0].device;
    let models = models();
    assert!(models.len() >= 30, "{} models", models.len());
    for dir in &models {
        let (config, checkpoint) = (ModelConfig::load(dir).unwrap(), Checkpoint::open(dir).unwrap());
        for kinds in kinds(&config) {
            check(device, dir, &config, &checkpoint, kinds, DType::F32);
        }
        check(device, dir, &config, &checkpoint, Kinds::both(Kind::EL), DType::F16);
    }
}

#[test]
fn weights_in_several_windows_too() {
    let device = &windowed_devices()[0].device;
    for dir in models().iter().filter(|dir| dir.components().any(|part| part.as_os_str() == "fixtures")) {
        let (config, checkpoint) = (ModelConfig::load(dir).unwrap(), Checkpoint::open(dir).unwrap());
        for dtype in [DType::F32, DType::F16] {
            check(device, dir, &config, &checkpoint, Kinds::both(Kind::MHA), dtype);
        }
    }
}
