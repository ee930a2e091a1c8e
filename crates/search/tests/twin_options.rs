//! Reading, merging and resolving options.

use elgen_search::{EarlyStopping, GenerationConfig, GenerationOptions, Mode, ModelLimits, OptionError, Warning};
use serde_json::{Value, json};

const DECODER: ModelLimits =
    ModelLimits { vocab_size: 100, max_position_embeddings: Some(64), is_encoder_decoder: false };

fn options(json: Value) -> GenerationOptions {
    serde_json::from_value(json).unwrap()
}

fn resolve(json: Value) -> GenerationConfig {
    options(json).resolve(&DECODER).unwrap().0
}

fn refused(json: Value) -> OptionError {
    options(json).resolve(&DECODER).unwrap_err()
}

fn warned(json: Value) -> Vec<Warning> {
    options(json).resolve(&DECODER).unwrap().1
}

#[test]
fn reads_every_option_and_writes_it_back() {
    let json = json!({
        "max_length": 20, "max_new_tokens": 10, "min_length": 1, "min_new_tokens": 2, "num_beams": 4, "num_beam_groups": 2,
        "diversity_penalty": 0.5, "do_sample": false,
        "num_return_sequences": 2, "early_stopping": "never", "length_penalty": 2.0, "temperature": 0.5, "top_k": 5,
        "top_p": 0.5, "repetition_penalty": 1.5, "no_repeat_ngram_size": 3, "bad_words_ids": [[1], [2, 3]],
        "suppress_tokens": [4], "begin_suppress_tokens": [5], "forced_bos_token_id": 6, "forced_eos_token_id": [7],
        "eos_token_id": [7, 8], "pad_token_id": 9, "bos_token_id": 10, "decoder_start_token_id": 11, "seed": 12,
        "min_p": 0.1, "typical_p": 0.9, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02, "top_h": 0.5,
        "encoder_repetition_penalty": 1.2, "encoder_no_repeat_ngram_size": 3, "sequence_bias": [[[1], 2.0], [[3, 4], -1.5]],
        "exponential_decay_length_penalty": [5, 1.25], "remove_invalid_values": true, "renormalize_logits": true,
        "stop_strings": ["a", "b"], "max_time": 1.5,
        "guidance_scale": 1.0,
    });
    let read = options(json.clone());
    assert_eq!(serde_json::to_value(&read).unwrap(), json);
    assert_eq!(json.as_object().unwrap().len(), GenerationOptions::NAMES.len() + 1);
    assert_eq!(read.early_stopping, Some(EarlyStopping::Never));
    assert_eq!(options(json!({"eos_token_id": 3})).eos_token_id, Some(3.into()));
    let bias = |json: Value| options(json!({"sequence_bias": json})).sequence_bias.unwrap().0;
    assert_eq!(bias(json!({"(3, 4)": -1.5, "1": 2})), [(vec![3, 4], -1.5), (vec![1], 2.0)]);
    assert_eq!(bias(json!([[[1], 2], [[1], 3]])), [(vec![1], 3.0)]);
    assert_eq!(options(json!({"stop_strings": "x"})).stop_strings, Some(vec!["x".to_owned()].into()));
    let ignored = json!({"transformers_version": "5.23.0", "num_beams": null, "use_cache": true, "min_p": null});
    assert_eq!(options(ignored), GenerationOptions::default());
}

#[test]
fn a_wrong_type_names_the_key_and_the_value() {
    let message = |json: Value| GenerationOptions::from_json(json.as_object().unwrap()).unwrap_err().to_string();
    assert_eq!(message(json!({"num_beams": "four"})), "num_beams: expected a non-negative integer, got \"four\"");
    assert_eq!(message(json!({"top_k": -1})), "top_k: expected a non-negative integer, got -1");
    let early = "early_stopping: expected true, false or \"never\", got \"always\"";
    assert_eq!(message(json!({"early_stopping": "always"})), early);
    let bias = "sequence_bias: expected a list of [[token ids], bias], got [[5],1.0]";
    assert_eq!(message(json!({"sequence_bias": [[5], 1.0]})), bias);
    let decay = "exponential_decay_length_penalty: expected [start, factor], got [1.5]";
    assert_eq!(message(json!({"exponential_decay_length_penalty": [1.5]})), decay);
    assert_eq!(message(json!({"stop_strings": [1]})), "stop_strings: expected a string or a list of strings, got [1]");
    let eos = "eos_token_id: expected a token id or a list of token ids, got [3,\"4\"]";
    assert_eq!(message(json!({"eos_token_id": [3, "4"]})), eos);
}

#[test]
fn merging_prefers_the_higher_source() {
    let user = options(json!({"num_beams": 2, "guidance_scale": 1}));
    let checkpoint = options(json!({"num_beams": 6, "max_length": 30, "guidance_scale": 2, "eos_token_id": 1}));
    let merged = user.or(checkpoint.clone());
    assert_eq!((merged.num_beams, merged.max_length), (Some(2), Some(30)));
    assert!(merged.resolve(&DECODER).is_ok());
    assert_eq!(checkpoint.resolve(&DECODER).unwrap_err().option, "guidance_scale");
}

#[test]
fn defaults_are_those_of_hugging_face() {
    let config = resolve(json!({"eos_token_id": [3, 4, 3]}));
    assert_eq!((config.mode, config.top_k, config.top_p, config.temperature), (Mode::Greedy, 50, 1.0, 1.0));
    assert_eq!((config.repetition_penalty, config.length_penalty, config.seed), (1.0, 1.0, 0));
    assert_eq!((config.eos_token_id, config.pad_token_id), (vec![3, 4], Some(3)));
    assert_eq!(resolve(json!({"num_beams": 4})).num_candidates(), 8);
    assert_eq!(resolve(json!({"num_beams": 4, "eos_token_id": [1, 2]})).num_candidates(), 12);
    assert_eq!(resolve(json!({"do_sample": true, "num_return_sequences": 3})).rows_per_sentence(), 3);
    assert_eq!(resolve(json!({"num_beams": 4, "num_return_sequences": 3})).rows_per_sentence(), 4);
    assert!(resolve(json!({"bad_words_ids": [[3], [3, 5]], "eos_token_id": 3})).bad_words_ids == [[3, 5]]);
}

#[test]
fn the_defaults_are_what_is_resolved() {
    let explicit = GenerationOptions { eos_token_id: Some(3.into()), ..GenerationOptions::defaults() };
    let (config, warnings) = explicit.resolve(&DECODER).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let unset = resolve(json!({"eos_token_id": 3}));
    assert_eq!(config.lengths(7), unset.lengths(7));
    // They differ in how the limit is written, and in nothing else.
    let same = resolve(json!({"eos_token_id": 3, "max_new_tokens": 20}));
    assert_eq!(config, same);
    assert!(GenerationOptions::knows("min_p") && GenerationOptions::knows("penalty_alpha"));
    assert!(!GenerationOptions::knows("minp"));
}

#[test]
fn warpers_keep_one_token_more_than_there_are_ends() {
    let keep = |json| resolve(json).min_tokens_to_keep();
    assert_eq!(keep(json!({"eos_token_id": [1, 2]})), 1);
    assert_eq!(keep(json!({"eos_token_id": [1, 2, 1], "num_beams": 3})), 3);
    assert_eq!(keep(json!({"num_beams": 3})), 2);
}

#[test]
fn an_encoder_decoder_needs_a_start_token() {
    let limits = ModelLimits { is_encoder_decoder: true, ..DECODER };
    let start = |json| options(json).resolve(&limits).map(|(config, _)| config.decoder_start_token_id);
    assert_eq!(start(json!({"decoder_start_token_id": 2, "bos_token_id": 1})), Ok(Some(2)));
    assert_eq!(start(json!({"bos_token_id": 1})), Ok(Some(1)));
    assert_eq!(start(json!({})).unwrap_err().option, "decoder_start_token_id");
    assert_eq!(resolve(json!({"bos_token_id": 1})).decoder_start_token_id, None);
}

#[test]
fn refuses_what_generate_refuses() {
    for (option, json) in [
        ("max_new_tokens", json!({"max_new_tokens": 0})),
        ("num_beams", json!({"num_beams": 0})),
        ("num_return_sequences", json!({"num_return_sequences": 2})),
        ("num_return_sequences", json!({"num_return_sequences": 3, "num_beams": 2})),
        ("temperature", json!({"temperature": 0.0, "do_sample": true})),
        ("repetition_penalty", json!({"repetition_penalty": 0})),
        ("top_p", json!({"top_p": -0.5, "do_sample": true})),
        ("min_p", json!({"min_p": 1.5, "do_sample": true})),
        ("min_p", json!({"min_p": -0.1, "do_sample": true})),
        ("typical_p", json!({"typical_p": 0.0, "do_sample": true})),
        ("top_h", json!({"top_h": 0.0, "do_sample": true})),
        ("top_h", json!({"top_h": 1.01, "do_sample": true})),
        ("encoder_repetition_penalty", json!({"encoder_repetition_penalty": 0.0})),
        ("encoder_repetition_penalty", json!({"encoder_repetition_penalty": 1e-45})),
        ("sequence_bias", json!({"sequence_bias": [[[1], 1e39]]})),
        ("exponential_decay_length_penalty", json!({"exponential_decay_length_penalty": [2.5, -1.0]})),
        ("max_time", json!({"max_time": -1.0})),
        ("stop_strings", json!({"stop_strings": ["x", ""]})),
        ("num_beam_groups", json!({"num_beam_groups": 2})),
        ("num_beam_groups", json!({"num_beam_groups": 2, "num_beams": 3, "diversity_penalty": 1.0})),
        ("num_beam_groups", json!({"num_beam_groups": 2, "num_beams": 4, "diversity_penalty": 1.0, "do_sample": true})),
        ("num_beam_groups", json!({"num_beam_groups": 2, "num_beams": 4})),
        ("diversity_penalty", json!({"num_beam_groups": 2, "num_beams": 4, "diversity_penalty": -0.5})),
        ("forced_eos_token_id", json!({"forced_eos_token_id": 3, "suppress_tokens": [3]})),
        ("forced_bos_token_id", json!({"forced_bos_token_id": 3, "suppress_tokens": [3, 4]})),
    ] {
        assert_eq!(refused(json.clone()).option, option, "{json}");
    }
    assert!(options(json!({"temperature": 0.0})).resolve(&DECODER).is_ok());
    assert!(options(json!({"forced_eos_token_id": [3, 4], "suppress_tokens": [3]})).resolve(&DECODER).is_ok());
    for unsampled in [json!({"min_p": 1.5}), json!({"typical_p": 0.0}), json!({"top_h": 2.0}), json!({"top_p": 2.0})] {
        assert!(options(unsampled.clone()).resolve(&DECODER).is_ok(), "{unsampled}");
    }
    assert_eq!(
        refused(json!({"num_beam_groups": 2, "num_beams": 3, "diversity_penalty": 1.0})).to_string(),
        "num_beam_groups: 2 does not divide num_beams (3)"
    );
    let groups = json!({"num_beam_groups": 2, "num_beams": 4, "diversity_penalty": 0.5});
    assert!(options(groups.clone()).resolve(&DECODER).is_ok());
    assert_eq!((resolve(groups.clone()).num_beam_groups, resolve(groups).diversity_penalty), (2, 0.5));
    let tiny = ModelLimits { vocab_size: 2, ..DECODER };
    assert_eq!(
        options(json!({"num_beams": 2, "eos_token_id": [0, 1]})).resolve(&tiny).unwrap_err().option,
        "num_beams"
    );
    assert_eq!(
        refused(json!({"num_return_sequences": 3, "num_beams": 2})).to_string(),
        "num_return_sequences: 3 is more than num_beams (2)"
    );
}

#[test]
fn refuses_ids_outside_the_vocabulary_that_play_a_part() {
    let encoder_decoder = ModelLimits { is_encoder_decoder: true, ..DECODER };
    let start = |json: Value| options(json).resolve(&encoder_decoder).unwrap_err();
    for id in [json!(100), json!(-1), json!(1_u64 << 40)] {
        assert_eq!(refused(json!({"forced_eos_token_id": id})).option, "forced_eos_token_id");
        assert_eq!(start(json!({"decoder_start_token_id": id, "bos_token_id": 0})).option, "decoder_start_token_id");
        assert_eq!(start(json!({"bos_token_id": id})).option, "bos_token_id");
    }
    let outside = "decoder_start_token_id: token id -1 is outside the model's vocabulary of 100";
    assert_eq!(start(json!({"decoder_start_token_id": -1})).to_string(), outside);
    assert_eq!(start(json!({"forced_bos_token_id": 100, "bos_token_id": 0})).option, "forced_bos_token_id");
    // Behind a longer prompt nothing is forced.
    let config = resolve(json!({"forced_bos_token_id": 100}));
    assert_eq!(config.forced_bos_token_id, None);
    assert_eq!(config.lengths(1).unwrap_err().option, "forced_bos_token_id");
    assert!(config.lengths(2).is_ok());
    assert_eq!(refused(json!({"sequence_bias": [[[1, 100], 1.0]]})).option, "sequence_bias");
    let error = refused(json!({"bad_words_ids": [[1, 2], [3, 100]]}));
    assert_eq!(error.to_string(), "bad_words_ids: token id 100 is outside the model's vocabulary of 100");
    assert!(options(json!({"pad_token_id": 100, "decoder_start_token_id": 100})).resolve(&DECODER).is_ok());
}

#[test]
fn ids_that_never_come_are_left_out() {
    let found = resolve(json!({"eos_token_id": [100, 3, -1, 1_u64 << 40], "min_length": 5}));
    assert_eq!((found.eos_token_id, found.pad_token_id), (vec![3], Some(3)));
    for id in [json!(100), json!(-1), json!([]), json!([-1, 100])] {
        assert!(resolve(json!({"eos_token_id": id, "num_beams": 2})).eos_token_id.is_empty(), "{id}");
    }
    let found = resolve(json!({"suppress_tokens": [5, -1, 100], "begin_suppress_tokens": [1_u64 << 40, 6.0]}));
    assert_eq!((found.suppress_tokens, found.begin_suppress_tokens), (vec![5], vec![6]));
    assert_eq!(resolve(json!({"forced_bos_token_id": -1})).forced_bos_token_id, Some(99), "as an index of Python");
    let empty = resolve(json!({"bad_words_ids": [[], [4]], "sequence_bias": [[[], 1.0], [[4], 2.0]]}));
    assert_eq!((empty.bad_words_ids, empty.sequence_bias), (vec![vec![4]], vec![(vec![4], 2.0)]));
    // A banned word that is an end is no banned word, whatever the end.
    assert!(resolve(json!({"bad_words_ids": [[100]], "eos_token_id": [3, 100]})).bad_words_ids.is_empty());
    let told = warned(json!({"eos_token_id": [3, 100]}));
    assert_eq!(told, [Warning::OutsideVocabulary { option: "eos_token_id", id: 100, vocab_size: 100 }]);
    let written = json!({"eos_token_id": [-1, 3], "pad_token_id": -1, "suppress_tokens": [-2]});
    assert_eq!(serde_json::to_value(options(written.clone())).unwrap(), written);
}

#[test]
fn values_in_the_types_that_python_takes() {
    let read = |json: Value| GenerationOptions::from_json(json.as_object().unwrap()).unwrap();
    assert_eq!(read(json!({"max_length": 20.0, "num_beams": true})), read(json!({"max_length": 20, "num_beams": 1})));
    assert_eq!(read(json!({"min_length": -1})).min_length, Some(0));
    assert_eq!(read(json!({"early_stopping": 1})).early_stopping, Some(EarlyStopping::False), "not `true` itself");
    assert_eq!(read(json!({"do_sample": 0})).do_sample, Some(false));
    assert_eq!(read(json!({"do_sample": 1})).do_sample, Some(true));
    for (written, first, growth) in [
        (json!([2, 1.5]), 3, 0.5),
        (json!([2.0, 1.5, 9]), 3, 0.5),
        (json!([2.5, 4]), 3, 1.0),
        (json!([-1, 2.0]), 0, 1.0),
        (json!([true, -2]), 2, -3.0),
    ] {
        let decay =
            read(json!({"exponential_decay_length_penalty": written})).exponential_decay_length_penalty.unwrap();
        assert_eq!((decay.first(), decay.growth(first)), (first, growth), "{written}");
    }
}

#[test]
fn a_checkpoints_wrong_types_wait_until_they_act() {
    let read = |json: Value| GenerationOptions::from_checkpoint(json.as_object().unwrap());
    let found = read(json!({"top_k": -1, "top_p": "0.9", "length_penalty": "x", "num_beam_groups": "1"})).unwrap();
    assert!(found.resolve(&DECODER).is_ok());
    let asked = |json: Value| options(json).or(found.clone()).resolve(&DECODER).map(|(config, _)| config);
    let error = asked(json!({"do_sample": true})).unwrap_err();
    assert_eq!(error.to_string(), "top_k: expected a non-negative integer, got -1");
    assert_eq!(asked(json!({"num_beams": 2})).unwrap_err().option, "length_penalty");
    // A value of the user's own replaces it.
    let own = json!({"do_sample": true, "top_k": 7, "top_p": 0.5, "length_penalty": 1});
    assert_eq!(asked(own).unwrap().top_k, 7);
    assert_eq!(read(json!({"num_beams": "four"})).unwrap_err().option, "num_beams");
}

#[test]
fn a_checkpoints_lengths_are_cut_and_a_users_are_not() {
    let of_checkpoint = |json: Value| GenerationOptions::from_checkpoint(json.as_object().unwrap()).unwrap();
    let (config, warnings) = of_checkpoint(json!({"max_length": 200})).resolve(&DECODER).unwrap();
    assert_eq!(warnings, [Warning::Cut { option: "max_length", asked: 200, kept: 65 }]);
    assert_eq!(config.lengths(64).unwrap().max_length, 65);
    assert_eq!(config.lengths(65).unwrap_err().option, "max_length");
    let (config, warnings) = of_checkpoint(json!({"max_new_tokens": 60})).resolve(&DECODER).unwrap();
    assert!(warnings.is_empty(), "a short prompt leaves room");
    assert_eq!([5, 6, 64].map(|n| config.lengths(n).unwrap().max_length), [65, 65, 65]);
    assert_eq!([4, 5, 6].map(|n| config.leaves_room(n)), [true, true, false]);
    // What the user asks for is theirs, on top of whatever the checkpoint says.
    for own in [json!({"max_length": 66}), json!({"max_new_tokens": 65})] {
        let all = options(own.clone()).or(of_checkpoint(json!({"max_length": 200})));
        assert!(all.resolve(&DECODER).is_err(), "{own}");
    }
    let all = options(json!({"max_length": 30})).or(of_checkpoint(json!({"max_new_tokens": 200})));
    assert_eq!(all.resolve(&DECODER).unwrap().0.lengths(5).unwrap().max_length, 65);
    let all = options(json!({"num_beams": 2})).or(of_checkpoint(json!({"max_length": 200})));
    assert!(all.resolve(&DECODER).is_ok());
}

#[test]
fn refuses_unimplemented_options_only_where_they_act() {
    for (key, acting, neutral) in [
        ("constraints", json!(["x"]), json!([])),
        ("dola_layers", json!("low"), json!([])),
        ("force_words_ids", json!([[1]]), json!([])),
        ("guidance_scale", json!(1.5), json!(1)),
        ("penalty_alpha", json!(0.6), json!(0.0)),
        ("token_healing", json!(true), json!(false)),
        ("watermarking_config", json!({"bias": 2.0}), json!({})),
    ] {
        assert_eq!(refused(json!({key: acting})).option, key);
        assert!(options(json!({key: neutral})).resolve(&DECODER).is_ok(), "{key}");
    }
    assert!(options(json!({"penalty_alpha": 0.6, "num_beams": 2})).resolve(&DECODER).is_ok());
    assert!(options(json!({"penalty_alpha": 0.6, "top_k": 1})).resolve(&DECODER).is_ok());
    let error = refused(json!({"penalty_alpha": 0.6}));
    assert_eq!(
        error.describe(|name| format!("--{}", name.replace('_', "-"))),
        "--penalty-alpha: 0.6 (contrastive search) is not supported yet"
    );
}

#[test]
fn warns_of_options_without_effect() {
    let found =
        warned(json!({"temperature": 0.5, "top_p": 0.9, "top_k": 5, "early_stopping": true, "length_penalty": 2}));
    let names: Vec<_> = found.iter().map(Warning::option).collect();
    assert_eq!(names, ["temperature", "top_k", "top_p", "early_stopping", "length_penalty"]);
    assert_eq!(found[0].to_string(), "temperature: has no effect without do_sample");
    assert!(warned(json!({"temperature": 1, "top_k": 50, "early_stopping": false, "max_length": 9})).is_empty());

    let warpers = json!({"min_p": 0.1, "top_h": 0.5, "typical_p": 0.9, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1});
    assert_eq!(
        warned(warpers).iter().map(Warning::option).collect::<Vec<_>>(),
        ["min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"]
    );
    assert!(warned(json!({"typical_p": 1.0, "epsilon_cutoff": 0, "eta_cutoff": 0})).is_empty());
    let outside = warned(json!({"epsilon_cutoff": 1.0, "eta_cutoff": -2, "do_sample": true}));
    assert_eq!(outside, [Warning::Outside { option: "epsilon_cutoff" }, Warning::Outside { option: "eta_cutoff" }]);
    assert_eq!(outside[0].to_string(), "epsilon_cutoff: has no effect, it is not between 0 and 1");
    let groups = warned(json!({"diversity_penalty": 1.0, "num_beams": 4}));
    assert_eq!(groups, [Warning::NeedsGroups { option: "diversity_penalty" }]);
    let decay = warned(json!({"exponential_decay_length_penalty": [3, 1.5]}));
    assert_eq!(decay, [Warning::NeedsEos { option: "exponential_decay_length_penalty" }]);

    let found =
        warned(json!({"max_length": 9, "max_new_tokens": 5, "min_new_tokens": 6, "min_length": 3, "eos_token_id": 1}));
    let expected = [
        Warning::Overridden { option: "max_length", by: "max_new_tokens" },
        Warning::Overridden { option: "min_length", by: "min_new_tokens" },
        Warning::Unreachable { option: "min_new_tokens", limit: "max_new_tokens" },
    ];
    assert_eq!(found, expected);
    assert_eq!(warned(json!({"min_length": 3})), [Warning::NeedsEos { option: "min_length" }]);
}

#[test]
fn lengths_follow_the_prompt() {
    let all = |json, prompt| resolve(json).lengths(prompt).map(|l| (l.max_length, l.min_length, l.min_new_tokens));
    assert_eq!(all(json!({}), 5), Ok((25, 0, 0)));
    assert_eq!(all(json!({}), 60), Ok((64, 0, 0)));
    assert_eq!(all(json!({"max_length": 9, "min_length": 4}), 5), Ok((9, 4, 0)));
    assert_eq!(all(json!({"max_length": 9, "max_new_tokens": 8}), 5), Ok((13, 0, 0)));
    assert_eq!(all(json!({"min_length": 3, "min_new_tokens": 4}), 5), Ok((25, 9, 4)));
    assert_eq!(all(json!({"max_length": 64}), 63), Ok((64, 0, 0)));

    assert_eq!(all(json!({"max_length": 9}), 9).unwrap_err().option, "max_length");
    assert_eq!(all(json!({}), 64).unwrap_err().option, "max_length");
    // The last token is never fed, so it needs no position.
    assert_eq!(all(json!({"max_length": 65}), 64), Ok((65, 0, 0)));
    assert_eq!(all(json!({"max_new_tokens": 1}), 64), Ok((65, 0, 0)));
    assert_eq!(all(json!({"max_new_tokens": 64}), 1), Ok((65, 0, 0)));
    let error = all(json!({"max_new_tokens": 11}), 55).unwrap_err();
    let text =
        "max_new_tokens: asks for a sequence of 66 tokens (the prompt has 55), but the model's 64 positions allow 65";
    assert_eq!(error.to_string(), text);
    assert_eq!(refused(json!({"max_length": 66})).option, "max_length");
    assert_eq!(refused(json!({"max_new_tokens": 65})).option, "max_new_tokens");
}
