//! Every recorded option set of every small model, with every attention kind: ids equal to Hugging Face's, scores within tolerance.

use elgen_engine::AttentionChoice;
use elgen_tests::recorded::compare as all;

/// What `tools/make_fixtures.py` and its kin recorded with a model, and what `tools/make_option_fixtures.py` did for some of them.
const PLAIN: &str = "reference.json";
const OPTIONS: &str = "options.json";

#[test]
fn bart_mha() {
    all("bart-", PLAIN, AttentionChoice::MHA, 1300);
}

#[test]
fn bart_mha_replicated() {
    all("bart-", PLAIN, AttentionChoice::MHA_REPLICATED, 1300);
}

#[test]
fn bart_mha_nocache() {
    all("bart-", PLAIN, AttentionChoice::MHA_NOCACHE, 1300);
}

#[test]
fn bart_el() {
    all("bart-", PLAIN, AttentionChoice::EL, 1300);
}

#[test]
fn gpt2_mha() {
    all("gpt2-", PLAIN, AttentionChoice::MHA, 700);
}

#[test]
fn gpt2_mha_replicated() {
    all("gpt2-", PLAIN, AttentionChoice::MHA_REPLICATED, 700);
}

#[test]
fn gpt2_el() {
    all("gpt2-", PLAIN, AttentionChoice::EL, 700);
}

#[test]
fn bart_further_options_mha() {
    all("bart-", OPTIONS, AttentionChoice::MHA, 460);
}

#[test]
fn bart_further_options_el() {
    all("bart-", OPTIONS, AttentionChoice::EL, 460);
}

#[test]
fn gpt2_further_options_mha() {
    all("gpt2-", OPTIONS, AttentionChoice::MHA, 371);
}

#[test]
fn gpt2_further_options_el() {
    all("gpt2-", OPTIONS, AttentionChoice::EL, 371);
}

#[test]
fn t5_mha() {
    all("t5-", PLAIN, AttentionChoice::MHA, 400);
}

#[test]
fn t5_mha_replicated() {
    all("t5-", PLAIN, AttentionChoice::MHA_REPLICATED, 400);
}

#[test]
fn t5_mha_nocache() {
    all("t5-", PLAIN, AttentionChoice::MHA_NOCACHE, 400);
}

#[test]
fn t5_el() {
    all("t5-", PLAIN, AttentionChoice::EL, 400);
}

#[test]
fn marian_mha() {
    all("marian-", PLAIN, AttentionChoice::MHA, 330);
}

#[test]
fn marian_mha_replicated() {
    all("marian-", PLAIN, AttentionChoice::MHA_REPLICATED, 330);
}

#[test]
fn marian_mha_nocache() {
    all("marian-", PLAIN, AttentionChoice::MHA_NOCACHE, 330);
}

#[test]
fn marian_el() {
    all("marian-", PLAIN, AttentionChoice::EL, 330);
}

#[test]
fn mbart_mha() {
    all("mbart-", PLAIN, AttentionChoice::MHA, 260);
}

#[test]
fn mbart_mha_replicated() {
    all("mbart-", PLAIN, AttentionChoice::MHA_REPLICATED, 260);
}

#[test]
fn mbart_mha_nocache() {
    all("mbart-", PLAIN, AttentionChoice::MHA_NOCACHE, 260);
}

#[test]
fn mbart_el() {
    all("mbart-", PLAIN, AttentionChoice::EL, 260);
}

#[test]
fn pegasus_mha() {
    all("pegasus-", PLAIN, AttentionChoice::MHA, 240);
}

#[test]
fn pegasus_mha_replicated() {
    all("pegasus-", PLAIN, AttentionChoice::MHA_REPLICATED, 240);
}

#[test]
fn pegasus_mha_nocache() {
    all("pegasus-", PLAIN, AttentionChoice::MHA_NOCACHE, 240);
}

#[test]
fn pegasus_el() {
    all("pegasus-", PLAIN, AttentionChoice::EL, 240);
}

#[test]
fn opt_mha() {
    all("opt-", PLAIN, AttentionChoice::MHA, 400);
}

#[test]
fn opt_mha_replicated() {
    all("opt-", PLAIN, AttentionChoice::MHA_REPLICATED, 400);
}

#[test]
fn opt_el() {
    all("opt-", PLAIN, AttentionChoice::EL, 400);
}
