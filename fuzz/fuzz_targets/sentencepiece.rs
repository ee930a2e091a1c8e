#![no_main]

#[path = "../caught.rs"]
mod caught;

libfuzzer_sys::fuzz_target!(
    init: caught::allow_panics_of_tokenizers(),
    |data: &[u8]| {
        elgen_models::fuzzing::sentencepiece(data);
    }
);
