//! Reads records from the end of the log towards its beginning: what is looked for is near the end, and the
//! log may be long.

use super::sink::RECORD;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PIECE: u64 = 256 * 1024;

/// Shows the records before `end`, the last one first, until `look` has seen enough and says false.
pub(crate) fn backwards(file: &File, end: u64, mut look: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut start = end;
    // The rest of a line whose beginning is not read yet.
    let mut rest = Vec::new();
    while start > 0 {
        let length = start.min(PIECE);
        start -= length;
        let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut piece, start)?;
        piece.append(&mut rest);
        let whole = match piece.iter().position(|byte| *byte == b'\n') {
            _ if start == 0 => 0,
            Some(newline) => newline + 1,
            None => piece.len(),
        };
        for line in piece[whole..].rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if !look(line) {
                return Ok(());
            }
        }
        piece.truncate(whole);
        if piece.len() > 2 * RECORD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long to be a record"));
        }
        rest = piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_line_is_shown_whole_from_the_last_to_the_first() {
        let path = std::env::temp_dir().join(format!("keyloan-backwards-{}", std::process::id()));
        let mut file = File::options().read(true).append(true).create(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // Lines of every length around a piece's, so that breaks fall before, on and after its edge.
        let lines: Vec<String> = (0..40_usize).map(|number| "x".repeat(number * 9_000 + 1)).collect();
        let text = lines.join("\n") + "\n";
        file.write_all(text.as_bytes()).unwrap();
        let mut shown = Vec::new();
        backwards(&file, text.len() as u64, |line| {
            shown.push(String::from_utf8(line.to_vec()).unwrap());
            true
        })
        .unwrap();
        shown.reverse();
        assert!(shown == lines);
        let mut count = 0;
        backwards(&file, text.len() as u64, |_| {
            count += 1;
            count < 3
        })
        .unwrap();
        assert_eq!(count, 3);
    }
}
