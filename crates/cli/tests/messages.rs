//! The list of messages in docs/testing.md names tests that exist.

use std::{fs, path::Path};

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
