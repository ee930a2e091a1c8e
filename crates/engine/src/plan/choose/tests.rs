use elgen_tensor::DType;

use super::*;
use crate::options::Expected;

fn bart_large() -> ModelConfig {
    // The defaults of its config class are BART-large's.
    let json = serde_json::json!({ "model_type": "bart", "vocab_size": 50264 });
    ModelConfig::from_map(json.as_object().unwrap(), "config.json".as_ref()).unwrap()
}

fn gpt2() -> ModelConfig {
    let json = serde_json::json!({ "model_type": "gpt2" });
    ModelConfig::from_map(json.as_object().unwrap(), "config.json".as_ref()).unwrap()
}

fn limits(model: &ModelConfig) -> ModelLimits {
    Outline::new(model).limits
}

fn cnndm() -> GenerationOptions {
    GenerationOptions {
        num_beams: Some(4),
        max_length: Some(142),
        decoder_start_token_id: Some(2),
        eos_token_id: Some(elgen_search::TokenIds(vec![2])),
        ..GenerationOptions::default()
    }
}

fn of(checkpoint: &GenerationOptions, model: &ModelConfig, options: &SessionOptions) -> Workload {
    workload(checkpoint, &limits(model), options, 4096).unwrap().0
}

#[test]
fn the_checkpoint_and_the_positions_say_what_the_caller_does_not() {
    let options = SessionOptions::default();
    let own = of(&cnndm(), &bart_large(), &options);
    assert_eq!(own, Workload { beams: 4, source_length: 1024, prompt_length: 1, max_new_tokens: 141, batch_limit: 32 });
    // Hugging Face's 20 new tokens, and the rest of the positions for the prompt.
    let plain = of(&GenerationOptions::default(), &gpt2(), &options);
    assert_eq!(
        plain,
        Workload { beams: 1, source_length: 0, prompt_length: 1004, max_new_tokens: 20, batch_limit: 32 }
    );
}

#[test]
fn the_caller_is_heard_within_the_positions() {
    let expected = Expected::default().with_num_beams(6).with_source_length(300).with_max_new_tokens(60);
    let batch_size = BatchSize::Auto;
    let options =
        SessionOptions::default().with_expected(expected).with_batch_size(batch_size).with_max_batch_tokens(3000);
    let asked = of(&cnndm(), &bart_large(), &options);
    assert_eq!(asked, Workload { beams: 6, source_length: 300, prompt_length: 1, max_new_tokens: 60, batch_limit: 10 });
    let far = Expected::default().with_source_length(1 << 20);
    let options = SessionOptions::default().with_expected(far).with_batch_size(batch_size);
    assert_eq!(of(&cnndm(), &bart_large(), &options).source_length, 1024);
    assert_eq!(of(&cnndm(), &bart_large(), &options).batch_limit, 4096);
    assert_eq!(of(&GenerationOptions::default(), &gpt2(), &options).prompt_length, 1004);
}

#[test]
fn batches_are_as_large_as_the_memory() {
    let model = bart_large();
    let workload =
        |batch_limit| Workload { beams: 4, source_length: 1024, prompt_length: 1, max_new_tokens: 140, batch_limit };
    let run = |limit| {
        let options = SessionOptions::default().with_batch_size(BatchSize::Sentences(limit));
        super::workload(&cnndm(), &limits(&model), &options, 0).unwrap().1
    };
    let largest = |kinds, gib: u64, limit: usize| {
        let memory = MemoryPlan {
            model: &model,
            kinds,
            formats: DType::F16.into(),
            max_binding_bytes: 2 << 30,
            memory_limit: gib << 30,
        };
        largest_batch(&memory, &workload(limit), &run(limit))
    };
    let [mha, replicated, _, el] = Kind::BUILT_IN.map(|kind| largest(Kinds::both(kind), 16, 4096).unwrap());
    // A sentence takes 74, 218 and 15 MiB of caches; logits, tables and working tensors come to it.
    assert!((195..210).contains(&mha), "{mha}");
    assert!((65..72).contains(&replicated), "{replicated}");
    assert!((500..1030).contains(&el), "{el}");
    assert_eq!(largest(Kinds::both(Kind::MHA), 16, 32), Some(32));
    assert_eq!(largest(Kinds::both(Kind::MHA), 0, 32), None);
    // Weights alone take 775 MiB: a GiB leaves room for a few sentences, and for more of them with EL.
    let [mha, el] = [Kind::MHA, Kind::EL].map(|kind| largest(Kinds::both(kind), 1, 32));
    assert!(mha < el, "{mha:?} {el:?}");
}

#[test]
fn expectations_without_end_are_planned_for() {
    let t5 = serde_json::json!({ "model_type": "t5", "decoder_start_token_id": 0 });
    let t5 = ModelConfig::from_map(t5.as_object().unwrap(), "config.json".as_ref()).unwrap();
    let start = GenerationOptions { decoder_start_token_id: Some(0), ..GenerationOptions::default() };
    for model in [bart_large(), gpt2(), t5] {
        for number in [0, 1, 1 << 31, 1 << 32, 1 << 53, 1 << 63, usize::MAX] {
            for other in [0, 1, 1 << 32, usize::MAX] {
                let expected =
                    Expected::default().with_num_beams(other).with_source_length(number).with_max_new_tokens(number);
                let options = SessionOptions::default()
                    .with_expected(expected)
                    .with_batch_size(BatchSize::Sentences(number))
                    .with_max_batch_tokens(other);
                let (workload, run) = workload(&start, &limits(&model), &options, 4096).expect("options that fit");
                for memory_limit in [1, 1 << 30, u64::MAX] {
                    let memory = MemoryPlan {
                        model: &model,
                        kinds: Kinds::both(Kind::EL),
                        formats: DType::F16.into(),
                        max_binding_bytes: 2 << 30,
                        memory_limit,
                    };
                    let fits = largest_batch(&memory, &workload, &run);
                    assert!(fits.is_none() || memory_limit > 1, "{expected:?}");
                }
            }
        }
    }
}
