//! Values lent as files, read by the programs that people use. The table in docs/files.md says which program
//! takes which form; it is compared with what happens here.

use keyloan_e2e::programs::needed;
use keyloan_e2e::{Output, Running, Sandbox, approver, eventually};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The forms a file is lent in, as they are called in the table.
const FORMS: [&str; 2] = ["memory", "path"];

struct Program {
    name: &'static str,
    /// What the shell runs; `$F` names the lent file.
    line: String,
    variable: &'static str,
    /// What it prints only if it has read the file.
    prints: String,
    content: String,
}

fn program(name: &'static str, variable: &'static str, content: &str, line: &str, prints: &str) -> Program {
    Program { name, line: line.to_owned(), variable, prints: prints.to_owned(), content: content.to_owned() }
}

/// A server on the loopback that answers each request with the credentials it was sent.
fn credentials_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(16) {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let sent = request.lines().find(|line| line.to_lowercase().starts_with("authorization:"));
            let body = sent.unwrap_or("none").to_owned();
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    port
}

fn programs(sandbox: &Sandbox) -> Vec<Program> {
    let port = credentials_server();
    let key = sandbox.path("home/key").display().to_string();
    sandbox.command(needed("ssh-keygen"), &["-q", "-t", "ed25519", "-N", "", "-f", &key]).run().ok();
    let private = std::fs::read_to_string(&key).unwrap();
    let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
    let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let python = "python3 -c 'import os; print(open(os.environ[\"F\"]).read())'";
    let python_child = "python3 -c 'import os,subprocess; subprocess.run([\"cat\", os.environ[\"F\"]])'";
    let node = "node -e 'console.log(require(\"fs\").readFileSync(process.env.F, \"utf8\"))'";
    let node_child =
        "node -e 'console.log(require(\"child_process\").execSync(\"cat \\\"$F\\\"\").toString())'";
    let node_require = "node -e 'console.log(require(process.env.F).key)'";
    for name in ["python3", "node", "npm", "aws", "pip3", "git", "make", "busybox", "cat", "curl"] {
        needed(name);
    }
    sandbox.write("project/Makefile", "show:\n\t@cat \"$$F\"\n");
    let aws = "[default]\naws_access_key_id = AKIDLENT\naws_secret_access_key = s\n";
    let netrc = "machine 127.0.0.1 login lent password secret\n";
    let curl = format!("curl -s --netrc-file \"$F\" http://127.0.0.1:{port}/");
    let sent = "Basic bGVudDpzZWNyZXQ=";
    vec![
        program("python", "F", "lent-text", python, "lent-text"),
        program("a child of python", "F", "lent-text", python_child, "lent-text"),
        program("node", "F", "lent-text", node, "lent-text"),
        program("a child of node", "F", "lent-text", node_child, "lent-text"),
        program("node's require", "F", "{\"key\":\"lent-text\"}", node_require, "lent-text"),
        program(
            "aws",
            "AWS_SHARED_CREDENTIALS_FILE",
            aws,
            "/usr/bin/aws configure get aws_access_key_id",
            "AKIDLENT",
        ),
        program("curl --netrc-file", "F", netrc, &curl, sent),
        program(
            "npm",
            "NPM_CONFIG_USERCONFIG",
            "init-author-name=Lent\n",
            "npm config get init-author-name",
            "Lent",
        ),
        program(
            "pip",
            "PIP_CONFIG_FILE",
            "[global]\nindex-url = https://lent.example/simple\n",
            "/usr/bin/pip3 config list",
            "https://lent.example",
        ),
        program("git", "GIT_CONFIG_GLOBAL", "[user]\nname = Lent\n", "git config --get user.name", "Lent"),
        program(
            "git credential-store",
            "F",
            "https://u:lent-secret@example.org\n",
            "printf 'protocol=https\\nhost=example.org\\n\\n' | git credential-store --file \"$F\" get",
            "password=lent-secret",
        ),
        program("ssh-keygen", "F", &private, "ssh-keygen -y -f \"$F\"", &public),
        program("make", "F", "lent-text", "make -s show", "lent-text"),
        program("a static program", "F", "lent-text", "busybox cat \"$F\"", "lent-text"),
        program("a script's source", "F", "X=lent-text\n", ". \"$F\"; echo \"$X\"", "lent-text"),
        program("realpath", "F", "lent-text", "cat \"$(realpath \"$F\")\"", "lent-text"),
    ]
}

/// Lends `content` in `variable` in a form and runs a line.
fn lend(sandbox: &Sandbox, program: &Program, form: &str) -> Output {
    sandbox.keyloan(&["item", "set", "f", "content"]).stdin(&program.content).run().ok();
    let value = match form {
        "memory" => "\"local://f/content\"".to_owned(),
        form => format!("{{ ref = \"local://f/content\", as = \"{form}\", name = \"lent.json\" }}"),
    };
    sandbox.write("project/.keyloan.toml", format!("[files]\n{} = {value}\n", program.variable));
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox.with_secrets(&["--", "sh", "-c", &program.line]).run()
}

fn allowing() -> Sandbox {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.policy("item.write=allow");
    sandbox.policy("trust=allow");
    sandbox
}

#[test]
fn the_table_of_programs_is_what_happens() {
    let sandbox = allowing();
    let mut table = String::new();
    for program in programs(&sandbox) {
        let bare = sandbox.command(needed("sh"), &["-c", &program.line]).run();
        assert!(!bare.text().contains(&program.prints), "{} prints it without the file", program.name);
        let taken = FORMS.map(|form| {
            let run = lend(&sandbox, &program, form);
            if run.text().contains(&program.prints) { "yes" } else { "no" }
        });
        writeln!(table, "| {} | {} | {} |", program.name, taken[0], taken[1]).unwrap();
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/files.md");
    let page = std::fs::read_to_string(page).unwrap_or_default();
    assert!(page.contains(&table), "docs/files.md has another table than:\n{table}");
}

const LENT: &str = "lent-content-0451";

/// Lends the item `f` as a file with a path and as one in memory, and keeps the holder running.
fn held() -> (Sandbox, Running, PathBuf) {
    let sandbox = allowing();
    sandbox.keyloan(&["item", "set", "f", "content"]).stdin(LENT).run().ok();
    let manifest = "[files]\nM = \"local://f/content\"\n\
                    P = { ref = \"local://f/content\", as = \"path\", name = \"key.json\" }\n";
    sandbox.write("project/.keyloan.toml", manifest);
    sandbox.keyloan(&["trust"]).run().ok();
    let line = "echo \"$P\" >where; cat \"$P\" \"$M\" >content; exec sleep 1000";
    let holder = sandbox.with_secrets(&["--", "sh", "-c", line]).start();
    let content = sandbox.path("project/content");
    eventually("the files are read", || {
        std::fs::read_to_string(&content).is_ok_and(|text| text == format!("{LENT}{LENT}"))
    });
    let path = std::fs::read_to_string(sandbox.path("project/where")).unwrap();
    (sandbox, Running(holder), PathBuf::from(path.trim()))
}

/// The directory of all files of the loan that a lent path belongs to.
fn directory(path: &Path) -> &Path {
    path.parent().unwrap().parent().unwrap()
}

#[test]
fn a_file_with_a_path_is_private_in_memory_and_goes_with_its_holder() {
    let (sandbox, mut holder, path) = held();
    assert!(path.ends_with("P/key.json"), "{}", path.display());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(directory(&path))), (0o600, 0o700));
    let kind = sandbox.command(needed("stat"), &["-f", "-c", "%T", path.to_str().unwrap()]).run().ok();
    assert_eq!(kind.text(), "tmpfs\n");
    holder.end();
    eventually("the files are gone", || !directory(&path).exists());
}

#[test]
fn recall_lock_and_the_end_of_the_daemon_take_files_away() {
    let ends: [fn(&Sandbox); 3] = [
        |sandbox| drop(sandbox.keyloan(&["recall", "--all"]).run().ok()),
        |sandbox| drop(sandbox.keyloan(&["lock"]).run().ok()),
        Sandbox::stop,
    ];
    for end in ends {
        let (sandbox, _holder, path) = held();
        assert!(path.exists());
        end(&sandbox);
        assert!(!directory(&path).exists());
    }
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The process that waits for a holder's end, by the loan's name in its arguments.
fn watcher(path: &Path) -> Option<i32> {
    let loan = directory(path).file_name().unwrap().to_str().unwrap().to_owned();
    let wanted = format!("keyloan-files-watcher\0wait\0{loan}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted))
}

#[test]
fn whoever_is_killed_first_the_files_are_removed() {
    let (sandbox, mut holder, path) = held();
    kill(sandbox.daemon().unwrap());
    assert!(path.exists(), "the command goes on and needs them");
    holder.end();
    eventually("the watcher removes them", || !directory(&path).exists());

    let (sandbox, mut holder, path) = held();
    kill(watcher(&path).unwrap());
    holder.end();
    eventually("the daemon removes them", || !directory(&path).exists());
    drop(sandbox);

    let (sandbox, mut holder, path) = held();
    kill(watcher(&path).unwrap());
    kill(sandbox.daemon().unwrap());
    holder.end();
    assert!(path.exists(), "nobody is left to remove them");
    sandbox.unlock().ok();
    assert!(!directory(&path).exists(), "the next daemon does");
}

#[test]
fn the_watcher_keeps_nothing_of_the_callers_open_and_holds_no_value() {
    let (sandbox, _holder, path) = held();
    let pid = watcher(&path).unwrap();
    let names = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(!names.contains(LENT) && !names.contains("KEYLOAN_LOAN"), "{names}");
    assert_eq!(std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 3);
    let line =
        "x=$(with-secrets -- true); echo captured; with-secrets -- sh -c 'wait; ps -o comm= --ppid $$'";
    let run = sandbox.command(needed("sh"), &["-c", line]).run().ok();
    assert_eq!(run.text(), "captured\nps\n", "the command has no child that it did not start");
}

#[test]
fn a_sealed_file_can_be_read_by_children_and_changed_by_nobody() {
    let sandbox = allowing();
    sandbox
        .keyloan(&["item", "set", "f", "content"])
        .stdin([&b"a\0b\n"[..], &vec![0xff; 200_000]].concat())
        .run()
        .ok();
    sandbox.write("project/.keyloan.toml", "[files]\nF = \"local://f/content\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    let line = "wc -c <\"$F\"; (cat \"$F\") | head -c 3 | od -An -c; stat -L -c %a \"$F\"; echo x >\"$F\" || echo refused; \
                chmod 600 \"$F\" && echo x >\"$F\" || echo sealed; wc -c <\"$F\"";
    let run = sandbox.with_secrets(&["--", "bash", "-c", line]).run();
    let told: Vec<String> = run.text().split_whitespace().map(str::to_owned).collect();
    assert_eq!(told, ["200004", "a", "\\0", "b", "400", "refused", "sealed", "200004"], "{}", run.stderr);
}

#[test]
fn a_directory_of_files_is_what_a_program_finds_its_settings_in() {
    let sandbox = allowing();
    let port = credentials_server();
    sandbox.keyloan(&["item", "set", "curl", "settings"]).stdin("user = \"lent:secret\"\n").run().ok();
    let manifest = "[sets.web.files]\nCURL_HOME = { as = \"dir\", files = { \".curlrc\" = \
                    \"local://curl/settings\", other = \"local://curl/settings\" } }\n";
    sandbox.write("project/.keyloan.toml", manifest);
    sandbox.keyloan(&["trust"]).run().ok();
    let line = format!("ls -A \"$CURL_HOME\"; curl -s http://127.0.0.1:{port}/");
    let bare = sandbox.command(needed("sh"), &["-c", &line]).run().text();
    assert!(bare.ends_with("none"), "{bare}");
    let run = sandbox.with_secrets(&["-s", "web", "--", "sh", "-c", &line]).run().ok();
    assert_eq!(run.text(), ".curlrc\nother\nAuthorization: Basic bGVudDpzZWNyZXQ=");
    let told = sandbox.with_secrets(&["-s", "web", "--dry-run"]).run().ok().text();
    assert!(told.contains("CURL_HOME  from local://curl/settings, as .curlrc in a directory;"), "{told}");
    assert!(told.contains("decision: ask (file=ask)"), "{told}");
}

#[test]
fn a_rule_for_variables_does_not_lend_files() {
    let sandbox = allowing();
    sandbox.policy("env=allow");
    sandbox.keyloan(&["item", "set", "f", "content"]).stdin(LENT).run().ok();
    sandbox.write(
        "project/.keyloan.toml",
        "[env]\nE = \"local://f/content\"\n[files]\nF = \"local://f/content\"\n",
    );
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox.policy("file=deny");
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "the policy forbids it (file=deny)");
    sandbox.with_secrets(&["--only", "E", "--", "true"]).run().ok();
}

#[test]
fn a_masked_command_reads_its_files_and_shows_none_of_them() {
    let sandbox = allowing();
    sandbox.keyloan(&["item", "set", "f", "content"]).stdin(LENT).run().ok();
    sandbox.write("project/.keyloan.toml", "[files]\nF = \"local://f/content\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    let show = ["--", "sh", "-c", "echo \"$F\"; cat \"$F\"; wc -c <\"$F\""];
    let shown = sandbox.with_secrets(&[&["--mask"], &show[..]].concat()).run().ok().text();
    let lines: Vec<&str> = shown.split('\n').collect();
    assert_eq!(lines[1..], [&format!("***{}", LENT.len()), ""], "{shown}");
    eventually("the file is gone", || !directory(Path::new(lines[0])).exists());
    assert!(sandbox.with_secrets(&show).run().ok().text().contains(LENT));
}
