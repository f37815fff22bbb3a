//! What a pinentry's window shows, as it stands in that program's memory. It runs undumpable, so that nobody but root
//! can read it: whoever runs these tests otherwise is told.

use crate::sandbox::Sandbox;
use std::io::{Read, Seek, SeekFrom};

/// The daemon's children that are no notification.
pub fn pinentries(sandbox: &Sandbox) -> Vec<u32> {
    let daemon = sandbox.daemon().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let is_pinentry = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !line.is_empty() && !String::from_utf8_lossy(&line).contains("notify-send")
    };
    children.filter(is_pinentry).collect()
}

/// Each text that begins so, up to its NUL, as often as it is there.
#[track_caller]
pub fn texts(sandbox: &Sandbox, begin: &str) -> Vec<String> {
    assert!(
        nix::unistd::Uid::effective().is_root(),
        "run as root: nobody else reads what an undumpable window shows"
    );
    let mut found = Vec::new();
    for pid in pinentries(sandbox) {
        let Ok(mut memory) = std::fs::File::open(format!("/proc/{pid}/mem")) else { continue };
        for line in std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default().lines() {
            let (area, rights) = line.split_once(' ').unwrap();
            let (start, end) = area.split_once('-').unwrap();
            let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
            if !rights.starts_with("rw") || end - start > 1 << 28 {
                continue;
            }
            let mut bytes = Vec::new();
            // Some areas are not to be read; what was read so far counts.
            let _ = memory
                .seek(SeekFrom::Start(start))
                .and_then(|_| (&memory).take(end - start).read_to_end(&mut bytes));
            found.extend(texts_in(&bytes, begin.as_bytes()));
        }
    }
    found
}

fn texts_in<'a>(bytes: &'a [u8], begin: &'a [u8]) -> impl Iterator<Item = String> + 'a {
    let starts = bytes.windows(begin.len()).enumerate().filter(move |(_, window)| *window == begin);
    starts.map(|(at, _)| {
        let text = bytes[at..].split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    })
}
