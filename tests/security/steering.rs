//! A requester that hides what steers its command, or makes looking at it dear.

use crate::attack;
use keyloan_e2e::{Sandbox, approver, wire};

/// Asks for a loan after it has made its environment 256 MiB long (prctl(2), `PR_SET_MM_MAP`) or unreadable.
const HIDER: &str = r#"
import ctypes, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
if sys.argv[1] == "long":
    length = 256 << 20
    at = libc.mmap(None, length, 3, 0x22, -1, 0)
    field = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
    of = lambda *numbers: [int(field[number - 3]) for number in numbers]
    # struct prctl_mm_map
    new = struct.pack("11QQII", *of(26, 27, 45, 46, 47), libc.sbrk(0), *of(28, 48, 49), at, at + length,
                      0, 0, 0xffffffff)
    if libc.prctl(35, 14, ctypes.cast(ctypes.c_char_p(new), ctypes.c_void_p).value, len(new), 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # The undefended victim: whoever reads an environment to its end reads all of that.
    print("read", len(open("/proc/self/environ", "rb").read()))
else:
    libc.prctl(4, 0, 0, 0, 0)
s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[2])
s.sendall(bytes.fromhex(sys.argv[3]))
while True:
    answer = s.recv(65536).decode("latin1")
    print(answer)
    if not answer or "waiting" not in answer or "lent" in answer: break
"#;

#[test]
fn an_environment_that_is_hidden_or_endless_is_a_warning_and_costs_little() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.keyloan(&["item", "set", "web", "vars"]).stdin("A=1\n").run().ok();
    let kept = sandbox.path("project/question");
    sandbox.set_approver(approver::recording(&kept));
    sandbox.stop();
    sandbox.unlock().ok();
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.daemon().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = peak();
    let frame = wire::frame(r#"{"version":1,"body":{"lend":{"sets":["web"]}}}"#, b"");
    let frame = frame.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let socket = sandbox.socket().display().to_string();
    for how in ["long", "hidden"] {
        let asked = attack(&sandbox, HIDER, &[how, &socket, &frame]).ok().text();
        assert!(asked.contains("\"lent\""), "{asked}");
        assert_eq!(asked.contains("read 268435456\n"), how == "long", "{asked}");
        let question = std::fs::read_to_string(&kept).unwrap();
        assert!(question.contains("the environment could not be read"), "{how}: {question}");
        std::fs::remove_file(&kept).unwrap();
    }
    assert!(peak() < before + 64 * 1024, "{before} KiB and then {} KiB", peak());
}
