//! The arrow table of `docs/architecture.md` compared with the code, and the sizes of files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Rows `| a | b, c |` of the table below a heading: what a may use.
fn table(heading: &str) -> Vec<(String, BTreeSet<String>)> {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let section = page.split("\n## ").find(|text| text.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let from = names(cells.next().unwrap()).remove(0);
        (from, names(cells.next().unwrap()).into_iter().collect())
    })
    .collect()
}

#[test]
fn crates_use_what_the_table_allows_and_the_table_allows_what_they_use() {
    let rows = table("Crates");
    assert!(rows.len() >= 4);
    for (name, allowed) in rows {
        let manifest = fs::read_to_string(root().join(&name).join("Cargo.toml")).unwrap();
        let used: BTreeSet<String> = manifest
            .lines()
            .filter_map(|line| {
                line.strip_prefix("keyloan-")?.split(['.', ' ', '=']).next().map(str::to_owned)
            })
            .collect();
        assert_eq!(used, allowed, "{name}");
    }
}

#[test]
fn modules_of_the_daemon_use_what_the_table_allows_and_no_more() {
    let rows = table("Modules of the daemon");
    let modules: BTreeSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
    for (name, allowed) in &rows {
        let mut used = BTreeSet::new();
        for file in sources(&root().join("daemon/src").join(name)) {
            let text = fs::read_to_string(&file).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            for part in text.split("crate::").skip(1) {
                let module: String =
                    part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if module != *name && modules.contains(&module) {
                    used.insert(module);
                }
            }
        }
        assert_eq!(used, *allowed, "{name}");
    }
    for entry in fs::read_dir(root().join("daemon/src")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(name == "main" || modules.contains(&name), "{name} is not in the table");
    }
}

/// The files of a module: its own and those in its folder.
fn sources(module: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let own = module.with_extension("rs");
    if own.exists() {
        files.push(own);
    }
    let mut folders = vec![module.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn every_file_reads_in_one_sitting() {
    let mut seen = 0;
    for part in ["protocol", "platform", "daemon", "cli", "tests", "xtask"] {
        for file in sources(&root().join(part)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 600, "{} has {lines} lines; split it by what it owns", file.display());
            seen += 1;
        }
    }
    assert!(seen > 60);
}
