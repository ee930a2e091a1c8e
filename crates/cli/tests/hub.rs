//! Models by name, downloaded from a hub on this machine.
#![cfg(feature = "hub")]

mod common;
#[path = "common/hub.rs"]
mod hub;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Finished, QUICK, elgen, finish, finish_with_input};
use hub::{COMMIT, Fault, Hub, NAME};
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// A small model with a tokenizer and with files that nobody needs.
fn tiny_bart() -> Hub {
    let (model, tokenizer) = (fixture("bart-base-like"), fixture("tokenizers/bpe-json"));
    let hub = Hub::of(&[
        (&model, "config.json"),
        (&model, "generation_config.json"),
        (&model, WEIGHTS),
        (&tokenizer, "tokenizer.json"),
    ]);
    hub.add("README.md", b"# tiny");
    hub.add("pytorch_model.bin", b"pickle");
    hub
}

/// The names of a model's own blobs, sorted.
fn blobs(repository: &Path) -> Vec<String> {
    let entries = fs::read_dir(repository.join("blobs")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A user with an empty cache.
struct User {
    home: TempDir,
    endpoint: String,
}

impl User {
    fn of(hub: &Hub) -> User {
        User { home: tempfile::tempdir().unwrap(), endpoint: hub.endpoint.clone() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = elgen();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name);
        }
        for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.endpoint).args(arguments);
        command
    }

    fn inspect(&self, arguments: &[&str]) -> Finished {
        finish(self.command(&["inspect"]).args(arguments))
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--someone--tiny-bart")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    /// The snapshot's files, sorted; each must be whole.
    #[track_caller]
    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.snapshot())
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        for name in &names {
            let dir = if name == "tokenizer.json" { "tokenizers/bpe-json" } else { "bart-base-like" };
            let wanted = fs::read(fixture(dir).join(name)).unwrap();
            assert!(fs::read(self.snapshot().join(name)).unwrap() == wanted, "{name} is not what the hub has");
        }
        names
    }

    /// The name leads to the model, after a download.
    #[track_caller]
    fn expect_model(&self) {
        let finished = self.inspect(&[NAME]).expect(0);
        assert!(finished.stdout.contains("bart"), "{finished:#?}");
        assert!(finished.stderr.starts_with(&format!("downloading {NAME} into ")), "{finished:#?}");
        assert_eq!(self.files(), ["config.json", "generation_config.json", WEIGHTS, "tokenizer.json"]);
    }

    /// The last line is an error with these parts, and no model is in the cache.
    #[track_caller]
    fn expect_failure(&self, arguments: &[&str], parts: &[&str]) {
        let finished = self.inspect(arguments).expect(1);
        let error = finished.stderr.lines().last().unwrap_or_default();
        assert!(error.starts_with("error: ") && finished.stdout.is_empty(), "{finished:#?}");
        for part in parts {
            assert!(error.contains(part), "no {part:?} in {finished:#?}");
        }
        assert!(!self.files().contains(&WEIGHTS.to_owned()));
        assert!(!self.repository().join("refs/main").exists());
    }
}

#[test]
fn a_model_is_downloaded_once_and_then_needs_no_network() {
    let hub = tiny_bart();
    let user = User::of(&hub);
    user.expect_model();
    let asked = hub.requests();
    assert!(asked.iter().any(|request| request.path == format!("/large/{WEIGHTS}")), "the redirect was not followed");
    assert!(asked.iter().all(|request| !request.path.ends_with("README.md") && !request.path.ends_with(".bin")));
    assert_eq!(fs::read_to_string(user.repository().join("refs/main")).unwrap(), COMMIT);
    let refs: Vec<_> = fs::read_dir(user.repository().join("refs")).unwrap().collect();
    assert_eq!(refs.len(), 1, "{refs:?}");

    let first = user.inspect(&[NAME]).expect(0);
    assert_eq!(first.stderr, "");
    assert_eq!(user.inspect(&[&format!("{NAME}@main"), "--offline"]).expect(0).stdout, first.stdout);
    // A commit is found without its branch.
    assert_eq!(user.inspect(&[NAME, "--revision", COMMIT]).expect(0).stdout, first.stdout);
    let mut offline = user.command(&["inspect", NAME]);
    assert_eq!(finish(offline.env("HF_HUB_OFFLINE", "1")).expect(0).stdout, first.stdout);
    assert!(hub.requests().is_empty());
    // The directory is that of the fixture, with a tokenizer.
    let mut elsewhere = user.command(&["inspect", "--offline", NAME]);
    elsewhere.env("HF_HUB_CACHE", user.home.path().join("other"));
    finish(&mut elsewhere).expect_error(1, &["offline", "lacks its config.json"]);
}

#[test]
fn generate_runs_a_model_by_name() {
    let hub = tiny_bart();
    hub.remove("tokenizer.json");
    let user = User::of(&hub);
    let record = br#"{"input_ids": [0, 5, 6, 7, 2]}"#;
    let formats = ["--input-format", "jsonl", "--format", "jsonl"];
    let named = |extra: &[&str]| {
        let mut command = user.command(&["generate", "--model", NAME]);
        finish_with_input(command.args(QUICK).args(formats).args(extra), record).expect(0)
    };
    let found = named(&[]);
    assert_eq!(found.stderr, "", "--quiet holds for downloads");
    let local = fixture("bart-base-like");
    let mut command = user.command(&["generate", "--model", local.to_str().unwrap()]);
    assert_eq!(finish_with_input(command.args(QUICK).args(formats), record).expect(0).stdout, found.stdout);
    // Without a tokenizer the hub is asked for one; if it cannot be, what is there is used.
    hub.requests();
    assert_eq!(named(&[]).stdout, found.stdout);
    assert!(!hub.requests().is_empty());
    assert_eq!(named(&["--offline"]).stdout, found.stdout);
    let gone = User { home: user.home, endpoint: "http://127.0.0.1:9".to_owned() };
    gone.inspect(&[NAME]).expect(0);
}

#[test]
fn a_directory_of_the_same_name_wins() {
    let hub = tiny_bart();
    let user = User::of(&hub);
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join(NAME);
    fs::create_dir_all(&dir).unwrap();
    for file in ["config.json", WEIGHTS] {
        fs::copy(fixture("bart-base-like").join(file), dir.join(file)).unwrap();
    }
    let finished = finish(user.command(&["inspect", NAME, "--revision", "v1"]).current_dir(work.path())).expect(0);
    assert!(finished.stderr.starts_with("warning: --revision: has no effect"), "{finished:#?}");
    assert!(hub.requests().is_empty());
}

#[test]
fn a_broken_download_goes_on_where_it_broke_off() {
    let hub = tiny_bart();
    hub.fail(Fault::Cut { file: WEIGHTS, after: 70_000 }, 2);
    hub.fail(Fault::Status { path: "tokenizer.json", status: 503 }, 1);
    let user = User::of(&hub);
    user.expect_model();
    let starts: Vec<_> = hub
        .requests()
        .iter()
        .filter(|request| request.path.starts_with("/large/"))
        .filter_map(hub::Request::start)
        .collect();
    assert_eq!(starts, [0, 70_000, 140_000]);
}

#[test]
fn a_download_that_never_succeeds_leaves_no_model_and_can_be_resumed() {
    let hub = tiny_bart();
    hub.fail(Fault::Cut { file: WEIGHTS, after: 10_000 }, 5);
    let user = User::of(&hub);
    user.expect_failure(&[NAME], &[NAME, WEIGHTS, "broke off"]);
    user.expect_failure(&[NAME, "--offline"], &["offline"]);
    hub.requests();
    user.expect_model();
    let asked = hub.requests();
    let starts: Vec<_> = asked.iter().filter_map(hub::Request::start).collect();
    assert_eq!(starts, [50_000; 2], "one for the redirect, one for the rest of the file, none for other files");
}

#[test]
fn a_download_that_was_killed_at_its_end_is_finished() {
    let hub = tiny_bart();
    hub.fail(Fault::Cut { file: WEIGHTS, after: 10_000 }, 5);
    let user = User::of(&hub);
    user.expect_failure(&[NAME], &["broke off"]);
    let part = fs::read_dir(user.repository().join("blobs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "incomplete"))
        .unwrap();
    for content in [fs::read(fixture("bart-base-like").join(WEIGHTS)).unwrap(), vec![0; 300_000]] {
        fs::write(&part, content).unwrap();
        let _ = fs::remove_file(user.snapshot().join(WEIGHTS));
        let _ = fs::remove_file(user.repository().join("refs/main"));
        user.expect_model();
    }
}

#[test]
fn damaged_content_is_never_used() {
    let hub = tiny_bart();
    hub.fail(Fault::Corrupt { file: "config.json" }, 1);
    let user = User::of(&hub);
    user.expect_model();

    // What a server sends that ignores the range does not continue the part that is there.
    let hub = tiny_bart();
    let user = User::of(&hub);
    hub.fail(Fault::Cut { file: WEIGHTS, after: 30_000 }, 5);
    user.expect_failure(&[NAME], &["broke off"]);
    hub.fail(Fault::IgnoreRange { file: WEIGHTS }, 1);
    user.expect_model();

    for (fault, part) in [
        (Fault::Corrupt { file: WEIGHTS }, "SHA-256"),
        (Fault::Corrupt { file: "tokenizer.json" }, "git object id"),
        (Fault::WrongSize { file: WEIGHTS }, "bytes instead of"),
        (Fault::Etag { file: "config.json", etag: "00112233445566778899aabbccddeeff00112233" }, "git object id"),
    ] {
        let hub = tiny_bart();
        hub.fail(fault, usize::MAX);
        User::of(&hub).expect_failure(&[NAME], &["damaged", part]);
    }
}

#[test]
fn answers_that_lead_astray_are_refused() {
    for (fault, part) in [
        (Fault::Etag { file: "config.json", etag: "../../../../evil" }, "etag"),
        (Fault::Etag { file: "config.json", etag: "" }, "etag"),
        (Fault::Commit("../../evil"), "commit"),
        (Fault::NoLocation { file: WEIGHTS }, "leads nowhere"),
        (Fault::Status { path: "/revision/main", status: 418 }, "status 418"),
        (Fault::Status { path: "tokenizer.json", status: 500 }, "tokenizer.json: the hub answered with status 500"),
    ] {
        let hub = tiny_bart();
        hub.fail(fault, usize::MAX);
        let user = User::of(&hub);
        user.expect_failure(&[NAME], &[NAME, part]);
        assert!(!user.home.path().join("evil").exists());
    }
}

#[test]
fn etags_of_mirrors_are_taken() {
    let hub = tiny_bart();
    hub.fail(Fault::Etag { file: "config.json", etag: "W/0af5-18c" }, usize::MAX);
    User::of(&hub).expect_model();
}

#[test]
fn what_does_not_exist_is_said() {
    let hub = tiny_bart();
    let user = User::of(&hub);
    user.expect_failure(&["someone/else"], &["someone/else: the hub has no such model"]);
    user.expect_failure(&[&format!("{NAME}@v9")], &[NAME, "no revision `v9`"]);
    user.expect_failure(&[NAME, "--revision", "v9"], &[NAME, "no revision `v9`"]);
    user.inspect(&[&format!("{NAME}@v1"), "--revision", "v2"])
        .expect_error(2, &["--revision", "has a revision already"]);
    user.inspect(&[NAME, "--revision", "../v2"]).expect_error(2, &["--revision", "`../v2`"]);
    let nobody = User { home: tempfile::tempdir().unwrap(), endpoint: "http://127.0.0.1:9".to_owned() };
    nobody.expect_failure(&[NAME], &[NAME, "cannot be reached"]);
}

#[test]
fn a_gated_model_needs_a_token() {
    let hub = tiny_bart();
    hub.require("hf_secret");
    let user = User::of(&hub);
    user.expect_failure(&[NAME], &["401", "set HF_TOKEN"]);
    let mut wrong = user.command(&["inspect", NAME]);
    finish(wrong.env("HF_TOKEN", "hf_other")).expect_error(1, &["401", "HF_TOKEN", "not valid"]);
    fs::write(user.home.path().join("token"), "hf_secret\n").unwrap();
    user.expect_model();
    let hub = tiny_bart();
    hub.fail(Fault::Status { path: "config.json", status: 403 }, usize::MAX);
    let user = User::of(&hub);
    let finished = finish(user.command(&["inspect", NAME]).env("HF_TOKEN", "hf_mine")).expect(1);
    assert!(finished.stderr.contains("403") && finished.stderr.contains("consent"), "{finished:#?}");
    assert!(hub.requests().iter().all(|request| !request.path.starts_with("/large/")));
}

#[test]
fn weights_in_other_formats_are_refused_before_anything_is_downloaded() {
    let hub = tiny_bart();
    hub.remove(WEIGHTS);
    let user = User::of(&hub);
    user.expect_failure(&[NAME], &["pytorch_model.bin only", WEIGHTS]);
    hub.remove("pytorch_model.bin");
    user.expect_failure(&[NAME], &["no weights"]);
    hub.remove("config.json");
    user.expect_failure(&[NAME], &["no config.json"]);
    assert!(user.files().is_empty());
}

#[test]
fn shards_come_with_their_index() {
    let (model, bpe) = (fixture("gpt2-head10-f16-sharded"), fixture("tokenizers/bpe-files"));
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let hub = Hub::of(&[
        (&model, "config.json"),
        (&model, "model.safetensors.index.json"),
        (&model, shards[0]),
        (&model, shards[1]),
        (&bpe, "vocab.json"),
        (&bpe, "merges.txt"),
    ]);
    let user = User::of(&hub);
    user.inspect(&[NAME]).expect(0);
    assert_eq!(fs::read_dir(user.snapshot()).unwrap().count(), 6);
    // A shard that is gone is fetched again, and nothing else.
    hub.requests();
    fs::remove_file(fs::canonicalize(user.snapshot().join(shards[1])).unwrap()).unwrap();
    user.inspect(&[NAME, "--offline"]).expect_error(1, &["offline", shards[1]]);
    user.inspect(&[NAME]).expect(0);
    let downloads = hub.requests().iter().filter(|request| request.start().is_some()).count();
    assert_eq!(downloads, 2, "one for the redirect, one for the file");

    hub.remove(shards[1]);
    let other = User::of(&hub);
    let finished = other.inspect(&[NAME]).expect(1);
    assert!(finished.stderr.contains("which the repository lacks"), "{finished:#?}");
    hub.add("model.safetensors.index.json", br#"{"weight_map":{"a":"../../evil.safetensors"}}"#);
    let other = User::of(&hub);
    let finished = other.inspect(&[NAME]).expect(1);
    assert!(finished.stderr.contains("not an index of shards"), "{finished:#?}");
}

#[test]
fn pull_brings_models_and_says_where_they_are() {
    let hub = tiny_bart();
    let user = User::of(&hub);
    let pulled = finish(&mut user.command(&["pull", NAME, &format!("{NAME}@main")])).expect(0);
    let dir = user.snapshot();
    assert_eq!(pulled.lines(), [dir.to_str().unwrap(); 2]);
    assert!(pulled.stderr.starts_with("downloading ") && pulled.stderr.lines().count() == 1, "{pulled:#?}");
    assert_eq!(user.files(), ["config.json", "generation_config.json", WEIGHTS, "tokenizer.json"]);
    assert!(blobs(&user.repository()).iter().all(|name| name.len() == 40 || name.len() == 64));

    // What is there is not asked for again, but where the branch stands is.
    hub.requests();
    let again = finish(&mut user.command(&["pull", "--quiet", NAME])).expect(0);
    assert_eq!((again.stdout.trim_end(), again.stderr.as_str()), (dir.to_str().unwrap(), ""));
    let asked: Vec<_> = hub.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, [format!("/api/models/{NAME}/revision/main")]);
    fs::write(user.repository().join("refs/main"), "f".repeat(40)).unwrap();
    assert_eq!(finish(&mut user.command(&["pull", NAME])).expect(0).stdout, again.stdout);
    assert_eq!(fs::read_to_string(user.repository().join("refs/main")).unwrap(), COMMIT);

    // One that fails leaves the others alone.
    let some = finish(&mut user.command(&["pull", "someone/else", NAME])).expect(1);
    assert_eq!(some.stdout, again.stdout);
    assert_eq!(some.stderr, "error: someone/else: the hub has no such model\n");
}

#[test]
fn pull_refuses_what_it_cannot_do() {
    let hub = tiny_bart();
    let user = User::of(&hub);
    let pull = |arguments: &[&str]| finish(user.command(&["pull"]).args(arguments));
    for name in ["bart", "./a/b", "/a/b", "a/b/c", "../a", "a/b@", "a/b@../c", "a/b@c@d", "", "a/b\n"] {
        pull(&[NAME, name]).expect_error(2, &["not a model's name on the hub", "OWNER/NAME"]);
    }
    pull(&["--offline", NAME]).expect_error(2, &["--offline"]);
    pull(&["--revision", "../x", NAME]).expect_error(2, &["--revision", "`../x`"]);
    pull(&["--revision", "v2", NAME, &format!("{NAME}@v1")]).expect_error(2, &["--revision", "has a revision already"]);
    let nothing = pull(&[]).expect(2);
    assert!(nothing.stderr.contains("OWNER/NAME"), "{nothing:#?}");
    finish(user.command(&["pull", NAME]).env("HF_HUB_OFFLINE", "1")).expect_error(1, &["HF_HUB_OFFLINE"]);
    assert!(hub.requests().is_empty());
    pull(&[&format!("{NAME}@v9")]).expect_error(1, &["no revision `v9`"]);
}

#[test]
fn settings_that_cannot_be_used_are_told_without_a_request() {
    let hub = tiny_bart();
    let user = User::of(&hub);
    for endpoint in
        ["hub.example", "ftp://hub/", "http://", "http://u:p@hub/", "http://hub:99999", "http://hub/?x", "/"]
    {
        finish(user.command(&["inspect", NAME]).env("HF_ENDPOINT", endpoint)).expect_error(1, &["HF_ENDPOINT"]);
    }
    for token in ["hf_a b", "hf_a\nX-Evil: 1", "hf_é", "hf_\u{1b}[31m"] {
        let finished = finish(user.command(&["inspect", NAME]).env("HF_TOKEN", token));
        assert!(!finished.stderr.contains("hf_"), "{finished:#?}");
        finished.expect_error(1, &["HF_TOKEN"]);
    }
    assert!(hub.requests().is_empty());
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_what_has_arrived() {
    let hub = tiny_bart();
    hub.fail(Fault::Stall { file: WEIGHTS, after: 50_000 }, 1);
    let user = User::of(&hub);
    let child = user.command(&["pull", NAME]).spawn().unwrap();
    let length = || {
        let name = blobs(&user.repository()).into_iter().find(|name| name.ends_with(".incomplete"))?;
        Some(fs::metadata(user.repository().join("blobs").join(name)).unwrap().len())
    };
    while !user.repository().join("blobs").is_dir() || length() != Some(50_000) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_ne!(common::finish_child(child).code, Some(0));
    assert_eq!(length(), Some(50_000));
    hub.requests();
    finish(&mut user.command(&["pull", NAME])).expect(0);
    assert!(hub.requests().iter().any(|request| request.start() == Some(50_000)));
    assert!(length().is_none());
}

#[test]
fn a_hub_that_never_answers_is_given_up() {
    let hub = tiny_bart();
    hub.fail(Fault::Silence { path: "/revision/main" }, usize::MAX);
    let user = User::of(&hub);
    let begin = std::time::Instant::now();
    let finished = user.inspect(&[NAME]).expect(1);
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
    let last = finished.stderr.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("does not answer"), "{finished:#?}");
    // That it tries again is told meanwhile.
    assert!(finished.stderr.contains("trying again"), "{finished:#?}");
    assert_eq!(hub.requests().len(), 2);
}
