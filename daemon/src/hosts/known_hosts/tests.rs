#![expect(clippy::disallowed_methods, reason = "ssh-keygen is asked what it finds in the same file")]

use super::super::line_of_key;
use super::super::tests::{CERTIFIED, Certified, Noise, key};
use super::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("keyloan-known-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn naming(text: &str, host_key: &PublicKey, candidates: &[&str]) -> Naming {
    KnownHosts::parse(text.as_bytes()).names_of(host_key, candidates, 150)
}

/// Names as `kind text`.
fn told(naming: Naming) -> Vec<String> {
    let Naming::Named(names) = naming else { return vec![format!("{naming:?}")] };
    names.into_iter().map(|Name { text, kind }| format!("{kind:?} {text}")).collect()
}

fn line(names: &str, number: u8) -> String {
    format!("{names} {}\n", line_of_key(&key(number)))
}

/// What ssh-keygen finds under that name: the marker, if there is one, and the key of each line.
fn found_by_keygen(file: &Path, name: &str) -> Vec<(bool, String)> {
    let output = Command::new("ssh-keygen").args(["-F", name, "-f"]).arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let base64 = fields.iter().position(|field| field.starts_with("AAAA")).unwrap();
            (fields[0] == "@cert-authority", fields[base64 - 1..=base64].join(" "))
        })
        .collect()
}

/// The same as this module sees it, key by key.
fn found_here(text: &[u8], keys: u8, name: &str) -> Vec<(bool, String)> {
    let known = KnownHosts::parse(text);
    let mut found = Vec::new();
    for number in 1..=keys {
        let host_key = key(number);
        let Some(entries) = known.keys.get(host_key.blob()) else { continue };
        let named = known.names_of(&host_key, &[name], 150);
        let is_named = matches!(&named, Naming::Named(names)
            if names.iter().any(|one| one.text == name && one.kind == NameKind::Host));
        assert_eq!(is_named, entries.hosts.iter().any(|hosts| hosts.is_for(name)), "{name} {named:?}");
        if is_named {
            found.push((false, line_of_key(&host_key)));
        }
        if entries.certifies.iter().any(|hosts| hosts.is_for(name)) {
            found.push((true, line_of_key(&host_key)));
        }
    }
    found
}

#[test]
fn names_are_found_where_ssh_keygen_finds_them() {
    let directory = directory("found");
    let file = directory.join("known_hosts");
    let mut noise = Noise(5);
    let words =
        ["a", "b.example", "*.example", "?", "[a]:2222", "[*]:2222", "192.0.2.1", "2001:db8::1", "B.example"];
    let names = ["a", "b.example", "c.example", "z", "[a]:2222", "[b]:2222", "192.0.2.1", "2001:db8::1"];
    let mut counts = [0; 2];
    for round in 0..60 {
        let hashes = round % 2 == 1;
        let mut text = String::from("# a comment\n\n  \t\n");
        if !hashes {
            // ssh-keygen hashes no file with lines that it does not understand.
            text += "garbage\n@unknown a ssh-ed25519 AAAA\n|1|x|y ssh-ed25519 AAAA\n";
        }
        // Each key once, so that what was found says in which line.
        for number in 1..=6 {
            let list: Vec<String> = (0..=noise.below(3))
                .map(|_| format!("{}{}", ["", "", "!"][noise.below(3)], words[noise.below(words.len())]))
                .collect();
            let marker = ["", "", "@cert-authority ", " \t"][noise.below(4)];
            let between = [" ", "\t", "  "][noise.below(3)];
            let comment = ["", " who@where", "\tx y"][noise.below(3)];
            let key = line_of_key(&key(number)).replacen(' ', between, 1);
            text += &[marker, &list.join(","), between, &key, comment, "\n"].concat();
        }
        fs::write(&file, &text).unwrap();
        if hashes {
            // Patterns and authorities stay as they are.
            let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output().unwrap();
            assert!(hashed.status.success(), "{hashed:?}");
            text = fs::read_to_string(&file).unwrap();
            counts[1] += text.matches("|1|").count();
        }
        for name in names {
            let mut expected = found_by_keygen(&file, name);
            expected.sort();
            let mut found = found_here(text.as_bytes(), 6, name);
            found.sort();
            // ssh-keygen shows a line of a list that it hashed once a name.
            expected.dedup();
            assert_eq!(found, expected, "{name} in\n{text}");
            counts[0] += found.len();
        }
    }
    assert!(counts[0] > 300 && counts[1] > 30, "{counts:?}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_key_has_the_names_of_its_lines() {
    let text = line("GitHub.com,192.0.2.1", 1)
        + &line("[git.example]:2222", 1)
        + &line("*.corp.example,!bad.corp.example,bad.corp.example", 1)
        + &line("other.example", 2);
    assert_eq!(
        told(naming(&text, &key(1), &[])),
        ["Host github.com", "Host 192.0.2.1", "Host [git.example]:2222", "Pattern *.corp.example"]
    );
    let names = told(naming(&text, &key(1), &["WWW.corp.example", "bad.corp.example", "git.example:2222"]));
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(names[..2], ["Host [git.example]:2222", "Host www.corp.example"]);
    assert_eq!(told(naming(&text, &key(2), &["github.com"])), ["Host other.example"]);
    assert_eq!(naming(&text, &key(3), &["github.com"]), Naming::Unknown);
}

#[test]
fn a_hashed_name_is_read_only_by_who_knows_it() {
    // Made by `ssh-keygen -H`, of hashed.example and of [hashed.example]:2222.
    let directory = directory("hashed");
    let file = directory.join("known_hosts");
    fs::write(&file, line("hashed.example", 1) + &line("[hashed.example]:2222", 2)).unwrap();
    assert!(
        Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output().unwrap().status.success()
    );
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("hashed.example"));
    assert_eq!(naming(&text, &key(1), &[]), Naming::Hashed);
    assert_eq!(naming(&text, &key(1), &["other.example", "hashed.example:2222"]), Naming::Hashed);
    for candidate in ["hashed.example", "Hashed.Example", "hashed.example:22", "[hashed.example]:22"] {
        assert_eq!(told(naming(&text, &key(1), &["x", candidate])), ["Host hashed.example"]);
    }
    for candidate in ["hashed.example:2222", "[hashed.example]:2222"] {
        assert_eq!(told(naming(&text, &key(2), &[candidate])), ["Host [hashed.example]:2222"]);
    }
    // A name that can be read is told even where another cannot.
    assert_eq!(told(naming(&(text + &line("plain.example", 1)), &key(1), &[])), ["Host plain.example"]);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_certificate_has_the_principals_that_its_authority_may_certify() {
    let text = line("@cert-authority *.example,!b.example", 2) + &line("@cert-authority [*.example]:2222", 2);
    let names = |certified: Certified<'_>| told(naming(&text, &certified.make(), &["a.example"]));
    let both = ["Certified a.example", "Certified [a.example]:2222"];
    assert_eq!(names(CERTIFIED), both);
    assert_eq!(
        names(Certified { principals: &["b.example", "x.test"], ..CERTIFIED }),
        ["Certified [b.example]:2222"]
    );
    for certified in [
        Certified { principals: &[], ..CERTIFIED },
        Certified { principals: &["*.example"], ..CERTIFIED },
        Certified { principals: &["a.\u{1b}.example"], ..CERTIFIED },
        Certified { authority: 3, ..CERTIFIED },
        Certified { kind: 1, ..CERTIFIED },
        Certified { valid: (151, 200), ..CERTIFIED },
        Certified { valid: (100, 150), ..CERTIFIED },
        Certified { critical: &["later"], ..CERTIFIED },
    ] {
        assert_eq!(names(certified), ["Unknown"]);
    }
    // An authority's key is no host's, and a host's own key no authority.
    assert_eq!(naming(&text, &key(2), &["a.example"]), Naming::Unknown);
    assert_eq!(naming(&line("*.example", 2), &CERTIFIED.make(), &["a.example"]), Naming::Unknown);
    // As ssh, which then takes the certificate for the plain key in it.
    assert_eq!(told(naming(&line("old.example", 1), &CERTIFIED.make(), &[])), ["Host old.example"]);
}

#[test]
fn a_revoked_key_has_no_name_and_certifies_none() {
    let known = line("a.example", 1) + &line("@cert-authority *", 2);
    for revoked in ["@revoked *", "@revoked other.example", "@revoked \u{fc}"] {
        assert_eq!(naming(&(known.clone() + &line(revoked, 1)), &key(1), &[]), Naming::Revoked);
        for number in [1, 2] {
            let text = line(revoked, number) + &known;
            assert_eq!(naming(&text, &CERTIFIED.make(), &[]), Naming::Revoked);
        }
    }
    // ssh-keygen tells it under every name that the line matches.
    let directory = directory("revoked");
    fs::write(directory.join("known_hosts"), known.clone() + &line("@revoked *", 1)).unwrap();
    let name = ["-F", "x.example", "-f"];
    let found = Command::new("ssh-keygen").args(name).arg(directory.join("known_hosts")).output().unwrap();
    assert!(String::from_utf8(found.stdout).unwrap().contains(&line("@revoked *", 1)));
    fs::remove_dir_all(directory).unwrap();
    let unrelated = known + &line("@revoked *", 3);
    assert_eq!(told(naming(&unrelated, &key(1), &[])), ["Host a.example"]);
}

#[test]
fn a_line_that_could_deceive_names_nothing() {
    let good = line("a.example", 1);
    for text in [
        good.replace("ssh-ed25519", "ssh-rsa"),
        good.replace("a.example", "a.\u{1b}[2Jexample"),
        good.replace("a.example", "\u{430}.example"),
        good.replace("a.example", "@revoked"),
        good.replace("a.example", "@later a.example"),
        good.replace("a.example", "@cert-authority @cert-authority a"),
        good.replace("a.example", "#a.example"),
        good.replace("a.example", "|1|short|short"),
        good.replace("a.example", "|2|a|b"),
        good.replace('\n', "\0\n"),
        good.replace("AAAA", "AAA"),
        good.replace("a.example", ",!a.example"),
        good.trim_end().to_owned() + &" ".repeat(LINE) + "x\n",
    ] {
        assert_eq!(naming(&text, &key(1), &["a.example"]), Naming::Unknown, "{text:?}");
        assert_eq!(told(naming(&(text + &good), &key(1), &[])), ["Host a.example"]);
    }
    let crlf = good.replace('\n', "\r\n");
    assert_eq!(told(naming(&crlf, &key(1), &[])), ["Host a.example"]);
}

#[test]
fn names_lists_and_files_are_bounded() {
    let many: String = (0..1000).map(|number| line(&format!("h{number}"), 1)).collect();
    assert_eq!(told(naming(&many, &key(1), &[])).len(), NAMES);
    let list = (0..1000).map(|number| format!("h{number}")).collect::<Vec<_>>().join(",");
    assert_eq!(told(naming(&line(&list, 1), &key(1), &[])).len(), NAMES);
    // Six lists of 6000 bytes: the names of five.
    let lists: String = (0..6).map(|number| line(&format!("h{number},{}", "*,".repeat(2998)), 1)).collect();
    let hosts = |names: Vec<String>| names.into_iter().filter(|name| name.starts_with("Host")).count();
    assert_eq!(hosts(told(naming(&lists, &key(1), &[]))), 5);
    let many_ports = (1000..1010).map(|port| format!("[*]:{port}")).collect::<Vec<_>>().join(",");
    let names = told(naming(&line(&format!("@cert-authority {many_ports}"), 2), &CERTIFIED.make(), &[]));
    assert_eq!(names.len(), PORTS);
    let mut bytes = line("a", 1).into_bytes();
    bytes.resize(FILE + 1, b'\n');
    assert_eq!(KnownHosts::parse(&bytes).names_of(&key(1), &[], 0), Naming::Unknown);
    assert_ne!(KnownHosts::parse(&bytes[..FILE]).names_of(&key(1), &[], 0), Naming::Unknown);
}

#[test]
fn of_two_files_the_worse_counts_and_names_add_up() {
    let named = |text: &str| naming(&line(text, 1), &key(1), &[]);
    assert_eq!(told(named("a").and(named("b,a"))), ["Host a", "Host b"]);
    for (one, other, both) in [
        (named("a"), Naming::Revoked, Naming::Revoked),
        (Naming::Unknown, Naming::Revoked, Naming::Revoked),
        (named("a"), Naming::Hashed, named("a")),
        (Naming::Unknown, named("a"), named("a")),
        (Naming::Hashed, Naming::Unknown, Naming::Hashed),
        (Naming::Unknown, Naming::Unknown, Naming::Unknown),
    ] {
        assert_eq!(one.clone().and(other.clone()), both);
        assert_eq!(other.and(one), both);
    }
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let text = line("@cert-authority a,!b,[c]:2", 2)
        + &line("|1|AAAAAAAAAAAAAAAAAAAAAAAAAAA=|AAAAAAAAAAAAAAAAAAAAAAAAAAA=", 1)
        + &line("a.example,*", 1);
    let mut noise = Noise(9);
    let mut seen = 0;
    for _ in 0..20_000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..noise.below(8) {
            let at = noise.below(bytes.len());
            bytes[at] = noise.next().to_le_bytes()[0];
        }
        bytes.truncate(noise.below(2 * bytes.len()));
        let known = KnownHosts::parse(&bytes);
        seen += usize::from(
            known.names_of(&CERTIFIED.make(), &["a.example", "[", "[a]:", ":1"], 150) != Naming::Unknown,
        );
    }
    assert!(seen > 1000, "{seen}");
}
