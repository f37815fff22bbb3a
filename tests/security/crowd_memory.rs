//! Row 16: floods that are to fill the daemon's memory.

use crate::attack;
use keyloan_e2e::Sandbox;
use keyloan_e2e::programs::needed;
use keyloan_e2e::sandbox::Running;
use std::io::{BufRead, BufReader};

/// A server as one writes it first: it reads each request whole, however many come.
const NAIVE: &str = r"
import os, resource, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(99)
held = []
for _ in range(64):
    c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1])
    d, _ = s.accept(); held.append(bytearray(4 << 20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
";

/// Announces 8 MiB on each connection, sends as much of them as is taken, and never the last byte.
const SENDS: &str = r#"
import socket, sys
long, held = 8 * 1024 * 1024, []
frame = long.to_bytes(4, "big") + (1000).to_bytes(4, "big") + bytes(long - 1001)
for _ in range(200):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.setblocking(False)
    held.append([s, memoryview(frame)])
sent, idle = 0, 0
while idle < 2000:
    idle += 1
    for one in held:
        try: taken = one[0].send(one[1])
        except OSError: continue
        one[1] = one[1][taken:]; sent += taken; idle = 0
    if idle:
        import time; time.sleep(0.001)
print(sent, flush=True)
sys.stdin.read()
"#;

/// Kilobytes at most, so far.
fn peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn requests_of_megabytes_on_all_connections_do_not_fill_the_memory() {
    const MOST: u64 = 220_000;
    let sandbox = Sandbox::with_vault();
    let victim = sandbox.path("run/naive.sock").display().to_string();
    let held: u64 = attack(&sandbox, NAIVE, &[&victim]).ok().text().trim().parse().unwrap();
    assert!(held > MOST, "{held} kB");
    let socket = sandbox.socket().display().to_string();
    let pid = sandbox.daemon().unwrap();
    let mut flood = Running(sandbox.command(needed("python3"), &["-c", SENDS, &socket]).start());
    let mut sent = String::new();
    BufReader::new(flood.0.stdout.take().unwrap()).read_line(&mut sent).unwrap();
    // Sixteen times 8 MiB arrived at least; a key derivation of before took 128.
    assert!(sent.trim().parse::<u64>().unwrap() > 16 * 8_000_000, "{sent}");
    assert!(peak(pid) < MOST, "{} kB", peak(pid));
    // Whoever asks for little is served meanwhile.
    sandbox.status();
}
