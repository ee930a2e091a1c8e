//! From a name to a directory: local ones win, then the cache, then the hub.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use super::{
    HubError, HubEvent, HubLimits, ModelName,
    answers::is_commit,
    client::Client,
    download::Downloader,
    snapshot::{Held, held, plan, shards},
    store::{Store, read_json, read_small},
};

const DEFAULT_REVISION: &str = "main";

const CONFIG: &str = "config.json";

/// What [`HubOptions::config_only`] is content with.
const CONFIG_FILES: [&str; 2] = [CONFIG, "generation_config.json"];

/// How the hub and its cache are used. `Default` uses neither token nor environment.
#[derive(Clone, Default)]
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
    /// Ask the hub where the branch or tag stands now, though the cache knows the model. Without, a cached model is used as it is.
    pub refresh: bool,
    /// Be content with `config.json` and, where there is one, `generation_config.json`; download no more than these.
    pub config_only: bool,
    /// What the hub may take.
    pub limits: HubLimits,
}

/// All but the token.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("revision", &self.revision)
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("refresh", &self.refresh)
            .field("config_only", &self.config_only)
            .field("limits", &self.limits)
            .finish()
    }
}

impl HubOptions {
    /// What Python's `huggingface_hub` takes from the environment: HF_HOME (else XDG_CACHE_HOME, else `~/.cache`), HF_HUB_CACHE,
    /// HF_ENDPOINT, HF_TOKEN (else the file HF_TOKEN_PATH, else `token` below HF_HOME) and HF_HUB_OFFLINE.
    pub fn from_env() -> HubOptions {
        Self::from_variables(&|name| env::var(name).ok(), env::home_dir())
    }

    /// Whether `name` is a model's name that goes with [`revision`](Self::revision).
    ///
    /// # Errors
    /// It is none, or names another revision.
    pub fn check(&self, name: &str) -> Result<(), HubError> {
        wanted(name, self).map(|_| ())
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
            let text = String::from_utf8(read_small(&token_file?, 64 << 10).ok()?).ok()?;
            Some(text.trim().to_owned()).filter(|token| !token.is_empty())
        };
        HubOptions {
            revision: None,
            token: variable("HF_TOKEN").or_else(stored_token),
            cache: path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub"))),
            endpoint: variable("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            offline: variable("HF_HUB_OFFLINE")
                .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())),
            refresh: false,
            config_only: false,
            limits: HubLimits::default(),
        }
    }
}

/// The directory of a model: `name` itself if it is one; else the model of that name, as [`fetch_model`] finds it.
///
/// # Errors
/// As [`fetch_model`].
pub fn resolve_model(
    name: &str,
    options: &HubOptions,
    events: &mut dyn FnMut(HubEvent<'_>),
) -> Result<PathBuf, HubError> {
    let local = Path::new(name);
    if local.is_dir() {
        return Ok(local.to_owned());
    }
    fetch_model(name, options, events)
}

/// The directory of the model `owner/name` or `owner/name@revision`, from the cache if it is there and else from the hub.
///
/// A cached model is used without asking the hub whether its branch has moved, unless [`HubOptions::refresh`] is set. Only files that a
/// model needs are downloaded, each is checked against the size and the hash that the hub announces, and the weights come last: what is
/// there without them is not used. What has arrived of a file is kept when a download ends early, and the next one goes on from there.
///
/// # Errors
/// The name is no name, the model does not exist or may not be read, has no safetensors, or the download fails.
pub fn fetch_model(
    name: &str,
    options: &HubOptions,
    events: &mut dyn FnMut(HubEvent<'_>),
) -> Result<PathBuf, HubError> {
    let model = wanted(name, options)?;
    let cache = options.cache.as_ref().ok_or(HubError::NoHome)?;
    let store = Store::new(cache, model.id());
    let snapshot = store.find(revision(&model));
    if let Some(dir) = snapshot.as_ref().filter(|_| options.offline || !options.refresh) {
        if options.config_only && dir.join(CONFIG).is_file() {
            return Ok(dir.clone());
        }
        match held(dir) {
            Held::Whole => return Ok(dir.clone()),
            Held::NoTokenizer if options.offline => return Ok(dir.clone()),
            // The repository may have none; if the hub cannot be asked, this is what there is.
            Held::NoTokenizer => match download(&model, cache, options, events) {
                Err(HubError::Unreachable { .. } | HubError::Silent { .. }) => return Ok(dir.clone()),
                result => return result,
            },
            Held::Lacks(_) => {}
        }
    }
    if options.offline {
        let missing = match snapshot.map(|dir| held(&dir)) {
            Some(Held::Lacks(missing)) => missing,
            _ => CONFIG.to_owned(),
        };
        return Err(HubError::Offline { model: model.to_string(), missing, cache: cache.clone() });
    }
    download(&model, cache, options, events)
}

fn wanted(name: &str, options: &HubOptions) -> Result<ModelName, HubError> {
    let model = ModelName::parse(name).ok_or_else(|| HubError::Name { name: name.to_owned() })?;
    let Some(revision) = &options.revision else { return Ok(model) };
    if model.revision().is_some_and(|named| named != revision) {
        return Err(HubError::TwoRevisions { name: name.to_owned(), revision: revision.clone() });
    }
    model.at(revision).ok_or_else(|| HubError::Revision { revision: revision.clone() })
}

fn revision(model: &ModelName) -> &str {
    model.revision().unwrap_or(DEFAULT_REVISION)
}

fn download(
    model: &ModelName,
    cache: &Path,
    options: &HubOptions,
    events: &mut dyn FnMut(HubEvent<'_>),
) -> Result<PathBuf, HubError> {
    // Relative links of the cache need an absolute place.
    let cache = std::path::absolute(cache).map_err(|source| HubError::Cache { path: cache.to_owned(), source })?;
    let store = Store::new(&cache, model.id());
    let mut downloader = Downloader::new(Client::new(options, model)?, &store, model, events);
    let revision = revision(model);
    let listing = downloader.list(revision, DEFAULT_REVISION)?;
    let commit = listing.commit.as_str();
    let unusable = |reason: String| HubError::Unusable { model: model.to_string(), reason };
    if is_commit(revision) && !commit.eq_ignore_ascii_case(revision) {
        let reason = format!("commit {commit} instead of {revision}");
        return Err(HubError::Answer { model: model.to_string(), what: "list of files".to_owned(), reason });
    }
    let snapshot = store.snapshot(commit);
    if options.config_only {
        // The revision stays unknown to the cache: whoever needs the weights finds the model incomplete and asks again.
        if !listing.has(CONFIG) {
            return Err(unusable(format!("it has no {CONFIG}")));
        }
        for file in CONFIG_FILES.into_iter().filter(|file| listing.has(file)) {
            downloader.fetch(commit, file)?;
        }
        return Ok(snapshot);
    }
    let plan = plan(listing.files.iter().map(String::as_str)).map_err(unusable)?;
    if held(&snapshot) != Held::Whole {
        downloader.tell(HubEvent::Begin { model, cache: &cache });
        // All files of one commit, even if the branch moves meanwhile.
        for file in &plan.first {
            downloader.fetch(commit, file)?;
        }
        let weights = downloader.fetch(commit, plan.weights)?;
        if plan.weights.ends_with(".json") {
            let index = read_json(&weights).map_err(|source| HubError::Cache { path: weights, source })?;
            let shards = shards(&index).ok_or_else(|| unusable(format!("{}: not an index of shards", plan.weights)))?;
            if let Some(shard) = shards.iter().find(|shard| !listing.has(shard)) {
                return Err(unusable(format!("{} names {shard}, which the repository lacks", plan.weights)));
            }
            for shard in &shards {
                downloader.fetch(commit, shard)?;
            }
        }
    }
    // From here on the revision is known to the cache.
    store.write_ref(revision, commit)?;
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn the_token_is_not_shown() {
        let shown = format!("{:?}", options(&[("HF_TOKEN", "hf_secret"), ("HF_ENDPOINT", "http://h")]));
        assert!(shown.contains("http://h") && !shown.contains("hf_secret"), "{shown}");
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
