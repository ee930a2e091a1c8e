//! `elgen devices` and `elgen inspect`.

mod common;

use common::{ModelCopy, demo, elgen, finish};
use serde_json::Value;

#[test]
fn devices_for_people_and_programs() {
    let text = finish(elgen().arg("devices")).expect(0);
    let json = finish(elgen().args(["devices", "--format", "json"])).expect(0);
    let found: Value = serde_json::from_str(&json.stdout).unwrap();
    let found = found.as_array().unwrap();
    assert!(!found.is_empty());
    for device in found {
        let name = device["name"].as_str().unwrap();
        assert!(text.stdout.contains(name), "{name}: {text:#?}");
        assert!(device["software"].is_boolean() && device["max_binding_bytes"].is_u64(), "{device}");
    }
    assert_eq!((text.stderr.as_str(), json.stderr.as_str()), ("", ""));
}

#[test]
fn inspect_for_people_and_programs() {
    let text = finish(elgen().arg("inspect").arg(demo())).expect(0);
    assert!(text.stdout.contains("bart"), "{text:#?}");
    let json = finish(elgen().arg("inspect").arg(demo()).args(["--format", "json"])).expect(0);
    let found: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(found.to_string().contains("bart"), "{found}");
    assert_eq!((text.stderr.as_str(), json.stderr.as_str()), ("", ""));
}

#[test]
fn inspect_refuses_what_generate_refuses() {
    let model = ModelCopy::new();
    model.edit_weight_bytes(|bytes| bytes.truncate(1000));
    finish(elgen().arg("inspect").arg(model.path())).expect_error(1, &["model.safetensors"]);
    let model = ModelCopy::new();
    model.remove("config.json");
    finish(elgen().arg("inspect").arg(model.path())).expect_error(1, &["config.json"]);
}
