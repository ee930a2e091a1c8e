//! What a command reads and what it writes: nothing that is read may be written, and no two results into one file.
//!
//! A file is known by device and inode, whatever its names, and one that does not exist yet by the place where it will be.
//! Terminals, pipes and devices may be named twice; they hold nothing that could be lost.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use elgen_models::files::{belongs_to_model, model_files};

use super::{
    identity::FileId,
    streams::{self, Stream},
};
use crate::error::CliError;

/// The files of a command, each with how messages call it.
#[derive(Debug, Default)]
pub(crate) struct FileUses {
    read: Vec<Use>,
    written: Vec<Use>,
    /// Directories of models, as the system names them.
    models: Vec<PathBuf>,
}

#[derive(Debug)]
struct Use {
    role: Role,
    path: PathBuf,
    place: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Named by this flag.
    Flag(&'static str),
    /// A standard stream.
    Stream(&'static str),
    /// A file of the model.
    Model,
    /// Made beside the file of this flag, under a name of elgen's own.
    Beside(&'static str),
}

/// Where a file is. Never that of a terminal, a pipe or a device.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File(FileId),
    /// A file that does not exist yet, or one of a system without inodes.
    Path(PathBuf),
}

impl FileUses {
    /// Notes a file that is read. `-` is stdin.
    pub(crate) fn reads(&mut self, flag: &'static str, path: Option<&Path>) {
        match path {
            Some(path) if path.as_os_str() == super::STANDARD => self.reads_stdin(),
            Some(path) => self.read.push(Use::of(Role::Flag(flag), path)),
            None => {}
        }
    }

    /// Notes that stdin is read.
    pub(crate) fn reads_stdin(&mut self) {
        self.read.push(Use::of_stream("stdin", Stream::Stdin));
    }

    /// Notes that a model is read from a directory; nothing where there is no such directory.
    pub(crate) fn reads_model(&mut self, dir: &Path) {
        let Ok(canonical) = dir.canonicalize() else { return };
        if canonical.is_dir() {
            self.read.extend(model_files(dir).iter().map(|path| Use::of(Role::Model, path)));
            self.models.push(canonical);
        }
    }

    /// Notes the file of the results; `-`, as nothing at all, is stdout.
    pub(crate) fn results(&mut self, flag: &'static str, path: Option<&Path>) {
        match path.filter(|path| path.as_os_str() != super::STANDARD) {
            Some(path) => self.writes(flag, Some(path)),
            None => self.written.push(Use::of_stream("stdout", Stream::Stdout)),
        }
    }

    /// Notes a file that is written.
    pub(crate) fn writes(&mut self, flag: &'static str, path: Option<&Path>) {
        self.written.extend(path.map(|path| Use::of(Role::Flag(flag), path)));
    }

    /// Notes a file that is written beside that of `flag`.
    pub(crate) fn writes_beside(&mut self, flag: &'static str, path: PathBuf) {
        self.written.push(Use::of(Role::Beside(flag), &path));
    }

    /// Refuses a command that would write what it reads, one file twice, or where nothing can be written. Nothing is touched.
    ///
    /// # Errors
    /// Wrong usage, or the system's refusal.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        let refuse = |what: String| Err(CliError::Usage(what));
        for (number, written) in self.written.iter().enumerate() {
            let others = self.read.iter().chain(&self.written[..number]);
            if let Some(other) = others.into_iter().find(|other| written.is(other)) {
                return refuse(written.clash(other));
            }
            if self.models.iter().any(|dir| written.enters(dir)) {
                return refuse(format!("{}: would become a file of the model", written.name()));
            }
        }
        self.check_messages()?;
        for written in &self.written {
            match written.role {
                Role::Flag(_) => check_writable(&written.path)?,
                Role::Stream(_) => streams::check_open(Stream::Stdout)?,
                Role::Model | Role::Beside(_) => {}
            }
        }
        if self.read.iter().any(|read| read.role == Role::Stream("stdin")) {
            streams::check_open(Stream::Stdin)?;
        }
        Ok(())
    }

    /// Messages may go where results on stdout go, and nowhere else.
    fn check_messages(&self) -> Result<(), CliError> {
        let messages = Use::of_stream("stderr", Stream::Stderr);
        if messages.is(&Use::of_stream("stdout", Stream::Stdout)) {
            return Ok(());
        }
        match self.read.iter().chain(&self.written).find(|other| messages.is(other)) {
            Some(other) => Err(CliError::Usage(messages.clash(other))),
            None => Ok(()),
        }
    }
}

impl Use {
    fn of(role: Role, path: &Path) -> Use {
        Use { role, path: path.to_owned(), place: place_of(path) }
    }

    fn of_stream(name: &'static str, stream: Stream) -> Use {
        let place = streams::metadata(stream).as_ref().and_then(place_of_found);
        Use { role: Role::Stream(name), path: PathBuf::new(), place }
    }

    fn is(&self, other: &Use) -> bool {
        self.place.is_some() && self.place == other.place
    }

    /// Whether this is a new file of a model's directory that loading the model would read.
    fn enters(&self, model: &Path) -> bool {
        match &self.place {
            Some(Place::Path(path)) => {
                let name = path.file_name().and_then(|name| name.to_str());
                path.parent() == Some(model) && name.is_some_and(belongs_to_model)
            }
            _ => false,
        }
    }

    /// `--output FILE`
    fn name(&self) -> String {
        match self.role {
            Role::Flag(flag) | Role::Beside(flag) => format!("{flag} {}", self.path.display()),
            Role::Stream(name) => name.to_owned(),
            Role::Model => self.path.display().to_string(),
        }
    }

    /// That this file, which is to be written, is that one.
    fn clash(&self, other: &Use) -> String {
        match (self.role, other.role) {
            (Role::Beside(needs), Role::Flag(flag)) => {
                format!("{flag} {}: {needs} needs this name for a file of its own", self.path.display())
            }
            (Role::Flag(flag), Role::Beside(needs)) => {
                format!("{flag} {}: {needs} needs this name for a file of its own", other.path.display())
            }
            (_, Role::Model) => format!("{}: is {}, a file of the model", self.name(), other.path.display()),
            (_, Role::Flag(flag)) => format!("{}: the same file as {flag}", self.name()),
            (_, Role::Stream(name)) => format!("{}: the same file as {name}", self.name()),
            (_, Role::Beside(_)) => format!("{}: is {}", self.name(), other.path.display()),
        }
    }
}

/// Where a path leads.
fn place_of(path: &Path) -> Option<Place> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => None,
        Ok(found) => place_of_found(&found).or_else(|| path.canonicalize().ok().map(Place::Path)),
        Err(_) => future_place(path).map(Place::Path),
    }
}

fn place_of_found(found: &fs::Metadata) -> Option<Place> {
    FileId::of(found).filter(|_| found.is_file()).map(Place::File)
}

/// Where a file that does not exist yet will be: links that lead nowhere are followed, as creating the file will do.
fn future_place(path: &Path) -> Option<PathBuf> {
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let place = parent_of(&path).canonicalize().ok()?.join(path.file_name()?);
        match fs::read_link(&place) {
            Ok(target) => path = place.with_file_name(target),
            Err(_) => return Some(place),
        }
    }
    None
}

/// The directory of a file.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Finds most of what will keep a file from being written, without touching it.
fn check_writable(path: &Path) -> Result<(), CliError> {
    let fail = |source: io::Error| CliError::File { action: "write", path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(fail(io::ErrorKind::IsADirectory.into())),
        // Opening a pipe would wait for its reader.
        Ok(found) if !found.is_file() => Ok(()),
        Ok(_) => File::options().append(true).open(path).map(drop).map_err(fail),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
        Err(_) => {
            let parent = parent_of(path);
            if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                return Err(fail(io::Error::other("not the name of a file")));
            }
            match fs::metadata(parent) {
                Ok(found) if found.is_dir() => Ok(()),
                Ok(_) => Err(fail(io::Error::other(format!("not a directory: {}", parent.display())))),
                Err(_) => Err(fail(io::Error::other(format!("no such directory: {}", parent.display())))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clash(read: &Path, written: &Path) -> Option<String> {
        let mut uses = FileUses::default();
        uses.reads("--input", Some(read));
        uses.writes("--output", Some(written));
        uses.check().err().map(|error| error.to_string())
    }

    #[test]
    fn one_file_under_two_names_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        assert!(clash(&a, &dir.path().join(".").join("a")).is_some(), "before it exists");
        assert_eq!(clash(&a, &b), None);
        fs::write(&a, "x").unwrap();
        assert_eq!(clash(&a, &b), None);
        fs::hard_link(&a, &b).unwrap();
        assert_eq!(clash(&a, &b).is_some(), cfg!(unix));
        assert!(clash(&a, &dir.path().join(".").join("a")).is_some());
        assert_eq!(fs::read_to_string(&a).unwrap(), "x");
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_nowhere_are_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("c", at("b")).unwrap();
        symlink(at("b"), at("a")).unwrap();
        assert!(clash(&at("c"), &at("a")).unwrap().ends_with("the same file as --input"));
        assert_eq!(clash(&at("d"), &at("a")), None);
        symlink("loop", at("loop")).unwrap();
        assert!(clash(&at("loop"), &at("loop")).is_some());
    }

    #[test]
    fn unwritable_targets_are_found_and_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        assert!(check_writable(&file).is_ok());
        assert!(!file.exists());
        fs::write(&file, "kept").unwrap();
        assert!(check_writable(&file).is_ok());
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        assert!(check_writable(dir.path()).is_err());
        let told = |path: &str| {
            let error = check_writable(&dir.path().join(path)).unwrap_err();
            crate::error::one_line(&error)
        };
        assert!(told("no/out").ends_with(&format!("no such directory: {}", dir.path().join("no").display())));
        assert!(told("out/x").contains("Not a directory") || told("out/x").contains("not a directory"));
        assert!(check_writable(&dir.path().join("new/")).is_err());
    }

    #[test]
    fn new_files_of_a_model_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |name: &str| {
            let mut uses = FileUses::default();
            uses.reads_model(dir.path());
            uses.writes("--output", Some(&dir.path().join(name)));
            uses.check().err().map(|error| error.to_string())
        };
        assert!(refused("tokenizer.json").unwrap().ends_with("would become a file of the model"));
        assert!(refused("./model-00001-of-00002.safetensors").is_some());
        assert_eq!(refused("french.txt"), None);
        fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
        assert!(refused("tokenizer.json").unwrap().ends_with("a file of the model"));
    }
}
