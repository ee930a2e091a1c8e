#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    elgen_models::fuzzing::safetensors_index(data);
});
