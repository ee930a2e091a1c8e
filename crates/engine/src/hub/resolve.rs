//! From a name to a directory: local ones win, then the cache, then the hub.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};

use super::{
    HubError, ModelName,
    download::Downloader,
    snapshot::{Held, held, plan, shards},
};

const DEFAULT_REVISION: &str = "main";

const CONFIG: &str = "config.json";

/// What [`HubOptions::config_only`] is content with.
const CONFIG_FILES: [&str; 2] = [CONFIG, "generation_config.json"];

/// How the hub and its cache are used. `Default` uses neither token nor environment.
#[derive(Clone, Debug, Default)]
pub struct HubOptions {
    /// Branch, tag or commit, where the name has none.
    pub revision: Option<String>,
    /// Folder of the cache, `…/huggingface/hub`; `None` where it cannot be told.
    pub cache: Option<PathBuf>,
    /// Address of the hub; `None` is the public one.
    pub endpoint: Option<String>,
    /// Access token.
    pub token: Option<String>,
    /// Use the cache only.
    pub offline: bool,
    /// Show progress bars on stderr if it is a terminal.
    pub progress: bool,
    /// Be content with `config.json` and, where there is one, `generation_config.json`; download no more than these.
    pub config_only: bool,
}

impl HubOptions {
    /// What Python's `huggingface_hub` takes from the environment: HF_HOME (else XDG_CACHE_HOME, else `~/.cache`), HF_HUB_CACHE,
    /// HF_ENDPOINT, HF_TOKEN (else the file HF_TOKEN_PATH, else `token` below HF_HOME) and HF_HUB_OFFLINE.
    pub fn from_env() -> HubOptions {
        Self::from_variables(&|name| env::var(name).ok(), env::home_dir())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>, user: Option<PathBuf>) -> HubOptions {
        let variable =
            |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(user?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")));
        let stored_token = || {
            let text = fs::read_to_string(token_file?).ok()?;
            Some(text.trim().to_owned()).filter(|token| !token.is_empty())
        };
        HubOptions {
            revision: None,
            token: variable("HF_TOKEN").or_else(stored_token),
            cache: path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub"))),
            endpoint: variable("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            offline: variable("HF_HUB_OFFLINE")
                .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())),
            progress: true,
            config_only: false,
        }
    }
}

/// The directory of a model: `name` itself if it is one; else the model of that name, from the cache if it is there and else from the
/// hub. `notify` is told once when a download begins.
///
/// A cached model is used without asking the hub whether its branch has moved. Only files that a model needs are downloaded, each is
/// checked against the size and the hash that the hub announces, and the weights come last: what is there without them is not used.
///
/// # Errors
/// The name is no name, the model does not exist or may not be read, has no safetensors, or the download fails.
pub fn resolve_model(name: &str, options: &HubOptions, notify: &mut dyn FnMut(&str)) -> Result<PathBuf, HubError> {
    let local = Path::new(name);
    if local.is_dir() {
        return Ok(local.to_owned());
    }
    let model = wanted(name, options)?;
    let cache = options.cache.clone().ok_or(HubError::NoHome)?;
    let snapshot = cached(&cache, &model);
    let found = snapshot.as_deref().map_or_else(|| Held::Lacks("config.json".to_owned()), held);
    if options.config_only
        && let Some(dir) = snapshot.as_ref().filter(|dir| dir.join(CONFIG).is_file())
    {
        return Ok(dir.clone());
    }
    match (snapshot, found) {
        (Some(dir), Held::Whole) => Ok(dir),
        (Some(dir), Held::NoTokenizer) if options.offline => Ok(dir),
        // The repository may have none; if the hub cannot be asked, this is what there is.
        (Some(dir), Held::NoTokenizer) => match download(&model, cache, options, notify) {
            Err(HubError::Unreachable { .. }) => Ok(dir),
            result => result,
        },
        (_, Held::Lacks(missing)) if options.offline => {
            Err(HubError::Offline { model: model.to_string(), missing, cache })
        }
        _ => download(&model, cache, options, notify),
    }
}

fn wanted(name: &str, options: &HubOptions) -> Result<ModelName, HubError> {
    let model = ModelName::parse(name).ok_or_else(|| HubError::Name { name: name.to_owned() })?;
    let Some(revision) = &options.revision else { return Ok(model) };
    if model.revision().is_some_and(|named| named != revision) {
        return Err(HubError::TwoRevisions { name: name.to_owned(), revision: revision.clone() });
    }
    model.at(revision).ok_or_else(|| HubError::Revision { revision: revision.clone() })
}

fn repository(model: &ModelName) -> Repo {
    let revision = model.revision().unwrap_or(DEFAULT_REVISION);
    Repo::with_revision(model.id().to_owned(), RepoType::Model, revision.to_owned())
}

/// The directory of a revision in the cache, if the revision is known there. Commits are known by themselves.
fn cached(cache: &Path, model: &ModelName) -> Option<PathBuf> {
    let repo = repository(model);
    let commit = if is_commit(repo.revision()) {
        repo.revision().to_owned()
    } else {
        let text = fs::read_to_string(cache.join(repo.folder_name()).join("refs").join(repo.revision())).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))?
    };
    let dir = Cache::new(cache.to_owned()).repo(repo).pointer_path(&commit);
    dir.is_dir().then_some(dir)
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn download(
    model: &ModelName,
    cache: PathBuf,
    options: &HubOptions,
    notify: &mut dyn FnMut(&str),
) -> Result<PathBuf, HubError> {
    // Relative links of the cache need an absolute place.
    let cache = std::path::absolute(&cache).map_err(|source| HubError::Cache { path: cache, source })?;
    let store = Cache::new(cache.clone());
    let mut builder =
        ApiBuilder::from_cache(store.clone()).with_token(options.token.clone()).with_progress(options.progress);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let api = builder
        .with_user_agent("elgen", env!("CARGO_PKG_VERSION"))
        .build()
        .map_err(|error| HubError::Unreachable { model: model.to_string(), reason: error.to_string() })?;
    let repo = repository(model);
    let downloader = Downloader::new(api, store.clone(), model, options.token.is_some());
    let info = downloader.info(&repo)?;
    let unusable = |reason: String| HubError::Unusable { model: model.to_string(), reason };
    if !is_commit(&info.sha) {
        return Err(HubError::Answer {
            model: model.to_string(),
            what: "list of files".to_owned(),
            reason: format!("`{}` is no commit", info.sha.escape_debug()),
        });
    }
    let names = info.siblings.iter().map(|file| file.rfilename.as_str());
    if options.config_only {
        // The revision stays unknown to the cache: whoever needs the weights finds the model incomplete and asks again.
        let wanted: Vec<&str> = names.filter(|name| CONFIG_FILES.contains(name)).collect();
        if !wanted.contains(&CONFIG) {
            return Err(unusable(format!("it has no {CONFIG}")));
        }
        for file in wanted {
            downloader.fetch(&info.sha, file)?;
        }
        return Ok(store.repo(repo).pointer_path(&info.sha));
    }
    let plan = plan(names.clone()).map_err(unusable)?;
    notify(&format!("downloading {model} into {}", cache.display()));

    // All files of one commit, even if the branch moves meanwhile.
    for file in &plan.first {
        downloader.fetch(&info.sha, file)?;
    }
    let weights = downloader.fetch(&info.sha, plan.weights)?;
    if plan.weights.ends_with(".json") {
        let index = fs::read(&weights).map_err(|source| HubError::Cache { path: weights, source })?;
        let shards = shards(&index).ok_or_else(|| unusable(format!("{}: not an index of shards", plan.weights)))?;
        for shard in &shards {
            if !names.clone().any(|name| name == shard) {
                return Err(unusable(format!("{} names {shard}, which the repository lacks", plan.weights)));
            }
            downloader.fetch(&info.sha, shard)?;
        }
    }
    // From here on the revision is known to the cache.
    let refs = cache.join(repo.folder_name()).join("refs");
    if repo.revision() != info.sha {
        // hf-hub writes one for the commit, which names itself.
        let _ = fs::remove_file(refs.join(&info.sha));
        let place = refs.join(repo.revision());
        store.repo(repo.clone()).create_ref(&info.sha).map_err(|source| HubError::Cache { path: place, source })?;
    }
    Ok(store.repo(repo).pointer_path(&info.sha))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        HubOptions::from_variables(&get, Some("/home/u".into()))
    }

    #[test]
    fn the_environment_is_read_as_in_python() {
        let none = options(&[]);
        assert_eq!(none.cache.as_deref(), Some(Path::new("/home/u/.cache/huggingface/hub")));
        assert!(!none.offline && none.token.is_none() && none.endpoint.is_none());
        assert_eq!(options(&[("XDG_CACHE_HOME", "/x")]).cache.unwrap(), Path::new("/x/huggingface/hub"));
        assert_eq!(options(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")]).cache.unwrap(), Path::new("/h/hub"));
        assert_eq!(options(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache.unwrap(), Path::new("/c"));
        assert_eq!(options(&[("HF_ENDPOINT", "http://h:1/")]).endpoint.unwrap(), "http://h:1");
        for (value, offline) in [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false), ("off", false)]
        {
            assert_eq!(options(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert!(HubOptions::from_variables(&|_| None, None).cache.is_none());
    }

    #[test]
    fn the_token_comes_from_the_variable_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(options(&[("HF_HOME", home)]).token, None);
        fs::write(dir.path().join("token"), "hf_stored\n").unwrap();
        assert_eq!(options(&[("HF_HOME", home)]).token.unwrap(), "hf_stored");
        assert_eq!(options(&[("HF_HOME", home), ("HF_TOKEN", " hf_given ")]).token.unwrap(), "hf_given");
        let file = dir.path().join("other");
        fs::write(&file, "hf_other").unwrap();
        let path = file.to_str().unwrap();
        assert_eq!(options(&[("HF_HOME", home), ("HF_TOKEN_PATH", path)]).token.unwrap(), "hf_other");
    }

    #[test]
    fn revisions_may_be_given_once() {
        let with = |revision: &str| HubOptions { revision: Some(revision.to_owned()), ..HubOptions::default() };
        assert_eq!(wanted("a/b", &with("v1")).unwrap().to_string(), "a/b@v1");
        assert_eq!(wanted("a/b@v1", &with("v1")).unwrap().to_string(), "a/b@v1");
        assert!(matches!(wanted("a/b@v1", &with("v2")), Err(HubError::TwoRevisions { .. })));
        assert!(matches!(wanted("a/b", &with("../v2")), Err(HubError::Revision { .. })));
        assert!(matches!(wanted("a", &HubOptions::default()), Err(HubError::Name { .. })));
    }
}
