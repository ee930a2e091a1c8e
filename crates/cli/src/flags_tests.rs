use clap::{CommandFactory, error::ErrorKind};
use elgen_engine::{AttentionChoice, BatchSize, CacheFormat, DtypeChoice, Expected, WeightFormat};
use elgen_search::{EarlyStopping, ExponentialDecay, GenerationOptions, SequenceBias, StopStrings, TokenIds};

use super::generation::flag;
use super::*;

fn parse(flags: &[&str]) -> Result<GenerateArgs, clap::Error> {
    let arguments = ["elgen", "generate", "--model", "m"].iter().chain(flags);
    match Cli::try_parse_from(arguments)?.command {
        Command::Generate(arguments) => Ok(*arguments),
        other => panic!("{other:?}"),
    }
}

fn options(flags: &[&str]) -> GenerationOptions {
    parse(flags).unwrap().generation.options()
}

fn refused(flags: &[&str]) -> clap::Error {
    let error = parse(flags).expect_err("accepted");
    assert_eq!(error.exit_code(), 2);
    error
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_generation_option_has_its_flag() {
    let command = Cli::command();
    let generate = command.find_subcommand("generate").unwrap();
    for option in GenerationOptions::NAMES {
        let long = flag(option);
        assert!(generate.get_arguments().any(|known| known.get_long() == Some(&long[2..])), "{long}");
    }
}

#[test]
fn every_flag_reaches_its_option() {
    let typed = options(&[
        "--num-beams=4",
        "--num-beam-groups",
        "2",
        "--diversity-penalty",
        "0.5",
        "--min-p",
        "0.05",
        "--typical-p",
        "0.8",
        "--epsilon-cutoff",
        "0.001",
        "--eta-cutoff",
        "0.002",
        "--top-h",
        "0.4",
        "--encoder-repetition-penalty",
        "1.4",
        "--encoder-no-repeat-ngram-size",
        "4",
        "--sequence-bias",
        "[[[5],-2.5],[[6,8],1]]",
        "--exponential-decay-length-penalty",
        "20,1.05",
        "--remove-invalid-values",
        "--renormalize-logits",
        "--stop",
        "--",
        "--stop=\n",
        "--max-time",
        "2.5",
        "--do-sample",
        "--num-return-sequences",
        "3",
        "--max-new-tokens",
        "20",
        "--max-length",
        "21",
        "--min-new-tokens",
        "2",
        "--min-length",
        "3",
        "--early-stopping",
        "never",
        "--length-penalty",
        "-0.5",
        "--temperature",
        "0.7",
        "--top-k",
        "5",
        "--top-p",
        "0.9",
        "--seed",
        "18446744073709551615",
        "--repetition-penalty",
        "1.2",
        "--no-repeat-ngram-size",
        "6",
        "--bad-words-ids",
        "[[5],[6,8]]",
        "--suppress-tokens",
        "14,15",
        "--begin-suppress-tokens",
        "16",
        "--forced-bos-token-id",
        "0",
        "--forced-eos-token-id",
        "2",
        "--eos-token-id",
        "2,7",
        "--pad-token-id",
        "1",
        "--bos-token-id",
        "9",
        "--decoder-start-token-id",
        "10",
    ]);
    let expected = GenerationOptions {
        num_beams: Some(4),
        num_beam_groups: Some(2),
        diversity_penalty: Some(0.5),
        min_p: Some(0.05),
        typical_p: Some(0.8),
        epsilon_cutoff: Some(0.001),
        eta_cutoff: Some(0.002),
        top_h: Some(0.4),
        encoder_repetition_penalty: Some(1.4),
        encoder_no_repeat_ngram_size: Some(4),
        sequence_bias: Some(SequenceBias(vec![(vec![5], -2.5), (vec![6, 8], 1.0)])),
        exponential_decay_length_penalty: Some(ExponentialDecay { start: 20.0, factor: 1.05 }),
        remove_invalid_values: Some(true),
        renormalize_logits: Some(true),
        stop_strings: Some(StopStrings(vec!["--".to_owned(), "\n".to_owned()])),
        max_time: Some(2.5),
        do_sample: Some(true),
        num_return_sequences: Some(3),
        max_new_tokens: Some(20),
        max_length: Some(21),
        min_new_tokens: Some(2),
        min_length: Some(3),
        early_stopping: Some(EarlyStopping::Never),
        length_penalty: Some(-0.5),
        temperature: Some(0.7),
        top_k: Some(5),
        top_p: Some(0.9),
        seed: Some(u64::MAX),
        repetition_penalty: Some(1.2),
        no_repeat_ngram_size: Some(6),
        bad_words_ids: Some(vec![vec![5], vec![6, 8]]),
        suppress_tokens: Some(vec![14, 15]),
        begin_suppress_tokens: Some(vec![16]),
        forced_bos_token_id: Some(0),
        forced_eos_token_id: Some(TokenIds(vec![2])),
        eos_token_id: Some(TokenIds(vec![2, 7])),
        pad_token_id: Some(1),
        bos_token_id: Some(9),
        decoder_start_token_id: Some(10),
        ..GenerationOptions::default()
    };
    assert_eq!(typed, expected);
    assert_eq!(set_names(&typed).len(), GenerationOptions::NAMES.len());
    assert_eq!(options(&[]), GenerationOptions::default());
    assert!(set_names(&options(&[])).is_empty());
}

#[test]
fn booleans_stand_alone_or_take_a_value_behind_an_equals_sign() {
    assert_eq!(options(&["--do-sample", "text"]).do_sample, Some(true));
    assert_eq!(options(&["--do-sample=true"]).do_sample, Some(true));
    assert_eq!(options(&["--do-sample=false"]).do_sample, Some(false));
    assert_eq!(parse(&["--stats", "true"]).unwrap().texts, ["true"]);
    assert_eq!(parse(&["--quiet=false"]).unwrap().report.quiet, Some(false));
    refused(&["--do-sample=maybe"]);
    refused(&["--truncate="]);
}

#[test]
fn engine_flags_become_session_options() {
    let session =
        |flags: &[&str]| parse(flags).unwrap().engine.session_options(&Registry::default(), Expected::default());
    let default = session(&[]);
    assert_eq!((default.attention, default.dtype), (AttentionChoice::Auto, DtypeChoice::Auto));
    assert_eq!((default.device, default.memory_limit, default.batch_size), (None, None, BatchSize::Sentences(32)));
    let set = session(&[
        "--attention",
        "mha-nocache",
        "--dtype=f16",
        "--device",
        "llvm",
        "--batch-size",
        "7",
        "--memory-limit",
        "1.5GiB",
    ]);
    assert_eq!((set.attention, set.dtype), (AttentionChoice::MHA_NOCACHE, DtypeChoice::F16));
    assert_eq!(
        (set.device.as_deref(), set.memory_limit, set.batch_size),
        (Some("llvm"), Some(3 << 29), BatchSize::Sentences(7))
    );
    assert_eq!(session(&["--batch-size=auto"]).batch_size, BatchSize::Auto);
    assert_eq!(session(&["--max-batch-tokens=99"]).max_batch_tokens, Some(99));
    for (name, kind) in [
        ("auto", AttentionChoice::Auto),
        ("mha", AttentionChoice::MHA),
        ("mha-replicated", AttentionChoice::MHA_REPLICATED),
        ("el", AttentionChoice::EL),
    ] {
        assert_eq!(session(&["--attention", name]).attention, kind);
    }
    assert_eq!(session(&["--dtype", "f32"]).dtype, DtypeChoice::F32);
    assert_eq!((default.weights, default.cache), (None, None));
    let apart = session(&["--dtype=f32", "--weights", "f16"]);
    assert_eq!((apart.weights, apart.cache), (Some(WeightFormat::F16), None));
    let apart = session(&["--weights=f32", "--cache=f16"]);
    assert_eq!((apart.dtype, apart.weights), (DtypeChoice::Auto, Some(WeightFormat::F32)));
    assert_eq!(apart.cache, Some(CacheFormat::F16));
}

#[test]
fn wrong_values_name_the_flag_and_what_was_expected() {
    for (flags, wanted) in [
        (&["--attention", "flash"][..], "possible values: auto, mha, mha-replicated, mha-nocache, el"),
        (&["--alignment=last"], "a layer's number, 0 or -1 for example"),
        (&["--dtype", "bf16"], "possible values: auto, f32, f16"),
        (&["--weights", "auto"], "possible values: f32, f16"),
        (&["--cache", "int8"], "possible values: f32, f16"),
        (&["--batch-size", "many"], "an integer of at least 1, or auto"),
        (&["--max-batch-tokens", "0"], "an integer of at least 1"),
        (&["--progress", "sometimes"], "possible values: auto, always, never"),
        (&["--batch-size", "0"], "an integer of at least 1"),
        (&["--memory-limit", "16XB"], "a size such as 16GiB"),
        (&["--early-stopping", "sometimes"], "true, false or never"),
        (&["--num-beams", "-1"], "--num-beams"),
        (&["--temperature", "hot"], "a finite number"),
        (&["--temperature", "inf"], "a finite number"),
        (&["--eos-token-id", "2;7"], "write ids as 2,7"),
        (&["--bad-words-ids", "[5]"], "[[5],[6,8]]"),
        (&["--sequence-bias", "[[5],1.0]"], "[[[5],-2.5],[[6,8],1.0]]"),
        (&["--exponential-decay-length-penalty", "20"], "20,1.05"),
        (&["--min-p", "little"], "a finite number"),
        (&["--encoder-no-repeat-ngram-size", "-1"], "--encoder-no-repeat-ngram-size"),
        (&["--set", "num_beams"], "KEY=VALUE"),
        (&["--format", "xml"], "possible values: text, jsonl, moses"),
        (&["--color", "sometimes"], "possible values: auto, always, never"),
        (&["--memory-limit", "16EiB"], "a size below 16EiB"),
        (&["--raw=maybe"], "true"),
        (&["--echo=maybe"], "true"),
        (&["--whole-file=maybe"], "true"),
        (&["--max-source-length", "0"], "an integer of at least 1"),
    ] {
        let text = refused(flags).to_string();
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("error: ") && first.contains(flags[0].split('=').next().unwrap()), "{text}");
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn what_contradicts_itself_or_is_not_there_yet_is_refused() {
    assert_eq!(refused(&["text", "--input", "f"]).kind(), ErrorKind::ArgumentConflict);
    assert_eq!(refused(&["text", "--input-format", "jsonl"]).kind(), ErrorKind::ArgumentConflict);
    assert_eq!(refused(&["text", "--whole-file"]).kind(), ErrorKind::ArgumentConflict);
    assert_eq!(refused(&["--source-prefix"]).kind(), ErrorKind::InvalidValue);
    assert_eq!(refused(&["--seed", "1", "--seed", "2"]).kind(), ErrorKind::ArgumentConflict);
    for flag in ["--penalty-alpha", "--guidance-scale", "--alignments"] {
        assert_eq!(refused(&[flag]).kind(), ErrorKind::UnknownArgument, "{flag}");
    }
    for command in ["serve", "convert"] {
        let error = Cli::try_parse_from(["elgen", command]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSubcommand, "{command}");
    }
}

#[test]
fn messages_name_typed_options_as_flags() {
    let typed: Names = ["num_beams", "top_p", "stop_strings"].map(|option| (option.to_owned(), flag(option))).into();
    assert_eq!(
        name_flags("num_return_sequences: 3 is more than num_beams (2)", &typed),
        ("num_return_sequences: 3 is more than --num-beams (2)".to_owned(), true)
    );
    assert_eq!(name_flags("max_num_beams top_p_x num_beams", &typed).0, "max_num_beams top_p_x --num-beams");
    assert_eq!(name_flags("stop_strings: x", &typed).0, "--stop: x");
    assert_eq!(name_flags("é top_k …", &typed), ("é top_k …".to_owned(), false));
    assert_eq!(name_flags("", &typed), (String::new(), false));
}

#[test]
fn names_that_people_know_from_other_programs() {
    for (flags, known) in [
        (&["--beam-size", "4"][..], &["--num-beams", "4"][..]),
        (&["--beam", "4"], &["--num-beams", "4"]),
        (&["--n-best", "2"], &["--num-return-sequences", "2"]),
        (&["--nbest", "2"], &["--num-return-sequences", "2"]),
        (&["--lenpen", "0.6"], &["--length-penalty", "0.6"]),
        (&["--temp", "0.6"], &["--temperature", "0.6"]),
        (&["--sample"], &["--do-sample"]),
        (&["--sample=false"], &["--do-sample=false"]),
    ] {
        assert_eq!(options(flags), options(known), "{flags:?}");
        assert_ne!(options(flags), GenerationOptions::default(), "{flags:?}");
    }
    assert_eq!(parse(&["--max-input-length", "9"]).unwrap().files.max_source_length, Some(9));
    let message = refused(&["--beam-size", "many"]).to_string();
    assert!(message.contains("--num-beams"), "{message}");
    assert_eq!(refused(&["--beam-size", "1", "--num-beams", "2"]).kind(), ErrorKind::ArgumentConflict);
}

#[test]
fn flags_of_files_and_reports() {
    let files = parse(&["--resume", "--token-logprobs", "--stream=false"]).unwrap().files;
    assert_eq!((files.resume, files.token_logprobs, files.stream), (Some(true), Some(true), Some(false)));
    let alignment = |flags: &[&str]| parse(flags).unwrap().files.alignment;
    assert_eq!([&[][..], &["--alignment"], &["--alignment=2"]].map(alignment), [None, Some(-1), Some(2)]);
    assert_eq!(
        (alignment(&["--alignment=-3"]), parse(&["--alignment", "3"]).unwrap().texts),
        (Some(-3), vec!["3".into()])
    );
    let files = parse(&["-i", "a", "--input", "b", "--whole-file", "--source-prefix", "-> ", "--raw"]).unwrap().files;
    assert_eq!(files.input, [PathBuf::from("a"), PathBuf::from("b")]);
    assert_eq!((files.whole_file, files.source_prefix.as_deref()), (Some(true), Some("-> ")));
    assert_eq!((files.raw, files.echo), (Some(true), None));
    assert_eq!(
        parse(&["--device", "-1"])
            .unwrap()
            .engine
            .session_options(&Registry::default(), Expected::default())
            .device
            .as_deref(),
        Some("-1")
    );
    assert_eq!(parse(&[]).unwrap().report.progress, ProgressMode::Auto);
    assert_eq!(parse(&["--progress", "never"]).unwrap().report.progress, ProgressMode::Never);
}

/// A number that a flag refuses is named with its flag, not taken for one itself.
#[test]
fn negative_numbers_are_values() {
    let command = Cli::command();
    for subcommand in command.get_subcommands() {
        for argument in subcommand.get_arguments() {
            let numeric = argument.get_value_names().is_some_and(|names| {
                names.iter().any(|name| {
                    ["N", "N|auto", "SIZE", "DEVICE", "SECONDS", "X", "P", "K", "ID"].contains(&name.as_str())
                })
            });
            if numeric {
                let flag = argument.get_long().unwrap_or_default();
                assert!(argument.is_allow_negative_numbers_set(), "{} --{flag}", subcommand.get_name());
            }
        }
    }
}
