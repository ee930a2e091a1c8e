//! Messages: the list in docs/testing.md names tests that exist, and libraries do not speak of a command line.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_listed_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let section = page.split("\n## Messages\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut tests = 0;
    for row in section.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, file, names] = cells[..] else { panic!("{row}") };
        let source = fs::read_to_string(root.join(file.trim_matches('`'))).unwrap();
        for name in names.split(", ").map(|name| name.trim_matches('`')) {
            assert!(
                source.contains(&format!("#[test]\nfn {name}()"))
                    || source.contains(&format!("#[test]\n    fn {name}()")),
                "{file}: {name}"
            );
            tests += 1;
        }
    }
    assert!(tests > 30, "{tests}");
}

/// Source files below a folder, tests left out.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

/// A flag such as `--name` in a line of code.
fn names_a_flag(line: &str) -> bool {
    let code = !line.trim_start().starts_with("//");
    code && line.match_indices("--").any(|(at, _)| line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase()))
}

#[test]
fn libraries_name_no_flags() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = 0;
    for library in ["tensor", "attention", "search", "models", "engine", "metrics"] {
        for path in sources(&crates.join(library).join("src")) {
            let text = fs::read_to_string(&path).unwrap();
            // Unit tests stand at the end of a file.
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
            let named: Vec<&str> = code.lines().filter(|line| names_a_flag(line)).collect();
            assert!(named.is_empty(), "{}: {named:?}; the command line adds its flags", path.display());
            files += 1;
        }
    }
    assert!(files > 100, "{files}");
    assert!(names_a_flag(r#"    #[error("too long (--truncate cuts it)")]"#) && !names_a_flag("    // `--truncate`"));
}
