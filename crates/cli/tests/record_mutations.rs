//! The reader of records on mutations of good files.

#[path = "../../../fuzz/mutations.rs"]
#[allow(unreachable_pub, reason = "shared with other tests")]
mod mutations;

#[test]
fn mutations_do_no_harm() {
    mutations::fuzz("jsonl_input", |bytes| elgen::fuzz_jsonl(bytes) > 3);
}
