#![expect(clippy::disallowed_methods, reason = "git and ssh-keygen are asked what they sign")]

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

const TREE: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n";
const WHO: &str = "A U Thor <author@example.com> 1700000000 +0100";

fn parse(text: &str) -> Option<Signed> {
    Signed::parse(text.as_bytes())
}

fn commit(headers: &str, message: &str) -> String {
    format!("{TREE}author {WHO}\ncommitter {WHO}\n{headers}\n{message}")
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("keyloan-git-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path.canonicalize().unwrap()
}

/// A repository whose signatures are made by ssh-keygen, behind a script that keeps what it was told and given.
struct Repository(PathBuf);

impl Repository {
    fn new(name: &str) -> Self {
        let repository = Self(directory(name));
        let place = repository.0.clone();
        let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
        let made = Command::new("ssh-keygen").args(keygen).arg(place.join("key")).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        // As the kernel would show it.
        let script = "#!/bin/sh\nprintf '%s\\0' \"$0\" \"$@\" >\"$OUT/cmdline\"\nfor last; do :; done\n\
                      cp \"$last\" \"$OUT/buffer\" && printf '%s' \"$last\" >\"$OUT/file\" && exec ssh-keygen \"$@\"\n";
        fs::write(place.join("signer"), script).unwrap();
        fs::set_permissions(place.join("signer"), fs::Permissions::from_mode(0o700)).unwrap();
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let signer = self.0.join("signer");
        Command::new("git")
            .args(["-c", "gpg.format=ssh", "-c"])
            .arg(format!("gpg.ssh.program={}", signer.display()))
            .args(["-c", &format!("user.signingkey={}", self.0.join("key").display())])
            .args(arguments)
            .current_dir(&self.0)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("OUT", &self.0)
            .envs([("HOME", "/"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
            .envs([("GIT_AUTHOR_NAME", "Zo\u{eb} <"), ("GIT_AUTHOR_EMAIL", "zoe@example.com")])
            .envs([("GIT_COMMITTER_NAME", "C O Mitter"), ("GIT_COMMITTER_EMAIL", "c@example.com")])
            .output()
            .unwrap()
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn object(&self, name: &str) -> Option<Signed> {
        let kind = self.git(&["cat-file", "-t", name]);
        Signed::parse(&self.run(&["cat-file", kind.trim(), name]).stdout)
    }

    /// What is found of the last signature, once its file is where it was.
    fn last(&self) -> Option<Signed> {
        let [buffer, file, cmdline] =
            ["buffer", "file", "cmdline"].map(|name| fs::read(self.0.join(name)).unwrap());
        let file = self.0.join(std::ffi::OsStr::from_bytes(&file));
        fs::write(&file, &buffer).unwrap();
        let found = find(&cmdline, &self.0, &DocumentHash::Sha512(Sha512::digest(&buffer).into()));
        let other = DocumentHash::Sha512(Sha512::digest(b"another").into());
        assert_eq!(find(&cmdline, &self.0, &other), None);
        fs::remove_file(file).unwrap();
        assert!(find(&cmdline, &self.0, &DocumentHash::Sha256(Sha256::digest(&buffer).into())).is_none());
        found
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_git_has_signed_is_found_by_its_hash() {
    let repository = Repository::new("signed");
    // git drops what it would misread in a name.
    let person = "Zo\u{eb} <zoe@example.com>";
    let signed = |kind, person: &str, subject: &str| {
        Some(Signed { kind, person: person.to_owned(), subject: subject.to_owned() })
    };
    repository.git(&["commit", "-q", "-S", "--allow-empty", "-m", "First\n\nBody\n"]);
    assert_eq!(repository.last(), signed(Kind::Commit, person, "First"));
    repository.git(&["switch", "-q", "-c", "side"]);
    repository.git(&["commit", "-q", "-S", "--allow-empty", "-m", "Side \u{2192} caf\u{e9}"]);
    assert_eq!(repository.last(), signed(Kind::Commit, person, "Side \u{2192} caf\u{e9}"));
    repository.git(&["tag", "-s", "v1/\u{e9}", "-m", "\n\nRelease 1\nmore"]);
    let tag = Kind::Tag { name: "v1/\u{e9}".to_owned() };
    assert_eq!(repository.last(), signed(tag, "C O Mitter <c@example.com>", "Release 1"));
    repository.git(&["switch", "-q", "main"]);
    // Its headers hold the whole tag.
    repository.git(&["merge", "-q", "-S", "--no-ff", "-m", "Merge side", "v1/\u{e9}"]);
    assert_eq!(repository.last(), signed(Kind::Commit, person, "Merge side"));
    let object = repository.git(&["cat-file", "commit", "HEAD"]);
    assert!(object.contains("\nmergetag object ") && object.contains("\ngpgsig "), "{object}");
    assert_eq!(repository.object("HEAD"), None, "this one is signed already");
}

#[test]
fn objects_of_git_say_what_git_says_of_them() {
    let repository = Repository::new("objects");
    repository.git(&["commit", "-q", "--allow-empty", "-m", "One"]);
    repository.git(&["commit", "-q", "--allow-empty", "--allow-empty-message", "-m", ""]);
    repository.git(&["branch", "a"]);
    repository.git(&["branch", "b"]);
    for branch in ["a", "b"] {
        repository.git(&["switch", "-q", branch]);
        repository.git(&["commit", "-q", "--allow-empty", "-m", branch]);
    }
    let tree = repository.git(&["rev-parse", "HEAD^{tree}"]);
    let parents = ["-p", "a", "-p", "b", "-p", "main"];
    let arguments = [["commit-tree", tree.trim()].as_slice(), &parents, &["-m", "\n  \nOctopus "]].concat();
    let octopus = repository.git(&arguments);
    for name in ["HEAD", "main", "main~1", octopus.trim()] {
        let said = repository.git(&["log", "-1", "--format=%an <%ae>%n%s", name]);
        let signed = repository.object(name).unwrap();
        assert_eq!(format!("{}\n{}\n", signed.person, signed.subject.trim_end()), said, "{name}");
        assert_eq!(signed.kind, Kind::Commit);
    }
    repository.git(&["tag", "-a", "plain", "-m", "Plain"]);
    assert_eq!(repository.object("plain").unwrap().kind, Kind::Tag { name: "plain".to_owned() });
    let latin = ["-c", "i18n.commitEncoding=ISO-8859-1", "commit", "-q", "--allow-empty", "-m", "caf\u{e9}"];
    repository.git(&latin);
    let raw = repository.run(&["cat-file", "commit", "HEAD"]).stdout;
    assert!(raw.windows(20).any(|part| part == b"\nencoding ISO-8859-1"));
    assert_eq!(repository.object("HEAD"), None);
}

#[test]
fn a_repository_with_sha256_is_understood_too() {
    let tree = format!("tree {}\nparent {}\n", "a".repeat(64), "b".repeat(64));
    assert!(parse(&format!("{tree}author {WHO}\ncommitter {WHO}\n\nx")).is_some());
}

#[test]
fn a_header_that_git_would_not_write_says_nothing() {
    assert_eq!(parse(&commit("", "Subject\n")).unwrap().person, "A U Thor <author@example.com>");
    assert!(parse(&commit("encoding UTF-8\nHG:extra x\nmergetag object a\n type\n \n b\n", "x")).is_some());
    for text in [
        String::new(),
        "x".to_owned(),
        commit("encoding ISO-8859-1\n", "x"),
        commit("gpgsig -----BEGIN\n", "x"),
        commit("author B <b@example.com> 1 +0000\n", "x"),
        commit("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n", "x"),
        commit("no-value\n", "x"),
        commit("a\u{7f}b c\n", "x"),
        commit("", "x\0y"),
        commit("", "").trim_end().to_owned(),
        commit("", "x").replace("tree 4b", "tree 4B"),
        commit("", "x").replace("tree 4b", "tree b"),
        commit("", "x").replace("author A", "author  A <x> B"),
        commit("", "x").replace(" +0100", " 0100"),
        commit("", "x").replace(" 1700000000", ""),
        commit("", "x").replace("> ", ">"),
        commit("", "x").replace("committer", "Committer"),
        commit("", "x").replace("A U Thor", &"A".repeat(PERSON)),
        "object 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ntype commit\ntag v1\n\nno tagger".to_owned(),
        format!("object 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ntype note\ntag v1\ntagger {WHO}\n\nx"),
        format!("object 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ntype commit\ntag \ntagger {WHO}\n\nx"),
        format!(
            "object 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ntype commit\ntag v\ntagger {WHO}\nx y\n\nx"
        ),
    ] {
        assert_eq!(parse(&text), None, "{text:?}");
    }
    assert_eq!(Signed::parse(&[commit("", "").as_bytes(), b"caf\xe9"].concat()), None);
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let tag = format!("object {}\ntype commit\ntag v1\ntagger {WHO}\n\nx", "a".repeat(40));
    // Bytes that look random and are the same each time (a linear congruence of Knuth's).
    let mut state: u64 = 11;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % limit
    };
    let mut understood = 0;
    for round in 0..40_000 {
        let mut bytes = if round % 2 == 0 { commit("", "Subject") } else { tag.clone() }.into_bytes();
        for _ in 0..below(3) {
            let at = below(bytes.len());
            bytes[at] = u8::try_from(below(256)).unwrap();
        }
        bytes.truncate(below(2 * bytes.len()));
        understood += u32::from(Signed::parse(&bytes).is_some());
    }
    assert!(understood > 1000, "{understood}");
}

#[test]
fn only_a_small_regular_file_that_was_named_last_is_read() {
    let place = directory("files");
    let text = commit("", "Subject");
    let hash = DocumentHash::Sha256(Sha256::digest(&text).into());
    fs::write(place.join("buffer"), &text).unwrap();
    let found = |cmdline: &[u8]| find(cmdline, &place, &hash).is_some();
    let absolute = [b"ssh-keygen\0".as_slice(), place.join("buffer").as_os_str().as_bytes(), b"\0"].concat();
    assert!(found(b"ssh-keygen\0-Y\0sign\0buffer\0") && found(b"x\0buffer") && found(&absolute));
    assert!(find(b"x\0buffer\0", Path::new("."), &hash).is_none());
    for cmdline in [b"".as_slice(), b"\0", b"buffer\0", b"x\0buffer\0-U\0", b"x\0buffer\0\0", b"x\0.\0"] {
        assert!(!found(cmdline), "{cmdline:?}");
    }
    std::os::unix::fs::symlink(place.join("buffer"), place.join("link")).unwrap();
    nix::unistd::mkfifo(&place.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(!found(b"x\0link\0") && !found(b"x\0pipe\0"));
    for (length, right) in [(1024 * 1024, true), (1024 * 1024 + 1, false)] {
        let long = text.clone() + &"\n".repeat(length - text.len());
        fs::write(place.join("long"), &long).unwrap();
        let hash = DocumentHash::Sha512(Sha512::digest(&long).into());
        assert_eq!(find(b"x\0long\0", &place, &hash).is_some(), right);
    }
    fs::remove_dir_all(place).unwrap();
}

#[test]
fn the_repository_is_the_nearest_one_upwards() {
    let place = directory("upwards");
    fs::create_dir_all(place.join("a/b/c")).unwrap();
    fs::create_dir(place.join(".git")).unwrap();
    // A worktree or a submodule has a file there.
    fs::write(place.join("a/b/.git"), "gitdir: elsewhere").unwrap();
    assert_eq!(repository(&place.join("a/b/c")), Some(place.join("a/b")));
    assert_eq!(repository(&place.join("a")), Some(place.clone()));
    assert_eq!(repository(Path::new("a")), None);
    fs::remove_dir_all(place).unwrap();
}
