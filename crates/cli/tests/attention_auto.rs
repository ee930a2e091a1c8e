//! `--attention auto`: what it picks runs, gives the texts of any other kind, and measures a device once.

mod common;

use std::{fs, path::Path};

use common::{demo, elgen, finish, generate, stories};
use serde_json::Value;

/// The texts, and the `attention` of the statistics.
fn run(model: &Path, cache: &Path, flags: &[&str]) -> (String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let stats = dir.path().join("stats.json");
    let mut command = generate(model);
    command.env("XDG_CACHE_HOME", cache).args(["--quiet", "--dtype=f32", "--max-new-tokens=6", "--stats-json"]);
    let texts = ["I was born in 1979.", "Is there anything you want me to buy for you?"];
    let finished = finish(command.arg(&stats).args(flags).args(texts)).expect(0);
    let stats: Value = serde_json::from_str(&fs::read_to_string(stats).unwrap()).unwrap();
    (finished.stdout, stats["attention"].clone())
}

/// The one file of a folder.
fn only_file(folder: &Path) -> std::path::PathBuf {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn auto_runs_what_it_says_and_measures_once() {
    let cache = tempfile::tempdir().unwrap();
    let beams = &["--num-beams=3"][..];
    let (texts, mha) = run(&demo(), cache.path(), &[beams, &["--attention=mha"]].concat());
    assert!(mha["plan"].is_null() && mha["self"] == "mha", "{mha}");
    // The driver has a folder of its own there.
    assert!(!cache.path().join("elgen").exists(), "a named kind needs no measurement");

    let (auto_texts, auto) = run(&demo(), cache.path(), beams);
    assert_eq!(auto_texts, texts);
    let plan = &auto["plan"];
    let picked: Vec<&Value> =
        plan["candidates"].as_array().unwrap().iter().filter(|c| c["reason"] == "the pick").collect();
    assert_eq!(picked.len(), 1, "{plan}");
    assert_eq!((&picked[0]["self"], &picked[0]["cross"]), (&auto["self"], &auto["cross"]));
    let reason = plan["cross"].as_str().unwrap();
    assert!(reason.starts_with("el reads") && reason.contains("break-even"), "{reason}");
    assert_eq!(plan["expected"]["num_beams"], 3);
    assert_eq!(plan["expected"]["max_new_tokens"], 6);
    assert!(plan["expected"]["source_length"].as_u64().unwrap() < 30, "{plan}");
    // 2 * beams * heads * bandwidth / 4 bytes, for the demo model's heads.
    let heads = serde_json::from_str::<Value>(&fs::read_to_string(demo().join("config.json")).unwrap()).unwrap();
    let heads = heads["decoder_attention_heads"].as_f64().unwrap();
    let needed = plan["el_cross"]["break_even_flops"].as_f64().unwrap();
    let bandwidth = plan["bandwidth"].as_f64().unwrap();
    assert!((needed / (2.0 * 3.0 * heads * bandwidth / 4.0) - 1.0).abs() < 1e-9, "{plan}");

    // How it was measured, and that a baseline is compared and not picked.
    let measurement = &plan["measurement"];
    assert!(measurement["rounds"].as_u64().unwrap() >= 2 && measurement["measured_at"].as_u64().unwrap() > 1 << 30);
    assert!((0.0..=1.0).contains(&measurement["scatter"].as_f64().unwrap()), "{measurement}");
    let baseline = plan["candidates"].as_array().unwrap().iter().find(|c| c["self"] == "mha-replicated").unwrap();
    assert!(baseline["reason"].as_str().unwrap().starts_with("a baseline, never picked; "), "{baseline}");

    // What was measured is kept, used again, and measured again where it is damaged.
    let file = only_file(&cache.path().join("elgen"));
    let kept = fs::read_to_string(&file).unwrap();
    assert_eq!(run(&demo(), cache.path(), beams).1, auto);
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    assert_eq!(run(&demo(), cache.path(), beams).0, texts);
    assert!(serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap()["class"].is_object());

    // A decoder-only model has no cross-attention to choose for.
    let (_, stories) = run(&stories(), cache.path(), &[]);
    assert!(stories["cross"].is_null() && stories["plan"]["cross"].is_null(), "{stories}");
    assert_eq!(stories["plan"]["candidates"].as_array().unwrap().len(), 3);
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (texts, auto) = run(&demo(), file.path(), &["--num-beams=1"]);
    assert_eq!(texts.lines().count(), 2);
    assert!(auto["plan"]["self"].as_str().unwrap().contains("break-even"), "{auto}");
}

#[test]
fn statistics_for_people_say_why() {
    let mut command = generate(&demo());
    let finished = finish(command.args(["--stats", "--max-new-tokens=3", "--num-beams=2", "No."])).expect(0);
    assert!(finished.stderr.contains("device measured "), "{finished:#?}");
    assert!(finished.stderr.contains("`elgen devices --measure` measures anew\n"), "{finished:#?}");
    for row in ["\n  self            ", "\n  cross           "] {
        let line = finished.stderr.split(row).nth(1).unwrap_or_else(|| panic!("{finished:#?}"));
        assert!(line.lines().next().unwrap().contains("break-even of"), "{line}");
    }
}

#[test]
fn devices_can_be_measured() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = elgen();
    command.env("XDG_CACHE_HOME", cache.path()).args(["devices", "--measure", "--device=0", "--format", "json"]);
    let text = finish(&mut command).expect(0).stdout;
    assert_eq!(fs::read_dir(cache.path().join("elgen")).unwrap().count(), 2, "f32 and f16");
    let found: Value = serde_json::from_str(&text).unwrap();
    let class = &found[0]["classes"][1];
    assert_eq!(class["dtype"], "f16");
    assert!(class["bandwidth"].as_f64().unwrap() > 1e8 && class["el_cross"]["points"].is_array(), "{class}");
    finish(elgen().args(["devices", "--measure", "--device", "nothing"])).expect_error(1, &["--device", "nothing"]);
    finish(elgen().args(["devices", "--device", "0"])).expect(2);
}
