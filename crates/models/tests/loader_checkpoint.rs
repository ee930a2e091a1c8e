//! Checkpoints: what is read, under which names, and what is said when a file is not as it should be.

mod loader_support;

use elgen_models::checkpoint::{Checkpoint, StoredDtype, Weights};
use elgen_models::families::{BartConfig, T5Config};
use elgen_models::{CheckpointError, HeaderProblem, ModelError};
use loader_support::*;

fn open_error(content: impl AsRef<[u8]>) -> String {
    Checkpoint::open(dir_with(content).path()).unwrap_err().to_string()
}

fn header_problem(header: &str, data: usize) -> HeaderProblem {
    match Checkpoint::open(dir_with(raw_file(header, data)).path()) {
        Err(ModelError::Checkpoint(CheckpointError::Header { problem, file })) => {
            let message = CheckpointError::Header { problem: problem.clone(), file }.to_string();
            assert_names(&message, &["model.safetensors"]);
            problem
        }
        other => panic!("expected a header error, got {other:?}"),
    }
}

/// Values that F16 holds exactly.
fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 1021) as f32 * 0.25 - 3.0).collect()
}

#[test]
fn lists_what_the_reference_writer_stored() {
    let int =
        Stored { name: "decoder.version".into(), dtype: safetensors::Dtype::I64, shape: vec![1], bytes: vec![0; 8] };
    let dir = dir_with(file_of(&[
        f32_tensor("b", &[2, 3], &ramp(6)),
        f16_tensor("a", &[4], &ramp(4)),
        bf16_tensor("c", &[1, 2, 2], &ramp(4)),
        int,
        f32_tensor("empty", &[0, 3], &[]),
    ]));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c", "decoder.version", "empty"]);
    assert_eq!(checkpoint.total_bytes(), 24 + 8 + 8 + 8);
    assert_eq!(checkpoint.parameters(), 6 + 4 + 4);
    let info = checkpoint.info("b").unwrap();
    assert_eq!((info.shape, info.dtype, info.bytes), (&[2, 3][..], &StoredDtype::F32, 24));
    assert!(info.file.ends_with("model.safetensors"));
    assert_eq!(checkpoint.info("decoder.version").unwrap().dtype.to_string(), "I64");
    assert!(checkpoint.info("z").is_none() && !checkpoint.contains("z"));
    assert_eq!(checkpoint.find(&["z", "c", "a"]).as_deref(), Some("c"));
    let files = checkpoint.files();
    assert_eq!((files.len(), files[0].tensors), (1, 5));
    assert_eq!(checkpoint.view("empty").unwrap().to_f32().unwrap(), Vec::<f32>::new());
    checkpoint.view("empty").unwrap().rows_f32(0..0, &mut []).unwrap();
    checkpoint.view("empty").unwrap().columns_f32(0..3, &mut []).unwrap();
}

#[test]
fn windows_of_rows_and_columns_equal_the_whole() {
    let (n, m) = (67, 45);
    let values = ramp(n * m);
    // An odd header length leaves the data unaligned.
    let dir = dir_with(file_of(&[
        f32_tensor("f32", &[n, m], &values),
        f16_tensor("f16", &[n, m], &values),
        bf16_tensor("bf16", &[n, m], &values),
    ]));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    for name in ["f32", "f16", "bf16"] {
        let view = checkpoint.view(name).unwrap();
        let whole = view.to_f32().unwrap();
        let tolerance = if name == "bf16" { 2.0 } else { 0.0 };
        assert!(whole.iter().zip(&values).all(|(a, b)| (a - b).abs() <= tolerance), "{name}");
        for rows in [0..1, 0..n, 5..31, n..n] {
            let mut out = vec![f32::NAN; rows.len() * m];
            view.rows_f32(rows.clone(), &mut out).unwrap();
            assert_eq!(out, whole[rows.start * m..rows.end * m]);
        }
        for cols in [0..1, 0..m, 7..40, m..m] {
            let mut out = vec![f32::NAN; cols.len() * n];
            view.columns_f32(cols.clone(), &mut out).unwrap();
            let expected: Vec<f32> = cols.flat_map(|c| (0..n).map(move |r| r * m + c)).map(|i| whole[i]).collect();
            assert_eq!(out, expected);
        }
    }
}

#[test]
fn reads_unaligned_data() {
    let mut file = raw_file(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} "#, 0);
    assert_ne!(file.len() % 4, 0);
    file.extend([1.5_f32, -2.0].iter().flat_map(|v| v.to_le_bytes()));
    let dir = dir_with(file);
    assert_eq!(Checkpoint::open(dir.path()).unwrap().view("w").unwrap().to_f32().unwrap(), [1.5, -2.0]);
}

#[test]
fn refuses_windows_that_do_not_fit() {
    let dir = dir_with(file_of(&[f32_tensor("w", &[4, 3], &ramp(12)), f32_tensor("v", &[3], &ramp(3))]));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let (w, v) = (checkpoint.view("w").unwrap(), checkpoint.view("v").unwrap());
    let message = w.rows_f32(2..5, &mut [0.0; 9]).unwrap_err().to_string();
    assert_names(&message, &["model.safetensors", "`w`", "[4, 3]", "rows 2 to 5 of 4"]);
    let message = w.columns_f32(0..2, &mut [0.0; 7]).unwrap_err().to_string();
    assert_names(&message, &["`w`", "2 columns are 8 elements", "holds 7"]);
    #[expect(clippy::reversed_empty_ranges)]
    let message = w.rows_f32(3..1, &mut []).unwrap_err().to_string();
    assert_names(&message, &["`w`", "rows 3 to 1"]);
    assert_names(&v.rows_f32(0..1, &mut [0.0; 3]).unwrap_err().to_string(), &["`v`", "[3]", "matrix"]);
}

#[test]
fn refuses_non_finite_weights_by_flat_index() {
    let mut values = ramp(50 * 40);
    values[33 * 40 + 7] = f32::NAN;
    let dir = dir_with(file_of(&[
        f32_tensor("w", &[50, 40], &values),
        f16_tensor("h", &[3], &[1.0, 1e30, 0.0]),
        bf16_tensor("b", &[2], &[0.0, f32::NEG_INFINITY]),
    ]));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let w = checkpoint.view("w").unwrap();
    let mut row = [0.0; 40];
    w.rows_f32(32..33, &mut row).unwrap();
    for message in [
        w.rows_f32(33..34, &mut row).unwrap_err().to_string(),
        w.columns_f32(5..9, &mut [0.0; 200]).unwrap_err().to_string(),
        w.to_f32().unwrap_err().to_string(),
    ] {
        assert_names(&message, &["model.safetensors", "`w`", "NaN", "flat index 1327"]);
    }
    assert_names(&checkpoint.view("h").unwrap().to_f32().unwrap_err().to_string(), &["`h`", "inf", "index 1"]);
    assert_names(&checkpoint.view("b").unwrap().to_f32().unwrap_err().to_string(), &["`b`", "-inf", "index 1"]);
}

#[test]
fn weights_tolerate_a_missing_prefix_and_name_everything_in_errors() {
    let int = Stored { name: "i".into(), dtype: safetensors::Dtype::I64, shape: vec![1], bytes: vec![0; 8] };
    let dir = dir_with(file_of(&[
        f32_tensor("model.both", &[1], &[1.0]),
        f32_tensor("both", &[1], &[2.0]),
        f32_tensor("bare", &[2, 1], &[3.0, 4.0]),
        int,
    ]));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let weights = Weights::new(&checkpoint, "model.");
    assert_eq!(weights.tensor("both", &[1]).unwrap().name(), "model.both");
    assert_eq!(weights.tensor("bare", &[2, 1]).unwrap().to_f32().unwrap(), [3.0, 4.0]);
    assert!(weights.contains("bare") && !weights.contains("none"));
    assert!(weights.optional("none", &[1]).unwrap().is_none());
    assert_names(
        &weights.tensor("none", &[1]).unwrap_err().to_string(),
        &["model.safetensors", "`model.none` is missing", "also tried `none`"],
    );
    assert_names(
        &weights.tensor("bare", &[1, 2]).unwrap_err().to_string(),
        &["model.safetensors", "`bare`", "[2, 1]", "[1, 2]"],
    );
    assert!(weights.optional("bare", &[1, 2]).is_err());
    assert_names(
        &weights.tensor("i", &[1]).unwrap().to_f32().unwrap_err().to_string(),
        &["model.safetensors", "`i`", "I64", "F32, F16 or BF16"],
    );
}

#[test]
fn bart_embeddings_follow_the_file_then_the_tie() {
    let names = |tensors: &[Stored], tied| {
        let dir = dir_with(file_of(tensors));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let found = Weights::new(&checkpoint, "model.").shared_embeddings(BartConfig::SUBSTITUTES, 2, 2, tied);
        found.map(|e| [e.encoder.name(), e.decoder.name(), e.head.name()].map(str::to_owned)).map_err(|e| e.to_string())
    };
    let table = |name: &str, first: f32| f32_tensor(name, &[2, 2], &[first, 1.0, 2.0, 3.0]);
    let (shared, enc, dec, head) =
        ("model.shared.weight", "model.encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight");

    assert_eq!(names(&[table(shared, 0.0)], true).unwrap(), [shared; 3]);
    for alone in [enc, dec, head] {
        assert_eq!(names(&[table(alone, 0.0)], true).unwrap(), [alone; 3]);
    }
    let equal =
        [table(shared, 0.0), table(enc, 0.0), table(dec, -0.0), f16_tensor(head, &[2, 2], &[0.0, 1.0, 2.0, 3.0])];
    assert_eq!(names(&equal, true).unwrap(), [shared; 3]);
    assert_eq!(names(&[table(shared, 0.0), table(head, 9.0)], true).unwrap(), [shared, shared, head]);
    assert_eq!(names(&[table(shared, 0.0), table(enc, 9.0)], true).unwrap(), [enc, shared, shared]);
    assert_eq!(names(&[table(shared, 0.0), table(head, 0.0)], false).unwrap(), [shared, shared, head]);
    assert_eq!(names(&[table(dec, 0.0), table(head, 0.0)], false).unwrap(), [dec, dec, head]);
    assert_names(&names(&[table(shared, 0.0)], false).unwrap_err(), &["`model.lm_head.weight`", "`lm_head.weight`"]);
    assert_names(
        &names(&[table("other", 0.0)], true).unwrap_err(),
        &[
            "model.safetensors",
            "`model.shared.weight`",
            "`shared.weight`",
            "`encoder.embed_tokens.weight`",
            "`lm_head.weight`",
        ],
    );
    let wide = f32_tensor(shared, &[2, 3], &ramp(6));
    assert_names(&names(&[wide], true).unwrap_err(), &["`model.shared.weight`", "[2, 3]", "[2, 2]"]);
}

#[test]
fn gpt2_embeddings_follow_the_file_then_the_tie() {
    let table = |name: &str, first: f32| f32_tensor(name, &[2, 1], &[first, 1.0]);
    let names = |tensors: &[Stored], tied| {
        let dir = dir_with(file_of(tensors));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let found = Weights::new(&checkpoint, "transformer.").decoder_embeddings("wte.weight", 2, 1, tied);
        found.map(|e| (e.input.name().to_owned(), e.head.name().to_owned(), e.all_shared())).map_err(|e| e.to_string())
    };
    let named = |input: &str, head: &str, shared| (input.to_owned(), head.to_owned(), shared);
    assert_eq!(names(&[table("wte.weight", 0.0)], true).unwrap(), named("wte.weight", "wte.weight", true));
    assert_eq!(names(&[table("lm_head.weight", 0.0)], true).unwrap(), named("lm_head.weight", "lm_head.weight", true));
    let both = [table("transformer.wte.weight", 0.0), table("lm_head.weight", 5.0)];
    assert_eq!(names(&both, true).unwrap(), named("transformer.wte.weight", "lm_head.weight", false));
    assert_names(&names(&[table("wte.weight", 0.0)], false).unwrap_err(), &["lm_head.weight"]);
}

/// Which table each use takes, for every subset of the four that a file may hold, each with values of its own: s(hared), e(ncoder), d(ecoder),
/// h(ead). What transformers 5.23 takes for encoder, decoder and head; T5's order differs where there is no shared table.
#[test]
fn tables_of_every_subset_are_those_of_transformers() {
    const NAMES: [(char, &str); 4] = [
        ('s', "shared.weight"),
        ('e', "encoder.embed_tokens.weight"),
        ('d', "decoder.embed_tokens.weight"),
        ('h', "lm_head.weight"),
    ];
    let both = "s sss, e eee, d ddd, h hhh, se ess, sd sds, sh ssh, sed eds, seh esh, sdh sdh, edh edh, sedh edh";
    let bart = format!("{both}, ed edd, eh ehh, dh hdh");
    let t5 = format!("{both}, ed ede, eh eeh, dh ddh");
    for (expected, prefix) in [(&bart, "model."), (&t5, "")] {
        let mut subsets = 0;
        for case in expected.split(", ") {
            let (subset, wanted) = case.split_once(' ').unwrap();
            let held: Vec<Stored> = NAMES
                .iter()
                .filter(|(letter, _)| subset.contains(*letter))
                .map(|(letter, name)| {
                    let prefix = if *letter == 'h' { "" } else { prefix };
                    f32_tensor(&format!("{prefix}{name}"), &[1, 1], &[f32::from(*letter as u16)])
                })
                .collect();
            let dir = dir_with(file_of(&held));
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            let weights = Weights::new(&checkpoint, prefix);
            let found = match prefix {
                "" => weights.shared_embeddings(T5Config::SUBSTITUTES, 1, 1, true),
                _ => weights.shared_embeddings(BartConfig::SUBSTITUTES, 1, 1, true),
            };
            let found = found.unwrap();
            let letters: String = [found.encoder, found.decoder, found.head]
                .map(|view| char::from(view.to_f32().unwrap()[0] as u8))
                .iter()
                .collect();
            assert_eq!(letters, wanted, "{prefix}{subset}");
            subsets += 1;
        }
        assert_eq!(subsets, 15);
    }
}

#[test]
fn same_values_compares_across_dtypes() {
    let mut other = ramp(9000);
    other[8999] += 1.0;
    let dir = dir_with(file_of(&[
        f32_tensor("a", &[90, 100], &ramp(9000)),
        f16_tensor("b", &[90, 100], &ramp(9000)),
        f32_tensor("c", &[90, 100], &other),
        f32_tensor("d", &[100, 90], &ramp(9000)),
    ]));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert!(checkpoint.same_values("a", "b").unwrap());
    for other in ["c", "d", "absent"] {
        assert!(!checkpoint.same_values("a", other).unwrap(), "{other}");
    }
}

#[test]
fn missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert_names(&message, &[place, "model.safetensors or model.safetensors.index.json"]);
    write(dir.path(), "pytorch_model.bin", "x");
    assert_names(&Checkpoint::open(dir.path()).unwrap_err().to_string(), &["pytorch_model.bin", "converted"]);
    let message = Checkpoint::open(dir.path().join("nowhere")).unwrap_err().to_string();
    assert_names(&message, &["nowhere", "model directory not found"]);
    std::fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert_names(&Checkpoint::open(dir.path()).unwrap_err().to_string(), &["model.safetensors", "not a regular file"]);
}

#[cfg(unix)]
#[test]
fn a_dangling_link_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("gone", dir.path().join("model.safetensors")).unwrap();
    assert_names(&Checkpoint::open(dir.path()).unwrap_err().to_string(), &["model.safetensors", "leads nowhere"]);
}

#[test]
fn a_git_lfs_pointer_is_told_apart() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13216776\n";
    assert_names(&open_error(pointer), &["model.safetensors", "Git LFS pointer", "git lfs pull"]);
}

#[test]
fn header_lengths_are_checked_before_use() {
    assert_names(&open_error(""), &["model.safetensors", "0 bytes are too few"]);
    assert_names(&open_error([1, 2, 3]), &["3 bytes are too few"]);
    assert_names(&open_error([255; 20]), &["claims 18446744073709551615 bytes", "only 12"]);
    assert_names(&open_error(100_u64.to_le_bytes()), &["claims 100 bytes", "only 0"]);
}

#[test]
fn header_contents_are_checked() {
    use HeaderProblem as P;
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let w = || "w".to_owned();
    assert!(matches!(header_problem("{", 0), P::InvalidJson { .. }));
    assert!(matches!(header_problem("[1]", 0), P::InvalidJson { .. }));
    assert!(matches!(header_problem("{} {}", 0), P::InvalidJson { .. }));
    match header_problem(r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4) {
        P::InvalidJson { reason } => assert_names(&reason, &["tensor `w`", "-1"]),
        other => panic!("{other:?}"),
    }
    let entry = r#""w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    assert_eq!(header_problem(&format!("{{{entry},{entry}}}"), 4), P::Duplicate { tensor: w() });
    assert_eq!(header_problem(&one("F32", "[1]", "[4,0]"), 4), P::Reversed { tensor: w(), begin: 4, end: 0 });
    assert_eq!(header_problem(&one("F32", "[2]", "[0,8]"), 7), P::OutOfRange { tensor: w(), end: 8, available: 7 });
    assert_eq!(header_problem(&one("F32", "[1]", "[4,8]"), 8), P::Hole { begin: 0, end: 4 });
    assert_eq!(header_problem(&one("F32", "[1]", "[0,4]"), 9), P::Hole { begin: 4, end: 9 });
    assert_eq!(header_problem("{}", 3), P::Hole { begin: 0, end: 3 });
    let huge = "[4294967296,4294967296]";
    assert!(matches!(header_problem(&one("F32", huge, "[0,4]"), 4), P::Overflow { .. }));
    assert!(matches!(header_problem(&one("F32", "[9223372036854775808]", "[0,0]"), 0), P::Overflow { .. }));
    assert!(matches!(header_problem(&one("F99", huge, "[0,4]"), 4), P::Overflow { .. }));
    match header_problem(&one("F16", "[3,2]", "[0,8]"), 8) {
        P::SizeMismatch { tensor, expected, actual, .. } => assert_eq!((tensor, expected, actual), (w(), 12, 8)),
        other => panic!("{other:?}"),
    }
    let overlap =
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    assert_eq!(
        header_problem(overlap, 6),
        P::Overlap { tensor: "b".into(), begin: 2, previous: "a".into(), previous_end: 4 }
    );
}

#[test]
fn names_from_a_file_cannot_break_the_line() {
    let header = r#"{"a\nb":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert_names(&open_error(raw_file(header, 2)), &["a\\nb"]);
}

#[test]
fn unknown_dtypes_do_not_make_a_file_unreadable() {
    let header =
        r#"{"q":{"dtype":"F3","shape":[8],"data_offsets":[0,3]},"w":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}"#;
    let dir = dir_with(raw_file(header, 4));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.info("q").unwrap().dtype, &StoredDtype::Other("F3".into()));
    assert_names(&checkpoint.view("q").unwrap().to_f32().unwrap_err().to_string(), &["`q`", "F3"]);
}

fn sharded(weight_map: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "model.safetensors.index.json",
        format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{weight_map}}}"#),
    );
    write(dir.path(), "s1.safetensors", file_of(&[f32_tensor("a", &[1], &[1.0]), f32_tensor("x", &[1], &[7.0])]));
    write(dir.path(), "s2.safetensors", file_of(&[f32_tensor("b", &[2], &[2.0, 3.0])]));
    dir
}

#[test]
fn shards_are_joined_by_the_index() {
    let dir = sharded(r#"{"a":"s1.safetensors","b":"s2.safetensors"}"#);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "x"]);
    assert_eq!(checkpoint.view("b").unwrap().to_f32().unwrap(), [2.0, 3.0]);
    assert!(checkpoint.info("b").unwrap().file.ends_with("s2.safetensors"));
    assert_eq!(checkpoint.files().iter().map(|f| f.tensors).collect::<Vec<_>>(), [2, 1]);
    let weights = Weights::new(&checkpoint, "");
    assert_names(&weights.tensor("c", &[1]).unwrap_err().to_string(), &["index.json", "`c`"]);
}

/// The index lists files, their headers say what is in them.
#[test]
fn an_index_that_disagrees_with_its_shards() {
    let read = |map: &str, tensor: &str| {
        let dir = sharded(map);
        write(dir.path(), "s3.safetensors", file_of(&[f32_tensor("b", &[2], &[8.0, 9.0])]));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let found = Weights::new(&checkpoint, "").tensor(tensor, &[2]).map(|view| view.to_f32().unwrap());
        found.map_err(|error| error.to_string())
    };
    // It names a tensor that its shard lacks and nobody needs; it does not name one; it places one in the wrong shard.
    for map in [
        r#"{"b":"s2.safetensors","c":"s2.safetensors"}"#,
        r#"{"a":"s1.safetensors","z":"s2.safetensors"}"#,
        r#"{"b":"s1.safetensors","a":"s2.safetensors"}"#,
    ] {
        assert_eq!(read(map, "b").unwrap(), [2.0, 3.0], "{map}");
    }
    // Two shards hold it: the last file counts, wherever the index places it.
    for map in [r#"{"b":"s2.safetensors","a":"s3.safetensors"}"#, r#"{"b":"s3.safetensors","a":"s2.safetensors"}"#] {
        assert_eq!(read(map, "b").unwrap(), [8.0, 9.0], "{map}");
    }
    // A file that the index does not list is no part of the checkpoint, and a tensor that is nowhere is missing.
    assert_names(&read(r#"{"b":"s1.safetensors"}"#, "b").unwrap_err(), &["index.json", "`b` is missing"]);
    assert_names(&read(r#"{"c":"s2.safetensors"}"#, "c").unwrap_err(), &["index.json", "`c` is missing"]);
}

#[test]
fn a_bad_index_names_shard_and_tensor() {
    let error = |map: &str| Checkpoint::open(sharded(map).path()).unwrap_err().to_string();
    assert_names(&error(r#"{"a":"s9.safetensors"}"#), &["index.json", "`a`", "s9.safetensors", "does not exist"]);
    assert_names(&error(r#"{"a":"../s1.safetensors"}"#), &["index.json", "`a`", "../s1.safetensors", "plain"]);
    assert_names(&error(r#"{"a":".."}"#), &["plain"]);
    assert_names(&error("{}"), &["index.json", "no tensors"]);
    assert_names(&error("7"), &["index.json", "invalid JSON"]);
    let dir = sharded(r#"{"a":"s1.safetensors"}"#);
    write(dir.path(), "s1.safetensors", [9; 9]);
    assert_names(&Checkpoint::open(dir.path()).unwrap_err().to_string(), &["s1.safetensors", "damaged"]);
}

/// A download that goes on, a disk that was taken away: a file that is cut behind its header is an error where a tensor is read.
#[test]
fn a_file_that_is_cut_after_it_was_opened_is_an_error() {
    let dir = dir_with(file_of(&[f32_tensor("a", &[2, 3], &ramp(6)), f32_tensor("c", &[50, 40], &ramp(2000))]));
    let path = dir.path().join("model.safetensors");
    let length = std::fs::metadata(&path).unwrap().len();
    for left in [length - 1, length - 6000, 40, 0] {
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
        let c = checkpoint.view("c").unwrap();
        let errors = [
            c.to_f32().map(drop).unwrap_err(),
            c.rows_f32(49..50, &mut [0.0; 40]).unwrap_err(),
            c.columns_f32(38..40, &mut [0.0; 100]).unwrap_err(),
            c.same_values(&c).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, ModelError::Checkpoint(CheckpointError::ReadTensor { .. })), "{error:?}");
            assert_names(&error.to_string(), &["model.safetensors", "`c`", "cut"]);
        }
        // What is still there can be read.
        assert_eq!(checkpoint.view("a").unwrap().to_f32().is_ok(), left > 300, "{left} bytes");
        std::fs::write(&path, whole).unwrap();
    }
}

#[test]
fn tensors_are_equal_by_value() {
    let stored = |name: &str, values: &[f32]| f32_tensor(name, &[3], values);
    let dir = dir_with(file_of(&[
        stored("a", &[1.0, 0.0, f32::NAN]),
        stored("b", &[1.0, -0.0, f32::NAN]),
        stored("c", &[1.0, 0.0, 2.0]),
        f16_tensor("d", &[3], &[1.0, 0.0, 2.0]),
        bf16_tensor("e", &[3], &[1.0, -0.0, 2.0]),
        f32_tensor("f", &[3, 1], &[1.0, 0.0, 2.0]),
    ]));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let same = |a: &str, b: &str| checkpoint.same_values(a, b).unwrap();
    assert!(same("a", "a") && same("a", "b") && same("c", "d") && same("d", "e") && same("e", "c"));
    assert!(!same("a", "c") && !same("c", "f"));
}
