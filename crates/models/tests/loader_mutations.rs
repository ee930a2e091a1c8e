//! The loaders on mutations of good files.

#[path = "../../../fuzz/mutations.rs"]
#[allow(unreachable_pub, reason = "shared with other tests")]
mod mutations;

use elgen_models::fuzzing;
use mutations::fuzz;

#[test]
fn mutations_do_no_harm() {
    fuzz("safetensors_header", fuzzing::safetensors_header);
    fuzz("safetensors_index", fuzzing::safetensors_index);
    fuzz("config", fuzzing::config);
    fuzz("generation_config", fuzzing::generation_config);
    fuzz("tokenizer_json", fuzzing::tokenizer_json);
    fuzz("bpe_files", fuzzing::bpe_files);
    fuzz("sentencepiece", fuzzing::sentencepiece);
}
