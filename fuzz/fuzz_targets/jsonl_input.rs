#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    elgen::fuzz_jsonl(data);
});
