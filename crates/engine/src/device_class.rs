//! Measured device classes and where they are kept: a file per adapter, driver, version and dtype in the user's cache folder.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use elgen_attention::Formats;
use elgen_attention::planner::{ClassKey, DeviceClass, measure};
use elgen_models::{ModelError, files};
use elgen_tensor::{DType, Device, DeviceOptions, WeightFormat};
use serde::{Deserialize, Serialize};

use crate::cpu_load::CpuTime;
use crate::error::EngineError;

mod measurement;

pub use measurement::Measurement;

/// How often a measurement of a busy machine is tried again.
const MOST_TRIES: u32 = 3;
/// Seconds before it is: what keeps the machine busy may be over.
const PAUSE: u64 = 600;

/// Far above any class.
const MAX_BYTES: u64 = 1 << 20;

/// The file's content. What does not parse, or belongs to another key, is measured again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stored {
    key: ClassKey,
    /// How often it was tried in vain to measure it better.
    tries: u32,
    measurement: Measurement,
    class: DeviceClass,
}

/// Classes that this process knows: a folder that cannot be written must not mean a measurement per model.
static KNOWN: Mutex<Option<HashMap<String, MeasuredClass>>> = Mutex::new(None);

/// What an adapter was measured at for weights and caches of one dtype.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasuredClass {
    /// "f32" or "f16".
    pub dtype: &'static str,
    /// When, and how well.
    pub measurement: Measurement,
    /// The numbers.
    #[serde(flatten)]
    pub class: DeviceClass,
}

/// Measures an adapter anew for each dtype, and replaces what is kept of it in the user's cache folder. `selector`: its number, or part
/// of its name.
///
/// # Errors
/// The adapter cannot be opened, has too little memory, or failed.
pub fn measure_device(selector: &str) -> Result<Vec<MeasuredClass>, EngineError> {
    let options = DeviceOptions { selector: Some(selector.to_owned()), ..DeviceOptions::default() };
    let device = Device::open(&options)?;
    [DType::F32, DType::F16].into_iter().map(|dtype| class_of_dtype(&device, dtype, true, |_| {})).collect()
}

/// Gets the name of an adapter that is about to be measured: a program that is silent for seconds looks as if it hung.
pub type OnMeasurement = fn(adapter: &str);

/// What an adapter was measured at for these formats: what is kept of it, else it is measured now. `selector`: as in
/// [`crate::SessionOptions::device`]; `tell` hears of it if it is measured.
///
/// # Errors
/// The adapter cannot be opened, has too little memory, or failed.
pub fn device_class(
    selector: Option<&str>,
    formats: impl Into<Formats>,
    tell: OnMeasurement,
) -> Result<MeasuredClass, EngineError> {
    let options = DeviceOptions { selector: selector.map(str::to_owned), ..DeviceOptions::default() };
    class_of(&Device::open(&options)?, formats.into(), false, tell)
}

/// The class of an open device for these formats: that of the caches' dtype, with the products of the weights'.
pub(crate) fn class_of(
    device: &Device,
    formats: Formats,
    refresh: bool,
    tell: OnMeasurement,
) -> Result<MeasuredClass, EngineError> {
    let weights = match formats.weights {
        WeightFormat::F16 => DType::F16,
        // What nobody has measured is not taken to be faster.
        _ => DType::F32,
    };
    let caches = class_of_dtype(device, formats.cache.dtype(), refresh, tell)?;
    if weights == formats.cache.dtype() {
        return Ok(caches);
    }
    let products = class_of_dtype(device, weights, refresh, tell)?;
    let scatter = caches.class.scatter.max(products.class.scatter);
    let is_new = caches.measurement.is_new || products.measurement.is_new;
    Ok(MeasuredClass {
        class: DeviceClass { linear: products.class.linear, scatter, ..caches.class },
        measurement: Measurement { is_new, ..caches.measurement },
        ..caches
    })
}

/// The class of an open device for weights and caches of one dtype; what is measured runs on a device of its own, so that this one's memory
/// counters see nothing of it.
fn class_of_dtype(
    device: &Device,
    dtype: DType,
    refresh: bool,
    tell: OnMeasurement,
) -> Result<MeasuredClass, EngineError> {
    let report = device.report();
    let key = ClassKey::new(&report.name, &report.driver, dtype);
    let name = file_name(&key);
    let measured =
        |stored: Stored| MeasuredClass { dtype: dtype.name(), measurement: stored.measurement, class: stored.class };
    // Held while measuring: two measurements at once would disturb each other.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let folder = folder(|variable| std::env::var_os(variable).map(PathBuf::from));
    let mut before = None;
    if !refresh {
        if let Some(found) = known.get(&name) {
            let measurement = Measurement { is_new: false, ..found.measurement.clone() };
            return Ok(MeasuredClass { measurement, ..found.clone() });
        }
        before = folder.as_deref().and_then(|folder| load(folder, &key));
        if let Some(stored) = before.take_if(|stored| !is_due(stored, now())) {
            let found = measured(stored);
            known.insert(name, found.clone());
            return Ok(found);
        }
    }
    let own = Device::open(&DeviceOptions { selector: Some(report.index.to_string()), ..DeviceOptions::default() })?;
    tell(&report.name);
    let fresh = take(&own, key.clone(), dtype)?;
    let replaces = refresh || before.is_some();
    let mut stored = before.map_or_else(|| fresh.clone(), |before| better(before, fresh.clone()));
    if let Some(folder) = folder {
        // Processes that measured at once agree on the first one's numbers, so that they choose the same. A folder that cannot be written
        // is no error: the class is known all the same.
        match load(&folder, &key).filter(|_| !replaces) {
            Some(first) => stored = first,
            None if save(&folder, &stored, replaces).is_ok() => stored = load(&folder, &key).unwrap_or(stored),
            None => {}
        }
    }
    stored.measurement.is_new = stored.measurement.measured_at == fresh.measurement.measured_at;
    let found = measured(stored);
    known.insert(name, found.clone());
    Ok(found)
}

/// Measures a device.
fn take(device: &Device, key: ClassKey, dtype: DType) -> Result<Stored, EngineError> {
    let before = device.capabilities().software.then(CpuTime::now).flatten();
    let found = measure(device, dtype).map_err(ModelError::from)?;
    let others = before.zip(CpuTime::now()).and_then(|(before, now)| before.others_until(now));
    let measurement = Measurement {
        measured_at: now(),
        rounds: found.rounds,
        seconds: found.seconds,
        scatter: found.class.scatter,
        others,
        is_new: true,
    };
    Ok(Stored { key, tries: 0, measurement, class: found.class })
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether what was measured on a busy machine should be measured again.
fn is_due(stored: &Stored, now: u64) -> bool {
    let age = now.saturating_sub(stored.measurement.measured_at);
    !stored.measurement.is_steady() && stored.tries < MOST_TRIES && age >= PAUSE
}

/// Of a measurement of a busy machine and the one that was tried since, what is to be kept.
fn better(before: Stored, fresh: Stored) -> Stored {
    let tries = before.tries + 1;
    if fresh.measurement.is_steady() {
        return fresh;
    }
    let is_worse = fresh.class.scatter > before.class.scatter;
    // The pause counts from the last try.
    let measured_at = fresh.measurement.measured_at;
    let kept = if is_worse { before } else { fresh };
    Stored { tries, measurement: Measurement { measured_at, ..kept.measurement }, ..kept }
}

/// `$XDG_CACHE_HOME/elgen`, `~/.cache/elgen`, or on Windows `%LOCALAPPDATA%\elgen`. Relative paths in these variables are ignored, as
/// the XDG base directory specification has it.
fn folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .or_else(|| absolute("LOCALAPPDATA"))
        .map(|cache| cache.join("elgen"))
}

fn file_name(key: &ClassKey) -> String {
    let text = [&key.adapter, &key.driver, &key.version, &key.dtype].map(String::as_str).join("\n");
    format!("device-{:08x}.json", crc32fast::hash(text.as_bytes()))
}

/// What the folder holds for a key; `None` where there is nothing usable.
fn load(folder: &Path, key: &ClassKey) -> Option<Stored> {
    // A pipe or a device in its place is nothing, and is replaced by what is measured.
    let text = files::read_regular(&folder.join(file_name(key)), MAX_BYTES).ok()?;
    let stored: Stored = serde_json::from_slice(&text).ok()?;
    (stored.key == *key && stored.class.is_usable()).then_some(stored)
}

/// Writes a class so that no reader ever sees half of it. Unless it is to `replace` one, a usable one that is there stays.
fn save(folder: &Path, stored: &Stored, replace: bool) -> std::io::Result<()> {
    let key = &stored.key;
    if !stored.class.is_usable() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let text = serde_json::to_vec_pretty(stored)?;
    let path = folder.join(file_name(key));
    let partial = folder.join(format!("{}.{}", file_name(key), std::process::id()));
    let place = || match fs::hard_link(&partial, &path) {
        Ok(()) => fs::remove_file(&partial),
        // There is one already, or this file system has no links.
        Err(_) if replace || load(folder, key).is_none() => fs::rename(&partial, &path),
        Err(_) => fs::remove_file(&partial),
    };
    let written = fs::write(&partial, text).and_then(|()| place());
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(driver: &str) -> ClassKey {
        ClassKey::new("an adapter", driver, DType::F32)
    }

    fn stored(driver: &str) -> Stored {
        let measurement =
            Measurement { measured_at: 1000, rounds: 2, seconds: 3.5, scatter: 0.05, others: Some(0.1), is_new: false };
        Stored { key: key(driver), tries: 0, measurement, class: class() }
    }

    fn class() -> DeviceClass {
        let curve = json(r#"{"points": [[1.0, 1e-9], [16.0, 4e-9]]}"#);
        let text = format!(
            r#"{{"bandwidth": 1e10, "alu_flops": 1e11, "dispatch_seconds": 1e-6, "submission_seconds": 1e-5, "scatter": 0.05,
                "linear": {curve}, "mha_self": {curve}, "mha_cross": {curve}, "el_self": {curve}, "el_cross": {curve}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn json(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_was_saved_is_found_under_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("not/there/yet");
        assert_eq!(load(&inner, &key("1")), None);
        save(&inner, &stored("1"), false).unwrap();
        assert_eq!(load(&inner, &key("1")), Some(stored("1")));
        assert_eq!(load(&inner, &key("2")), None, "another driver");
        assert_eq!(load(&inner, &ClassKey { version: "0.0.0".into(), ..key("1") }), None, "another version");
        assert_eq!(load(&inner, &ClassKey { dtype: "f16".into(), ..key("1") }), None, "another dtype");
        // A file under the right name that belongs to another key: two keys with one checksum.
        fs::rename(inner.join(file_name(&key("1"))), inner.join(file_name(&key("2")))).unwrap();
        assert_eq!(load(&inner, &key("2")), None);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no partial file stays");
        // The damaged one is replaced; the first of two stays, unless the second is to replace it.
        let faster = Stored { class: DeviceClass { bandwidth: 2e10, ..class() }, ..stored("2") };
        save(&inner, &stored("2"), false).unwrap();
        assert_eq!(load(&inner, &key("2")), Some(stored("2")));
        save(&inner, &faster, false).unwrap();
        assert_eq!(load(&inner, &key("2")), Some(stored("2")));
        save(&inner, &faster, true).unwrap();
        assert_eq!(load(&inner, &key("2")), Some(faster));
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no partial file stays");
    }

    #[test]
    fn damaged_files_are_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name(&key("1")));
        save(folder.path(), &stored("1"), false).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        for damaged in [
            String::new(),
            "{}".to_owned(),
            whole[..whole.len() / 2].to_owned(),
            whole.replace("\"bandwidth\": 10000000000.0", "\"bandwidth\": -1.0"),
            whole.replace("\"bandwidth\": 10000000000.0", "\"bandwidth\": null"),
            whole.replacen("16.0", "0.5", 1),
            // As files were before measurements were repeated.
            whole.replace("\"scatter\"", "\"spread\""),
        ] {
            assert_ne!(damaged, whole);
            fs::write(&path, &damaged).unwrap();
            assert_eq!(load(folder.path(), &key("1")), None, "{damaged}");
        }
        fs::write(&path, whole).unwrap();
        assert_eq!(load(folder.path(), &key("1")), Some(stored("1")));
    }

    #[cfg(unix)]
    #[test]
    fn special_files_are_nothing_and_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name(&key("1")));
        for make in ["pipe", "device"] {
            match make {
                "pipe" => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
                _ => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
            }
            assert_eq!(load(folder.path(), &key("1")), None);
            save(folder.path(), &stored("1"), false).unwrap();
            assert_eq!(load(folder.path(), &key("1")), Some(stored("1")));
            fs::remove_file(&path).unwrap();
        }
        let large = fs::File::create(&path).unwrap();
        large.set_len(1 << 40).unwrap();
        assert_eq!(load(folder.path(), &key("1")), None);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_of_save_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(save(file.path(), &stored("1"), true).is_err());
        assert_eq!(load(file.path(), &key("1")), None);
    }

    fn measured(measured_at: u64, scatter: f64, others: f64, tries: u32) -> Stored {
        let measurement = Measurement { measured_at, scatter, others: Some(others), ..stored("1").measurement };
        Stored { tries, measurement, class: DeviceClass { scatter, ..class() }, ..stored("1") }
    }

    #[test]
    fn what_was_measured_under_load_is_measured_again_a_few_times() {
        let due = |stored: &Stored| is_due(stored, 5000);
        assert!(!due(&measured(0, 0.1, 0.2, 0)), "steady, however old");
        assert!(due(&measured(0, 0.3, 0.0, 0)), "numbers that differ");
        assert!(due(&measured(0, 0.0, 0.6, 2)), "other programs");
        assert!(!due(&measured(4800, 0.3, 0.6, 0)), "a moment ago");
        assert!(!due(&measured(9000, 0.3, 0.6, 0)), "in the future");
        assert!(!due(&measured(0, 0.3, 0.6, MOST_TRIES)), "often enough");
    }

    #[test]
    fn the_steadier_measurement_is_kept() {
        let before = || measured(1000, 0.3, 0.5, 1);
        assert_eq!(better(before(), measured(2000, 0.05, 0.0, 0)), measured(2000, 0.05, 0.0, 0));
        assert_eq!(better(before(), measured(2000, 0.2, 0.5, 0)), measured(2000, 0.2, 0.5, 2));
        assert_eq!(better(before(), measured(2000, 0.4, 0.9, 0)), measured(2000, 0.3, 0.5, 2), "tried again in vain");
    }

    #[test]
    fn the_folder_is_the_users_cache() {
        let of = |set: &[(&str, &str)]| {
            let set: HashMap<String, PathBuf> = set.iter().map(|(k, v)| (k.to_string(), PathBuf::from(v))).collect();
            folder(|name| set.get(name).cloned())
        };
        let path = |p: &str| Some(PathBuf::from(p));
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), path("/x/elgen"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")]), path("/h/.cache/elgen"));
        assert_eq!(of(&[("LOCALAPPDATA", "/l")]), path("/l/elgen"));
        assert_eq!(of(&[]), None);
    }
}
