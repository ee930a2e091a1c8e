#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    elgen_cli::fuzz_jsonl(data);
});
