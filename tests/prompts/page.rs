//! The page with the texts. Each stands in a block behind a mark with its name; what is said of it is written by hand.

use std::path::PathBuf;
use std::sync::Mutex;

/// One writer at a time.
static PAGE: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/prompts.md")
}

fn mark(name: &str) -> String {
    format!("<!-- {name} -->\n```text\n")
}

/// Keeps a screen as it was, for people who judge how a question looks.
pub(crate) fn keep_screen(name: &str, screen: &str) {
    let default = || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
    let directory = std::env::var_os("KEYLOAN_SCREENSHOTS").map_or_else(default, PathBuf::from);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(format!("terminal-{name}.txt")), screen).unwrap();
}

/// Fails the test unless the page shows this text under this name; writes it there where that is wished.
#[track_caller]
pub(crate) fn golden(name: &str, text: &str) {
    let _one = PAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut page = std::fs::read_to_string(path()).unwrap();
    let mark = mark(name);
    let start =
        page.find(&mark).unwrap_or_else(|| panic!("docs/prompts.md has no place for '{name}':\n{text}"));
    let start = start + mark.len();
    let end = start + page[start..].find("```").unwrap();
    let text = format!("{}\n", text.trim_matches('\n'));
    if std::env::var_os("KEYLOAN_BLESS").is_some() {
        page.replace_range(start..end, &text);
        std::fs::write(path(), &page).unwrap();
    }
    let golden = std::fs::read_to_string(path()).unwrap();
    let golden = &golden[start..start + text.len().min(golden.len() - start)];
    assert!(golden == text, "'{name}' in docs/prompts.md differs from:\n{text}");
}

#[test]
fn every_text_on_the_page_is_one_of_those_that_are_compared() {
    let sources = [
        include_str!("opening.rs"),
        include_str!("places.rs"),
        include_str!("ssh.rs"),
        include_str!("vault.rs"),
        include_str!("vaults.rs"),
    ];
    let page = std::fs::read_to_string(path()).unwrap();
    let names: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("<!-- ")?.strip_suffix(" -->")).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in &names {
        assert!(
            sources.iter().any(|source| source.contains(&format!("\"{name}\""))),
            "{name} is compared nowhere"
        );
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
    }
    assert_eq!(page.matches("```text").count(), names.len(), "a text without a name");
}
