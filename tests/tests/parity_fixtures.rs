//! Every recorded option set of every small model, with every attention kind: ids equal to Hugging Face's, scores within tolerance.

use elgen_engine::AttentionChoice;
use elgen_tests::recorded::compare as all;

/// What `tools/make_fixtures.py` and its kin recorded with a model, and what `tools/make_option_fixtures.py` did for some of them.
const PLAIN: &str = "reference.json";
const OPTIONS: &str = "options.json";

#[test]
fn bart_mha() {
    all("bart-", PLAIN, AttentionChoice::Mha, 1300);
}

#[test]
fn bart_mha_replicated() {
    all("bart-", PLAIN, AttentionChoice::MhaReplicated, 1300);
}

#[test]
fn bart_mha_nocache() {
    all("bart-", PLAIN, AttentionChoice::MhaNocache, 1300);
}

#[test]
fn bart_el() {
    all("bart-", PLAIN, AttentionChoice::El, 1300);
}

#[test]
fn gpt2_mha() {
    all("gpt2-", PLAIN, AttentionChoice::Mha, 700);
}

#[test]
fn gpt2_mha_replicated() {
    all("gpt2-", PLAIN, AttentionChoice::MhaReplicated, 700);
}

#[test]
fn gpt2_el() {
    all("gpt2-", PLAIN, AttentionChoice::El, 700);
}

#[test]
fn bart_further_options_mha() {
    all("bart-", OPTIONS, AttentionChoice::Mha, 460);
}

#[test]
fn bart_further_options_el() {
    all("bart-", OPTIONS, AttentionChoice::El, 460);
}

#[test]
fn gpt2_further_options_mha() {
    all("gpt2-", OPTIONS, AttentionChoice::Mha, 371);
}

#[test]
fn gpt2_further_options_el() {
    all("gpt2-", OPTIONS, AttentionChoice::El, 371);
}

#[test]
fn t5_mha() {
    all("t5-", PLAIN, AttentionChoice::Mha, 400);
}

#[test]
fn t5_mha_replicated() {
    all("t5-", PLAIN, AttentionChoice::MhaReplicated, 400);
}

#[test]
fn t5_mha_nocache() {
    all("t5-", PLAIN, AttentionChoice::MhaNocache, 400);
}

#[test]
fn t5_el() {
    all("t5-", PLAIN, AttentionChoice::El, 400);
}

#[test]
fn marian_mha() {
    all("marian-", PLAIN, AttentionChoice::Mha, 330);
}

#[test]
fn marian_mha_replicated() {
    all("marian-", PLAIN, AttentionChoice::MhaReplicated, 330);
}

#[test]
fn marian_mha_nocache() {
    all("marian-", PLAIN, AttentionChoice::MhaNocache, 330);
}

#[test]
fn marian_el() {
    all("marian-", PLAIN, AttentionChoice::El, 330);
}

#[test]
fn mbart_mha() {
    all("mbart-", PLAIN, AttentionChoice::Mha, 260);
}

#[test]
fn mbart_mha_replicated() {
    all("mbart-", PLAIN, AttentionChoice::MhaReplicated, 260);
}

#[test]
fn mbart_mha_nocache() {
    all("mbart-", PLAIN, AttentionChoice::MhaNocache, 260);
}

#[test]
fn mbart_el() {
    all("mbart-", PLAIN, AttentionChoice::El, 260);
}

#[test]
fn pegasus_mha() {
    all("pegasus-", PLAIN, AttentionChoice::Mha, 240);
}

#[test]
fn pegasus_mha_replicated() {
    all("pegasus-", PLAIN, AttentionChoice::MhaReplicated, 240);
}

#[test]
fn pegasus_mha_nocache() {
    all("pegasus-", PLAIN, AttentionChoice::MhaNocache, 240);
}

#[test]
fn pegasus_el() {
    all("pegasus-", PLAIN, AttentionChoice::El, 240);
}

#[test]
fn opt_mha() {
    all("opt-", PLAIN, AttentionChoice::Mha, 400);
}

#[test]
fn opt_mha_replicated() {
    all("opt-", PLAIN, AttentionChoice::MhaReplicated, 400);
}

#[test]
fn opt_el() {
    all("opt-", PLAIN, AttentionChoice::El, 400);
}
