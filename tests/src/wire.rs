//! The control socket without keyloan's client: raw frames, for peers that lie.

use crate::sandbox::Sandbox;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A frame whose lengths are true.
pub fn frame(header: &str, tail: &[u8]) -> Vec<u8> {
    let following = u32::try_from(4 + header.len() + tail.len()).unwrap();
    let mut bytes = following.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(tail);
    bytes
}

/// Sends bytes and reads whatever comes back until the daemon closes; the daemon's socket admits its own
/// user only, so a small program of that user does the talking.
pub fn exchange(sandbox: &Sandbox, bytes: &[u8]) -> Vec<u8> {
    let talker = "import socket,sys\n\
        s=socket.socket(socket.AF_UNIX); s.settimeout(15); s.connect(sys.argv[1])\n\
        try:\n s.sendall(sys.stdin.buffer.read())\nexcept OSError: pass\n\
        out=b''\n\
        try:\n\x20while True:\n\x20\x20piece=s.recv(65536)\n\x20\x20if not piece: break\n\x20\x20out+=piece\n\
        except TimeoutError: sys.exit(3)\nexcept OSError: pass\n\
        sys.stdout.buffer.write(out)\n";
    let socket = sandbox.socket();
    let arguments = ["-c".as_ref(), talker.as_ref(), socket.as_os_str()];
    let output = sandbox.command(crate::programs::needed("python3"), &arguments).stdin(bytes).run();
    assert_eq!(output.status, 0, "the daemon kept the connection open: {}", output.stderr);
    output.stdout
}

/// Reads one frame and gives its header.
pub fn read_header(stream: &mut UnixStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut prefix = [0; 8];
    stream.read_exact(&mut prefix).unwrap();
    let following = u32::from_be_bytes(prefix[..4].try_into().unwrap());
    let header = u32::from_be_bytes(prefix[4..].try_into().unwrap());
    let mut rest = vec![0; usize::try_from(following).unwrap() - 4];
    stream.read_exact(&mut rest).unwrap();
    String::from_utf8_lossy(&rest[..usize::try_from(header).unwrap()]).into_owned()
}

pub fn send(stream: &mut UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}
