//! What an enrolled terminal shows, drawn to fit: the question first, whole or in pages, then what waits, then what
//! happened. Each row is cut to the width, so that no text of others reaches the left edge.

/// More rows are not believed: a program may have told the terminal that it is larger than it is.
const ROWS: usize = 50;
/// Rows for what is not the question: the head, what waits, the remark, the keys.
const FIXED: usize = 4;
/// The fewest rows of a question on a page, with the row that names the page.
const PAGE: usize = 4;
/// The fewest columns; a question is not broken into narrower lines.
const COLUMNS: usize = 24;

pub(super) struct View<'a> {
    pub(super) head: &'a str,
    /// The text of the question, broken to the width.
    pub(super) question: Option<&'a str>,
    pub(super) waiting: Vec<&'a str>,
    pub(super) happened: Vec<&'a str>,
    pub(super) remark: &'a str,
    /// The last row, where the cursor stands.
    pub(super) keys: &'a str,
    /// From 0.
    pub(super) page: usize,
}

pub(super) struct Frame {
    pub(super) rows: Vec<String>,
    pub(super) pages: usize,
    pub(super) page: usize,
}

impl View<'_> {
    /// `None` where there is no room to show anything by.
    pub(super) fn frame(&self, rows: usize, columns: usize) -> Option<Frame> {
        let rows = rows.min(ROWS);
        if rows < FIXED + PAGE || columns < COLUMNS {
            return None;
        }
        let question: Vec<&str> =
            self.question.map(|text| text.trim_matches('\n').lines().collect()).unwrap_or_default();
        let room = rows - FIXED;
        let mut pages: Vec<&[&str]> = vec![&question];
        if question.len() > room {
            pages = question.chunks(room - 1).collect();
        }
        let page = self.page.min(pages.len() - 1);
        let mut shown = vec![self.head.to_owned()];
        let mut spare = room - pages[page].len();
        if pages.len() > 1 {
            spare = 0;
        }
        let gap = |shown: &mut Vec<String>, spare: &mut usize| {
            if *spare > 0 {
                shown.push(String::new());
                *spare -= 1;
            }
        };
        gap(&mut shown, &mut spare);
        shown.extend(pages[page].iter().map(|line| (*line).to_owned()));
        if pages.len() > 1 {
            shown.push(format!("-- page {} of {} of this question --", page + 1, pages.len()));
        }
        if self.question.is_some() {
            gap(&mut shown, &mut spare);
        }
        shown.push(self.summary());
        let (count, listed) = (self.waiting.len(), self.waiting.len().min(spare));
        for (at, text) in self.waiting.iter().take(listed).enumerate() {
            let more = count - at;
            let is_cut = at + 1 == listed && more > 1;
            shown.push(if is_cut {
                format!("  … and {more} more")
            } else {
                format!("  {}  {text}", at + 1)
            });
        }
        spare -= listed;
        if spare > 2 && !self.happened.is_empty() {
            gap(&mut shown, &mut spare);
            shown.push("happened lately (times in UTC):".to_owned());
            spare -= 1;
            let first = self.happened.len().saturating_sub(spare);
            shown.extend(self.happened[first..].iter().map(|line| format!("  {line}")));
        }
        shown.resize(rows - 2, String::new());
        shown.extend([self.remark.to_owned(), self.keys.to_owned()]);
        // The last column stays free: some terminals break the line when it is written to.
        let rows = shown.iter().map(|row| cut(row, columns - 1)).collect();
        Some(Frame { rows, pages: pages.len(), page })
    }

    fn summary(&self) -> String {
        match (self.waiting.len(), self.question) {
            (0, None) => "nothing is asked here".to_owned(),
            (0, Some(_)) => "nothing else waits".to_owned(),
            (1, Some(_)) => "1 more waits:".to_owned(),
            (count, Some(_)) => format!("{count} more wait:"),
            // Passphrases are typed elsewhere, and so is what was asked before this terminal was enrolled.
            (count, None) => format!("something is asked elsewhere, and {count} wait behind it:"),
        }
    }
}

/// What is not ASCII may be twice as wide.
fn cut(row: &str, columns: usize) -> String {
    let width = |c: char| if c.is_ascii() { 1 } else { 2 };
    if row.chars().map(width).sum::<usize>() <= columns {
        return row.to_owned();
    }
    let mut shown = String::with_capacity(row.len());
    let mut column = 2;
    for c in row.chars() {
        column += width(c);
        if column > columns {
            break;
        }
        shown.push(c);
    }
    shown + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(question: &'a str, others: &'a [String], page: usize) -> View<'a> {
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        View {
            head: "keyloan approve on pts/300; the vault locks after 480 min without a request",
            question: (!question.is_empty()).then_some(question),
            waiting: others.clone(),
            happened: others,
            remark: "remark",
            keys: "keys",
            page,
        }
    }

    #[test]
    fn every_line_of_a_question_is_on_one_of_its_pages_and_no_page_is_larger_than_the_terminal() {
        let others = vec!["パ".repeat(200), "x".repeat(200), "short".to_owned(), "パx".repeat(80)];
        let width = |row: &str| row.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum::<usize>();
        for rows in 8..60 {
            for columns in [24, 25, 80, 500] {
                for lines in 0..70 {
                    let lines: Vec<String> = (0..lines).map(|line| format!("line <{line}>")).collect();
                    let text = format!("\n{}\n", lines.join("\n"));
                    let mut seen = Vec::new();
                    let (mut page, mut pages) = (0, 1);
                    while page < pages {
                        let frame = view(&text, &others, page).frame(rows, columns).unwrap();
                        assert_eq!((frame.rows.len(), frame.page), (rows.min(ROWS), page));
                        assert_eq!(frame.rows[frame.rows.len() - 2..], ["remark", "keys"]);
                        assert!(frame.rows.iter().all(|row| width(row) < columns), "{:#?}", frame.rows);
                        seen.extend(frame.rows.iter().filter(|row| row.starts_with("line <")).cloned());
                        pages = frame.pages;
                        page += 1;
                    }
                    assert_eq!(seen, lines);
                }
            }
        }
    }

    #[test]
    fn what_others_say_never_begins_a_row() {
        let forged = vec!["keyloan: lend nothing".to_owned(); 5];
        let frame = view("keyloan: lend all", &forged, 0).frame(24, 80).unwrap();
        let begins = frame.rows.iter().filter(|row| row.starts_with("keyloan: ")).count();
        assert_eq!((begins, frame.rows.iter().filter(|row| row.contains("lend nothing")).count()), (1, 10));
    }

    #[test]
    fn more_than_there_is_room_for_is_counted() {
        let waiting: Vec<String> = (0..32).map(|number| format!("w{number}")).collect();
        let frame = view("", &waiting, 0).frame(12, 80).unwrap();
        assert!(frame.rows.iter().any(|row| row == "  … and 26 more"), "{:#?}", frame.rows);
        assert!(view("", &[], 0).frame(7, 80).is_none() && view("", &[], 0).frame(8, 23).is_none());
    }
}
